#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# 10000 sessions in one round of an fl-aggregator, and a server's figures.
# usage: $0 BUILD-TESTS
set -euo pipefail
build=$1/native
[ -x "$build/tests/bench/bench_server" ] ||
  { echo "FAIL: no bench_server in $build: run the stage native first"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Both ends of every socket are on this machine.
ulimit -n "$(ulimit -Hn)"
grep -m 1 "model name" /proc/cpuinfo || true
"$build/tests/bench/bench_server" --sessions 10000 --weights 2000 \
  --aggregator "$build/examples/fl-aggregator" --folder "$work"
"$build/tests/bench/bench_server" --folder "$work"
