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

gate() { # BASELINE
  abidiff --no-added-syms --headers-dir1 include --headers-dir2 include \
    --suppressions tests/abi/ok.ini "$1" "$build/lib/libfl.so" 2>&1
}

output=$(gate "$baseline")
check abi_equals_the_baseline $? "$output"

# The gate itself works: bit 4 of its status is set by a removed symbol and by
# a changed struct, and not by what a handle is made of.
seeded=$(mktemp -d)
trap 'rm -rf "$seeded"' EXIT
sed 's/\bfl_partial_add\b/fl_partial_gone/g' "$baseline" >"$seeded/removed.xml"
output=$(gate "$seeded/removed.xml")
[ $(($? & 4)) = 4 ]
check abi_gate_notices_a_changed_function $? "$output"

move_second_member() { # STRUCT
  sed "/<class-decl name='$1' size/,/<\/class-decl>/ {
    s/layout-offset-in-bits='64'/layout-offset-in-bits='96'/
  }" "$baseline"
}
move_second_member fl_reader >"$seeded/struct.xml"
output=$(gate "$seeded/struct.xml")
[ $(($? & 4)) = 4 ]
check abi_gate_notices_a_changed_struct $? "$output"

move_second_member fl_server >"$seeded/handle.xml"
output=$(gate "$seeded/handle.xml")
check abi_gate_ignores_what_handles_are_made_of $? "$output"

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
