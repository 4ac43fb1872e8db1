/* SPDX-License-Identifier: Apache-2.0 */
/* A server out of a snapshot (save.c has the layout). The container's hash
 * tells a torn file; everything is checked again as it is read all the same,
 * since nothing proves who wrote it. All clients start as just lost: they have
 * the usual grace to return, counted from the host's first tick. */
#include "server/server.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "server/buffered.h"
#include "server/cohorts.h"
#include "server/state.h"
#include "server/rule.h"
#include "server/selector.h"
#include "server/slices.h"
#include "wire/container.h"

static fl_status malformed(const char *what)
{
  return fli_error(FL_E_FORMAT, "state: %s does not fit the job", what);
}

/* A vector of n floats into `values`; NULL = must be absent. */
static fl_status read_floats(fli_msg_reader *reader, float *values, uint64_t n,
                             const char *what)
{
  size_t size = 0;
  const uint8_t *data = fli_reader_bin(reader, &size);
  if (fli_reader_status(reader) != FL_OK) return fli_reader_status(reader);
  if (size != (values ? (size_t)n * sizeof *values : 0)) {
    return malformed(what);
  }
  for (size_t i = 0; i < size / sizeof *values; i++) {
    values[i] = fli_load_f32(data + 4 * i);
    if (!isfinite(values[i])) return malformed(what);
  }
  return FL_OK;
}

/* ---- the job itself ---- */

static fl_status read_new_job(fl_server *server, fli_msg_reader *reader,
                              fli_job **job)
{
  fl_status st = FL_OK;
  fl_job_options options;
  fl_compressor_options codec;
  fl_strategy_options strategy;
  fl_selection_options selection;
  char name[FLI_ID_BYTES] = "";
  fl_model *model = NULL;
  size_t size = 0;
  const uint8_t *description;
  FLI_TRY(fl_job_options_init(&options, sizeof options));
  FLI_TRY(fl_compressor_options_init(&codec, sizeof codec));
  fli_reader_str_copy(reader, name, sizeof name, "state: job name");
  fli_saved_read(reader, &fli_saved_options, &options);
  fli_saved_read(reader, &fli_saved_codec, &codec);
  FLI_TRY(fli_reader_status(reader)); /* what makes options clears its text */
  options.strategy = fli_rule_read_options(reader, &strategy);
  options.selection = fli_selector_read_options(reader, &selection);
  description = fli_reader_bin(reader, &size);
  FLI_TRY(fli_reader_status(reader));
  options.name = name;
  options.codec = &codec;
  FLI_TRY(fli_job_options_check(&options));
  FLI_TRY(
      fl_model_from_description(&model, server->context, description, size));
  FLI_TRY(fli_job_new(job, server, (uint32_t)server->n_jobs, &options, model));
out:
  fl_model_free(model);
  return st;
}

static fl_status read_steps(fli_job *job, fli_msg_reader *reader)
{
  fl_status st = FL_OK;
  fli_blob *record = NULL;
  uint32_t left = fli_reader_array(reader);
  for (; left > 0 && fli_reader_status(reader) == FL_OK; left--) {
    uint8_t hash[FLI_HASH_BYTES];
    size_t size = 0;
    const uint32_t n = fli_reader_array(reader);
    const uint64_t base = fli_reader_u64(reader);
    fli_reader_bin_exact(reader, hash, sizeof hash, "state: step hash");
    const uint8_t *data = fli_reader_bin(reader, &size);
    fli_reader_leave(reader);
    FLI_TRY(fli_reader_status(reader));
    if (n != 3 || base + left != job->store.canonical.version) {
      FLI_TRY(malformed("a step"));
    }
    record = fli_blob_new(job->context);
    if (!record) FLI_TRY(fli_nomem(sizeof *record));
    FLI_TRY(fli_bytes_append(&record->bytes, data, size));
    FLI_TRY(fli_store_keep(&job->store, base, hash, record));
    record = NULL;
  }
  fli_reader_leave(reader);
  st = fli_reader_status(reader);
out:
  fli_blob_unref(record);
  return st;
}

static fl_status read_public_norms(fli_job *job, fli_msg_reader *reader)
{
  const size_t n = (size_t)job->n_norms;
  fli_msg_reader ahead = *reader;
  size_t size = 0;
  (void)fli_reader_bin(&ahead, &size);
  if (size > 0 && job->options.scale_mode == FL_SCALE_PUBLIC) {
    job->public_norms = fli_alloc(job->context, n, sizeof(float));
    if (!job->public_norms) return fli_nomem(n * sizeof(float));
  }
  return read_floats(reader, job->public_norms, n, "announced norms");
}

static fl_status read_model(fli_job *job, fli_msg_reader *reader)
{
  const uint64_t n = job->store.canonical.n;
  fl_status st = FL_OK;
  size_t size = 0;
  const uint64_t version = fli_reader_u64(reader);
  const uint8_t *weights = fli_reader_bin(reader, &size);
  FLI_TRY(fli_reader_status(reader));
  FLI_TRY(fli_store_set(&job->store, version, weights, size));
  FLI_TRY(read_floats(reader, job->momentum, n, "momentum"));
  FLI_TRY(read_floats(reader, job->residual, n, "residual"));
  FLI_TRY(read_public_norms(job, reader));
  FLI_TRY(read_steps(job, reader));
out:
  return st;
}

/* ---- participants ---- */

/* No allowance takes longer than an interval to be whole again. */
static uint64_t whole_at(const fl_server *server, uint64_t left_ns)
{
  const uint64_t most = server->options.rate_interval_ns;
  return fli_later(server->now_ns, left_ns < most ? left_ns : most);
}

static fl_status restore_standing(fli_participant *who,
                                  const fli_saved_participant *saved)
{
  if (saved->is_leaving) fli_forget_mark(who);
  if (saved->key && saved->key_size != FLI_NAME_BYTES)
    return malformed("a client's key");
  if (!saved->key && !saved->messages_left_ns && !saved->rejects_left_ns)
    return FL_OK;
  fli_standing *standing = fli_standing_of(who);
  if (!standing) return fli_nomem(sizeof *standing);
  if (saved->key) memcpy(standing->key, saved->key, FLI_NAME_BYTES);
  standing->has_key = saved->key != NULL;
  standing->messages_ns = whole_at(who->home->server, saved->messages_left_ns);
  standing->rejects_ns = whole_at(who->home->server, saved->rejects_left_ns);
  return FL_OK;
}

static fl_status read_participants(fli_job *job, fli_msg_reader *reader)
{
  fl_status st = FL_OK;
  uint32_t left = fli_reader_array(reader);
  for (; left > 0; left--) {
    fli_saved_participant saved;
    fli_participant *who = NULL;
    memset(&saved, 0, sizeof saved);
    fli_saved_read(reader, &fli_saved_participants, &saved);
    if (fli_reader_status(reader) != FL_OK) break;
    if (fli_registry_find(job, saved.id)) return malformed("a client's id");
    FLI_TRY(fli_registry_add(job, saved.id, &who));
    who->samples = saved.samples;
    who->capabilities = saved.capabilities;
    who->counted_round = saved.counted_round;
    who->counted_attempt = saved.counted_attempt;
    who->before_round = saved.before_round;
    who->before_attempt = saved.before_attempt;
    who->depth = saved.depth;
    FLI_TRY(restore_standing(who, &saved));
    if (saved.is_expected) {
      fli_registry_detach(who, 1);
    } else {
      fli_registry_tire(who);
    }
  }
  fli_reader_leave(reader);
  st = fli_reader_status(reader);
out:
  return st;
}

/* ---- the round ---- */

/* A clip out of range is refused with the scale that it is part of. */
static fl_status restore_clip(fli_job *job, const fli_saved_round *saved)
{
  const double energy = fli_f64_from_bits(saved->energy_bits);
  const double correlation = fli_f64_from_bits(saved->correlation_bits);
  if (!(energy >= 0.0 && isfinite(energy)) ||
      !(correlation >= 0.0 && correlation <= 1.0)) {
    return malformed("what is known of the updates");
  }
  job->clip = saved->clip;
  job->energy = energy;
  job->correlation = correlation;
  return FL_OK;
}

static fl_status read_round(fli_job *job, fli_msg_reader *reader)
{
  fli_saved_round saved;
  memset(&saved, 0, sizeof saved);
  fli_saved_read(reader, &fli_saved_rounds, &saved);
  if (fli_reader_status(reader) != FL_OK) return fli_reader_status(reader);
  if (saved.phase < FLI_PHASE_WAITING || saved.phase > FLI_PHASE_SCORES ||
      saved.round < 1 || saved.round > job->options.rounds ||
      saved.marks > (FLI_SAVED_STOPPING | FLI_SAVED_PAUSED)) {
    return malformed("the round");
  }
  job->phase = (fli_phase)saved.phase;
  job->round = saved.round;
  job->attempt = saved.attempt;
  job->is_begun = saved.is_begun != 0;
  job->is_stopping = (saved.marks & FLI_SAVED_STOPPING) != 0;
  job->is_paused = (saved.marks & FLI_SAVED_PAUSED) != 0;
  job->is_public = saved.is_public != 0;
  job->n_wanted = saved.n_wanted;
  job->weight_cap = saved.weight_cap;
  job->bytes_saved = saved.bytes_saved;
  job->hold_ns = saved.hold_left_ns;
  job->deadline_ns = saved.deadline_left_ns;
  fli_derive(job->noise_seed, job->seed, "round noise", fli_job_turn(job),
             job->attempt);
  return restore_clip(job, &saved);
}

static void restore_member(fli_job *job, uint32_t slot,
                           const fli_saved_member *saved,
                           fli_participant *participant)
{
  const double report = fli_f64_from_bits(saved->report_bits);
  const fli_member member = {
      .participant = participant,
      .samples = saved->samples,
      .loss = fli_f64_from_bits(saved->loss_bits),
      .correct = saved->correct,
      .count = saved->count,
      .lost = saved->lost,
      .is_out = saved->is_out != 0,
      .has_norm = saved->has_norm != 0,
      .is_counted = saved->is_counted != 0,
      .has_score = saved->has_score != 0,
      .first_active = saved->first_active,
      .has_report = saved->has_report != 0 && isfinite(report) && report >= 0.0,
      .report_module = saved->report_module,
      .report_value = report,
      .seconds = fli_f32_from_bits(saved->seconds_bits),
      .task = saved->task,
  };
  const int is_report =
      job->phase == FLI_PHASE_EVALUATING ? member.has_score : member.has_norm;
  job->members[slot] = member;
  participant->member = slot;
  job->n_reports += (uint32_t)is_report;
  job->n_counted += member.is_counted;
}

static fl_status read_members(fli_job *job, fli_msg_reader *reader)
{
  fl_status st = FL_OK;
  fli_participant **sorted = NULL;
  uint32_t n_sorted = 0, next = 0;
  const uint32_t n = fli_reader_array(reader);
  FLI_TRY(fli_reader_status(reader));
  FLI_TRY(fli_registry_sorted(job->front ? job->front : job, 0, &sorted,
                              &n_sorted));
  if (n > n_sorted || n > FL_MAX_SLOTS) FLI_TRY(malformed("the members"));
  if (n > 0) {
    job->members = fli_alloc(job->context, n, sizeof *job->members);
    if (!job->members) FLI_TRY(fli_nomem(n * sizeof *job->members));
  }
  for (uint32_t i = 0; i < n; i++) {
    fli_saved_member saved;
    memset(&saved, 0, sizeof saved);
    fli_saved_read(reader, &fli_saved_members, &saved);
    FLI_TRY(fli_reader_status(reader));
    if (saved.participant < next || saved.participant >= n_sorted ||
        saved.first_active >= job->n_modules) {
      FLI_TRY(malformed("a member"));
    }
    restore_member(job, i, &saved, sorted[saved.participant]);
    next = saved.participant + 1;
  }
  job->n_members = n;
  fli_reader_leave(reader);
out:
  if (st != FL_OK && job->members) {
    fli_free(job->context, job->members, n * sizeof *job->members);
    job->members = NULL;
  }
  fli_free(job->context, sorted, n_sorted * sizeof *sorted);
  return st;
}

static fl_status check_round(const fli_job *job)
{
  const int is_running =
      job->phase == FLI_PHASE_NORMS || job->phase == FLI_PHASE_UPDATES;
  if (is_running ? job->n_wanted < 1 || job->n_wanted > job->n_members
                 : job->phase != FLI_PHASE_EVALUATING && job->n_members > 0) {
    return malformed("the members");
  }
  if (job->is_public &&
      (!job->public_norms || job->phase != FLI_PHASE_UPDATES)) {
    return malformed("the announced scale");
  }
  return FL_OK;
}

/* ---- its scale and sum ---- */

static fl_status read_reported(fli_job *job, fli_msg_reader *reader)
{
  const size_t row = (size_t)job->n_norms * 2;
  const size_t want = job->phase == FLI_PHASE_NORMS ? row * job->n_members : 0;
  size_t size = 0;
  const uint8_t *data = fli_reader_bin(reader, &size);
  if (fli_reader_status(reader) != FL_OK) return fli_reader_status(reader);
  if (size != want) return malformed("the reported norms");
  for (uint32_t i = 0; want > 0 && i < job->n_members; i++) {
    const fl_status st =
        fli_norms_from_bf16(job->norms, job->n_norms, data + i * row, row);
    if (st != FL_OK) return st;
  }
  if (want > 0) memcpy(job->reported, data, want);
  return FL_OK;
}

static fl_status read_agreed(fli_job *job, fli_msg_reader *reader)
{
  size_t size = 0;
  const uint8_t *data = fli_reader_bin(reader, &size);
  if (fli_reader_status(reader) != FL_OK) return fli_reader_status(reader);
  if (job->phase != FLI_PHASE_UPDATES || fli_buffered_runs(job)) {
    return size == 0 ? FL_OK : malformed("the agreed norms");
  }
  const fl_status st =
      fli_norms_from_bf16(job->norms, job->n_norms, data, size);
  return st == FL_OK ? fli_round_open_partial(job) : st;
}

static fl_status read_clamped(fli_job *job, fli_msg_reader *reader)
{
  const uint32_t n = fli_reader_array(reader);
  if (fli_reader_status(reader) != FL_OK) return fli_reader_status(reader);
  if (n != (job->clamped ? job->n_norms : 0)) {
    return malformed("the clamp counts");
  }
  for (uint32_t i = 0; i < n; i++)
    job->clamped[i] = fli_reader_u64(reader);
  fli_reader_leave(reader);
  return fli_reader_status(reader);
}

static fl_status read_sum(fli_job *job, fli_msg_reader *reader)
{
  size_t size = 0;
  const uint8_t *data = fli_reader_bin(reader, &size);
  fl_status st = fli_reader_status(reader);
  if (st != FL_OK) return st;
  if (size > 0 && !job->partial) return malformed("the sum");
  if (size > 0) st = fl_partial_merge_bytes(job->partial, data, size);
  if (st != FL_OK) return st;
  if (!job->partial) return FL_OK;
  for (uint32_t i = 0; i < job->n_members; i++) {
    if (fl_partial_has_slot(job->partial, i) != job->members[i].is_counted) {
      return malformed("the sum");
    }
  }
  return FL_OK;
}

static fl_status read_scale(fli_job *job, fli_msg_reader *reader)
{
  fl_status st = FL_OK;
  if ((job->phase == FLI_PHASE_NORMS || job->phase == FLI_PHASE_UPDATES) &&
      !fli_buffered_runs(job)) {
    FLI_TRY(fli_round_alloc_scale(job, job->phase == FLI_PHASE_NORMS));
  }
  FLI_TRY(read_reported(job, reader));
  FLI_TRY(read_agreed(job, reader));
  FLI_TRY(read_clamped(job, reader));
  FLI_TRY(read_sum(job, reader));
  fli_round_count_open(job);
out:
  return st;
}

/* ---- all of it ---- */

static fl_status read_accuracy(fli_job *job, fli_msg_reader *reader)
{
  fl_client_accuracy *accuracy = &job->accuracy;
  const uint32_t n = fli_reader_array(reader);
  if (n != 5 + FLI_COUNT_OF(accuracy->quantiles)) return malformed("accuracy");
  accuracy->clients = fli_reader_u32(reader);
  accuracy->round = fli_reader_u64(reader);
  accuracy->mean = fli_reader_f64(reader);
  accuracy->worst = fli_reader_f64(reader);
  accuracy->jain = fli_reader_f64(reader);
  for (size_t i = 0; i < FLI_COUNT_OF(accuracy->quantiles); i++)
    accuracy->quantiles[i] = fli_reader_f64(reader);
  fli_reader_leave(reader);
  return fli_reader_status(reader);
}

fl_status fli_job_read(fl_server *server, fli_msg_reader *reader,
                       fli_job *front, fli_job **out)
{
  fl_status st = FL_OK;
  fli_job *job = NULL;
  if (fli_reader_array(reader) != FLI_SAVED_JOB_PARTS) {
    fli_reader_fail(reader, FL_E_FORMAT, "state: a job of another size");
    return fli_reader_status(reader);
  }
  FLI_TRY(read_new_job(server, reader, &job));
  job->front = front;
  FLI_TRY(read_model(job, reader));
  FLI_TRY(fli_freezing_read(job, reader));
  FLI_TRY(read_participants(job, reader));
  FLI_TRY(read_round(job, reader));
  FLI_TRY(read_members(job, reader));
  FLI_TRY(check_round(job));
  FLI_TRY(read_scale(job, reader));
  FLI_TRY(read_accuracy(job, reader));
  FLI_TRY(fli_cohorts_read(job, reader));
  FLI_TRY(fli_rule_read(job, reader));
  FLI_TRY(fli_slices_read(job, reader));
  FLI_TRY(fli_selector_read(job, reader));
  FLI_TRY(fli_buffered_read(job, reader));
  fli_reader_leave(reader);
  *out = job;
  job = NULL;
out:
  fli_job_free(job);
  return st;
}

static fl_status read_job(fl_server *server, fli_msg_reader *reader)
{
  fli_job *job = NULL;
  fl_status st = fli_job_read(server, reader, NULL, &job);
  if (st == FL_OK) st = fli_server_adopt(server, job);
  if (st != FL_OK) fli_job_free(job);
  return st;
}

static fl_status read_server(fl_server *server, fli_msg_reader *reader)
{
  if (fli_reader_array(reader) != 4) {
    fli_reader_fail(reader, FL_E_FORMAT,
                    "state: want a secret, jobs, keys and bans");
  }
  fli_reader_bin_exact(reader, server->secret, sizeof server->secret,
                       "state: secret");
  uint32_t left = fli_reader_array(reader);
  fl_status st = fli_reader_status(reader);
  for (; st == FL_OK && left > 0; left--)
    st = read_job(server, reader);
  if (st != FL_OK) return st;
  fli_reader_leave(reader);
  st = fli_trust_read(server, reader);
  if (st != FL_OK) return st;
  fli_reader_leave(reader);
  return fli_reader_finish(reader);
}

fl_status fli_server_read(fl_server **out, fl_context *context,
                          const fl_server_options *options,
                          const fl_reader *reader)
{
  fl_status st = FL_OK;
  fl_server *server = NULL;
  fli_bytes payload;
  fli_msg_reader unpack;
  uint32_t version = 0;
  fli_bytes_init(&payload, context);
  FLI_TRY(fli_server_create(&server, context, options));
  FLI_TRY(fli_container_read(reader, FLI_STATE_SERVER, FLI_SERVER_STATE_VERSION,
                             UINT64_MAX, &version, &payload));
  FLI_TRY(fli_container_check_first(version, FLI_SERVER_STATE_FIRST,
                                    FLI_SERVER_STATE_VERSION));
  fli_reader_init(&unpack, payload.data, payload.size);
  unpack.version = version;
  FLI_TRY(read_server(server, &unpack));
  /* In a store, what is put from now on is of this version. */
  if (version < FLI_SERVER_STATE_VERSION) fli_journal_step(server);
  *out = server;
  server = NULL;
out:
  fli_bytes_free(&payload);
  fl_server_free(server);
  return st;
}

fl_status fl_server_restore(fl_server **out, fl_context *context,
                            const fl_server_options *options,
                            const fl_reader *reader)
{
  fl_status st = FL_OK;
  fl_server *server = NULL;
  fli_clear_error();
  if (!out || !reader || !reader->read)
    return fli_error(FL_E_ARGUMENT, "fl_server_restore: NULL argument");
  FLI_TRY(fli_server_read(&server, context, options, reader));
  FLI_TRY(fli_journal_check_empty(server->journal.store));
  fli_journal_step(server);
  *out = server;
  server = NULL;
out:
  fl_server_free(server);
  return st;
}
