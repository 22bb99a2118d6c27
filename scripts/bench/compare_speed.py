#!/usr/bin/env python3
"""MAViT-T at 224, float32: mala against PyTorch on this machine, in turn, round by round; prints medians and ratios.

    python3 scripts/bench/compare_speed.py --reference DIR [--threads 2] [--rounds 5] >scripts/bench/results/NAME.json

--reference is the folder of mavit_reference.py. Of PyTorch's modes the fastest of each row is the one compared with.
Peak memory is that of the whole process. The peak of the machine is measured by `mala bench peak` in the same rounds."""
import argparse
import json
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROWS = [('infer', 1), ('infer', 8), ('train', 8)]
MODES = {'infer': ['eager', 'channels_last', 'jit', 'compile_channels_last'],
         'train': ['eager', 'channels_last', 'compile_channels_last']}


def last_json(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        print(f'{" ".join(command)}: exit {done.returncode}: {done.stderr[-300:]}', file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--reference', required=True)
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--rows', nargs='*', help='only these, as infer:1')
    p.add_argument('--modes', nargs='*', help='only these of PyTorch')
    a = p.parse_args()
    chosen = [(what, batch) for what, batch in ROWS if a.rows is None or f'{what}:{batch}' in a.rows]
    runs = {}
    for round_ in range(a.rounds):
        for what, batch in chosen:
            commands = {'mala': ['./mala', 'bench', what, '--batch', str(batch), '--threads', str(a.threads),
                                 '--rounds', '9' if what == 'infer' else '4', '--json']}
            for mode in MODES[what]:
                if a.modes is None or mode in a.modes:
                    commands[mode] = [sys.executable, os.path.join(HERE, 'pytorch_speed.py'), '--reference', a.reference,
                                      '--what', what, '--batch', str(batch), '--mode', mode, '--threads', str(a.threads),
                                      '--rounds', '5']
            for name, command in commands.items():
                result = last_json(command)
                if result:
                    runs.setdefault((what, batch, name), []).append(result)
        peak = last_json(['./mala', 'bench', 'peak', '--threads', str(a.threads), '--json'])
        runs.setdefault(('peak', 0, 'mala'), []).append(peak)
        print(f'round {round_ + 1} of {a.rounds}', file=sys.stderr)

    peak = statistics.median(r['gflops'] for r in runs[('peak', 0, 'mala')])
    rows = []
    for what, batch in chosen:
        speed = {name: statistics.median(r['images_per_s'] for r in list_)
                 for (w, b, name), list_ in runs.items() if (w, b) == (what, batch)}
        memory = {name: max(r['peak_rss_mb'] for r in list_)
                  for (w, b, name), list_ in runs.items() if (w, b) == (what, batch)}
        others = {n: v for n, v in speed.items() if n != 'mala'}
        best = max(others, key=others.get) if others else None
        gflops = statistics.median(r['gflops'] for r in runs[(what, batch, 'mala')])
        rows.append({'what': what, 'batch': batch, 'images_per_s': {n: round(v, 2) for n, v in speed.items()},
                     'peak_rss_mb': {n: round(v) for n, v in memory.items()}, 'fastest_pytorch': best,
                     'ratio': round(speed['mala'] / others[best], 2) if best else None,
                     'share_of_peak': round(gflops / peak, 3)})
        print(f'{what} batch {batch}: mala {speed["mala"]:.1f} images/s ({gflops / peak:.0%} of peak), '
              f'{best} {others.get(best, 0):.1f}, ratio {rows[-1]["ratio"]}; memory {memory["mala"]:.0f} MB '
              f'against {memory.get(best, 0):.0f}', file=sys.stderr)
    versions = [r[0] for (w, b, n), r in runs.items() if n != 'mala']
    device = runs[(*chosen[0], 'mala')][0]['device']
    print(json.dumps({'device': device, 'threads': a.threads, 'rounds': a.rounds, 'peak_gflops': round(peak, 1),
                      'torch': versions[0]['torch'] if versions else None, 'rows': rows}, indent=1))


if __name__ == '__main__':
    main()
