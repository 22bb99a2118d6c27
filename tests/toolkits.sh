#!/bin/sh
# What is built with which CUDA Toolkit: an nvcc of a few lines stands for those that are not at hand.
. tests/check.sh

nvcc() { # RELEASE, architectures that it knows
    printf '#!/bin/sh\ncase $1 in\n--version) echo "Cuda compilation tools, release %s, V%s.1" ;;\n' "$1" "$1" >"$scratch/nvcc"
    shift
    printf -- '--list-gpu-arch) printf "compute_%%s\\n" %s ;;\nesac\n' "$*" >>"$scratch/nvcc"
    chmod +x "$scratch/nvcc"
}
would_make() { make -n --no-print-directory B="$scratch/build" NVCC="$scratch/nvcc" "$@" "$scratch/build/mala" 2>&1; }
built_for() { # architectures; the last one comes in portable form, too
    want="$* compute_$(echo "$*" | sed 's/.*_//')"
    got=$(would_make CUDA=1 GPU_ARCHS="$gpu" | sed -n '/dwconv.cu$/s/ -MMD.*//p; /dwconv.cu /s/ -MMD.*//p' |
        grep -o 'code=[a-z0-9_]*' | sed 's/code=//' | awk '!seen[$0]++' | tr '\n' ' ')
    [ "$got" = "$want " ] || { echo "$got" && return 1; }
}
says() { would_make CUDA=1 | grep -q "$1"; }

gpu=
nvcc 12.4 75 80 86 89 90
check "CUDA 12.4, no GPU: all that it knows" built_for sm_75 sm_80 sm_86 sm_89 sm_90
gpu=89
check "CUDA 12.4 and a GPU: that one" built_for sm_89
gpu=120
check "CUDA 12.4 and a younger GPU: all, for the driver to translate" built_for sm_75 sm_80 sm_86 sm_89 sm_90
gpu=
nvcc 13.0 75 80 86 87 88 89 90 100 110 103 120 121
check "CUDA 13" built_for sm_75 sm_80 sm_86 sm_89 sm_90 sm_100 sm_120
nvcc 11.8 75 80 86 89 90
check "CUDA 11 is told from none" says 'no nvcc of CUDA 12 or later'
check "and nothing is built with it unasked" sh -c "make -n B='$scratch/build' NVCC='$scratch/nvcc' | grep -q 'no cuda'"
check "CUDA=0 is no CUDA" sh -c "make -n B='$scratch/build' NVCC='$scratch/nvcc' CUDA=0 | grep -q 'no cuda'"
verdict
