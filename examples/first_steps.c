/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest use of libfl, as the README shows it: three workers agree on
 * norms and send an eighth of their updates' bytes; anybody adds these without
 * decompressing them, and whoever wants the mean decodes the sum once. */

#include <fl/fl.h>
#include <stdio.h>

enum { WORKERS = 3, N = 8192 };
static float update[WORKERS][N], norms[2], agreed[2], mean[N];
static uint8_t bytes[N];

int main(void)
{
  const uint64_t segment = N;
  fl_compressor *compressor = NULL;
  fl_partial *sum = NULL;
  fl_scale scale;
  fl_encode_options own;
  size_t size = 0;
  fl_status st = fl_scale_init(&scale, sizeof scale);
  st |= fl_encode_options_init(&own, sizeof own);
  st |= fl_compressor_new(&compressor, NULL, NULL, &segment, 1);
  scale.slots = WORKERS;
  for (int k = 0; k < WORKERS; k++) { /* on each worker: how large is it? */
    for (int i = 0; i < N; i++)
      update[k][i] = (float)((i + k) % 7 - 3);
    st |= fl_compressor_measure(compressor, &scale, 1, update[k], N, norms, 2);
    st |= fl_norms_merge(agreed, norms, 2);
  }
  scale.norms = agreed;
  scale.n_norms = 2;
  st |= fl_partial_new(&sum, compressor, &scale);
  for (own.slot = 0; own.slot < WORKERS; own.slot++) { /* encode and add */
    st |= fl_compressor_encode(compressor, &scale, &own, update[own.slot], N,
                               bytes, sizeof bytes, &size, NULL);
    st |= fl_partial_add(sum, bytes, size);
  }
  st |= fl_partial_decode(sum, mean, N);
  printf("%zu bytes instead of %zu, first mean %.1f\n", size, N * sizeof(float),
         (double)mean[0]);
  fl_partial_free(sum);
  fl_compressor_free(compressor);
  return st == FL_OK ? 0 : 1;
}
