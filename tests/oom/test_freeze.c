/* SPDX-License-Identifier: Apache-2.0 */
/* Every allocation of the freezing controller fails once: no leak, no crash,
 * and the controller is as before the call that failed. */
#include "oom/oom.h"

#include <fl/client.h>
#include <fl/freeze.h>

#include "base/error.h"

enum { MODULES = 6, N = 500, STEPS = 24 };

static const uint32_t allowed[] = {0, 1, 3};
static const fl_freeze_fixed fixed[] = {{3, 1, 0}};

static fl_status make(fl_context *context, uint32_t criterion,
                      fl_freeze **freeze)
{
  fl_freeze_options o;
  fl_status st = fl_freeze_options_init(&o, sizeof o);
  if (st != FL_OK) return st;
  o.criterion = criterion;
  o.steps_per_epoch = 16;
  o.total_steps = 100;
  o.is_pretrained = 1;
  o.pretrained_share = .01f;
  o.allowed = allowed;
  o.n_allowed = 3;
  if (criterion == FL_FREEZE_FIXED) {
    o.fixed = fixed;
    o.n_fixed = 1;
  }
  return fl_freeze_new(freeze, context, MODULES, &o);
}

/* Shows all that is asked for; a push that fails may be made again. */
static fl_status show(fl_freeze *freeze, const fl_freeze_request *r)
{
  fl_status st = FL_OK;
  float values[N];
  for (int i = 0; i < N; i++)
    values[i] = (float)((i * 31 + (int)r->step) % 17);
  if (r->wants & FL_FREEZE_WANTS_GRADIENT)
    FLI_TRY(fl_freeze_push_gradient(freeze, r->module, values, N));
  if (r->wants & FL_FREEZE_WANTS_PAIR)
    FLI_TRY(fl_freeze_push_pair(freeze, r->module, values, values + 1, 4, 100));
  if (r->wants & FL_FREEZE_WANTS_LAST_PAIR)
    FLI_TRY(fl_freeze_push_pair(freeze, r->last, values, values + 1, 4, 100));
  if (r->wants & FL_FREEZE_WANTS_FEATURES)
    FLI_TRY(fl_freeze_push_features(freeze, 1, values, 50, values + 9, 20, 4));
out:
  return st;
}

static fl_status train(fl_freeze *freeze)
{
  fl_status st = FL_OK;
  fl_freeze_request request;
  fl_freeze_plan before, after;
  for (int i = 0; i < STEPS; i++) {
    FLI_TRY(fl_freeze_request_init(&request, sizeof request));
    FLI_TRY(fl_freeze_begin_step(freeze, .1f, &request));
    CHECK_OK(fl_freeze_plan_init(&before, sizeof before));
    CHECK_OK(fl_freeze_plan_init(&after, sizeof after));
    CHECK_OK(fl_freeze_get_plan(freeze, &before));
    st = show(freeze, &request);
    CHECK_OK(fl_freeze_get_plan(freeze, &after));
    CHECK_EQ_U64(before.version, after.version);
    /* The step goes on without the evaluation. */
    CHECK_OK(fl_freeze_end_step(freeze, 1));
    if (st != FL_OK) {
      (void)fli_error(st, "as it was pushed");
      goto out;
    }
  }
out:
  return st;
}

static fl_status save_and_load(fl_context *context, fl_freeze *freeze)
{
  fl_status st = FL_OK;
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  fl_freeze_plan before, after;
  FLI_TRY(fl_buffer_new(&buffer, context));
  FLI_TRY(fl_buffer_as_writer(buffer, &writer));
  FLI_TRY(fl_freeze_save(freeze, &writer));
  CHECK_OK(fl_freeze_plan_init(&before, sizeof before));
  CHECK_OK(fl_freeze_plan_init(&after, sizeof after));
  CHECK_OK(fl_freeze_get_plan(freeze, &before));
  FLI_TRY(fl_buffer_as_reader(buffer, &reader));
  st = fl_freeze_load(freeze, &reader);
  if (st == FL_OK) goto out;
  CHECK_OK(fl_freeze_get_plan(freeze, &after));
  CHECK_EQ_U64(before.version, after.version);
  CHECK_EQ_U64((uint64_t)(before.frozen == after.frozen), 1);
  (void)fli_error(st, "as it was loaded");
out:
  fl_buffer_free(buffer);
  return st;
}

static fl_status one_job(fl_context *context, void *arg)
{
  const uint32_t *criterion = arg;
  fl_status st = FL_OK;
  fl_freeze *freeze = NULL;
  uint8_t plan[256];
  size_t n = 0;
  FLI_TRY(make(context, *criterion, &freeze));
  FLI_TRY(train(freeze));
  FLI_TRY(save_and_load(context, freeze));
  FLI_TRY(fl_freeze_copy_plan(freeze, plan, sizeof plan, &n));
  if (*criterion == FL_FREEZE_SERVER)
    FLI_TRY(fl_freeze_apply_plan(freeze, plan, n));
out:
  fl_freeze_free(freeze);
  return st;
}

static void every_criterion(void)
{
  for (uint32_t c = FL_FREEZE_GRADNORM; c <= FL_FREEZE_SERVER; c++)
    oom_loop(one_job, &c);
}

static fl_status one_round(fl_context *context, void *arg)
{
  fl_status st = FL_OK;
  fl_freeze *freeze = NULL;
  fl_freeze_report report;
  fl_freeze_event event;
  (void)arg;
  FLI_TRY(fl_freeze_report_init(&report, sizeof report));
  FLI_TRY(fl_freeze_new(&freeze, context, MODULES, NULL));
  st = fl_freeze_end_round(freeze, 1, &report, 1);
  if (st == FL_OK) goto out;
  CHECK_OK(fl_freeze_event_init(&event, sizeof event));
  CHECK_STATUS(fl_freeze_poll(freeze, &event), FL_E_EMPTY);
  (void)fli_error(st, "at the end of the round");
out:
  fl_freeze_free(freeze);
  return st;
}

static void rounds(void)
{
  oom_loop(one_round, NULL);
}

static fl_status compare(fl_context *context, void *arg)
{
  const float x[] = {1, 2, 3, 5};
  double plasticity = 7, cka = 7;
  fl_status st = FL_OK;
  (void)arg;
  FLI_TRY(fl_plasticity(context, x, x, 2, 2, &plasticity));
  CHECK_EQ_U64((uint64_t)(plasticity == 0), 1);
  st = fl_cka(context, x, 2, x, 2, 2, &cka);
  CHECK_EQ_U64((uint64_t)(cka == (st == FL_OK ? 1 : 7)), 1);
out:
  return st;
}

static void similarity(void)
{
  oom_loop(compare, NULL);
}

/* A task of the second job, whose plan is newer than the first one's. */
static fl_status follow_two(fl_context *context, void *arg)
{
  static const uint8_t jobs[2][FL_HASH_BYTES] = {{1}, {2}};
  fl_status st = FL_OK;
  fl_freeze *follower = NULL, *leader = NULL;
  fl_freeze_options o;
  fl_freeze_plan before, after;
  uint8_t plan[256];
  fl_train_task task = {.struct_size = sizeof task,
                        .epochs = 1,
                        .batch_size = 8,
                        .freeze_reports = FL_FREEZE_PLASTICITY,
                        .freeze_plan = plan};
  (void)arg;
  FLI_TRY(make(context, FL_FREEZE_SERVER, &follower));
  for (int i = 0; i < 2; i++) {
    CHECK_OK(fl_freeze_options_init(&o, sizeof o));
    o.job = task.freeze_job = jobs[i];
    CHECK_OK(fl_freeze_new(&leader, NULL, MODULES, &o));
    CHECK_OK(
        fl_freeze_copy_plan(leader, plan, sizeof plan, &task.freeze_plan_size));
    fl_freeze_free(leader);
    CHECK_OK(fl_freeze_plan_init(&before, sizeof before));
    CHECK_OK(fl_freeze_plan_init(&after, sizeof after));
    CHECK_OK(fl_freeze_get_plan(follower, &before));
    st = fl_freeze_follow(follower, &task, 64);
    CHECK_OK(fl_freeze_get_plan(follower, &after));
    if (st != FL_OK) {
      CHECK_EQ_U64((uint64_t)(before.frozen == after.frozen), 1);
      (void)fli_error(st, "as it was followed");
      goto out;
    }
    FLI_TRY(train(follower));
  }
out:
  fl_freeze_free(follower);
  return st;
}

static void following(void)
{
  oom_loop(follow_two, NULL);
}

int main(void)
{
  CHECK_CASE(every_criterion);
  CHECK_CASE(rounds);
  CHECK_CASE(following);
  CHECK_CASE(similarity);
  return check_report();
}
