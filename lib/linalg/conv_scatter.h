/* SPDX-License-Identifier: Apache-2.0 */
/* The gradient of inputs the other way round: every gradient of an output
 * times all of its kernel's columns, added up where these meet the input. */
#ifndef FLI_CONV_SCATTER_H
#define FLI_CONV_SCATTER_H

#include "linalg/conv_canvas.h"
#include "linalg/conv_panels.h"
#include "linalg/conv_plan.h"

/* Whether that takes clearly fewer multiplications. */
int fli_scatter_is_better(const fli_conv_shape *shape);
/* Of dy: no zeros around or between. */
void fli_scatter_canvas(const fli_conv_shape *shape, fli_canvas *canvas);
fli_panel_weights fli_scatter_layout(const fli_conv_shape *shape);
/* Floats of scratch; to be cleared once a call. */
size_t fli_scatter_room(const fli_conv_shape *shape);

typedef struct fli_scatter {
  const flk_nn_table *kernels;
  const fli_conv_shape *shape;
  const float *packed; /* by fli_scatter_layout */
  fli_conv_view dy;
  float *dx; /* first image */
  float *scratch;
} fli_scatter;

/* Rows of dx of n images. */
void fli_scatter_rows(const fli_scatter *scatter, size_t n, fli_conv_rows rows);

#endif
