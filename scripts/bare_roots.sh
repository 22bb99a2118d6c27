#!/bin/sh
# scripts/bare_roots.sh [ROOTS [SYSTEM...]]: the README's two commands as a new user meets them, each system in a fresh
# root with a C compiler and make, nothing else. What came of it goes to scripts/bench/results/bare_roots_DATE.txt.
#   ROOTS    where roots are kept for the next time (build/roots); SYSTEM.demo.log and SYSTEM.test.log are there, too
#   SYSTEM   bookworm (Debian 12), trixie (Debian 13), noble (Ubuntu 24.04); all of them without any
# Needs root and debootstrap. MALA_DATA, where it is set, is seen inside. DEBIAN_MIRROR and UBUNTU_MIRROR name other
# mirrors than debootstrap's own.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "mala: error: roots are made by root - sudo scripts/bare_roots.sh" >&2 && exit 2; }
command -v debootstrap >/dev/null || apt-get install -y -qq --no-install-recommends debootstrap >/dev/null
mkdir -p "${1:-build/roots}"
roots=$(cd "${1:-build/roots}" && pwd)
[ $# = 0 ] || shift
[ $# -gt 0 ] || set -- bookworm trixie noble
commit=$(git rev-parse HEAD)
record=scripts/bench/results/bare_roots_$(date +%F).txt

# A root that is never run in: runs take copies of it. Whole or not there.
base_root() {
    base=$roots/$1.base
    [ ! -d "$base" ] || return 0
    rm -rf "$base.part"
    case $1 in # an older debootstrap does not know it by name, but all Ubuntus are made by one script
    noble)
        script=/usr/share/debootstrap/scripts/gutsy
        set -- --components=main,universe noble "$base.part" "${UBUNTU_MIRROR:-}" $script
        ;;
    *) set -- "$1" "$base.part" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} ;;
    esac
    debootstrap --variant=minbase --include=gcc,make "$@" >"$base.log" 2>&1 && mv "$base.part" "$base"
}

# Network and apt as here.
as_here() {
    cp -L /etc/resolv.conf /etc/hosts "$1/etc/"
    for file in /etc/apt/apt.conf.d/*; do
        ! grep -q '^Acquire::' "$file" || cp "$file" "$1/etc/apt/apt.conf.d/"
    done
}

# A shell command in the project inside a root, in namespaces of its own: what it mounts and starts ends with it.
inside() {
    # shellcheck disable=SC2016
    unshare --mount --pid --fork --kill-child sh -euc 'root=$1 data=$2 command=$3
        mount --make-rprivate /
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        [ -z "$data" ] || { mkdir -p "$root/data" && mount --bind -o ro "$data" "$root/data"; }
        exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 ${data:+MALA_DATA=/data} \
            sh -c "cd /root/mala && $command"' sh "$1" "${MALA_DATA:-}" "$2"
}

# Runs `make TARGET`, with one line: how long, exit code, verdict.
command_of() { # SYSTEM ROOT TARGET PATTERN-OF-THE-VERDICT
    start=$(date +%s) code=0
    inside "$2" "make $3" >"$roots/$1.$3.log" 2>&1 </dev/null || code=$?
    verdict=$(grep -E "$4" "$roots/$1.$3.log" | tail -n 1)
    echo "  make $3: $(($(date +%s) - start)) s, exit code $code: ${verdict:-$(tail -n 1 "$roots/$1.$3.log")}"
}

speed_of() { # ROOT, what mala bench is to do
    inside "$1" "./mala bench $2 --json" 2>/dev/null |
        sed "s/.*\"images_per_s\":\([0-9]*\.[0-9]\).*/  mala bench $2: \1 images\/s/"
}

report() {
    if ! base_root "$1"; then
        echo "$1: no root: $(tail -n 1 "$roots/$1.base.log")"
        return
    fi
    root=$roots/$1.run
    rm -rf "$root"
    cp -a --reflink=auto "$roots/$1.base" "$root"
    as_here "$root"
    mkdir "$root/root/mala"
    git archive "$commit" | tar -x -C "$root/root/mala"
    command_of "$1" "$root" demo 'best top-1'
    command_of "$1" "$root" test '^[0-9]+ passed'
    # shellcheck disable=SC2016
    echo "  $(inside "$root" '. /etc/os-release && echo $PRETTY_NAME, $(gcc --version | head -n 1)')," \
        "$(inside "$root" 'dpkg-query -W libdnnl-dev' | tr '\t' ' ')"
    for what in "infer --batch 1" "infer --batch 8" "train --batch 8"; do speed_of "$root" "$what"; done
    rm -rf "$root"
}

{
    echo "$(date +%F), $(git log -1 --format='%h %s' "$commit")"
    processor=$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)
    echo "$(nproc) cores: $processor, load before $(cut -d ' ' -f 1 /proc/loadavg)"
    for system; do
        echo "$system"
        report "$system"
    done
} | tee "$record"
echo "written: $record" >&2
