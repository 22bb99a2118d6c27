#!/bin/sh
# A file may include its own room and the rooms below it, nothing above: the order below, lowest first.
set -eu
cd "$(dirname "$0")/.."
rooms="base data graph pass backend run io model task lib app"

status=0
allowed=
for room in $rooms; do
    allowed="$allowed $room"
    for file in $(find "src/$room" -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh'); do
        for target in $(sed -n 's/^#include "\([a-z]*\)\/.*/\1/p' "$file" | sort -u); do
            case " $allowed " in
            *" $target "*) ;;
            *)
                echo "$file: includes $target/, which lies above $room/" >&2
                status=1
                ;;
            esac
        done
    done
done
for dir in src/*/; do
    room=$(basename "$dir")
    case " $rooms " in
    *" $room "*) ;;
    *)
        echo "src/$room: a room that scripts/check_rooms.sh does not know" >&2
        status=1
        ;;
    esac
done
[ $status = 0 ] && echo "rooms: every include points downward"
exit $status
