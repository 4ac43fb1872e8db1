/* SPDX-License-Identifier: Apache-2.0 */
/* What each kind of layer computes, for one sample, in double, written as its
 * formula reads. Images are [channels][height][width], sequences [tokens]
 * [width]. Tests differentiate the loss by finite differences. */
#ifndef ORACLE_H
#define ORACLE_H

#include <fl/layers.h>

#include <math.h>
#include <stddef.h>

typedef enum oracle_kind {
  ORACLE_INPUT,
  ORACLE_FLATTEN,
  ORACLE_DENSE,
  ORACLE_LORA,
  ORACLE_CONV,
  ORACLE_POOL,
  ORACLE_MEAN,
  ORACLE_ACTIVATION,
  ORACLE_SOFTMAX,
  ORACLE_DROPOUT,
  ORACLE_EMBEDDING,
  ORACLE_POSITIONS,
  ORACLE_LAYER_NORM,
  ORACLE_GROUP_NORM,
  ORACLE_HEADS,
  ORACLE_ADD,
  ORACLE_MACHINE,
  ORACLE_DOTS
} oracle_kind;

typedef struct oracle_shape {
  size_t n_dims;
  size_t dims[3];
} oracle_shape;

typedef struct oracle_layer {
  oracle_kind kind;
  size_t x, other; /* layers */
  oracle_shape in, out;
  size_t first_tensor;
  const double *w[4]; /* its tensors */
  fl_conv2d_options conv;
  fl_pool2d_options pool;
  uint32_t activation;
  uint32_t groups; /* or heads */
  int32_t is_causal;
  size_t rank;
  double value; /* epsilon, LoRA's scale, dropout's factor */
  float rate;
  const unsigned char *mask; /* dropout: of this sample, 1 = stays */
} oracle_layer;

static inline size_t oracle_count(const oracle_shape *shape)
{
  size_t n = 1;
  for (size_t i = 0; i < shape->n_dims; i++) {
    n *= shape->dims[i];
  }
  return n;
}

static inline size_t oracle_last(const oracle_shape *shape)
{
  return shape->dims[shape->n_dims - 1];
}

/* y = x W^T + b for each token */
static inline void oracle_dense(const oracle_layer *l, const double *x,
                                double *y)
{
  size_t inputs = oracle_last(&l->in);
  size_t units = oracle_last(&l->out);
  size_t tokens = oracle_count(&l->in) / inputs;
  for (size_t t = 0; t < tokens; t++) {
    for (size_t u = 0; u < units; u++) {
      double sum = l->w[1][u];
      for (size_t i = 0; i < inputs; i++) {
        sum += l->w[0][u * inputs + i] * x[t * inputs + i];
      }
      y[t * units + u] = sum;
    }
  }
}

/* + scale (x A^T) B^T */
static inline void oracle_lora(const oracle_layer *l, const double *x,
                               double *y)
{
  size_t inputs = oracle_last(&l->in);
  size_t units = oracle_last(&l->out);
  size_t tokens = oracle_count(&l->in) / inputs;
  oracle_dense(l, x, y);
  for (size_t t = 0; t < tokens; t++) {
    for (size_t r = 0; r < l->rank; r++) {
      double sum = 0.0;
      for (size_t i = 0; i < inputs; i++) {
        sum += l->w[2][r * inputs + i] * x[t * inputs + i];
      }
      for (size_t u = 0; u < units; u++) {
        y[t * units + u] += l->value * sum * l->w[3][u * l->rank + r];
      }
    }
  }
}

/* One output of a convolution: filter f at (row, column). */
static inline double oracle_conv_at(const oracle_layer *l, const double *x,
                                    size_t f, size_t row, size_t column)
{
  const fl_conv2d_options *o = &l->conv;
  size_t height = l->in.dims[1];
  size_t width = l->in.dims[2];
  size_t channels = l->in.dims[0] / o->groups;
  size_t first = f / (o->filters / o->groups) * channels;
  double sum = l->w[1][f];
  for (size_t c = 0; c < channels; c++) {
    for (size_t i = 0; i < o->height; i++) {
      for (size_t j = 0; j < o->width; j++) {
        size_t y = row * o->stride + i;
        size_t z = column * o->stride + j;
        if (y < o->padding || z < o->padding) continue;
        if (y - o->padding >= height || z - o->padding >= width) continue;
        sum += l->w[0][((f * channels + c) * o->height + i) * o->width + j] *
               x[((first + c) * height + (y - o->padding)) * width +
                 (z - o->padding)];
      }
    }
  }
  return sum;
}

static inline void oracle_conv(const oracle_layer *l, const double *x,
                               double *y)
{
  const size_t *out = l->out.dims;
  for (size_t f = 0; f < out[0]; f++) {
    for (size_t i = 0; i < out[1]; i++) {
      for (size_t j = 0; j < out[2]; j++) {
        y[(f * out[1] + i) * out[2] + j] = oracle_conv_at(l, x, f, i, j);
      }
    }
  }
}

/* One window of one channel's plane. */
static inline double oracle_window(const oracle_layer *l, const double *plane,
                                   size_t row, size_t column)
{
  const fl_pool2d_options *o = &l->pool;
  size_t stride = o->stride ? o->stride : o->size;
  double sum = 0.0;
  double most = -INFINITY;
  for (size_t i = row * stride; i < row * stride + o->size; i++) {
    for (size_t j = column * stride; j < column * stride + o->size; j++) {
      if (i < o->padding || j < o->padding) continue;
      if (i - o->padding >= l->in.dims[1]) continue;
      if (j - o->padding >= l->in.dims[2]) continue;
      double v = plane[(i - o->padding) * l->in.dims[2] + (j - o->padding)];
      sum += v;
      most = fmax(most, v);
    }
  }
  return o->kind == FL_POOL_MAX ? most : sum / (double)(o->size * o->size);
}

static inline void oracle_pool(const oracle_layer *l, const double *x,
                               double *y)
{
  size_t plane = l->in.dims[1] * l->in.dims[2];
  const size_t *out = l->out.dims;
  for (size_t c = 0; c < out[0]; c++) {
    for (size_t i = 0; i < out[1]; i++) {
      for (size_t j = 0; j < out[2]; j++) {
        y[(c * out[1] + i) * out[2] + j] =
            oracle_window(l, x + c * plane, i, j);
      }
    }
  }
}

static inline void oracle_mean(const oracle_layer *l, const double *x,
                               double *y)
{
  size_t n = l->out.dims[0];
  size_t rows = oracle_count(&l->in) / n;
  int is_image = l->in.n_dims == 3;
  for (size_t c = 0; c < n; c++) {
    y[c] = 0.0;
    for (size_t r = 0; r < rows; r++) {
      y[c] += x[is_image ? c * rows + r : r * n + c] / (double)rows;
    }
  }
}

static inline double oracle_act(uint32_t kind, double x)
{
  switch (kind) {
  case FL_ACTIVATION_GELU: return x * 0.5 * erfc(-x * 0.70710678118654752440);
  case FL_ACTIVATION_SILU: return x / (1.0 + exp(-x));
  case FL_ACTIVATION_TANH: return tanh(x);
  case FL_ACTIVATION_SIGMOID: return 1.0 / (1.0 + exp(-x));
  default: return x > 0.0 ? x : 0.0;
  }
}

/* Softmax of n values. */
static inline void oracle_softmax(const double *x, double *y, size_t n)
{
  double most = -INFINITY;
  double total = 0.0;
  for (size_t i = 0; i < n; i++) {
    most = fmax(most, x[i]);
  }
  for (size_t i = 0; i < n; i++) {
    y[i] = exp(x[i] - most);
    total += y[i];
  }
  for (size_t i = 0; i < n; i++) {
    y[i] /= total;
  }
}

/* Mean and deviation of the values x[at(i)], as y = (x - mean) / deviation. */
static inline void oracle_normalise(const double *x, double *y, size_t n,
                                    double epsilon)
{
  double mean = 0.0;
  double variance = 0.0;
  for (size_t i = 0; i < n; i++) {
    mean += x[i] / (double)n;
  }
  for (size_t i = 0; i < n; i++) {
    variance += (x[i] - mean) * (x[i] - mean) / (double)n;
  }
  for (size_t i = 0; i < n; i++) {
    y[i] = (x[i] - mean) / sqrt(variance + epsilon);
  }
}

/* Groups of channels lie in one piece, and so do rows. */
static inline void oracle_norm(const oracle_layer *l, const double *x,
                               double *y)
{
  int is_group = l->kind == ORACLE_GROUP_NORM;
  size_t count = oracle_count(&l->in);
  size_t n = is_group ? count / l->groups : oracle_last(&l->in);
  size_t pixels = is_group ? l->in.dims[1] * l->in.dims[2] : 1;
  for (size_t at = 0; at < count; at += n) {
    oracle_normalise(x + at, y + at, n, l->value);
  }
  for (size_t i = 0; i < count; i++) {
    size_t c = is_group ? i / pixels : i % n;
    y[i] = y[i] * l->w[0][c] + l->w[1][c];
  }
}

/* One head of one token: softmax(q k / sqrt(d)) v. */
static inline void oracle_head(const oracle_layer *l, const double *x,
                               double *y, size_t token, size_t head)
{
  size_t tokens = l->in.dims[0];
  size_t width = l->out.dims[1];
  size_t d = width / l->groups;
  size_t n = l->is_causal ? token + 1 : tokens;
  double scores[64];
  double shares[64];
  const double *q = x + token * 3 * width + head * d;
  for (size_t s = 0; s < n; s++) {
    const double *k = x + s * 3 * width + width + head * d;
    scores[s] = 0.0;
    for (size_t i = 0; i < d; i++) {
      scores[s] += q[i] * k[i] / sqrt((double)d);
    }
  }
  oracle_softmax(scores, shares, n);
  for (size_t i = 0; i < d; i++) {
    double *to = &y[token * width + head * d + i];
    *to = 0.0;
    for (size_t s = 0; s < n; s++) {
      *to += shares[s] * x[s * 3 * width + 2 * width + head * d + i];
    }
  }
}

/* <v_i, v_j> of all pairs, by themselves or added up. */
static inline void oracle_pairs(const oracle_layer *l, const double *x,
                                double *y)
{
  size_t width = l->in.dims[1];
  size_t pair = 0;
  y[0] = 0.0;
  for (size_t i = 1; i < l->in.dims[0]; i++) {
    for (size_t j = 0; j < i; j++) {
      double dot = 0.0;
      for (size_t d = 0; d < width; d++) {
        dot += x[i * width + d] * x[j * width + d];
      }
      if (l->kind == ORACLE_DOTS) y[pair++] = dot;
      if (l->kind == ORACLE_MACHINE) y[0] += dot;
    }
  }
}

static inline void oracle_each(const oracle_layer *l, const double *x,
                               const double *other, double *y)
{
  size_t count = oracle_count(&l->out);
  size_t width = oracle_last(&l->out);
  for (size_t i = 0; i < count; i++) {
    switch (l->kind) {
    case ORACLE_ACTIVATION: y[i] = oracle_act(l->activation, x[i]); break;
    case ORACLE_DROPOUT: y[i] = l->mask[i] ? x[i] * l->value : 0.0; break;
    case ORACLE_ADD: y[i] = x[i] + other[i]; break;
    case ORACLE_POSITIONS: y[i] = x[i] + l->w[0][i]; break;
    case ORACLE_EMBEDDING:
      y[i] = l->w[0][(size_t)x[i / width] * width + i % width];
      break;
    default: y[i] = x[i]; break;
    }
  }
}

/* One layer: from x (and other) to y. */
static inline void oracle_run(const oracle_layer *l, const double *x,
                              const double *other, double *y)
{
  size_t count = oracle_count(&l->out);
  size_t width = oracle_last(&l->out);
  switch (l->kind) {
  case ORACLE_DENSE: oracle_dense(l, x, y); break;
  case ORACLE_LORA: oracle_lora(l, x, y); break;
  case ORACLE_CONV: oracle_conv(l, x, y); break;
  case ORACLE_POOL: oracle_pool(l, x, y); break;
  case ORACLE_MEAN: oracle_mean(l, x, y); break;
  case ORACLE_LAYER_NORM:
  case ORACLE_GROUP_NORM: oracle_norm(l, x, y); break;
  case ORACLE_SOFTMAX:
    for (size_t at = 0; at < count; at += width) {
      oracle_softmax(x + at, y + at, width);
    }
    break;
  case ORACLE_MACHINE:
  case ORACLE_DOTS: oracle_pairs(l, x, y); break;
  case ORACLE_HEADS:
    for (size_t i = 0; i < l->in.dims[0] * l->groups; i++) {
      oracle_head(l, x, y, i / l->groups, i % l->groups);
    }
    break;
  default: oracle_each(l, x, other, y); break;
  }
}

/* -log softmax(x)[label], smoothed towards all classes alike. */
static inline double oracle_cross_entropy(const double *x, size_t n,
                                          size_t label, double smoothing)
{
  double most = -INFINITY;
  double total = 0.0;
  double mean = 0.0;
  for (size_t i = 0; i < n; i++) {
    most = fmax(most, x[i]);
  }
  for (size_t i = 0; i < n; i++) {
    total += exp(x[i] - most);
    mean += x[i] / (double)n;
  }
  double log_total = log(total) + most;
  return (1.0 - smoothing) * (log_total - x[label]) +
         smoothing * (log_total - mean);
}

#endif
