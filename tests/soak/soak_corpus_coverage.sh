#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# How much of what reads encoded updates and sums the committed seeds reach,
# replayed once: `file percent` lines, then whatever is not reached without a
# reason in tests/coverage/unreached_lines. usage: $0 BUILD-TESTS
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD build=$1/corpus-coverage least=90
if [ ! -e "$build/build.ninja" ]; then
  meson setup "$build" -Dfuzz=replay -Dtests=false -Dexamples=false \
    -Db_coverage=true --buildtype=debug
fi
targets=(thc_decode thc_aggregate thc_merge)
ninja -C "$build" "${targets[@]/#/fuzz/fuzz-}"
find "$build" -name '*.gcda' -delete
for target in "${targets[@]}"; do
  "$build/fuzz/fuzz-$target" "fuzz/corpus/$target" 2>"$build/$target.log"
done

cd "$build"
passed=0 failed=0
check() { # what, problems
  if [ -z "$2" ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    printf 'FAIL %s\n%s\n' "$1" "$2"
  fi
}
explained=$root/tests/coverage/unreached_lines
for name in update partial_io partial_add partial decode thc_decode; do
  gcov -o lib/libfl-compress.a.p \
    "lib/libfl-compress.a.p/compress_$name.c.gcda" >/dev/null
  percent=$(awk -F: '$1 ~ /[0-9]/ { reached++ } /^ *#####:/ { missed++ }
    END { printf "%.1f", 100 * reached / (reached + missed) }' "$name.c.gcov")
  echo "$name.c $percent"
  check "$name.c" "$(awk -v p="$percent" -v least="$least" \
    'BEGIN { if (p < least) print p " %, want " least }')"
  missed=$(grep '^ *#####:' "$name.c.gcov" || true)
  unexplained=$missed
  while IFS='|' read -r file part _; do
    [ "$file" = "$name.c" ] || continue
    check "$file: an entry of unreached_lines is reached" \
      "$(grep -qF -- "$part" <<<"$missed" || echo "$part")"
    unexplained=$(grep -vF -- "$part" <<<"$unexplained" || true)
  done <"$explained"
  check "$name.c: lines not reached, without a reason" "$unexplained"
  rm -f ./*.gcov
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
