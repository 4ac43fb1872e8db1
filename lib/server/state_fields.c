/* SPDX-License-Identifier: Apache-2.0 */
/* The scalars of a snapshot as tables, so that what is saved and what is
 * restored cannot drift apart: each struct is an array of its values in the
 * order of its table. The order is the format: new rows go to the end, with the
 * version that they came with (FLI_SAVED_SINCE), which is
 * FLI_SERVER_STATE_VERSION raised by one. A state from before has not got them.
 */
#include "server/server.h"

#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "server/state.h"

#define OPTION(member, kind) FLI_SAVED_ROW(fl_job_options, member, kind)
#define CODEC(member, kind) FLI_SAVED_ROW(fl_compressor_options, member, kind)
#define FREEZE(member, kind) FLI_SAVED_ROW(fl_freeze_options, member, kind)
#define COHORT(member, kind) FLI_SAVED_ROW(fl_cohort_options, member, kind)
#define ROUND(member, kind) FLI_SAVED_ROW(fli_saved_round, member, kind)
#define MEMBER(member, kind) FLI_SAVED_ROW(fli_saved_member, member, kind)
#define WHO(member, kind) FLI_SAVED_ROW(fli_saved_participant, member, kind)
#define TABLE(rows)          \
  {                          \
    rows, FLI_COUNT_OF(rows) \
  }

static const fli_saved_field option_rows[] = {
    OPTION(rounds, FLI_SAVED_U32),
    OPTION(seed, FLI_SAVED_U64),
    OPTION(participants, FLI_SAVED_U32),
    OPTION(min_participants, FLI_SAVED_U32),
    OPTION(min_clients, FLI_SAVED_U32),
    OPTION(over_selection, FLI_SAVED_F32),
    OPTION(weighting, FLI_SAVED_U32),
    OPTION(scale_mode, FLI_SAVED_U32),
    OPTION(weight_cap, FLI_SAVED_U64),
    OPTION(epochs, FLI_SAVED_U32),
    OPTION(batch_size, FLI_SAVED_U32),
    OPTION(learning_rate, FLI_SAVED_F32),
    OPTION(server_learning_rate, FLI_SAVED_F32),
    OPTION(server_momentum, FLI_SAVED_F32),
    OPTION(evaluate_every, FLI_SAVED_U32),
    OPTION(norm_deadline_ns, FLI_SAVED_U64),
    OPTION(update_deadline_ns, FLI_SAVED_U64),
    OPTION(evaluate_deadline_ns, FLI_SAVED_U64),
    OPTION(return_grace_ns, FLI_SAVED_U64),
    OPTION(retry_pause_ns, FLI_SAVED_U64),
    OPTION(steps_kept, FLI_SAVED_U32),
    OPTION(error_feedback, FLI_SAVED_U32),
    OPTION(feedback_decay, FLI_SAVED_F32),
    OPTION(min_cover, FLI_SAVED_U32),
    OPTION(rate_schedule, FLI_SAVED_U32),
    OPTION(rate_warmup, FLI_SAVED_U32),
    OPTION(rate_factor, FLI_SAVED_F32),
    OPTION(rate_period, FLI_SAVED_U32),
    OPTION(cohort_sketches, FLI_SAVED_U32),
    OPTION(cohort_probed, FLI_SAVED_U32),
    OPTION(max_samples, FLI_SAVED_U64),
    OPTION(demands, FLI_SAVED_U32),
    OPTION(checkin_ns, FLI_SAVED_U64),
    OPTION(buffer, FLI_SAVED_U32),
    OPTION(buffer_staleness, FLI_SAVED_U32),
    FLI_SAVED_SINCE(8, fl_job_options, cohort_pace, FLI_SAVED_U32),
    FLI_SAVED_SINCE(8, fl_job_options, cohort_share, FLI_SAVED_U32),
};
static const fli_saved_field codec_rows[] = {
    CODEC(codec, FLI_SAVED_U32),
    CODEC(thc_mode, FLI_SAVED_U32),
    CODEC(bits, FLI_SAVED_U32),
    CODEC(granularity, FLI_SAVED_U32),
    CODEC(clip, FLI_SAVED_F32),
    CODEC(rotation_seed, FLI_SAVED_KEY),
    {FLI_SAVED_VIEW, offsetof(fl_compressor_options, table),
     offsetof(fl_compressor_options, n_table), 0},
};
static const fli_saved_field freeze_rows[] = {
    FREEZE(criterion, FLI_SAVED_U32),
    FREEZE(preset, FLI_SAVED_U32),
    FREEZE(reports, FLI_SAVED_U32),
    FREEZE(total_steps, FLI_SAVED_U64),
    FREEZE(interval, FLI_SAVED_U64),
    FREEZE(window, FLI_SAVED_U32),
    FREEZE(patience, FLI_SAVED_U32),
    FREEZE(tolerance, FLI_SAVED_F32),
    FREEZE(loss_level, FLI_SAVED_F32),
    FREEZE(loss_change, FLI_SAVED_F32),
    FREEZE(is_pretrained, FLI_SAVED_U32),
    FREEZE(pretrained_share, FLI_SAVED_F32),
    FREEZE(max_frozen, FLI_SAVED_U32),
    FREEZE(hold, FLI_SAVED_U64),
    FREEZE(gap, FLI_SAVED_U64),
    FREEZE(unfreezes, FLI_SAVED_U32),
    FREEZE(halves_window, FLI_SAVED_U32),
    FREEZE(rows, FLI_SAVED_U32),
    FREEZE(refresh, FLI_SAVED_U32),
    FREEZE(warmup_share, FLI_SAVED_F32),
    FREEZE(until_share, FLI_SAVED_F32),
};
static const fli_saved_field cohort_rows[] = {
    COHORT(rule, FLI_SAVED_U32),
    COHORT(seed, FLI_SAVED_U64),
    COHORT(job, FLI_SAVED_U64),
    COHORT(cap, FLI_SAVED_U32),
    COHORT(dim, FLI_SAVED_U32),
    COHORT(floor, FLI_SAVED_F32),
    COHORT(min_members, FLI_SAVED_U32),
    COHORT(min_participants, FLI_SAVED_U32),
    COHORT(spike, FLI_SAVED_F32),
    COHORT(asks_first, FLI_SAVED_U32),
    COHORT(evidence, FLI_SAVED_U32),
    COHORT(agreement, FLI_SAVED_F32),
    COHORT(gap, FLI_SAVED_F32),
    COHORT(reseed, FLI_SAVED_U32),
    COHORT(settle, FLI_SAVED_U32),
    COHORT(wait, FLI_SAVED_U32),
    COHORT(trial_start, FLI_SAVED_U32),
    COHORT(trial_length, FLI_SAVED_U32),
    COHORT(trial_probes, FLI_SAVED_U32),
    COHORT(trial_most, FLI_SAVED_U32),
    COHORT(trial_margin, FLI_SAVED_F32),
    COHORT(trial_share, FLI_SAVED_F32),
    COHORT(trial_sure, FLI_SAVED_F32),
    COHORT(trial_win, FLI_SAVED_F32),
    COHORT(trial_lump, FLI_SAVED_F32),
    COHORT(trial_again, FLI_SAVED_F32),
    COHORT(merge, FLI_SAVED_F32),
    COHORT(forget, FLI_SAVED_U32),
    COHORT(is_published, FLI_SAVED_U32),
};
static const fli_saved_field round_rows[] = {
    ROUND(phase, FLI_SAVED_U32),
    ROUND(round, FLI_SAVED_U64),
    ROUND(attempt, FLI_SAVED_U32),
    ROUND(is_begun, FLI_SAVED_U32),
    ROUND(marks, FLI_SAVED_U32),
    ROUND(is_public, FLI_SAVED_U32),
    ROUND(n_wanted, FLI_SAVED_U32),
    ROUND(weight_cap, FLI_SAVED_U64),
    ROUND(hold_left_ns, FLI_SAVED_U64),
    ROUND(deadline_left_ns, FLI_SAVED_U64),
    ROUND(clip, FLI_SAVED_F32),
    ROUND(energy_bits, FLI_SAVED_U64),
    ROUND(correlation_bits, FLI_SAVED_U64),
    ROUND(bytes_saved, FLI_SAVED_U64),
};
static const fli_saved_field member_rows[] = {
    MEMBER(participant, FLI_SAVED_U32),   MEMBER(samples, FLI_SAVED_U64),
    MEMBER(loss_bits, FLI_SAVED_U64),     MEMBER(correct, FLI_SAVED_U64),
    MEMBER(count, FLI_SAVED_U64),         MEMBER(lost, FLI_SAVED_U32),
    MEMBER(is_out, FLI_SAVED_U32),        MEMBER(has_norm, FLI_SAVED_U32),
    MEMBER(is_counted, FLI_SAVED_U32),    MEMBER(has_score, FLI_SAVED_U32),
    MEMBER(first_active, FLI_SAVED_U32),  MEMBER(has_report, FLI_SAVED_U32),
    MEMBER(report_module, FLI_SAVED_U32), MEMBER(report_bits, FLI_SAVED_U64),
    MEMBER(seconds_bits, FLI_SAVED_U32),  MEMBER(task.round, FLI_SAVED_U64),
    MEMBER(task.attempt, FLI_SAVED_U32),  MEMBER(task.slot, FLI_SAVED_U32),
    MEMBER(task.version, FLI_SAVED_U64),  MEMBER(task.epoch, FLI_SAVED_U64),
};
static const fli_saved_field participant_rows[] = {
    WHO(id, FLI_SAVED_ID),
    WHO(samples, FLI_SAVED_U64),
    WHO(capabilities, FLI_SAVED_U64),
    WHO(counted_round, FLI_SAVED_U64),
    WHO(counted_attempt, FLI_SAVED_U32),
    WHO(is_expected, FLI_SAVED_U32),
    WHO(before_round, FLI_SAVED_U64),
    WHO(before_attempt, FLI_SAVED_U32),
    WHO(depth, FLI_SAVED_U32),
    {FLI_SAVED_VIEW, offsetof(fli_saved_participant, key),
     offsetof(fli_saved_participant, key_size), 0},
    WHO(is_leaving, FLI_SAVED_U32),
    FLI_SAVED_SINCE(8, fli_saved_participant, messages_left_ns, FLI_SAVED_U64),
    FLI_SAVED_SINCE(8, fli_saved_participant, rejects_left_ns, FLI_SAVED_U64),
};

const fli_saved_table fli_saved_options = TABLE(option_rows);
const fli_saved_table fli_saved_codec = TABLE(codec_rows);
const fli_saved_table fli_saved_freeze_options = TABLE(freeze_rows);
const fli_saved_table fli_saved_cohort_options = TABLE(cohort_rows);
const fli_saved_table fli_saved_rounds = TABLE(round_rows);
const fli_saved_table fli_saved_members = TABLE(member_rows);
const fli_saved_table fli_saved_participants = TABLE(participant_rows);

void fli_saved_write(fli_msg_writer *writer, const fli_saved_table *table,
                     const void *object)
{
  const char *base = object;
  fli_writer_array(writer, (uint32_t)table->n_fields);
  for (size_t i = 0; i < table->n_fields; i++) {
    const char *at = base + table->fields[i].offset;
    switch (table->fields[i].kind) {
    case FLI_SAVED_U32: fli_writer_u64(writer, *(const uint32_t *)at); break;
    case FLI_SAVED_U64: fli_writer_u64(writer, *(const uint64_t *)at); break;
    case FLI_SAVED_F32: fli_writer_f32(writer, *(const float *)at); break;
    case FLI_SAVED_ID: fli_writer_str(writer, at); break;
    case FLI_SAVED_KEY: fli_writer_bin(writer, at, FLI_KEY_BYTES); break;
    case FLI_SAVED_VIEW:
      fli_writer_bin(writer, *(const uint8_t *const *)at,
                     *(const uint32_t *)(base + table->fields[i].size_offset));
      break;
    }
  }
}

/* Empty = NULL. */
static void read_view(fli_msg_reader *reader, const uint8_t **view,
                      uint32_t *size)
{
  size_t n = 0;
  const uint8_t *data = fli_reader_bin(reader, &n);
  *view = n > 0 ? data : NULL;
  *size = (uint32_t)n;
}

/* How many a state of this version has; newer rows stand behind them. */
static size_t count_known(const fli_saved_table *table, uint32_t version)
{
  size_t n = table->n_fields;
  while (n > 0 && table->fields[n - 1].since > version)
    n--;
  return n;
}

void fli_saved_read(fli_msg_reader *reader, const fli_saved_table *table,
                    void *object)
{
  char *base = object;
  const uint32_t n = fli_reader_array(reader);
  if (n != count_known(table, reader->version)) {
    fli_reader_fail(reader, FL_E_FORMAT, "state: a struct of another size");
    return;
  }
  for (size_t i = 0; i < n; i++) {
    char *at = base + table->fields[i].offset;
    switch (table->fields[i].kind) {
    case FLI_SAVED_U32: *(uint32_t *)at = fli_reader_u32(reader); break;
    case FLI_SAVED_U64: *(uint64_t *)at = fli_reader_u64(reader); break;
    case FLI_SAVED_F32: *(float *)at = fli_reader_f32(reader); break;
    case FLI_SAVED_ID:
      fli_reader_str_copy(reader, at, FLI_ID_BYTES, "state: id");
      break;
    case FLI_SAVED_KEY:
      fli_reader_bin_exact(reader, (uint8_t *)at, FLI_KEY_BYTES, "state: key");
      break;
    case FLI_SAVED_VIEW:
      read_view(reader, (const uint8_t **)at,
                (uint32_t *)(base + table->fields[i].size_offset));
      break;
    }
  }
  fli_reader_leave(reader);
}
