/* SPDX-License-Identifier: Apache-2.0 */
/* What a set may be made with, and the hash that a state is bound to. */
#include "cohort/cohort.h"

#include <math.h>

#include "base/bytes.h"
#include "base/compiler.h"
#include "base/error.h"
#include "base/options.h"

enum {
  DIM_UNIT = FLI_COHORT_LANES,
  DIM_MOST = 4096,
  FEATURE_MOST = 1 << 20,
  LOSS_MODELS = 4,
  ROUNDS_MOST = 1 << 20
};

static const fl_cohort_options cohort_defaults = {
    .struct_size = sizeof(fl_cohort_options),
    .rule = FL_COHORT_SKETCH,
    .floor = .02f,
    .min_members = 10,
    .spike = 3.0f,
    .asks_first = 1,
    .evidence = 60,
    .agreement = .85f,
    .gap = .82f,
    .reseed = 30,
    .settle = 5,
    .wait = 20,
    .trial_start = 8,
    .trial_length = 10,
    .trial_probes = 30,
    .trial_most = 40,
    .trial_margin = .05f,
    .trial_share = .33f,
    .trial_sure = .95f,
    .trial_win = .9f,
    .trial_lump = .85f,
    .trial_again = .75f,
    .merge = .12f,
    .forget = 1000,
};

fl_status fl_cohort_options_init(fl_cohort_options *options, size_t size)
{
  return fli_options_init(options, size, &cohort_defaults,
                          sizeof cohort_defaults);
}

typedef struct number_range {
  const char *name;
  uint32_t value;
  uint32_t least;
  uint32_t most;
} number_range;

typedef struct share_range {
  const char *name;
  float value;
  float most;
} share_range;

static fl_status check_numbers(const number_range *ranges, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    const number_range *r = &ranges[i];
    if (r->value >= r->least && r->value <= r->most) continue;
    return fli_error(FL_E_OPTIONS, "cohorts: %s, got %u, want %u..%u", r->name,
                     (unsigned)r->value, (unsigned)r->least, (unsigned)r->most);
  }
  return FL_OK;
}

static fl_status check_shares(const share_range *ranges, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    const share_range *r = &ranges[i];
    if (isfinite(r->value) && r->value >= 0.0f && r->value <= r->most) continue;
    return fli_error(FL_E_OPTIONS, "cohorts: %s, got %g, want 0..%g", r->name,
                     (double)r->value, (double)r->most);
  }
  return FL_OK;
}

static fl_status check_splits(const fl_cohort_options *o)
{
  if (o->n_splits > FL_COHORT_SPLITS_MAX || (o->n_splits > 0 && !o->splits)) {
    return fli_error(FL_E_OPTIONS, "cohorts: n_splits, got %u, want 0..%d",
                     (unsigned)o->n_splits, FL_COHORT_SPLITS_MAX);
  }
  for (uint32_t i = 0; i < o->n_splits; i++) {
    uint32_t before = i > 0 ? o->splits[i - 1] : 0;
    if (o->splits[i] > before) continue;
    return fli_error(FL_E_OPTIONS, "cohorts: splits[%u], got %u, want > %u",
                     (unsigned)i, (unsigned)o->splits[i], (unsigned)before);
  }
  return FL_OK;
}

static void fill_in(fl_cohort_options *o)
{
  if (o->cap == 0) o->cap = o->rule == FL_COHORT_LOSS ? LOSS_MODELS : 8;
  if (o->dim == 0 && o->rule != FL_COHORT_AUXO) o->dim = 512;
  if (o->min_participants == 0)
    o->min_participants = o->rule == FL_COHORT_AUXO ? 5 : 4;
}

static fl_status check_dim(const fl_cohort_options *o)
{
  if (o->rule == FL_COHORT_AUXO) {
    const number_range range = {"dim", o->dim, 1, FEATURE_MOST};
    return check_numbers(&range, 1);
  }
  if (o->dim % DIM_UNIT == 0 && o->dim > 0 && o->dim <= DIM_MOST) return FL_OK;
  return fli_error(FL_E_OPTIONS,
                   "cohorts: dim, got %u, want a multiple of %d, %d..%d",
                   (unsigned)o->dim, DIM_UNIT, DIM_UNIT, DIM_MOST);
}

fl_status fli_cohort_check_options(fl_cohort_options *o)
{
  fill_in(o);
  const number_range numbers[] = {
      {"rule", o->rule, FL_COHORT_SKETCH, FL_COHORT_LOSS},
      {"cap", o->cap, 1, FL_COHORT_MAX},
      {"clients", o->clients, 0, INT32_MAX},
      {"min_members", o->min_members, 1, INT32_MAX},
      {"min_participants", o->min_participants, 2, 1024},
      {"asks_first", o->asks_first, 0, 1},
      {"evidence", o->evidence, 10, FLI_COHORT_VOTES},
      {"reseed", o->reseed, 1, ROUNDS_MOST},
      {"settle", o->settle, 0, ROUNDS_MOST},
      {"wait", o->wait, 1, ROUNDS_MOST},
      {"trial_start", o->trial_start, 0, ROUNDS_MOST},
      {"trial_length", o->trial_length, 1, 1000},
      {"trial_most", o->trial_most, 10, FLI_COHORT_TRIAL_MOST},
      {"trial_probes", o->trial_probes, 10, o->trial_most},
      {"forget", o->forget, 1, UINT32_MAX},
      {"is_published", o->is_published, 0, 1},
  };
  const share_range shares[] = {
      {"floor", o->floor, 1.0f},
      {"spike", o->spike, 1e6f},
      {"agreement", o->agreement, 1.0f},
      {"gap", o->gap, 1.0f},
      {"trial_margin", o->trial_margin, 1e6f},
      {"trial_share", o->trial_share, 1.0f},
      {"trial_sure", o->trial_sure, 1.0f},
      {"trial_win", o->trial_win, 1.0f},
      {"trial_lump", o->trial_lump, 1.0f},
      {"trial_again", o->trial_again, 1.0f},
      {"merge", o->merge, 1e6f},
  };
  fl_status st = check_numbers(numbers, FLI_COUNT_OF(numbers));
  if (st == FL_OK) st = check_shares(shares, FLI_COUNT_OF(shares));
  if (st == FL_OK && o->spike == 0.0f)
    st = fli_error(FL_E_OPTIONS, "cohorts: spike, got 0, want > 0");
  if (st == FL_OK) st = check_dim(o);
  return st == FL_OK ? check_splits(o) : st;
}

static void hash_float(fli_hasher *hasher, float value)
{
  fli_hasher_u64(hasher, fli_f32_bits(value));
}

void fli_cohort_hash_options(const fl_cohort_set *set,
                             uint8_t hash[FLI_HASH_BYTES])
{
  const fl_cohort_options *o = &set->options;
  const uint32_t numbers[] = {
      o->rule,       o->cap,          o->dim,          o->min_members,
      o->asks_first, o->evidence,     o->reseed,       o->min_participants,
      o->settle,     o->wait,         o->trial_start,  o->trial_length,
      o->trial_most, o->trial_probes, o->is_published, o->n_splits};
  const float shares[] = {o->floor,       o->spike,        o->agreement,
                          o->gap,         o->trial_margin, o->trial_share,
                          o->trial_sure,  o->trial_win,    o->trial_lump,
                          o->trial_again, o->merge};
  fli_hasher hasher;
  fli_hasher_init(&hasher);
  fli_hasher_u64(&hasher, o->seed);
  fli_hasher_u64(&hasher, o->job);
  for (size_t i = 0; i < FLI_COUNT_OF(numbers); i++)
    fli_hasher_u64(&hasher, numbers[i]);
  for (size_t i = 0; i < FLI_COUNT_OF(shares); i++)
    hash_float(&hasher, shares[i]);
  for (uint32_t i = 0; i < o->n_splits; i++)
    fli_hasher_u64(&hasher, set->splits[i]);
  fli_hasher_final(&hasher, hash);
}
