#!/bin/sh
# Plants each fault of this folder's tables in a copy of the tree, builds what changed, and runs the tests that must
# notice; README.md says more. By the environment:
#   ROOM=app      one table         JOBS=2    processes
#   SAMPLE=25     so many rows, drawn by SEED (said; by the clock unless given)
#   ALL=1         what the named tests let pass meets every test program that its room is part of
#   FRESH=1       forgets earlier verdicts      WORK=DIR  works there, below build, instead of in build/mutants
# Verdicts stand in build/mutants/results, and a row is run again when it, its file or its tests have changed. Exit 1:
# something that is not argued passed.
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
cd "$top" || exit 1
unset MAKEFLAGS MAKELEVEL MFLAGS
work=${WORK:-build/mutants} jobs=${JOBS:-2} build=${B:-build}
results=$top/$work/results rows=$top/$work/rows tables=$top/$work/tables
mkdir -p $work
# what is written in the tables while this runs is for the next time
rm -rf "$tables" && mkdir "$tables" && cp tests/mutants/*.txt tests/mutants/table.awk "$tables"
[ -n "${FRESH:-}" ] && rm -f "$results"
touch "$results"

table() { awk "$@" -f "$tables/table.awk" "$tables"/*.txt; }
sources() {
    for t in "$@"; do
        t=${t%%[:=]*}
        case $t in
        *.sh) echo "tests/$t" ;;
        test_ops | test_cuda_ops | test_cuda_races) echo "tests/$t.c" tests/op_run.c tests/cases/*.c ;;
        *) echo "tests/$t.c" ;;
        esac
    done
}
# A row's verdict holds for its words, its file and its tests' sources: those of the tree that we are in.
key_of() { { table -v mode=show -v row="$1"; shift; cat $(sources $2) "$1"; } | cksum | tr ' ' -; }
verdict_of() { awk -F '\t' -v key="$1" '$1 == key {v = $2 "\t" $3} END {print v}' "$results"; }

choose_rows() {
    table -v mode=list >$work/list || exit 1
    awk -F '\t' -v room="${ROOM:-}" 'room == "" || $2 == room' $work/list >"$rows"
    [ -n "${SAMPLE:-}" ] || return 0
    SEED=${SEED:-$(date +%s)}
    echo "a sample of $SAMPLE with SEED=$SEED"
    awk -v seed="$SEED" 'BEGIN {srand(seed)} {print rand() "\t" $0}' "$rows" | sort -n | head -n "$SAMPLE" | cut -f 2- |
        sort -n >"$rows.drawn"
    mv "$rows.drawn" "$rows"
}

# What a named test needs beside itself.
targets_of() { # build folder, test
    case $2 in
    *.sh) echo "$1/mala $1/emulate/mala lib" ;;
    *)
        echo "$1/tests/$2"
        grep -q 'program\.h\|"MALA"' "tests/$2.c" && echo "$1/mala"
        grep -q library_example "tests/$2.c" && echo "$1/library_example $1/library_example_static"
        ;;
    esac
}

program_of() { case $1 in *.sh) echo "tests/$1" ;; *) echo "build/tests/$1" ;; esac; }

make_tree() { # number
    tree=$work/$1
    mkdir -p $tree/build $tree/tmp
    # what an interrupted run has left there is replaced, whatever its date
    tar cf - --exclude=./build --exclude=./mala --exclude=./runs --exclude=./.git . | tar xf - -C $tree
    [ -e $tree/build/flags ] || [ ! -d "$build" ] ||
        (cd "$build" && find . -path "./mutants*" -prune -o \( -name '*.o' -o -name '*.d' -o -name flags -o -name flavour \) \
            -type f -print | grep -v '^./\(asan\|tsan\|fuzz\|coverage\|cuda\|gpu\)/' | tar cf - -T -) | tar xf - -C $tree/build
    # it was stopped with a fault planted: what came of that is made anew
    [ ! -e $tree/planted ] || touch "$tree/$(cat $tree/planted)"
    rm -rf $tree/pristine $tree/planted
}

# The tests must pass on what is not mutated; that also says how long they take.
baseline() { # tests
    echo "building, and running $# test programs without a fault"
    (
        cd $work/1 || exit 1
        make -j "$jobs" $(for t in "$@"; do targets_of build "$t"; done | tr ' ' '\n' | sort -u) || exit 1
        JOBS=$jobs MALA=build/mala TMPDIR=$PWD/tmp scripts/run_tests.sh $(for t in "$@"; do program_of "$t"; done)
    ) >$work/baseline.log 2>&1 && return 0
    tail -n 40 $work/baseline.log
    echo "without any fault, that does not pass: $work/baseline.log"
    exit 1
}

# Objects as they are without a fault, to go back to.
keep_pristine() { # number
    [ "$1" = 1 ] || cp -a $work/1/build/. $work/$1/build/
    (cd $work/$1/build && find . -name '*.o' -type f | tar cf - -T -) | (mkdir -p $work/$1/pristine && tar xf - -C $work/$1/pristine)
}

# Source, objects and programs of the tree that we are in, as they were.
restore() { # file
    mv -f sound "$1"
    find build -type f -newer stamp \( -name '*.o' -o -perm -u+x -o -name '*.a' -o -name '*.so' \) >changed
    while read -r object; do
        rm -f "$object"
        [ ! -e "pristine/${object#build/}" ] || cp -p "pristine/${object#build/}" "$object"
    done <changed
    rm -f planted
}

notices() { # test, its argument: whether it fails
    # shellcheck disable=SC2046
    make V=1 $(targets_of build "$1") >build.log 2>&1 || { grep -q ' error: ' build.log && return 2; return 0; }
    MALA=build/mala TMPDIR=$PWD/tmp timeout -k 10 ${LIMIT:-600} "$(program_of "$1")" ${2:+"$2"} >test.log 2>&1 && return 1
    return 0
}

run_row() { # number, room, file, line, tests; in a tree
    rm -rf tmp && mkdir tmp
    touch stamp
    table -v mode=apply -v row="$1" >mutated || return 1
    cp -p "$3" sound
    echo "$3" >planted
    cat mutated >"$3"
    said=survived
    by="$5"
    others=
    [ -n "${ALL:-}" ] && others=$(others_of "$3")
    for t in $5 $others; do
        notices "${t%%[:=]*}" "$(echo "$t" | sed -n 's/.*=//p')"
        case $? in
        0) said=noticed by=${t%%:*} && break ;;
        2) said=broken by=$(grep -m 1 ' error: ' build.log | cut -c 1-120) && break ;;
        esac
    done
    restore "$3"
}

# All that is linked with a file; the kernels of CUDA are part of the emulation alone.
others_of() { # file
    case $1 in
    src/backend/cuda/*) ls tests/test_cuda*.c tests/gpu_scripts.sh ;;
    *) ls tests/test_*.c ;;
    esac | sed 's|^tests/||; s|\.c$||'
}

worker() { # number
    while IFS='	' read -r row room file line tests why; do
        mkdir "$top/$work/claims/$row" 2>/dev/null || continue
        key=$(key_of "$row" "$file" "$tests")
        old=$(verdict_of "$key")
        case $old in
        noticed*) continue ;;
        survived*) [ -z "${ALL:-}" ] && continue ;;
        esac
        run_row "$row" "$room" "$file" "$line" "$tests" </dev/null || said=broken by="the row does not apply"
        printf '%s\t%s\t%s\n' "$key" "$said${ALL:+ all}" "$by" >>"$results"
        echo "$room.txt:$line: $file: $said: $by"
    done <"$rows"
}

report() { # in a tree
    : >verdicts
    while IFS='	' read -r row room file line tests why; do
        printf '%s\t%s\t%s\t%s\t%s\n' "$room" "$line" "$file" "$why" "$(verdict_of "$(key_of "$row" "$file" "$tests")")" >>verdicts
    done <"$rows"
    awk -F '\t' '
        {rows[$1]++; all++}
        $5 ~ /^noticed/ {noticed[$1]++; total++; next}
        $4 != "-" {argued[$1]++; printf "argued: %s.txt:%d: %s: %s\n", $1, $2, $3, $4; next}
        {printf "%s: %s.txt:%d: %s: %s\n", $5 == "" ? "not run" : $5, $1, $2, $3, $6; bad++}
        END {
            for (r in rows) printf "%-8s %3d of %3d noticed, %d argued\n", r, noticed[r], rows[r], argued[r] | "sort"
            close("sort")
            printf "%d of %d noticed\n", total, all
            exit bad > 0
        }' verdicts
}

main() {
    choose_rows
    tests=$(cut -f 5 "$rows" | tr ' ' '\n' | sed 's/[:=].*//' | sort -u)
    make_tree 1
    # shellcheck disable=SC2086
    baseline $tests
    for i in $(seq "$jobs"); do
        [ "$i" = 1 ] || make_tree "$i"
        keep_pristine "$i"
    done
    rm -rf $work/claims && mkdir $work/claims
    for i in $(seq "$jobs"); do
        (cd $work/$i && worker) &
    done
    wait
    cd $work/1 && report
}

main
exit
