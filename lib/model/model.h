/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of fl_model and what the module's files share. */
#ifndef FLI_MODEL_H
#define FLI_MODEL_H

#include <fl/model.h>
#include "model/load.h"
#include "model/node.h"
#include "model/plan.h"

enum { FLI_MAX_DESCRIPTION = 256 * 1024 };

typedef struct fli_tensor {
  char name[FL_NAME_BYTES];
  uint32_t module;
  uint32_t is_trainable;
  fli_shape shape;
  uint64_t offset; /* in the trainable part or in the part behind it */
  uint64_t fan_in; /* see fli_parameter */
} fli_tensor;

/* Sees every step of training. Each function may be NULL; a status other than
 * FL_OK ends the step with that status. `begin` and `gradient` are called
 * before any weight changes, `end` after the update. With a `gradient`
 * function the whole gradient is computed first, and the function may change
 * it. */
typedef struct fli_observer {
  void *user;
  fl_status (*begin)(void *user, const fli_batch *batch);
  /* Gradient of one segment: `n` values from `offset` of the flat weights. */
  fl_status (*gradient)(void *user, uint32_t module, uint64_t offset,
                        float *gradient, uint64_t n);
  fl_status (*end)(void *user, double mean_loss);
} fli_observer;

/* A maximal run of trainable tensors of one module. */
typedef struct fli_segment {
  uint32_t module;
  uint64_t offset;
  uint64_t n;
} fli_segment;

struct fl_model {
  fl_context *context;
  fli_tensor *tensors;
  uint32_t n_tensors;
  size_t tensor_capacity;
  fli_node *nodes; /* in order of declaration */
  uint32_t n_nodes;
  size_t node_capacity;
  uint32_t *chain; /* the layers among the nodes, input .. loss */
  uint32_t n_chain;
  fli_segment *segments;
  uint32_t n_segments;
  size_t segment_capacity;
  float *values; /* n_weights trainable ones, then n_fixed others */
  uint64_t n_weights;
  uint64_t n_fixed;
  uint8_t schema[FL_HASH_BYTES];
  fli_bytes description;
  fli_observer observer;
  fli_workspace workspace;
};

/* NULL takes the observer away. */
void fli_model_set_observer(fl_model *model, const fli_observer *observer);

/* finish.c: from declared nodes and tensors to a model that can be used. */
fl_status fli_model_finish(fl_model *model);

/* description.c */
fl_status fli_description_write(const fl_model *model, fli_bytes *out);

/* First value of a tensor. */
float *fli_tensor_values(const fl_model *model, const fli_tensor *tensor);

/* Classes of the loss; 0 without a graph. */
uint64_t fli_model_classes(const fl_model *model);

/* pass.c: run the chain on a batch that the workspace has room for.
 * fli_forward leaves the mean loss in *loss (may be NULL: logits only), and
 * with is_training what fli_backward needs. FL_E_NOT_FINITE: the loss. */
fl_status fli_forward(fl_model *model, const fli_batch *batch, int is_training,
                      double *loss);
void fli_backward(fl_model *model, const fli_batch *batch, fli_sink sink);
/* Logits of the last forward pass, [n, classes]. */
const float *fli_logits(const fl_model *model, int is_training);

/* dataset.c: load and check a caller's data set. Labels are checked when
 * `needs_labels`. FL_E_OPTIONS, FL_E_ARGUMENT, FL_E_STATE (no graph),
 * FL_E_EMPTY, FL_E_RANGE. *count = samples named. */
fl_status fli_dataset_load(const fl_model *model, const fl_dataset *data,
                           int needs_labels, fl_dataset *loaded,
                           uint64_t *count);

#endif
