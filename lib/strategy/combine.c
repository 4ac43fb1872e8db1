/* SPDX-License-Identifier: Apache-2.0 */
/* From the updates to D. All rules but the two that go by coordinates are
 * weighted sums, and differ in where the factors come from. */
#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "kernels/kernels.h"
#include "strategy/strategy.h"

typedef struct scratch {
  double *squares;
  double *clips; /* NULL: nothing is clipped */
} scratch;

static fl_status measure(const fl_strategy *strategy,
                         const fl_strategy_round *round, scratch *work,
                         fli_pending *pending)
{
  fl_context *context = strategy->context;
  const size_t count = round->count;
  const int has_clip = strategy->clip > 0.0;
  if (!has_clip && strategy->options.rule != FL_RULE_FAIR) return FL_OK;
  work->squares = fli_alloc(context, count, sizeof(double));
  if (has_clip) work->clips = fli_alloc(context, count, sizeof(double));
  if (!work->squares || (has_clip && !work->clips))
    return fli_nomem(count * sizeof(double));
  fl_status st = fli_squares(strategy, round, work->squares);
  if (st != FL_OK || !has_clip) return st;
  fli_clip_factors(strategy, work->squares, work->clips, pending);
  for (size_t k = 0; k < count; k++)
    work->squares[k] *= work->clips[k] * work->clips[k];
  return FL_OK;
}

static fl_status by_factors(const fl_strategy *strategy,
                            const fl_strategy_round *round, const scratch *work,
                            fli_pending *pending)
{
  fl_status st = FL_OK;
  double *factors = pending->factors;
  fli_shares(strategy, round, work->squares, factors);
  switch (strategy->options.rule) {
  case FL_RULE_KRUM:
  case FL_RULE_MULTI_KRUM:
    FLI_TRY(fli_choose_krum(strategy, round, work->clips, pending));
    break;
  case FL_RULE_GEOMETRIC_MEDIAN:
    FLI_TRY(fli_choose_geometric(strategy, round, work->clips, pending));
    break;
  default: break;
  }
  for (uint32_t k = 0; work->clips && k < round->count; k++)
    factors[k] *= work->clips[k];
  FLI_TRY(fli_weighted_sum(strategy, round, factors, 0, pending->step));
out:
  return st;
}

static fl_status by_host(const fl_strategy *strategy,
                         const fl_strategy_round *round, fli_pending *pending)
{
  const fl_strategy_options *options = &strategy->options;
  const fl_status st = fli_host_status(
      options->combine(options->user, round, pending->step, strategy->n),
      "combine");
  if (st != FL_OK) return st;
  return fli_expect_finite(pending->step, strategy->n, "the host's combine");
}

/* c += sum of the changes / N. */
static fl_status move_control(const fl_strategy *strategy,
                              const fl_strategy_round *round,
                              fli_pending *pending)
{
  fl_context *context = strategy->context;
  const size_t n = (size_t)strategy->n, count = round->count;
  const uint64_t all = strategy->options.population;
  fl_status st = FL_OK;
  double *factors = fli_alloc(context, count, sizeof *factors);
  pending->control = fli_alloc(context, n, sizeof(float));
  if (!factors || !pending->control) FLI_TRY(fli_nomem(n * sizeof(float)));
  for (size_t k = 0; k < count; k++)
    factors[k] = 1.0 / (double)(all > count ? all : count);
  FLI_TRY(fli_weighted_sum(strategy, round, factors, 1, pending->control));
  for (size_t i = 0; i < n; i++)
    pending->control[i] += strategy->control[i];
  FLI_TRY(fli_expect_finite(pending->control, n, "the control"));
out:
  fli_free(context, factors, count * sizeof *factors);
  return st;
}

fl_status fli_combine(const fl_strategy *strategy,
                      const fl_strategy_round *round, fli_pending *pending)
{
  fl_context *context = strategy->context;
  const uint32_t rule = strategy->options.rule;
  const size_t bytes = round->count * sizeof(double);
  fl_status st = FL_OK;
  scratch work = {0};
  pending->count = round->count;
  if (rule == FL_RULE_HOST) return by_host(strategy, round, pending);
  FLI_TRY(measure(strategy, round, &work, pending));
  if (rule == FL_RULE_MEDIAN || rule == FL_RULE_TRIMMED_MEAN) {
    FLI_TRY(fli_combine_order(strategy, round, work.clips, pending->step));
  } else {
    pending->factors = fli_alloc(context, round->count, sizeof(double));
    if (!pending->factors) FLI_TRY(fli_nomem(bytes));
    FLI_TRY(by_factors(strategy, round, &work, pending));
  }
  if (rule == FL_RULE_SCAFFOLD) FLI_TRY(move_control(strategy, round, pending));
out:
  fli_free(context, work.squares, bytes);
  fli_free(context, work.clips, bytes);
  return st;
}
