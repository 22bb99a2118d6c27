#!/bin/sh
# What the linked files say of themselves: an attacker of a reader of pictures or weights finds no writable table of
# functions, no executable stack, no fixed address. Read from the ELF, since a flag may be given and have no effect.
. tests/check.sh

program() { readelf -lW "$1"; readelf -dW "$1"; readelf --dyn-syms -W "$1"; }
has() { grep -Eq "$2" "$scratch/$1"; }
lacks() { ! has "$@"; }
marked() { readelf -nW "$1" | grep -q 'x86 feature: IBT, SHSTK'; }

for file in "$MALA" "$build/libmala.so"; do
    name=$(basename "$file")
    program "$file" >"$scratch/$name"
    check "$name: a position of its own at each start" has "$name" 'Elf file type is DYN'
    check "$name: tables of the linker read-only once filled" has "$name" 'GNU_RELRO'
    check "$name: all functions bound before main" has "$name" '\(FLAGS(_1)?\).*(BIND_)?NOW'
    check "$name: no stack that runs as code" has "$name" 'GNU_STACK.* RW +0x'
    check "$name: nothing both writable and executable" lacks "$name" ' RWE +0x'
    check "$name: headers and constants apart from code" has "$name" 'LOAD +0x0+ .* R +0x'
    check "$name: code without relocations, no search path for libraries" lacks "$name" 'TEXTREL|RPATH|RUNPATH'
    check "$name: guards on the stack" has "$name" '__stack_chk_fail'
    check "$name: checked copies and prints" has "$name" '__snprintf_chk'
done
check "a program, not a library with an entry" has mala 'FLAGS_1.* PIE'

# Branches and returns checked by the processor: the linker keeps the mark only where every object has it, those that
# the system adds to a program too, and some systems' have it not.
flags=-fcf-protection=full
echo 'int main(void) { return 0; }' >"$scratch/empty.c"
if ! ${CC:-cc} $flags -c -o "$scratch/empty.o" "$scratch/empty.c" 2>/dev/null || ! marked "$scratch/empty.o"; then
    skip "control-flow protection: the compiler has none"
elif ! grep -q '^no cuda' "$build/flavour"; then
    skip "control-flow protection: not in the CUDA runtime"
else
    check "every object of ours is marked for control-flow protection" marked "$build/libmala.o"
    ${CC:-cc} $flags -o "$scratch/empty" "$scratch/empty.o"
    if marked "$scratch/empty"; then
        check "mala is marked" marked "$MALA"
        check "libmala.so is marked" marked "$build/libmala.so"
    fi
fi
verdict
