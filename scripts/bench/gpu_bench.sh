#!/bin/sh
# make bench-gpu: mala against PyTorch on this machine's GPU. scripts/bench/results/gpu_<date>.json has a row a line, with
# the GPU, driver, toolkit and commit in the first; gpu_report.py makes .md and _summary.json of them: ratios, and every
# kind of kernel beside the copy's bandwidth and its floor; gpu_<date>_steps_*.txt has the time of every step. PyTorch's
# rows need REFERENCE=DIR, the folder of mavit_reference.py, and PYTHON with PyTorch and CUDA. Builds, or takes a bundle:
# scripts/gpu_programs.sh.
#
# Within 8 minutes: mala's rows take seconds each, PyTorch's are compiled four at a time ahead of being timed one by one,
# the goals' rows first, and what would begin after 7 minutes is a row that says so.
#   scripts/bench/gpu_bench.sh --emulated    one small row of each kind on the host emulation, into build/bench-gpu
set -eu
cd "$(dirname "$0")/../.."
start=$(date +%s)
PYTHON=${PYTHON:-python3}
# shellcheck source=scripts/gpu_programs.sh
. scripts/gpu_programs.sh
results=scripts/bench/results
[ -z "$emulated" ] || results=build/bench-gpu
mkdir -p $results
record=$results/gpu_$(date +%Y-%m-%d)

gpu="host emulation" driver=none
if [ -z "$emulated" ]; then
    gpu=$(nvidia-smi --query-gpu=name,memory.total --format=csv,noheader | head -n 1)
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)
fi
toolkit=$(nvcc --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p')
commit=$(git describe --always --dirty 2>/dev/null || cut -d , -f 1 "$B/bundle" 2>/dev/null || echo unknown)
printf '{"gpu":"%s","driver":"%s","toolkit":"%s","commit":"%s","date":"%s"}\n' \
    "$gpu" "$driver" "${toolkit:-none}" "$commit" "$(date +%F)" >"$record.json"

seconds_left() { echo $((start + 420 - $(date +%s))); }

# A row of mala's, with the time of every kind of op.
bench() { # bench WHAT MODEL BATCH SIZE [FLAG]
    echo "mala $*" >&2
    mark=
    [ "${5:-}" != train.recompute=none ] || mark='"kept":true,'
    # shellcheck disable=SC2086
    with_libraries "$mala" bench "$1" --device cuda --model "$2" --batch "$3" --size "$4" --rounds "$rounds" --json \
        ${5:---ops} >"$record.row" || printf '{"what":"%s","batch":%s,"error":"failed"}\n' "$1" "$3" >"$record.row"
    sed "s/^{/{\"program\":\"mala\",$mark\"model\":\"$2\",\"size\":\"$4\",/" "$record.row" >>"$record.json"
}

# Every step's time, its arithmetic and the memory it moves.
steps() { # steps WHAT BATCH SIZE
    with_libraries "$mala" bench "$1" --device cuda --model mavit_t --batch "$2" --size "$3" --rounds "$rounds" --steps \
        >"${record}_steps_$1_$2_$3.txt" || echo "mala bench $* --steps: failed" >&2
}

pytorch() { # pytorch MODE WHAT SIZE BATCH HEIGHT WIDTH [FLAG...]
    echo "PyTorch $*" >&2
    row="--mode $1 --what $2 --size $3 --batch $4 --height $5 --width $6" left=$(seconds_left) error="out of time"
    lost="{\"program\":\"PyTorch\",\"mode\":\"$1\",\"what\":\"$2\",\"model\":\"$3\",\"batch\":$4,\"size\":\"$5x$6\""
    shift 6
    if [ "$left" -gt 0 ]; then
        # shellcheck disable=SC2086
        timeout "$left" "$PYTHON" scripts/bench/pytorch_gpu.py --reference "$REFERENCE" $row "$@" >>"$record.json" && return
        [ "$(seconds_left)" -le 0 ] || error=failed
    fi
    echo "$lost,\"error\":\"$error\"}" >>"$record.json"
}

# what PyTorch is measured on, the goals with a ratio first: WHAT SIZE BATCH HEIGHT WIDTH
rows='train T 256 224 224
infer T 256 224 224
infer T 1 512 2048
train T 256 32 32
infer T 1 224 224
train S 256 224 224
train B 256 224 224
infer T 1 2048 2048
infer T 1 4096 4096'

pytorch_all() { # pytorch_all MODE
    echo "$rows" | while read -r what size batch height width; do
        pytorch "$1" "$what" "$size" "$batch" "$height" "$width" </dev/null
    done
}

# Fills PyTorch's cache of compiled graphs; a row whose turn here fails is compiled when it is timed.
compile_ahead() {
    TORCHINDUCTOR_CACHE_DIR=$PWD/build/inductor TORCHINDUCTOR_FX_GRAPH_CACHE=1 TORCHINDUCTOR_AUTOGRAD_CACHE=1
    export TORCHINDUCTOR_CACHE_DIR TORCHINDUCTOR_FX_GRAPH_CACHE TORCHINDUCTOR_AUTOGRAD_CACHE
    echo "PyTorch: compiling" >&2
    # shellcheck disable=SC2016
    echo "$rows" | timeout 200 xargs -P 4 -L 1 sh -c '"$0" scripts/bench/pytorch_gpu.py --reference "$1" --compile-only \
        --mode compile_channels_last --what "$2" --size "$3" --batch "$4" --height "$5" --width "$6" </dev/null' \
        "$PYTHON" "$REFERENCE" >/dev/null 2>&1 || true
}

rounds=15
[ -z "$emulated" ] || rounds=1
with_libraries "$mala" bench copy --device cuda --rounds "$rounds" --json | sed 's/^{/{"program":"mala",/' >>"$record.json"
if [ -n "$emulated" ]; then
    bench infer mavit_t 1 32
    bench infer mavit_t 1 32 --upload
    bench train mavit_t 1 32 train.recompute=none
    steps infer 1 32
    [ -z "${REFERENCE:-}" ] || pytorch eager infer T 1 32 32 --device cpu --tiny
else
    bench train mavit_t 256 224
    bench train mavit_t 256 224 --upload
    bench train mavit_t 256 224 train.recompute=none
    bench infer mavit_t 256 224
    bench infer mavit_t 1 512x2048
    bench train mavit_t 256 32
    bench train mavit_t 256 32 --no-capture
    bench infer mavit_t 1 224
    for model in mavit_s mavit_b; do bench train $model 256 224; done
    bench infer mavit_t 1 2048
    bench infer mavit_t 1 4096
    steps infer 256 224
    steps train 256 224
    if [ -n "${REFERENCE:-}" ]; then
        "$PYTHON" scripts/bench/pytorch_gpu.py --what product >>"$record.json" || echo "PyTorch's product: failed" >&2
        pytorch_all eager
        compile_ahead
        pytorch_all compile_channels_last
    else
        echo "no REFERENCE=DIR: PyTorch was not measured" >&2
    fi
fi
rm -f "$record.row"
if command -v "$PYTHON" >/dev/null; then
    "$PYTHON" scripts/bench/gpu_report.py "$record.json" && cat "$record.md"
else
    echo "no $PYTHON: $record.json has the rows, gpu_report.py would make the tables" >&2
fi
echo "bench-gpu: $(($(date +%s) - start)) s" >&2
# a dry run that lost a row has failed
[ -z "$emulated" ] || ! grep '"error"' "$record.json" >&2
