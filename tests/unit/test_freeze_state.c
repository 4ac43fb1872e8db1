/* SPDX-License-Identifier: Apache-2.0 */
/* Saved controllers: go on to the same plans, and believe nothing. */
#include "freeze/freeze.h"
#include "freeze_fixture.h"

enum { MODULES = 6, RUN = 360, N = 40 };

typedef struct bytes {
  uint8_t *data;
  size_t n;
} bytes;

static bytes save(const fl_freeze *freeze)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  const uint8_t *data;
  bytes state;
  must(fl_buffer_new(&buffer, NULL));
  must(fl_buffer_as_writer(buffer, &writer));
  must(fl_freeze_save(freeze, &writer));
  must(fl_buffer_get(buffer, &data, &state.n));
  state.data = malloc(state.n);
  memcpy(state.data, data, state.n);
  fl_buffer_free(buffer);
  return state;
}

static fl_status load(fl_freeze *freeze, const uint8_t *data, size_t n)
{
  fl_buffer *buffer = NULL;
  fl_reader reader;
  must(fl_buffer_new(&buffer, NULL));
  if (n > 0) must(fl_buffer_append(buffer, data, n));
  must(fl_buffer_as_reader(buffer, &reader));
  const fl_status st = fl_freeze_load(freeze, &reader);
  fl_buffer_free(buffer);
  return st;
}

static int same_state(const fl_freeze *a, const fl_freeze *b)
{
  bytes one = save(a), two = save(b);
  const int is_same = one.n == two.n && memcmp(one.data, two.data, one.n) == 0;
  free(one.data);
  free(two.data);
  return is_same;
}

static const fl_freeze_fixed fixed[] = {{10, 1, 0}, {200, 2, 0}};

/* Quick, so that a run has freezes, thaws and everything. */
static fl_freeze *quick(uint32_t criterion)
{
  fl_freeze_options o = freeze_options(criterion);
  o.total_steps = RUN;
  if (criterion == FL_FREEZE_FIXED) {
    o.fixed = fixed;
    o.n_fixed = 2;
  } else if (criterion == FL_FREEZE_SERVER) {
    o.reports = FL_FREEZE_PLASTICITY;
  } else {
    o.window = 3;
    o.patience = 2;
    o.gap = 8;
    o.halves_window = 1;
    if (criterion != FL_FREEZE_CKA) o.unfreezes = 1;
  }
  return freeze_make(MODULES, &o);
}

static double value_of(uint64_t step, uint32_t module)
{
  return .2 * pow(.985, (double)step) * (module == 4 ? 10 : 1) *
         (1 + .1 * (double)(step * 7919 % 101) / 101);
}

static void show_gradient(fl_freeze *f, const fl_freeze_request *r)
{
  float gradient[N];
  for (uint64_t i = 0; i < N; i++)
    gradient[i] = (float)(value_of(r->step, r->module) *
                          (double)((i + r->step) * 31 % 17));
  must(fl_freeze_push_gradient(f, r->module, gradient, N));
}

static void show_features(fl_freeze *f, const fl_freeze_request *r)
{
  float before[8], after[8];
  for (uint32_t m = 0; m < MODULES; m++) {
    for (uint32_t i = 0; i < 8; i++) {
      before[i] = (float)(i * 37 % 11);
      after[i] = before[i] + (float)(m * ((i + r->step) % 5));
    }
    must(fl_freeze_push_features(f, m, before, 2, after, 2, 4));
  }
}

static void step(fl_freeze *f, uint64_t number)
{
  const float rate = number % 120 < 90 ? .1f : .009f;
  const fl_freeze_request r = freeze_begin(f, rate);
  cr_assert_eq(r.step, number);
  if (r.wants & FL_FREEZE_WANTS_GRADIENT) show_gradient(f, &r);
  if (r.wants & FL_FREEZE_WANTS_FEATURES) show_features(f, &r);
  if (r.wants & FL_FREEZE_WANTS_PAIR)
    freeze_push_angle(f, r.module, value_of(r.step, r.module));
  if (r.wants & FL_FREEZE_WANTS_LAST_PAIR)
    freeze_push_angle(f, r.last, value_of(r.step, r.last));
  must(fl_freeze_end_step(f, number < 8 ? 10 : 1));
}

Test(freeze_state, goes_on_to_the_same_plans_from_any_step)
{
  for (uint32_t c = FL_FREEZE_GRADNORM; c <= FL_FREEZE_SERVER; c++) {
    fl_freeze *whole = quick(c);
    uint32_t plans[RUN];
    for (uint64_t i = 0; i < RUN; i++) {
      step(whole, i);
      plans[i] = freeze_plan(whole).first_active;
    }
    const uint64_t changes = c == FL_FREEZE_SERVER ? 0
                             : c == FL_FREEZE_CKA  ? 1
                                                   : 2;
    cr_expect(freeze_plan(whole).version >= changes, "%u", c);
    fl_freeze *f = quick(c);
    for (uint64_t i = 0; i < RUN; i++) {
      bytes state = save(f);
      fl_freeze *other = quick(c);
      must(load(other, state.data, state.n));
      cr_assert(same_state(f, other), "criterion %u, step %d", c, (int)i);
      free(state.data);
      fl_freeze_free(f);
      f = other;
      step(f, i);
      cr_assert_eq(freeze_plan(f).first_active, plans[i], "%u, %d", c, (int)i);
    }
    cr_expect_eq(freeze_plan(f).version, freeze_plan(whole).version);
    cr_expect_eq(
        memcmp(freeze_plan(f).frozen, freeze_plan(whole).frozen, MODULES), 0);
    fl_freeze_free(f);
    fl_freeze_free(whole);
  }
}

static void round_of(fl_freeze *f, uint64_t i)
{
  fl_freeze_report report;
  must(fl_freeze_report_init(&report, sizeof report));
  report.module = f->state.decided;
  report.value = pow(.7, (double)i);
  must(fl_freeze_end_round(f, NAN, &report, 1));
}

static fl_freeze *rounds(uint32_t criterion)
{
  fl_freeze_options o;
  must(fl_freeze_options_init(&o, sizeof o));
  o.criterion = criterion;
  return freeze_make(MODULES, &o);
}

Test(freeze_state, aggregator_goes_on_from_any_round)
{
  for (uint32_t c = FL_FREEZE_GRADNORM; c <= FL_FREEZE_PLASTICITY; c++) {
    fl_freeze *whole = rounds(c), *f = rounds(c);
    for (uint64_t i = 0; i < 60; i++) {
      bytes state = save(f);
      fl_freeze *other = rounds(c);
      must(load(other, state.data, state.n));
      free(state.data);
      fl_freeze_free(f);
      f = other;
      round_of(whole, i);
      round_of(f, i);
      cr_assert(same_state(f, whole));
    }
    cr_expect(freeze_plan(f).version >= 2);
    fl_freeze_free(f);
    fl_freeze_free(whole);
  }
}

/* In the middle of a pair of gradients, so that one is held. */
static fl_freeze *busy(uint32_t criterion)
{
  fl_freeze *f = quick(criterion);
  for (uint64_t i = 0; i < 59; i++)
    step(f, i);
  return f;
}

Test(freeze_state, cut_anywhere_is_refused)
{
  fl_freeze *f = busy(FL_FREEZE_GRADNORM), *other = busy(FL_FREEZE_GRADNORM);
  step(other, 59);
  bytes state = save(f), before = save(other);
  cr_expect(f->state.gradient.values != NULL);
  for (size_t n = 0; n < state.n; n++)
    cr_assert_eq(load(other, state.data, n), FL_E_TRUNCATED, "%zu", n);
  bytes after = save(other);
  cr_expect(before.n == after.n);
  cr_expect_eq(memcmp(before.data, after.data, before.n), 0);
  free(state.data);
  free(before.data);
  free(after.data);
  fl_freeze_free(f);
  fl_freeze_free(other);
}

Test(freeze_state, flipped_anywhere_is_refused)
{
  fl_freeze *f = busy(FL_FREEZE_GRADNORM);
  bytes state = save(f);
  for (size_t i = 0; i < state.n; i++) {
    state.data[i] ^= 0x10;
    const fl_status st = load(f, state.data, state.n);
    cr_assert(st == FL_E_FORMAT || st == FL_E_VERSION || st == FL_E_TRUNCATED ||
                  st == FL_E_TOO_LARGE,
              "%zu: %s", i, fl_status_name(st));
    state.data[i] ^= 0x10;
  }
  cr_expect_eq(load(f, state.data, state.n), FL_OK);
  free(state.data);
  fl_freeze_free(f);
}

Test(freeze_state, of_others_is_refused)
{
  const uint8_t job[FL_HASH_BYTES] = {1};
  fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
  fl_freeze *f = freeze_make(MODULES, &o);
  bytes state = save(f);
  must(load(f, state.data, state.n));
  for (int i = 0; i < 5; i++) {
    fl_freeze_options other = o;
    if (i == 0) other.criterion = FL_FREEZE_PLASTICITY;
    if (i == 1) other.patience = 7;
    if (i == 2) other.tolerance = .8f;
    if (i == 3) other.job = job;
    fl_freeze *another = freeze_make(i == 4 ? MODULES + 1 : MODULES, &other);
    cr_expect_eq(load(another, state.data, state.n), FL_E_CONFLICT, "%d", i);
    fl_freeze_free(another);
  }
  free(state.data);
  fl_freeze_free(f);
}

/* Steps 58 and 59 show the first and the second gradient of a pair. */
Test(freeze_state, step_that_was_begun_is_not_saved)
{
  for (uint64_t number = 57; number < 60; number++) {
    fl_freeze *f = quick(FL_FREEZE_GRADNORM);
    for (uint64_t i = 0; i < number; i++)
      step(f, i);
    bytes before = save(f);
    const fl_freeze_request r = freeze_begin(f, .1f);
    cr_expect_eq(r.wants, number == 57 ? 0 : FL_FREEZE_WANTS_GRADIENT);
    if (r.wants) show_gradient(f, &r);
    bytes begun = save(f);
    cr_expect_eq(before.n, begun.n);
    cr_expect_eq(memcmp(before.data, begun.data, before.n), 0);
    /* It is not lost by that, and is gone with the load. */
    must(fl_freeze_end_step(f, 1));
    must(load(f, begun.data, begun.n));
    cr_expect_eq(fl_freeze_end_step(f, 1), FL_E_STATE);
    free(before.data);
    free(begun.data);
    fl_freeze_free(f);
  }
}

Test(freeze_state, needs_somewhere_to_go)
{
  fl_freeze *f = quick(FL_FREEZE_GRADNORM);
  cr_expect_eq(fl_freeze_save(f, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_freeze_load(f, NULL), FL_E_ARGUMENT);
  fl_freeze_free(f);
}

Test(freeze_state, snapshot_is_wanted_after_a_load)
{
  fl_freeze *f = quick(FL_FREEZE_SERVER);
  for (uint64_t i = 0; i < 6; i++)
    step(f, i);
  bytes state = save(f);
  must(load(f, state.data, state.n));
  (void)freeze_begin(f, .1f);
  must(fl_freeze_end_step(f, 1));
  cr_expect_eq(freeze_begin(f, .1f).wants,
               FL_FREEZE_WANTS_PAIR | FL_FREEZE_WANTS_SNAPSHOT);
  free(state.data);
  fl_freeze_free(f);
}

Test(freeze_state, losses_beyond_all_measure_can_be_loaded)
{
  static const double losses[] = {1.7e308, -1.7e308};
  for (int i = 0; i < 2; i++) {
    fl_freeze *f = quick(FL_FREEZE_GRADNORM);
    for (int k = 0; k < 20; k++) {
      (void)freeze_begin(f, .1f);
      must(fl_freeze_end_step(f, losses[i]));
      bytes state = save(f);
      must(load(f, state.data, state.n));
      free(state.data);
    }
    fl_freeze_free(f);
    f = rounds(FL_FREEZE_GRADNORM);
    for (int k = 0; k < 20; k++)
      must(fl_freeze_end_round(f, losses[i], NULL, 0));
    bytes state = save(f);
    must(load(f, state.data, state.n));
    free(state.data);
    fl_freeze_free(f);
  }
}

/* Finite, and with a slope that is computed as infinite. */
Test(freeze_state, reports_beyond_all_measure_can_be_loaded)
{
  for (uint32_t c = FL_FREEZE_GRADNORM; c <= FL_FREEZE_PLASTICITY; c++) {
    fl_freeze *f = rounds(c);
    fl_freeze_report report;
    must(fl_freeze_report_init(&report, sizeof report));
    for (int i = 0; i < 8; i++) {
      report.value = i % 2 ? 2e307 : 0;
      must(fl_freeze_end_round(f, NAN, &report, 1));
      bytes state = save(f);
      must(load(f, state.data, state.n));
      free(state.data);
    }
    fl_freeze_free(f);
  }
}

/* States that a hash does not protect: written on purpose. */
typedef void (*harm_fn)(fli_freeze_state *state);

static void harm_nothing(fli_freeze_state *s)
{
  (void)s;
}
static void harm_decided(fli_freeze_state *s)
{
  s->decided = 5;
}
static void harm_front(fli_freeze_state *s)
{
  s->first_active = s->decided + 1;
}
static void harm_frozen(fli_freeze_state *s)
{
  s->frozen[5] = 1;
}
static void harm_window(fli_freeze_state *s)
{
  s->window = 300;
}
static void harm_patience(fli_freeze_state *s)
{
  s->patience = 0;
}
static void harm_values(fli_freeze_state *s)
{
  s->n_values = 200;
}
static void harm_value(fli_freeze_state *s)
{
  s->n_values = 1;
  s->n_evaluations = 1;
  s->values[0] = NAN;
}
static void harm_below(fli_freeze_state *s)
{
  s->below = 1000000;
}
static void harm_gradient(fli_freeze_state *s)
{
  s->gradient.values[3] = INFINITY;
}
static void harm_pair(fli_freeze_state *s)
{
  s->is_pair = 0;
}
static void harm_rates(fli_freeze_state *s)
{
  s->rate_at_freeze = NAN;
}
static void harm_time(fli_freeze_state *s)
{
  s->last_freeze = s->step + 1;
}
static void harm_seen(fli_freeze_state *s)
{
  s->seen_version = s->version + 1;
}
static void harm_reported(fli_freeze_state *s)
{
  s->n_reported = s->step + 1;
}

static fl_status read_back(harm_fn harm)
{
  fl_freeze *f = busy(FL_FREEZE_GRADNORM);
  fli_freeze_state state;
  fli_bytes out;
  cr_assert(f->state.gradient.values != NULL);
  harm(&f->state);
  fli_bytes_init(&out, NULL);
  must(fli_freeze_write(f, &out));
  must(fli_freeze_state_init(f, &state));
  const fl_status st = fli_freeze_read(f, out.data, out.size, &state);
  cr_expect(st == FL_OK || strlen(fl_last_error()) > 0);
  fli_freeze_state_free(f, &state);
  fli_bytes_free(&out);
  fl_freeze_free(f);
  return st;
}

Test(freeze_state, hostile_values_are_refused)
{
  cr_expect_eq(read_back(harm_nothing), FL_OK);
  cr_expect_eq(read_back(harm_decided), FL_E_RANGE);
  cr_expect_eq(read_back(harm_front), FL_E_FORMAT);
  cr_expect_eq(read_back(harm_frozen), FL_E_FORMAT);
  cr_expect_eq(read_back(harm_window), FL_E_RANGE);
  cr_expect_eq(read_back(harm_patience), FL_E_RANGE);
  cr_expect_eq(read_back(harm_values), FL_E_FORMAT);
  cr_expect_eq(read_back(harm_value), FL_E_NOT_FINITE);
  cr_expect_eq(read_back(harm_below), FL_E_FORMAT);
  cr_expect_eq(read_back(harm_gradient), FL_E_NOT_FINITE);
  cr_expect_eq(read_back(harm_pair), FL_E_FORMAT);
  cr_expect_eq(read_back(harm_rates), FL_E_NOT_FINITE);
  cr_expect_eq(read_back(harm_time), FL_E_FORMAT);
  cr_expect_eq(read_back(harm_seen), FL_E_FORMAT);
  cr_expect_eq(read_back(harm_reported), FL_E_FORMAT);
}
