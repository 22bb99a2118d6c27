#!/bin/sh
# Training runs on a GPU that are judged by their accuracy; MALA_DATA names the folder of data packs (cifar10_jpg.tar.gz).
#   scripts/bench/gpu_accuracy.sh precision    CIFAR-10 in float32 and bfloat16, three seeds: means within 0.5 points
#   scripts/bench/gpu_accuracy.sh cifar10      all of CIFAR-10, at most 8 M parameters: 95 % top-1 inside 8 minutes
# Each writes results/gpu_<date>_<name>.txt, with the GPU, driver and commit in its head, and ends with exit code 1 where
# the goal was missed. --emulated behind the name: a few steps on made pictures, into build/bench-gpu, and no goal.
set -eu
cd "$(dirname "$0")/../.."
name=${1:-} && [ $# -gt 0 ] && shift
case $name in precision | cifar10) ;; *) echo "$0: takes precision or cifar10" >&2 && exit 2 ;; esac
# shellcheck source=scripts/gpu_programs.sh
. scripts/gpu_programs.sh
results=scripts/bench/results work=$B/accuracy seeds="1 2 3" small=""
mkdir -p "$work"
if [ -n "$emulated" ]; then
    results=build/bench-gpu seeds=1 data="data.path=$work/made"
    small="model.dims=8,16,24,32 model.depths=1,1,1,1 model.heads=1,1,1,1 model.projection=32 input.size=32
        train.batch_size=8 sched.epochs=1 sched.warmup_epochs=0"
    [ -d "$work/made" ] || "$mala" synth "$work/made" --seed 1 --train 2 --val 1 --scenes 0 --size 64
else
    data="data.path=$work/cifar10_jpg data.val=test"
    [ -d "$work/cifar10_jpg" ] || tar xzf "${MALA_DATA:?names no data packs}/cifar10_jpg.tar.gz" -C "$work"
fi
mkdir -p $results
record=$results/gpu_$(date +%Y-%m-%d)_$name.txt
gpu="host emulation"
[ -n "$emulated" ] || gpu=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -n 1)
echo "$gpu, commit $(git describe --always --dirty 2>/dev/null || cut -d , -f 1 "$B/bundle"), $(date +%F)" >"$record"

# train CONFIG OVERRIDE...: "best top-1 N % (epoch ...) in N s", into the record, too
train() {
    config=$1
    shift
    rm -rf "$work/run"
    # shellcheck disable=SC2086
    with_libraries "$mala" train --config "configs/$config.json" --device cuda output="$work/run" $data $small "$@" \
        >"$work/log" 2>&1 || { tail -n 3 "$work/log" >&2 && exit 1; }
    grep 'best top-1' "$work/log" | sed "s|^[^:]*|$config $*|" | tee -a "$record"
}
top1() { sed -n 's/.*best top-1 \([0-9.]*\) .*/\1/p'; }

if [ "$name" = precision ]; then
    for precision in float32 bfloat16; do
        for seed in $seeds; do train cifar10_small --precision $precision train.seed="$seed"; done | tee "$work/$precision" >&2
    done
    { top1 <"$work/float32"; echo --; top1 <"$work/bfloat16"; } | awk -v reached="$work/reached" '
        /--/ {half = 1; next}
        {sum[half + 0] += $1; n[half + 0]++}
        END {
            apart = sum[1] / n[1] - sum[0] / n[0]
            printf "float32 %.2f %%, bfloat16 %.2f %%: %+.2f points\n", sum[0] / n[0], sum[1] / n[1], apart
            print (apart <= 0.5 && apart >= -0.5) >reached
        }' | tee -a "$record"
else
    "$mala" info --config configs/cifar10_gpu.json model.num_classes=10 | grep '^parameters' | tee -a "$record"
    train cifar10_gpu | tee "$work/result"
    seconds=$(sed -n 's/.* in \([0-9]*\) s.*/\1/p' "$work/result")
    awk -v top1="$(top1 <"$work/result")" -v s="$seconds" 'BEGIN {print (top1 >= 95 && s <= 480) + 0}' >"$work/reached"
fi
[ "$(cat "$work/reached")" = 1 ] && verdict="goal reached" || verdict="goal missed"
[ -z "$emulated" ] || verdict="no goal on the emulation"
echo "$verdict" | tee -a "$record"
[ "$verdict" != "goal missed" ]
