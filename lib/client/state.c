/* SPDX-License-Identifier: Apache-2.0 */
/* Saving and restoring a client: one msgpack map in a container (hash, kind,
 * version).
 *
 * Only what cannot be had again is saved: who we are, the model held, what
 * training gave and for which turn it was encoded; the bytes are made again
 * when the scale has come again. Where the round stands is not: the restored
 * client says HELLO and the server's answer tells, and a plan that asks for
 * what was trained already is answered without training. */
#include "client/state.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "compress/feedback.h"
#include "wire/container.h"

enum {
  STATE_VERSION = 3,
  STATE_FIRST = 2,       /* the oldest that is read: entries that came later are
                            absent, and what they stand for is as if never set */
  STATE_SLACK = 16 << 20 /* everything but vectors of the model's size */
};

/* ---- writing ------------------------------------------------------------ */

/* Number of map entries of each part. */
enum {
  ENTRIES_ALWAYS = 2,
  ENTRIES_CODEC = 6,
  ENTRIES_MODEL = 2,
  ENTRIES_TRAINED = 3,
  ENTRIES_ENCODED = 4,
  ENTRIES_UNACKED = 2,
  ENTRIES_FEEDBACK = 4,
  ENTRIES_REPORT = 2,
  ENTRIES_SPARSE = 2,
  ENTRIES_DAY = 2
};

static int has_model(const fl_client *client)
{
  return client->has_canonical && client->canonical.is_valid;
}

static int has_table(const fl_client *client)
{
  return client->compressor && client->codec.n_table > 0;
}

static int has_report(const fl_client *client)
{
  return client->trained.is_valid && !isnan(client->trained.report_value);
}

/* What was counted outlives a restored client whose budget is not said yet. */
static int has_day(const fl_client *client)
{
  return client->limits || client->day != 0;
}

static int has_sparse(const fl_client *client)
{
  return client->trained.is_valid && client->sparse_id != 0;
}

static uint32_t count_entries(const fl_client *client)
{
  uint32_t n = ENTRIES_ALWAYS;
  n += client->has_token ? 1 : 0;
  n += client->has_schema ? 1 : 0;
  n += client->compressor ? ENTRIES_CODEC : 0;
  n += has_model(client) ? ENTRIES_MODEL : 0;
  if (client->trained.is_valid) {
    n += ENTRIES_TRAINED;
    n += isnan(client->trained.loss) ? 0 : 1;
    n += client->encoded.is_valid ? ENTRIES_ENCODED : 0;
  }
  n += client->is_unacked ? ENTRIES_UNACKED : 0;
  n += client->phase == FLI_PHASE_DONE ? 1 : 0;
  n += has_table(client) ? 1 : 0;
  n += client->feedback ? ENTRIES_FEEDBACK : 0;
  n += has_report(client) ? ENTRIES_REPORT : 0;
  n += has_sparse(client) ? ENTRIES_SPARSE : 0;
  n += has_day(client) ? ENTRIES_DAY : 0;
  return n;
}

static void write_codec(fli_msg_writer *writer,
                        const fl_compressor_options *codec)
{
  fli_field_u64(writer, KEY_CODEC, codec->codec);
  fli_field_u64(writer, KEY_THC_MODE, codec->thc_mode);
  fli_field_u64(writer, KEY_BITS, codec->bits);
  fli_field_u64(writer, KEY_GRANULARITY, codec->granularity);
  fli_field_f32(writer, KEY_CLIP, codec->clip);
  fli_field_bin(writer, KEY_ROTATION_SEED, codec->rotation_seed,
                sizeof codec->rotation_seed);
}

static fl_status write_trained(const fl_client *client, fli_msg_writer *writer,
                               fli_bytes *scratch)
{
  const fli_trained *trained = &client->trained;
  const fli_encoded *encoded = &client->encoded;
  fli_bytes_clear(scratch);
  fl_status st = fli_write_plan(scratch, &trained->plan);
  if (st != FL_OK) return st;
  fli_field_bin(writer, KEY_PLAN, scratch->data + FLI_FRAME_HEADER,
                scratch->size - FLI_FRAME_HEADER);
  fli_field_u64(writer, KEY_SAMPLES, trained->samples);
  if (!isnan(trained->loss)) fli_field_f64(writer, KEY_LOSS, trained->loss);
  if (!client->paging)
    fli_field_floats(writer, KEY_UPDATE, trained->update,
                     (size_t)client->n_weights);
  if (!encoded->is_valid) return FL_OK;
  fli_field_u64(writer, KEY_ENCODED_ATTEMPT, encoded->turn.attempt);
  fli_field_u64(writer, KEY_ENCODED_SLOT, encoded->slot);
  fli_field_bin(writer, KEY_SCALE_ID, encoded->scale_id,
                sizeof encoded->scale_id);
  fli_field_bin(writer, KEY_CLAMPED, encoded->clamped.data,
                encoded->clamped.size);
  return FL_OK;
}

static fl_status write_feedback(const fl_client *client, fli_msg_writer *writer,
                                fli_bytes *scratch)
{
  fli_bytes_clear(scratch);
  fl_status st = fli_feedback_write(client->feedback, scratch);
  if (st != FL_OK) return st;
  fli_field_f32(writer, KEY_FEEDBACK_DECAY, client->feedback->decay);
  fli_field_bin(writer, KEY_FEEDBACK, scratch->data, scratch->size);
  fli_field_u64(writer, KEY_FED_ROUND, client->fed.round);
  fli_field_u64(writer, KEY_FED_ATTEMPT, client->fed.attempt);
  return FL_OK;
}

static fl_status write_paged(const fl_client *client, fli_msg_writer *writer)
{
  uint8_t state[2][FLI_PAGED_STATE];
  const fl_status st = client->paging->save(client, state);
  if (st == FL_OK && has_model(client))
    fli_field_bin(writer, KEY_PAGED, state[0], sizeof state[0]);
  if (st == FL_OK && client->trained.is_valid)
    fli_field_bin(writer, KEY_PAGED_UPDATE, state[1], sizeof state[1]);
  return st;
}

static fl_status write_state(const fl_client *client, fli_bytes *payload,
                             fli_bytes *scratch)
{
  fl_status st = FL_OK;
  fli_msg_writer writer;
  fli_writer_init(&writer, payload);
  fli_writer_map(&writer, count_entries(client));
  fli_field_str(&writer, KEY_ID, client->id);
  fli_field_str(&writer, KEY_JOB, client->job);
  if (client->has_token)
    fli_field_bin(&writer, KEY_TOKEN, client->token, sizeof client->token);
  if (client->has_schema)
    fli_field_bin(&writer, KEY_DESCRIPTION, client->description.data,
                  client->description.size);
  if (client->compressor) write_codec(&writer, &client->codec);
  if (has_model(client)) {
    fli_field_u64(&writer, KEY_MODEL_VERSION, client->canonical.version);
    if (!client->paging)
      fli_field_floats(&writer, KEY_WEIGHTS, client->canonical.weights,
                       (size_t)client->n_weights);
  }
  if (client->trained.is_valid)
    FLI_TRY(write_trained(client, &writer, scratch));
  if (client->is_unacked) {
    fli_field_u64(&writer, KEY_UNACKED_ROUND, client->unacked.round);
    fli_field_u64(&writer, KEY_UNACKED_ATTEMPT, client->unacked.attempt);
  }
  if (client->phase == FLI_PHASE_DONE) fli_field_u64(&writer, KEY_IS_DONE, 1);
  if (has_table(client))
    fli_field_bin(&writer, KEY_TABLE, client->codec.table,
                  client->codec.n_table);
  if (client->feedback) FLI_TRY(write_feedback(client, &writer, scratch));
  if (has_report(client)) {
    fli_field_u64(&writer, KEY_REPORT_MODULE, client->trained.report_module);
    fli_field_f64(&writer, KEY_REPORT_VALUE, client->trained.report_value);
  }
  if (has_sparse(client)) {
    fli_field_u64(&writer, KEY_SPARSE_ID, client->sparse_id);
    fli_field_bin(&writer, KEY_SPARSE, client->sparse.data,
                  client->sparse.size);
  }
  if (client->paging) FLI_TRY(write_paged(client, &writer));
  if (has_day(client)) {
    fli_field_u64(&writer, KEY_DAY, client->day);
    fli_field_u64(&writer, KEY_SPENT, client->spent);
  }
  st = fli_writer_status(&writer);
out:
  return st;
}

/* ---- restoring ---------------------------------------------------------- */

static fl_status check_identity(const fl_client *client,
                                const fli_saved_state *state)
{
  if (strcmp(client->id, state->id) != 0)
    return fli_error(FL_E_CONFLICT, "state: of client %s, want %s", state->id,
                     client->id);
  if (strcmp(client->job, state->job) != 0)
    return fli_error(FL_E_CONFLICT, "state: of job \"%s\", want \"%s\"",
                     state->job, client->job);
  return FL_OK;
}

static fl_status restore_model(fl_client *client, const fli_saved_state *state)
{
  fl_status st = FL_OK;
  const state_view *description = &state->description;
  if (!description->data) return FL_OK;
  if (!client->has_schema)
    FLI_TRY(fli_client_learn_description(client, description->data,
                                         description->size));
  else if (client->description.size != description->size ||
           memcmp(client->description.data, description->data,
                  description->size) != 0)
    FLI_TRY(fli_error(FL_E_SCHEMA, "state: of a model of another schema"));
  if (state->codec.codec == 0) return FL_OK;
  FLI_TRY(fli_client_set_codec(client, &state->codec));
  if (client->paging) {
    client->canonical.version = state->model_version;
    if (state->is_paged)
      st = client->paging->restore_model(client, state->paged[0],
                                         &client->canonical.is_valid);
    return st;
  }
  if (!state->weights.data) return FL_OK;
  FLI_TRY(fli_canonical_set(&client->canonical, state->model_version,
                            state->weights.data, state->weights.size));
  fli_canonical_hash(&client->canonical, client->model_hash);
out:
  return st;
}

static fl_status restore_trained(fl_client *client,
                                 const fli_saved_state *state)
{
  fl_status st = FL_OK;
  fli_trained *trained = &client->trained;
  size_t n = (size_t)client->n_weights;
  if (!state->plan.data) return FL_OK;
  FLI_TRY(fli_parse_plan(&trained->plan, state->plan.data, state->plan.size));
  trained->plan.noise_seed = NULL;
  trained->plan.norms = NULL;
  trained->plan.norms_size = 0;
  trained->plan.slices = NULL;
  trained->plan.slices_size = 0;
  trained->plan.freeze_plan = NULL;
  trained->plan.freeze_plan_size = 0;
  if (client->paging) {
    int is_held = 0;
    if (client->canonical.is_valid)
      FLI_TRY(
          client->paging->restore_update(client, state->paged[1], &is_held));
    if (!is_held) return FL_OK;
  }
  if (!client->compressor || state->samples < 1 ||
      (!client->paging && state->update.size != 4 * n))
    FLI_TRY(fli_error(FL_E_FORMAT, "state: the update does not fit the model"));
  if (client->paging)
    n = 0;
  else if (!(trained->update = fli_alloc(client->context, n, sizeof(float))))
    FLI_TRY(fli_nomem(n * sizeof *trained->update));
  for (size_t i = 0; i < n; i++) {
    trained->update[i] = fli_load_f32(state->update.data + 4 * i);
    if (!isfinite(trained->update[i]))
      FLI_TRY(fli_error(FL_E_FORMAT, "state: the update is not finite"));
  }
  trained->samples = state->samples;
  trained->loss = isfinite(state->loss) ? state->loss : (double)NAN;
  trained->report_module = state->report_module;
  trained->report_value =
      isfinite(state->report_value) && state->report_value >= 0.0
          ? state->report_value
          : (double)NAN;
  trained->is_valid = 1;
out:
  return st;
}

static fl_status restore_sparse(fl_client *client, const fli_saved_state *state)
{
  if (!client->trained.is_valid || !state->sparse.data) return FL_OK;
  if (state->sparse.size < 1 || state->sparse.size > UINT32_MAX)
    return fli_error(FL_E_FORMAT, "state: its sparse update");
  client->sparse_id = state->sparse_id;
  return fli_bytes_append(&client->sparse, state->sparse.data,
                          state->sparse.size);
}

static fl_status restore_encoded(fl_client *client,
                                 const fli_saved_state *state)
{
  fl_status st = FL_OK;
  fli_encoded *encoded = &client->encoded;
  if (!client->trained.is_valid || !state->has_encoded) return FL_OK;
  if (state->clamped.size != 0 &&
      state->clamped.size != 2 * (size_t)client->n_norms)
    FLI_TRY(fli_error(FL_E_FORMAT, "state: the encoding does not fit"));
  FLI_TRY(fli_bytes_append(&encoded->clamped, state->clamped.data,
                           state->clamped.size));
  encoded->turn = (fli_turn){client->trained.plan.round, state->attempt};
  encoded->slot = state->slot;
  memcpy(encoded->scale_id, state->scale_id, sizeof encoded->scale_id);
  encoded->is_valid = 1;
out:
  return st;
}

static fl_status restore_feedback(fl_client *client,
                                  const fli_saved_state *state)
{
  fl_status st = FL_OK;
  const fli_trained *trained = &client->trained;
  if (!client->compressor || !state->feedback.data) return FL_OK;
  FLI_TRY(fli_client_set_feedback(client, 1, state->decay));
  FLI_TRY(fli_feedback_read(client->feedback, state->feedback.data,
                            state->feedback.size));
  if (trained->is_valid && client->feedback->phase != FL_FEEDBACK_IDLE &&
      client->feedback->samples != trained->samples)
    FLI_TRY(fli_error(FL_E_FORMAT, "state: the feedback is of another update"));
  client->fed = state->fed;
out:
  return st;
}

static fl_status restore_state(fl_client *client, const fli_bytes *payload)
{
  fl_status st = FL_OK;
  fli_saved_state state;
  FLI_TRY(fli_client_read_state(payload, &state));
  FLI_TRY(check_identity(client, &state));
  if (state.is_paged && !client->paging)
    FLI_TRY(fli_error(FL_E_CONFLICT, "state: of a paged model"));
  FLI_TRY(restore_model(client, &state));
  FLI_TRY(restore_trained(client, &state));
  FLI_TRY(restore_feedback(client, &state));
  FLI_TRY(restore_sparse(client, &state));
  FLI_TRY(restore_encoded(client, &state));
  client->has_token = state.has_token;
  memcpy(client->token, state.token, sizeof client->token);
  client->has_said_hello = state.has_token;
  client->is_unacked = state.unacked.round > 0;
  client->unacked = state.unacked;
  client->day = state.day;
  client->spent = state.spent;
  if (state.is_done) {
    client->phase = FLI_PHASE_DONE;
    fli_client_raise(client, FL_CLIENT_DONE);
  }
out:
  fli_wipe(&state, sizeof state);
  return st;
}

fl_status fl_client_save(const fl_client *client, const fl_writer *writer)
{
  fl_status st = FL_OK;
  fli_bytes payload, scratch;
  fli_clear_error();
  if (!client || !writer || !writer->write)
    return fli_error(FL_E_ARGUMENT, "fl_client_save: NULL argument");
  if (!client->paging && client->n_weights > UINT32_MAX / sizeof(float))
    return fli_error(FL_E_TOO_LARGE, "state: got %llu weights, want <= %llu",
                     (unsigned long long)client->n_weights,
                     (unsigned long long)(UINT32_MAX / sizeof(float)));
  fli_bytes_init(&payload, client->context);
  fli_bytes_init(&scratch, client->context);
  FLI_TRY(write_state(client, &payload, &scratch));
  FLI_TRY(
      fli_container_write(writer, FLI_STATE_CLIENT, STATE_VERSION, &payload));
out:
  fli_bytes_free(&scratch);
  fli_bytes_free(&payload);
  return st;
}

fl_status fl_client_restore(fl_client **out, fl_context *context,
                            const fl_client_options *options,
                            const fl_reader *reader)
{
  fl_status st = FL_OK;
  uint32_t version;
  fl_client *client = NULL;
  fli_bytes payload;
  fli_clear_error();
  if (!out || !options || !reader || !reader->read)
    return fli_error(FL_E_ARGUMENT, "fl_client_restore: NULL argument");
  fli_bytes_init(&payload, context);
  FLI_TRY(fli_client_make(&client, context, options));
  /* Weights, update and its encoding, two vectors of error feedback: none of
   * them above 4 bytes a weight. */
  FLI_TRY(fli_container_read(reader, FLI_STATE_CLIENT, STATE_VERSION,
                             24 * client->options.max_weights + STATE_SLACK,
                             &version, &payload));
  FLI_TRY(fli_container_check_first(version, STATE_FIRST, STATE_VERSION));
  FLI_TRY(restore_state(client, &payload));
  *out = client;
  client = NULL;
out:
  fli_bytes_free(&payload);
  fl_client_free(client);
  return st;
}
