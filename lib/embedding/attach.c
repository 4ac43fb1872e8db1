/* SPDX-License-Identifier: Apache-2.0 */
/* The store as the provider of a model's sparse embedding (model/provider.h).
 * Each id of a field is a bag of its own. Where all fields have one table, ids
 * and rows go as they lie; otherwise they are put side by side, table by table,
 * and back. */
#include "embedding/embedding.h"

#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/options.h"
#include "base/size.h"
#include "model/provider.h"

/* Fields that have the same table: parts of `order`. */
typedef struct share {
  uint32_t table;
  size_t first;
  size_t n;
} share;

typedef struct fli_attached {
  fl_embedding *embedding;
  fl_model *model;
  struct fli_attached *next;
  float rate;
  size_t fields;
  size_t width;
  size_t *order; /* [fields], by table */
  share *shares; /* [n_shares] of [fields] */
  size_t n_shares;
  uint64_t *ids; /* scratch for as many ids */
  float *values;
  size_t capacity;
} fli_attached;

/* ---- rows --------------------------------------------------------------- */

static fl_embedding_bags bags_of(const uint64_t *ids, size_t n)
{
  return (fl_embedding_bags){.struct_size = sizeof(fl_embedding_bags),
                             .mode = FL_EMBEDDING_SUM,
                             .ids = ids,
                             .n_ids = n,
                             .n_bags = n};
}

static void free_scratch(fli_attached *a)
{
  fl_context *context = a->embedding->context;
  fli_free(context, a->ids, a->capacity * sizeof *a->ids);
  fli_free(context, a->values, a->capacity * a->width * sizeof *a->values);
  a->ids = NULL;
  a->values = NULL;
  a->capacity = 0;
}

/* Room for n ids and their rows. */
static fl_status reserve(fli_attached *a, size_t n)
{
  fl_context *context = a->embedding->context;
  size_t floats = 0;
  if (n <= a->capacity || a->n_shares == 1) return FL_OK;
  free_scratch(a);
  if (!fli_mul_size(n, a->width, &floats)) return fli_nomem(SIZE_MAX);
  a->ids = fli_alloc(context, n, sizeof *a->ids);
  a->values = fli_alloc(context, floats, sizeof *a->values);
  a->capacity = n;
  if (a->ids && a->values) return FL_OK;
  free_scratch(a);
  return fli_nomem(n * sizeof *a->ids + floats * sizeof *a->values);
}

/* Ids of a share's fields, side by side; returns how many. */
static size_t take_ids(fli_attached *a, const share *s, const fli_ids *ids)
{
  uint64_t *to = a->ids;
  for (size_t k = 0; k < ids->n; k++) {
    for (size_t f = 0; f < s->n; f++) {
      *to++ = ids->ids[k * a->fields + a->order[s->first + f]];
    }
  }
  return ids->n * s->n;
}

/* Rows of a share's fields, to or from where they are among all. */
static void move_rows(fli_attached *a, const share *s, size_t n, float *values,
                      const float *gradient)
{
  size_t bytes = a->width * sizeof *values;
  float *mine = a->values;
  for (size_t k = 0; k < n; k++) {
    for (size_t f = 0; f < s->n; f++, mine += a->width) {
      size_t at = (k * a->fields + a->order[s->first + f]) * a->width;
      if (values) {
        memcpy(values + at, mine, bytes);
      } else {
        memcpy(mine, gradient + at, bytes);
      }
    }
  }
}

static fl_status read_rows(const fli_attached *a, uint32_t table,
                           const uint64_t *ids, size_t n, int is_training,
                           float *values)
{
  fl_embedding_bags bags = bags_of(ids, n);
  return is_training ? fl_embedding_forward(a->embedding, table, &bags, values)
                     : fl_embedding_lookup(a->embedding, table, &bags, values);
}

static fl_status read_all(fli_attached *a, const fli_ids *ids, int is_training,
                          float *values)
{
  fl_status st = FL_OK;
  if (a->n_shares == 1) {
    return read_rows(a, a->shares[0].table, ids->ids, ids->n * a->fields,
                     is_training, values);
  }
  FLI_TRY(reserve(a, ids->n * a->fields));
  for (size_t i = 0; i < a->n_shares; i++) {
    const share *s = &a->shares[i];
    size_t n = take_ids(a, s, ids);
    FLI_TRY(read_rows(a, s->table, a->ids, n, is_training, a->values));
    move_rows(a, s, ids->n, values, NULL);
  }
out:
  return st;
}

/* ---- the provider ------------------------------------------------------- */

static fl_status provide_lookup(void *user, const fli_ids *ids, float *values)
{
  return read_all(user, ids, 0, values);
}

static fl_status provide_forward(void *user, const fli_ids *ids, float *values)
{
  return read_all(user, ids, 1, values);
}

/* Forward has made room for the batch, in here and in all tables, and the
 * gradient is finite: nothing fails between one table and the next. */
static fl_status provide_backward(void *user, const fli_ids *ids,
                                  const float *gradient, float rate)
{
  fl_status st = FL_OK;
  fli_attached *a = user;
  if (a->rate >= 0.0f) rate = a->rate;
  if (a->n_shares == 1) {
    fl_embedding_bags bags = bags_of(ids->ids, ids->n * a->fields);
    return fl_embedding_backward(a->embedding, a->shares[0].table, &bags,
                                 gradient, rate);
  }
  for (size_t i = 0; i < a->n_shares; i++) {
    const share *s = &a->shares[i];
    fl_embedding_bags bags = bags_of(a->ids, take_ids(a, s, ids));
    move_rows(a, s, ids->n, NULL, gradient);
    FLI_TRY(
        fl_embedding_backward(a->embedding, s->table, &bags, a->values, rate));
  }
out:
  return st;
}

static void free_attached(fli_attached *a)
{
  fl_context *context = a->embedding->context;
  free_scratch(a);
  fli_free(context, a->order, a->fields * sizeof *a->order);
  fli_free(context, a->shares, a->fields * sizeof *a->shares);
  fli_free(context, a, sizeof *a);
}

/* Off the list, which may be at its end. */
static void unlink_attached(fli_attached *a)
{
  fli_attached **at = &a->embedding->attached;
  while (*at && *at != a) {
    at = &(*at)->next;
  }
  if (*at) *at = a->next;
}

static void provide_gone(void *user)
{
  unlink_attached(user);
  free_attached(user);
}

static const fli_provider provider = {
    .lookup = provide_lookup,
    .forward = provide_forward,
    .backward = provide_backward,
    .gone = provide_gone,
};

void fli_embedding_detach_all(fl_embedding *embedding)
{
  while (embedding->attached) {
    fli_attached *a = embedding->attached;
    embedding->attached = a->next;
    fli_model_set_provider(a->model, NULL, NULL);
    free_attached(a);
  }
}

/* ---- attaching ---------------------------------------------------------- */

static const fl_embedding_attach_options attach_defaults = {
    .struct_size = sizeof(fl_embedding_attach_options),
    .rate = FL_RATE_SCHEDULED,
};

fl_status fl_embedding_attach_options_init(fl_embedding_attach_options *options,
                                           size_t size)
{
  fli_clear_error();
  return fli_options_init(options, size, &attach_defaults,
                          sizeof attach_defaults);
}

static uint32_t table_of(const fl_embedding_attach_options *options, size_t f)
{
  return options->tables ? options->tables[f] : options->table;
}

static fl_status check_tables(const fl_embedding *embedding,
                              const fl_embedding_attach_options *options,
                              size_t fields, size_t width)
{
  if (options->tables ? options->n_tables != fields : options->n_tables != 0) {
    return fli_error(FL_E_DIM,
                     "embedding: n_tables, got %u%s, want %zu, one for each "
                     "field of the layer",
                     (unsigned)options->n_tables,
                     options->tables ? "" : " without tables", fields);
  }
  for (size_t f = 0; f < fields; f++) {
    uint32_t table = table_of(options, f);
    if (table >= embedding->n_tables) {
      return fli_error(FL_E_NOT_FOUND,
                       "embedding: table of field %zu, got %u, want < %u", f,
                       (unsigned)table, (unsigned)embedding->n_tables);
    }
    if (embedding->tables[table]->dim != width) {
      return fli_error(FL_E_DIM,
                       "embedding: table %u has dim %u, the layer's width is "
                       "%zu",
                       (unsigned)table, (unsigned)embedding->tables[table]->dim,
                       width);
    }
  }
  return FL_OK;
}

static fl_status check_rate(float rate)
{
  if (rate == FL_RATE_SCHEDULED || (rate >= 0.0f && rate <= FLI_RATE_MAX)) {
    return FL_OK;
  }
  return fli_error(FL_E_OPTIONS,
                   "embedding: rate, got %g, want a finite number >= 0, or "
                   "FL_RATE_SCHEDULED",
                   (double)rate);
}

/* Fields by their tables, those in the order of their numbers. */
static void set_shares(fli_attached *a,
                       const fl_embedding_attach_options *options)
{
  size_t n = 0;
  for (uint32_t table = 0; table < a->embedding->n_tables; table++) {
    share s = {.table = table, .first = n};
    for (size_t f = 0; f < a->fields; f++) {
      if (table_of(options, f) == table) a->order[n++] = f;
    }
    s.n = n - s.first;
    if (s.n > 0) a->shares[a->n_shares++] = s;
  }
}

static fl_status new_attached(fli_attached **out, fl_embedding *embedding,
                              size_t fields, size_t width)
{
  fl_context *context = embedding->context;
  fli_attached *a = fli_alloc(context, 1, sizeof *a);
  if (!a) return fli_nomem(sizeof *a);
  *a = (fli_attached){.embedding = embedding, .fields = fields, .width = width};
  a->order = fli_alloc(context, fields, sizeof *a->order);
  a->shares = fli_alloc(context, fields, sizeof *a->shares);
  if (a->order && a->shares) {
    *out = a;
    return FL_OK;
  }
  free_attached(a);
  return fli_nomem(fields * (sizeof *a->order + sizeof *a->shares));
}

fl_status fl_embedding_attach(fl_embedding *embedding, fl_model *model,
                              const fl_embedding_attach_options *options)
{
  fl_status st = FL_OK;
  fl_embedding_attach_options full = attach_defaults;
  fli_attached *a = NULL;
  size_t fields = 0;
  size_t width = 0;
  fli_clear_error();
  if (!embedding || !model) {
    return fli_error(FL_E_ARGUMENT, "embedding or model: is NULL");
  }
  FLI_TRY(fli_options_load(&full, sizeof full, options,
                           "fl_embedding_attach_options"));
  FLI_TRY(check_rate(full.rate));
  FLI_TRY(fli_model_get_rows(model, &fields, &width));
  FLI_TRY(check_tables(embedding, &full, fields, width));
  FLI_TRY(fli_model_check_idle(model));
  FLI_TRY(fli_model_check_no_provider(model));
  FLI_TRY(new_attached(&a, embedding, fields, width));
  a->model = model;
  a->rate = full.rate;
  set_shares(a, &full);
  a->next = embedding->attached;
  embedding->attached = a;
  fli_model_set_provider(model, &provider, a);
out:
  return st;
}

fl_status fl_embedding_detach(fl_embedding *embedding, fl_model *model)
{
  fl_status st = FL_OK;
  fli_attached *a = NULL;
  fli_clear_error();
  if (!embedding || !model) {
    return fli_error(FL_E_ARGUMENT, "embedding or model: is NULL");
  }
  a = embedding->attached;
  while (a && a->model != model) {
    a = a->next;
  }
  if (!a) return fli_error(FL_E_STATE, "embedding: is not attached to it");
  FLI_TRY(fli_model_check_idle(model));
  unlink_attached(a);
  fli_model_set_provider(model, NULL, NULL);
  free_attached(a);
out:
  return st;
}
