/* SPDX-License-Identifier: Apache-2.0 */
/* Sets of ids as rising arrays, and ids that are made up to hide them among. */
#include "embedding/slice.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "crypto/crypto.h"

enum { BLOCK = 64, DRAWS = BLOCK / 8, TRIES = 64 };

static int compare_ids(const void *a, const void *b)
{
  uint64_t x, y;
  memcpy(&x, a, sizeof x);
  memcpy(&y, b, sizeof y);
  return x < y ? -1 : x > y;
}

size_t fli_slice_sort(uint64_t *ids, size_t n)
{
  size_t kept = 0;
  if (n == 0) return 0;
  qsort(ids, n, sizeof *ids, compare_ids);
  for (size_t i = 0; i < n; i++)
    if (kept == 0 || ids[i] != ids[kept - 1]) ids[kept++] = ids[i];
  return kept;
}

size_t fli_slice_find(const uint64_t *ids, size_t n, uint64_t id)
{
  size_t low = 0, high = n;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (ids[middle] < id)
      low = middle + 1;
    else
      high = middle;
  }
  return low < n && ids[low] == id ? low : n;
}

/* More draws behind the n ids that are there, up to `want`. */
static void draw(const fl_slice_client *client, uint32_t table, uint32_t round,
                 uint64_t *ids, size_t n, size_t want)
{
  uint8_t bytes[BLOCK];
  const uint64_t range = client->options.decoy_range;
  for (size_t at = n; at < want; at++) {
    const size_t i = (at - n) % DRAWS;
    if (i == 0)
      fli_chacha20(bytes, sizeof bytes, client->secret,
                   (uint64_t)round << 32 | table, (uint32_t)((at - n) / DRAWS));
    const uint64_t drawn = fli_load_u64(bytes + 8 * i);
    ids[at] = range > 0 ? drawn % range : drawn;
  }
}

fl_status fli_slice_add_decoys(const fl_slice_client *client, uint32_t table,
                               uint64_t *asked, size_t n_own, size_t n_asked)
{
  const uint64_t range = client->options.decoy_range;
  size_t n = n_own;
  if (n_asked > n_own && range > 0 && range / 2 < n_asked)
    return fli_error(FL_E_LIMIT,
                     "slices: decoy_range, got %llu, want twice %zu at least",
                     (unsigned long long)range, n_asked);
  /* Those that are there already are drawn again. */
  for (uint32_t round = 0; n < n_asked && round < TRIES; round++) {
    draw(client, table, round, asked, n, n_asked);
    n = fli_slice_sort(asked, n_asked);
  }
  if (n < n_asked)
    return fli_error(FL_E_LIMIT, "slices: no decoys were to be found");
  return FL_OK;
}
