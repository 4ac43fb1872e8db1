/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the map of a client's saved state. */
#include <math.h>
#include <string.h>

#include "client/state.h"
#include "wire/container.h"

static void read_codec(fli_msg_reader *reader, uint32_t key,
                       fl_compressor_options *codec)
{
  switch (key) {
  case KEY_CODEC: codec->codec = fli_reader_u32(reader); break;
  case KEY_THC_MODE: codec->thc_mode = fli_reader_u32(reader); break;
  case KEY_BITS: codec->bits = fli_reader_u32(reader); break;
  case KEY_GRANULARITY: codec->granularity = fli_reader_u32(reader); break;
  case KEY_CLIP: codec->clip = fli_reader_f32(reader); break;
  default:
    fli_reader_bin_exact(reader, codec->rotation_seed,
                         sizeof codec->rotation_seed, "rotation seed");
    break;
  }
}

static void read_table(fli_msg_reader *reader, fl_compressor_options *codec)
{
  size_t size = 0;
  codec->table = fli_reader_bin(reader, &size);
  codec->n_table = (uint32_t)size;
}

static void read_encoded(fli_msg_reader *reader, uint32_t key,
                         fli_saved_state *state)
{
  switch (key) {
  case KEY_ENCODED_ATTEMPT: state->attempt = fli_reader_u32(reader); break;
  case KEY_ENCODED_SLOT: state->slot = fli_reader_u32(reader); break;
  case KEY_SCALE_ID:
    fli_reader_bin_exact(reader, state->scale_id, sizeof state->scale_id,
                         "scale id");
    state->has_encoded = 1;
    break;
  case KEY_ENCODED: fli_reader_skip(reader); break;
  default:
    state->clamped.data = fli_reader_bin(reader, &state->clamped.size);
    break;
  }
}

static void read_trained(fli_msg_reader *reader, uint32_t key,
                         fli_saved_state *state)
{
  switch (key) {
  case KEY_PLAN:
    state->plan.data = fli_reader_bin(reader, &state->plan.size);
    break;
  case KEY_SAMPLES:
    state->samples =
        fli_reader_u64_in(reader, 1, FLI_CLIENT_MAX_SAMPLES, "state: samples");
    break;
  case KEY_LOSS: state->loss = fli_reader_f64(reader); break;
  default:
    state->update.data = fli_reader_bin(reader, &state->update.size);
    break;
  }
}

static void read_identity(fli_msg_reader *reader, uint32_t key,
                          fli_saved_state *state)
{
  switch (key) {
  case KEY_ID:
    fli_reader_str_copy(reader, state->id, sizeof state->id, "client id");
    break;
  case KEY_JOB:
    fli_reader_str_copy(reader, state->job, sizeof state->job, "job");
    break;
  case KEY_TOKEN:
    fli_reader_bin_exact(reader, state->token, sizeof state->token, "token");
    state->has_token = 1;
    break;
  default:
    state->description.data = fli_reader_bin(reader, &state->description.size);
    break;
  }
}

static void read_rest(fli_msg_reader *reader, uint32_t key,
                      fli_saved_state *state, fli_fields *fields)
{
  switch (key) {
  case KEY_UNACKED_ROUND: state->unacked.round = fli_reader_u64(reader); break;
  case KEY_UNACKED_ATTEMPT:
    state->unacked.attempt = fli_reader_u32(reader);
    break;
  case KEY_IS_DONE:
    state->is_done = fli_reader_u64_in(reader, 0, 1, "state: is done") == 1;
    break;
  case KEY_TABLE: read_table(reader, &state->codec); break;
  case KEY_FEEDBACK_DECAY: state->decay = fli_reader_f32(reader); break;
  case KEY_FEEDBACK:
    state->feedback.data = fli_reader_bin(reader, &state->feedback.size);
    break;
  case KEY_FED_ROUND: state->fed.round = fli_reader_u64(reader); break;
  case KEY_FED_ATTEMPT: state->fed.attempt = fli_reader_u32(reader); break;
  case KEY_REPORT_MODULE: state->report_module = fli_reader_u32(reader); break;
  case KEY_REPORT_VALUE: state->report_value = fli_reader_f64(reader); break;
  case KEY_SPARSE_ID: state->sparse_id = fli_reader_u64(reader); break;
  case KEY_SPARSE:
    state->sparse.data = fli_reader_bin(reader, &state->sparse.size);
    break;
  case KEY_PAGED:
  case KEY_PAGED_UPDATE:
    fli_reader_bin_exact(reader, state->paged[key - KEY_PAGED], FLI_PAGED_STATE,
                         "paged model");
    state->is_paged = 1;
    break;
  case KEY_DAY: state->day = fli_reader_u64(reader); break;
  case KEY_SPENT: state->spent = fli_reader_u64(reader); break;
  default: fli_fields_unknown(fields); break;
  }
}

fl_status fli_client_read_state(const fli_bytes *payload,
                                fli_saved_state *state)
{
  uint32_t key;
  fli_msg_reader reader;
  memset(state, 0, sizeof *state);
  state->codec.struct_size = sizeof state->codec;
  state->loss = (double)NAN;
  state->report_value = (double)NAN;
  fli_reader_init(&reader, payload->data, payload->size);
  for (fli_fields f = fli_fields_begin(&reader); fli_fields_next(&f, &key);) {
    if (key <= KEY_DESCRIPTION)
      read_identity(&reader, key, state);
    else if (key <= KEY_ROTATION_SEED)
      read_codec(&reader, key, &state->codec);
    else if (key == KEY_MODEL_VERSION)
      state->model_version = fli_reader_u64(&reader);
    else if (key == KEY_WEIGHTS)
      state->weights.data = fli_reader_bin(&reader, &state->weights.size);
    else if (key <= KEY_UPDATE)
      read_trained(&reader, key, state);
    else if (key <= KEY_CLAMPED)
      read_encoded(&reader, key, state);
    else
      read_rest(&reader, key, state, &f);
  }
  return fli_reader_finish(&reader);
}
