"""PyTorch checkpoints against PyTorch itself: what torch.save wrote has to arrive bit for bit, and what mala writes has
to load with weights_only=True, bit for bit. With a library (make lib) also the logits: of the imported checkpoint,
through mala.h, against tests/golden/full.json and against the reference model with what was written loaded into it.

    python3 scripts/check_pth.py ./mala FOLDER_OF_REFERENCE [--model T] [--library build/libmala.so]

FOLDER_OF_REFERENCE holds mavit_reference.py, a MAViT in plain PyTorch. Needs torch and safetensors."""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file

import libmala


def same(a, b):
    """equal names, types, shapes and bits"""
    assert list(a) == list(b) or sorted(a) == sorted(b), set(a) ^ set(b)
    for name, x in a.items():
        y = b[name]
        assert x.dtype == y.dtype and x.shape == y.shape, (name, x.dtype, y.dtype, x.shape, y.shape)
        assert x.contiguous().reshape(-1).view(torch.uint8).equal(y.contiguous().reshape(-1).view(torch.uint8)), name
    return len(a)


def checkpoint(model, average):
    """what the released training script saves"""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    sum(p.float().sum() for p in model.parameters()).backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    return {'model': model.state_dict(), 'model_ema': average.state_dict(), 'optimizer': optimizer.state_dict(),
            'lr_scheduler': scheduler.state_dict(), 'epoch': 299, 'scaler': {'scale': 65536.0}, 'max_accuracy': 84.5,
            'args': argparse.Namespace(model='MAViT_T', lr=1e-3, betas=(0.9, 0.999), device=torch.device('cpu'))}


def views():
    """shared, strided, offset and unusual tensors"""
    base = torch.randn(6, 10)
    return {'whole': base, 'transposed': base.t(), 'row': base[3], 'column': base[:, 4], 'steps': base[::2, 1::3],
            'scalar': base[2, 2], 'empty': torch.empty(0, 3), 'one': base[None, :1], 'half': base.half(),
            'bfloat16': base.bfloat16().t(), 'double': base.double(), 'long': torch.arange(-3, 9).reshape(3, 4).t(),
            'int': torch.arange(5, dtype=torch.int32), 'short': torch.arange(5, dtype=torch.int16),
            'char': torch.arange(-5, 5, dtype=torch.int8), 'byte': torch.arange(5, dtype=torch.uint8),
            'bool': torch.tensor([True, False, True]), 'nan': torch.tensor([float('nan'), float('-inf'), -0.0]),
            'uint16': torch.arange(7).to(torch.uint16), 'channels_last':
            torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), 'parameter': torch.nn.Parameter(base[1:3])}


def check_logits(library, ref, model, size, weights):
    """model: the reference with what mala wrote, loaded with strict=True"""
    images = ref.images_by_rule(1, 224, 224).float().contiguous()
    mala = libmala.Model(library, weights)
    own = torch.from_numpy(mala.tensors(images.numpy())[0])
    mala.close()
    with torch.no_grad():
        theirs = model.eval()(images)[0]
    kinds = ['mala', 'mala', 'softmax', 'softmax']
    with open(os.path.join(os.path.dirname(__file__), '../tests/golden/full.json')) as f:
        golden = next(torch.tensor(g['logits']) for g in json.load(f)
                      if g['size'] == size and g['height'] == 224 and g['kinds'] == kinds)
    differences = [float((own - other).abs().max()) for other in (theirs, golden)]
    print('logits of mala: %.1e from PyTorch\'s, %.1e from golden/full.json' % tuple(differences))
    assert max(differences) <= 1e-4


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('mala')
    parser.add_argument('reference')
    parser.add_argument('--model', default='T')
    parser.add_argument('--library', help='libmala.so: compares logits, too')
    options = parser.parse_args()
    sys.path.insert(0, options.reference)
    import mavit_reference as ref

    with tempfile.TemporaryDirectory() as folder:
        def path(name):
            return os.path.join(folder, name)

        def run(*arguments):
            result = subprocess.run([options.mala, 'import', '--force', *arguments], capture_output=True, text=True)
            assert result.returncode == 0, result.stderr
            return result.stderr

        model, average = (ref.set_by_rule(ref.MAViT(options.model)) for _ in range(2))
        for p in average.parameters():
            p.data.mul_(0.5)
        saved = checkpoint(model, average)
        ref.set_by_rule(model)  # again, after the step of the optimizer
        torch.save(saved, path('c.pth'))
        size = os.path.getsize(path('c.pth'))
        arch = ['--model', 'mavit_' + options.model.lower()]
        for key, flags in (('model_ema', []), ('model_ema', ['--ema']), ('model', ['--no-ema'])):
            said = run(path('c.pth'), path('c.safetensors'), *arch, *flags)
            assert f'takes "{key}"' in said, said
            n = same(saved[key], load_file(path('c.safetensors')))
            print(f'{size / 1e6:.0f} MB checkpoint {" ".join(flags) or "(no flag)"}: {key}, {n} tensors, identical bits')

        run(path('c.safetensors'), path('back.pth'), *arch)
        loaded = torch.load(path('back.pth'), weights_only=True)
        n = same(saved['model'], loaded['model'])
        reloaded = ref.MAViT(options.model)
        reloaded.load_state_dict(loaded['model'])
        print(f'written .pth: torch.load(weights_only=True), {n} tensors, identical bits, load_state_dict strict')
        if options.library:
            check_logits(options.library, ref, reloaded.float(), options.model, path('c.safetensors'))

        for wrapped in (False, True):
            tensors = views()
            torch.save({'module._orig_mod.' * wrapped + k: v for k, v in tensors.items()}, path('v.pth'))
            run(path('v.pth'), path('v.safetensors'))
            n = same(tensors, load_file(path('v.safetensors')))
        no_uint16 = {k: v for k, v in tensors.items() if k != 'uint16'}
        torch.save(no_uint16, path('v.pth'))
        run(path('v.pth'), path('w.pth'), '--key', '')
        same(no_uint16, torch.load(path('w.pth'), weights_only=True))
        print(f'views of storages and {n} types: identical bits, in and out')


main()
