#!/usr/bin/env bash
# What do the tests of the live service need from the system? A Redis-compatible server and Chromium: installs those
# that are missing, with Debian's apt-get as root. Says what it cannot do, and then fails: tests would be left out.
set -euo pipefail

say() { printf 'services: %s\n' "$*" >&2; }

found() { # one of several programs, by name or path
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null && return 0
    done
    return 1
}

missing() { # the packages of what is not there
    found redis-server valkey-server || printf 'redis-server\n'
    found chromium || printf 'chromium\n'
}

mapfile -t packages < <(missing)
if [ "${#packages[@]}" -eq 0 ]; then
    say "all there"
    exit 0
fi
say "missing: ${packages[*]}"

if [ "${1:-}" = "--check" ]; then
    exit 1
fi
if ! found apt-get; then
    say "there is no apt-get; install ${packages[*]} in the way of this system, then come back"
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    say "only root can install them: run 'apt-get install ${packages[*]}' as root, then come back"
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
# The package starts a server at once, on a port and with files that no test wants: policy-rc.d says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends "${packages[@]}"; } >&2; then
    say "apt-get could not install ${packages[*]}; see above"
    exit 1
fi
mapfile -t packages < <(missing)
if [ "${#packages[@]}" -ne 0 ]; then
    say "still missing after the installation: ${packages[*]}"
    exit 1
fi
say "installed"
