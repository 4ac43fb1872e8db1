/* SPDX-License-Identifier: Apache-2.0 */
/* Outputs of the frozen modules, in the cache and out of it again. They are
 * named by everything that they depend on: how the model computes, how much of
 * it is frozen, and with which weights. */
#include <stdio.h>

#include "base/context.h"
#include "base/error.h"
#include "crypto/crypto.h"
#include "freeze/attach.h"
#include "cache/cache.h"
#include "freeze/freeze.h"

/* A sample's outputs may be so many times as many as its inputs. */
enum { MAX_GROWTH = 4 };

static void give_up(fli_attachment *a, const char *why)
{
  (void)fli_freeze_emit(a->freeze, FL_FREEZE_CACHE_OFF, a->request.step);
  (void)snprintf(a->freeze->cache_text, sizeof a->freeze->cache_text, "%s",
                 why);
  fli_log(a->model->context, FL_LOG_WARNING, "freeze: no cache from now on: %s",
          why);
  a->cache = NULL;
}

/* Bytes of a value of the data set. */
static size_t value_size(const fl_dataset *data)
{
  return data->x_dtype == FL_DTYPE_U8 ? 1 : 4;
}

/* Of samples that have no ids but their places, all that is known is what they
 * are. */
static void make_tag(const fli_attachment *a, const fl_dataset *data,
                     uint8_t tag[FLI_HASH_BYTES])
{
  static const char domain[] = "libfl frozen prefix 1";
  const fl_model *model = a->model;
  fli_hasher hasher;
  fli_hasher_init(&hasher);
  fli_hasher_update(&hasher, domain, sizeof domain);
  fli_hasher_update(&hasher, model->description.data, model->description.size);
  fli_hasher_u64(&hasher, model->first_active);
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    const fli_tensor *tensor = &model->tensors[i];
    if (tensor->module >= model->first_active) continue;
    fli_hasher_update(&hasher, fli_tensor_values(model, tensor),
                      (size_t)tensor->shape.count * sizeof(float));
  }
  if (!data->ids) {
    fli_hasher_u64(&hasher, data->x_dtype);
    fli_hasher_update(&hasher, data->x,
                      (size_t)(data->n * fli_model_input(model)->output.count) *
                          value_size(data));
  }
  fli_hasher_final(&hasher, tag);
}

static void tell(fli_attachment *a, const char *why)
{
  if (a->told == a->model->first_active) return;
  a->told = a->model->first_active;
  (void)fli_freeze_emit(a->freeze, FL_FREEZE_CACHE_OFF, a->request.step);
  (void)snprintf(a->freeze->cache_text, sizeof a->freeze->cache_text,
                 "not kept while modules below %u are frozen: %s", a->told,
                 why);
}

/* Whether it is worth while, and possible, to keep what comes out of the
 * frozen modules as they are now: later ones may give less. */
static int find_prefix(fli_attachment *a)
{
  const fli_shape *input = &fli_model_input(a->model)->output;
  if (fli_model_sparse(a->model)) {
    tell(a, "rows of a sparse embedding may change at any time");
    return 0;
  }
  if (!fli_model_cut(a->model, a->model->first_active, &a->prefix)) {
    tell(a, "more than one output crosses");
    return 0;
  }
  if (a->prefix.n_values <= MAX_GROWTH * fli_shape_floats(input)) return 1;
  tell(a, "outputs are more than 4 times as many as inputs");
  return 0;
}

/* Somebody else may have begun with the same cache. */
static int is_ours(const fli_attachment *a)
{
  return a->cache && a->is_kept && a->begun == a->cache->begun;
}

/* Whether the cache has been named for just these data and weights. Samples
 * with ids are what they were; others, and weights that the host has borrowed,
 * may have been written to between two calls. */
static int is_named_so(const fli_attachment *a, const fli_batch *batch,
                       uint64_t n)
{
  const fl_dataset *data = batch->data;
  const void *names = data->ids ? NULL : data->x;
  if (!is_ours(a) || a->data != names || a->n_data != n ||
      a->n_frozen != a->model->first_active) {
    return 0;
  }
  if (!batch->is_first) return 1;
  return data->ids && !a->model->is_lent && a->n_writes == a->model->n_writes;
}

void fli_kept_begin(fli_attachment *a, const fli_batch *batch)
{
  uint8_t tag[FLI_HASH_BYTES];
  uint64_t id = 0;
  const fl_dataset *data = batch->data;
  const void *names = data->ids ? NULL : data->x;
  a->is_named = 1;
  uint64_t n = a->n_samples > 0 ? a->n_samples : data->n;
  if (is_named_so(a, batch, n)) return;
  a->is_kept = 0;
  if (!fli_batch_id(batch, 0, &id)) {
    give_up(a, "the samples have no ids");
    return;
  }
  if (!find_prefix(a)) return;
  make_tag(a, data, tag);
  if (fl_cache_begin(a->cache, tag, n, a->prefix.n_values) != FL_OK) {
    give_up(a, fl_last_error());
    return;
  }
  a->is_kept = 1;
  a->begun = a->cache->begun;
  a->data = names;
  a->n_data = n;
  a->n_writes = a->model->n_writes;
  a->n_frozen = a->model->first_active;
}

static int make_room(fli_attachment *a, size_t n)
{
  if (n <= a->n_ids) return 1;
  uint64_t *ids = fli_realloc(a->freeze->context, a->ids,
                              a->n_ids * sizeof *ids, n * sizeof *ids);
  if (!ids) return 0;
  a->ids = ids;
  a->n_ids = n;
  return 1;
}

/* Ids of the batch's samples first .. first + n - 1; 0 when they have none, or
 * there is no memory for them. */
static int find_ids(fli_attachment *a, const fli_batch *batch, size_t first,
                    size_t n)
{
  if (!make_room(a, n)) return 0;
  for (size_t k = 0; k < n; k++) {
    if (!fli_batch_id(batch, first + k, &a->ids[k])) return 0;
  }
  return 1;
}

int fli_kept_load(fli_attachment *a, const fli_batch *batch, float *values)
{
  /* Batches that are gathered have one beginning, and calls of their own. */
  if (batch->is_first && !a->is_named && a->cache) fli_kept_begin(a, batch);
  a->is_named = 0;
  if (!is_ours(a) || !find_ids(a, batch, 0, batch->n)) return 0;
  if (fl_cache_get(a->cache, a->ids, (uint32_t)batch->n, values) != FL_OK) {
    return 0;
  }
  if (batch->n_next > 0 && find_ids(a, batch, batch->n, batch->n_next)) {
    (void)fl_cache_prefetch(a->cache, a->ids, (uint32_t)batch->n_next);
  }
  return 1;
}

void fli_kept_store(fli_attachment *a, const fli_batch *batch,
                    const float *values)
{
  if (!is_ours(a) || !find_ids(a, batch, 0, batch->n)) return;
  if (fl_cache_has(a->cache, a->ids, (uint32_t)batch->n)) return;
  fl_status st = fl_cache_put(a->cache, a->ids, (uint32_t)batch->n, values);
  if (st == FL_OK || st == FL_E_NOT_FINITE) return;
  give_up(a, fl_last_error());
}
