#!/bin/sh
# The whole way on made pictures: a data set, training, evaluation, single pictures. Everything goes to build/demo.
set -eu
cd "$(dirname "$0")/.."
out=build/demo
start=$(date +%s)

say() { printf '\n\033[1m$ %s\033[0m\n' "$*" >&2; }
run() { say "$*"; "$@"; }

rm -rf "$out"
run ./mala synth "$out/pictures" --seed 1
run ./mala train --config configs/demo.json data.path="$out/pictures" output="$out/run"
run ./mala eval "$out/run"

set --
for class in "$out"/pictures/val/*; do
    first=$(ls "$class"/*.jpg | head -n 1)
    set -- "$@" "${first#"$out/"}" # a list's names start from its directory
done
printf '%s\n' "$@" | head -n 6 >"$out/list.txt"
run ./mala infer "$out/list.txt" --weights "$out/run" --topk 2

cat >&2 <<TEXT

Done in $(($(date +%s) - start)) seconds. Where to look:
  $out/pictures/train/<kind>/   the pictures it learned from
  $out/run/results.csv          one row per epoch
  $out/run/weights/             best.safetensors and last.safetensors
Next: your own pictures in DIR/train/<class>/ and DIR/val/<class>/, then
  ./mala train --config configs/demo.json data.path=DIR output=runs/mine
TEXT
