/* SPDX-License-Identifier: Apache-2.0 */
/* Lookups beside training: rows come, move, lose chunks and go while readers
 * read, and never do these see a row of another id. Steps have rate 0, so that
 * every chunk is either as its id's name says, or zeros. */
#include <pthread.h>
#include <stdlib.h>

#include <fl/embedding.h>

#include "base/rng.h"
#include "check.h"
#include "embedding_invariants.h"

enum {
  READERS = 2,
  DIM = 16,
  IDS = 512,
  BAGS = 128,
  STEPS = 150,
  BUDGET = 96 * 1024
};

typedef struct shared {
  fl_embedding *e;
  _Atomic int is_over;
  _Atomic uint64_t front; /* ids around here are hot */
  _Atomic uint64_t seen;  /* rows that were there */
} shared;

static uint64_t id_of(uint64_t number)
{
  return number * 0x9e3779b97f4a7c15u;
}

static fl_embedding *make(uint32_t precision)
{
  static const uint8_t secret[16] = "read all about!";
  uint32_t t;
  fl_embedding *e = NULL;
  fl_embedding_options options;
  fl_embedding_table_options table;
  CHECK_OK(fl_embedding_options_init(&options, sizeof options));
  options.byte_budget = BUDGET;
  options.secret = secret;
  options.optimiser = FL_EMBEDDING_SGD;
  options.decay = 0.5f;
  CHECK_OK(fl_embedding_new(&e, NULL, &options));
  CHECK_OK(fl_embedding_table_options_init(&table, sizeof table));
  table.dim = DIM;
  table.precision = precision;
  table.prune_from = 0;
  CHECK_OK(fl_embedding_add_table(e, &table, &t));
  return e;
}

/* Sees rows that are not its own. */
static int is_its_row(const fl_embedding *e, uint64_t id, const float *row)
{
  uint8_t bytes[DIM * sizeof(float)];
  float want[DIM], none[DIM] = {0};
  fli_row_init(e, e->tables[0], id, bytes);
  fli_chunks_decode(e->tables[0], bytes, want, 4);
  for (size_t k = 0; k < DIM; k += 4) {
    if (memcmp(row + k, want + k, 4 * sizeof *row) != 0 &&
        memcmp(row + k, none, 4 * sizeof *row) != 0)
      return 0;
  }
  return 1;
}

static void *read_rows(void *arg)
{
  shared *s = arg;
  fl_embedding_bags bags;
  uint64_t ids[IDS], seen = 0, turn = 0;
  static _Thread_local float out[IDS * DIM];
  (void)fl_embedding_bags_init(&bags, sizeof bags);
  bags.ids = ids;
  bags.n_ids = bags.n_bags = IDS;
  while (!atomic_load(&s->is_over)) {
    uint64_t front = atomic_load(&s->front);
    for (uint64_t i = 0; i < IDS; i++)
      ids[i] = id_of(front + (i * 5 + turn) % 2500);
    turn++;
    if (fl_embedding_lookup(s->e, 0, &bags, out) != FL_OK) {
      CHECK(0);
      break;
    }
    for (size_t i = 0; i < IDS; i++) {
      seen += out[i * DIM] != 0;
      if (is_its_row(s->e, ids[i], out + i * DIM)) continue;
      CHECK(0);
      return NULL;
    }
  }
  atomic_fetch_add(&s->seen, seen);
  return NULL;
}

static void train(shared *s, fli_rng *rng)
{
  static float out[BAGS * DIM], gradient[BAGS * DIM];
  fl_embedding_bags bags;
  uint64_t ids[IDS];
  CHECK_OK(fl_embedding_bags_init(&bags, sizeof bags));
  bags.ids = ids;
  bags.n_ids = IDS;
  bags.n_bags = BAGS;
  for (uint64_t step = 0; step < STEPS; step++) {
    atomic_store(&s->front, step * 20);
    for (size_t i = 0; i < IDS; i++)
      ids[i] = id_of(step * 20 + fli_rng_below(rng, 2500));
    for (size_t i = 0; i < BAGS * DIM; i++)
      gradient[i] = (i / 4 % 4 == 0 ? 1.0f : 0.1f) * fli_rng_f32(rng);
    CHECK_OK(fl_embedding_forward(s->e, 0, &bags, out));
    CHECK_OK(fl_embedding_backward(s->e, 0, &bags, gradient, 0));
    if (step % 8 == 7) CHECK_OK(fl_embedding_adjust(s->e, NULL));
  }
}

static void readers_see_no_row_of_others(void)
{
  /* Steps of other precisions round again by chance. */
  shared s = {.e = make(FL_EMBEDDING_F32)};
  pthread_t threads[READERS];
  fli_rng rng;
  fli_rng_init(&rng, 1, FLI_RNG_TEST, 0, 0);
  for (int i = 0; i < READERS; i++) {
    if (pthread_create(&threads[i], NULL, read_rows, &s) != 0) exit(1);
  }
  train(&s, &rng);
  atomic_store(&s.is_over, 1);
  for (int i = 0; i < READERS; i++)
    pthread_join(threads[i], NULL);
  CHECK(atomic_load(&s.seen) > 0);
  CHECK(s.e->totals.rows_lost > 0 && s.e->totals.blocks_returned > 0);
  CHECK(embedding_problem(s.e) == NULL);
  fl_embedding_free(s.e);
}

int main(void)
{
  CHECK_CASE(readers_see_no_row_of_others);
  return check_report();
}
