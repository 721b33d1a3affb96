#!/bin/sh
# The first start makes the cluster, with the password of POSTGRES_PASSWORD_FILE, and runs
# /docker-entrypoint-initdb.d/*.sh while the server listens on its socket file alone.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --username postgres --pwfile "$POSTGRES_PASSWORD_FILE" --encoding UTF8 --locale C.UTF-8 \
        --auth-local trust --auth-host scram-sha-256 >/dev/null
    echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
    pg_ctl --silent --wait --options "-c listen_addresses=''" start
    for script in /docker-entrypoint-initdb.d/*.sh; do sh "$script"; done
    pg_ctl --silent --wait --mode fast stop
fi
exec postgres -c listen_addresses='*'
