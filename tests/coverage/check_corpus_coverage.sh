#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# How much of what reads encoded updates and sums, messages, and of what both
# state machines make of these, the committed seeds reach, replayed once:
# `file percent` lines, then whatever of the first is not reached without a
# reason in tests/coverage/unreached_lines. usage: $0 BUILD
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD least=90
build=$(realpath -m "$1/../corpus-coverage")
if [ ! -e "$build/build.ninja" ]; then
  meson setup "$build" -Dfuzz=replay -Dtests=false -Dexamples=false \
    -Db_coverage=true --buildtype=debug
fi
sums=(thc_decode thc_aggregate thc_merge)
sessions=(frames reader container client_session server_session)
targets=("${sums[@]}" "${sessions[@]}")
ninja -C "$build" "${targets[@]/#/fuzz/fuzz-}"

replay() { # target...
  find "$build" -name '*.gcda' -delete
  for target in "$@"; do
    "$build/fuzz/fuzz-$target" "$root/fuzz/corpus/$target" \
      2>"$build/$target.log"
  done
}
replay "${sums[@]}"
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
# One source of a library: NAME.c.gcov, its percentage in $percent.
measure() { # library, name
  gcov -o "lib/libfl-$1.a.p" "lib/libfl-$1.a.p/$1_$2.c.gcda" >/dev/null
  percent=$(awk -F: '$1 ~ /[0-9]/ { reached++ } /^ *#####:/ { missed++ }
    END { printf "%.1f", 100 * reached / (reached + missed) }' "$2.c.gcov")
  echo "$1/$2.c $percent"
  check "$1/$2.c" "$(awk -v p="$percent" -v least="$least" \
    'BEGIN { if (p < least) print p " %, want " least }')"
}
explained=$root/tests/coverage/unreached_lines
for name in update partial_io partial_add partial decode thc_decode; do
  measure compress "$name"
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
replay "${sessions[@]}"
for name in messages reader frame schema transfer gaps container; do
  measure wire "$name"
done
measure client session
for name in inbox collect outbox; do
  measure server "$name"
done
rm -f ./*.gcov
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
