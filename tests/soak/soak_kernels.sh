#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# 100000 drawn blocks through every table of this machine, and through those of
# emulated processors: one hash. KERNEL_DRAWS sets another number. Wants the
# builds of the stages native and cross. usage: $0 BUILD-TESTS
set -euo pipefail
native=$1/native/tests/kernels/kernels-blocks
draws=${KERNEL_DRAWS:-100000}
passed=0 failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

count() { # OK NAME
  if [ "$1" = yes ]; then
    passed=$((passed + 1))
    echo "ok $2"
  else
    failed=$((failed + 1))
    echo "FAIL $2"
    cat "$log"
  fi
}

# NAME TABLE COMMAND...
emulated() {
  local name=$1 table=$2 begin=$SECONDS
  shift 2
  if "$@" "$draws" --table "$table" >"$log" 2>&1 &&
    grep -qx "$table $want" "$log"; then
    count yes "$name $table: $((SECONDS - begin)) s"
  else
    count no "$name $table: want the hash $want"
  fi
}

if "$native" "$draws" >"$log" 2>&1; then
  count yes "native, $draws draws"
else
  count no "native"
fi
want=$(awk '$1 == "plain" { print $2 }' "$log")
echo "sha256 $want: $(awk 'NF == 2 { printf "%s ", $1 }' "$log")"
if [ "$(uname -m)" = x86_64 ]; then
  emulated Nehalem c qemu-x86_64 -cpu Nehalem "$native"
  emulated Haswell avx2 qemu-x86_64 -cpu Haswell "$native"
fi
for cross in arm64:neon:qemu-aarch64 armhf:c:qemu-arm; do
  IFS=: read -r architecture table emulator <<<"$cross"
  folder=$1/cross/$architecture
  emulated "$architecture" "$table" "$emulator" -L "$folder/root" \
    "$folder/build/tests/kernels/kernels-blocks"
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
