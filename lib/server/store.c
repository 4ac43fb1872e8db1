/* SPDX-License-Identifier: Apache-2.0 */
/* The canonical model and the bytes that bring peers up to it: a full copy, or
 * the chain of step records from the version that they hold. Both are made
 * once and shared by all peers that are being sent them; they are replaced,
 * never changed, when the model moves on, so that a download under way stays
 * whole. Steps are dropped, oldest first, as soon as their chain is no shorter
 * than the full copy: whoever is so far behind takes that. */
#include "server/server.h"

#include <assert.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"

fli_blob *fli_blob_new(fl_context *context)
{
  fli_blob *blob = fli_alloc(context, 1, sizeof *blob);
  if (!blob) return NULL;
  blob->references = 1;
  fli_bytes_init(&blob->bytes, context);
  return blob;
}

fli_blob *fli_blob_ref(fli_blob *blob)
{
  blob->references++;
  return blob;
}

void fli_blob_unref(fli_blob *blob)
{
  if (!blob || --blob->references > 0) return;
  fl_context *context = blob->bytes.context;
  fli_bytes_free(&blob->bytes);
  fli_free(context, blob, sizeof *blob);
}

const uint8_t *fli_blob_hash(fli_blob *blob)
{
  if (!blob->has_hash) {
    fli_hash(blob->hash, blob->bytes.data, blob->bytes.size);
    blob->has_hash = 1;
  }
  return blob->hash;
}

static void step_release(fli_step *step)
{
  fli_blob_unref(step->record);
  fli_blob_unref(step->chain);
}

/* Forget what was derived from the version that is no longer the newest. */
static void drop_derived(fli_store *store)
{
  fli_blob_unref(store->full);
  store->full = NULL;
  for (size_t i = 0; i < store->n_steps; i++) {
    fli_blob_unref(store->steps[i].chain);
    store->steps[i].chain = NULL;
  }
}

static void drop_steps(fli_store *store, size_t n)
{
  for (size_t i = 0; i < n; i++)
    step_release(&store->steps[i]);
  if (n == 0) return;
  memmove(store->steps, store->steps + n,
          (store->n_steps - n) * sizeof *store->steps);
  store->n_steps -= n;
}

/* Keep at most steps_kept steps, and none whose chain is no saving. */
static void prune(fli_store *store)
{
  const uint64_t full = store->canonical.n * sizeof(float);
  uint64_t chain = 0;
  size_t kept = 0;
  while (kept < store->n_steps && kept < store->steps_kept) {
    chain += store->steps[store->n_steps - 1 - kept].record->bytes.size;
    if (chain >= full) break;
    kept++;
  }
  drop_steps(store, store->n_steps - kept);
}

fl_status fli_store_init(fli_store *store, fl_context *context, uint64_t n,
                         uint32_t steps_kept)
{
  memset(store, 0, sizeof *store);
  store->context = context;
  store->steps_kept = steps_kept;
  return fli_canonical_init(&store->canonical, context, n);
}

void fli_store_free(fli_store *store)
{
  drop_derived(store);
  drop_steps(store, store->n_steps);
  fli_free(store->context, store->steps,
           store->capacity * sizeof *store->steps);
  store->steps = NULL;
  store->capacity = 0;
  fli_canonical_free(&store->canonical);
}

fl_status fli_store_set(fli_store *store, uint64_t version, const uint8_t *data,
                        size_t size)
{
  const fl_status st =
      fli_canonical_set(&store->canonical, version, data, size);
  if (st != FL_OK) return st;
  drop_derived(store);
  drop_steps(store, store->n_steps);
  fli_canonical_hash(&store->canonical, store->hash);
  return FL_OK;
}

fl_status fli_store_keep(fli_store *store, uint64_t base_version,
                         const uint8_t base_hash[FLI_HASH_BYTES],
                         fli_blob *record)
{
  void *items = store->steps;
  const fl_status st = fli_grow(store->context, &items, &store->capacity,
                                store->n_steps + 1, sizeof *store->steps);
  if (st != FL_OK) return st;
  store->steps = items;
  fli_step *step = &store->steps[store->n_steps++];
  memset(step, 0, sizeof *step);
  step->base_version = base_version;
  memcpy(step->base_hash, base_hash, FLI_HASH_BYTES);
  step->record = record;
  return FL_OK;
}

fl_status fli_store_step(fli_store *store, const fl_compressor *compressor,
                         fli_blob *record)
{
  const uint64_t base = store->canonical.version;
  fl_status st = fli_store_keep(store, base, store->hash, record);
  if (st != FL_OK) return st;
  st = fli_canonical_apply(&store->canonical, compressor, record->bytes.data,
                           record->bytes.size);
  if (st != FL_OK) {
    store->n_steps--;
    return st;
  }
  drop_derived(store);
  fli_canonical_hash(&store->canonical, store->hash);
  prune(store);
  return FL_OK;
}

int fli_store_knows(const fli_store *store, uint64_t version,
                    const uint8_t hash[FLI_HASH_BYTES])
{
  if (version == store->canonical.version) {
    return memcmp(hash, store->hash, FLI_HASH_BYTES) == 0;
  }
  for (size_t i = 0; i < store->n_steps; i++) {
    if (store->steps[i].base_version == version) {
      return memcmp(hash, store->steps[i].base_hash, FLI_HASH_BYTES) == 0;
    }
  }
  return 0;
}

static fl_status make_full(fli_store *store)
{
  if (store->full) return FL_OK;
  fli_blob *blob = fli_blob_new(store->context);
  if (!blob) return fli_nomem(sizeof *blob);
  const fl_status st = fli_canonical_write(&store->canonical, &blob->bytes);
  if (st != FL_OK) {
    fli_blob_unref(blob);
    return st;
  }
  store->full = blob;
  return FL_OK;
}

static fl_status make_chain(fli_store *store, size_t first)
{
  fli_step *step = &store->steps[first];
  if (step->chain) return FL_OK;
  if (first + 1 == store->n_steps) {
    step->chain = fli_blob_ref(step->record);
    return FL_OK;
  }
  fl_status st = FL_OK;
  fli_blob *blob = fli_blob_new(store->context);
  if (!blob) return fli_nomem(sizeof *blob);
  for (size_t i = first; i < store->n_steps; i++) {
    const fli_bytes *record = &store->steps[i].record->bytes;
    FLI_TRY(fli_bytes_append(&blob->bytes, record->data, record->size));
  }
  step->chain = blob;
  blob = NULL;
out:
  fli_blob_unref(blob);
  return st;
}

fl_status fli_store_transfer(fli_store *store, int has_model,
                             uint64_t held_version, fli_blob **blob,
                             fli_manifest *manifest)
{
  size_t first = store->n_steps;
  for (size_t i = 0; has_model && i < store->n_steps; i++) {
    if (store->steps[i].base_version == held_version) first = i;
  }
  manifest->model_version = store->canonical.version;
  if (first < store->n_steps) {
    const fl_status st = make_chain(store, first);
    if (st != FL_OK) return st;
    manifest->kind = FLI_TRANSFER_STEPS;
    manifest->base_version = held_version;
    *blob = fli_blob_ref(store->steps[first].chain);
    return FL_OK;
  }
  const fl_status st = make_full(store);
  if (st != FL_OK) return st;
  manifest->kind = FLI_TRANSFER_MODEL;
  *blob = fli_blob_ref(store->full);
  return FL_OK;
}
