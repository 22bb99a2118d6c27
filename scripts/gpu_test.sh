#!/bin/sh
# make test-gpu: everything that only a GPU can show, in parts that each print passed or failed, within 8 minutes. Needs a
# driver, the CUDA Toolkit and what `make` needs; MALA_DATA (data packs) for the parts on real pictures.
set -u
cd "$(dirname "$0")/.."

if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L 2>/dev/null | grep -q GPU; then
    echo "make test-gpu: no NVIDIA GPU on this machine (nvidia-smi shows none) - nothing was tested" >&2
    exit 6
fi
B=${B:-build/gpu}
out=$B/test-gpu
make -s -j"$(nproc)" CUDA=1 B="$B" "$B/mala" "$B/gpu/test_cuda_ops" || exit 1
ops=$B/gpu/test_cuda_ops
rm -rf "$out" && mkdir -p "$out"
mala=$B/mala
failed=0

part() { # part NAME COMMAND...
    name=$1 start=$(date +%s)
    shift
    if "$@" >"$out/$name.log" 2>&1; then verdict=passed; else verdict=FAILED failed=$((failed + 1)); fi
    printf '%-28s %s in %d s (%s)\n' "$name" "$verdict" $(($(date +%s) - start)) "$out/$name.log"
}

# The same epoch again and again: losses and accuracies to the last digit of every run as in the first.
same_bits() { # same_bits PRECISION TIMES
    for run in $(seq "$2"); do
        "$mala" train --config configs/demo.json --device cuda --precision "$1" --epochs 1 --exist-ok data.path="$B/pictures" \
            log.interval=1 output="$out/same" || return 1
        sed 's/"perf.*//' "$out/same/metrics.jsonl" >"$out/same_$run.txt"
        cmp "$out/same_1.txt" "$out/same_$run.txt" || return 1
    done
}

# 100 steps in float32 on the GPU and on the CPU: the loss of every tenth within 1e-3.
like_cpu() {
    for device in cpu cuda; do
        "$mala" train --config configs/demo.json --device "$device" --precision float32 --epochs 2 --batch-size 60 --exist-ok \
            log.interval=10 data.path="$B/pictures" output="$out/like_$device" || return 1
        sed -n 's/.*"step":\([0-9]*\),.*"train\/loss":\([0-9.e+-]*\),.*/\1 \2/p' "$out/like_$device/metrics.jsonl" |
            awk '$1 <= 100' >"$out/like_$device.txt"
    done
    paste "$out/like_cpu.txt" "$out/like_cuda.txt" |
        awk '{d = $2 - $4; if (d < 0) d = -d; print; if (d > 1e-3 || $1 != $3) bad = 1} END {exit bad || NR < 10}'
}

sanitize() { compute-sanitizer --tool "$1" --error-exitcode 9 "$ops"; }

part ops "$ops" # every case in float32, bfloat16 and float16 against the double reference, twice with the same bits
[ -d "$B/pictures" ] || "$mala" synth "$B/pictures" --seed 1 2>/dev/null
part same_bits_float32 same_bits float32 2
part same_bits_bfloat16 same_bits bfloat16 20
part like_cpu like_cpu
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do part "sanitizer_$tool" sanitize "$tool"; done
else
    echo "compute-sanitizer: skipped, not installed (package cuda-sanitizer)"
fi
echo "test-gpu: $failed parts failed"
[ "$failed" -eq 0 ]
