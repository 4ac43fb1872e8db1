/* SPDX-License-Identifier: Apache-2.0 */
/* Where parts of the server meet: tasks that outlive rounds, pauses, clients
 * that leave, bans, restarts and repeated downloads, two at a time. */
#include <criterion/criterion.h>

#include "server/server.h"
#include "server_buffering.h"

enum { KEY = 7 };

static const uint64_t grace = 20 * SV_SECOND_NS; /* and some more */

/* As many of those who have something to do send it. */
static void send_some(sv_world *world, uint32_t n)
{
  for (size_t i = 0; i < CLIENTS && n > 0; i++) {
    if (!world->clients[i].has_scale) continue;
    send_update(&world->clients[i]);
    n--;
  }
  cr_assert_eq(n, 0u);
}

/* Round 1, whose scale is exchanged, is over, and all know of round 2. */
static void begin(sv_world *world)
{
  people(world);
  first_round(world, BUFFER);
  pull_all(world);
  cr_assert_eq(sv_status(world).model_version, 1u);
}

/* Paused between rounds 2 and 3: the last three's tasks are carried. */
static void begin_paused(sv_world *world)
{
  prepare(world, 6, BUFFER);
  begin(world);
  send_update(&world->clients[0]);
  cr_assert_eq(fl_server_pause_job(world->server, 0), FL_OK);
  send_update(&world->clients[1]);
  pull_all(world);
  cr_assert_eq(sv_status(world).model_version, 2u);
}

/* It is away for longer than anybody waits for it. */
static void rest(sv_client *client)
{
  sv_lose(client);
  for (int i = 0; i < 5; i++)
    sv_tick(client->world, grace);
}

/* Those who are there end the job, each of them with its model. */
static void expect_the_end(sv_world *world, size_t n_there)
{
  for (int i = 0; i < 20 && !sv_status(world).is_finished; i++) {
    sv_run(world);
    sv_tick(world, grace);
  }
  cr_expect_eq(sv_status(world).is_finished, 1u);
  cr_expect_eq(sv_status(world).model_version, 6u);
  size_t n = 0;
  sv_run(world);
  for (size_t i = 0; i < CLIENTS; i++) {
    if (world->clients[i].is_gone) continue;
    cr_expect(sv_agrees(&world->clients[i]));
    n++;
  }
  cr_expect_eq(n, n_there);
}

/* ---- carried tasks ---- */

Test(server_meetings, a_client_at_work_that_rests_is_not_asked_again)
{
  sv_world world;
  begin_paused(&world);
  rest(&world.clients[4]);
  sv_return(sv_add(&world, "fay", 10)); /* where its record was, perhaps */
  cr_assert_eq(fl_server_resume_job(world.server, 0), FL_OK);
  sv_tick(&world, SV_SECOND_NS);
  cr_expect_eq(sv_status(&world).round, 3u);
  cr_expect_eq(sv_status(&world).selected, (uint32_t)CLIENTS);
  expect_the_end(&world, CLIENTS - 1);
  sv_free(&world);
}

Test(server_meetings, a_client_at_work_that_rested_begins_anew_when_it_returns)
{
  sv_world world;
  begin_paused(&world);
  sv_client *slow = &world.clients[4];
  rest(slow);
  sv_return(slow);
  cr_assert_eq(fl_server_resume_job(world.server, 0), FL_OK);
  pull_all(&world);
  cr_assert(slow->has_plan);
  cr_expect_eq(slow->plan.round, 3u);
  send_update(slow);
  cr_expect_eq(slow->ack.reason, (uint32_t)FL_REJECT_NONE);
  expect_the_end(&world, CLIENTS);
  sv_free(&world);
}

Test(server_meetings, a_client_at_work_that_is_forgotten_is_not_asked_again)
{
  sv_world world;
  begin_paused(&world);
  cr_assert_eq(fl_server_forget(world.server, 0, "eve"), FL_OK);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_LEFT, NULL), 1u);
  world.clients[4].is_gone = 1;
  sv_hello(sv_add(&world, "fay", 10));
  cr_assert_eq(fl_server_resume_job(world.server, 0), FL_OK);
  sv_tick(&world, SV_SECOND_NS);
  cr_expect_eq(sv_status(&world).round, 3u);
  cr_expect_eq(sv_status(&world).selected, (uint32_t)CLIENTS);
  expect_the_end(&world, CLIENTS - 1);
  sv_free(&world);
}

Test(server_meetings, a_client_at_work_may_leave_while_the_job_is_paused)
{
  sv_world world;
  begin_paused(&world);
  sv_client *slow = &world.clients[2];
  const fli_decline bye = {.forgets = 1};
  cr_assert_eq(fli_write_decline(&slow->out, FLI_MSG_BYE, &bye), FL_OK);
  cr_assert_eq(sv_push(slow), FL_OK);
  sv_pull(slow);
  cr_expect_eq(slow->reject.reason, (uint32_t)FL_REJECT_FORGOTTEN);
  slow->is_gone = 1;
  sv_hello(sv_add(&world, "fay", 10));
  cr_assert_eq(fl_server_resume_job(world.server, 0), FL_OK);
  expect_the_end(&world, CLIENTS - 1);
  sv_free(&world);
}

Test(server_meetings, a_paused_job_is_restored_when_one_at_work_rests)
{
  sv_world world;
  begin_paused(&world);
  sv_client *gone = &world.clients[4];
  rest(gone);
  sv_restart(&world);
  sv_tick(&world, SV_SECOND_NS);
  cr_expect_eq(sv_status(&world).is_paused, 1u);
  for (size_t i = 0; i < CLIENTS - 1; i++)
    sv_return(&world.clients[i]);
  sv_hello(sv_add(&world, "fay", 10));
  cr_assert_eq(fl_server_resume_job(world.server, 0), FL_OK);
  expect_the_end(&world, CLIENTS - 1);
  sv_free(&world);
}

Test(server_meetings, a_finished_job_is_restored_when_one_at_work_rests)
{
  sv_world world;
  prepare(&world, 2, BUFFER);
  begin(&world);
  send_some(&world, BUFFER);
  pull_all(&world);
  cr_assert_eq(sv_status(&world).is_finished, 1u);
  rest(&world.clients[4]);
  sv_restart(&world);
  sv_tick(&world, SV_SECOND_NS);
  cr_expect_eq(sv_status(&world).is_finished, 1u);
  cr_expect_eq(sv_status(&world).model_version, 2u);
  sv_client *late = &world.clients[4];
  sv_return(late);
  sv_pull(late);
  cr_expect(late->is_done);
  cr_expect(sv_agrees(late));
  sv_free(&world);
}

Test(server_meetings, a_task_of_an_earlier_round_can_be_declined)
{
  enum { AT_ONCE = 3 };
  sv_world world;
  sv_client *slow = NULL;
  uint32_t fresh = 0;
  prepare(&world, 6, BUFFER);
  world.job_options.participants = AT_ONCE;
  begin(&world);
  send_some(&world, BUFFER);
  pull_all(&world);
  cr_assert_eq(sv_status(&world).round, 3u);
  for (size_t i = 0; i < CLIENTS; i++) {
    sv_client *client = &world.clients[i];
    if (client->has_plan && client->plan.round == 2) slow = client;
  }
  cr_assert_not_null(slow);
  slow->has_plan = slow->has_scale = 0;
  sv_clear(slow);
  sv_decline(slow, FLI_MSG_DECLINE);
  sv_pull(slow);
  cr_expect_eq(slow->got[FLI_MSG_ACK], 0u);
  send_some(&world, BUFFER);
  pull_all(&world);
  /* All of the next round's places are for new tasks. */
  cr_assert_eq(sv_status(&world).round, 4u);
  for (size_t i = 0; i < CLIENTS; i++) {
    const sv_client *client = &world.clients[i];
    fresh += client->has_plan && client->plan.round == 4;
  }
  cr_expect_eq(fresh, (uint32_t)AT_ONCE);
  const sv_event *lost = NULL;
  cr_assert_geq(sv_events(&world, FL_SERVER_CLIENT_LOST, &lost), 1u);
  cr_expect_str_eq(lost->client_id, slow->id);
  cr_expect_eq(lost->body.reason, (uint32_t)FL_REJECT_DECLINED);
  sv_free(&world);
}

Test(server_meetings, a_task_can_be_declined_while_the_job_is_paused)
{
  sv_world world;
  begin_paused(&world);
  sv_client *slow = &world.clients[4];
  slow->has_plan = slow->has_scale = 0;
  sv_decline(slow, FLI_MSG_DECLINE);
  pull_all(&world);
  cr_assert_eq(fl_server_resume_job(world.server, 0), FL_OK);
  pull_all(&world);
  cr_expect(slow->has_plan);
  cr_expect_eq(slow->plan.round, 3u);
  sv_free(&world);
}

Test(server_meetings, who_ends_its_task_in_a_pause_gets_another_after_it)
{
  sv_world world;
  begin_paused(&world);
  sv_client *late = &world.clients[4];
  const sv_client *slow = &world.clients[3];
  send_update(late);
  cr_expect_eq(late->ack.reason, (uint32_t)FL_REJECT_STALE);
  cr_assert_not(late->has_plan);
  cr_assert_eq(fl_server_resume_job(world.server, 0), FL_OK);
  pull_all(&world);
  cr_assert(late->has_plan);
  cr_expect_eq(late->plan.round, 3u);
  cr_expect_eq(slow->plan.round, 2u, "it is still at its first");
  send_update(late);
  cr_expect_eq(late->ack.reason, (uint32_t)FL_REJECT_NONE);
  sv_free(&world);
}

/* ---- downloads ---- */

/* What one call of fl_server_send gives; 0 = nothing. */
static int pull_once(sv_client *client)
{
  const uint8_t *data = NULL;
  size_t n = 0;
  fli_frame frame;
  if (fl_server_send(client->world->server, client->peer, &data, &n) != FL_OK ||
      n == 0)
    return 0;
  fli_frame_feed(&client->parser, data, n);
  while (fli_frame_next(&client->parser, &frame) == FL_OK)
    sv_take_frame(client, &frame);
  return 1;
}

/* "Of my download the first byte is missing, and no more." */
static void ask_first_byte(sv_client *client)
{
  uint8_t range[FLI_RANGE_BYTES] = {0};
  range[FLI_RANGE_BYTES / 2] = 1;
  const fli_missing missing = {.transfer = client->incoming.manifest.transfer,
                               .ranges = range,
                               .ranges_size = sizeof range};
  cr_assert_eq(fli_write_missing(&client->out, &missing), FL_OK);
  cr_assert_eq(sv_push(client), FL_OK);
}

/* Every model that it begins to take is followed by another. */
Test(server_meetings, a_download_that_was_cut_short_holds_nothing)
{
  sv_world world;
  fl_context *context = NULL;
  uint64_t bytes = 0;
  cr_assert_eq(fl_context_new(&context, NULL), FL_OK);
  sv_init(&world, context, FL_CODEC_F32);
  fl_model_free(world.model);
  world.model = sv_make_model(NULL, 20000); /* 20 chunks */
  cr_assert_eq(fl_model_copy_schema(world.model, world.schema), FL_OK);
  sv_start(&world);
  sv_add_three(&world);
  sv_join(&world);
  sv_tick(&world, 1000 * SV_SECOND_NS);
  sv_client *client = &world.clients[0];
  for (int i = 0; i < 3; i++) {
    sv_clear(client);
    for (int k = 0; client->got[FLI_MSG_CHUNK] < 3; k++) {
      cr_assert(pull_once(client));
      cr_assert_lt(k, 100);
    }
    cr_assert(client->incoming.is_active);
    ask_first_byte(client);
    while (pull_once(client)) {
    }
    cr_expect_lt(client->got[FLI_MSG_CHUNK], 10u, "no more than it asked for");
    cr_expect_not(client->model.is_valid);
    cr_assert_eq(fl_server_abort_round(world.server, 0), FL_OK);
    sv_tick(&world, 1000 * SV_SECOND_NS);
  }
  for (size_t i = 0; i < 3; i++)
    world.clients[i].has_plan = world.clients[i].has_scale = 0;
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  sv_free(&world);
  cr_assert_eq(fl_context_get_memory(context, &bytes, NULL), FL_OK);
  cr_expect_eq(bytes, 0u);
  fl_context_free(context);
}

/* ---- clients that leave ---- */

Test(server_meetings, a_ban_of_a_key_is_lifted_when_its_client_was_forgotten)
{
  for (int is_restored = 0; is_restored < 2; is_restored++) {
    sv_world world;
    sv_init(&world, NULL, FL_CODEC_F32);
    sv_start(&world);
    sv_client *client = sv_add(&world, "cay", 10);
    sv_give_key(client, KEY);
    sv_hello(client);
    cr_assert_eq(fl_server_ban(world.server, "cay", UINT64_MAX), FL_OK);
    cr_assert_eq(fl_server_forget(world.server, 0, "cay"), FL_OK);
    cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_LEFT, NULL), 1u);
    if (is_restored) sv_restart(&world);
    sv_client *renamed = sv_add(&world, "cat", 10);
    sv_give_key(renamed, KEY);
    sv_hello(renamed);
    sv_pull(renamed);
    cr_expect_eq(renamed->reject.reason, (uint32_t)FL_REJECT_BANNED);
    cr_assert_eq(fl_server_unban(world.server, "cay"), FL_OK);
    cr_expect_eq(fl_server_unban(world.server, "cay"), FL_E_NOT_FOUND);
    sv_clear(client);
    sv_return(client);
    sv_pull(client);
    cr_expect_eq(client->got[FLI_MSG_WELCOME], 1u);
    cr_expect_eq(client->got[FLI_MSG_REJECT], 0u);
    sv_free(&world);
  }
}

/* Earlier states have bans of keys that do not say whose they are. */
Test(server_meetings, a_ban_of_an_earlier_state_is_lifted)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  sv_client *client = sv_add(&world, "cay", 10);
  sv_give_key(client, KEY);
  sv_hello(client);
  cr_assert_eq(fl_server_ban(world.server, "cay", UINT64_MAX), FL_OK);
  fli_marks *banned = &world.server->trust.banned;
  cr_assert_eq(banned->count, 2u);
  for (size_t i = 0; i < banned->capacity; i++) {
    memset(banned->slots[i].owner, 0, sizeof banned->slots[i].owner);
    banned->slots[i].has_owner = 0;
  }
  sv_restart(&world);
  cr_expect_eq(fl_server_ban_left(world.server, "cay"), UINT64_MAX);
  cr_assert_eq(fl_server_unban(world.server, "cay"), FL_OK);
  cr_expect_eq(fl_server_ban_left(world.server, "cay"), 0u);
  sv_clear(client);
  sv_return(client);
  sv_pull(client);
  cr_expect_eq(client->got[FLI_MSG_WELCOME], 1u);
  sv_free(&world);
}

/* Of two that are banned one is let in again. */
Test(server_meetings, a_ban_is_lifted_for_its_own_id_alone)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  for (size_t i = 0; i < 2; i++) {
    sv_client *client = sv_add(&world, i == 0 ? "abe" : "bea", 10);
    sv_give_key(client, (uint8_t)(KEY + i));
    sv_hello(client);
    cr_assert_eq(fl_server_ban(world.server, client->id, UINT64_MAX), FL_OK);
  }
  cr_assert_eq(fl_server_unban(world.server, "abe"), FL_OK);
  for (size_t i = 0; i < 2; i++) {
    sv_client *client = &world.clients[i];
    sv_clear(client);
    sv_return(client);
    sv_pull(client);
    cr_expect_eq(client->got[FLI_MSG_WELCOME], i == 0);
  }
  cr_expect_eq(fl_server_ban_left(world.server, "bea"), UINT64_MAX);
  sv_free(&world);
}

Test(server_meetings, who_leaves_goes_when_a_paused_jobs_round_is_given_up)
{
  for (int is_buffered = 0; is_buffered < 2; is_buffered++) {
    sv_world world;
    if (is_buffered) {
      prepare(&world, 6, BUFFER);
      begin(&world);
    } else {
      sv_begin(&world, FL_CODEC_F32);
    }
    const char *id = world.clients[0].id;
    cr_assert_eq(fl_server_pause_job(world.server, 0), FL_OK);
    cr_assert_eq(fl_server_forget(world.server, 0, id), FL_OK);
    cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_LEFT, NULL), 0u);
    cr_assert_eq(fl_server_abort_round(world.server, 0), FL_OK);
    sv_tick(&world, SV_SECOND_NS);
    cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_LEFT, NULL), 1u);
    cr_expect_eq(sv_status(&world).is_paused, 1u);
    cr_expect_eq(sv_status(&world).clients, (uint32_t)world.n_clients - 1);
    cr_expect_eq(fl_server_forget(world.server, 0, id), FL_E_NOT_FOUND);
    sv_free(&world);
  }
}

static void hello_to(sv_client *client, const char *job)
{
  fli_hello hello = sv_hello_message(client);
  snprintf(hello.job, sizeof hello.job, "%s", job);
  sv_ask_challenge(client);
  sv_sign_hello(client, &hello);
  sv_send_hello(client, &hello);
  sv_pull(client);
}

Test(server_meetings, a_listed_key_stays_taken_while_another_job_knows_it)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.enrolment = FL_ENROL_LISTED;
  sv_start(&world);
  world.job_options.name = "second";
  cr_assert_eq(
      fl_server_add_job(world.server, world.model, &world.job_options, NULL),
      FL_OK);
  sv_client *here = sv_add(&world, "abe", 1);
  sv_client *there = sv_add(&world, "abe", 1);
  sv_client *other = sv_add(&world, "bea", 1);
  for (size_t i = 0; i < 3; i++)
    sv_give_key(&world.clients[i], KEY);
  cr_assert_eq(fl_server_allow(world.server, here->public_key, NULL), FL_OK);
  hello_to(here, "");
  hello_to(there, "second");
  cr_assert_eq(here->got[FLI_MSG_WELCOME], 1u);
  cr_assert_eq(there->got[FLI_MSG_WELCOME], 1u);
  cr_assert_eq(fl_server_forget(world.server, 0, "abe"), FL_OK);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_LEFT, NULL), 1u);
  hello_to(other, "");
  cr_expect_eq(other->got[FLI_MSG_WELCOME], 0u);
  cr_expect_eq(other->reject.reason, (uint32_t)FL_REJECT_KEY);
  cr_assert_eq(fl_server_forget(world.server, 1, "abe"), FL_OK);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_LEFT, NULL), 2u);
  other->peer += 100;
  hello_to(other, "");
  cr_expect_eq(other->got[FLI_MSG_WELCOME], 1u);
  sv_free(&world);
}
