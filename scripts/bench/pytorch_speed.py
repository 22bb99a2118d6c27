"""Speed of MAViT in PyTorch on this machine's CPU: one JSON object per measurement, for comparison with `mala bench`.

    python3 scripts/bench/pytorch_speed.py --reference DIR [--size T] [--what infer|train] [--mode MODE] [--batch N]

DIR holds mavit_reference.py. Without --what, --mode or --batch every sensible combination is measured, one after the
other in one process; an outer script that interleaves programs asks for one combination per call.

What PyTorch is granted, so that the comparison is fair to it:
  the rotary tables are computed once, not in every block        (--no-table-cache undoes it)
  freed tensors stay with the process instead of being unmapped  (--no-keep-memory undoes it)
  compiled inference freezes the weights, so that they are packed for oneDNN once
  AdamW is the fused one
  compilation and warm-up are not counted; ms is the median of the rounds, best_ms the fastest of them"""
import argparse
import ctypes
import functools
import json
import resource
import statistics
import sys
import time

MODES = {'infer': ['eager', 'channels_last', 'jit', 'compile', 'compile_channels_last'],
         'train': ['eager', 'channels_last', 'compile', 'compile_channels_last']}
BATCHES = {'infer': [1, 8], 'train': [8]}


def keep_memory():
    """Makes glibc serve large blocks from a heap that never shrinks: no page faults for every new tensor."""
    m_trim_threshold, m_mmap_max = -1, -4
    libc = ctypes.CDLL(None)
    if not hasattr(libc, 'mallopt') or not (libc.mallopt(m_mmap_max, 0) and libc.mallopt(m_trim_threshold, 2**31 - 1)):
        sys.exit('pytorch_speed.py: this libc cannot keep memory: pass --no-keep-memory')


def cache_tables(torch, reference):
    """Rotary tables are computed once per shape, and are constants to the compiler."""
    cached = functools.cache(reference.rope_table)
    reference.rope_table = torch.compiler.assume_constant_result(lambda *shape: cached(*shape))


def inference_step(torch, model, images, mode):
    model.eval()
    if mode == 'jit':
        with torch.no_grad():
            model = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(model, images)))
    elif mode.startswith('compile'):
        import torch._inductor.config as inductor
        inductor.freezing = True
        model = torch.compile(model)

    def step():
        with torch.no_grad():
            return model(images)
    return step


def training_step(torch, model, images, mode):
    model.train()
    labels = torch.arange(images.shape[0]) * 7 % 1000
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{'params': decay, 'weight_decay': 0.05}, {'params': plain, 'weight_decay': 0.0}],
                                  lr=1e-3, fused=True)
    forward = torch.compile(model) if mode.startswith('compile') else model

    def step():
        loss = torch.nn.functional.cross_entropy(forward(images), labels, label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss
    return step


def measure(torch, reference, what, mode, batch, options):
    torch.manual_seed(0)
    if hasattr(torch, '_dynamo'):
        torch._dynamo.reset()
    model = reference.MAViT(options.size)
    images = torch.randn(batch, 3, options.height, options.width)
    if mode.endswith('channels_last'):
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    step = (inference_step if what == 'infer' else training_step)(torch, model, images, mode)
    start = time.perf_counter()
    for _ in range(options.warmup):
        step()
    warmup, times = time.perf_counter() - start, []
    for _ in range(options.rounds):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    median = statistics.median(times)
    print(json.dumps({
        'what': what, 'mode': mode, 'batch': batch, 'images_per_s': round(batch / median, 2),
        'ms': round(median * 1e3, 2), 'best_ms': round(min(times) * 1e3, 2), 'rounds': options.rounds,
        'warmup_s': round(warmup, 1), 'peak_rss_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        'size': options.size, 'height': options.height, 'width': options.width, 'torch': torch.__version__,
        'threads': torch.get_num_threads()}), flush=True)


def main():
    parser = argparse.ArgumentParser(description='speed of MAViT in PyTorch on the CPU, as JSON lines')
    parser.add_argument('--reference', required=True, metavar='DIR', help='the folder of mavit_reference.py')
    parser.add_argument('--size', default='T')
    parser.add_argument('--what', choices=list(MODES))
    parser.add_argument('--mode', choices=MODES['infer'])
    parser.add_argument('--batch', type=int)
    parser.add_argument('--height', type=int, default=224)
    parser.add_argument('--width', type=int, default=224)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=11)
    parser.add_argument('--warmup', type=int, default=3)
    parser.add_argument('--no-keep-memory', action='store_true')
    parser.add_argument('--no-table-cache', action='store_true')
    options = parser.parse_args()
    if options.rounds < 5:
        parser.error('--rounds: at least 5, a median of fewer says little')
    if not options.no_keep_memory:
        keep_memory()

    import torch
    sys.path.insert(0, options.reference)
    import mavit_reference as reference
    if not options.no_table_cache:
        cache_tables(torch, reference)
    torch.set_num_threads(options.threads)
    for what in [options.what] if options.what else list(MODES):
        modes = [options.mode] if options.mode else MODES[what]
        for mode in [m for m in modes if m in MODES[what]]:
            for batch in [options.batch] if options.batch else BATCHES[what]:
                measure(torch, reference, what, mode, batch, options)


if __name__ == '__main__':
    main()
