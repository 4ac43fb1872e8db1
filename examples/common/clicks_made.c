/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows that are made up, for when there is no file: values by Zipf's law, so
 * that few are frequent and most are seen once, and labels by a factorisation
 * machine whose parameters are hashes of the values: no table of them is kept,
 * and how good a model can become is known. SplitMix64 (Steele et al., OOPSLA
 * 2014) is the generator and the hash.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clicks.h"

enum { LATENT = 4, SMALLEST = 16 };

#define BASE_LOG_ODDS (-1.0)
#define GOLDEN UINT64_C(0x9E3779B97F4A7C15)
/* Spreads ranks over a field's values: a prime above all n_values that are no
 * multiple of it, so that no two ranks meet. */
#define SPREAD UINT64_C(2654435761)

static uint64_t mix(uint64_t x)
{
  x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
  x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
  return x ^ x >> 31;
}

static uint64_t next(uint64_t *state)
{
  return mix(*state += GOLDEN);
}

/* In [0, 1). */
static double uniform(uint64_t *state)
{
  return (double)(next(state) >> 11) * 0x1p-53;
}

/* About normal, variance 1: the sum of 4 numbers of a hash. */
static double bell(uint64_t *state)
{
  uint64_t bits = next(state);
  double sum = 0;
  for (int i = 0; i < 4; i++)
    sum += (double)(bits >> 16 * i & 0xFFFF) / 65536.0;
  return (sum - 2.0 + 2.0 / 65536.0) * 1.7320508075688772;
}

/* The continuous law's quantile at `at`, as a value below n. */
static uint32_t zipf(double at, double exponent, uint32_t n)
{
  double power = 1.0 - exponent;
  if (fabs(power) < 1e-6) power = 1e-6;
  double low = pow(.5, power), high = pow(n + .5, power);
  double rank = floor(pow(at * (high - low) + low, 1.0 / power));
  uint64_t whole = rank > 0.0 ? (uint64_t)rank : 0;
  if (whole >= n) whole = n - 1;
  return (uint32_t)(whole * SPREAD % n);
}

static double log_odds(const struct clicks_recipe *recipe,
                       const uint32_t *values)
{
  uint32_t n = recipe->n_fields;
  double pairs = .5 * n * (n - 1.0);
  double scale = n > 1 ? sqrt(recipe->strength / sqrt(LATENT * pairs)) : 0.0;
  double sums[LATENT] = {0}, squares = 0, result = BASE_LOG_ODDS;
  for (uint32_t f = 0; f < n; f++) {
    uint64_t state = mix(recipe->seed + GOLDEN) ^ clicks_id(f + 1, values[f]);
    state = mix(state);
    result += recipe->strength / sqrt(n) * bell(&state);
    for (int k = 0; k < LATENT; k++) {
      double x = scale * bell(&state);
      sums[k] += x;
      squares += x * x;
    }
  }
  for (int k = 0; k < LATENT; k++)
    result += .5 * sums[k] * sums[k];
  return result - .5 * squares;
}

static uint32_t size_of_field(const struct clicks_recipe *recipe, uint32_t f)
{
  if (f == 0) return recipe->customers;
  uint32_t n = recipe->n_values >> 2 * ((f - 1) % 3);
  return n < SMALLEST ? SMALLEST : n;
}

static int is_possible(const struct clicks_recipe *recipe)
{
  return recipe->n_rows >= 1 && recipe->n_rows <= UINT32_MAX &&
         recipe->n_train <= recipe->n_rows && recipe->n_fields >= 1 &&
         recipe->n_fields <= CLICKS_FIELDS_MAX && recipe->customers >= 1 &&
         recipe->n_values >= 1 && recipe->n_values < SPREAD &&
         recipe->exponent >= 0.0 && recipe->exponent <= 4.0 &&
         recipe->strength >= 0.0 && recipe->strength <= 100.0 &&
         recipe->n_rows <= SIZE_MAX / 8 / recipe->n_fields;
}

static void make_row(struct clicks *clicks, const struct clicks_recipe *recipe,
                     uint64_t row, uint64_t *state)
{
  uint32_t *values = clicks->values + row * clicks->n_fields;
  for (uint32_t f = 0; f < clicks->n_fields; f++) {
    uint32_t n = clicks->fields[f].n_values;
    double at = uniform(state);
    values[f] = f == 0 ? (uint32_t)(at * n) : zipf(at, recipe->exponent, n);
  }
  double odds = log_odds(recipe, values);
  clicks->truth[row] = (float)odds;
  clicks->labels[row] = uniform(state) < 1.0 / (1.0 + exp(-odds));
}

int clicks_make(struct clicks *clicks, const struct clicks_recipe *recipe)
{
  if (!is_possible(recipe)) return -1;
  struct clicks made = {.n_fields = recipe->n_fields,
                        .n_rows = recipe->n_rows,
                        .n_train = recipe->n_train};
  size_t n = (size_t)recipe->n_rows;
  made.values = malloc(n * recipe->n_fields * sizeof *made.values);
  made.labels = malloc(n);
  made.truth = malloc(n * sizeof *made.truth);
  if (!made.values || !made.labels || !made.truth) {
    clicks_free(&made);
    return -1;
  }
  for (uint32_t f = 0; f < made.n_fields; f++) {
    struct clicks_field *field = &made.fields[f];
    (void)snprintf(field->name, sizeof field->name,
                   f == 0 ? "customer" : "field_%u", f);
    field->n_values = size_of_field(recipe, f);
  }
  uint64_t state = recipe->seed;
  for (uint64_t row = 0; row < made.n_rows; row++)
    make_row(&made, recipe, row, &state);
  *clicks = made;
  return 0;
}
