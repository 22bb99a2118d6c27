# mala: `make` builds ./mala, `make test` runs every test, `make demo` shows the whole way on made pictures.
#   make asan    the test suite under AddressSanitizer and UndefinedBehaviorSanitizer
#   make tsan    the loader's tests under ThreadSanitizer
#   make soak    every allocation of thirteen workflows and of the library fails in turn, 240 runs are stopped by
#                signals at random times, 25 mutants are planted, GELU of 10^8 numbers: hours
#   make races   looks for threads of CUDA kernels that meet in memory
#   make mutants plants the faults of tests/mutants/ one by one: does a test notice? ROOM=app, ALL=1, SAMPLE=25
#   make coverage  branches and lines that the tests of files and pictures take
#   make fuzz    libFuzzer on the readers of checkpoints, configs, lists and pictures; SECONDS=60 each
#   make CUDA=1  with the CUDA backend (the default where a GPU and nvcc are); make cuda-check compiles all of it
#   make install uninstall   program, libraries, header, mala.pc, manual and licence; PREFIX=/usr/local, DESTDIR
#   make sizes   lines per file, longest first
# B names the build folder, V=1 shows the commands.

B       ?= build
CC      ?= gcc
CXX     := $(if $(filter default,$(origin CXX)),g++,$(CXX))
OPT     ?= -O2
SAN     ?=
PREFIX  ?= /usr/local
BINDIR  ?= $(PREFIX)/bin
LIBDIR  ?= $(PREFIX)/lib
MANDIR  ?= $(PREFIX)/share/man
DOCDIR  ?= $(PREFIX)/share/doc/mala
INCLUDEDIR ?= $(PREFIX)/include
OBJCOPY ?= objcopy
Q       := $(if $(V),,@)

VERSION := 0.1.0
CPPFLAGS := -Isrc -D_GNU_SOURCE -DMALA_VERSION='"$(VERSION)"' -MMD -MP
# clang would fuse a * b + c where gcc under -std=c11 does not
CFLAGS   := -std=c11 -g $(OPT) -fPIC -fvisibility=hidden -fno-math-errno -ffp-contract=off -Wall -Wextra -Wshadow \
            -Wstrict-prototypes -Wmissing-prototypes -Wvla -Werror=implicit-function-declaration $(SAN)
LDFLAGS  := $(SAN) -Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code
PIE      := -pie
# those with a pkg-config file of their own, which mala.pc names instead
PC_LIBS  := libcjson libpng libjpeg libwebp
LDLIBS   := -ldnnl -lgomp $(PC_LIBS:lib%=-l%) -lpthread -lm

# The CPU kernels are compiled once per instruction set and chosen at run time (backend/cpu/cpu.c).
KERNEL_FLAGS := -O3 -ffp-contract=fast -fno-trapping-math -Wno-psabi
MACHINE := $(shell $(CC) -dumpmachine)
ifneq (,$(findstring x86_64,$(MACHINE)))
ISAS := generic v3 v4
BRANCHES := -fcf-protection=full
else
ISAS := generic
BRANCHES := -mbranch-protection=standard
endif
ISA_FLAGS_generic :=
ISA_FLAGS_v3 := -march=x86-64-v3
ISA_FLAGS_v4 := -march=x86-64-v4 -mprefer-vector-width=512

# Hardening, as far as the compiler has it; tests/hardening.sh reads it back from what was linked. Sanitizers see less
# through a fortified library.
compiles = $(shell $(CC) $(OPT) -Werror $(1) -include stdlib.h -x c -c -o /dev/null /dev/null 2>/dev/null && echo yes)
first_that_compiles = $(strip $(if $(call compiles,$(1)),$(1),$(if $(call compiles,$(2)),$(2))))
FORTIFY  := -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE
FORTIFY  := $(if $(SAN),,$(call first_that_compiles,$(FORTIFY)=3,$(FORTIFY)=2))
GUARDS   := -fstack-protector-strong
HARDEN   := $(call first_that_compiles,$(GUARDS) -fstack-clash-protection $(BRANCHES),$(GUARDS))
CFLAGS   += $(FORTIFY) $(HARDEN)

SIMD_SRC := $(wildcard src/backend/cpu/simd/*.c)
PLAIN_SRC := $(filter-out src/main.c src/backend/cuda_absent.c,$(wildcard src/*/*.c src/backend/cpu/*.c))
OBJ := $(PLAIN_SRC:src/%.c=$(B)/%.o) $(foreach isa,$(ISAS),$(SIMD_SRC:src/%.c=$(B)/%.$(isa).o)) \
       $(if $(filter --coverage,$(SAN)),$(B)/tests/faults/leave.o)
LIB_OBJ := $(filter-out $(B)/app/%,$(OBJ))
TEST_SRC := $(filter-out tests/test_cuda_races.c,$(wildcard tests/test_*.c))
TESTS := $(TEST_SRC:tests/%.c=$(B)/tests/%)
TEST_LIB := $(patsubst tests/%.c,$(B)/tests/%.o,$(filter-out tests/test_%.c tests/op_run.c,$(wildcard tests/*.c)))
TEST_CASES := $(patsubst tests/%.c,$(B)/tests/%.o,$(wildcard tests/cases/*.c)) $(B)/tests/op_run.o

.DEFAULT_GOAL := all
include src/backend/cuda/cuda.mk

.PHONY: all lib install uninstall deps test-deps test built-tests run-tests demo asan tsan fuzz sizes clean check-rooms
all: mala

mala: $(B)/mala
	$(Q)cp -f $< $@

$(B)/mala: $(B)/main.o $(OBJ) $(DEVICE_OBJ) $(B)/flavour
	@echo "link  $@"
	$(Q)$(CC) $(PIE) $(LDFLAGS) -o $@ $(filter %.o,$^) $(DEVICE_LIBS) $(LDLIBS)

# The C library: src/lib/mala.h. Whatever is not in that header is local to it.
$(B)/libmala.a: $(LIB_OBJ) $(DEVICE_OBJ) $(B)/flavour
	@echo "ar    $@"
	$(Q)$(LD) -r -o $(B)/libmala.o $(filter %.o,$^)
	$(Q)$(OBJCOPY) --localize-hidden $(B)/libmala.o
	$(Q)rm -f $@ && $(AR) rcs $@ $(B)/libmala.o

$(B)/libmala.so: $(LIB_OBJ) $(DEVICE_OBJ) $(B)/flavour
	@echo "link  $@"
	$(Q)$(CC) $(LDFLAGS) -shared -Wl,-soname,libmala.so.0 -Wl,--as-needed -o $@ $(filter %.o,$^) $(DEVICE_LIBS) $(LDLIBS)
	$(Q)ln -sf libmala.so $@.0

$(B)/library_example: tests/library/example.c $(B)/libmala.so
	@echo "link  $@"
	$(Q)$(CC) -std=c11 -Wall -Wextra $(SAN) -Isrc/lib -o $@ $< -L$(B) -lmala -Wl,-rpath,'$$ORIGIN'
$(B)/library_example_static: tests/library/example.c $(B)/libmala.a
	@echo "link  $@"
	$(Q)$(CC) -std=c11 -Wall -Wextra $(SAN) -Isrc/lib -o $@ $< $(B)/libmala.a $(DEVICE_LIBS) $(LDLIBS)

lib: $(B)/libmala.a $(B)/libmala.so

$(B)/mala.pc: src/lib/mala.pc.in FORCE
	@mkdir -p $(@D)
	@sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
	    -e 's|@VERSION@|$(VERSION)|' -e 's|@REQUIRES@|$(PC_LIBS)|' \
	    -e 's|@LIBS@|$(strip $(DEVICE_LIBS) $(filter-out $(PC_LIBS:lib%=-l%),$(LDLIBS)))|' $< >$@
$(B)/mala.1: src/app/mala.1.in scripts/man.sh $(B)/mala
	@echo "man   $@"
	@scripts/man.sh $(B)/mala $(VERSION) >$@

INSTALLED = $(BINDIR)/mala $(INCLUDEDIR)/mala.h $(LIBDIR)/libmala.a $(LIBDIR)/libmala.so.0 $(LIBDIR)/libmala.so \
            $(LIBDIR)/pkgconfig/mala.pc $(MANDIR)/man1/mala.1 $(DOCDIR)/LICENSE
install: $(B)/mala lib $(B)/mala.pc $(B)/mala.1
	install -D $(B)/mala $(DESTDIR)$(BINDIR)/mala
	install -D -m 644 src/lib/mala.h $(DESTDIR)$(INCLUDEDIR)/mala.h
	install -D -m 644 $(B)/libmala.a $(DESTDIR)$(LIBDIR)/libmala.a
	install -D $(B)/libmala.so $(DESTDIR)$(LIBDIR)/libmala.so.0
	ln -sf libmala.so.0 $(DESTDIR)$(LIBDIR)/libmala.so
	install -D -m 644 $(B)/mala.pc $(DESTDIR)$(LIBDIR)/pkgconfig/mala.pc
	install -D -m 644 $(B)/mala.1 $(DESTDIR)$(MANDIR)/man1/mala.1
	install -D -m 644 LICENSE $(DESTDIR)$(DOCDIR)/LICENSE

uninstall:
	rm -f $(addprefix $(DESTDIR),$(INSTALLED))
	-rmdir $(DESTDIR)$(DOCDIR)

# The flags that objects were compiled with, rewritten only when they change: then all are compiled anew.
keep = @mkdir -p $(@D); echo '$(1)' | cmp -s - $@ || echo '$(1)' >$@
$(B)/flags: FORCE
	$(call keep,$(CC) $(CPPFLAGS) $(CFLAGS) $(KERNEL_FLAGS) $(CXX) $(EMU_FLAGS))

$(B)/%.o: src/%.c $(B)/flags | deps
	@mkdir -p $(@D)
	@echo "cc    $<"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

define isa_rule
$(B)/%.$(1).o: src/%.c $(B)/flags | deps
	@mkdir -p $$(@D)
	@echo "cc    $$< ($(1))"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(KERNEL_FLAGS) $(ISA_FLAGS_$(1)) -DISA=$(1) -c -o $$@ $$<
endef
$(foreach isa,$(ISAS),$(eval $(call isa_rule,$(isa))))

$(B)/tests/%.o: tests/%.c $(B)/flags | deps
	@mkdir -p $(@D)
	@echo "cc    $<"
	$(Q)$(CC) $(CPPFLAGS) -Itests $(CFLAGS) -c -o $@ $<

# The CUDA backend through the host emulation: its kernels and glue, without src/backend/cuda/nvidia/, which calls
# NVIDIA's libraries and has its twins in tests/emulate/.
EMU_FLAGS := -std=c++20 -D_GNU_SOURCE -DMALA_EMULATE -Isrc -Itests/emulate -MMD -MP -g $(OPT) -fPIE -Wall -Wextra \
             -Wshadow -Wno-missing-field-initializers $(SAN)
EMU_OBJ := $(patsubst src/%.cu,$(B)/emulate/%.o,$(wildcard src/backend/cuda/*.cu)) $(CUDA_HOST_OBJ) \
           $(patsubst tests/emulate/%.cpp,$(B)/emulate/tests/%.o,$(filter-out %/races.cpp,$(wildcard tests/emulate/*.cpp)))
# the same with every access to memory told to tests/emulate/races.cpp
RACES_OBJ := $(patsubst $(B)/emulate/backend/%,$(B)/races/backend/%,$(EMU_OBJ)) $(B)/emulate/tests/races.o

$(B)/emulate/%.o: src/%.cu $(B)/flags | test-deps
	@mkdir -p $(@D)
	@echo "c++   $<"
	$(Q)$(CXX) $(EMU_FLAGS) -x c++ -c -o $@ $<

$(B)/races/%.o: src/%.cu $(B)/flags | test-deps
	@mkdir -p $(@D)
	@echo "c++   $< (races)"
	$(Q)$(CXX) $(EMU_FLAGS) -fsanitize=thread -x c++ -c -o $@ $<

$(B)/emulate/tests/%.o: tests/emulate/%.cpp $(B)/flags | test-deps
	@mkdir -p $(@D)
	@echo "c++   $<"
	$(Q)$(CXX) $(EMU_FLAGS) -c -o $@ $<

$(B)/tests/test_ops $(B)/tests/test_cuda_ops $(B)/tests/test_cuda_races: $(TEST_CASES)
EMULATED_TESTS := $(filter $(B)/tests/test_cuda%,$(TESTS))
$(EMULATED_TESTS): $(B)/tests/%: $(B)/tests/%.o $(TEST_LIB) $(OBJ) $(EMU_OBJ)
	@echo "link  $@"
	$(Q)$(CC) $(PIE) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lstdc++ -lcmocka
$(B)/tests/test_cuda_races: $(B)/tests/test_cuda_races.o $(TEST_LIB) $(OBJ) $(RACES_OBJ)
	@echo "link  $@"
	$(Q)$(CC) $(PIE) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lstdc++ -lcmocka
# mala itself on the emulated device, for the dry run of scripts/gpu_test.sh
$(B)/emulate/mala: $(B)/main.o $(OBJ) $(EMU_OBJ)
	@echo "link  $@"
	$(Q)$(CC) $(PIE) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lstdc++
$(B)/tests/test_%: $(B)/tests/test_%.o $(TEST_LIB) $(OBJ) $(DEVICE_OBJ) $(B)/flavour
	@echo "link  $@"
	$(Q)$(CC) $(PIE) $(LDFLAGS) -o $@ $(filter %.o,$^) $(DEVICE_LIBS) $(LDLIBS) -lcmocka

.SECONDARY:
-include $(shell find $(B) -name '*.d' 2>/dev/null)

# Installs what the build needs, on Debian and its relatives, when it is not there yet.
deps:
	@scripts/install_deps.sh

# The host emulation of CUDA kernels is C++.
test-deps:
	@scripts/install_deps.sh g++

check-rooms:
	@scripts/check_rooms.sh

# tests in shell: of what was linked and installed, and of scripts that no test program runs
SHELL_TESTS := $(addprefix tests/,hardening.sh install.sh packages.sh toolkits.sh gpu_scripts.sh mutants.sh)
# Without a -j of its own it compiles by as many processes as there are processors; JOBS says how many tests run.
PARALLEL = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))
test: check-rooms cuda-verdict
	@scripts/install_deps.sh pkgconf
	$(Q)$(MAKE) --no-print-directory $(PARALLEL) $(B)/emulate/mala built-tests
	$(Q)$(MAKE) --no-print-directory run-tests VERDICTS="$(CUDA_VERDICT) $(SHELL_TESTS)"

asan:
	$(Q)$(MAKE) B=build/asan OPT=-O1 SAN="-fsanitize=address,undefined -fno-sanitize-recover=all" run-tests

tsan:
	$(Q)$(MAKE) B=build/tsan OPT=-O1 SAN="-fsanitize=thread" build/tsan/tests/test_loader
	build/tsan/tests/test_loader

# Do threads of a CUDA kernel meet in memory, and is each barrier needed? tests/emulate/races.h; two minutes, and .ci/run
# runs it.
.PHONY: races
races: $(B)/tests/test_cuda_races
	@scripts/run_tests.sh $<

# Branches and lines of the rooms that read and write files, by the tests that matter to them (V=1: what is not taken).
COVERAGE_TESTS := log process signals limits cli config asked screens file list image jpeg webp dataset loader resize synth pth safetensors tensor_file seal weights onnx \
                  onnx_numbers draws json sha256 malformed malformed_images model_files bitmaps parallel \
                  exhausted_calls failing_calls
.PHONY: coverage run-coverage
coverage:
	$(Q)rm -f $$(find build/coverage -name '*.gcda' 2>/dev/null)
	$(Q)$(MAKE) --no-print-directory B=build/coverage OPT=-O0 SAN=--coverage run-coverage
	@scripts/coverage.sh build/coverage $(if $(V),-v)
run-coverage: $(B)/mala $(COVERAGE_TESTS:%=$(B)/tests/test_%)
	@MALA=$(B)/mala scripts/run_tests.sh $(filter $(B)/tests/%,$^)

# The sweeps of faults that `make test` takes a sample of, whole: hours.
.PHONY: soak
soak: $(B)/mala $(B)/tests/test_exhausted $(B)/tests/test_exhausted_calls \
      $(B)/tests/test_failing_disk $(B)/tests/test_signals $(B)/tests/test_cuda_gelu
	@MALA=$(B)/mala MALA_SOAK=1000000 MALA_SIGNALS=240 scripts/run_tests.sh $(filter $(B)/tests/%,$^)
	@SAMPLE=25 tests/mutants/run.sh

# Faults planted one at a time: tests/mutants/README.md.
.PHONY: mutants
mutants: | test-deps
	@tests/mutants/run.sh

# libFuzzer on the readers of files from strangers, so long each.
SECONDS ?= 60
fuzz:
	@scripts/fuzz.sh build/fuzz $(SECONDS)

$(B)/tests/test_exhausted_calls: $(B)/tests/faults/memory.o
$(B)/tests/test_failing_calls: $(B)/tests/faults/io.o
# preloaded by tests that need a failing disk (io) or a machine without memory (memory)
$(B)/tests/faults_%.so: tests/faults/%.c
	@mkdir -p $(@D)
	@echo "link  $@"
	$(Q)$(CC) -D_GNU_SOURCE -std=c11 -g -O1 -Wall -Wextra -fPIC -shared -o $@ $<

$(B)/tests/test_exhausted: | $(B)/tests/faults_memory.so
$(B)/tests/test_training $(B)/tests/test_signals $(B)/tests/test_retrace $(B)/tests/test_failing_disk \
$(B)/tests/test_model_use: | $(B)/tests/faults_io.so
$(B)/tests/test_signals: | $(B)/tests/faults_storm.so
built-tests: $(TESTS) $(B)/mala $(B)/library_example $(B)/library_example_static
run-tests: built-tests
	@MALA=$(B)/mala TEST_TIMES=$(B)/tests/seconds scripts/run_tests.sh $(TESTS) $(VERDICTS)

demo: mala
	@scripts/demo.sh

sizes:
	@find src tests scripts -name '*.[ch]' -o -name '*.sh' | xargs wc -l | sort -rn

clean:
	rm -rf build mala
