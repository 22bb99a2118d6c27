# gpu_programs.sh - sourced by gpu_test.sh and bench/gpu_bench.sh from the repository's root: what they run. Sets $mala,
# $ops and $golden.
#   a GPU, the toolkit and the libraries     the programs are built into build/gpu
#   build/gpu/bundle (gpu_bundle.sh)         they were built elsewhere and are taken as they are
#   --emulated                               the host emulation of tests/emulate/: shows that the script itself works

B=${B:-build/gpu}
PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin # nvcc and compute-sanitizer, where the toolkit stands but not in the path
emulated=
if [ "${1:-}" = --emulated ]; then
    emulated=yes
    B=build
    make -s -j"$(nproc)" CUDA= B=$B $B/emulate/mala $B/tests/test_cuda_ops $B/tests/test_cuda_golden || exit 1
    mala=$B/emulate/mala ops=$B/tests/test_cuda_ops golden=$B/tests/test_cuda_golden
elif ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L 2>/dev/null | grep -q GPU; then
    echo "$0: no NVIDIA GPU on this machine (nvidia-smi shows none) - nothing was run" >&2
    exit 6
else
    mala=$B/mala ops=$B/gpu/test_cuda_ops golden=$B/gpu/test_cuda_golden
    if [ -f "$B/bundle" ]; then
        echo "programs of $B, built elsewhere: $(cat "$B/bundle")" >&2
    else
        make -s -j"$(nproc)" CUDA=1 B="$B" "$mala" "$ops" "$golden" || exit 1
    fi
    # cuBLASLt and cuDNN may be at hand only as wheels beside PyTorch; the toolkit's own go first
    wheels=$("${PYTHON:-python3}" -c 'import glob, sys
print(":".join(p for d in sys.path for p in sorted(glob.glob(d + "/nvidia/*/lib"))))' 2>/dev/null)
    libraries=${CUDA_HOME:-/usr/local/cuda}/lib64:$wheels${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi

# A program with these libraries; Python is to find its own.
with_libraries() { LD_LIBRARY_PATH=${libraries:-${LD_LIBRARY_PATH:-}} "$@"; }
