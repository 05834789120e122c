#!/bin/sh
# secrets.sh [FILE]: add random values for the stack's missing keys to FILE (.env), which only its owner can read.
# Existing keys stay, so a second run changes nothing.
set -eu
file=${1:-$(dirname "$0")/../.env}
umask 077
touch "$file"
chmod 600 "$file"
for name in GKT_EDGE_A_KEY GKT_EDGE_B_KEY GKT_GRAFANA_PASSWORD; do
    if ! grep -q "^$name=." "$file"; then
        echo "$name=$(od -An -v -N32 -tx1 /dev/urandom | tr -d ' \n')" >> "$file"
        echo "$file: created $name" >&2
    fi
done
