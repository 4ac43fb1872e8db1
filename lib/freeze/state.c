/* SPDX-License-Identifier: Apache-2.0 */
/* Saving a controller as it was when the last step ended: state_keys.h says
 * what. The snapshot is not there: whoever goes on from a state makes one
 * anew. */
#include "freeze/freeze.h"

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "freeze/state_keys.h"
#include "wire/container.h"

static fl_status write_reals(const fl_freeze *freeze, fli_msg_writer *writer,
                             uint32_t key, const double *values, size_t n)
{
  const size_t size = n * sizeof *values;
  uint8_t *bytes = fli_alloc(freeze->context, size, 1);
  if (!bytes) return fli_nomem(size);
  for (size_t i = 0; i < n; i++)
    fli_store_u64(bytes + 8 * i, fli_f64_bits(values[i]));
  fli_field_bin(writer, key, bytes, size);
  fli_free(freeze->context, bytes, size);
  return FL_OK;
}

static fl_status write_criterion(const fl_freeze *freeze,
                                 fli_msg_writer *writer)
{
  fl_status st = FL_OK;
  const fli_freeze_state *state = &freeze->state;
  fli_field_u64(writer, KEY_WINDOW, state->window);
  fli_field_u64(writer, KEY_PATIENCE, state->patience);
  fli_field_u64(writer, KEY_BELOW, state->below);
  fli_field_u64(writer, KEY_N_EVALUATIONS, state->n_evaluations);
  FLI_TRY(write_reals(freeze, writer, KEY_PEAK, &state->peak, 1));
  FLI_TRY(
      write_reals(freeze, writer, KEY_VALUES, state->values, state->n_values));
  FLI_TRY(
      write_reals(freeze, writer, KEY_OTHERS, state->others, state->n_values));
  fli_field_u64(writer, KEY_IS_PAIR, (uint64_t)state->is_pair);
  fli_field_u64(writer, KEY_SINCE_SNAPSHOT, state->since_snapshot);
  fli_field_u64(writer, KEY_N_REPORTED, state->n_reported);
  FLI_TRY(write_reals(freeze, writer, KEY_REPORTED, &state->reported, 1));
  FLI_TRY(
      write_reals(freeze, writer, KEY_RECENT, state->recent, state->n_recent));
out:
  return st;
}

static fl_status write_importance(const fl_freeze *freeze,
                                  fli_msg_writer *writer)
{
  const fli_importance *importance = freeze->state.importance;
  const size_t n = freeze->n_modules, size = 16 * n;
  uint8_t *bytes = fli_alloc(freeze->context, size, 1);
  if (!bytes) return fli_nomem(size);
  for (size_t i = 0; i < n; i++) {
    fli_store_u64(bytes + 8 * i, fli_f64_bits(importance[i].sum));
    fli_store_u64(bytes + 8 * (n + i), importance[i].n);
  }
  fli_field_bin(writer, KEY_SUMS, bytes, 8 * n);
  fli_field_bin(writer, KEY_COUNTS, bytes + 8 * n, 8 * n);
  fli_free(freeze->context, bytes, size);
  return FL_OK;
}

/* Whoever loads it has no snapshot, whether one was asked for or not. */
static fl_status write_waiting(const fl_freeze *freeze, fli_msg_writer *writer,
                               const fli_waiting *waiting)
{
  const double shown[] = {waiting->shown.front, waiting->shown.last};
  fli_field_u64(writer, KEY_ASKED,
                waiting->asked & ~(uint32_t)FL_FREEZE_WANTS_SNAPSHOT);
  return write_reals(freeze, writer, KEY_SHOWN, shown, 2);
}

fl_status fli_freeze_write(const fl_freeze *freeze, fli_bytes *out)
{
  fl_status st = FL_OK;
  const fli_freeze_state *state = &freeze->state;
  const double losses[] = {state->first_losses, state->window_losses,
                           state->last_mean};
  const double rates[] = {state->rate_at_freeze, state->lowest_rate};
  fli_msg_writer writer;
  fli_writer_init(&writer, out);
  fli_writer_map(&writer, KEYS_ALWAYS + (state->gradient.values ? 1U : 0U) +
                              (state->importance ? 2U : 0U) +
                              (state->waiting.asked != 0 ? 2U : 0U));
  fli_field_bin(&writer, KEY_OPTIONS, freeze->options_hash,
                sizeof freeze->options_hash);
  fli_field_u64(&writer, KEY_STEP, state->step);
  fli_field_u64(&writer, KEY_DECIDED, state->decided);
  fli_field_u64(&writer, KEY_FIRST_ACTIVE, state->first_active);
  fli_field_u64(&writer, KEY_VERSION, state->version);
  fli_field_u64(&writer, KEY_SEEN_VERSION, state->seen_version);
  fli_field_u64(&writer, KEY_PLAN_STEP, state->plan_step);
  fli_field_u64(&writer, KEY_REASON, state->reason);
  fli_field_bin(&writer, KEY_FROZEN, state->frozen, freeze->n_modules);
  fli_field_u64(&writer, KEY_IS_BOOTED, (uint64_t)state->is_booted);
  fli_field_u64(&writer, KEY_N_LOSSES, state->n_losses);
  FLI_TRY(write_reals(freeze, &writer, KEY_LOSSES, losses, 3));
  fli_field_u64(&writer, KEY_HAS_FROZEN, (uint64_t)state->has_frozen);
  FLI_TRY(write_reals(freeze, &writer, KEY_RATES, rates, 2));
  fli_field_u64(&writer, KEY_LAST_FREEZE, state->last_freeze);
  fli_field_u64(&writer, KEY_REFREEZE_FROM, state->refreeze_from);
  FLI_TRY(write_criterion(freeze, &writer));
  if (state->gradient.values)
    fli_field_floats(&writer, KEY_GRADIENT, state->gradient.values,
                     (size_t)state->gradient.n);
  if (state->importance) FLI_TRY(write_importance(freeze, &writer));
  if (state->waiting.asked != 0)
    FLI_TRY(write_waiting(freeze, &writer, &state->waiting));
  st = fli_writer_status(&writer);
out:
  return st;
}

fl_status fl_freeze_save(const fl_freeze *freeze, const fl_writer *writer)
{
  fl_status st = FL_OK;
  fli_bytes payload;
  fli_clear_error();
  if (!freeze || !writer || !writer->write) {
    return fli_error(FL_E_ARGUMENT, "freeze: got NULL");
  }
  if (freeze->state.gradient.n >= UINT32_MAX / sizeof(float)) {
    return fli_error(FL_E_TOO_LARGE, "freeze: the gradient held has 2^30 "
                                     "values or more");
  }
  if (freeze->attachment) fli_late_settle(freeze->attachment);
  fli_bytes_init(&payload, freeze->context);
  FLI_TRY(fli_freeze_write(freeze, &payload));
  FLI_TRY(fli_container_write(writer, FLI_STATE_FREEZE,
                              FLI_FREEZE_STATE_VERSION, &payload));
out:
  fli_bytes_free(&payload);
  return st;
}
