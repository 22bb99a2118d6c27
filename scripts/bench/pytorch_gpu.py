"""Speed of MAViT in PyTorch on a GPU, bfloat16 autocast: one JSON object, for scripts/bench/gpu_bench.sh.

    python3 scripts/bench/pytorch_gpu.py --reference DIR --what infer|train --batch N --mode eager|compile_channels_last

    python3 scripts/bench/pytorch_gpu.py --what product     # a large bfloat16 matrix product on the GPU, TFLOP/s

DIR holds mavit_reference.py. Times are medians of CUDA events after a warm-up that compilation belongs to. Rotary tables
are cached, AdamW is the fused one. What does not fit into the GPU's memory is a row that says so. `--compile-only` fills
PyTorch's cache of compiled graphs and measures nothing. `--device cpu --tiny` is a smoke test of this script without a
GPU: one round."""
import argparse
import json
import statistics
import sys
import time

from pytorch_speed import cache_tables


def make_step(torch, model, images, what):
    labels = torch.arange(images.shape[0], device=images.device) * 7 % 1000
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    if what == 'infer':
        def step():
            with torch.inference_mode(), torch.autocast(images.device.type, torch.bfloat16):
                return model(images)
        return step
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.05, fused=True)

    def step():
        with torch.autocast(images.device.type, torch.bfloat16):
            loss = loss_of(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return step


def timed(torch, step, device):
    """Milliseconds of one call."""
    if device == 'cpu':
        start = time.perf_counter()
        step()
        return 1e3 * (time.perf_counter() - start)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    step()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def measure_product(torch, device):
    n = 8192 if device == 'cuda' else 128
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    ms = statistics.median([timed(torch, lambda: a @ b, device) for _ in range(15)][5:])
    print(json.dumps({'program': f'PyTorch {torch.__version__}', 'what': 'product', 'ms': ms,
                      'tflop_per_s': 2e-9 * n**3 / ms}))


def measure(torch, reference, o):
    """Times of a round, in milliseconds."""
    torch.manual_seed(0)
    model = reference.MAViT(o.size).to(o.device)
    model.train(o.what == 'train')
    images = torch.randn(o.batch, 3, o.height, o.width, device=o.device)
    if o.mode == 'compile_channels_last':
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
        model = torch.compile(model)
    step = make_step(torch, model, images, o.what)
    for _ in range(o.warmup):
        step()
    return [timed(torch, step, o.device) for _ in range(o.rounds)]


def main():
    parser = argparse.ArgumentParser(description='speed of MAViT in PyTorch on a GPU')
    parser.add_argument('--reference', metavar='DIR')
    parser.add_argument('--what', choices=['infer', 'train', 'product'], required=True)
    parser.add_argument('--mode', choices=['eager', 'compile_channels_last'], default='eager')
    parser.add_argument('--size', default='T')
    parser.add_argument('--batch', type=int, default=256)
    parser.add_argument('--height', type=int, default=224)
    parser.add_argument('--width', type=int, default=224)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--warmup', type=int, default=5)
    parser.add_argument('--device', choices=['cuda', 'cpu'], default='cuda')
    parser.add_argument('--tiny', action='store_true')
    parser.add_argument('--compile-only', action='store_true')
    o = parser.parse_args()
    import torch
    if o.what == 'product':
        measure_product(torch, o.device)
        return
    if not o.reference:
        parser.error('--reference DIR is needed: the folder of mavit_reference.py')
    sys.path.insert(0, o.reference)
    import mavit_reference as reference
    cache_tables(torch, reference)
    if o.tiny or o.compile_only:
        o.rounds = o.warmup = 1
    row = {'program': f'PyTorch {torch.__version__} {o.mode}', 'mode': o.mode, 'what': o.what, 'model': o.size,
           'size': f'{o.height}x{o.width}', 'batch': o.batch}
    try:
        times = measure(torch, reference, o)
    except torch.OutOfMemoryError:
        row['error'] = 'out of memory'
    else:
        row |= {'ms': statistics.median(times), 'ms_best': min(times),
                'images_per_s': 1e3 * o.batch / statistics.median(times),
                'device_mb': torch.cuda.max_memory_allocated() / 2**20 if o.device == 'cuda' else 0}
    if not o.compile_only:
        print(json.dumps(row))


if __name__ == '__main__':
    main()
