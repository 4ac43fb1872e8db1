/* SPDX-License-Identifier: Apache-2.0 */
/* Clients that leave: what the server has of them goes, what they gave stays.
 */
#include <criterion/criterion.h>

#define CW_MUST(call) cr_assert_eq((call), FL_OK, "%s", fl_last_error())
#include "cohort_world.h"
#include "server_fixture.h"

static void leave(sv_client *client)
{
  const fli_decline bye = {.forgets = 1};
  SV_REQUIRE(fli_write_decline(&client->out, FLI_MSG_BYE, &bye) == FL_OK);
  (void)sv_push(client);
  sv_pull(client);
}

/* 1 when the server's state has these bytes somewhere. */
static int state_has(const sv_world *world, const char *text)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  const uint8_t *data = NULL;
  size_t n = 0;
  int found = 0;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_server_save(world->server, &writer), FL_OK);
  cr_assert_eq(fl_buffer_get(buffer, &data, &n), FL_OK);
  for (size_t i = 0; i + strlen(text) <= n; i++)
    found |= memcmp(data + i, text, strlen(text)) == 0;
  fl_buffer_free(buffer);
  return found;
}

Test(server_forget, a_client_that_leaves_is_forgotten)
{
  sv_world world;
  const sv_event *event = NULL;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.max_clients = 1;
  sv_start(&world);
  sv_client *first = sv_add(&world, "some-phone", 1);
  sv_client *second = sv_add(&world, "other-phone", 1);
  sv_hello(first);
  cr_expect(state_has(&world, "some-phone"));
  leave(first);
  cr_expect_eq(first->reject.reason, (uint32_t)FL_REJECT_FORGOTTEN);
  cr_expect_eq(fl_server_wants_close(world.server, first->peer), 1);
  cr_assert_eq(sv_events(&world, FL_SERVER_CLIENT_LEFT, &event), 1u);
  cr_expect_str_eq(event->client_id, "some-phone");
  cr_expect_eq(sv_events(&world, FL_SERVER_PEER_REJECTED, NULL), 0u);
  cr_expect_not(state_has(&world, "some-phone"));
  /* Its place is free. */
  sv_hello(second);
  sv_pull(second);
  cr_expect_eq(second->got[FLI_MSG_WELCOME], 1u);
  sv_free(&world);
}

Test(server_forget, in_a_round_it_goes_when_the_round_is_over)
{
  sv_world world;
  sv_begin(&world, FL_CODEC_F32);
  sv_client *client = &world.clients[0];
  sv_report(&world, 3);
  sv_pull(client);
  sv_update(client);
  sv_pull(client);
  cr_assert_eq(client->ack.reason, (uint32_t)FL_REJECT_NONE);
  client->has_scale = 0;
  leave(client);
  client->is_gone = 1;
  cr_expect_eq(client->reject.reason, (uint32_t)FL_REJECT_FORGOTTEN);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_LEFT, NULL), 0u);
  cr_expect(state_has(&world, client->id));
  sv_restart(&world);
  sv_return(&world.clients[1]);
  sv_return(&world.clients[2]);
  sv_run(&world);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_FINISHED, NULL), 2u);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_LEFT, NULL), 1u);
  cr_expect_not(state_has(&world, client->id));
  /* What it gave stays: 3 updates in the first round, 2 in the second. */
  cr_expect_eq(sv_events(&world, FL_SERVER_UPDATE_ACCEPTED, NULL), 5u);
  sv_free(&world);
}

Test(server_forget, a_round_does_not_wait_for_who_has_left)
{
  sv_world world;
  sv_begin(&world, FL_CODEC_F32);
  sv_report(&world, 2);
  leave(&world.clients[2]);
  world.clients[2].is_gone = 1;
  sv_run(&world);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_FINISHED, NULL), 2u);
  cr_expect_eq(sv_events(&world, FL_SERVER_UPDATE_ACCEPTED, NULL), 4u);
  sv_free(&world);
}

Test(server_forget, who_comes_back_before_the_end_stays)
{
  sv_world world;
  sv_begin(&world, FL_CODEC_F32);
  sv_client *client = &world.clients[0];
  sv_report(&world, 3);
  leave(client);
  sv_return(client);
  client->is_mute = 1;
  sv_run(&world);
  client->is_mute = 0;
  sv_run(&world);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_LEFT, NULL), 0u);
  cr_expect_eq(sv_status(&world).clients, 3u);
  cr_expect(sv_is_finished(&world));
  sv_free(&world);
}

/* Whatever the order in which they said so, and whoever thinks better of it. */
Test(server_forget, those_who_go_together_go_in_the_order_of_ids)
{
  sv_world world;
  uint32_t n = 0;
  const char *last = "";
  sv_begin(&world, FL_CODEC_F32);
  sv_report(&world, 3);
  leave(&world.clients[2]);
  leave(&world.clients[0]);
  sv_return(&world.clients[2]);
  leave(&world.clients[2]);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_LEFT, NULL), 0u);
  cr_assert_eq(fl_server_abort_round(world.server, 0), FL_OK);
  sv_drain(&world);
  for (size_t i = 0; i < world.n_events; i++) {
    if (world.events[i].body.kind != FL_SERVER_CLIENT_LEFT) continue;
    cr_expect(strcmp(last, world.events[i].client_id) < 0);
    last = world.events[i].client_id;
    n++;
  }
  cr_expect_eq(n, 2u);
  cr_expect_eq(sv_status(&world).clients, 1u);
  sv_free(&world);
}

Test(server_forget, leaving_after_the_end_works)
{
  sv_world world;
  sv_begin(&world, FL_CODEC_F32);
  sv_run(&world);
  cr_assert(sv_is_finished(&world));
  leave(&world.clients[1]);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_LEFT, NULL), 1u);
  cr_expect_not(state_has(&world, world.clients[1].id));
  sv_free(&world);
}

Test(server_forget, an_id_is_free_for_another_key_afterwards)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.enrolment = FL_ENROL_LISTED;
  sv_start(&world);
  sv_client *client = sv_add(&world, "abe", 1);
  sv_client *renamed = sv_add(&world, "bea", 1);
  sv_client *other = sv_add(&world, "abe", 1);
  sv_give_key(client, 1);
  sv_give_key(renamed, 1);
  sv_give_key(other, 2);
  cr_assert_eq(fl_server_allow(world.server, client->public_key, NULL), FL_OK);
  cr_assert_eq(fl_server_allow(world.server, other->public_key, NULL), FL_OK);
  sv_hello(client);
  leave(client);
  sv_hello(renamed);
  sv_pull(renamed);
  cr_expect_eq(renamed->got[FLI_MSG_WELCOME], 1u);
  sv_hello(other);
  sv_pull(other);
  cr_expect_eq(other->got[FLI_MSG_WELCOME], 1u);
  sv_free(&world);
}

Test(server_forget, a_ban_outlives_leaving)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  sv_client *client = sv_add(&world, "abe", 1);
  sv_give_key(client, 1);
  sv_hello(client);
  cr_assert_eq(fl_server_ban(world.server, "abe", UINT64_MAX), FL_OK);
  cr_assert_eq(fl_server_forget(world.server, 0, "abe"), FL_OK);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_LEFT, NULL), 1u);
  sv_return(client);
  sv_pull(client);
  cr_expect_eq(client->reject.reason, (uint32_t)FL_REJECT_BANNED);
  sv_free(&world);
}

Test(server_forget, arguments_are_checked)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  cr_expect_eq(fl_server_forget(NULL, 0, "a"), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_forget(world.server, 0, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_forget(world.server, 0, ""), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_forget(world.server, 1, "a"), FL_E_NOT_FOUND);
  cr_expect_eq(fl_server_forget(world.server, 0, "a"), FL_E_NOT_FOUND);
  sv_free(&world);
}

/* Ids that come and leave, against an array of who is there. */
Test(server_forget, whoever_comes_and_leaves_the_others_are_found)
{
  enum { IDS = 200, STEPS = 3000 };
  uint8_t there[IDS] = {0};
  uint32_t mix = 1, n = 0;
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.min_clients = IDS + 1; /* no round begins */
  sv_start(&world);
  for (int i = 0; i < STEPS; i++) {
    char id[8];
    mix = mix * 1664525u + 1013904223u;
    const uint32_t k = (mix >> 8) % IDS;
    snprintf(id, sizeof id, "c%u", k);
    if (mix >> 31) {
      sv_client *client = &world.clients[0];
      if (world.n_clients == 0) client = sv_add(&world, "", 1);
      client->id = id;
      client->peer = 1000 + k;
      sv_hello(client);
      n += !there[k];
      there[k] = 1;
    } else {
      cr_assert_eq(fl_server_forget(world.server, 0, id),
                   there[k] ? FL_OK : FL_E_NOT_FOUND);
      cr_assert_eq(fl_server_disconnected(world.server, 1000 + k), FL_OK);
      n -= there[k];
      there[k] = 0;
    }
    cr_assert_eq(sv_status(&world).clients, n);
    if (i % 100 == 0) sv_drain(&world);
    world.n_events = 0;
  }
  sv_free(&world);
}

/* ---- with cohorts and with a store ---- */

/* Some leave in every phase that a job with cohorts has. */
Test(server_forget, clients_of_cohorts_leave_their_place)
{
  static cw_world w;
  cw_init(&w, FL_CODEC_THC, 60, 2);
  w.job.participants = 30;
  cw_start(&w);
  for (uint32_t i = 0; i < 20; i++) {
    cw_run(&w, i + 1);
    cr_assert_eq(fl_server_forget(w.server, 0, w.clients[i].id), FL_OK);
  }
  cw_run(&w, UINT32_MAX);
  cr_assert(w.is_finished);
  cr_expect_eq(fl_cohort_set_client_count(cw_set(&w)), 40u);
  for (uint32_t i = 0; i < w.n_clients; i++) {
    uint32_t slot;
    cr_expect_eq(fl_server_find_member(w.server, 0, w.clients[i].id, &slot),
                 i < 20 ? FL_E_NOT_FOUND : FL_OK);
  }
  cw_free(&w);
}

/* 1 when some value of the store has these bytes. */
static int store_has(const fl_store *store, const char *text)
{
  uint8_t at[128];
  const void *key = NULL, *value = NULL;
  size_t size = 0, n = 0;
  int found = 0;
  while (fl_store_next(store, at, size, &key, &size) == FL_OK) {
    SV_REQUIRE(size <= sizeof at);
    memcpy(at, key, size);
    SV_REQUIRE(fl_store_get(store, at, size, &value, &n) == FL_OK);
    for (size_t i = 0; i + strlen(text) <= n; i++)
      found |= memcmp((const char *)value + i, text, strlen(text)) == 0;
  }
  return found;
}

/* The answer says that it is done: then it is, in the store, too. */
Test(server_forget, a_store_has_nothing_left_of_it_when_it_is_told_so)
{
  sv_world world;
  fl_store *store = NULL;
  cr_assert_eq(fl_store_memory_new(&store, NULL), FL_OK);
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.store = store;
  sv_start(&world);
  sv_client *client = sv_add(&world, "some-phone", 1);
  sv_give_key(client, 1);
  sv_hello(client);
  cr_assert_eq(fl_server_ban(world.server, "eve", UINT64_MAX), FL_OK);
  cr_assert_eq(fl_server_commit(world.server), FL_OK);
  cr_expect(store_has(store, "some-phone"));
  leave(client);
  cr_assert_eq(client->reject.reason, (uint32_t)FL_REJECT_FORGOTTEN);
  cr_expect_not(store_has(store, "some-phone"));
  fl_server_free(world.server);
  cr_assert_eq(fl_server_recover(&world.server, NULL, &world.options), FL_OK);
  cr_expect_eq(fl_server_forget(world.server, 0, "some-phone"), FL_E_NOT_FOUND);
  cr_expect_eq(fl_server_ban_left(world.server, "eve"), UINT64_MAX);
  sv_free(&world);
  fl_store_free(store);
}

/* Bans, the list and an owner of an id come back from a store; a replay of an
 * update that was acknowledged is none there either. */
Test(server_forget, trust_is_recovered_from_a_store)
{
  sv_world world;
  fl_store *store = NULL;
  cr_assert_eq(fl_store_memory_new(&store, NULL), FL_OK);
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.store = store;
  world.options.enrolment = FL_ENROL_LISTED;
  world.job_options.rounds = 3;
  sv_start(&world);
  sv_add_three(&world);
  for (size_t i = 0; i < 3; i++) {
    sv_client *client = &world.clients[i];
    sv_give_key(client, (uint8_t)(1 + i));
    cr_assert_eq(fl_server_allow(world.server, client->public_key, NULL),
                 FL_OK);
  }
  sv_join(&world);
  sv_tick(&world, SV_SECOND_NS);
  sv_report(&world, 3);
  sv_client *client = &world.clients[0];
  sv_pull(client);
  sv_update(client);
  sv_pull(client);
  cr_assert_eq(client->got[FLI_MSG_ACK], 1u);
  fl_server_free(world.server);
  cr_assert_eq(fl_server_recover(&world.server, NULL, &world.options), FL_OK);
  cr_expect_eq(fl_server_allow_count(world.server), 3u);
  sv_client *thief = sv_add(&world, client->id, 1);
  sv_give_key(thief, 2);
  sv_hello(thief);
  sv_pull(thief);
  cr_expect_eq(thief->reject.reason, (uint32_t)FL_REJECT_KEY);
  sv_return(client);
  sv_pull(client);
  sv_clear(client);
  fli_manifest manifest = sv_manifest(client);
  manifest.round = 1;
  sv_upload(client, &manifest, (const uint8_t *)"x", 1);
  sv_pull(client);
  cr_expect_eq(client->got[FLI_MSG_ACK], 1u);
  cr_expect_eq(client->ack.reason, (uint32_t)FL_REJECT_NONE);
  cr_expect_eq(sv_status(&world).accepted, 1u, "counted once");
  sv_free(&world);
  fl_store_free(store);
}
