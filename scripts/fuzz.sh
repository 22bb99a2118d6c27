#!/bin/sh
# scripts/fuzz.sh BUILD_FOLDER SECONDS: builds every tests/fuzz/fuzz_*.c with clang's libFuzzer, AddressSanitizer and
# UndefinedBehaviorSanitizer, and runs each for so long, as many at once as there are processors. They begin with good
# files and the known attacks, and keep what they find in BUILD_FOLDER/corpus. Prints a line per target: executions, or
# the input that failed, in base64. More arguments name targets, to run these alone.
set -eu
build=$1 seconds=$2
shift 2
compile="clang -std=c11 -D_GNU_SOURCE -DIMAGE_MAX_PIXELS=65536 -Isrc -Itests -Itests/fuzz -g -O1
    -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"

# The readers, once for all targets; a linker takes from the archive what a target calls.
build_readers() {
    sources="$(ls src/base/*.c src/io/*.c src/data/*.c src/lib/[ch]*.c | grep -v 'onnx\|synth') tests/pth_build.c
        tests/bitmaps.c tests/fuzz/fuzz.c tests/fuzz/picture.c"
    mkdir -p "$build/objects"
    rm -f "$build/objects"/*.o "$build/readers.a"
    for source in $sources; do
        echo "$source $(echo "$source" | tr / _)"
    done | xargs -n 2 -P "$(nproc)" sh -c "$(echo $compile) -fsanitize=fuzzer-no-link -c -o $build/objects/\$1.o \$0"
    ar rcs "$build/readers.a" "$build/objects"/*.o
}

if [ "${FUZZ_TARGET:-}" = "" ]; then
    scripts/install_deps.sh clang g++
    runtime=libclang_rt.fuzzer-$(uname -m).a
    if [ ! -e "$(clang -print-file-name="$runtime")" ]; then
        scripts/install_deps.sh "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
    fi
    build_readers
    [ $# -gt 0 ] || set -- pth safetensors json jpeg png webp bitmap hub list
    printf '%s\n' "$@" | xargs -I NAME -P "$(nproc)" env FUZZ_TARGET=NAME "$0" "$build" "$seconds"
    exit
fi

target=fuzz_$FUZZ_TARGET
corpus=$build/corpus/$FUZZ_TARGET log=$build/$target.log
mkdir -p "$corpus"
case $FUZZ_TARGET in
pth) cp tests/golden/*.pth "$corpus" ;;
json) cp configs/*.json "$corpus" ;;
esac
$compile -fsanitize=fuzzer -o "$build/$target" "tests/fuzz/$target.c" "$build/readers.a" \
    -lcjson -lpng -ljpeg -lwebp -lpthread -lm
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
