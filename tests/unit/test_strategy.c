/* SPDX-License-Identifier: Apache-2.0 */
/* Strategies from C: what is read and when, what is refused and leaves
 * everything as it was, old hosts' structs. Formulas are tested against numpy's
 * (tests/python/test_strategy.py). */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include <fl/strategy.h>
#include "base/rng.h"
#include "strategy/strategy.h"

enum { N = FLI_TILE + 77, COUNT = 9 };

static float updates[COUNT][N];
static const float *rows[COUNT];
static const uint64_t samples[COUNT] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
static const uint64_t steps[COUNT] = {1, 2, 1, 2, 1, 2, 1, 2, 1};
static const double losses[COUNT] = {1, 2, 3, 1, 2, 3, 1, 2, 3};

typedef struct reads {
  int is_copied;        /* into the buffer */
  uint64_t values;      /* read of all updates */
  uint32_t of_last;     /* times that the last update was read */
  fl_status status;     /* to give */
  const float *instead; /* of the last update */
} reads;

static fl_status read_update(void *user, uint32_t index, uint64_t at,
                             uint64_t n, float *buffer, const float **values)
{
  reads *r = user;
  const float *row =
      index == COUNT - 1 && r->instead ? r->instead : updates[index];
  cr_assert_lt(index, COUNT);
  cr_assert_leq(at + n, N);
  cr_assert_eq(*values, buffer);
  r->values += n;
  r->of_last += index == COUNT - 1;
  if (r->is_copied) {
    memcpy(buffer, row + at, (size_t)n * sizeof *row);
  } else {
    *values = row + at;
  }
  return r->status;
}

static fl_strategy_round round_of(reads *r)
{
  fl_strategy_round round;
  fli_rng rng;
  fli_rng_init(&rng, 3, FLI_RNG_TEST, 0, 0);
  for (size_t k = 0; k < COUNT; k++) {
    rows[k] = updates[k];
    for (size_t i = 0; i < N; i++)
      updates[k][i] = (float)fli_rng_f64(&rng) - 0.4f;
  }
  cr_assert_eq(fl_strategy_round_init(&round, sizeof round), FL_OK);
  round.count = COUNT;
  round.samples = samples;
  round.steps = steps;
  round.losses = losses;
  round.control_rows = rows;
  round.read = r ? read_update : NULL;
  round.rows = r ? NULL : rows;
  round.user = r;
  return round;
}

static fl_strategy_options named(const char *name)
{
  fl_strategy_options options;
  cr_assert_eq(fl_strategy_options_named(&options, sizeof options, name),
               FL_OK);
  return options;
}

static fl_strategy *made(const fl_strategy_options *options)
{
  fl_strategy *strategy = NULL;
  cr_assert_eq(fl_strategy_new(&strategy, NULL, options, N), FL_OK, "%s",
               fl_last_error());
  return strategy;
}

static const char *const names[] = {
    "fedavg",     "fedavgm",    "fedprox",      "fedadam",         "fedyogi",
    "fedadagrad", "fednova",    "scaffold",     "median",          "q-fedavg",
    "krum",       "multi-krum", "trimmed-mean", "geometric-median"};
enum { NAMES = sizeof names / sizeof *names };

Test(strategy, every_name_steps_and_how_updates_are_read_changes_no_byte)
{
  for (size_t i = 0; i < NAMES; i++) {
    float weights[3][N];
    memset(weights, 0, sizeof weights);
    for (int way = 0; way < 3; way++) {
      reads r = {.is_copied = way == 1};
      const fl_strategy_options options = named(names[i]);
      fl_strategy *strategy = made(&options);
      const fl_strategy_round round = round_of(way == 2 ? NULL : &r);
      cr_assert_eq(fl_strategy_step(strategy, &round, weights[way], N), FL_OK,
                   "%s: %s", names[i], fl_last_error());
      fl_strategy_free(strategy);
    }
    cr_assert_neq(weights[0][0], 0.0f);
    cr_assert_arr_eq(weights[0], weights[1], sizeof weights[0]);
    cr_assert_arr_eq(weights[0], weights[2], sizeof weights[0]);
  }
  fl_strategy_options options;
  cr_assert_eq(fl_strategy_options_named(&options, sizeof options, "fed"),
               FL_E_NOT_FOUND);
}

Test(strategy, needs_are_those_of_the_rule)
{
  static const struct {
    const char *name;
    uint32_t needs;
  } all[] = {
      {"fedavg", 0},
      {"fedadam", 0},
      {"fednova", FL_STRATEGY_NEEDS_UPDATES | FL_STRATEGY_NEEDS_STEPS},
      {"q-fedavg", FL_STRATEGY_NEEDS_UPDATES | FL_STRATEGY_NEEDS_LOSSES},
      {"scaffold", FL_STRATEGY_NEEDS_UPDATES | FL_STRATEGY_NEEDS_CONTROLS},
      {"krum", FL_STRATEGY_NEEDS_UPDATES}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    const fl_strategy_options options = named(all[i].name);
    cr_assert_eq(fl_strategy_needs(&options), all[i].needs);
  }
  fl_strategy_options options = named("fedavg");
  options.clip = 1.0f;
  cr_assert_eq(fl_strategy_needs(&options), FL_STRATEGY_NEEDS_UPDATES);
  options.rule = 99;
  cr_assert_eq(fl_strategy_needs(&options), 0);
}

Test(strategy, a_mean_made_elsewhere_steps_the_same)
{
  fl_strategy_options options = named("fedadam");
  reads r = {0};
  const fl_strategy_round round = round_of(&r);
  float one[N] = {0}, two[N] = {0}, mean[N] = {0};
  /* With this rate and tau the first step gives the mean back, nearly. */
  fl_strategy_options plain = named("fedavg");
  fl_strategy *strategy = made(&plain);
  cr_assert_eq(fl_strategy_step(strategy, &round, mean, N), FL_OK);
  fl_strategy_free(strategy);
  fl_strategy *a = made(&options), *b = made(&options);
  for (int i = 0; i < 3; i++) {
    cr_assert_eq(fl_strategy_step(a, &round, one, N), FL_OK);
    cr_assert_eq(fl_strategy_step_mean(b, mean, two, N), FL_OK);
    cr_assert_arr_eq(one, two, sizeof one);
  }
  fl_strategy_free(a);
  fl_strategy_free(b);
  options = named("median");
  a = made(&options);
  cr_assert_eq(fl_strategy_step_mean(a, mean, two, N), FL_E_STATE);
  fl_strategy_free(a);
}

Test(strategy, krum_does_not_read_for_the_sum_what_it_leaves_out)
{
  const fl_strategy_options options = named("krum");
  fl_strategy *strategy = made(&options);
  reads r = {0};
  const fl_strategy_round round = round_of(&r);
  float weights[N] = {0};
  double factors[COUNT];
  fl_strategy_report report;
  cr_assert_eq(fl_strategy_step(strategy, &round, weights, N), FL_OK);
  cr_assert_eq(r.values, (uint64_t)(COUNT + 1) * N);
  cr_assert_eq(fl_strategy_report_init(&report, sizeof report), FL_OK);
  cr_assert_eq(fl_strategy_get_report(strategy, &report), FL_OK);
  cr_assert_lt(report.chosen, COUNT);
  cr_assert_eq(fl_strategy_copy_factors(strategy, factors, COUNT), FL_OK);
  cr_assert_eq(factors[report.chosen], 1.0);
  cr_assert_arr_eq(weights, updates[report.chosen], sizeof weights);
  cr_assert_eq(fl_strategy_copy_factors(strategy, factors, COUNT - 1),
               FL_E_DIM);
  fl_strategy_free(strategy);
}

/* Save before and after: a step that fails leaves not a byte. */
static void fails(const fl_strategy_options *options,
                  const fl_strategy_round *round, fl_status want)
{
  float weights[N];
  fli_bytes before, after;
  fl_strategy *strategy = made(options);
  fli_bytes_init(&before, NULL);
  fli_bytes_init(&after, NULL);
  for (size_t i = 0; i < N; i++)
    weights[i] = 2.0f;
  cr_assert_eq(fli_strategy_write(strategy, &before), FL_OK);
  cr_assert_eq(fl_strategy_step(strategy, round, weights, N), want, "%s",
               fl_last_error());
  cr_assert_gt(strlen(fl_last_error()), 0);
  cr_assert_eq(fli_strategy_write(strategy, &after), FL_OK);
  cr_assert_eq(before.size, after.size);
  cr_assert_arr_eq(before.data, after.data, before.size);
  for (size_t i = 0; i < N; i++)
    cr_assert_eq(weights[i], 2.0f);
  fli_bytes_free(&before);
  fli_bytes_free(&after);
  fl_strategy_free(strategy);
}

Test(strategy, a_bad_update_a_failing_host_and_an_empty_round_leave_the_model)
{
  static float bad[N];
  bad[N - 1] = NAN;
  for (size_t i = 0; i < NAMES; i++) {
    const fl_strategy_options options = named(names[i]);
    reads r = {.instead = bad};
    fl_strategy_round round = round_of(&r);
    /* Krum would not look at it again: it is refused when it is read. */
    fails(&options, &round, FL_E_NOT_FINITE);
    r = (reads){.status = FL_E_IO};
    fails(&options, &round, FL_E_IO);
    r.status = 5;
    fails(&options, &round, FL_E_CALLBACK);
    r.status = FL_OK;
    round.count = 0;
    fails(&options, &round, FL_E_EMPTY);
    round = round_of(&r);
    round.read = NULL;
    fails(&options, &round, FL_E_ARGUMENT);
  }
}

Test(strategy, what_the_rule_needs_has_to_be_there)
{
  reads r = {0};
  fl_strategy_round round = round_of(&r);
  fl_strategy_options options = named("krum");
  options.byzantine = 4;
  fails(&options, &round, FL_E_RANGE);
  round.steps = NULL;
  options = named("fednova");
  fails(&options, &round, FL_E_ARGUMENT);
  round.losses = NULL;
  options = named("q-fedavg");
  fails(&options, &round, FL_E_ARGUMENT);
  round.control_rows = NULL;
  options = named("scaffold");
  fails(&options, &round, FL_E_ARGUMENT);
  rows[3] = NULL;
  round.rows = rows;
  options = named("fedavg");
  fails(&options, &round, FL_E_ARGUMENT);
}

static fl_status worse(void *user, const float *weights, uint64_t n,
                       double *loss)
{
  int *calls = user;
  cr_assert_eq(n, N);
  cr_assert_not_null(weights);
  *loss = ++*calls;
  return FL_OK;
}

Test(strategy, gate_is_asked_about_the_next_model)
{
  int calls = 0;
  fl_strategy_options options = named("fedavgm");
  options.score = worse;
  options.user = &calls;
  fl_strategy *strategy = made(&options);
  reads r = {0};
  const fl_strategy_round round = round_of(&r);
  float weights[N] = {0}, before[N];
  cr_assert_eq(fl_strategy_step(strategy, &round, weights, N), FL_OK);
  memcpy(before, weights, sizeof before);
  cr_assert_eq(fl_strategy_step(strategy, &round, weights, N), FL_E_LIMIT);
  cr_assert_arr_eq(weights, before, sizeof before);
  cr_assert_eq(calls, 2);
  fl_strategy_free(strategy);
}

Test(strategy, a_step_that_leaves_float32_is_refused)
{
  fl_strategy_options options = named("fedavg");
  static float big[N];
  reads r = {.instead = big};
  fl_strategy_round round = round_of(&r);
  for (size_t i = 0; i < N; i++)
    big[i] = 3e38f;
  options.rate = 100.0f;
  fails(&options, &round, FL_E_NOT_FINITE);
}

Test(strategy, options_out_of_range_and_at_odds_are_refused)
{
  const fl_strategy_options good = named("fedavg");
  fl_strategy *strategy = NULL;
#define REFUSED(field, value, want)                                      \
  do {                                                                   \
    fl_strategy_options o = good;                                        \
    o.field = value;                                                     \
    cr_assert_eq(fl_strategy_new(&strategy, NULL, &o, N), want, #field); \
    cr_assert_null(strategy);                                            \
  } while (0)
  REFUSED(rule, 0, FL_E_OPTIONS);
  REFUSED(rule, 11, FL_E_OPTIONS);
  REFUSED(optimiser, 6, FL_E_OPTIONS);
  REFUSED(is_uniform, 2, FL_E_OPTIONS);
  REFUSED(rate, -1.0f, FL_E_OPTIONS);
  REFUSED(rate, NAN, FL_E_OPTIONS);
  REFUSED(momentum, 1.0f, FL_E_OPTIONS);
  REFUSED(beta1, 1.0f, FL_E_OPTIONS);
  REFUSED(beta2, -0.1f, FL_E_OPTIONS);
  REFUSED(tau, 0.0f, FL_E_OPTIONS);
  REFUSED(v0, -1.0f, FL_E_OPTIONS);
  REFUSED(prox_mu, INFINITY, FL_E_OPTIONS);
  REFUSED(client_rate, 0.0f, FL_E_OPTIONS);
  REFUSED(client_momentum, 1.0f, FL_E_OPTIONS);
  REFUSED(fairness, 17.0f, FL_E_OPTIONS);
  REFUSED(trim, 0.5f, FL_E_OPTIONS);
  REFUSED(byzantine, UINT32_MAX, FL_E_OPTIONS);
  REFUSED(passes, 0, FL_E_OPTIONS);
  REFUSED(passes, 65, FL_E_OPTIONS);
  REFUSED(smoothing, 0.0f, FL_E_OPTIONS);
  REFUSED(clip, -1.0f, FL_E_OPTIONS);
  REFUSED(clip_quantile, 1.1f, FL_E_OPTIONS);
  REFUSED(clip_rate, 5.0f, FL_E_OPTIONS);
  REFUSED(gate_tolerance, -1.0f, FL_E_OPTIONS);
  REFUSED(bias_correction, 1, FL_E_CONFLICT);
  REFUSED(clip_adapts, 1, FL_E_CONFLICT);
  REFUSED(rule, FL_RULE_HOST, FL_E_CONFLICT);
  REFUSED(optimiser, FL_STEP_HOST, FL_E_CONFLICT);
#undef REFUSED
  cr_assert_eq(fl_strategy_new(&strategy, NULL, &good, 0), FL_E_ARGUMENT);
  cr_assert_eq(fl_strategy_new(NULL, NULL, &good, N), FL_E_ARGUMENT);
}

Test(strategy, hosts_with_older_structs_get_the_defaults)
{
  fl_strategy_options options = named("median");
  fl_strategy *strategy = NULL;
  options.struct_size = offsetof(fl_strategy_options, is_uniform);
  options.rate = NAN;
  cr_assert_eq(fl_strategy_new(&strategy, NULL, &options, N), FL_OK);
  cr_assert_eq(strategy->options.rate, 1.0f);
  cr_assert_eq(strategy->options.rule, (uint32_t)FL_RULE_MEDIAN);
  fl_strategy_free(strategy);
  fl_strategy_options plain;
  cr_assert_eq(fl_strategy_options_init(&plain, sizeof plain), FL_OK);
  cr_assert_eq(plain.rule, (uint32_t)FL_RULE_MEAN);
  cr_assert_eq(plain.rate, 0.0f);
  cr_assert_eq(fl_strategy_new(&strategy, NULL, NULL, N), FL_OK);
  cr_assert_eq(strategy->options.rule, (uint32_t)FL_RULE_MEAN);
  fl_strategy_free(strategy);
  fl_strategy_free(NULL);
}

Test(strategy, what_is_not_there_yet_is_said)
{
  const fl_strategy_options options = named("fedavg");
  fl_strategy *strategy = made(&options);
  double factors[1];
  const float *control = NULL;
  uint64_t n = 0;
  float weights[N] = {0};
  reads r = {0};
  const fl_strategy_round round = round_of(&r);
  cr_assert_eq(fl_strategy_copy_factors(strategy, factors, 1), FL_E_EMPTY);
  cr_assert_eq(fl_strategy_get_control(strategy, &control, &n), FL_E_STATE);
  cr_assert_eq(fl_strategy_step(strategy, &round, weights, N - 1), FL_E_DIM);
  cr_assert_eq(fl_strategy_step(strategy, NULL, weights, N), FL_E_ARGUMENT);
  cr_assert_eq(fl_strategy_step(NULL, &round, weights, N), FL_E_ARGUMENT);
  fl_strategy_free(strategy);
}

/* All 0-1 inputs of small ones (the zero-one principle), samples of large
 * ones. */
Test(strategy, networks_sort_what_the_window_needs)
{
  fli_rng rng;
  fli_rng_init(&rng, 4, FLI_RNG_TEST, 0, 0);
  for (uint32_t n = 1; n <= FLI_NETWORK_MAX; n = n < 12 ? n + 1 : n + 253) {
    for (uint32_t first = 0; 2 * first < n; first += n < 12 ? 1 : 101) {
      fli_network network;
      const uint32_t last = n - first;
      const uint32_t cases = n < 12 ? 1u << n : 40;
      cr_assert_eq(fli_network_make(&network, NULL, n, first, last), FL_OK);
      for (uint32_t c = 0; c < cases; c++) {
        uint8_t x[FLI_NETWORK_MAX] = {0};
        uint32_t ones = 0, in_window = 0;
        const double share = fli_rng_f64(&rng);
        for (uint32_t i = 0; i < n; i++) {
          x[i] = (uint8_t)(n < 12 ? c >> i & 1 : fli_rng_f64(&rng) < share);
          ones += x[i];
        }
        for (size_t e = 0; e < network.n; e++) {
          uint8_t *low = &x[network.exchanges[e].low];
          uint8_t *high = &x[network.exchanges[e].high];
          const int both = *low & *high, any = *low | *high;
          *low = (uint8_t)both;
          *high = (uint8_t)any;
        }
        for (uint32_t i = first; i < last; i++)
          in_window += x[i];
        const uint32_t from = n - ones > first ? n - ones : first;
        cr_assert_eq(in_window, last > from ? last - from : 0,
                     "n %u, first %u, case %u", n, first, c);
      }
      fli_network_free(&network, NULL);
    }
  }
}
