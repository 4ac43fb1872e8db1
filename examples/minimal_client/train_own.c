/* SPDX-License-Identifier: Apache-2.0 */
/* A trainer of the host's own: softmax regression of images, written out. The
 * server's model has to be one dense layer with ten units. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "minimal_client/train.h"

enum { CLASSES = 10, X_HEADER = 16, Y_HEADER = 8 };

static const uint8_t *x, *y;
static uint64_t samples, inputs;
static float *weights; /* [CLASSES][inputs], then [CLASSES] biases */

static uint64_t big_endian(const uint8_t *at)
{
  return (uint64_t)at[0] << 24 | (uint64_t)at[1] << 16 | (uint64_t)at[2] << 8 |
         at[3];
}

uint64_t trainer_open(const uint8_t *images, size_t images_size,
                      const uint8_t *labels, size_t labels_size)
{
  if (images_size < X_HEADER || labels_size < Y_HEADER) return 0;
  samples = big_endian(images + 4);
  inputs = big_endian(images + 8) * big_endian(images + 12);
  if (samples == 0 || labels_size - Y_HEADER != samples ||
      (images_size - X_HEADER) / samples != inputs)
    return 0;
  x = images + X_HEADER;
  y = labels + Y_HEADER;
  for (uint64_t s = 0; s < samples; s++)
    if (y[s] >= CLASSES) return 0;
  weights = malloc((size_t)(inputs + 1) * CLASSES * sizeof *weights);
  return weights ? samples : 0;
}

int trainer_describe(const uint8_t *description, size_t n)
{
  (void)description; /* the number of weights will tell */
  (void)n;
  return 0;
}

static void softmax(const uint8_t *image, float p[CLASSES])
{
  const float *bias = weights + CLASSES * inputs;
  float most = -INFINITY;
  float sum = 0;
  for (uint64_t c = 0; c < CLASSES; c++) {
    p[c] = bias[c];
    for (uint64_t i = 0; i < inputs; i++)
      p[c] += weights[c * inputs + i] * (float)image[i] / 255;
    most = p[c] > most ? p[c] : most;
  }
  for (int c = 0; c < CLASSES; c++)
    sum += p[c] = expf(p[c] - most);
  for (int c = 0; c < CLASSES; c++)
    p[c] /= sum;
}

static void step(const uint8_t *image, const float p[CLASSES], uint64_t label,
                 float rate)
{
  float *bias = weights + CLASSES * inputs;
  for (uint64_t c = 0; c < CLASSES; c++) {
    float d = rate * (p[c] - (float)(label == c));
    bias[c] -= d;
    for (uint64_t i = 0; i < inputs; i++)
      weights[c * inputs + i] -= d * (float)image[i] / 255;
  }
}

fl_status trainer_train(const fl_train_task *task, fl_train_result *result,
                        void *user)
{
  double count = (double)samples * task->epochs;
  (void)user;
  if (task->n_weights != (inputs + 1) * CLASSES) return FL_E_DIM;
  memcpy(weights, task->weights, (size_t)task->n_weights * sizeof *weights);
  result->loss = 0;
  for (uint64_t s = 0; s < samples * task->epochs; s++) {
    float p[CLASSES];
    const uint8_t *image = x + s % samples * inputs;
    uint64_t label = y[s % samples];
    softmax(image, p);
    step(image, p, label, task->learning_rate / (float)task->batch_size);
    result->loss -= log((double)p[label]) / count;
  }
  result->weights = weights;
  result->n = task->n_weights;
  return FL_OK;
}

void trainer_close(void)
{
  free(weights);
}
