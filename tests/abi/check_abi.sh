#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Compare the built library with the ABI baseline abi/<minor>.xml, and see to
# it that the baseline of a minor version never changes.
# usage: check_abi.sh BUILD
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
build=$1
passed=0 failed=0
version=$(sed -n "s/^  version: '\(0\.[0-9]*\)\..*/\1/p" meson.build | head -n 1)
baseline=abi/$version.xml

check() { # NAME STATUS OUTPUT
  if [ "$2" = 0 ]; then
    passed=$((passed + 1))
    echo "ok $1"
  else
    failed=$((failed + 1))
    echo "FAIL $1"
    printf '%s\n' "$3"
  fi
}

output=$(abidiff --no-added-syms --headers-dir1 include --headers-dir2 include \
  --suppressions tests/abi/ok.ini "$baseline" "$build/lib/libfl.so" 2>&1)
check abi_equals_the_baseline $? "$output"

# The gate itself works: a removed symbol and a changed struct are noticed.
seeded=$(mktemp -d)
trap 'rm -rf "$seeded"' EXIT
sed "/<elf-symbol name='fl_partial_add'/d; s/fl_partial_add/fl_partial_addd/" \
  "$baseline" >"$seeded/removed.xml"
! abidiff --no-added-syms --suppressions tests/abi/ok.ini \
  "$seeded/removed.xml" "$build/lib/libfl.so" >"$seeded/out" 2>&1
check abi_gate_notices_a_changed_function $? "$(cat "$seeded/out")"

# A baseline is written once: changing it is a new minor version, a new file
# and a new soname. Additions need no new baseline.
if git rev-parse -q --verify HEAD >/dev/null 2>&1; then
  commits=$(git log --format=%h -- "$baseline" | wc -l)
  [ "$commits" -le 1 ] && git diff --quiet HEAD -- "$baseline"
  check abi_baseline_is_written_once $? \
    "$baseline was changed after its first commit: raise the minor version"
fi
grep -q "^## $version" docs/abi.md
check abi_page_names_the_version $? "docs/abi.md has no section $version"

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
