/* SPDX-License-Identifier: Apache-2.0 */
/* AUC by ranks against all pairs, one by one. */
#include "common/auc.h"

#include <math.h>

#include "check.h"

enum { N = 300 };

static uint32_t draw(uint64_t *state, uint32_t bound)
{
  *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407u;
  return (uint32_t)((*state >> 33) % bound);
}

static double by_pairs(const float *scores, const uint8_t *labels, size_t n)
{
  uint64_t doubled = 0, pairs = 0;
  for (size_t i = 0; i < n; i++) {
    for (size_t j = 0; j < n; j++) {
      if (!labels[i] || labels[j]) continue;
      pairs++;
      doubled += scores[i] > scores[j] ? 2 : scores[i] == scores[j];
    }
  }
  return (double)doubled / 2.0 / (double)pairs;
}

static void equals_all_pairs_with_many_ties_and_none(void)
{
  static const uint32_t levels[] = {1, 2, 5, 40, 1u << 30};
  for (uint64_t seed = 0; seed < 40; seed++) {
    for (size_t k = 0; k < 5; k++) {
      float scores[N];
      uint8_t labels[N];
      uint64_t state = seed;
      size_t n = 2 + draw(&state, N - 2);
      for (size_t i = 0; i < n; i++) {
        scores[i] = (float)draw(&state, levels[k]) - 3.0f;
        labels[i] = draw(&state, 3) == 0;
      }
      labels[0] = 1;
      labels[1] = 0;
      double auc = -1;
      CHECK_EQ_I64(auc_of(scores, labels, n, &auc), 0);
      CHECK_EQ_F64(auc, by_pairs(scores, labels, n));
    }
  }
}

static void knows_the_extremes(void)
{
  static const float scores[] = {-INFINITY, -1, 0, 2, INFINITY};
  static const uint8_t up[] = {0, 0, 1, 1, 1}, down[] = {1, 1, 0, 0, 0};
  static const float same[5];
  double auc;
  CHECK_EQ_I64(auc_of(scores, up, 5, &auc), 0);
  CHECK_EQ_F64(auc, 1);
  CHECK_EQ_I64(auc_of(scores, down, 5, &auc), 0);
  CHECK_EQ_F64(auc, 0);
  CHECK_EQ_I64(auc_of(same, up, 5, &auc), 0);
  CHECK_EQ_F64(auc, .5);
}

static void zeros_of_both_signs_are_equal(void)
{
  static const float scores[] = {-0.0f, 0.0f};
  static const uint8_t labels[] = {0, 1};
  double auc;
  CHECK_EQ_I64(auc_of(scores, labels, 2, &auc), 0);
  CHECK_EQ_F64(auc, .5);
}

static void refuses_one_label_alone_and_nan(void)
{
  static const float scores[] = {1, NAN, 3};
  static const uint8_t ones[] = {1, 1, 1}, zeros[3], both[] = {0, 1, 1};
  double auc = -1;
  CHECK_EQ_I64(auc_of(scores, ones, 1, &auc), -2);
  CHECK_EQ_F64(auc, .5);
  CHECK_EQ_I64(auc_of(scores, zeros, 1, &auc), -2);
  CHECK_EQ_I64(auc_of(scores, both, 3, &auc), -2);
  CHECK_EQ_I64(auc_of(NULL, NULL, 0, &auc), -2);
}

int main(void)
{
  CHECK_CASE(equals_all_pairs_with_many_ties_and_none);
  CHECK_CASE(knows_the_extremes);
  CHECK_CASE(zeros_of_both_signs_are_equal);
  CHECK_CASE(refuses_one_label_alone_and_nan);
  return check_report();
}
