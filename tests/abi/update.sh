#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Write the ABI baseline of a new minor version. usage: update.sh BUILD
set -euo pipefail
cd "$(dirname "$0")/../.."
version=$(sed -n "s/^  version: '\(0\.[0-9]*\)\..*/\1/p" meson.build | head -n 1)
mkdir -p abi
# With locations: abidiff tells public types from private ones by them, and
# without any it compares no struct at all.
abidw --headers-dir include --drop-private-types --no-comp-dir-path \
  --no-corpus-path --out-file "abi/$version.xml" "$1/lib/libfl.so"
echo "abi/$version.xml: $(wc -c <"abi/$version.xml") bytes"
