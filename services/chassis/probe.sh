#!/usr/bin/env bash
# HEALTHCHECK of the images: exit code 0 if http://127.0.0.1:PORT/PATH answers 200.
#
#   bash services/chassis/probe.sh PORT PATH
#
# To start a program in a container costs the engine 0.05 s of CPU, so probes must be few; but whoever
# waits for this container waits for the first of them. Docker has a start interval for that from
# version 25 on. Here a probe takes its time instead: a service that is not ready gets PROBE_PATIENCE
# seconds, and a ready one that has run for a while is asked only after as many. Bash, because it starts in a
# tenth of Python's time.
set -uo pipefail

port=$1 path=$2
patience=${PROBE_PATIENCE:-30}
young=10 # seconds: the engine does not know yet that the service is ready

ready() {
    answer=""
    exec 3<>"/dev/tcp/127.0.0.1/$port" || return
    printf 'GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' "$path" >&3
    IFS= read -r -t 3 -d '' answer <&3
    exec 3>&-
    [[ $answer == 'HTTP/1.'?' 200 '* ]]
} 2>/dev/null

age() { # of the container's first process, in seconds
    local now first
    read -r now _ </proc/uptime
    read -r -a first </proc/1/stat
    echo $((${now%.*} - ${first[21]} / 100))
}

if ready && (($(age) > young)); then
    sleep "$patience"
    ready
else
    until ready || ((SECONDS >= patience)); do sleep 0.2; done
fi
[[ $answer == 'HTTP/1.'?' 200 '* ]] && exit
echo "http://127.0.0.1:$port$path: ${answer:-no answer}"
exit 1
