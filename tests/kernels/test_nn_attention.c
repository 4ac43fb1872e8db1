/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels of attention, each table against loops in double: blocks of scores
 * with keys that are not seen, alone and one after the other, and rows. */
#include "nn_check.h"

enum { ROW = 48, KEYS_MAX = 70, STATES = 5 };

/* Numbers of one block; the reference reads what was before the call. */
typedef struct block_case {
  size_t n_keys;
  size_t n_queries;
  size_t visible;
} block_case;

static const size_t key_counts[] = {1, 2, 3, 7, 28, 33, KEYS_MAX};
static const size_t query_counts[] = {1, 3, 4, 5, 8, 9, 15, 16, 17, 31, 40};

static int sees(const block_case *b, size_t query, size_t key)
{
  return key < query + b->visible;
}

/* A block in arrays 0 (scores), 1 (dscores) and 2 (greatest, total, factor,
 * dots, each of ROW). */
static flk_scores new_block(const block_case *b)
{
  float *scores = nn_new(0, KEYS_MAX * ROW, 1);
  float *dscores = nn_new(1, KEYS_MAX * ROW, 3);
  float *states = nn_new(2, STATES * ROW, 0);
  nn_draw(scores, KEYS_MAX * ROW, 20.0f, b->n_keys * 100 + b->n_queries);
  nn_draw(dscores, KEYS_MAX * ROW, 1.0f, b->n_keys);
  nn_draw(states, STATES * ROW, 1.0f, b->n_queries);
  return (flk_scores){.n_keys = b->n_keys,
                      .n_queries = b->n_queries,
                      .visible = b->visible,
                      .scores = scores,
                      .row = ROW,
                      .dscores = dscores,
                      .greatest = states,
                      .total = states + ROW,
                      .factor = states + 2 * ROW,
                      .dots = states + 3 * ROW,
                      .is_first = 1,
                      .is_last = 1};
}

static void check_block_guards(void)
{
  for (size_t slot = 0; slot < 3; slot++) {
    nn_check_guards(slot);
  }
}

/* Greatest seen score of a query and the sum of 2^(score - greatest). */
static double total_of(const block_case *b, const float *scores, size_t query,
                       double *greatest)
{
  double total = 0.0;
  *greatest = -INFINITY;
  for (size_t k = 0; k < b->n_keys && sees(b, query, k); k++) {
    *greatest = fmax(*greatest, (double)scores[k * ROW + query]);
  }
  for (size_t k = 0; k < b->n_keys && sees(b, query, k); k++) {
    total += exp2((double)scores[k * ROW + query] - *greatest);
  }
  return total;
}

static void for_each_block(void (*check)(const block_case *))
{
  for (size_t k = 0; k < FLI_COUNT_OF(key_counts); k++) {
    for (size_t q = 0; q < FLI_COUNT_OF(query_counts); q++) {
      const size_t visible[] = {1, 2, 6, key_counts[k]};
      for (size_t v = 0; v < FLI_COUNT_OF(visible); v++) {
        check(&(block_case){key_counts[k], query_counts[q], visible[v]});
      }
    }
  }
}

static void check_softmax(const block_case *b)
{
  static float old[KEYS_MAX * ROW];
  flk_scores s = new_block(b);
  memcpy(old, s.scores, sizeof old);
  nn->attention.softmax(&s);
  for (size_t q = 0; q < b->n_queries; q++) {
    double greatest;
    double total = total_of(b, old, q, &greatest);
    NN_NEAR(s.greatest[q], greatest, q, 0.0, 0.0);
    NN_NEAR(s.total[q], 1.0 / total, q, 0.0, 2e-6);
    for (size_t k = 0; k < b->n_keys; k++) {
      double want = exp2((double)old[k * ROW + q] - greatest);
      if (!sees(b, q, k)) want = 0.0;
      NN_NEAR(s.scores[k * ROW + q], want, k, 1e-29, 2e-6);
    }
  }
  CHECK_EQ_MEM(s.scores + b->n_keys * ROW, old + b->n_keys * ROW,
               (KEYS_MAX - b->n_keys) * ROW * sizeof *old);
  check_block_guards();
}

static void softmax_of_a_block(void)
{
  for_each_block(check_softmax);
}

/* The same keys in two blocks: products of the first times factor go with
 * those of the second. */
static void check_two_blocks(const block_case *b)
{
  static float old[KEYS_MAX * ROW];
  size_t first = b->n_keys / 2;
  if (first == 0 || b->visible < b->n_keys) return;
  flk_scores s = new_block(b);
  memcpy(old, s.scores, sizeof old);
  s.n_keys = s.visible = first;
  s.is_last = 0;
  nn->attention.softmax(&s);
  s.scores += first * ROW;
  s.n_keys = s.visible = b->n_keys - first;
  s.is_first = 0;
  s.is_last = 1;
  nn->attention.softmax(&s);
  s.scores -= first * ROW;
  for (size_t q = 0; q < b->n_queries; q++) {
    double greatest;
    double total = total_of(b, old, q, &greatest);
    NN_NEAR(s.greatest[q], greatest, q, 0.0, 0.0);
    NN_NEAR(s.total[q], 1.0 / total, q, 0.0, 3e-6);
    for (size_t k = 0; k < b->n_keys; k++) {
      float weight = s.scores[k * ROW + q];
      if (k < first) weight *= s.factor[q];
      NN_NEAR(weight, exp2((double)old[k * ROW + q] - greatest), k, 1e-29,
              3e-6);
    }
  }
  check_block_guards();
}

static void softmax_of_one_block_after_the_other(void)
{
  for_each_block(check_two_blocks);
}

static void check_softmax_back(const block_case *b)
{
  static float old[KEYS_MAX * ROW];
  static float dweights[KEYS_MAX * ROW];
  flk_scores s = new_block(b);
  memcpy(old, s.scores, sizeof old);
  memcpy(dweights, s.dscores, sizeof dweights);
  nn->attention.softmax(&s);
  memcpy(s.scores, old, sizeof old);
  nn->attention.softmax_back(&s);
  for (size_t q = 0; q < b->n_queries; q++) {
    double greatest;
    double total = total_of(b, old, q, &greatest);
    for (size_t k = 0; k < b->n_keys; k++) {
      size_t i = k * ROW + q;
      double weight = exp2((double)old[i] - greatest) / total;
      double slope = (double)dweights[i] - (double)s.dots[q];
      if (!sees(b, q, k)) weight = 0.0;
      NN_NEAR(s.scores[i], weight, k, 1e-29, 2e-6);
      NN_NEAR(s.dscores[i], weight * slope, k, 1e-29 + 1e-7 * weight, 3e-6);
    }
  }
  check_block_guards();
}

static void derivative_of_softmax(void)
{
  for_each_block(check_softmax_back);
}

static void nan_fills_its_query_only(void)
{
  static const uint32_t patterns[] = {0x7fc00000, 0xffc00000, 0x7fc00001,
                                      0x7fffffff, 0xffffffff};
  for (size_t p = 0; p < FLI_COUNT_OF(patterns); p++) {
    flk_scores s = new_block(&(block_case){9, 20, 9});
    memcpy(&s.scores[p * ROW + 5], &patterns[p], sizeof(float));
    nn->attention.softmax(&s);
    for (size_t q = 0; q < 20; q++) {
      CHECK(isnan(s.total[q]) == (q == 5));
      CHECK(isnan(s.scores[p * ROW + q]) == (q == 5));
    }
  }
}

/* A key that is not seen may hold anything. */
static void unseen_nan_does_not_count(void)
{
  static float old[KEYS_MAX * ROW];
  flk_scores s = new_block(&(block_case){9, 20, 1});
  for (size_t k = 1; k < 9; k++) {
    for (size_t q = 0; q < k; q++) {
      s.scores[k * ROW + q] = NAN;
      s.dscores[k * ROW + q] = NAN;
    }
  }
  memcpy(old, s.scores, sizeof old);
  nn->attention.softmax(&s);
  for (size_t k = 0; k < 9; k++) {
    for (size_t q = 0; q < 20; q++) {
      CHECK(!isnan(s.scores[k * ROW + q]));
    }
  }
  memcpy(s.scores, old, sizeof old);
  nn->attention.softmax_back(&s);
  for (size_t k = 0; k < 9; k++) {
    for (size_t q = 0; q < 20; q++) {
      CHECK(!isnan(s.scores[k * ROW + q]) && !isnan(s.dscores[k * ROW + q]));
    }
  }
}

static void dots_and_scaling_of_rows(void)
{
  for (size_t n = 1; n <= NN_SHORT; n++) {
    for (size_t rows = 1; rows <= 19; rows += 3) {
      size_t row = n + 5;
      float *a = nn_new(3, rows * row - 5, n % 4);
      float *b = nn_new(4, rows * row - 5, 1);
      float *dots = nn_new(5, rows + FLK_VECTOR_MAX - 1, 2);
      nn_draw(a, rows * row - 5, 1.0f, n);
      nn_draw(b, rows * row - 5, 1.0f, rows);
      nn->attention.row_dots(a, b, row, rows, n, dots);
      for (size_t r = 0; r < rows; r++) {
        double want = 0.0;
        for (size_t c = 0; c < n; c++) {
          want += (double)a[r * row + c] * (double)b[r * row + c];
        }
        NN_NEAR(dots[r], want, r, 3e-6, 0.0);
      }
      nn->attention.scale_rows(a, row, rows, n, dots);
      nn_draw(b, rows * row - 5, 1.0f, n);
      for (size_t i = 0; i < rows * row - 5; i++) {
        float factor = i % row < n ? dots[i / row] : 1.0f;
        CHECK_EQ_F64(a[i], b[i] * factor);
      }
      for (size_t slot = 3; slot < 6; slot++) {
        nn_check_guards(slot);
      }
    }
  }
}

int main(void)
{
  NN_CASE(softmax_of_a_block);
  NN_CASE(softmax_of_one_block_after_the_other);
  NN_CASE(derivative_of_softmax);
  NN_CASE(nan_fills_its_query_only);
  NN_CASE(unseen_nan_does_not_count);
  NN_CASE(dots_and_scaling_of_rows);
  return check_report();
}
