/* SPDX-License-Identifier: Apache-2.0 */
/* Bans, allowances of messages and of bad ones, claims that are too large. */
#include "server_trust.h"

static const uint64_t hour = 3600 * SV_SECOND_NS;

/* ---- by the host ---- */

Test(server_bans, a_banned_client_is_turned_away_until_its_time_is_over)
{
  sv_world world;
  const sv_event *event = NULL;
  sv_begin(&world, FL_CODEC_F32);
  sv_client *client = &world.clients[0];
  sv_report(&world, 3);
  cr_assert_eq(fl_server_ban(world.server, client->id, hour), FL_OK);
  cr_expect_eq(fl_server_ban_left(world.server, client->id), hour);
  sv_pull(client);
  cr_expect_eq(client->reject.reason, (uint32_t)FL_REJECT_BANNED);
  cr_expect_eq(fl_server_wants_close(world.server, client->peer), 1);
  cr_assert_eq(sv_events(&world, FL_SERVER_CLIENT_BANNED, &event), 1u);
  cr_expect_str_eq(event->client_id, client->id);
  sv_clear(client);
  EXPECT_ANSWER(answer_on_return(client), FL_REJECT_BANNED);
  cr_expect_not_null(strstr(client->reject.text, "banned for 3601 s more"));
  client->is_gone = 1;
  /* Nobody waits for it. */
  sv_run(&world);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_FINISHED, NULL), 2u);
  cr_expect_eq(sv_events(&world, FL_SERVER_UPDATE_ACCEPTED, NULL), 4u);
  sv_tick(&world, hour - 1);
  EXPECT_ANSWER(answer_on_return(client), FL_REJECT_BANNED);
  sv_tick(&world, 1);
  cr_expect_eq(fl_server_ban_left(world.server, client->id), 0u);
  EXPECT_ANSWER(answer_on_return(client), FL_REJECT_NONE);
  sv_free(&world);
}

Test(server_bans, an_id_that_nobody_knows_can_be_banned_for_ever)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  sv_client *client = sv_add(&world, "eve", 1);
  cr_assert_eq(fl_server_ban(world.server, "eve", UINT64_MAX), FL_OK);
  sv_tick(&world, UINT64_MAX / 2);
  cr_expect_eq(fl_server_ban_left(world.server, "eve"), UINT64_MAX);
  EXPECT_ANSWER(answer_on_return(client), FL_REJECT_BANNED);
  cr_expect_eq(sv_status(&world).clients, 0u);
  cr_assert_eq(fl_server_unban(world.server, "eve"), FL_OK);
  cr_expect_eq(fl_server_unban(world.server, "eve"), FL_E_NOT_FOUND);
  EXPECT_ANSWER(answer_on_return(client), FL_REJECT_NONE);
  sv_free(&world);
}

Test(server_bans, the_key_is_banned_with_the_id)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  sv_client *client = add_keyed(&world, "eve", 3);
  sv_client *again = add_keyed(&world, "eva", 3);
  sv_hello(client);
  cr_assert_eq(fl_server_ban(world.server, "eve", hour), FL_OK);
  EXPECT_ANSWER(answer_to_hello(again), FL_REJECT_BANNED);
  cr_assert_eq(fl_server_unban(world.server, "eve"), FL_OK);
  EXPECT_ANSWER(answer_on_return(again), FL_REJECT_NONE);
  sv_free(&world);
}

Test(server_bans, a_ban_outlives_a_restart_by_what_is_left_of_it)
{
  sv_world world;
  sv_begin(&world, FL_CODEC_F32);
  sv_client *client = &world.clients[0];
  sv_give_key(client, 3);
  cr_assert_eq(fl_server_ban(world.server, client->id, hour), FL_OK);
  cr_assert_eq(fl_server_ban(world.server, "eve", UINT64_MAX), FL_OK);
  sv_tick(&world, hour / 4);
  sv_restart(&world);
  cr_expect_eq(fl_server_ban_left(world.server, client->id), hour / 4 * 3);
  cr_expect_eq(fl_server_ban_left(world.server, "eve"), UINT64_MAX);
  world.now = 5; /* another clock */
  sv_tick(&world, 0);
  cr_expect_eq(fl_server_ban_left(world.server, client->id), hour / 4 * 3);
  sv_tick(&world, hour / 4 * 3);
  cr_expect_eq(fl_server_ban_left(world.server, client->id), 0u);
  cr_expect_eq(fl_server_ban_left(world.server, "eve"), UINT64_MAX);
  sv_free(&world);
}

Test(server_bans, there_are_at_most_as_many_as_the_options_say)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.max_bans = 2;
  sv_start(&world);
  sv_tick(&world, SV_SECOND_NS);
  cr_assert_eq(fl_server_ban(world.server, "a", hour), FL_OK);
  cr_assert_eq(fl_server_ban(world.server, "b", 2 * hour), FL_OK);
  cr_expect_eq(fl_server_ban(world.server, "c", hour), FL_E_LIMIT);
  cr_expect_eq(fl_server_ban_left(world.server, "c"), 0u);
  cr_expect_eq(fl_server_ban(world.server, "a", 3 * hour), FL_OK);
  sv_tick(&world, 2 * hour);
  /* One of them is over. */
  cr_expect_eq(fl_server_ban(world.server, "c", hour), FL_OK);
  cr_expect_eq(fl_server_ban_left(world.server, "a"), hour);
  cr_expect_eq(fl_server_ban_left(world.server, "b"), 0u);
  cr_expect_eq(fl_server_ban_left(world.server, "c"), hour);
  sv_free(&world);
}

Test(server_bans, options_and_arguments_are_checked)
{
  static const struct {
    uint64_t rate_interval_ns, ban_ns;
    uint32_t max_bans;
    fl_status want;
  } cases[] = {
      {999999, 1, 1, FL_E_OPTIONS},
      {1000000, 1, 1, FL_OK},
      {86400 * SV_SECOND_NS, 1, 1, FL_OK},
      {86400 * SV_SECOND_NS + 1, 1, 1, FL_E_OPTIONS},
      {SV_SECOND_NS, 0, 1, FL_E_OPTIONS},
      {SV_SECOND_NS, 1, 0, FL_E_OPTIONS},
  };
  fl_server *server = NULL;
  fl_server_options options;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    cr_assert_eq(fl_server_options_init(&options, sizeof options), FL_OK);
    options.rate_interval_ns = cases[i].rate_interval_ns;
    options.ban_ns = cases[i].ban_ns;
    options.max_bans = cases[i].max_bans;
    cr_expect_eq(fl_server_new(&server, NULL, &options), cases[i].want, "%zu",
                 i);
    fl_server_free(server);
    server = NULL;
  }
  cr_assert_eq(fl_server_new(&server, NULL, NULL), FL_OK);
  cr_expect_eq(fl_server_ban(server, "a", 0), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_ban(server, "", 1), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_ban(server, NULL, 1), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_ban(NULL, "a", 1), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_unban(server, "\x7f"), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_unban(NULL, "a"), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_ban_left(NULL, "a"), 0u);
  cr_expect_eq(fl_server_ban_left(server, NULL), 0u);
  fl_server_free(server);
}

/* ---- messages ---- */

/* A client that says HELLO `n` times; how many were answered by WELCOME. */
static uint32_t say_hello(sv_client *client, int n)
{
  sv_clear(client);
  for (int i = 0; i < n; i++) {
    sv_hello(client);
    sv_pull(client);
  }
  return client->got[FLI_MSG_WELCOME];
}

Test(server_bans, an_allowance_of_messages_fills_up_evenly)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.max_messages = 6;
  world.options.rate_interval_ns = 60 * SV_SECOND_NS;
  sv_start(&world);
  sv_tick(&world, SV_SECOND_NS);
  sv_client *client = sv_add(&world, "eve", 1);
  cr_expect_eq(say_hello(client, 6), 6u);
  cr_expect_eq(fl_server_wants_close(world.server, client->peer), 0);
  cr_expect_eq(say_hello(client, 1), 0u);
  cr_expect_eq(client->reject.reason, (uint32_t)FL_REJECT_RATE);
  cr_expect_eq(fl_server_wants_close(world.server, client->peer), 1);
  /* Another connection does not help; time does, at 10 s a message. */
  client->peer++;
  cr_expect_eq(say_hello(client, 2), 1u, "the first is not yet its own");
  client->peer++;
  sv_tick(&world, 20 * SV_SECOND_NS);
  cr_expect_eq(say_hello(client, 5), 3u, "a connection's first, and two");
  client->peer++;
  sv_tick(&world, 1000 * SV_SECOND_NS);
  cr_expect_eq(say_hello(client, 9), 6u, "no more than all of it");
  sv_free(&world);
}

Test(server_bans, chunks_of_an_upload_are_not_messages)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  fl_model_free(world.model);
  world.model = sv_make_model(NULL, 20000); /* 20 chunks */
  cr_assert_eq(fl_model_copy_schema(world.model, world.schema), FL_OK);
  world.options.max_messages = 3; /* HELLO, NORM, MANIFEST */
  world.job_options.min_clients = 1;
  world.job_options.rounds = 1;
  sv_start(&world);
  sv_tick(&world, SV_SECOND_NS);
  sv_add(&world, "abe", 1);
  sv_join(&world);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  sv_free(&world);
}

Test(server_bans, chunks_of_no_upload_are_messages)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.max_messages = 10;
  sv_start(&world);
  sv_tick(&world, SV_SECOND_NS);
  sv_client *client = sv_add(&world, "eve", 1);
  sv_hello(client);
  const uint8_t byte = 0;
  const fli_chunk chunk = {.transfer = 9, .data = &byte, .size = 1};
  for (int i = 0; i < 9; i++) {
    cr_assert_eq(fli_write_chunk(&client->out, &chunk), FL_OK);
    sv_push(client);
  }
  cr_expect_eq(fl_server_wants_close(world.server, client->peer), 0);
  cr_assert_eq(fli_write_chunk(&client->out, &chunk), FL_OK);
  sv_push(client);
  cr_expect_eq(fl_server_wants_close(world.server, client->peer), 1);
  sv_free(&world);
}

/* ---- bad ones ---- */

/* NORM with a count that is none: RANGE, and lost for the round. */
static void misbehave(sv_client *client)
{
  uint8_t wire[2] = {0};
  const fli_norm norm = {.round = client->plan.round,
                         .attempt = client->plan.attempt,
                         .norms = wire,
                         .norms_size = 2,
                         .samples = 1};
  cr_assert_eq(fli_write_norm(&client->out, &norm), FL_OK);
  sv_push(client);
}

/* A manifest of no update: FORMAT, each time. */
static void send_nonsense(sv_client *client)
{
  const uint8_t data[1] = {0};
  fli_manifest manifest = sv_manifest(client);
  manifest.kind = FLI_TRANSFER_MODEL;
  sv_upload(client, &manifest, data, 1);
  sv_pull(client);
}

Test(server_bans, more_bad_messages_than_allowed_are_a_ban)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.max_rejects = 3;
  world.options.ban_ns = hour;
  world.job_options.rounds = 1;
  sv_start(&world);
  sv_add_three(&world);
  sv_join(&world);
  sv_tick(&world, 1000 * SV_SECOND_NS);
  sv_report(&world, 3);
  sv_client *bad = &world.clients[0];
  sv_pull(bad);
  for (int i = 0; i < 3; i++)
    send_nonsense(bad);
  cr_expect_eq(bad->ack.reason, (uint32_t)FL_REJECT_FORMAT);
  cr_expect_eq(fl_server_ban_left(world.server, bad->id), 0u);
  send_nonsense(bad);
  cr_expect_eq(fl_server_ban_left(world.server, bad->id), hour);
  cr_expect_eq(bad->reject.reason, (uint32_t)FL_REJECT_BANNED);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_BANNED, NULL), 1u);
  bad->is_gone = 1;
  sv_run(&world);
  cr_expect_eq(sv_status(&world).is_finished, 1u);
  cr_expect_eq(sv_events(&world, FL_SERVER_UPDATE_ACCEPTED, NULL), 2u);
  sv_tick(&world, hour);
  sv_clear(bad);
  EXPECT_ANSWER(answer_on_return(bad), FL_REJECT_NONE);
  sv_free(&world);
}

Test(server_bans, a_broken_stream_counts_and_closes_at_once)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.max_rejects = 1;
  sv_start(&world);
  sv_tick(&world, SV_SECOND_NS);
  sv_client *bad = sv_add(&world, "eve", 1);
  for (int i = 0; i < 2; i++) {
    const uint8_t junk[8] = {0, 0, 0, 0, FLI_PROTOCOL_MAX, 99, 0, 0};
    bad->peer++;
    sv_hello(bad);
    cr_assert_eq(fl_server_recv(world.server, bad->peer, junk, sizeof junk),
                 FL_OK);
    cr_expect_eq(fl_server_ban_left(world.server, "eve") > 0, i == 1);
  }
  sv_free(&world);
}

Test(server_bans, what_is_late_or_not_proven_bans_nobody)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.max_rejects = 1;
  sv_start(&world);
  sv_tick(&world, SV_SECOND_NS);
  sv_client *owner = add_keyed(&world, "abe", 1);
  sv_client *thief = add_keyed(&world, "abe", 2);
  sv_hello(owner);
  for (int i = 0; i < 9; i++)
    (void)answer_on_return(thief);
  owner->plan.round = 5;
  for (int i = 0; i < 9; i++)
    sv_decline(owner, FLI_MSG_DECLINE);
  sv_pull(owner);
  cr_expect_eq(owner->ack.reason, (uint32_t)FL_REJECT_STALE);
  cr_expect_eq(fl_server_ban_left(world.server, "abe"), 0u);
  sv_free(&world);
}

Test(server_bans, the_servers_own_bans_replace_the_one_that_ends_first)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.max_rejects = 1;
  world.options.max_bans = 1;
  sv_start(&world);
  sv_add_three(&world);
  sv_join(&world);
  sv_tick(&world, 1000 * SV_SECOND_NS);
  cr_assert_eq(fl_server_ban(world.server, "zoe", 9 * hour), FL_OK);
  sv_client *bad = &world.clients[0];
  sv_pull(bad);
  misbehave(bad);
  cr_expect_eq(fl_server_ban_left(world.server, bad->id), 0u);
  misbehave(bad);
  cr_expect_eq(fl_server_ban_left(world.server, bad->id), hour);
  cr_expect_eq(fl_server_ban_left(world.server, "zoe"), 0u);
  sv_free(&world);
}

/* ---- absurd claims ---- */

Test(server_bans, a_claim_above_max_samples_is_refused)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.max_samples = 1000;
  world.job_options.rounds = 1;
  sv_start(&world);
  sv_add_three(&world);
  world.clients[0].samples = 1001;
  EXPECT_ANSWER(answer_to_hello(&world.clients[0]), FL_REJECT_RANGE);
  world.clients[0].samples = 1000;
  world.clients[0].peer += 100;
  sv_join(&world);
  sv_tick(&world, 1000 * SV_SECOND_NS);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  /* More in the round than it said before. */
  world.clients[0].samples = 1001;
  sv_norm(&world.clients[0]);
  sv_pull(&world.clients[0]);
  cr_expect_eq(world.clients[0].ack.reason, (uint32_t)FL_REJECT_RANGE);
  world.clients[0].is_mute = 1;
  sv_norm(&world.clients[1]);
  sv_norm(&world.clients[2]);
  sv_pull(&world.clients[1]);
  sv_pull(&world.clients[2]);
  sv_client *client = &world.clients[1];
  size_t size = 0;
  uint8_t *data = sv_encode(client, client->plan.slot, 1001, &size);
  fli_manifest manifest = sv_manifest(client);
  sv_upload(client, &manifest, data, size);
  free(data);
  sv_pull(client);
  cr_expect_eq(client->ack.reason, (uint32_t)FL_REJECT_RANGE);
  sv_run(&world);
  sv_update(client);
  sv_run(&world);
  cr_expect_eq(sv_events(&world, FL_SERVER_UPDATE_ACCEPTED, NULL), 2u);
  sv_free(&world);
}

Test(server_bans, max_samples_is_checked_and_kept)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  cr_expect_eq(world.job_options.max_samples, UINT64_C(1) << 40);
  cr_assert_eq(fl_server_new(&world.server, NULL, NULL), FL_OK);
  world.job_options.max_samples = 0;
  cr_expect_eq(
      fl_server_add_job(world.server, world.model, &world.job_options, NULL),
      FL_E_OPTIONS);
  world.job_options.max_samples = (UINT64_C(1) << 40) + 1;
  cr_expect_eq(
      fl_server_add_job(world.server, world.model, &world.job_options, NULL),
      FL_E_OPTIONS);
  world.job_options.max_samples = 7;
  cr_expect_eq(
      fl_server_add_job(world.server, world.model, &world.job_options, NULL),
      FL_OK);
  sv_restart(&world);
  sv_client *client = sv_add(&world, "abe", 8);
  EXPECT_ANSWER(answer_to_hello(client), FL_REJECT_RANGE);
  sv_free(&world);
}
