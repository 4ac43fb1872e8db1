/* SPDX-License-Identifier: Apache-2.0 */
/* Ranges of a payload that lie behind a gap: islands, in order and apart. Where
 * one more would be too many the chunk is dropped, and asked for again when its
 * turn comes. */
#include "wire/gaps.h"

#include <string.h>

#include "base/bytes.h"

/* What is held without a gap has reached an island: go on behind it, and have
 * the next gap asked for. */
static void absorb(fli_incoming *incoming)
{
  fli_range *islands = incoming->islands;
  while (incoming->n_islands > 0 && islands[0].begin <= incoming->held) {
    if (islands[0].end > incoming->held) incoming->held = islands[0].end;
    incoming->n_islands--;
    memmove(islands, islands + 1, incoming->n_islands * sizeof *islands);
    incoming->is_status_due = incoming->knows_status;
  }
  if (incoming->held == incoming->manifest.total) incoming->is_status_due = 0;
}

int fli_gaps_note(fli_incoming *incoming, fli_range range)
{
  fli_range *islands = incoming->islands;
  uint32_t first = 0, last;
  if (range.begin <= incoming->held) {
    incoming->held = range.end;
    absorb(incoming);
    return 1;
  }
  while (first < incoming->n_islands && islands[first].end < range.begin)
    first++;
  for (last = first; last < incoming->n_islands; last++) {
    if (islands[last].begin > range.end) break;
    if (islands[last].begin < range.begin) range.begin = islands[last].begin;
    if (islands[last].end > range.end) range.end = islands[last].end;
  }
  /* first..last - 1 are part of it now. */
  if (first == last && incoming->n_islands == FLI_MAX_GAPS - 1) return 0;
  memmove(islands + first + 1, islands + last,
          (incoming->n_islands - last) * sizeof *islands);
  islands[first] = range;
  incoming->n_islands += 1 + first - last;
  return 1;
}

fl_status fli_gaps_write_status(fli_incoming *incoming, fli_bytes *out)
{
  uint8_t ranges[FLI_MAX_GAPS * FLI_RANGE_BYTES];
  uint8_t *at = ranges;
  uint64_t begin = incoming->held;
  incoming->is_status_due = 0;
  incoming->told = incoming->held + 1;
  for (uint32_t i = 0; i <= incoming->n_islands; i++) {
    const int is_last = i == incoming->n_islands;
    const uint64_t end =
        is_last ? incoming->manifest.total : incoming->islands[i].begin;
    if (begin < end) {
      fli_store_u64(at, begin);
      fli_store_u64(at + 8, end);
      at += FLI_RANGE_BYTES;
    }
    if (!is_last) begin = incoming->islands[i].end;
  }
  const fli_missing missing = {incoming->manifest.transfer, ranges,
                               (size_t)(at - ranges)};
  return fli_write_missing(out, &missing);
}
