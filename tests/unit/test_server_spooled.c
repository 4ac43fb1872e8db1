/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs whose rule needs every update by itself, on a server with a store:
 * updates lie there in pieces and are read tile by tile. The models are those
 * of a server without one; memory is not that of the updates; pieces are
 * removed, checked, and saved elsewhere with the rest. */
#include <criterion/criterion.h>

#include <fl/strategy.h>

#include "server/server.h"
#include "server_fixture.h"

enum { FIRST = 15000, DIM = FIRST + SV_SECOND };

/* Updates of several pieces each; `store` may be NULL. */
static void begin(sv_world *world, fl_context *context, uint32_t codec,
                  const char *name, const fl_store *store)
{
  static fl_strategy_options strategy;
  SV_REQUIRE(fl_strategy_options_named(&strategy, sizeof strategy, name) ==
             FL_OK);
  sv_init(world, context, codec);
  fl_model_free(world->model);
  world->model = sv_make_model(NULL, FIRST);
  SV_REQUIRE(fl_model_copy_schema(world->model, world->schema) == FL_OK);
  world->options.store = store;
  world->job_options.strategy = &strategy;
  sv_start(world);
  sv_add(world, "abe", 10);
  sv_add(world, "bea", 25);
  sv_add(world, "cay", 300);
}

/* Of the first round: all have the scale, and `n` have sent their updates. */
static void send_updates(sv_world *world, size_t n)
{
  sv_join(world);
  sv_tick(world, SV_SECOND_NS);
  sv_report(world, 3);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world->clients[i]);
  for (size_t i = 0; i < n; i++) {
    sv_update(&world->clients[i]);
    sv_pull(&world->clients[i]);
    SV_REQUIRE(world->clients[i].got[FLI_MSG_ACK] == 1);
  }
}

static void finish(sv_world *world, float weights[DIM])
{
  uint64_t version = 0;
  sv_join(world);
  sv_tick(world, SV_SECOND_NS);
  sv_run(world);
  cr_assert(sv_is_finished(world));
  cr_expect_eq(sv_events(world, FL_SERVER_ROUND_ABORTED, NULL), 0u);
  cr_assert_eq(fl_server_copy_weights(world->server, 0, weights, DIM, &version),
               FL_OK);
  cr_expect_eq(version, 2u);
}

static uint32_t count_pieces(const fl_store *store)
{
  static const char prefix[] = "server/spool/";
  const void *key = prefix;
  size_t n = sizeof prefix - 1;
  uint32_t count = 0;
  while (fl_store_next(store, key, n, &key, &n) == FL_OK &&
         n > sizeof prefix - 1 && memcmp(key, prefix, sizeof prefix - 1) == 0)
    count++;
  return count;
}

Test(server_spooled, models_are_those_of_a_server_without_a_store)
{
  static const struct {
    const char *name;
    uint32_t codec;
  } jobs[] = {{"median", FL_CODEC_F32},
              {"trimmed-mean", FL_CODEC_BF16},
              {"median", FL_CODEC_THC},
              {"fednova", FL_CODEC_F32},
              {"geometric-median", FL_CODEC_F32}};
  for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
    static float got[DIM], want[DIM];
    sv_world world;
    fl_store *store = NULL;
    begin(&world, NULL, jobs[i].codec, jobs[i].name, NULL);
    finish(&world, want);
    sv_free(&world);
    SV_REQUIRE(fl_store_memory_new(&store, NULL) == FL_OK);
    begin(&world, NULL, jobs[i].codec, jobs[i].name, store);
    finish(&world, got);
    cr_expect_arr_eq(got, want, sizeof want, "%s", jobs[i].name);
    cr_expect_eq(count_pieces(store), 0u, "%s", jobs[i].name);
    sv_free(&world);
    fl_store_free(store);
  }
}

Test(server_spooled, acknowledged_updates_are_in_the_store_and_not_in_memory)
{
  enum { BYTES = 4 * DIM };
  uint64_t held[2];
  for (int has_store = 0; has_store < 2; has_store++) {
    sv_world world;
    fl_store *store = NULL;
    fl_context *context = NULL;
    SV_REQUIRE(fl_store_memory_new(&store, NULL) == FL_OK);
    SV_REQUIRE(fl_context_new(&context, NULL) == FL_OK);
    begin(&world, context, FL_CODEC_F32, "median", has_store ? store : NULL);
    send_updates(&world, 2);
    SV_REQUIRE(fl_context_get_memory(context, &held[has_store], NULL) == FL_OK);
    const fli_job *job = world.server->jobs[0];
    for (uint32_t i = 0; i < 2; i++) {
      cr_expect_eq(job->members[i].update.size > 0, !has_store);
      cr_expect_eq(job->members[i].spooled > BYTES, has_store);
    }
    /* Of 60 KiB each, in pieces of 16. */
    cr_expect_eq(count_pieces(store), has_store ? 8u : 0u);
    sv_free(&world);
    fl_context_free(context);
    fl_store_free(store);
  }
  cr_expect_leq(held[1] + 2 * BYTES, held[0] + BYTES / 4);
}

/* The state in the store has names, one that is saved has bytes. */
Test(server_spooled, a_saved_server_goes_on_without_the_store)
{
  static float got[DIM], want[DIM];
  for (int is_thc = 0; is_thc < 2; is_thc++) {
    const uint32_t codec = is_thc ? FL_CODEC_THC : FL_CODEC_F32;
    sv_world world;
    fl_store *store = NULL;
    begin(&world, NULL, codec, "median", NULL);
    finish(&world, want);
    sv_free(&world);
    SV_REQUIRE(fl_store_memory_new(&store, NULL) == FL_OK);
    begin(&world, NULL, codec, "median", store);
    send_updates(&world, 2);
    world.options.store = NULL;
    sv_restart(&world);
    fl_store_free(store);
    cr_expect_eq(sv_status(&world).accepted, 2u);
    finish(&world, got);
    cr_expect_arr_eq(got, want, sizeof want);
    sv_free(&world);
  }
}

static fl_status recover(const sv_world *world)
{
  fl_server *server = NULL;
  const fl_status st = fl_server_recover(&server, NULL, &world->options);
  fl_server_free(server);
  return st;
}

Test(server_spooled, a_damaged_or_missing_piece_is_refused)
{
  static uint8_t copy[1 << 15];
  static const char prefix[] = "server/spool/";
  sv_world world;
  fl_store *store = NULL;
  char key[FL_STORE_KEY_MAX];
  const void *found = NULL;
  size_t n = sizeof prefix - 1, size = 0;
  SV_REQUIRE(fl_store_memory_new(&store, NULL) == FL_OK);
  begin(&world, NULL, FL_CODEC_F32, "median", store);
  send_updates(&world, 2);
  cr_assert_eq(recover(&world), FL_OK);
  memcpy(key, prefix, n);
  for (uint32_t piece = 0; piece < 8; piece++) {
    SV_REQUIRE(fl_store_next(store, key, n, &found, &n) == FL_OK);
    memcpy(key, found, n);
    SV_REQUIRE(fl_store_get(store, key, n, &found, &size) == FL_OK);
    SV_REQUIRE(size <= sizeof copy);
    memcpy(copy, found, size);
    copy[size / 2] ^= 1;
    SV_REQUIRE(fl_store_put(store, key, n, copy, size) == FL_OK);
    cr_expect_eq(recover(&world), FL_E_FORMAT);
    SV_REQUIRE(fl_store_put(store, key, n, copy, size - 1) == FL_OK);
    cr_expect_eq(recover(&world), FL_E_FORMAT);
    SV_REQUIRE(fl_store_remove(store, key, n) == FL_OK);
    cr_expect_eq(recover(&world), FL_E_FORMAT);
    SV_REQUIRE(fl_store_rollback(store) == FL_OK);
  }
  cr_expect_eq(recover(&world), FL_OK);
  sv_free(&world);
  fl_store_free(store);
}
