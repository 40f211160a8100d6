#!/bin/sh
# Starts a PostgreSQL cluster of its own in a temporary directory, prints its URLs, and throws it away when standard
# input ends: a test that holds the pipe takes the cluster with it however it dies. Touches no other cluster.
#
#   cluster.sh [setting=value …]     for example: cluster.sh fsync=on
#
# Line 1: URL over the socket in the directory, which only this user (and root) can enter.
# Line 2: URL over TCP on 127.0.0.1, with a password.
# Line 3, when POSTRIDER_CLUSTER_OWNER is set: URL of an empty database as the ordinary role that owns it.
set -eu

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1 || true)
if [ ! -x "$bin/initdb" ]; then
    bin=$(dirname "$(command -v initdb 2>/dev/null || echo /nowhere/initdb)")
fi
if [ ! -x "$bin/initdb" ]; then
    echo "PostgreSQL is not installed; on Debian: apt-get install postgresql" >&2
    exit 3
fi

# initdb refuses root.
if [ "$(id -u)" = 0 ]; then
    user=postgres
    id "$user" >/dev/null 2>&1 || user=nobody
    exec runuser -u "$user" -- sh -c "${POSTRIDER_CLUSTER_SCRIPT:-$(cat "$0")}" "$0" "$@"
fi

cd /
dir=$(mktemp -d "${TMPDIR:-/tmp}/postrider-cluster.XXXXXX")
server=
finish() {
    trap - EXIT
    [ -z "$server" ] || { kill -QUIT "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
    rm -rf "$dir"
}
trap finish EXIT
trap '' INT HUP
trap 'exit 1' TERM

password=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
printf '%s' "$password" >"$dir/password"
if ! "$bin/initdb" -D "$dir/data" -U postgres -E UTF8 --locale=C --no-sync --pwfile="$dir/password" \
    --auth-local=trust --auth-host=scram-sha-256 >"$dir/initdb.log" 2>&1; then
    cat "$dir/initdb.log" >&2
    exit 1
fi
settings="
listen_addresses = '127.0.0.1'
unix_socket_directories = '$dir'
max_connections = 300
shared_buffers = '128MB'
fsync = off
max_wal_size = '2GB'
logging_collector = off
log_min_messages = fatal
"
printf '%s\n' "$settings" >>"$dir/data/postgresql.conf"
for setting in "$@"; do
    printf "%s = '%s'\n" "${setting%%=*}" "${setting#*=}" >>"$dir/data/postgresql.conf"
done

# Somebody else may have the port: then the next one.
port=$((20000 + $$ % 20000))
tries=0
while :; do
    "$bin/postgres" -D "$dir/data" -p "$port" </dev/null >"$dir/log" 2>&1 &
    server=$!
    until "$bin/pg_isready" -q -h "$dir" -p "$port"; do
        kill -0 "$server" 2>/dev/null || break
        sleep 0.05
    done
    kill -0 "$server" 2>/dev/null && break
    tries=$((tries + 1))
    if [ "$tries" -ge 20 ]; then
        cat "$dir/log" >&2
        exit 1
    fi
    port=$((port + 1))
done
socket=$(printf '%s' "$dir" | sed 's|/|%2F|g')
owned=
if [ -n "${POSTRIDER_CLUSTER_OWNER:-}" ]; then
    "$bin/psql" -qX -h "$dir" -p "$port" -U postgres -d postgres -c "CREATE ROLE postrider LOGIN" \
        -c "CREATE DATABASE postrider OWNER postrider"
    owned="postgres://postrider@$socket:$port/postrider
"
fi
# At once: who has read the lines that it wants may close the pipe.
printf '%s\n%s\n%s' "postgres://postgres@$socket:$port/postgres" \
    "postgres://postgres:$password@127.0.0.1:$port/postgres" "$owned"
cat >/dev/null
