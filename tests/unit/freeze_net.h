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

#endif
