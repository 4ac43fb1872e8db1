/* SPDX-License-Identifier: Apache-2.0 */
/* The server's side of slices: its handle, plans and answers. */
#include "embedding/slice.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "base/options.h"

#define SCALE_MAX 1e10f
#define SCALE_MIN 1e-20f

static const fl_slice_server_options server_defaults = {
    .struct_size = sizeof(fl_slice_server_options),
    .min_clients = 1,
    .first_delta = 0.01f,
    .first_utility = 1e-7f,
    .precision = FL_EMBEDDING_F32,
    .max_ids = 65536,
    .max_sum_ids = 1 << 20,
};

fl_status fl_slice_server_options_init(fl_slice_server_options *options,
                                       size_t size)
{
  fli_clear_error();
  return fli_options_init(options, size, &server_defaults,
                          sizeof server_defaults);
}

fl_status fl_slice_report_init(fl_slice_report *report, size_t size)
{
  static const fl_slice_report defaults = {.struct_size = sizeof defaults};
  fli_clear_error();
  return fli_options_init(report, size, &defaults, sizeof defaults);
}

static fl_status check_scale(float value, const char *what)
{
  if (value >= SCALE_MIN && value <= SCALE_MAX) return FL_OK;
  return fli_error(FL_E_OPTIONS, "slices: %s, got %g, want 1e-20..1e10", what,
                   (double)value);
}

static fl_status check_options(const fl_slice_server_options *o)
{
  fl_status st = FL_OK;
  FLI_TRY(check_scale(o->first_delta, "first_delta"));
  FLI_TRY(check_scale(o->first_utility, "first_utility"));
  if (o->min_clients < 1 || o->min_clients > FLI_GRID_CLIENTS)
    return fli_error(FL_E_OPTIONS, "slices: min_clients, got %u, want 1..65535",
                     (unsigned)o->min_clients);
  if (!(o->rate >= 0 && o->rate <= SCALE_MAX))
    return fli_error(FL_E_OPTIONS, "slices: rate, got %g, want 0..1e10",
                     (double)o->rate);
  if (o->precision != FL_EMBEDDING_F32 && o->precision != FL_EMBEDDING_BF16)
    return fli_error(FL_E_OPTIONS, "slices: precision, got %u, want F32, BF16",
                     (unsigned)o->precision);
  if (o->max_ids < 1 || o->max_ids > FLI_SLICE_IDS_MAX || o->max_sum_ids < 1 ||
      o->max_sum_ids > (uint64_t)FLI_SLICE_IDS_MAX * 16)
    return fli_error(FL_E_OPTIONS, "slices: max_ids, max_sum_ids: want 1..2^24 "
                                   "and 1..2^28");
out:
  return st;
}

static void begin_plan(fl_slice_server *server)
{
  const fl_embedding *embedding = server->embedding;
  fli_slice_plan *plan = &server->plan;
  plan->precision = server->options.precision;
  plan->max_ids = server->options.max_ids;
  plan->n_tables = embedding->n_tables;
  for (uint32_t t = 0; t < plan->n_tables; t++) {
    fli_slice_table *table = &plan->tables[t];
    table->dim = embedding->tables[t]->dim;
    table->chunks = embedding->tables[t]->chunks;
    table->unit = server->options.first_utility;
    for (uint32_t k = 0; k < table->chunks; k++)
      table->deltas[k] = server->options.first_delta;
  }
  fli_slice_plan_round(server);
}

void fli_slice_plan_round(fl_slice_server *server)
{
  fli_slice_plan *plan = &server->plan;
  fli_rng rng;
  fli_rng_init(&rng, server->options.seed, FLI_RNG_SPARSE,
               plan->layout & ((UINT64_C(1) << 48) - 1), UINT32_MAX);
  plan->seed = fli_rng_u64(&rng);
  for (uint32_t t = 0; t < plan->n_tables; t++)
    plan->tables[t].threshold =
        fli_embedding_threshold(server->embedding->tables[t]);
}

void fli_slice_note_store(fl_slice_server *server)
{
  server->steps = server->embedding->step;
  server->adjusts = server->embedding->n_adjusts;
}

static fl_status make_sums(fl_slice_server *server)
{
  fl_status st = FL_OK;
  const fli_slice_plan *plan = &server->plan;
  for (uint32_t t = 0; t < plan->n_tables; t++) {
    const fli_slice_table *table = &plan->tables[t];
    FLI_TRY(fli_sparse_init(&server->sums[t], server->context, table->dim,
                            table->chunks));
  }
out:
  return st;
}

fl_status fl_slice_server_new(fl_slice_server **out, fl_context *context,
                              fl_embedding *embedding,
                              const fl_slice_server_options *options)
{
  fl_status st = FL_OK;
  fl_slice_server *server = NULL;
  fl_slice_server_options full = server_defaults;
  fli_clear_error();
  if (!out || !embedding)
    return fli_error(FL_E_ARGUMENT, "fl_slice_server_new: got NULL");
  FLI_TRY(
      fli_options_load(&full, sizeof full, options, "fl_slice_server_options"));
  FLI_TRY(check_options(&full));
  if (embedding->n_tables == 0)
    return fli_error(FL_E_EMPTY, "slices: the embedding has no table");
  if (full.rate == 0.0f)
    full.rate = embedding->options.optimiser == FL_EMBEDDING_SGD ? 1.0f : 0.05f;
  server = fli_alloc(context, 1, sizeof *server);
  if (!server) return fli_nomem(sizeof *server);
  server->context = fli_context_ref(context);
  server->embedding = embedding;
  server->options = full;
  server->report.struct_size = sizeof server->report;
  begin_plan(server);
  fli_slice_note_store(server);
  server->sums =
      fli_alloc(context, server->plan.n_tables, sizeof *server->sums);
  st = server->sums ? make_sums(server)
                    : fli_nomem(server->plan.n_tables * sizeof *server->sums);
  if (st != FL_OK) {
    fl_slice_server_free(server);
    return st;
  }
  *out = server;
out:
  return st;
}

void fl_slice_server_free(fl_slice_server *server)
{
  if (!server) return;
  fl_context *context = server->context;
  fli_slice_unprepare(server);
  for (uint32_t t = 0; server->sums && t < server->plan.n_tables; t++)
    fli_sparse_clear(&server->sums[t]);
  fli_free(context, server->sums, server->plan.n_tables * sizeof *server->sums);
  fli_free(context, server, sizeof *server);
  fli_context_unref(context);
}

uint64_t fl_slice_server_layout(const fl_slice_server *server)
{
  return server ? server->plan.layout : 0;
}

fl_status fl_slice_server_copy_plan(const fl_slice_server *server,
                                    uint8_t *data, size_t capacity,
                                    size_t *needed)
{
  fli_slice_out out;
  fli_clear_error();
  if (!server || !needed || (!data && capacity > 0))
    return fli_error(FL_E_ARGUMENT, "fl_slice_server_copy_plan: got NULL");
  const fli_slice_head head = {FLI_SLICE_PLAN, server->plan.n_tables,
                               server->plan.layout};
  fli_slice_open(&out, server->context, &head);
  fli_slice_write_plan(&out, &server->plan);
  fl_status st = out.status;
  *needed = out.bytes.size;
  if (st == FL_OK && data && capacity < out.bytes.size)
    st = fli_error(FL_E_SIZE, "slices: plan, got room for %zu bytes, want %zu",
                   capacity, out.bytes.size);
  if (st == FL_OK && data) memcpy(data, out.bytes.data, out.bytes.size);
  fli_bytes_free(&out.bytes);
  return st;
}

int fli_slice_server_attach(fl_slice_server *server)
{
  const int was_attached = server->is_attached;
  server->is_attached = 1;
  return !was_attached;
}

void fli_slice_server_detach(fl_slice_server *server)
{
  server->is_attached = 0;
}

size_t fli_slice_request_max(const fl_slice_server *server)
{
  enum { ID_BYTES = 11, HEAD_BYTES = 64 };
  size_t most = 0;
  for (uint32_t t = 0; t < server->plan.n_tables; t++) {
    const size_t n = fli_slice_request_ids(&server->plan, t);
    if (n > most) most = n;
  }
  if (most > server->plan.max_ids) most = (size_t)server->plan.max_ids;
  return HEAD_BYTES + ID_BYTES * most;
}

uint64_t fli_slice_max_ids(const fl_slice_server *server)
{
  return server->plan.max_ids;
}

/* ---- answers ------------------------------------------------------------- */

static void put_chunk(fli_slice_out *out, uint32_t precision,
                      const float *values, size_t n)
{
  uint8_t bytes[FLI_DIM_MAX * sizeof(float)];
  for (size_t i = 0; i < n; i++) {
    if (precision == FL_EMBEDDING_F32) {
      fli_store_f32(bytes + 4 * i, values[i]);
    } else {
      fli_store_u16(bytes + 2 * i, fli_bf16_from_f32(values[i]));
    }
  }
  fli_slice_put(out, bytes, (precision == FL_EMBEDDING_F32 ? 4 : 2) * n);
}

static void answer_id(const fl_slice_server *server, uint32_t t, uint64_t id,
                      fli_slice_out *out)
{
  float values[FLI_DIM_MAX];
  uint32_t mask = 0;
  const fli_slice_table *table = &server->plan.tables[t];
  const size_t n = table->dim / table->chunks;
  /* Not found: zeros. */
  (void)fl_embedding_copy_row(server->embedding, t, id, values, &mask);
  fli_slice_put_u8(out, mask);
  for (uint32_t k = 0; k < table->chunks; k++) {
    if (mask >> k & 1)
      put_chunk(out, server->plan.precision, values + k * n, n);
  }
}

static uint64_t begin_request(const fl_slice_server *server, fli_slice_in *in,
                              fli_slice_head *head, const uint8_t *request,
                              size_t n)
{
  fli_slice_begin(in, request, n, FLI_SLICE_REQUEST, head);
  const uint64_t n_ids = fli_slice_u32(in);
  if (in->status == FL_OK && head->table >= server->plan.n_tables)
    fli_slice_fail(in, FL_E_NOT_FOUND, "of a table that is not there");
  if (in->status == FL_OK && head->layout != server->plan.layout)
    fli_slice_fail(in, FL_E_STALE, "of another round");
  if (in->status == FL_OK &&
      (n_ids < 1 || n_ids > server->options.max_ids ||
       n_ids > fli_slice_request_ids(&server->plan, head->table)))
    fli_slice_fail(in, FL_E_TOO_LARGE, "of no id, or of too many");
  return in->status == FL_OK ? n_ids : 0;
}

fl_status fl_slice_server_answer(const fl_slice_server *server,
                                 const uint8_t *request, size_t n,
                                 fl_buffer *answer)
{
  fli_slice_in in;
  fli_slice_out out;
  fli_slice_head head;
  uint64_t id = 0;
  fli_clear_error();
  if (!server || !answer || (!request && n > 0))
    return fli_error(FL_E_ARGUMENT, "fl_slice_server_answer: got NULL");
  const uint64_t n_ids = begin_request(server, &in, &head, request, n);
  if (in.status != FL_OK) return in.status;
  head.kind = FLI_SLICE_ANSWER;
  fli_slice_open(&out, server->context, &head);
  fli_slice_put_u32(&out, server->plan.precision);
  fli_slice_put_u32(&out, (uint32_t)n_ids);
  for (uint64_t i = 0; i < n_ids && out.status == FL_OK; i++) {
    id = fli_slice_id(&in, i, id);
    if (in.status != FL_OK) break; /* reading a row would clear its text */
    if (i == 0) fli_slice_put_u64(&out, id);
    answer_id(server, head.table, id, &out);
  }
  if (out.status == FL_OK) out.status = fli_slice_end(&in);
  const fl_status st = fli_slice_close(&out, answer);
  if (st == FL_OK) fli_clear_error();
  return st;
}
