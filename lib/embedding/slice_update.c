/* SPDX-License-Identifier: Apache-2.0 */
/* What training has changed, on the grid of the round. Random numbers are named
 * by layout, table and the two seeds, and drawn in order of the ids. */
#include "embedding/slice.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"

typedef struct update_out {
  fl_slice_client *client;
  fli_slice_out out;
  uint64_t seed;
  uint64_t clamped;
} update_out;

static size_t count_touched(const fli_slice_ids *t)
{
  size_t n = 0;
  for (size_t i = 0; i < t->n_own; i++)
    n += t->counts[i] > 0;
  return n;
}

/* What the row has now less what it began with; *mask: of chunks for which that
 * can be said. An id that the server had no row of begins as a new one does. */
static fl_status difference(const fl_slice_client *client, uint32_t table,
                            size_t at, float *values, uint32_t *mask)
{
  float first[FLI_DIM_MAX];
  const fli_slice_ids *t = &client->tables[table];
  const size_t dim = client->plan.tables[table].dim;
  const float *before = t->values + at * dim;
  const fl_status st =
      fl_embedding_copy_row(client->embedding, table, t->own[at], values, mask);
  if (st == FL_E_NOT_FOUND) {
    memset(values, 0, dim * sizeof *values);
    *mask = 0;
    return FL_OK;
  }
  if (t->masks[at] != 0) {
    *mask &= t->masks[at];
  } else {
    fli_embedding_first(client->embedding, client->embedding->tables[table],
                        t->own[at], first);
    before = first;
  }
  for (size_t i = 0; i < dim; i++) {
    values[i] -= before[i];
    if (!isfinite(values[i]))
      return fli_error(FL_E_NOT_FINITE, "slices: id %llu",
                       (unsigned long long)t->own[at]);
  }
  return FL_OK;
}

/* Chunks of nothing but zeros are left out. */
static void round_row(update_out *run, uint32_t table, const float *values,
                      fli_rng *chance, fli_sparse_row *row, uint32_t *clamped)
{
  const fli_slice_table *shape = &run->client->plan.tables[table];
  const size_t n = shape->dim / shape->chunks;
  uint32_t mask = 0;
  for (uint32_t k = 0; k < shape->chunks; k++) {
    int8_t *codes = row->codes + k * n;
    int any = 0;
    if (!(row->mask >> k & 1)) continue;
    clamped[k] +=
        fli_grid_round(codes, values + k * n, n, shape->deltas[k], chance);
    for (size_t i = 0; i < n; i++)
      any |= codes[i];
    if (any) mask |= 1u << k;
  }
  row->mask = mask;
}

static fl_status write_rows(update_out *run, uint32_t table, uint32_t *clamped)
{
  fl_status st = FL_OK;
  const fl_slice_client *client = run->client;
  const fli_slice_ids *t = &client->tables[table];
  const fli_slice_table *shape = &client->plan.tables[table];
  fli_sparse_row row = {0};
  float values[FLI_DIM_MAX];
  fli_rng chance;
  uint64_t n = 0, last = 0;
  fli_rng_init(&chance, client->plan.seed ^ run->seed, FLI_RNG_SPARSE,
               client->plan.layout & ((UINT64_C(1) << 48) - 1), table);
  for (size_t i = 0; i < t->n_own && run->out.status == FL_OK; i++) {
    if (t->counts[i] == 0) continue;
    row.id = t->own[i];
    FLI_TRY(difference(client, table, i, values, &row.mask));
    round_row(run, table, values, &chance, &row, clamped);
    for (uint32_t k = 0; k < shape->chunks; k++)
      row.utilities[k] = fli_grid_utility(t->utilities[i * shape->chunks + k],
                                          shape->unit, &chance);
    fli_slice_put_id(&run->out, n++, last, row.id);
    fli_slice_write_row(&run->out, shape, &row);
    last = row.id;
  }
  st = run->out.status;
out:
  return st;
}

static fl_status write_table(update_out *run, uint32_t table)
{
  fl_status st = FL_OK;
  const fli_slice_table *shape = &run->client->plan.tables[table];
  const size_t n = count_touched(&run->client->tables[table]);
  uint32_t clamped[FLI_CHUNKS_MAX] = {0};
  if (n == 0) return FL_OK;
  fli_slice_put_u8(&run->out, table & 255u);
  fli_slice_put_u8(&run->out, table >> 8);
  fli_slice_put_u32(&run->out, (uint32_t)n);
  const size_t at = run->out.bytes.size; /* filled in afterwards */
  for (uint32_t k = 0; k < shape->chunks; k++)
    fli_slice_put_u32(&run->out, 0);
  FLI_TRY(write_rows(run, table, clamped));
  for (uint32_t k = 0; k < shape->chunks; k++) {
    fli_store_u32(run->out.bytes.data + at + 4 * (size_t)k, clamped[k]);
    run->clamped += clamped[k];
  }
out:
  return st;
}

static fl_status write_update(update_out *run)
{
  fl_status st = FL_OK;
  const fl_slice_client *client = run->client;
  fli_slice_head head = {FLI_SLICE_UPDATE, 0, client->plan.layout};
  for (uint32_t t = 0; t < client->n_tables; t++)
    head.table += count_touched(&client->tables[t]) > 0;
  fli_slice_open(&run->out, client->context, &head);
  for (uint32_t t = 0; t < client->n_tables; t++)
    FLI_TRY(write_table(run, t));
out:
  return st;
}

fl_status fl_slice_client_update(fl_slice_client *client, uint64_t seed,
                                 fl_buffer *update)
{
  update_out run = {.client = client, .seed = seed};
  fli_fpguard guard;
  fli_clear_error();
  if (!client || !update)
    return fli_error(FL_E_ARGUMENT, "fl_slice_client_update: got NULL");
  if (!client->is_begun || !client->status.is_ready)
    return fli_error(FL_E_STATE, "slices: no round, or not all answers came");
  fli_fpguard_enter(&guard);
  fl_status st = write_update(&run);
  fli_fpguard_leave(&guard);
  if (st == FL_OK)
    st = fli_slice_close(&run.out, update);
  else
    fli_bytes_free(&run.out.bytes);
  if (st != FL_OK) return st;
  client->status.clamped = run.clamped;
  fli_slice_end_round(client);
  fli_clear_error();
  return FL_OK;
}
