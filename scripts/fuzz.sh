#!/bin/sh
# scripts/fuzz.sh BUILD_FOLDER SECONDS: builds every tests/fuzz/fuzz_*.c with clang's libFuzzer, AddressSanitizer and
# UndefinedBehaviorSanitizer, and runs each for so long, from seeds that grow in BUILD_FOLDER/seeds. Ends with a line per
# target: executions, or where the input that failed is.
set -eu
build=$1 seconds=$2
scripts/install_deps.sh clang
runtime=$(clang -print-file-name=libclang_rt.fuzzer-"$(uname -m)".a)
if [ ! -e "$runtime" ] && ! ls "$(clang -print-resource-dir)"/lib/*/libclang_rt.fuzzer-*.a >/dev/null 2>&1; then
    scripts/install_deps.sh "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
fi

sources="tests/pth_build.c src/io/tensor_file.c src/io/safetensors.c src/io/pickle.c src/io/pickle_torch.c src/io/pickle_inert.c
         src/io/pth.c src/io/zip.c src/base/*.c"
for target in tests/fuzz/fuzz_*.c; do
    name=$(basename "$target" .c) failed=0
    mkdir -p "$build/seeds/$name"
    case $name in
    fuzz_pth) cp tests/golden/*.pth tests/fuzz/seeds/*.pkl "$build/seeds/$name" ;;
    fuzz_safetensors) cp tests/fuzz/seeds/*.safetensors "$build/seeds/$name" ;;
    fuzz_json) cp configs/*.json "$build/seeds/$name" ;;
    esac
    # shellcheck disable=SC2086
    clang -std=c11 -D_GNU_SOURCE -Isrc -Itests -g -O1 -fno-omit-frame-pointer -fsanitize=fuzzer,address,undefined \
        -fno-sanitize-recover=undefined -o "$build/$name" "$target" $sources -lcjson -lpthread -lm
    "$build/$name" -max_total_time="$seconds" -max_len=65536 -timeout=5 -rss_limit_mb=1024 \
        -artifact_prefix="$build/$name-" -print_final_stats=1 "$build/seeds/$name" >"$build/$name.log" 2>&1 || failed=1
    if [ "$failed" = 1 ]; then
        tail -n 30 "$build/$name.log"
        echo "$name: failed; the input is named above" >&2
        exit 1
    fi
    echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$build/$name.log") executions in $seconds s, nothing found"
done
