#!/bin/sh
# scripts/man.sh MALA VERSION: the manual page on stdout, its commands and flags from the program's own help, which
# therefore needs no other keeping.
set -eu
cd "$(dirname "$0")/.."
mala=$1 version=$2
COLUMNS=80
export COLUMNS
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Items of a section of the help, whose text may go on in lines further in, as lines NAME<tab>TEXT.
items() { # SECTION, COLUMN that texts begin at
    awk -v section="$1" -v column="$2" '
        function flush() { if (name != "") print name "\t" text; name = "" }
        /^[^ ]/ { inside = $0 == section ":" }
        !inside || /^ *$/ { flush(); next }
        substr($0, 1, column - 1) ~ /^ *$/ { text = text (text == "" ? "" : " ") substr($0, column); next }
        /^[^ ]/ { next }
        {
            flush()
            name = $0
            text = ""
            if (match($0, /[^ ]  +[^ ]/) && RSTART > 4) {
                name = substr($0, 1, RSTART)
                text = substr($0, RSTART + RLENGTH - 1)
            }
            sub(/^ +/, "", name)
        }
        END { flush() }'
}
roff() { sed 's/\\/\\e/g; s/-/\\-/g; s/^\([.'"'"']\)/\\\&\1/'; }
paragraphs() { roff | awk -F '\t' '{ print ".TP\n.B " $1 "\n" $2 }'; }

"$mala" help >"$work/program"
items commands 17 <"$work/program" >"$work/commands"
cut -f 1 "$work/commands" | while read -r command; do
    case $command in help | version) continue ;; esac
    "$mala" help "$command" >"$work/$command"
    items 'flags that stand for config options' 31 <"$work/$command" >>"$work/shared"
done
items 'flags of every command' 31 <"$work/train" >"$work/every"

commands() {
    while IFS='	' read -r command about; do
        printf '.SS %s\n' "$command"
        echo "$about" | roff
        [ -e "$work/$command" ] || continue
        printf '.PP\n.B '
        sed -n '/^usage: /,/^$/p' "$work/$command" | sed 's/^usage: *//; s/^  *//' | tr '\n' ' ' | roff
        echo
        items flags 31 <"$work/$command" | paragraphs
        also=$(items 'flags that stand for config options' 31 <"$work/$command" | sed 's/^.*\(--[a-z-]*\).*	.*/\1/')
        [ -z "$also" ] || printf '.PP\nAlso %s\n' "$(echo $also | roff)"
    done <"$work/commands"
}
options() {
    awk -F '\t' '!seen[$1]++' "$work/shared" | paragraphs
    printf '.PP\nOf every command:\n'
    paragraphs <"$work/every"
}
commands >"$work/COMMANDS"
options >"$work/OPTIONS"
sed -e '/^\.\\" The frame/d' -e "s/@VERSION@/$version/" -e "/^@COMMANDS@/{
r $work/COMMANDS
d
}" -e "/^@OPTIONS@/{
r $work/OPTIONS
d
}" src/app/mala.1.in
