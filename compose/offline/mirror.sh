#!/bin/sh
# Where this machine's apt takes Debian's main packages from, or nothing: compose/offline/mirror.sh SUITE
apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk -v suite="$1" '$2 == suite && $3 == "main" { print $1; exit }'
