/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation failures of slices, on both sides. */
#include "oom.h"

#include <fl/slices.h>

#include "base/context.h"
#include "base/error.h"
#include "compress/sparse.h"

enum { IDS = 150, DIM = 16 };

static fl_status make_store(fl_embedding **out, fl_context *context,
                            uint32_t optimiser)
{
  static const uint8_t secret[16] = "out of memories";
  uint32_t t;
  fl_embedding_options options;
  fl_embedding_table_options table;
  fl_status st = FL_OK;
  FLI_TRY(fl_embedding_options_init(&options, sizeof options));
  options.optimiser = optimiser;
  options.secret = secret;
  FLI_TRY(fl_embedding_new(out, context, &options));
  FLI_TRY(fl_embedding_table_options_init(&table, sizeof table));
  table.dim = DIM;
  FLI_TRY(fl_embedding_add_table(*out, &table, &t));
out:
  return st;
}

typedef struct round {
  fl_embedding *global, *local;
  fl_slice_server *server;
  fl_slice_client *client;
  fl_buffer *buffer, *answer;
} round;

static fl_status make_round(round *r, fl_context *context)
{
  fl_status st = FL_OK;
  fl_slice_client_options options;
  FLI_TRY(make_store(&r->global, context, FL_EMBEDDING_SGD));
  FLI_TRY(make_store(&r->local, context, FL_EMBEDDING_ROW_ADAGRAD));
  FLI_TRY(fl_slice_server_new(&r->server, context, r->global, NULL));
  FLI_TRY(fl_slice_client_options_init(&options, sizeof options));
  options.has_decoys = 1;
  FLI_TRY(fl_slice_client_new(&r->client, context, r->local, &options));
  FLI_TRY(fl_buffer_new(&r->buffer, context));
  FLI_TRY(fl_buffer_new(&r->answer, context));
out:
  return st;
}

static fl_status fetch(round *r)
{
  fl_status st = FL_OK;
  uint8_t plan[4096];
  const uint8_t *data;
  size_t n;
  FLI_TRY(fl_slice_server_copy_plan(r->server, plan, sizeof plan, &n));
  FLI_TRY(fl_slice_client_begin(r->client, plan, n));
  while ((st = fl_slice_client_request(r->client, r->buffer)) == FL_OK) {
    FLI_TRY(fl_buffer_get(r->buffer, &data, &n));
    FLI_TRY(fl_slice_server_answer(r->server, data, n, r->answer));
    FLI_TRY(fl_buffer_get(r->answer, &data, &n));
    FLI_TRY(fl_slice_client_take(r->client, data, n));
    fl_buffer_clear(r->buffer);
    fl_buffer_clear(r->answer);
  }
  if (st == FL_E_EMPTY) st = FL_OK;
out:
  return st;
}

static fl_status train(round *r, uint64_t from)
{
  static float values[IDS * DIM];
  uint64_t ids[IDS];
  fl_embedding_bags bags;
  fl_status st = FL_OK;
  for (uint64_t i = 0; i < IDS; i++)
    ids[i] = from + i * i;
  FLI_TRY(fl_slice_client_set_ids(r->client, 0, ids, IDS));
  FLI_TRY(fetch(r));
  FLI_TRY(fl_embedding_bags_init(&bags, sizeof bags));
  bags.ids = ids;
  bags.n_ids = IDS;
  bags.n_bags = IDS;
  FLI_TRY(fl_embedding_forward(r->local, 0, &bags, values));
  for (size_t i = 0; i < (size_t)IDS * DIM; i++)
    values[i] = (float)(i % 7) - 3.0f;
  FLI_TRY(fl_embedding_backward(r->local, 0, &bags, values, .01f));
out:
  return st;
}

static fl_status send(round *r, uint64_t seed)
{
  fl_status st = FL_OK;
  const uint8_t *data;
  size_t n;
  fl_buffer_clear(r->buffer);
  FLI_TRY(fl_slice_client_update(r->client, seed, r->buffer));
  FLI_TRY(fl_buffer_get(r->buffer, &data, &n));
  FLI_TRY(fl_slice_server_add(r->server, data, n));
  fl_buffer_clear(r->buffer);
out:
  return st;
}

static fl_status save_and_load(round *r)
{
  fl_status st = FL_OK;
  fl_writer writer;
  fl_reader reader;
  FLI_TRY(fl_buffer_as_writer(r->answer, &writer));
  FLI_TRY(fl_slice_server_save(r->server, &writer));
  FLI_TRY(fl_buffer_as_reader(r->answer, &reader));
  FLI_TRY(fl_slice_server_load(r->server, &reader));
  fl_buffer_clear(r->answer);
out:
  return st;
}

static fl_status play(fl_context *context, void *arg)
{
  round r = {0};
  fl_status st = FL_OK;
  (void)arg;
  FLI_TRY(make_round(&r, context));
  for (uint64_t i = 0; i < 2; i++) {
    FLI_TRY(train(&r, 100 * i));
    FLI_TRY(send(&r, i));
    FLI_TRY(train(&r, 7));
    FLI_TRY(send(&r, i + 10));
    FLI_TRY(save_and_load(&r));
    FLI_TRY(fl_slice_server_step(r.server, NULL));
  }
out:
  fl_buffer_free(r.buffer);
  fl_buffer_free(r.answer);
  fl_slice_server_free(r.server);
  fl_slice_client_free(r.client);
  fl_embedding_free(r.global);
  fl_embedding_free(r.local);
  return st;
}

static void rounds_survive(void)
{
  oom_loop(play, NULL);
}

static fl_status add_rows(fl_context *context, void *arg)
{
  fli_sparse_sum sum;
  fli_sparse_place *sorted = NULL;
  fl_status st = FL_OK;
  (void)arg;
  FLI_TRY(fli_sparse_init(&sum, context, DIM, 4));
  for (uint64_t i = 0; i < 40; i++) {
    fli_sparse_row row = {.mask = 15, .utilities = {1, 2, 3, 4}, .codes = {7}};
    const size_t n = sum.n;
    st = fli_sparse_reserve(&sum, 10);
    /* What was there is there. */
    CHECK(sum.n == n && sum.n_added == i);
    if (st != FL_OK) break;
    for (row.id = 10 * i; row.id < 10 * i + 10; row.id++)
      fli_sparse_add(&sum, &row);
    fli_sparse_count(&sum);
  }
  if (st == FL_OK) st = fli_sparse_sort(&sum, &sorted);
  if (st == FL_OK) fli_free(context, sorted, sum.n * sizeof *sorted);
out:
  fli_sparse_clear(&sum);
  return st;
}

static void sums_survive(void)
{
  oom_loop(add_rows, NULL);
}

int main(void)
{
  CHECK_CASE(rounds_survive);
  CHECK_CASE(sums_survive);
  return check_report();
}
