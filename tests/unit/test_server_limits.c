/* SPDX-License-Identifier: Apache-2.0 */
/* Bounds and order: how many peers and ids, how much memory, which peer is
 * served next, and what the public functions refuse. */
#include <criterion/criterion.h>

#include "base/rng.h"
#include "server_fixture.h"
#include "outgoing.h"

Test(server_limits, peers_beyond_the_limit_are_turned_away)
{
  sv_world world;
  const sv_event *event = NULL;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.max_peers = 2;
  sv_start(&world);
  sv_hello(sv_add(&world, "abe", 1));
  sv_hello(sv_add(&world, "bea", 1));
  sv_client *third = sv_add(&world, "cay", 1);
  sv_hello(third);
  cr_assert_eq(sv_events(&world, FL_SERVER_PEER_REJECTED, &event), 1u);
  cr_expect_eq(event->body.reason, (uint32_t)FL_REJECT_LIMIT);
  cr_expect_eq(fl_server_wants_close(world.server, third->peer), 1);
  sv_lose(&world.clients[0]);
  sv_hello(third);
  sv_pull(third);
  cr_expect_eq(third->got[FLI_MSG_WELCOME], 1u);
  sv_free(&world);
}

Test(server_limits, ids_beyond_the_limit_are_rejected)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.max_clients = 1;
  sv_start(&world);
  sv_hello(sv_add(&world, "abe", 1));
  sv_client *second = sv_add(&world, "bea", 1);
  sv_hello(second);
  sv_pull(second);
  cr_expect_eq(second->reject.reason, (uint32_t)FL_REJECT_LIMIT);
  cr_expect_not_null(strstr(second->reject.text, "clients: got more than 1"));
  sv_free(&world);
}

Test(server_limits, peer_that_never_reads_is_closed)
{
  fl_context *context = NULL;
  fl_context_options options;
  uint64_t before = 0, now = 0;
  sv_world world;
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  cr_assert_eq(fl_context_new(&context, &options), FL_OK);
  sv_init(&world, context, FL_CODEC_F32);
  sv_start(&world);
  sv_client *client = sv_add(&world, "eve", 1);
  sv_hello(client);
  client->plan.round = 5;
  cr_assert_eq(fl_context_get_memory(context, &before, NULL), FL_OK);
  for (int i = 0; i < 5000; i++)
    sv_decline(client, FLI_MSG_DECLINE);
  cr_assert_eq(fl_context_get_memory(context, &now, NULL), FL_OK);
  cr_expect_lt(now, before + 256 * 1024);
  cr_expect_eq(fl_server_wants_close(world.server, client->peer), 1);
  sv_pull(client);
  cr_expect_eq(client->reject.reason, (uint32_t)FL_REJECT_LIMIT);
  cr_expect_not_null(strstr(client->reject.text, "unread"));
  sv_free(&world);
  fl_context_free(context);
}

Test(server_limits, floods_of_requests_are_answered_once)
{
  fl_context *context = NULL;
  uint64_t before = 0, now = 0;
  const fli_get_model get = {0};
  sv_world world;
  cr_assert_eq(fl_context_new(&context, NULL), FL_OK);
  sv_init(&world, context, FL_CODEC_F32);
  sv_start(&world);
  sv_client *client = sv_add(&world, "eve", 1);
  for (int i = 0; i < 2000; i++) {
    sv_hello(client);
    cr_assert_eq(fli_write_get_model(&client->out, &get), FL_OK);
    cr_assert_eq(sv_push(client), FL_OK);
    if (i == 0) {
      cr_assert_eq(fl_context_get_memory(context, &before, NULL), FL_OK);
    }
  }
  cr_assert_eq(fl_context_get_memory(context, &now, NULL), FL_OK);
  cr_expect_leq(now, before + 1024, "%llu, %llu", (unsigned long long)before,
                (unsigned long long)now);
  sv_pull(client);
  cr_expect_eq(client->got[FLI_MSG_WELCOME], 1u);
  cr_expect_eq(client->got[FLI_MSG_MANIFEST], 1u);
  sv_free(&world);
  fl_context_free(context);
}

Test(server_limits, uploads_beyond_the_staging_cap_wait)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.staging_cap = 2000;
  sv_start(&world);
  sv_add(&world, "abe", 1);
  sv_add(&world, "bea", 1);
  sv_add(&world, "cay", 1);
  sv_join(&world);
  sv_report(&world, 3);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  sv_client *first = &world.clients[0], *second = &world.clients[1];
  fli_manifest manifest = sv_manifest(first);
  size_t size = 0;
  uint8_t *data = sv_encode(first, first->plan.slot, 1, &size);
  cr_assert_eq(outgoing_begin(&first->outgoing, &first->out, &manifest, data,
                              size, FLI_CHUNK_MIN),
               FL_OK);
  sv_push(first);
  sv_update(second);
  sv_pull(second);
  cr_expect_eq(second->got[FLI_MSG_WAIT], 1u);
  cr_expect_eq(second->got[FLI_MSG_ACK], 0u);
  cr_expect_gt(second->wait.wait_ms, 0u);
  while (first->outgoing.is_active) {
    cr_assert_eq(fli_outgoing_next(&first->outgoing, &first->out), FL_OK);
  }
  sv_push(first);
  first->has_plan = first->has_scale = 0;
  sv_run(&world);
  cr_expect_eq(sv_status(&world).is_finished, 1u);
  free(data);
  sv_free(&world);
}

Test(server_limits, upload_that_stands_still_gives_way)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.staging_cap = 2000;
  sv_start(&world);
  sv_add_three(&world);
  sv_join(&world);
  sv_tick(&world, SV_SECOND_NS);
  sv_report(&world, 3);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  sv_client *first = &world.clients[0], *second = &world.clients[1];
  fli_manifest manifest = sv_manifest(first);
  size_t size = 0;
  uint8_t *data = sv_encode(first, first->plan.slot, 10, &size);
  cr_assert_eq(outgoing_begin(&first->outgoing, &first->out, &manifest, data,
                              size, FLI_CHUNK_MIN),
               FL_OK);
  sv_push(first);
  sv_tick(&world, 29 * SV_SECOND_NS);
  sv_update(second);
  sv_pull(second);
  cr_expect_eq(second->got[FLI_MSG_WAIT], 1u);
  sv_tick(&world, SV_SECOND_NS);
  sv_clear(second);
  sv_update(second);
  sv_pull(second);
  cr_expect_eq(second->got[FLI_MSG_WAIT], 0u);
  cr_expect_eq(second->got[FLI_MSG_ACK], 1u);
  cr_expect_eq(second->ack.reason, (uint32_t)FL_REJECT_NONE);
  sv_pull(first);
  cr_expect_eq(first->got[FLI_MSG_WAIT], 1u);
  /* What it still sends of the upload is ignored; a new one is counted. */
  while (first->outgoing.is_active) {
    cr_assert_eq(fli_outgoing_next(&first->outgoing, &first->out), FL_OK);
  }
  sv_push(first);
  sv_pull(first);
  cr_expect_eq(first->got[FLI_MSG_ACK], 0u);
  sv_hello(first);
  sv_run(&world);
  cr_expect_eq(sv_status(&world).is_finished, 1u);
  free(data);
  sv_free(&world);
}

/* A model whose description is long. */
static void use_many_modules(sv_world *world, uint32_t n)
{
  const uint64_t one = 1;
  fl_model_builder *builder = NULL;
  fl_model_free(world->model);
  cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
  for (uint32_t i = 0; i < n; i++) {
    char name[40];
    snprintf(name, sizeof name, "a.tensor.with.a.long.name.%05u", i);
    cr_assert_eq(fl_model_builder_module(builder, i), FL_OK);
    cr_assert_eq(fl_model_builder_tensor(builder, name, &one, 1, 1), FL_OK);
  }
  cr_assert_eq(fl_model_builder_build(builder, &world->model), FL_OK);
  fl_model_builder_free(builder);
}

Test(server_limits, long_messages_are_no_unread_answers)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  use_many_modules(&world, 1700);
  sv_start(&world);
  sv_client *client = sv_add(&world, "abe", 1);
  fli_hello hello = sv_hello_message(client);
  const uint8_t *data = NULL;
  size_t n = 0;
  hello.has_schema = 0;
  sv_send_hello(client, &hello);
  client->plan.round = 5;
  sv_decline(client, FLI_MSG_DECLINE);
  cr_expect_eq(fl_server_wants_close(world.server, client->peer), 0);
  cr_assert_eq(fl_server_send(world.server, client->peer, &data, &n), FL_OK);
  cr_expect_gt(n, 4096u + 65536u);
  sv_free(&world);
}

Test(server_limits, model_whose_norms_exceed_a_message_is_refused)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.max_control_size = 4096;
  use_many_modules(&world, 1793);
  cr_assert_eq(fl_server_new(&world.server, NULL, &world.options), FL_OK);
  cr_expect_eq(
      fl_server_add_job(world.server, world.model, &world.job_options, NULL),
      FL_E_LIMIT);
  cr_expect_not_null(strstr(fl_last_error(), "got 1793 norms, want <= 1792"));
  use_many_modules(&world, 1792);
  cr_expect_eq(
      fl_server_add_job(world.server, world.model, &world.job_options, NULL),
      FL_OK);
  sv_free(&world);
}

Test(server_limits, event_struct_of_a_wrong_size_does_not_cost_the_event)
{
  sv_world world;
  fl_server_event event;
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  sv_hello(sv_add(&world, "abe", 1));
  cr_assert_eq(fl_server_event_init(&event, sizeof event), FL_OK);
  event.struct_size = 3;
  cr_expect_eq(fl_server_poll(world.server, &event), FL_E_OPTIONS);
  event.struct_size = (uint32_t)sizeof event;
  cr_expect_eq(fl_server_poll(world.server, &event), FL_OK);
  cr_expect_eq(event.kind, (uint32_t)FL_SERVER_CLIENT_JOINED);
  sv_free(&world);
}

Test(server_limits, unpolled_events_about_peers_are_counted_not_kept)
{
  const uint8_t bytes[8] = {0, 0, 0, 0, 9, FLI_MSG_HELLO, 0, 0};
  fl_server_event event;
  sv_world world;
  uint64_t n = 0;
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  for (uint64_t peer = 0; peer < 20000; peer++) {
    cr_assert_eq(fl_server_recv(world.server, peer, bytes, sizeof bytes),
                 FL_OK);
    cr_assert_eq(fl_server_disconnected(world.server, peer), FL_OK);
  }
  cr_assert_eq(fl_server_event_init(&event, sizeof event), FL_OK);
  while (fl_server_poll(world.server, &event) == FL_OK) {
    n++;
    if (event.reason != FL_REJECT_LIMIT) continue;
    cr_expect_not_null(strstr(event.text, "got 3616 more"), "%s", event.text);
  }
  cr_expect_eq(n, 16385u);
  sv_free(&world);
}

/* ---- order of service ---- */

static int compare_u64(const void *a, const void *b)
{
  const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
  return (left > right) - (left < right);
}

Test(server_limits, ready_peers_come_in_order_of_their_number)
{
  enum { N = 700 };
  const uint8_t bytes[8] = {0, 0, 0, 0, 9, FLI_MSG_HELLO, 0, 0};
  static uint64_t numbers[N];
  const uint64_t seed = 7;
  sv_world world;
  fli_rng rng;
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  fli_rng_init(&rng, seed, FLI_RNG_TEST, 1, 0);
  for (size_t i = 0; i < N; i++) {
    /* Of all magnitudes, and the two ends. */
    numbers[i] = fli_rng_u64(&rng) >> fli_rng_below(&rng, 60);
    if (i == 0) numbers[i] = 0;
    if (i == 1) numbers[i] = UINT64_MAX - 1;
    cr_assert_eq(fl_server_recv(world.server, numbers[i], bytes, 8), FL_OK);
  }
  qsort(numbers, N, sizeof *numbers, compare_u64);
  for (int pass = 0; pass < 2; pass++) {
    uint64_t peer = UINT64_MAX, last = UINT64_MAX;
    for (size_t i = 0; i < N; i++) {
      const uint8_t *data = NULL;
      size_t n = 0;
      if (numbers[i] == last) continue;
      last = numbers[i];
      if (pass == 1 && i % 3 == 0) continue;
      cr_assert_eq(fl_server_next_ready(world.server, &peer), FL_OK,
                   "seed %llu", (unsigned long long)seed);
      cr_assert_eq(peer, numbers[i], "seed %llu", (unsigned long long)seed);
      /* Every third is served in the first pass, and only those. */
      if (pass == 0 && i % 3 == 0) {
        cr_assert_eq(fl_server_send(world.server, peer, &data, &n), FL_OK);
        cr_assert_gt(n, 0u);
      }
    }
    cr_expect_eq(fl_server_next_ready(world.server, &peer), FL_E_EMPTY);
  }
  for (size_t i = 0; i < N; i++) {
    cr_assert_eq(fl_server_disconnected(world.server, numbers[i]), FL_OK);
  }
  uint64_t peer = UINT64_MAX;
  cr_expect_eq(fl_server_next_ready(world.server, &peer), FL_E_EMPTY);
  sv_free(&world);
}

Test(server_limits, chunks_of_a_download_come_one_at_a_time)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.model = (fl_model_free(world.model), sv_make_model(NULL, 5000));
  cr_assert_eq(fl_model_copy_schema(world.model, world.schema), FL_OK);
  world.job_options.min_clients = 1;
  sv_start(&world);
  sv_client *client = sv_add(&world, "abe", 1);
  const uint8_t *data = NULL;
  size_t n = 0, calls = 0;
  sv_hello(client);
  do {
    cr_assert_eq(fl_server_send(world.server, client->peer, &data, &n), FL_OK);
    cr_expect_leq(n, 4096u + 64u);
    calls += n > 0;
  } while (n > 0);
  cr_expect_geq(calls, 6u);
  sv_free(&world);
}

/* ---- arguments ---- */

Test(server_limits, null_arguments_are_refused)
{
  sv_world world;
  const uint8_t *data = NULL;
  uint64_t value = 0;
  size_t n = 0;
  fl_server_event event;
  cr_assert_eq(fl_server_event_init(&event, sizeof event), FL_OK);
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  cr_expect_eq(fl_server_new(NULL, NULL, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_recv(NULL, 1, data, 0), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_recv(world.server, 1, NULL, 1), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_recv(world.server, UINT64_MAX, data, 0),
               FL_E_ARGUMENT);
  cr_expect_eq(fl_server_send(world.server, 1, NULL, &n), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_send(NULL, 1, &data, &n), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_next_ready(world.server, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_disconnected(NULL, 1), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_disconnected(world.server, 4711), FL_OK);
  cr_expect_eq(fl_server_tick(NULL, 1), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_next_timeout(world.server, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_next_timeout(NULL, &value), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_poll(world.server, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_poll(world.server, &event), FL_E_EMPTY);
  cr_expect_eq(fl_server_wants_close(NULL, 1), 0);
  cr_expect_eq(fl_server_wants_close(world.server, 1), 0);
  fl_server_free(NULL);
  sv_free(&world);
}

Test(server_limits, bad_server_options_are_refused)
{
  fl_server *server = NULL;
  fl_server_options options;
  cr_assert_eq(fl_server_options_init(&options, sizeof options), FL_OK);
  options.chunk_size = 100;
  cr_expect_eq(fl_server_new(&server, NULL, &options), FL_E_OPTIONS);
  cr_assert_eq(fl_server_options_init(&options, sizeof options), FL_OK);
  options.max_peers = 0;
  cr_expect_eq(fl_server_new(&server, NULL, &options), FL_E_OPTIONS);
  cr_assert_eq(fl_server_options_init(&options, sizeof options), FL_OK);
  options.max_control_size = 2u << 20;
  cr_expect_eq(fl_server_new(&server, NULL, &options), FL_E_OPTIONS);
  cr_assert_eq(fl_server_options_init(&options, sizeof options), FL_OK);
  options.staging_cap = 0;
  cr_expect_eq(fl_server_new(&server, NULL, &options), FL_E_OPTIONS);
  cr_expect_null(server);
}
