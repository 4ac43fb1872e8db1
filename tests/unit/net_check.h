/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a net (net.h), its data, and the comparison with the oracle. */
#ifndef NET_CHECK_H
#define NET_CHECK_H

#include "net.h"

/* Relative to the largest value of a tensor's gradient. */
#define NET_TOLERANCE 1e-4

static inline void net_build(net *t)
{
  cr_assert_eq(fl_model_builder_build(t->builder, &t->model), FL_OK, "%s",
               fl_last_error());
  fl_model_builder_free(t->builder);
  t->builder = NULL;
  cr_assert_eq(fl_model_tensor_count(t->model), t->n_tensors);
  cr_assert_leq(t->n_tensors, NET_TENSORS);
}

static inline net *net_classes(net *t, float smoothing)
{
  cr_assert_eq(fl_cross_entropy_options_init(&t->classes, sizeof t->classes),
               FL_OK);
  t->loss = NET_CLASSES;
  t->classes.label_smoothing = smoothing;
  cr_assert_eq(fl_model_builder_cross_entropy(t->builder, "loss", &t->classes),
               FL_OK);
  net_build(t);
  return t;
}

static inline net *net_numbers(net *t, net_loss loss)
{
  t->loss = loss;
  if (loss == NET_SQUARES) {
    cr_assert_eq(fl_model_builder_mean_squared_error(t->builder, "loss"),
                 FL_OK);
  } else {
    cr_assert_eq(fl_model_builder_binary_cross_entropy(t->builder, "loss"),
                 FL_OK);
  }
  net_build(t);
  return t;
}

static inline void net_free(net *t)
{
  for (size_t i = 0; i < NET_TENSORS; i++) {
    free(t->tensors[i]);
  }
  for (size_t i = 0; i < NET_LAYERS; i++) {
    free(t->masks[i]);
    free(t->values[i]);
  }
  free(t->x);
  free(t->ids);
  free(t->labels);
  free(t->targets);
  fl_model_free(t->model);
  free(t);
}

static inline const oracle_shape *net_out(const net *t)
{
  return &t->layers[t->n_layers - 1].out;
}

/* Labels of a sample. */
static inline size_t net_labels(const net *t)
{
  return oracle_count(net_out(t)) / oracle_last(net_out(t));
}

/* Every weight drawn, those that begin as 0 or 1 too. */
static inline void net_draw_weights(net *t, uint64_t seed)
{
  fli_rng rng;
  fli_rng_init(&rng, seed, FLI_RNG_TEST, 1, 0);
  cr_assert_eq(fl_model_init_weights(t->model, seed), FL_OK);
  for (uint32_t i = 0; i < t->n_tensors; i++) {
    size_t n = (size_t)t->model->tensors[i].shape.count;
    float *values = malloc(n * sizeof *values);
    free(t->tensors[i]);
    t->tensors[i] = malloc(n * sizeof **t->tensors);
    cr_assert(values && t->tensors[i]);
    cr_assert_eq(fl_model_copy_tensor(t->model, i, values, n), FL_OK);
    for (size_t j = 0; j < n; j++) {
      values[j] += 0.6f * fli_rng_f32(&rng) - 0.3f;
      t->tensors[i][j] = (double)values[j];
    }
    cr_assert_eq(fl_model_set_tensor(t->model, i, values, n), FL_OK);
    free(values);
  }
}

static inline void net_draw_labels(net *t, fli_rng *rng)
{
  size_t labels = t->n * net_labels(t);
  size_t outputs = t->n * oracle_count(net_out(t));
  for (size_t i = 0; i < labels && t->loss == NET_CLASSES; i++) {
    t->labels[i] =
        (int32_t)fli_rng_below(rng, (uint32_t)oracle_last(net_out(t)));
    if (i % 4 == 1) t->labels[i] = t->classes.ignore_index;
  }
  for (size_t i = 0; i < outputs; i++) {
    t->targets[i] = fli_rng_f32(rng);
  }
}

/* Batch of n samples; about a quarter of the labels is ignored. */
static inline void net_draw(net *t, size_t n, uint64_t seed)
{
  fli_rng rng;
  size_t inputs = oracle_count(&t->layers[0].out);
  fli_rng_init(&rng, seed, FLI_RNG_TEST, 2, 0);
  net_draw_weights(t, seed);
  t->n = n;
  t->x = realloc(t->x, n * inputs * sizeof *t->x);
  t->ids = realloc(t->ids, n * inputs * sizeof *t->ids);
  t->labels = realloc(t->labels, n * net_labels(t) * sizeof *t->labels);
  t->targets =
      realloc(t->targets, n * oracle_count(net_out(t)) * sizeof *t->targets);
  cr_assert(t->x && t->ids && t->labels && t->targets);
  for (size_t i = 0; i < n * inputs; i++) {
    t->x[i] = 2.0f * fli_rng_f32(&rng) - 1.0f;
    t->ids[i] = 0;
    if (t->rows > 0) {
      t->ids[i] = (int32_t)fli_rng_below(&rng, (uint32_t)t->rows);
      t->x[i] = (float)t->ids[i];
    }
  }
  net_draw_labels(t, &rng);
  for (size_t i = 0; i < t->n_layers; i++) {
    size_t count = oracle_count(&t->layers[i].out);
    t->values[i] = realloc(t->values[i], count * sizeof **t->values);
    t->masks[i] = realloc(t->masks[i], n * count);
    cr_assert(t->values[i] && t->masks[i]);
  }
}

static inline fl_dataset net_data(const net *t)
{
  fl_dataset data;
  cr_assert_eq(fl_dataset_init(&data, sizeof data), FL_OK);
  data.x = t->x;
  if (t->rows > 0) {
    data.x_dtype = FL_DTYPE_I32;
    data.x = t->ids;
  }
  data.n = t->n;
  data.y = t->loss == NET_CLASSES ? t->labels : NULL;
  data.targets = t->loss == NET_CLASSES ? NULL : t->targets;
  return data;
}

/* The masks that step `step` of seed 0 draws: the kernel's (which has tests
 * of its own), put from [height][width][pixel] to [channels][height][width] for
 * images. */
static inline void net_draw_masks(net *t, uint64_t step)
{
  for (uint32_t i = 0; i < t->n_layers; i++) {
    const oracle_layer *l = &t->layers[i];
    if (l->kind != ORACLE_DROPOUT) continue;
    int is_image = l->in.n_dims == 3;
    size_t count = oracle_count(&l->in);
    size_t channels = is_image ? l->in.dims[0] : 1;
    size_t pixels = count / channels;
    size_t pixel = is_image ? (channels + 7) / 8 * 8 : 1;
    float *ones = malloc(2 * pixels * pixel * sizeof *ones);
    float *y = ones + pixels * pixel;
    uint8_t *bits = malloc(pixels * pixel / 8 + 8);
    cr_assert(ones && bits);
    for (size_t j = 0; j < pixels * pixel; j++) {
      ones[j] = 1.0f;
    }
    for (size_t k = 0; k < t->n; k++) {
      flk_dropout dropout;
      flk_dropout_init(&dropout, 0, step * FLI_MAX_NODES + i, (uint32_t)k,
                       l->rate);
      flk_nn()->dropout.forward(y, ones, bits, pixels * pixel, 0, &dropout);
      for (size_t j = 0; j < count; j++) {
        size_t at = j / pixels + j % pixels * pixel;
        t->masks[i][k * count + j] = y[is_image ? at : j] != 0.0f;
      }
    }
    free(ones);
    free(bits);
  }
}

/* ---- the oracle's side ----------------------------------------------------
 */

/* Sum over a sample's rows, and what to divide it by. */
static inline double oracle_sample_loss(const net *t, size_t k, double *weight)
{
  const double *y = t->values[t->n_layers - 1];
  size_t count = oracle_count(net_out(t));
  size_t width = oracle_last(net_out(t));
  double sum = 0.0;
  for (size_t i = 0; i < net_labels(t) && t->loss == NET_CLASSES; i++) {
    int32_t label = t->labels[k * net_labels(t) + i];
    if (label == t->classes.ignore_index) continue;
    sum += oracle_cross_entropy(y + i * width, width, (size_t)label,
                                (double)t->classes.label_smoothing);
    *weight += 1.0;
  }
  for (size_t i = 0; i < count && t->loss != NET_CLASSES; i++) {
    double target = (double)t->targets[k * count + i];
    sum += t->loss == NET_SQUARES ? (y[i] - target) * (y[i] - target)
                                  : log1p(exp(y[i])) - target * y[i];
    *weight += 1.0;
  }
  return sum;
}

/* Run sample k; what each layer gives is left in t->values. */
static inline void oracle_forward(net *t, size_t k)
{
  size_t inputs = oracle_count(&t->layers[0].out);
  for (size_t i = 0; i < inputs; i++) {
    t->values[0][i] = (double)t->x[k * inputs + i];
  }
  for (size_t i = 1; i < t->n_layers; i++) {
    oracle_layer *l = &t->layers[i];
    for (size_t w = 0; w < 4 && l->first_tensor + w < t->n_tensors; w++) {
      l->w[w] = t->tensors[l->first_tensor + w];
    }
    l->mask = t->masks[i] + k * oracle_count(&l->out);
    oracle_run(l, t->values[l->x], t->values[l->other], t->values[i]);
  }
}

static inline double oracle_loss(net *t)
{
  double sum = 0.0;
  double weight = 0.0;
  for (size_t k = 0; k < t->n; k++) {
    oracle_forward(t, k);
    sum += oracle_sample_loss(t, k, &weight);
  }
  return weight > 0.0 ? sum / weight : 0.0;
}

static inline double oracle_derivative(net *t, double *weight)
{
  const double step = 1e-5;
  double kept = *weight;
  *weight = kept + step;
  double up = oracle_loss(t);
  *weight = kept - step;
  double down = oracle_loss(t);
  *weight = kept;
  return (up - down) / (2.0 * step);
}

/* ---- the comparison -------------------------------------------------------
 */

static inline void net_check_tensor(net *t, uint32_t index,
                                    const float *gradient)
{
  const fli_tensor *tensor = &t->model->tensors[index];
  size_t n = (size_t)tensor->shape.count;
  double *want = malloc(n * sizeof *want);
  double most = 0.0;
  double smallest = t->has_no_gradient ? 2e-6 : 1e-7;
  cr_assert_not_null(want);
  for (size_t i = 0; i < n; i++) {
    want[i] = oracle_derivative(t, &t->tensors[index][i]);
    most = fmax(most, fabs(want[i]));
  }
  cr_assert(t->has_no_gradient || most > 1e-5, "%s: this net tests nothing",
            tensor->name);
  for (size_t i = 0; i < n; i++) {
    cr_assert(
        fabs((double)gradient[i] - want[i]) < NET_TOLERANCE * most + smallest,
        "seed %d, %zu samples, %s[%zu]: %g, want %g (of at most %g)", NET_SEED,
        t->n, tensor->name, i, (double)gradient[i], want[i], most);
  }
  free(want);
}

/* Outputs and the loss without training. */
static inline void net_check_outputs(net *t)
{
  fl_dataset data = net_data(t);
  fl_evaluation evaluation;
  size_t count = oracle_count(net_out(t));
  float *y = malloc(t->n * count * sizeof *y);
  cr_assert_not_null(y);
  cr_assert_eq(fl_model_predict(t->model, &data, y, t->n * count), FL_OK);
  for (size_t k = 0; k < t->n; k++) {
    oracle_forward(t, k);
    for (size_t i = 0; i < count; i++) {
      double want = t->values[t->n_layers - 1][i];
      double got = (double)y[k * count + i];
      cr_assert(fabs(got - want) < 1e-5 * fmax(1.0, fabs(want)),
                "sample %zu, output %zu: %g, want %g", k, i, got, want);
    }
  }
  free(y);
  cr_assert_eq(fl_evaluation_init(&evaluation, sizeof evaluation), FL_OK);
  cr_assert_eq(fl_model_evaluate(t->model, &data, &evaluation), FL_OK);
  double want = oracle_loss(t);
  cr_assert(fabs(evaluation.loss - want) < 1e-5 * fmax(1.0, want),
            "loss %g, want %g", evaluation.loss, want);
}

/* Outputs, loss and gradient for a batch of n samples. */
static inline void net_check_batch(net *t, size_t n)
{
  double loss = 0.0;
  float *gradient = NULL;
  uint64_t count = 0;
  net_draw(t, n, NET_SEED);
  fl_dataset data = net_data(t);
  if (!t->has_dropout) net_check_outputs(t);
  net_draw_masks(t, 0);
  cr_assert_eq(fl_model_accumulate(t->model, &data, &loss), FL_OK, "%s",
               fl_last_error());
  double want = oracle_loss(t);
  cr_assert(fabs(loss - want) < 1e-5 * fmax(1.0, want), "loss %g, want %g",
            loss, want);
  cr_assert_eq(fl_model_get_gradient(t->model, &gradient, &count), FL_OK);
  cr_assert_eq(count, fl_model_weight_count(t->model));
  for (uint32_t i = 0; i < t->n_tensors; i++) {
    const fli_tensor *tensor = &t->model->tensors[i];
    if (!tensor->is_trainable) continue;
    net_check_tensor(t, i, gradient + tensor->offset);
  }
  cr_assert_eq(fl_model_update(t->model, 0.0f), FL_OK);
}

/* Frees the net. 2 samples and, unless that takes long, 19: more than layers
 * cut batches into. */
static inline void net_check(net *t)
{
  net_check_batch(t, 2);
  if (!t->has_dropout && fl_model_weight_count(t->model) < 500) {
    net_check_batch(t, 19);
  }
  net_free(t);
}

#endif
