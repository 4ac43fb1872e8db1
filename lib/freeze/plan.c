/* SPDX-License-Identifier: Apache-2.0 */
/* The plan, lent and as bytes: one msgpack map {1: format, 2: job, 3: modules,
 * 4: first_active, 5: version, 6: step, 7: reason, 8: frozen}, the last one, a
 * byte for every module, only when more than the prefix is frozen. */
#include "freeze/freeze.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "wire/reader.h"

enum { PLAN_FORMAT = 1 };

enum {
  KEY_FORMAT = 1,
  KEY_JOB = 2,
  KEY_MODULES = 3,
  KEY_FIRST_ACTIVE = 4,
  KEY_VERSION = 5,
  KEY_STEP = 6,
  KEY_REASON = 7,
  KEY_FROZEN = 8,
  KEYS_REQUIRED = 0xfe /* bits 1..7 */
};

fl_status fl_freeze_plan_init(fl_freeze_plan *plan, size_t size)
{
  static const fl_freeze_plan defaults = {0};
  return fli_options_init(plan, size, &defaults, sizeof defaults);
}

fl_status fl_freeze_get_plan(const fl_freeze *freeze, fl_freeze_plan *plan)
{
  fli_clear_error();
  if (!freeze || !plan) return fli_error(FL_E_ARGUMENT, "freeze: got NULL");
  const fli_freeze_state *state = &freeze->state;
  const fl_freeze_plan lent = {.first_active = state->first_active,
                               .version = state->version,
                               .step = state->plan_step,
                               .reason = state->reason,
                               .n_modules = freeze->n_modules,
                               .frozen = state->frozen};
  return fli_options_store(plan, &lent, sizeof lent, "plan");
}

static int is_prefix(const fl_freeze *freeze)
{
  const fli_freeze_state *state = &freeze->state;
  for (uint32_t i = state->first_active; i < freeze->n_modules; i++) {
    if (state->frozen[i]) return 0;
  }
  return 1;
}

static fl_status write_plan(const fl_freeze *freeze, fli_bytes *out)
{
  const fli_freeze_state *state = &freeze->state;
  const int has_mask = !is_prefix(freeze);
  fli_msg_writer writer;
  fli_writer_init(&writer, out);
  fli_writer_map(&writer, KEY_REASON + (has_mask ? 1U : 0U));
  fli_field_u64(&writer, KEY_FORMAT, PLAN_FORMAT);
  fli_field_bin(&writer, KEY_JOB, freeze->job, sizeof freeze->job);
  fli_field_u64(&writer, KEY_MODULES, freeze->n_modules);
  fli_field_u64(&writer, KEY_FIRST_ACTIVE, state->first_active);
  fli_field_u64(&writer, KEY_VERSION, state->version);
  fli_field_u64(&writer, KEY_STEP, state->plan_step);
  fli_field_u64(&writer, KEY_REASON, state->reason);
  if (has_mask)
    fli_field_bin(&writer, KEY_FROZEN, state->frozen, freeze->n_modules);
  return fli_writer_status(&writer);
}

fl_status fl_freeze_copy_plan(const fl_freeze *freeze, uint8_t *buffer,
                              size_t capacity, size_t *needed)
{
  fl_status st = FL_OK;
  fli_bytes bytes;
  fli_clear_error();
  if (!freeze || !needed || (!buffer && capacity > 0)) {
    return fli_error(FL_E_ARGUMENT, "freeze: got NULL");
  }
  fli_bytes_init(&bytes, freeze->context);
  FLI_TRY(write_plan(freeze, &bytes));
  *needed = bytes.size;
  if (!buffer) goto out;
  if (capacity < bytes.size) {
    st = fli_error(FL_E_SIZE, "freeze: plan, got %zu bytes, want %zu", capacity,
                   bytes.size);
  } else {
    memcpy(buffer, bytes.data, bytes.size);
  }
out:
  fli_bytes_free(&bytes);
  return st;
}

typedef struct read_plan {
  uint32_t keys; /* a bit for each that was there */
  uint64_t format;
  uint8_t job[FL_HASH_BYTES];
  uint64_t n_modules;
  uint64_t first_active;
  uint64_t version;
  uint64_t step;
  const uint8_t *frozen;
  size_t n_frozen;
} read_plan;

static fl_status parse(read_plan *plan, const uint8_t *data, size_t n)
{
  uint32_t key;
  fli_msg_reader reader;
  memset(plan, 0, sizeof *plan);
  fli_reader_init(&reader, data, n);
  for (fli_fields f = fli_fields_begin(&reader); fli_fields_next(&f, &key);) {
    if (key < 32) plan->keys |= UINT32_C(1) << key;
    switch (key) {
    case KEY_FORMAT:
      plan->format = fli_reader_u64(&reader);
      if (plan->format != PLAN_FORMAT)
        fli_reader_fail(&reader, FL_E_VERSION, "plan: of another format");
      break;
    case KEY_JOB:
      fli_reader_bin_exact(&reader, plan->job, sizeof plan->job, "plan: job");
      break;
    case KEY_MODULES: plan->n_modules = fli_reader_u64(&reader); break;
    case KEY_FIRST_ACTIVE: plan->first_active = fli_reader_u64(&reader); break;
    case KEY_VERSION: plan->version = fli_reader_u64(&reader); break;
    case KEY_STEP: plan->step = fli_reader_u64(&reader); break;
    case KEY_REASON:
      (void)fli_reader_u64_in(&reader, FL_FREEZE_REASON_NONE,
                              FL_FREEZE_REASON_RESTART, "plan: reason");
      break;
    case KEY_FROZEN:
      plan->frozen = fli_reader_bin(&reader, &plan->n_frozen);
      break;
    default: fli_fields_unknown(&f); break;
    }
  }
  fl_status st = fli_reader_finish(&reader);
  if (st != FL_OK || (plan->keys & KEYS_REQUIRED) == KEYS_REQUIRED) return st;
  return fli_error(FL_E_FORMAT, "plan: a field is missing");
}

/* A byte a module, 0 or 1; the prefix is first_active, and nothing behind what
 * may be frozen is. */
static fl_status check_mask(const fl_freeze *freeze, const read_plan *plan)
{
  if (!plan->frozen) return FL_OK;
  if (plan->n_frozen != freeze->n_modules) {
    return fli_error(FL_E_DIM, "plan: frozen, got %zu modules, want %u",
                     plan->n_frozen, freeze->n_modules);
  }
  for (uint32_t i = 0; i < freeze->n_modules; i++) {
    const uint8_t got = plan->frozen[i];
    if (got > 1 || (i < plan->first_active && !got) ||
        (i == plan->first_active && got)) {
      return fli_error(FL_E_FORMAT,
                       "plan: frozen, got %u at %u, which is no "
                       "plan of first_active %" PRIu64,
                       got, i, plan->first_active);
    }
    if (got && i >= freeze->options.max_frozen) {
      return fli_error(FL_E_RANGE, "plan: frozen, got module %u, want <= %u", i,
                       freeze->options.max_frozen - 1);
    }
  }
  return FL_OK;
}

static fl_status check(const fl_freeze *freeze, const read_plan *plan)
{
  if (memcmp(plan->job, freeze->job, sizeof plan->job) != 0) {
    return fli_error(FL_E_CONFLICT, "plan: of another job");
  }
  if (plan->n_modules != freeze->n_modules) {
    return fli_error(FL_E_DIM, "plan: got %" PRIu64 " modules, want %u",
                     plan->n_modules, freeze->n_modules);
  }
  if (plan->first_active > freeze->options.max_frozen) {
    return fli_error(FL_E_RANGE,
                     "plan: first_active, got %" PRIu64 ", want <= %u",
                     plan->first_active, freeze->options.max_frozen);
  }
  if (plan->version < freeze->state.version) {
    return fli_error(FL_E_STALE,
                     "plan: version, got %" PRIu64 ", want >= %" PRIu64,
                     plan->version, freeze->state.version);
  }
  return check_mask(freeze, plan);
}

fl_status fl_freeze_apply_plan(fl_freeze *freeze, const uint8_t *data, size_t n)
{
  fl_status st = FL_OK;
  read_plan plan;
  fli_clear_error();
  if (!freeze || (!data && n > 0)) {
    return fli_error(FL_E_ARGUMENT, "freeze: got NULL");
  }
  if (freeze->options.criterion != FL_FREEZE_SERVER) {
    return fli_error(FL_E_STATE, "freeze: a plan, want it with criterion "
                                 "SERVER");
  }
  FLI_TRY(parse(&plan, data, n));
  FLI_TRY(check(freeze, &plan));
  /* In version 0 only modules without anything to train are frozen. */
  if (plan.version == freeze->state.version &&
      (plan.version > 0 || plan.first_active == freeze->state.first_active))
    return FL_OK;
  fli_freeze_drop_step(freeze);
  if (plan.first_active != freeze->state.decided) {
    freeze->state.decided = (uint32_t)plan.first_active;
    fli_freeze_forget(freeze);
  }
  fli_freeze_set_plan(freeze, plan.frozen, plan.version,
                      FL_FREEZE_REASON_SERVER);
out:
  return st;
}
