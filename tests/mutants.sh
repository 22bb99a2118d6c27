#!/bin/sh
# Every row of tests/mutants/ still finds its text, once, and its test: who changes a line or a test's name finds the
# rows that spoke of it.
. tests/check.sh
check "the rows of tests/mutants fit the sources (tests/mutants/README.md)" \
    awk -v mode=check -f tests/mutants/table.awk tests/mutants/*.txt
verdict
