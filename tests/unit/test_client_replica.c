/* SPDX-License-Identifier: Apache-2.0 */
/* The model at the client: how it is asked for, waited for, taken and refused.
 */
#include "client_fixture.h"

#include "compress/canonical.h"
#include "outgoing.h"

Test(client_replica, a_plan_for_a_model_not_held_asks_for_it)
{
  fixture fx;
  fli_get_model get;
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  fx_drain(&fx);
  fx_plan(&fx);
  fx_frame frame = fx_take(&fx, FLI_MSG_GET_MODEL);
  cr_assert_eq(fli_parse_get_model(&get, frame.body, frame.size), FL_OK);
  cr_assert_eq(get.version, 3);
  free(frame.body);
  fx_plan(&fx);
  fx_nothing_sent(&fx);
  fx_send_model(&fx);
  FX_EVENT(&fx, FL_CLIENT_MODEL_READY);
  FX_EVENT(&fx, FL_CLIENT_NEED_TRAIN);
  fx_free(&fx);
}

Test(client_replica, another_hash_of_the_same_version_asks_for_the_model)
{
  fixture fx;
  float got[FX_WEIGHTS];
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  fx_send_model(&fx);
  fx_drain(&fx);
  fx.weights[5] = -1;
  fx_hash(&fx);
  memcpy(fx.plan.model_hash, fx.hash, sizeof fx.hash);
  fx_plan(&fx);
  fx_skip(&fx, FLI_MSG_GET_MODEL);
  fx_send_model(&fx);
  FX_EVENT(&fx, FL_CLIENT_MODEL_READY);
  FX_EVENT(&fx, FL_CLIENT_NEED_TRAIN);
  cr_assert_eq(fl_client_copy_weights(fx.client, got, FX_WEIGHTS, NULL), FL_OK);
  cr_assert_eq(got[5], -1);
  fx_free(&fx);
}

Test(client_replica, an_older_model_is_taken_only_when_asked_for)
{
  fixture fx;
  uint64_t version;
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  fx_send_model(&fx);
  fx_drain(&fx);
  fx_set_model(&fx, 2);
  fx_send_model(&fx);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  cr_assert_eq(fl_client_copy_weights(fx.client, NULL, 0, &version), FL_OK);
  cr_assert_eq(version, 3);
  fx_plan(&fx);
  fx_skip(&fx, FLI_MSG_GET_MODEL);
  fx_send_model(&fx);
  FX_EVENT(&fx, FL_CLIENT_MODEL_READY);
  FX_EVENT(&fx, FL_CLIENT_NEED_TRAIN);
  cr_assert_eq(fx.event.model_version, 2);
  fx_free(&fx);
}

Test(client_replica, a_plan_waits_for_the_transfer_under_way)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  fx_drain(&fx);
  fx_write_model(&fx);
  /* MANIFEST first, then the PLAN, then the CHUNK. */
  size_t manifest = FLI_FRAME_HEADER + fx.out.data[0];
  cr_assert_eq(fl_client_recv(fx.client, fx.out.data, manifest), FL_OK);
  fli_bytes_consume(&fx.out, manifest);
  size_t chunk = fx.out.size;
  cr_assert_eq(fli_write_plan(&fx.out, &fx.plan), FL_OK);
  cr_assert_eq(
      fl_client_recv(fx.client, fx.out.data + chunk, fx.out.size - chunk),
      FL_OK);
  fx_nothing_sent(&fx);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  cr_assert_eq(fl_client_recv(fx.client, fx.out.data, chunk), FL_OK);
  FX_EVENT(&fx, FL_CLIENT_MODEL_READY);
  FX_EVENT(&fx, FL_CLIENT_NEED_TRAIN);
  fx_free(&fx);
}

Test(client_replica, a_lost_chunk_is_mended_by_hello)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  fx_drain(&fx);
  fx_write_model(&fx);
  fx.out.size = FLI_FRAME_HEADER + fx.out.data[0];
  fx_deliver(&fx);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx.now_ns += 10 * FX_SECOND;
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  cr_assert(!fx_take_hello(&fx).has_model);
  fx_free(&fx);
}

Test(client_replica, a_model_of_the_wrong_size_is_refused)
{
  fixture fx;
  fli_manifest manifest = {.transfer = 1,
                           .kind = FLI_TRANSFER_MODEL,
                           .total = UINT64_C(1) << 40,
                           .chunk_size = FX_CHUNK,
                           .loss = (double)NAN};
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  cr_assert_eq(fli_write_manifest(&fx.out, &manifest), FL_OK);
  cr_assert_eq(fx_flush(&fx), FL_E_DIM);
  manifest.kind = FLI_TRANSFER_UPDATE;
  manifest.round = 1;
  cr_assert_eq(fli_write_manifest(&fx.out, &manifest), FL_OK);
  cr_assert_eq(fx_flush(&fx), FL_E_FORMAT);
  fx_free(&fx);
}

Test(client_replica, a_model_that_is_not_finite_is_refused)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  fx.weights[3] = NAN;
  fx_write_model(&fx);
  cr_assert_eq(fx_flush(&fx), FL_E_NOT_FINITE);
  cr_assert_eq(fl_client_copy_weights(fx.client, NULL, 0, NULL), FL_E_EMPTY);
  fx_free(&fx);
}

/* ---- chains of steps ---------------------------------------------------- */

/* Append the record of a step from the server's model, which moves on. */
static void write_step(fixture *fx, fli_canonical *replica, fli_bytes *chain)
{
  float update[FX_WEIGHTS], norms[32];
  uint8_t payload[FX_CHUNK];
  size_t n = 0;
  fl_scale scale;
  fl_encode_options options;
  size_t begin = chain->size;
  for (uint64_t i = 0; i < fx->n_norms; i++)
    norms[i] = 100.f;
  fx_update(update, 1.f + (float)replica->version);
  cr_assert_eq(fl_scale_init(&scale, sizeof scale), FL_OK);
  cr_assert_eq(fl_encode_options_init(&options, sizeof options), FL_OK);
  scale.slots = 1;
  scale.round = replica->version + 1;
  scale.norms = norms;
  scale.n_norms = fx->n_norms;
  scale.clip = fl_compressor_clip(fx->compressor);
  cr_assert_eq(fl_compressor_encode(fx->compressor, &scale, &options, update,
                                    FX_WEIGHTS, payload, sizeof payload, &n,
                                    NULL),
               FL_OK);
  cr_assert_eq(fli_step_write(chain, replica->version, 1.f, &scale, payload, n),
               FL_OK);
  cr_assert_eq(fli_canonical_apply(replica, fx->compressor, chain->data + begin,
                                   chain->size - begin),
               FL_OK);
}

/* Two steps behind the model that fx_send_model sends. */
static void make_chain(fixture *fx, fli_canonical *replica, fli_bytes *chain)
{
  uint8_t bytes[4 * FX_WEIGHTS];
  fli_bytes_init(chain, NULL);
  fx_weight_bytes(fx, bytes);
  cr_assert_eq(fli_canonical_init(replica, NULL, FX_WEIGHTS), FL_OK);
  cr_assert_eq(fli_canonical_set(replica, 3, bytes, sizeof bytes), FL_OK);
  write_step(fx, replica, chain);
  write_step(fx, replica, chain);
}

static void send_chain(fixture *fx, const fli_bytes *chain)
{
  fli_outgoing outgoing = {.transfer = fx->next_transfer++};
  fli_manifest manifest = {.kind = FLI_TRANSFER_STEPS,
                           .base_version = 3,
                           .model_version = 5,
                           .loss = (double)NAN};
  cr_assert_eq(outgoing_begin(&outgoing, &fx->out, &manifest, chain->data,
                              chain->size, FX_CHUNK),
               FL_OK);
  while (outgoing.is_active)
    cr_assert_eq(fli_outgoing_next(&outgoing, &fx->out), FL_OK);
}

Test(client_replica, a_chain_of_steps_gives_the_servers_bytes)
{
  fixture fx;
  fli_canonical replica;
  fli_bytes chain;
  float got[FX_WEIGHTS];
  uint64_t version = 0;
  fx_init(&fx, FL_CODEC_THC);
  fx_join(&fx);
  fx_send_model(&fx);
  fx_drain(&fx);
  make_chain(&fx, &replica, &chain);
  send_chain(&fx, &chain);
  fx_deliver(&fx);
  FX_EVENT(&fx, FL_CLIENT_MODEL_READY);
  cr_assert_eq(fl_client_copy_weights(fx.client, got, FX_WEIGHTS, &version),
               FL_OK);
  cr_assert_eq(version, 5);
  cr_assert_arr_eq(got, replica.weights, sizeof got);
  send_chain(&fx, &chain);
  fx_deliver(&fx);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fli_canonical_free(&replica);
  fli_bytes_free(&chain);
  fx_free(&fx);
}

Test(client_replica, a_chain_from_a_version_not_held_is_ignored)
{
  fixture fx;
  fli_canonical replica;
  fli_bytes chain;
  fx_init(&fx, FL_CODEC_THC);
  fx_join(&fx);
  make_chain(&fx, &replica, &chain);
  send_chain(&fx, &chain);
  fx_deliver(&fx);
  fx_drain(&fx);
  cr_assert_eq(fl_client_copy_weights(fx.client, NULL, 0, NULL), FL_E_EMPTY);
  fx_nothing_sent(&fx);
  fli_canonical_free(&replica);
  fli_bytes_free(&chain);
  fx_free(&fx);
}

Test(client_replica, a_chain_that_breaks_in_the_middle_voids_the_model)
{
  fixture fx;
  fli_canonical replica;
  fli_bytes chain;
  fx_init(&fx, FL_CODEC_THC);
  fx_to_norm(&fx);
  make_chain(&fx, &replica, &chain);
  chain.size -= 3;
  send_chain(&fx, &chain);
  cr_assert_lt(fx_flush(&fx), FL_OK);
  FX_EVENT(&fx, FL_CLIENT_STALE);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  cr_assert_eq(fl_client_copy_weights(fx.client, NULL, 0, NULL), FL_E_EMPTY);
  cr_assert(!fx_take_hello(&fx).has_model);
  fli_canonical_free(&replica);
  fli_bytes_free(&chain);
  fx_free(&fx);
}

Test(client_replica, a_chain_that_cannot_be_applied_asks_for_the_full_copy)
{
  fixture fx;
  fli_canonical replica;
  fli_bytes chain;
  fx_init(&fx, FL_CODEC_THC);
  fx_join(&fx);
  fx_send_model(&fx);
  fx_drain(&fx);
  make_chain(&fx, &replica, &chain);
  memset(chain.data, 0xc1, chain.size);
  send_chain(&fx, &chain);
  cr_assert_lt(fx_flush(&fx), FL_OK);
  cr_assert(!fx_take_hello(&fx).has_model);
  fli_canonical_free(&replica);
  fli_bytes_free(&chain);
  fx_free(&fx);
}
