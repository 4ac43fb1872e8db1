/* SPDX-License-Identifier: Apache-2.0 */
/* Norms and updates that do not fit: each is answered with its reason, nothing
 * of it is counted, and the round goes on with the others. */
#include <criterion/criterion.h>

#include "server_fixture.h"
#include "outgoing.h"

Test(server_collect, absurd_norm_is_capped_at_eight_medians)
{
  sv_world world;
  const float absurd[SV_MAX_NORMS] = {1e30f, 1e30f, 1e30f, 1e30f};
  sv_begin(&world, FL_CODEC_THC);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  sv_norm(&world.clients[0]);
  sv_norm(&world.clients[1]);
  sv_norm_with(&world.clients[2], absurd);
  sv_pull(&world.clients[0]);
  const uint64_t n = fl_compressor_norm_count(world.compressor);
  for (size_t i = 0; i < n; i++) {
    cr_expect_gt(world.clients[0].norms[i], 0.0f);
    cr_expect_lt(world.clients[0].norms[i], 400.0f);
  }
  for (size_t i = 0; i < 3; i++)
    world.clients[i].has_plan = 0;
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  sv_free(&world);
}

static void send_raw_norm(sv_client *client, uint16_t bits, size_t n)
{
  uint8_t wire[2 * SV_MAX_NORMS + 2] = {0};
  for (size_t i = 0; i < n; i++)
    fli_store_u16(wire + 2 * i, bits);
  const fli_norm message = {.round = client->plan.round,
                            .attempt = client->plan.attempt,
                            .norms = wire,
                            .norms_size = 2 * n,
                            .samples = client->samples};
  cr_assert_eq(fli_write_norm(&client->out, &message), FL_OK);
  sv_push(client);
}

static void expect_norm_refused(uint16_t bits, size_t extra)
{
  sv_world world;
  const sv_event *event = NULL;
  sv_begin(&world, FL_CODEC_THC);
  sv_pull(&world.clients[1]);
  const uint64_t n = fl_compressor_norm_count(world.compressor);
  send_raw_norm(&world.clients[1], bits, (size_t)n + extra);
  sv_pull(&world.clients[1]);
  cr_expect_eq(world.clients[1].ack.reason, (uint32_t)FL_REJECT_RANGE);
  cr_assert_eq(sv_events(&world, FL_SERVER_PEER_REJECTED, &event), 1u);
  cr_expect_eq(event->body.reason, (uint32_t)FL_REJECT_RANGE);
  cr_expect_str_eq(event->client_id, "abe");
  world.clients[1].is_mute = 1;
  sv_run(&world);
  cr_expect_eq(sv_status(&world).model_version, 1u);
  sv_free(&world);
}

Test(server_collect, nan_norm_is_refused_and_the_round_goes_on)
{
  expect_norm_refused(0x7fc0, 0);
}

Test(server_collect, infinite_norm_is_refused_and_the_round_goes_on)
{
  expect_norm_refused(0x7f80, 0);
}

Test(server_collect, negative_norm_is_refused_and_the_round_goes_on)
{
  expect_norm_refused(0xbf80, 0);
}

Test(server_collect, norm_above_the_largest_is_refused_and_the_round_goes_on)
{
  expect_norm_refused(0x7f01, 0);
}

Test(server_collect, largest_norm_in_a_block_of_zeros_does_not_stop_the_round)
{
  sv_world world;
  float norms[SV_MAX_NORMS] = {0};
  sv_begin(&world, FL_CODEC_THC);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  norms[0] = 1.0f;
  sv_norm_with(&world.clients[0], norms);
  sv_norm_with(&world.clients[1], norms);
  norms[1] = 0x1p127f;
  sv_norm_with(&world.clients[2], norms);
  sv_pull(&world.clients[0]);
  cr_expect_eq(world.clients[0].has_scale, 1);
  cr_expect_eq(sv_events(&world, FL_SERVER_SCALE_AGREED, NULL), 1u);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_ABORTED, NULL), 0u);
  sv_free(&world);
}

Test(server_collect, wrong_number_of_norms_is_refused_and_the_round_goes_on)
{
  expect_norm_refused(0x3f80, 1);
}

/* All three have the scale; client 1 is the test's. */
static sv_client *begin_updates(sv_world *world, uint32_t codec)
{
  sv_begin(world, codec);
  sv_report(world, 3);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world->clients[i]);
  world->clients[1].is_mute = 1;
  sv_clear(&world->clients[1]);
  return &world->clients[1];
}

static void expect_refused(sv_world *world, uint32_t reason)
{
  sv_client *client = &world->clients[1];
  const sv_event *event = NULL;
  sv_pull(client);
  cr_expect_eq(client->ack.reason, reason, "got %u, want %u",
               client->ack.reason, reason);
  cr_assert_eq(sv_events(world, FL_SERVER_PEER_REJECTED, &event), 1u);
  cr_expect_eq(event->body.reason, reason);
  cr_expect_eq(sv_status(world).accepted, 0u);
  client->is_mute = 0;
  sv_run(world);
  cr_expect(sv_is_finished(world));
  sv_free(world);
}

Test(server_collect, update_with_a_wrong_hash_may_be_sent_again)
{
  sv_world world;
  sv_client *client = begin_updates(&world, FL_CODEC_THC);
  size_t size = 0;
  fli_manifest manifest = sv_manifest(client);
  uint8_t *data = sv_encode(client, client->plan.slot, 10, &size);
  cr_assert_eq(outgoing_begin(&client->outgoing, &client->out, &manifest, data,
                              size, FLI_CHUNK_MIN),
               FL_OK);
  data[size - 1] ^= 1;
  while (client->outgoing.is_active) {
    cr_assert_eq(fli_outgoing_next(&client->outgoing, &client->out), FL_OK);
  }
  sv_push(client);
  free(data);
  expect_refused(&world, FL_REJECT_FORMAT);
}

Test(server_collect, update_that_is_no_update_is_refused)
{
  sv_world world;
  sv_client *client = begin_updates(&world, FL_CODEC_THC);
  fli_manifest manifest = sv_manifest(client);
  sv_upload(client, &manifest, (const uint8_t *)"garbage", 7);
  expect_refused(&world, FL_REJECT_FORMAT);
}

Test(server_collect, update_that_declares_too_much_is_refused)
{
  sv_world world;
  sv_client *client = begin_updates(&world, FL_CODEC_THC);
  fli_manifest manifest = sv_manifest(client);
  manifest.total = UINT64_C(1) << 40;
  manifest.chunk_size = FLI_CHUNK_MIN;
  cr_assert_eq(fli_write_manifest(&client->out, &manifest), FL_OK);
  sv_push(client);
  expect_refused(&world, FL_REJECT_FORMAT);
}

Test(server_collect, update_in_another_slot_is_refused)
{
  sv_world world;
  sv_client *client = begin_updates(&world, FL_CODEC_THC);
  size_t size = 0;
  fli_manifest manifest = sv_manifest(client);
  uint8_t *data = sv_encode(client, client->plan.slot + 1, 10, &size);
  sv_upload(client, &manifest, data, size);
  free(data);
  expect_refused(&world, FL_REJECT_RANGE);
}

Test(server_collect, update_with_other_samples_than_its_norm_is_refused)
{
  sv_world world;
  sv_client *client = begin_updates(&world, FL_CODEC_THC);
  size_t size = 0;
  fli_manifest manifest = sv_manifest(client);
  uint8_t *data = sv_encode(client, client->plan.slot, 7, &size);
  sv_upload(client, &manifest, data, size);
  free(data);
  expect_refused(&world, FL_REJECT_RANGE);
}

Test(server_collect, update_encoded_for_another_round_is_refused)
{
  sv_world world;
  sv_client *client = begin_updates(&world, FL_CODEC_THC);
  size_t size = 0;
  fli_manifest manifest = sv_manifest(client);
  client->scale.round++;
  uint8_t *data = sv_encode(client, client->plan.slot, 10, &size);
  client->scale.round--;
  sv_upload(client, &manifest, data, size);
  free(data);
  expect_refused(&world, FL_REJECT_FORMAT);
}

Test(server_collect, update_before_the_scale_is_out_of_turn)
{
  sv_world world;
  sv_begin(&world, FL_CODEC_F32);
  sv_client *client = &world.clients[1];
  sv_pull(client);
  fli_manifest manifest = sv_manifest(client);
  sv_upload(client, &manifest, (const uint8_t *)"early", 5);
  sv_pull(client);
  cr_expect_eq(client->ack.reason, (uint32_t)FL_REJECT_STATE);
  client->has_plan = 1;
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  sv_free(&world);
}

Test(server_collect, update_of_another_round_is_stale)
{
  sv_world world;
  sv_client *client = begin_updates(&world, FL_CODEC_F32);
  fli_manifest manifest = sv_manifest(client);
  manifest.round = 77;
  sv_upload(client, &manifest, (const uint8_t *)"stale", 5);
  sv_pull(client);
  cr_expect_eq(client->ack.reason, (uint32_t)FL_REJECT_STALE);
  cr_expect_eq(client->ack.round, 77u);
  cr_expect_eq(sv_events(&world, FL_SERVER_PEER_REJECTED, NULL), 0u);
  sv_free(&world);
}

Test(server_collect, duplicate_update_is_acknowledged_and_counted_once)
{
  sv_world world;
  sv_client *client = begin_updates(&world, FL_CODEC_F32);
  sv_update(client);
  sv_pull(client);
  cr_expect_eq(client->ack.reason, (uint32_t)FL_REJECT_NONE);
  cr_expect_eq(sv_status(&world).accepted, 1u);
  sv_clear(client);
  sv_update(client);
  sv_pull(client);
  cr_expect_eq(client->got[FLI_MSG_ACK], 1u);
  cr_expect_eq(client->ack.reason, (uint32_t)FL_REJECT_NONE);
  cr_expect_eq(sv_status(&world).accepted, 1u);
  client->has_plan = client->has_scale = 0;
  client->is_mute = 0;
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  cr_expect_eq(sv_events(&world, FL_SERVER_UPDATE_ACCEPTED, NULL), 6u);
  sv_free(&world);
}
