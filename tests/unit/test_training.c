/* SPDX-License-Identifier: Apache-2.0 */
/* Fits that are stopped and taken up again, in the same process or from a
 * checkpoint, give the bits of one that was not: at every step, with dropout,
 * Adam, accumulation and a schedule. Batches from a callback. */
#include <fl/train.h>

#include <string.h>

#include "net_check.h"

enum { SAMPLES = 23, BATCH = 4, PER_EPOCH = 6, EPOCHS = 2 };
enum { FIT_STEPS = PER_EPOCH * EPOCHS };

/* Dropout, a norm and two dense layers. */
static net *new_net(uint32_t kind, uint32_t accumulate)
{
  const uint64_t dims[1] = {6};
  fl_optimiser_options o;
  net *t = net_begin(NULL, dims, 1);
  (void)net_dense(t, 9);
  (void)net_activation(t, FL_ACTIVATION_RELU);
  (void)net_dropout(t, 0.3f);
  (void)net_layer_norm(t, 1e-5f);
  (void)net_dense(t, 4);
  (void)net_dropout(t, 0.1f);
  (void)net_classes(t, 0.0f);
  net_draw(t, SAMPLES, NET_SEED);
  cr_assert_eq(fl_optimiser_options_init(&o, sizeof o), FL_OK);
  o.kind = kind;
  o.momentum = 0.5f;
  o.accumulate = accumulate;
  o.schedule = FL_SCHEDULE_COSINE;
  o.period = 10;
  o.warmup = 3;
  cr_assert_eq(fl_model_set_optimiser(t->model, &o), FL_OK);
  return t;
}

/* Asks for a stop after a number of steps, and looks at what it is told. */
typedef struct watch {
  fl_cancel *cancel;
  uint64_t stop_after; /* step of the fit; 0 = never */
  uint64_t last;
  uint32_t calls;
  fl_model *saves; /* into `checkpoint`, at the stop */
  fl_buffer *checkpoint;
} watch;

static fl_status on_progress(const fl_fit_progress *progress, void *user)
{
  watch *w = user;
  fl_writer writer;
  cr_assert_eq(progress->step, w->last + 1);
  cr_assert_eq(progress->steps, FIT_STEPS);
  cr_assert_eq(progress->epoch, (progress->step - 1) / PER_EPOCH);
  w->last = progress->step;
  w->calls++;
  if (progress->step != w->stop_after) return FL_OK;
  fl_cancel_request(w->cancel);
  if (!w->saves) return FL_OK;
  cr_assert_eq(fl_buffer_as_writer(w->checkpoint, &writer), FL_OK);
  return fl_model_save_checkpoint(w->saves, &writer);
}

static fl_fit_options fit_options(watch *w)
{
  fl_fit_options options;
  cr_assert_eq(fl_fit_options_init(&options, sizeof options), FL_OK);
  options.epochs = EPOCHS;
  options.batch_size = BATCH;
  options.seed = 5;
  options.progress_every = 1;
  options.progress = on_progress;
  options.user = w;
  options.cancel = w->cancel;
  return options;
}

static watch new_watch(uint64_t stop_after)
{
  watch w = {.stop_after = stop_after};
  cr_assert_eq(fl_cancel_new(&w.cancel), FL_OK);
  return w;
}

/* One call of fit; the steps it took. */
static uint64_t fit(net *t, watch *w, uint32_t resume, fl_status want)
{
  fl_fit_options options = fit_options(w);
  fl_fit_result result;
  fl_dataset data = net_data(t);
  cr_assert_eq(fl_fit_result_init(&result, sizeof result), FL_OK);
  options.resume = resume;
  fl_cancel_reset(w->cancel);
  cr_assert_eq(fl_model_fit(t->model, &data, &options, &result), want, "%s",
               fl_last_error());
  return result.steps;
}

static void assert_same_weights(const net *a, const net *b, const char *what,
                                uint64_t stop)
{
  size_t bytes = (size_t)a->model->n_weights * sizeof(float);
  cr_assert(memcmp(a->model->values, b->model->values, bytes) == 0,
            "%s, stopped after %d steps", what, (int)stop);
}

static net *fit_whole(uint32_t kind, uint32_t accumulate)
{
  watch w = new_watch(0);
  net *t = new_net(kind, accumulate);
  cr_assert_eq(fit(t, &w, 0, FL_OK), FIT_STEPS);
  cr_assert_eq(w.calls, FIT_STEPS);
  fl_cancel_free(w.cancel);
  return t;
}

static void use_meanwhile(net *t)
{
  float *y = malloc(SAMPLES * 4 * sizeof *y);
  fl_dataset data = net_data(t);
  cr_assert_not_null(y);
  cr_assert_eq(fl_model_predict(t->model, &data, y, SAMPLES * 4), FL_OK);
  cr_assert_eq(fl_model_self_test(t->model), FL_OK);
  free(y);
}

static void check_stops(uint32_t kind, uint32_t accumulate)
{
  net *whole = fit_whole(kind, accumulate);
  for (uint64_t stop = 1; stop <= FIT_STEPS; stop++) {
    net *t = new_net(kind, accumulate);
    watch w = new_watch(stop);
    cr_assert_eq(fit(t, &w, 0, FL_E_CANCELLED), stop);
    use_meanwhile(t);
    cr_assert_eq(fit(t, &w, 1, FL_OK), FIT_STEPS - stop);
    assert_same_weights(t, whole, "resumed", stop);
    fl_cancel_free(w.cancel);
    net_free(t);
  }
  net_free(whole);
}

Test(training, stopped_and_resumed_fit_gives_the_same_bits)
{
  check_stops(FL_OPTIMISER_SGD, 1);
  check_stops(FL_OPTIMISER_ADAM, 1);
}

Test(training, stopped_and_resumed_fit_keeps_what_it_accumulated)
{
  check_stops(FL_OPTIMISER_ADAMW, 2);
  check_stops(FL_OPTIMISER_SGD, 5);
}

Test(training, fit_is_not_resumed_with_another_seed)
{
  watch w = new_watch(2);
  net *t = new_net(0, 1);
  fl_dataset data = net_data(t);
  cr_assert_eq(fit(t, &w, 0, FL_E_CANCELLED), 2);
  fl_fit_options options = fit_options(&w);
  fl_cancel_reset(w.cancel);
  options.resume = 1;
  options.seed++;
  cr_assert_eq(fl_model_fit(t->model, &data, &options, NULL), FL_E_CONFLICT);
  cr_assert_eq(fit(t, &w, 1, FL_OK), FIT_STEPS - 2);
  fl_cancel_free(w.cancel);
  net_free(t);
}

Test(training, fit_can_be_paused_at_every_step)
{
  net *whole = fit_whole(FL_OPTIMISER_ADAM, 1);
  net *t = new_net(FL_OPTIMISER_ADAM, 1);
  watch w = new_watch(1);
  for (uint64_t i = 0; i < FIT_STEPS; i++) {
    w.stop_after = i + 1;
    cr_assert_eq(fit(t, &w, i > 0, FL_E_CANCELLED), 1);
  }
  cr_assert_eq(fit(t, &w, 1, FL_OK), 0);
  assert_same_weights(t, whole, "paused", FIT_STEPS);
  fl_cancel_free(w.cancel);
  net_free(t);
  net_free(whole);
}

static void check_checkpoints(uint32_t kind, uint32_t accumulate)
{
  net *whole = fit_whole(kind, accumulate);
  for (uint64_t stop = 1; stop <= FIT_STEPS; stop++) {
    net *first = new_net(kind, accumulate);
    net *second = new_net(FL_OPTIMISER_ADAGRAD, 1); /* another one */
    watch w = new_watch(stop);
    fl_reader reader;
    w.saves = first->model;
    cr_assert_eq(fl_buffer_new(&w.checkpoint, NULL), FL_OK);
    cr_assert_eq(fit(first, &w, 0, FL_E_CANCELLED), stop);
    cr_assert_eq(fl_buffer_as_reader(w.checkpoint, &reader), FL_OK);
    cr_assert_eq(fl_model_load_checkpoint(second->model, &reader), FL_OK, "%s",
                 fl_last_error());
    w.saves = NULL;
    cr_assert_eq(fit(second, &w, 1, FL_OK), FIT_STEPS - stop);
    assert_same_weights(second, whole, "from a checkpoint", stop);
    fl_buffer_free(w.checkpoint);
    fl_cancel_free(w.cancel);
    net_free(first);
    net_free(second);
  }
  net_free(whole);
}

Test(training, fit_from_a_checkpoint_gives_the_same_bits)
{
  check_checkpoints(FL_OPTIMISER_SGD, 1);
  check_checkpoints(FL_OPTIMISER_ADAM, 1);
  check_checkpoints(FL_OPTIMISER_ADAMW, 3);
}

/* What the first fit had accumulated when it was stopped is not for the next
 * one, which may be on other weights. */
Test(training, fit_that_is_not_resumed_begins_anew)
{
  for (uint64_t stop = 1; stop <= 3; stop++) {
    net *t = new_net(FL_OPTIMISER_SGD, 4);
    net *fresh = new_net(FL_OPTIMISER_SGD, 4);
    watch w = new_watch(stop);
    cr_assert_eq(fit(t, &w, 0, FL_E_CANCELLED), stop);
    w = (watch){.cancel = w.cancel};
    cr_assert_eq(fit(t, &w, 0, FL_OK), FIT_STEPS);
    w = (watch){.cancel = w.cancel};
    cr_assert_eq(fit(fresh, &w, 0, FL_OK), FIT_STEPS);
    assert_same_weights(t, fresh, "begun anew", stop);
    fl_cancel_free(w.cancel);
    net_free(t);
    net_free(fresh);
  }
}

Test(training, masks_differ_from_step_to_step_and_from_seed_to_seed)
{
  net *t = new_net(FL_OPTIMISER_SGD, 1);
  fl_dataset data = net_data(t);
  double losses[3];
  for (int i = 0; i < 2; i++) {
    cr_assert_eq(fl_model_step(t->model, &data, 0.0f, &losses[i]), FL_OK);
  }
  net *again = new_net(FL_OPTIMISER_SGD, 1);
  cr_assert_eq(fl_model_step(again->model, &data, 0.0f, &losses[2]), FL_OK);
  cr_assert_neq(losses[0], losses[1]);
  cr_assert_eq(losses[0], losses[2]);
  net_free(t);
  net_free(again);
}

/* Sample k of one seed has not the mask of sample k + 1 of the seed before:
 * devices are given seeds that follow one another. */
Test(training, masks_of_neighbouring_seeds_are_not_each_others)
{
  enum { WIDTH = 64 };
  const uint64_t dims[1] = {WIDTH};
  double loss[2];
  net *t = net_begin(NULL, dims, 1);
  (void)net_dropout(t, 0.5f);
  (void)net_dense(t, 3);
  (void)net_classes(t, 0.0f);
  net_draw(t, 3, NET_SEED);
  for (size_t i = 0; i < WIDTH; i++) {
    t->x[i] = t->x[WIDTH + i] = t->x[2 * WIDTH + i];
  }
  t->labels[0] = t->labels[1] = t->labels[2] = 1;
  for (uint64_t seed = 0; seed <= 1; seed++) {
    /* seed 0: samples 1 and 2; seed 1: samples 0 and 1 */
    t->model->place.seed = seed;
    t->labels[0] = seed ? 1 : t->classes.ignore_index;
    t->labels[2] = seed ? t->classes.ignore_index : 1;
    fl_dataset data = net_data(t);
    cr_assert_eq(fl_model_accumulate(t->model, &data, &loss[seed]), FL_OK);
    cr_assert_eq(fl_model_update(t->model, 0.0f), FL_OK);
    t->model->optimiser.updates = 0;
  }
  cr_assert_neq(loss[0], loss[1]);
  net_free(t);
}

/* ---- batches from a callback ----------------------------------------------
 */

typedef struct source {
  net *t;
  fl_cancel *cancel;
  uint64_t asked;
  uint64_t stop_at; /* number of the call that asks for a stop */
  fl_status answer;
  uint64_t bad_at; /* gives a label out of range */
} source;

static fl_status next_batch(fl_dataset *batch, uint32_t epoch, uint64_t step,
                            void *user)
{
  static const int32_t bad[BATCH] = {99, 99, 99, 99};
  source *s = user;
  cr_assert_lt(epoch, EPOCHS);
  s->asked++;
  if (s->asked == s->stop_at) fl_cancel_request(s->cancel);
  if (s->answer != FL_OK) return s->answer;
  *batch = net_data(s->t);
  batch->x = s->t->x + step * BATCH * 6;
  batch->y = s->asked == s->bad_at ? bad : s->t->labels + step * BATCH;
  size_t left = step < PER_EPOCH ? SAMPLES - (size_t)step * BATCH : 0;
  batch->n = left < BATCH ? left : BATCH;
  return FL_OK;
}

static fl_fit_options pull_options(const source *s)
{
  fl_fit_options options;
  cr_assert_eq(fl_fit_options_init(&options, sizeof options), FL_OK);
  options.epochs = EPOCHS;
  options.batch_size = BATCH;
  options.shuffle = 0;
  options.seed = 5;
  options.cancel = s->cancel;
  return options;
}

Test(training, pulled_batches_train_as_those_of_a_data_set)
{
  source s = {.t = new_net(FL_OPTIMISER_ADAM, 2)};
  net *t = new_net(FL_OPTIMISER_ADAM, 2);
  fl_fit_options options = pull_options(&s);
  fl_dataset data = net_data(t);
  fl_fit_result a;
  fl_fit_result b;
  cr_assert_eq(fl_fit_result_init(&a, sizeof a), FL_OK);
  cr_assert_eq(fl_fit_result_init(&b, sizeof b), FL_OK);
  cr_assert_eq(fl_model_fit_pull(s.t->model, next_batch, &s, &options, &a),
               FL_OK);
  cr_assert_eq(fl_model_fit(t->model, &data, &options, &b), FL_OK);
  cr_assert_eq(s.asked, FIT_STEPS + EPOCHS);
  cr_assert_eq(a.steps, b.steps);
  cr_assert_eq(a.samples, b.samples);
  cr_assert_eq(a.mean_loss, b.mean_loss);
  assert_same_weights(s.t, t, "pulled", 0);
  net_free(s.t);
  net_free(t);
}

Test(training, pulled_fit_is_resumed_where_it_was_stopped)
{
  source whole = {.t = new_net(FL_OPTIMISER_ADAM, 1)};
  fl_fit_options options = pull_options(&whole);
  cr_assert_eq(
      fl_model_fit_pull(whole.t->model, next_batch, &whole, &options, NULL),
      FL_OK);
  for (uint64_t stop = 1; stop <= FIT_STEPS; stop++) {
    source s = {.t = new_net(FL_OPTIMISER_ADAM, 1), .stop_at = stop};
    cr_assert_eq(fl_cancel_new(&s.cancel), FL_OK);
    options = pull_options(&s);
    cr_assert_eq(fl_model_fit_pull(s.t->model, next_batch, &s, &options, NULL),
                 FL_E_CANCELLED);
    fl_cancel_reset(s.cancel);
    options.resume = 1;
    cr_assert_eq(fl_model_fit_pull(s.t->model, next_batch, &s, &options, NULL),
                 FL_OK);
    assert_same_weights(s.t, whole.t, "pulled", stop);
    fl_cancel_free(s.cancel);
    net_free(s.t);
  }
  net_free(whole.t);
}

Test(training, callback_that_fails_or_gives_bad_batches_ends_the_fit)
{
  net *before = new_net(FL_OPTIMISER_ADAM, 1);
  source s = {.t = new_net(FL_OPTIMISER_ADAM, 1), .answer = FL_E_IO};
  fl_fit_options options = pull_options(&s);
  fl_model *model = s.t->model;
  cr_assert_eq(fl_model_fit_pull(model, next_batch, &s, &options, NULL),
               FL_E_IO);
  s.answer = 7;
  cr_assert_eq(fl_model_fit_pull(model, next_batch, &s, &options, NULL),
               FL_E_CALLBACK);
  assert_same_weights(s.t, before, "failed callback", 0);
  s = (source){.t = s.t, .bad_at = 1};
  cr_assert_eq(fl_model_fit_pull(model, next_batch, &s, &options, NULL),
               FL_E_RANGE);
  cr_assert_not_null(strstr(fl_last_error(), "99"), "%s", fl_last_error());
  assert_same_weights(s.t, before, "bad batch", 0);
  cr_assert_eq(fl_model_fit_pull(model, NULL, NULL, NULL, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_fit_pull(NULL, next_batch, &s, NULL, NULL),
               FL_E_ARGUMENT);
  net_free(s.t);
  net_free(before);
}
