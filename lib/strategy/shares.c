/* SPDX-License-Identifier: Apache-2.0 */
/* What an update is multiplied with where the rule is a weighted sum: its share
 * of the samples; FedNova's (section 4, with the a_k of its table 1);
 * q-FedAvg's (algorithm 2), whose step -num/h is a weighted sum, too; and norm
 * clipping. */
#include <math.h>

#include "base/dmath.h"
#include "base/error.h"
#include "strategy/strategy.h"

/* Losses are not looked at below it: F^(q - 1) has a pole for q < 1. */
#define LEAST_LOSS 1e-10
#define MOST_LOSS 1e30

static fl_status check_counts(const uint64_t *values, uint32_t count,
                              const char *what)
{
  for (uint32_t k = 0; values && k < count; k++) {
    if (values[k] > 0) continue;
    return fli_error(FL_E_ARGUMENT, "strategy: %s[%u], got 0, want >= 1", what,
                     k);
  }
  return FL_OK;
}

static fl_status check_there(int is_there, const char *what)
{
  if (is_there) return FL_OK;
  return fli_error(FL_E_ARGUMENT, "strategy: a round without %s", what);
}

static fl_status check_rows(const float *const *rows, uint32_t count)
{
  for (uint32_t k = 0; rows && k < count; k++) {
    if (!rows[k])
      return fli_error(FL_E_ARGUMENT, "strategy: row %u, got NULL", k);
  }
  return FL_OK;
}

static fl_status check_losses(const double *losses, uint32_t count)
{
  for (uint32_t k = 0; k < count; k++) {
    if (losses[k] >= 0.0 && losses[k] <= MOST_LOSS) continue;
    return fli_error(FL_E_RANGE, "strategy: losses[%u], got %g, want 0..%g", k,
                     losses[k], MOST_LOSS);
  }
  return FL_OK;
}

static fl_status check_krum(const fl_strategy *strategy, uint32_t count)
{
  const uint32_t f = strategy->options.byzantine;
  if (strategy->options.rule != FL_RULE_KRUM &&
      strategy->options.rule != FL_RULE_MULTI_KRUM)
    return FL_OK;
  if (count >= 2 * f + 3) return FL_OK;
  return fli_error(FL_E_RANGE,
                   "strategy: Krum with %u of them byzantine, got %u updates, "
                   "want >= %u",
                   f, count, 2 * f + 3);
}

fl_status fli_round_check(const fl_strategy *strategy,
                          const fl_strategy_round *round)
{
  const uint32_t rule = strategy->options.rule;
  const uint32_t count = round->count;
  fl_status st = FL_OK;
  if (count == 0)
    return fli_error(FL_E_EMPTY, "strategy: a round without updates");
  FLI_TRY(check_there(round->read || round->rows, "updates"));
  if (rule == FL_RULE_SCAFFOLD)
    FLI_TRY(
        check_there(round->read_control || round->control_rows, "controls"));
  if (rule == FL_RULE_NOVA) FLI_TRY(check_there(round->steps != NULL, "steps"));
  if (rule == FL_RULE_FAIR)
    FLI_TRY(check_there(round->losses != NULL, "losses"));
  FLI_TRY(check_rows(round->rows, count));
  FLI_TRY(check_rows(round->control_rows, count));
  FLI_TRY(check_counts(round->samples, count, "samples"));
  if (rule == FL_RULE_NOVA) FLI_TRY(check_counts(round->steps, count, "steps"));
  if (rule == FL_RULE_FAIR) FLI_TRY(check_losses(round->losses, count));
  FLI_TRY(check_krum(strategy, count));
out:
  return st;
}

void fli_clip_factors(const fl_strategy *strategy, const double *squares,
                      double *clips, fli_pending *pending)
{
  const fl_strategy_options *options = &strategy->options;
  const double bound = strategy->clip;
  for (uint32_t k = 0; k < pending->count; k++) {
    const double length = sqrt(squares[k]);
    const int is_longer = length > bound;
    pending->clipped += (uint32_t)is_longer;
    clips[k] = is_longer ? bound / length : 1.0;
  }
  if (!options->clip_adapts) return;
  const double share =
      (double)(pending->count - pending->clipped) / (double)pending->count;
  const double next = bound * fli_exp(-(double)options->clip_rate *
                                      (share - (double)options->clip_quantile));
  /* Where it would be no number to divide by, it stays. */
  if (next > 1e-30 && next < 1e30) pending->clip = next;
}

static double power(double base, double exponent)
{
  return exponent == 0.0 ? 1.0 : fli_exp(exponent * fli_ln(base));
}

/* a_k: what `steps` local steps amount to. */
static double work_of(const fl_strategy_options *options, uint64_t steps)
{
  const double tau = (double)steps;
  const double rho = (double)options->client_momentum;
  const double shrink = (double)options->client_rate * (double)options->prox_mu;
  if (rho > 0.0)
    return (tau - rho * (1.0 - power(rho, tau)) / (1.0 - rho)) / (1.0 - rho);
  if (shrink > 0.0) return (1.0 - power(1.0 - shrink, tau)) / shrink;
  return tau;
}

static void by_samples(const fl_strategy *strategy,
                       const fl_strategy_round *round, double *factors)
{
  const int is_uniform = strategy->options.is_uniform || !round->samples;
  double sum = 0.0;
  for (uint32_t k = 0; k < round->count; k++) {
    factors[k] = is_uniform ? 1.0 : (double)round->samples[k];
    sum += factors[k];
  }
  for (uint32_t k = 0; k < round->count; k++)
    factors[k] /= sum;
}

static void by_work(const fl_strategy *strategy, const fl_strategy_round *round,
                    double *factors)
{
  double all = 0.0;
  for (uint32_t k = 0; k < round->count; k++) {
    const double work = work_of(&strategy->options, round->steps[k]);
    all += factors[k] * work;
    factors[k] /= work;
  }
  for (uint32_t k = 0; k < round->count; k++)
    factors[k] *= all;
}

/* num = sum F^q G, h = sum q F^(q-1) |G|^2 + L F^q, with G = -L D and L one
 * over the client's rate: D = sum (L F^q / h) D_k. */
static void by_loss(const fl_strategy *strategy, const fl_strategy_round *round,
                    const double *squares, double *factors)
{
  const double q = (double)strategy->options.fairness;
  const double lipschitz = 1.0 / (double)strategy->options.client_rate;
  double h = 0.0;
  for (uint32_t k = 0; k < round->count; k++) {
    const double given = round->losses[k];
    const double loss = given > LEAST_LOSS ? given : LEAST_LOSS;
    const double gradient = squares[k] * lipschitz * lipschitz;
    factors[k] = lipschitz * power(loss, q);
    if (q > 0.0) h += q * power(loss, q - 1.0) * gradient;
    h += factors[k];
  }
  for (uint32_t k = 0; k < round->count; k++)
    factors[k] /= h;
}

void fli_shares(const fl_strategy *strategy, const fl_strategy_round *round,
                const double *squares, double *factors)
{
  by_samples(strategy, round, factors);
  if (strategy->options.rule == FL_RULE_NOVA) by_work(strategy, round, factors);
  if (strategy->options.rule == FL_RULE_FAIR)
    by_loss(strategy, round, squares, factors);
}
