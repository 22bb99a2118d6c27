#!/bin/sh
# scripts/fuzz.sh BUILD_FOLDER SECONDS: builds every tests/fuzz/fuzz_*.c with clang's libFuzzer, AddressSanitizer and
# UndefinedBehaviorSanitizer, and runs each for so long, as many at once as there are processors. They begin with good
# files and the known attacks, and keep what they find in BUILD_FOLDER/corpus. Prints a line per target: executions, or
# the input that failed, in base64. A third argument names one target, to run it alone.
set -eu
build=$1 seconds=$2
shift 2

if [ $# = 0 ]; then
    scripts/install_deps.sh clang g++
    runtime=libclang_rt.fuzzer-$(uname -m).a
    if [ ! -e "$(clang -print-file-name="$runtime")" ]; then
        scripts/install_deps.sh "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
    fi
    printf '%s\n' pth safetensors json | xargs -n 1 -P "$(nproc)" "$0" "$build" "$seconds"
    exit
fi

target=fuzz_$1
corpus=$build/corpus/$1 log=$build/$target.log
mkdir -p "$corpus"
case $1 in
pth) cp tests/golden/*.pth "$corpus" ;;
json) cp configs/*.json "$corpus" ;;
esac
clang -std=c11 -D_GNU_SOURCE -Isrc -Itests -g -O1 -fno-omit-frame-pointer -fsanitize=fuzzer,address,undefined \
    -fno-sanitize-recover=undefined -o "$build/$target" "tests/fuzz/$target.c" tests/fuzz/fuzz.c tests/pth_build.c \
    src/base/*.c src/io/tensor_file.c src/io/safetensors.c src/io/pth*.c src/io/pickle*.c src/io/zip*.c \
    -lcjson -lpthread -lm
if ! FUZZ_SEEDS=$corpus "$build/$target" -max_total_time="$seconds" -max_len=65536 -timeout=5 -rss_limit_mb=1024 \
    -print_final_stats=1 -artifact_prefix="$build/$target-" "$corpus" tests/fuzz/seeds >"$log" 2>&1; then
    input=$(sed -n 's/.*Test unit written to //p' "$log")
    tail -n 40 "$log"
    echo "$target: failed with the input $input:"
    [ -z "$input" ] || base64 -w 0 "$input"
    echo
    exit 1
fi
echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") executions in $seconds s, nothing found"
