#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# 10^6 mutations of recorded sessions, under ASan+UBSan. usage: $0 BUILD-TESTS
set -euo pipefail
program=$1/asan/tests/net/net-mutations
[ -x "$program" ] || { echo "FAIL: no $program: run the stage asan first"; exit 1; }
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
exec "$program" --long --seed "${MUTATION_SEED:-1}"
