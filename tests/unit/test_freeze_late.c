/* SPDX-License-Identifier: Apache-2.0 */
/* Pairs that count some steps after the one that asked for them, whenever they
 * are shown until then. */
#include <stddef.h>

#include "freeze/freeze.h"
#include "freeze_fixture.h"

enum { MODULES = 5, RUN = 400, LAG = 3, EVENTS = 128 };

static fl_freeze_options late_options(uint32_t criterion, uint64_t lag)
{
  fl_freeze_options o = freeze_options(criterion);
  o.window = 3;
  o.patience = 2;
  o.gap = 8;
  o.lag = lag;
  o.loss_change = 10;
  o.loss_level = 10;
  if (criterion == FL_FREEZE_SERVER) o.reports = FL_FREEZE_PLASTICITY;
  return o;
}

static fl_freeze *late(uint32_t criterion, uint64_t lag)
{
  const fl_freeze_options o = late_options(criterion, lag);
  return freeze_make(MODULES, &o);
}

static double angle_of(uint64_t step, uint32_t module)
{
  return .2 * pow(.99, (double)step) * (module == MODULES - 2 ? 10 : 1) *
         (1 + .1 * (double)(step * 7919 % 101) / 101);
}

static void push(fl_freeze *f, const fl_freeze_request *asked)
{
  freeze_push_angle(f, asked->module, angle_of(asked->step, asked->module));
  if (asked->wants & FL_FREEZE_WANTS_LAST_PAIR)
    freeze_push_angle(f, asked->last, angle_of(asked->step, asked->last));
}

static fl_freeze_request begin_at(fl_freeze *f, uint64_t step)
{
  /* Two falls of the rate unfreeze everything, once while pairs wait. */
  const fl_freeze_request r = freeze_begin(f, step % 200 < 149 ? .1f : .009f);
  cr_assert_eq(r.step, step);
  return r;
}

/* A run in which pairs come `delay` steps after they were asked for. What
 * waits is not asked for any more when the front module is another. */
static void run(fl_freeze *f, uint64_t delay, uint64_t from, uint64_t to,
                fl_freeze_request *asked)
{
  for (uint64_t i = from; i < to; i++) {
    const fl_freeze_request r = begin_at(f, i);
    if (r.wants & FL_FREEZE_WANTS_PAIR) *asked = r;
    if (r.module != asked->module) asked->wants = 0;
    if (asked->wants != 0 && i == asked->step + delay) {
      push(f, asked);
      asked->wants = 0;
    }
    must(fl_freeze_end_step(f, 1));
  }
}

typedef struct events {
  fl_freeze_event of[EVENTS];
  uint32_t n;
} events;

static events take(fl_freeze *f)
{
  events e = {.n = 0};
  while (e.n < EVENTS && freeze_poll(f, &e.of[e.n]))
    e.n++;
  return e;
}

static int same_number(double a, double b)
{
  return a == b || (isnan(a) && isnan(b));
}

static void expect_same(const events *got, const events *want, uint64_t later)
{
  cr_assert_eq(got->n, want->n);
  for (uint32_t i = 0; i < want->n; i++) {
    const fl_freeze_event *a = &got->of[i], *b = &want->of[i];
    cr_expect_eq(a->kind, b->kind);
    cr_expect_eq(a->step,
                 b->step + (b->kind == FL_FREEZE_EVALUATED ? later : 0),
                 "event %u", i);
    cr_expect_eq(a->module, b->module);
    cr_expect_eq(a->below, b->below);
    cr_expect_eq(a->first_active, b->first_active);
    cr_expect(same_number(a->value, b->value));
    cr_expect(same_number(a->threshold, b->threshold));
    cr_expect(same_number(a->raw, b->raw));
  }
}

static const uint32_t criteria[] = {
    FL_FREEZE_PLASTICITY, FL_FREEZE_RELATIVE_PLASTICITY, FL_FREEZE_SERVER};

Test(freeze_late, whenever_pairs_come_the_plan_is_the_same)
{
  for (size_t c = 0; c < 3; c++) {
    events want = {.n = 0};
    for (uint64_t delay = 0; delay <= LAG; delay++) {
      fl_freeze *f = late(criteria[c], LAG);
      fl_freeze_request asked = {0};
      run(f, delay, 0, RUN, &asked);
      const events got = take(f);
      if (delay == 0) {
        want = got;
        cr_assert_gt(want.n, 20);
      }
      expect_same(&got, &want, 0);
      cr_expect(criteria[c] == FL_FREEZE_SERVER || freeze_plan(f).version > 2);
      fl_freeze_free(f);
    }
  }
}

/* Nothing freezes here: what is compared is the same, at another step. */
Test(freeze_late, pairs_count_so_many_steps_later)
{
  for (uint64_t lag = 1; lag <= LAG; lag++) {
    fl_freeze_options o = late_options(FL_FREEZE_PLASTICITY, 0);
    o.tolerance = 1e-6f;
    fl_freeze *at_once = freeze_make(MODULES, &o);
    o.lag = lag;
    fl_freeze *later = freeze_make(MODULES, &o);
    fl_freeze_request asked = {0}, other = {0};
    run(at_once, 0, 0, 140, &asked);
    run(later, lag, 0, 140 + lag, &other);
    const events want = take(at_once), got = take(later);
    cr_assert_gt(want.n, 20);
    expect_same(&got, &want, lag);
    fl_freeze_free(at_once);
    fl_freeze_free(later);
  }
}

static fl_status push_status(fl_freeze *f, uint32_t module)
{
  const float x[4] = {1, 0, 1, 1};
  return fl_freeze_push_pair(f, module, x, x, 2, 2);
}

/* Steps on which a pair of the front module is taken. */
Test(freeze_late,
     pairs_are_taken_from_the_step_that_asks_to_the_one_that_counts)
{
  fl_freeze *f = late(FL_FREEZE_PLASTICITY, 2);
  uint64_t asked = UINT64_MAX;
  cr_expect_eq(push_status(f, 0), FL_E_STATE, "no step was begun");
  for (uint64_t i = 0; i < 40; i++) {
    const fl_freeze_request r = begin_at(f, i);
    if (r.wants & FL_FREEZE_WANTS_PAIR) asked = i;
    const int is_open = asked != UINT64_MAX && i - asked <= 2;
    cr_expect_eq(push_status(f, 0), is_open ? FL_OK : FL_E_STATE, "step %d",
                 (int)i);
    cr_expect_eq(push_status(f, 1), is_open ? FL_E_ARGUMENT : FL_E_STATE);
    must(fl_freeze_end_step(f, 1));
    cr_expect_eq(push_status(f, 0), FL_E_STATE, "between two steps");
  }
  cr_assert_neq(asked, UINT64_MAX);
  fl_freeze_free(f);
}

static uint64_t until_asked(fl_freeze *f, fl_freeze_request *r)
{
  for (uint64_t i = f->state.step;; i++) {
    *r = begin_at(f, i);
    if (r->wants & FL_FREEZE_WANTS_PAIR) return i;
    must(fl_freeze_end_step(f, 1));
  }
}

static uint32_t evaluations(fl_freeze *f)
{
  const events e = take(f);
  uint32_t n = 0;
  for (uint32_t i = 0; i < e.n; i++)
    n += e.of[i].kind == FL_FREEZE_EVALUATED;
  return n;
}

/* A step that failed takes what it showed with it, and no more. */
Test(freeze_late, what_a_failed_step_showed_does_not_count)
{
  fl_freeze_request r;
  for (int is_shown_before = 0; is_shown_before < 2; is_shown_before++) {
    fl_freeze *f = late(FL_FREEZE_PLASTICITY, 2);
    uint64_t at = until_asked(f, &r);
    if (is_shown_before) push(f, &r);
    must(fl_freeze_end_step(f, 1));
    (void)begin_at(f, at + 1);
    cr_expect_eq(push_status(f, 0), FL_OK);
    (void)begin_at(f, at + 1); /* it failed */
    must(fl_freeze_end_step(f, 1));
    (void)begin_at(f, at + 2);
    must(fl_freeze_end_step(f, 1));
    const events e = take(f);
    const fl_freeze_event *last = &e.of[e.n - 1];
    cr_expect_eq(last->kind == FL_FREEZE_EVALUATED, is_shown_before);
    if (is_shown_before) {
      cr_expect_float_eq(last->raw, freeze_angle_plasticity(angle_of(at, 0)),
                         1e-7);
      cr_expect_eq(last->step, at + 2);
    }
    fl_freeze_free(f);
  }
}

/* The snapshot counts as made with a pair that counts, and not before. */
Test(freeze_late, snapshot_is_wanted_until_a_pair_was_shown)
{
  fl_freeze *f = late(FL_FREEZE_PLASTICITY, LAG);
  fl_freeze_request r;
  for (int i = 0; i < 3; i++) {
    (void)until_asked(f, &r);
    cr_expect(r.wants & FL_FREEZE_WANTS_SNAPSHOT, "nothing was shown");
    must(fl_freeze_end_step(f, 1));
  }
  uint64_t at = until_asked(f, &r);
  cr_expect(r.wants & FL_FREEZE_WANTS_SNAPSHOT);
  must(fl_freeze_end_step(f, 1));
  (void)begin_at(f, at + 1);
  push(f, &r);
  must(fl_freeze_end_step(f, 1));
  for (uint32_t i = 1; i < f->options.refresh; i++) {
    at = until_asked(f, &r);
    cr_expect_not(r.wants & FL_FREEZE_WANTS_SNAPSHOT, "pair %u", i);
    push(f, &r);
    must(fl_freeze_end_step(f, 1));
  }
  (void)until_asked(f, &r);
  cr_expect(r.wants & FL_FREEZE_WANTS_SNAPSHOT);
  fl_freeze_free(f);
}

Test(freeze_late, what_waits_is_dropped_with_the_front_module)
{
  fl_freeze *f = late(FL_FREEZE_SERVER, LAG);
  fl_freeze *server = late(FL_FREEZE_SERVER, 0);
  fl_freeze_request r;
  uint8_t plan[256];
  size_t n = 0;
  uint64_t at = until_asked(f, &r);
  push(f, &r);
  must(fl_freeze_end_step(f, 1));
  server->state.decided = 1;
  fli_freeze_set_plan(server, NULL, 7, FL_FREEZE_REASON_CRITERION);
  must(fl_freeze_copy_plan(server, plan, sizeof plan, &n));
  must(fl_freeze_apply_plan(f, plan, n));
  (void)begin_at(f, at + 1);
  cr_expect_eq(push_status(f, 0), FL_E_STATE);
  cr_expect_eq(push_status(f, 1), FL_E_STATE);
  must(fl_freeze_end_step(f, 1));
  for (uint64_t i = at + 2; i < at + 2 + LAG; i++) {
    (void)begin_at(f, i);
    must(fl_freeze_end_step(f, 1));
  }
  cr_expect_eq(evaluations(f), 0);
  fl_freeze_free(f);
  fl_freeze_free(server);
}

/* ---- saved and loaded ---------------------------------------------------- */

static fl_status copy_state(const fl_freeze *from, fl_freeze *to)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  must(fl_buffer_new(&buffer, NULL));
  must(fl_buffer_as_writer(buffer, &writer));
  must(fl_freeze_save(from, &writer));
  must(fl_buffer_as_reader(buffer, &reader));
  const fl_status st = fl_freeze_load(to, &reader);
  fl_buffer_free(buffer);
  return st;
}

Test(freeze_late, goes_on_to_the_same_plans_from_any_step)
{
  for (size_t c = 0; c < 3; c++) {
    for (uint64_t at = 0; at < RUN; at += 7) {
      fl_freeze *whole = late(criteria[c], LAG);
      fl_freeze *first = late(criteria[c], LAG);
      fl_freeze *second = late(criteria[c], LAG);
      fl_freeze_request asked = {0}, other = {0};
      run(whole, 1, 0, at, &asked);
      run(first, 1, 0, at, &other);
      must(copy_state(first, second));
      (void)take(whole);
      run(whole, 1, at, RUN, &asked);
      run(second, 1, at, RUN, &other);
      const events want = take(whole), got = take(second);
      expect_same(&got, &want, 0);
      cr_expect_eq(freeze_plan(second).version, freeze_plan(whole).version);
      fl_freeze_free(whole);
      fl_freeze_free(first);
      fl_freeze_free(second);
    }
  }
}

Test(freeze_late, state_of_another_lag_is_refused)
{
  fl_freeze *a = late(FL_FREEZE_PLASTICITY, 0);
  fl_freeze *b = late(FL_FREEZE_PLASTICITY, 1);
  fl_freeze *c = late(FL_FREEZE_PLASTICITY, 2);
  cr_expect_eq(copy_state(a, b), FL_E_CONFLICT);
  cr_expect_eq(copy_state(b, a), FL_E_CONFLICT);
  cr_expect_eq(copy_state(b, c), FL_E_CONFLICT);
  fl_freeze_free(a);
  fl_freeze_free(b);
  fl_freeze_free(c);
}

/* A state with a pair that waits, with something else in it. */
static fl_status read_back(uint32_t criterion, uint64_t later,
                           const fli_waiting *waiting)
{
  fl_freeze *f = late(criterion, 2);
  fl_freeze_request r;
  fli_freeze_state state;
  fli_bytes out;
  uint64_t at = until_asked(f, &r);
  must(fl_freeze_end_step(f, 1));
  cr_assert_eq(f->state.waiting.step, at);
  f->state.waiting = *waiting;
  f->state.step += later;
  fli_bytes_init(&out, NULL);
  must(fli_freeze_write(f, &out));
  must(fli_freeze_state_init(f, &state));
  const fl_status st = fli_freeze_read(f, out.data, out.size, &state);
  if (st == FL_OK && state.waiting.asked != 0)
    cr_expect_eq(state.waiting.step, at);
  fli_freeze_state_free(f, &state);
  fli_bytes_free(&out);
  fl_freeze_free(f);
  return st;
}

Test(freeze_late, hostile_states_are_refused)
{
  const uint32_t p = FL_FREEZE_PLASTICITY, r = FL_FREEZE_RELATIVE_PLASTICITY;
  const uint32_t pair = FL_FREEZE_WANTS_PAIR;
  const uint32_t both = pair | FL_FREEZE_WANTS_LAST_PAIR;
  const fli_waiting nothing = {0, 0, {0, 0}}, good = {pair, 0, {.1, -1}};
  const fli_waiting none_yet = {pair, 0, {-1, -1}}, two = {both, 0, {.1, .2}};
  const fli_waiting nan = {pair, 0, {NAN, -1}}, minus = {pair, 0, {-.5, -1}};
  const fli_waiting other = {pair | 8, 0, {.1, -1}};
  const fli_waiting last = {FL_FREEZE_WANTS_LAST_PAIR, 0, {-1, .1}};
  const fli_waiting bad_last = {both, 0, {.1, -2}};
  cr_expect_eq(read_back(p, 0, &nothing), FL_OK);
  cr_expect_eq(read_back(p, 0, &good), FL_OK);
  cr_expect_eq(read_back(p, 1, &good), FL_OK);
  cr_expect_eq(read_back(p, 2, &good), FL_E_FORMAT, "it would have counted");
  cr_expect_eq(read_back(p, 0, &none_yet), FL_OK);
  cr_expect_eq(read_back(r, 0, &two), FL_OK);
  cr_expect_eq(read_back(p, 0, &two), FL_E_FORMAT);
  cr_expect_eq(read_back(r, 0, &good), FL_E_FORMAT);
  cr_expect_eq(read_back(p, 0, &nan), FL_E_NOT_FINITE);
  cr_expect_eq(read_back(p, 0, &minus), FL_E_FORMAT);
  cr_expect_eq(read_back(r, 0, &bad_last), FL_E_FORMAT);
  cr_expect_eq(read_back(p, 0, &other), FL_E_RANGE);
  cr_expect_eq(read_back(r, 0, &last), FL_E_FORMAT);
}

/* ---- options --------------------------------------------------------------
 */

static fl_status tried(const fl_freeze_options *o)
{
  fl_freeze *f = NULL;
  const fl_status st = fl_freeze_new(&f, NULL, MODULES, o);
  fl_freeze_free(f);
  return st;
}

Test(freeze_late, lag_is_shorter_than_the_interval_and_for_pairs_alone)
{
  fl_freeze_options o = late_options(FL_FREEZE_PLASTICITY, 4);
  cr_expect_eq(tried(&o), FL_E_OPTIONS);
  o.lag = UINT64_MAX;
  cr_expect_eq(tried(&o), FL_E_OPTIONS);
  o.lag = 3;
  cr_expect_eq(tried(&o), FL_OK);
  o.criterion = FL_FREEZE_GRADNORM;
  cr_expect_eq(tried(&o), FL_E_CONFLICT);
  cr_expect_str_eq(fl_last_error(), "freeze: lag, got 3 with criterion 1, "
                                    "which wants no pairs");
  o.criterion = FL_FREEZE_SERVER;
  cr_expect_eq(tried(&o), FL_E_CONFLICT, "it reports nothing");
  o.reports = FL_FREEZE_GRADNORM;
  cr_expect_eq(tried(&o), FL_E_CONFLICT);
  o.reports = FL_FREEZE_PLASTICITY;
  cr_expect_eq(tried(&o), FL_OK);
  must(fl_freeze_options_init(&o, sizeof o));
  o.criterion = FL_FREEZE_PLASTICITY;
  cr_expect_eq(tried(&o), FL_OK, "an aggregator's");
  o.lag = 1;
  cr_expect_eq(tried(&o), FL_E_OPTIONS, "whose steps are rounds");
}

Test(freeze_late, hosts_from_before_it_have_shorter_options)
{
  fl_freeze_options o = late_options(FL_FREEZE_PLASTICITY, 77);
  fl_freeze *f = NULL;
  o.struct_size = offsetof(fl_freeze_options, lag);
  must(fl_freeze_new(&f, NULL, MODULES, &o));
  cr_expect_eq(f->options.lag, 0);
  fl_freeze_free(f);
}
