/* SPDX-License-Identifier: Apache-2.0 */
/* From a node's gradient to where it is wanted. */
#include "model/sink.h"

#include <string.h>

#include "kernels/nn/nn.h"
#include "model/model.h"

static float weight_decay(const fli_sink *sink)
{
  return 1.0f - sink->rate * sink->model->optimiser.options.weight_decay;
}

/* Whether the node writes where the gradient is wanted, without a stop. An
 * observer may want to see gradients that plain SGD has no need to write down.
 */
static int is_direct(const fl_model *model, const fli_node *node,
                     uint32_t parameter, int is_whole)
{
  if (parameter > 0 || !(node->flags & FLI_NODE_DIRECT)) return 0;
  return is_whole || (fli_optimiser_is_plain(&model->optimiser.options) &&
                      !model->observer.gradient);
}

static void show(const fl_model *model, uint64_t at, const float *gradient,
                 uint64_t n)
{
  const fli_watch *watch = &model->watch;
  if (watch->n == 0 || at < watch->first || at - watch->first >= watch->n) {
    return;
  }
  model->observer.gradient(model->observer.user, at, gradient, n);
}

fli_target fli_sink_target(const fli_pass *pass, const fli_node *node,
                           uint32_t parameter)
{
  const fli_sink *sink = pass->sink;
  uint64_t place = node->places[parameter];
  if (!is_direct(sink->model, node, parameter, sink->whole != NULL)) {
    return (fli_target){.at = pass->gradient, .scale = 1.0f};
  }
  if (sink->whole) {
    return (fli_target){.at = sink->whole + (place - sink->first),
                        .scale = 1.0f,
                        .keep = sink->keep};
  }
  return (fli_target){.at = sink->values + place,
                      .scale = -sink->rate,
                      .keep = weight_decay(sink)};
}

void fli_sink_done(const fli_pass *pass, const fli_node *node,
                   uint32_t parameter)
{
  const fli_sink *sink = pass->sink;
  uint64_t place = node->places[parameter];
  size_t n = (size_t)node->counts[parameter];
  if (is_direct(sink->model, node, parameter, sink->whole != NULL)) return;
  if (sink->whole) {
    float *at = sink->whole + (place - sink->first);
    if (sink->keep == 0.0f) {
      memcpy(at, pass->gradient, n * sizeof *at);
    } else {
      flk_nn()->vector.axpy(at, 1.0f, pass->gradient, n);
    }
    return;
  }
  show(sink->model, place, pass->gradient, n);
  fli_optimiser_apply(&sink->model->optimiser, sink->rate, sink->values + place,
                      pass->gradient, 1.0f, place, n);
}

uint64_t fli_sink_floats(const fl_model *model, const fli_node *node)
{
  uint64_t most = 0;
  int is_whole = fli_model_gathers(model);
  for (uint32_t i = 0; i < node->n_parameters; i++) {
    if (!fli_is_trained(node, i) || is_direct(model, node, i, is_whole)) {
      continue;
    }
    if (node->counts[i] > most) most = node->counts[i];
  }
  return most;
}
