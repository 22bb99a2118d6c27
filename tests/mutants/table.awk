# table.awk - reads the tables of this folder (README.md says how a row looks):
#   awk -v mode=list  -f table.awk ROOM.txt...               a line per row: number, room, file, line, tests, argued or -
#   awk -v mode=check -f table.awk ROOM.txt...               a line per row that cannot be applied; 1 when there is one
#   awk -v mode=apply -v row=N -f table.awk ROOM.txt...      row N's file with its replacement made
#   awk -v mode=show  -v row=N -f table.awk ROOM.txt...      row N as it stands in the table
function read_file(name,    line, text) {
    while ((getline line < name) > 0) text = text line "\n"
    close(name)
    return text
}

# How often `part` is in `text`; `place` is then where it first is.
function occurrences(text, part,    at, seen, n) {
    for (n = 0; at = index(substr(text, seen + 1), part); n++) {
        if (n == 0) place = at
        seen += at + length(part) - 1
    }
    return n
}

function wrong(text) {
    printf "%s:%d: %s: %s\n", table, line_of_row, file, text
    bad++
}

# Of tests/cases a name that fits none would run nothing, and pass whatever the fault.
function has_case(name,    command, line, n, part) {
    command = "cat tests/cases/*.c"
    while (cases == 0 && (command | getline line) > 0)
        if (split(line, part, /(\.name = |[A-Z]\()"/) > 1) case_names = case_names "\n" part[2]
    cases = 1
    close(command)
    n = split(case_names, part, "\n")
    while (n > 0 && !index(substr(part[n], 1, index(part[n], "\"")), name)) n--
    return n > 0
}

# Tests are names of programs, each with a test of its own behind a colon where one is meant, or with an argument behind
# an equals sign.
function check_tests(    n, i, part, name, source) {
    n = split(tests, part, " ")
    if (n == 0) wrong("names no test")
    for (i = 1; i <= n; i++) {
        split(part[i], name, /[:=]/)
        source = name[1] ~ /\.sh$/ ? "tests/" name[1] : "tests/" name[1] ".c"
        if (!(source in text_of)) text_of[source] = read_file(source)
        if (text_of[source] == "") wrong(source " is not there")
        else if (part[i] ~ /:/ && !index(text_of[source], name[2])) wrong(source " has no " name[2])
        else if (name[1] ~ /_(ops|races)$/ && part[i] ~ /=/ && !has_case(name[2])) wrong("no case is called " name[2])
    }
}

function check(    n) {
    if (!(file in text_of)) text_of[file] = read_file(file)
    n = occurrences(text_of[file], was)
    if (text_of[file] == "") wrong("is not there")
    else if (n != 1) wrong("holds this " n " times, not once: " was)
    else if (was == becomes) wrong("becomes what it was: " was)
    if ((file SUBSEP was SUBSEP becomes) in seen_row) wrong("a row twice: " was)
    seen_row[file, was, becomes]
    check_tests()
}

function apply(    text) {
    text = read_file(file)
    if (occurrences(text, was) != 1) exit 1
    printf "%s%s%s", substr(text, 1, place - 1), becomes, substr(text, place + length(was))
}

function end_row(    room) {
    if (!has_was) return
    rows++
    if (mode == "list") {
        room = table
        gsub(/.*\/|\.txt$/, "", room)
        printf "%d\t%s\t%s\t%d\t%s\t%s\n", rows, room, file, line_of_row, tests, why == "" ? "-" : why
    }
    if (mode == "check") check()
    if (mode == "apply" && rows == row) apply()
    if (mode == "show" && rows == row) printf "%s %s\n- %s\n+ %s\n", file, tests, was, becomes
    has_was = has_becomes = 0
    was = becomes = why = ""
}

FNR == 1 { end_row(); table = FILENAME; file = "" }
/^- / {
    if (has_becomes || why != "") end_row()
    if (!has_was) line_of_row = FNR
    was = has_was++ ? was "\n" substr($0, 3) : substr($0, 3)
    next
}
/^\+( |$)/ { becomes = has_becomes++ ? becomes "\n" substr($0, 3) : substr($0, 3); next }
/^= / { why = substr($0, 3); next }
/^#/ { next }
/^ *$/ { end_row(); next }
{
    end_row()
    file = $1
    tests = $0
    sub(/^[^ ]+ */, "", tests)
}

END {
    end_row()
    if (mode == "check") {
        printf "%d rows\n", rows
        if (rows < 250) bad++
    }
    if (bad) exit 1
}
