# check.sh - for tests in shell, which source it: check NAME COMMAND... counts a command that has to succeed, verdict
# prints the counts as scripts/run_tests.sh reads them. The build folder is MALA's, as for every test program.
unset MAKEFLAGS MAKELEVEL MFLAGS
MALA=${MALA:-build/mala}
build=$(dirname "$MALA")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0 skipped=0

check() {
    what=$1
    shift
    if said=$("$@" 2>&1); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf '%s\n%s: failed: %s\n' "$said" "$0" "$what"
    fi
}

skip() {
    skipped=$((skipped + 1))
    printf '%s: skipped: %s\n' "$0" "$1"
}

verdict() {
    printf '[  PASSED  ] %d test(s).\n[  FAILED  ] %d test(s).\n[  SKIPPED ] %d test(s).\n' $passed $failed $skipped
    [ $failed -eq 0 ]
}
