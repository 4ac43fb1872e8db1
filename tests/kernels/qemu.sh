#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Kernel tests on emulated processors without AVX-512 and without AVX2: an
# illegal instruction in code that the table should not have chosen ends them.
# Lines with the hash of a table ("NAME 64 digits") must be those of the plain C
# functions on this machine: emulators and processors agree.
# usage: qemu.sh PROGRAM...
set -euo pipefail
qemu=$(command -v qemu-x86_64 || command -v qemu-x86_64-static || true)
if [ -z "$qemu" ]; then
  echo "SKIP: qemu-x86_64 is not installed"
  exit 77
fi
hashes() {
  sed -nE 's/^[a-z0-9_]+ ([0-9a-f]{64})$/\1/p' | sort -u
}
# qemu names the features that it lacks, once a start.
complaints() {
  grep -v "TCG doesn't support requested feature" >&2 || true
}
failed=0
compared=0
for program in "$@"; do
  want=$("$program" 40 | hashes)
  for cpu in Nehalem Haswell; do
    echo "$cpu: $(basename "$program")"
    text=$({ "$qemu" -cpu "$cpu" "$program" 40 2>&1 >&3 | complaints; } 3>&1) ||
      failed=1
    echo "$text"
    got=$(hashes <<<"$text")
    if [ "$got" != "$want" ]; then
      echo "$cpu: $(basename "$program"): got ${got:-no hash}, want $want" >&2
      failed=1
    fi
    if [ -n "$want" ]; then compared=$((compared + 1)); fi
  done
done
if [ "$compared" = 0 ]; then
  echo "no program printed a hash" >&2
  failed=1
fi
exit "$failed"
