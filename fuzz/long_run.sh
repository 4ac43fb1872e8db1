#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All targets of a folder that fuzz/pack.sh made, all at once, each by WORKERS
# processes for SECONDS. The processes of a target share what they find. One
# that ended early, with a crash or not, begins again until the time is over.
# OUT gets summary.txt, a line a target of
#   target executions crashes new_units seconds
# and a folder for every target that crashed, with inputs and logs.
# usage: $0 OUT SECONDS WORKERS [TARGET...]
set -euo pipefail
[ $# -ge 3 ] || { sed -n '3,9s/^# //p' "$0"; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd) seconds=$2 workers=$3
shift 3
cd "$(dirname "$0")"
loader=(lib/ld-linux*)
[ -e "${loader[0]}" ] || { echo "no loader in lib"; exit 1; }
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(ls corpus)
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The shadow memory of ASan wants the layout that it knows.
run=("${loader[0]}" --library-path lib)
if ! "${run[@]}" "./${targets[0]}" -runs=0 >/dev/null 2>&1; then
  run=(setarch "$(uname -m)" -R "${run[@]}")
fi

# One process of a target after the other; logs are worker.run.log. Every second
# worker weighs its inputs by what is rare, which takes a third of the time.
keep_going() # TARGET WORKER
{
  local from=$SECONDS n=0 left
  while left=$((seconds - (SECONDS - from))) && [ "$left" -gt 0 ] &&
    [ "$n" -lt 50 ]; do
    "${run[@]}" "./$1" -max_total_time="$left" -seed=$((1 + $2 + 1000 * n)) \
      -timeout=20 -rss_limit_mb=4000 -print_final_stats=1 -reload=1 \
      -entropic=$(($2 % 2)) \
      -artifact_prefix="$work/$1/bad/" "$work/$1/found" "corpus/$1" \
      >"$work/$1/$2.$n.log" 2>&1 || true
    n=$((n + 1))
  done
}

stat_of() # TARGET STATISTIC
{
  cat "$work/$1"/*.log |
    awk -v key="stat::$2:" '$1 == key { sum += $2 } END { print sum + 0 }'
}

begin=$SECONDS worker=0
for target in "${targets[@]}"; do
  mkdir -p "$work/$target/found" "$work/$target/bad"
  for ((i = 0; i < workers; i++)); do
    echo "$target: seeds from $((1 + worker))"
    keep_going "$target" "$worker" &
    worker=$((worker + 1))
  done
done
wait
status=0
echo "target executions crashes new_units seconds" >"$out/summary.txt"
for target in "${targets[@]}"; do
  found=$work/$target
  crashes=$(find "$found/bad" -type f ! -name 'slow-unit-*' | wc -l)
  executions=$(stat_of "$target" number_of_executed_units)
  echo "$target $executions $crashes $(stat_of "$target" new_units_added)" \
    "$((SECONDS - begin))" >>"$out/summary.txt"
  [ "$executions" -gt 0 ] || status=1
  if [ "$crashes" -gt 0 ] || [ "$executions" = 0 ]; then
    status=1
    mkdir -p "$out/$target"
    cp -r "$found/bad/." "$found"/*.log "$out/$target/"
  fi
done
cat "$out/summary.txt"
exit $status
