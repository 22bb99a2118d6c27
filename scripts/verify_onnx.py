#!/usr/bin/env python3
"""What `mala export --verify DIR` is for weights, for ONNX: a classifier and the model it was exported from, side by
side on the pictures of DIR.

    python3 scripts/verify_onnx.py model.onnx --weights best.safetensors --pictures DIR [--library build/libmala.so]
                                   [--limit 1e-4] [section.key=value ...]

Needs onnx, onnxruntime, numpy, Pillow and libmala.so (`make lib`). onnxruntime gets what Pillow makes of the pictures by
the model's own metadata_props, mala decodes and scales them itself. Prints the largest difference of a logit and how
often the best class is the same; ends with 1 when the difference is more than --limit parts of the largest logit.
"""
import argparse
import json
import os
import sys

import numpy
import onnxruntime
from PIL import Image, ImageOps

import libmala


def scaled(size, height, width, crop_pct):
    """width and height that a picture is scaled to before the crop: src/data/transform.h"""
    short = [max(side, int(side / crop_pct)) for side in (height, width)]
    w, h = size
    if height == width:
        return (short[0], int(short[0] * h / w)) if w <= h else (int(short[0] * w / h), short[0])
    scale = max(short[1] / w, short[0] / h)
    return max(round(w * scale), width), max(round(h * scale), height)


def pixels_of(path, properties):
    """u8 [height, width, 3]"""
    height, width = json.loads(properties['imgsz'])
    filters = {'bicubic': Image.BICUBIC, 'bilinear': Image.BILINEAR}
    image = ImageOps.exif_transpose(Image.open(path)).convert('RGB')
    size = scaled(image.size, height, width, float(properties['crop_pct']))
    image = image.resize(size, filters[properties['interpolation']])
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return numpy.asarray(image.crop((left, top, left + width, top + height)))


def onnx_logits(session, path, properties):
    pixels = pixels_of(path, properties)
    name = session.get_inputs()[0].name
    if name == 'pixels':
        fed = pixels[None]
    else:
        mean, std = (numpy.array(json.loads(properties[k]), dtype=numpy.float32) for k in ('mean', 'std'))
        fed = ((pixels.astype(numpy.float32) / 255 - mean) / std).transpose(2, 0, 1)[None]
    return session.run(['logits'], {name: numpy.ascontiguousarray(fed)})[0][0]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('onnx')
    p.add_argument('--weights', required=True)
    p.add_argument('--pictures', required=True)
    p.add_argument('--library', default='build/libmala.so')
    p.add_argument('--limit', type=float, default=1e-4)
    p.add_argument('settings', nargs='*')
    a = p.parse_intermixed_args()
    paths = sorted(os.path.join(where, name) for where, _, names in os.walk(a.pictures) for name in names
                   if name.lower().endswith(('.jpg', '.jpeg', '.png')))
    session = onnxruntime.InferenceSession(a.onnx, providers=['CPUExecutionProvider'])
    properties = session.get_modelmeta().custom_metadata_map
    model = libmala.Model(a.library, a.weights, a.settings)
    largest, magnitude, same = 0.0, 0.0, 0
    for path in paths:
        own, theirs = model.pictures([path])[0], onnx_logits(session, path, properties)
        largest = max(largest, float(numpy.abs(own - theirs).max()))
        magnitude = max(magnitude, float(numpy.abs(own).max()))
        same += int(own.argmax() == theirs.argmax())
    model.close()
    good = paths and largest <= a.limit * magnitude
    print('%s: %d pictures: largest difference of a logit %.3g, allowed %.3g; top-1 the same in %.2f %%: %s' %
          (a.onnx, len(paths), largest, a.limit * magnitude, 100 * same / max(1, len(paths)), 'good' if good else 'BAD'))
    return not good


if __name__ == '__main__':
    sys.exit(main())
