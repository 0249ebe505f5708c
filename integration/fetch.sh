#!/usr/bin/env bash
# fetch.sh PYTHON DIRECTORY: the source distributions whose own tests test_suites.py runs, unpacked there.
# The tests themselves run in a namespace without a network, so this is done before.
set -euo pipefail
python=$1 directory=$2

packages=(PySocks==1.7.1 urllib3==2.8.0 httplib2==0.22.0)
[ "$(cat "$directory/.fetched" 2>/dev/null || true)" != "${packages[*]}" ] || exit 0

echo "    fetching the sources of ${packages[*]}"
rm -rf "$directory"
mkdir -p "$directory"
for package in "${packages[@]}"; do
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary "${package%%=*}" \
    --dest "$directory" "$package" # ":all:" would also compile everything that builds it
done
for archive in "$directory"/*.tar.gz; do tar -xzf "$archive" -C "$directory"; done
chmod +x "$directory"/PySocks-*/test/bin/3proxy
echo "${packages[*]}" >"$directory/.fetched"
