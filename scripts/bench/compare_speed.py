#!/usr/bin/env python3
"""MAViT-T at 224, float32: mala against PyTorch on this machine, in turn, round by round; prints medians and ratios.

    python3 scripts/bench/compare_speed.py --reference DIR [--threads 2] [--rounds 5] >scripts/bench/results/NAME.json

Where the machine is to be had for short times only, --parts FILE keeps every measurement, a line each, and a call
measures for --seconds at most what FILE lacks; the record is printed when nothing is missing.

--reference is the folder of mavit_reference.py. Of PyTorch's modes the fastest of each row is the one compared with.
Peak memory is that of the whole process. The peak of the machine is measured by `mala bench peak` in the same rounds."""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

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


def commands_of(what, batch, a):
    """By name, what measures a row in one round."""
    commands = {'mala': ['./mala', 'bench', what, '--batch', str(batch), '--threads', str(a.threads), '--rounds',
                         '9' if what == 'infer' else '4', '--json']}
    for mode in MODES[what]:
        if a.modes is None or mode in a.modes:
            commands[mode] = [sys.executable, os.path.join(HERE, 'pytorch_speed.py'), '--reference', a.reference,
                              '--what', what, '--batch', str(batch), '--mode', mode, '--threads', str(a.threads),
                              '--rounds', '5']
    return commands


def read_parts(path):
    if not path or not os.path.exists(path):
        return {}
    with open(path) as f:
        return {tuple(key): result for key, result in map(json.loads, f)}


def measure(a, chosen):
    """Results by (what, batch, name), in the order of the rounds; None when time was up before all were there."""
    done, end = read_parts(a.parts), time.monotonic() + (a.seconds or float('inf'))
    runs = {}
    for round_ in range(a.rounds):
        todo = {(what, batch, name): c for what, batch in chosen for name, c in commands_of(what, batch, a).items()}
        todo[('peak', 0, 'mala')] = ['./mala', 'bench', 'peak', '--threads', str(a.threads), '--json']
        for key, command in todo.items():
            if (round_, *key) not in done:
                if time.monotonic() > end:
                    print(f'stopped in round {round_ + 1} of {a.rounds}', file=sys.stderr)
                    return None
                done[(round_, *key)] = last_json(command)
                if a.parts:
                    with open(a.parts, 'a') as f:
                        f.write(json.dumps([(round_, *key), done[(round_, *key)]]) + '\n')
            if done[(round_, *key)]:
                runs.setdefault(key, []).append(done[(round_, *key)])
        print(f'round {round_ + 1} of {a.rounds}', file=sys.stderr)
    return runs


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--reference', required=True)
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--rows', nargs='*', help='only these, as infer:1')
    p.add_argument('--modes', nargs='*', help='only these of PyTorch')
    p.add_argument('--parts', metavar='FILE', help='measurements so far; those that are there are not repeated')
    p.add_argument('--seconds', type=float, help='begin no measurement after that time')
    a = p.parse_args()
    chosen = [(what, batch) for what, batch in ROWS if a.rows is None or f'{what}:{batch}' in a.rows]
    runs = measure(a, chosen)
    if runs is None:
        sys.exit(75)

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
