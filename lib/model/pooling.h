/* SPDX-License-Identifier: Apache-2.0 */
/* Pooling done by the layer in front of it (conv2d), some images at a time, so
 * that what is pooled never leaves the caches. */
#ifndef FLI_POOLING_H
#define FLI_POOLING_H

#include "model/node.h"

/* Bytes that a maximum keeps of a sample, as many as there are floats in the
 * output. */
size_t fli_pool2d_bytes(const fli_node *pool);
/* From [n] inputs at x to y; `chosen` is what is kept of them. */
void fli_pool2d_forward(const fli_node *pool, size_t n, const float *x,
                        float *y, uint8_t *chosen);
void fli_pool2d_backward(const fli_node *pool, size_t n, const float *dy,
                         const uint8_t *chosen, float *dx);

#endif
