/* SPDX-License-Identifier: Apache-2.0 */
/* What memory training takes: nothing in a step, buffers that share, and the
 * host's cap. */
#include <fl/model.h>

#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "model_fixture.h"

/* Counts calls: memory that is taken and given back at once leaves no trace in
 * the context's bytes. */
static void *count_alloc(void *user, size_t size, size_t alignment)
{
  ++*(uint64_t *)user;
  return aligned_alloc(alignment,
                       (size + alignment - 1) / alignment * alignment);
}

static void count_dealloc(void *user, void *ptr, size_t size, size_t alignment)
{
  (void)user;
  (void)size;
  (void)alignment;
  free(ptr);
}

Test(model_memory, steps_allocate_nothing_once_the_largest_batch_was_there)
{
  fl_context *context = NULL;
  fl_context_options options;
  sample_set set;
  uint64_t calls = 0;
  uint64_t bytes = 0;
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  options.alloc = count_alloc;
  options.dealloc = count_dealloc;
  options.user = &calls;
  cr_assert_eq(fl_context_new(&context, &options), FL_OK);
  fl_model *model = fixture_mlp(context, INPUTS, HIDDEN, CLASSES);
  fixture_samples(&set, SEED);
  fl_dataset data = fixture_data(set.x, set.y, 32);
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_OK);
  uint64_t planned = calls;
  for (uint64_t n = 1; n <= 32; n++) {
    data.n = n;
    cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_OK);
  }
  cr_assert_eq(calls, planned);
  data.n = MAX_N;
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_OK);
  cr_assert_gt(calls, planned);
  fl_model_free(model);
  cr_assert_eq(fl_context_get_memory(context, &bytes, NULL), FL_OK);
  cr_assert_eq(bytes, 0);
  fl_context_free(context);
}

Test(model_memory, fit_allocates_once_however_many_steps_it_takes)
{
  fl_context *context = NULL;
  fl_context_options options;
  fl_fit_options fit;
  sample_set set;
  uint64_t calls = 0;
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  options.alloc = count_alloc;
  options.dealloc = count_dealloc;
  options.user = &calls;
  cr_assert_eq(fl_context_new(&context, &options), FL_OK);
  fl_model *model = fixture_mlp(context, INPUTS, HIDDEN, CLASSES);
  fixture_samples(&set, SEED);
  fl_dataset data = fixture_data(set.x, set.y, MAX_N);
  cr_assert_eq(fl_fit_options_init(&fit, sizeof fit), FL_OK);
  cr_assert_eq(fl_model_fit(model, &data, &fit, NULL), FL_OK);
  uint64_t planned = calls;
  fit.epochs = 20;
  cr_assert_eq(fl_model_fit(model, &data, &fit, NULL), FL_OK);
  cr_assert_eq(calls, planned + 1); /* the order of the samples */
  fl_model_free(model);
  fl_context_free(context);
}

Test(model_memory, buffers_of_a_plan_share_memory_when_lifetimes_allow)
{
  const uint64_t inputs = 64;
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
  (void)fl_model_builder_input(builder, &inputs, 1, 1.0f, 0.0f);
  for (char name[] = "a"; name[0] < 'i'; name[0]++) {
    (void)fl_model_builder_dense(builder, name, 64);
  }
  (void)fl_model_builder_softmax_cross_entropy(builder, "loss");
  cr_assert_eq(fl_model_builder_build(builder, &model), FL_OK);
  fl_model_builder_free(builder);
  cr_assert_eq(fli_workspace_reserve(model, 16, 0), FL_OK);
  cr_assert_eq(fli_workspace_reserve(model, 16, 1), FL_OK);
  /* Inference: a layer's input and output. Training: all inputs of layers,
   * the logits, and two gradients at a time at most. The batch's labels, and
   * the gradient of a bias. */
  cr_assert_eq(model->workspace.plans[0].n_floats, 2 * 16 * 64);
  cr_assert_leq(model->workspace.plans[1].n_floats, 11 * 16 * 64 + 64);
  fl_model_free(model);
}

Test(model_memory, memory_cap_stops_a_batch_that_is_too_large)
{
  enum { N = 4096 };
  static float x[N * INPUTS];
  static int32_t y[N];
  fl_context *context = NULL;
  fl_context_options options;
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  options.memory_cap = 64 * 1024;
  cr_assert_eq(fl_context_new(&context, &options), FL_OK);
  fl_model *model = fixture_mlp(context, INPUTS, HIDDEN, CLASSES);
  fl_dataset data = fixture_data(x, y, N);
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_E_NOMEM);
  cr_assert_not_null(strstr(fl_last_error(), "bytes"), "%s", fl_last_error());
  data.n = 32;
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_OK);
  fl_model_free(model);
  fl_context_free(context);
}
