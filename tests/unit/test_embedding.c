/* SPDX-License-Identifier: Apache-2.0 */
/* The store against dense tables in plain C. */
#include <criterion/criterion.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "embedding_fixture.h"

/* ---- equal to a dense table ---------------------------------------------- */

enum { IDS = 300, STEPS = 20, BAGS = 40, BATCH = 400 };

/* A dense table that is trained beside: rows by the id's number. */
typedef struct dense {
  uint32_t dim;
  int is_adagrad;
  float rate;
  float row[IDS][64];
  float square[IDS];
} dense;

static uint64_t id_of(uint32_t number)
{
  if (number == 0) return 0;
  if (number == 1) return UINT64_MAX;
  return number * 0x9e3779b97f4a7c15u;
}

/* First values are the store's. */
static void dense_begin(dense *table, fl_embedding *e, uint32_t t)
{
  for (uint32_t i = 0; i < IDS; i++) {
    uint64_t id = id_of(i);
    fl_embedding_bags bags = bags_of(&id, 1, NULL, 1);
    cr_assert_eq(fl_embedding_forward(e, t, &bags, table->row[i]), FL_OK);
  }
}

static void dense_forward(const dense *table, const fl_embedding_bags *bags,
                          const uint32_t *numbers, float *out)
{
  for (uint64_t b = 0; b < bags->n_bags; b++) {
    float *sum = out + b * table->dim;
    uint64_t begin = bag_begin(bags, b), end = bag_begin(bags, b + 1);
    for (uint32_t j = 0; j < table->dim; j++) {
      sum[j] = 0;
      for (uint64_t i = begin; i < end; i++) {
        float w = bags->weights ? bags->weights[i] : 1.0f;
        sum[j] += w * table->row[numbers[i]][j];
      }
      if (bags->mode == FL_EMBEDDING_MEAN && end > begin)
        sum[j] *= 1.0f / (float)(end - begin);
    }
  }
}

static void dense_step(dense *table, float *row, float *square,
                       const float *gradient)
{
  float step = table->rate;
  if (table->is_adagrad) {
    double sum = 0;
    for (uint32_t j = 0; j < table->dim; j++)
      sum += (double)gradient[j] * gradient[j];
    *square += (float)(sum / table->dim);
    step = table->rate / (sqrtf(*square) + 1e-8f);
  }
  for (uint32_t j = 0; j < table->dim; j++)
    row[j] -= step * gradient[j];
}

static void dense_backward(dense *table, const fl_embedding_bags *bags,
                           const uint32_t *numbers, const float *gradient)
{
  for (uint32_t number = 0; number < IDS; number++) {
    float sum[64] = {0};
    int is_there = 0;
    for (uint64_t b = 0; b < bags->n_bags; b++) {
      uint64_t begin = bag_begin(bags, b), end = bag_begin(bags, b + 1);
      float mean =
          bags->mode == FL_EMBEDDING_MEAN ? 1.0f / (float)(end - begin) : 1.0f;
      for (uint64_t i = begin; i < end; i++) {
        if (numbers[i] != number) continue;
        is_there = 1;
        float factor = bags->weights ? mean * bags->weights[i] : mean;
        for (uint32_t j = 0; j < table->dim; j++)
          sum[j] += factor * gradient[b * table->dim + j];
      }
    }
    if (is_there)
      dense_step(table, table->row[number], &table->square[number], sum);
  }
}

typedef struct batch {
  uint32_t numbers[BATCH];
  uint64_t ids[BATCH];
  uint64_t offsets[BAGS];
  float weights[BATCH];
  float gradient[BAGS * 64];
} batch;

static void draw(batch *b, fli_rng *rng)
{
  uint64_t at = 0;
  for (uint32_t i = 0; i < BAGS; i++) {
    b->offsets[i] = at;
    at += fli_rng_below(rng, 21); /* also empty bags; 400 at most */
    if (at > BATCH) at = BATCH;
  }
  for (uint32_t i = 0; i < BATCH; i++) {
    /* Some ids often, so that a bag has one twice. */
    b->numbers[i] = fli_rng_below(rng, fli_rng_below(rng, 2) ? IDS : 7);
    b->ids[i] = id_of(b->numbers[i]);
    b->weights[i] = 2 * fli_rng_f32(rng) - 1;
  }
  for (uint32_t i = 0; i < BAGS * 64; i++)
    b->gradient[i] = fli_rng_f32(rng) - 0.5f;
}

static void compare(const float *got, const float *want, size_t n, float near)
{
  for (size_t i = 0; i < n; i++) {
    if (near > 0 ? fabsf(got[i] - want[i]) <= near : got[i] == want[i])
      continue;
    cr_assert_fail("value %zu: got %a, want %a", i, (double)got[i],
                   (double)want[i]);
  }
}

static void equals_dense(uint32_t dim, uint32_t mode, int has_weights,
                         int is_adagrad)
{
  static dense table;
  static batch b;
  static float out[BAGS * 64], want[BAGS * 64];
  uint32_t t;
  fl_embedding *e = embedding_of(NULL, is_adagrad, 0);
  t = table_of(e, dim, 0);
  table = (dense){.dim = dim, .is_adagrad = is_adagrad, .rate = 0.1f};
  dense_begin(&table, e, t);
  fli_rng rng;
  fli_rng_init(&rng, dim, FLI_RNG_TEST, mode, (uint32_t)has_weights);
  for (int step = 0; step < STEPS; step++) {
    draw(&b, &rng);
    fl_embedding_bags bags = bags_of(b.ids, BATCH, b.offsets, BAGS);
    bags.mode = mode;
    bags.weights = has_weights ? b.weights : NULL;
    float near = is_adagrad ? 2e-6f * (float)(step + 1) : 0;
    dense_forward(&table, &bags, b.numbers, want);
    cr_assert_eq(fl_embedding_lookup(e, t, &bags, out), FL_OK);
    compare(out, want, BAGS * dim, near * 20);
    cr_assert_eq(fl_embedding_forward(e, t, &bags, out), FL_OK);
    compare(out, want, BAGS * dim, near * 20);
    cr_assert_eq(fl_embedding_backward(e, t, &bags, b.gradient, 0.1f), FL_OK);
    dense_backward(&table, &bags, b.numbers, b.gradient);
  }
  fl_embedding_free(e);
}

Test(embedding, equals_a_dense_table_bit_for_bit_under_sgd)
{
  for (uint32_t dim = 4; dim <= 64; dim += dim) {
    equals_dense(dim, FL_EMBEDDING_SUM, 0, 0);
    equals_dense(dim, FL_EMBEDDING_SUM, 1, 0);
    equals_dense(dim, FL_EMBEDDING_MEAN, 0, 0);
    equals_dense(dim, FL_EMBEDDING_MEAN, 1, 0);
  }
}

Test(embedding, steps_by_row_wise_adagrad_on_summed_gradients)
{
  for (uint32_t dim = 4; dim <= 64; dim += dim) {
    equals_dense(dim, FL_EMBEDDING_SUM, 0, 1);
    equals_dense(dim, FL_EMBEDDING_MEAN, 1, 1);
  }
}

/* ---- lookups ------------------------------------------------------------- */

Test(embedding, lookup_reads_unknown_ids_as_zeros_and_adds_none)
{
  fl_embedding *e = embedding_of(NULL, 0, 0);
  uint32_t t = table_of(e, 16, 0);
  const uint64_t ids[] = {0, UINT64_MAX, 5};
  float out[3 * 16];
  memset(out, 1, sizeof out);
  fl_embedding_bags bags = bags_of(ids, 3, NULL, 3);
  for (int i = 0; i < 2; i++) {
    cr_assert_eq(fl_embedding_lookup(e, t, &bags, out), FL_OK);
    for (size_t j = 0; j < 48; j++)
      cr_assert_eq(fli_f32_bits(out[j]), 0);
  }
  fl_embedding_free(e);
}

Test(embedding, first_values_have_the_deviation_asked_for)
{
  enum { N = 2000, DIM = 16 };
  static float out[N * DIM];
  static uint64_t ids[N];
  fl_embedding *e = embedding_of(NULL, 0, 0);
  uint32_t t = table_of(e, DIM, 0);
  for (uint64_t i = 0; i < N; i++)
    ids[i] = i;
  fl_embedding_bags bags = bags_of(ids, N, NULL, N);
  cr_assert_eq(fl_embedding_forward(e, t, &bags, out), FL_OK);
  double sum = 0, squares = 0, fourth = 0;
  for (size_t i = 0; i < N * DIM; i++) {
    double x = 100.0 * (double)out[i];
    sum += x, squares += x * x, fourth += x * x * x * x;
  }
  cr_assert_float_eq(sum / (N * DIM), 0, 0.02);
  cr_assert_float_eq(squares / (N * DIM), 1, 0.03);
  cr_assert_float_eq(fourth / (N * DIM), 2.7, 0.2); /* of four uniforms */
  fl_embedding_free(e);
}

Test(embedding, a_large_table_finds_every_id_again)
{
  enum { N = 100000, DIM = 4 };
  float *out = malloc(N * DIM * sizeof *out), *again = malloc(N * DIM * 4);
  uint64_t *ids = malloc(N * sizeof *ids);
  cr_assert(out && again && ids);
  fl_embedding *e = embedding_of(NULL, 0, 0);
  uint32_t t = table_of(e, DIM, 0);
  for (uint64_t i = 0; i < N; i++)
    ids[i] = i << 40; /* close neighbours in the upper bits */
  fl_embedding_bags bags = bags_of(ids, N, NULL, N);
  cr_assert_eq(fl_embedding_forward(e, t, &bags, out), FL_OK);
  cr_assert_eq(fl_embedding_lookup(e, t, &bags, again), FL_OK);
  cr_assert_eq(memcmp(out, again, N * DIM * sizeof *out), 0);
  for (size_t i = 0; i < N; i++)
    cr_assert(out[i * DIM] != 0 || out[i * DIM + 1] != 0);
  fl_embedding_free(e);
  free(out), free(again), free(ids);
}

/* ---- refusals ------------------------------------------------------------ */

Test(embedding, bags_that_would_read_elsewhere_are_refused)
{
  fl_embedding *e = embedding_of(NULL, 0, 0);
  uint32_t t = table_of(e, 16, 0);
  const uint64_t ids[4] = {1, 2, 3, 4};
  const uint64_t back[3] = {0, 3, 2}, beyond[2] = {0, 5}, late[2] = {1, 2};
  float out[4 * 16], weights[4] = {1, NAN, 1, 1};
  struct {
    const uint64_t *offsets;
    uint64_t n_bags;
    fl_status want;
  } cases[] = {{back, 3, FL_E_RANGE}, {beyond, 2, FL_E_RANGE},
               {late, 2, FL_E_RANGE}, {NULL, 3, FL_E_DIM},
               {NULL, 0, FL_E_DIM},   {back, 0, FL_E_DIM},
               {NULL, 4, FL_OK}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    fl_embedding_bags bags = bags_of(ids, 4, cases[i].offsets, cases[i].n_bags);
    cr_assert_eq(fl_embedding_lookup(e, t, &bags, out), cases[i].want, "%zu",
                 i);
    cr_assert_eq(fl_embedding_forward(e, t, &bags, out), cases[i].want);
    cr_assert_eq(fl_embedding_backward(e, t, &bags, out, 0), cases[i].want);
  }
  fl_embedding_bags bags = bags_of(ids, 4, NULL, 4);
  bags.weights = weights;
  cr_assert_eq(fl_embedding_lookup(e, t, &bags, out), FL_E_NOT_FINITE);
  bags.weights = NULL;
  bags.mode = 3;
  cr_assert_eq(fl_embedding_lookup(e, t, &bags, out), FL_E_OPTIONS);
  bags.mode = FL_EMBEDDING_SUM;
  cr_assert_eq(fl_embedding_lookup(e, t + 1, &bags, out), FL_E_NOT_FOUND);
  cr_assert_eq(fl_embedding_lookup(e, t, &bags, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_embedding_lookup(e, t, NULL, out), FL_E_ARGUMENT);
  cr_assert_eq(fl_embedding_lookup(NULL, t, &bags, out), FL_E_ARGUMENT);
  fl_embedding_free(e);
}

Test(embedding, gradients_that_are_not_finite_change_nothing)
{
  fl_embedding *e = embedding_of(NULL, 1, 0);
  uint32_t t = table_of(e, 16, 0);
  const uint64_t ids[2] = {1, 2};
  float before[32], after[32], gradient[32] = {1, 2, 3};
  fl_embedding_bags bags = bags_of(ids, 2, NULL, 2);
  cr_assert_eq(fl_embedding_forward(e, t, &bags, before), FL_OK);
  gradient[31] = NAN;
  cr_assert_eq(fl_embedding_backward(e, t, &bags, gradient, 1),
               FL_E_NOT_FINITE);
  gradient[31] = INFINITY;
  cr_assert_eq(fl_embedding_backward(e, t, &bags, gradient, 1),
               FL_E_NOT_FINITE);
  gradient[31] = 0;
  cr_assert_eq(fl_embedding_backward(e, t, &bags, gradient, NAN),
               FL_E_NOT_FINITE);
  cr_assert_eq(fl_embedding_lookup(e, t, &bags, after), FL_OK);
  cr_assert_eq(memcmp(before, after, sizeof before), 0);
  /* A square that is no number any more leaves its row alone. */
  gradient[0] = 1e30f;
  cr_assert_eq(fl_embedding_backward(e, t, &bags, gradient, 1), FL_OK);
  cr_assert_eq(fl_embedding_lookup(e, t, &bags, after), FL_OK);
  cr_assert_eq(memcmp(before, after, 64), 0);
  fl_embedding_free(e);
}

Test(embedding, options_out_of_range_are_refused)
{
  fl_embedding *e = NULL;
  uint32_t t;
  fl_embedding_options options;
  fl_embedding_table_options table;
  (void)fl_embedding_options_init(&options, sizeof options);
  options.optimiser = 3;
  cr_assert_eq(fl_embedding_new(&e, NULL, &options), FL_E_OPTIONS);
  (void)fl_embedding_options_init(&options, sizeof options);
  options.decay = NAN;
  cr_assert_eq(fl_embedding_new(&e, NULL, &options), FL_E_OPTIONS);
  (void)fl_embedding_options_init(&options, sizeof options);
  options.epsilon = 0;
  cr_assert_eq(fl_embedding_new(&e, NULL, &options), FL_E_OPTIONS);
  (void)fl_embedding_options_init(&options, sizeof options);
  options.byte_budget = 100;
  cr_assert_eq(fl_embedding_new(&e, NULL, &options), FL_E_LIMIT);
  cr_assert_null(e);
  e = embedding_of(NULL, 0, 0);
  (void)fl_embedding_table_options_init(&table, sizeof table);
  const uint32_t shapes[][2] = {{0, 0}, {6, 1}, {24, 4}, {1028, 1}};
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    table.dim = shapes[i][0], table.chunks = shapes[i][1];
    cr_assert_eq(fl_embedding_add_table(e, &table, &t), FL_E_DIM, "%zu", i);
  }
  table.dim = 48, table.chunks = 3;
  cr_assert_eq(fl_embedding_add_table(e, &table, &t), FL_E_OPTIONS);
  table.chunks = 4, table.keep_for = 4;
  cr_assert_eq(fl_embedding_add_table(e, &table, &t), FL_E_OPTIONS);
  table.keep_for = 0, table.share = 0;
  cr_assert_eq(fl_embedding_add_table(e, &table, &t), FL_E_OPTIONS);
  fl_embedding_free(e);
}

/* ---- fewer bits ---------------------------------------------------------- */

/* Towards 1 by steps far below the grid: chance takes them there. */
static double trained_mean(uint32_t precision)
{
  enum { N = 64, DIM = 16 };
  static float out[N * DIM], gradient[N * DIM];
  uint64_t ids[N];
  uint32_t t;
  fl_embedding_table_options options;
  fl_embedding *e = embedding_of(NULL, 0, 0);
  (void)fl_embedding_table_options_init(&options, sizeof options);
  options.dim = DIM;
  options.precision = precision;
  cr_assert_eq(fl_embedding_add_table(e, &options, &t), FL_OK);
  for (uint64_t i = 0; i < N; i++)
    ids[i] = i * i;
  fl_embedding_bags bags = bags_of(ids, N, NULL, N);
  for (int step = 0; step < 2000; step++) {
    cr_assert_eq(fl_embedding_forward(e, t, &bags, out), FL_OK);
    for (size_t i = 0; i < N * DIM; i++)
      gradient[i] = -1.0f;
    cr_assert_eq(fl_embedding_backward(e, t, &bags, gradient, 0.0005f), FL_OK);
  }
  double sum = 0;
  cr_assert_eq(fl_embedding_lookup(e, t, &bags, out), FL_OK);
  for (size_t i = 0; i < N * DIM; i++)
    sum += (double)out[i];
  float again[N * DIM];
  cr_assert_eq(fl_embedding_forward(e, t, &bags, again), FL_OK);
  cr_assert_eq(memcmp(out, again, sizeof out), 0);
  fl_embedding_free(e);
  return sum / (N * DIM);
}

Test(embedding, small_steps_are_not_lost_in_fewer_bits)
{
  cr_assert_float_eq(trained_mean(FL_EMBEDDING_F32), 1.0, 0.002);
  cr_assert_float_eq(trained_mean(FL_EMBEDDING_BF16), 1.0, 0.01);
  cr_assert_float_eq(trained_mean(FL_EMBEDDING_I8), 1.0, 0.01);
}

Test(embedding, chunks_survive_in_every_precision)
{
  float values[64], back[64];
  fli_rng rng;
  fli_rng_init(&rng, 4, FLI_RNG_TEST, 0, 0);
  for (size_t i = 0; i < 64; i++)
    values[i] = fli_rng_f32(&rng) - 0.5f;
  values[17] = 0, values[18] = -0.0f;
  for (uint32_t precision = 1; precision <= 3; precision++) {
    fli_table table = {.chunk_floats = 16, .precision = precision};
    uint8_t bytes[256];
    table.chunk_bytes = fli_chunk_bytes(precision, 16);
    cr_assert_eq(table.chunk_bytes, precision == 1   ? 64
                                    : precision == 2 ? 32
                                                     : 20);
    fli_chunks_encode(&table, bytes, values, 4, 99);
    fli_chunks_decode(&table, bytes, back, 4);
    for (size_t i = 0; i < 64; i++) {
      float near = precision == 1 ? 0 : precision == 2 ? 0.004f : 0.0041f;
      cr_assert_leq(fabsf(values[i] - back[i]), near, "%u: %zu",
                    (unsigned)precision, i);
    }
    cr_assert_eq(back[17], 0);
    /* Extremes stay finite, and what is too small for a scale is 0. */
    float extremes[16] = {3.4e38f, -3.4e38f};
    fli_chunks_encode(&table, bytes, extremes, 1, 1);
    cr_assert(fli_row_is_finite(&table, bytes, table.chunk_bytes));
    float tiny[16] = {1e-44f};
    fli_chunks_encode(&table, bytes, tiny, 1, 1);
    cr_assert(fli_row_is_finite(&table, bytes, table.chunk_bytes));
  }
}
