#!/usr/bin/env bash
# install.sh: the real SOCKS servers and clients of integration/, from Debian, without starting any.
# Quick when everything is there already: then apt-get is not even asked.
set -euo pipefail

packages=(
  # servers
  dante-server microsocks openssh-server putty-tools shadowsocks-libev tor v2ray
  # clients
  connect-proxy curl ncat netcat-openbsd openssh-client privoxy proxychains4 socat
  # watches system calls, and counts them
  strace
  # what a patched program talks to
  redis-server
  # `ip netns`, for integration/run
  iproute2
)
# CPython's own tests, which Debian's Python comes without
if [ -x /usr/bin/python3 ]; then
  packages+=("$(/usr/bin/python3 -c 'import sys; print("libpython%d.%d-testsuite" % sys.version_info[:2])')")
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} = 0 ]; then
  echo "integration: all ${#packages[@]} packages are installed"
  exit 0
fi
if [ "$(id -u)" != 0 ]; then
  echo "integration: these packages are missing: ${missing[*]}" >&2
  echo "integration: installing them needs root, and starts none of their services:" >&2
  echo "    sudo integration/install.sh" >&2
  exit 2
fi

# Debian asks this file before it starts a service; 101 is "no". One that is there is put back.
policy=/usr/sbin/policy-rc.d
saved=$policy.before-socksy
log=$(mktemp)
# a saved one is left from a run that was killed: it is the real one
if [ -e "$policy" ] && [ ! -e "$saved" ]; then mv "$policy" "$saved"; fi
restore() {
  rm -f "$log" "$policy"
  if [ -e "$saved" ]; then mv "$saved" "$policy"; fi
}
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
quietly() { # shows what a command said only if it failed
  "$@" >"$log" 2>&1 </dev/null || { local code=$?; tail -n 30 "$log" >&2; return "$code"; }
}
echo "integration: installing ${missing[*]}"
echo "integration: apt-get update"
quietly apt-get update -q
echo "integration: apt-get install"
quietly apt-get install -q -y --no-install-recommends "${missing[@]}"
echo "integration: done (${#missing[@]} installed, none of their services started)"
