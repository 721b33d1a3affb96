#!/usr/bin/env bash
# Build `python:3.11-slim-bookworm` from Debian's own packages, where no image registry answers.
#
#   compose/offline/base.sh [TAG]      called by build.sh; needs root and mmdebstrap
#
# The image has what the official one has that our Dockerfiles use: Debian bookworm, CA
# certificates, and Python 3.11 with pip under /usr/local. The packages come from where this machine's
# apt takes them, and this machine's CA certificates go in too: behind a proxy that signs
# for itself, pip works in the image as it does outside.
set -euo pipefail

tag=${1:-python:3.11-slim-bookworm}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# As in the official image: apt-get install leaves no package and no cache behind.
cat > "$work/docker-clean" <<'END'
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
END

here=$(dirname "$0")
site=$("$here/mirror.sh" bookworm)
security=$("$here/mirror.sh" bookworm-security)
sources=()
[[ -z $site ]] || sources+=("deb $site bookworm main")
[[ -z $security ]] || sources+=("deb $security bookworm-security main")

# Without sources mmdebstrap goes to Debian's own servers.
printf '%s\n' "${sources[@]}" | mmdebstrap --quiet --variant=minbase \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --include=usr-is-merged,ca-certificates,python3,python3-venv,netbase,tzdata \
    --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='cp /usr/local/share/ca-certificates/*.crt "$1/usr/local/share/ca-certificates/" 2>/dev/null || true' \
    --customize-hook='cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/ca-certificates.crt"' \
    --customize-hook='chroot "$1" python3 -m venv --without-pip /usr/local' \
    --customize-hook='chroot "$1" /usr/local/bin/python3 -m ensurepip --upgrade' \
    --customize-hook='rm -r "$1/usr/share/python-wheels"' \
    --customize-hook='ln -sf pip3 "$1/usr/local/bin/pip"; ln -sf python3 "$1/usr/local/bin/python"' \
    --customize-hook='upload '"$work"'/docker-clean /etc/apt/apt.conf.d/docker-clean' \
    --customize-hook='find "$1/usr" -depth -name __pycache__ -exec rm -r {} +' \
    --customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/var/cache/debconf/*' \
    bookworm "$work/root.tar" ${sources:+-}

docker import --change 'CMD ["python3"]' \
    --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'ENV LANG=C.UTF-8' \
    --change "ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt" \
    "$work/root.tar" "$tag" >/dev/null
docker image inspect --format "$tag: {{.Size}} bytes" "$tag"
