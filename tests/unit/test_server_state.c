/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots: a server killed after any step and restored ends with the bytes
 * of an undisturbed run; a snapshot that is torn, changed or foreign is
 * refused; nothing stays allocated. */
#include <criterion/criterion.h>

#include "server_settings.h"
#include "compress/compressor.h"
#include "server/state.h"
#include "wire/container.h"

/* Kill and restore; every client is on a new connection. */
static void restart(sv_world *world)
{
  sv_restart(world);
  sv_tick(world, SV_SECOND_NS);
  for (size_t i = 0; i < world->n_clients; i++) {
    sv_client *client = &world->clients[i];
    const int is_done = client->is_done;
    client->peer += 100;
    client->is_done = 0;
    sv_clear(client);
    sv_hello(client);
    client->is_done = is_done;
  }
}

/* Run to the end, restarting after step `kill_at`; number of steps taken. */
static size_t run(sv_world *world, size_t kill_at)
{
  size_t steps = 0, idle = 0;
  sv_join(world);
  sv_tick(world, SV_SECOND_NS);
  while (idle < 2 * world->n_clients) {
    idle = step(world, steps) ? 0 : idle + 1;
    if (steps++ == kill_at) restart(world);
    cr_assert_lt(steps, 10000u);
  }
  return steps;
}

static size_t run_hashed(const setting *how, size_t kill_at,
                         uint8_t hash[FLI_HASH_BYTES])
{
  sv_world world;
  begin(&world, NULL, how, NULL);
  const size_t steps = run(&world, kill_at);
  cr_expect_eq(sv_status(&world).is_finished, 1u, "%s, killed at %zu",
               how->name, kill_at);
  for (size_t i = 0; i < world.n_clients; i++) {
    cr_expect(sv_agrees(&world.clients[i]), "%s, killed at %zu", how->name,
              kill_at);
    cr_expect(world.clients[i].is_done, "%s, killed at %zu", how->name,
              kill_at);
  }
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_LOST, NULL), 0u);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_FINISHED, NULL), 3u);
  cr_expect_eq(sv_events(&world, FL_SERVER_UPDATE_ACCEPTED, NULL), 9u,
               "%s, killed at %zu", how->name, kill_at);
  fli_canonical_hash(&world.clients[0].model, hash);
  sv_free(&world);
  return steps;
}

Test(server_state, killed_after_any_step_ends_with_the_same_model)
{
  for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
    uint8_t want[FLI_HASH_BYTES], got[FLI_HASH_BYTES];
    const size_t steps = run_hashed(&settings[i], SIZE_MAX, want);
    cr_assert_gt(steps, 20u);
    for (size_t kill_at = 0; kill_at + 6 < steps; kill_at++) {
      run_hashed(&settings[i], kill_at, got);
      cr_expect_arr_eq(got, want, sizeof want, "%s, killed at %zu",
                       settings[i].name, kill_at);
    }
  }
}

Test(server_state, the_table_of_a_restored_job_is_the_same)
{
  sv_world world;
  uint8_t before[16], after[16];
  uint64_t id;
  begin(&world, NULL, &settings[6], NULL);
  const fli_job *job = world.server->jobs[0];
  id = job->compressor->id;
  cr_assert_eq(fl_compressor_copy_table(job->compressor, before, 16), FL_OK);
  sv_restart(&world);
  job = world.server->jobs[0];
  cr_assert_eq(fl_compressor_copy_table(job->compressor, after, 16), FL_OK);
  cr_expect_arr_eq(after, before, 16);
  cr_expect_eq(job->compressor->id, id);
  cr_expect_eq(job->codec.table, job->compressor->values);
  sv_free(&world);
}

Test(server_state, snapshot_of_a_restored_server_is_the_same)
{
  const uint8_t *first = NULL, *second = NULL;
  size_t n_first = 0, n_second = 0;
  fl_buffer *buffers[2] = {NULL, NULL};
  sv_world world;
  fl_writer writer;
  begin(&world, NULL, &settings[4], NULL);
  sv_join(&world);
  sv_pull(&world.clients[0]);
  sv_norm(&world.clients[0]);
  for (int i = 0; i < 2; i++) {
    cr_assert_eq(fl_buffer_new(&buffers[i], NULL), FL_OK);
    cr_assert_eq(fl_buffer_as_writer(buffers[i], &writer), FL_OK);
    cr_assert_eq(fl_server_save(world.server, &writer), FL_OK);
    sv_restart(&world);
  }
  cr_assert_eq(fl_buffer_get(buffers[0], &first, &n_first), FL_OK);
  cr_assert_eq(fl_buffer_get(buffers[1], &second, &n_second), FL_OK);
  cr_assert_eq(n_first, n_second);
  cr_expect_arr_eq(first, second, n_first);
  fl_buffer_free(buffers[0]);
  fl_buffer_free(buffers[1]);
  sv_free(&world);
}

Test(server_state, tokens_outlive_a_restart)
{
  sv_world world;
  begin(&world, NULL, &settings[0], NULL);
  sv_hello(&world.clients[0]);
  sv_pull(&world.clients[0]);
  const fli_welcome before = world.clients[0].welcome;
  sv_restart(&world);
  sv_return(&world.clients[0]);
  sv_pull(&world.clients[0]);
  cr_expect_arr_eq(world.clients[0].welcome.token, before.token,
                   FLI_TOKEN_BYTES);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_RETURNED, NULL), 1u);
  sv_free(&world);
}

Test(server_state, clients_that_stay_away_after_a_restart_lose_their_grace)
{
  sv_world world;
  const sv_event *event = NULL;
  begin(&world, NULL, &settings[0], NULL);
  sv_join(&world);
  sv_tick(&world, SV_SECOND_NS);
  sv_restart(&world);
  world.now = 5;
  sv_tick(&world, 0);
  sv_return(&world.clients[0]);
  sv_return(&world.clients[1]);
  world.clients[2].is_gone = 1;
  sv_run(&world);
  cr_expect_eq(sv_events(&world, FL_SERVER_SCALE_AGREED, NULL), 0u);
  sv_tick(&world, 10 * SV_SECOND_NS);
  sv_run(&world);
  cr_assert_geq(sv_events(&world, FL_SERVER_CLIENT_LOST, &event), 1u);
  cr_expect_str_eq(event->client_id, "cay");
  cr_expect_eq(sv_status(&world).is_finished, 1u);
  sv_free(&world);
}

Test(server_state, what_is_left_of_a_deadline_counts_on_the_new_clock)
{
  sv_world world;
  uint64_t timeout = 0;
  begin(&world, NULL, &settings[0], NULL);
  world.job_options.return_grace_ns = UINT64_MAX;
  sv_join(&world);
  sv_tick(&world, 1000 * SV_SECOND_NS);
  sv_tick(&world, 50 * SV_SECOND_NS);
  sv_restart(&world);
  world.now = 0;
  sv_tick(&world, 7 * SV_SECOND_NS);
  for (size_t i = 0; i < 3; i++)
    sv_return(&world.clients[i]);
  cr_expect_eq(fl_server_next_timeout(world.server, &timeout), FL_OK);
  cr_expect_eq(timeout, 17 * SV_SECOND_NS);
  sv_free(&world);
}

/* ---- bad snapshots ---- */

static fl_status restore_bytes(const uint8_t *data, size_t n)
{
  fl_buffer *buffer = NULL;
  fl_reader reader;
  fl_server *server = NULL;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_append(buffer, data, n), FL_OK);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  const fl_status st = fl_server_restore(&server, NULL, NULL, &reader);
  cr_expect((st == FL_OK) == (server != NULL));
  fl_server_free(server);
  fl_buffer_free(buffer);
  return st;
}

/* A snapshot in the middle of UPDATES with one update counted. */
static fl_buffer *snapshot(const setting *how)
{
  sv_world world;
  fl_buffer *buffer = NULL;
  fl_writer writer;
  begin(&world, NULL, how, NULL);
  sv_join(&world);
  sv_report(&world, 3);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  sv_update(&world.clients[1]);
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_server_save(world.server, &writer), FL_OK);
  sv_free(&world);
  return buffer;
}

Test(server_state, torn_snapshot_is_refused_at_every_length)
{
  const uint8_t *data = NULL;
  size_t n = 0;
  fl_buffer *buffer = snapshot(&settings[3]);
  cr_assert_eq(fl_buffer_get(buffer, &data, &n), FL_OK);
  cr_expect_eq(restore_bytes(data, n), FL_OK);
  for (size_t cut = 0; cut < n; cut += 1 + cut / 16) {
    cr_expect_eq(restore_bytes(data, cut), FL_E_TRUNCATED, "at %zu", cut);
  }
  fl_buffer_free(buffer);
}

Test(server_state, changed_snapshot_is_refused)
{
  const uint8_t *data = NULL;
  size_t n = 0;
  fl_buffer *buffer = snapshot(&settings[3]);
  cr_assert_eq(fl_buffer_get(buffer, &data, &n), FL_OK);
  uint8_t *copy = malloc(n);
  cr_assert_not_null(copy);
  memcpy(copy, data, n);
  for (size_t i = 20; i < n; i += 37) { /* behind the size */
    copy[i] ^= 0x10;
    cr_expect_eq(restore_bytes(copy, n), FL_E_FORMAT, "byte %zu", i);
    copy[i] ^= 0x10;
  }
  free(copy);
  fl_buffer_free(buffer);
}

/* A momentum that is no number would stop every step to come. */
Test(server_state, vectors_that_are_not_finite_are_refused)
{
  uint32_t found = 0;
  fl_buffer *buffer = snapshot(&settings[1]);
  fl_reader reader;
  fl_writer writer;
  fli_bytes payload;
  const uint8_t *data = NULL;
  size_t n = 0, at = 0, vectors = 0;
  fli_bytes_init(&payload, NULL);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  cr_assert_eq(fli_container_read(&reader, FLI_STATE_SERVER,
                                  FLI_SERVER_STATE_VERSION, UINT64_MAX, &found,
                                  &payload),
               FL_OK);
  /* Heads of bins of SV_WEIGHTS floats: weights, then momentum. */
  for (at = 0; at + 3 < payload.size && vectors < 2; at++) {
    vectors += payload.data[at] == 0xc5 &&
               payload.data[at + 1] == (4 * SV_WEIGHTS) >> 8 &&
               payload.data[at + 2] == ((4 * SV_WEIGHTS) & 0xff);
  }
  cr_assert_eq(vectors, 2u);
  memset(payload.data + at + 2, 0xff, 4);
  fl_buffer_clear(buffer);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fli_container_write(&writer, FLI_STATE_SERVER,
                                   FLI_SERVER_STATE_VERSION, &payload),
               FL_OK);
  cr_assert_eq(fl_buffer_get(buffer, &data, &n), FL_OK);
  cr_expect_eq(restore_bytes(data, n), FL_E_FORMAT);
  cr_expect_not_null(strstr(fl_last_error(), "momentum"));
  fli_bytes_free(&payload);
  fl_buffer_free(buffer);
}

/* The same payload in a container of another kind or version, or damaged
 * under a hash that is right. */
static fl_status rewrapped(const setting *how, uint32_t kind, uint32_t version,
                           size_t flip)
{
  fl_buffer *buffer = snapshot(how);
  fl_reader reader;
  fl_writer writer;
  fli_bytes payload;
  const uint8_t *data = NULL;
  size_t n = 0;
  uint32_t found = 0;
  fli_bytes_init(&payload, NULL);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  cr_assert_eq(fli_container_read(&reader, FLI_STATE_SERVER,
                                  FLI_SERVER_STATE_VERSION, UINT64_MAX, &found,
                                  &payload),
               FL_OK);
  if (flip < payload.size) payload.data[flip] ^= 0xff;
  fl_buffer_clear(buffer);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fli_container_write(&writer, kind, version, &payload), FL_OK);
  cr_assert_eq(fl_buffer_get(buffer, &data, &n), FL_OK);
  const fl_status st = restore_bytes(data, n);
  fli_bytes_free(&payload);
  fl_buffer_free(buffer);
  return st;
}

Test(server_state, snapshots_of_another_kind_or_version_are_refused)
{
  cr_expect_eq(rewrapped(&settings[0], FLI_STATE_SERVER,
                         FLI_SERVER_STATE_VERSION, SIZE_MAX),
               FL_OK);
  cr_expect_eq(rewrapped(&settings[0], FLI_STATE_CLIENT, 1, SIZE_MAX),
               FL_E_FORMAT);
  cr_expect_eq(rewrapped(&settings[0], FLI_STATE_SERVER,
                         FLI_SERVER_STATE_VERSION + 1, SIZE_MAX),
               FL_E_VERSION);
  /* Its sums and norms are of another layout. */
  cr_expect_eq(rewrapped(&settings[0], FLI_STATE_SERVER,
                         FLI_SERVER_STATE_FIRST - 1, SIZE_MAX),
               FL_E_VERSION);
  /* A version is its layout: nothing is guessed. */
  cr_expect_eq(rewrapped(&settings[0], FLI_STATE_SERVER,
                         FLI_SERVER_STATE_VERSION - 1, SIZE_MAX),
               FL_E_FORMAT);
}

Test(server_state, payload_damaged_under_a_right_hash_never_crashes)
{
  for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
    /* Whatever the status: under sanitizers this is the test. */
    for (size_t flip = 0; flip < 4000; flip += 7) {
      (void)rewrapped(&settings[i], FLI_STATE_SERVER, FLI_SERVER_STATE_VERSION,
                      flip);
    }
  }
}

static fl_status failing_write(void *user, const void *data, size_t n)
{
  (void)user, (void)data, (void)n;
  return FL_E_IO;
}

Test(server_state, failing_streams_and_null_arguments_are_reported)
{
  sv_world world;
  fl_server *server = NULL;
  const fl_writer bad = {failing_write, NULL};
  begin(&world, NULL, &settings[0], NULL);
  cr_expect_eq(fl_server_save(world.server, &bad), FL_E_IO);
  cr_expect_eq(fl_server_save(world.server, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_save(NULL, &bad), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_restore(&server, NULL, NULL, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_restore(NULL, NULL, NULL, NULL), FL_E_ARGUMENT);
  sv_free(&world);
}

/* ---- memory ---- */

Test(server_state, all_memory_is_given_back)
{
  for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
    fl_context *context = NULL;
    uint64_t bytes = 1;
    sv_world world;
    cr_assert_eq(fl_context_new(&context, NULL), FL_OK);
    begin(&world, context, &settings[i], NULL);
    run(&world, 11);
    cr_assert_eq(fl_context_get_memory(context, &bytes, NULL), FL_OK);
    cr_expect_gt(bytes, 0u);
    fl_server_free(world.server);
    world.server = NULL;
    cr_assert_eq(fl_context_get_memory(context, &bytes, NULL), FL_OK);
    cr_expect_eq(bytes, 0u, "%s: %llu bytes", settings[i].name,
                 (unsigned long long)bytes);
    sv_free(&world);
    fl_context_free(context);
  }
}
