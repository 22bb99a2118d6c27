#!/bin/sh
# make bench-gpu: mala against PyTorch on this machine's GPU, as scripts/bench/results/gpu_<date>.json (one object a line)
# and .md, and the time of every step in gpu_<date>_steps_*.txt. PyTorch's figures need REFERENCE=DIR, the folder of
# mavit_reference.py, and PYTHON with PyTorch and CUDA. Builds, or takes a bundle: scripts/gpu_programs.sh.
#   scripts/bench/gpu_bench.sh --emulated    one small row of each kind on the host emulation, into build/bench-gpu
set -eu
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
# shellcheck source=scripts/gpu_programs.sh
. scripts/gpu_programs.sh
results=scripts/bench/results
[ -z "$emulated" ] || results=build/bench-gpu
mkdir -p $results
record=$results/gpu_$(date +%Y-%m-%d)

gpu="host emulation"
[ -n "$emulated" ] || gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | head -n 1)
toolkit=$(nvcc --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p')
commit=$(git rev-parse --short HEAD 2>/dev/null || cut -d , -f 1 "$B/bundle" 2>/dev/null || echo unknown)
printf '{"gpu":"%s","toolkit":"%s","commit":"%s","date":"%s"}\n' "$gpu" "$toolkit" "$commit" "$(date +%F)" >"$record.json"

bench() { # bench WHAT MODEL BATCH SIZE
    echo "mala $*" >&2
    with_libraries "$mala" bench "$1" --device cuda --model "$2" --batch "$3" --size "$4" --rounds "$rounds" --json >"$record.row" ||
        { echo "mala bench $*: failed" >&2; return 0; }
    sed "s/^{/{\"program\":\"mala\",\"model\":\"$2\",\"size\":\"$4\",/" "$record.row" >>"$record.json"
}

# Every step's time and the memory it moves in GB/s, to be held against the copy's.
steps() { # steps WHAT BATCH SIZE
    with_libraries "$mala" bench "$1" --device cuda --model mavit_t --batch "$2" --size "$3" --rounds "$rounds" --steps \
        >"${record}_steps_$1_$2_$3.txt" || echo "mala bench $* --steps: failed" >&2
}

pytorch() { # pytorch MODE WHAT SIZE BATCH HEIGHT WIDTH [FLAG...]
    echo "PyTorch $*" >&2
    row="--mode $1 --what $2 --size $3 --batch $4 --height $5 --width $6"
    shift 6
    # shellcheck disable=SC2086
    "$PYTHON" scripts/bench/pytorch_gpu.py --reference "$REFERENCE" $row "$@" >>"$record.json" ||
        echo "PyTorch $row: failed" >&2
}

rounds=15
if [ -n "$emulated" ]; then
    rounds=1
    bench infer mavit_t 1 32
    steps infer 1 32
    [ -z "${REFERENCE:-}" ] || pytorch eager train T 2 32 32 --device cpu --tiny
else
    "$PYTHON" scripts/bench/pytorch_gpu.py --what copy >>"$record.json" || echo "the copy's bandwidth: failed" >&2
    bench infer mavit_t 256 224
    bench infer mavit_t 1 224
    bench infer mavit_t 1 512x2048
    bench infer mavit_t 1 2048
    bench infer mavit_t 1 4096
    for model in mavit_t mavit_s mavit_b; do bench train $model 256 224; done
    bench train mavit_t 256 32
    steps infer 256 224
    steps train 256 224
    if [ -n "${REFERENCE:-}" ]; then
        for mode in eager compile_channels_last; do
            pytorch $mode infer T 256 224 224
            pytorch $mode infer T 1 224 224
            pytorch $mode infer T 1 512 2048
            pytorch $mode train T 256 224 224
            pytorch $mode train T 256 32 32
        done
        for size in S B; do pytorch eager train $size 256 224 224; done
    else
        echo "no REFERENCE=DIR: PyTorch was not measured" >&2
    fi
fi
rm -f "$record.row"

{
    printf '# %s\n\ndriver and memory as above; CUDA %s, commit %s\n\n' "$gpu" "$toolkit" "$commit"
    printf '| program | what | model | size | batch | ms | images/s |\n|---|---|---|---|--:|--:|--:|\n'
    "$PYTHON" - "$record.json" <<'PYTHON'
import json
import sys
for line in list(open(sys.argv[1]))[1:]:
    r = json.loads(line)
    if r['what'] == 'copy':
        print(f"| {r['program']} | copy on the device | | | | | {r['gb_per_s']:.0f} GB/s |")
        continue
    print(f"| {r['program']} | {r['what']} | {r['model']} | {r['size']} | {r['batch']} | {r['ms']:.3f} | {r['images_per_s']:.0f} |")
PYTHON
} >"$record.md"
cat "$record.md"
