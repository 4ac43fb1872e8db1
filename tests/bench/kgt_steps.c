/* SPDX-License-Identifier: Apache-2.0 */
/* What a step costs: with 0 to 3 modules frozen, what comes out of them
 * computed, computed and kept, or read; and how much of it the modules take.
 * Kinds of steps take turns, and every turn is compared with the full steps of
 * its round: what else the machine does hits all of them alike. Prices are the
 * medians of those shares, times the median of full steps. */
#include "kgt.h"

#include <stdio.h>
#include <stdlib.h>

#include "model_costs.h"

enum {
  TURN = 5,  /* steps that count, behind one that does not */
  PAIRS = 8, /* with and without an evaluation */
  SEED = 1
};

/* Weights stay about as they are; rate 0 would save products. */
#define RATE 1e-9f

/* us of a mean step of each round, from the layers' own times. */
typedef struct layers {
  double *forward;  /* of what is below the cut in front of the module */
  double *backward; /* of the same */
  double *edge;     /* back, of the first layer behind */
} layers;

typedef struct calibration {
  const kgt_bench *bench;
  uint32_t *places; /* of a batch */
  fl_model *plain[KGT_FROZEN];
  fl_model *kept[KGT_FROZEN]; /* with cache; of 0: a controller that evaluates
                                 as often as it can */
  kgt_control controls[KGT_FROZEN];
  double *steps[KGT_FROZEN][KGT_KINDS]; /* the median step of each round */
  double *evaluating;       /* us that a step is longer, a mean of each round */
  layers whole[KGT_FROZEN]; /* of a full step, as the cut of each would be */
  layers frozen[KGT_FROZEN]; /* of a step with so many modules frozen */
} calibration;

static double *new_times(int runs)
{
  return kgt_get((size_t)runs, sizeof(double));
}

static void layers_open(layers *l, int runs)
{
  *l = (layers){new_times(runs), new_times(runs), new_times(runs)};
}

static void layers_close(layers *l)
{
  free(l->forward);
  free(l->backward);
  free(l->edge);
}

double kgt_flops(const fl_model *model, uint64_t n)
{
  return model_flops(model, (size_t)n, 1);
}

uint64_t kgt_steps_of_prices(const kgt_bench *bench, int runs)
{
  return (uint64_t)runs * ((TURN + 1) * (4 * KGT_FROZEN - 2) + 4 * (PAIRS + 1));
}

double kgt_time_step(const kgt_bench *bench, fl_model *model, uint64_t index,
                     uint32_t *places)
{
  const uint32_t batch = bench->sizes.batch;
  uint32_t n_batches = bench->sizes.tune / batch;
  for (uint32_t i = 0; i < batch; i++)
    places[i] = (uint32_t)(index % n_batches) * batch + i;
  fl_dataset data = kgt_batch(bench, places, batch);
  double begin = kgt_cpu_us();
  kgt_must(fl_model_step(model, &data, RATE, NULL), "step");
  return kgt_cpu_us() - begin;
}

/* Step i of a turn. */
static double time_step(const calibration *c, fl_model *model, int i)
{
  double us = kgt_time_step(c->bench, model, (uint64_t)i, c->places);
  kgt_progress_step("prices");
  return us;
}

static void take_turn(const calibration *c, fl_model *model, int round,
                      double *steps)
{
  double us[TURN];
  (void)time_step(c, model, 0);
  for (int i = 0; i < TURN; i++)
    us[i] = time_step(c, model, i + 1);
  steps[round] = kgt_median(us, TURN);
}

/* us that a step is longer with the controller, step by step beside a model
 * that has none; so many that there is one new snapshot among them. */
static double take_pairs(const calibration *c, fl_model *with,
                         fl_model *without)
{
  double sum = 0.0;
  for (int i = 0; i <= PAIRS; i++) {
    double more = time_step(c, with, i) - time_step(c, without, i);
    if (i > 0) sum += more;
  }
  return sum / PAIRS;
}

/* Steps between two evaluations, at least. */
static uint64_t shortest_interval(uint32_t criterion)
{
  return criterion == FL_FREEZE_GRADNORM ? 2 : 1;
}

/* Evaluations as often as can be. */
static fl_freeze_options often(const kgt_bench *bench, uint32_t criterion)
{
  fl_freeze_options options = kgt_idle_options(bench, criterion);
  options.interval = shortest_interval(criterion);
  return options;
}

/* Either model has the controller once: where they lie in memory matters. */
static void take_evaluations(calibration *c, uint32_t criterion, int round)
{
  fl_freeze_options options = often(c->bench, criterion);
  double sum = take_pairs(c, c->kept[0], c->plain[0]);
  kgt_control_close(&c->controls[0]);
  kgt_control_open(&c->controls[0], c->bench, c->plain[0], &options, 0);
  c->evaluating[round] = (sum + take_pairs(c, c->plain[0], c->kept[0])) / 2.0;
}

/* Of the layers in front of `module`, and of the one that begins it. */
static void read_layers(const fl_model *model, uint32_t module, int round,
                        layers *l)
{
  fli_cut cut;
  if (!fli_model_cut(model, module, &cut)) kgt_must(FL_E_STATE, "cut");
  l->forward[round] = l->backward[round] = 0.0;
  for (uint32_t i = 0; i < cut.position; i++) {
    l->forward[round] += profile_us(i, 0) / TURN;
    l->backward[round] += profile_us(i, 1) / TURN;
  }
  l->edge[round] = profile_us(cut.position, 1) / TURN;
}

static void take_profile(calibration *c, uint32_t first_active, int round)
{
  fl_model *model = c->plain[first_active];
  (void)time_step(c, model, 0);
  profile_begin(model, kgt_cpu_us);
  for (int i = 1; i <= TURN; i++)
    (void)time_step(c, model, i);
  if (first_active > 0) {
    read_layers(model, first_active, round, &c->frozen[first_active]);
  }
  for (uint32_t f = 1; first_active == 0 && f < KGT_FROZEN; f++)
    read_layers(model, f, round, &c->whole[f]);
  profile_stop();
}

static void open_models(calibration *c, uint32_t criterion)
{
  for (uint32_t f = 0; f < KGT_FROZEN; f++) {
    const fl_freeze_fixed at_once = {.first_active = f};
    fl_freeze_options options =
        f > 0 ? kgt_freeze_options(c->bench, 1, FL_FREEZE_FIXED)
              : often(c->bench, criterion);
    if (f > 0) {
      options.fixed = &at_once;
      options.n_fixed = 1;
    }
    c->plain[f] = kgt_model(c->bench, SEED);
    c->kept[f] = kgt_model(c->bench, SEED);
    kgt_must(fl_model_set_first_active(c->plain[f], f), "freezing");
    kgt_control_open(&c->controls[f], c->bench, c->kept[f], &options,
                     f > 0 ? c->bench->sizes.batch * (PAIRS + 1) : 0);
  }
}

static void close_models(calibration *c)
{
  for (uint32_t f = 0; f < KGT_FROZEN; f++) {
    kgt_control_close(&c->controls[f]);
    fl_model_free(c->kept[f]);
    fl_model_free(c->plain[f]);
  }
}

/* With new models: where they lie in memory makes a difference. What is read
 * was written some turns before: it is not in the nearest caches. */
static void take_round(calibration *c, uint32_t criterion, int round)
{
  open_models(c, criterion);
  for (uint32_t f = 0; f < KGT_FROZEN; f++)
    take_turn(c, c->plain[f], round, c->steps[f][KGT_PLAIN]);
  for (uint32_t f = 1; f < KGT_FROZEN; f++)
    take_turn(c, c->kept[f], round, c->steps[f][KGT_FILL]);
  for (uint32_t f = 0; f < KGT_FROZEN; f++)
    take_profile(c, f, round);
  take_evaluations(c, criterion, round);
  for (uint32_t f = 1; f < KGT_FROZEN; f++) {
    (void)kgt_control_has_hit(&c->controls[f]);
    take_turn(c, c->kept[f], round, c->steps[f][KGT_HIT]);
    if (!kgt_control_has_hit(&c->controls[f])) {
      fprintf(stderr, "bench_kgt: the cache has nothing of module %u\n", f);
      exit(1);
    }
  }
  close_models(c);
}

static void open_times(calibration *c, int runs)
{
  for (uint32_t f = 0; f < KGT_FROZEN; f++) {
    for (uint32_t kind = 0; kind < KGT_KINDS; kind++)
      c->steps[f][kind] = new_times(runs);
    layers_open(&c->whole[f], runs);
    layers_open(&c->frozen[f], runs);
  }
  c->evaluating = new_times(runs);
}

static void close_times(calibration *c)
{
  for (uint32_t f = 0; f < KGT_FROZEN; f++) {
    for (uint32_t kind = 0; kind < KGT_KINDS; kind++)
      free(c->steps[f][kind]);
    layers_close(&c->whole[f]);
    layers_close(&c->frozen[f]);
  }
  free(c->evaluating);
  free(c->places);
}

/* Shares of the full step of the round. */
static void divide(const calibration *c, double *us, int runs)
{
  for (int i = 0; i < runs; i++)
    us[i] /= c->steps[0][KGT_PLAIN][i];
}

static void divide_all(calibration *c, int runs)
{
  for (uint32_t f = 1; f < KGT_FROZEN; f++) {
    for (uint32_t kind = 0; kind < KGT_KINDS; kind++)
      divide(c, c->steps[f][kind], runs);
    divide(c, c->whole[f].forward, runs);
    divide(c, c->whole[f].backward, runs);
    divide(c, c->whole[f].edge, runs);
    divide(c, c->frozen[f].edge, runs);
    divide(c, c->frozen[f].forward, runs);
  }
  divide(c, c->evaluating, runs);
}

/* What b does not take of a; never less than nothing. */
static double excess(double *a, double *b, size_t n)
{
  double more = kgt_median(a, n) - kgt_median(b, n);
  return more > 0.0 ? more : 0.0;
}

/* Left out: the way back through the frozen modules; the gradient that the
 * first layer behind them need not give; and what their way forward takes less
 * when nothing has to be kept for the way back, or the whole of it. */
static void fill_ideal(calibration *c, uint32_t f, size_t n, kgt_prices *prices)
{
  const layers *whole = &c->whole[f], *frozen = &c->frozen[f];
  double full = prices->step[0][KGT_PLAIN];
  double left = 1.0 - kgt_median(whole->backward, n) -
                excess(whole->edge, frozen->edge, n);
  prices->ideal[f][0] =
      full * (left - excess(whole->forward, frozen->forward, n));
  prices->ideal[f][1] = full * (left - kgt_median(whole->forward, n));
}

static void fill_prices(calibration *c, int runs, uint32_t criterion,
                        kgt_prices *prices)
{
  size_t n = (size_t)runs;
  divide_all(c, runs);
  double full = kgt_median(c->steps[0][KGT_PLAIN], n);
  prices->step[0][KGT_PLAIN] = full;
  prices->ideal[0][0] = prices->ideal[0][1] = full;
  double share = kgt_median(c->evaluating, n);
  /* Less than nothing is noise. */
  prices->evaluation =
      share > 0.0 ? full * share * (double)shortest_interval(criterion) : 0.0;
  for (uint32_t f = 1; f < KGT_FROZEN; f++) {
    for (uint32_t kind = 0; kind < KGT_KINDS; kind++)
      prices->step[f][kind] = full * kgt_median(c->steps[f][kind], n);
    fill_ideal(c, f, n, prices);
  }
}

void kgt_measure_prices(const kgt_bench *bench, int runs, uint32_t criterion,
                        kgt_prices *prices)
{
  calibration c = {.bench = bench};
  *prices = (kgt_prices){0};
  c.places = kgt_get(bench->sizes.batch, sizeof *c.places);
  open_times(&c, runs);
  for (int round = 0; round < runs; round++)
    take_round(&c, criterion, round);
  fill_prices(&c, runs, criterion, prices);
  close_times(&c);
  kgt_progress_line("prices");
}

double kgt_cost(const kgt_prices *prices, const kgt_result *result,
                int has_cache)
{
  double us = prices->evaluation * (double)result->evaluations;
  for (uint32_t f = 0; f < KGT_FROZEN; f++) {
    int is_kept = has_cache && f > 0;
    us += prices->step[f][is_kept ? KGT_FILL : KGT_PLAIN] *
          (double)result->steps[f][0];
    us += prices->step[f][is_kept ? KGT_HIT : KGT_PLAIN] *
          (double)result->steps[f][1];
  }
  return us;
}

double kgt_ideal(const kgt_prices *prices, const kgt_result *result,
                 int has_cache)
{
  double us = 0.0;
  for (uint32_t f = 0; f < KGT_FROZEN; f++) {
    us += prices->ideal[f][0] * (double)result->steps[f][0];
    us += prices->ideal[f][has_cache] * (double)result->steps[f][1];
  }
  return us;
}

void kgt_print_prices(const kgt_prices *prices)
{
  static const char *const kinds[KGT_KINDS] = {"", "_fill", "_cache"};
  char key[64];
  for (uint32_t f = 0; f < KGT_FROZEN; f++) {
    for (uint32_t kind = 0; kind < KGT_KINDS; kind++) {
      if (f == 0 && kind != KGT_PLAIN) continue;
      (void)snprintf(key, sizeof key, "step_us_f%u%s", f, kinds[kind]);
      kgt_print(key, prices->step[f][kind]);
    }
  }
  for (uint32_t f = 1; f < KGT_FROZEN; f++) {
    (void)snprintf(key, sizeof key, "ideal_us_f%u", f);
    kgt_print(key, prices->ideal[f][0]);
    (void)snprintf(key, sizeof key, "ideal_us_f%u_cache", f);
    kgt_print(key, prices->ideal[f][1]);
    (void)snprintf(key, sizeof key, "step_share_of_ideal_%uof4", f);
    kgt_print(key, prices->ideal[f][0] / prices->step[f][KGT_PLAIN]);
    (void)snprintf(key, sizeof key, "step_share_of_ideal_%uof4_cache", f);
    kgt_print(key, prices->ideal[f][1] / prices->step[f][KGT_HIT]);
  }
  kgt_print("evaluation_us", prices->evaluation);
}

void kgt_part_steps(const kgt_bench *bench, const kgt_settings *settings)
{
  kgt_prices prices;
  kgt_progress_begin(kgt_steps_of_prices(bench, settings->runs) +
                     2 * kgt_steps_of_overhead(bench, settings->runs));
  kgt_measure_prices(bench, settings->runs, FL_FREEZE_GRADNORM, &prices);
  kgt_print_prices(&prices);
  kgt_print_overhead(bench, settings->runs, FL_FREEZE_GRADNORM, "overhead");
  kgt_print_overhead(bench, settings->runs, FL_FREEZE_PLASTICITY,
                     "overhead_plasticity");
}
