/* SPDX-License-Identifier: Apache-2.0 */
/* A server and real clients of one job, joined by function calls; what the
 * clients say can be recorded. One of them, the last, can be kept from
 * answering, so that an attempt stays open until its deadline. Two worlds of
 * the same job have the same tokens, plans and scales: a session that was
 * recorded in one is valid in the other. */
#ifndef MU_WORLD_H
#define MU_WORLD_H

#include <fl/client.h>
#include <fl/embedding.h>
#include <fl/server.h>

#include "crypto/keys.h"
#include "net/mutated.h"
#include "server/cohorts.h"

#ifndef MU_PEOPLE
#  define MU_PEOPLE 6
#endif
enum { MU_HOLD = MU_PEOPLE - 1, MU_IDS = 12, MU_REASONS = 64 };
#define MU_STRANGER (UINT64_C(1) << 40) /* peer numbers of strangers */
#define MU_MS UINT64_C(1000000)
#define MU_SECOND (1000 * MU_MS)

typedef struct mu_job {
  const char *name;
  uint32_t codec;
  uint32_t thc_mode; /* 0 = default */
  uint32_t scale_mode;
  uint32_t n; /* values of the first of two tensors */
  uint32_t evaluate_every;
  uint32_t rule; /* FL_RULE_*, 0 = no strategy */
  uint32_t step; /* FL_STEP_* */
  float momentum;
  int has_feedback;
  int freezes;
  int has_slices;
  uint32_t cohorts;   /* FL_COHORT_*, 0 = none */
  uint32_t pace;      /* of them */
  uint32_t rounds;    /* 0 = very many */
  uint32_t least;     /* updates of a round; 0 = of everybody */
  int is_enrolled;    /* keys on a list; allowances and bans of some ms */
  uint32_t selection; /* FL_SELECT_*, 0 = everybody alike */
  uint32_t buffer;    /* updates that make a step; 0 = rounds begin together */
} mu_job;

typedef struct mu_world mu_world;

typedef struct mu_person {
  mu_world *world;
  uint32_t index;
  char id[16];
  fl_client *client;
  uint64_t peer;
  int is_on;
  float *scratch;
  fl_embedding *rows;
  fl_slice_client *slices;
} mu_person;

struct mu_world {
  const mu_job *how;
  fl_context *context;
  fl_server *server;
  fl_model *model;
  uint64_t n_weights;
  fl_embedding *rows;
  fl_slice_server *slices;
  const fl_store *store; /* of the server, set before mu_start */
  mu_person people[MU_PEOPLE];
  uint32_t n_people; /* that take part; the first ones */
  uint64_t now;
  uint64_t next_peer;
  mu_session *tapes; /* one a person, what it says; or NULL */
  mu_session *heard; /* and what it hears */
  fli_bytes *log;    /* all of it in order: see mu_note; or NULL */
  uint64_t reasons[MU_REASONS];
  uint64_t finished; /* rounds */
  uint64_t wanted;   /* of them: see mu_is_finished */
  uint64_t strange;  /* updates of MU_STRANGER and up that were counted */
  uint64_t aborted;  /* rounds */
  uint64_t twice;    /* updates of one who was counted in this round */
  uint32_t counted;  /* bits of those who are */
  uint64_t entropy;
};

#define MU_MUST(call)                                                    \
  do {                                                                   \
    const fl_status must_ = (call);                                      \
    if (must_ != FL_OK) {                                                \
      fprintf(stderr, "%s:%d: %s: %s (%s)\n", __FILE__, __LINE__, #call, \
              fl_status_name(must_), fl_last_error());                   \
      abort();                                                           \
    }                                                                    \
  } while (0)

/* ---- what clients do ----------------------------------------------------- */

static inline void mu_train_rows(mu_person *p)
{
  enum { DIM = 8 };
  static float values[MU_IDS * DIM];
  uint64_t ids[MU_IDS];
  fl_embedding_bags bags;
  MU_MUST(fl_embedding_bags_init(&bags, sizeof bags));
  for (uint64_t i = 0; i < MU_IDS; i++)
    ids[i] = i * (p->index + 1);
  bags.ids = ids;
  bags.n_ids = bags.n_bags = MU_IDS;
  MU_MUST(fl_embedding_forward(p->rows, 0, &bags, values));
  for (size_t i = 0; i < MU_IDS * DIM; i++)
    values[i] = (float)p->index - 2.f;
  MU_MUST(fl_embedding_backward(p->rows, 0, &bags, values, .02f));
}

static inline fl_status mu_train(const fl_train_task *task,
                                 fl_train_result *result, void *user)
{
  mu_person *p = user;
  fli_rng rng;
  fli_rng_init(&rng, task->seed, FLI_RNG_TEST, task->round, p->index);
  for (uint64_t i = 0; i < task->n_weights; i++)
    p->scratch[i] = .9f * task->weights[i] + .1f * (fli_rng_f32(&rng) - .5f);
  if (p->slices) mu_train_rows(p);
  result->weights = p->scratch;
  result->n = task->n_weights;
  result->samples = 5 + p->index;
  result->loss = 1. / (double)task->round;
  result->report_module = task->first_active;
  result->report_value = 1. + p->index;
  return FL_OK;
}

static inline fl_status mu_score(const float *weights, uint64_t n,
                                 fl_score *score, void *user)
{
  const mu_person *p = user;
  double sum = 0.;
  for (uint64_t i = 0; i < n; i++)
    sum += fabs((double)weights[i] - (p->index % 2 ? .5 : -.5));
  score->loss = sum / (double)n;
  score->correct = 3;
  score->count = 4;
  return FL_OK;
}

/* The keys of a person, or of nobody: MU_PEOPLE and up. */
static inline void mu_keys(uint32_t index, uint8_t secret[FLI_SECRET_BYTES],
                           uint8_t public_key[FLI_PUBLIC_BYTES])
{
  uint8_t entropy[FLI_KEY_BYTES];
  memset(entropy, (int)index + 1, sizeof entropy);
  fli_sign_keys(secret, public_key, entropy);
}

/* ---- making -------------------------------------------------------------- */

/* Drawn the same in every world. */
static inline fl_status mu_entropy(void *user, void *buf, size_t n)
{
  uint8_t *to = buf;
  mu_world *world = user;
  for (size_t i = 0; i < n; i++)
    to[i] = (uint8_t)(world->entropy++ * 37u + 11u);
  return FL_OK;
}

static inline void mu_make_model(mu_world *world)
{
  const uint64_t first[1] = {world->how->n}, second[1] = {44};
  fl_model_builder *builder = NULL;
  float *weights;
  MU_MUST(fl_model_builder_new(&builder, NULL));
  MU_MUST(fl_model_builder_module(builder, 0));
  MU_MUST(fl_model_builder_tensor(builder, "a", first, 1, 1));
  MU_MUST(fl_model_builder_module(builder, 1));
  MU_MUST(fl_model_builder_tensor(builder, "b", second, 1, 1));
  MU_MUST(fl_model_builder_build(builder, &world->model));
  fl_model_builder_free(builder);
  MU_MUST(fl_model_get_weights(world->model, &weights, &world->n_weights));
  for (uint64_t i = 0; i < world->n_weights; i++)
    weights[i] = (float)(i % 17) / 17.f - .5f;
}

static inline fl_embedding *mu_rows(void)
{
  fl_embedding *rows = NULL;
  uint32_t table;
  fl_embedding_options options;
  fl_embedding_table_options of;
  MU_MUST(fl_embedding_options_init(&options, sizeof options));
  options.optimiser = FL_EMBEDDING_SGD;
  options.byte_budget = 24 * 1024;
  options.seed = 7;
  options.secret = (const uint8_t *)"fifteen letters";
  MU_MUST(fl_embedding_new(&rows, NULL, &options));
  MU_MUST(fl_embedding_table_options_init(&of, sizeof of));
  of.dim = 8;
  of.chunks = 1;
  of.prune_from = 0;
  MU_MUST(fl_embedding_add_table(rows, &of, &table));
  return rows;
}

static inline void mu_add_slices(mu_world *world)
{
  fl_slice_server_options options;
  MU_MUST(fl_slice_server_options_init(&options, sizeof options));
  options.seed = 11;
  world->rows = mu_rows();
  MU_MUST(fl_slice_server_new(&world->slices, NULL, world->rows, &options));
  MU_MUST(fl_server_attach_slices(world->server, 0, world->slices));
}

static inline void mu_add_job(mu_world *world)
{
  static const fl_freeze_fixed fixed[1] = {{.step = 2, .first_active = 1}};
  const mu_job *how = world->how;
  fl_compressor_options codec;
  fl_job_options job;
  fl_freeze_options freeze;
  fl_cohort_options cohorts;
  fl_strategy_options strategy;
  fl_selection_options selection;
  MU_MUST(fl_selection_options_init(&selection, sizeof selection));
  MU_MUST(fl_compressor_options_init(&codec, sizeof codec));
  MU_MUST(fl_job_options_init(&job, sizeof job));
  MU_MUST(fl_freeze_options_init(&freeze, sizeof freeze));
  MU_MUST(fl_cohort_options_init(&cohorts, sizeof cohorts));
  MU_MUST(fl_strategy_options_init(&strategy, sizeof strategy));
  codec.codec = how->codec;
  if (how->thc_mode) codec.thc_mode = how->thc_mode;
  job.name = "mutations";
  job.codec = &codec;
  job.rounds = how->rounds ? how->rounds : 1000000;
  job.seed = 9;
  if (how->scale_mode) job.scale_mode = how->scale_mode;
  job.evaluate_every = how->evaluate_every;
  job.server_momentum = how->momentum;
  job.error_feedback = (uint32_t)how->has_feedback;
  job.min_clients = how->least ? how->least : world->n_people;
  job.min_participants = how->least ? how->least : world->n_people;
  job.retry_pause_ns = 1;
  job.steps_kept = 2;
  job.buffer = how->buffer;
  selection.rule = how->selection;
  if (how->selection) {
    job.selection = &selection;
    job.participants = world->n_people;
  }
  freeze.criterion = FL_FREEZE_FIXED;
  freeze.max_frozen = 1;
  freeze.fixed = fixed;
  freeze.n_fixed = 1;
  if (how->freezes) job.freeze = &freeze;
  cohorts.rule = how->cohorts;
  job.cohort_pace = how->pace;
  if (how->cohorts == FL_COHORT_LOSS) {
    cohorts.cap = 2;
    job.min_participants = 1;
  }
  if (how->cohorts) job.cohorts = &cohorts;
  if (how->rule) strategy.rule = how->rule;
  if (how->step) strategy.optimiser = how->step;
  if (how->rule || how->step) job.strategy = &strategy;
  MU_MUST(fl_server_add_job(world->server, world->model, &job, NULL));
}

static inline void mu_person_options(mu_person *p, fl_client_options *options)
{
  MU_MUST(fl_client_options_init(options, sizeof *options));
  options->client_id = p->id;
  options->samples = 5 + p->index;
  options->chunk_size = 4096;
  options->max_retries = 0;
  options->train = mu_train;
  options->evaluate = mu_score;
  options->user = p;
  if (p->world->how->freezes && p->index == 0) options->max_depth = 1;
}

static inline void mu_set_key(const mu_person *p, fl_client *client)
{
  uint8_t secret[FLI_SECRET_BYTES], public_key[FLI_PUBLIC_BYTES];
  mu_keys(p->index, secret, public_key);
  MU_MUST(fl_client_set_key(client, secret, NULL));
}

/* What a client has besides its state: a key, rows. */
static inline void mu_equip(mu_person *p)
{
  if (p->world->how->is_enrolled) mu_set_key(p, p->client);
  if (!p->world->how->has_slices) return;
  uint64_t ids[MU_IDS];
  for (uint64_t i = 0; i < MU_IDS; i++)
    ids[i] = i * (p->index + 1);
  p->rows = mu_rows();
  MU_MUST(fl_slice_client_new(&p->slices, NULL, p->rows, NULL));
  MU_MUST(fl_slice_client_set_ids(p->slices, 0, ids, MU_IDS));
  MU_MUST(fl_client_attach_slices(p->client, p->slices));
}

static inline void mu_start_person(mu_person *p)
{
  fl_client_options options;
  mu_person_options(p, &options);
  MU_MUST(fl_client_new(&p->client, NULL, &options));
  mu_equip(p);
}

static inline void mu_server_options(const mu_world *world,
                                     fl_server_options *options)
{
  MU_MUST(fl_server_options_init(options, sizeof *options));
  options->chunk_size = 4096;
  options->max_clients = 2 * MU_PEOPLE;
  options->max_control_size = world->how->has_slices ? 1 << 20 : 16384;
  options->staging_cap = 64 * 1024;
  options->store = world->store;
  if (!world->how->is_enrolled) return;
  options->enrolment = FL_ENROL_LISTED;
  options->rate_interval_ns = 100 * MU_MS;
  options->max_messages = 24;
  options->max_rejects = 3;
  options->ban_ns = 10 * MU_MS;
}

static inline void mu_allow(mu_world *world)
{
  uint8_t secret[FLI_SECRET_BYTES], public_key[FLI_PUBLIC_BYTES];
  for (uint32_t i = 0; i < MU_PEOPLE; i++) {
    mu_keys(i, secret, public_key);
    MU_MUST(fl_server_allow(world->server, public_key, world->people[i].id));
  }
}

/* The model, the people and their clients' contexts; no server yet. */
static inline void mu_init(mu_world *world, const mu_job *how)
{
  fl_context_options context;
  memset(world, 0, sizeof *world);
  world->how = how;
  world->next_peer = 1;
  world->n_people = MU_PEOPLE;
  MU_MUST(fl_context_options_init(&context, sizeof context));
  context.entropy = mu_entropy;
  context.user = world;
  MU_MUST(fl_context_new(&world->context, &context));
  mu_make_model(world);
  for (uint32_t i = 0; i < MU_PEOPLE; i++) {
    mu_person *p = &world->people[i];
    p->world = world;
    p->index = i;
    snprintf(p->id, sizeof p->id, "person-%u", i);
    p->scratch = malloc((size_t)world->n_weights * sizeof *p->scratch);
  }
}

static inline void mu_start(mu_world *world)
{
  fl_server_options options;
  mu_server_options(world, &options);
  MU_MUST(fl_server_new(&world->server, world->context, &options));
  mu_add_job(world);
  if (world->how->has_slices) mu_add_slices(world);
  if (world->how->is_enrolled) mu_allow(world);
}

static inline void mu_begin(mu_world *world, const mu_job *how)
{
  mu_init(world, how);
  mu_start(world);
  for (uint32_t i = 0; i < MU_PEOPLE; i++)
    mu_start_person(&world->people[i]);
}

static inline void mu_end(mu_world *world)
{
  uint64_t bytes = 1;
  for (uint32_t i = 0; i < MU_PEOPLE; i++) {
    mu_person *p = &world->people[i];
    fl_client_free(p->client);
    fl_slice_client_free(p->slices);
    fl_embedding_free(p->rows);
    free(p->scratch);
  }
  fl_server_free(world->server);
  fl_slice_server_free(world->slices);
  fl_embedding_free(world->rows);
  fl_model_free(world->model);
  MU_MUST(fl_context_get_memory(world->context, &bytes, NULL));
  CHECK_EQ_U64(bytes, 0);
  fl_context_free(world->context);
}

/* ---- running ------------------------------------------------------------- */

static inline void mu_count(mu_world *world, const fl_server_event *event)
{
  uint32_t bit;
  switch (event->kind) {
  case FL_SERVER_ROUND_ABORTED: world->aborted++; /* fall through */
  case FL_SERVER_ROUND_STARTED: world->counted = 0; break;
  case FL_SERVER_UPDATE_ACCEPTED:
    bit = 1u << (uint32_t)(event->client_id[7] - '0');
    world->twice += (world->counted & bit) != 0;
    world->counted |= bit;
    world->strange += event->peer >= MU_STRANGER;
    break;
  default: break;
  }
}

/* Reasons in events count as hit. */
static inline void mu_events(mu_world *world)
{
  fl_server_event event;
  MU_MUST(fl_server_event_init(&event, sizeof event));
  while (fl_server_poll(world->server, &event) == FL_OK) {
    if (event.reason < MU_REASONS) world->reasons[event.reason]++;
    if (event.kind == FL_SERVER_ROUND_FINISHED && event.accepted > 0)
      world->finished++;
    mu_count(world, &event);
  }
  fli_clear_error();
}

static inline void mu_pass(mu_world *world, uint64_t ns)
{
  world->now += ns;
  MU_MUST(fl_server_tick(world->server, world->now));
  mu_events(world);
}

/* 1 when the job is in this phase; with cohorts, one of its leaves. */
static inline int mu_is_in(const mu_world *world, fli_phase phase)
{
  const fli_job *job = world->server->jobs[0];
  if (job->phase == phase) return 1;
  for (uint32_t k = 0; job->cohorts && k < FL_COHORT_MAX; k++)
    if (job->cohorts->leaves[k] && job->cohorts->leaves[k]->phase == phase)
      return 1;
  return 0;
}

static inline void mu_leave(mu_person *p)
{
  if (!p->is_on) return;
  MU_MUST(fl_server_disconnected(p->world->server, p->peer));
  MU_MUST(fl_client_disconnected(p->client));
  p->is_on = 0;
}

static inline void mu_poll(mu_person *p)
{
  fl_client_event event;
  MU_MUST(fl_client_event_init(&event, sizeof event));
  do {
    MU_MUST(fl_client_poll(p->client, p->world->now, &event));
    CHECK(event.kind != FL_CLIENT_ABORTED);
  } while (event.kind != FL_CLIENT_IDLE && event.kind != FL_CLIENT_ABORTED);
}

/* u32 peer | u32 1 = to the server | u32 bytes | bytes, LE */
static inline void mu_note(mu_world *world, uint64_t peer, uint32_t is_up,
                           const uint8_t *data, size_t n)
{
  uint8_t head[12];
  if (!world->log) return;
  fli_store_u32(head, (uint32_t)peer);
  fli_store_u32(head + 4, is_up);
  fli_store_u32(head + 8, (uint32_t)n);
  MU_MUST(fli_bytes_append(world->log, head, sizeof head));
  MU_MUST(fli_bytes_append(world->log, data, n));
}

/* What the client has to say; 1 = something. `one`: the next send alone. */
static inline int mu_up(mu_person *p, int one)
{
  mu_world *world = p->world;
  const uint8_t *data = NULL;
  size_t n = 0;
  int did = 0;
  mu_poll(p);
  do {
    MU_MUST(fl_client_send(p->client, &data, &n));
    if (n == 0) break;
    if (world->tapes) mu_record(&world->tapes[p->index], data, n);
    mu_note(world, p->peer, 1, data, n);
    MU_MUST(fl_server_recv(world->server, p->peer, data, n));
    did = 1;
  } while (!one);
  mu_events(world);
  return did;
}

static inline int mu_down(mu_person *p)
{
  const uint8_t *data = NULL;
  size_t n = 0;
  int did = 0;
  for (;;) {
    MU_MUST(fl_server_send(p->world->server, p->peer, &data, &n));
    if (n == 0) return did;
    if (p->world->heard) mu_record(&p->world->heard[p->index], data, n);
    mu_note(p->world, p->peer, 0, data, n);
    MU_MUST(fl_client_recv(p->client, data, n));
    did = 1;
  }
}

/* Everybody is on a new connection, and has said HELLO, as often as it takes.
 */
static inline void mu_connect(mu_world *world)
{
  for (uint32_t i = 0; i < MU_PEOPLE; i++)
    mu_leave(&world->people[i]);
  for (uint32_t i = 0; i < MU_PEOPLE; i++) {
    mu_person *p = &world->people[i];
    p->peer = world->next_peer++;
    p->is_on = 1;
    if (world->tapes) mu_clear(&world->tapes[i]);
    if (world->heard) mu_clear(&world->heard[i]);
    (void)mu_up(p, 1);
    if (!world->how->is_enrolled) continue;
    (void)mu_down(p); /* the challenge */
    (void)mu_up(p, 1);
  }
}

/* Let the first `n` talk until nobody has anything to say, or until `is_over`
 * says so. */
static inline void mu_run(mu_world *world, uint32_t n,
                          int (*is_over)(const mu_world *))
{
  int is_busy = 1;
  for (int i = 0; is_busy && i < 10000; i++) {
    is_busy = 0;
    for (uint32_t k = 0; k < n; k++) {
      if (is_over && is_over(world)) return;
      is_busy |= mu_down(&world->people[k]);
      is_busy |= mu_up(&world->people[k], 0);
    }
  }
  CHECK(!is_busy);
}

static inline int mu_is_updating(const mu_world *world)
{
  return mu_is_in(world, FLI_PHASE_UPDATES);
}

static inline int mu_is_finished(const mu_world *world)
{
  return world->finished >= world->wanted;
}

static inline void mu_hash(const mu_world *world, uint8_t *hash)
{
  const fli_job *job = world->server->jobs[0];
  fli_hasher hasher;
  fli_hasher_init(&hasher);
  fli_hasher_update(&hasher, job->store.hash, FLI_HASH_BYTES);
  for (uint32_t k = 0; job->cohorts && k < FL_COHORT_MAX; k++)
    if (job->cohorts->leaves[k])
      fli_hasher_update(&hasher, job->cohorts->leaves[k]->store.hash,
                        FLI_HASH_BYTES);
  if (world->rows) {
    uint64_t ids[MU_IDS];
    float values[MU_IDS * 8];
    fl_embedding_bags bags;
    MU_MUST(fl_embedding_bags_init(&bags, sizeof bags));
    for (uint64_t i = 0; i < MU_IDS; i++)
      ids[i] = i;
    bags.ids = ids;
    bags.n_ids = bags.n_bags = MU_IDS;
    MU_MUST(fl_embedding_lookup(world->rows, 0, &bags, values));
    fli_hasher_update(&hasher, values, sizeof values);
  }
  fli_hasher_final(&hasher, hash);
}

#endif
