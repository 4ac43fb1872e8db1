/* SPDX-License-Identifier: Apache-2.0 */
/* What a controller may be made with: the defaults of every criterion in one
 * table, and the checks. What is left after this file has no 0 that means
 * something else. */
#include "freeze/freeze.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/compiler.h"
#include "base/context.h"
#include "base/error.h"
#include "base/options.h"
#include "crypto/crypto.h"

enum {
  MODULES_MIN = 2,
  MODULES_MAX = 4096,
  WINDOW_MIN = 3,
  ROWS_MIN = 4,
  ROWS_MAX = 256,
  FIXED_MAX = 4096,
  PATIENCE_MAX = 1 << 20,
  INTERVALS_PER_EPOCH = 16,
  GAP_ROUNDS = 2,
  GAPS_OF_PRETRAINED = 4 /* in all rounds */
};

static const fl_freeze_options freeze_defaults = {
    .struct_size = sizeof(fl_freeze_options),
    .criterion = FL_FREEZE_GRADNORM,
    .preset = FL_FREEZE_BALANCED,
    .unfreezes = FL_AUTO,
};

/* Of aggregators. Clients' gradients differ too much for a fall to show, in
 * jobs in which there is not much left to learn, either: what stays between two
 * freezes is time, a quarter of the job. */
#define PRETRAINED_TOLERANCE 1.25f

typedef struct criterion_defaults {
  const fli_criterion *criterion;
  float tolerance;
  uint32_t window;
  uint32_t patience; /* 0: the window */
  uint32_t rows;
  uint32_t unfreezes;
  int is_steered; /* has gaps, and a learning rate unfreezes it */
  int is_aggregated;
} criterion_defaults;

/* By FL_FREEZE_*. */
static const criterion_defaults criteria[] = {
    {0},
    {&fli_criterion_gradnorm, .9f, 4, 8, 16, 0, 1, 1},
    {&fli_criterion_plasticity, 0, 0, 0, 16, 1, 1, 1},
    {&fli_criterion_relative, .2f, 16, 8, 16, 1, 1, 0},
    {&fli_criterion_safe, .5f, 4, 1, 256, 0, 0, 0},
    {&fli_criterion_fixed, .5f, 4, 1, 16, 0, 0, 0},
    {&fli_criterion_none, .5f, 4, 1, 16, 0, 0, 0},
};

typedef struct preset_values {
  uint32_t window;
  float tolerance;
  float loss_level;
} preset_values;

/* By FL_FREEZE_CAREFUL ... */
static const preset_values presets[] = {
    {0, 0, 0}, {20, .05f, .25f}, {12, .1f, .6f}, {6, .2f, .6f}};

static fl_status check_whole(const char *what, uint64_t got, uint64_t lo,
                             uint64_t hi)
{
  if (got >= lo && got <= hi) return FL_OK;
  return fli_error(FL_E_OPTIONS,
                   "freeze: %s, got %" PRIu64 ", want %" PRIu64 "..%" PRIu64,
                   what, got, lo, hi);
}

static fl_status check_positive(const char *what, float got, float hi)
{
  if (isfinite(got) && got > 0 && got <= hi) return FL_OK;
  return fli_error(FL_E_OPTIONS, "freeze: %s, got %g, want above 0, <= %g",
                   what, (double)got, (double)hi);
}

static uint32_t or_whole(uint32_t given, uint32_t otherwise)
{
  return given != 0 ? given : otherwise;
}

static uint64_t or_steps(uint64_t given, uint64_t otherwise)
{
  return given != 0 ? given : otherwise;
}

/* NaN stays, for the check to find. */
static float or_real(float given, float otherwise)
{
  return given == 0 ? otherwise : given;
}

/* The criterion whose values are measured. */
static uint32_t measured(const fl_freeze_options *o)
{
  if (o->criterion != FL_FREEZE_SERVER) return o->criterion;
  return o->reports != 0 ? o->reports : FL_FREEZE_SERVER;
}

static fl_status check_choices(const fl_freeze_options *o)
{
  fl_status st = FL_OK;
  FLI_TRY(check_whole("criterion", o->criterion, FL_FREEZE_GRADNORM,
                      FL_FREEZE_SERVER));
  FLI_TRY(check_whole("preset", o->preset, FL_FREEZE_CAREFUL, FL_FREEZE_FAST));
  FLI_TRY(check_whole("reports", o->reports, 0, FL_FREEZE_PLASTICITY));
  FLI_TRY(check_whole("is_pretrained", o->is_pretrained, 0, 1));
  FLI_TRY(check_whole("halves_window", o->halves_window, 0, 1));
  if (o->unfreezes != FL_AUTO)
    FLI_TRY(check_whole("unfreezes", o->unfreezes, 0, 1));
  if (o->reports != 0 && o->criterion != FL_FREEZE_SERVER) {
    return fli_error(FL_E_CONFLICT,
                     "freeze: reports, got %u with criterion "
                     "%u, want it with SERVER only",
                     o->reports, o->criterion);
  }
  if ((o->n_fixed != 0 || o->fixed) && o->criterion != FL_FREEZE_FIXED) {
    return fli_error(FL_E_CONFLICT,
                     "freeze: fixed, got a schedule with "
                     "criterion %u, want it with FIXED only",
                     o->criterion);
  }
  if (o->lag != 0 && measured(o) != FL_FREEZE_PLASTICITY &&
      measured(o) != FL_FREEZE_RELATIVE_PLASTICITY) {
    return fli_error(FL_E_CONFLICT,
                     "freeze: lag, got %" PRIu64
                     " with criterion %u, which wants no "
                     "pairs",
                     o->lag, measured(o));
  }
  if (o->unfreezes == 1 && !criteria[o->criterion].is_steered) {
    return fli_error(FL_E_CONFLICT,
                     "freeze: unfreezes, got 1 with criterion "
                     "%u, which never does",
                     o->criterion);
  }
out:
  return st;
}

static void fill_criterion(fl_freeze_options *o, int is_aggregator)
{
  const criterion_defaults *d = &criteria[measured(o)];
  const preset_values *preset = &presets[o->preset];
  const int is_preset = d->window == 0;
  const uint32_t window = is_preset ? preset->window : d->window;
  o->window = or_whole(o->window, window);
  o->patience = or_whole(o->patience, is_aggregator      ? 3
                                      : d->patience != 0 ? d->patience
                                                         : o->window);
  o->tolerance = or_real(o->tolerance, is_preset ? preset->tolerance
                                       : is_aggregator && o->is_pretrained
                                           ? PRETRAINED_TOLERANCE
                                           : d->tolerance);
  o->loss_level = or_real(o->loss_level, is_preset ? preset->loss_level : .6f);
  o->rows = or_whole(o->rows, d->rows);
  if (o->unfreezes == FL_AUTO) o->unfreezes = criteria[o->criterion].unfreezes;
}

static uint64_t default_gap(const fl_freeze_options *o)
{
  uint64_t share = o->total_steps / GAPS_OF_PRETRAINED;
  if (o->steps_per_epoch > 0) return 2 * o->steps_per_epoch;
  return o->is_pretrained && share > GAP_ROUNDS ? share : GAP_ROUNDS;
}

static void fill_in(fl_freeze_options *o, uint32_t n_modules)
{
  const int is_aggregator = o->steps_per_epoch == 0;
  uint64_t interval = o->steps_per_epoch / INTERVALS_PER_EPOCH;
  fill_criterion(o, is_aggregator);
  if (interval < 2) interval = is_aggregator ? 1 : 2;
  o->interval = or_steps(o->interval, interval);
  o->gap = or_steps(o->gap, default_gap(o));
  o->loss_change = or_real(o->loss_change, .1f);
  o->pretrained_share = or_real(o->pretrained_share, .2f);
  o->warmup_share = or_real(o->warmup_share, .1f);
  o->until_share = or_real(o->until_share, .5f);
  o->max_frozen = or_whole(o->max_frozen, n_modules - 2);
  o->refresh = or_whole(o->refresh, 8);
}

static fl_status check_values(const fl_freeze_options *o, uint32_t n_modules)
{
  fl_status st = FL_OK;
  const int is_pair =
      o->steps_per_epoch != 0 && measured(o) == FL_FREEZE_GRADNORM;
  FLI_TRY(check_whole("window", o->window, WINDOW_MIN, FLI_FREEZE_WINDOW_MAX));
  FLI_TRY(check_whole("patience", o->patience, 1, PATIENCE_MAX));
  FLI_TRY(check_whole("interval", o->interval, is_pair ? 2 : 1,
                      FLI_FREEZE_STEPS_MAX));
  FLI_TRY(check_whole("lag", o->lag, 0, o->interval - 1));
  FLI_TRY(check_whole("max_frozen", o->max_frozen, n_modules == 2 ? 0 : 1,
                      n_modules - 1));
  FLI_TRY(check_whole("rows", o->rows, ROWS_MIN, ROWS_MAX));
  FLI_TRY(check_whole("n_fixed", o->n_fixed, 0, FIXED_MAX));
  FLI_TRY(check_whole("n_allowed", o->n_allowed, 0, n_modules));
  FLI_TRY(check_positive("tolerance", o->tolerance, 1e6f));
  FLI_TRY(check_positive("loss_level", o->loss_level, 1e6f));
  FLI_TRY(check_positive("loss_change", o->loss_change, 1e6f));
  FLI_TRY(check_positive("pretrained_share", o->pretrained_share, 1));
  FLI_TRY(check_positive("warmup_share", o->warmup_share, 1));
  FLI_TRY(check_positive("until_share", o->until_share, 1));
out:
  return st;
}

/* What a criterion cannot do without. */
static fl_status check_required(const fl_freeze_options *o)
{
  if (o->steps_per_epoch == 0 && !criteria[o->criterion].is_aggregated) {
    return fli_error(FL_E_OPTIONS,
                     "freeze: steps_per_epoch, got 0, want >= 1 "
                     "with criterion %u",
                     o->criterion);
  }
  if (o->is_pretrained && o->total_steps == 0) {
    return fli_error(FL_E_OPTIONS, "freeze: total_steps, got 0, want >= 1 for "
                                   "a job from a trained model");
  }
  if (o->criterion == FL_FREEZE_FIXED && (!o->fixed || o->n_fixed == 0)) {
    return fli_error(FL_E_OPTIONS, "freeze: fixed, got nothing, want the "
                                   "schedule");
  }
  if (o->criterion != FL_FREEZE_CKA) return FL_OK;
  const double warm = (double)o->warmup_share * (double)o->total_steps;
  if (warm < (double)o->interval) {
    return fli_error(FL_E_OPTIONS,
                     "freeze: total_steps, got %" PRIu64
                     ", want a warm-up of one interval at least",
                     o->total_steps);
  }
  if (o->until_share <= o->warmup_share) {
    return fli_error(FL_E_OPTIONS,
                     "freeze: until_share, got %g, want above "
                     "the warm-up's %g",
                     (double)o->until_share, (double)o->warmup_share);
  }
  return FL_OK;
}

static fl_status check_fixed(const fl_freeze_options *o)
{
  for (uint32_t i = 0; i < o->n_fixed; i++) {
    const fl_freeze_fixed *row = &o->fixed[i];
    if (i > 0 && row->step <= o->fixed[i - 1].step) {
      return fli_error(FL_E_OPTIONS,
                       "freeze: fixed, got step %" PRIu64 " behind %" PRIu64
                       ", want it to rise",
                       row->step, o->fixed[i - 1].step);
    }
    fl_status st = check_whole("first_active of fixed", row->first_active, 0,
                               o->max_frozen);
    if (st != FL_OK) return st;
  }
  return FL_OK;
}

static fl_status check_allowed(const fl_freeze_options *o, uint32_t n_modules)
{
  if (o->n_allowed == 0) return FL_OK;
  if (!o->allowed) {
    return fli_error(FL_E_OPTIONS, "freeze: allowed, got NULL, want %u values",
                     o->n_allowed);
  }
  for (uint32_t i = 0; i < o->n_allowed; i++) {
    const uint32_t value = o->allowed[i];
    if (i == 0 ? value == 0 : value > o->allowed[i - 1] && value < n_modules)
      continue;
    return fli_error(FL_E_OPTIONS,
                     "freeze: allowed, got %u at %u, want "
                     "rising values from 0 to %u at most",
                     value, i, n_modules - 1);
  }
  return FL_OK;
}

static fl_status copy_lists(fl_freeze *freeze)
{
  fl_freeze_options *o = &freeze->options;
  if (o->n_fixed > 0) {
    const size_t size = o->n_fixed * sizeof *o->fixed;
    freeze->fixed = fli_alloc(freeze->context, size, 1);
    if (!freeze->fixed) return fli_nomem(size);
    memcpy(freeze->fixed, o->fixed, size);
  }
  if (o->n_allowed > 0) {
    const size_t size = o->n_allowed * sizeof *o->allowed;
    freeze->allowed = fli_alloc(freeze->context, size, 1);
    if (!freeze->allowed) return fli_nomem(size);
    memcpy(freeze->allowed, o->allowed, size);
  }
  o->fixed = freeze->fixed;
  o->allowed = freeze->allowed;
  return FL_OK;
}

static void hash_real(fli_hasher *hasher, float value)
{
  fli_hasher_u64(hasher, fli_f32_bits(value));
}

/* Names what a state can be loaded into: whatever decides. */
static void hash_options(fl_freeze *freeze)
{
  const fl_freeze_options *o = &freeze->options;
  fli_hasher hasher;
  const uint64_t whole[] = {
      freeze->n_modules, o->criterion,     o->reports, o->steps_per_epoch,
      o->total_steps,    o->interval,      o->window,  o->patience,
      o->is_pretrained,  o->max_frozen,    o->hold,    o->gap,
      o->unfreezes,      o->halves_window, o->rows,    o->refresh,
      o->n_fixed,        o->n_allowed};
  fli_hasher_init(&hasher);
  for (size_t i = 0; i < FLI_COUNT_OF(whole); i++)
    fli_hasher_u64(&hasher, whole[i]);
  hash_real(&hasher, o->tolerance);
  hash_real(&hasher, o->loss_level);
  hash_real(&hasher, o->loss_change);
  hash_real(&hasher, o->pretrained_share);
  hash_real(&hasher, o->warmup_share);
  hash_real(&hasher, o->until_share);
  for (uint32_t i = 0; i < o->n_fixed; i++) {
    fli_hasher_u64(&hasher, o->fixed[i].step);
    fli_hasher_u64(&hasher, o->fixed[i].first_active);
  }
  for (uint32_t i = 0; i < o->n_allowed; i++)
    fli_hasher_u64(&hasher, o->allowed[i]);
  fli_hasher_update(&hasher, freeze->job, sizeof freeze->job);
  /* So that states from before there was one still load. */
  if (o->lag != 0) fli_hasher_u64(&hasher, o->lag);
  fli_hasher_final(&hasher, freeze->options_hash);
}

fl_status fl_freeze_options_init(fl_freeze_options *options, size_t size)
{
  return fli_options_init(options, size, &freeze_defaults,
                          sizeof freeze_defaults);
}

fl_status fli_freeze_take_options(fl_freeze *freeze,
                                  const fl_freeze_options *given)
{
  fl_status st = FL_OK;
  fl_freeze_options o = freeze_defaults;
  FLI_TRY(fli_options_load(&o, sizeof o, given, "freeze options"));
  FLI_TRY(
      check_whole("n_modules", freeze->n_modules, MODULES_MIN, MODULES_MAX));
  o.criterion = or_whole(o.criterion, FL_FREEZE_GRADNORM);
  o.preset = or_whole(o.preset, FL_FREEZE_BALANCED);
  FLI_TRY(check_choices(&o));
  FLI_TRY(check_whole("steps_per_epoch", o.steps_per_epoch, 0,
                      FLI_FREEZE_STEPS_MAX));
  FLI_TRY(check_whole("total_steps", o.total_steps, 0, FLI_FREEZE_STEPS_MAX));
  fill_in(&o, freeze->n_modules);
  FLI_TRY(check_values(&o, freeze->n_modules));
  FLI_TRY(check_required(&o));
  FLI_TRY(check_fixed(&o));
  FLI_TRY(check_allowed(&o, freeze->n_modules));
  freeze->options = o;
  freeze->is_aggregator = o.steps_per_epoch == 0;
  freeze->criterion = criteria[measured(&o)].criterion;
  if (o.job) memcpy(freeze->job, o.job, sizeof freeze->job);
  freeze->options.job = freeze->job;
  FLI_TRY(copy_lists(freeze));
  FLI_TRY(fli_crypto_init());
  hash_options(freeze);
out:
  return st;
}

void fli_freeze_drop_options(fl_freeze *freeze)
{
  const fl_freeze_options *o = &freeze->options;
  fli_free(freeze->context, freeze->fixed, o->n_fixed * sizeof *o->fixed);
  fli_free(freeze->context, freeze->allowed, o->n_allowed * sizeof *o->allowed);
}
