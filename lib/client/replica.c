/* SPDX-License-Identifier: Apache-2.0 */
/* The client's replica of the canonical model: learning its shape, receiving
 * it whole or as steps, and telling whether it is the one that is asked for.
 *
 * A copy older than the one held is taken only when a plan, an evaluation or
 * the end names it (a server restored from an older snapshot does): a repeated
 * old transfer must not undo newer work. */
#include "client/client.h"

#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "compress/compressor.h"
#include "model/load.h"

/* A chain of steps is sent only when it is shorter than the full copy; small
 * models may be overtaken by the records' headers. */
enum { STEPS_SLACK = 64 << 10 };

static fl_status set_shape(fl_client *client, const fl_model *model)
{
  fl_status st = FL_OK;
  uint32_t n_segments = fl_model_segment_count(model);
  uint64_t *segments = fli_alloc(client->context, n_segments, sizeof *segments);
  uint32_t *modules = fli_alloc(client->context, n_segments, sizeof *modules);
  uint8_t *mask = fli_alloc(client->context, n_segments, 1);
  size_t size = 0;
  fli_bytes description;
  fli_bytes_init(&description, client->context);
  if (!segments || !modules || !mask)
    FLI_TRY(fli_nomem(n_segments * sizeof *segments));
  FLI_TRY(fl_model_copy_segments(model, segments, n_segments));
  FLI_TRY(fl_model_copy_segment_modules(model, modules, n_segments));
  FLI_TRY(fl_model_copy_description(model, NULL, 0, &size));
  FLI_TRY(fli_bytes_reserve(&description, size));
  FLI_TRY(fl_model_copy_description(model, description.data, size, &size));
  FLI_TRY(fl_model_copy_schema(model, client->schema));
  description.size = size;
  fli_bytes_free(&client->description);
  client->description = description;
  client->segments = segments;
  client->modules = modules;
  client->mask = mask;
  client->n_segments = n_segments;
  client->n_weights = fl_model_weight_count(model);
  client->has_schema = 1;
  return FL_OK;
out:
  fli_bytes_free(&description);
  fli_free(client->context, segments, n_segments * sizeof *segments);
  fli_free(client->context, modules, n_segments * sizeof *modules);
  fli_free(client->context, mask, n_segments);
  return st;
}

fl_status fli_client_learn(fl_client *client, const fl_model *model)
{
  uint64_t n = fl_model_weight_count(model);
  if (n > client->options.max_weights)
    return fli_error(FL_E_LIMIT, "model: got %llu weights, limit %llu",
                     (unsigned long long)n,
                     (unsigned long long)client->options.max_weights);
  return set_shape(client, model);
}

fl_status fli_client_learn_description(fl_client *client, const uint8_t *data,
                                       size_t n)
{
  fl_model *model = NULL;
  fl_status st = fli_model_shape_from_description(
      &model, client->context, data, n, client->options.max_weights);
  if (st != FL_OK) return st;
  st = fli_client_learn(client, model);
  fl_model_free(model);
  return st;
}

static int is_same_codec(const fl_compressor_options *a,
                         const fl_compressor_options *b)
{
  return a->codec == b->codec && a->thc_mode == b->thc_mode &&
         a->bits == b->bits && a->granularity == b->granularity &&
         fli_f32_bits(a->clip) == fli_f32_bits(b->clip) &&
         memcmp(a->rotation_seed, b->rotation_seed, FL_SEED_BYTES) == 0 &&
         a->n_table == b->n_table &&
         (a->n_table == 0 || memcmp(a->table, b->table, a->n_table) == 0);
}

fl_status fli_client_set_codec(fl_client *client,
                               const fl_compressor_options *codec)
{
  fl_status st = FL_OK;
  if (client->compressor && is_same_codec(&client->codec, codec))
    return client->paging ? client->paging->open(client) : FL_OK;
  fl_compressor *compressor = NULL;
  float *norms = NULL;
  uint64_t n_norms = 0;
  if (client->paging) FLI_TRY(client->paging->afford(client, codec->codec));
  FLI_TRY(fli_compressor_agreed(&compressor, client->context, codec,
                                client->segments, client->n_segments));
  n_norms = fl_compressor_norm_count(compressor);
  norms = fli_alloc(client->context, (size_t)n_norms, sizeof *norms);
  if (!norms) FLI_TRY(fli_nomem((size_t)n_norms * sizeof *norms));
  if (!client->has_canonical && !client->paging)
    FLI_TRY(fli_canonical_init(&client->canonical, client->context,
                               client->n_weights));
  client->has_canonical = 1;
  fli_client_forget_trained(client);
  fli_client_drop_feedback(client);
  fl_compressor_free(client->compressor);
  fli_free(client->context, client->scale_norms,
           (size_t)client->n_norms * sizeof *norms);
  client->compressor = compressor;
  client->codec = *codec;
  fli_compressor_lend_table(compressor, &client->codec);
  client->scale_norms = norms;
  client->n_norms = n_norms;
  if (client->paging) st = client->paging->open(client);
  if (st == FL_OK) return st;
  /* Without its memory there is no codec, and frames wait for WELCOME. */
  compressor = client->compressor;
  client->compressor = NULL;
  norms = NULL;
out:
  fli_free(client->context, norms, (size_t)n_norms * sizeof *norms);
  fl_compressor_free(compressor);
  return st;
}

const uint8_t *fli_client_mask(fl_client *client, uint32_t first_active)
{
  if (first_active == 0) return NULL;
  for (uint32_t s = 0; s < client->n_segments; s++)
    client->mask[s] = client->modules[s] >= first_active;
  return client->mask;
}

int fli_client_holds(const fl_client *client, uint64_t version,
                     const uint8_t hash[FLI_HASH_BYTES])
{
  return client->has_canonical && client->canonical.is_valid &&
         client->canonical.version == version &&
         memcmp(client->model_hash, hash, FLI_HASH_BYTES) == 0;
}

/* The model that the work at hand was begun on is not held any more. */
static void leave_old_work(fl_client *client)
{
  const fli_plan *trained = &client->trained.plan;
  const fli_plan *plan = &client->plan;
  /* With error feedback the next plan needs it to take it out of the memory. */
  if (client->trained.is_valid && !fli_client_is_fed(client) &&
      !fli_client_holds(client, trained->model_version, trained->model_hash))
    fli_client_forget_trained(client);
  switch (client->phase) {
  case FLI_PHASE_TRAIN:
  case FLI_PHASE_NORM:
  case FLI_PHASE_UPDATE:
    if (!fli_client_holds(client, plan->model_version, plan->model_hash))
      fli_client_supersede(client, FL_REJECT_STALE, NULL);
    break;
  case FLI_PHASE_EVALUATE:
    if (!fli_client_scored(client)) client->phase = FLI_PHASE_IDLE;
    break;
  default: break;
  }
}

fl_status fli_client_model_changed(fl_client *client)
{
  if (!client->paging)
    fli_canonical_hash(&client->canonical, client->model_hash);
  leave_old_work(client);
  if (client->canonical.is_valid)
    fli_client_raise(client, FL_CLIENT_MODEL_READY);
  return fli_client_continue(client);
}

void fli_client_ask_model(fl_client *client, uint64_t version)
{
  if (client->is_model_awaited && client->wanted_version == version) return;
  client->is_model_awaited = 1;
  client->wanted_version = version;
  client->due |= FLI_DUE_GET_MODEL;
}

static int is_demanded(const fl_client *client, uint64_t version)
{
  if (client->phase != FLI_PHASE_MODEL) return 0;
  switch (client->demand) {
  case FLI_DEMAND_PLAN: return client->plan.model_version == version;
  case FLI_DEMAND_EVALUATE: return client->evaluate.model_version == version;
  case FLI_DEMAND_DONE: return client->done.model_version == version;
  }
  return 0;
}

static int is_useful(const fl_client *client, const fli_manifest *manifest)
{
  const fli_canonical *held = &client->canonical;
  if (manifest->kind == FLI_TRANSFER_STEPS)
    return held->is_valid && manifest->base_version == held->version &&
           !fli_client_is_elsewhere(client, manifest);
  if (manifest->kind == FLI_TRANSFER_PROBE) return !client->paging;
  return !held->is_valid || manifest->model_version > held->version ||
         fli_client_is_elsewhere(client, manifest) ||
         is_demanded(client, manifest->model_version);
}

fl_status fli_client_on_manifest(fl_client *client,
                                 const fli_manifest *manifest)
{
  const fli_manifest *active = &client->incoming.manifest;
  uint64_t full = client->n_weights * sizeof(float);
  uint64_t max_total = full;
  if (manifest->kind == FLI_TRANSFER_UPDATE)
    return fli_error(FL_E_FORMAT, "manifest: an update from the server");
  if (manifest->kind != FLI_TRANSFER_STEPS && manifest->total != full)
    return fli_error(FL_E_DIM, "model: got %llu bytes, want %llu",
                     (unsigned long long)manifest->total,
                     (unsigned long long)full);
  if (manifest->kind == FLI_TRANSFER_STEPS) max_total += STEPS_SLACK;
  if (!is_useful(client, manifest)) return FL_OK;
  /* A repeat must not throw away what has come since. */
  if (client->incoming.is_active && active->transfer == manifest->transfer &&
      memcmp(active->hash, manifest->hash, sizeof active->hash) == 0)
    return FL_OK;
  fl_status st = fli_incoming_begin(&client->incoming, manifest, max_total);
  if (st != FL_OK) return st;
  /* Where it is checked anyway; nobody else writes there meanwhile. */
  if (manifest->kind == FLI_TRANSFER_MODEL && !client->paging)
    fli_incoming_lend(&client->incoming, client->canonical.scratch);
  client->is_model_awaited = 1;
  client->wanted_version = manifest->model_version;
  return FL_OK;
}

/* A whole transfer is there and its hash is right. */
static fl_status take_model(fl_client *client)
{
  fl_status st;
  fli_incoming *incoming = &client->incoming;
  fli_canonical *held = &client->canonical;
  uint64_t version = incoming->manifest.model_version;
  if (incoming->manifest.kind == FLI_TRANSFER_PROBE) {
    st = fli_client_take_probe(client);
    fli_incoming_reset(incoming);
    client->is_model_awaited = 0;
    return st == FL_OK ? fli_client_continue(client) : st;
  }
  if (client->paging)
    st = client->paging->take(client);
  else if (incoming->manifest.kind == FLI_TRANSFER_MODEL)
    st = fli_canonical_set(held, version, incoming->data.data,
                           incoming->data.size);
  else
    st = fli_canonical_apply(held, client->compressor, incoming->data.data,
                             incoming->data.size);
  /* What the chain does to us it would do again: the full copy mends it. */
  if (st != FL_OK && st != FL_E_NOMEM && st != FL_E_IO &&
      incoming->manifest.kind == FLI_TRANSFER_STEPS)
    held->is_valid = 0;
  int is_changed = st == FL_OK || !held->is_valid;
  if (st == FL_OK) {
    client->has_cohort = incoming->manifest.has_cohort;
    client->cohort = incoming->manifest.cohort;
  }
  fli_incoming_reset(incoming);
  client->is_model_awaited = 0;
  if (!is_changed) return st;
  fl_status next = fli_client_model_changed(client);
  return st != FL_OK ? st : next;
}

fl_status fli_client_on_chunk(fl_client *client, const fli_chunk *chunk)
{
  int is_complete = 0;
  fl_status st = fli_incoming_chunk(&client->incoming, chunk, &is_complete);
  /* After a gap the retry timer asks for the transfer again: until then it
   * stays awaited. */
  if (st == FL_E_EMPTY || st == FL_E_FORMAT) return FL_OK;
  if (st != FL_OK || !is_complete) return st;
  return take_model(client);
}
