/* SPDX-License-Identifier: Apache-2.0 */
/* Updates of clients, and the step that they come to. What is added is whole
 * numbers, and ids are taken in their order, so nothing depends on who came
 * first. */
#include "embedding/slice.h"

#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/options.h"

enum { STEP_IDS = 256, UTILITY_MIDDLE = 1024, FASTEST = 16, RMS_SHARE = 3 };
#define SCALE_MAX 1e10f
#define SCALE_MIN 1e-20f

/* ---- updates ------------------------------------------------------------- */

/* What is to be done with rows that are read. */
typedef struct update_run {
  fl_slice_server *server;
  fli_slice_in in;
  int does_add;
  uint64_t n_ids;
  uint64_t n_new;
  fli_sparse_row row;
} update_run;

static void read_clamped(update_run *run, uint32_t t, uint64_t n)
{
  const fli_slice_table *table = &run->server->plan.tables[t];
  for (uint32_t k = 0; k < table->chunks; k++) {
    const uint64_t clamped = fli_slice_u32(&run->in);
    if (clamped > n * (table->dim / table->chunks))
      fli_slice_fail(&run->in, FL_E_RANGE,
                     "more clamped values than there are");
    if (run->does_add) run->server->sums[t].clamped[k] += clamped;
  }
}

/* Rows of one table; an update of no id is not one. */
static void read_rows(update_run *run, uint32_t t)
{
  fli_slice_in *in = &run->in;
  const fli_slice_table *table = &run->server->plan.tables[t];
  fli_sparse_sum *sum = &run->server->sums[t];
  const uint64_t n = fli_slice_u32(in);
  /* Two bytes a row, at least: a lie about n ends where the bytes do. */
  if (n < 1 || n > in->left / 2)
    fli_slice_fail(in, FL_E_TRUNCATED, "of no id, or of more than there are");
  run->n_ids += n;
  if (run->n_ids > run->server->options.max_ids)
    fli_slice_fail(in, FL_E_TOO_LARGE, "of more ids than max_ids");
  read_clamped(run, t, n);
  if (in->status == FL_OK && !run->does_add)
    in->status = fli_sparse_reserve(sum, (size_t)n);
  for (uint64_t i = 0; i < n && in->status == FL_OK; i++) {
    run->row.id = fli_slice_id(in, i, run->row.id);
    fli_slice_read_row(in, table, &run->row);
    if (in->status != FL_OK) break;
    if (run->does_add)
      fli_sparse_add(sum, &run->row);
    else
      run->n_new += !fli_sparse_has(sum, run->row.id);
  }
  if (run->does_add) fli_sparse_count(sum);
}

static void read_update(update_run *run, const uint8_t *data, size_t n)
{
  fli_slice_head head;
  fli_slice_in *in = &run->in;
  const fli_slice_plan *plan = &run->server->plan;
  uint32_t after = 0;
  fli_slice_begin(in, data, n, FLI_SLICE_UPDATE, &head);
  if (in->status == FL_OK && head.layout != plan->layout)
    fli_slice_fail(in, FL_E_STALE, "of another round");
  for (uint32_t i = 0; i < head.table && in->status == FL_OK; i++) {
    const uint32_t t = fli_slice_u16(in);
    if (t < after || t >= plan->n_tables)
      fli_slice_fail(in, FL_E_NOT_FOUND, "of a table that is not there");
    if (in->status == FL_OK) read_rows(run, t);
    after = t + 1;
  }
  (void)fli_slice_end(in);
}

fl_status fli_slice_check(fl_slice_server *server, const uint8_t *data,
                          size_t n)
{
  update_run run = {.server = server};
  read_update(&run, data, n);
  if (run.in.status != FL_OK) return run.in.status;
  if (server->clients >= FLI_GRID_CLIENTS)
    return fli_error(FL_E_LIMIT, "slices: got more than %d updates",
                     FLI_GRID_CLIENTS);
  if (server->n_ids + run.n_new > server->options.max_sum_ids)
    return fli_error(FL_E_LIMIT,
                     "slices: got more than %llu ids of all clients",
                     (unsigned long long)server->options.max_sum_ids);
  return FL_OK;
}

void fli_slice_fold(fl_slice_server *server, const uint8_t *data, size_t n)
{
  update_run run = {.server = server, .does_add = 1};
  fli_slice_unprepare(server);
  read_update(&run, data, n);
  server->clients++;
  server->n_ids = 0;
  for (uint32_t t = 0; t < server->plan.n_tables; t++)
    server->n_ids += server->sums[t].n;
}

fl_status fl_slice_server_add(fl_slice_server *server, const uint8_t *update,
                              size_t n)
{
  fli_clear_error();
  if (!server || (!update && n > 0))
    return fli_error(FL_E_ARGUMENT, "fl_slice_server_add: got NULL");
  const fl_status st = fli_slice_check(server, update, n);
  if (st == FL_OK) fli_slice_fold(server, update, n);
  return st;
}

void fl_slice_server_drop(fl_slice_server *server)
{
  if (!server) return;
  fli_slice_unprepare(server);
  for (uint32_t t = 0; t < server->plan.n_tables; t++)
    fli_sparse_clear(&server->sums[t]);
  server->clients = 0;
  server->n_ids = 0;
}

uint64_t fli_slice_update_max(const fl_slice_server *server)
{
  size_t largest = 0;
  for (uint32_t t = 0; t < server->plan.n_tables; t++) {
    const size_t n = server->plan.tables[t].dim / 2;
    largest = n > largest ? n : largest;
  }
  return 12 + 22 * (uint64_t)FL_EMBEDDING_MAX_TABLES +
         server->options.max_ids * (10 + 1 + FLI_CHUNKS_MAX + largest);
}

/* ---- the step ------------------------------------------------------------ */

/* A batch: up to STEP_IDS ids that enough clients have touched. */
typedef struct step_batch {
  uint64_t ids[STEP_IDS];
  size_t places[STEP_IDS];
  size_t n;
  size_t next; /* in the sorted places */
} step_batch;

static void next_batch(const fl_slice_server *server, uint32_t t,
                       step_batch *batch)
{
  const fli_sparse_sum *sum = &server->sums[t];
  batch->n = 0;
  for (; batch->next < sum->n && batch->n < STEP_IDS; batch->next++) {
    const fli_sparse_place *at = &server->sorted[t][batch->next];
    if (sum->counts[at->place] < server->options.min_clients) continue;
    batch->ids[batch->n] = at->id;
    batch->places[batch->n++] = at->place;
  }
}

static fl_embedding_bags bags_of(const step_batch *batch)
{
  return (fl_embedding_bags){.struct_size = sizeof(fl_embedding_bags),
                             .mode = FL_EMBEDDING_SUM,
                             .ids = batch->ids,
                             .n_ids = batch->n,
                             .n_bags = batch->n};
}

static size_t scratch_floats(const fl_slice_server *server)
{
  size_t dim = 0;
  for (uint32_t t = 0; t < server->plan.n_tables; t++)
    dim = server->plan.tables[t].dim > dim ? server->plan.tables[t].dim : dim;
  return dim * STEP_IDS;
}

/* New ids get their rows, and the store the scratch for such batches. */
static fl_status prepare_table(fl_slice_server *server, uint32_t t)
{
  fl_status st = FL_OK;
  step_batch batch = {.next = 0};
  FLI_TRY(fli_sparse_sort(&server->sums[t], &server->sorted[t]));
  for (;;) {
    next_batch(server, t, &batch);
    if (batch.n == 0) break;
    const fl_embedding_bags bags = bags_of(&batch);
    FLI_TRY(
        fl_embedding_forward(server->embedding, t, &bags, server->gradients));
  }
out:
  return st;
}

fl_status fli_slice_prepare(fl_slice_server *server)
{
  fl_status st = FL_OK;
  const size_t n = server->plan.n_tables;
  fli_slice_unprepare(server);
  server->sorted = fli_alloc(server->context, n, sizeof *server->sorted);
  server->gradients = fli_alloc(server->context, scratch_floats(server),
                                sizeof *server->gradients);
  server->utilities =
      fli_alloc(server->context, (size_t)STEP_IDS * FLI_CHUNKS_MAX,
                sizeof *server->utilities);
  if (!server->sorted || !server->gradients || !server->utilities)
    FLI_TRY(fli_nomem(scratch_floats(server) * sizeof(float)));
  for (uint32_t t = 0; t < n; t++)
    FLI_TRY(prepare_table(server, t));
out:
  if (st != FL_OK) fli_slice_unprepare(server);
  return st;
}

void fli_slice_unprepare(fl_slice_server *server)
{
  fl_context *context = server->context;
  for (uint32_t t = 0; server->sorted && t < server->plan.n_tables; t++)
    if (server->sorted[t])
      fli_free(context, server->sorted[t],
               server->sums[t].n * sizeof **server->sorted);
  fli_free(context, server->sorted,
           server->plan.n_tables * sizeof *server->sorted);
  fli_free(context, server->gradients,
           scratch_floats(server) * sizeof *server->gradients);
  fli_free(context, server->utilities,
           (size_t)STEP_IDS * FLI_CHUNKS_MAX * sizeof *server->utilities);
  server->sorted = NULL;
  server->gradients = NULL;
  server->utilities = NULL;
}

/* What clients found, by the number of those that touched the id: minus that
 * is the gradient. */
static void fill_row(fl_slice_server *server, uint32_t t, size_t place,
                     float *gradient, float *utilities)
{
  int32_t lanes[FLI_GRID_DIM];
  const fli_slice_table *table = &server->plan.tables[t];
  const fli_sparse_sum *sum = &server->sums[t];
  const size_t n = table->dim / table->chunks;
  const float count = (float)sum->counts[place];
  fli_sparse_lanes(sum, place, lanes);
  for (uint32_t k = 0; k < table->chunks; k++) {
    const uint64_t units = sum->utilities[place * table->chunks + k];
    utilities[k] = (float)((double)units * (double)table->unit);
    for (size_t i = k * n; i < (k + 1) * n; i++)
      gradient[i] = -((float)lanes[i] * table->deltas[k] / count);
  }
}

static void step_table(fl_slice_server *server, uint32_t t)
{
  const fli_slice_table *table = &server->plan.tables[t];
  step_batch batch = {.next = 0};
  for (;;) {
    next_batch(server, t, &batch);
    if (batch.n == 0) break;
    const fl_embedding_bags bags = bags_of(&batch);
    for (size_t i = 0; i < batch.n; i++)
      fill_row(server, t, batch.places[i], server->gradients + i * table->dim,
               server->utilities + i * table->chunks);
    /* There is scratch, and all is finite. */
    (void)fli_embedding_backward(server->embedding, t, &bags, server->gradients,
                                 server->options.rate, server->utilities);
  }
}

static float within(double value)
{
  if (!(value > (double)SCALE_MIN)) return SCALE_MIN;
  return value < (double)SCALE_MAX ? (float)value : SCALE_MAX;
}

/* The grid ends at 3 x the RMS of what came. When nothing but zeros did it was
 * much too coarse. */
static void choose_delta(const fli_sparse_sum *sum, uint32_t k, float *delta)
{
  if (sum->values[k] == 0) return;
  const double mean = (double)sum->squares[k] / (double)sum->values[k];
  const double rms =
      mean > 0 ? sqrt(mean) * (double)*delta : (double)*delta / FASTEST;
  *delta = within(RMS_SHARE * rms / FLI_GRID_MAX);
}

/* The mean utility is to be UTILITY_MIDDLE units. */
static void choose_unit(const fli_sparse_sum *sum, float *unit)
{
  if (sum->n_utilities == 0) return;
  double factor = (double)sum->utility_sum / (double)sum->n_utilities /
                  (double)UTILITY_MIDDLE;
  if (factor > FASTEST) factor = FASTEST;
  if (factor < 1.0 / FASTEST) factor = 1.0 / FASTEST;
  *unit = within(factor * (double)*unit);
}

static void count_table(const fl_slice_server *server, uint32_t t,
                        fl_slice_report *report)
{
  const fli_sparse_sum *sum = &server->sums[t];
  report->ids += sum->n;
  for (size_t i = 0; i < sum->n; i++)
    report->dropped += sum->counts[i] < server->options.min_clients;
  for (uint32_t k = 0; k < sum->chunks; k++) {
    report->clamped += sum->clamped[k];
    report->values += sum->values[k];
  }
}

void fli_slice_finish(fl_slice_server *server)
{
  fl_slice_report *report = &server->report;
  fl_embedding_report adjusted = {.struct_size = sizeof adjusted};
  fli_slice_plan *plan = &server->plan;
  *report = (fl_slice_report){.struct_size = sizeof *report,
                              .clients = server->clients};
  for (uint32_t t = 0; t < plan->n_tables; t++) {
    const fli_sparse_sum *sum = &server->sums[t];
    count_table(server, t, report);
    step_table(server, t);
    for (uint32_t k = 0; k < sum->chunks; k++)
      choose_delta(sum, k, &plan->tables[t].deltas[k]);
    choose_unit(sum, &plan->tables[t].unit);
  }
  /* Without memory it does what it can. */
  (void)fl_embedding_adjust(server->embedding, &adjusted);
  report->adjusted = adjusted.evicted + adjusted.grown;
  fl_slice_server_drop(server);
  plan->layout++;
  fli_slice_plan_round(server);
  fli_slice_note_store(server);
}

fl_status fl_slice_server_step(fl_slice_server *server, fl_slice_report *report)
{
  fli_clear_error();
  if (!server) return fli_error(FL_E_ARGUMENT, "fl_slice_server_step: NULL");
  const fl_status st = fli_slice_prepare(server);
  if (st != FL_OK) return st;
  fli_slice_finish(server);
  fli_clear_error();
  return report ? fl_slice_server_get_report(server, report) : FL_OK;
}

fl_status fl_slice_server_get_report(const fl_slice_server *server,
                                     fl_slice_report *report)
{
  fli_clear_error();
  if (!server || !report)
    return fli_error(FL_E_ARGUMENT, "fl_slice_server_get_report: got NULL");
  return fli_options_store(report, &server->report, sizeof server->report,
                           "fl_slice_report");
}
