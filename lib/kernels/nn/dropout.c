/* SPDX-License-Identifier: Apache-2.0 */
/* The key of a layer's dropout: two words of the generator's stream that is
 * named by seed, step and node. */
#include "kernels/nn/dropout.h"

#include <assert.h>

#include "base/rng.h"

void flk_dropout_init(flk_dropout *dropout, uint64_t seed, uint64_t step,
                      uint32_t node, float p)
{
  fli_rng rng;
  assert(p >= 0.0f && p < 1.0f);
  fli_rng_init(&rng, seed, FLI_RNG_DROPOUT, step, node);
  dropout->key[0] = fli_rng_u32(&rng);
  dropout->key[1] = fli_rng_u32(&rng);
  dropout->threshold = (uint32_t)((double)p * 0x1p32);
  dropout->factor = (float)(1.0 / (1.0 - (double)p));
}
