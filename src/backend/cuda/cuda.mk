# cuda.mk - the CUDA backend's part of the Makefile.
#   make CUDA=1        a mala that runs on NVIDIA GPUs too; on by itself where nvidia-smi shows a GPU and nvcc is there
#   make cuda-check    every kernel compiled for every architecture, warnings as errors; registers, shared memory, spills
#                      (`make test` does it for CUDA_TEST_ARCHS)
# CUDA_ARCHS="80 90" chooses the GPUs to build for (this machine's, or all), CUDA_HOME where the toolkit is. A program
# without CUDA links backend/cuda_absent.c instead.

CUDA_HOME ?= /usr/local/cuda
NVCC      ?= $(firstword $(wildcard $(CUDA_HOME)/bin/nvcc) $(shell command -v nvcc 2>/dev/null))
# CUDA 12 is the first that knows C++20: an older nvcc is none
NVCC_RELEASE := $(if $(NVCC),$(shell $(NVCC) --version 2>/dev/null | sed -n 's/.*release \([0-9]*\)\..*/\1/p'))
ifneq (,$(filter 7 8 9 10 11,$(NVCC_RELEASE)))
override NVCC :=
endif
NVCC_ARCHS := $(if $(NVCC),$(shell $(NVCC) --list-gpu-arch 2>/dev/null | sed -n 's/^compute_//p'))
known = $(filter $(or $(NVCC_ARCHS),%),$(1))
# of the GPUs here that the kernels can run on; where there is none, or no driver, nvidia-smi says so in words
GPU_ARCHS := $(if $(NVCC),$(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | \
    sort -un | awk '/^[0-9]+$$/ && $$1 >= 75'))
CUDA      ?= $(if $(GPU_ARCHS),1)
CUDA_ALL_ARCHS := $(call known,75 80 86 89 90 100 120)
# what `make test` compiles for: all, as in .ci/run, take ten minutes of a processor
CUDA_TEST_ARCHS ?= 90
# a GPU that is younger than nvcc is served by the last one's portable form
CUDA_ARCHS ?= $(or $(call known,$(GPU_ARCHS)),$(CUDA_ALL_ARCHS))
NVCC_THREADS ?= 2

# objects that hold machine code, or say for which GPUs: a folder per list of architectures
empty :=
CUDA_DIR := $(B)/cuda/$(subst $(empty) $(empty),_,$(strip $(CUDA_ARCHS)))
CUDA_HOST_OBJ := $(patsubst src/%.c,$(B)/%.o,$(wildcard src/backend/cuda/*.c))
CUDA_OBJ := $(CUDA_HOST_OBJ) $(patsubst src/backend/cuda/%.cu,$(CUDA_DIR)/%.o,$(wildcard src/backend/cuda/*.cu)) \
            $(patsubst src/backend/cuda/%.c,$(CUDA_DIR)/%.o,$(wildcard src/backend/cuda/nvidia/*.c))
ABSENT_OBJ := $(B)/backend/cuda_absent.o

TOOLKIT = $(patsubst %/bin/nvcc,%,$(NVCC))
CUDA_LIBS = $(firstword $(wildcard $(TOOLKIT)/lib64/libcudart_static.a $(TOOLKIT)/lib/libcudart_static.a)) -ldl -lrt -lstdc++
# CUDA_STRICT: warnings are errors in cuda-check alone; a compiler that comes after this build may have new ones
# the last architecture also in portable form (PTX), for GPUs that come after this build
NVCC_FLAGS = -std=c++20 -O3 -Isrc -lineinfo --threads $(NVCC_THREADS) -ccbin $(lastword $(CXX)) $(CUDA_STRICT) -Xptxas -v \
             -Xcompiler -Wall,-Wextra,-Wno-missing-field-initializers,-fPIC \
             $(addprefix -Xcompiler ,$(HARDEN)) \
             $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) \
             $(foreach a,$(lastword $(CUDA_ARCHS)),-gencode arch=compute_$(a),code=compute_$(a))

$(CUDA_DIR)/flags: FORCE
	$(call keep,$(NVCC) $(filter-out $(CUDA_STRICT),$(NVCC_FLAGS)))
$(CUDA_DIR)/%.o: src/backend/cuda/%.cu $(CUDA_DIR)/flags | test-deps
	@mkdir -p $(@D)
	@echo "nvcc  $< ($(CUDA_ARCHS))"
	$(Q)$(NVCC) $(NVCC_FLAGS) -MMD -MP -MF $(@:.o=.d) -c -o $@ $< >$(@:.o=.log) 2>&1 || \
	    { grep -v '^ptxas info\|bytes stack frame' $(@:.o=.log) >&2; rm -f $@; exit 1; }

$(CUDA_DIR)/nvidia/%.o: src/backend/cuda/nvidia/%.c $(B)/flags | deps
	@mkdir -p $(@D)
	@echo "cc    $<"
	$(Q)$(CC) $(CPPFLAGS) -isystem $(TOOLKIT)/include -DMALA_CUDA_ARCHS='"$(strip $(CUDA_ARCHS))"' $(CFLAGS) -c -o $@ $<

ifneq (,$(filter-out 0 no,$(CUDA)))
$(if $(NVCC),,$(error CUDA=$(CUDA): no nvcc of CUDA 12 or later - install the CUDA Toolkit, or say where: CUDA_HOME=DIR))
DEVICE_OBJ := $(CUDA_OBJ)
DEVICE_LIBS = $(CUDA_LIBS)
FLAVOUR := cuda $(CUDA_ARCHS)
else
DEVICE_OBJ := $(ABSENT_OBJ)
FLAVOUR := no cuda
endif

# What is linked for the device, rewritten only when that changes: switching CUDA on and off links anew.
$(B)/flavour: FORCE
	$(call keep,$(FLAVOUR))

# The kernels, and a program of them, which must start without a driver; the verdict is in the form that
# scripts/run_tests.sh counts.
CUDA_VERDICT := $(B)/cuda/check.txt
cuda-check:
	$(Q)$(MAKE) --no-print-directory cuda-verdict CUDA_TEST_ARCHS="$(CUDA_ALL_ARCHS)"
	@cat $(CUDA_VERDICT)
	@! grep -q '^. *FAILED *. [1-9]' $(CUDA_VERDICT)

cuda-verdict:
	@mkdir -p $(B)/cuda
ifeq (,$(NVCC))
	@echo "no nvcc of CUDA 12 or later: the CUDA code was not compiled - install the CUDA Toolkit, or say where it is:" \
	    "CUDA_HOME=DIR" >$(CUDA_VERDICT)
	@echo "[  SKIPPED ] 1 test(s)." >>$(CUDA_VERDICT)
else
	$(Q)$(MAKE) --no-print-directory CUDA=1 CUDA_ARCHS="$(CUDA_TEST_ARCHS)" CUDA_STRICT="-Werror all-warnings" cuda-report
endif

cuda-report: $(B)/cuda/mala $(B)/cuda/libmala.so
	@$< version >/dev/null
	@scripts/cuda_report.sh $(CUDA_DIR)/*.log >$(B)/cuda/report.txt
	@grep -e '<- spills' -e '^cuda-check' -e '^\[' $(B)/cuda/report.txt >$(CUDA_VERDICT)

$(B)/cuda/mala: $(B)/main.o $(OBJ) $(CUDA_OBJ)
	@echo "link  $@"
	$(Q)$(CC) $(PIE) $(LDFLAGS) -o $@ $^ $(CUDA_LIBS) $(LDLIBS)

$(B)/cuda/libmala.so: $(LIB_OBJ) $(CUDA_OBJ)
	@echo "link  $@"
	$(Q)$(CC) $(LDFLAGS) -shared -o $@ $^ $(CUDA_LIBS) $(LDLIBS)

# The op table and the goldens on a real GPU: scripts/gpu_test.sh.
GPU_TESTS := $(B)/gpu/test_cuda_ops $(B)/gpu/test_cuda_golden
$(B)/gpu/test_cuda_ops: $(TEST_CASES)
$(GPU_TESTS): $(B)/gpu/%: $(B)/tests/%.o $(B)/tests/gpu/control.o $(TEST_LIB) $(OBJ) $(CUDA_OBJ)
	@mkdir -p $(@D)
	@echo "link  $@"
	$(Q)$(CC) $(PIE) $(LDFLAGS) -o $@ $^ $(CUDA_LIBS) $(LDLIBS) -lcmocka

test-gpu:
	@scripts/gpu_test.sh

bench-gpu:
	@scripts/bench/gpu_bench.sh

.PHONY: test-gpu bench-gpu FORCE cuda-check cuda-verdict cuda-report
FORCE:
