/* SPDX-License-Identifier: Apache-2.0 */
/* Kills, one at a time, at every transition of a job: after each event, each
 * message out and each message in a client is saved, freed and restored, or
 * comes back from what it had saved one transition before; after each of them
 * the server is, from its store. Clocks jump back. The model that all of them
 * end with is the one of an undisturbed run. Then a third of ten clients
 * vanishes for good, in every phase, and the job ends without them.
 *
 * A client's state has a size that can be said beforehand (client.md). */
#define MU_PEOPLE 10
#include "net/mu_world.h"

#include "net/client_view.h"

enum { N_JOBS = 10, FEW = 3, VANISHING = 3, MOST_STEPS = 20000 };

static const mu_job jobs[N_JOBS] = {
    {.name = "plain", .codec = FL_CODEC_F32, .n = 300},
    {.name = "evaluated", .codec = FL_CODEC_THC, .n = 300, .evaluate_every = 1},
    {.name = "public scale",
     .codec = FL_CODEC_THC,
     .scale_mode = FL_SCALE_PUBLIC,
     .n = 300,
     .momentum = .5f},
    {.name = "chunked", .codec = FL_CODEC_BF16, .n = 4000},
    {.name = "error feedback",
     .codec = FL_CODEC_THC,
     .thc_mode = FL_THC_UNIFORM,
     .n = 300,
     .has_feedback = 1},
    {.name = "table", .codec = FL_CODEC_THC, .thc_mode = FL_THC_TABLE, .n = 40},
    {.name = "freezing", .codec = FL_CODEC_THC, .n = 300, .freezes = 1},
    {.name = "separate updates",
     .codec = FL_CODEC_THC,
     .n = 300,
     .rule = FL_RULE_MEDIAN},
    {.name = "cohorts",
     .codec = FL_CODEC_THC,
     .n = 300,
     .cohorts = FL_COHORT_SKETCH},
    {.name = "cohorts apart",
     .codec = FL_CODEC_THC,
     .n = 300,
     .cohorts = FL_COHORT_SKETCH,
     .pace = FL_COHORT_APART},
};

typedef enum what {
  NOTHING,
  CLIENT,        /* the one that made the step */
  CLIENT_BEFORE, /* it comes back as it was before the step */
  SERVER,
  CLOCKS /* at every step */
} what;

typedef struct plan {
  what kind;
  size_t at;
} plan;

static uint64_t n_kills, largest_state;

/* ---- states of clients ----------------------------------------------------
 */

static fl_status write_bytes(void *user, const void *data, size_t n)
{
  return fli_bytes_append(user, data, n);
}

typedef struct source {
  const uint8_t *data;
  size_t left;
} source;

static fl_status read_bytes(void *user, void *buf, size_t n, size_t *got)
{
  source *from = user;
  *got = n < from->left ? n : from->left;
  if (*got > 0) memcpy(buf, from->data, *got);
  from->data += *got;
  from->left -= *got;
  return FL_OK;
}

static void save(mu_person *p, fli_bytes *state)
{
  const fl_writer writer = {.write = write_bytes, .user = state};
  state->size = 0;
  MU_MUST(fl_client_save(p->client, &writer));
  CHECK(state->size <= client_view_most_bytes(p->client));
  if (state->size > largest_state) largest_state = state->size;
}

static void kill_client(mu_person *p, const fli_bytes *state)
{
  mu_world *world = p->world;
  fl_client_options options;
  source from = {state->data, state->size};
  const fl_reader reader = {.read = read_bytes, .user = &from};
  fl_client_free(p->client);
  p->client = NULL;
  mu_person_options(p, &options);
  MU_MUST(fl_client_restore(&p->client, NULL, &options, &reader));
  MU_MUST(fl_server_disconnected(world->server, p->peer));
  p->peer = world->next_peer++;
  n_kills++;
}

/* ---- the server -----------------------------------------------------------
 */

/* Everybody is on a new connection; what was not committed is lost. */
static void kill_server(mu_world *world)
{
  fl_server_options options;
  mu_events(world);
  fl_server_free(world->server);
  world->server = NULL;
  MU_MUST(fl_store_rollback(world->store));
  mu_server_options(world, &options);
  const fl_status st =
      fl_server_recover(&world->server, world->context, &options);
  if (st == FL_E_NOT_FOUND)
    mu_start(world);
  else
    MU_MUST(st);
  MU_MUST(fl_server_tick(world->server, world->now));
  for (uint32_t i = 0; i < world->n_people; i++) {
    mu_person *p = &world->people[i];
    if (!p->is_on) continue;
    MU_MUST(fl_client_disconnected(p->client));
    p->peer = world->next_peer++;
  }
  n_kills++;
}

/* ---- steps ----------------------------------------------------------------
 */

static int is_told(const mu_world *world)
{
  if (world->server->jobs[0]->phase != FLI_PHASE_FINISHED) return 0;
  for (uint32_t i = 0; i < world->n_people; i++)
    if (world->people[i].is_on && !client_view_is_done(world->people[i].client))
      return 0;
  return 1;
}

/* One event, one message out, or one in; 1 = there was one. */
static int step(mu_person *p, size_t n)
{
  mu_world *world = p->world;
  const uint8_t *data = NULL;
  size_t size = 0;
  fl_client_event event;
  switch (n % 3) {
  case 0:
    MU_MUST(fl_client_event_init(&event, sizeof event));
    MU_MUST(fl_client_poll(p->client, world->now, &event));
    CHECK(event.kind != FL_CLIENT_ABORTED);
    return event.kind != FL_CLIENT_IDLE;
  case 1:
    MU_MUST(fl_client_send(p->client, &data, &size));
    if (size > 0) MU_MUST(fl_server_recv(world->server, p->peer, data, size));
    break;
  default:
    MU_MUST(fl_server_send(world->server, p->peer, &data, &size));
    if (size > 0) MU_MUST(fl_client_recv(p->client, data, size));
  }
  return size > 0;
}

/* An hour back, and an hour and a bit forth: nothing may come of it. */
static void jump(mu_world *world, mu_person *p)
{
  fl_client_event event;
  const uint64_t back =
      world->now > 3600 * MU_SECOND ? world->now - 3600 * MU_SECOND : 0;
  MU_MUST(fl_server_tick(world->server, back));
  CHECK_EQ_U64(world->server->now_ns, world->now);
  if (client_view_wants_poll(p->client)) return; /* it would be done here */
  MU_MUST(fl_client_event_init(&event, sizeof event));
  MU_MUST(fl_client_poll(p->client, back, &event));
}

static size_t run(mu_world *world, plan how)
{
  fli_bytes before;
  size_t n = 0, done = 0;
  fli_bytes_init(&before, NULL);
  for (; n < MOST_STEPS && !is_told(world); n++) {
    mu_person *p = &world->people[n / 3 % world->n_people];
    const int is_it = done == how.at;
    if (is_it && how.kind == CLIENT_BEFORE) save(p, &before);
    if (how.kind == CLOCKS) jump(world, p);
    if (!step(p, n)) continue;
    done++;
    if (!is_it) continue;
    if (how.kind == CLIENT) save(p, &before);
    if (how.kind == CLIENT || how.kind == CLIENT_BEFORE)
      kill_client(p, &before);
    if (how.kind == SERVER) kill_server(world);
  }
  CHECK(is_told(world));
  mu_events(world);
  CHECK_EQ_U64(world->aborted, 0);
  fli_bytes_free(&before);
  return done;
}

static void check_models(const mu_world *world)
{
  float *held = malloc((size_t)world->n_weights * sizeof *held);
  float *want = malloc((size_t)world->n_weights * sizeof *want);
  uint64_t version = 0, held_version = 0;
  MU_MUST(fl_server_copy_weights(world->server, 0, want, world->n_weights,
                                 &version));
  for (uint32_t i = 0; i < world->n_people; i++) {
    const mu_person *p = &world->people[i];
    if (!p->is_on) continue;
    MU_MUST(fl_client_copy_weights(p->client, held, world->n_weights,
                                   &held_version));
    CHECK_EQ_U64(held_version, version);
    CHECK_EQ_MEM(held, want, (size_t)world->n_weights * sizeof *held);
  }
  free(held);
  free(want);
}

static mu_world *begin(const mu_job *how, uint32_t n, fl_store *store)
{
  mu_world *world = malloc(sizeof *world);
  mu_init(world, how);
  world->n_people = n;
  world->store = store;
  mu_start(world);
  for (uint32_t i = 0; i < n; i++) {
    mu_start_person(&world->people[i]);
    world->people[i].peer = world->next_peer++;
    world->people[i].is_on = 1;
  }
  world->now = 7200 * MU_SECOND;
  MU_MUST(fl_server_tick(world->server, world->now));
  return world;
}

static size_t run_once(const mu_job *how, plan p, uint8_t *hash)
{
  fl_store *store = NULL;
  mu_job job = *how;
  job.rounds = 2;
  MU_MUST(fl_store_memory_new(&store, NULL));
  mu_world *world = begin(&job, FEW, store);
  const size_t done = run(world, p);
  check_models(world);
  mu_hash(world, hash);
  mu_end(world);
  free(world);
  fl_store_free(store);
  if (check_totals.failures)
    fprintf(stderr, "  job \"%s\", kind %d, transition %zu\n", how->name,
            (int)p.kind, p.at);
  return done;
}

static void kill_everywhere(what kind)
{
  for (size_t i = 0; i < N_JOBS && check_totals.failures == 0; i++) {
    uint8_t want[FLI_HASH_BYTES], got[FLI_HASH_BYTES];
    const size_t n = run_once(&jobs[i], (plan){NOTHING, 0}, want);
    CHECK(n > 40);
    for (size_t at = 0; at < n && check_totals.failures == 0; at++) {
      (void)run_once(&jobs[i], (plan){kind, at}, got);
      CHECK_EQ_MEM(got, want, sizeof want);
      if (kind == CLOCKS) break;
    }
  }
}

static void clients_killed_after_any_transition_end_with_the_same_model(void)
{
  kill_everywhere(CLIENT);
}

static void clients_that_saved_before_it_end_with_the_same_model(void)
{
  kill_everywhere(CLIENT_BEFORE);
}

static void servers_killed_after_any_transition_end_with_the_same_model(void)
{
  kill_everywhere(SERVER);
}

static void clocks_that_jump_back_change_nothing(void)
{
  kill_everywhere(CLOCKS);
}

/* ---- vanishing ------------------------------------------------------------
 */

/* Three of ten go for good at transition `at`. */
static size_t vanish(const mu_job *how, size_t at, size_t *done)
{
  mu_job job = *how;
  job.rounds = 2;
  job.least = MU_PEOPLE - VANISHING;
  mu_world *world = begin(&job, MU_PEOPLE, NULL);
  size_t n = 0, idle = 0;
  int is_gone = 0;
  for (*done = 0; n < MOST_STEPS && !is_told(world); n++) {
    mu_person *p = &world->people[n / 3 % MU_PEOPLE];
    if (*done == at && !is_gone) {
      for (uint32_t i = 0; i < VANISHING; i++)
        mu_leave(&world->people[3 * i + 1]);
      is_gone = 1;
    }
    idle = p->is_on && step(p, n) ? 0 : idle + 1;
    *done += idle == 0;
    if (idle < 6 * MU_PEOPLE) continue;
    world->now += MU_SECOND;
    MU_MUST(fl_server_tick(world->server, world->now));
    idle = 0;
  }
  CHECK(is_told(world));
  mu_events(world);
  if (is_told(world)) check_models(world);
  CHECK_EQ_U64(world->twice, 0);
  const size_t version =
      (size_t)world->server->jobs[0]->store.canonical.version;
  mu_end(world);
  free(world);
  return version;
}

static void jobs_end_without_a_third_that_vanishes_in_any_phase(void)
{
  for (size_t i = 0; i < N_JOBS && check_totals.failures == 0; i++) {
    size_t n = 0, done = 0;
    (void)vanish(&jobs[i], SIZE_MAX, &n);
    for (size_t at = 0; at < n && check_totals.failures == 0; at += 7) {
      const size_t version = vanish(&jobs[i], at, &done);
      CHECK(version == 2 || jobs[i].cohorts);
      if (check_totals.failures)
        fprintf(stderr, "  job \"%s\", transition %zu\n", jobs[i].name, at);
    }
  }
}

int main(void)
{
  CHECK_CASE(clients_killed_after_any_transition_end_with_the_same_model);
  CHECK_CASE(clients_that_saved_before_it_end_with_the_same_model);
  CHECK_CASE(servers_killed_after_any_transition_end_with_the_same_model);
  CHECK_CASE(clocks_that_jump_back_change_nothing);
  CHECK_CASE(jobs_end_without_a_third_that_vanishes_in_any_phase);
  printf("%" PRIu64 " kills; the largest state of a client has %" PRIu64
         " bytes\n",
         n_kills, largest_state);
  return check_report();
}
