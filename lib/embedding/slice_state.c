/* SPDX-License-Identifier: Apache-2.0 */
/* A server's sums and grids as a saved state. The store is not in it, only how
 * many steps and adjusts it had seen: with another store, or that of another
 * time, the state is refused. */
#include "embedding/slice.h"

#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "wire/container.h"

enum { STATE_VERSION = 1, FLI_SLICE_STATE = 'S' };

/* plan, u64 steps, u64 adjusts, u32 clients, then each sum with its length. */
fl_status fli_slice_write_state(const fl_slice_server *server, fli_bytes *out)
{
  fl_status st = FL_OK;
  fli_slice_out bytes;
  fli_bytes sum;
  uint8_t plan[FLI_SLICE_PLAN_MAX];
  size_t n = 0;
  const fli_slice_head head = {FLI_SLICE_STATE, server->plan.n_tables,
                               server->plan.layout};
  fli_bytes_init(&sum, server->context);
  fli_bytes_init(&bytes.bytes, server->context);
  FLI_TRY(fl_slice_server_copy_plan(server, plan, sizeof plan, &n));
  fli_slice_open(&bytes, server->context, &head);
  fli_slice_put_u32(&bytes, (uint32_t)n);
  fli_slice_put(&bytes, plan, n);
  fli_slice_put_u64(&bytes, server->steps);
  fli_slice_put_u64(&bytes, server->adjusts);
  fli_slice_put_u32(&bytes, server->clients);
  for (uint32_t t = 0; t < server->plan.n_tables; t++) {
    fli_bytes_clear(&sum);
    FLI_TRY(fli_sparse_write(&server->sums[t], &sum));
    fli_slice_put_u64(&bytes, sum.size);
    fli_slice_put(&bytes, sum.data, sum.size);
  }
  FLI_TRY(bytes.status);
  FLI_TRY(fli_bytes_append(out, bytes.bytes.data, bytes.bytes.size));
out:
  fli_bytes_free(&bytes.bytes);
  fli_bytes_free(&sum);
  return st;
}

/* Everything of a state but its sums. */
typedef struct saved_head {
  fli_slice_plan plan;
  uint32_t clients;
} saved_head;

static fl_status read_head(const fl_slice_server *server, fli_slice_in *in,
                           const uint8_t *data, size_t size, saved_head *saved)
{
  fl_status st = FL_OK;
  fli_slice_head head;
  fli_slice_begin(in, data, size, FLI_SLICE_STATE, &head);
  const uint32_t n = fli_slice_u32(in);
  const uint8_t *plan = fli_slice_view(in, n);
  const uint64_t steps = fli_slice_u64(in), adjusts = fli_slice_u64(in);
  saved->clients = fli_slice_u32(in);
  FLI_TRY(in->status);
  FLI_TRY(fli_slice_read_plan(&saved->plan, plan, n));
  FLI_TRY(fli_slice_check_shapes(&saved->plan, server->embedding));
  if (saved->plan.n_tables != server->plan.n_tables)
    FLI_TRY(fli_error(FL_E_SCHEMA, "slices: of a store with other tables"));
  if (steps != server->embedding->step ||
      adjusts != server->embedding->n_adjusts)
    FLI_TRY(fli_error(FL_E_STALE, "slices: the store is of another time"));
  if (saved->clients > FLI_GRID_CLIENTS || head.layout != saved->plan.layout)
    FLI_TRY(fli_error(FL_E_RANGE, "slices: a state's number of updates"));
out:
  return st;
}

static fl_status read_sums(fl_slice_server *fresh, fli_slice_in *in)
{
  fl_status st = FL_OK;
  fresh->n_ids = 0;
  for (uint32_t t = 0; t < fresh->plan.n_tables; t++) {
    const uint64_t n = fli_slice_u64(in);
    if (n > in->left)
      fli_slice_fail(in, FL_E_TRUNCATED, "a sum's end is missing");
    const uint8_t *view =
        fli_slice_view(in, in->status == FL_OK ? (size_t)n : 0);
    FLI_TRY(in->status);
    FLI_TRY(fli_sparse_read(&fresh->sums[t], view, (size_t)n));
    fresh->n_ids += fresh->sums[t].n;
  }
  FLI_TRY(fli_slice_end(in));
out:
  return st;
}

fl_status fli_slice_read_state(fl_slice_server *server, const uint8_t *data,
                               size_t n)
{
  fl_status st = FL_OK;
  fli_slice_in in;
  saved_head saved;
  fl_slice_server *fresh = NULL;
  FLI_TRY(read_head(server, &in, data, n, &saved));
  FLI_TRY(fl_slice_server_new(&fresh, server->context, server->embedding,
                              &server->options));
  FLI_TRY(read_sums(fresh, &in));
  fli_slice_unprepare(server);
  /* The options stay the host's; the old sums go with `fresh`. */
  fli_sparse_sum *sums = server->sums;
  server->sums = fresh->sums;
  fresh->sums = sums;
  server->n_ids = fresh->n_ids;
  server->clients = saved.clients;
  saved.plan.max_ids = server->options.max_ids;
  saved.plan.precision = server->options.precision;
  server->plan = saved.plan;
  fli_slice_note_store(server);
out:
  fl_slice_server_free(fresh);
  return st;
}

fl_status fl_slice_server_save(const fl_slice_server *server,
                               const fl_writer *writer)
{
  fl_status st = FL_OK;
  fli_bytes payload;
  fli_clear_error();
  if (!server || !writer || !writer->write)
    return fli_error(FL_E_ARGUMENT, "fl_slice_server_save: got NULL");
  fli_bytes_init(&payload, server->context);
  FLI_TRY(fli_slice_write_state(server, &payload));
  FLI_TRY(
      fli_container_write(writer, FLI_STATE_SLICES, STATE_VERSION, &payload));
out:
  fli_bytes_free(&payload);
  return st;
}

fl_status fl_slice_server_load(fl_slice_server *server, const fl_reader *reader)
{
  fl_status st = FL_OK;
  fli_bytes payload;
  uint32_t version = 0;
  fli_clear_error();
  if (!server || !reader || !reader->read)
    return fli_error(FL_E_ARGUMENT, "fl_slice_server_load: got NULL");
  fli_bytes_init(&payload, server->context);
  FLI_TRY(fli_container_read(reader, FLI_STATE_SLICES, STATE_VERSION,
                             UINT64_MAX, &version, &payload));
  FLI_TRY(fli_slice_read_state(server, payload.data, payload.size));
out:
  fli_bytes_free(&payload);
  return st;
}
