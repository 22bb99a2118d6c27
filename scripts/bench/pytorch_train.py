"""Trains MAViT in PyTorch on this machine's CPU from a mala config: the baseline for `mala train`, same recipe.

    python3 scripts/bench/pytorch_train.py --reference DIR --config configs/cifar10_small.json --data DIR [key=value ...]

DIR of --reference holds mavit_reference.py; --data is an image folder with train/CLASS/* and val/CLASS/*. Values such
as sched.epochs=2 override the config. Prints one JSON object per epoch and a last one with "done": true.

What is the same: model, initialisation (truncated normal 0.02 for convolutions), crop, mirroring and normalisation,
AdamW with decay on parameters of two or more dimensions, linear warm-up then cosine per update, label smoothing,
clipping, drop path, moving average, evaluation transform. What differs: random numbers, and Pillow resizes.
What PyTorch is granted: images are decoded once before the clock of the first epoch starts (if they fit --cache-mb),
small pictures are cropped and mirrored as one tensor per batch, the rotary tables are computed once, freed memory
stays with the process, AdamW is the fused one."""
import argparse
import json
import math
import os
import random
import resource
import sys
import time

from pytorch_speed import cache_tables, keep_memory

START = time.perf_counter()
EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')
AUTO = None
DEFAULTS = {
    'model': {'name': 'mavit_t', 'dims': AUTO, 'depths': AUTO, 'heads': AUTO, 'mlp_ratio': 3.5, 'projection': AUTO,
              'attention': ['mala', 'mala', 'softmax', 'softmax'], 'drop_path': AUTO, 'layer_scale': AUTO,
              'num_classes': AUTO},
    'data': {'path': None, 'train': 'train', 'val': 'val', 'workers': AUTO},
    'input': {'size': 224, 'crop_pct': AUTO, 'interpolation': 'bicubic', 'mean': [0.485, 0.456, 0.406],
              'std': [0.229, 0.224, 0.225]},
    'aug': {'crop': 'rrc', 'scale': [0.08, 1.0], 'ratio': [0.75, 1.3333], 'pad': 4, 'hflip': 0.5},
    'optim': {'lr': 5e-4, 'lr_base_size': 512, 'weight_decay': 0.05, 'betas': [0.9, 0.999], 'eps': 1e-8,
              'clip_grad': 0},
    'sched': {'epochs': 300, 'warmup_epochs': AUTO, 'warmup_lr': 1e-6, 'min_lr': 1e-5},
    'train': {'batch_size': 128, 'smoothing': 0.1, 'ema': False, 'ema_decay': 0.9999, 'seed': 0, 'threads': AUTO},
    'eval': {'batch_size': AUTO},
}
IGNORED = {'base', 'output', 'exist_ok', 'device', 'log', 'data.on_bad_image', 'data.max_bad', 'train.deterministic'}


def stop(text):
    sys.exit('pytorch_train.py: ' + text)


# ---- config ----

def merge(config, values, where):
    for section, keys in values.items():
        if section in IGNORED:
            continue
        if section not in config:
            stop(f'{where}: unknown key {section}')
        for key, value in keys.items():
            if f'{section}.{key}' in IGNORED:
                continue
            if key not in config[section]:
                stop(f'{where}: unknown key {section}.{key}')
            config[section][key] = AUTO if value == 'auto' else value


def load_config(path, overrides):
    config = json.loads(json.dumps(DEFAULTS))
    with open(path) as f:
        values = json.load(f)
    if values.get('base'):
        base = os.path.join(os.path.dirname(path), values['base'])
        with open(base) as f:
            merge(config, json.load(f), base)
    merge(config, values, path)
    for override in overrides:
        name, _, text = override.partition('=')
        section, _, key = name.partition('.')
        try:
            value = json.loads(text)
        except ValueError:
            value = [json.loads(v) for v in text.split(',')] if ',' in text else text
        merge(config, {section: {key: value}}, override)
    size = config['input']['size']
    config['input']['size'] = size if isinstance(size, list) else [size, size]
    if config['input']['crop_pct'] is AUTO:
        config['input']['crop_pct'] = 0.875 if max(config['input']['size']) <= 224 else 1.0
    if config['sched']['warmup_epochs'] is AUTO:
        config['sched']['warmup_epochs'] = min(5, config['sched']['epochs'] / 10)
    return config


def build_model(torch, reference, m, classes):
    letter = {'t': 'T', 's': 'S', 'b': 'B', 'l': 'L'}.get(m['name'].split('_')[-1][:1], None)
    own = reference.SIZES[letter] if m['name'] != 'custom' else (AUTO, AUTO, AUTO, 0.0, AUTO, [1, 1, 1, 1])
    dims, depths, heads = (m[key] or own[i] for i, key in enumerate(('dims', 'depths', 'heads')))
    scales = own[5] if m['layer_scale'] is AUTO else m['layer_scale']
    drop = own[3] if m['drop_path'] is AUTO else m['drop_path']
    kinds = m['attention'] if isinstance(m['attention'], list) else [m['attention']] * 4
    reference.SIZES['configured'] = (dims, depths, heads, drop, m['projection'] or 4 * dims[-1],
                                     scales if isinstance(scales, list) else [scales] * 4)
    model = reference.MAViT('configured', m['num_classes'] or classes, tuple(kinds), mlp_ratio=m['mlp_ratio'])
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.trunc_normal_(module.weight, std=0.02)
            torch.nn.init.zeros_(module.bias)
    return model


# ---- pictures ----

class Pictures:
    """The pictures of one split: decoded ahead when they fit into what is left of the cache, else opened each time."""

    def __init__(self, root, classes=None):
        names = sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith('.'))
        self.classes = classes or names
        self.files = [(os.path.join(folder, file), self.classes.index(name)) for name in names
                      for folder, _, files in sorted(os.walk(os.path.join(root, name))) for file in sorted(files)
                      if file.lower().endswith(EXTENSIONS) and not file.startswith('.')]
        self.decoded = None

    def decode(self, cache_bytes):
        """bytes taken"""
        from PIL import Image
        need = 0
        for path, _ in self.files:
            with Image.open(path) as image:
                need += 3 * image.width * image.height
        if need <= cache_bytes:
            self.decoded = [self.open(i) for i in range(len(self.files))]
        return need if self.decoded else 0

    def open(self, index):
        from PIL import Image, ImageOps
        if self.decoded:
            return self.decoded[index]
        with Image.open(self.files[index][0]) as image:
            return ImageOps.exif_transpose(image).convert('RGB')


def evaluation_view(image, size, crop_pct, resample):
    """scaled to cover the output enlarged by 1 / crop_pct, then its centre"""
    height, width = size
    scale = max(int(width / crop_pct) / image.width, int(height / crop_pct) / image.height)
    scaled = image.resize((max(width, int(image.width * scale + 1e-6)), max(height, int(image.height * scale + 1e-6))),
                          resample)
    left, top = round((scaled.width - width) / 2), round((scaled.height - height) / 2)
    return scaled.crop((left, top, left + width, top + height))


def random_cutting(width, height, scale, ratio):
    for _ in range(10):
        area = width * height * random.uniform(*scale)
        aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return left, top, left + w, top + h
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


class View:
    """A torch data set of uint8 (3,H,W) and label, for the DataLoader's processes. Moving by aug.pad is left to
    pad_crop_flip."""

    def __init__(self, pictures, config, training):
        from PIL import Image
        self.pictures, self.input, self.aug = pictures, config['input'], config['aug']
        self.training = training
        self.resample = {'bicubic': Image.BICUBIC, 'bilinear': Image.BILINEAR}[self.input['interpolation']]

    def __len__(self):
        return len(self.pictures.files)

    def __getitem__(self, index):
        import numpy
        import torch
        from PIL import ImageOps
        image, (height, width) = self.pictures.open(index), self.input['size']
        crop = self.aug['crop'] if self.training else 'none'
        if crop == 'rrc':
            box = random_cutting(image.width, image.height, self.aug['scale'], self.aug['ratio'])
            image = image.crop(box).resize((width, height), self.resample)
        elif crop == 'none' or image.size != (width, height):
            image = evaluation_view(image, (height, width), self.input['crop_pct'] if crop == 'none' else 1.0,
                                    self.resample)
        if self.training and crop != 'pad' and random.random() < self.aug['hflip']:
            image = ImageOps.mirror(image)
        pixels = torch.from_numpy(numpy.array(image)).permute(2, 0, 1)
        return pixels, self.pictures.files[index][1]


def pad_crop_flip(torch, pixels, pad, share):
    """each picture of a batch (B,3,H,W) moved by up to pad pixels, black filled in, and mirrored"""
    batch, _, height, width = pixels.shape
    padded = torch.nn.functional.pad(pixels, [pad] * 4)
    rows = torch.arange(height) + torch.randint(2 * pad + 1, (batch, 1))
    columns = torch.arange(width) + torch.randint(2 * pad + 1, (batch, 1))
    columns = torch.where(torch.rand(batch, 1) < share, columns.flip(1), columns)
    moved = padded[torch.arange(batch)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


class Batches:
    """Batches of normalised images and labels. Equal pictures that are only moved live in one tensor; everything else
    goes through the DataLoader."""

    def __init__(self, torch, view, batch, workers, memory_format):
        self.torch, self.view, self.batch, self.format = torch, view, batch, memory_format
        self.mean = torch.tensor(view.input['mean']).view(1, 3, 1, 1) * 255
        self.std = torch.tensor(view.input['std']).view(1, 3, 1, 1) * 255
        self.moved = view.training and view.aug['crop'] == 'pad'
        pictures = view.pictures
        small = pictures.decoded and (self.moved or not view.training)
        self.whole = small and self.torch.stack([view[i][0] for i in range(len(view))])
        self.labels = self.torch.tensor([label for _, label in pictures.files])
        self.loader = None if small else torch.utils.data.DataLoader(
            view, batch, shuffle=view.training, drop_last=view.training, num_workers=workers,
            persistent_workers=workers > 0)

    def __len__(self):
        return len(self.view) // self.batch if self.view.training else -(-len(self.view) // self.batch)

    def raw(self):
        if self.loader:
            yield from self.loader
            return
        count = len(self.view)
        order = self.torch.randperm(count) if self.view.training else self.torch.arange(count)
        for i in range(len(self)):
            chosen = order[i * self.batch:(i + 1) * self.batch]
            yield self.whole[chosen], self.labels[chosen]

    def __iter__(self):
        for pixels, labels in self.raw():
            if self.moved:
                pixels = pad_crop_flip(self.torch, pixels, self.view.aug['pad'], self.view.aug['hflip'])
            images = (pixels.float() - self.mean) / self.std
            yield images.contiguous(memory_format=self.format), labels


# ---- training ----

def learning_rate(config, step, steps_per_epoch):
    o, s = config['optim'], config['sched']
    peak = o['lr'] * config['train']['batch_size'] / o['lr_base_size'] if o['lr_base_size'] else o['lr']
    warmup, total = round(s['warmup_epochs'] * steps_per_epoch), s['epochs'] * steps_per_epoch
    if step < warmup:
        return s['warmup_lr'] + (peak - s['warmup_lr']) * step / warmup
    t = (step - warmup) / max(1, total - warmup)
    return s['min_lr'] + 0.5 * (peak - s['min_lr']) * (1 + math.cos(math.pi * t))


def evaluate(torch, forward, batches):
    loss = top1 = top5 = count = 0
    with torch.no_grad():
        for images, labels in batches:
            logits = forward(images)
            loss += torch.nn.functional.cross_entropy(logits, labels, reduction='sum').item()
            hits = logits.topk(min(5, logits.shape[1]), 1).indices == labels[:, None]
            top1, top5, count = top1 + hits[:, 0].sum().item(), top5 + hits.sum().item(), count + len(labels)
    return {'val_loss': round(loss / count, 5), 'top1': round(100 * top1 / count, 3),
            'top5': round(100 * top5 / count, 3)}


def train(torch, model, forward, average, config, training, validation):
    o, t = config['optim'], config['train']
    groups = [{'params': [p for p in model.parameters() if p.dim() > 1], 'weight_decay': o['weight_decay']},
              {'params': [p for p in model.parameters() if p.dim() <= 1], 'weight_decay': 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=o['betas'], eps=o['eps'], fused=True)
    begin, step = time.perf_counter(), 0
    for epoch in range(1, config['sched']['epochs'] + 1):
        started, total = time.perf_counter(), 0.0
        model.train()
        for images, labels in training:
            rate = learning_rate(config, step, len(training))
            for group in optimizer.param_groups:
                group['lr'] = rate
            loss = torch.nn.functional.cross_entropy(forward(images), labels, label_smoothing=t['smoothing'])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if o['clip_grad'] > 0:
                torch.nn.utils.clip_grad_norm_(model.parameters(), o['clip_grad'])
            optimizer.step()
            if average:
                average.update_parameters(model)
            total, step = total + loss.item(), step + 1
        trained = time.perf_counter() - started
        model.eval()
        row = {'epoch': epoch, 'time': 0, 'train_s': round(trained, 2), 'train_loss': round(total / len(training), 5),
               **evaluate(torch, forward, validation), 'lr': rate}
        if average:
            average.eval()
            row.update({'ema_' + key: value for key, value in evaluate(torch, average, validation).items()})
        row['time'] = round(time.perf_counter() - begin, 2)
        print(json.dumps(row), flush=True)
    return row


def main():
    parser = argparse.ArgumentParser(description='trains MAViT in PyTorch on the CPU from a mala config')
    parser.add_argument('--reference', required=True, metavar='DIR', help='the folder of mavit_reference.py')
    parser.add_argument('--config', required=True)
    parser.add_argument('--data', help='image folder; else data.path of the config')
    parser.add_argument('--mode', choices=['eager', 'channels_last', 'compile', 'compile_channels_last'],
                        default='channels_last')
    parser.add_argument('--cache-mb', type=int, default=4096, help='decoded pictures kept in memory at most')
    parser.add_argument('overrides', nargs='*', metavar='key=value')
    options = parser.parse_args()
    config = load_config(options.config, options.overrides)
    root = options.data or config['data']['path'] or stop('no data: pass --data DIR')
    keep_memory()

    import torch
    sys.path.insert(0, options.reference)
    import mavit_reference as reference
    cache_tables(torch, reference)
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(config['train']['threads'] or cores)
    torch.manual_seed(config['train']['seed'])
    random.seed(config['train']['seed'])

    sets = [Pictures(os.path.join(root, config['data']['train']))]
    sets.append(Pictures(os.path.join(root, config['data']['val']), sets[0].classes))
    started, left = time.perf_counter(), options.cache_mb << 20
    for pictures in sets:
        left -= pictures.decode(left)
    decode_s = time.perf_counter() - started
    workers = max(1, cores // 2) if config['data']['workers'] is AUTO else config['data']['workers']
    memory_format = torch.channels_last if options.mode.endswith('channels_last') else torch.contiguous_format
    batch = config['train']['batch_size']
    training = Batches(torch, View(sets[0], config, True), batch, workers, memory_format)
    validation = Batches(torch, View(sets[1], config, False), config['eval']['batch_size'] or batch, workers,
                         memory_format)
    if len(training) == 0:
        stop(f'{len(sets[0].files)} training pictures are less than a batch of {batch}')

    model = build_model(torch, reference, config['model'], len(sets[0].classes)).to(memory_format=memory_format)
    average = config['train']['ema'] and torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config['train']['ema_decay']), use_buffers=True)
    forward = torch.compile(model) if options.mode.startswith('compile') else model
    began = time.perf_counter()
    row = train(torch, model, forward, average, config, training, validation)
    print(json.dumps({
        'done': True, 'wall_s': round(time.perf_counter() - START, 1), 'train_and_eval_s':
        round(time.perf_counter() - began, 1), 'decode_s': round(decode_s, 1), 'top1': row['top1'], 'mode': options.mode,
        'parameters': sum(p.numel() for p in model.parameters()), 'images': [len(s.files) for s in sets],
        'peak_rss_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, 'torch': torch.__version__,
        'threads': torch.get_num_threads(), 'workers': workers}), flush=True)


if __name__ == '__main__':
    main()
