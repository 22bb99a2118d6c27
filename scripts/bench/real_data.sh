#!/bin/sh
# Trains configs/cifar10_small.json and configs/flowers5_small.json on the packs cifar10_jpg and flowers5 with mala and
# with the PyTorch reference, one after the other on the same machine, and keeps both curves in scripts/bench/results.
#   MALA_DATA=PACKS scripts/bench/real_data.sh REFERENCE [cifar10 flowers5]
# REFERENCE is the folder of mavit_reference.py; PYTHON names the interpreter that has torch (python3 without it).
set -eu
cd "$(dirname "$0")/../.."
reference=$1
shift
[ $# -gt 0 ] || set -- cifar10 flowers5
python=${PYTHON:-python3}
work=build/packs
results=scripts/bench/results/real_$(date +%F)
mkdir -p "$work" "$results"

if [ ! -d "$work/cifar10_jpg" ]; then tar xzf "$MALA_DATA/cifar10_jpg.tar.gz" -C "$work"; fi
if [ ! -d "$work/flowers5/train" ]; then
    tar xzf "$MALA_DATA/flowers5.tar.gz" -C "$work"
    for split in train val; do
        while read -r picture; do
            class=$work/flowers5/$split/$(basename "$(dirname "$picture")")
            mkdir -p "$class"
            ln -f "$work/flowers5/$picture" "$class/"
        done <"$work/flowers5/splits/$split.txt"
    done
fi

for name; do
    pack=$name val=val
    [ "$name" = cifar10 ] && pack=cifar10_jpg val=test
    rm -rf "build/runs/$name"
    start=$(date +%s)
    ./mala train --config "configs/${name}_small.json" data.path="$work/$pack" data.val=$val output="build/runs/$name" --json \
        >"$results/${name}_mala.json"
    echo "$name: mala $(($(date +%s) - start)) s: $(cat "$results/${name}_mala.json")"
    cp "build/runs/$name/results.csv" "$results/${name}_mala.csv"
    start=$(date +%s)
    "$python" scripts/bench/pytorch_train.py --reference "$reference" --config "configs/${name}_small.json" \
        --data "$work/$pack" --mode channels_last data.val=$val >"$results/${name}_pytorch.jsonl"
    echo "$name: PyTorch $(($(date +%s) - start)) s: $(tail -n 2 "$results/${name}_pytorch.jsonl")"
done
