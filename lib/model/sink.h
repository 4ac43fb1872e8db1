/* SPDX-License-Identifier: Apache-2.0 */
/* Where gradients of weights go. Either all of them are gathered (a hook wants
 * to see them whole, or several batches make one update), or each one is used
 * for the update as soon as it is there, and no two of them are in memory at
 * the same time; with plain SGD not even one, where a node can add to the
 * weights themselves. */
#ifndef FLI_SINK_H
#define FLI_SINK_H

#include "model/node.h"

struct fli_optimiser;
struct fl_model;

struct fli_sink {
  float *values; /* of the model */
  float *whole;  /* gathered, for values[first...]; NULL: update now */
  uint64_t first;
  float keep; /* whole = keep * whole + gradient */
  float rate; /* of the update */
  const struct fl_model *model;
};

/* at = keep * at + scale * gradient is what is wanted. */
typedef struct fli_target {
  float *at;
  float scale;
  float keep;
} fli_target;

/* Where the gradient of a trained tensor goes. But for the first tensor of
 * nodes with FLI_NODE_DIRECT, scale is 1 and keep 0. Call done when it is
 * written; the node's next target is asked for after that. */
fli_target fli_sink_target(const fli_pass *pass, const fli_node *node,
                           uint32_t parameter);
void fli_sink_done(const fli_pass *pass, const fli_node *node,
                   uint32_t parameter);
/* Floats of pass->gradient that the node needs. */
uint64_t fli_sink_floats(const struct fl_model *model, const fli_node *node);

#endif
