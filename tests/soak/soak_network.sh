#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The network test over many seeds, under ASan+UBSan. usage: $0 BUILD-TESTS
set -euo pipefail
program=$1/asan/tests/net/net-network
[ -x "$program" ] || { echo "FAIL: no $program: run the stage asan first"; exit 1; }
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
exec "$program" --seeds 2000 --first 1000
