/* SPDX-License-Identifier: Apache-2.0 */
/* One controller follows the plans of a client's rounds and jobs, for a trainer
 * of the host's own: the model is a number of modules. */
#include <fl/client.h>

#include "freeze/freeze.h"
#include "freeze_fixture.h"

enum { MODULES = 5, SAMPLES = 60, CAPACITY = 256 };

static const uint8_t job_a[FL_HASH_BYTES] = {1};
static const uint8_t job_b[FL_HASH_BYTES] = {2};

typedef struct orders {
  fl_train_task task;
  uint8_t plan[CAPACITY];
} orders;

/* A round of the job whose plan of this version freezes so many. */
static void order(orders *o, const uint8_t *job, uint32_t first_active,
                  uint64_t version)
{
  fl_freeze_options options = freeze_options(FL_FREEZE_SERVER);
  options.job = job;
  options.max_frozen = MODULES - 1;
  fl_freeze *f = freeze_make(MODULES, &options);
  f->state.first_active = first_active;
  f->state.version = version;
  memset(f->state.frozen, 1, first_active);
  *o = (orders){.task = {.struct_size = sizeof o->task,
                         .epochs = 2,
                         .batch_size = 8,
                         .learning_rate = .1f,
                         .first_active = first_active,
                         .freeze_reports = FL_FREEZE_GRADNORM,
                         .freeze_plan = o->plan,
                         .freeze_job = job}};
  must(fl_freeze_copy_plan(f, o->plan, CAPACITY, &o->task.freeze_plan_size));
  fl_freeze_free(f);
}

static fl_freeze *follower(void)
{
  fl_freeze_options options;
  must(fl_freeze_options_init(&options, sizeof options));
  options.criterion = FL_FREEZE_SERVER;
  options.steps_per_epoch = 1;
  options.max_frozen = MODULES - 1;
  return freeze_make(MODULES, &options);
}

/* Train the round: 16 steps of a trainer that shows what it is asked for, and
 * never what it does not train. The report's value, or NaN. */
static double train(fl_freeze *f, const orders *o, uint32_t *module)
{
  fl_freeze_report report;
  for (int step = 0; step < 16; step++) {
    const fl_freeze_request r = freeze_begin(f, .1f);
    const float gradient[2] = {(float)(step % 2), 0};
    cr_expect_eq(r.first_active, o->task.first_active);
    if (r.wants & FL_FREEZE_WANTS_GRADIENT) {
      cr_expect(r.module >= o->task.first_active);
      must(fl_freeze_push_gradient(f, r.module, gradient, 2));
    }
    if (r.wants & FL_FREEZE_WANTS_PAIR) freeze_push_angle(f, r.module, .5);
    must(fl_freeze_end_step(f, 1));
  }
  must(fl_freeze_report_init(&report, sizeof report));
  if (fl_freeze_take_report(f, &report) != FL_OK) return (double)NAN;
  *module = report.module;
  return report.value;
}

static void expect_report(fl_freeze *f, const orders *o, double value)
{
  uint32_t module = UINT32_MAX;
  must(fl_freeze_follow(f, &o->task, SAMPLES));
  cr_expect_float_eq(train(f, o, &module), value, 1e-6);
  cr_expect_eq(module, o->task.first_active);
}

static void expect_none(fl_freeze *f, const orders *o)
{
  uint32_t module;
  must(fl_freeze_follow(f, &o->task, SAMPLES));
  cr_expect(isnan(train(f, o, &module)));
}

Test(freeze_follow, rounds_of_a_job_are_followed_and_reported)
{
  fl_freeze *f = follower();
  orders o;
  fl_freeze_event event;
  for (uint32_t round = 0; round < 6; round++) {
    order(&o, job_a, round / 2, round / 2);
    expect_report(f, &o, 1);
    cr_expect_eq(freeze_plan(f).version, round / 2);
  }
  cr_assert(freeze_poll(f, &event));
  while (event.kind != FL_FREEZE_CHANGED)
    cr_assert(freeze_poll(f, &event));
  cr_expect_eq(event.first_active, 1);
  cr_expect_eq(event.reason, FL_FREEZE_REASON_SERVER);
  /* ceil(60 / 8) steps, twice, are an evaluation every other step. */
  cr_expect_eq(f->options.steps_per_epoch, 16);
  fl_freeze_free(f);
}

Test(freeze_follow, what_the_job_wants_to_know_is_measured)
{
  fl_freeze *f = follower();
  orders o;
  order(&o, job_a, 1, 1);
  o.task.freeze_reports = FL_FREEZE_PLASTICITY;
  expect_report(f, &o, freeze_angle_plasticity(.5));
  o.task.freeze_reports = FL_FREEZE_GRADNORM;
  expect_report(f, &o, 1);
  /* What clients do not measure. */
  for (uint32_t reports = 0; reports < 10; reports += 3) {
    o.task.freeze_reports = reports;
    expect_none(f, &o);
    cr_expect_eq(freeze_plan(f).first_active, 1);
  }
  fl_freeze_free(f);
}

Test(freeze_follow, job_begun_afresh_and_another_one_begin_anew)
{
  fl_freeze *f = follower();
  orders o;
  order(&o, job_a, 3, 3);
  expect_report(f, &o, 1);
  order(&o, job_a, 1, 1);
  expect_report(f, &o, 1);
  cr_expect_eq(freeze_plan(f).version, 1);
  order(&o, job_b, 0, 0);
  expect_report(f, &o, 1);
  cr_expect_eq(freeze_plan(f).first_active, 0);
  order(&o, job_a, 2, 9);
  expect_report(f, &o, 1);
  fl_freeze_free(f);
}

Test(freeze_follow, without_a_plan_nothing_is_frozen_and_nothing_measured)
{
  fl_freeze *f = follower();
  orders o;
  order(&o, job_a, 2, 2);
  expect_report(f, &o, 1);
  o.task.freeze_plan = NULL;
  o.task.freeze_plan_size = 0;
  o.task.freeze_job = NULL;
  for (uint32_t depth = 0; depth < 2; depth++) {
    o.task.first_active = depth;
    expect_none(f, &o);
    cr_expect_eq(freeze_plan(f).first_active, 0);
  }
  order(&o, job_a, 2, 2);
  expect_report(f, &o, 1);
  fl_freeze_free(f);
}

Test(freeze_follow, who_trains_less_than_the_plan_reports_nothing)
{
  fl_freeze *f = follower();
  orders o;
  for (uint32_t round = 0; round < 8; round++) {
    order(&o, job_a, 1, 1);
    if (round % 2) {
      o.task.first_active = 3;
      expect_none(f, &o);
    } else {
      expect_report(f, &o, 1);
    }
    cr_expect_eq(freeze_plan(f).first_active, 1);
  }
  fl_freeze_free(f);
}

/* Version 0 of a server whose model has nothing to train in front. */
Test(freeze_follow, front_without_weights_is_behind_the_first_report)
{
  fl_freeze *f = follower();
  orders o;
  order(&o, job_a, 2, 0);
  expect_report(f, &o, 1);
  cr_expect_eq(freeze_plan(f).first_active, 2);
  expect_report(f, &o, 1);
  order(&o, job_a, 3, 1);
  expect_report(f, &o, 1);
  fl_freeze_free(f);
}

Test(freeze_follow, another_number_of_steps_is_another_interval)
{
  fl_freeze *f = follower();
  orders o;
  order(&o, job_a, 1, 1);
  must(fl_freeze_follow(f, &o.task, 8 * 64));
  cr_expect_eq(f->options.steps_per_epoch, 128);
  cr_expect_eq(f->options.interval, 8);
  o.task.epochs = UINT32_MAX;
  must(fl_freeze_follow(f, &o.task, UINT64_C(1) << 40));
  cr_expect_eq(f->options.steps_per_epoch, FLI_FREEZE_STEPS_MAX);
  cr_expect_eq(freeze_plan(f).first_active, 1);
  fl_freeze_free(f);
}

static void expect_refused(fl_freeze *f, const orders *o, uint64_t samples,
                           fl_status want)
{
  const fl_freeze_plan before = freeze_plan(f);
  const uint64_t steps = f->options.steps_per_epoch;
  cr_expect_eq(fl_freeze_follow(f, &o->task, samples), want, "%s, want %s",
               fl_last_error(), fl_status_name(want));
  cr_expect_eq(freeze_plan(f).first_active, before.first_active);
  cr_expect_eq(freeze_plan(f).version, before.version);
  cr_expect_eq(f->options.steps_per_epoch, steps);
  cr_expect_eq(memcmp(f->job, job_a, sizeof f->job), 0);
}

Test(freeze_follow, what_cannot_be_followed_changes_nothing)
{
  fl_freeze *f = follower();
  orders good, o;
  order(&good, job_a, 2, 2);
  expect_report(f, &good, 1);
  order(&o, job_b, 1, 1);
  for (size_t n = 0; n < o.task.freeze_plan_size; n++) {
    orders cut = o;
    cut.task.freeze_plan = cut.plan;
    cut.task.freeze_plan_size = n;
    cr_expect_neq(fl_freeze_follow(f, &cut.task, SAMPLES), FL_OK, "%zu", n);
    cr_expect_eq(freeze_plan(f).first_active, 2);
  }
  /* Another one's plan in the name of this job. */
  o.task.freeze_job = job_a;
  expect_refused(f, &o, SAMPLES, FL_E_CONFLICT);
  order(&o, job_a, 4, 4);
  expect_refused(f, &o, 0, FL_E_ARGUMENT);
  expect_refused(f, &o, (UINT64_C(1) << 40) + 1, FL_E_ARGUMENT);
  o.task.first_active = MODULES;
  expect_refused(f, &o, SAMPLES, FL_E_RANGE);
  o.task.first_active = 4;
  o.task.batch_size = 0;
  expect_refused(f, &o, SAMPLES, FL_E_ARGUMENT);
  o.task.batch_size = 8;
  o.task.epochs = 0;
  expect_refused(f, &o, SAMPLES, FL_E_ARGUMENT);
  o.task.epochs = 1;
  o.task.struct_size = 0;
  expect_refused(f, &o, SAMPLES, FL_E_OPTIONS);
  cr_expect_eq(fl_freeze_follow(f, NULL, SAMPLES), FL_E_ARGUMENT);
  cr_expect_eq(fl_freeze_follow(NULL, &good.task, SAMPLES), FL_E_ARGUMENT);
  expect_report(f, &good, 1);
  fl_freeze_free(f);
}

Test(freeze_follow, controllers_that_decide_do_not_follow)
{
  fl_freeze_options options = freeze_options(FL_FREEZE_GRADNORM);
  fl_freeze *f = freeze_make(MODULES, &options);
  orders o;
  order(&o, job_a, 1, 1);
  cr_expect_eq(fl_freeze_follow(f, &o.task, SAMPLES), FL_E_STATE);
  fl_freeze_free(f);
}

/* A trainer compiled ahead of time keeps its ways back. */
Test(freeze_follow, what_the_host_allows_stays)
{
  static const uint32_t allowed[2] = {0, 2};
  fl_freeze_options options = freeze_options(FL_FREEZE_SERVER);
  options.n_allowed = 2;
  options.allowed = allowed;
  options.max_frozen = 3;
  fl_freeze *f = freeze_make(MODULES, &options);
  orders o;
  for (uint32_t round = 0; round < 2; round++) {
    order(&o, round ? job_b : job_a, 3, 3);
    must(fl_freeze_follow(f, &o.task, SAMPLES));
    cr_expect_eq(freeze_plan(f).first_active, 2);
  }
  order(&o, job_b, 4, 4);
  cr_expect_eq(fl_freeze_follow(f, &o.task, SAMPLES), FL_E_RANGE);
  fl_freeze_free(f);
}
