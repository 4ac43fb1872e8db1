/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of attention.h; included once per instruction set. The softmax
 * goes along blocks of keys with the running greatest and total of
 * FlashAttention (T. Dao et al., 2022, algorithms 1 and 4). Keys that a query
 * does not see are at the end of its column. */
#ifndef FLK_NN_ATTENTION_BODY_H
#define FLK_NN_ATTENTION_BODY_H

#include "kernels/nn/nn.h"
#include "kernels/nn/vec_isa.h"

/* 2^x for x <= 0: 2^n 2^r with |r| <= 1/2, 2^r by a polynomial of degree 5
 * (minimax among those that give 1 at 0, error 9.2e-8). Relative error 2e-7,
 * and 2^-100 is the least: what is below counts for nothing beside the 1 of
 * the greatest score, and products with it stay normal numbers. NaN stays. */
NN_INLINE nn_vec exp2_down(nn_vec x)
{
  /* The low bits of x + shift are those of the exponent of 2^n. */
  const float shift = 12582912.0f + 127.0f; /* 1.5 2^23 + bias */
  nn_vec bounded = vec_at_least(x, -100.0f);
  nn_vec shifted = bounded + shift;
  nn_vec r = bounded - (shifted - shift);
  nn_vec p = vec_of(1.3264727e-3f);
  p = p * r + 9.6715127e-3f;
  p = p * r + 5.5507337e-2f;
  p = p * r + 2.4022242e-1f;
  p = p * r + 6.9314698e-1f;
  p = p * r + 1.0f;
  return p * (nn_vec)((nn_ivec)shifted << 23);
}

/* ---- rows ---- */

static void row_dots(const float *a, const float *b, size_t row, size_t n_rows,
                     size_t n_columns, float *dots_of)
{
  size_t r = 0;
  for (; r < n_rows; r++) {
    nn_vec sum = {0};
    NN_EACH(n_columns, sum += vec_get(a + at, count) * vec_get(b + at, count));
    dots_of[r] = vec_sum(sum);
    a += row;
    b += row;
  }
  for (; r % NN_WIDTH > 0; r++) {
    dots_of[r] = 0.0f;
  }
}

static void scale_rows(float *x, size_t row, size_t n_rows, size_t n_columns,
                       const float *factors)
{
  for (size_t r = 0; r < n_rows; r++, x += row) {
    float factor = factors[r];
    NN_EACH(n_columns, vec_put(x + at, vec_get(x + at, count) * factor, count));
  }
}

static void fetch(const float *at, size_t n)
{
  for (size_t i = 0; i < n; i += 64 / sizeof *at) {
    __builtin_prefetch(at + i, 0, 2);
  }
}

/* ---- softmax ---- */

/* How many keys the queries of the vector at `column` see: all of them the
 * first `by_all`, some of them the first `by_some`. */
typedef struct seen_keys {
  size_t by_all;
  size_t by_some;
} seen_keys;

NN_INLINE seen_keys count_seen(const flk_scores *s, size_t column)
{
  size_t by_all = column + s->visible;
  size_t by_some = by_all + NN_WIDTH - 1;
  return (seen_keys){by_all < s->n_keys ? by_all : s->n_keys,
                     by_some < s->n_keys ? by_some : s->n_keys};
}

/* Which lanes see the key that is `beyond` behind the last one seen by all. */
NN_INLINE nn_ivec seeing(size_t beyond)
{
  return vec_lanes() > (int32_t)beyond - (nn_ivec){0};
}

NN_INLINE nn_vec *score_at(float *scores, const flk_scores *s, size_t r)
{
  return (nn_vec *)(scores + r * s->row);
}

NN_INLINE nn_vec greatest_of(const flk_scores *s, float *scores, seen_keys seen,
                             nn_vec greatest)
{
  nn_vec second = greatest;
  nn_vec nothing = vec_of(-__builtin_inff());
  size_t r = 0;
  for (; r + 2 <= seen.by_all; r += 2) {
    greatest = vec_max(*score_at(scores, s, r), greatest);
    second = vec_max(*score_at(scores, s, r + 1), second);
  }
  for (; r < seen.by_some; r++) {
    nn_vec x = *score_at(scores, s, r);
    if (r >= seen.by_all) x = vec_select(seeing(r - seen.by_all), x, nothing);
    greatest = vec_max(x, greatest);
  }
  return vec_max(second, greatest);
}

/* From scores to weights; their sum. */
NN_INLINE nn_vec weigh(const flk_scores *s, float *scores, seen_keys seen,
                       nn_vec greatest)
{
  nn_vec total = {0};
  for (size_t r = 0; r < seen.by_all; r++) {
    nn_vec *x = score_at(scores, s, r);
    nn_vec weight = exp2_down(*x - greatest);
    *x = weight;
    total += weight;
  }
  for (size_t r = seen.by_all; r < seen.by_some; r++) {
    nn_vec *x = score_at(scores, s, r);
    nn_vec weight = exp2_down(*x - greatest);
    *x = vec_select(seeing(r - seen.by_all), weight, (nn_vec){0});
    total += *x;
  }
  for (size_t r = seen.by_some; r < s->n_keys; r++) {
    *score_at(scores, s, r) = (nn_vec){0};
  }
  return total;
}

static void attention_softmax(const flk_scores *s)
{
  for (size_t c = 0; c < s->n_queries; c += NN_WIDTH) {
    float *scores = s->scores + c;
    seen_keys seen = count_seen(s, c);
    nn_vec *total_at = (nn_vec *)(s->total + c);
    nn_vec *greatest_at = (nn_vec *)(s->greatest + c);
    nn_vec old = s->is_first ? vec_of(-__builtin_inff()) : *greatest_at;
    nn_vec greatest = greatest_of(s, scores, seen, old);
    nn_vec total = weigh(s, scores, seen, greatest);
    if (!s->is_first) {
      nn_vec factor = exp2_down(old - greatest);
      *(nn_vec *)(s->factor + c) = factor;
      total += *total_at * factor;
    }
    if (s->is_last) total = 1.0f / total;
    *greatest_at = greatest;
    *total_at = total;
  }
}

/* One column of vectors. */
NN_INLINE void back_column(const flk_scores *s, size_t c)
{
  seen_keys seen = count_seen(s, c);
  nn_vec greatest = *(const nn_vec *)(s->greatest + c);
  nn_vec scale = *(const nn_vec *)(s->total + c);
  nn_vec dot = *(const nn_vec *)(s->dots + c);
  for (size_t r = 0; r < seen.by_some; r++) {
    nn_vec *x = score_at(s->scores + c, s, r);
    nn_vec *dx = score_at(s->dscores + c, s, r);
    nn_vec weight = exp2_down(*x - greatest) * scale;
    nn_vec dscore = weight * (*dx - dot);
    if (r >= seen.by_all) {
      nn_ivec mask = seeing(r - seen.by_all);
      weight = vec_select(mask, weight, (nn_vec){0});
      dscore = vec_select(mask, dscore, (nn_vec){0});
    }
    *x = weight;
    *dx = dscore;
  }
  for (size_t r = seen.by_some; r < s->n_keys; r++) {
    *score_at(s->scores + c, s, r) = (nn_vec){0};
    *score_at(s->dscores + c, s, r) = (nn_vec){0};
  }
}

static void attention_softmax_back(const flk_scores *s)
{
  for (size_t c = 0; c < s->n_queries; c += NN_WIDTH) {
    back_column(s, c);
  }
}

static void fill_attention(flk_nn_table *table)
{
  table->attention =
      (flk_attention_kernels){.softmax = attention_softmax,
                              .softmax_back = attention_softmax_back,
                              .row_dots = row_dots,
                              .scale_rows = scale_rows,
                              .fetch = fetch};
}

#endif
