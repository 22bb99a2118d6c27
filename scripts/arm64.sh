#!/bin/sh
# Builds mala for arm64 on an x86-64 Debian and runs the tests named as arguments (all that run no other program without
# them) under qemu: what stands in for an arm64 machine, correctness only. Needs root for the packages, once.
#   MALA_DATA=PACKS scripts/arm64.sh [ops golden ...]
set -eu
cd "$(dirname "$0")/.."
root=${TMPDIR:-/tmp}/mala-arm64-debian target=aarch64-linux-gnu
libraries=libc6-dev,libgcc-12-dev,libgomp1,libdnnl-dev,libcjson-dev,libpng-dev,libjpeg-dev,libwebp-dev,libcmocka-dev

[ "$(id -u)" = 0 ] && as_root= || as_root=sudo
command -v qemu-aarch64 >/dev/null && command -v debootstrap >/dev/null && command -v $target-gcc >/dev/null ||
    $as_root apt-get install -y -qq --no-install-recommends qemu-user debootstrap gcc-$target libc6-dev-arm64-cross
if [ ! -e "$root/usr/include/dnnl.h" ]; then
    $as_root debootstrap --foreign --arch=arm64 --variant=minbase --include=$libraries bookworm "$root" >/dev/null
    for package in "$root"/var/cache/apt/archives/*.deb; do $as_root dpkg-deb -x "$package" "$root"; done
fi

[ $# -gt 0 ] || set -- json file cli config log parallel plan resize image loader safetensors tensor_file weights pth onnx \
    malformed precision golden models ops
cc="$target-gcc --sysroot=$root -L$root/usr/lib/$target -Wl,-rpath-link,$root/usr/lib/$target"
programs=
for test; do programs="$programs build/arm64/tests/test_$test"; done
# shellcheck disable=SC2086
make -j"$(nproc)" --no-print-directory B=build/arm64 CC="$cc" LD=$target-ld OBJCOPY=$target-objcopy build/arm64/mala $programs

mkdir -p build/arm64/run
wrapped=
for test; do
    printf '#!/bin/sh\nQEMU_LD_PREFIX=%s exec qemu-aarch64 %s "$@"\n' "$root" "build/arm64/tests/test_$test" \
        >"build/arm64/run/test_$test"
    chmod +x "build/arm64/run/test_$test"
    wrapped="$wrapped build/arm64/run/test_$test"
done
# shellcheck disable=SC2086
scripts/run_tests.sh $wrapped
