#!/usr/bin/env bash
# Installs what `make test-system` drives beside Python: Debian's own packages, nothing else.
# Their services are neither started nor enabled: the tests start their own on ports of their own.
set -euo pipefail

PACKAGES=(prometheus prometheus-alertmanager logrotate chromium fonts-dejavu-core jq)

missing=()
for package in "${PACKAGES[@]}"; do
  state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "installed: ${PACKAGES[*]}"
  exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "missing: ${missing[*]}; run this as root: sudo $0" >&2
  exit 1
fi

# Debian's way to say "install, but start nothing" (invoke-rc.d asks this file; 101 = forbidden).
POLICY=/usr/sbin/policy-rc.d
if [ ! -e "$POLICY" ]; then
  trap 'rm -f "$POLICY"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$POLICY"
  chmod 755 "$POLICY"
fi

export DEBIAN_FRONTEND=noninteractive
# Another apt may be at work: wait for it instead of failing.
apt_get() { apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"; }
apt_get update
apt_get install --yes --no-install-recommends "${missing[@]}"
