/* SPDX-License-Identifier: Apache-2.0 */
/* Options of a strategy: defaults, those of the names, and what can be
 * refused. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "strategy/strategy.h"

static const fl_strategy_options defaults = {
    .struct_size = sizeof(fl_strategy_options),
    .rule = FL_RULE_MEAN,
    .optimiser = FL_STEP_SGD,
    .beta1 = 0.9f,
    .beta2 = 0.99f,
    .tau = 1e-3f,
    .client_rate = 0.05f,
    .fairness = 1.0f,
    .trim = 0.2f,
    .byzantine = 1,
    .passes = 4,
    .smoothing = 1e-6f,
    .clip_quantile = 0.5f,
    .clip_rate = 0.2f,
    .gate_tolerance = 0.1f,
};

typedef struct named {
  const char *name;
  uint8_t rule, optimiser, is_uniform;
  float momentum, prox_mu;
} named;

static const named names[] = {
    {"fedavg", FL_RULE_MEAN, FL_STEP_SGD, 0, 0.0f, 0.0f},
    {"fedavgm", FL_RULE_MEAN, FL_STEP_SGD, 0, 0.9f, 0.0f},
    {"fedprox", FL_RULE_MEAN, FL_STEP_SGD, 0, 0.0f, 0.01f},
    {"fedadam", FL_RULE_MEAN, FL_STEP_ADAM, 0, 0.0f, 0.0f},
    {"fedyogi", FL_RULE_MEAN, FL_STEP_YOGI, 0, 0.0f, 0.0f},
    {"fedadagrad", FL_RULE_MEAN, FL_STEP_ADAGRAD, 0, 0.0f, 0.0f},
    {"fednova", FL_RULE_NOVA, FL_STEP_SGD, 0, 0.0f, 0.0f},
    {"scaffold", FL_RULE_SCAFFOLD, FL_STEP_SGD, 1, 0.0f, 0.0f},
    {"q-fedavg", FL_RULE_FAIR, FL_STEP_SGD, 1, 0.0f, 0.0f},
    {"median", FL_RULE_MEDIAN, FL_STEP_SGD, 1, 0.0f, 0.0f},
    {"trimmed-mean", FL_RULE_TRIMMED_MEAN, FL_STEP_SGD, 1, 0.0f, 0.0f},
    {"krum", FL_RULE_KRUM, FL_STEP_SGD, 1, 0.0f, 0.0f},
    {"multi-krum", FL_RULE_MULTI_KRUM, FL_STEP_SGD, 1, 0.0f, 0.0f},
    {"geometric-median", FL_RULE_GEOMETRIC_MEDIAN, FL_STEP_SGD, 1, 0.0f, 0.0f},
};

enum { BOTH_ENDS = 0, NOT_HIGH = 1, NOT_LOW = 2 };

typedef struct bound {
  const char *name;
  float value, low, high;
  int ends; /* which belong to it */
} bound;

static fl_status check_bounds(const fl_strategy_options *o)
{
  const bound bounds[] = {
      {"rate", o->rate, 0.0f, 1e6f, BOTH_ENDS},
      {"momentum", o->momentum, 0.0f, 1.0f, NOT_HIGH},
      {"beta1", o->beta1, 0.0f, 1.0f, NOT_HIGH},
      {"beta2", o->beta2, 0.0f, 1.0f, NOT_HIGH},
      {"tau", o->tau, 0.0f, 1e6f, NOT_LOW},
      {"v0", o->v0, 0.0f, 1e12f, BOTH_ENDS},
      {"prox_mu", o->prox_mu, 0.0f, 1e6f, BOTH_ENDS},
      {"client_rate", o->client_rate, 0.0f, 1e6f, NOT_LOW},
      {"client_momentum", o->client_momentum, 0.0f, 1.0f, NOT_HIGH},
      {"fairness", o->fairness, 0.0f, 16.0f, BOTH_ENDS},
      {"trim", o->trim, 0.0f, 0.5f, NOT_HIGH},
      {"smoothing", o->smoothing, 0.0f, 1e6f, NOT_LOW},
      {"clip", o->clip, 0.0f, 1e30f, BOTH_ENDS},
      {"clip_quantile", o->clip_quantile, 0.0f, 1.0f, BOTH_ENDS},
      {"clip_rate", o->clip_rate, 0.0f, 4.0f, BOTH_ENDS},
      {"gate_tolerance", o->gate_tolerance, 0.0f, 1000.0f, BOTH_ENDS},
  };
  for (size_t i = 0; i < FLI_COUNT_OF(bounds); i++) {
    const bound *b = &bounds[i];
    const int is_in = b->value >= b->low && b->value <= b->high &&
                      (b->ends != NOT_HIGH || b->value < b->high) &&
                      (b->ends != NOT_LOW || b->value > b->low);
    if (is_in) continue;
    return fli_error(FL_E_OPTIONS, "strategy: %s, got %g, want %s%g..%s%g",
                     b->name, (double)b->value, b->ends == NOT_LOW ? "> " : "",
                     (double)b->low, b->ends == NOT_HIGH ? "< " : "",
                     (double)b->high);
  }
  return FL_OK;
}

static fl_status check_choices(const fl_strategy_options *o)
{
  if (o->rule < FL_RULE_MEAN || o->rule > FL_RULE_HOST)
    return fli_error(FL_E_OPTIONS, "strategy: rule, got %u, want FL_RULE_*",
                     o->rule);
  if (o->optimiser < FL_STEP_SGD || o->optimiser > FL_STEP_HOST)
    return fli_error(FL_E_OPTIONS,
                     "strategy: optimiser, got %u, want FL_STEP_*",
                     o->optimiser);
  if (o->is_uniform > 1 || o->bias_correction > 1 || o->clip_adapts > 1)
    return fli_error(FL_E_OPTIONS, "strategy: is_uniform, bias_correction, "
                                   "clip_adapts: want 0 or 1");
  if (o->passes < 1 || o->passes > 64)
    return fli_error(FL_E_OPTIONS, "strategy: passes, got %u, want 1..64",
                     o->passes);
  if (o->byzantine > UINT32_MAX / 4)
    return fli_error(FL_E_OPTIONS, "strategy: byzantine, got %u, want <= %u",
                     o->byzantine, UINT32_MAX / 4);
  return FL_OK;
}

static fl_status check_pairs(const fl_strategy_options *o)
{
  const int is_sgd = o->optimiser == FL_STEP_SGD;
  if ((o->rule == FL_RULE_HOST) != (o->combine != NULL))
    return fli_error(FL_E_CONFLICT, "strategy: rule HOST and combine: want "
                                    "both or neither");
  if ((o->optimiser == FL_STEP_HOST) != (o->optimise != NULL))
    return fli_error(FL_E_CONFLICT, "strategy: optimiser HOST and optimise: "
                                    "want both or neither");
  if (o->momentum > 0.0f && !is_sgd)
    return fli_error(FL_E_CONFLICT, "strategy: momentum is the optimiser "
                                    "SGD's");
  if (o->bias_correction && o->optimiser != FL_STEP_ADAM &&
      o->optimiser != FL_STEP_YOGI)
    return fli_error(FL_E_CONFLICT, "strategy: bias_correction is ADAM's and "
                                    "YOGI's");
  if (o->clip_adapts && o->clip == 0.0f)
    return fli_error(FL_E_CONFLICT, "strategy: clip_adapts, want a clip to "
                                    "begin with");
  if (o->clip > 0.0f && o->rule == FL_RULE_HOST)
    return fli_error(FL_E_CONFLICT, "strategy: clip with rule HOST, whose "
                                    "combine reads the updates by itself");
  if (o->rule == FL_RULE_SCAFFOLD && (o->clip > 0.0f || !is_sgd))
    return fli_error(FL_E_CONFLICT, "strategy: SCAFFOLD, want the optimiser "
                                    "SGD and no clip");
  if (o->client_momentum > 0.0f && o->prox_mu > 0.0f && o->rule == FL_RULE_NOVA)
    return fli_error(FL_E_CONFLICT, "strategy: NOVA, want client_momentum or "
                                    "prox_mu");
  return FL_OK;
}

/* What one FL_RULE_NOVA step shrinks a weight by. */
static fl_status check_prox(const fl_strategy_options *o)
{
  const double shrink = (double)o->client_rate * (double)o->prox_mu;
  if (o->rule != FL_RULE_NOVA || shrink < 1.0) return FL_OK;
  return fli_error(FL_E_CONFLICT,
                   "strategy: NOVA, client_rate prox_mu: got %g, want < 1",
                   shrink);
}

fl_status fli_strategy_options_load(fl_strategy_options *local,
                                    const fl_strategy_options *options)
{
  fl_status st = FL_OK;
  *local = defaults;
  FLI_TRY(fli_options_load(local, sizeof *local, options, "strategy options"));
  FLI_TRY(check_bounds(local));
  FLI_TRY(check_choices(local));
  FLI_TRY(check_pairs(local));
  FLI_TRY(check_prox(local));
  if (local->rate == 0.0f) {
    local->rate = local->optimiser == FL_STEP_YOGI ? 0.01f
                  : local->optimiser == FL_STEP_ADAM ||
                          local->optimiser == FL_STEP_ADAGRAD
                      ? 0.1f
                      : 1.0f;
  }
out:
  return st;
}

fl_status fl_strategy_options_init(fl_strategy_options *options, size_t size)
{
  fli_clear_error();
  return fli_options_init(options, size, &defaults, sizeof defaults);
}

fl_status fl_strategy_options_named(fl_strategy_options *options, size_t size,
                                    const char *name)
{
  fli_clear_error();
  if (!name) return fli_error(FL_E_ARGUMENT, "strategy: name, got NULL");
  for (size_t i = 0; i < FLI_COUNT_OF(names); i++) {
    fl_strategy_options full = defaults;
    if (strcmp(name, names[i].name) != 0) continue;
    full.rule = names[i].rule;
    full.optimiser = names[i].optimiser;
    full.is_uniform = names[i].is_uniform;
    full.momentum = names[i].momentum;
    full.prox_mu = names[i].prox_mu;
    return fli_options_init(options, size, &full, sizeof full);
  }
  return fli_error(FL_E_NOT_FOUND, "strategy: no name is %.32s", name);
}

uint32_t fl_strategy_needs(const fl_strategy_options *options)
{
  fl_strategy_options o;
  fli_clear_error();
  if (fli_strategy_options_load(&o, options) != FL_OK) return 0;
  uint32_t needs = 0;
  if (o.rule != FL_RULE_MEAN || o.clip > 0.0f)
    needs |= FL_STRATEGY_NEEDS_UPDATES;
  if (o.rule == FL_RULE_NOVA) needs |= FL_STRATEGY_NEEDS_STEPS;
  if (o.rule == FL_RULE_FAIR) needs |= FL_STRATEGY_NEEDS_LOSSES;
  if (o.rule == FL_RULE_SCAFFOLD) needs |= FL_STRATEGY_NEEDS_CONTROLS;
  return needs;
}
