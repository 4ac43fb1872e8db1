/* SPDX-License-Identifier: Apache-2.0 */
/* Attention against the simplest loops in double, and those against finite
 * differences; over widths and lengths on both sides of what blocks, panels and
 * vectors hold, and every table of kernels. Scratch and results begin as NaN:
 * nothing is read before it is written. */
#include "linalg/attention.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "base/rng.h"
#include "kernels/nn/nn.h"

enum { SEED = 23 };

/* Arrays of one case; every array has exactly the size it should. */
typedef struct fixture {
  fli_attention attention;
  fli_attention_range range;
  size_t n_in;
  size_t n_out;
  float *qkv;
  float *dy;
} fixture;

static float *new_floats(size_t n)
{
  float *values = malloc((n > 0 ? n : 1) * sizeof *values);
  cr_assert_not_null(values);
  for (size_t i = 0; i < n; i++) {
    values[i] = NAN;
  }
  return values;
}

static void fill(fli_rng *rng, float *values, size_t n, float scale)
{
  for (size_t i = 0; i < n; i++) {
    values[i] = scale * (2.0f * fli_rng_f32(rng) - 1.0f);
  }
}

/* `scale` of queries and keys */
static fixture new_fixture(fli_attention attention, size_t n, float scale)
{
  fixture f = {.attention = attention};
  fli_attention_init(&f.attention);
  size_t width = attention.heads * attention.head_width;
  f.n_out = n * attention.tokens * width;
  f.n_in = 3 * f.n_out;
  f.qkv = new_floats(f.n_in);
  f.dy = new_floats(f.n_out);
  fli_rng rng;
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, attention.tokens,
               (uint32_t)attention.head_width);
  fill(&rng, f.qkv, f.n_in, 1.0f);
  fill(&rng, f.dy, f.n_out, 1.0f);
  for (size_t i = 0; i < f.n_in; i++) {
    if (i % (3 * width) < 2 * width) f.qkv[i] *= scale;
  }
  f.range = (fli_attention_range){.n = n,
                                  .qkv = f.qkv,
                                  .y = new_floats(f.n_out),
                                  .kept = new_floats(n * f.attention.n_kept),
                                  .dy = f.dy,
                                  .dqkv = new_floats(f.n_in),
                                  .scratch = new_floats(f.attention.n_scratch)};
  return f;
}

static void free_fixture(fixture *f)
{
  free(f->qkv);
  free(f->dy);
  free(f->range.y);
  free(f->range.kept);
  free(f->range.dqkv);
  free(f->range.scratch);
}

static void run(const fixture *f)
{
  fli_attention_forward(&f->attention, &f->range);
  for (size_t i = 0; i < f->attention.n_scratch; i++) {
    f->range.scratch[i] = NAN;
  }
  fli_attention_backward(&f->attention, &f->range);
}

/* ---- the same in plain loops ---- */

/* Of one sample and head: offsets of rows of q (k and v are `width` behind). */
typedef struct place {
  const fli_attention *attention;
  size_t width;
  size_t in;
  size_t out;
} place;

static place place_of(const fli_attention *attention, size_t sample,
                      size_t head)
{
  size_t width = attention->heads * attention->head_width;
  size_t row = sample * attention->tokens;
  return (place){attention, width,
                 row * 3 * width + head * attention->head_width,
                 row * width + head * attention->head_width};
}

static size_t in_at(const place *p, size_t part, size_t token, size_t c)
{
  return p->in + (3 * token + part) * p->width + c;
}

static size_t out_at(const place *p, size_t token, size_t c)
{
  return p->out + token * p->width + c;
}

static size_t n_seen(const place *p, size_t token)
{
  return p->attention->is_causal ? token + 1 : p->attention->tokens;
}

/* The weights of token t. */
static void plain_weights(const place *p, const double *qkv, size_t t,
                          double *weights)
{
  size_t d = p->attention->head_width;
  size_t n = n_seen(p, t);
  double greatest = -INFINITY;
  double total = 0.0;
  for (size_t k = 0; k < n; k++) {
    double sum = 0.0;
    for (size_t c = 0; c < d; c++) {
      sum += qkv[in_at(p, 0, t, c)] * qkv[in_at(p, 1, k, c)];
    }
    weights[k] = sum / sqrt((double)d);
    if (weights[k] > greatest) greatest = weights[k];
  }
  for (size_t k = 0; k < n; k++) {
    weights[k] = exp(weights[k] - greatest);
    total += weights[k];
  }
  for (size_t k = 0; k < n; k++) {
    weights[k] /= total;
  }
}

static void plain_forward(const place *p, const double *qkv, double *y)
{
  double *weights = malloc(p->attention->tokens * sizeof *weights);
  for (size_t t = 0; t < p->attention->tokens; t++) {
    plain_weights(p, qkv, t, weights);
    for (size_t c = 0; c < p->attention->head_width; c++) {
      double sum = 0.0;
      for (size_t k = 0; k < n_seen(p, t); k++) {
        sum += weights[k] * qkv[in_at(p, 2, k, c)];
      }
      y[out_at(p, t, c)] = sum;
    }
  }
  free(weights);
}

/* dqkv is 0 before. */
static void plain_backward(const place *p, const double *qkv, const double *dy,
                           double *dqkv)
{
  size_t d = p->attention->head_width;
  double *weights = malloc(2 * p->attention->tokens * sizeof *weights);
  double *dweights = weights + p->attention->tokens;
  for (size_t t = 0; t < p->attention->tokens; t++) {
    double dot = 0.0;
    plain_weights(p, qkv, t, weights);
    for (size_t k = 0; k < n_seen(p, t); k++) {
      dweights[k] = 0.0;
      for (size_t c = 0; c < d; c++) {
        dweights[k] += dy[out_at(p, t, c)] * qkv[in_at(p, 2, k, c)];
        dqkv[in_at(p, 2, k, c)] += weights[k] * dy[out_at(p, t, c)];
      }
      dot += weights[k] * dweights[k];
    }
    for (size_t k = 0; k < n_seen(p, t); k++) {
      double dscore = weights[k] * (dweights[k] - dot) / sqrt((double)d);
      for (size_t c = 0; c < d; c++) {
        dqkv[in_at(p, 0, t, c)] += dscore * qkv[in_at(p, 1, k, c)];
        dqkv[in_at(p, 1, k, c)] += dscore * qkv[in_at(p, 0, t, c)];
      }
    }
  }
  free(weights);
}

typedef struct plain {
  double *qkv;
  double *y;
  double *dy;
  double *dqkv;
} plain;

static plain new_plain(const fixture *f)
{
  plain p = {malloc(f->n_in * sizeof(double)), calloc(f->n_out, sizeof(double)),
             malloc(f->n_out * sizeof(double)),
             calloc(f->n_in, sizeof(double))};
  cr_assert(p.qkv && p.y && p.dy && p.dqkv);
  for (size_t i = 0; i < f->n_in; i++) {
    p.qkv[i] = (double)f->qkv[i];
  }
  for (size_t i = 0; i < f->n_out; i++) {
    p.dy[i] = (double)f->dy[i];
  }
  for (size_t sample = 0; sample < f->range.n; sample++) {
    for (size_t head = 0; head < f->attention.heads; head++) {
      place at = place_of(&f->attention, sample, head);
      plain_forward(&at, p.qkv, p.y);
      plain_backward(&at, p.qkv, p.dy, p.dqkv);
    }
  }
  return p;
}

static void free_plain(plain *p)
{
  free(p->qkv);
  free(p->y);
  free(p->dy);
  free(p->dqkv);
}

/* ---- comparisons ---- */

static const char *describe(const fli_attention *a)
{
  static char text[200];
  (void)snprintf(text, sizeof text,
                 "seed %d, %s: tokens %zu heads %zu width %zu causal %d", SEED,
                 flk_nn()->name, a->tokens, a->heads, a->head_width,
                 a->is_causal);
  return text;
}

/* Errors in proportion to the greatest of the values. */
static void check_close(const fixture *f, const char *name, const float *got,
                        const double *want, size_t n)
{
  double greatest = 1e-30;
  for (size_t i = 0; i < n; i++) {
    if (fabs(want[i]) > greatest) greatest = fabs(want[i]);
  }
  for (size_t i = 0; i < n; i++) {
    cr_assert(fabs((double)got[i] - want[i]) <= 4e-6 * greatest,
              "%s: %s[%zu]: got %g, want %g of at most %g",
              describe(&f->attention), name, i, (double)got[i], want[i],
              greatest);
  }
}

static void choose_table(size_t index)
{
  cr_assert(flk_nn_choose(flk_nn_at(index)->name));
}

static void check_shape(fli_attention attention, size_t n)
{
  fixture first = new_fixture(attention, n, 2.0f);
  plain want = new_plain(&first);
  for (size_t i = 0; flk_nn_at(i); i++) {
    choose_table(i);
    fixture f = new_fixture(attention, n, 2.0f);
    run(&f);
    check_close(&f, "y", f.range.y, want.y, f.n_out);
    check_close(&f, "dqkv", f.range.dqkv, want.dqkv, f.n_in);
    free_fixture(&f);
  }
  (void)flk_nn_choose(NULL);
  free_plain(&want);
  free_fixture(&first);
}

static void check_lengths(size_t heads, size_t head_width)
{
  static const size_t tokens[] = {1,  2,  7,  15, 16, 17,  28,
                                  33, 63, 64, 65, 97, 130, 131};
  for (size_t i = 0; i < FLI_COUNT_OF(tokens); i++) {
    for (int is_causal = 0; is_causal < 2; is_causal++) {
      check_shape((fli_attention){.tokens = tokens[i],
                                  .heads = heads,
                                  .head_width = head_width,
                                  .is_causal = is_causal},
                  2);
    }
  }
}

Test(attention, heads_of_one_agree_with_plain_loops)
{
  check_lengths(1, 1);
  check_lengths(3, 1);
}

Test(attention, heads_of_less_than_a_vector_agree_with_plain_loops)
{
  check_lengths(3, 4);
  check_lengths(1, 7);
  check_lengths(4, 8);
}

Test(attention, heads_of_one_vector_agree_with_plain_loops)
{
  check_lengths(4, 16);
}

Test(attention, heads_of_odd_widths_agree_with_plain_loops)
{
  check_lengths(2, 20);
  check_lengths(1, 37);
}

Test(attention, heads_of_several_panels_agree_with_plain_loops)
{
  check_lengths(2, 64);
}

Test(attention, wide_heads_agree_with_plain_loops)
{
  static const size_t widths[] = {127, 128, 129, 255, 256};
  for (size_t i = 0; i < FLI_COUNT_OF(widths); i++) {
    for (int is_causal = 0; is_causal < 2; is_causal++) {
      check_shape((fli_attention){.tokens = 75,
                                  .heads = 1,
                                  .head_width = widths[i],
                                  .is_causal = is_causal},
                  1);
    }
  }
}

Test(attention, long_sequences_agree_with_plain_loops)
{
  for (int is_causal = 0; is_causal < 2; is_causal++) {
    check_shape((fli_attention){.tokens = 1030,
                                .heads = 1,
                                .head_width = 10,
                                .is_causal = is_causal},
                1);
  }
}

Test(attention, four_thousand_tokens_agree_with_plain_loops)
{
  fli_attention attention = {.tokens = 4096, .heads = 1, .head_width = 8};
  fixture f = new_fixture(attention, 1, 2.0f);
  plain want = new_plain(&f);
  run(&f);
  check_close(&f, "y", f.range.y, want.y, f.n_out);
  check_close(&f, "dqkv", f.range.dqkv, want.dqkv, f.n_in);
  free_plain(&want);
  free_fixture(&f);
}

/* The loss is the sum of y dy. */
static double loss(const fixture *f, plain *p)
{
  double sum = 0.0;
  for (size_t head = 0; head < f->attention.heads; head++) {
    place at = place_of(&f->attention, 0, head);
    plain_forward(&at, p->qkv, p->y);
  }
  for (size_t i = 0; i < f->n_out; i++) {
    sum += p->y[i] * p->dy[i];
  }
  return sum;
}

Test(attention, gradients_are_those_of_finite_differences)
{
  for (int is_causal = 0; is_causal < 2; is_causal++) {
    fli_attention attention = {
        .tokens = 9, .heads = 2, .head_width = 5, .is_causal = is_causal};
    fixture f = new_fixture(attention, 1, 1.0f);
    plain p = new_plain(&f);
    run(&f);
    for (size_t i = 0; i < f.n_in; i++) {
      const double step = 1e-5;
      double old = p.qkv[i];
      p.qkv[i] = old + step;
      double above = loss(&f, &p);
      p.qkv[i] = old - step;
      double below = loss(&f, &p);
      p.qkv[i] = old;
      double want = (above - below) / (2.0 * step);
      cr_assert(fabs((double)f.range.dqkv[i] - want) <= 2e-6,
                "%s: %zu: got %g, want %g", describe(&f.attention), i,
                (double)f.range.dqkv[i], want);
    }
    free_plain(&p);
    free_fixture(&f);
  }
}

Test(attention, result_does_not_depend_on_how_samples_are_cut)
{
  fli_attention attention = {.tokens = 33, .heads = 3, .head_width = 20};
  fixture whole = new_fixture(attention, 5, 1.0f);
  fixture parts = new_fixture(attention, 5, 1.0f);
  size_t n_out = whole.n_out / 5;
  run(&whole);
  for (size_t begin = 0; begin < 5;) {
    fixture part = parts;
    part.range.n = begin == 0 ? 2 : begin == 2 ? 1 : 2;
    part.range.qkv += begin * 3 * n_out;
    part.range.dqkv += begin * 3 * n_out;
    part.range.y += begin * n_out;
    part.range.dy += begin * n_out;
    part.range.kept += begin * parts.attention.n_kept;
    run(&part);
    begin += part.range.n;
  }
  cr_assert_arr_eq(whole.range.y, parts.range.y, whole.n_out * sizeof(float));
  cr_assert_arr_eq(whole.range.dqkv, parts.range.dqkv,
                   whole.n_in * sizeof(float));
  free_fixture(&whole);
  free_fixture(&parts);
}

Test(attention, forward_without_backward_gives_the_same)
{
  fli_attention attention = {.tokens = 70, .heads = 2, .head_width = 8};
  fixture f = new_fixture(attention, 2, 1.0f);
  run(&f);
  fli_attention_range range = {.n = 2,
                               .qkv = f.qkv,
                               .y = new_floats(f.n_out),
                               .scratch = f.range.scratch};
  fli_attention_forward(&f.attention, &range);
  cr_assert_arr_eq(range.y, f.range.y, f.n_out * sizeof(float));
  free(range.y);
  free_fixture(&f);
}

Test(attention, no_sample_touches_nothing)
{
  fli_attention attention = {.tokens = 3, .heads = 2, .head_width = 4};
  fixture f = new_fixture(attention, 1, 1.0f);
  f.range.n = 0;
  run(&f);
  for (size_t i = 0; i < f.n_out; i++) {
    cr_assert(isnan(f.range.y[i]));
  }
  for (size_t i = 0; i < f.n_in; i++) {
    cr_assert(isnan(f.range.dqkv[i]));
  }
  free_fixture(&f);
}

/* One key is the greatest by far: 1 for its weight, and no derivative. */
Test(attention, large_scores_stay_finite)
{
  for (size_t i = 0; flk_nn_at(i); i++) {
    choose_table(i);
    for (int is_causal = 0; is_causal < 2; is_causal++) {
      fli_attention attention = {
          .tokens = 70, .heads = 2, .head_width = 16, .is_causal = is_causal};
      fixture f = new_fixture(attention, 1, 100.0f); /* scores of +-1e4 */
      plain want = new_plain(&f);
      run(&f);
      for (size_t k = 0; k < f.n_in; k++) {
        cr_assert(isfinite(f.range.dqkv[k]), "%s", describe(&attention));
      }
      for (size_t k = 0; k < f.n_out; k++) {
        cr_assert(fabs((double)f.range.y[k] - want.y[k]) <= 5e-3, "%s: %zu",
                  describe(&attention), k);
      }
      free_plain(&want);
      free_fixture(&f);
    }
  }
  (void)flk_nn_choose(NULL);
}

static float nan_of(uint32_t bits)
{
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* A NaN in token t's `part` (3: dy) must reach what sees it. */
static void check_nan(fli_attention attention, size_t part, size_t t, float nan)
{
  fixture f = new_fixture(attention, 1, 1.0f);
  place at = place_of(&f.attention, 0, 1);
  size_t c = attention.head_width / 2;
  if (part < 3) f.qkv[in_at(&at, part, t, c)] = nan;
  if (part == 3) f.dy[out_at(&at, t, c)] = nan;
  run(&f);
  for (size_t q = 0; q < attention.tokens; q++) {
    int sees = part == 0 || part == 3 ? q == t : n_seen(&at, q) > t;
    if (!sees) continue;
    if (part < 3) {
      cr_assert(isnan(f.range.y[out_at(&at, q, c)]), "%s: part %zu: y %zu",
                describe(&attention), part, q);
    }
    cr_assert(isnan(f.range.dqkv[in_at(&at, 0, q, c)]), "%s: part %zu: dq %zu",
              describe(&attention), part, q);
    for (size_t k = 0; k < n_seen(&at, q); k++) {
      cr_assert(isnan(f.range.dqkv[in_at(&at, 1, k, c)]),
                "%s: part %zu: dk %zu", describe(&attention), part, k);
      if (part == 2) continue;
      cr_assert(isnan(f.range.dqkv[in_at(&at, 2, k, c)]),
                "%s: part %zu: dv %zu", describe(&attention), part, k);
    }
  }
  /* Nothing of the other head. */
  place other = place_of(&f.attention, 0, 0);
  for (size_t q = 0; q < attention.tokens; q++) {
    cr_assert(!isnan(f.range.y[out_at(&other, q, c)]));
    cr_assert(!isnan(f.range.dqkv[in_at(&other, 0, q, c)]));
  }
  free_fixture(&f);
}

Test(attention, nan_stays_nan)
{
  static const uint32_t nans[] = {0x7fc00000, 0xffc00000, 0x7fc00001,
                                  0x7fffffff, 0xffffffff, 0x7fc001ff};
  static const size_t tokens[] = {1, 28, 70};
  for (size_t i = 0; flk_nn_at(i); i++) {
    choose_table(i);
    for (size_t kind = 0; kind < 2 * FLI_COUNT_OF(tokens); kind++) {
      fli_attention attention = {.tokens = tokens[kind / 2],
                                 .heads = 2,
                                 .head_width = 9,
                                 .is_causal = (int)(kind & 1)};
      for (size_t part = 0; part < 4; part++) {
        for (size_t k = 0; k < FLI_COUNT_OF(nans); k++) {
          check_nan(attention, part, (k * 13) % attention.tokens,
                    nan_of(nans[k]));
        }
      }
    }
  }
  (void)flk_nn_choose(NULL);
}

Test(attention, scratch_stays_small_and_does_not_grow_with_tokens)
{
  static const size_t tokens[] = {1, 28, 64, 65, 256, 4096};
  for (size_t width = 1; width <= 256; width++) {
    for (size_t i = 0; i < FLI_COUNT_OF(tokens); i++) {
      fli_attention attention = {
          .tokens = tokens[i], .heads = 4, .head_width = width};
      fli_attention_init(&attention);
      cr_assert_leq(attention.n_scratch * sizeof(float), 256 * 1024);
    }
  }
}

Test(attention, what_is_kept_is_two_floats_a_query)
{
  fli_attention attention = {.tokens = 28, .heads = 4, .head_width = 16};
  fli_attention_init(&attention);
  cr_assert_eq(attention.n_kept, 4 * 2 * 32);
}
