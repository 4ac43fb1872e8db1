/* SPDX-License-Identifier: Apache-2.0 */
/* A server that meets a failing allocation. A constructor reports it; while it
 * serves, the worst that may happen is a closed session, an aborted attempt or
 * a lost event: with memory again, the training goes on to its end, with all
 * replicas equal, and every byte is given back. */
#include "oom.h"

#include "base/error.h"
#include "unit/server_fixture.h"

enum { MEND_ROUNDS = 60 };

static void configure(sv_world *world, fl_context *context, uint32_t codec,
                      uint32_t scale_mode)
{
  sv_init(world, context, codec);
  world->job_options.evaluate_every = 2;
  world->job_options.scale_mode = scale_mode;
  world->job_options.server_momentum =
      scale_mode == FL_SCALE_EXCHANGED ? 0.5f : 0.0f;
  world->job_options.min_participants = 3;
  sv_add(world, "abe", 10);
  sv_add(world, "bea", 20);
  sv_add(world, "cay", 30);
}

/* Module 0 from round 2 on. */
static void freeze(sv_world *world)
{
  static const fl_freeze_fixed fixed[1] = {{.step = 2, .first_active = 1}};
  static fl_freeze_options options;
  CHECK_OK(fl_freeze_options_init(&options, sizeof options));
  options.criterion = FL_FREEZE_FIXED;
  options.max_frozen = 1;
  options.fixed = fixed;
  options.n_fixed = 1;
  world->job_options.freeze = &options;
}

/* The reports of a round are gathered when it ends. */
static void report(sv_world *world)
{
  static fl_freeze_options options;
  CHECK_OK(fl_freeze_options_init(&options, sizeof options));
  options.max_frozen = 1;
  world->job_options.freeze = &options;
  for (size_t i = 0; i < world->n_clients; i++) {
    world->clients[i].has_report = 1;
    world->clients[i].report = 1.0;
  }
}

/* The store's memory never fails: only the server is looked at here. */
static fl_store *kept;

static void with_a_store(sv_world *world)
{
  fl_store_free(kept);
  CHECK_OK(fl_store_memory_new(&kept, NULL));
  world->options.store = kept;
}

static void follow(sv_world *world, const char *name)
{
  static fl_strategy_options options;
  CHECK_OK(fl_strategy_options_named(&options, sizeof options, name));
  world->job_options.server_momentum = 0.0f;
  world->job_options.strategy = &options;
}

static void adapt(sv_world *world)
{
  follow(world, "fedadam");
}

/* The choice itself, and what is kept for it. */
static void choose(sv_world *world, uint32_t rule)
{
  static fl_selection_options options;
  CHECK_OK(fl_selection_options_init(&options, sizeof options));
  options.rule = rule;
  world->job_options.selection = &options;
  world->job_options.participants = 2;
  world->job_options.min_participants = 2;
}

static void by_choice(sv_world *world)
{
  choose(world, FL_SELECT_CHOICE);
}

static void by_oort(sv_world *world)
{
  choose(world, FL_SELECT_OORT);
}

/* All are asked: what is kept of them is written and read. */
static void by_oort_of_all(sv_world *world)
{
  choose(world, FL_SELECT_OORT);
  world->job_options.participants = 3;
}

/* Rounds end with two updates; the third goes on. */
static void buffer(sv_world *world)
{
  world->codec.thc_mode = FL_THC_UNIFORM;
  world->job_options.evaluate_every = 0;
  world->job_options.buffer = 2;
  world->job_options.min_participants = 2;
}

/* Controls down and up. */
static void with_controls(sv_world *world)
{
  static uint8_t tail[4 * SV_WEIGHTS];
  follow(world, "scaffold");
  for (size_t i = 0; i < world->n_clients; i++) {
    world->clients[i].more_capabilities = FLI_CAP_CONTROLS;
    world->clients[i].tail = tail;
    world->clients[i].n_tail = sizeof tail;
  }
}

/* Updates are kept, and read separately. */
static void trim(sv_world *world)
{
  follow(world, "trimmed-mean");
}

/* Proofs, signed updates, allowances that are never used up. */
static void with_keys(sv_world *world)
{
  world->options.max_messages = 100000;
  world->options.max_rejects = 100000;
  for (size_t i = 0; i < world->n_clients; i++)
    sv_give_key(&world->clients[i], (uint8_t)(1 + i));
}

static void with_keys_in_a_store(sv_world *world)
{
  with_keys(world);
  with_a_store(world);
}

/* They are in the store, and read from there. */
static void trim_with_a_store(sv_world *world)
{
  trim(world);
  with_a_store(world);
}

static fl_status try_start(sv_world *world)
{
  const fl_status st =
      fl_server_new(&world->server, world->context, &world->options);
  if (st != FL_OK) return st;
  return fl_server_add_job(world->server, world->model, &world->job_options,
                           NULL);
}

/* Connect again whoever was cut off. */
static void mend(sv_world *world)
{
  for (size_t i = 0; i < world->n_clients; i++) {
    sv_client *client = &world->clients[i];
    sv_clear(client);
    sv_lose(client);
    sv_return(client);
  }
}

static void serve(sv_world *world, oom_heap *heap)
{
  sv_join(world);
  sv_tick(world, SV_SECOND_NS);
  sv_run(world);
  for (int i = 0; i < MEND_ROUNDS && !sv_status(world).is_finished; i++) {
    if (i == 2) heap->fail_at = 0; /* there is memory again */
    mend(world);
    sv_tick(world, 6 * SV_SECOND_NS);
    sv_run(world);
  }
  CHECK_EQ_U64(sv_status(world).is_finished, 1);
  CHECK_EQ_U64(sv_status(world).model_version, 2);
  heap->fail_at = 0;
  sv_tick(world, 2 * SV_SECOND_NS); /* a commit that failed is tried again */
  mend(world);
  sv_run(world);
  for (size_t i = 0; i < world->n_clients; i++) {
    CHECK(sv_agrees(&world->clients[i]));
    CHECK(world->clients[i].is_done);
  }
}

/* 0 once the failure is not met any more. */
static int run(uint32_t codec, uint32_t scale_mode,
               void (*prepare)(sv_world *world), uint64_t fail_at,
               int is_sticky)
{
  oom_heap heap = {.is_sticky = is_sticky};
  fl_context *context = NULL;
  uint64_t bytes = 1;
  sv_world *world = malloc(sizeof *world);
  CHECK(world != NULL);
  CHECK_OK(oom_context(&context, &heap));
  if (!world || !context) return 0;
  configure(world, context, codec, scale_mode);
  if (prepare) prepare(world);
  heap.fail_at = heap.asked + fail_at;
  const fl_status st = try_start(world);
  if (st == FL_OK) {
    serve(world, &heap);
  } else {
    CHECK_STATUS(st, FL_E_NOMEM);
  }
  sv_free(world);
  free(world);
  CHECK_OK(fl_context_get_memory(context, &bytes, NULL));
  CHECK_EQ_U64(bytes, 0);
  fl_context_free(context);
  CHECK_EQ_U64(heap.live_blocks, 0);
  return heap.was_hit;
}

static void run_all(uint32_t codec, uint32_t scale_mode,
                    void (*prepare)(sv_world *world))
{
  for (int is_sticky = 0; is_sticky < 2; is_sticky++) {
    uint64_t fail_at = 1;
    while (run(codec, scale_mode, prepare, fail_at, is_sticky)) {
      fail_at++;
      CHECK(fail_at < OOM_RUNS_MAX);
      if (fail_at >= OOM_RUNS_MAX) break;
    }
    CHECK(fail_at > 100);
  }
}

static void training_survives_with_f32(void)
{
  run_all(FL_CODEC_F32, FL_SCALE_EXCHANGED, NULL);
}

static void training_survives_with_thc_momentum(void)
{
  run_all(FL_CODEC_THC, FL_SCALE_EXCHANGED, NULL);
}

static void training_survives_with_a_public_scale(void)
{
  run_all(FL_CODEC_THC, FL_SCALE_PUBLIC, NULL);
}

static void training_survives_with_a_frozen_module(void)
{
  run_all(FL_CODEC_F32, FL_SCALE_EXCHANGED, freeze);
}

static void training_survives_with_reports(void)
{
  run_all(FL_CODEC_THC, FL_SCALE_PUBLIC, report);
}

static void training_survives_with_a_store(void)
{
  run_all(FL_CODEC_THC, FL_SCALE_EXCHANGED, with_a_store);
  fl_store_free(kept);
  kept = NULL;
}

static void training_survives_with_keys_in_a_store(void)
{
  run_all(FL_CODEC_F32, FL_SCALE_EXCHANGED, with_keys_in_a_store);
  fl_store_free(kept);
  kept = NULL;
}

static fl_status recover(fl_context *context, void *arg)
{
  fl_server_options options;
  fl_server *server = NULL;
  fl_status st = fl_server_options_init(&options, sizeof options);
  options.store = arg;
  if (st == FL_OK) st = fl_server_recover(&server, context, &options);
  fl_server_free(server);
  return st;
}

static void recovering_reports_it(void)
{
  sv_world world;
  const void *key = NULL;
  size_t n = 0;
  configure(&world, NULL, FL_CODEC_THC, FL_SCALE_EXCHANGED);
  with_a_store(&world);
  CHECK_OK(try_start(&world));
  sv_join(&world);
  sv_report(&world, 3);
  sv_pull(&world.clients[0]);
  sv_update(&world.clients[0]);
  sv_pull(&world.clients[0]);
  CHECK_EQ_U64(world.clients[0].got[FLI_MSG_ACK], 1);
  /* A key that has come since is a record beside the state. */
  sv_client *late = sv_add(&world, "late", 1);
  sv_give_key(late, 9);
  sv_hello(late);
  sv_pull(late);
  CHECK_EQ_U64(late->got[FLI_MSG_WELCOME], 1);
  CHECK_OK(fl_store_next(kept, "server/bound/", 13, &key, &n));
  CHECK(memcmp(key, "server/bound/", 13) == 0);
  sv_free(&world);
  oom_loop(recover, kept);
  fl_store_free(kept);
  kept = NULL;
}

static void training_survives_with_a_strategy_of_sums(void)
{
  run_all(FL_CODEC_THC, FL_SCALE_EXCHANGED, adapt);
}

static void training_survives_with_a_selection(void)
{
  run_all(FL_CODEC_F32, FL_SCALE_EXCHANGED, by_choice);
  run_all(FL_CODEC_F32, FL_SCALE_EXCHANGED, by_oort);
}

static void training_survives_with_a_buffer(void)
{
  run_all(FL_CODEC_THC, FL_SCALE_PUBLIC, buffer);
}

static void training_survives_with_one_of_separate_updates(void)
{
  run_all(FL_CODEC_F32, FL_SCALE_EXCHANGED, trim);
  run_all(FL_CODEC_THC, FL_SCALE_EXCHANGED, trim);
  run_all(FL_CODEC_F32, FL_SCALE_EXCHANGED, with_controls);
}

static void training_survives_with_keys(void)
{
  run_all(FL_CODEC_F32, FL_SCALE_EXCHANGED, with_keys);
}

/* An event that there is no memory for is lost, and nothing else. */
static fl_status take_ban(fl_server *server)
{
  fl_server_event event;
  fl_status st = fl_server_event_init(&event, sizeof event);
  if (st == FL_OK) st = fl_server_poll(server, &event);
  if (st == FL_OK && event.kind == FL_SERVER_CLIENT_BANNED) return FL_OK;
  return fli_error(FL_E_NOMEM, "the event is lost");
}

/* A key or a ban that there is no memory for is not half there. */
static fl_status list_and_ban(fl_context *context, void *arg)
{
  fl_server *server = NULL;
  fl_status st = fl_server_new(&server, context, arg);
  for (uint8_t i = 0; st == FL_OK && i < 40; i++) {
    const uint8_t key[FL_PUBLIC_KEY_BYTES] = {i};
    const char id[2] = {(char)('0' + i), '\0'};
    st = fl_server_allow(server, key, i % 2 ? id : NULL);
    CHECK_EQ_U64(fl_server_allow_count(server), i + (st == FL_OK));
    if (st != FL_OK) break;
    st = fl_server_ban(server, id, 5);
    CHECK_EQ_U64(fl_server_ban_left(server, id), st == FL_OK ? 5 : 0);
    st = st == FL_OK ? take_ban(server) : fli_error(st, "not banned");
  }
  fl_server_free(server);
  return st;
}

static void lists_and_bans_report_it(void)
{
  oom_loop(list_and_ban, NULL);
}

static void training_survives_with_updates_in_a_store(void)
{
  run_all(FL_CODEC_F32, FL_SCALE_EXCHANGED, trim_with_a_store);
  run_all(FL_CODEC_THC, FL_SCALE_EXCHANGED, trim_with_a_store);
  fl_store_free(kept);
  kept = NULL;
}

/* arg: a snapshot. */
static fl_status restore_and_save(fl_context *context, void *arg)
{
  fl_server *server = NULL;
  fl_buffer *buffer = NULL;
  fl_reader reader;
  fl_writer writer;
  fl_status st = fl_buffer_as_reader(arg, &reader);
  if (st == FL_OK) st = fl_buffer_new(&buffer, NULL);
  if (st == FL_OK) st = fl_buffer_as_writer(buffer, &writer);
  if (st == FL_OK) st = fl_server_restore(&server, context, NULL, &reader);
  if (st == FL_OK) st = fl_server_save(server, &writer);
  fl_server_free(server);
  fl_buffer_free(buffer);
  return st;
}

static void restore_with(void (*prepare)(sv_world *world))
{
  fl_buffer *snapshot = NULL;
  fl_writer writer;
  sv_world world;
  configure(&world, NULL, FL_CODEC_THC, FL_SCALE_EXCHANGED);
  prepare(&world);
  CHECK_OK(try_start(&world));
  CHECK_OK(fl_server_ban(world.server, "eve", 5));
  CHECK_OK(fl_server_allow(world.server, world.clients[0].public_key, NULL));
  sv_join(&world);
  sv_report(&world, 3);
  sv_pull(&world.clients[0]);
  sv_update(&world.clients[0]);
  CHECK_OK(fl_buffer_new(&snapshot, NULL));
  CHECK_OK(fl_buffer_as_writer(snapshot, &writer));
  CHECK_OK(fl_server_save(world.server, &writer));
  sv_free(&world);
  oom_loop(restore_and_save, snapshot);
  fl_buffer_free(snapshot);
}

static void restoring_and_saving_report_it(void)
{
  restore_with(freeze);
  restore_with(adapt);
  restore_with(trim);
  restore_with(with_keys);
  restore_with(with_controls);
  restore_with(by_oort_of_all);
}

int main(void)
{
  CHECK_CASE(training_survives_with_f32);
  CHECK_CASE(training_survives_with_thc_momentum);
  CHECK_CASE(training_survives_with_a_public_scale);
  CHECK_CASE(training_survives_with_a_frozen_module);
  CHECK_CASE(training_survives_with_reports);
  CHECK_CASE(training_survives_with_a_store);
  CHECK_CASE(training_survives_with_keys_in_a_store);
  CHECK_CASE(recovering_reports_it);
  CHECK_CASE(training_survives_with_a_strategy_of_sums);
  CHECK_CASE(training_survives_with_one_of_separate_updates);
  CHECK_CASE(training_survives_with_keys);
  CHECK_CASE(lists_and_bans_report_it);
  CHECK_CASE(training_survives_with_updates_in_a_store);
  CHECK_CASE(training_survives_with_a_selection);
  CHECK_CASE(training_survives_with_a_buffer);
  CHECK_CASE(restoring_and_saving_report_it);
  return check_report();
}
