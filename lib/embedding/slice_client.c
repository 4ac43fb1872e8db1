/* SPDX-License-Identifier: Apache-2.0 */
/* The device's side of slices: which ids, asking for them and taking what
 * comes. */
#include "embedding/slice.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "base/options.h"
#include "base/size.h"
#include "crypto/crypto.h"

static const fl_slice_client_options client_defaults = {
    .struct_size = sizeof(fl_slice_client_options),
    .max_ids = 65536,
};

fl_status fl_slice_client_options_init(fl_slice_client_options *options,
                                       size_t size)
{
  fli_clear_error();
  return fli_options_init(options, size, &client_defaults,
                          sizeof client_defaults);
}

static const fl_slice_client_status status_defaults = {
    .struct_size = sizeof(fl_slice_client_status)};

fl_status fl_slice_client_status_init(fl_slice_client_status *status,
                                      size_t size)
{
  fli_clear_error();
  return fli_options_init(status, size, &status_defaults,
                          sizeof status_defaults);
}

/* ---- the handle ---------------------------------------------------------- */

/* A batch was trained. */
static void touched(void *user, uint32_t table, uint64_t id,
                    const float *increments)
{
  fl_slice_client *client = user;
  fli_slice_ids *t = &client->tables[table];
  const uint32_t chunks = client->plan.tables[table].chunks;
  if (!client->is_begun || table >= client->n_tables) return;
  const size_t at = fli_slice_find(t->own, t->n_own, id);
  if (at == t->n_own) return;
  client->status.touched += t->counts[at] == 0;
  if (t->counts[at] < UINT32_MAX) t->counts[at]++;
  for (uint32_t k = 0; k < chunks; k++)
    t->utilities[at * chunks + k] += increments[k];
}

static fl_status make_secret(fl_slice_client *client, const uint8_t *secret)
{
  memset(client->secret, 0, sizeof client->secret);
  if (!secret)
    return fli_random_bytes(client->context, client->secret,
                            sizeof client->secret);
  memcpy(client->secret, secret, 16);
  return FL_OK;
}

fl_status fl_slice_client_new(fl_slice_client **out, fl_context *context,
                              fl_embedding *embedding,
                              const fl_slice_client_options *options)
{
  fl_status st = FL_OK;
  fl_slice_client_options full = client_defaults;
  fli_clear_error();
  if (!out || !embedding)
    return fli_error(FL_E_ARGUMENT, "fl_slice_client_new: got NULL");
  FLI_TRY(
      fli_options_load(&full, sizeof full, options, "fl_slice_client_options"));
  if (full.max_ids < 1 || full.max_ids > FLI_SLICE_IDS_MAX)
    return fli_error(FL_E_OPTIONS, "slices: max_ids, got %llu, want 1..2^24",
                     (unsigned long long)full.max_ids);
  if (embedding->watch)
    return fli_error(FL_E_STATE, "slices: the store has a client");
  FLI_TRY(fli_crypto_init());
  fl_slice_client *client = fli_alloc(context, 1, sizeof *client);
  if (!client) return fli_nomem(sizeof *client);
  client->context = fli_context_ref(context);
  client->embedding = embedding;
  client->options = full;
  client->n_tables = embedding->n_tables;
  client->status = status_defaults;
  client->watch = (fli_watch){client, touched};
  embedding->watch = &client->watch;
  st = make_secret(client, full.secret);
  client->options.secret = NULL;
  if (st != FL_OK) {
    fl_slice_client_free(client);
    return st;
  }
  *out = client;
out:
  return st;
}

static void free_round(fl_slice_client *client, fli_slice_ids *t, uint32_t dim,
                       uint32_t chunks)
{
  fl_context *context = client->context;
  fli_free(context, t->own, t->n_own * sizeof *t->own);
  fli_free(context, t->asked, t->n_asked * sizeof *t->asked);
  fli_free(context, t->masks, t->n_own);
  fli_free(context, t->values, t->n_own * dim * sizeof *t->values);
  fli_free(context, t->counts, t->n_own * sizeof *t->counts);
  fli_free(context, t->utilities, t->n_own * chunks * sizeof *t->utilities);
  *t = (fli_slice_ids){.next = t->next, .n_next = t->n_next};
}

void fli_slice_end_round(fl_slice_client *client)
{
  for (uint32_t t = 0; t < client->n_tables; t++)
    free_round(client, &client->tables[t], client->plan.tables[t].dim,
               client->plan.tables[t].chunks);
  client->is_begun = 0;
  client->status.is_ready = 0;
}

void fl_slice_client_free(fl_slice_client *client)
{
  if (!client) return;
  fl_context *context = client->context;
  client->embedding->watch = NULL;
  fli_slice_end_round(client);
  for (uint32_t t = 0; t < client->n_tables; t++) {
    fli_slice_ids *ids = &client->tables[t];
    fli_free(context, ids->next, ids->n_next * sizeof *ids->next);
  }
  fli_wipe(client->secret, sizeof client->secret);
  fli_free(context, client, sizeof *client);
  fli_context_unref(context);
}

static uint64_t other_ids(const fl_slice_client *client, uint32_t table)
{
  uint64_t sum = 0;
  for (uint32_t t = 0; t < client->n_tables; t++)
    sum += t == table ? 0 : client->tables[t].n_next;
  return sum;
}

fl_status fl_slice_client_set_ids(fl_slice_client *client, uint32_t table,
                                  const uint64_t *ids, uint64_t n)
{
  fli_clear_error();
  if (!client || (!ids && n > 0))
    return fli_error(FL_E_ARGUMENT, "fl_slice_client_set_ids: got NULL");
  if (table >= client->n_tables)
    return fli_error(FL_E_NOT_FOUND, "slices: table, got %u, want < %u", table,
                     client->n_tables);
  if (n > SIZE_MAX / sizeof *ids) return fli_nomem(SIZE_MAX);
  const size_t bytes = (size_t)n * sizeof *ids;
  uint64_t *copy = fli_alloc(client->context, (size_t)n, sizeof *copy);
  if (!copy) return fli_nomem(bytes);
  if (n > 0) memcpy(copy, ids, bytes);
  const size_t kept = fli_slice_sort(copy, (size_t)n);
  if (kept + other_ids(client, table) > client->options.max_ids) {
    fli_free(client->context, copy, bytes);
    return fli_error(FL_E_LIMIT, "slices: got %zu ids, want <= %llu", kept,
                     (unsigned long long)client->options.max_ids);
  }
  /* To its own size: that is what it is freed by. */
  uint64_t *fit = fli_alloc(client->context, kept, sizeof *fit);
  if (fit && kept > 0) memcpy(fit, copy, kept * sizeof *fit);
  fli_free(client->context, copy, bytes);
  if (!fit) return fli_nomem(kept * sizeof *fit);
  fli_slice_ids *t = &client->tables[table];
  fli_free(client->context, t->next, t->n_next * sizeof *t->next);
  t->next = fit;
  t->n_next = kept;
  return FL_OK;
}

/* ---- a round begins ------------------------------------------------------ */

static size_t asked_for(const fl_slice_client *client, size_t n)
{
  size_t asked = n;
  if (client->options.has_decoys && n > 0)
    for (asked = 1; asked < n;)
      asked *= 2;
  return asked;
}

static fl_status make_round(fl_slice_client *client, uint32_t table,
                            fli_slice_ids *t)
{
  const fli_slice_table *shape = &client->plan.tables[table];
  fl_context *context = client->context;
  size_t floats;
  t->n_own = client->tables[table].n_next;
  t->n_asked = asked_for(client, t->n_own);
  if (!fli_mul_size(t->n_own, shape->dim, &floats)) return fli_nomem(SIZE_MAX);
  t->own = fli_alloc(context, t->n_own, sizeof *t->own);
  t->asked = fli_alloc(context, t->n_asked, sizeof *t->asked);
  t->masks = fli_alloc(context, t->n_own, 1);
  t->values = fli_alloc(context, floats, sizeof *t->values);
  t->counts = fli_alloc(context, t->n_own, sizeof *t->counts);
  t->utilities =
      fli_alloc(context, t->n_own * shape->chunks, sizeof *t->utilities);
  if (!t->own || !t->asked || !t->masks || !t->values || !t->counts ||
      !t->utilities)
    return fli_nomem(floats * sizeof *t->values);
  if (t->n_own == 0) return FL_OK;
  memcpy(t->own, client->tables[table].next, t->n_own * sizeof *t->own);
  memcpy(t->asked, t->own, t->n_own * sizeof *t->own);
  return fli_slice_add_decoys(client, table, t->asked, t->n_own, t->n_asked);
}

static fl_status check_plan(const fl_slice_client *client,
                            const fli_slice_plan *plan)
{
  uint64_t n = 0;
  const fl_status st = fli_slice_check_shapes(plan, client->embedding);
  if (st != FL_OK) return st;
  if (client->n_tables != plan->n_tables)
    return fli_error(FL_E_SCHEMA, "slices: of a store with other tables");
  for (uint32_t t = 0; t < client->n_tables; t++)
    n += asked_for(client, client->tables[t].n_next);
  const uint64_t most = plan->max_ids < client->options.max_ids
                            ? plan->max_ids
                            : client->options.max_ids;
  if (n <= most) return FL_OK;
  return fli_error(FL_E_LIMIT, "slices: got %llu ids to ask for, want <= %llu",
                   (unsigned long long)n, (unsigned long long)most);
}

static void count_ids(fl_slice_client *client)
{
  fl_slice_client_status *status = &client->status;
  *status = status_defaults;
  status->layout = client->plan.layout;
  for (uint32_t t = 0; t < client->n_tables; t++) {
    status->ids += client->tables[t].n_own;
    status->decoys += client->tables[t].n_asked - client->tables[t].n_own;
  }
  status->is_ready = status->ids == 0;
}

fl_status fl_slice_client_begin(fl_slice_client *client, const uint8_t *plan,
                                size_t n)
{
  fl_status st = FL_OK;
  fli_slice_plan fresh;
  fli_clear_error();
  if (!client || (!plan && n > 0))
    return fli_error(FL_E_ARGUMENT, "fl_slice_client_begin: got NULL");
  FLI_TRY(fli_slice_read_plan(&fresh, plan, n));
  FLI_TRY(check_plan(client, &fresh));
  fli_slice_end_round(client);
  client->plan = fresh;
  for (uint32_t t = 0; t < client->n_tables; t++)
    FLI_TRY(make_round(client, t, &client->tables[t]));
  client->is_begun = 1;
  count_ids(client);
out:
  if (st != FL_OK && client) fli_slice_end_round(client);
  return st;
}

/* ---- asking -------------------------------------------------------------- */

/* The table that is asked next; n_tables: none. */
static uint32_t next_table(const fl_slice_client *client)
{
  uint32_t t = 0;
  while (t < client->n_tables &&
         client->tables[t].n_taken == client->tables[t].n_asked)
    t++;
  return t;
}

fl_status fl_slice_client_request(fl_slice_client *client, fl_buffer *request)
{
  fli_slice_out out;
  fli_clear_error();
  if (!client || !request)
    return fli_error(FL_E_ARGUMENT, "fl_slice_client_request: got NULL");
  const uint32_t table = client->is_begun ? next_table(client) : 0;
  if (!client->is_begun || table == client->n_tables)
    return fli_error(FL_E_EMPTY, "slices: there is nothing to ask for");
  fli_slice_ids *t = &client->tables[table];
  const size_t most = fli_slice_request_ids(&client->plan, table);
  const size_t left = t->n_asked - t->n_taken;
  t->n_window = left < most ? left : most;
  const fli_slice_head head = {FLI_SLICE_REQUEST, table, client->plan.layout};
  fli_slice_open(&out, client->context, &head);
  fli_slice_put_u32(&out, (uint32_t)t->n_window);
  for (size_t i = 0; i < t->n_window; i++) {
    const uint64_t *id = &t->asked[t->n_taken + i];
    fli_slice_put_id(&out, i, i > 0 ? id[-1] : 0, *id);
  }
  return fli_slice_close(&out, request);
}

/* ---- taking -------------------------------------------------------------- */

static void read_chunk(fli_slice_in *in, uint32_t precision, float *values,
                       size_t n)
{
  const size_t size = precision == FL_EMBEDDING_F32 ? 4 : 2;
  const uint8_t *bytes = fli_slice_view(in, size * n);
  for (size_t i = 0; bytes && i < n; i++) {
    values[i] = precision == FL_EMBEDDING_F32
                    ? fli_load_f32(bytes + 4 * i)
                    : fli_f32_from_bf16(fli_load_u16(bytes + 2 * i));
    if (!isfinite(values[i])) fli_slice_fail(in, FL_E_NOT_FINITE, "a row");
  }
}

static uint32_t read_values(const fl_slice_client *client, uint32_t table,
                            fli_slice_in *in, float *values)
{
  const fli_slice_table *shape = &client->plan.tables[table];
  const size_t n = shape->dim / shape->chunks;
  const uint32_t mask = fli_slice_u8(in);
  if (mask >> shape->chunks != 0) fli_slice_fail(in, FL_E_RANGE, "a mask");
  memset(values, 0, shape->dim * sizeof *values);
  for (uint32_t k = 0; k < shape->chunks && in->status == FL_OK; k++)
    if (mask >> k & 1)
      read_chunk(in, client->plan.precision, values + k * n, n);
  return mask;
}

/* Rows that this round does not want make room. */
static void drop_others(fl_slice_client *client, uint32_t table)
{
  fl_context *context = client->context;
  const fli_slice_ids *t = &client->tables[table];
  uint64_t n = fl_embedding_row_count(client->embedding, table);
  const uint64_t all = n;
  uint64_t *ids = fli_alloc(context, (size_t)n, sizeof *ids);
  if (!ids) return;
  (void)fl_embedding_copy_ids(client->embedding, table, ids, n, &n);
  for (uint64_t i = 0; i < n; i++)
    if (fli_slice_find(t->own, t->n_own, ids[i]) == t->n_own)
      fli_embedding_drop(client->embedding, client->embedding->tables[table],
                         ids[i]);
  fli_free(context, ids, (size_t)all * sizeof *ids);
}

static fl_status put_row(fl_slice_client *client, uint32_t table, size_t at,
                         uint32_t mask, const float *values)
{
  fli_slice_ids *t = &client->tables[table];
  fl_embedding *e = client->embedding;
  const size_t dim = client->plan.tables[table].dim;
  fli_table *store = e->tables[table];
  if (mask == 0) {
    fli_embedding_drop(e, store, t->own[at]);
    return FL_OK;
  }
  client->status.rows++;
  fli_room room = fli_embedding_put(e, store, t->own[at], mask, values);
  if (room == FLI_NO_ROOM) {
    drop_others(client, table);
    room = fli_embedding_put(e, store, t->own[at], mask, values);
  }
  if (room == FLI_NO_MEMORY) return fli_nomem(dim * sizeof *values);
  if (room == FLI_ROOM) {
    t->masks[at] = (uint8_t)mask;
    return fl_embedding_copy_row(e, table, t->own[at], t->values + at * dim,
                                 NULL);
  }
  /* A row that is there but not its values would be worse than none. */
  fli_embedding_drop(e, store, t->own[at]);
  client->status.no_room++;
  return FL_OK;
}

static void take_ids(fl_slice_client *client, uint32_t table, fli_slice_in *in,
                     int does_put)
{
  float values[FLI_DIM_MAX];
  fli_slice_ids *t = &client->tables[table];
  size_t own = t->own_taken;
  for (size_t i = 0; i < t->n_window && in->status == FL_OK; i++) {
    const uint32_t mask = read_values(client, table, in, values);
    if (own == t->n_own || t->own[own] != t->asked[t->n_taken + i]) continue;
    if (does_put) in->status = put_row(client, table, own, mask, values);
    own++;
  }
  if (!does_put || in->status != FL_OK) return;
  t->own_taken = own;
  t->n_taken += t->n_window;
  t->n_window = 0;
  client->status.is_ready = next_table(client) == client->n_tables;
}

static uint32_t begin_answer(const fl_slice_client *client, fli_slice_in *in,
                             const uint8_t *answer, size_t n)
{
  fli_slice_head head;
  fli_slice_begin(in, answer, n, FLI_SLICE_ANSWER, &head);
  const uint32_t precision = fli_slice_u32(in);
  const uint32_t n_ids = fli_slice_u32(in);
  const uint64_t first = fli_slice_u64(in);
  const uint32_t table = next_table(client);
  if (in->status != FL_OK) return 0;
  const fli_slice_ids *t = &client->tables[table];
  if (table == client->n_tables || head.table != table || t->n_window == 0 ||
      head.layout != client->plan.layout || n_ids != t->n_window ||
      first != t->asked[t->n_taken])
    fli_slice_fail(in, FL_E_STALE, "not the one that is waited for");
  else if (precision != client->plan.precision)
    fli_slice_fail(in, FL_E_FORMAT, "of another precision");
  return table;
}

fl_status fl_slice_client_take(fl_slice_client *client, const uint8_t *answer,
                               size_t n)
{
  fl_status st = FL_OK;
  fli_slice_in in;
  fli_clear_error();
  if (!client || (!answer && n > 0))
    return fli_error(FL_E_ARGUMENT, "fl_slice_client_take: got NULL");
  if (!client->is_begun)
    return fli_error(FL_E_STALE, "slices: no round has begun");
  const uint32_t table = begin_answer(client, &in, answer, n);
  FLI_TRY(in.status);
  fli_slice_in again = in;
  take_ids(client, table, &in, 0);
  FLI_TRY(fli_slice_end(&in));
  take_ids(client, table, &again, 1);
  st = again.status;
out:
  if (st == FL_OK) fli_clear_error();
  return st;
}

int fli_slice_client_attach(fl_slice_client *client)
{
  const int was_attached = client->is_attached;
  client->is_attached = 1;
  return !was_attached;
}

void fli_slice_client_detach(fl_slice_client *client)
{
  client->is_attached = 0;
}

int fli_slice_is_ready(const fl_slice_client *client)
{
  return client->status.is_ready != 0;
}

fl_status fl_slice_client_get_status(const fl_slice_client *client,
                                     fl_slice_client_status *status)
{
  fli_clear_error();
  if (!client || !status)
    return fli_error(FL_E_ARGUMENT, "fl_slice_client_get_status: got NULL");
  return fli_options_store(status, &client->status, sizeof client->status,
                           "fl_slice_client_status");
}

float fl_slice_client_threshold(const fl_slice_client *client, uint32_t table)
{
  if (!client || table >= client->plan.n_tables) return 0.0f;
  return client->plan.tables[table].threshold;
}
