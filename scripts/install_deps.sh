#!/bin/sh
# Installs the libraries that mala is built from, when one of them is missing (Debian and relatives), and the packages
# named as arguments whose command of the same name is missing.
set -eu

missing=
for need in dnnl.h:libdnnl-dev cjson/cJSON.h:libcjson-dev png.h:libpng-dev jpeglib.h:libjpeg-dev webp/decode.h:libwebp-dev cmocka.h:libcmocka-dev; do
    header=${need%%:*}
    for dir in /usr/include /usr/local/include /usr/include/*-linux-gnu; do
        [ -e "$dir/$header" ] && continue 2
    done
    missing="$missing ${need#*:}"
done
for command; do
    command -v "$command" >/dev/null || missing="$missing $command"
done
[ -z "$missing" ] && exit 0

if ! command -v apt-get >/dev/null; then
    echo "mala: error: these libraries are missing:$missing - install them with your package manager" >&2
    exit 1
fi
as_root=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || {
        echo "mala: error: these packages are missing:$missing - install them as root: apt-get install$missing" >&2
        exit 1
    }
    as_root=sudo
fi
echo "installing$missing"
$as_root apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
