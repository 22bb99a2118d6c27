#!/bin/sh
# make bench-gpu: mala against PyTorch on this machine's GPU, as scripts/bench/results/gpu_<date>.json (one object a line)
# and .md. PyTorch's figures need REFERENCE=DIR, the folder of mavit_reference.py, and PYTHON with PyTorch and CUDA.
set -eu
cd "$(dirname "$0")/../.."

if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L 2>/dev/null | grep -q GPU; then
    echo "make bench-gpu: no NVIDIA GPU on this machine (nvidia-smi shows none) - nothing was measured" >&2
    exit 6
fi
B=${B:-build/gpu}
PYTHON=${PYTHON:-python3}
make -s -j"$(nproc)" CUDA=1 B="$B" "$B/mala"
mala=$B/mala
record=scripts/bench/results/gpu_$(date +%Y-%m-%d)

gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | head -n 1)
toolkit=$(nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
printf '{"gpu":"%s","toolkit":"%s","commit":"%s","date":"%s"}\n' "$gpu" "$toolkit" "$commit" "$(date +%F)" >"$record.json"

bench() { # bench WHAT MODEL BATCH SIZE
    echo "mala $*" >&2
    "$mala" bench "$1" --device cuda --model "$2" --batch "$3" --size "$4" --json |
        sed "s/^{/{\"program\":\"mala\",\"model\":\"$2\",\"size\":\"$4\",/" >>"$record.json" || echo "mala bench $*: failed" >&2
}
bench infer mavit_t 256 224
bench infer mavit_t 1 224
bench infer mavit_t 1 512x2048
bench infer mavit_t 1 2048
bench infer mavit_t 1 4096
for model in mavit_t mavit_s mavit_b; do bench train $model 256 224; done
bench train mavit_t 256 32

if [ -n "${REFERENCE:-}" ]; then
    for mode in eager compile_channels_last; do
        for row in "infer 256 224 224" "infer 1 224 224" "infer 1 512 2048" "train 256 224 224" "train 256 32 32"; do
            # shellcheck disable=SC2086
            set -- $row
            echo "PyTorch $mode $row" >&2
            "$PYTHON" scripts/bench/pytorch_gpu.py --reference "$REFERENCE" --what "$1" --batch "$2" --height "$3" --width "$4" \
                --mode "$mode" >>"$record.json" || echo "PyTorch $mode $row: failed" >&2
        done
    done
else
    echo "no REFERENCE=DIR: PyTorch was not measured" >&2
fi

{
    printf '# %s\n\ndriver and memory as above; CUDA %s, commit %s\n\n' "$gpu" "$toolkit" "$commit"
    printf '| program | what | model | size | batch | ms | images/s |\n|---|---|---|---|--:|--:|--:|\n'
    "$PYTHON" - "$record.json" <<'PYTHON'
import json
import sys
for line in list(open(sys.argv[1]))[1:]:
    r = json.loads(line)
    print(f"| {r['program']} | {r['what']} | {r['model']} | {r['size']} | {r['batch']} | {r['ms']:.3f} | {r['images_per_s']:.0f} |")
PYTHON
} >"$record.md"
cat "$record.md"
