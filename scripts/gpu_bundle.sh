#!/bin/sh
# The programs of `make test-gpu` and `make bench-gpu` for a machine that has a driver, the CUDA Toolkit and PyTorch but
# nothing else: build/gpu/ with the programs and, in lib/, the shared libraries they need beside the system's own. Take
# the working tree there with build/gpu/ in it, run both commands, and nothing is built. CUDA_ARCHS: for which GPUs (90).
set -eu
cd "$(dirname "$0")/.."
objects=build/gpu_objects bundle=build/gpu
# RPATH, not RUNPATH: it also holds for what the libraries themselves need
make -s -j"$(nproc)" CUDA=1 CUDA_ARCHS="${CUDA_ARCHS:-90}" B=$objects \
    LDFLAGS="-Wl,--disable-new-dtags -Wl,-rpath,'\$\$ORIGIN/lib:\$\$ORIGIN/../lib'" \
    $objects/mala $objects/gpu/test_cuda_ops $objects/gpu/test_cuda_golden

rm -rf "$bundle"
mkdir -p $bundle/lib $bundle/gpu
for program in mala gpu/test_cuda_ops gpu/test_cuda_golden; do
    strip --strip-debug -o "$bundle/$program" "$objects/$program"
    ldd "$objects/$program"
done | awk '$3 ~ /^\// {print $3}' | sort -u | grep -vE '/lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s)\.so' >$bundle/lib/list
while read -r library; do cp -L "$library" $bundle/lib/; done <$bundle/lib/list
rm $bundle/lib/list

# what is left for the other machine to have
left=$(env -i PATH="$PATH" ldd $bundle/mala $bundle/gpu/test_cuda_ops $bundle/gpu/test_cuda_golden |
    awk -v lib=/$bundle/ '$3 ~ /^\// && index($3, lib) == 0 {print $1} /not found/ {print $1, "MISSING"}' | sort -u | tr '\n' ' ')
glibc=$(objdump -T $bundle/mala $bundle/gpu/* $bundle/lib/* | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
echo "commit $(git describe --always --dirty 2>/dev/null), sm_${CUDA_ARCHS:-90}, $glibc" >$bundle/bundle
env -i $bundle/mala version
echo "$bundle: $(cat $bundle/bundle); of the system it needs $left"
echo "$(tar cz -C build gpu | wc -c | awk '{printf "%.1f", $1 / 1048576}') MiB compressed, $(du -sm $bundle | cut -f 1) MiB unpacked"
