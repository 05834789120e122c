#!/bin/sh
# up.sh: create the keys, build the images, download the models, start all services and wait until they are healthy. Prints a
# command to try on standard output.
#
#   COMPOSE=docker-compose   use docker-compose instead of `docker compose`
#   PROFILES=monitoring      start optional services too
set -eu
cd "$(dirname "$0")/.."
# docker-compose's default is a minute, which a busy machine may exceed.
export COMPOSE_HTTP_TIMEOUT="${COMPOSE_HTTP_TIMEOUT:-600}"

compose() { ${COMPOSE:-docker compose} ${PROFILES:+--profile "$PROFILES"} "$@"; }

docker info > /dev/null 2>&1 || { echo "no Docker engine is running: start one, or see docs/how-to/compose.md" >&2; exit 1; }
sh deploy/secrets.sh
compose build >&2
compose up --exit-code-from models models >&2 # in the foreground, to show the progress
compose up -d >&2

for service in cloud wan edge-a edge-b; do
    container=$(compose ps -q "$service")
    printf 'waiting for %s' "$service" >&2
    while
        state=$(docker inspect -f '{{.State.Status}} {{.State.Health.Status}}' "$container")
        [ "$state" = "running starting" ]
    do
        printf . >&2
        sleep 1
    done
    echo ": $state" >&2
    if [ "$state" != "running healthy" ]; then
        compose logs --tail 20 "$service" >&2
        exit 1
    fi
done

address=$(compose port edge-a 8081)
key=
if [ -n "$(docker inspect -f '{{range .Config.Env}}{{println .}}{{end}}' "$(compose ps -q edge-a)" | sed -n 's/^GKT_EDGE_API_KEYS=//p')" ]; then
    key=' -H "authorization: Bearer $GKT_EDGE_API_KEY"'
fi
question='{"model": "gkt", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}'
echo "curl -s http://$address/v1/chat/completions -H 'content-type: application/json'$key -d '$question'"
