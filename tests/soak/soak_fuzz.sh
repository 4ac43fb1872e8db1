#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every fuzz target for a minute under libFuzzer, ASan and UBSan, starting from
# the committed corpus. FUZZ_SECONDS sets another time. usage: $0 BUILD-TESTS
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$1/fuzz
seconds=${FUZZ_SECONDS:-60}
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
if [ ! -e "$build/build.ninja" ]; then
  CC=clang meson setup "$build" -Dfuzz=libfuzzer \
    -Db_sanitize=address,undefined -Db_lundef=false -Ddefault_library=static \
    -Dc_args=-fsanitize=fuzzer-no-link -Dexamples=false -Dtests=false
fi
ninja -C "$build"
passed=0 failed=0
for corpus in fuzz/corpus/*/; do
  target=$(basename "$corpus")
  work=$(mktemp -d)
  if "$build/fuzz/fuzz-$target" -max_total_time="$seconds" -timeout=20 \
    -rss_limit_mb=2048 -artifact_prefix="$work/" "$work" "$corpus" \
    >"$work.log" 2>&1; then
    passed=$((passed + 1))
    echo "ok $target: $(grep -c . "$work.log") lines, $(tail -n 1 "$work.log")"
    rm -rf "$work" "$work.log"
  else
    failed=$((failed + 1))
    echo "FAIL $target: see $work, $work.log"
    tail -n 30 "$work.log"
  fi
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
