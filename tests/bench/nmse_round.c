/* SPDX-License-Identifier: Apache-2.0 */
/* One round of some workers, and what a server sees of it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/dmath.h"
#include "nmse.h"

/* Sum of agreed^2 (own / agreed)^10: what `spread` of fl_compressor_best_clip
 * is made of. */
static double spread_sum(const float *own, const float *agreed, uint64_t n)
{
  double sum = 0.0;
  for (uint64_t i = 0; i < n; i++) {
    double unit = (double)agreed[i];
    if (unit > 0.0) sum += unit * unit * pow((double)own[i] / unit, 10.0);
  }
  return sum;
}

static uint32_t different_rows(const nmse_data *data, uint32_t workers)
{
  return data->rows == 1 ? 1 : workers;
}

/* The elementwise maximum of what all workers measure, and how far it is
 * above theirs. */
static void agree(nmse_task *task)
{
  const nmse_data *data = task->data;
  uint32_t rows = different_rows(data, task->workers);
  uint64_t n_norms = fl_compressor_norm_count(task->compressor);
  float *own = nmse_get(rows * n_norms, sizeof(float));
  double sum = 0.0, energy = 0.0;
  fl_scale scale;
  nmse_require(fl_scale_init(&scale, sizeof scale));
  task->norms = nmse_get(n_norms, sizeof(float));
  memset(task->norms, 0, (size_t)n_norms * sizeof(float));
  for (uint32_t i = 0; i < rows; i++) {
    float *mine = own + i * n_norms;
    nmse_require(fl_compressor_measure(task->compressor, &scale, 1,
                                       nmse_row(data, i), data->n, mine,
                                       n_norms));
    nmse_require(fl_norms_merge(task->norms, mine, n_norms));
  }
  for (uint32_t i = 0; i < rows; i++)
    sum += spread_sum(own + i * n_norms, task->norms, n_norms);
  for (uint64_t i = 0; i < rows * n_norms; i++)
    energy += (double)own[i] * (double)own[i];
  double agreed = spread_sum(task->norms, task->norms, n_norms);
  task->spread = sum > 0.0 ? pow(agreed * (double)rows / sum, 0.1) : 1.0;
  task->energy = energy / (double)rows;
  free(own);
}

/* What a round decodes to. */
static float *play(const nmse_task *task, float clip, uint64_t seed)
{
  const nmse_data *data = task->data;
  size_t capacity = (size_t)fl_compressor_max_update_size(task->compressor);
  uint8_t *update = nmse_get(capacity, 1);
  float *out = nmse_get(data->n, sizeof(float));
  fl_partial *partial = NULL;
  fl_encode_options options;
  fl_scale scale;
  nmse_require(fl_scale_init(&scale, sizeof scale));
  scale.slots = task->workers;
  scale.clip = clip;
  scale.norms = task->norms;
  scale.n_norms = fl_compressor_norm_count(task->compressor);
  fli_store_u64(scale.noise_seed, seed);
  nmse_require(fl_encode_options_init(&options, sizeof options));
  nmse_require(fl_partial_new(&partial, task->compressor, &scale));
  for (uint32_t slot = 0; slot < task->workers; slot++) {
    size_t size = 0;
    options.slot = slot;
    nmse_require(fl_compressor_encode(task->compressor, &scale, &options,
                                      nmse_row(data, slot), data->n, update,
                                      capacity, &size, NULL));
    nmse_require(fl_partial_add(partial, update, size));
  }
  nmse_require(fl_partial_decode(partial, out, data->n));
  fl_partial_free(partial);
  free(update);
  return out;
}

/* The workers' mean; returns the mean of |x|^2. */
static double average(const nmse_data *data, uint32_t workers, double *mean)
{
  uint32_t rows = different_rows(data, workers);
  double total = 0.0;
  memset(mean, 0, (size_t)data->n * sizeof(double));
  for (uint32_t row = 0; row < rows; row++) {
    const float *x = nmse_row(data, row);
    for (uint64_t i = 0; i < data->n; i++) {
      mean[i] += (double)x[i];
      total += (double)x[i] * (double)x[i];
    }
  }
  for (uint64_t i = 0; i < data->n; i++)
    mean[i] /= (double)rows;
  return total / (double)rows;
}

/* |out - mean|^2; |mean|^2 for out = NULL. */
static double distance(const double *mean, const float *out, uint64_t n)
{
  double sum = 0.0;
  for (uint64_t i = 0; i < n; i++) {
    double e = (out ? (double)out[i] : 0.0) - mean[i];
    sum += e * e;
  }
  return sum;
}

void nmse_task_open(nmse_task *task, const nmse_data *data,
                    const fl_compressor *compressor, uint32_t workers)
{
  *task =
      (nmse_task){.data = data, .compressor = compressor, .workers = workers};
  task->mean = nmse_get(data->n, sizeof(double));
  task->square = average(data, workers, task->mean);
  task->coherence = distance(task->mean, NULL, data->n) / task->square;
  agree(task);
}

void nmse_task_close(nmse_task *task)
{
  free(task->mean);
  free(task->norms);
}

double nmse_task_error(const nmse_task *task, float clip, uint64_t seed)
{
  float *out = play(task, clip, seed);
  double error = distance(task->mean, out, task->data->n) / task->square;
  free(out);
  return error;
}

double nmse_task_seen_coherence(const nmse_task *task, uint64_t seed)
{
  float clip = fl_compressor_best_clip(task->compressor, task->workers, 0.0,
                                       task->spread);
  /* Clamping leaves 1 - 2 Q of a vector in its own direction. */
  double kept = 1.0 - 2.0 * fli_normal_tail((double)clip * task->spread);
  double square = 0.0;
  float *out = play(task, clip, seed);
  for (uint64_t i = 0; i < task->data->n; i++)
    square += (double)out[i] * (double)out[i];
  free(out);
  return square / (task->energy * kept * kept);
}
