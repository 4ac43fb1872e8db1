/* SPDX-License-Identifier: Apache-2.0 */
/* Which algorithm computes a convolution: the first one that accepts its
 * shape. The direct one takes all. */
#include "linalg/conv.h"

#include <assert.h>
#include <string.h>

#include "base/compiler.h"

static const fli_conv_algorithm *const algorithms[] = {
    &fli_conv_depthwise,
    &fli_conv_few,
    &fli_conv_winograd,
    &fli_conv_direct,
};

static void use(fli_conv *conv, const fli_conv_shape *shape,
                const fli_conv_algorithm *algorithm)
{
  *conv = (fli_conv){.shape = *shape, .algorithm = algorithm};
  algorithm->sizes(conv);
}

void fli_conv_init(fli_conv *conv, const fli_conv_shape *shape)
{
  size_t i = 0;
  assert(shape->channels % shape->groups == 0);
  assert(shape->out_channels % shape->groups == 0);
  assert(shape->out_pixel % FLI_CONV_LANES == 0);
  while (!algorithms[i]->accepts(shape))
    i++;
  use(conv, shape, algorithms[i]);
}

int fli_conv_init_as(fli_conv *conv, const fli_conv_shape *shape,
                     const char *name)
{
  for (size_t i = 0; i < FLI_COUNT_OF(algorithms); i++) {
    if (strcmp(algorithms[i]->name, name) != 0) continue;
    if (!algorithms[i]->accepts(shape)) return 0;
    use(conv, shape, algorithms[i]);
    return 1;
  }
  return 0;
}
