#!/bin/sh
# make test-gpu: everything that only a GPU can show, in parts that each print passed or failed, within 8 minutes. Needs a
# driver, the CUDA Toolkit and what `make` needs, or a bundle (gpu_bundle.sh). MALA_DATA (data packs) names real pictures;
# without it the training parts run on made ones.
#   scripts/gpu_test.sh PART...       these parts alone
#   scripts/gpu_test.sh --emulated    the same parts, small, on the host emulation
set -u
cd "$(dirname "$0")/.." || exit 1
# shellcheck source=scripts/gpu_programs.sh
. scripts/gpu_programs.sh
[ -z "$emulated" ] || shift
wanted=$*
out=$B/test-gpu
rm -rf "$out" && mkdir -p "$out"
if [ -n "$emulated" ]; then
    repeats=2 kinds="--train 2 --val 1 --scenes 0 --size 64" like_steps=3 ops_part=gelu large=16
    network="model.name=custom" sizes="--batch 2 --size 32" too_much="--batch 65535 --size 224"
    small="model.dims=8,16,24,32 model.depths=1,1,1,1 model.heads=1,1,1,1 model.projection=32 input.size=32"
    few="train.batch_size=8"
else
    repeats=20 kinds="" like_steps=200 ops_part="" small="" few="" large=1024
    network="--model mavit_t" sizes="--batch 256 --size 224" too_much="--batch 512 --size 2048"
fi

# Within 8 minutes: what has not begun by then has failed.
end=$(($(date +%s) + 470))
seconds_left() { echo $((end - $(date +%s))); }

is_wanted() { # is_wanted NAME: asked for, where parts are, or made for others
    case " ${wanted:-$1} pictures " in *" $1 "*) ;; *) return 1 ;; esac
}

part() { # part NAME COMMAND...
    is_wanted "$1" || return 0
    name=$1 start=$(date +%s) verdict=passed
    shift
    [ "$(seconds_left)" -gt 0 ] || set -- eval 'echo "no time left"; false'
    with_libraries "$@" >"$out/$name.log" 2>&1 || verdict=FAILED
    printf '%-28s %s in %d s (%s)\n' "$name" $verdict $(($(date +%s) - start)) "$out/$name.log" | tee -a "$out/summary"
}

# train DEVICE PRECISION CONFIG DATA OVERRIDE...: the losses of all steps, as "step loss" on $out/losses
train() {
    device=$1 precision=$2 config=$3 data=$4
    shift 4
    rm -rf "$out/run_$device" # metrics are appended to what is there
    # shellcheck disable=SC2086
    "$mala" train --config "configs/$config.json" --device "$device" --precision "$precision" log.interval=1 \
        data.path="$data" output="$out/run_$device" $small $few "$@" || return 1
    sed -n 's/.*"step":\([0-9]*\),.*"train\/loss":\([0-9.e+-]*\),.*/\1 \2/p' "$out/run_$device/metrics.jsonl" >"$out/losses"
}

# The same epoch again and again: losses to the last digit of every run as in the first.
same_bits() { # same_bits PRECISION TIMES
    for run in $(seq "$2"); do
        train cuda "$1" demo "$out/pictures" --epochs 1 sched.warmup_epochs=0.25 || return 1
        [ "$run" = 1 ] && cp "$out/losses" "$out/first"
        [ -s "$out/first" ] && cmp "$out/first" "$out/losses" || return 1
    done
}

# 200 steps in float32 on the GPU and on the CPU: each of the first 100 losses within 1e-3, as the goal for a GPU is set.
# Rounding grows from step to step, so of the second hundred only the mean is held against the CPU's: within 0.02, three
# times what rounding alone was seen to do. Measured on the CPU between its three instruction sets, which add up in other
# orders, cifar10_small and flowers5_small as below: losses of the first hundred apart by 7e-7 and 3.0e-4 at most, single
# later ones by 1.4e-6 and 0.19, means of the second hundred by 6.3e-8 and 0.0062.
like_cpu() { # like_cpu CONFIG DATA OVERRIDE...
    for device in cpu cuda; do
        train $device float32 "$@" || return 1
        head -n "$like_steps" "$out/losses" >"$out/like_$device"
    done
    paste "$out/like_cpu" "$out/like_cuda" | awk -v steps="$like_steps" '
        {d = $2 - $4; if (d < 0) d = -d; if (d > most) most = d; print $0, d}
        NR <= 100 && d > 1e-3 {bad = 1}
        $1 != $3 {bad = 1}
        NR > 100 {cpu += $2; cuda += $4; late++}
        END {
            mean = late ? (cpu - cuda) / late : 0
            print "largest difference", most, "means of the second hundred apart by", mean
            exit bad || NR < steps || mean > 0.02 || mean < -0.02
        }'
}

# The pictures that a split of a pack lists, as DIR/<class>/.
unpack() { # unpack PACK SPLIT DIR
    mkdir -p "$3"
    tar xzf "$MALA_DATA/$1.tar.gz" -O "$1/splits/$2.txt" | sed "s|^|$1/|" >"$3.list"
    tar xzf "$MALA_DATA/$1.tar.gz" -C "$3" --transform 's|.*/\([^/]*/[^/]*\)$|\1|' -T "$3.list"
}

# `auto` takes the GPU and says so; one that is not there is exit code 6, not the CPU.
device() {
    # shellcheck disable=SC2086
    "$mala" bench infer $network $small --size 32 --rounds 1 2>&1 | tee "$out/auto" | grep -A 1 'cuda:0' |
        grep 'auto: the first usable GPU' ||
        { cat "$out/auto"; return 1; }
    "$mala" bench infer --device cuda:99
    [ $? = 6 ]
}

# What `mala plan` says is within 2 % of what is taken, for a training step and for inference. Beside it lies what no plan
# can know: the context and the libraries.
memory() {
    for what in train infer; do
        [ $what = train ] && train=--train || train=
        # shellcheck disable=SC2086
        "$mala" plan --device cuda $train $network $small $sizes --json >"$out/plan_$what" &&
            "$mala" bench $what --device cuda $network $small $sizes --rounds 1 --json >"$out/taken_$what" || return 1
        sed -n 's/.*"\(training\|inference\)":{[^}]*"total":\([0-9]*\).*/\2/p' "$out/plan_$what" >"$out/bytes"
        sed -n 's/.*"device_mb":\([0-9.]*\),"beside_mb":\([0-9.]*\).*/\1 \2/p' "$out/taken_$what" >>"$out/bytes"
        tr '\n' ' ' <"$out/bytes" | awk -v what=$what '{
            said = $1 / 1048576
            printf "%s: %.1f MiB predicted, %.1f taken, %.1f beside them\n", what, said, $2, $3
            exit !($2 > 0 && said / $2 > 0.98 && said / $2 < 1.02)
        }' || return 1
    done
}

# More than there is: exit code 6, and a line that says how much is missing.
memory_full() {
    # shellcheck disable=SC2086
    "$mala" bench train --device cuda $network $small $too_much 2>"$out/full"
    [ $? = 6 ] && cat "$out/full" && grep 'no memory for .* MiB' "$out/full"
}

# A folder's pictures, decoded by one thread and by all: the same lines; in float32 the same first classes as on the CPU,
# but for one in a hundred, where two are equally likely.
folder() {
    weights=$out/run_cuda/weights/last.safetensors
    [ -f "$weights" ] || train cuda bfloat16 demo "$out/pictures" --epochs 1 sched.warmup_epochs=0.25 || return 1
    "$mala" infer "$out/pictures/val" --weights "$weights" --device cuda --json train.threads=1 >"$out/one_thread" &&
        "$mala" infer "$out/pictures/val" --weights "$weights" --device cuda --json >"$out/all_threads" &&
        cmp "$out/one_thread" "$out/all_threads" || return 1
    for device in cpu cuda; do
        "$mala" infer "$out/pictures/val" --weights "$weights" --device $device --precision float32 --topk 1 --json |
            sed 's/,"score.*//' >"$out/classes_$device" || return 1
    done
    paste -d ' ' "$out/classes_cpu" "$out/classes_cuda" |
        awk '{n++; other += $1 != $2} END {print other + 0, "of", n, "classes differ"; exit n < 10 || other > n / 100}'
}

# An epoch in every precision that training has, beside float32: each of the first ten losses within 2 %, their mean over
# all steps within 5 %. Halves give other digits; the same ones would be another precision's.
precisions() {
    for precision in float32 tf32 bfloat16 float16; do
        train cuda $precision demo "$out/pictures" --epochs 1 sched.warmup_epochs=0.25 || return 1
        [ $precision = float32 ] && cp "$out/losses" "$out/of_float32"
        paste "$out/of_float32" "$out/losses" | awk -v p="$precision" '
            {d = $4 - $2; if (d < 0) d = -d; if (NR <= 10 && d > 0.02 * $2) far++; want += $2; got += $4; other += d > 0}
            END {
                off = (got - want) / want
                print p, "losses of", NR, "steps:", other + 0, "are others than float32, mean", 100 * off, "% off"
                half = p == "bfloat16" || p == "float16"
                exit !(NR > 1 && !far && off < 0.05 && off > -0.05 && (!half || other > 0) && got > 0)
            }' || return 1
    done
}

# Our kernels from the portable code that a GPU newer than the build would translate.
portable() { CUDA_FORCE_PTX_JIT=1 "$ops" layer_norm && CUDA_FORCE_PTX_JIT=1 "$ops" attention; }

sanitize() { timeout "$(seconds_left)" compute-sanitizer --tool "$1" --error-exitcode 9 "$ops"; }

part ops "$ops" $ops_part # every case in float32, bfloat16 and float16 against the double reference, twice with the same bits
[ -n "$emulated" ] || part golden "$golden"
part device device
part memory memory
part memory_full memory_full
# shellcheck disable=SC2086
part pictures "$mala" synth "$out/pictures" --seed 1 $kinds
part same_bits_float32 same_bits float32 2
part same_bits_bfloat16 same_bits bfloat16 "$repeats"
part precisions precisions
part large_batch train cuda bfloat16 demo "$out/pictures" --epochs 1 train.batch_size=$large sched.warmup_epochs=0.25
part folder folder
if [ -n "${MALA_DATA:-}" ] && [ -z "$emulated" ] && { is_wanted like_cpu_cifar10 || is_wanted like_cpu_flowers5; }; then
    unpack cifar10_jpg train_10k "$out/cifar10/train" && unpack cifar10_jpg test_2k "$out/cifar10/val"
    unpack flowers5 train "$out/flowers5/train" && unpack flowers5 val "$out/flowers5/val"
    part like_cpu_cifar10 like_cpu cifar10_small "$out/cifar10" --epochs 1 --batch-size 50
    part like_cpu_flowers5 like_cpu flowers5_small "$out/flowers5" --epochs 7
elif is_wanted like_cpu; then
    echo "like_cpu: on made pictures; MALA_DATA names no data packs"
    part like_cpu like_cpu demo "$out/pictures" --epochs 5
fi
if [ -n "$emulated" ]; then
    echo "golden: make test runs it beside this; portable, second_gpu, sanitizer_*: on a GPU alone"
else
    part portable portable
    if ! is_wanted second_gpu; then
        :
    elif [ "$(nvidia-smi -L | grep -c GPU)" -gt 1 ]; then
        part second_gpu "$mala" bench infer --device cuda:1
    else
        echo "second_gpu: skipped, there is one"
    fi
    if command -v compute-sanitizer >/dev/null; then # side by side, since each leaves the GPU idle most of the time
        for tool in memcheck racecheck initcheck synccheck; do part "sanitizer_$tool" sanitize "$tool" & done
        wait
    else
        echo "compute-sanitizer: skipped, not installed (package cuda-sanitizer)"
    fi
fi
failed=$(grep -c FAILED "$out/summary")
echo "test-gpu: $failed parts failed"
[ "$failed" -eq 0 ]
