/* SPDX-License-Identifier: Apache-2.0 */
/* Real servers and clients whose jobs have an embedding beside the dense
 * model. */
#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

#include <fl/client.h>
#include <fl/server.h>
#include "slices_fixture.h"

/* Of frames: docs/design/protocol.md. */
enum { HEADER = 8, MANIFEST = 32, CHUNK = 33 };
enum { CLIENTS = 3, IDS = 60, WEIGHTS = 20, ROUNDS = 4 };

typedef struct person {
  slice_device device;
  fl_client *client;
  fl_client_options options;
  uint64_t peer;
  uint32_t trainings;
  uint32_t last;   /* event */
  uint32_t reason; /* of ABORTED */
  char id[8];
  size_t tamper_at; /* of its next upload's sparse part; 0: honest */
  int is_gone;
} person;

typedef struct world {
  slice_server server;
  fl_server *fl;
  fl_model *model;
  person people[CLIENTS];
  uint64_t now;
  uint32_t rejected; /* reason of the last PEER_REJECTED */
  uint32_t finished; /* rounds */
  uint32_t aborted;
  uint32_t dropped; /* sums of rows */
  uint32_t n_accepted;
} world;

static void make_model(fl_model **out)
{
  const uint64_t shape[1] = {WEIGHTS};
  fl_model_builder *builder = NULL;
  cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
  cr_assert_eq(fl_model_builder_tensor(builder, "a", shape, 1, 1), FL_OK);
  cr_assert_eq(fl_model_builder_build(builder, out), FL_OK);
  fl_model_builder_free(builder);
}

/* What a person trains depends on round and person alone. */
static fl_status train(const fl_train_task *task, fl_train_result *result,
                       void *user)
{
  static float update[WEIGHTS];
  person *p = user;
  uint64_t ids[IDS];
  const uint64_t who = (uint64_t)(p->id[1] - '0');
  p->trainings++;
  for (uint64_t i = 0; i < IDS; i++)
    ids[i] = i * (who + 1);
  if (p->device.slices) {
    slice_train(&p->device, 0, ids, IDS, who ? 1.0f : -0.5f);
    slice_train(&p->device, 1, ids, IDS / 2, (float)task->round);
  }
  for (int i = 0; i < WEIGHTS; i++)
    update[i] = 0.01f * (float)(who + task->round);
  result->update = update;
  result->n = WEIGHTS;
  result->samples = 10;
  return FL_OK;
}

static void set_ids(person *p)
{
  uint64_t ids[IDS];
  const uint64_t who = (uint64_t)(p->id[1] - '0');
  for (uint64_t i = 0; i < IDS; i++)
    ids[i] = i * (who + 1);
  for (uint32_t t = 0; t < SLICE_TABLES; t++)
    cr_assert_eq(fl_slice_client_set_ids(p->device.slices, t, ids, IDS), FL_OK);
}

static void add_job(world *w)
{
  fl_job_options options;
  uint32_t job;
  cr_assert_eq(fl_job_options_init(&options, sizeof options), FL_OK);
  options.rounds = ROUNDS;
  options.min_clients = CLIENTS;
  options.min_participants = CLIENTS;
  options.seed = 3;
  options.retry_pause_ns = 1;
  cr_assert_eq(fl_server_add_job(w->fl, w->model, &options, &job), FL_OK);
  cr_assert_eq(fl_server_attach_slices(w->fl, job, w->server.slices), FL_OK);
}

static void begin(world *w, int n_with_slices)
{
  memset(w, 0, sizeof *w);
  const fl_slice_server_options options = slice_server_options();
  w->server = slice_server_of(24 * 1024, &options);
  make_model(&w->model);
  cr_assert_eq(fl_server_new(&w->fl, NULL, NULL), FL_OK);
  add_job(w);
  for (int i = 0; i < CLIENTS; i++) {
    person *p = &w->people[i];
    p->id[0] = 'c';
    p->id[1] = (char)('0' + i);
    p->peer = (uint64_t)i + 1;
    cr_assert_eq(fl_client_options_init(&p->options, sizeof p->options), FL_OK);
    p->options.client_id = p->id;
    p->options.model = w->model;
    p->options.train = train;
    p->options.user = p;
    cr_assert_eq(fl_client_new(&p->client, NULL, &p->options), FL_OK);
    if (i >= n_with_slices) continue;
    p->device = slice_device_of(0, NULL);
    set_ids(p);
    cr_assert_eq(fl_client_attach_slices(p->client, p->device.slices), FL_OK);
  }
}

static void end(world *w)
{
  for (int i = 0; i < CLIENTS; i++) {
    person *p = &w->people[i];
    fl_client_free(p->client);
    if (p->device.slices) slice_device_free(&p->device);
  }
  fl_server_free(w->fl);
  fl_model_free(w->model);
  slice_server_free(&w->server);
}

/* Change a byte of the sparse part of the upload that begins in these bytes. */
static void tamper(person *p, uint8_t *bytes, size_t n)
{
  if (p->tamper_at == 0) return;
  for (size_t at = 0; at + HEADER < n;) {
    const size_t body = fli_load_u32(bytes + at);
    if (bytes[at + 5] == MANIFEST) p->tamper_at |= 1u << 16;
    if (bytes[at + 5] == CHUNK && p->tamper_at >> 16) {
      /* From the end. */
      bytes[at + HEADER + body - (p->tamper_at & 0xffff)] ^= 0xff;
      p->tamper_at = 0;
      return;
    }
    at += HEADER + body;
  }
}

static int exchange(world *w, person *p)
{
  const uint8_t *data;
  size_t n = 0;
  int any = 0;
  fl_client_event event = {.struct_size = sizeof event};
  if (p->is_gone) return 0;
  cr_assert_eq(fl_client_send(p->client, &data, &n), FL_OK, "%s",
               fl_last_error());
  if (n > 0) {
    static uint8_t copy[1 << 20];
    memcpy(copy, data, n);
    tamper(p, copy, n);
    cr_assert_eq(fl_server_recv(w->fl, p->peer, copy, n), FL_OK);
    any = 1;
  }
  cr_assert_eq(fl_server_send(w->fl, p->peer, &data, &n), FL_OK);
  if (n > 0) {
    cr_assert_eq(fl_client_recv(p->client, data, n), FL_OK, "%s",
                 fl_last_error());
    any = 1;
  }
  cr_assert_eq(fl_client_poll(p->client, w->now, &event), FL_OK, "%s",
               fl_last_error());
  if (event.kind != FL_CLIENT_IDLE) p->last = event.kind;
  if (event.kind == FL_CLIENT_ABORTED) p->reason = event.reason;
  return any || event.kind != FL_CLIENT_IDLE;
}

static void take_events(world *w)
{
  fl_server_event event = {.struct_size = sizeof event};
  while (fl_server_poll(w->fl, &event) == FL_OK) {
    if (event.kind == FL_SERVER_PEER_REJECTED) w->rejected = event.reason;
    w->aborted += event.kind == FL_SERVER_ROUND_ABORTED;
    w->finished += event.kind == FL_SERVER_ROUND_FINISHED;
    w->n_accepted += event.kind == FL_SERVER_UPDATE_ACCEPTED;
    w->dropped += event.kind == FL_SERVER_SLICES_DROPPED;
  }
}

/* Everybody in turn, until it is over; 0 when nothing has moved. */
static int turn(world *w, int (*is_over)(const world *w))
{
  int any = 0;
  for (int i = 0; i < CLIENTS && !is_over(w); i++) {
    any |= exchange(w, &w->people[i]);
    take_events(w);
  }
  return any;
}

static void run(world *w, int (*is_over)(const world *w))
{
  for (int i = 0; i < 100000; i++) {
    if (is_over(w)) return;
    if (turn(w, is_over)) continue;
    w->now += 1000000000;
    cr_assert_eq(fl_server_tick(w->fl, w->now), FL_OK);
  }
  cr_assert_fail("it does not end");
}

static int all_are_done(const world *w)
{
  int n = 0;
  for (int i = 0; i < CLIENTS; i++)
    n += w->people[i].is_gone || w->people[i].last == FL_CLIENT_DONE ||
         w->people[i].last == FL_CLIENT_ABORTED;
  return n == CLIENTS;
}

static int one_is_counted(const world *w)
{
  return w->n_accepted >= 2 * CLIENTS + 1;
}

static uint64_t version_of(fl_embedding *e)
{
  fl_buffer *buffer = slice_buffer();
  fl_writer writer;
  (void)fl_buffer_as_writer(buffer, &writer);
  cr_assert_eq(fl_embedding_save(e, &writer), FL_OK);
  fl_buffer_free(buffer);
  return fl_embedding_version(e);
}

static uint64_t undisturbed(void)
{
  world w;
  begin(&w, CLIENTS);
  run(&w, all_are_done);
  const uint64_t version = version_of(w.server.embedding);
  end(&w);
  return version;
}

Test(slices_job, rows_come_before_training_and_go_with_the_update)
{
  world w;
  begin(&w, CLIENTS);
  run(&w, all_are_done);
  cr_assert_eq(w.finished, ROUNDS);
  cr_assert_eq(fl_slice_server_layout(w.server.slices), ROUNDS);
  fl_slice_report report;
  cr_assert_eq(fl_slice_report_init(&report, sizeof report), FL_OK);
  cr_assert_eq(fl_slice_server_get_report(w.server.slices, &report), FL_OK);
  cr_assert_eq(report.clients, CLIENTS);
  cr_assert_gt(report.ids, IDS);
  cr_assert_gt(fl_embedding_row_count(w.server.embedding, 0), IDS / 2);
  for (int i = 0; i < CLIENTS; i++) {
    cr_assert_eq(w.people[i].trainings, ROUNDS);
    cr_assert_gt(slice_status(&w.people[i].device).rows, 0);
  }
  /* Person 0 alone has pulled up what it has alone. */
  float values[SLICE_DIM];
  cr_assert_eq(fl_embedding_copy_row(w.server.embedding, 0, 1, values, NULL),
               FL_OK);
  cr_assert_gt(values[0], 0.02f);
  end(&w);
}

Test(slices_job, clients_without_slices_train_the_dense_model_alone)
{
  world w;
  begin(&w, 1);
  run(&w, all_are_done);
  cr_assert_eq(w.finished, ROUNDS);
  fl_slice_report report;
  (void)fl_slice_report_init(&report, sizeof report);
  cr_assert_eq(fl_slice_server_get_report(w.server.slices, &report), FL_OK);
  cr_assert_eq(report.clients, 1);
  cr_assert_eq(report.ids, IDS + IDS / 2);
  end(&w);
}

Test(slices_job, a_server_that_dies_in_a_round_goes_on_the_same)
{
  world w;
  fl_buffer *state = slice_buffer(), *store = slice_buffer();
  fl_writer writer;
  fl_reader reader;
  const uint64_t want = undisturbed();
  begin(&w, CLIENTS);
  run(&w, one_is_counted);
  (void)fl_buffer_as_writer(state, &writer);
  cr_assert_eq(fl_server_save(w.fl, &writer), FL_OK);
  (void)fl_buffer_as_writer(store, &writer);
  cr_assert_eq(fl_embedding_save(w.server.embedding, &writer), FL_OK);
  fl_server_free(w.fl);
  slice_server_free(&w.server);
  (void)fl_buffer_as_reader(store, &reader);
  cr_assert_eq(fl_embedding_load(&w.server.embedding, NULL, &reader, 0), FL_OK);
  const fl_slice_server_options options = slice_server_options();
  cr_assert_eq(
      fl_slice_server_new(&w.server.slices, NULL, w.server.embedding, &options),
      FL_OK);
  (void)fl_buffer_as_reader(state, &reader);
  cr_assert_eq(fl_server_restore(&w.fl, NULL, NULL, &reader), FL_OK);
  cr_assert_eq(fl_server_attach_slices(w.fl, 0, w.server.slices), FL_OK, "%s",
               fl_last_error());
  for (int i = 0; i < CLIENTS; i++)
    cr_assert_eq(fl_client_disconnected(w.people[i].client), FL_OK);
  run(&w, all_are_done);
  cr_assert_eq(version_of(w.server.embedding), want);
  for (int i = 0; i < CLIENTS; i++)
    cr_assert_eq(w.people[i].trainings, ROUNDS);
  fl_buffer_free(state);
  fl_buffer_free(store);
  end(&w);
}

/* Nobody attaches the store again: the round ends without it, and the next one
 * says what that has cost. */
Test(slices_job, sums_that_nobody_comes_for_are_lost_with_a_word)
{
  world w;
  fl_buffer *state = slice_buffer();
  fl_writer writer;
  fl_reader reader;
  begin(&w, CLIENTS);
  run(&w, one_is_counted);
  (void)fl_buffer_as_writer(state, &writer);
  cr_assert_eq(fl_server_save(w.fl, &writer), FL_OK);
  fl_server_free(w.fl);
  (void)fl_buffer_as_reader(state, &reader);
  cr_assert_eq(fl_server_restore(&w.fl, NULL, NULL, &reader), FL_OK);
  for (int i = 0; i < CLIENTS; i++)
    cr_assert_eq(fl_client_disconnected(w.people[i].client), FL_OK);
  run(&w, all_are_done);
  cr_expect_eq(w.dropped, 1u);
  fl_buffer_free(state);
  end(&w);
}

/* Requests that the server would not read, plans that it could not send. */
Test(slices_job, slices_whose_messages_would_be_too_long_are_refused)
{
  world w;
  fl_server *small = NULL;
  fl_server_options options;
  fl_job_options job;
  begin(&w, CLIENTS);
  slice_server other = slice_server_of(0, NULL);
  cr_assert_eq(fl_server_options_init(&options, sizeof options), FL_OK);
  options.max_control_size = 8192;
  cr_assert_eq(fl_server_new(&small, NULL, &options), FL_OK);
  cr_assert_eq(fl_job_options_init(&job, sizeof job), FL_OK);
  cr_assert_eq(fl_server_add_job(small, w.model, &job, NULL), FL_OK);
  cr_expect_eq(fl_server_attach_slices(small, 0, other.slices), FL_E_LIMIT);
  cr_expect(strstr(fl_last_error(), "max_control_size 8192"), "%s",
            fl_last_error());
  fl_server_free(small);
  options.max_control_size = 1 << 20;
  cr_assert_eq(fl_server_new(&small, NULL, &options), FL_OK);
  cr_assert_eq(fl_server_add_job(small, w.model, &job, NULL), FL_OK);
  cr_expect_eq(fl_server_attach_slices(small, 0, other.slices), FL_OK,
               "it is free again");
  fl_server_free(small);
  slice_server_free(&other);
  end(&w);
}

static int somebody_has_trained(const world *w)
{
  return w->finished == 2 && w->people[1].trainings == 3;
}

Test(slices_job, a_client_that_dies_after_training_need_not_train_again)
{
  world w;
  fl_buffer *state = slice_buffer();
  fl_writer writer;
  fl_reader reader;
  const uint64_t want = undisturbed();
  begin(&w, CLIENTS);
  run(&w, somebody_has_trained);
  person *p = &w.people[1];
  (void)fl_buffer_as_writer(state, &writer);
  cr_assert_eq(fl_client_save(p->client, &writer), FL_OK);
  fl_client_free(p->client);
  slice_device_free(&p->device);
  p->device = slice_device_of(0, NULL); /* its cache is gone, too */
  set_ids(p);
  (void)fl_buffer_as_reader(state, &reader);
  cr_assert_eq(fl_client_restore(&p->client, NULL, &p->options, &reader),
               FL_OK);
  cr_assert_eq(fl_client_attach_slices(p->client, p->device.slices), FL_OK);
  cr_assert_eq(fl_server_disconnected(w.fl, p->peer), FL_OK);
  run(&w, all_are_done);
  cr_assert_eq(p->trainings, ROUNDS);
  cr_assert_eq(version_of(w.server.embedding), want);
  fl_buffer_free(state);
  end(&w);
}

static int is_fetching(const world *w)
{
  return w->finished == 1 && w->people[2].device.slices->is_begun;
}

Test(slices_job, a_connection_that_breaks_in_between_does_no_harm)
{
  world w;
  const uint64_t want = undisturbed();
  begin(&w, CLIENTS);
  run(&w, is_fetching);
  cr_assert_eq(fl_client_disconnected(w.people[2].client), FL_OK);
  cr_assert_eq(fl_server_disconnected(w.fl, w.people[2].peer), FL_OK);
  w.people[2].peer = 77;
  run(&w, all_are_done);
  cr_assert_eq(version_of(w.server.embedding), want);
  end(&w);
}

Test(slices_job, a_round_that_is_tried_again_counts_rows_once)
{
  world w;
  const uint64_t want = undisturbed();
  begin(&w, CLIENTS);
  run(&w, one_is_counted);
  /* One is away for longer than the round waits. */
  cr_assert_eq(w.n_accepted, 2 * CLIENTS + 1);
  cr_assert_eq(fl_server_disconnected(w.fl, w.people[2].peer), FL_OK);
  w.people[2].is_gone = 1;
  const fl_embedding *e = w.server.embedding;
  const uint64_t steps = e->step;
  for (int i = 0; i < 40; i++) {
    w.now += 1000000000;
    cr_assert_eq(fl_server_tick(w.fl, w.now), FL_OK);
    turn(&w, all_are_done);
  }
  cr_assert_eq(e->step, steps);
  cr_assert_eq(w.aborted, 1);
  w.people[2].is_gone = 0;
  cr_assert_eq(fl_client_disconnected(w.people[2].client), FL_OK);
  run(&w, all_are_done);
  cr_assert_eq(version_of(w.server.embedding), want);
  for (int i = 0; i < CLIENTS; i++)
    cr_assert_eq(w.people[i].trainings, ROUNDS);
  end(&w);
}

Test(slices_job, a_hostile_sparse_part_counts_for_nothing)
{
  world w;
  begin(&w, CLIENTS);
  /* In transit: the hash is wrong, and it is sent again. */
  w.people[1].tamper_at = 3;
  run(&w, all_are_done);
  cr_assert_eq(w.finished, ROUNDS);
  cr_assert_eq(w.rejected, FL_REJECT_FORMAT);
  const uint64_t version = version_of(w.server.embedding);
  end(&w);
  cr_assert_eq(version, undisturbed());
}

Test(slices_job, a_store_with_other_tables_aborts_the_client)
{
  world w;
  begin(&w, 2);
  person *p = &w.people[2];
  p->device.embedding = embedding_of(NULL, 1, 0);
  (void)table_of(p->device.embedding, 32, 4);
  cr_assert_eq(
      fl_slice_client_new(&p->device.slices, NULL, p->device.embedding, NULL),
      FL_OK);
  cr_assert_eq(fl_client_attach_slices(p->client, p->device.slices), FL_OK);
  for (int i = 0; i < 200 && p->last != FL_CLIENT_ABORTED; i++)
    turn(&w, all_are_done);
  cr_assert_eq(p->last, FL_CLIENT_ABORTED);
  cr_assert_eq(p->reason, FL_REJECT_SCHEMA);
  end(&w);
}

Test(slices_job, a_client_may_give_its_slices_up_in_a_round)
{
  world w;
  begin(&w, CLIENTS);
  run(&w, is_fetching);
  person *p = &w.people[2];
  cr_assert_eq(fl_client_attach_slices(p->client, NULL), FL_OK);
  slice_device_free(&p->device);
  p->device = (slice_device){NULL, NULL};
  run(&w, all_are_done);
  cr_assert_eq(w.finished, ROUNDS);
  fl_slice_report report;
  (void)fl_slice_report_init(&report, sizeof report);
  cr_assert_eq(fl_slice_server_get_report(w.server.slices, &report), FL_OK);
  cr_assert_eq(report.clients, CLIENTS - 1);
  end(&w);
}

Test(slices_job, attaching_says_what_is_wrong)
{
  world w;
  begin(&w, CLIENTS);
  slice_server other = slice_server_of(0, NULL);
  cr_assert_eq(fl_server_attach_slices(w.fl, 0, other.slices), FL_E_STATE);
  cr_assert_eq(fl_server_attach_slices(w.fl, 9, other.slices), FL_E_NOT_FOUND);
  cr_assert_eq(fl_client_attach_slices(NULL, NULL), FL_E_ARGUMENT);
  cr_assert_eq(
      fl_client_attach_slices(w.people[0].client, w.people[1].device.slices),
      FL_E_STATE);
  run(&w, one_is_counted);
  cr_assert_eq(fl_server_attach_slices(w.fl, 0, NULL), FL_E_STATE);
  run(&w, all_are_done);
  cr_assert_eq(fl_server_attach_slices(w.fl, 0, NULL), FL_OK);
  cr_assert_eq(fl_server_attach_slices(w.fl, 0, other.slices), FL_OK);
  cr_assert_eq(fl_server_attach_slices(w.fl, 0, NULL), FL_OK);
  cr_assert_eq(fl_client_attach_slices(w.people[0].client, NULL), FL_OK);
  slice_server_free(&other);
  end(&w);
}
