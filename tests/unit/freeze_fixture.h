/* SPDX-License-Identifier: Apache-2.0 */
/* A controller and a trainer that shows numbers: what is asked for is pushed,
 * from functions of step and module. */
#ifndef FREEZE_FIXTURE_H
#define FREEZE_FIXTURE_H

#include <criterion/criterion.h>

#include <fl/freeze.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

static inline void must(fl_status st)
{
  cr_assert_eq(st, FL_OK, "%s: %s", fl_status_name(st), fl_last_error());
}

/* Defaults, but for a schedule of evaluations that tests can count. */
static inline fl_freeze_options freeze_options(uint32_t criterion)
{
  fl_freeze_options o;
  must(fl_freeze_options_init(&o, sizeof o));
  o.criterion = criterion;
  o.steps_per_epoch = 64;
  o.interval = 4;
  return o;
}

static inline fl_freeze *freeze_make(uint32_t n_modules,
                                     const fl_freeze_options *o)
{
  fl_freeze *freeze = NULL;
  must(fl_freeze_new(&freeze, NULL, n_modules, o));
  return freeze;
}

static inline fl_freeze_request freeze_begin(fl_freeze *freeze, float rate)
{
  fl_freeze_request request;
  must(fl_freeze_request_init(&request, sizeof request));
  must(fl_freeze_begin_step(freeze, rate, &request));
  return request;
}

static inline fl_freeze_plan freeze_plan(const fl_freeze *freeze)
{
  fl_freeze_plan plan;
  must(fl_freeze_plan_init(&plan, sizeof plan));
  must(fl_freeze_get_plan(freeze, &plan));
  return plan;
}

static inline int freeze_poll(fl_freeze *freeze, fl_freeze_event *event)
{
  must(fl_freeze_event_init(event, sizeof *event));
  const fl_status st = fl_freeze_poll(freeze, event);
  if (st == FL_E_EMPTY) return 0;
  must(st);
  return 1;
}

/* A pair [rows, 2] whose P is a function of `angle` that rises to PI / 4:
 * outputs of the model and those outputs with the second sample turned. */
static inline void freeze_push_angle(fl_freeze *freeze, uint32_t module,
                                     double angle)
{
  const float model[] = {1, 0, 1, 0};
  const float snapshot[] = {1, 0, (float)cos(angle), (float)sin(angle)};
  must(fl_freeze_push_pair(freeze, module, model, snapshot, 2, 2));
}

/* P of such a pair: G of the model is all ones, rows of the other are
 * (1, c) and (c, 1), divided by sqrt(1 + c^2). */
static inline double freeze_angle_plasticity(double angle)
{
  const double c = cos(angle), norm = sqrt(1 + c * c), half = sqrt(.5);
  return (pow(1 / norm - half, 2) + pow(c / norm - half, 2)) * 2 / 4;
}

/* The angle below PI / 2 whose P is this, by bisection. */
static inline double freeze_angle_of(double plasticity)
{
  double lo = 0, hi = acos(0);
  for (int i = 0; i < 80; i++) {
    const double middle = (lo + hi) / 2;
    if (freeze_angle_plasticity(middle) < plasticity)
      lo = middle;
    else
      hi = middle;
  }
  return lo;
}

/* What a trainer shows when asked: D, or P, or P of the last module. */
typedef double (*freeze_show)(uint64_t step, uint32_t module, void *user);

typedef struct freeze_trainer {
  fl_freeze *freeze;
  float rate;
  double loss;
  freeze_show show; /* NULL: .1 */
  void *user;
} freeze_trainer;

static inline double freeze_shown(const freeze_trainer *t,
                                  const fl_freeze_request *r, uint32_t module)
{
  return t->show ? t->show(r->step, module, t->user) : .1;
}

static inline void freeze_show_all(const freeze_trainer *t,
                                   const fl_freeze_request *r, int is_second)
{
  if ((r->wants & FL_FREEZE_WANTS_GRADIENT) && is_second) {
    const double d = freeze_shown(t, r, r->module);
    must(fl_freeze_push_gradient_change(t->freeze, r->module, d * d));
  }
  if (r->wants & FL_FREEZE_WANTS_PAIR)
    freeze_push_angle(t->freeze, r->module,
                      freeze_angle_of(freeze_shown(t, r, r->module)));
  if (r->wants & FL_FREEZE_WANTS_LAST_PAIR)
    freeze_push_angle(t->freeze, r->last,
                      freeze_angle_of(freeze_shown(t, r, r->last)));
}

/* One step; intervals are 4. */
static inline fl_freeze_request freeze_step(const freeze_trainer *t)
{
  const fl_freeze_request request = freeze_begin(t->freeze, t->rate);
  freeze_show_all(t, &request, (request.step + 1) % 4 == 0);
  must(fl_freeze_end_step(t->freeze, t->loss));
  return request;
}

/* Steps until the bootstrapping phase is over: a loss of 10, then of 1. */
static inline void freeze_boot(freeze_trainer *t)
{
  fl_freeze_event event = {0};
  t->loss = 10;
  for (int i = 0; i < 8; i++)
    (void)freeze_step(t);
  t->loss = 1;
  for (int i = 0; i < 64 && event.kind != FL_FREEZE_BOOTED; i++) {
    (void)freeze_step(t);
    while (event.kind != FL_FREEZE_BOOTED && freeze_poll(t->freeze, &event))
      continue;
  }
  cr_assert_eq(event.kind, FL_FREEZE_BOOTED);
}

/* Steps until the plan's first_active is this; returns the plan's step, or
 * `limit` when it took longer. */
static inline uint64_t freeze_until(const freeze_trainer *t, uint32_t first,
                                    uint64_t limit)
{
  for (;;) {
    const fl_freeze_request request = freeze_step(t);
    if (request.first_active == first) return request.step;
    if (request.step >= limit) return limit;
  }
}

#endif
