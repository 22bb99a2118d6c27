#!/usr/bin/env python3
"""How far raw pixels alone go: softmax regression with weight decay on an image folder.

    scripts/linear_probe.py DIR [side]

Trains on DIR/train/CLASS/*, tests on DIR/val/CLASS/*, every picture cut to its middle square and resized to side
(default 32), RGB, standardised. Prints top-1 of each weight decay. A data set that a linear classifier solves says
nothing about a vision network; `mala synth` is meant to stay far below half. Needs torch, numpy and Pillow.
"""
import pathlib
import sys

import numpy
import torch
from PIL import Image


def read_folder(folder, side):
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir())
    pixels, labels = [], []
    for label, name in enumerate(classes):
        for path in sorted((folder / name).iterdir()):
            image = Image.open(path).convert("RGB")
            width, height = image.size
            short = min(width, height)
            left, top = (width - short) // 2, (height - short) // 2
            image = image.crop((left, top, left + short, top + short)).resize((side, side), Image.BILINEAR)
            pixels.append(numpy.asarray(image, dtype=numpy.float32).ravel())
            labels.append(label)
    return torch.from_numpy(numpy.stack(pixels)), torch.tensor(labels), len(classes)


def probe(train, train_labels, test, test_labels, classes, decay, epochs=60):
    torch.manual_seed(0)
    weight = torch.zeros(train.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.AdamW([{"params": [weight], "weight_decay": decay}, {"params": [bias], "weight_decay": 0}],
                                  lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(train)).split(256):
            loss = torch.nn.functional.cross_entropy(train[rows] @ weight + bias, train_labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    with torch.no_grad():
        hits = [((x @ weight + bias).argmax(1) == y).float().mean().item()
                for x, y in ((train, train_labels), (test, test_labels))]
    return hits


def main():
    torch.set_num_threads(1)
    folder, side = pathlib.Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 32
    train, train_labels, classes = read_folder(folder / "train", side)
    test, test_labels, _ = read_folder(folder / "val", side)
    mean, spread = train.mean(0), train.std(0) + 1
    train, test = (train - mean) / spread, (test - mean) / spread
    print(f"{len(train)} pictures to train on, {len(test)} to test, {classes} classes, {side}x{side} RGB")
    for decay in (0.1, 1, 10, 30, 100):
        on_train, on_test = probe(train, train_labels, test, test_labels, classes, decay)
        print(f"weight decay {decay:5}: top-1 {100 * on_test:5.1f} %  (on the training pictures {100 * on_train:5.1f} %)")


if __name__ == "__main__":
    main()
