/* SPDX-License-Identifier: Apache-2.0 */
/* A model in a storage: the handle, what its trainer reads and writes, and what
 * the client asks of it by a table. */
#include "client/paged.h"

#include <inttypes.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"
#include "compress/compressor.h"
#include "compress/measure.h"

/* ---- memory ---- */

/* The most that the client holds at a time: two windows and what one of them is
 * decoded from, a page, frames both ways, an encoder, and what every unit and
 * segment has. */
static uint64_t memory_wanted(const fl_client *client, uint32_t codec)
{
  enum {
    UNIT = 48,
    SIGNS = FLI_UNIT_MAX / 8,
    SEGMENT = 256,
    FIXED = 512 << 10
  };
  const uint64_t unit = codec == FL_CODEC_THC ? UNIT + SIGNS : UNIT;
  uint64_t n_units = 0;
  for (uint32_t s = 0; s < client->n_segments; s++)
    n_units += client->segments[s] / FLI_UNIT_MAX +
               (client->segments[s] % FLI_UNIT_MAX > 0);
  return 2 * (uint64_t)FLI_WINDOW_MAX * sizeof(float) + FLI_STEP_ROOM +
         n_units * unit + client->n_segments * (uint64_t)SEGMENT +
         2 * client->description.size + client->options.max_frame_size +
         2 * (uint64_t)client->options.chunk_size + FLI_PAGE_BYTES + FIXED;
}

static fl_status afford(const fl_client *client, uint32_t codec)
{
  const fl_paged *paged = client->options.paged;
  const uint64_t want = memory_wanted(client, codec);
  if (paged->budget == 0 || want <= paged->budget) return FL_OK;
  return fli_error(FL_E_LIMIT,
                   "memory_budget: got %" PRIu64 " bytes, want %" PRIu64
                   ": a window of the model, and frames of %u bytes",
                   paged->budget, want, client->options.max_frame_size);
}

static void give_back(fl_paged *paged)
{
  fli_free(paged->context, paged->window, FLI_WINDOW_MAX * sizeof(float));
  fli_free(paged->context, paged->page, FLI_PAGE_BYTES);
  fli_free(paged->context, paged->marks, paged->n_marks);
  paged->window = NULL;
  paged->page = NULL;
  paged->marks = NULL;
  paged->has_window = 0;
  paged->has_page = 0;
}

static fl_status open_model(fl_client *client)
{
  fl_paged *paged = client->options.paged;
  client->canonical.n = client->n_weights;
  if (paged->page) return FL_OK; /* the shape stays */
  paged->n_marks = (size_t)fli_pages_of(fli_paged_bytes(paged));
  if (paged->known_pages < paged->n_marks) paged->known_pages = paged->n_marks;
  paged->window = fli_alloc(paged->context, FLI_WINDOW_MAX, sizeof(float));
  paged->page = fli_alloc(paged->context, FLI_PAGE_BYTES, 1);
  paged->marks = fli_alloc(paged->context, paged->n_marks, 1);
  if (paged->window && paged->page && paged->marks) return FL_OK;
  give_back(paged);
  return fli_nomem(FLI_WINDOW_MAX * sizeof(float) + FLI_PAGE_BYTES);
}

/* ---- windows ---- */

fl_status fli_paged_window(fl_paged *paged, uint32_t region,
                           const fli_window *window, const float **values)
{
  *values = paged->window;
  if (paged->has_window && paged->window_region == region &&
      paged->window_first == window->offset)
    return FL_OK;
  paged->has_window = 0;
  const fl_status st = fli_pages_get_floats(paged, region, window->offset,
                                            paged->window, window->n);
  if (st != FL_OK) return st;
  paged->has_window = 1;
  paged->window_region = region;
  paged->window_first = window->offset;
  return FL_OK;
}

static fl_status fetch(void *arg, fli_encoding *encoding, uint64_t unit,
                       uint64_t *last)
{
  const fl_client *client = arg;
  const fli_window window =
      fli_layout_window(&client->compressor->layout, encoding->segment, unit);
  if (*last > window.last) *last = window.last;
  encoding->x_first = window.offset;
  encoding->x_end = window.last;
  return fli_paged_window(client->options.paged, FLI_REGION_UPDATE, &window,
                          &encoding->x);
}

/* Squares of all units of a segment. */
static fl_status measure_units(fl_client *client, fli_measuring *m,
                               uint32_t segment)
{
  const fli_layout *layout = &m->compressor->layout;
  const fli_segment *s = &layout->segments[segment];
  const uint64_t last = s->first_unit + fli_segment_units(s);
  for (uint64_t unit = s->first_unit; unit < last;) {
    const fli_window window = fli_layout_window(layout, segment, unit);
    fl_status st = fli_paged_window(client->options.paged, FLI_REGION_UPDATE,
                                    &window, &m->x);
    if (st != FL_OK) return st;
    m->x_first = window.offset;
    fli_measure_window(m, segment, &window);
    st = fli_check_window(m, &window);
    if (st != FL_OK) return st;
    unit = window.last;
  }
  m->x = NULL;
  return FL_OK;
}

static fl_status measure_segment(void *arg, fli_encoding *encoding,
                                 double *squares, uint32_t segment)
{
  fl_client *client = arg;
  fli_measuring m = {.compressor = client->compressor,
                     .weight = encoding->weight,
                     .squares = squares};
  const fl_status st = measure_units(client, &m, segment);
  return st == FL_OK ? fli_encoding_measured(encoding, &m, segment) : st;
}

static fl_status measure(fl_client *client, const fl_scale *scale, float *norms)
{
  fl_status st = FL_OK;
  const fl_compressor *compressor = client->compressor;
  const size_t n_units = (size_t)compressor->layout.n_units;
  const uint8_t *mask = fli_client_mask(client, client->plan.first_active);
  fli_measuring m = {
      .compressor = compressor,
      .weight = fli_update_weight(client->trained.samples, scale->weight_cap)};
  fli_fpguard guard;
  memset(norms, 0, (size_t)client->n_norms * sizeof *norms);
  m.squares = fli_alloc(client->context, n_units, sizeof(double));
  if (!m.squares) return fli_nomem(n_units * sizeof(double));
  fli_fpguard_enter(&guard);
  for (uint32_t s = 0; s < client->n_segments && st == FL_OK; s++) {
    if (mask && !mask[s]) continue;
    st = measure_units(client, &m, s);
    if (st == FL_OK) st = fli_measured_norms(&m, s, norms);
  }
  fli_fpguard_leave(&guard);
  fli_free(client->context, m.squares, n_units * sizeof(double));
  return st;
}

/* ---- what comes in ---- */

static uint32_t region_of(const fl_paged *paged, const fli_incoming *incoming)
{
  if (incoming->manifest.kind == FLI_TRANSFER_STEPS) return FLI_REGION_STEPS;
  return paged->current ^ 1u;
}

/* A chain that was applied, or is of no use; what cannot be removed now the
 * next chain replaces. */
static void drop_steps(fl_paged *paged)
{
  if (paged->steps_end == 0) return;
  (void)fli_pages_remove(paged, FLI_REGION_STEPS,
                         fli_pages_of(paged->steps_end));
  paged->steps_end = 0;
}

static fl_status put_chunk(fli_incoming *incoming, void *arg,
                           const fli_chunk *chunk)
{
  fl_paged *paged = arg;
  const uint64_t end = chunk->offset + chunk->size;
  if (region_of(paged, incoming) != FLI_REGION_STEPS)
    drop_steps(paged);
  else if (paged->steps_end < end)
    paged->steps_end = end;
  return fli_pages_put(paged, region_of(paged, incoming), chunk->offset,
                       chunk->data, chunk->size);
}

static fl_status hash_incoming(fli_incoming *incoming, void *arg,
                               uint8_t hash[FLI_HASH_BYTES])
{
  fl_paged *paged = arg;
  return fli_pages_hash(paged, region_of(paged, incoming),
                        incoming->manifest.total, hash);
}

static const fli_sink sink = {.put = put_chunk, .hash = hash_incoming};

static fl_status take(fl_client *client)
{
  fl_paged *paged = client->options.paged;
  const fli_manifest *manifest = &client->incoming.manifest;
  if (manifest->kind == FLI_TRANSFER_STEPS) {
    const fl_status st = fli_paged_apply(paged, manifest->total);
    if (st == FL_OK) paged->failures = 0;
    drop_steps(paged);
    return st;
  }
  if (paged->is_not_finite)
    return fli_error(FL_E_NOT_FINITE, "model: a weight is not finite");
  paged->current ^= 1u;
  paged->failures = 0;
  paged->has_window = 0;
  client->canonical.version = manifest->model_version;
  client->canonical.is_valid = 1;
  memcpy(client->model_hash, manifest->hash, sizeof client->model_hash);
  return FL_OK;
}

static fl_status copy(const fl_client *client, float *weights)
{
  fl_paged *paged = client->options.paged;
  return fli_pages_get_floats(paged, paged->current, 0, weights,
                              (size_t)client->n_weights);
}

/* ---- training ---- */

static void begin(fl_client *client)
{
  fl_paged *paged = client->options.paged;
  memset(paged->marks, FLI_PAGE_OF_MODEL, paged->n_marks);
  paged->training = (fli_turn){client->plan.round, client->plan.attempt};
  paged->is_closed = 0;
  if (paged->page_region == FLI_REGION_UPDATE) paged->has_page = 0;
  if (paged->window_region == FLI_REGION_UPDATE) paged->has_window = 0;
}

static fl_status finish(fl_client *client, const fl_train_result *result)
{
  fl_paged *paged = client->options.paged;
  if (result->weights || result->update)
    return fli_error(FL_E_ARGUMENT,
                     "result: the model is paged, want fl_paged_write");
  fli_fpguard guard;
  paged->is_closed = 1;
  fli_fpguard_enter(&guard);
  const fl_status st = fli_pages_change(paged);
  fli_fpguard_leave(&guard);
  if (st != FL_OK) return st;
  return fli_pages_hash(paged, FLI_REGION_UPDATE, fli_paged_bytes(paged),
                        paged->update_hash);
}

static const char *objection(const fli_plan *plan)
{
  return plan->has_control ? "the model is paged, and the plan has a control"
                           : NULL;
}

static fl_status refuse_feedback(void)
{
  return fli_error(FL_E_CONFLICT,
                   "the model is paged, and the job wants error feedback");
}

/* ---- saved state ---- */

/* What is not in the storage yet is of no use to whoever comes back. */
static fl_status save(const fl_client *client,
                      uint8_t state[2][FLI_PAGED_STATE])
{
  fl_paged *paged = client->options.paged;
  state[0][0] = (uint8_t)paged->current;
  state[1][0] = FLI_REGION_UPDATE;
  memcpy(state[0] + 1, client->model_hash, FLI_HASH_BYTES);
  memcpy(state[1] + 1, paged->update_hash, FLI_HASH_BYTES);
  fl_status st = fli_pages_flush(paged);
  if (st != FL_OK) return st;
  st = paged->storage->sync(paged->storage->user);
  return st == FL_OK ? st : fli_error(FL_E_IO, "paged: sync failed");
}

/* A storage that fails has not said that it lacks anything. */
static fl_status prove(fl_paged *paged, const uint8_t *state, int *is_held)
{
  uint8_t hash[FLI_HASH_BYTES];
  const uint64_t n = fli_paged_bytes(paged);
  fl_status st = fli_pages_look(paged, state[0], n, is_held);
  if (st != FL_OK || !*is_held) return st;
  st = fli_pages_hash(paged, state[0], n, hash);
  *is_held = st == FL_OK && !paged->is_not_finite &&
             memcmp(hash, state + 1, sizeof hash) == 0;
  return st;
}

static fl_status restore_model(fl_client *client, const uint8_t *state,
                               int *is_held)
{
  fl_paged *paged = client->options.paged;
  *is_held = 0;
  if (state[0] > FLI_REGION_B) return FL_OK;
  const fl_status st = prove(paged, state, is_held);
  if (st != FL_OK || !*is_held) return st;
  paged->current = state[0];
  memcpy(client->model_hash, state + 1, FLI_HASH_BYTES);
  return FL_OK;
}

static fl_status restore_update(fl_client *client, const uint8_t *state,
                                int *is_held)
{
  fl_paged *paged = client->options.paged;
  *is_held = 0;
  if (state[0] != FLI_REGION_UPDATE) return FL_OK;
  memset(paged->marks, FLI_PAGE_CHANGE, paged->n_marks);
  const fl_status st = prove(paged, state, is_held);
  if (st != FL_OK || !*is_held) return st;
  memcpy(paged->update_hash, state + 1, FLI_HASH_BYTES);
  return FL_OK;
}

/* ---- the handle ---- */

static const fli_paging paging;

static fl_status attach(fl_client *client)
{
  fl_paged *paged = client->options.paged;
  if (paged->client)
    return fli_error(FL_E_STATE, "paged: another client has it");
  paged->client = client;
  client->paging = &paging;
  client->incoming.sink = &sink;
  client->incoming.arg = paged;
  return FL_OK;
}

static void detach(fl_client *client)
{
  fl_paged *paged = client->options.paged;
  if (paged->page) drop_steps(paged);
  (void)fli_pages_flush(paged);
  give_back(paged);
  paged->current = FLI_REGION_A;
  paged->failures = 0;
  paged->client = NULL;
}

static const fli_paging paging = {.attach = attach,
                                  .detach = detach,
                                  .afford = afford,
                                  .open = open_model,
                                  .take = take,
                                  .copy = copy,
                                  .objection = objection,
                                  .refuse_feedback = refuse_feedback,
                                  .begin = begin,
                                  .finish = finish,
                                  .measure = measure,
                                  .fetch = fetch,
                                  .measure_segment = measure_segment,
                                  .failed = fli_paged_failed,
                                  .save = save,
                                  .restore_model = restore_model,
                                  .restore_update = restore_update};

static const fl_paged_options default_options = {0};

fl_status fl_paged_options_init(fl_paged_options *options, size_t size)
{
  fli_clear_error();
  return fli_options_init(options, size, &default_options,
                          sizeof default_options);
}

/* What an fl_storage takes. */
#define NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyz0123456789._-"

static fl_status check_options(const fl_paged_options *options,
                               const fl_storage *storage)
{
  const char *name = options->name ? options->name : "";
  const size_t n = strlen(name);
  if (n < 1 || n > FL_PAGED_NAME_BYTES)
    return fli_error(FL_E_OPTIONS, "paged: name, got %zu bytes, want 1..%d", n,
                     FL_PAGED_NAME_BYTES);
  const size_t good = strspn(options->name, NAME_CHARACTERS);
  if (good != n)
    return fli_error(FL_E_OPTIONS, "paged: name, got \"%s\", want [a-z0-9._-]",
                     options->name);
  if (storage) return FL_OK;
  return fli_error(FL_E_OPTIONS, "paged: the context has no storage");
}

fl_status fl_paged_new(fl_paged **out, fl_context *context,
                       const fl_paged_options *given)
{
  fl_paged_options options = default_options;
  const fl_storage *storage = fli_context_storage(context);
  fli_clear_error();
  if (!out) return fli_error(FL_E_ARGUMENT, "fl_paged_new: NULL argument");
  fl_status st =
      fli_options_load(&options, sizeof options, given, "fl_paged_options");
  if (st == FL_OK) st = check_options(&options, storage);
  if (st != FL_OK) return st;
  fl_paged *paged = fli_alloc(context, 1, sizeof *paged);
  if (!paged) return fli_nomem(sizeof *paged);
  paged->paging = &paging;
  paged->context = fli_context_ref(context);
  paged->storage = storage;
  paged->budget = options.memory_budget;
  memcpy(paged->name, options.name, strlen(options.name));
  *out = paged;
  return FL_OK;
}

void fl_paged_free(fl_paged *paged)
{
  if (!paged) return;
  fl_context *context = paged->context;
  fli_free(context, paged, sizeof *paged);
  fli_context_unref(context);
}

/* Whatever is held besides the model is no longer than it, but for a chain,
 * which may have a page more; and the model has no gaps. It goes last, and from
 * its end on, so that what fails can be done again. */
fl_status fl_paged_remove(fl_paged *paged)
{
  static const uint32_t fronts[] = {FLI_REGION_A, FLI_REGION_B,
                                    FLI_REGION_STEPS};
  static const uint32_t order[] = {FLI_REGION_STEPS, FLI_REGION_UPDATE,
                                   FLI_REGION_B, FLI_REGION_A};
  fl_status st = FL_OK;
  fli_clear_error();
  if (!paged) return fli_error(FL_E_ARGUMENT, "fl_paged_remove: got NULL");
  if (paged->client) return fli_error(FL_E_STATE, "paged: a client has it");
  for (size_t i = 0; i < FLI_COUNT_OF(fronts); i++) {
    uint64_t n = 0;
    FLI_TRY(fli_pages_count(paged, fronts[i], &n));
    if (paged->known_pages < n) paged->known_pages = n;
  }
  for (size_t i = 0; i < FLI_COUNT_OF(order); i++)
    FLI_TRY(fli_pages_remove(paged, order[i], paged->known_pages + 1));
  paged->known_pages = 0;
out:
  return st;
}

uint64_t fl_paged_weight_count(const fl_paged *paged)
{
  return paged && paged->client ? paged->client->n_weights : 0;
}

/* A range of the model, which is held. */
static fl_status check_range(const fl_paged *paged, uint64_t first, uint64_t n,
                             const float *weights)
{
  const fl_client *client = paged ? paged->client : NULL;
  if (!paged || (!weights && n > 0))
    return fli_error(FL_E_ARGUMENT, "paged: NULL argument");
  if (!client || !client->canonical.is_valid)
    return fli_error(FL_E_EMPTY, "paged: no model is held");
  if (first <= client->n_weights && n <= client->n_weights - first)
    return FL_OK;
  return fli_error(FL_E_RANGE,
                   "paged: got %" PRIu64 " weights from %" PRIu64
                   " on, want <= %" PRIu64 " in all",
                   n, first, client->n_weights);
}

/* The host has been asked, or its trainer is running. */
static int is_training(const fl_paged *paged)
{
  const fl_client *client = paged->client;
  const fli_turn *turn = &paged->training;
  if (client->phase != FLI_PHASE_TRAIN || paged->is_closed) return 0;
  return client->is_asked ||
         (client->options.train && turn->round == client->plan.round &&
          turn->attempt == client->plan.attempt);
}

fl_status fl_paged_read(fl_paged *paged, uint64_t first, uint64_t n,
                        float *weights)
{
  fli_clear_error();
  const fl_status st = check_range(paged, first, n, weights);
  if (st != FL_OK) return st;
  return fli_pages_get_floats(
      paged, is_training(paged) ? FLI_REGION_UPDATE : paged->current, first,
      weights, (size_t)n);
}

fl_status fl_paged_write(fl_paged *paged, uint64_t first, uint64_t n,
                         const float *weights)
{
  fli_clear_error();
  const fl_status st = check_range(paged, first, n, weights);
  if (st != FL_OK) return st;
  if (!is_training(paged))
    return fli_error(FL_E_STATE, "paged: no training is asked for");
  const size_t bad = flk_kernels()->find_not_finite(weights, (size_t)n);
  if (bad != n)
    return fli_error(FL_E_NOT_FINITE,
                     "result: coordinate %" PRIu64 " is not finite",
                     first + bad);
  return fli_pages_put_floats(paged, FLI_REGION_UPDATE, first, weights,
                              (size_t)n);
}
