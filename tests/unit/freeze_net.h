/* SPDX-License-Identifier: Apache-2.0 */
/* A small model and controllers for it. */
#ifndef FREEZE_NET_H
#define FREEZE_NET_H

#include <fl/freeze.h>
#include <fl/train.h>

#include "net_check.h"

enum {
  SAMPLES = 40,
  BATCH = 8,
  STEPS_PER_EPOCH = SAMPLES / BATCH,
  MODULES = 4
};

static inline net *new_net(fl_context *context)
{
  const uint64_t dims[3] = {2, 8, 8};
  net *t = net_begin(context, dims, 3);
  fl_conv2d_options conv = net_conv_options(5, 3, 1);
  (void)net_conv(t, &conv);
  (void)net_activation(t, FL_ACTIVATION_RELU);
  (void)net_pool(t, FL_POOL_MAX, 2, 0, 0);
  (void)net_conv(t, &conv);
  (void)net_activation(t, FL_ACTIVATION_RELU);
  (void)net_mean(t);
  (void)net_dense(t, 6);
  (void)net_activation(t, FL_ACTIVATION_RELU);
  (void)net_dense(t, 3);
  (void)net_classes(t, 0.0f);
  net_draw(t, SAMPLES, NET_SEED);
  fl_optimiser_options o;
  cr_assert_eq(fl_optimiser_options_init(&o, sizeof o), FL_OK);
  o.momentum = 0.9f;
  o.learning_rate = 0.05f;
  cr_assert_eq(fl_model_set_optimiser(t->model, &o), FL_OK);
  return t;
}

static inline fl_freeze_options options_of(uint32_t criterion)
{
  fl_freeze_options o;
  cr_assert_eq(fl_freeze_options_init(&o, sizeof o), FL_OK);
  o.criterion = criterion;
  o.steps_per_epoch = STEPS_PER_EPOCH;
  return o;
}

static inline fl_freeze *new_freeze(const fl_freeze_options *o)
{
  fl_freeze *freeze = NULL;
  cr_assert_eq(fl_freeze_new(&freeze, NULL, MODULES, o), FL_OK, "%s",
               fl_last_error());
  return freeze;
}

/* Whether an event of the kind came; the others are dropped. */
static inline int has_event(fl_freeze *freeze, uint32_t kind,
                            fl_freeze_event *event)
{
  cr_assert_eq(fl_freeze_event_init(event, sizeof *event), FL_OK);
  while (fl_freeze_poll(freeze, event) == FL_OK) {
    if (event->kind == kind) return 1;
  }
  return 0;
}

/* f = 1 from step `at` on, f = 2 an epoch later. */
static inline fl_freeze *new_fixed(uint64_t at)
{
  fl_freeze_options o = options_of(FL_FREEZE_FIXED);
  const fl_freeze_fixed fixed[2] = {
      {.step = at, .first_active = 1},
      {.step = at + STEPS_PER_EPOCH, .first_active = 2}};
  o.fixed = fixed;
  o.n_fixed = 2;
  return new_freeze(&o);
}

static inline void attach(fl_freeze *freeze, net *t, fl_cache *cache)
{
  fl_freeze_attach_options o;
  cr_assert_eq(fl_freeze_attach_options_init(&o, sizeof o), FL_OK);
  o.cache = cache;
  cr_assert_eq(fl_freeze_attach(freeze, t->model, &o), FL_OK, "%s",
               fl_last_error());
}

/* Losses of every step of a fit. */
typedef struct losses {
  double of[256];
  uint64_t n;
} losses;

static inline fl_status note(const fl_fit_progress *progress, void *user)
{
  losses *l = user;
  l->of[l->n++ % 256] = progress->loss;
  return FL_OK;
}

static inline losses fit(net *t, uint32_t epochs)
{
  losses l = {.n = 0};
  fl_fit_options o;
  fl_dataset data = net_data(t);
  cr_assert_eq(fl_fit_options_init(&o, sizeof o), FL_OK);
  o.epochs = epochs;
  o.batch_size = BATCH;
  o.seed = 5;
  o.progress_every = 1;
  o.progress = note;
  o.user = &l;
  cr_assert_eq(fl_model_fit(t->model, &data, &o, NULL), FL_OK, "%s",
               fl_last_error());
  return l;
}

static inline fl_cache *new_cache(void)
{
  fl_cache *cache = NULL;
  cr_assert_eq(fl_cache_new(&cache, NULL, NULL), FL_OK);
  return cache;
}

static inline fl_cache_status status_of(const fl_cache *cache)
{
  fl_cache_status status;
  cr_assert_eq(fl_cache_status_init(&status, sizeof status), FL_OK);
  cr_assert_eq(fl_cache_get_status(cache, &status), FL_OK);
  return status;
}

static inline void expect_same_losses(const losses *got, const losses *want)
{
  cr_assert_eq(got->n, want->n);
  for (size_t i = 0; i < want->n; i++) {
    cr_expect(got->of[i] == want->of[i], "step %zu: %.17g, want %.17g", i,
              got->of[i], want->of[i]);
  }
}

#endif
