/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation failures of the embedding store: whatever fails, its rules hold
 * afterwards, and it can be freed. */
#include "oom.h"

#include <fl/embedding.h>

#include "base/error.h"
#include "embedding_invariants.h"

enum { IDS = 200, BAGS = 50, DIM = 16, BUDGET = 48 * 1024 };

static void must_be_good(const fl_embedding *e)
{
  const char *problem = embedding_problem(e);
  if (problem) fprintf(stderr, "%s\n", problem);
  CHECK(problem == NULL);
}

static fl_status train(fl_embedding *e, uint64_t step)
{
  static float out[BAGS * DIM], gradient[BAGS * DIM];
  uint64_t ids[IDS];
  fl_embedding_bags bags;
  fl_status st = FL_OK;
  FLI_TRY(fl_embedding_bags_init(&bags, sizeof bags));
  for (uint64_t i = 0; i < IDS; i++)
    ids[i] = i * (step % 7 + 1) + step * 50;
  for (size_t i = 0; i < BAGS * DIM; i++)
    gradient[i] = (float)((i + step) % 9) - 4.0f;
  bags.ids = ids;
  bags.n_ids = IDS;
  bags.n_bags = BAGS;
  FLI_TRY(fl_embedding_lookup(e, 0, &bags, out));
  FLI_TRY(fl_embedding_forward(e, 0, &bags, out));
  FLI_TRY(fl_embedding_backward(e, 0, &bags, gradient, 0.1f));
  if (step % 4 == 3) FLI_TRY(fl_embedding_adjust(e, NULL));
out:
  must_be_good(e);
  return st;
}

static fl_status make(fl_embedding **out, fl_context *context, uint64_t budget)
{
  static const uint8_t secret[16] = "out of memories";
  uint32_t t;
  fl_embedding_options options;
  fl_embedding_table_options table;
  fl_status st = FL_OK;
  FLI_TRY(fl_embedding_options_init(&options, sizeof options));
  options.byte_budget = budget;
  options.secret = secret;
  options.tombstones = 500;
  FLI_TRY(fl_embedding_new(out, context, &options));
  FLI_TRY(fl_embedding_table_options_init(&table, sizeof table));
  table.dim = DIM;
  table.prune_from = 0;
  table.admit_after = 1;
  FLI_TRY(fl_embedding_add_table(*out, &table, &t));
out:
  return st;
}

static fl_status use(fl_context *context, void *arg)
{
  fl_embedding *e = NULL;
  fl_status st = FL_OK;
  FLI_TRY(make(&e, context, *(const uint64_t *)arg));
  for (uint64_t step = 0; step < 24; step++)
    FLI_TRY(train(e, step));
out:
  fl_embedding_free(e);
  return st;
}

static void training_and_adjusting_survive(void)
{
  uint64_t budget = BUDGET;
  oom_loop(use, &budget);
  budget = 0;
  oom_loop(use, &budget);
}

typedef struct saved {
  fl_buffer *whole; /* of the default context */
  fl_buffer *delta;
} saved;

static fl_status load(fl_context *context, void *arg)
{
  const saved *s = arg;
  fl_embedding *e = NULL;
  fl_reader reader;
  fl_status st = FL_OK;
  FLI_TRY(fl_buffer_as_reader(s->whole, &reader));
  FLI_TRY(fl_embedding_load(&e, context, &reader, 0));
  must_be_good(e);
  FLI_TRY(fl_buffer_as_reader(s->delta, &reader));
  FLI_TRY(fl_embedding_apply_delta(e, &reader));
out:
  if (e) must_be_good(e);
  fl_embedding_free(e);
  return st;
}

static void loading_and_deltas_survive(void)
{
  saved s = {NULL, NULL};
  fl_embedding *e = NULL;
  fl_writer writer;
  CHECK_OK(fl_buffer_new(&s.whole, NULL));
  CHECK_OK(fl_buffer_new(&s.delta, NULL));
  CHECK_OK(make(&e, NULL, BUDGET));
  for (uint64_t step = 0; step < 12; step++)
    CHECK_OK(train(e, step));
  CHECK_OK(fl_buffer_as_writer(s.whole, &writer));
  CHECK_OK(fl_embedding_save(e, &writer));
  for (uint64_t step = 12; step < 20; step++)
    CHECK_OK(train(e, step));
  CHECK_OK(fl_buffer_as_writer(s.delta, &writer));
  CHECK_OK(fl_embedding_save_delta(e, fl_embedding_version(e), &writer));
  fl_embedding_free(e);
  oom_loop(load, &s);
  fl_buffer_free(s.whole);
  fl_buffer_free(s.delta);
}

int main(void)
{
  CHECK_CASE(training_and_adjusting_survive);
  CHECK_CASE(loading_and_deltas_survive);
  return check_report();
}
