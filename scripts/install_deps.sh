#!/bin/sh
# Installs the libraries that mala is built from, when one of them is missing, and the packages named as arguments whose
# command of the same name is missing: on Debian and its relatives. Elsewhere it says what to install and how.
# MALA_ROOT stands before the paths that it looks at (tests/packages.sh).
set -eu
root=${MALA_ROOT:-}

fail() {
    echo "mala: error: $*" >&2
    exit 1
}

missing=
for need in dnnl.h:libdnnl-dev cjson/cJSON.h:libcjson-dev png.h:libpng-dev jpeglib.h:libjpeg-dev \
    webp/decode.h:libwebp-dev cmocka.h:libcmocka-dev; do
    header=${need%%:*}
    for dir in "$root"/usr/include "$root"/usr/local/include "$root"/usr/include/*-linux-gnu; do
        [ -e "$dir/$header" ] && continue 2
    done
    missing="$missing ${need#*:}"
done
for command; do
    command -v "$command" >/dev/null || missing="$missing $command"
done
[ -z "$missing" ] && exit 0

# Debian's names in those of other systems: a line for each package, a column for each of them
names='
libdnnl-dev     onednn-devel            onednn          onednn-dev              onednn-devel
libcjson-dev    cjson-devel             cjson           cjson-dev               cJSON-devel
libpng-dev      libpng-devel            libpng          libpng-dev              libpng16-devel
libjpeg-dev     libjpeg-turbo-devel     libjpeg-turbo   libjpeg-turbo-dev       libjpeg8-devel
libwebp-dev     libwebp-devel           libwebp         libwebp-dev             libwebp-devel
libcmocka-dev   libcmocka-devel         cmocka          cmocka-dev              libcmocka-devel
g++             gcc-c++                 gcc             g++                     gcc-c++
pkgconf         pkgconf-pkg-config      pkgconf         pkgconf                 pkgconf-pkg-config
libclang-rt     compiler-rt             compiler-rt     compiler-rt             clang'
elsewhere() { # column, command
    packages=
    for package in $missing; do
        case $package in libclang-rt-*) package=libclang-rt ;; esac
        name=$(echo "$names" | awk -v package="$package" -v column="$1" '$1 == package {print $column}')
        packages="$packages ${name:-$package}"
    done
    fail "packages are missing - install them, as root: $2$packages"
}

# os-release's ID and ID_LIKE, most alike first; a system without it is known by its package manager
release="$root/etc/os-release"
systems=$([ ! -r "$release" ] || sed -n 's/^ID=//p; s/^ID_LIKE=//p' "$release" | tr -d '"' | tr '\n' ' ')
for manager in apt-get dnf pacman apk zypper; do
    command -v $manager >/dev/null && systems="$systems $manager"
done
system=
for system in $systems; do
    case $system in
    debian | ubuntu | apt-get) break ;;
    fedora | rhel | dnf) elsewhere 2 "dnf install" ;;
    arch | pacman) elsewhere 3 "pacman -S --needed" ;;
    alpine | apk) elsewhere 4 "apk add" ;;
    opensuse* | suse | zypper) elsewhere 5 "zypper install" ;;
    esac
    system=
done
[ -n "$system" ] && command -v apt-get >/dev/null ||
    fail "libraries are missing, by Debian's names:$missing - install them with your package manager"

as_root=
if [ "$(id -u)" != 0 ]; then
    as_root=sudo
    command -v sudo >/dev/null || fail "packages are missing - install them, as root: apt-get install$missing"
fi
echo "installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# lists may be out of date in one place and hold what is needed in another: only the installation decides
$as_root apt-get update -qq >"$log" 2>&1 || true
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing >>"$log" 2>&1 && exit 0
if grep -Eq 'resolv|[Cc]onnect|timed out|unreachable|Failed to fetch' "$log"; then
    fail "the package registry is out of reach, and packages are missing:$missing - check the network, then try again"
fi
cat "$log" >&2
fail "apt-get could not install$missing - what it says is above"
