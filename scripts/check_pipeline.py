#!/usr/bin/env python3
"""The whole way from a photograph to probabilities, `mala infer` against Pillow and PyTorch.

    python3 scripts/check_pipeline.py --reference DIR --pictures DIR [--mala ./mala] [--size T] [--count 100]

Needs torch, safetensors, numpy and Pillow; --reference is the folder of mavit_reference.py, --pictures one of
photographs, searched in depth (the data pack imagenet_sample). Weights follow from names alone. Pictures that EXIF
turns are all taken, and compared upright; the others in order of name up to --count. It ends with 1 when a probability
differs by 1e-4 or more, or the best five come in another order although PyTorch's own margin exceeds 1e-5.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file

PROBABILITY_LIMIT, MARGIN = 1e-4, 1e-5
SIDE, SHORTER = 224, 256
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
ORIENTATION = 0x112


def turned(path):
    with Image.open(path) as image:
        return image.getexif().get(ORIENTATION, 1) in range(2, 9)


def choose(folder, count):
    paths = sorted(os.path.join(where, name) for where, _, names in os.walk(folder) for name in names
                   if name.lower().endswith(('.jpg', '.jpeg')))
    readable = []
    for path in paths:
        try:
            with Image.open(path) as image:
                if image.format == 'JPEG' and image.mode in ('RGB', 'L'):
                    readable.append(path)
        except OSError:
            pass
    upside = [p for p in readable if turned(p)]
    rest = [p for p in readable if p not in set(upside)]
    return sorted(upside + rest[:max(0, count - len(upside))]), len(upside)


def preprocess(path):
    """as torchvision's Resize and CenterCrop do it with Pillow"""
    image = ImageOps.exif_transpose(Image.open(path)).convert('RGB')
    width, height = image.size
    if width <= height:
        size = SHORTER, int(SHORTER * height / width)
    else:
        size = int(SHORTER * width / height), SHORTER
    image = image.resize(size, Image.BICUBIC)
    left, top = int(round((size[0] - SIDE) / 2)), int(round((size[1] - SIDE) / 2))
    pixels = numpy.asarray(image.crop((left, top, left + SIDE, top + SIDE)), dtype=numpy.float32) / 255
    pixels = (pixels - numpy.float32(MEAN)) / numpy.float32(STD)
    return torch.from_numpy(pixels.astype(numpy.float32)).permute(2, 0, 1)[None]


def mala_probabilities(mala, weights, size, paths, folder):
    listing = os.path.join(folder, 'list.txt')
    with open(listing, 'w') as f:
        f.write('\n'.join(paths) + '\n')
    done = subprocess.run([mala, 'infer', listing, '--weights', weights, '--model', 'mavit_' + size.lower(), '--json',
                           '--topk', '1000', '--quiet'], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    answers = {}
    for line in done.stdout.splitlines():
        answer = json.loads(line)
        answers[answer['image']] = [(p['class'], p['score']) for p in answer['predictions']]
    return answers


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--reference', required=True)
    p.add_argument('--pictures', required=True)
    p.add_argument('--mala', default='./mala')
    p.add_argument('--size', default='T')
    p.add_argument('--count', type=int, default=100)
    a = p.parse_args()
    sys.path.insert(0, a.reference)
    import mavit_reference
    model = mavit_reference.set_by_rule(mavit_reference.MAViT(a.size)).float().eval()
    paths, upside = choose(os.path.abspath(a.pictures), a.count)
    with tempfile.TemporaryDirectory() as folder:
        weights = os.path.join(folder, 'model.safetensors')
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, weights)
        answers = mala_probabilities(a.mala, weights, a.size, paths, folder)

    largest, worst, agree, orders, close, failed = 0.0, '', 0, 0, 0, 0
    for path in paths:
        with torch.no_grad():
            want = torch.softmax(model(preprocess(path)), 1)[0].numpy()
        got = numpy.zeros_like(want)
        for index, score in answers[path]:
            got[index] = score
        difference = float(numpy.abs(got - want).max())
        if difference > largest:
            largest, worst = difference, path
        ranking = numpy.argsort(-want, kind='stable')[:6]
        clear = bool((want[ranking[:-1]] - want[ranking[1:]] > MARGIN).all())
        same = [index for index, _ in answers[path][:5]] == ranking[:5].tolist()
        agree += answers[path][0][0] == ranking[0]
        orders += same
        close += not clear
        if difference >= PROBABILITY_LIMIT or (clear and not same):
            failed += 1
            print(f'{path}: probabilities differ by {difference:.2e}, best five {"the same" if same else "differ"}')
    print(f'{len(paths)} pictures, {upside} of them turned by EXIF: largest difference of a probability {largest:.2e} '
          f'({os.path.basename(worst)}), top-1 the same for {agree}, best five in the same order for {orders}; '
          f'{close} where PyTorch\'s margin is {MARGIN:g} or less')
    sys.exit(1 if failed or not paths else 0)


if __name__ == '__main__':
    main()
