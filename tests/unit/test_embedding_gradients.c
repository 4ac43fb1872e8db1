/* SPDX-License-Identifier: Apache-2.0 */
/* Backward against finite differences of forward: a loss of the bags' sums,
 * each value of each row moved to and fro. */
#include <criterion/criterion.h>

#include <math.h>

#include "embedding_fixture.h"

enum { DIM = 16, CHUNKS = 4, ROWS = 9, IDS = 24, BAGS = 7 };

/* Two bags are empty; ids are in a bag twice, and in several. Rank 8 is in
 * none. */
static const uint64_t offsets[BAGS] = {0, 0, 5, 6, 14, 14, 20};
static const uint32_t ranks[IDS] = {0, 1, 2, 1, 3, 4, 0, 0, 0, 5, 6, 1,
                                    7, 2, 3, 7, 3, 4, 0, 5, 6, 6, 6, 1};

static uint64_t id_of(uint32_t rank)
{
  if (rank == 0) return UINT64_MAX;
  return rank == 1 ? 0 : rank * 0x9e3779b97f4a7c15u;
}

typedef struct problem {
  fl_embedding *e;
  uint32_t t;
  fl_embedding_bags bags;
  uint64_t ids[IDS];
  float weights[IDS];
  float factors[BAGS * DIM]; /* of the loss */
} problem;

/* Rows begin with values of about 1, so that their squares matter. */
static void begin(problem *p, uint32_t mode, int has_weights)
{
  fli_rng rng;
  fl_embedding_table_options options;
  fli_rng_init(&rng, 3, FLI_RNG_TEST, mode, has_weights ? 1 : 0);
  p->e = embedding_of(NULL, 0, 0);
  (void)fl_embedding_table_options_init(&options, sizeof options);
  options.dim = DIM;
  options.chunks = CHUNKS;
  options.init_scale = 1;
  cr_assert_eq(fl_embedding_add_table(p->e, &options, &p->t), FL_OK);
  for (uint32_t i = 0; i < IDS; i++) {
    p->ids[i] = id_of(ranks[i]);
    p->weights[i] = 2 * fli_rng_f32(&rng) - 1;
  }
  for (uint32_t i = 0; i < BAGS * DIM; i++)
    p->factors[i] = 2 * fli_rng_f32(&rng) - 1;
  p->bags = bags_of(p->ids, IDS, offsets, BAGS);
  p->bags.mode = mode;
  p->bags.weights = has_weights ? p->weights : NULL;
  for (uint32_t rank = 0; rank < ROWS; rank++) {
    float row[DIM];
    uint64_t id = id_of(rank);
    fl_embedding_bags one = bags_of(&id, 1, NULL, 1);
    cr_assert_eq(fl_embedding_forward(p->e, p->t, &one, row), FL_OK);
  }
}

/* Sum of factor (x + x^2 / 2), of which central differences are exact. */
static double loss_of(const problem *p)
{
  float out[BAGS * DIM];
  double sum = 0;
  cr_assert_eq(fl_embedding_forward(p->e, p->t, &p->bags, out), FL_OK);
  for (size_t i = 0; i < BAGS * DIM; i++)
    sum += (double)p->factors[i] * ((double)out[i] + 0.5 * out[i] * out[i]);
  return sum;
}

/* A step along a unit vector: what SGD does with a bag of one id. */
static void move(const problem *p, uint32_t rank, size_t at, float by)
{
  float gradient[DIM] = {0};
  uint64_t id = id_of(rank);
  fl_embedding_bags one = bags_of(&id, 1, NULL, 1);
  gradient[at] = -by;
  cr_assert_eq(fl_embedding_backward(p->e, p->t, &one, gradient, 1), FL_OK);
}

/* One step with rate 1 has moved a row by its gradient. */
static void compare_with_step(problem *p, double want[ROWS][DIM])
{
  float before[ROWS][DIM], after[DIM], out[BAGS * DIM], gradient[BAGS * DIM];
  for (uint32_t rank = 0; rank < ROWS; rank++)
    cr_assert_eq(
        fl_embedding_copy_row(p->e, p->t, id_of(rank), before[rank], NULL),
        FL_OK);
  cr_assert_eq(fl_embedding_forward(p->e, p->t, &p->bags, out), FL_OK);
  for (size_t i = 0; i < BAGS * DIM; i++)
    gradient[i] = p->factors[i] * (1 + out[i]);
  cr_assert_eq(fl_embedding_backward(p->e, p->t, &p->bags, gradient, 1), FL_OK);
  double most = 0;
  for (uint32_t rank = 0; rank < ROWS; rank++) {
    cr_assert_eq(fl_embedding_copy_row(p->e, p->t, id_of(rank), after, NULL),
                 FL_OK);
    for (size_t i = 0; i < DIM; i++) {
      double got = (double)before[rank][i] - (double)after[i];
      cr_assert_float_eq(got, want[rank][i], 1e-4 + 1e-4 * fabs(want[rank][i]),
                         "row %u, value %zu: got %g, want %g", (unsigned)rank,
                         i, got, want[rank][i]);
      if (rank == 8) cr_assert_eq(got, 0);
      most = fmax(most, fabs(got));
    }
  }
  cr_assert_gt(most, 0.1);
}

static void check_gradient(uint32_t mode, int has_weights)
{
  const float h = 0x1p-5f;
  double want[ROWS][DIM];
  problem p;
  begin(&p, mode, has_weights);
  for (uint32_t rank = 0; rank < ROWS; rank++) {
    for (size_t i = 0; i < DIM; i++) {
      move(&p, rank, i, h);
      double above = loss_of(&p);
      move(&p, rank, i, -2 * h);
      double below = loss_of(&p);
      move(&p, rank, i, h);
      want[rank][i] = (above - below) / (2 * (double)h);
    }
  }
  compare_with_step(&p, want);
  fl_embedding_free(p.e);
}

Test(embedding_gradients, of_sums_are_those_of_finite_differences)
{
  check_gradient(FL_EMBEDDING_SUM, 0);
}

Test(embedding_gradients, of_means_are_those_of_finite_differences)
{
  check_gradient(FL_EMBEDDING_MEAN, 0);
}

Test(embedding_gradients, of_weighted_bags_are_those_of_finite_differences)
{
  check_gradient(FL_EMBEDDING_SUM, 1);
  check_gradient(FL_EMBEDDING_MEAN, 1);
}
