/* SPDX-License-Identifier: Apache-2.0 */
/* Loading a controller: everything is read into a state of its own, checked,
 * and only then takes the place of the one held. Bytes are not trusted; what is
 * accepted could have been saved. */
#include "freeze/freeze.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "freeze/state_keys.h"
#include "kernels/kernels.h"
#include "wire/container.h"
#include "wire/reader.h"

/* Everything but the gradient and what has a size of its own per module. */
enum { STATE_SLACK = 16384, BYTES_PER_MODULE = 24 };

typedef struct state_parser {
  const fl_freeze *freeze;
  fli_msg_reader reader;
  fli_freeze_state *state;
  uint32_t keys; /* a bit for each that was there */
  uint32_t n_others;
  int has_shown;
} state_parser;

static uint32_t read_whole(state_parser *p, uint32_t lo, uint32_t hi,
                           const char *what)
{
  return (uint32_t)fli_reader_u64_in(&p->reader, lo, hi, what);
}

static uint64_t read_count(state_parser *p)
{
  return fli_reader_u64_in(&p->reader, 0, UINT64_C(1) << 62,
                           "freeze state: count");
}

/* `min` .. `max` finite values; returns how many. */
static uint32_t read_reals(state_parser *p, double *out, uint32_t min,
                           uint32_t max)
{
  size_t size;
  const uint8_t *data = fli_reader_bin(&p->reader, &size);
  if (!data && fli_reader_status(&p->reader) != FL_OK) return 0;
  const size_t n = size / 8;
  if (size % 8 != 0 || n < min || n > max) {
    fli_reader_fail(&p->reader, FL_E_FORMAT,
                    "freeze state: a vector of another length");
    return 0;
  }
  for (size_t i = 0; i < n; i++) {
    out[i] = fli_f64_from_bits(fli_load_u64(data + 8 * i));
    if (isfinite(out[i])) continue;
    fli_reader_fail(&p->reader, FL_E_NOT_FINITE,
                    "freeze state: a value is not finite");
    return 0;
  }
  return (uint32_t)n;
}

static void read_gradient(state_parser *p)
{
  size_t size;
  fli_gradient *gradient = &p->state->gradient;
  const uint8_t *data = fli_reader_bin(&p->reader, &size);
  if (!data) return;
  const size_t n = size / sizeof(float);
  if (n == 0 || size % sizeof(float) != 0) {
    fli_reader_fail(&p->reader, FL_E_FORMAT,
                    "freeze state: a gradient of no length");
    return;
  }
  gradient->values = fli_alloc(p->freeze->context, n, sizeof(float));
  if (!gradient->values) {
    const fl_status st = fli_nomem(size);
    fli_reader_fail(&p->reader, st, "freeze state: no memory");
    return;
  }
  gradient->n = n;
  flk_kernels()->f32_load(gradient->values, data, n);
  if (flk_kernels()->find_not_finite(gradient->values, n) != n)
    fli_reader_fail(&p->reader, FL_E_NOT_FINITE,
                    "freeze state: the gradient is not finite");
}

static void read_shown(state_parser *p)
{
  double two[2] = {-1, -1};
  (void)read_reals(p, two, 2, 2);
  p->state->waiting.shown = (fli_pairs){two[0], two[1]};
  p->has_shown = 1;
}

static void read_importance(state_parser *p, int is_counts)
{
  size_t size;
  const size_t n = p->freeze->n_modules;
  const uint8_t *data = fli_reader_bin(&p->reader, &size);
  if (!data) return;
  if (!p->state->importance || size != 8 * n) {
    fli_reader_fail(&p->reader, FL_E_FORMAT,
                    "freeze state: importance that is not to be there");
    return;
  }
  for (size_t i = 0; i < n; i++) {
    const uint64_t bits = fli_load_u64(data + 8 * i);
    if (is_counts) {
      p->state->importance[i].n = bits;
    } else {
      p->state->importance[i].sum = fli_f64_from_bits(bits);
    }
  }
}

static void read_hash(state_parser *p)
{
  uint8_t hash[FL_HASH_BYTES] = {0};
  fli_reader_bin_exact(&p->reader, hash, sizeof hash, "freeze state: options");
  if (memcmp(hash, p->freeze->options_hash, sizeof hash) != 0)
    fli_reader_fail(&p->reader, FL_E_CONFLICT,
                    "freeze state: of other options, modules or job");
}

static int read_plan_field(state_parser *p, uint32_t key)
{
  fli_freeze_state *state = p->state;
  const uint32_t max = p->freeze->options.max_frozen;
  switch (key) {
  case KEY_OPTIONS: read_hash(p); return 1;
  case KEY_STEP: state->step = read_count(p); return 1;
  case KEY_DECIDED:
    state->decided = read_whole(p, 0, max, "freeze state: decided");
    return 1;
  case KEY_FIRST_ACTIVE:
    state->first_active = read_whole(p, 0, max, "freeze state: first_active");
    return 1;
  case KEY_VERSION: state->version = fli_reader_u64(&p->reader); return 1;
  case KEY_SEEN_VERSION:
    state->seen_version = fli_reader_u64(&p->reader);
    return 1;
  case KEY_PLAN_STEP: state->plan_step = read_count(p); return 1;
  case KEY_REASON:
    state->reason =
        read_whole(p, FL_FREEZE_REASON_NONE, FL_FREEZE_REASON_RESTART,
                   "freeze state: reason");
    return 1;
  case KEY_FROZEN:
    fli_reader_bin_exact(&p->reader, state->frozen, p->freeze->n_modules,
                         "freeze state: frozen");
    return 1;
  default: return 0;
  }
}

static int read_phase_field(state_parser *p, uint32_t key)
{
  fli_freeze_state *state = p->state;
  double three[3] = {0};
  switch (key) {
  case KEY_IS_BOOTED:
    state->is_booted = (int)read_whole(p, 0, 1, "freeze state: is_booted");
    return 1;
  case KEY_N_LOSSES: state->n_losses = read_count(p); return 1;
  case KEY_LOSSES:
    (void)read_reals(p, three, 3, 3);
    state->first_losses = three[0];
    state->window_losses = three[1];
    state->last_mean = three[2];
    return 1;
  case KEY_HAS_FROZEN:
    state->has_frozen = (int)read_whole(p, 0, 1, "freeze state: has_frozen");
    return 1;
  case KEY_RATES:
    (void)read_reals(p, three, 2, 2);
    state->rate_at_freeze = three[0];
    state->lowest_rate = three[1];
    return 1;
  case KEY_LAST_FREEZE: state->last_freeze = read_count(p); return 1;
  case KEY_REFREEZE_FROM: state->refreeze_from = read_count(p); return 1;
  default: return 0;
  }
}

static void read_criterion_field(state_parser *p, uint32_t key, fli_fields *f)
{
  fli_freeze_state *state = p->state;
  const fl_freeze_options *o = &p->freeze->options;
  switch (key) {
  case KEY_WINDOW:
    state->window = read_whole(p, 3, o->window, "freeze state: window");
    break;
  case KEY_PATIENCE:
    state->patience = read_whole(p, 1, o->patience, "freeze state: patience");
    break;
  case KEY_BELOW: state->below = fli_reader_u32(&p->reader); break;
  case KEY_N_EVALUATIONS: state->n_evaluations = read_count(p); break;
  case KEY_PEAK: (void)read_reals(p, &state->peak, 1, 1); break;
  case KEY_VALUES:
    state->n_values = read_reals(p, state->values, 0, FLI_FREEZE_VALUES);
    break;
  case KEY_OTHERS:
    p->n_others = read_reals(p, state->others, 0, FLI_FREEZE_VALUES);
    break;
  case KEY_IS_PAIR:
    state->is_pair = (int)read_whole(p, 0, 1, "freeze state: is_pair");
    break;
  case KEY_SINCE_SNAPSHOT:
    state->since_snapshot = fli_reader_u32(&p->reader);
    break;
  case KEY_N_REPORTED: state->n_reported = read_count(p); break;
  case KEY_REPORTED: (void)read_reals(p, &state->reported, 1, 1); break;
  case KEY_RECENT:
    state->n_recent = read_reals(p, state->recent, 0, FLI_FREEZE_RECENT);
    break;
  case KEY_GRADIENT: read_gradient(p); break;
  case KEY_ASKED:
    state->waiting.asked =
        read_whole(p, FL_FREEZE_WANTS_PAIR,
                   FL_FREEZE_WANTS_PAIR | FL_FREEZE_WANTS_LAST_PAIR,
                   "freeze state: asked");
    break;
  case KEY_SHOWN: read_shown(p); break;
  case KEY_SUMS: read_importance(p, 0); break;
  case KEY_COUNTS: read_importance(p, 1); break;
  default: fli_fields_unknown(f); break;
  }
}

static int is_plan_good(const fl_freeze *freeze, const fli_freeze_state *s)
{
  const uint32_t criterion = freeze->options.criterion;
  const int is_prefix =
      criterion != FL_FREEZE_CKA && criterion != FL_FREEZE_SERVER;
  if (s->first_active != fli_freeze_allow(freeze, s->first_active)) return 0;
  for (uint32_t i = 0; i < freeze->n_modules; i++) {
    const int is_front = i < s->first_active;
    if (s->frozen[i] > 1 || (is_front && !s->frozen[i])) return 0;
    if (!is_front && s->frozen[i] &&
        (is_prefix || i >= freeze->options.max_frozen))
      return 0;
  }
  /* What is decided and not yet the plan is not frozen. */
  return s->first_active <= s->decided && !s->frozen[s->decided] &&
         s->plan_step <= s->step && s->seen_version <= s->version;
}

/* What the criterion and the next report remember. */
static int is_memory_good(const fl_freeze *freeze, const fli_freeze_state *s)
{
  const int is_smoothed =
      freeze->criterion == &fli_criterion_plasticity && !freeze->is_aggregator;
  const uint32_t keep = s->window + (is_smoothed ? 2 : 0);
  if (s->n_values > keep || s->n_values > s->n_evaluations) return 0;
  if (s->n_values < keep && s->n_values != s->n_evaluations) return 0;
  if (s->below > s->n_evaluations || s->below > s->step) return 0;
  if (s->n_recent > s->n_reported || s->peak < 0 || s->reported < 0) return 0;
  if (freeze->criterion->is_half_reported &&
      (s->n_reported > 0) != (s->n_recent > 0))
    return 0;
  if (s->gradient.values && !s->is_pair) return 0;
  for (uint32_t i = 0; i < s->n_values; i++) {
    if (s->values[i] < 0 || s->others[i] < 0) return 0;
  }
  for (uint32_t i = 0; s->importance && i < freeze->n_modules; i++) {
    const fli_importance *one = &s->importance[i];
    if (!(one->sum >= 0) || !(one->sum <= (double)one->n) || one->n > s->step)
      return 0;
  }
  return 1;
}

static int is_shown_good(double value)
{
  return value >= 0 || value == -1;
}

/* Pairs wait for so many steps, and for more than none; finds the step that
 * asked. */
static int is_waiting_good(const state_parser *p)
{
  const fl_freeze_options *o = &p->freeze->options;
  fli_waiting *waiting = &p->state->waiting;
  const uint64_t step = p->state->step;
  if ((waiting->asked != 0) != p->has_shown) return 0;
  if (!p->has_shown) return 1;
  const uint64_t asked = step / o->interval * o->interval;
  if (asked == 0 || step >= asked + o->lag) return 0;
  waiting->step = asked - 1;
  const uint32_t want = p->freeze->criterion == &fli_criterion_relative
                            ? FL_FREEZE_WANTS_PAIR | FL_FREEZE_WANTS_LAST_PAIR
                            : FL_FREEZE_WANTS_PAIR;
  return waiting->asked == want && is_shown_good(waiting->shown.front) &&
         is_shown_good(waiting->shown.last);
}

static int is_time_good(const fli_freeze_state *s)
{
  return s->n_losses <= s->step && s->last_freeze <= s->step &&
         s->rate_at_freeze >= 0 && s->lowest_rate >= 0 &&
         s->n_evaluations <= s->step && s->n_reported <= s->step;
}

fl_status fli_freeze_read(const fl_freeze *freeze, const uint8_t *data,
                          size_t n, fli_freeze_state *out)
{
  uint32_t key;
  state_parser p = {.freeze = freeze, .state = out};
  uint32_t want = (UINT32_C(2) << KEYS_ALWAYS) - 2;
  if (out->importance)
    want |= UINT32_C(1) << KEY_SUMS | UINT32_C(1) << KEY_COUNTS;
  fli_reader_init(&p.reader, data, n);
  for (fli_fields f = fli_fields_begin(&p.reader); fli_fields_next(&f, &key);) {
    if (key < 32) p.keys |= UINT32_C(1) << key;
    if (!read_plan_field(&p, key) && !read_phase_field(&p, key))
      read_criterion_field(&p, key, &f);
  }
  fl_status st = fli_reader_finish(&p.reader);
  if (st != FL_OK) return st;
  if ((p.keys & want) != want) {
    return fli_error(FL_E_FORMAT, "freeze state: a field is missing");
  }
  if (p.n_others != out->n_values || !is_plan_good(freeze, out) ||
      !is_memory_good(freeze, out) || !is_time_good(out) ||
      !is_waiting_good(&p)) {
    return fli_error(FL_E_FORMAT, "freeze state: fields contradict each other");
  }
  return FL_OK;
}

fl_status fl_freeze_load(fl_freeze *freeze, const fl_reader *reader)
{
  fl_status st = FL_OK;
  uint32_t version;
  fli_bytes payload;
  fli_freeze_state state;
  fli_clear_error();
  if (!freeze || !reader || !reader->read) {
    return fli_error(FL_E_ARGUMENT, "freeze: got NULL");
  }
  fli_bytes_init(&payload, freeze->context);
  st = fli_freeze_state_init(freeze, &state);
  if (st != FL_OK) return st;
  FLI_TRY(fli_container_read(reader, FLI_STATE_FREEZE, FLI_FREEZE_STATE_VERSION,
                             (uint64_t)UINT32_MAX + STATE_SLACK +
                                 BYTES_PER_MODULE * freeze->n_modules,
                             &version, &payload));
  FLI_TRY(fli_freeze_read(freeze, payload.data, payload.size, &state));
  if (freeze->attachment) fli_late_drop(freeze->attachment);
  fli_freeze_state_free(freeze, &freeze->state);
  freeze->state = state;
  fli_freeze_drop_step(freeze);
  fli_freeze_drop_snapshot(freeze);
  freeze->last_threshold = -1;
  fli_freeze_step_over(freeze);
  fli_bytes_free(&payload);
  return FL_OK;
out:
  fli_bytes_free(&payload);
  fli_freeze_state_free(freeze, &state);
  return st;
}
