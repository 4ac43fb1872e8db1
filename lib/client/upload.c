/* SPDX-License-Identifier: Apache-2.0 */
/* From what the trainer gave to what is sent: the update, its norms, its
 * encoding on the agreed scale, and the frames that are due.
 *
 * The update outlives its acknowledgement: a round that is aborted and tried
 * again wants the same update in another slot, and training is what costs. It
 * is given up when the model moves on. */
#include "client/client.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "base/options.h"
#include "compress/compressor.h"
#include "compress/feedback.h"

void fli_client_forget_encoded(fl_client *client)
{
  client->outgoing.is_active = 0;
  client->outgoing.read = NULL;
  client->due &= ~(uint32_t)FLI_DUE_UPDATE;
  client->encoded.is_valid = 0;
  fli_encoder_free(client->encoded.encoder);
  client->encoded.encoder = NULL;
  fli_bytes_free(&client->encoded.clamped);
}

void fli_client_forget_trained(fl_client *client)
{
  fli_trained *trained = &client->trained;
  fli_client_forget_encoded(client);
  client->due &= ~(uint32_t)FLI_DUE_NORM;
  fli_free(client->context, trained->update,
           (size_t)client->n_weights * sizeof *trained->update);
  fli_free(client->context, trained->norms,
           (size_t)client->n_norms * sizeof *trained->norms);
  memset(trained, 0, sizeof *trained);
}

static fli_turn plan_turn(const fl_client *client)
{
  return (fli_turn){client->plan.round, client->plan.attempt};
}

static int is_encoded_for_plan(const fl_client *client)
{
  const fli_encoded *encoded = &client->encoded;
  return encoded->is_valid && encoded->turn.round == client->plan.round &&
         encoded->turn.attempt == client->plan.attempt &&
         encoded->slot == client->plan.slot;
}

static fl_status make_scale(const fl_client *client, fl_scale *scale)
{
  fl_status st = fl_scale_init(scale, sizeof *scale);
  if (st != FL_OK) return st;
  scale->slots = client->plan.slots;
  scale->round = client->plan.scale_round > 0 ? client->plan.scale_round
                                              : client->plan.round;
  scale->weight_cap = client->plan.weight_cap;
  memcpy(scale->noise_seed, client->noise_seed, sizeof scale->noise_seed);
  scale->norms = client->scale_norms;
  scale->n_norms = client->n_norms;
  scale->clip = client->clip;
  scale->is_public = client->plan.scale_mode == FL_SCALE_PUBLIC;
  return FL_OK;
}

/* Everything of a scale that the encoded bytes depend on. */
static void identify_scale(const fl_scale *scale, uint8_t id[FLI_HASH_BYTES])
{
  uint8_t norm[2];
  fli_hasher hasher;
  fli_hasher_init(&hasher);
  fli_hasher_u64(&hasher, scale->slots);
  fli_hasher_u64(&hasher, scale->round);
  fli_hasher_u64(&hasher, scale->weight_cap);
  fli_hasher_u64(&hasher, scale->is_public);
  fli_hasher_u64(&hasher, fli_f32_bits(scale->clip));
  fli_hasher_update(&hasher, scale->noise_seed, sizeof scale->noise_seed);
  for (uint64_t i = 0; i < scale->n_norms; i++) {
    fli_store_u16(norm, fli_bf16_from_f32(scale->norms[i]));
    fli_hasher_update(&hasher, norm, sizeof norm);
  }
  fli_hasher_final(&hasher, id);
}

/* Nothing is said of segments that are not sent: with error feedback, the
 * memory would be. */
static void clear_norms(fl_client *client, float *norms)
{
  const fli_layout *layout = &client->compressor->layout;
  const uint8_t *mask = fli_client_mask(client, client->plan.first_active);
  for (uint32_t s = 0; mask && s < client->n_segments; s++) {
    uint64_t first, n;
    if (mask[s]) continue;
    fli_segment_norms(layout, s, &first, &n);
    memset(norms + first, 0, (size_t)n * sizeof *norms);
  }
}

static fl_status measure(fl_client *client)
{
  fl_status st = FL_OK;
  fl_scale scale;
  fli_trained *trained = &client->trained;
  if (trained->has_norms && trained->norms_cap == client->plan.weight_cap)
    return FL_OK;
  FLI_TRY(make_scale(client, &scale));
  scale.norms = NULL;
  scale.n_norms = 0;
  if (!trained->norms)
    trained->norms = fli_alloc(client->context, (size_t)client->n_norms,
                               sizeof *trained->norms);
  if (!trained->norms)
    FLI_TRY(fli_nomem((size_t)client->n_norms * sizeof *trained->norms));
  trained->has_norms = 0;
  if (client->feedback)
    FLI_TRY(fli_client_correct(client, &scale, trained->norms));
  else if (client->paging)
    FLI_TRY(client->paging->measure(client, &scale, trained->norms));
  else
    FLI_TRY(fli_measure(client->compressor, trained->update,
                        fli_update_weight(trained->samples, scale.weight_cap),
                        trained->norms));
  clear_norms(client, trained->norms);
  trained->has_norms = 1;
  trained->norms_cap = client->plan.weight_cap;
out:
  return st;
}

fl_status fli_client_offer(fl_client *client)
{
  if (!is_encoded_for_plan(client)) fli_client_forget_encoded(client);
  if (client->plan.scale_mode == FL_SCALE_PUBLIC)
    return fli_client_upload(client);
  fl_status st = measure(client);
  if (st != FL_OK) return st;
  client->phase = client->encoded.is_valid ? FLI_PHASE_UPDATE : FLI_PHASE_NORM;
  client->due |= FLI_DUE_NORM;
  return FL_OK;
}

/* Clamped coordinates of every block as they travel. */
static fl_status keep_clamped(fl_client *client, const uint16_t *clamped)
{
  fli_bytes *bytes = &client->encoded.clamped;
  fl_status st = fli_bytes_reserve(bytes, 2 * (size_t)client->n_norms);
  if (st != FL_OK) return st;
  for (uint64_t i = 0; i < client->n_norms; i++)
    fli_store_u16(bytes->data + 2 * i, clamped[i]);
  bytes->size = 2 * (size_t)client->n_norms;
  return FL_OK;
}

/* What makes the bytes of the update, corrected where the job wants that. */
static fl_status make_encoder(fl_client *client, const fl_scale *scale,
                              const fl_encode_options *options)
{
  fli_floats from = {.x = client->trained.update, .arg = client};
  if (client->paging) {
    from.fetch = client->paging->fetch;
    from.measure = client->paging->measure_segment;
  }
  fli_encoder **out = &client->encoded.encoder;
  if (!client->feedback)
    return fli_encoder_new(out, client->compressor, scale, options, &from);
  fl_status st = fli_client_correct(client, scale, NULL);
  if (st != FL_OK) return st;
  return fli_feedback_encoder(client->feedback, scale, options, out);
}

/* Make all of the bytes, for their hash: it goes in front of them. */
static fl_status hash_update(fl_client *client, uint16_t *clamped)
{
  fli_hasher hasher;
  fli_encoded *encoded = &client->encoded;
  fli_hasher_init(&hasher);
  const fl_status st = fli_encoder_hash(encoded->encoder, &hasher, clamped);
  if (st != FL_OK) return st;
  if (client->feedback) {
    fli_feedback_encoded(client->feedback);
    client->fed = plan_turn(client);
  }
  encoded->slices_size = (uint32_t)fli_client_sparse_size(client);
  if (encoded->slices_size > 0)
    fli_hasher_update(&hasher, client->sparse.data, encoded->slices_size);
  fli_hasher_final(&hasher, encoded->hash);
  return FL_OK;
}

static fl_status encode(fl_client *client, const fl_scale *scale)
{
  fl_status st = FL_OK;
  const fl_encode_options options = {
      .struct_size = sizeof options,
      .slot = client->plan.slot,
      .samples = client->trained.samples,
      .segments = fli_client_mask(client, client->plan.first_active),
      .n_segments = client->plan.first_active > 0 ? client->n_segments : 0};
  uint16_t *clamped = NULL;
  size_t n_clamped = scale->is_public ? (size_t)client->n_norms : 0;
  fli_encoded *encoded = &client->encoded;
  fli_client_forget_encoded(client);
  if (n_clamped > 0) {
    clamped = fli_alloc(client->context, n_clamped, sizeof *clamped);
    if (!clamped) FLI_TRY(fli_nomem(n_clamped * sizeof *clamped));
  }
  FLI_TRY(make_encoder(client, scale, &options));
  FLI_TRY(hash_update(client, clamped));
  if (n_clamped > 0) FLI_TRY(keep_clamped(client, clamped));
  encoded->turn = plan_turn(client);
  encoded->slot = client->plan.slot;
  identify_scale(scale, encoded->scale_id);
  encoded->is_valid = 1;
out:
  fli_free(client->context, clamped, n_clamped * sizeof *clamped);
  if (st != FL_OK) fli_client_forget_encoded(client);
  return st;
}

fl_status fli_client_upload(fl_client *client)
{
  fl_status st = FL_OK;
  fl_scale scale;
  uint8_t id[FLI_HASH_BYTES];
  if (!client->trained.is_valid) return FL_OK;
  FLI_TRY(make_scale(client, &scale));
  identify_scale(&scale, id);
  if (!is_encoded_for_plan(client) || !client->encoded.encoder ||
      memcmp(id, client->encoded.scale_id, sizeof id) != 0)
    FLI_TRY(encode(client, &scale));
  client->phase = FLI_PHASE_UPDATE;
  if (!client->outgoing.is_active) client->due |= FLI_DUE_UPDATE;
out:
  return st;
}

/* ---- results of the host ------------------------------------------------ */

/* The update of the segments that are sent; zeros for the others. */
static fl_status fill_update(fl_client *client, const fl_train_result *result,
                             float *update)
{
  const uint8_t *mask = fli_client_mask(client, client->plan.first_active);
  size_t i = 0;
  for (uint32_t s = 0; s < client->n_segments; s++) {
    const size_t end = i + (size_t)client->segments[s];
    if (mask && !mask[s]) i = end;
    for (; i < end; i++) {
      update[i] = result->update
                      ? result->update[i]
                      : result->weights[i] - client->canonical.weights[i];
      if (!isfinite(update[i]))
        return fli_error(FL_E_NOT_FINITE,
                         "result: coordinate %zu is not finite", i);
    }
  }
  return FL_OK;
}

/* *out is the caller's afterwards. */
static fl_status make_update(fl_client *client, const fl_train_result *result,
                             float **out)
{
  size_t n = (size_t)client->n_weights;
  if (!client->paging && !result->weights == !result->update)
    return fli_error(FL_E_ARGUMENT, "result: want either weights or update");
  if (!client->paging && result->n != client->n_weights)
    return fli_error(FL_E_DIM, "result: got %llu values, want %llu",
                     (unsigned long long)result->n,
                     (unsigned long long)client->n_weights);
  if (client->plan.has_control && !result->control_change)
    return fli_error(FL_E_ARGUMENT, "result: want control_change");
  if (result->samples > FLI_CLIENT_MAX_SAMPLES)
    return fli_error(FL_E_ARGUMENT, "result: got %llu samples, want <= 2^40",
                     (unsigned long long)result->samples);
  if (client->paging) return client->paging->finish(client, result);
  float *update = fli_alloc(client->context, n, sizeof *update);
  if (!update) return fli_nomem(n * sizeof *update);
  const fl_status st = fill_update(client, result, update);
  if (st == FL_OK)
    *out = update;
  else
    fli_free(client->context, update, n * sizeof *update);
  return st;
}

/* What goes behind the update, where rows of an embedding would. */
static fl_status keep_control(fl_client *client, const float *change)
{
  const size_t n = (size_t)client->n_weights;
  fli_bytes *bytes = &client->sparse;
  fli_bytes_clear(bytes);
  client->sparse_id = 0;
  const fl_status st = fli_bytes_reserve(bytes, 4 * n);
  if (st != FL_OK) return st;
  for (size_t i = 0; i < n; i++) {
    if (!isfinite(change[i]))
      return fli_error(FL_E_NOT_FINITE, "result: a control is not finite");
    fli_store_f32(bytes->data + 4 * i, change[i]);
  }
  bytes->size = 4 * n;
  client->sparse_id = client->slices_id;
  return FL_OK;
}

fl_status fli_client_take_result(fl_client *client,
                                 const fl_train_result *result)
{
  fl_status st = FL_OK;
  fl_train_result loaded = {.loss = (double)NAN, .report_value = (double)NAN};
  fli_trained *trained = &client->trained;
  float *update = NULL;
  FLI_TRY(fli_options_load(&loaded, sizeof loaded, result, "fl_train_result"));
  FLI_TRY(make_update(client, &loaded, &update));
  fli_client_withdraw(client);
  fli_client_forget_trained(client);
  trained->plan = client->plan;
  trained->update = update;
  trained->samples =
      loaded.samples > 0 ? loaded.samples : client->options.samples;
  trained->loss = isfinite(loaded.loss) ? loaded.loss : (double)NAN;
  trained->report_module = loaded.report_module;
  trained->report_value =
      isfinite(loaded.report_value) && loaded.report_value >= 0.0
          ? loaded.report_value
          : (double)NAN;
  trained->is_valid = 1;
  st = fli_client_take_sparse(client);
  if (st == FL_OK && client->plan.has_control)
    st = keep_control(client, loaded.control_change);
  if (st == FL_OK) st = fli_client_offer(client);
  if (st != FL_OK) {
    fli_client_withdraw(client);
    fli_client_forget_trained(client);
    client->phase = FLI_PHASE_TRAIN;
  }
out:
  return st;
}

static void keep_score(fl_client *client, double loss, uint64_t correct,
                       uint64_t count)
{
  client->metrics = (fli_metrics){
      .round = client->evaluate.round,
      .model_version = client->evaluate.model_version,
      .loss = loss,
      .correct = correct,
      .count = count,
      .is_probe = client->evaluate.is_probe,
      .cohort = client->evaluate.cohort,
      .attempt = client->evaluate.attempt,
  };
  client->scored = client->evaluate;
  client->has_metrics = 1;
  client->due |= FLI_DUE_METRICS;
  client->phase = FLI_PHASE_IDLE;
}

fl_status fli_client_take_score(fl_client *client, const fl_score *score)
{
  fl_score loaded = {0};
  fl_status st = fli_options_load(&loaded, sizeof loaded, score, "fl_score");
  if (st != FL_OK) return st;
  if (loaded.correct > loaded.count || loaded.count > FLI_CLIENT_MAX_SAMPLES)
    return fli_error(FL_E_ARGUMENT, "score: want correct <= count <= 2^40");
  if (loaded.count == 0 && client->evaluate.is_probe) {
    fli_client_refuse(client);
    return FL_OK;
  }
  if (loaded.count == 0) loaded.loss = 0;
  if (!isfinite(loaded.loss))
    return fli_error(FL_E_NOT_FINITE, "score: the loss is not finite");
  keep_score(client, loaded.loss, loaded.correct, loaded.count);
  return FL_OK;
}

void fli_client_refuse(fl_client *client)
{
  const fli_evaluate *asked = &client->evaluate;
  const int is_score = client->phase == FLI_PHASE_EVALUATE;
  if (is_score && !asked->is_probe) {
    keep_score(client, 0, 0, 0);
    return;
  }
  client->has_declined = 1;
  client->declined =
      is_score ? (fli_turn){asked->round, asked->attempt} : plan_turn(client);
  client->due |= FLI_DUE_DECLINE;
  client->phase = FLI_PHASE_IDLE;
}

/* ---- frames out --------------------------------------------------------- */

static fl_status write_hello(fl_client *client)
{
  fli_hello hello = {
      .version_min = FLI_PROTOCOL_MIN,
      .version_max = FLI_PROTOCOL_MAX,
      .capabilities = FLI_CAP_TRAIN | FLI_CAP_EVALUATE | FLI_CAP_COHORTS |
                      FLI_CAP_STATUS |
                      (client->paging ? 0u : (uint32_t)FLI_CAP_CONTROLS),
      .samples = client->options.samples,
      .has_schema = client->has_schema,
      .has_token = client->has_token,
      .has_model = client->has_canonical && client->canonical.is_valid,
      .depth = client->options.max_depth,
      .lacks = client->lacks,
  };
  memcpy(hello.client_id, client->id, sizeof hello.client_id);
  memcpy(hello.job, client->job, sizeof hello.job);
  memcpy(hello.device_class, client->device_class, sizeof hello.device_class);
  memcpy(hello.schema, client->schema, sizeof hello.schema);
  memcpy(hello.token, client->token, sizeof hello.token);
  if (hello.has_model) {
    hello.model_version = client->canonical.version;
    memcpy(hello.model_hash, client->model_hash, sizeof hello.model_hash);
  }
  if (client->signer) client->signer->sign_hello(client, &hello);
  return fli_write_hello(&client->sent, &hello);
}

static fl_status write_norm(fl_client *client)
{
  size_t size = 2 * (size_t)client->n_norms;
  uint8_t *norms = fli_alloc(client->context, size, 1);
  if (!norms) return fli_nomem(size);
  fli_norms_to_bf16(norms, client->trained.norms, client->n_norms);
  const fli_norm norm = {
      .round = client->plan.round,
      .attempt = client->plan.attempt,
      .norms = norms,
      .norms_size = size,
      .samples = client->trained.samples,
  };
  fl_status st = fli_write_norm(&client->sent, &norm);
  fli_free(client->context, norms, size);
  return st;
}

/* Bytes of the update: the encoder's, then the sparse ones. */
static fl_status read_update(void *arg, uint64_t offset, uint8_t *out, size_t n)
{
  const fl_client *client = arg;
  const fli_encoded *encoded = &client->encoded;
  const size_t dense = fli_encoder_size(encoded->encoder);
  size_t at = (size_t)offset, part = 0;
  if (at < dense) {
    part = n < dense - at ? n : dense - at;
    const fl_status st = fli_encoder_read(encoded->encoder, at, out, part);
    if (st != FL_OK) return st;
    at += part;
  }
  assert(n - part <= encoded->slices_size);
  if (part < n)
    memcpy(out + part, client->sparse.data + (at - dense), n - part);
  return FL_OK;
}

static fl_status begin_upload(fl_client *client)
{
  const fli_encoded *encoded = &client->encoded;
  fli_manifest manifest = {
      .kind = FLI_TRANSFER_UPDATE,
      .round = encoded->turn.round,
      .attempt = encoded->turn.attempt,
      .loss = client->trained.loss,
      .model_version = client->trained.plan.model_version,
      .clamped = encoded->clamped.size > 0 ? encoded->clamped.data : NULL,
      .clamped_size = encoded->clamped.size,
      .has_report = !isnan(client->trained.report_value),
      .report_module = client->trained.report_module,
      .report_value = client->trained.report_value,
      .slices_size = encoded->slices_size,
  };
  memcpy(manifest.hash, encoded->hash, sizeof manifest.hash);
  manifest.total = fli_encoder_size(encoded->encoder) + encoded->slices_size;
  if (client->signer) client->signer->sign_update(client, &manifest);
  const fl_status st = fli_outgoing_begin_read(
      &client->outgoing, &client->sent, &manifest, (size_t)manifest.total,
      client->options.chunk_size);
  if (st != FL_OK) return st;
  client->outgoing.read = read_update;
  client->outgoing.arg = client;
  return FL_OK;
}

static fl_status write_frames(fl_client *client)
{
  fl_status st = FL_OK;
  if (client->is_leaving) {
    const fli_decline leave = {.forgets = 1};
    if (client->due & FLI_DUE_LEAVE)
      FLI_TRY(fli_write_decline(&client->sent, FLI_MSG_BYE, &leave));
    client->due = 0;
    return FL_OK;
  }
  if (client->due & FLI_DUE_GET_MODEL) {
    const fli_get_model get = {client->wanted_version};
    FLI_TRY(fli_write_get_model(&client->sent, &get));
  }
  if (client->due & FLI_DUE_DECLINE) {
    const fli_decline decline = {.round = client->declined.round,
                                 .attempt = client->declined.attempt};
    FLI_TRY(fli_write_decline(&client->sent, FLI_MSG_DECLINE, &decline));
  }
  if (client->due & FLI_DUE_METRICS)
    FLI_TRY(fli_write_metrics(&client->sent, &client->metrics));
  if (client->due & FLI_DUE_GET_SLICE)
    FLI_TRY(fli_client_write_get_slice(client));
  if (client->incoming.is_active && client->incoming.is_status_due)
    FLI_TRY(fli_incoming_write_status(&client->incoming, &client->sent));
  if (client->due & FLI_DUE_NORM) FLI_TRY(write_norm(client));
  if (client->due & FLI_DUE_UPDATE) FLI_TRY(begin_upload(client));
  if (client->outgoing.is_active) {
    FLI_TRY(fli_outgoing_next(&client->outgoing, &client->sent));
    if (!client->outgoing.is_active) {
      client->is_unacked = 1;
      client->unacked = client->encoded.turn;
    }
  }
  client->due = 0;
out:
  return st;
}

fl_status fli_client_write_due(fl_client *client)
{
  fl_status st = FL_OK;
  if (client->link == FLI_LINK_HELLO_DUE) {
    if (client->is_waiting || client->has_new_wait) return FL_OK;
    if (client->limits && !client->is_leaving &&
        !client->limits->allow(client, 0))
      return FL_OK;
    FLI_TRY(write_hello(client));
    client->said = client->lacks;
    client->link = FLI_LINK_HELLO_SENT;
  } else if (client->link == FLI_LINK_WELCOMED) {
    FLI_TRY(write_frames(client));
  }
  return FL_OK;
out:
  fli_bytes_clear(&client->sent);
  if (client->due & FLI_DUE_UPDATE) client->outgoing.is_active = 0;
  return st;
}
