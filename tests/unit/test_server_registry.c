/* SPDX-License-Identifier: Apache-2.0 */
/* Clients that are away and part of nothing take few bytes, and nobody can tell
 * by what the server says. */
#include <criterion/criterion.h>

#include "server/resting.h"
#include "server/server.h"
#include "server_fixture.h"

enum { MANY = 5000, BYTES = 64 };

static const fli_participant *slot_of(const sv_world *world, const char *id)
{
  const fli_registry *registry = &world->server->jobs[0]->registry;
  for (size_t i = 0; i < registry->capacity; i++) {
    const fli_participant *who = registry->slots[i];
    if (!who) continue;
    const char *name = fli_is_resting(who) ? fli_resting_id(who) : who->id;
    if (strcmp(name, id) == 0) return who;
  }
  return NULL;
}

static int rests(const sv_world *world, const char *id)
{
  const fli_participant *who = slot_of(world, id);
  cr_assert(who != NULL, "%s is not known", id);
  return fli_is_resting(who);
}

/* MANY clients say HELLO and go. */
static void visit_all(sv_world *world, sv_client *client, uint32_t n)
{
  static char id[32];
  client->id = id;
  for (uint32_t i = 0; i < n; i++) {
    snprintf(id, sizeof id, "device-%08u", i);
    client->peer = 10000 + i;
    client->samples = i + 1;
    sv_hello(client);
    sv_pull(client);
    sv_lose(client);
    sv_drain(world);
    world->n_events = 0;
  }
}

static void begin_many(sv_world *world, fl_context *context)
{
  sv_init(world, context, FL_CODEC_F32);
  world->job_options.min_clients = UINT32_MAX;
  sv_start(world);
  sv_tick(world, SV_SECOND_NS);
}

Test(server_registry, a_client_that_is_gone_takes_few_bytes)
{
  static sv_world world;
  uint64_t before = 0, after = 0;
  fl_context *context = NULL;
  cr_assert_eq(fl_context_new(&context, NULL), FL_OK);
  begin_many(&world, context);
  cr_assert_eq(fl_context_get_memory(context, &before, NULL), FL_OK);
  visit_all(&world, sv_add(&world, "", 1), MANY);
  sv_tick(&world, 3600 * SV_SECOND_NS);
  cr_assert_eq(fl_context_get_memory(context, &after, NULL), FL_OK);
  cr_expect_leq((after - before) / MANY, BYTES);
  /* They are all known, and come back as themselves. */
  visit_all(&world, &world.clients[0], MANY);
  cr_expect_eq(world.server->n_participants, (uint32_t)MANY);
  sv_free(&world);
  fl_context_free(context);
}

static size_t save(const sv_world *world, uint8_t *bytes, size_t capacity)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  const uint8_t *data = NULL;
  size_t n = 0;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_server_save(world->server, &writer), FL_OK);
  cr_assert_eq(fl_buffer_get(buffer, &data, &n), FL_OK);
  cr_assert_leq(n, capacity);
  memcpy(bytes, data, n);
  fl_buffer_free(buffer);
  return n;
}

Test(server_registry, what_is_saved_of_it_stays_from_restart_to_restart)
{
  static sv_world world;
  static uint8_t first[1 << 20], second[1 << 20];
  begin_many(&world, NULL);
  visit_all(&world, sv_add(&world, "", 1), 300);
  sv_tick(&world, 3600 * SV_SECOND_NS);
  cr_expect(rests(&world, "device-00000007"));
  const size_t n = save(&world, first, sizeof first);
  sv_restart(&world);
  /* Restored ones are awake until the first tick, and the same. */
  cr_expect(!rests(&world, "device-00000007"));
  cr_expect_eq(save(&world, second, sizeof second), n);
  cr_expect_arr_eq(first, second, n);
  sv_tick(&world, 1);
  cr_expect(rests(&world, "device-00000007"));
  cr_expect_eq(save(&world, second, sizeof second), n);
  cr_expect_arr_eq(first, second, n);
  sv_free(&world);
}

/* Three trained round 1 and left; long after they come back. */
Test(server_registry, one_that_comes_back_has_its_token_and_what_was_counted)
{
  static sv_world world;
  sv_begin(&world, FL_CODEC_F32);
  uint8_t token[FLI_TOKEN_BYTES];
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  memcpy(token, world.clients[1].welcome.token, sizeof token);
  cr_expect_eq(fl_server_pause_job(world.server, 0), FL_OK);
  sv_run(&world);
  cr_assert_eq(sv_status(&world).model_version, 1u);
  for (size_t i = 0; i < 3; i++)
    sv_lose(&world.clients[i]);
  cr_expect(!rests(&world, "abe"));
  sv_tick(&world, 3600 * SV_SECOND_NS);
  cr_expect(rests(&world, "abe") && rests(&world, "bea") &&
            rests(&world, "cay"));
  sv_clear(&world.clients[1]);
  sv_return(&world.clients[1]);
  sv_pull(&world.clients[1]);
  cr_expect(!rests(&world, "abe"));
  cr_expect_arr_eq(world.clients[1].welcome.token, token, sizeof token);
  /* Its ACK may have been lost, so it is said again. */
  cr_expect_eq(world.clients[1].got[FLI_MSG_ACK], 1u);
  cr_expect_eq(world.clients[1].ack.round, 1u);
  cr_expect_eq(fl_server_resume_job(world.server, 0), FL_OK);
  sv_return(&world.clients[0]);
  sv_return(&world.clients[2]);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  sv_free(&world);
}

Test(server_registry, a_member_of_the_round_rests_when_it_is_over)
{
  static sv_world world;
  sv_begin(&world, FL_CODEC_F32);
  sv_report(&world, 3);
  sv_lose(&world.clients[0]);
  /* Less than the deadline, more than the grace. */
  sv_tick(&world, 60 * SV_SECOND_NS);
  cr_expect(!rests(&world, "cay"));
  for (size_t i = 1; i < 3; i++) {
    sv_pull(&world.clients[i]);
    sv_update(&world.clients[i]);
    world.clients[i].has_plan = world.clients[i].has_scale = 0;
  }
  sv_tick(&world, 1);
  cr_expect_eq(sv_status(&world).model_version, 1u);
  cr_expect(rests(&world, "cay"));
  sv_run(&world);
  cr_expect(sv_events(&world, FL_SERVER_JOB_FINISHED, NULL) == 1u);
  sv_free(&world);
}

Test(server_registry, fields_of_any_size_come_back)
{
  static sv_world world;
  sv_begin(&world, FL_CODEC_F32);
  const fli_participant *any = slot_of(&world, "abe");
  static const uint64_t values[] = {
      0, 1, 127, 128, 16383, 16384, UINT32_MAX, UINT64_C(1) << 40, UINT64_MAX};
  for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
    fli_participant who = *any, back;
    memset(who.id, 'x', FLI_ID_BYTES - 1);
    who.id[i == 0 ? 1 : FLI_ID_BYTES - 1] = 0;
    who.samples = who.counted_round = who.before_round = values[i];
    who.capabilities = values[i];
    who.depth = who.counted_attempt = who.before_attempt = (uint32_t)values[i];
    fli_participant *resting = fli_resting_make(&who);
    cr_assert(resting && fli_is_resting(resting));
    memset(&back, 0, sizeof back);
    fli_resting_read(resting, &back);
    cr_expect_str_eq(back.id, who.id);
    cr_expect_eq(back.samples, values[i]);
    cr_expect_eq(back.counted_round, values[i]);
    cr_expect_eq(back.before_round, values[i]);
    cr_expect_eq(back.capabilities, values[i]);
    cr_expect_eq(back.depth, (uint32_t)values[i]);
    cr_expect_eq(back.counted_attempt, (uint32_t)values[i]);
    cr_expect_eq(back.before_attempt, (uint32_t)values[i]);
    cr_expect_eq(fli_resting_hash(resting), (uint32_t)who.hash);
    fli_resting_free(any->home->context, resting);
  }
  sv_free(&world);
}

/* ---- allowances ---- */

/* Six an hour, all of which are used when it goes. */
static sv_client *begin_metered(sv_world *world)
{
  sv_init(world, NULL, FL_CODEC_F32);
  world->options.max_messages = 6;
  world->options.rate_interval_ns = 3600 * SV_SECOND_NS;
  world->job_options.min_clients = UINT32_MAX;
  sv_start(world);
  sv_tick(world, SV_SECOND_NS);
  sv_client *client = sv_add(world, "eve", 1);
  for (int i = 0; i < 6; i++)
    sv_hello(client);
  sv_pull(client);
  sv_lose(client);
  return client;
}

/* How often it is welcome on new connections, of which each has one message
 * before the server knows whose it is. */
static uint32_t welcomes(sv_client *client)
{
  sv_clear(client);
  for (int i = 0;
       i < 9 && fl_server_wants_close(client->world->server, client->peer) != 1;
       i++) {
    i ? sv_hello(client) : sv_return(client);
    sv_pull(client);
  }
  sv_lose(client);
  return client->got[FLI_MSG_WELCOME];
}

Test(server_registry, a_client_whose_allowance_is_not_whole_rests_and_keeps_it)
{
  sv_world world;
  sv_client *client = begin_metered(&world);
  sv_tick(&world, 1201 * SV_SECOND_NS); /* two of them are back */
  cr_assert(rests(&world, "eve"));
  cr_expect_eq(welcomes(client), 2u + 1u);
  sv_tick(&world, 2402 * SV_SECOND_NS);
  cr_assert(rests(&world, "eve"));
  sv_tick(&world, 9000 * SV_SECOND_NS);
  cr_expect_eq(welcomes(client), 6u);
  sv_free(&world);
}

/* Time in which the server does not run is none; the new clock starts anywhere.
 */
Test(server_registry, an_allowance_outlives_a_restart)
{
  for (int is_at_rest = 0; is_at_rest < 2; is_at_rest++) {
    sv_world world;
    sv_client *client = begin_metered(&world);
    if (is_at_rest) sv_tick(&world, 601 * SV_SECOND_NS);
    cr_assert_eq(rests(&world, "eve"), is_at_rest);
    sv_restart(&world);
    sv_tick(&world, 100000 * SV_SECOND_NS);
    cr_expect_eq(welcomes(client), is_at_rest ? 1u + 1u : 1u);
    /* Whoever rests before the first tick is on the new clock, too. */
    sv_restart(&world);
    fli_registry_rest(world.server->jobs[0]);
    sv_tick(&world, 200000 * SV_SECOND_NS);
    cr_expect_eq(welcomes(client), 1u);
    sv_free(&world);
  }
}

/* A server with another interval holds nobody for longer than that. */
Test(server_registry,
     an_allowance_is_whole_after_an_interval_whatever_was_saved)
{
  sv_world world;
  sv_client *client = begin_metered(&world);
  world.options.rate_interval_ns = 6 * SV_SECOND_NS;
  sv_restart(&world);
  sv_tick(&world, SV_SECOND_NS);
  cr_expect_eq(welcomes(client), 1u);
  sv_tick(&world, 8 * SV_SECOND_NS);
  cr_expect_eq(welcomes(client), 6u);
  sv_free(&world);
}
