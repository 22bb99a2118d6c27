"""Speed of MAViT in PyTorch on a GPU, bfloat16 autocast: one JSON object, for scripts/bench/gpu_bench.sh.

    python3 scripts/bench/pytorch_gpu.py --reference DIR --what infer|train --batch N --mode eager|compile_channels_last

DIR holds mavit_reference.py. Times are medians of CUDA events after a warm-up that compilation belongs to. Rotary tables
are cached, AdamW is the fused one."""
import argparse
import json
import statistics
import sys

from pytorch_speed import cache_tables


def make_step(torch, model, images, what):
    labels = torch.arange(images.shape[0], device='cuda') * 7 % 1000
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    if what == 'infer':
        def step():
            with torch.inference_mode(), torch.autocast('cuda', torch.bfloat16):
                return model(images)
        return step
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.05, fused=True)

    def step():
        with torch.autocast('cuda', torch.bfloat16):
            loss = loss_of(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return step


def main():
    parser = argparse.ArgumentParser(description='speed of MAViT in PyTorch on a GPU')
    parser.add_argument('--reference', required=True, metavar='DIR')
    parser.add_argument('--what', choices=['infer', 'train'], required=True)
    parser.add_argument('--mode', choices=['eager', 'compile_channels_last'], default='eager')
    parser.add_argument('--size', default='T')
    parser.add_argument('--batch', type=int, default=256)
    parser.add_argument('--height', type=int, default=224)
    parser.add_argument('--width', type=int, default=224)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--warmup', type=int, default=5)
    o = parser.parse_args()
    sys.path.insert(0, o.reference)
    import torch
    import mavit_reference as reference
    cache_tables(torch, reference)
    torch.manual_seed(0)
    model = reference.MAViT(o.size).cuda()
    model.train(o.what == 'train')
    images = torch.randn(o.batch, 3, o.height, o.width, device='cuda')
    if o.mode == 'compile_channels_last':
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
        model = torch.compile(model)
    step = make_step(torch, model, images, o.what)
    for _ in range(o.warmup):
        step()
    times = []
    for _ in range(o.rounds):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        step()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    ms = statistics.median(times)
    print(json.dumps({'program': f'PyTorch {torch.__version__} {o.mode}', 'what': o.what, 'model': o.size,
                      'size': f'{o.height}x{o.width}', 'batch': o.batch, 'ms': ms, 'ms_best': min(times),
                      'images_per_s': 1e3 * o.batch / ms, 'device_mb': torch.cuda.max_memory_allocated() / 2**20}))


if __name__ == '__main__':
    main()
