/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of fl_model and what the module's files share. */
#ifndef FLI_MODEL_H
#define FLI_MODEL_H

#include <fl/model.h>
#include "model/load.h"
#include "model/node.h"
#include "model/observer.h"
#include "model/optimiser.h"
#include "model/plan.h"
#include "model/rows.h"
#include "model/sink.h"

enum { FLI_MAX_DESCRIPTION = 256 * 1024 };

typedef struct fli_tensor {
  char name[FL_NAME_BYTES];
  uint32_t module;
  uint32_t is_trainable;
  uint32_t is_trained; /* now: of an active module's layer */
  uint32_t is_frozen;  /* its module is, wherever it stands */
  uint32_t was_frozen; /* while that is being changed */
  fli_shape shape;
  uint64_t offset; /* in the trainable part or in the part behind it */
  uint64_t fan_in; /* see fli_parameter */
  float bound;
  float initial;
} fli_tensor;

/* A maximal run of trainable tensors of one module. */
typedef struct fli_segment {
  uint32_t module;
  uint64_t offset;
  uint64_t n;
} fli_segment;

/* Where a fit is, for checkpoints. */
typedef struct fli_fit_place {
  uint32_t epoch;
  uint64_t step_in_epoch;
  uint64_t seed;
} fli_fit_place;

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
  int is_shape;  /* there are none, nor will be: only what can be asked of it */
  /* Calls that may have written to values, training apart: they are as they
   * were while this is, and the host has not borrowed them. */
  uint64_t n_writes;
  int is_lent;
  uint64_t n_weights;
  uint64_t n_fixed;
  uint8_t schema[FL_HASH_BYTES];
  fli_bytes description;
  const fli_provider *provider; /* of a sparse embedding's rows, or NULL */
  void *provider_user;
  fli_observer observer;
  fli_watch watch;     /* of the step that runs; empty between steps */
  int is_observed;     /* the update at hand: the observer has begun it */
  double watched_loss; /* sum over the batches of the update that is gathered */
  fl_gradient_fn hook;
  void *hook_user;
  int is_shown; /* its gradient, to a function that may only read the model */
  uint32_t first_active; /* module: none before it is trained */
  uint64_t first_weight; /* that is trained; all behind it have state */
  fli_optimiser optimiser;
  fli_fit_place place;
  uint64_t memory_limit;
  fli_workspace workspace;
};

/* step.c. NULL takes the observer away. */
void fli_model_set_observer(fl_model *model, const fli_observer *observer);

/* cut.c: the cut in front of `module`, which has to have layers. Returns
 * whether there is one: more than one output may cross, or none. */
int fli_model_cut(const fl_model *model, uint32_t module, fli_cut *cut);

/* finish.c: from declared nodes and tensors to a model that can be used. */
fl_status fli_model_finish(fl_model *model);

/* active.c: mark what is trained when all modules below first_active are
 * frozen, and tensors that are, and what has a gradient for it. Returns
 * whether anything is trained. */
int fli_model_mark(fl_model *model, uint32_t first_active);
/* First of the weights of modules from first_active on; n_weights: none. State
 * of the optimiser and gradients begin there. */
uint64_t fli_model_first_weight(const fl_model *model, uint32_t first_active);

/* description.c */
fl_status fli_description_write(const fl_model *model, fli_bytes *out);

/* First value of a tensor. */
float *fli_tensor_values(const fl_model *model, const fli_tensor *tensor);
/* FL_E_NOT_FINITE names the first of n values that is not finite, of `name`,
 * with `before` in front of it. NULL has no values. */
fl_status fli_values_check(const float *values, uint64_t n, const char *before,
                           const char *name);

/* The loss, or NULL without a graph; and the input. */
const fli_node *fli_model_loss(const fl_model *model);
const fli_node *fli_model_input(const fl_model *model);

/* Whether gradients are to be gathered before an update. */
int fli_model_gathers(const fl_model *model);

/* pass.c: run the graph on a batch that the workspace has room for.
 * fli_forward leaves the mean loss in *loss (may be NULL: outputs only), and
 * with is_training what fli_backward needs. FL_E_NOT_FINITE: the loss. */
fl_status fli_forward(fl_model *model, const fli_batch *batch, int is_training,
                      double *loss);
/* Only the layers between two cuts, without training: `x` are n samples' values
 * at `from`, *y what crosses `to`, or with NULL the loss's input; borrowed
 * until the model is used again. FL_E_NOMEM, FL_E_LIMIT. */
fl_status fli_forward_part(fl_model *model, const fli_cut *from,
                           const fli_cut *to, const float *x, size_t n,
                           const float **y);
/* One layer with one input, the same way. */
fl_status fli_forward_layer(fl_model *model, uint32_t node, const float *x,
                            size_t n, const float **y);
/* Cannot fail: weights may change on the way. */
void fli_backward(fl_model *model, const fli_batch *batch, fli_sink *sink);
/* What the loss got in the last forward pass, [n, outputs]. */
const float *fli_logits(const fl_model *model, int is_training);

/* dataset.c: load and check a caller's data set. Labels are checked when
 * `needs_labels`. FL_E_OPTIONS, FL_E_ARGUMENT, FL_E_STATE (no graph),
 * FL_E_EMPTY, FL_E_RANGE. *count = samples named. */
fl_status fli_dataset_load(const fl_model *model, const fl_dataset *data,
                           int needs_labels, fl_dataset *loaded,
                           uint64_t *count);

/* step.c: one batch of at most what the workspace has room for: forward,
 * backward and, when enough batches are gathered, an update. */
fl_status fli_step(fl_model *model, const fli_batch *batch, float rate,
                   double *loss);
fl_status fli_rate_check(float rate);

#endif
