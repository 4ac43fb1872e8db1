/* SPDX-License-Identifier: Apache-2.0 */
/* Plasticity measured beside the steps of an attached model: the same numbers,
 * and so the same plans, whoever computes them and when. */
#include <pthread.h>

#include "freeze/freeze.h"
#include "freeze/snapshot.h"
#include "freeze_net.h"
#include "late_host.h"

enum { LAG = 3, INTERVAL = 4, EVENTS = 160 };

/* ---- hosts --------------------------------------------------------------- */

typedef struct thread_job {
  pthread_t thread;
  fl_task_fn task;
  void *arg;
} thread_job;

static void *run_thread(void *arg)
{
  thread_job *job = arg;
  job->task(job->arg, 0);
  return NULL;
}

static fl_status thread_start(void *user, fl_task_fn task, void *arg,
                              void **job)
{
  late_host *host = user;
  thread_job *made = malloc(sizeof *made);
  if (!made) return FL_E_NOMEM;
  *made = (thread_job){.task = task, .arg = arg};
  if (pthread_create(&made->thread, NULL, run_thread, made) != 0) {
    free(made);
    return FL_E_NOMEM;
  }
  host->started++;
  *job = made;
  return FL_OK;
}

static void thread_finish(void *user, void *job)
{
  late_host *host = user;
  thread_job *made = job;
  pthread_join(made->thread, NULL);
  free(made);
  host->finished++;
}

typedef enum host_kind { NO_HOOK, REFUSES, A_THREAD, LATE, HOSTS } host_kind;

static fl_context *host_context(late_host *host, host_kind kind)
{
  fl_context *context = NULL;
  fl_context_options o;
  cr_assert_eq(fl_context_options_init(&o, sizeof o), FL_OK);
  *host = (late_host){.says = kind == REFUSES ? FL_E_LIMIT : FL_OK};
  o.user = host;
  if (kind != NO_HOOK) {
    o.start = kind == A_THREAD ? thread_start : late_start;
    o.finish = kind == A_THREAD ? thread_finish : late_finish;
  }
  cr_assert_eq(fl_context_new(&context, &o), FL_OK);
  return context;
}

/* ---- jobs ---------------------------------------------------------------- */

static fl_freeze_options late_options(uint32_t criterion)
{
  fl_freeze_options o = options_of(criterion);
  o.interval = INTERVAL;
  o.lag = LAG;
  o.window = 3;
  o.patience = 2;
  o.gap = 1;
  o.refresh = 3;
  o.tolerance = 1.5f;
  o.loss_change = 10.0f;
  o.loss_level = 10.0f;
  o.max_frozen = criterion == FL_FREEZE_SERVER ? 0 : 3;
  if (criterion == FL_FREEZE_SERVER) o.reports = FL_FREEZE_PLASTICITY;
  return o;
}

/* A model that is trained step by step, and what is beside it. */
typedef struct job {
  late_host host;
  fl_context *context;
  net *t;
  fl_freeze *freeze;
  uint64_t step;
  fl_freeze_event events[EVENTS];
  uint32_t n_events;
} job;

static void begin_job(job *j, host_kind kind, uint32_t criterion)
{
  fl_freeze_options o = late_options(criterion);
  j->context = host_context(&j->host, kind);
  j->t = new_net(j->context);
  j->freeze = new_freeze(&o);
  j->step = 0;
  j->n_events = 0;
  attach(j->freeze, j->t, NULL);
}

static void end_job(job *j)
{
  fl_freeze_free(j->freeze);
  net_free(j->t);
  fl_context_free(j->context);
  cr_expect_eq(j->host.started, j->host.finished);
  cr_expect_eq(j->host.wrong, 0);
}

static fl_dataset batch_of(const job *j, uint32_t order[BATCH])
{
  fl_dataset data = net_data(j->t);
  for (uint32_t k = 0; k < BATCH; k++) {
    order[k] = ((uint32_t)j->step * 7 + k * 3) % SAMPLES;
  }
  data.indices = order;
  data.n_indices = BATCH;
  return data;
}

static float rate_at(uint64_t step)
{
  return step % 200 < 150 ? 0.05f : 0.004f;
}

static void train(job *j, uint64_t n)
{
  uint32_t order[BATCH];
  for (uint64_t end = j->step + n; j->step < end; j->step++) {
    fl_dataset data = batch_of(j, order);
    cr_assert_eq(fl_model_step(j->t->model, &data, rate_at(j->step), NULL),
                 FL_OK, "%s", fl_last_error());
  }
}

static void take_events(job *j)
{
  while (j->n_events < EVENTS) {
    fl_freeze_event *event = &j->events[j->n_events];
    cr_assert_eq(fl_freeze_event_init(event, sizeof *event), FL_OK);
    if (fl_freeze_poll(j->freeze, event) != FL_OK) return;
    event->text = NULL;
    j->n_events++;
  }
}

static int same_number(double a, double b)
{
  return a == b || (a != a && b != b);
}

static void expect_same_events(const job *got, const job *want)
{
  cr_assert_eq(got->n_events, want->n_events);
  for (uint32_t i = 0; i < want->n_events; i++) {
    const fl_freeze_event *a = &got->events[i], *b = &want->events[i];
    cr_expect_eq(a->kind, b->kind, "event %u", i);
    cr_expect_eq(a->step, b->step, "event %u", i);
    cr_expect_eq(a->module, b->module);
    cr_expect_eq(a->first_active, b->first_active);
    cr_expect(same_number(a->raw, b->raw), "event %u: %.17g, want %.17g", i,
              a->raw, b->raw);
    cr_expect(same_number(a->value, b->value));
  }
}

static void expect_same_weights(const job *got, const job *want)
{
  cr_expect_arr_eq(got->t->model->values, want->t->model->values,
                   (size_t)want->t->model->n_weights * sizeof(float));
}

/* Steps until a task is under way: the last one has asked for a pair. */
static void train_until_under_way(job *j)
{
  for (int i = 0; i < 100 && j->host.started == j->host.finished; i++) {
    train(j, 1);
  }
  cr_assert_eq(j->host.started, j->host.finished + 1);
  cr_assert_eq(j->step % INTERVAL, 0);
}

/* ---- the same everywhere ------------------------------------------------- */

Test(freeze_task, whoever_measures_and_when_the_plans_are_the_same)
{
  static const uint32_t criteria[] = {
      FL_FREEZE_PLASTICITY, FL_FREEZE_RELATIVE_PLASTICITY, FL_FREEZE_SERVER};
  for (size_t c = 0; c < 3; c++) {
    static job jobs[HOSTS];
    for (int k = 0; k < HOSTS; k++) {
      begin_job(&jobs[k], (host_kind)k, criteria[c]);
      train(&jobs[k], 240);
      take_events(&jobs[k]);
      cr_expect((jobs[k].host.started > 20) == (k == A_THREAD || k == LATE));
      expect_same_events(&jobs[k], &jobs[0]);
      expect_same_weights(&jobs[k], &jobs[0]);
    }
    cr_assert_gt(jobs[0].n_events, 20);
    cr_expect((jobs[0].freeze->state.version > 1) ==
              (criteria[c] != FL_FREEZE_SERVER));
    for (int k = 0; k < HOSTS; k++) {
      end_job(&jobs[k]);
    }
  }
}

/* The trainer's half of the same: outputs before the update, of the first
 * rows, and the snapshot of what was asked for; shown `delay` steps later. */
typedef struct by_hand {
  fl_freeze *freeze;
  fl_model *model;
  fl_model *snapshot;
  fl_freeze_request asked; /* wants = 0: nothing waits */
  uint64_t delay;
  float y[2][BATCH * 400];
  float z[2][BATCH * 400];
  uint64_t n[2];
} by_hand;

static void compare_module(by_hand *h, int which, uint32_t module,
                           const float *x)
{
  fli_cut start, in, out;
  const float *part = NULL;
  static float input[BATCH * 400];
  cr_assert_eq(fli_model_cut(h->model, 0, &start), 1);
  cr_assert_eq(fli_model_cut(h->model, module, &in), 1);
  cr_assert_eq(fli_model_cut(h->model, module + 1, &out), 1);
  cr_assert_leq(in.n_values, 400);
  cr_assert_leq(out.n_values, 400);
  if (module == 0) {
    memcpy(input, x, BATCH * (size_t)in.n_values * sizeof *input);
  } else {
    cr_assert_eq(fli_forward_part(h->model, &start, &in, x, BATCH, &part),
                 FL_OK);
    memcpy(input, part, BATCH * (size_t)in.n_values * sizeof *input);
  }
  h->n[which] = out.n_values;
  cr_assert_eq(fli_forward_part(h->model, &in, &out, input, BATCH, &part),
               FL_OK);
  memcpy(h->y[which], part, BATCH * (size_t)out.n_values * sizeof *part);
  cr_assert_eq(fli_forward_part(h->snapshot, &in, &out, input, BATCH, &part),
               FL_OK);
  memcpy(h->z[which], part, BATCH * (size_t)out.n_values * sizeof *part);
}

/* As the model stores it: channels side by side. */
static void gather_input(const job *j, const uint32_t order[BATCH], float *x)
{
  for (size_t i = 0; i < BATCH * 128; i++) {
    const float *sample = j->t->x + order[i / 128] * (size_t)128;
    x[i] = sample[i % 2 * 64 + i % 128 / 2];
  }
}

static void show_by_hand(by_hand *h, uint64_t step)
{
  const fl_freeze_request *r = &h->asked;
  if (r->wants == 0 || step != r->step + h->delay) return;
  if (h->freeze->state.decided == r->module) {
    cr_assert_eq(fl_freeze_push_pair(h->freeze, r->module, h->y[0], h->z[0],
                                     BATCH, h->n[0]),
                 FL_OK, "%s", fl_last_error());
    if (r->wants & FL_FREEZE_WANTS_LAST_PAIR) {
      cr_assert_eq(fl_freeze_push_pair(h->freeze, r->last, h->y[1], h->z[1],
                                       BATCH, h->n[1]),
                   FL_OK);
    }
  }
  h->asked.wants = 0;
}

static void step_by_hand(by_hand *h, job *j)
{
  uint32_t order[BATCH];
  static float x[BATCH * 128];
  double loss = 0.0;
  fl_dataset data = batch_of(j, order);
  fl_freeze_request r;
  cr_assert_eq(fl_freeze_request_init(&r, sizeof r), FL_OK);
  cr_assert_eq(fl_freeze_begin_step(h->freeze, rate_at(j->step), &r), FL_OK);
  cr_assert_eq(fl_model_set_first_active(h->model, r.first_active), FL_OK);
  if (r.wants & FL_FREEZE_WANTS_PAIR) {
    h->asked = r;
    gather_input(j, order, x);
    for (int k = 0; k < (r.wants & FL_FREEZE_WANTS_LAST_PAIR ? 2 : 1); k++) {
      const uint32_t module = k == 0 ? r.module : r.last;
      if (r.wants & FL_FREEZE_WANTS_SNAPSHOT) {
        cr_assert_eq(fli_snapshot_take(&h->snapshot, NULL, h->model, module),
                     FL_OK);
      }
      compare_module(h, k, module, x);
    }
  }
  cr_assert_eq(fl_model_step(h->model, &data, rate_at(j->step), &loss), FL_OK);
  show_by_hand(h, j->step);
  cr_assert_eq(fl_freeze_end_step(h->freeze, loss), FL_OK);
  j->step++;
}

Test(freeze_task, a_trainer_of_its_own_decides_the_same_by_hand)
{
  static const uint32_t criteria[] = {FL_FREEZE_PLASTICITY,
                                      FL_FREEZE_RELATIVE_PLASTICITY};
  static by_hand h;
  static job attached, own;
  for (size_t c = 0; c < 2; c++) {
    begin_job(&attached, LATE, criteria[c]);
    train(&attached, 240);
    take_events(&attached);
    cr_assert_gt(attached.n_events, 20);
    for (uint64_t delay = 0; delay <= LAG; delay++) {
      begin_job(&own, NO_HOOK, criteria[c]);
      cr_assert_eq(fl_freeze_detach(own.freeze), FL_OK);
      h = (by_hand){
          .freeze = own.freeze, .model = own.t->model, .delay = delay};
      while (own.step < 240) {
        step_by_hand(&h, &own);
      }
      take_events(&own);
      expect_same_events(&own, &attached);
      expect_same_weights(&own, &attached);
      fl_model_free(h.snapshot);
      end_job(&own);
    }
    end_job(&attached);
  }
}

/* ---- while it is under way ----------------------------------------------- */

/* What the next evaluation says in a job that goes on undisturbed. */
static fl_freeze_event undisturbed(uint32_t criterion)
{
  static job j;
  fl_freeze_event event;
  begin_job(&j, LATE, criterion);
  train_until_under_way(&j);
  train(&j, LAG);
  cr_assert_eq(j.host.started, j.host.finished, "it was waited for");
  cr_assert(has_event(j.freeze, FL_FREEZE_EVALUATED, &event));
  end_job(&j);
  return event;
}

static void expect_evaluated(fl_freeze *freeze, const fl_freeze_event *want)
{
  fl_freeze_event event;
  cr_assert(has_event(freeze, FL_FREEZE_EVALUATED, &event));
  cr_expect_eq(event.step, want->step);
  cr_expect_eq(event.raw, want->raw);
}

Test(freeze_task, detaching_keeps_what_was_measured)
{
  const fl_freeze_event want = undisturbed(FL_FREEZE_PLASTICITY);
  static job j;
  fl_freeze_event event;
  begin_job(&j, LATE, FL_FREEZE_PLASTICITY);
  train_until_under_way(&j);
  cr_assert_eq(fl_freeze_detach(j.freeze), FL_OK);
  cr_expect_eq(j.host.started, j.host.finished);
  attach(j.freeze, j.t, NULL);
  train(&j, LAG - 1);
  cr_expect_not(has_event(j.freeze, FL_FREEZE_EVALUATED, &event),
                "not before its time");
  train(&j, 1);
  expect_evaluated(j.freeze, &want);
  cr_expect_eq(j.freeze->has_snapshot, 0, "this attachment has none yet");
  train(&j, INTERVAL);
  cr_expect(has_event(j.freeze, FL_FREEZE_EVALUATED, &event));
  end_job(&j);
}

Test(freeze_task, either_may_be_freed_first)
{
  static job j;
  begin_job(&j, LATE, FL_FREEZE_PLASTICITY);
  train_until_under_way(&j);
  fl_freeze_free(j.freeze);
  cr_expect_eq(j.host.started, j.host.finished);
  j.freeze = NULL;
  train(&j, 8);
  end_job(&j);
  const fl_freeze_event want = undisturbed(FL_FREEZE_PLASTICITY);
  fl_freeze_request r;
  begin_job(&j, LATE, FL_FREEZE_PLASTICITY);
  train_until_under_way(&j);
  net_free(j.t);
  j.t = NULL;
  cr_expect_eq(j.host.started, j.host.finished);
  for (int i = 0; i < LAG; i++) {
    cr_assert_eq(fl_freeze_request_init(&r, sizeof r), FL_OK);
    cr_assert_eq(fl_freeze_begin_step(j.freeze, 0.05f, &r), FL_OK);
    cr_assert_eq(fl_freeze_end_step(j.freeze, 1.0), FL_OK);
  }
  expect_evaluated(j.freeze, &want);
  j.t = new_net(NULL);
  end_job(&j);
}

static fl_buffer *saved(const fl_freeze *freeze)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_freeze_save(freeze, &writer), FL_OK);
  return buffer;
}

static void load(fl_freeze *freeze, fl_buffer *buffer)
{
  fl_reader reader;
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  cr_assert_eq(fl_freeze_load(freeze, &reader), FL_OK, "%s", fl_last_error());
}

Test(freeze_task, saving_waits_and_keeps_what_was_measured)
{
  const fl_freeze_event want = undisturbed(FL_FREEZE_RELATIVE_PLASTICITY);
  static job j, other;
  begin_job(&j, LATE, FL_FREEZE_RELATIVE_PLASTICITY);
  begin_job(&other, LATE, FL_FREEZE_RELATIVE_PLASTICITY);
  train_until_under_way(&j);
  fl_buffer *buffer = saved(j.freeze);
  cr_expect_eq(j.host.started, j.host.finished);
  load(other.freeze, buffer);
  other.step = j.step;
  train(&j, LAG);
  train(&other, LAG);
  expect_evaluated(j.freeze, &want);
  expect_evaluated(other.freeze, &want);
  fl_buffer_free(buffer);
  end_job(&j);
  end_job(&other);
}

/* Of two evaluations the later one is under way, and a state from before it is
 * loaded: it belongs to nobody. */
Test(freeze_task, loading_forgets_what_is_under_way)
{
  static job j;
  fl_freeze_event event;
  begin_job(&j, LATE, FL_FREEZE_PLASTICITY);
  fl_buffer *early = saved(j.freeze);
  train_until_under_way(&j);
  fl_buffer *buffer = saved(j.freeze);
  train(&j, LAG + 1);
  cr_assert_eq(j.host.started, j.host.finished + 1);
  while (has_event(j.freeze, FL_FREEZE_EVALUATED, &event)) {
  }
  load(j.freeze, early);
  cr_expect_eq(j.host.started, j.host.finished);
  load(j.freeze, buffer);
  j.step = j.freeze->state.step;
  train(&j, LAG);
  const fl_freeze_event want = undisturbed(FL_FREEZE_PLASTICITY);
  expect_evaluated(j.freeze, &want);
  fl_buffer_free(early);
  fl_buffer_free(buffer);
  end_job(&j);
}

Test(freeze_task, a_new_plan_drops_what_is_under_way)
{
  static job j;
  fl_freeze_event event;
  fl_freeze_options o = late_options(FL_FREEZE_SERVER);
  uint8_t plan[256];
  size_t n = 0;
  fl_freeze *server = new_freeze(&o);
  begin_job(&j, LATE, FL_FREEZE_SERVER);
  train_until_under_way(&j);
  server->state.decided = 1;
  fli_freeze_set_plan(server, NULL, 3, FL_FREEZE_REASON_SERVER);
  cr_assert_eq(fl_freeze_copy_plan(server, plan, sizeof plan, &n), FL_OK);
  cr_assert_eq(fl_freeze_apply_plan(j.freeze, plan, n), FL_OK);
  train(&j, LAG);
  cr_expect_eq(j.host.started, j.host.finished);
  cr_expect_not(has_event(j.freeze, FL_FREEZE_EVALUATED, &event));
  train(&j, INTERVAL);
  cr_assert(has_event(j.freeze, FL_FREEZE_EVALUATED, &event));
  cr_expect_eq(event.module, 1);
  fl_freeze_free(server);
  end_job(&j);
}

static fl_status fail(float *gradient, const float *weights, uint64_t count,
                      void *user)
{
  (void)gradient;
  (void)weights;
  (void)count;
  (void)user;
  return FL_E_CANCELLED;
}

/* A gradient hook changes no bit, and fails some steps between the one that
 * asks and the one that counts, which is the last of them. */
Test(freeze_task, steps_that_fail_meanwhile_change_nothing)
{
  const fl_freeze_event want = undisturbed(FL_FREEZE_PLASTICITY);
  static job j;
  uint32_t order[BATCH];
  begin_job(&j, LATE, FL_FREEZE_PLASTICITY);
  train_until_under_way(&j);
  for (int i = 0; i < LAG; i++) {
    fl_dataset data = batch_of(&j, order);
    cr_assert_eq(fl_model_set_gradient_hook(j.t->model, fail, NULL), FL_OK);
    for (int k = 0; k < 2; k++) {
      cr_expect_eq(fl_model_step(j.t->model, &data, rate_at(j.step), NULL),
                   FL_E_CANCELLED);
    }
    cr_expect_eq(j.host.started, j.host.finished + 1);
    cr_assert_eq(fl_model_set_gradient_hook(j.t->model, NULL, NULL), FL_OK);
    train(&j, 1);
  }
  expect_evaluated(j.freeze, &want);
  end_job(&j);
}
