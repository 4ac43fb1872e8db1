#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Does the fuzzing find what it is for? Takes one length check out of a copy of
# lib/wire/reader.c and lets fuzz/frames.c look for the hole, starting from
# well-formed messages only. Fails when it is not found within the time; exit
# 77 (skipped) without clang and its libFuzzer.
#
#   fuzz/seeded_bug.sh [bytes|string] [seconds]     default: bytes 60
#
# The checks are the lines marked "check: <name> length" in the reader.
set -eu

check=${1:-bytes}
seconds=${2:-60}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

echo 'int LLVMFuzzerTestOneInput(void); int LLVMFuzzerTestOneInput(void)
{ return 0; }' >"$work/probe.c"
if ! clang -fsanitize=fuzzer,address "$work/probe.c" -o "$work/probe" \
  2>"$work/probe.log"; then
  echo "SKIP: no clang with libFuzzer"
  exit 77
fi
mkdir "$work/tree" "$work/seeds"
(cd "$root" && tar cf - --exclude='./.*' --exclude='./build*' .) |
  (cd "$work/tree" && tar xf -)
cp "$root"/fuzz/corpus/frames/sample-* "$work/seeds"

reader=$work/tree/lib/wire/reader.c
mark="/\* check: $check length \*/"
if [ "$(grep -c "$mark" "$reader")" != 1 ]; then
  echo "no line of $reader is marked with check: $check length" >&2
  exit 2
fi
sed -i "\\|$mark|d" "$reader"

cd "$work"
CC=clang meson setup build tree -Dfuzz=libfuzzer -Dtests=false \
  -Dexamples=false -Dhost=false -Db_sanitize=address,undefined \
  -Db_lundef=false -Ddefault_library=static \
  -Dc_args=-fsanitize=fuzzer-no-link >setup.log 2>&1 ||
  { tail -20 setup.log >&2; exit 2; }
# The target needs these two libraries; to compile all of them takes a minute.
{
  ninja -C build lib/libfl-base.a lib/libfl-wire.a fuzz/fuzz-frames.p/frames.c.o
  clang -fsanitize=fuzzer,address,undefined -o fuzz-frames \
    build/fuzz/fuzz-frames.p/frames.c.o build/lib/libfl-wire.a \
    build/lib/libfl-base.a -lm
} >build.log 2>&1 || { tail -20 build.log >&2; exit 2; }

start=$(date +%s)
if ./fuzz-frames -seed=1 -max_len=4096 -max_total_time="$seconds" \
  -artifact_prefix="$work/" seeds >run.log 2>&1; then
  echo "FAILED: $seconds s without finding the missing $check check" >&2
  exit 1
fi
grep -q 'ERROR: AddressSanitizer' run.log ||
  { tail -20 run.log >&2; exit 2; }
echo "missing $check check found after $(($(date +%s) - start)) s:"
grep 'ERROR: AddressSanitizer' run.log
