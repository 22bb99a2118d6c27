#!/bin/sh
# `make install` as packagers and users of the library take it: into a folder that becomes the root later, and into a
# prefix from which a program is then compiled, with pkg-config's flags alone; `make uninstall` leaves nothing.
. tests/check.sh

make_quiet() { make --no-print-directory B="$build" "$@" >"$scratch/log" 2>&1 || { cat "$scratch/log"; return 1; }; }
files() { (cd "$1" && find . ! -type d | sort); }
same_text() { [ "$1" = "$2" ] || { printf '%s\ninstead of\n%s\n' "$1" "$2"; return 1; }; }

stage=$scratch/stage prefix=$scratch/prefix
check "install into a stage" make_quiet install DESTDIR="$stage" PREFIX=/usr LIBDIR=/usr/lib64
check "every file is there, and no other" same_text "$(files "$stage")" "./usr/bin/mala
./usr/include/mala.h
./usr/lib64/libmala.a
./usr/lib64/libmala.so
./usr/lib64/libmala.so.0
./usr/lib64/pkgconfig/mala.pc
./usr/share/doc/mala/LICENSE
./usr/share/man/man1/mala.1"
check "nothing speaks of the stage" sh -c "! grep -r '$stage' '$stage/usr/lib64/pkgconfig' '$stage/usr/share'"
check "uninstall" make_quiet uninstall DESTDIR="$stage" PREFIX=/usr LIBDIR=/usr/lib64
check "nothing is left" same_text "$(files "$stage")" ""

# the program that documents the library, shared and with the library in itself
example() { # OUT, flags
    out=$scratch/$1
    shift
    # shellcheck disable=SC2086
    ${CC:-cc} -std=c11 -o "$out" tests/library/example.c "$@"
}
usage() { LD_LIBRARY_PATH=$prefix/lib "$scratch/$1" 2>&1 | grep -q '^usage: example'; }
needs() { readelf -dW "$scratch/$1" | grep -q 'NEEDED.*libmala'; }
PKG_CONFIG_PATH=$prefix/lib/pkgconfig
export PKG_CONFIG_PATH
check "install into a prefix" make_quiet install PREFIX="$prefix"
# shellcheck disable=SC2046
check "example.c by pkg-config" example shared $(pkg-config --cflags --libs mala)
check "it runs" usage shared
check "it takes libmala.so" needs shared
# shellcheck disable=SC2046
check "example.c with the library in itself" example static -Wl,--as-needed $(pkg-config --variable=static mala) \
    $(pkg-config --static --cflags --libs mala)
rm "$prefix"/lib/libmala.so*
check "it runs without libmala.so" usage static
check "it does not name libmala.so" sh -c "! readelf -dW '$scratch/static' | grep 'NEEDED.*libmala'"
version=$("$prefix/bin/mala" version | sed 's/^mala //; s/ .*//')
check "versions agree" same_text "$(pkg-config --modversion mala)" "$version"

# the manual: every command, flag, exit code and variable of the environment
page=$prefix/share/man/man1/mala.1
sed 's/\\-/-/g; s/\\e/\\/g; s/^\.[A-Z]* //' "$page" >"$scratch/page"
in_page() {
    for word; do
        grep -Eq -- "(^|[ (\"])$word([ ,)=\"]|\$)" "$scratch/page" || { echo "not there: $word" && return 1; }
    done
}
commands=$("$MALA" help | sed -n '/^commands:/,$s/^  \([a-z]*\) .*/\1/p')
flags=$(for command in $commands; do "$MALA" help "$command"; done 2>/dev/null |
    sed -n 's/^  \(-.,\|   \) \(--[a-z-]*\).*/\2/p' | sort -u)
exits=$(sed -n 's/^    EXIT_[A-Z]* = \([0-9]*\).*/\1/p' src/base/base.h)
variables=$(grep -rhoE '(getenv|is_set|is_switched_on)\("[A-Z_]+"\)' src | sed 's/.*("//; s/").*//' | sort -u)
# shellcheck disable=SC2086
check "the manual's commands" in_page train infer verify $commands
# shellcheck disable=SC2086
check "the manual's flags" in_page --config --batch-size --topk --quiet $flags
# shellcheck disable=SC2086
check "the manual's exit codes" in_page 0 2 75 $exits
# shellcheck disable=SC2086
check "the manual's environment" in_page MALA_ISA NO_COLOR $variables
check "no command has the program's usage" sh -c "! grep 'mala <command>' '$scratch/page'"
check "nothing is left to fill in" sh -c "! grep '@[A-Z]*@' '$page' '$prefix/lib/pkgconfig/mala.pc'"
if command -v groff >/dev/null; then
    check "usage lines are neither torn apart nor divided" sh -c "groff -man -Tascii -P-c '$page' |
        sed 's/.\x08//g' | grep -q '^ *IMAGE|DIR|LIST.txt|-\.\.\.$' &&
        groff -man -Tascii -P-c '$page' | sed 's/.\x08//g' |
        grep -qF 'mala infer [--config FILE] [key=value ...] [flags]'"
    check "groff has nothing to say" sh -c "[ -z \"\$(groff -man -Tutf8 -ww '$page' 2>&1 >/dev/null)\" ]"
fi
verdict
