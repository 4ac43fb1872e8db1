/* SPDX-License-Identifier: Apache-2.0 */
/* Whose id, whose bytes: keys of clients, signed updates. */
#include "server_trust.h"

/* Three clients with keys, at the end of the norms of round 1. */
static void begin_keyed(sv_world *world)
{
  sv_init(world, NULL, FL_CODEC_F32);
  sv_start(world);
  sv_add_three(world);
  for (size_t i = 0; i < 3; i++)
    sv_give_key(&world->clients[i], (uint8_t)(KEY_A + i));
  sv_join(world);
  sv_tick(world, 1000 * SV_SECOND_NS);
  sv_report(world, 3);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world->clients[i]);
}

/* ---- open ---- */

Test(server_identity, open_servers_take_clients_with_and_without_keys)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  sv_add_three(&world);
  sv_give_key(&world.clients[1], KEY_A);
  sv_join(&world);
  cr_expect_eq(world.clients[0].got[FLI_MSG_CHALLENGE], 0u);
  cr_expect_eq(world.clients[1].got[FLI_MSG_CHALLENGE], 1u);
  sv_tick(&world, 1000 * SV_SECOND_NS);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  cr_expect_eq(sv_events(&world, FL_SERVER_UPDATE_ACCEPTED, NULL), 6u);
  cr_expect_eq(sv_events(&world, FL_SERVER_PEER_REJECTED, NULL), 0u);
  sv_free(&world);
}

Test(server_identity, an_id_belongs_to_the_first_key_that_came_with_it)
{
  sv_world world;
  sv_client *owner = begin_one(&world);
  sv_client *thief = add_keyed(&world, "abe", KEY_B);
  sv_client *nobody = sv_add(&world, "abe", 1);
  EXPECT_ANSWER(answer_to_hello(owner), FL_REJECT_NONE);
  sv_lose(owner);
  EXPECT_ANSWER(answer_to_hello(thief), FL_REJECT_KEY);
  EXPECT_ANSWER(answer_to_hello(nobody), FL_REJECT_KEY);
  EXPECT_ANSWER(answer_on_return(owner), FL_REJECT_NONE);
  sv_free(&world);
}

Test(server_identity, an_id_belongs_to_its_key_after_a_restart)
{
  sv_world world;
  sv_client *owner = begin_one(&world);
  sv_client *thief = add_keyed(&world, "abe", KEY_B);
  sv_hello(owner);
  sv_restart(&world);
  EXPECT_ANSWER(answer_to_hello(thief), FL_REJECT_KEY);
  EXPECT_ANSWER(answer_on_return(owner), FL_REJECT_NONE);
  sv_free(&world);
}

Test(server_identity, who_has_the_key_takes_the_session_over)
{
  sv_world world;
  sv_client *client = begin_one(&world);
  sv_hello(client);
  const uint64_t before = client->peer;
  EXPECT_ANSWER(answer_on_return(client), FL_REJECT_NONE);
  cr_expect_eq(fl_server_wants_close(world.server, before), 1);
  cr_expect_eq(fl_server_wants_close(world.server, client->peer), 0);
  sv_free(&world);
}

/* ---- proofs ---- */

Test(server_identity, a_recorded_hello_opens_no_other_session)
{
  sv_world world;
  sv_client *owner = begin_one(&world);
  sv_client *replay = sv_add(&world, "abe", 1);
  sv_ask_challenge(owner);
  fli_hello hello = sv_hello_message(owner);
  sv_sign_hello(owner, &hello);
  EXPECT_ANSWER(answer_to(owner, &hello), FL_REJECT_NONE);
  sv_lose(owner);
  sv_send_hello(replay, &hello);
  sv_pull(replay);
  cr_expect_eq(replay->got[FLI_MSG_WELCOME], 0u);
  cr_expect_eq(replay->got[FLI_MSG_CHALLENGE], 1u);
  cr_expect(memcmp(replay->challenge.nonce, owner->challenge.nonce,
                   FLI_KEY_BYTES) != 0);
  EXPECT_ANSWER(answer_to(replay, &hello), FL_REJECT_SIGNATURE);
  cr_expect_eq(fl_server_wants_close(world.server, replay->peer), 1);
  sv_free(&world);
}

Test(server_identity, every_claim_of_a_hello_is_under_its_signature)
{
  for (int what = 0; what < 7; what++) {
    sv_world world;
    sv_client *client = begin_one(&world);
    sv_ask_challenge(client);
    fli_hello hello = sv_hello_message(client);
    sv_sign_hello(client, &hello);
    if (what == 0) hello.samples++;
    if (what == 1) hello.capabilities ^= FLI_CAP_EVALUATE;
    if (what == 2) hello.depth++;
    if (what == 3) hello.client_id[0] = 'b';
    if (what == 4) snprintf(hello.job, sizeof hello.job, "default");
    if (what == 5) hello.signature[0] ^= 1;
    const uint32_t want = what < 6 ? FL_REJECT_SIGNATURE : FL_REJECT_NONE;
    cr_expect_eq(answer_to(client, &hello), want, "%d", what);
    sv_free(&world);
  }
}

Test(server_identity, a_key_put_in_the_place_of_anothers_is_refused)
{
  sv_world world;
  sv_client *owner = begin_one(&world);
  sv_client *thief = add_keyed(&world, "bea", KEY_B);
  sv_ask_challenge(owner);
  fli_hello hello = sv_hello_message(owner);
  sv_sign_hello(owner, &hello);
  memcpy(hello.public_key, thief->public_key, sizeof hello.public_key);
  EXPECT_ANSWER(answer_to(owner, &hello), FL_REJECT_SIGNATURE);
  /* A key of small order, for which there are signatures of anything. */
  memset(thief->public_key, 0, sizeof thief->public_key);
  thief->public_key[0] = 1;
  sv_ask_challenge(thief);
  hello = sv_hello_message(thief);
  sv_sign_hello(thief, &hello);
  memset(hello.signature, 0, sizeof hello.signature);
  hello.signature[0] = 1;
  EXPECT_ANSWER(answer_to(thief, &hello), FL_REJECT_SIGNATURE);
  sv_free(&world);
}

/* What was signed for one server's challenge, handed on by it to another. */
Test(server_identity, a_proof_for_a_pinned_server_is_none_for_another)
{
  uint8_t mine[FL_PUBLIC_KEY_BYTES] = {1}, other[FL_PUBLIC_KEY_BYTES] = {2};
  for (int what = 0; what < 3; what++) {
    sv_world world;
    sv_init(&world, NULL, FL_CODEC_F32);
    if (what > 0) world.options.server_key = mine;
    sv_start(&world);
    sv_client *client = add_keyed(&world, "abe", KEY_A);
    sv_ask_challenge(client);
    fli_hello hello = sv_hello_message(client);
    hello.has_server_key = 1;
    memcpy(hello.server_key, what < 2 ? other : mine, sizeof other);
    sv_sign_hello(client, &hello);
    const uint32_t want = what < 2 ? FL_REJECT_KEY : FL_REJECT_NONE;
    cr_expect_eq(answer_to(client, &hello), want, "%d", what);
    sv_free(&world);
  }
}

Test(server_identity, a_pin_taken_away_breaks_the_signature)
{
  uint8_t mine[FL_PUBLIC_KEY_BYTES] = {1};
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.server_key = mine;
  sv_start(&world);
  sv_client *client = add_keyed(&world, "abe", KEY_A);
  sv_ask_challenge(client);
  fli_hello hello = sv_hello_message(client);
  hello.has_server_key = 1;
  hello.server_key[0] = 2;
  sv_sign_hello(client, &hello);
  hello.has_server_key = 0;
  EXPECT_ANSWER(answer_to(client, &hello), FL_REJECT_SIGNATURE);
  sv_free(&world);
}

static fl_status no_entropy(void *user, void *out, size_t n)
{
  int *is_dry = user;
  memset(out, 1, n);
  return *is_dry ? FL_E_ENTROPY : FL_OK;
}

Test(server_identity, a_host_without_entropy_challenges_nobody)
{
  sv_world world;
  int is_dry = 0;
  fl_context *context = NULL;
  fl_context_options options;
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  options.entropy = no_entropy;
  options.user = &is_dry;
  cr_assert_eq(fl_context_new(&context, &options), FL_OK);
  sv_init(&world, context, FL_CODEC_F32);
  sv_start(&world);
  sv_client *client = add_keyed(&world, "abe", KEY_A);
  is_dry = 1;
  sv_ask_challenge(client);
  cr_expect_eq(client->got[FLI_MSG_CHALLENGE], 0u);
  cr_expect_eq(client->reject.reason, (uint32_t)FL_REJECT_LIMIT);
  sv_free(&world);
  fl_context_free(context);
}

/* What was to be said is said again behind the next WELCOME, not before it. */
Test(server_identity, nothing_but_the_challenge_follows_an_unsigned_hello)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.min_clients = 1;
  sv_start(&world);
  sv_client *client = add_keyed(&world, "abe", KEY_A);
  sv_hello(client);
  sv_tick(&world, SV_SECOND_NS);
  sv_ask_challenge(client);
  cr_expect_eq(client->got[FLI_MSG_CHALLENGE], 2u);
  cr_expect_eq(client->got[FLI_MSG_WELCOME], 0u);
  cr_expect_eq(client->got[FLI_MSG_MANIFEST] + client->got[FLI_MSG_PLAN], 0u);
  EXPECT_ANSWER(answer_to_hello(client), FL_REJECT_NONE);
  cr_expect_eq(client->got[FLI_MSG_PLAN], 1u);
  sv_free(&world);
}

Test(server_identity, a_connection_has_one_challenge)
{
  sv_world world;
  sv_client *client = begin_one(&world);
  sv_ask_challenge(client);
  const fli_challenge first = client->challenge;
  sv_ask_challenge(client);
  cr_expect_eq(client->got[FLI_MSG_CHALLENGE], 2u);
  cr_expect(memcmp(&first, &client->challenge, sizeof first) == 0);
  sv_free(&world);
}

/* ---- updates ---- */

Test(server_identity, an_update_that_is_not_signed_is_not_counted)
{
  sv_world world;
  begin_keyed(&world);
  sv_client *client = &world.clients[0];
  client->has_key = 0;
  sv_update(client);
  sv_pull(client);
  cr_expect_eq(client->ack.reason, (uint32_t)FL_REJECT_SIGNATURE);
  cr_expect_eq(sv_status(&world).accepted, 0u);
  client->has_key = 1;
  sv_update(client);
  sv_pull(client);
  cr_expect_eq(client->ack.reason, (uint32_t)FL_REJECT_NONE);
  cr_expect_eq(sv_status(&world).accepted, 1u);
  sv_free(&world);
}

/* Everything about an update is under its signature. */
Test(server_identity, a_forged_update_is_refused_before_it_is_read)
{
  for (int what = 0; what < 9; what++) {
    sv_world world;
    begin_keyed(&world);
    sv_client *client = &world.clients[0];
    fli_manifest manifest = sv_manifest(client);
    manifest.has_report = 1;
    size_t size = 0;
    uint8_t *data = sv_encode(client, client->plan.slot, 10, &size);
    fli_hash(manifest.hash, data, size);
    manifest.total = size;
    if (what == 0) memcpy(client->secret, world.clients[1].secret, 64);
    if (what == 1) client->session[0] ^= 1;
    sv_sign_update(client, &manifest);
    if (what == 2) manifest.loss += 1.0;
    if (what == 3) manifest.model_version++;
    if (what == 4) manifest.report_value += 1.0;
    if (what == 5) manifest.report_module++;
    if (what == 6) manifest.has_report = 0;
    if (what == 7) manifest.signature[63] ^= 1;
    if (what == 8) data[size - 1] ^= 1; /* another root */
    sv_upload(client, &manifest, data, size);
    sv_pull(client);
    cr_expect_eq(client->ack.reason, (uint32_t)FL_REJECT_SIGNATURE, "%d", what);
    cr_expect_eq(sv_status(&world).accepted, 0u, "%d", what);
    free(data);
    sv_free(&world);
  }
}

/* What a client signed in a session before this one. */
Test(server_identity, an_update_of_another_session_is_refused)
{
  sv_world world;
  begin_keyed(&world);
  sv_client *client = &world.clients[0];
  uint8_t session[FL_HASH_BYTES];
  memcpy(session, client->session, sizeof session);
  sv_lose(client);
  sv_return(client);
  sv_pull(client);
  cr_assert_eq(client->has_scale, 1);
  memcpy(client->session, session, sizeof session);
  sv_update(client);
  sv_pull(client);
  cr_expect_eq(client->ack.reason, (uint32_t)FL_REJECT_SIGNATURE);
  sv_free(&world);
}

/* Bytes of round 1, heard on the wire, in round 2 and after a restart. */
Test(server_identity, an_update_of_a_round_before_is_a_replay)
{
  sv_world world;
  begin_keyed(&world);
  sv_client *client = &world.clients[0];
  fli_manifest manifest = sv_manifest(client);
  size_t size = 0;
  uint8_t *data = sv_encode(client, client->plan.slot, 10, &size);
  sv_upload(client, &manifest, data, size);
  client->has_scale = 0;
  sv_update(&world.clients[1]);
  sv_update(&world.clients[2]);
  sv_report(&world, 3);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  sv_update(client);
  sv_pull(client);
  cr_assert_eq(client->ack.round, 2u);
  sv_upload(client, &manifest, data, size);
  sv_pull(client);
  cr_expect_eq(client->ack.round, 1u);
  cr_expect_eq(client->ack.reason, (uint32_t)FL_REJECT_REPLAY);
  cr_expect_eq(reason_of_last(&world), (uint32_t)FL_REJECT_REPLAY);
  sv_restart(&world);
  sv_return(client);
  sv_pull(client);
  sv_upload(client, &manifest, data, size);
  sv_pull(client);
  cr_expect_eq(client->ack.reason, (uint32_t)FL_REJECT_REPLAY);
  cr_expect_eq(sv_status(&world).accepted, 1u);
  free(data);
  sv_free(&world);
}

Test(server_identity, a_training_with_keys_ends_with_the_bytes_of_one_without)
{
  float weights[2][SV_WEIGHTS];
  for (int has_keys = 0; has_keys < 2; has_keys++) {
    sv_world world;
    sv_init(&world, NULL, FL_CODEC_THC);
    world.options.enrolment = has_keys ? FL_ENROL_LISTED : FL_ENROL_OPEN;
    sv_start(&world);
    sv_add_three(&world);
    for (size_t i = 0; has_keys && i < 3; i++) {
      sv_give_key(&world.clients[i], (uint8_t)(KEY_A + i));
      cr_assert_eq(fl_server_allow(world.server, world.clients[i].public_key,
                                   world.clients[i].id),
                   FL_OK);
    }
    sv_join(&world);
    sv_tick(&world, 1000 * SV_SECOND_NS);
    sv_run(&world);
    cr_assert(sv_is_finished(&world));
    cr_assert_eq(fl_server_copy_weights(world.server, 0, weights[has_keys],
                                        SV_WEIGHTS, NULL),
                 FL_OK);
    sv_free(&world);
  }
  cr_expect(memcmp(weights[0], weights[1], sizeof weights[0]) == 0);
}
