/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of a model that is computed with: what a batch will take, the host's
 * limit on it, and taking it. */
#include <assert.h>

#include "base/error.h"
#include "base/options.h"
#include "model/model.h"

/* Whether gradients are gathered before the update. */
int fli_model_gathers(const fl_model *model)
{
  const fl_optimiser_options *o = &model->optimiser.options;
  return model->hook != NULL || model->workspace.gradient != NULL ||
         model->workspace.wants_gradient || o->clip_norm > 0.0f ||
         o->accumulate > 1 || fli_model_trains_rows(model);
}

static void add_up(const fl_model *model, int is_training, size_t n_floats,
                   fl_memory_plan *out)
{
  uint64_t n = model->n_weights - model->first_weight;
  uint32_t arrays = fli_optimiser_arrays(&model->optimiser.options);
  int gathers = is_training && fli_model_gathers(model);
  *out = (fl_memory_plan){
      .struct_size = sizeof *out,
      .weights = (model->n_weights + model->n_fixed) * sizeof(float),
      .gradients = gathers ? n * sizeof(float) : 0,
      .optimiser = arrays * n * sizeof(float),
      .activations = (uint64_t)n_floats * sizeof(float) +
                     model->n_nodes * sizeof(fli_places),
  };
  out->peak = out->weights + out->gradients + out->optimiser + out->activations;
}

/* Bytes that a batch takes. FL_E_NOMEM. */
static fl_status plan_memory(const fl_model *model, size_t batch,
                             int is_training, fl_memory_plan *out)
{
  fli_plan plan = {0};
  fl_status st = fli_plan_make(model, batch, is_training, &plan);
  if (st != FL_OK) return st;
  add_up(model, is_training, plan.n_floats, out);
  fli_plan_free(model, &plan);
  return FL_OK;
}

/* What a batch by itself makes the model hold: its plan, and a gradient that is
 * gathered, which stays while scores are made. */
static uint64_t bytes_with(const fl_model *model, const fl_memory_plan *plan)
{
  uint64_t gathered = model->workspace.n_gradient * sizeof(float);
  return plan->peak + (plan->gradients > 0 ? 0 : gathered);
}

/* Largest batch below `batch`, which is one that can be planned, that is
 * within the limit; 0 if none. FL_E_NOMEM: to plan with. */
static fl_status largest_that_fits(const fl_model *model, size_t batch,
                                   int is_training, size_t *largest)
{
  size_t low = 0;
  size_t high = batch;
  while (high - low > 1) {
    size_t middle = low + (high - low) / 2;
    fl_memory_plan plan;
    fl_status st = plan_memory(model, middle, is_training, &plan);
    if (st != FL_OK) return st;
    if (bytes_with(model, &plan) <= model->memory_limit) {
      low = middle;
    } else {
      high = middle;
    }
  }
  *largest = low;
  return FL_OK;
}

static fl_status check_limit(const fl_model *model, const fli_plan *plan,
                             int is_training)
{
  size_t largest = 0;
  fl_memory_plan memory;
  add_up(model, is_training, plan->n_floats, &memory);
  uint64_t bytes = bytes_with(model, &memory);
  if (model->memory_limit == 0 || bytes <= model->memory_limit) return FL_OK;
  fl_status st = largest_that_fits(model, plan->batch, is_training, &largest);
  if (st != FL_OK) return st;
  return fli_error(FL_E_LIMIT,
                   "memory: a batch of %zu takes %llu bytes, the limit is "
                   "%llu; the largest batch that fits is %zu",
                   plan->batch, (unsigned long long)bytes,
                   (unsigned long long)model->memory_limit, largest);
}

static void free_block(fl_model *model)
{
  fli_workspace *w = &model->workspace;
  fli_free(model->context, w->block, w->n_floats * sizeof *w->block);
  w->block = NULL;
  w->n_floats = 0;
}

/* Keep to the limit when this plan is taken, which is within it by itself: what
 * the plan can do without goes, first the other plan, then a block that is
 * larger than needed. */
static void give_back(fl_model *model, const fli_plan *plan, int is_training)
{
  fli_workspace *w = &model->workspace;
  fli_plan *other = &w->plans[!is_training];
  fl_memory_plan memory;
  size_t n_floats = w->n_floats > plan->n_floats ? w->n_floats : plan->n_floats;
  if (model->memory_limit == 0) return;
  add_up(model, is_training, n_floats, &memory);
  uint64_t bytes = bytes_with(model, &memory);
  uint64_t places = other->places ? model->n_nodes * sizeof(fli_places) : 0;
  if (bytes + places <= model->memory_limit) return;
  fli_plan_free(model, other);
  if (bytes <= model->memory_limit) return;
  fli_plan_free(model, &w->plans[is_training]);
  free_block(model);
}

/* Nothing in the block outlives a step: the old one is given back first, so
 * that there are never two. */
static fl_status reserve_block(fl_model *model, size_t n_floats)
{
  fli_workspace *w = &model->workspace;
  if (n_floats <= w->n_floats) return FL_OK;
  free_block(model);
  w->block = fli_alloc(model->context, n_floats, sizeof *w->block);
  if (w->block) {
    w->n_floats = n_floats;
    return FL_OK;
  }
  fli_plan_free(model, &w->plans[0]);
  fli_plan_free(model, &w->plans[1]);
  return fli_nomem(n_floats * sizeof *w->block);
}

fl_status fli_workspace_fit(const fl_model *model, size_t *batch)
{
  fl_memory_plan memory;
  size_t largest = 0;
  if (model->memory_limit == 0) return FL_OK;
  fl_status st = plan_memory(model, *batch, 0, &memory);
  if (st != FL_OK || bytes_with(model, &memory) <= model->memory_limit) {
    return st;
  }
  st = largest_that_fits(model, *batch, 0, &largest);
  if (st == FL_OK && largest > 0) *batch = largest;
  return st;
}

static fl_status take_gradient(fl_model *model)
{
  fli_workspace *w = &model->workspace;
  uint64_t n = model->n_weights - model->first_weight;
  if (w->gradient) return FL_OK;
  w->gradient = fli_alloc(model->context, (size_t)n, sizeof *w->gradient);
  if (!w->gradient) return fli_nomem((size_t)n * sizeof *w->gradient);
  w->n_gradient = n;
  return FL_OK;
}

/* The gradient comes last: a plan made for one is never without it. */
fl_status fli_workspace_reserve(fl_model *model, size_t batch, int is_training)
{
  fl_status st = FL_OK;
  fli_workspace *w = &model->workspace;
  fli_plan *current = &w->plans[is_training];
  fli_plan plan = {0};
  assert(is_training == 0 || is_training == 1);
  int gathers = is_training && fli_model_gathers(model);
  if (batch <= current->batch && (w->gradient || !gathers)) return FL_OK;
  FLI_TRY(fli_plan_make(model, batch, is_training, &plan));
  st = check_limit(model, &plan, is_training);
  if (st == FL_OK) {
    give_back(model, &plan, is_training);
    st = reserve_block(model, plan.n_floats);
  }
  if (st == FL_OK && gathers) st = take_gradient(model);
  if (st != FL_OK) {
    fli_plan_free(model, &plan);
    return st;
  }
  fli_plan_free(model, current);
  *current = plan;
out:
  return st;
}

void fli_workspace_drop_plans(fl_model *model)
{
  fli_plan_free(model, &model->workspace.plans[0]);
  fli_plan_free(model, &model->workspace.plans[1]);
}

void fli_workspace_forget(fl_model *model)
{
  fli_workspace *w = &model->workspace;
  fli_workspace_drop_plans(model);
  fli_free(model->context, w->gradient,
           (size_t)w->n_gradient * sizeof *w->gradient);
  w->gradient = NULL;
  w->n_gradient = 0;
  w->n_batches = 0;
  if (model->memory_limit > 0) free_block(model);
}

fl_status fl_memory_plan_init(fl_memory_plan *plan, size_t size)
{
  static const fl_memory_plan defaults = {0};
  fli_clear_error();
  return fli_options_init(plan, size, &defaults, sizeof defaults);
}

fl_status fl_model_plan_memory(const fl_model *model, uint32_t batch_size,
                               int32_t is_training, fl_memory_plan *plan)
{
  fl_status st = FL_OK;
  fl_memory_plan full;
  fli_clear_error();
  if (!model || !plan || batch_size == 0) {
    return fli_error(FL_E_ARGUMENT,
                     "memory plan: model or plan is NULL, or the batch is 0");
  }
  if (model->n_chain == 0) {
    return fli_error(FL_E_STATE, "model: has tensors only, no layers");
  }
  FLI_TRY(plan_memory(model, batch_size, is_training != 0, &full));
  FLI_TRY(fli_options_store(plan, &full, sizeof full, "fl_memory_plan"));
out:
  return st;
}

fl_status fl_model_set_memory_limit(fl_model *model, uint64_t bytes)
{
  fl_status st = FL_OK;
  fli_clear_error();
  FLI_TRY(fli_model_check_idle(model));
  model->memory_limit = bytes;
  fli_workspace_free(model);
out:
  return st;
}

void fli_workspace_free(fl_model *model)
{
  fli_workspace_forget(model);
  free_block(model);
}
