/* SPDX-License-Identifier: Apache-2.0 */
/* Train whatever model the server describes. */
#include <stdlib.h>

#include <fl/idx.h>

#include "minimal_client/train.h"

static fl_model *model;
static fl_dataset data;
static int32_t *labels_y;

uint64_t trainer_open(const uint8_t *images, size_t images_size,
                      const uint8_t *labels, size_t labels_size)
{
  fl_idx x, y;
  fl_dataset_init(&data, sizeof data);
  fl_idx_init(&x, sizeof x);
  fl_idx_init(&y, sizeof y);
  if (fl_idx_parse(&x, images, images_size) != FL_OK ||
      fl_idx_parse(&y, labels, labels_size) != FL_OK)
    return 0;
  labels_y = calloc((size_t)x.dims[0], sizeof *labels_y);
  if (!labels_y ||
      fl_dataset_from_idx(&data, &x, &y, labels_y, x.dims[0]) != FL_OK)
    return 0;
  return data.n;
}

int trainer_describe(const uint8_t *description, size_t n)
{
  if (fl_model_from_description(&model, NULL, description, n) != FL_OK)
    return -1;
  return fl_model_input_count(model) == data.sample_size ? 0 : -1;
}

fl_status trainer_train(const fl_train_task *task, fl_train_result *result,
                        void *user)
{
  fl_fit_options options;
  fl_fit_result fitted;
  float *weights = NULL;
  (void)user;
  fl_fit_options_init(&options, sizeof options);
  fl_fit_result_init(&fitted, sizeof fitted);
  options.epochs = task->epochs;
  options.batch_size = task->batch_size;
  options.learning_rate = task->learning_rate;
  options.seed = task->seed;
  fl_status st =
      fl_model_set_weights(model, NULL, task->weights, task->n_weights);
  if (st == FL_OK) st = fl_model_fit(model, &data, &options, &fitted);
  if (st == FL_OK) st = fl_model_get_weights(model, &weights, &result->n);
  if (st != FL_OK) return st;
  result->weights = weights;
  result->loss = fitted.mean_loss;
  return FL_OK;
}

void trainer_close(void)
{
  fl_model_free(model);
  free(labels_y);
}
