#!/bin/sh
# scripts/install_deps.sh on systems that are not at hand: a root with their os-release and without libraries, and a
# PATH with what every system has beside stand-ins for their package managers.
. tests/check.sh

mkdir -p "$scratch/root/etc" "$scratch/bin"
for tool in sh sed tr awk grep cat mktemp rm; do ln -s "$(command -v $tool)" "$scratch/bin/$tool"; done
release() { printf '%s\n' "$@" >"$scratch/root/etc/os-release"; }
tool() { # NAME, lines of a script
    printf '#!/bin/sh\n%s\n' "$2" >"$scratch/bin/$1"
    chmod +x "$scratch/bin/$1"
}
install_deps() {
    MALA_ROOT=$scratch/root PATH=$scratch/bin scripts/install_deps.sh "$@" >"$scratch/out" 2>"$scratch/err"
}
# The one line that is said on stderr, and a failure's exit code.
says() { # LINE, arguments of install_deps.sh
    line=$1
    shift
    if install_deps "$@"; then echo "exit code 0" && return 1; fi
    [ "$(cat "$scratch/err")" = "mala: error: $line" ] || { cat "$scratch/err" && return 1; }
}

release 'NAME="Fedora Linux"' ID=fedora
check "Fedora" says "packages are missing - install them, as root: dnf install onednn-devel cjson-devel libpng-devel \
libjpeg-turbo-devel libwebp-devel libcmocka-devel gcc-c++ clang" g++ clang
release 'ID="rocky"' 'ID_LIKE="rhel centos fedora"'
check "a relative of Fedora" says "packages are missing - install them, as root: dnf install onednn-devel cjson-devel \
libpng-devel libjpeg-turbo-devel libwebp-devel libcmocka-devel"
release 'NAME="Arch Linux"' ID=arch
check "Arch" says "packages are missing - install them, as root: pacman -S --needed onednn cjson libpng libjpeg-turbo \
libwebp cmocka pkgconf" pkgconf
release 'NAME="Alpine Linux"' ID=alpine
check "Alpine" says "packages are missing - install them, as root: apk add onednn-dev cjson-dev libpng-dev \
libjpeg-turbo-dev libwebp-dev cmocka-dev g++" g++
release 'ID="opensuse-tumbleweed"' 'ID_LIKE="opensuse suse"'
check "openSUSE" says "packages are missing - install them, as root: zypper install onednn-devel cJSON-devel \
libpng16-devel libjpeg8-devel libwebp-devel libcmocka-devel"

debian="libdnnl-dev libcjson-dev libpng-dev libjpeg-dev libwebp-dev libcmocka-dev"
release ID=plan9
check "a system that nobody knows" says "libraries are missing, by Debian's names: $debian - install them with your \
package manager"
tool apk ''
rm "$scratch/root/etc/os-release"
check "a system known by its package manager alone" says "packages are missing - install them, as root: apk add \
onednn-dev cjson-dev libpng-dev libjpeg-turbo-dev libwebp-dev cmocka-dev"
rm "$scratch/bin/apk"

release ID=linuxmint 'ID_LIKE="ubuntu debian"'
tool id 'echo 1000'
tool apt-get "echo \"\$@\" >>$scratch/calls"
check "Debian's relatives, without root or sudo" says "packages are missing - install them, as root: apt-get install \
$debian"
tool id 'echo 0'
check "Debian's relatives" install_deps clang
check "what apt-get is asked for" grep -q "^install -y .* $debian clang\$" "$scratch/calls"
# the first words are apt's own
tool apt-get 'echo "W: Failed to fetch file:/x/InRelease  Temporary failure resolving '"'host'"'"; [ "$1" = update ]'
check "no registry in reach" says "the package registry is out of reach, and packages are missing: $debian - \
check the network, then try again"
tool apt-get 'echo "E: Unable to locate package libdnnl-dev" >&2; [ "$1" = update ]'
check "apt-get's own words where it fails otherwise" sh -c "! MALA_ROOT='$scratch/root' PATH='$scratch/bin' \
scripts/install_deps.sh 2>&1 >/dev/null | grep -q 'out of reach' && MALA_ROOT='$scratch/root' PATH='$scratch/bin' \
scripts/install_deps.sh 2>&1 | grep -q 'Unable to locate package'"

mkdir -p "$scratch/root/usr/include/cjson" "$scratch/root/usr/include/x-linux-gnu" \
    "$scratch/root/usr/local/include/webp"
for header in usr/include/dnnl.h usr/include/cjson/cJSON.h usr/include/png.h usr/include/x-linux-gnu/jpeglib.h \
    usr/local/include/webp/decode.h usr/include/cmocka.h; do : >"$scratch/root/$header"; done
check "nothing is said where nothing is missing" install_deps
check "and nothing is done" sh -c "[ ! -s '$scratch/out' ] && [ ! -s '$scratch/err' ]"
verdict
