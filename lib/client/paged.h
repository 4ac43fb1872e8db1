/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of a paged model: vectors in blobs of a storage, one window of them
 * (fli_window) in memory at a time.
 *
 * Regions are float32 LE, cut into blobs ("pages"). The model is in one of two,
 * what replaces it is made in the other, and changes places with it when its
 * hash is proved. */
#ifndef FLI_PAGED_H
#define FLI_PAGED_H

#include <fl/paged.h>
#include "client/client.h"

enum {
  FLI_REGION_A = 0,
  FLI_REGION_B = 1,
  FLI_REGION_UPDATE = 2,
  FLI_REGION_STEPS = 3, /* a chain that is not whole yet */
  FLI_PAGE_BYTES = 256 << 10,
  FLI_STEP_UNITS = 8, /* decoded at a time: their bytes and their lanes */
  FLI_STEP_ROOM = FLI_STEP_UNITS * FLI_UNIT_MAX * (4 + 8)
};

/* What a page of the update has while it is trained, and afterwards. */
enum {
  FLI_PAGE_OF_MODEL = 0, /* no blob yet: what the model has */
  FLI_PAGE_TRAINED = 1,  /* weights */
  FLI_PAGE_CHANGE = 2    /* what is added to the model */
};

struct fl_paged {
  const fli_paging *paging; /* first: what lib/client knows */
  fl_context *context;
  const fl_storage *storage;
  char name[FL_PAGED_NAME_BYTES + 1];
  uint64_t budget;
  fl_client *client;
  uint32_t current;  /* FLI_REGION_A or _B */
  int is_not_finite; /* found while the last region was hashed */
  uint32_t failures; /* since a model was taken (paged_failure.c) */
  uint8_t update_hash[FLI_HASH_BYTES];
  /* The training that writes are for; `is_closed`: it was submitted. */
  fli_turn training;
  int is_closed;
  uint64_t steps_end;   /* bytes of a chain that may have been staged */
  uint64_t known_pages; /* of a region, as far as this handle has seen */
  uint8_t *marks;       /* FLI_PAGE_* of the update's pages */
  size_t n_marks;
  /* The page at hand: only what is written goes through it. */
  uint8_t *page;
  int has_page;
  int is_dirty;
  int is_in_place; /* what is written is still to be read, behind it */
  uint32_t page_region;
  uint64_t page_index;
  size_t page_size; /* bytes that it has */
  /* FLI_WINDOW_MAX values, and which ones they are. */
  float *window;
  int has_window;
  uint32_t window_region;
  uint64_t window_first;
};

static inline uint64_t fli_pages_of(uint64_t bytes)
{
  return bytes / FLI_PAGE_BYTES + (bytes % FLI_PAGE_BYTES != 0);
}

static inline uint64_t fli_paged_bytes(const fl_paged *paged)
{
  return paged->client->n_weights * sizeof(float);
}

/* pages.c: all offsets in bytes. FL_E_IO. */
fl_status fli_pages_put(fl_paged *paged, uint32_t region, uint64_t at,
                        const uint8_t *data, size_t n);
fl_status fli_pages_get(fl_paged *paged, uint32_t region, uint64_t at,
                        uint8_t *out, size_t n);
fl_status fli_pages_put_floats(fl_paged *paged, uint32_t region, uint64_t first,
                               const float *values, size_t n);
fl_status fli_pages_get_floats(fl_paged *paged, uint32_t region, uint64_t first,
                               float *values, size_t n);
fl_status fli_pages_flush(fl_paged *paged);
/* Of the region's first `total` bytes; notes whether all values are finite. */
fl_status fli_pages_hash(fl_paged *paged, uint32_t region, uint64_t total,
                         uint8_t hash[FLI_HASH_BYTES]);
/* Make changes of all that was trained. What a failure leaves undone the next
 * call does. FL_E_NOT_FINITE */
fl_status fli_pages_change(fl_paged *paged);
/* Whether blobs of `total` bytes are there, whatever is in them. */
fl_status fli_pages_look(fl_paged *paged, uint32_t region, uint64_t total,
                         int *is_there);
/* How many blobs there are without a gap, from the first one on. */
fl_status fli_pages_count(fl_paged *paged, uint32_t region, uint64_t *n);
/* Remove this many blobs, the last one first. */
fl_status fli_pages_remove(fl_paged *paged, uint32_t region, uint64_t n);

/* paged.c: the values of a window, until the next call. */
fl_status fli_paged_window(fl_paged *paged, uint32_t region,
                           const fli_window *window, const float **values);

/* paged_failure.c: what a storage that fails leads to. */
void fli_paged_failed(fl_client *client, fl_status st);

/* paged_steps.c: make the model that the chain in FLI_REGION_STEPS leads to.
 * The one held stays what it is on failure. */
fl_status fli_paged_apply(fl_paged *paged, uint64_t size);

#endif
