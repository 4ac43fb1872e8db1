/* SPDX-License-Identifier: Apache-2.0 */
/* A controller beside a model whose host does other things, too: gathers
 * batches, writes weights, loads states, frees things early, runs out of
 * memory. */
#include <stdlib.h>
#include <string.h>

#include "freeze/freeze.h"
#include "freeze_net.h"
#include "late_host.h"

/* f = 1 from the first step on. */
static fl_freeze *new_frozen(void)
{
  fl_freeze_options o = options_of(FL_FREEZE_FIXED);
  const fl_freeze_fixed fixed = {.step = 0, .first_active = 1};
  o.fixed = &fixed;
  o.n_fixed = 1;
  return new_freeze(&o);
}

/* Two batches make an update. */
static net *new_gathering(void)
{
  net *t = new_net(NULL);
  fl_optimiser_options o;
  cr_assert_eq(fl_optimiser_options_init(&o, sizeof o), FL_OK);
  o.momentum = 0.9f;
  o.accumulate = 2;
  cr_assert_eq(fl_model_set_optimiser(t->model, &o), FL_OK);
  return t;
}

static void scale_prefix(net *t, float factor)
{
  float *weights = NULL;
  cr_assert_eq(fl_model_get_weights(t->model, &weights, NULL), FL_OK);
  for (uint64_t i = 0; i < t->model->segments[0].n; i++) {
    weights[i] *= factor;
  }
}

/* ---- gathered batches --------------------------------------------------- */

/* Between two batches of an update the host writes to the frozen weights. */
Test(freeze_beside, rows_of_gathered_batches_are_those_of_the_prefix_as_it_is)
{
  double of[2][4];
  uint64_t ids[SAMPLES];
  uint32_t halves[2][BATCH];
  fl_cache *cache = new_cache();
  for (uint32_t i = 0; i < SAMPLES; i++) {
    ids[i] = i;
  }
  for (uint32_t i = 0; i < BATCH; i++) {
    halves[0][i] = i;
    halves[1][i] = BATCH + i;
  }
  for (int k = 0; k < 2; k++) {
    net *t = new_gathering();
    fl_freeze *freeze = new_frozen();
    fl_dataset data = net_data(t);
    attach(freeze, t, k ? cache : NULL);
    data.ids = ids;
    data.n_indices = BATCH;
    for (int i = 0; i < 4; i++) {
      data.indices = halves[i > 0];
      cr_assert_eq(fl_model_step(t->model, &data, 0.01f, &of[k][i]), FL_OK);
      scale_prefix(t, i == 1 ? 0.5f : 2.0f);
    }
    fl_freeze_free(freeze);
    net_free(t);
  }
  for (int i = 0; i < 4; i++) {
    cr_expect(of[0][i] == of[1][i], "step %d: %.17g, want %.17g", i, of[1][i],
              of[0][i]);
  }
  fl_cache_free(cache);
}

typedef struct stopper {
  int left; /* steps */
} stopper;

static fl_status stop(const fl_fit_progress *progress, void *user)
{
  stopper *s = user;
  (void)progress;
  return --s->left == 0 ? FL_E_CANCELLED : FL_OK;
}

/* A fit is stopped between two of them, and goes on with other data in the same
 * place. */
Test(freeze_beside, resumed_fit_looks_at_its_data_again)
{
  losses of[2];
  fl_cache *cache = new_cache();
  for (int k = 0; k < 2; k++) {
    net *t = new_gathering();
    fl_freeze *freeze = new_frozen();
    fl_dataset data = net_data(t);
    fl_fit_options o;
    stopper s = {.left = 2 * STEPS_PER_EPOCH + 1};
    attach(freeze, t, k ? cache : NULL);
    cr_assert_eq(fl_fit_options_init(&o, sizeof o), FL_OK);
    o.epochs = 6;
    o.batch_size = BATCH;
    o.progress_every = 1;
    o.progress = stop;
    o.user = &s;
    o.resume = 1;
    cr_assert_eq(fl_model_fit(t->model, &data, &o, NULL), FL_E_CANCELLED);
    cr_assert_eq(t->model->workspace.n_batches, 1);
    for (size_t i = 0; i < SAMPLES * 2 * 8 * 8; i++) {
      t->x[i] = -t->x[i];
    }
    of[k].n = 0;
    o.progress = note;
    o.user = &of[k];
    cr_assert_eq(fl_model_fit(t->model, &data, &o, NULL), FL_OK);
    fl_freeze_free(freeze);
    net_free(t);
  }
  expect_same_losses(&of[1], &of[0]);
  fl_cache_free(cache);
}

/* A checkpoint made between two of them, with an attachment before or after it
 * is loaded. */
Test(freeze_beside, checkpoint_between_gathered_batches_goes_on)
{
  net *whole = new_gathering();
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  fl_dataset data = net_data(whole);
  data.n = BATCH;
  for (int i = 0; i < 3; i++) {
    cr_assert_eq(fl_model_step(whole->model, &data, 0.01f, NULL), FL_OK);
  }
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_model_save_checkpoint(whole->model, &writer), FL_OK);
  for (int i = 0; i < 3; i++) {
    cr_assert_eq(fl_model_step(whole->model, &data, 0.01f, NULL), FL_OK);
  }
  for (int is_before = 0; is_before < 2; is_before++) {
    fl_freeze_options o = options_of(FL_FREEZE_GRADNORM);
    net *t = new_net(NULL);
    fl_freeze *freeze = new_freeze(&o);
    fl_dataset same = net_data(t);
    same.n = BATCH;
    if (is_before) attach(freeze, t, NULL);
    cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
    cr_assert_eq(fl_model_load_checkpoint(t->model, &reader), FL_OK);
    if (!is_before) attach(freeze, t, NULL);
    for (int i = 0; i < 3; i++) {
      cr_assert_eq(fl_model_step(t->model, &same, 0.01f, NULL), FL_OK, "%s",
                   fl_last_error());
    }
    cr_expect_arr_eq(t->model->values, whole->model->values,
                     (size_t)whole->model->n_weights * sizeof(float));
    fl_freeze_free(freeze);
    net_free(t);
  }
  fl_buffer_free(buffer);
  net_free(whole);
}

/* A plan that comes between two of them drops the controller's step, and the
 * update goes on. */
Test(freeze_beside, plan_may_come_between_gathered_batches)
{
  fl_freeze_options o = options_of(FL_FREEZE_SERVER);
  const fl_freeze_fixed fixed = {.step = 0, .first_active = 1};
  fl_freeze_options f = options_of(FL_FREEZE_FIXED);
  fl_freeze_request request;
  uint8_t plan[256];
  size_t n = 0;
  f.fixed = &fixed;
  f.n_fixed = 1;
  fl_freeze *server = new_freeze(&f);
  fl_freeze *freeze = new_freeze(&o);
  net *t = new_gathering();
  fl_dataset data = net_data(t);
  cr_assert_eq(fl_freeze_request_init(&request, sizeof request), FL_OK);
  cr_assert_eq(fl_freeze_begin_step(server, 0.1f, &request), FL_OK);
  cr_assert_eq(fl_freeze_copy_plan(server, plan, sizeof plan, &n), FL_OK);
  attach(freeze, t, NULL);
  cr_assert_eq(fl_model_step(t->model, &data, 0.01f, NULL), FL_OK);
  cr_assert_eq(fl_freeze_apply_plan(freeze, plan, n), FL_OK, "%s",
               fl_last_error());
  cr_expect_eq(fl_model_step(t->model, &data, 0.01f, NULL), FL_OK);
  cr_expect_eq(fl_model_first_active(t->model), 0, "this update is begun");
  cr_expect_eq(fl_model_step(t->model, &data, 0.01f, NULL), FL_OK);
  cr_expect_eq(fl_model_first_active(t->model), 1);
  fl_freeze_free(server);
  fl_freeze_free(freeze);
  net_free(t);
}

/* ---- plan and model ----------------------------------------------------- */

static fl_freeze *new_follower(void)
{
  fl_freeze_options o = options_of(FL_FREEZE_SERVER);
  o.max_frozen = MODULES - 1;
  return new_freeze(&o);
}

static uint32_t n_frozen(const net *t)
{
  uint32_t n = 0;
  for (uint32_t i = 0; i < t->model->n_tensors; i++) {
    n += !t->model->tensors[i].is_trained;
  }
  return n;
}

Test(freeze_beside, plan_of_a_server_may_freeze_modules_in_the_middle)
{
  net *t = new_net(NULL);
  fl_freeze *freeze = new_follower();
  attach(freeze, t, NULL);
  (void)fit(t, 1);
  cr_expect_eq(n_frozen(t), 0);
  freeze->state.frozen[1] = 1;
  (void)fit(t, 1);
  for (uint32_t i = 0; i < t->model->n_tensors; i++) {
    const fli_tensor *tensor = &t->model->tensors[i];
    cr_expect_eq(tensor->is_trained, tensor->module != 1);
  }
  fl_freeze_free(freeze);
  net_free(t);
}

/* Whoever changes the model, or the controller: the next step is as planned. */
Test(freeze_beside, model_is_as_planned_again_at_the_next_step)
{
  const uint8_t middle[2] = {0, 1};
  net *t = new_net(NULL);
  fl_freeze *freeze = new_fixed(0);
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  attach(freeze, t, NULL);
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_freeze_save(freeze, &writer), FL_OK);
  (void)fit(t, 2);
  cr_expect_eq(fl_model_first_active(t->model), 2);
  cr_assert_eq(fl_model_set_frozen(t->model, middle, 2), FL_OK);
  (void)fit(t, 1);
  cr_expect_eq(fl_model_first_active(t->model), 2);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  cr_assert_eq(fl_freeze_load(freeze, &reader), FL_OK);
  (void)fit(t, 1);
  cr_expect_eq(fl_model_first_active(t->model), 1);
  fl_buffer_free(buffer);
  fl_freeze_free(freeze);
  net_free(t);
}

/* What a device can afford, on top of the plan. */
Test(freeze_beside, nothing_in_front_of_the_floor_is_trained)
{
  fl_freeze_attach_options o;
  net *t = new_net(NULL);
  fl_freeze *freeze = new_fixed(STEPS_PER_EPOCH);
  cr_assert_eq(fl_freeze_attach_options_init(&o, sizeof o), FL_OK);
  o.first_active = MODULES;
  cr_expect_eq(fl_freeze_attach(freeze, t->model, &o), FL_E_RANGE);
  o.first_active = 1;
  cr_assert_eq(fl_freeze_attach(freeze, t->model, &o), FL_OK);
  (void)fit(t, 1);
  cr_expect_eq(fl_model_first_active(t->model), 1, "the plan: none");
  (void)fit(t, 2);
  cr_expect_eq(fl_model_first_active(t->model), 2, "the plan: two");
  fl_freeze_free(freeze);
  net_free(t);
}

/* The device does not train module 0, and decides about the others. */
Test(freeze_beside, criterion_begins_with_the_floor)
{
  static const uint32_t criteria[] = {FL_FREEZE_GRADNORM, FL_FREEZE_PLASTICITY,
                                      FL_FREEZE_RELATIVE_PLASTICITY};
  for (int c = 0; c < 3; c++) {
    fl_freeze_options o = options_of(criteria[c]);
    fl_freeze_attach_options with;
    fl_freeze_event event;
    net *t = new_net(NULL);
    o.interval = 2;
    o.window = 3;
    o.patience = 2;
    o.gap = 1;
    o.tolerance = 100.0f;
    o.loss_change = 10.0f;
    o.loss_level = 10.0f;
    fl_freeze *freeze = new_freeze(&o);
    cr_assert_eq(fl_freeze_attach_options_init(&with, sizeof with), FL_OK);
    with.first_active = 1;
    cr_assert_eq(fl_freeze_attach(freeze, t->model, &with), FL_OK);
    (void)fit(t, 12);
    cr_assert(has_event(freeze, FL_FREEZE_EVALUATED, &event));
    cr_expect_eq(event.module, 1);
    cr_expect_geq(fl_model_first_active(t->model), 2, "criterion %u",
                  criteria[c]);
    fl_freeze_free(freeze);
    net_free(t);
  }
}

/* Its front module is not trained here: what would be measured of it says
 * nothing. */
Test(freeze_beside, follower_below_the_floor_reports_nothing)
{
  static const uint32_t criteria[] = {FL_FREEZE_GRADNORM, FL_FREEZE_PLASTICITY};
  for (int c = 0; c < 2; c++) {
    for (uint32_t floor = 0; floor < 2; floor++) {
      fl_freeze_options o = options_of(FL_FREEZE_SERVER);
      fl_freeze_attach_options with;
      fl_freeze_report report;
      net *t = new_net(NULL);
      o.reports = criteria[c];
      o.interval = 2;
      fl_freeze *freeze = new_freeze(&o);
      cr_assert_eq(fl_freeze_attach_options_init(&with, sizeof with), FL_OK);
      with.first_active = floor;
      cr_assert_eq(fl_freeze_attach(freeze, t->model, &with), FL_OK);
      (void)fit(t, 2);
      cr_assert_eq(fl_freeze_report_init(&report, sizeof report), FL_OK);
      cr_expect_eq(fl_freeze_take_report(freeze, &report),
                   floor == 0 ? FL_OK : FL_E_EMPTY);
      fl_freeze_free(freeze);
      net_free(t);
    }
  }
}

/* ---- memory ------------------------------------------------------------- */

static fl_status free_controller(float *gradient, const float *weights,
                                 uint64_t count, void *user)
{
  fl_freeze **freeze = user;
  (void)gradient;
  (void)weights;
  (void)count;
  fl_freeze_free(*freeze);
  *freeze = NULL;
  return FL_OK;
}

Test(freeze_beside, controller_may_be_freed_in_a_gradient_hook)
{
  net *t = new_net(NULL);
  fl_freeze *freeze = new_frozen();
  fl_dataset data = net_data(t);
  attach(freeze, t, NULL);
  cr_assert_eq(fl_model_set_gradient_hook(t->model, free_controller, &freeze),
               FL_OK);
  cr_expect_eq(fl_model_step(t->model, &data, 0.1f, NULL), FL_OK);
  cr_expect_eq(fl_model_step(t->model, &data, 0.1f, NULL), FL_OK);
  net_free(t);
}

Test(freeze_beside, memory_goes_back_to_the_context_it_came_from)
{
  fl_context *contexts[2];
  fl_freeze_options o = options_of(FL_FREEZE_GRADNORM);
  fl_freeze *freeze = NULL;
  uint64_t before[2];
  uint64_t after[2];
  o.interval = 2;
  o.loss_change = 10.0f;
  o.loss_level = 10.0f;
  for (int i = 0; i < 2; i++) {
    cr_assert_eq(fl_context_new(&contexts[i], NULL), FL_OK);
    cr_assert_eq(fl_context_get_memory(contexts[i], &before[i], NULL), FL_OK);
  }
  cr_assert_eq(fl_freeze_new(&freeze, contexts[0], MODULES, &o), FL_OK);
  net *t = new_net(contexts[1]);
  attach(freeze, t, NULL);
  (void)fit(t, 4);
  fl_freeze_free(freeze);
  net_free(t);
  for (int i = 0; i < 2; i++) {
    cr_assert_eq(fl_context_get_memory(contexts[i], &after[i], NULL), FL_OK);
    cr_expect_eq(after[i], before[i], "context %d", i);
    fl_context_free(contexts[i]);
  }
}

typedef struct heap {
  late_host late;
  long live;
  long left; /* allocations before the one that fails; < 0: none does */
  long total;
} heap;

static void *heap_alloc(void *user, size_t size, size_t alignment)
{
  heap *h = user;
  h->total++;
  if (h->left-- == 0) return NULL;
  h->live++;
  return aligned_alloc(alignment,
                       (size + alignment - 1) / alignment * alignment);
}

static void heap_dealloc(void *user, void *ptr, size_t size, size_t alignment)
{
  heap *h = user;
  (void)size;
  (void)alignment;
  h->live--;
  free(ptr);
}

static fl_context *heap_context(heap *h)
{
  fl_context_options o;
  fl_context *context = NULL;
  cr_assert_eq(fl_context_options_init(&o, sizeof o), FL_OK);
  o.alloc = heap_alloc;
  o.dealloc = heap_dealloc;
  o.start = late_start;
  o.finish = late_finish;
  o.user = h;
  cr_assert_eq(fl_context_new(&context, &o), FL_OK);
  return context;
}

static fl_freeze_options eager(uint32_t criterion, uint64_t lag)
{
  static const fl_freeze_fixed fixed[2] = {{3, 1, 0}, {8, 2, 0}};
  fl_freeze_options o = options_of(criterion);
  o.interval = 2;
  o.lag = lag;
  o.loss_change = 10.0f;
  o.loss_level = 10.0f;
  o.gap = 1;
  if (criterion == FL_FREEZE_FIXED) {
    o.fixed = fixed;
    o.n_fixed = 2;
  } else {
    o.patience = 1;
    o.tolerance = 5.0f;
  }
  return o;
}

/* A job whose allocation number `fail` fails: it says so and can be taken up
 * again, or an evaluation or the cache is left out. Returns how many
 * allocations there were. */
static long train_without(uint32_t criterion, uint64_t lag, long fail)
{
  heap h = {.left = -1};
  fl_context *context = heap_context(&h);
  net *t = new_net(context);
  fl_freeze_options o = eager(criterion, lag);
  fl_freeze_attach_options with;
  fl_fit_options fitting;
  fl_freeze *freeze = NULL;
  fl_cache *cache = NULL;
  fl_dataset data = net_data(t);
  cr_assert_eq(fl_freeze_attach_options_init(&with, sizeof with), FL_OK);
  cr_assert_eq(fl_fit_options_init(&fitting, sizeof fitting), FL_OK);
  fitting.epochs = 6;
  fitting.batch_size = BATCH;
  fitting.resume = 1;
  h.total = 0;
  h.left = fail;
  fl_status st = fl_freeze_new(&freeze, context, MODULES, &o);
  if (st == FL_OK) st = fl_cache_new(&cache, context, NULL);
  with.cache = cache;
  if (st == FL_OK) st = fl_freeze_attach(freeze, t->model, &with);
  if (st == FL_OK) {
    st = fl_model_fit(t->model, &data, &fitting, NULL);
    h.left = -1;
    if (st == FL_E_NOMEM) {
      cr_expect_eq(fl_model_fit(t->model, &data, &fitting, NULL), FL_OK, "%s",
                   fl_last_error());
    }
  }
  cr_expect(st == FL_OK || st == FL_E_NOMEM, "criterion %u, %ld: %s", criterion,
            fail, fl_last_error());
  long total = h.total;
  fl_freeze_free(freeze);
  fl_cache_free(cache);
  net_free(t);
  cr_expect_eq(h.live, 1, "criterion %u, %ld: the context alone is left",
               criterion, fail);
  fl_context_free(context);
  cr_expect_eq(h.live, 0);
  cr_expect_eq(h.late.started, h.late.finished);
  cr_expect_eq(h.late.wrong, 0);
  cr_expect(fail >= 0 || (h.late.started > 0) == (lag > 0));
  return total;
}

Test(freeze_beside, every_allocation_of_an_attached_job_may_fail)
{
  static const struct {
    uint32_t criterion;
    uint64_t lag;
  } jobs[] = {{FL_FREEZE_FIXED, 0},      {FL_FREEZE_GRADNORM, 0},
              {FL_FREEZE_PLASTICITY, 0}, {FL_FREEZE_RELATIVE_PLASTICITY, 0},
              {FL_FREEZE_PLASTICITY, 1}, {FL_FREEZE_RELATIVE_PLASTICITY, 1}};
  for (size_t c = 0; c < sizeof jobs / sizeof *jobs; c++) {
    long n = train_without(jobs[c].criterion, jobs[c].lag, -1);
    cr_assert_gt(n, 10);
    for (long i = 0; i < n; i++) {
      (void)train_without(jobs[c].criterion, jobs[c].lag, i);
    }
  }
}

/* ---- what is not kept --------------------------------------------------- */

Test(freeze_beside, outputs_that_are_not_worth_keeping_are_told_of_once)
{
  const uint64_t dims[3] = {1, 8, 8};
  fl_conv2d_options conv = net_conv_options(16, 3, 1);
  fl_freeze *freeze = new_frozen();
  fl_cache *cache = new_cache();
  fl_freeze_event event;
  net *t = net_begin(NULL, dims, 3);
  (void)net_conv(t, &conv);
  (void)net_activation(t, FL_ACTIVATION_RELU);
  (void)net_conv(t, &conv);
  (void)net_mean(t);
  (void)net_dense(t, 6);
  (void)net_dense(t, 3);
  (void)net_classes(t, 0.0f);
  net_draw(t, SAMPLES, NET_SEED);
  attach(freeze, t, cache);
  (void)fit(t, 3);
  cr_expect(has_event(freeze, FL_FREEZE_CACHE_OFF, &event));
  cr_expect_str_eq(event.text,
                   "not kept while modules below 1 are frozen: outputs are "
                   "more than 4 times as many as inputs");
  cr_expect_not(has_event(freeze, FL_FREEZE_CACHE_OFF, &event));
  cr_expect_eq(status_of(cache).hits, 0);
  fl_freeze_free(freeze);
  fl_cache_free(cache);
  net_free(t);
}
