/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of bench_kgt: a model that knows five kinds of clothes is tuned on all
 * ten, with and without freezing. All functions end the program on failure,
 * with the reason. */
#ifndef BENCH_KGT_H
#define BENCH_KGT_H

#include <stddef.h>
#include <stdint.h>

#include <fl/freeze.h>
#include <fl/train.h>

#include "common/idx.h"

enum {
  KGT_MODULES = 5, /* four of two convolutions each, and the head */
  KGT_FROZEN = 4,  /* first_active is below */
  KGT_SEEDS = 5,
  KGT_ROWS = 4, /* of a schedule */
  KGT_LOG = 256
};

/* ---- figures and progress (kgt_figures.c) ---- */

void kgt_must(fl_status st, const char *what);
void *kgt_get(size_t count, size_t size);
/* Processor time of the whole process. */
double kgt_cpu_us(void);
double kgt_wall_us(void);
/* Of n >= 1 values, which are sorted then. */
double kgt_median(double *values, size_t n);
double kgt_quantile(double *values, size_t n, double share);
double kgt_mean(const double *values, size_t n);
/* Half of the 95 % interval of the mean (Student), n <= KGT_SEEDS; NaN for one
 * value. */
double kgt_half_interval(const double *values, size_t n);
void kgt_print(const char *key, double value);
/* The mean; with `has_interval` also its 95 % interval. Returns the mean. */
double kgt_print_mean(const char *key, const double *values, size_t n,
                      int has_interval);
/* `steps` of training are to come, in all. */
void kgt_progress_begin(uint64_t steps);
/* One is over, of what is called `what`. */
void kgt_progress_step(const char *what);
/* What is called `what` is over. */
void kgt_progress_line(const char *what);

/* ---- the data and the model (kgt_data.c) ---- */

/* Images of the training set, in order: first those to tune on, then the ones
 * to train on before; and how long. */
typedef struct kgt_sizes {
  uint32_t tune;
  uint32_t others;
  uint32_t test;
  uint32_t batch;
  uint32_t epochs;
  uint32_t epochs_before;
  /* Federated: the images to tune on are the clients'. */
  uint32_t clients;
  uint32_t per_round;
  uint32_t rounds;
  uint32_t local_batch;
  /* Of the transformer: with adapters, and before. */
  uint32_t adapted_epochs;
  uint32_t adapted_epochs_before;
} kgt_sizes;

typedef struct kgt_bench {
  kgt_sizes sizes;
  fl_context *context;
  struct idx_set train;
  struct idx_set test;
  uint64_t *ids; /* of the training set: places */
  uint64_t steps_per_epoch;
} kgt_bench;

void kgt_open(kgt_bench *bench, const kgt_sizes *sizes, const char *folder);
void kgt_close(kgt_bench *bench);
/* Some of the training images, by their places. */
fl_dataset kgt_batch(const kgt_bench *bench, const uint32_t *places,
                     uint64_t n);
/* The VGG8 of tests/models.h with SGD, weights drawn. */
fl_model *kgt_model(const kgt_bench *bench, uint64_t seed);
/* Places of the other images of classes 0 to 4; returns their number. */
uint32_t kgt_find_others(const kgt_bench *bench, uint32_t *places);
/* % of the test images. */
double kgt_accuracy(const kgt_bench *bench, fl_model *model);
uint64_t kgt_steps_before(const kgt_bench *bench);
/* Weights trained on classes 0 to 4 of the other images, with a new head; the
 * caller's to free. */
float *kgt_pretrain(const kgt_bench *bench, uint64_t seed);

/* ---- the controller (kgt_control.c) ---- */

/* The same for every job: the library's defaults, and what it has to know of
 * the job. */
fl_freeze_options kgt_freeze_options(const kgt_bench *bench, uint64_t steps,
                                     uint32_t criterion);
/* The same, but it evaluates from the second step on and never freezes. */
fl_freeze_options kgt_idle_options(const kgt_bench *bench, uint32_t criterion);

typedef struct kgt_control {
  fl_freeze *freeze;
  fl_cache *cache; /* in memory, F32; or NULL */
  uint64_t hits;   /* rows, so far */
} kgt_control;

/* With room in the cache for so many of the first images; 0: no cache. */
void kgt_control_open(kgt_control *control, const kgt_bench *bench,
                      fl_model *model, const fl_freeze_options *options,
                      uint64_t n_kept);
/* Evaluations since the last call. */
uint64_t kgt_control_poll(kgt_control *control);
/* Whether the cache has given rows since the last call. */
int kgt_control_has_hit(kgt_control *control);
/* Before the model is freed. */
void kgt_control_close(kgt_control *control);

/* ---- one job (kgt_job.c) ---- */

/* From the beginning of an epoch on so many modules are frozen. */
typedef struct kgt_schedule {
  uint32_t n;
  uint32_t epochs[KGT_ROWS];
  uint32_t first_active[KGT_ROWS];
} kgt_schedule;

/* "0:1,4:2": 1 module from epoch 0 on, 2 from epoch 4 on. Returns 0 when it is
 * not like that. */
int kgt_schedule_parse(const char *text, kgt_schedule *schedule);

typedef struct kgt_recipe {
  const char *name;
  uint64_t seed;
  const float *weights;
  float rate;
  uint64_t steps;
  const kgt_schedule *schedule; /* or NULL */
  uint32_t criterion;           /* FL_FREEZE_*; 0: no controller */
  int has_cache;                /* with a criterion */
} kgt_recipe;

typedef struct kgt_result {
  double accuracy; /* %; 0 when the loss was no number any more */
  double cpu_us;   /* of the steps alone */
  /* By first_active, and whether all of the batch is in the cache, or would be
   * if there was one. */
  uint64_t steps[KGT_FROZEN][2];
  uint64_t evaluations;
  uint64_t losses;      /* a hash of all of them */
  char frozen[KGT_LOG]; /* "1@2.31,2@5.02": modules, epoch */
} kgt_result;

void kgt_run(const kgt_bench *bench, const kgt_recipe *recipe,
             kgt_result *result);

/* ---- prices (kgt_steps.c, kgt_overhead.c) ---- */

enum { KGT_PLAIN, KGT_FILL, KGT_HIT, KGT_KINDS };

/* us of processor time. */
typedef struct kgt_prices {
  double step[KGT_FROZEN][KGT_KINDS]; /* by first_active; of 0 PLAIN only */
  /* A full step without what a step with frozen modules need not do, as far as
   * the layers' own times say; [1]: with the frozen modules' outputs given. */
  double ideal[KGT_FROZEN][2];
  double evaluation; /* of the criterion, beside the step */
} kgt_prices;

/* us of a step on a whole batch, another one for each index (up to the number
 * of them) whose places go to `places`; weights stay about as they are. */
double kgt_time_step(const kgt_bench *bench, fl_model *model, uint64_t index,
                     uint32_t *places);
/* Steps in which every kind takes turns with the others. */
uint64_t kgt_steps_of_prices(const kgt_bench *bench, int runs);
void kgt_measure_prices(const kgt_bench *bench, int runs, uint32_t criterion,
                        kgt_prices *prices);
/* What the counted steps of a run cost at these prices. */
double kgt_cost(const kgt_prices *prices, const kgt_result *result,
                int has_cache);
double kgt_ideal(const kgt_prices *prices, const kgt_result *result,
                 int has_cache);
void kgt_print_prices(const kgt_prices *prices);

uint64_t kgt_steps_of_overhead(const kgt_bench *bench, int runs);
/* Additions and multiplications of training on n samples as it is set now. */
double kgt_flops(const fl_model *model, uint64_t n);
/* In % of a step without a controller. */
void kgt_print_overhead(const kgt_bench *bench, int runs, uint32_t criterion,
                        const char *key);

/* ---- a federated job (kgt_rounds.c) ---- */

typedef struct kgt_federation {
  const char *name;
  uint64_t seed;
  const float *weights;
  float rate;
  int is_pretrained;
  uint32_t gap;    /* rounds between two freezes; 0: the library's */
  int is_freezing; /* by gradnorm */
  int is_verbose;  /* clients' reports, and what the server makes of them */
} kgt_federation;

typedef struct kgt_federated_result {
  double accuracy; /* %, mean of the last rounds; 0 when the loss was no number
                      any more */
  double cpu_us;   /* of the clients' training */
  double flops;    /* of the same */
  double bytes_up; /* whatever went to the server */
  double bytes_down;
  char frozen[KGT_LOG]; /* "1@12,2@20": modules, round */
} kgt_federated_result;

/* About so many steps. */
uint64_t kgt_steps_of_federation(const kgt_bench *bench);
void kgt_run_federation(const kgt_bench *bench,
                        const kgt_federation *federation,
                        kgt_federated_result *result);

/* ---- parts (kgt_finetune.c, kgt_grid.c, kgt_federated.c, kgt_lora.c) ---- */

enum { KGT_DRAWN = 1, KGT_TRAINED = 2 };

typedef struct kgt_settings {
  uint64_t seeds[KGT_SEEDS];
  uint32_t n_seeds;
  int runs;
  float rate;
  uint32_t criterion;
  uint32_t gap;    /* federated: rounds between two freezes; 0: the library's */
  uint32_t starts; /* federated: KGT_DRAWN, KGT_TRAINED, or both */
  int is_verbose;
  int has_adapters; /* lora: bottlenecks instead of low-rank updates */
  kgt_schedule oracle;
} kgt_settings;

void kgt_part_beside(const kgt_bench *bench, const kgt_settings *settings);
void kgt_part_steps(const kgt_bench *bench, const kgt_settings *settings);
void kgt_part_finetune(const kgt_bench *bench, const kgt_settings *settings);
void kgt_part_grid(const kgt_bench *bench, const kgt_settings *settings);
void kgt_part_rates(const kgt_bench *bench, const kgt_settings *settings);
void kgt_part_federated(const kgt_bench *bench, const kgt_settings *settings);
void kgt_part_lora(const kgt_bench *bench, const kgt_settings *settings);

#endif
