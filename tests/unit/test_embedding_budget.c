/* SPDX-License-Identifier: Apache-2.0 */
/* The byte budget under streams of ids, and what adjust makes of it. */
#include <criterion/criterion.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "embedding_fixture.h"
#include "embedding_invariants.h"

enum { MIB = 1 << 20, BATCH = 2048, BAGS = 256 };

/* ---- an allocator that looks at every moment ----------------------------- */

typedef struct heap {
  uint64_t live;
  uint64_t most;
  int is_backwards; /* loops begin at their end */
} heap;

static fl_status backwards(void *user, uint64_t count, fl_task_fn task,
                           void *arg)
{
  (void)user;
  while (count > 0)
    task(arg, --count);
  return FL_OK;
}

static void *heap_alloc(void *user, size_t size, size_t alignment)
{
  heap *h = user;
  h->live += size;
  if (h->live > h->most) h->most = h->live;
  return aligned_alloc(alignment,
                       (size + alignment - 1) / alignment * alignment);
}

static void heap_dealloc(void *user, void *ptr, size_t size, size_t alignment)
{
  (void)alignment;
  ((heap *)user)->live -= size;
  free(ptr);
}

static fl_context *context_of(heap *h)
{
  fl_context *context = NULL;
  fl_context_options options;
  (void)fl_context_options_init(&options, sizeof options);
  options.user = h;
  options.alloc = heap_alloc;
  options.dealloc = heap_dealloc;
  options.parallel_for = h->is_backwards ? backwards : NULL;
  cr_assert_eq(fl_context_new(&context, &options), FL_OK);
  return context;
}

/* ---- streams ------------------------------------------------------------- */

typedef enum stream { ZIPF, UNIQUE, DRIFTING } stream;

typedef struct source {
  stream kind;
  fli_rng rng;
  uint64_t next;
  uint64_t n;     /* ids of the Zipf stream */
  uint64_t shift; /* which of them are hot */
  float boost;    /* of gradients; 0 is 1 */
} source;

/* Near enough: log-uniform ranks. */
static uint64_t zipf(source *s)
{
  double u = fli_rng_f64(&s->rng);
  return (uint64_t)pow((double)s->n, u);
}

static uint64_t draw(source *s)
{
  if (s->kind == UNIQUE) return s->next++;
  uint64_t rank = zipf(s);
  if (s->kind == DRIFTING) s->shift = s->next++ / 4096 * 97;
  return (rank + s->shift) * 0x9e3779b97f4a7c15u;
}

typedef struct batch {
  uint64_t ids[BATCH];
  float out[BAGS * 64];
  float gradient[BAGS * 64];
} batch;

static batch b;

static void train(fl_embedding *e, uint32_t t, source *s)
{
  for (size_t i = 0; i < BATCH; i++)
    b.ids[i] = draw(s);
  for (size_t i = 0; i < BAGS * 64; i++)
    b.gradient[i] = 0.01f * (fli_rng_f32(&s->rng) - 0.5f);
  fl_embedding_bags bags = bags_of(b.ids, BATCH, NULL, BAGS);
  cr_assert_eq(fl_embedding_forward(e, t, &bags, b.out), FL_OK);
  cr_assert_eq(fl_embedding_backward(e, t, &bags, b.gradient, 0.05f), FL_OK);
}

static uint64_t scratch_of(const fl_embedding *e)
{
  uint64_t bytes = 0;
  for (uint32_t t = 0; t < e->n_tables; t++)
    bytes += e->tables[t]->batch.bytes;
  return bytes;
}

/* Bytes of what is kept, by what that takes at the usual load of buckets. */
static double live_share(const fl_embedding *e)
{
  uint64_t live = e->bytes_used;
  for (uint32_t p = 0; p < e->n_pools; p++) {
    const fli_pool *pool = e->pools[p];
    uint32_t used = pool->n_made - pool->n_free;
    live -= pool->n_blocks * (uint64_t)pool->block_bytes;
    live += used * (uint64_t)(pool->extent_bytes + sizeof(float));
  }
  for (uint32_t t = 0; t < e->n_tables; t++) {
    const fli_table *table = e->tables[t];
    uint64_t full = table->n_rows * sizeof(fli_entry) * 10 / 9;
    if (full < table->segment_bytes) live -= table->segment_bytes - full;
  }
  return (double)live / (double)e->budget;
}

static void stays_within(stream kind, uint64_t budget, uint32_t n_tables)
{
  heap h = {0};
  fl_context *context = context_of(&h);
  const uint64_t before = h.live; /* the context's own */
  source s = {.kind = kind, .n = 200000};
  fli_rng_init(&s.rng, kind, FLI_RNG_TEST, budget, n_tables);
  fl_embedding *e = embedding_of(context, 1, budget);
  fl_context_free(context);
  for (uint32_t t = 0; t < n_tables; t++) {
    cr_assert_eq(table_of(e, t % 2 ? 32 : 16, 0), t);
    train(e, t, &s);
  }
  h.most = h.live;
  for (int step = 1; step <= 300; step++) {
    train(e, (uint32_t)step % n_tables, &s);
    if (step % 20 == 0) {
      cr_assert_eq(fl_embedding_adjust(e, NULL), FL_OK);
      const char *problem = embedding_problem(e);
      cr_assert_null(problem, "step %d: %s", step, problem);
    }
    cr_assert_leq(h.most, before + budget + scratch_of(e), "step %d", step);
  }
  cr_assert_eq(h.live, before + e->bytes_used + scratch_of(e));
  fl_embedding_free(e);
  cr_assert_eq(h.live, 0);
}

Test(embedding_budget, is_never_exceeded_under_zipf)
{
  stays_within(ZIPF, MIB, 1);
  stays_within(ZIPF, 4 * MIB, 5);
}

Test(embedding_budget, is_never_exceeded_when_all_ids_are_new)
{
  stays_within(UNIQUE, MIB, 1);
  stays_within(UNIQUE, 3 * MIB, 2);
}

Test(embedding_budget, is_never_exceeded_when_ids_drift)
{
  stays_within(DRIFTING, MIB, 1);
  stays_within(DRIFTING, 4 * MIB, 3);
}

/* ---- what is kept -------------------------------------------------------- */

enum { HOT = 3000, DIM = 16 };

/* Batches of hot ids, each as often as the others, and some noise. */
static void train_hot(fl_embedding *e, uint32_t t, uint64_t first, fli_rng *rng)
{
  for (size_t i = 0; i < BATCH; i++)
    b.ids[i] = fli_rng_below(rng, 4) ? first + fli_rng_below(rng, HOT)
                                     : (uint64_t)fli_rng_u32(rng) << 20;
  for (size_t i = 0; i < BAGS * DIM; i++)
    b.gradient[i] = 0.01f * (fli_rng_f32(rng) - 0.5f);
  fl_embedding_bags bags = bags_of(b.ids, BATCH, NULL, BAGS);
  cr_assert_eq(fl_embedding_forward(e, t, &bags, b.out), FL_OK);
  cr_assert_eq(fl_embedding_backward(e, t, &bags, b.gradient, 0.05f), FL_OK);
}

static double share_kept(fl_embedding *e, uint32_t t, uint64_t first)
{
  uint64_t kept = 0;
  for (uint64_t id = first; id < first + HOT; id++) {
    const fli_entry *entry =
        fli_hash_find(e->tables[t], id, fli_mix(e->mix, id));
    kept += entry ? fli_where_count(fli_entry_where(entry)) : 0;
  }
  return (double)kept / (HOT * 4);
}

Test(embedding_budget, a_new_hot_set_is_kept_within_three_adjusts)
{
  /* Room for twice the hot set, and little memory of what was before. */
  fl_embedding *e = embedding_of(NULL, 1, 640 * 1024);
  e->options.decay = 0.5f;
  uint32_t t = table_of(e, DIM, 4);
  fli_rng rng;
  fli_rng_init(&rng, 3, FLI_RNG_TEST, 0, 0);
  for (uint64_t set = 0; set < 4; set++) {
    uint64_t first = set * 1000000;
    for (int adjusts = 0; adjusts < 3; adjusts++) {
      for (int i = 0; i < 50; i++)
        train_hot(e, t, first, &rng);
      cr_assert_eq(fl_embedding_adjust(e, NULL), FL_OK);
      const char *problem = embedding_problem(e);
      cr_assert_null(problem, "%s", problem);
    }
    /* Room that adjust has made for more than it knew goes to who comes. */
    for (int i = 0; i < 10; i++)
      train_hot(e, t, first, &rng);
    cr_assert_geq(share_kept(e, t, first), 0.95, "set %d: %g", (int)set,
                  share_kept(e, t, first));
    cr_assert_geq(live_share(e), 0.95, "set %d: %g", (int)set, live_share(e));
  }
  fl_embedding_free(e);
}

/* ---- rows that lose chunks ----------------------------------------------- */

enum { SMALL_BUDGET = 192 * 1024 };

/* Gradients of the first chunk are a hundred times those of the last. */
static void train_uneven(fl_embedding *e, uint32_t t, source *s)
{
  for (size_t i = 0; i < BATCH; i++)
    b.ids[i] = draw(s);
  for (size_t i = 0; i < BAGS * DIM; i++) {
    float scale = i % DIM / 4 == 0 ? 1.0f : i % DIM / 4 == 3 ? 0.01f : 0.2f;
    if (s->boost > 0) scale *= s->boost;
    b.gradient[i] = scale * (fli_rng_f32(&s->rng) - 0.5f);
  }
  fl_embedding_bags bags = bags_of(b.ids, BATCH, NULL, BAGS);
  cr_assert_eq(fl_embedding_forward(e, t, &bags, b.out), FL_OK);
  cr_assert_eq(fl_embedding_backward(e, t, &bags, b.gradient, 0.05f), FL_OK);
}

typedef struct masks {
  uint64_t of[16];
  uint64_t n_zero; /* live values that are 0 */
} masks;

static masks check_rows(const fl_embedding *e, uint32_t t)
{
  masks all = {{0}, 0};
  uint64_t at = 0;
  float out[DIM];
  fli_segment *segment;
  while ((segment = fli_segments_next(e->tables[t], &at)) != NULL) {
    for (size_t i = 0; i < (size_t)segment->n_buckets * 4; i++) {
      uint32_t where = fli_entry_where(&segment->entries[i]);
      uint64_t id = fli_entry_id(&segment->entries[i]);
      if (where == 0) continue;
      fl_embedding_bags bags = bags_of(&id, 1, NULL, 1);
      cr_assert_eq(fl_embedding_lookup(e, t, &bags, out), FL_OK);
      all.of[where >> FLI_MASK_SHIFT]++;
      for (size_t j = 0; j < DIM; j++) {
        if (!(where >> (FLI_MASK_SHIFT + j / 4) & 1))
          cr_assert_eq(fli_f32_bits(out[j]), 0);
        else
          all.n_zero += out[j] == 0;
      }
    }
  }
  return all;
}

Test(embedding_budget, pruned_chunks_read_as_zeros_and_the_best_are_kept)
{
  fl_embedding *e = embedding_of(NULL, 1, SMALL_BUDGET);
  uint32_t t = table_of(e, DIM, 4);
  source s = {.kind = ZIPF, .n = 20000};
  fli_rng_init(&s.rng, 5, FLI_RNG_TEST, 0, 0);
  for (int step = 1; step <= 200; step++) {
    train_uneven(e, t, &s);
    if (step % 20 == 0) cr_assert_eq(fl_embedding_adjust(e, NULL), FL_OK);
  }
  train_uneven(e, t, &s);
  masks all = check_rows(e, t);
  uint64_t first = 0, last = 0, partial = 0;
  for (uint32_t mask = 1; mask < 16; mask++) {
    first += mask & 1 ? all.of[mask] : 0;
    last += mask & 8 ? all.of[mask] : 0;
    partial += mask == 15 ? 0 : all.of[mask];
  }
  cr_assert_gt(partial, 0);
  cr_assert_gt(first, 2 * last, "%d against %d", (int)first, (int)last);
  fl_embedding_free(e);
}

/* What is won begins as zeros, accumulator and all. */
Test(embedding_budget, reused_extents_have_no_memory)
{
  fl_embedding *e = embedding_of(NULL, 1, SMALL_BUDGET);
  uint32_t t = table_of(e, DIM, 4), n_new = 0;
  source s = {.kind = DRIFTING, .n = 20000};
  fli_rng_init(&s.rng, 6, FLI_RNG_TEST, 0, 0);
  for (int step = 1; step <= 200; step++) {
    train_uneven(e, t, &s);
    if (step % 20 != 0) continue;
    /* Before: which ids there are. */
    uint64_t at = 0;
    static uint64_t before[65536];
    size_t n = 0;
    fli_segment *segment;
    while ((segment = fli_segments_next(e->tables[t], &at)) != NULL) {
      for (size_t i = 0; i < (size_t)segment->n_buckets * 4; i++) {
        if (fli_entry_where(&segment->entries[i]))
          before[n++] = fli_entry_id(&segment->entries[i]);
      }
    }
    fl_embedding_report report;
    (void)fl_embedding_report_init(&report, sizeof report);
    cr_assert_eq(fl_embedding_adjust(e, &report), FL_OK);
    at = 0;
    while ((segment = fli_segments_next(e->tables[t], &at)) != NULL) {
      for (size_t i = 0; i < (size_t)segment->n_buckets * 4; i++) {
        uint32_t where = fli_entry_where(&segment->entries[i]);
        uint64_t id = fli_entry_id(&segment->entries[i]);
        size_t k = 0;
        while (where && k < n && before[k] != id)
          k++;
        if (!where || k < n) continue;
        n_new++;
        fli_pool *pool = e->tables[t]->pools[fli_where_count(where)];
        const uint8_t *row = fli_pool_row(pool, where & FLI_INDEX_MASK);
        for (uint32_t j = 0; j < pool->extent_bytes; j++)
          cr_assert_eq(row[j], 0);
        cr_assert_eq(*fli_pool_square(pool, where & FLI_INDEX_MASK), 0);
      }
    }
  }
  cr_assert_gt(n_new, 100);
  fl_embedding_free(e);
}

/* ---- several tables ------------------------------------------------------ */

static uint32_t table_with(fl_embedding *e, float share, uint64_t prune_from)
{
  uint32_t t = 99;
  fl_embedding_table_options options;
  (void)fl_embedding_table_options_init(&options, sizeof options);
  options.dim = DIM;
  options.share = share;
  options.prune_from = prune_from;
  cr_assert_eq(fl_embedding_add_table(e, &options, &t), FL_OK);
  return t;
}

static void train_tables(fl_embedding *e, const uint64_t *n_ids, int steps)
{
  source s = {.kind = ZIPF};
  fli_rng_init(&s.rng, 8, FLI_RNG_TEST, 0, 0);
  for (int step = 1; step <= steps; step++) {
    for (uint32_t t = 0; t < e->n_tables; t++) {
      s.n = n_ids[t];
      train_uneven(e, t, &s);
    }
    if (step % 20 == 0) cr_assert_eq(fl_embedding_adjust(e, NULL), FL_OK);
  }
}

Test(embedding_budget, is_shared_out_as_the_tables_options_say)
{
  const uint64_t n_ids[2] = {100000, 100000};
  fl_embedding *e = embedding_of(NULL, 1, 2 * SMALL_BUDGET);
  (void)table_with(e, 1, 0);
  (void)table_with(e, 3, 0);
  train_tables(e, n_ids, 310);
  double ratio = (double)fli_table_bytes(e->tables[1]) /
                 (double)fli_table_bytes(e->tables[0]);
  cr_assert(ratio > 2.6 && ratio < 3.4, "%g", ratio);
  const char *problem = embedding_problem(e);
  cr_assert_null(problem, "%s", problem);
  fl_embedding_free(e);
}

Test(embedding_budget, small_tables_are_not_pruned_beside_large_ones)
{
  const uint64_t n_ids[2] = {300, 100000};
  fl_embedding *e = embedding_of(NULL, 1, 2 * SMALL_BUDGET);
  (void)table_with(e, 1, 2000);
  (void)table_with(e, 1, 2000);
  train_tables(e, n_ids, 200);
  masks all = check_rows(e, 0);
  cr_assert_geq(all.of[15], 290);
  cr_assert_eq(all.of[15], e->tables[0]->n_rows);
  cr_assert_gt(e->tables[1]->n_rows * 4, e->tables[1]->n_chunks);
  fl_embedding_free(e);
}

Test(embedding_budget, one_threshold_for_all_gives_more_to_who_uses_more)
{
  const uint64_t n_ids[2] = {100000, 1000};
  fl_embedding *e = embedding_of(NULL, 1, SMALL_BUDGET);
  e->options.is_global = 1;
  (void)table_with(e, 1, 0);
  (void)table_with(e, 1, 0);
  train_tables(e, n_ids, 200);
  cr_assert_gt(fli_table_bytes(e->tables[0]), fli_table_bytes(e->tables[1]));
  const char *problem = embedding_problem(e);
  cr_assert_null(problem, "%s", problem);
  fl_embedding_free(e);
}

/* ---- admission and age --------------------------------------------------- */

Test(embedding_budget, ids_are_admitted_after_so_many_touches)
{
  fl_embedding_table_options options;
  uint32_t t;
  fl_embedding *e = embedding_of(NULL, 1, MIB);
  (void)fl_embedding_table_options_init(&options, sizeof options);
  options.dim = DIM;
  options.admit_after = 3;
  cr_assert_eq(fl_embedding_add_table(e, &options, &t), FL_OK);
  const uint64_t id = 77;
  float out[DIM], gradient[DIM] = {1};
  fl_embedding_bags bags = bags_of(&id, 1, NULL, 1);
  for (int touch = 1; touch <= 3; touch++) {
    cr_assert_eq(fl_embedding_forward(e, t, &bags, out), FL_OK);
    cr_assert_eq(e->tables[t]->n_rows, touch == 3 ? 1 : 0, "touch %d", touch);
    cr_assert_eq(fl_embedding_backward(e, t, &bags, gradient, 0.1f), FL_OK);
  }
  fl_embedding_free(e);
}

Test(embedding_budget, young_rows_are_kept)
{
  fl_embedding_table_options options;
  uint32_t t;
  fl_embedding_report report;
  fl_embedding *e = embedding_of(NULL, 1, SMALL_BUDGET);
  (void)fl_embedding_table_options_init(&options, sizeof options);
  (void)fl_embedding_report_init(&report, sizeof report);
  options.dim = DIM;
  options.prune_from = 0;
  options.keep_for = 2;
  cr_assert_eq(fl_embedding_add_table(e, &options, &t), FL_OK);
  source s = {.kind = UNIQUE};
  for (int adjust = 1; adjust <= 3; adjust++) {
    s.boost = (float)(adjust * adjust); /* what comes later is worth more */
    for (int i = 0; i < 5; i++)
      train_uneven(e, t, &s);
    cr_assert_eq(fl_embedding_adjust(e, &report), FL_OK);
    if (adjust <= 2) cr_assert_eq(report.evicted, 0, "adjust %d", adjust);
    if (adjust == 3) cr_assert_gt(report.evicted, 0);
  }
  fl_embedding_free(e);
}

/* ---- threads ------------------------------------------------------------- */

Test(embedding_budget, order_of_parallel_tasks_does_not_matter)
{
  fl_embedding *e[2];
  enum { MANY = 20000 };
  static uint64_t ids[MANY];
  static float out[2][MANY * DIM], gradient[MANY * DIM];
  heap h[2] = {{0, 0, 0}, {0, 0, 1}};
  for (int i = 0; i < 2; i++) {
    fl_context *context = context_of(&h[i]);
    e[i] = embedding_of(context, 1, 2 * SMALL_BUDGET);
    fl_context_free(context);
    (void)table_with(e[i], 1, 0);
  }
  source s = {.kind = ZIPF, .n = 100000};
  fli_rng_init(&s.rng, 9, FLI_RNG_TEST, 0, 0);
  for (int step = 1; step <= 40; step++) {
    for (size_t i = 0; i < MANY; i++)
      ids[i] = draw(&s);
    for (size_t i = 0; i < MANY * DIM; i++)
      gradient[i] = fli_rng_f32(&s.rng) - 0.5f;
    fl_embedding_bags bags = bags_of(ids, MANY, NULL, MANY);
    for (int i = 0; i < 2; i++) {
      cr_assert_eq(fl_embedding_forward(e[i], 0, &bags, out[i]), FL_OK);
      cr_assert_eq(fl_embedding_backward(e[i], 0, &bags, gradient, 0.1f),
                   FL_OK);
      if (step % 10 == 0) cr_assert_eq(fl_embedding_adjust(e[i], NULL), FL_OK);
    }
    cr_assert_eq(memcmp(out[0], out[1], sizeof out[0]), 0, "step %d", step);
  }
  fl_embedding_free(e[0]);
  fl_embedding_free(e[1]);
}
