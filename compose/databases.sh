#!/bin/sh
# Run once by PostgreSQL's entry point: a database and a role each for the services with tables.
# A service's password is the one in its own database URL, so that it lies in one secret only.
set -eu

for name in feedback ingestion orchestrator; do
    password=$(sed 's#^.*://[^:]*:\([^@]*\)@.*$#\1#' "/run/secrets/${name}_database_url")
    psql --username "${POSTGRES_USER:-postgres}" --quiet --set ON_ERROR_STOP=1 \
        --set name="$name" --set password="$password" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
