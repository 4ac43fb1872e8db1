/* SPDX-License-Identifier: Apache-2.0 */
/* A server with a store: killed anywhere, between two calls or in the middle of
 * one of the store's, it goes on from what was committed and ends with the
 * bytes of an undisturbed run; nothing leaves before it is durable. */
#include <criterion/criterion.h>

#include "server_settings.h"
#include "server/server.h"

/* ---- a store that can be cut off ---- */

enum { NEVER = 1 << 30 };

typedef struct cut {
  fl_store hooks;
  fl_store *inner;
  int calls_left; /* then everything fails */
  int fails_commits;
  unsigned commits;
} cut;

static int is_cut(cut *self)
{
  if (self->calls_left > 0) self->calls_left--;
  return self->calls_left == 0;
}

static fl_status cut_put(void *user, const void *key, size_t key_size,
                         const void *value, size_t n)
{
  cut *self = user;
  if (is_cut(self)) return FL_E_IO;
  return fl_store_put(self->inner, key, key_size, value, n);
}

static fl_status cut_get(void *user, const void *key, size_t key_size,
                         const void **value, size_t *n)
{
  cut *self = user;
  if (is_cut(self)) return FL_E_IO;
  return fl_store_get(self->inner, key, key_size, value, n);
}

static fl_status cut_remove(void *user, const void *key, size_t key_size)
{
  cut *self = user;
  if (is_cut(self)) return FL_E_IO;
  return fl_store_remove(self->inner, key, key_size);
}

static fl_status cut_next(void *user, const void *after, size_t after_size,
                          const void **key, size_t *key_size)
{
  cut *self = user;
  if (is_cut(self)) return FL_E_IO;
  return fl_store_next(self->inner, after, after_size, key, key_size);
}

static fl_status cut_commit(void *user)
{
  cut *self = user;
  if (is_cut(self) || self->fails_commits) {
    (void)fl_store_rollback(self->inner);
    return FL_E_IO;
  }
  self->commits++;
  return fl_store_commit(self->inner);
}

static fl_status cut_rollback(void *user)
{
  cut *self = user;
  (void)is_cut(self);
  return fl_store_rollback(self->inner);
}

static void cut_init(cut *self)
{
  memset(self, 0, sizeof *self);
  self->calls_left = NEVER;
  SV_REQUIRE(fl_store_memory_new(&self->inner, NULL) == FL_OK);
  self->hooks = (fl_store){
      .struct_size = sizeof self->hooks,
      .user = self,
      .put = cut_put,
      .get = cut_get,
      .remove = cut_remove,
      .next = cut_next,
      .commit = cut_commit,
      .rollback = cut_rollback,
  };
}

/* ---- kills ---- */

static void begin_with(sv_world *world, cut *store, const setting *how)
{
  cut_init(store);
  begin(world, NULL, how, &store->hooks);
}

static void end(sv_world *world, cut *store)
{
  sv_free(world);
  fl_store_free(store->inner);
}

/* Kill the server, which has saved nothing by itself, and recover it; every
 * client is on a new connection. */
static void kill_server(sv_world *world, cut *store)
{
  sv_drain(world);
  fl_server_free(world->server);
  world->server = NULL;
  WORLD_OK(fl_store_rollback(store->inner));
  store->calls_left = NEVER;
  const fl_status st = fl_server_recover(&world->server, NULL, &world->options);
  if (st == FL_E_NOT_FOUND) { /* killed before the first commit */
    sv_start(world);
  } else {
    cr_assert_eq(st, FL_OK, "%s: %s", fl_status_name(st), fl_last_error());
  }
  sv_tick(world, SV_SECOND_NS);
  for (size_t i = 0; i < world->n_clients; i++) {
    sv_client *client = &world->clients[i];
    const int is_done = client->is_done;
    client->peer += 100;
    client->is_done = 0;
    fli_frame_parser_reset(&client->parser);
    sv_clear(client);
    sv_hello(client);
    client->is_done = is_done;
  }
}

/* Run to the end; kill after step `kill_at`, or as soon as the store is cut
 * off. Number of steps taken. */
static size_t run(sv_world *world, cut *store, size_t kill_at)
{
  size_t steps = 0, idle = 0;
  sv_join(world);
  sv_tick(world, SV_SECOND_NS);
  while (idle < 2 * world->n_clients) {
    idle = step(world, steps) ? 0 : idle + 1;
    if (steps++ == kill_at || store->calls_left == 0) {
      kill_server(world, store);
      idle = 0;
    }
    cr_assert_lt(steps, 10000u);
  }
  return steps;
}

static void check_end(sv_world *world, const setting *how, size_t kill_at)
{
  cr_expect_eq(sv_status(world).is_finished, 1u, "%s, killed at %zu", how->name,
               kill_at);
  for (size_t i = 0; i < world->n_clients; i++) {
    cr_expect(sv_agrees(&world->clients[i]), "%s, killed at %zu", how->name,
              kill_at);
    cr_expect(world->clients[i].is_done, "%s, killed at %zu", how->name,
              kill_at);
  }
  cr_expect_eq(sv_events(world, FL_SERVER_CLIENT_LOST, NULL), 0u);
  /* A step whose updates cannot be read is tried again, in a new round. */
  if (!how->strategy)
    cr_expect_eq(sv_events(world, FL_SERVER_ROUND_ABORTED, NULL), 0u);
}

static size_t run_hashed(const setting *how, size_t kill_at, int cut_at,
                         uint8_t hash[FLI_HASH_BYTES])
{
  sv_world world;
  cut store;
  begin_with(&world, &store, how);
  if (cut_at > 0) store.calls_left = cut_at;
  const size_t steps = run(&world, &store, kill_at);
  check_end(&world, how, cut_at > 0 ? (size_t)cut_at : kill_at);
  fli_canonical_hash(&world.clients[0].model, hash);
  end(&world, &store);
  return steps;
}

Test(server_store, killed_after_any_step_ends_with_the_same_model)
{
  for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
    uint8_t want[FLI_HASH_BYTES], got[FLI_HASH_BYTES];
    const size_t steps = run_hashed(&settings[i], SIZE_MAX, 0, want);
    cr_assert_gt(steps, 20u);
    for (size_t kill_at = 0; kill_at + 6 < steps; kill_at++) {
      run_hashed(&settings[i], kill_at, 0, got);
      cr_expect_arr_eq(got, want, sizeof want, "%s, killed at %zu",
                       settings[i].name, kill_at);
    }
  }
}

Test(server_store, killed_in_any_call_of_the_store_ends_with_the_same_model)
{
  static const size_t some[] = {1, 4, 5, 8, 10};
  for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
    const setting *how = &settings[some[i]];
    uint8_t want[FLI_HASH_BYTES], got[FLI_HASH_BYTES];
    run_hashed(how, SIZE_MAX, 0, want);
    for (int cut_at = 1;; cut_at++) {
      sv_world world;
      cut store;
      begin_with(&world, &store, how);
      store.calls_left = cut_at;
      run(&world, &store, SIZE_MAX);
      const int was_cut = store.calls_left > NEVER / 2 + cut_at;
      check_end(&world, how, (size_t)cut_at);
      fli_canonical_hash(&world.clients[0].model, got);
      cr_expect_arr_eq(got, want, sizeof want, "%s, cut at %d", how->name,
                       cut_at);
      end(&world, &store);
      if (!was_cut) {
        cr_assert_gt(cut_at, 50);
        break;
      }
    }
  }
}

/* ---- acknowledged means durable ---- */

/* Up to the scale; THC without momentum. */
static void begin_updates(sv_world *world, cut *store)
{
  begin_with(world, store, &settings[3]);
  sv_join(world);
  sv_tick(world, SV_SECOND_NS);
  sv_report(world, 3);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world->clients[i]);
}

Test(server_store, an_acknowledged_update_outlives_a_kill)
{
  sv_world world;
  cut store;
  begin_updates(&world, &store);
  sv_update(&world.clients[1]);
  sv_pull(&world.clients[1]);
  cr_assert_eq(world.clients[1].got[FLI_MSG_ACK], 1u);
  cr_assert_eq(world.clients[1].ack.reason, FL_REJECT_NONE);
  kill_server(&world, &store);
  cr_expect_eq(sv_status(&world).accepted, 1u);
  sv_pull(&world.clients[1]);
  cr_expect_eq(world.clients[1].got[FLI_MSG_ACK], 1u, "and is told so again");
  cr_expect_eq(world.clients[1].got[FLI_MSG_PLAN], 0u);
  end(&world, &store);
}

Test(server_store, nothing_is_sent_while_commits_fail)
{
  sv_world world;
  cut store;
  const sv_event *event = NULL;
  uint64_t peer = UINT64_MAX, timeout = 0;
  begin_updates(&world, &store);
  sv_client *client = &world.clients[0];
  store.fails_commits = 1;
  sv_update(client);
  sv_pull(client);
  cr_expect_eq(client->got[FLI_MSG_ACK], 0u);
  cr_expect_eq(sv_events(&world, FL_SERVER_STORE_FAILED, &event), 1u);
  cr_assert_not_null(event);
  cr_expect(strstr(event->text, "a stream or storage hook failed"), "%s",
            event->text);
  cr_expect_eq(fl_server_next_ready(world.server, &peer), FL_E_EMPTY);
  cr_assert_eq(fl_server_next_timeout(world.server, &timeout), FL_OK);
  cr_expect_eq(timeout, world.now + SV_SECOND_NS);
  sv_tick(&world, SV_SECOND_NS); /* tried again, in vain */
  sv_pull(client);
  cr_expect_eq(client->got[FLI_MSG_ACK], 0u);
  cr_expect_eq(sv_events(&world, FL_SERVER_STORE_FAILED, NULL), 2u);
  store.fails_commits = 0;
  sv_pull(client);
  cr_expect_eq(client->got[FLI_MSG_ACK], 0u, "not before another second");
  sv_tick(&world, SV_SECOND_NS);
  sv_pull(client);
  cr_expect_eq(client->got[FLI_MSG_ACK], 1u);
  kill_server(&world, &store);
  cr_expect_eq(sv_status(&world).accepted, 1u);
  end(&world, &store);
}

static size_t sent(const sv_client *client, uint8_t *type)
{
  const uint8_t *data = NULL;
  size_t n = 0;
  WORLD_OK(fl_server_send(client->world->server, client->peer, &data, &n));
  *type = n > 0 ? data[5] : 0; /* of the first frame */
  return n;
}

/* The model that it is of was committed before its manifest left. */
Test(server_store, a_download_under_way_waits_for_nobodys_commit)
{
  sv_world world;
  cut store;
  const fli_get_model get = {.version = 0};
  uint64_t peer = UINT64_MAX;
  uint8_t type = 0;
  begin_updates(&world, &store);
  sv_client *reader = &world.clients[2], *sender = &world.clients[0];
  WORLD_OK(fli_write_get_model(&reader->out, &get));
  WORLD_OK(sv_push(reader));
  cr_assert_gt(sent(reader, &type), 0u);
  cr_assert_eq(type, FLI_MSG_MANIFEST);
  store.fails_commits = 1;
  sv_update(sender);
  const unsigned before = store.commits;
  cr_expect_eq(sent(sender, &type), 0u);
  cr_expect_eq(fl_server_has_unsent(world.server, sender->peer), 1);
  cr_expect_eq(fl_server_next_ready(world.server, &peer), FL_OK);
  cr_expect_eq(peer, reader->peer);
  cr_expect_eq(fl_server_next_ready(world.server, &peer), FL_E_EMPTY);
  cr_expect_gt(sent(reader, &type), 0u);
  cr_expect_eq(type, FLI_MSG_CHUNK);
  peer = UINT64_MAX;
  cr_expect_eq(fl_server_next_ready(world.server, &peer), FL_E_EMPTY);
  /* What comes behind it is of now, and waits like the rest. */
  cr_expect_eq(sent(reader, &type), 0u);
  cr_expect_eq(store.commits, before);
  store.fails_commits = 0;
  sv_tick(&world, SV_SECOND_NS);
  cr_expect_gt(sent(reader, &type), 0u);
  cr_expect_eq(type, FLI_MSG_PLAN);
  cr_expect_gt(sent(sender, &type), 0u);
  cr_expect_eq(type, FLI_MSG_ACK);
  cr_expect_eq(fl_server_has_unsent(world.server, sender->peer), 0);
  cr_expect_eq(fl_server_has_unsent(world.server, 12345), 0);
  cr_expect_eq(fl_server_has_unsent(NULL, 0), 0);
  cr_expect_eq(store.commits, before + 1);
  end(&world, &store);
}

Test(server_store, a_put_that_fails_costs_nothing_but_a_longer_commit)
{
  sv_world world;
  cut store;
  begin_updates(&world, &store);
  sv_update(&world.clients[0]);
  store.calls_left = 1; /* that of the next update */
  sv_update(&world.clients[1]);
  cr_assert_eq(store.calls_left, 0);
  store.calls_left = NEVER;
  sv_pull(&world.clients[1]);
  cr_expect_eq(world.clients[1].got[FLI_MSG_ACK], 1u);
  cr_expect_eq(sv_events(&world, FL_SERVER_STORE_FAILED, NULL), 0u);
  kill_server(&world, &store);
  cr_expect_eq(sv_status(&world).accepted, 2u);
  end(&world, &store);
}

Test(server_store, updates_of_a_window_share_a_commit)
{
  sv_world world;
  cut store;
  uint64_t timeout = 0;
  begin_with(&world, &store, &settings[3]);
  world.options.commit_window_ns = SV_SECOND_NS;
  fl_server_free(world.server);
  sv_start(&world);
  sv_join(&world);
  sv_tick(&world, SV_SECOND_NS);
  sv_report(&world, 3);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  const unsigned before = store.commits;
  for (size_t i = 0; i < 2; i++) {
    sv_update(&world.clients[i]);
    sv_pull(&world.clients[i]);
    cr_expect_eq(world.clients[i].got[FLI_MSG_ACK], 0u);
    cr_assert_eq(fl_server_next_timeout(world.server, &timeout), FL_OK);
    cr_expect_eq(timeout, world.now + SV_SECOND_NS - i * SV_SECOND_NS / 2);
    sv_tick(&world, SV_SECOND_NS / 2);
  }
  for (size_t i = 0; i < 2; i++) {
    sv_pull(&world.clients[i]);
    cr_expect_eq(world.clients[i].got[FLI_MSG_ACK], 1u);
  }
  cr_expect_eq(store.commits, before + 1);
  /* The last one ends the round, which is not held. */
  sv_update(&world.clients[2]);
  sv_pull(&world.clients[2]);
  cr_expect_eq(world.clients[2].got[FLI_MSG_ACK], 1u);
  cr_expect_eq(store.commits, before + 2);
  end(&world, &store);
}

Test(server_store, what_was_not_committed_is_sent_again_and_counted_once)
{
  sv_world world;
  cut store;
  begin_updates(&world, &store);
  world.options.commit_window_ns = SV_SECOND_NS;
  kill_server(&world, &store); /* to take the option */
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  sv_update(&world.clients[0]);
  cr_assert_eq(sv_status(&world).accepted, 1u);
  kill_server(&world, &store);
  cr_assert_eq(sv_status(&world).accepted, 0u);
  sv_run(&world);
  sv_tick(&world, SV_SECOND_NS);
  sv_run(&world);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_ABORTED, NULL), 0u);
  end(&world, &store);
}

Test(server_store, commit_ends_a_window_and_reports)
{
  sv_world world;
  cut store;
  cr_assert_eq(fl_server_commit(NULL), FL_E_ARGUMENT);
  begin_updates(&world, &store);
  cr_assert_eq(fl_server_stop_job(world.server, 0), FL_OK);
  store.fails_commits = 1;
  cr_expect_eq(fl_server_commit(world.server), FL_E_IO);
  store.fails_commits = 0;
  cr_expect_eq(fl_server_commit(world.server), FL_OK);
  const unsigned commits = store.commits;
  cr_expect_eq(fl_server_commit(world.server), FL_OK);
  cr_expect_eq(store.commits, commits, "there was nothing");
  kill_server(&world, &store);
  cr_expect_eq(world.server->jobs[0]->is_stopping, 1);
  end(&world, &store);
}

Test(server_store, pieces_that_did_not_change_are_not_put_again)
{
  enum { MANY = 200000 };
  sv_world world;
  cut store;
  cut_init(&store);
  sv_init(&world, NULL, FL_CODEC_F32);
  fl_model_free(world.model);
  world.model = sv_make_model(NULL, MANY);
  cr_assert_eq(fl_model_copy_schema(world.model, world.schema), FL_OK);
  world.options.store = &store.hooks;
  world.job_options.min_clients = 1;
  sv_start(&world);
  sv_add(&world, "abe", 10);
  sv_join(&world); /* the first round begins */
  sv_pull(&world.clients[0]);
  const fli_journal *journal = &world.server->journal;
  cr_expect_gt(journal->n_pieces, 4 * MANY / 65536u);
  cr_expect_eq(journal->pieces_put, journal->n_pieces);
  sv_norm(&world.clients[0]);
  sv_pull(&world.clients[0]); /* its scale */
  cr_expect_leq(journal->pieces_put, 3u);
  end(&world, &store);
}

/* ---- what is in the store ---- */

Test(server_store, a_store_with_a_server_is_not_begun_anew)
{
  sv_world world;
  cut store;
  fl_server *other = NULL;
  fl_reader reader;
  fl_buffer *snapshot = NULL;
  fl_writer writer;
  const void *value = NULL;
  size_t n = 0;
  cut_init(&store);
  WORLD_OK(fl_store_put(store.inner, "host/note", 9, "mine", 4));
  WORLD_OK(fl_store_commit(store.inner));
  begin(&world, NULL, &settings[0], &store.hooks);
  cr_expect_eq(fl_server_recover(&other, NULL, &world.options), FL_E_NOT_FOUND);
  sv_join(&world);
  sv_pull(&world.clients[0]);
  cr_expect_eq(fl_server_new(&other, NULL, &world.options), FL_E_STATE);
  WORLD_OK(fl_buffer_new(&snapshot, NULL));
  WORLD_OK(fl_buffer_as_writer(snapshot, &writer));
  WORLD_OK(fl_server_save(world.server, &writer));
  WORLD_OK(fl_buffer_as_reader(snapshot, &reader));
  cr_expect_eq(fl_server_restore(&other, NULL, &world.options, &reader),
               FL_E_STATE);
  WORLD_OK(fl_store_clear(store.inner, "server/", 7));
  WORLD_OK(fl_buffer_as_reader(snapshot, &reader));
  WORLD_OK(fl_server_restore(&other, NULL, &world.options, &reader));
  WORLD_OK(fl_server_commit(other));
  fl_server_free(other);
  other = NULL;
  WORLD_OK(fl_server_recover(&other, NULL, &world.options));
  fl_server_free(other);
  WORLD_OK(fl_store_get(store.inner, "host/note", 9, &value, &n));
  cr_expect(n == 4 && memcmp(value, "mine", 4) == 0);
  fl_buffer_free(snapshot);
  end(&world, &store);
}

Test(server_store, recover_checks_its_arguments)
{
  fl_server *server = NULL;
  fl_server_options options;
  cr_assert_eq(fl_server_options_init(&options, sizeof options), FL_OK);
  cr_expect_eq(fl_server_recover(NULL, NULL, &options), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_recover(&server, NULL, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_recover(&server, NULL, &options), FL_E_ARGUMENT);
  options.commit_window_ns = 10 * SV_SECOND_NS + 1;
  cr_expect_eq(fl_server_new(&server, NULL, &options), FL_E_OPTIONS);
  cr_expect_null(server);
}

static fl_status recover(const sv_world *world)
{
  fl_server *server = NULL;
  const fl_status st = fl_server_recover(&server, NULL, &world->options);
  fl_server_free(server);
  return st;
}

/* Change one byte of every key's value in turn, and remove it. */
Test(server_store, damage_anywhere_is_refused)
{
  sv_world world;
  cut store;
  char key[FL_STORE_KEY_MAX];
  const void *found = NULL;
  size_t n = 0, n_keys = 0, size = 0;
  begin_updates(&world, &store);
  sv_update(&world.clients[1]);
  sv_pull(&world.clients[1]);
  cr_assert_eq(recover(&world), FL_OK);
  fl_status st = fl_store_next(store.inner, NULL, 0, &found, &n);
  for (; st == FL_OK; n_keys++) {
    memcpy(key, found, n);
    WORLD_OK(fl_store_get(store.inner, key, n, &found, &size));
    uint8_t *copy = malloc(size);
    cr_assert_not_null(copy);
    memcpy(copy, found, size);
    for (size_t at = 0; at < size; at += 1 + size / 97) {
      copy[at] ^= 0x40;
      WORLD_OK(fl_store_put(store.inner, key, n, copy, size));
      copy[at] ^= 0x40;
      st = recover(&world);
      cr_expect(st == FL_E_FORMAT || st == FL_E_VERSION ||
                    st == FL_E_TRUNCATED || st == FL_E_TOO_LARGE,
                "%.*s, byte %zu: %s", (int)n, key, at, fl_status_name(st));
    }
    WORLD_OK(fl_store_put(store.inner, key, n, copy, size / 2));
    cr_expect_neq(recover(&world), FL_OK, "%.*s", (int)n, key);
    free(copy);
    WORLD_OK(fl_store_rollback(store.inner));
    st = fl_store_next(store.inner, key, n, &found, &n);
  }
  cr_assert_eq(st, FL_E_EMPTY);
  cr_expect_geq(n_keys, 3u);
  cr_expect_eq(recover(&world), FL_OK);
  end(&world, &store);
}

Test(server_store, another_schema_is_a_version_error)
{
  sv_world world;
  cut store;
  uint8_t head[20] = {'F', 'L', 'S', 'V', FLI_JOURNAL_SCHEMA + 1};
  begin_updates(&world, &store);
  WORLD_OK(fl_store_put(store.inner, "server/head", 11, head, sizeof head));
  cr_expect_eq(recover(&world), FL_E_VERSION);
  cr_expect_str_eq(fl_last_error(), "store: schema: got 2, want 1");
  end(&world, &store);
}

Test(server_store, an_update_of_no_running_round_is_refused)
{
  sv_world world;
  cut store;
  uint8_t key[FLI_UPDATE_KEY_BYTES];
  begin_updates(&world, &store);
  fli_journal_update_key(key, world.server->jobs[0], 17);
  WORLD_OK(fl_store_put(store.inner, key, sizeof key, "x", 1));
  cr_expect_eq(recover(&world), FL_E_FORMAT);
  end(&world, &store);
}
