/* SPDX-License-Identifier: Apache-2.0 */
/* Fashion-MNIST cut in two, and the weights to start from: trained on the first
 * five classes of the larger part (shared recipe: SGD at .03 after 100 steps of
 * warm-up, .005 in the second half of the last epoch). */
#include "kgt.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "../models.h"
#include "base/rng.h"

enum { VGG8 = 3, CLASSES_BEFORE = 5, WARM_UP = 100, DRAWN = 1000 };

#define RATE_BEFORE .03f
#define RATE_AT_END .005f
#define HEAD_DEVIATION .05
#define TWO_PI 6.283185307179586

static void load(struct idx_set *set, const char *folder, const char *prefix,
                 uint32_t want)
{
  char error[2048];
  if (idx_load(set, folder, prefix, error, sizeof error) != 0) {
    fprintf(stderr, "bench_kgt: data: %s\n", error);
    exit(1);
  }
  if (set->n >= want) return;
  fprintf(stderr, "bench_kgt: data: %s/%s-*: got %u images, want %u\n", folder,
          prefix, set->n, want);
  exit(1);
}

void kgt_open(kgt_bench *bench, const kgt_sizes *sizes, const char *folder)
{
  *bench = (kgt_bench){.sizes = *sizes};
  load(&bench->train, folder, "train", sizes->tune + sizes->others);
  load(&bench->test, folder, "t10k", sizes->test);
  bench->steps_per_epoch = (sizes->tune + sizes->batch - 1) / sizes->batch;
  bench->ids = kgt_get(bench->train.n, sizeof *bench->ids);
  for (uint32_t i = 0; i < bench->train.n; i++)
    bench->ids[i] = i;
  kgt_must(fl_context_new(&bench->context, NULL), "context");
}

void kgt_close(kgt_bench *bench)
{
  fl_context_free(bench->context);
  idx_free(&bench->train);
  idx_free(&bench->test);
  free(bench->ids);
}

fl_dataset kgt_batch(const kgt_bench *bench, const uint32_t *places, uint64_t n)
{
  fl_dataset data = bench->train.data;
  data.ids = bench->ids;
  data.indices = places;
  data.n_indices = n;
  return data;
}

/* Box and Muller's. */
static float draw_normal(fli_rng *rng, double deviation)
{
  double radius = sqrt(-2.0 * log(1.0 - fli_rng_f64(rng)));
  return (float)(deviation * radius * cos(TWO_PI * fli_rng_f64(rng)));
}

/* Normal numbers for matrices and filters, zeros for the rest. */
static void draw_tensor(fl_model *model, uint32_t index, uint64_t seed,
                        double deviation)
{
  fl_tensor_info info;
  float *weights = NULL;
  fli_rng rng;
  kgt_must(fl_tensor_info_init(&info, sizeof info), "tensor");
  kgt_must(fl_model_get_tensor(model, index, &info), "tensor");
  kgt_must(fl_model_get_weights(model, &weights, NULL), "weights");
  fli_rng_init(&rng, seed, FLI_RNG_TEST, DRAWN + index, 0);
  for (uint64_t i = 0; i < info.count; i++) {
    weights[info.offset + i] =
        info.n_dims > 1 ? draw_normal(&rng, deviation) : 0.0f;
  }
}

/* He et al.'s deviation for what a rectifier follows. */
static double deviation_of(const fl_model *model, uint32_t index)
{
  fl_tensor_info info;
  kgt_must(fl_tensor_info_init(&info, sizeof info), "tensor");
  kgt_must(fl_model_get_tensor(model, index, &info), "tensor");
  return sqrt(2.0 * (double)info.dims[0] / (double)info.count);
}

fl_model *kgt_model(const kgt_bench *bench, uint64_t seed)
{
  fl_model *model = models_new(VGG8, bench->context);
  if (!model) kgt_must(FL_E_STATE, "model");
  for (uint32_t i = 0; i < fl_model_tensor_count(model); i++)
    draw_tensor(model, i, seed, deviation_of(model, i));
  return model;
}

uint32_t kgt_find_others(const kgt_bench *bench, uint32_t *places)
{
  uint32_t n = 0;
  for (uint32_t i = 0; i < bench->sizes.others; i++) {
    uint32_t place = bench->sizes.tune + i;
    if (bench->train.labels[place] < CLASSES_BEFORE) places[n++] = place;
  }
  return n;
}

double kgt_accuracy(const kgt_bench *bench, fl_model *model)
{
  fl_evaluation evaluation;
  fl_dataset data = bench->test.data;
  data.n = bench->sizes.test;
  kgt_must(fl_evaluation_init(&evaluation, sizeof evaluation), "accuracy");
  kgt_must(fl_model_evaluate(model, &data, &evaluation), "accuracy");
  return 100.0 * (double)evaluation.correct / (double)evaluation.count;
}

uint64_t kgt_steps_before(const kgt_bench *bench)
{
  uint32_t *places = kgt_get(bench->sizes.others, sizeof *places);
  uint64_t n = kgt_find_others(bench, places);
  free(places);
  return bench->sizes.epochs_before *
         ((n + bench->sizes.batch - 1) / bench->sizes.batch);
}

static float rate_before(const kgt_bench *bench, uint32_t epoch, uint32_t first,
                         uint32_t n)
{
  uint32_t step = 1 + first / bench->sizes.batch;
  int is_last = epoch + 1 == bench->sizes.epochs_before;
  if (is_last && first >= n / 2) return RATE_AT_END;
  if (epoch > 0 || step >= WARM_UP) return RATE_BEFORE;
  return RATE_BEFORE * (float)step / (float)WARM_UP;
}

static void train_before(const kgt_bench *bench, fl_model *model, uint64_t seed)
{
  const uint32_t batch = bench->sizes.batch;
  uint32_t *places = kgt_get(bench->sizes.others, sizeof *places);
  for (uint32_t epoch = 0; epoch < bench->sizes.epochs_before; epoch++) {
    fli_rng rng;
    uint32_t n = kgt_find_others(bench, places);
    fli_rng_init(&rng, seed, FLI_RNG_TEST, epoch, 1);
    fli_rng_shuffle(&rng, places, n);
    for (uint32_t first = 0; first < n; first += batch) {
      uint32_t left = n - first;
      fl_dataset data =
          kgt_batch(bench, places + first, left < batch ? left : batch);
      float rate = rate_before(bench, epoch, first, n);
      kgt_must(fl_model_step(model, &data, rate, NULL), "step");
      kgt_progress_step("pre-training");
    }
  }
  free(places);
}

float *kgt_pretrain(const kgt_bench *bench, uint64_t seed)
{
  char name[64];
  fl_model *model = kgt_model(bench, DRAWN + seed);
  uint64_t n = fl_model_weight_count(model);
  uint32_t n_tensors = fl_model_tensor_count(model);
  float *weights = kgt_get((size_t)n, sizeof *weights);
  train_before(bench, model, seed);
  for (uint32_t i = n_tensors - 2; i < n_tensors; i++)
    draw_tensor(model, i, seed, HEAD_DEVIATION);
  kgt_must(fl_model_copy_weights(model, weights, n), "weights");
  fl_model_free(model);
  (void)snprintf(name, sizeof name, "seed %u: pre-training", (unsigned)seed);
  kgt_progress_line(name);
  return weights;
}
