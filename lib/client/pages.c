/* SPDX-License-Identifier: Apache-2.0 */
/* A paged model's regions as blobs of 256 KiB. A page that is written is
 * collected in memory and replaces its blob when another one is written; what
 * is read of it comes from memory, all else from the blobs. */
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "client/paged.h"
#include "kernels/kernels.h"

enum { NAME_BYTES = FL_PAGED_NAME_BYTES + 32, TILE = 1024 };

static const char region_letters[] = "abus";

static void name_page(const fl_paged *paged, uint32_t region, uint64_t page,
                      char out[NAME_BYTES])
{
  (void)snprintf(out, NAME_BYTES, "%s-%c-%llx", paged->name,
                 region_letters[region], (unsigned long long)page);
}

static fl_status failed(const char *what, const char *name, fl_status st)
{
  if (st == FL_E_NOMEM) return fli_nomem(FLI_PAGE_BYTES);
  return fli_error(FL_E_IO, "paged: %s of blob %s gave %s", what, name,
                   fl_status_name(st));
}

fl_status fli_pages_flush(fl_paged *paged)
{
  char name[NAME_BYTES];
  if (!paged->has_page || !paged->is_dirty) return FL_OK;
  name_page(paged, paged->page_region, paged->page_index, name);
  const fl_status st = paged->storage->write(paged->storage->user, name,
                                             paged->page, paged->page_size);
  if (st != FL_OK) return failed("write", name, st);
  paged->is_dirty = 0;
  return FL_OK;
}

/* Bytes of a page of weights. */
static size_t weights_in(const fl_paged *paged, uint64_t page)
{
  const uint64_t left = fli_paged_bytes(paged) - page * FLI_PAGE_BYTES;
  return left < FLI_PAGE_BYTES ? (size_t)left : FLI_PAGE_BYTES;
}

/* What the blob holds, for some of it to be written anew. */
static fl_status load(fl_paged *paged)
{
  char name[NAME_BYTES];
  uint64_t size = 0;
  const fl_storage *storage = paged->storage;
  name_page(paged, paged->page_region, paged->page_index, name);
  fl_status st = storage->size(storage->user, name, &size);
  if (st == FL_E_NOT_FOUND) return FL_OK;
  if (size > FLI_PAGE_BYTES) size = FLI_PAGE_BYTES;
  if (st == FL_OK && size > 0)
    st = storage->read(storage->user, name, 0, paged->page, (size_t)size);
  if (st != FL_OK) return failed("read", name, st);
  paged->page_size = (size_t)size;
  return FL_OK;
}

/* Leave the page at hand for this one, of which nothing is there yet. */
static fl_status turn_to(fl_paged *paged, uint32_t region, uint64_t page)
{
  const fl_status st = fli_pages_flush(paged);
  if (st != FL_OK) return st;
  paged->has_page = 0;
  paged->is_dirty = 0;
  paged->page_region = region;
  paged->page_index = page;
  paged->page_size = 0;
  memset(paged->page, 0, FLI_PAGE_BYTES);
  return FL_OK;
}

/* A page of the update begins as the model's. */
static fl_status load_trained(fl_paged *paged)
{
  const uint64_t page = paged->page_index;
  const size_t n = weights_in(paged, page);
  if (paged->marks[page] != FLI_PAGE_OF_MODEL) {
    const fl_status st = load(paged);
    if (st != FL_OK || paged->page_size == n) return st;
    return fli_error(FL_E_IO, "paged: a blob of the update is too short");
  }
  const fl_status st = fli_pages_get(paged, paged->current,
                                     page * FLI_PAGE_BYTES, paged->page, n);
  if (st != FL_OK) return st;
  paged->page_size = n;
  paged->marks[page] = FLI_PAGE_TRAINED;
  paged->is_dirty = 1;
  return FL_OK;
}

/* Make this the page at hand. `is_whole`: nothing of the blob is of use. */
static fl_status enter(fl_paged *paged, uint32_t region, uint64_t page,
                       int is_whole)
{
  fl_status st = FL_OK;
  if (paged->has_page && paged->page_region == region &&
      paged->page_index == page)
    return FL_OK;
  FLI_TRY(turn_to(paged, region, page));
  if (region == FLI_REGION_UPDATE)
    FLI_TRY(load_trained(paged));
  else if (!is_whole)
    FLI_TRY(load(paged));
  paged->has_page = 1;
out:
  return st;
}

fl_status fli_pages_put(fl_paged *paged, uint32_t region, uint64_t at,
                        const uint8_t *data, size_t n)
{
  if (paged->has_window && paged->window_region == region)
    paged->has_window = 0;
  while (n > 0) {
    const size_t skip = (size_t)(at % FLI_PAGE_BYTES);
    const size_t room = FLI_PAGE_BYTES - skip, part = n < room ? n : room;
    /* All but the update are written from front to back. */
    const int is_whole =
        skip == 0 && region != FLI_REGION_UPDATE && !paged->is_in_place;
    const fl_status st = enter(paged, region, at / FLI_PAGE_BYTES, is_whole);
    if (st != FL_OK) return st;
    memcpy(paged->page + skip, data, part);
    paged->is_dirty = 1;
    if (skip + part > paged->page_size) paged->page_size = skip + part;
    data += part;
    at += part;
    n -= part;
  }
  return FL_OK;
}

static fl_status get_part(fl_paged *paged, uint32_t region, uint64_t at,
                          uint8_t *out, size_t n)
{
  char name[NAME_BYTES];
  const uint64_t page = at / FLI_PAGE_BYTES;
  const size_t skip = (size_t)(at % FLI_PAGE_BYTES);
  if (region == FLI_REGION_UPDATE && paged->marks[page] == FLI_PAGE_OF_MODEL)
    region = paged->current;
  if (paged->has_page && paged->page_region == region &&
      paged->page_index == page) {
    if (skip > paged->page_size || n > paged->page_size - skip)
      return fli_error(FL_E_IO, "paged: got %zu bytes of a page, want %zu",
                       paged->page_size, skip + n);
    memcpy(out, paged->page + skip, n);
    return FL_OK;
  }
  name_page(paged, region, page, name);
  const fl_status st =
      paged->storage->read(paged->storage->user, name, skip, out, n);
  return st == FL_OK ? FL_OK : failed("read", name, st);
}

fl_status fli_pages_get(fl_paged *paged, uint32_t region, uint64_t at,
                        uint8_t *out, size_t n)
{
  while (n > 0) {
    const size_t room = FLI_PAGE_BYTES - (size_t)(at % FLI_PAGE_BYTES);
    const size_t part = n < room ? n : room;
    const fl_status st = get_part(paged, region, at, out, part);
    if (st != FL_OK) return st;
    out += part;
    at += part;
    n -= part;
  }
  return FL_OK;
}

fl_status fli_pages_put_floats(fl_paged *paged, uint32_t region, uint64_t first,
                               const float *values, size_t n)
{
  uint8_t bytes[4 * TILE];
  for (size_t i = 0; i < n; i += TILE) {
    const size_t part = n - i < TILE ? n - i : TILE;
    flk_kernels()->f32_store(bytes, values + i, part);
    const fl_status st =
        fli_pages_put(paged, region, 4 * (first + i), bytes, 4 * part);
    if (st != FL_OK) return st;
  }
  return FL_OK;
}

/* Bytes that came to where floats are wanted. */
static void load_in_place(float *values, size_t n)
{
  for (size_t i = 0; i < n; i++)
    values[i] = fli_f32_from_bits(fli_load_u32((const uint8_t *)(values + i)));
}

fl_status fli_pages_get_floats(fl_paged *paged, uint32_t region, uint64_t first,
                               float *values, size_t n)
{
  const fl_status st = fli_pages_get(paged, region, 4 * first,
                                     (uint8_t *)values, n * sizeof *values);
  if (st == FL_OK) load_in_place(values, n);
  return st;
}

fl_status fli_pages_hash(fl_paged *paged, uint32_t region, uint64_t total,
                         uint8_t hash[FLI_HASH_BYTES])
{
  fl_status st = FL_OK;
  fli_hasher hasher;
  fli_hasher_init(&hasher);
  paged->is_not_finite = 0;
  FLI_TRY(fli_pages_flush(paged));
  /* The page is the only room there is. */
  paged->has_page = 0;
  for (uint64_t at = 0; at < total; at += FLI_PAGE_BYTES) {
    const uint64_t left = total - at;
    const size_t n = left < FLI_PAGE_BYTES ? (size_t)left : FLI_PAGE_BYTES;
    FLI_TRY(fli_pages_get(paged, region, at, paged->page, n));
    fli_hasher_update(&hasher, paged->page, n);
    float *values = (float *)(void *)paged->page;
    load_in_place(values, n / sizeof *values);
    if (flk_kernels()->find_not_finite(values, n / sizeof *values) !=
        n / sizeof *values)
      paged->is_not_finite = 1;
  }
  fli_hasher_final(&hasher, hash);
out:
  return st;
}

/* ---- what was trained ---- */

/* Weights that were trained, in the page at hand, less the model's. */
static fl_status subtract(fl_paged *paged)
{
  enum { FLOATS = FLI_PAGE_BYTES / sizeof(float) };
  const size_t n = paged->page_size / sizeof(float);
  const uint64_t first = paged->page_index * FLOATS;
  float *change = paged->window;
  paged->has_window = 0;
  const fl_status st =
      fli_pages_get_floats(paged, paged->current, first, change, n);
  if (st != FL_OK) return st;
  for (size_t i = 0; i < n; i++)
    change[i] = fli_load_f32(paged->page + 4 * i) - change[i];
  const size_t bad = flk_kernels()->find_not_finite(change, n);
  if (bad != n)
    return fli_error(FL_E_NOT_FINITE, "result: coordinate %llu is not finite",
                     (unsigned long long)(first + bad));
  flk_kernels()->f32_store(paged->page, change, n);
  return FL_OK;
}

/* Nothing was trained: zeros. */
static fl_status enter_zeros(fl_paged *paged, uint64_t page)
{
  const fl_status st = turn_to(paged, FLI_REGION_UPDATE, page);
  if (st != FL_OK) return st;
  paged->page_size = weights_in(paged, page);
  paged->has_page = 1;
  return FL_OK;
}

fl_status fli_pages_change(fl_paged *paged)
{
  fl_status st = FL_OK;
  for (uint64_t page = 0; page < paged->n_marks; page++) {
    if (paged->marks[page] == FLI_PAGE_CHANGE) continue;
    if (paged->marks[page] == FLI_PAGE_OF_MODEL) {
      FLI_TRY(enter_zeros(paged, page));
    } else {
      FLI_TRY(enter(paged, FLI_REGION_UPDATE, page, 0));
      FLI_TRY(subtract(paged));
    }
    paged->marks[page] = FLI_PAGE_CHANGE;
    paged->is_dirty = 1;
  }
  st = fli_pages_flush(paged);
out:
  return st;
}

/* ---- blobs ---- */

fl_status fli_pages_look(fl_paged *paged, uint32_t region, uint64_t total,
                         int *is_there)
{
  const fl_storage *storage = paged->storage;
  char name[NAME_BYTES];
  *is_there = 0;
  for (uint64_t at = 0; at < total; at += FLI_PAGE_BYTES) {
    const uint64_t left = total - at;
    uint64_t size = 0;
    name_page(paged, region, at / FLI_PAGE_BYTES, name);
    const fl_status st = storage->size(storage->user, name, &size);
    if (st == FL_E_NOT_FOUND) return FL_OK;
    if (st != FL_OK) return failed("size", name, st);
    if (size < (left < FLI_PAGE_BYTES ? left : FLI_PAGE_BYTES)) return FL_OK;
  }
  *is_there = 1;
  return FL_OK;
}

fl_status fli_pages_count(fl_paged *paged, uint32_t region, uint64_t *n)
{
  const fl_storage *storage = paged->storage;
  char name[NAME_BYTES];
  uint64_t size;
  for (*n = 0; *n < UINT64_MAX; (*n)++) {
    name_page(paged, region, *n, name);
    const fl_status st = storage->size(storage->user, name, &size);
    if (st == FL_E_NOT_FOUND) return FL_OK;
    if (st != FL_OK) return failed("size", name, st);
  }
  return FL_OK;
}

fl_status fli_pages_remove(fl_paged *paged, uint32_t region, uint64_t n)
{
  const fl_storage *storage = paged->storage;
  char name[NAME_BYTES];
  if (paged->page_region == region) paged->has_page = 0;
  while (n-- > 0) {
    name_page(paged, region, n, name);
    const fl_status st = storage->remove(storage->user, name);
    if (st != FL_OK) return failed("remove", name, st);
  }
  return FL_OK;
}
