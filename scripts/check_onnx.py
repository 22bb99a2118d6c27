#!/usr/bin/env python3
"""Checks what `mala export --to onnx` writes.

    python3 scripts/check_onnx.py --reference DIR [--mala ./mala] [--sizes T L] [--only TEXT]

Needs onnx, onnxruntime, torch and safetensors; DIR holds mavit_reference.py. For every model size, attention kind,
form, picture size and kind of input it exports weights that follow from names alone, runs onnx.checker with full shape
inference, and compares onnxruntime with PyTorch at batch 1 and 3. Classifiers with preprocessing inside are also
compared with `mala infer` on the same picture. A row's figure is the largest difference over the largest absolute value
of the reference (or 1 where that is less); above 1e-4 the program ends with 1.
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile

import numpy
import onnx
import onnxruntime
import torch
from PIL import Image
from safetensors.torch import save_file

LIMIT = 1e-4
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
FIXED, OTHER = (224, 224), (192, 256)


def cases(sizes):
    """size, kinds (None: the released mixture), form, exported size, free height and width, preprocessing inside"""
    for size in sizes:
        for kind in (None, 'mala', 'softmax', 'linear', 'inline'):
            for form in ('classifier', 'backbone'):
                for shape in (FIXED, OTHER):
                    yield size, kind, form, shape, False, False
                yield size, kind, form, FIXED, True, False
        for dynamic in (False, True):
            yield size, None, 'classifier', OTHER, dynamic, True
        yield size, None, 'backbone', OTHER, True, True


def export(mala, folder, weights, size, kind, form, shape, dynamic, preprocess):
    path = os.path.join(folder, 'model.onnx')
    kinds = [kind] * 4 if kind else ['mala', 'mala', 'softmax', 'softmax']
    subprocess.run([mala, 'export', weights, path, '--force', '--to', 'onnx', '--as', form, '--size', '%dx%d' % shape,
                    '--quiet', '--model', 'mavit_' + size.lower(), 'model.attention=' + json.dumps(kinds)]
                   + ['--dynamic'] * dynamic + ['--preprocess'] * preprocess, check=True)
    return path, kinds


def check_file(path, form, shape, dynamic, preprocess, classes):
    """structure: the checker, and the names and dimensions that the README promises"""
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    assert [o.version for o in model.opset_import] == [17] and {n.domain for n in model.graph.node} == {''}
    dims = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    sides = ['height', 'width'] if dynamic else list(shape)
    assert model.graph.input[0].name == ('pixels' if preprocess else 'images')
    assert dims == (['batch', *sides, 3] if preprocess else ['batch', 3, *sides]), dims
    names = [o.name for o in model.graph.output]
    assert names == (['logits'] if form == 'classifier' else ['stage0', 'stage1', 'stage2', 'stage3']), names
    properties = {p.key: p.value for p in model.metadata_props}
    assert json.loads(properties['imgsz']) == list(shape) and properties['license']
    assert form == 'backbone' or len(json.loads(properties['names'])) == classes


def difference(got, want):
    assert got.shape == want.shape and numpy.isfinite(got).all(), (got.shape, want.shape)
    return float(numpy.abs(got - want).max() / max(1, numpy.abs(want).max()))


def reference_run(reference, model, form, images):
    with torch.no_grad():
        if form == 'classifier':
            return [model(images).numpy()]
        norms = []
        for i, x in enumerate(model.features(images)):
            norm = reference.ChannelNorm(x.shape[1])  # ones and zeros: the checkpoint has none
            norms.append(norm(x).numpy())
        return norms


def inputs(reference, batch, shape, preprocess):
    if not preprocess:
        images = reference.images_by_rule(batch, *shape).float()
        return images.numpy(), images
    noise = reference.uniform('pixels', batch * shape[0] * shape[1] * 3).numpy().reshape(batch, *shape, 3)
    pixels = ((noise + 1) * 127.9).astype(numpy.uint8)
    normal = (torch.from_numpy(pixels).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    return pixels, normal.permute(0, 3, 1, 2).contiguous()


def against_mala(mala, folder, weights, size, kinds, pixels, logits):
    """largest difference of the logarithms of `mala infer`'s probabilities: logits, up to a constant"""
    picture = os.path.join(folder, 'picture.png')
    Image.fromarray(pixels).save(picture)
    out = subprocess.run([mala, 'infer', picture, '--weights', weights, '--json', '--topk', str(len(logits)), '--quiet',
                          '--model', 'mavit_' + size.lower(), 'model.attention=' + json.dumps(kinds),
                          'input.crop_pct=1', 'input.size=[%d,%d]' % pixels.shape[:2]],
                         check=True, capture_output=True, text=True).stdout
    own = numpy.zeros(len(logits))
    for p in json.loads(out)['predictions']:
        own[p['class']] = math.log(p['score'])
    wide = logits.astype(numpy.float64)
    return difference(wide - wide.max() - numpy.log(numpy.exp(wide - wide.max()).sum()), own)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--reference', required=True)
    p.add_argument('--mala', default='./mala')
    p.add_argument('--sizes', nargs='+', default=['T', 'L'])
    p.add_argument('--only', default='', help='rows whose text contains this')
    p.add_argument('--threads', type=int, default=2)
    a = p.parse_args()
    sys.path.insert(0, a.reference)
    import mavit_reference as reference
    torch.set_num_threads(a.threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = a.threads
    options.log_severity_level = 3
    worst, rows = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        weights, written = os.path.join(folder, 'weights.safetensors'), None
        for size, kind, form, shape, dynamic, preprocess in cases(a.sizes):
            row = '%s %-8s %-10s %7s%s%s' % (size, kind or 'released', form, '%dx%d' % shape, ' dynamic' * dynamic,
                                             ' preprocess' * preprocess)
            if a.only not in row:
                continue
            if written != size:
                model = reference.set_by_rule(reference.MAViT(size)).eval()
                save_file(model.state_dict(), weights)
                written = size
            path, kinds = export(a.mala, folder, weights, size, kind, form, shape, dynamic, preprocess)
            check_file(path, form, shape, dynamic, preprocess, 1000)
            for stage, name in zip(model.layers, kinds):
                for block in stage.blocks:
                    block.attn.kind = name
            session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
            figures = {}
            for batch, at in [(1, shape), (3, shape)] + [(1, OTHER)] * (dynamic and shape != OTHER):
                fed, images = inputs(reference, batch, at, preprocess)
                got = session.run(None, {session.get_inputs()[0].name: fed})
                want = reference_run(reference, model, form, images)
                figures['batch %d' % batch if at == shape else '%dx%d' % at] = max(map(difference, got, want))
                if preprocess and form == 'classifier' and batch == 1:
                    figures['mala'] = against_mala(a.mala, folder, weights, size, kinds, fed[0], got[0][0])
            worst, rows = max(worst, *figures.values()), rows + 1
            print('%-50s %s' % (row, '   '.join('%s %.1e' % f for f in figures.items())), flush=True)
    good = rows > 0 and worst <= LIMIT
    print('%d exports, largest difference %.1e, limit %.0e: %s' % (rows, worst, LIMIT, 'good' if good else 'BAD'))
    return not good


if __name__ == '__main__':
    sys.exit(main())
