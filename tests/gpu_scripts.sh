#!/bin/sh
# The dry runs of what waits for a GPU on the host emulation, counted as scripts/run_tests.sh counts: a script
# that has met no GPU for months must still run the day it meets one.
unset MAKEFLAGS MAKELEVEL MFLAGS MALA_DATA REFERENCE # the scripts build by themselves, and take made pictures here
passed=0 failed=0
for script in scripts/gpu_test.sh scripts/bench/gpu_bench.sh "scripts/bench/gpu_accuracy.sh precision" \
    "scripts/bench/gpu_accuracy.sh cifar10"; do
    # shellcheck disable=SC2086
    log=$(sh $script --emulated 2>&1) && passed=$((passed + 1)) && continue
    failed=$((failed + 1))
    printf '%s\n%s --emulated failed\n' "$log" "$script"
done
printf '[  PASSED  ] %d test(s).\n[  FAILED  ] %d test(s).\n' $passed $failed
[ $failed -eq 0 ]
