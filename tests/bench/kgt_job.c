/* SPDX-License-Identifier: Apache-2.0 */
/* One job: tuning on all ten classes (batches of 64, one epoch of warm-up, a
 * tenth of the rate in the last 30 % of the steps), with modules frozen by
 * nobody, by a schedule, or by the controller. Only the steps are timed. */
#include "kgt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

int kgt_schedule_parse(const char *text, kgt_schedule *schedule)
{
  *schedule = (kgt_schedule){0};
  for (;;) {
    unsigned epoch = 0, first_active = 0;
    int used = 0;
    uint32_t n = schedule->n;
    if (n == KGT_ROWS ||
        sscanf(text, "%3u:%1u%n", &epoch, &first_active, &used) != 2 ||
        first_active >= KGT_FROZEN ||
        (n > 0 && epoch <= schedule->epochs[n - 1])) {
      return 0;
    }
    schedule->epochs[n] = epoch;
    schedule->first_active[n] = first_active;
    schedule->n++;
    text += used;
    if (*text == 0) return 1;
    if (*text++ != ',') return 0;
  }
}

/* A run that goes on. */
typedef struct job {
  const kgt_bench *bench;
  const kgt_recipe *recipe;
  kgt_result *result;
  fl_model *model;
  kgt_control control; /* with a criterion */
  uint32_t *order;
  uint8_t *is_kept; /* per image: the cache has it, or would */
  uint32_t first_active;
  uint64_t step;
} job;

static float rate_at(const job *j)
{
  const kgt_recipe *r = j->recipe;
  float rate = r->rate;
  if (j->step >= r->steps * 7 / 10) rate *= .1f;
  if (j->step + 1 >= j->bench->steps_per_epoch) return rate;
  return rate * (float)(j->step + 1) / (float)j->bench->steps_per_epoch;
}

static void follow_schedule(job *j)
{
  const kgt_schedule *s = j->recipe->schedule;
  uint32_t first_active = 0;
  if (!s) return;
  for (uint32_t i = 0; i < s->n; i++) {
    if (j->step >= s->epochs[i] * j->bench->steps_per_epoch)
      first_active = s->first_active[i];
  }
  kgt_must(fl_model_set_first_active(j->model, first_active), "freezing");
}

static void note(job *j, const char *what)
{
  char *text = j->result->frozen;
  size_t used = strlen(text);
  (void)snprintf(text + used, KGT_LOG - used, "%s%s@%.2f", used ? "," : "",
                 what, (double)j->step / (double)j->bench->steps_per_epoch);
}

/* Whether the batch's outputs are kept already; they are from now on. */
static int keep(job *j, const fl_dataset *data)
{
  int has_all = 1;
  for (uint64_t i = 0; i < data->n_indices; i++) {
    uint8_t *is_kept = &j->is_kept[data->indices[i]];
    has_all &= *is_kept;
    *is_kept = 1;
  }
  return has_all;
}

/* What the step was, and what it gave. */
static void count_step(job *j, const fl_dataset *data, double loss)
{
  kgt_result *result = j->result;
  uint32_t first_active = fl_model_first_active(j->model);
  char what[16];
  uint64_t bits;
  if (first_active != j->first_active) {
    j->first_active = first_active;
    (void)snprintf(what, sizeof what, "%u", first_active);
    note(j, what);
    memset(j->is_kept, 0, j->bench->train.n);
  }
  int is_hit = first_active > 0 && keep(j, data);
  if (j->recipe->criterion)
    result->evaluations += kgt_control_poll(&j->control);
  if (j->recipe->has_cache) is_hit = kgt_control_has_hit(&j->control);
  result->steps[first_active][is_hit]++;
  memcpy(&bits, &loss, sizeof bits);
  /* Fowler, Noll and Vo's hash. */
  result->losses = (result->losses ^ bits) * UINT64_C(1099511628211);
}

/* Returns 0 when the loss is no number any more. */
static int one_step(job *j)
{
  const kgt_sizes *sizes = &j->bench->sizes;
  uint64_t first = j->step % j->bench->steps_per_epoch * sizes->batch;
  uint64_t n = sizes->tune - first;
  double loss = 0.0;
  if (n > sizes->batch) n = sizes->batch;
  fl_dataset data = kgt_batch(j->bench, j->order + first, n);
  double begin = kgt_cpu_us();
  follow_schedule(j);
  fl_status st = fl_model_step(j->model, &data, rate_at(j), &loss);
  j->result->cpu_us += kgt_cpu_us() - begin;
  if (st == FL_E_NOT_FINITE) return 0;
  kgt_must(st, "step");
  count_step(j, &data, loss);
  return 1;
}

static void begin_epoch(job *j)
{
  fli_rng rng;
  uint32_t n = j->bench->sizes.tune;
  for (uint32_t i = 0; i < n; i++)
    j->order[i] = i;
  fli_rng_init(&rng, j->recipe->seed, FLI_RNG_TEST,
               j->step / j->bench->steps_per_epoch, 2);
  fli_rng_shuffle(&rng, j->order, n);
}

/* Returns whether it came to its end. */
static int run_job(job *j)
{
  int is_well = 1;
  const kgt_recipe *r = j->recipe;
  if (r->criterion) {
    fl_freeze_options options =
        kgt_freeze_options(j->bench, r->steps, r->criterion);
    kgt_control_open(&j->control, j->bench, j->model, &options,
                     r->has_cache ? j->bench->sizes.tune : 0);
  }
  for (; j->step < r->steps && is_well; j->step++) {
    if (j->step % j->bench->steps_per_epoch == 0) begin_epoch(j);
    is_well = one_step(j);
    kgt_progress_step(r->name);
  }
  if (r->criterion) kgt_control_close(&j->control);
  return is_well;
}

void kgt_run(const kgt_bench *bench, const kgt_recipe *recipe,
             kgt_result *result)
{
  char line[64 + KGT_LOG];
  job j = {.bench = bench, .recipe = recipe, .result = result};
  *result = (kgt_result){0};
  j.model = kgt_model(bench, recipe->seed);
  kgt_must(fl_model_set_weights(j.model, NULL, recipe->weights,
                                fl_model_weight_count(j.model)),
           "weights");
  j.order = kgt_get(bench->sizes.tune, sizeof *j.order);
  j.is_kept = kgt_get(bench->train.n, 1);
  if (run_job(&j)) {
    result->accuracy = kgt_accuracy(bench, j.model);
  } else {
    note(&j, "diverged");
  }
  free(j.order);
  free(j.is_kept);
  fl_model_free(j.model);
  if (!*result->frozen) (void)snprintf(result->frozen, KGT_LOG, "none");
  (void)snprintf(line, sizeof line, "seed %u: %s: %.2f %%, frozen: %s",
                 (unsigned)recipe->seed, recipe->name, result->accuracy,
                 result->frozen);
  kgt_progress_line(line);
}
