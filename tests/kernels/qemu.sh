#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Kernel tests on emulated processors without AVX-512 and without AVX2: an
# illegal instruction in code that the table should not have chosen ends them.
# usage: qemu.sh PROGRAM...
set -euo pipefail
qemu=$(command -v qemu-x86_64 || command -v qemu-x86_64-static || true)
if [ -z "$qemu" ]; then
  echo "SKIP: qemu-x86_64 is not installed"
  exit 77
fi
for cpu in Nehalem Haswell; do
  for program in "$@"; do
    echo "$cpu: $(basename "$program")"
    "$qemu" -cpu "$cpu" "$program" 40 2>/dev/null
  done
done
