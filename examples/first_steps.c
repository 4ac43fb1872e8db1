/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest use of libfl: three workers agree on a norm and send an eighth
 * of their updates' bytes; anybody adds these without decompressing them, and
 * whoever wants the mean decodes the sum once. */

#include <fl/fl.h>
#include <stdio.h>

static float update[3][4096], norm, agreed, mean[4096];
static uint8_t bytes[4096];

int main(void)
{
  const uint64_t n = 4096;
  size_t size = 0;
  fl_compressor *codec = NULL;
  fl_partial *sum = NULL;
  fl_scale scale = {.struct_size = sizeof scale, .slots = 3, .n_norms = 1};
  fl_encode_options own = {.struct_size = sizeof own, .samples = 1};
  fl_status st = fl_compressor_new(&codec, NULL, NULL, &n, 1);
  for (int k = 0; k < 3; k++) { /* each worker says how large its update is */
    for (int i = 0; i < 4096; i++)
      update[k][i] = (float)((i + k) % 7 - 3);
    st |= fl_compressor_measure(codec, &scale, 1, update[k], n, &norm, 1);
    st |= fl_norms_merge(&agreed, &norm, 1);
  }
  scale.norms = &agreed;
  st |= fl_partial_new(&sum, codec, &scale);
  for (; own.slot < 3; own.slot++) { /* each encodes, anybody adds */
    st |= fl_compressor_encode(codec, &scale, &own, update[own.slot], n, bytes,
                               sizeof bytes, &size, NULL);
    st |= fl_partial_add(sum, bytes, size);
  }
  st |= fl_partial_decode(sum, mean, n);
  printf("%zu bytes for %zu, mean %.1f\n", size, sizeof mean, (double)*mean);
  fl_partial_free(sum);
  fl_compressor_free(codec);
  return st != FL_OK;
}
