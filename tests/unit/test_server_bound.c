/* SPDX-License-Identifier: Apache-2.0 */
/* A client that has heard WELCOME has its id for good: whatever kills the
 * server, no other key gets it. One that joins costs a record, not the state of
 * everybody. */
#include <criterion/criterion.h>

#include "server/cohorts.h"
#include "server/server.h"
#include "server_fixture.h"
#include "store/store.h"

enum { KEY_A = 1, KEY_B = 2, PREFIX = 13 };

typedef struct kept {
  sv_world world;
  fl_store *inner;
  fl_store hooks;
  int fails;
} kept;

static fl_status commit(void *user)
{
  kept *self = user;
  if (!self->fails) return fl_store_commit(self->inner);
  (void)fl_store_rollback(self->inner);
  return FL_E_IO;
}

static fl_status put(void *user, const void *key, size_t n_key,
                     const void *value, size_t n)
{
  return fl_store_put(((kept *)user)->inner, key, n_key, value, n);
}

static fl_status get(void *user, const void *key, size_t n_key,
                     const void **value, size_t *n)
{
  return fl_store_get(((kept *)user)->inner, key, n_key, value, n);
}

static fl_status take_out(void *user, const void *key, size_t n_key)
{
  return fl_store_remove(((kept *)user)->inner, key, n_key);
}

static fl_status next(void *user, const void *after, size_t n_after,
                      const void **key, size_t *n_key)
{
  return fl_store_next(((kept *)user)->inner, after, n_after, key, n_key);
}

static fl_status roll_back(void *user)
{
  return fl_store_rollback(((kept *)user)->inner);
}

static void prepare(kept *self)
{
  memset(self, 0, sizeof *self);
  cr_assert_eq(fl_store_memory_new(&self->inner, NULL), FL_OK);
  self->hooks = (fl_store){.struct_size = sizeof self->hooks,
                           .user = self,
                           .put = put,
                           .get = get,
                           .remove = take_out,
                           .next = next,
                           .commit = commit,
                           .rollback = roll_back};
  sv_init(&self->world, NULL, FL_CODEC_F32);
  self->world.options.store = &self->hooks;
}

static void start(kept *self)
{
  sv_start(&self->world);
  cr_assert_eq(fl_server_commit(self->world.server), FL_OK);
}

static void end(kept *self)
{
  sv_free(&self->world);
  fl_store_free(self->inner);
}

static fl_status recover(kept *self)
{
  sv_world *world = &self->world;
  fl_server_free(world->server);
  world->server = NULL;
  cr_assert_eq(fl_store_rollback(self->inner), FL_OK);
  return fl_server_recover(&world->server, NULL, &world->options);
}

static sv_client *add(kept *self, const char *id, uint8_t key)
{
  sv_client *client = sv_add(&self->world, id, 1);
  if (key) sv_give_key(client, key);
  return client;
}

static void greet(sv_client *client)
{
  sv_hello(client);
  (void)sv_pull(client);
}

/* How many records there are; the last one's key goes to `key`. */
static size_t records(const kept *self, uint8_t *key, size_t *n_key)
{
  uint8_t local[FL_STORE_KEY_MAX];
  const void *found = "server/bound/";
  size_t n = PREFIX, count = 0;
  while (fl_store_next(self->inner, found, n, &found, &n) == FL_OK &&
         fli_store_key_has(found, n, fli_journal_bound_prefix, PREFIX)) {
    memcpy(local, found, n);
    found = local;
    count++;
    if (key) memcpy(key, local, n);
    if (key) *n_key = n;
  }
  return count;
}

static void is_refused(sv_client *client, uint32_t reason)
{
  greet(client);
  cr_expect_eq(client->got[FLI_MSG_WELCOME], 0u);
  cr_expect_eq(client->reject.reason, reason);
}

Test(server_bound, an_id_stays_its_keys_when_the_server_is_killed_after_welcome)
{
  static kept self;
  prepare(&self);
  start(&self);
  sv_client *owner = add(&self, "abe", KEY_A);
  greet(owner);
  cr_assert_eq(owner->got[FLI_MSG_WELCOME], 1u);
  cr_assert_eq(recover(&self), FL_OK);
  is_refused(add(&self, "abe", KEY_B), FL_REJECT_KEY);
  is_refused(add(&self, "abe", 0), FL_REJECT_KEY);
  sv_return(owner);
  (void)sv_pull(owner);
  cr_expect_eq(owner->got[FLI_MSG_WELCOME], 2u);
  end(&self);
}

Test(server_bound, welcome_waits_for_the_commit)
{
  static kept self;
  prepare(&self);
  start(&self);
  sv_client *owner = add(&self, "abe", KEY_A);
  sv_ask_challenge(owner);
  self.fails = 1;
  fli_hello hello = sv_hello_message(owner);
  sv_sign_hello(owner, &hello);
  sv_send_hello(owner, &hello);
  (void)sv_pull(owner);
  cr_expect_eq(owner->got[FLI_MSG_WELCOME], 0u);
  self.fails = 0;
  sv_tick(&self.world, 10 * SV_SECOND_NS);
  (void)sv_pull(owner);
  cr_expect_eq(owner->got[FLI_MSG_WELCOME], 1u);
  cr_assert_eq(recover(&self), FL_OK);
  is_refused(add(&self, "abe", KEY_B), FL_REJECT_KEY);
  end(&self);
}

Test(server_bound, one_that_joins_costs_a_record_and_not_the_state)
{
  static kept self;
  uint8_t key[FL_STORE_KEY_MAX];
  size_t n = 0, size = 0;
  const void *value = NULL;
  prepare(&self);
  start(&self);
  self.world.server->journal.pieces_put = 77;
  greet(add(&self, "abe", KEY_A));
  greet(add(&self, "bob", KEY_B));
  cr_expect_eq(self.world.server->journal.pieces_put, 77u);
  cr_assert_eq(records(&self, key, &n), 2u);
  cr_assert_eq(fl_store_get(self.inner, key, n, &value, &size), FL_OK);
  cr_expect_leq(n + size, 80u);
  /* It is known already: nothing more to say. */
  sv_return(&self.world.clients[0]);
  cr_expect_eq(self.world.server->journal.n_updates, 0u);
  end(&self);
}

Test(server_bound, the_next_step_has_it_in_the_state)
{
  static kept self;
  prepare(&self);
  start(&self);
  greet(add(&self, "abe", KEY_A));
  cr_assert_eq(records(&self, NULL, NULL), 1u);
  cr_assert_eq(fl_server_ban(self.world.server, "eve", 1), FL_OK);
  cr_assert_eq(fl_server_commit(self.world.server), FL_OK);
  cr_expect_eq(records(&self, NULL, NULL), 0u);
  cr_assert_eq(recover(&self), FL_OK);
  is_refused(add(&self, "abe", KEY_B), FL_REJECT_KEY);
  end(&self);
}

Test(server_bound, a_known_client_that_gets_a_key_keeps_it)
{
  static kept self;
  prepare(&self);
  start(&self);
  greet(add(&self, "abe", 0));
  fli_journal_step(self.world.server);
  cr_assert_eq(fl_server_commit(self.world.server), FL_OK);
  sv_client *abe = &self.world.clients[0];
  sv_lose(abe);
  sv_give_key(abe, KEY_A);
  sv_return(abe);
  (void)sv_pull(abe);
  cr_assert_eq(records(&self, NULL, NULL), 1u);
  cr_assert_eq(recover(&self), FL_OK);
  cr_expect_eq(self.world.server->n_participants, 1u);
  is_refused(add(&self, "abe", 0), FL_REJECT_KEY);
  end(&self);
}

Test(server_bound, a_listed_key_stays_one_client_after_a_kill)
{
  static kept self;
  prepare(&self);
  self.world.options.enrolment = FL_ENROL_LISTED;
  sv_start(&self.world);
  sv_client *abe = add(&self, "abe", KEY_A);
  cr_assert_eq(fl_server_allow(self.world.server, abe->public_key, NULL),
               FL_OK);
  cr_assert_eq(fl_server_commit(self.world.server), FL_OK);
  greet(abe);
  cr_assert_eq(abe->got[FLI_MSG_WELCOME], 1u);
  cr_assert_eq(recover(&self), FL_OK);
  is_refused(add(&self, "bob", KEY_A), FL_REJECT_KEY);
  end(&self);
}

/* Its place among them is in the state alone. */
Test(server_bound, a_client_of_cohorts_is_in_the_state_at_once)
{
  static kept self;
  fl_cohort_options cohorts;
  prepare(&self);
  cr_assert_eq(fl_cohort_options_init(&cohorts, sizeof cohorts), FL_OK);
  cohorts.rule = FL_COHORT_LOSS;
  cohorts.cap = 2;
  self.world.job_options.cohorts = &cohorts;
  start(&self);
  sv_client *abe = add(&self, "abe", KEY_A);
  abe->more_capabilities = FLI_CAP_COHORTS;
  greet(abe);
  cr_assert_eq(abe->got[FLI_MSG_WELCOME], 1u);
  cr_expect_eq(records(&self, NULL, NULL), 0u);
  cr_assert_eq(recover(&self), FL_OK);
  sv_client *thief = add(&self, "abe", KEY_B);
  thief->more_capabilities = FLI_CAP_COHORTS;
  is_refused(thief, FL_REJECT_KEY);
  end(&self);
}

/* ---- one that is to be forgotten, and comes back ---- */

static void leave(sv_client *client)
{
  const fli_decline bye = {.forgets = 1};
  SV_REQUIRE(fli_write_decline(&client->out, FLI_MSG_BYE, &bye) == FL_OK);
  (void)sv_push(client);
  (void)sv_pull(client);
}

static void greet_again(sv_client *client, uint64_t peer)
{
  client->has_plan = client->has_scale = 0;
  sv_clear(client);
  client->peer = peer;
  greet(client);
}

static const fli_participant *who_is(const kept *self, const char *id)
{
  return fli_registry_find(self->world.server->jobs[0], id);
}

Test(server_bound, who_comes_back_before_it_is_forgotten_stays_after_a_kill)
{
  static kept self;
  prepare(&self);
  self.world.job_options.min_participants = 2;
  start(&self);
  sv_client *abe = add(&self, "abe", KEY_A);
  sv_client *others[] = {add(&self, "bea", 3), add(&self, "cay", 4)};
  greet(abe);
  for (size_t i = 0; i < 2; i++)
    greet(others[i]);
  sv_tick(&self.world, SV_SECOND_NS);
  (void)sv_pull(abe);
  cr_assert(abe->has_plan);
  leave(abe); /* the round has its place: the record waits for its end */
  cr_assert_eq(abe->reject.reason, (uint32_t)FL_REJECT_FORGOTTEN);
  cr_assert_eq(who_is(&self, "abe")->is_leaving, 1);
  sv_lose(abe);
  greet_again(abe, 51);
  cr_assert_eq(abe->got[FLI_MSG_WELCOME], 1u);
  cr_assert_eq(who_is(&self, "abe")->is_leaving, 0);
  cr_assert_eq(recover(&self), FL_OK);
  cr_assert_not_null(who_is(&self, "abe"));
  cr_expect_eq(who_is(&self, "abe")->is_leaving, 0);
  /* The round ends without it, and it stays known. */
  sv_tick(&self.world, SV_SECOND_NS);
  abe->is_gone = 1;
  for (size_t i = 0; i < 2; i++)
    greet_again(others[i], 52 + i);
  sv_run(&self.world);
  cr_expect_gt(sv_events(&self.world, FL_SERVER_ROUND_FINISHED, NULL), 0u);
  cr_expect_eq(sv_events(&self.world, FL_SERVER_CLIENT_LEFT, NULL), 0u);
  is_refused(add(&self, "abe", KEY_B), FL_REJECT_KEY);
  end(&self);
}

/* Who is not leaving takes nothing back: HELLO alone is no step. */
Test(server_bound, a_return_of_one_that_stays_puts_no_state)
{
  static kept self;
  prepare(&self);
  start(&self);
  greet(add(&self, "abe", KEY_A));
  self.world.server->journal.pieces_put = 77;
  sv_return(&self.world.clients[0]);
  (void)sv_pull(&self.world.clients[0]);
  cr_expect_eq(self.world.server->journal.is_step_due, 0);
  cr_expect_eq(self.world.server->journal.pieces_put, 77u);
  end(&self);
}

/* ---- damage ---- */

static void put_record(const kept *self, const void *key, size_t n_key,
                       const void *value, size_t n)
{
  cr_assert_eq(fl_store_put(self->inner, key, n_key, value, n), FL_OK);
  cr_assert_eq(fl_store_commit(self->inner), FL_OK);
}

static void expect_damage(kept *self, const char *what, size_t at)
{
  cr_expect_eq(recover(self), FL_E_FORMAT, "%s %zu", what, at);
  cr_expect_null(self->world.server);
}

Test(server_bound, a_record_that_is_damaged_or_moved_is_refused)
{
  static kept self;
  uint8_t key[FL_STORE_KEY_MAX], value[64], other[FL_STORE_KEY_MAX];
  size_t n = 0, size = 0;
  const void *found = NULL;
  prepare(&self);
  start(&self);
  greet(add(&self, "abe", KEY_A));
  cr_assert_eq(records(&self, key, &n), 1u);
  cr_assert_eq(fl_store_get(self.inner, key, n, &found, &size), FL_OK);
  cr_assert_eq(size, 48u);
  memcpy(value, found, size);
  for (size_t at = 0; at < size; at++) {
    value[at] ^= 1;
    put_record(&self, key, n, value, size);
    expect_damage(&self, "byte", at);
    value[at] ^= 1;
  }
  put_record(&self, key, n, value, size - 1);
  expect_damage(&self, "bytes", size - 1);
  put_record(&self, key, n, value, size);
  for (size_t at = PREFIX; at < n; at++) { /* another job, another client */
    memcpy(other, key, n);
    other[at] ^= 1;
    put_record(&self, other, n, value, size);
    expect_damage(&self, "key", at);
    cr_assert_eq(fl_store_remove(self.inner, other, n), FL_OK);
  }
  memset(other + PREFIX + 4, 'x', sizeof other - PREFIX - 4);
  put_record(&self, other, sizeof other, value, size);
  expect_damage(&self, "id of", sizeof other);
  cr_assert_eq(fl_store_remove(self.inner, other, sizeof other), FL_OK);
  put_record(&self, other, PREFIX + 4, value, size);
  expect_damage(&self, "id of", 0);
  cr_assert_eq(fl_store_remove(self.inner, other, PREFIX + 4), FL_OK);
  cr_assert_eq(fl_store_commit(self.inner), FL_OK);
  cr_expect_eq(recover(&self), FL_OK);
  end(&self);
}
