#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# 200 kills of an aggregator by kill -9. usage: $0 BUILD-TESTS
set -euo pipefail
build=$1/native
[ -x "$build/examples/fl-aggregator" ] ||
  { echo "FAIL: no fl-aggregator in $build: run the stage native first"; exit 1; }
exec /usr/bin/python3 "$(dirname "$0")/../programs/test_durability.py" \
  "$build" 200 1
