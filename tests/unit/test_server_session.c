/* SPDX-License-Identifier: Apache-2.0 */
/* Connections: who is let in, what broken and hostile bytes do, and in which
 * order peers are served. Whatever one peer does, the others' round goes on. */
#include <criterion/criterion.h>

#include "base/rng.h"
#include "server_fixture.h"

/* A job that needs three; `abe` and `bea` are in, `eve` is the test's. */
static sv_client *begin(sv_world *world)
{
  sv_init(world, NULL, FL_CODEC_F32);
  sv_start(world);
  sv_hello(sv_add(world, "abe", 10));
  sv_hello(sv_add(world, "bea", 10));
  sv_run(world);
  return sv_add(world, "eve", 10);
}

/* The newest rejection is for `reason`, and the client was told. */
static void expect_rejected(sv_world *world, sv_client *client, uint32_t reason,
                            const char *text)
{
  const sv_event *event = NULL;
  sv_pull(client);
  cr_assert_eq(sv_events(world, FL_SERVER_PEER_REJECTED, &event), 1u);
  cr_expect_eq(event->body.reason, reason, "got %u", event->body.reason);
  cr_expect_eq(event->body.peer, client->peer);
  cr_expect_not_null(strstr(event->text, text), "got \"%s\"", event->text);
  cr_expect_eq(client->got[FLI_MSG_REJECT], 1u);
  cr_expect_eq(client->reject.reason, reason);
  cr_expect_str_eq(client->reject.text, event->text);
  cr_expect_eq(fl_server_wants_close(world->server, client->peer), 1);
}

/* A third client comes and training ends well. */
static void expect_others_go_on(sv_world *world, sv_client *client)
{
  client->is_gone = 1;
  sv_hello(sv_add(world, "zoe", 10));
  sv_run(world);
  cr_expect_eq(sv_status(world).is_finished, 1u);
  sv_free(world);
}

/* ---- HELLO ---- */

Test(server_session, hello_is_answered_by_welcome)
{
  sv_world world;
  const sv_event *event = NULL;
  sv_client *client = begin(&world);
  sv_hello(client);
  sv_pull(client);
  cr_expect_eq(client->got[FLI_MSG_WELCOME], 1u);
  cr_expect_str_eq(client->welcome.job, "default");
  cr_expect_eq(client->welcome.description_size, 0u);
  cr_expect_arr_eq(client->welcome.schema, world.schema, FLI_HASH_BYTES);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_JOINED, &event), 3u);
  cr_expect_str_eq(event->client_id, "eve");
  cr_expect_eq(event->body.samples, 10u);
  sv_free(&world);
}

Test(server_session, hello_without_schema_gets_the_description)
{
  sv_world world;
  sv_client *client = begin(&world);
  fli_hello hello = sv_hello_message(client);
  fl_model *model = NULL;
  uint8_t schema[FL_HASH_BYTES];
  fli_frame frame;
  const uint8_t *data = NULL;
  size_t n = 0;
  hello.has_schema = 0;
  sv_send_hello(client, &hello);
  cr_assert_eq(fl_server_send(world.server, client->peer, &data, &n), FL_OK);
  fli_frame_feed(&client->parser, data, n);
  cr_assert_eq(fli_frame_next(&client->parser, &frame), FL_OK);
  cr_assert_eq(fli_parse_welcome(&client->welcome, frame.body, frame.size),
               FL_OK);
  cr_assert_eq(fl_model_from_description(&model, NULL,
                                         client->welcome.description,
                                         client->welcome.description_size),
               FL_OK);
  cr_assert_eq(fl_model_copy_schema(model, schema), FL_OK);
  cr_expect_arr_eq(schema, world.schema, sizeof schema);
  fl_model_free(model);
  sv_free(&world);
}

Test(server_session, hello_of_another_schema_is_rejected)
{
  sv_world world;
  sv_client *client = begin(&world);
  fli_hello hello = sv_hello_message(client);
  hello.schema[0] ^= 1;
  sv_send_hello(client, &hello);
  expect_rejected(&world, client, FL_REJECT_SCHEMA, "model schema: got ");
  expect_others_go_on(&world, client);
}

Test(server_session, hello_for_an_unknown_job_is_rejected)
{
  sv_world world;
  sv_client *client = begin(&world);
  fli_hello hello = sv_hello_message(client);
  snprintf(hello.job, sizeof hello.job, "nosuch");
  sv_send_hello(client, &hello);
  expect_rejected(&world, client, FL_REJECT_UNKNOWN_JOB, "\"nosuch\"");
  expect_others_go_on(&world, client);
}

Test(server_session, hello_of_another_protocol_version_is_rejected)
{
  sv_world world;
  sv_client *client = begin(&world);
  fli_hello hello = sv_hello_message(client);
  hello.version_min = 7;
  hello.version_max = 9;
  sv_send_hello(client, &hello);
  expect_rejected(&world, client, FL_REJECT_VERSION, "got 7..9, want 1..1");
  expect_others_go_on(&world, client);
}

Test(server_session, id_in_use_is_rejected)
{
  sv_world world;
  sv_client *client = begin(&world);
  client->id = "abe";
  sv_hello(client);
  expect_rejected(&world, client, FL_REJECT_ID_IN_USE, "\"abe\"");
  expect_others_go_on(&world, client);
}

Test(server_session, id_in_use_with_a_wrong_token_is_rejected)
{
  sv_world world;
  sv_client *client = begin(&world);
  client->id = "abe";
  fli_hello hello = sv_hello_message(client);
  hello.has_token = 1;
  memcpy(hello.token, world.clients[1].welcome.token, FLI_TOKEN_BYTES);
  sv_send_hello(client, &hello);
  expect_rejected(&world, client, FL_REJECT_ID_IN_USE, "\"abe\"");
  expect_others_go_on(&world, client);
}

Test(server_session, token_takes_the_session_over_without_a_word)
{
  sv_world world;
  const sv_event *event = NULL;
  begin(&world);
  sv_client *client = &world.clients[0];
  const uint64_t old = client->peer;
  const uint8_t *data = NULL;
  size_t n = 1;
  client->peer = 900;
  fli_hello hello = sv_hello_message(client);
  hello.has_token = 1;
  memcpy(hello.token, client->welcome.token, FLI_TOKEN_BYTES);
  sv_clear(client);
  sv_send_hello(client, &hello);
  sv_pull(client);
  cr_expect_eq(client->got[FLI_MSG_WELCOME], 1u);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_RETURNED, &event), 1u);
  cr_expect_eq(event->body.peer, 900u);
  cr_expect_eq(sv_events(&world, FL_SERVER_PEER_REJECTED, NULL), 0u);
  cr_expect_eq(fl_server_wants_close(world.server, old), 1);
  cr_assert_eq(fl_server_send(world.server, old, &data, &n), FL_OK);
  cr_expect_eq(n, 0u);
  cr_expect_eq(fl_server_disconnected(world.server, old), FL_OK);
  cr_expect_eq(sv_status(&world).clients, 2u);
  expect_others_go_on(&world, &world.clients[2]);
}

Test(server_session, client_that_was_away_returns_without_a_token)
{
  sv_world world;
  begin(&world);
  sv_lose(&world.clients[0]);
  cr_expect_eq(sv_status(&world).clients, 1u);
  sv_return(&world.clients[0]);
  cr_expect_eq(sv_status(&world).clients, 2u);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_RETURNED, NULL), 1u);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_JOINED, NULL), 2u);
  expect_others_go_on(&world, &world.clients[2]);
}

Test(server_session, repeated_hello_is_no_news)
{
  sv_world world;
  begin(&world);
  sv_clear(&world.clients[0]);
  for (int i = 0; i < 100; i++)
    sv_hello(&world.clients[0]);
  sv_pull(&world.clients[0]);
  cr_expect_eq(world.clients[0].got[FLI_MSG_WELCOME], 1u);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_RETURNED, NULL), 0u);
  expect_others_go_on(&world, &world.clients[2]);
}

Test(server_session, second_identity_on_one_connection_is_refused)
{
  sv_world world;
  const sv_event *event = NULL;
  begin(&world);
  sv_client *client = &world.clients[0];
  client->id = "mallory";
  sv_hello(client);
  client->id = "abe";
  sv_pull(client);
  cr_expect_eq(client->ack.reason, (uint32_t)FL_REJECT_STATE);
  cr_assert_eq(sv_events(&world, FL_SERVER_PEER_REJECTED, &event), 1u);
  cr_expect_eq(fl_server_wants_close(world.server, client->peer), 0);
  expect_others_go_on(&world, &world.clients[2]);
}

Test(server_session, bye_closes_and_nobody_waits_for_the_client)
{
  sv_world world;
  sv_client *client = begin(&world);
  sv_hello(client);
  sv_pull(client);
  sv_decline(client, FLI_MSG_BYE);
  cr_expect_eq(fl_server_wants_close(world.server, client->peer), 1);
  client->is_gone = 1;
  sv_run(&world);
  cr_expect_eq(sv_status(&world).is_finished, 1u);
  sv_free(&world);
}

/* ---- the model, by version held ---- */

Test(server_session, get_model_brings_a_full_copy_and_the_plan_again)
{
  sv_world world;
  const fli_get_model message = {.version = 0};
  sv_client *client = begin(&world);
  sv_hello(client);
  sv_pull(client);
  cr_assert_eq(client->got[FLI_MSG_MANIFEST], 1u);
  sv_clear(client);
  cr_assert_eq(fli_write_get_model(&client->out, &message), FL_OK);
  sv_push(client);
  client->model.is_valid = 0;
  sv_pull(client);
  cr_expect_eq(client->got[FLI_MSG_MANIFEST], 1u);
  cr_expect_eq(client->got[FLI_MSG_PLAN], 1u);
  cr_expect(sv_agrees(client));
  sv_free(&world);
}

Test(server_session, client_that_missed_rounds_gets_a_chain_of_steps)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_THC);
  world.model = (fl_model_free(world.model), sv_make_model(NULL, 16000));
  cr_assert_eq(fl_model_copy_schema(world.model, world.schema), FL_OK);
  world.job_options.rounds = 3;
  world.job_options.participants = 2;
  world.job_options.min_clients = 2;
  sv_start(&world);
  sv_client *idle = sv_add(&world, "zoe", 1);
  fli_hello hello = sv_hello_message(idle);
  hello.capabilities = FLI_CAP_EVALUATE;
  idle->is_mute = 1;
  sv_send_hello(idle, &hello);
  const fli_get_model message = {.version = 0};
  cr_assert_eq(fli_write_get_model(&idle->out, &message), FL_OK);
  sv_push(idle);
  sv_pull(idle);
  cr_assert_eq(idle->model.version, 0u);
  cr_assert(idle->model.is_valid);
  sv_lose(idle);
  sv_hello(sv_add(&world, "abe", 10));
  sv_hello(sv_add(&world, "bea", 10));
  sv_run(&world);
  cr_assert_eq(sv_status(&world).is_finished, 1u);
  sv_clear(idle);
  sv_return(idle);
  const uint8_t *data = NULL;
  size_t n = 0, total = 0;
  fli_frame frame;
  while (fl_server_send(world.server, idle->peer, &data, &n) == FL_OK && n) {
    total += n;
    fli_frame_feed(&idle->parser, data, n);
    while (fli_frame_next(&idle->parser, &frame) == FL_OK) {
      sv_take_frame(idle, &frame);
    }
  }
  cr_expect_eq(idle->model.version, 3u);
  cr_expect(sv_agrees(idle));
  cr_expect(idle->is_done);
  cr_expect_lt(total, sizeof(float) * 16000u);
  sv_free(&world);
}

Test(server_session, model_with_an_unknown_hash_counts_as_none)
{
  sv_world world;
  sv_client *client = begin(&world);
  fli_hello hello = sv_hello_message(client);
  hello.has_model = 1;
  hello.model_version = 0;
  memset(hello.model_hash, 7, sizeof hello.model_hash);
  sv_send_hello(client, &hello);
  sv_pull(client);
  cr_expect_eq(client->got[FLI_MSG_MANIFEST], 1u);
  cr_expect(sv_agrees(client));
  sv_free(&world);
}

/* ---- broken bytes ---- */

static void send_raw(sv_client *client, const void *data, size_t n)
{
  cr_assert_eq(fl_server_recv(client->world->server, client->peer, data, n),
               FL_OK);
}

Test(server_session, first_message_must_be_hello)
{
  sv_world world;
  sv_client *client = begin(&world);
  sv_decline(client, FLI_MSG_DECLINE);
  expect_rejected(&world, client, FL_REJECT_STATE, "want HELLO");
  expect_others_go_on(&world, client);
}

Test(server_session, declared_4_gib_in_ten_bytes_costs_nothing)
{
  const uint8_t bytes[10] = {0xff, 0xff, 0xff, 0xff, 1, FLI_MSG_HELLO};
  fl_context *context = NULL;
  fl_context_options options;
  uint64_t before = 0, peak = 0;
  sv_world world;
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  cr_assert_eq(fl_context_new(&context, &options), FL_OK);
  sv_init(&world, context, FL_CODEC_F32);
  sv_start(&world);
  sv_client *client = sv_add(&world, "eve", 1);
  cr_assert_eq(fl_context_get_memory(context, &before, NULL), FL_OK);
  send_raw(client, bytes, sizeof bytes);
  cr_assert_eq(fl_context_get_memory(context, NULL, &peak), FL_OK);
  cr_expect_lt(peak, before + 16384);
  expect_rejected(&world, client, FL_REJECT_TOO_LARGE, "4294967295");
  sv_free(&world);
  fl_context_free(context);
}

Test(server_session, frame_of_another_version_is_rejected)
{
  const uint8_t bytes[8] = {0, 0, 0, 0, 9, FLI_MSG_HELLO, 0, 0};
  sv_world world;
  sv_client *client = begin(&world);
  send_raw(client, bytes, sizeof bytes);
  expect_rejected(&world, client, FL_REJECT_VERSION, "got 9, want 1..1");
  expect_others_go_on(&world, client);
}

Test(server_session, unknown_type_is_rejected)
{
  const uint8_t bytes[8] = {0, 0, 0, 0, 1, 99, 0, 0};
  sv_world world;
  sv_client *client = begin(&world);
  send_raw(client, bytes, sizeof bytes);
  expect_rejected(&world, client, FL_REJECT_FORMAT, "got 99");
  expect_others_go_on(&world, client);
}

Test(server_session, body_that_is_no_msgpack_is_rejected)
{
  const uint8_t bytes[12] = {4, 0, 0,   0,   1,   FLI_MSG_HELLO,
                             0, 0, 'G', 'E', 'T', ' '};
  sv_world world;
  sv_client *client = begin(&world);
  send_raw(client, bytes, sizeof bytes);
  expect_rejected(&world, client, FL_REJECT_FORMAT, "");
  expect_others_go_on(&world, client);
}

Test(server_session, deeply_nested_body_is_rejected)
{
  uint8_t bytes[8 + 200] = {200, 0, 0, 0, 1, FLI_MSG_HELLO};
  sv_world world;
  sv_client *client = begin(&world);
  bytes[8] = 0x81;
  bytes[9] = 0x7f;
  memset(bytes + 10, 0x91, 198);
  send_raw(client, bytes, sizeof bytes);
  sv_pull(client);
  cr_expect_eq(client->got[FLI_MSG_REJECT], 1u);
  expect_others_go_on(&world, client);
}

Test(server_session, oversized_control_message_is_rejected)
{
  const uint8_t bytes[8] = {1, 0, 16, 0, 1, FLI_MSG_HELLO, 0, 0};
  sv_world world;
  sv_client *client = begin(&world);
  send_raw(client, bytes, sizeof bytes);
  expect_rejected(&world, client, FL_REJECT_TOO_LARGE, "1048577");
  expect_others_go_on(&world, client);
}

Test(server_session, every_truncation_of_a_hello_is_silent)
{
  sv_world world;
  sv_client *client = begin(&world);
  const fli_hello hello = sv_hello_message(client);
  cr_assert_eq(fli_write_hello(&client->out, &hello), FL_OK);
  for (size_t n = 0; n < client->out.size; n++) {
    client->peer = 1000 + n;
    send_raw(client, client->out.data, n);
    cr_expect_eq(fl_server_wants_close(world.server, client->peer), 0);
    cr_expect_eq(fl_server_disconnected(world.server, client->peer), FL_OK);
  }
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_JOINED, NULL), 2u);
  cr_expect_eq(sv_events(&world, FL_SERVER_PEER_REJECTED, NULL), 0u);
  expect_others_go_on(&world, client);
}

Test(server_session, body_cut_short_inside_its_frame_is_rejected)
{
  sv_world world;
  sv_client *client = begin(&world);
  const fli_hello hello = sv_hello_message(client);
  cr_assert_eq(fli_write_hello(&client->out, &hello), FL_OK);
  fli_store_u32(client->out.data,
                (uint32_t)client->out.size - FLI_FRAME_HEADER - 1);
  send_raw(client, client->out.data, client->out.size - 1);
  fli_bytes_clear(&client->out);
  expect_rejected(&world, client, FL_REJECT_FORMAT, "");
  expect_others_go_on(&world, client);
}

Test(server_session, bytes_one_by_one_are_the_same_as_at_once)
{
  sv_world world;
  sv_client *client = begin(&world);
  const fli_hello hello = sv_hello_message(client);
  cr_assert_eq(fli_write_hello(&client->out, &hello), FL_OK);
  for (size_t i = 0; i < client->out.size; i++) {
    send_raw(client, client->out.data + i, 1);
  }
  fli_bytes_clear(&client->out);
  sv_run(&world);
  cr_expect_eq(sv_status(&world).is_finished, 1u);
  sv_free(&world);
}

Test(server_session, closed_session_ignores_what_comes)
{
  const uint8_t bytes[8] = {0, 0, 0, 0, 9, FLI_MSG_HELLO, 0, 0};
  sv_world world;
  sv_client *client = begin(&world);
  send_raw(client, bytes, sizeof bytes);
  sv_hello(client);
  send_raw(client, bytes, sizeof bytes);
  cr_expect_eq(sv_events(&world, FL_SERVER_PEER_REJECTED, NULL), 1u);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_JOINED, NULL), 2u);
  cr_expect_eq(fl_server_disconnected(world.server, client->peer), FL_OK);
  sv_clear(client);
  sv_hello(client);
  sv_pull(client);
  cr_expect_eq(client->got[FLI_MSG_WELCOME], 1u);
  sv_free(&world);
}

Test(server_session, random_bytes_never_disturb_the_others)
{
  const uint64_t seed = 20260101;
  sv_world world;
  fli_rng rng;
  begin(&world);
  fli_rng_init(&rng, seed, FLI_RNG_TEST, 0, 0);
  for (uint64_t peer = 5000; peer < 5300; peer++) {
    uint8_t bytes[64];
    for (size_t i = 0; i < sizeof bytes; i++) {
      bytes[i] = (uint8_t)fli_rng_u32(&rng);
    }
    /* Half of them with a plausible header. */
    if (peer % 2) {
      fli_store_u32(bytes, fli_rng_below(&rng, 57));
      bytes[4] = 1;
      bytes[5] = (uint8_t)(1 + fli_rng_below(&rng, 34));
      bytes[6] = bytes[7] = 0;
    }
    cr_assert_eq(fl_server_recv(world.server, peer, bytes, sizeof bytes), FL_OK,
                 "seed %llu", (unsigned long long)seed);
  }
  expect_others_go_on(&world, &world.clients[2]);
}
