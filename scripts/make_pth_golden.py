"""Writes tests/golden/checkpoint.pth and state_dict.pth with torch.save, and the pickle of the former as a seed for
fuzzing: `python3 scripts/make_pth_golden.py`."""
import argparse
import collections
import os
import zipfile

import numpy
import torch

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'tests', 'golden')

base = torch.arange(12.).reshape(3, 4)
model = collections.OrderedDict([
    ('f32', base), ('transposed', base.t()), ('row', base[1]), ('f16', torch.tensor([0.5, -2]).half()),
    ('bf16', torch.tensor([-1., 3]).bfloat16()), ('f64', torch.tensor([1e-3], dtype=torch.float64)),
    ('num_batches_tracked', torch.tensor(12345678901)), ('mask', torch.tensor([True, False, True])),
    ('parameter', torch.nn.Parameter(torch.ones(2)))])
average = {'module.' + name: t for name, t in model.items()}
weight = torch.nn.Parameter(torch.ones(2, 2))
optimizer = torch.optim.AdamW([weight])
weight.sum().backward()
optimizer.step()
args = argparse.Namespace(model='MAViT_T', betas=(0.9, 0.999), device=torch.device('cpu'), ids={3, 5})
torch.save({'model': model, 'model_ema': average, 'optimizer': optimizer.state_dict(), 'epoch': 299, 'args': args,
            'max_accuracy': numpy.float64(84.5), 'big': 2 ** 80}, os.path.join(OUT, 'checkpoint.pth'))
torch.manual_seed(0)
torch.save(torch.nn.Linear(3, 2).state_dict(), os.path.join(OUT, 'state_dict.pth'))

with zipfile.ZipFile(os.path.join(OUT, 'checkpoint.pth')) as archive:
    pickle = archive.read('checkpoint/data.pkl')
with open(os.path.join(OUT, '..', 'fuzz', 'seeds', 'checkpoint.pkl'), 'wb') as f:
    f.write(pickle)
