#!/usr/bin/env bash
# Debian's docker-registry on loopback, for tests.
#
#   registry.sh start STORAGE RUN [PORT]   serves STORAGE; prints the port; RUN holds pid, port and log
#   registry.sh stop RUN                   ends that one process
#
# Without PORT a free one is taken. Nothing listens outside 127.0.0.1.
set -euo pipefail

start() {
    local storage=$1 run=$2 port=${3:-} program
    program=$(command -v docker-registry || command -v registry) || { echo "registry: docker-registry is not installed" >&2; exit 3; }
    mkdir -p "$storage" "$run"
    for attempt in 1 2 3 4 5; do
        try=${port:-$((20000 + (RANDOM * 32768 + RANDOM) % 12000))}
        cat >"$run/config.yml" <<CONFIG
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: "$storage"}
  delete: {enabled: true}
http: {addr: "127.0.0.1:$try", secret: only-a-test}
CONFIG
        # 9 is a lock of make.sh: a server that inherits it would hold it for ever
        setsid "$program" serve "$run/config.yml" >"$run/log" 2>&1 </dev/null 9>&- &
        echo $! >"$run/pid"
        for _ in $(seq 100); do
            if curl --silent --fail --noproxy '*' "http://127.0.0.1:$try/v2/" >/dev/null; then
                # the answer must be ours, not that of another process which had the port before
                kill -0 "$(cat "$run/pid")" 2>/dev/null || break
                echo "$try" >"$run/port"
                echo "$try"
                return 0
            fi
            kill -0 "$(cat "$run/pid")" 2>/dev/null || break
            sleep 0.05
        done
        kill "$(cat "$run/pid")" 2>/dev/null || true
        [ -z "$port" ] || break
    done
    echo "registry: did not start: $(tail -n 3 "$run/log")" >&2
    exit 1
}

stop() {
    local pid
    pid=$(cat "$1/pid" 2>/dev/null) || return 0
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.05
    done
    kill -9 "$pid" 2>/dev/null || true
}

case ${1:-} in
start) start "${@:2}" ;;
stop) stop "${@:2}" ;;
*) echo "usage: registry.sh start STORAGE RUN [PORT] | stop RUN" >&2; exit 64 ;;
esac
