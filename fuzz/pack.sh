#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fuzz targets, their seeds, the libraries that they need and the dynamic loader
# in one folder, with fuzz/long_run.sh as run.sh in it, for a long run on some
# other Linux machine of the same architecture, whatever is installed there.
# BUILD was configured with -Dfuzz=libfuzzer (fuzz/README.md) and is built.
# Without TARGETs: those that read messages, and both state machines. Programs
# are stripped: what they find is to be replayed by BUILD's.
# usage: $0 BUILD FOLDER [TARGET...]
set -euo pipefail
[ $# -ge 2 ] || { sed -n '3,9s/^# //p' "$0"; exit 2; }
build=$1 folder=$2
shift 2
targets=("$@")
[ $# -gt 0 ] || targets=(channel client_session container frames reader
  server_session slice sparse_update thc_aggregate thc_decode thc_merge)
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder/lib" "$folder/corpus"
for target in "${targets[@]}"; do
  program=$build/fuzz/fuzz-$target
  strip -o "$folder/$target" "$program"
  cp -r "$here/corpus/$target" "$folder/corpus/"
  # Lines are "NAME => FILE (ADDRESS)", and the loader's "FILE (ADDRESS)".
  ldd "$program" | sed -n 's/^.*[[:space:]]\(\/[^ ]*\) (0x.*$/\1/p' |
    xargs -d '\n' cp -Lt "$folder/lib"
done
cp "$here/long_run.sh" "$folder/run.sh"
du -sh "$folder"
