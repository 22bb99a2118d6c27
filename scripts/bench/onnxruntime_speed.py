#!/usr/bin/env python3
"""Speed of one exported network in mala and in onnxruntime, taking turns, as JSON.

    ./mala export WEIGHTS model.onnx --model mavit_t
    python3 scripts/bench/onnxruntime_speed.py model.onnx --model mavit_t [--batch 1 8] [--threads 2] [--rounds 3]

Each round times both, one after the other; a figure is the median of the rounds' medians.
"""
import argparse
import json
import statistics
import subprocess
import time

import numpy
import onnxruntime


def onnxruntime_rate(path, batch, threads, steps):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    value = session.get_inputs()[0]
    images = numpy.random.default_rng(0).standard_normal([batch, *value.shape[1:]], dtype=numpy.float32)
    times = []
    for _ in range(3 + steps):
        start = time.perf_counter()
        session.run(None, {value.name: images})
        times.append(time.perf_counter() - start)
    return batch / statistics.median(times[3:])


def mala_rate(mala, model, batch, threads, steps):
    out = subprocess.run([mala, 'bench', 'infer', '--json', '--quiet', '--model', model, '--batch', str(batch),
                          '--threads', str(threads), '--rounds', str(steps)],
                         check=True, capture_output=True, text=True).stdout
    return json.loads(out)['images_per_s']


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('onnx')
    p.add_argument('--model', default='mavit_t')
    p.add_argument('--mala', default='./mala')
    p.add_argument('--batch', type=int, nargs='+', default=[1, 8])
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--steps', type=int, default=11)
    a = p.parse_args()
    rows = []
    for batch in a.batch:
        rates = [(mala_rate(a.mala, a.model, batch, a.threads, a.steps),
                  onnxruntime_rate(a.onnx, batch, a.threads, a.steps)) for _ in range(a.rounds)]
        own, other = (statistics.median(r) for r in zip(*rates))
        rows.append({'batch': batch, 'images_per_s': {'mala': round(own, 2), 'onnxruntime': round(other, 2)},
                     'ratio': round(own / other, 2)})
    print(json.dumps({'model': a.model, 'threads': a.threads, 'rounds': a.rounds,
                      'onnxruntime': onnxruntime.__version__, 'rows': rows}, indent=1))


if __name__ == '__main__':
    main()
