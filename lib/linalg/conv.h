/* SPDX-License-Identifier: Apache-2.0 */
/* 2-d convolution, forward and backward, on images [height][width][pixel]:
 * channels lie side by side, and a pixel takes `pixel` >= channels floats.
 * Inputs may have any pixel; outputs have a multiple of FLI_CONV_LANES, whose
 * floats behind the channels are unspecified (nobody may use them, they may
 * be NaN). Weights come and go as PyTorch has them: [out][in / groups][kernel
 * height][kernel width]. D1; the result does not depend on how images are cut
 * into ranges for forward and dx, and for gradients of weights ranges are
 * added up by the caller, in order. */
#ifndef FLI_CONV_H
#define FLI_CONV_H

#include <fl/base.h>

enum { FLI_CONV_LANES = 8 };

typedef struct fli_conv_shape {
  size_t height, width, channels, pixel; /* input */
  size_t out_height, out_width, out_channels, out_pixel;
  size_t kernel_height, kernel_width;
  size_t stride, padding, groups;
} fli_conv_shape;

typedef struct fli_conv_algorithm fli_conv_algorithm;

/* A shape, how it is computed, and what that needs, in floats. */
typedef struct fli_conv {
  fli_conv_shape shape;
  const fli_conv_algorithm *algorithm;
  size_t n_packed;      /* weights made ready for forward */
  size_t n_packed_back; /* ... for dx */
  size_t n_sums;        /* a range's gradient of weights and bias */
  size_t n_scratch;     /* of a call, whatever the number of images */
} fli_conv;

/* One range of images. */
typedef struct fli_conv_range {
  size_t n; /* images */
  const float *x;
  float *y;          /* forward */
  const float *dy;   /* backward */
  const float *mask; /* like dy: where it is not > 0, dy counts as 0; or NULL */
  float *dx;         /* NULL = not wanted */
  float *sums;       /* NULL = not wanted; added to */
  float *scratch;
} fli_conv_range;

/* How one family of shapes is computed. */
struct fli_conv_algorithm {
  const char *name;
  /* Whether it can do (and is the better choice for) that shape. */
  int (*accepts)(const fli_conv_shape *shape);
  void (*sizes)(fli_conv *conv);
  void (*pack)(const fli_conv *conv, const float *weights, float *packed);
  void (*pack_back)(const fli_conv *conv, const float *weights, float *packed);
  /* y = conv(x) + bias (may be NULL), then max(0, y) with does_relu. */
  void (*forward)(const fli_conv *conv, const float *packed, const float *bias,
                  int does_relu, const fli_conv_range *range);
  /* dx = ..., sums += ...; packed_back is NULL when dx is. */
  void (*backward)(const fli_conv *conv, const float *packed_back,
                   const fli_conv_range *range);
  /* From sums to the gradient of the weights, like the weights, and of the
   * bias [out_channels]; both are overwritten. */
  void (*unpack)(const fli_conv *conv, const float *sums, float *dweights,
                 float *dbias);
};

/* Choose an algorithm; out sizes and padding are right already, groups
 * divides both numbers of channels. */
void fli_conv_init(fli_conv *conv, const fli_conv_shape *shape);
/* By name, for tests and benchmarks; 0 when it does not take that shape. */
int fli_conv_init_as(fli_conv *conv, const fli_conv_shape *shape,
                     const char *name);

extern const fli_conv_algorithm fli_conv_direct;
extern const fli_conv_algorithm fli_conv_depthwise;
extern const fli_conv_algorithm fli_conv_few;
extern const fli_conv_algorithm fli_conv_winograd;

#endif
