#!/bin/sh
# secrets.sh [FILE]: put what is missing of the stack's keys into FILE (.env), random, readable by its owner alone.
# What is there already stays, so a second run changes nothing.
set -eu
file=${1:-$(dirname "$0")/../.env}
umask 077
touch "$file"
chmod 600 "$file"
for name in GKT_EDGE_A_KEY GKT_EDGE_B_KEY GKT_GRAFANA_PASSWORD; do
    if ! grep -q "^$name=." "$file"; then
        echo "$name=$(od -An -v -N32 -tx1 /dev/urandom | tr -d ' \n')" >> "$file"
        echo "$file: made $name" >&2
    fi
done
