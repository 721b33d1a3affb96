#!/bin/sh
# Write the secrets of compose.yaml, each in a file of its own; one that is there stays as it is.
#
#   ./compose/secrets.sh [FOLDER]     default: .workshop/secrets, as compose.yaml has it
set -eu
umask 077
folder=${1:-$(dirname "$0")/../.workshop/secrets}
mkdir -p "$folder"
cd "$folder"

keep() { # FILE TEXT
    [ -e "$1" ] || printf '%s\n' "$2" > "$1"
    chmod 444 "$1" # compose mounts the file as it is, and the containers' user must read it
}
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

keep postgres_password "$(random)"
for name in feedback ingestion orchestrator; do
    keep "${name}_database_url" "postgresql+psycopg://$name:$(random)@postgres:5432/$name"
done
keep dense_qdrant_api_key "$(random)"
keep gateway_api_keys "" # `python -m services.gateway.keys new NAME` makes an entry
