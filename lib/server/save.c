/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshot: everything that the rest of the training depends on, as one
 * msgpack array per job inside a hashed container. Connections, events and
 * uploads under way are not in it: clients return by HELLO and send again what
 * was not acknowledged. The layout of a job:
 *
 *   name, options, codec, options of strategy and selection, description,
 *   version, weights,
 *   momentum, residual, announced norms, steps, freezing, participants, round,
 *   members, then of the round: reported norms, agreed norms, clamp counts,
 *   sum; accuracy, cohorts, strategy's state and updates, slices, selection,
 *   buffer
 *
 * Absent vectors are empty. restore.c reads the same in the same order. */
#include "server/server.h"

#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "server/buffered.h"
#include "server/cohorts.h"
#include "server/resting.h"
#include "server/state.h"
#include "server/rule.h"
#include "server/selector.h"
#include "server/slices.h"
#include "wire/container.h"

/* n floats as little-endian f32; values NULL = absent. */
static void write_floats(fli_msg_writer *writer, fl_context *context,
                         const float *values, uint64_t n)
{
  const size_t count = values ? (size_t)n : 0;
  uint8_t *bytes = fli_alloc(context, count, sizeof *values);
  if (!bytes) {
    if (writer->status == FL_OK) writer->status = fli_nomem(count * 4);
    return;
  }
  for (size_t i = 0; i < count; i++)
    fli_store_f32(bytes + 4 * i, values[i]);
  fli_writer_bin(writer, bytes, count * sizeof *values);
  fli_free(context, bytes, count * sizeof *values);
}

static void write_steps(fli_msg_writer *writer, const fli_store *store)
{
  fli_writer_array(writer, (uint32_t)store->n_steps);
  for (size_t i = 0; i < store->n_steps; i++) {
    const fli_step *step = &store->steps[i];
    fli_writer_array(writer, 3);
    fli_writer_u64(writer, step->base_version);
    fli_writer_bin(writer, step->base_hash, FLI_HASH_BYTES);
    fli_writer_bin(writer, step->record->bytes.data, step->record->bytes.size);
  }
}

static uint64_t left(const fl_server *server, uint64_t until_ns)
{
  if (until_ns == UINT64_MAX) return UINT64_MAX;
  return until_ns > server->now_ns ? until_ns - server->now_ns : 0;
}

static void write_participants(fli_msg_writer *writer, const fl_server *server,
                               fli_participant *const *sorted, uint32_t n)
{
  fli_participant woken;
  fli_standing standing;
  fli_writer_array(writer, n);
  for (uint32_t i = 0; i < n; i++) {
    const fli_participant *who = sorted[i];
    if (fli_is_resting(who)) {
      memset(&woken, 0, sizeof woken);
      fli_resting_read(who, &woken);
      who = &woken;
    }
    fli_saved_participant saved = {
        .samples = who->samples,
        .capabilities = who->capabilities,
        .counted_round = who->counted_round,
        .counted_attempt = who->counted_attempt,
        .is_expected = who->peer || who->is_in_grace,
        .before_round = who->before_round,
        .before_attempt = who->before_attempt,
        .depth = who->depth,
        .is_leaving = (uint32_t)who->is_leaving,
    };
    if (fli_participant_standing(sorted[i], &standing)) {
      saved.key = standing.has_key ? standing.key : NULL;
      saved.key_size = standing.has_key ? FLI_NAME_BYTES : 0;
      saved.messages_left_ns = left(server, standing.messages_ns);
      saved.rejects_left_ns = left(server, standing.rejects_ns);
    }
    memcpy(saved.id, who->id, sizeof saved.id);
    fli_saved_write(writer, &fli_saved_participants, &saved);
  }
}

static void write_round(fli_msg_writer *writer, const fli_job *job)
{
  const fli_saved_round saved = {
      .phase = (uint32_t)job->phase,
      .attempt = job->attempt,
      .round = job->round,
      .is_begun = (uint32_t)job->is_begun,
      .marks = (job->is_stopping ? FLI_SAVED_STOPPING : 0u) |
               (job->is_paused ? FLI_SAVED_PAUSED : 0u),
      .is_public = (uint32_t)job->is_public,
      .n_wanted = job->n_wanted,
      .weight_cap = job->weight_cap,
      .hold_left_ns = left(job->server, job->hold_ns),
      .deadline_left_ns = left(job->server, job->deadline_ns),
      .clip = job->clip,
      .energy_bits = fli_f64_bits(job->energy),
      .correlation_bits = fli_f64_bits(job->correlation),
      .bytes_saved = job->bytes_saved,
  };
  fli_saved_write(writer, &fli_saved_rounds, &saved);
}

/* Both lists are sorted by id: one pass finds every member's place. */
static void write_members(fli_msg_writer *writer, const fli_job *job,
                          fli_participant *const *sorted)
{
  uint32_t place = 0;
  fli_writer_array(writer, job->n_members);
  for (uint32_t i = 0; i < job->n_members; i++) {
    const fli_member *member = &job->members[i];
    while (sorted[place] != member->participant)
      place++;
    const fli_saved_member saved = {
        .participant = place,
        .lost = member->lost,
        .samples = member->samples,
        .loss_bits = fli_f64_bits(member->loss),
        .correct = member->correct,
        .count = member->count,
        .is_out = member->is_out,
        .has_norm = member->has_norm,
        .is_counted = member->is_counted,
        .has_score = member->has_score,
        .first_active = member->first_active,
        .has_report = member->has_report,
        .report_module = member->report_module,
        .report_bits = fli_f64_bits(member->report_value),
        .seconds_bits = fli_f32_bits(member->seconds),
        .task = member->task,
    };
    fli_saved_write(writer, &fli_saved_members, &saved);
  }
}

static fl_status write_sum(fli_msg_writer *writer, const fli_job *job)
{
  fl_status st = FL_OK;
  fli_bytes sum;
  fli_bytes_init(&sum, job->context);
  if (job->partial && fl_partial_count(job->partial) > 0) {
    FLI_TRY(fli_sum_bytes(job->partial, &sum));
  }
  fli_writer_bin(writer, sum.data, sum.size);
out:
  fli_bytes_free(&sum);
  return st;
}

static fl_status write_scale(fli_msg_writer *writer, const fli_job *job)
{
  const size_t n = (size_t)job->n_norms;
  const int is_agreed = job->partial != NULL;
  fli_writer_bin(writer, job->reported,
                 job->reported ? job->n_members * n * 2 : 0);
  fli_writer_bin(writer, job->norms_wire, is_agreed ? n * 2 : 0);
  fli_writer_array(writer, job->clamped ? (uint32_t)n : 0);
  for (size_t i = 0; job->clamped && i < n; i++) {
    fli_writer_u64(writer, job->clamped[i]);
  }
  return write_sum(writer, job);
}

static void write_accuracy(fli_msg_writer *writer,
                           const fl_client_accuracy *accuracy)
{
  fli_writer_array(writer, 5 + FLI_COUNT_OF(accuracy->quantiles));
  fli_writer_u64(writer, accuracy->clients);
  fli_writer_u64(writer, accuracy->round);
  fli_writer_f64(writer, accuracy->mean);
  fli_writer_f64(writer, accuracy->worst);
  fli_writer_f64(writer, accuracy->jain);
  for (size_t i = 0; i < FLI_COUNT_OF(accuracy->quantiles); i++)
    fli_writer_f64(writer, accuracy->quantiles[i]);
}

/* Participants are the front's. */
fl_status fli_job_write(fli_msg_writer *writer, const fli_job *job)
{
  const fli_canonical *model = &job->store.canonical;
  fl_status st = FL_OK;
  fli_participant **sorted = NULL;
  uint32_t n = 0;
  FLI_TRY(fli_registry_sorted(job->front ? job->front : job, 0, &sorted, &n));
  fli_writer_array(writer, FLI_SAVED_JOB_PARTS);
  fli_writer_str(writer, job->name);
  fli_saved_write(writer, &fli_saved_options, &job->options);
  fli_saved_write(writer, &fli_saved_codec, &job->codec);
  FLI_TRY(fli_rule_write_options(writer, job));
  FLI_TRY(fli_selector_write_options(writer, job));
  fli_writer_bin(writer, job->description.data, job->description.size);
  fli_writer_u64(writer, model->version);
  write_floats(writer, job->context, model->weights, model->n);
  write_floats(writer, job->context, job->momentum, model->n);
  write_floats(writer, job->context, job->residual, model->n);
  write_floats(writer, job->context, job->public_norms, job->n_norms);
  write_steps(writer, &job->store);
  FLI_TRY(fli_freezing_write(writer, job));
  write_participants(writer, job->server, sorted, job->front ? 0 : n);
  write_round(writer, job);
  write_members(writer, job, sorted);
  FLI_TRY(write_scale(writer, job));
  write_accuracy(writer, &job->accuracy);
  FLI_TRY(fli_cohorts_write(writer, job, sorted));
  FLI_TRY(fli_rule_write(writer, job));
  FLI_TRY(fli_slices_write(writer, job));
  fli_selector_write(writer, job, sorted, job->front ? 0 : n);
  FLI_TRY(fli_buffered_write(writer, job, sorted, n));
  st = fli_writer_status(writer);
out:
  fli_free(job->context, sorted, n * sizeof *sorted);
  return st;
}

fl_status fl_server_save(const fl_server *server, const fl_writer *writer)
{
  fl_status st = FL_OK;
  fli_bytes payload;
  fli_msg_writer pack;
  fli_clear_error();
  if (!server || !writer || !writer->write)
    return fli_error(FL_E_ARGUMENT, "fl_server_save: NULL argument");
  fli_bytes_init(&payload, server->context);
  fli_writer_init(&pack, &payload);
  fli_writer_array(&pack, 4);
  fli_writer_bin(&pack, server->secret, sizeof server->secret);
  fli_writer_array(&pack, (uint32_t)server->n_jobs);
  for (size_t i = 0; i < server->n_jobs; i++) {
    FLI_TRY(fli_job_write(&pack, server->jobs[i]));
  }
  FLI_TRY(fli_trust_write(&pack, server));
  FLI_TRY(fli_writer_status(&pack));
  FLI_TRY(fli_container_write(writer, FLI_STATE_SERVER,
                              FLI_SERVER_STATE_VERSION, &payload));
out:
  fli_bytes_free(&payload);
  return st;
}
