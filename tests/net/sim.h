/* SPDX-License-Identifier: Apache-2.0 */
/* One server and several clients in memory, on a virtual clock, over a network
 * that a seeded generator makes bad: what one call of send gave is a message;
 * messages are dropped, repeated, overtaken, and cut (a cut one breaks its
 * connection); connections break, sometimes without the server noticing;
 * clients die and come back from their last saved state, or never; the server
 * dies and comes back from its last snapshot; strangers send rubbish.
 *
 * The hosts do what hosts do: reconnect at once, and when a connection was
 * silent for long (the long poll ran out), reconnect too. Faults are drawn per
 * message and limited in number, so every run comes to its end. */
#ifndef SIM_H
#define SIM_H

#include "crypto/keys.h"
#include "net/network.h"

/* ---- training ----------------------------------------------------------- */

/* A "gradient" of its own for every client and round, small beside the
 * weights, and a pull to zero so that the model matters. */
static inline void sim_train(const sim_node *node, const fl_train_task *task,
                             float *weights)
{
  fli_rng rng;
  fli_rng_init(&rng, task->seed, FLI_RNG_TEST, task->round, node->index);
  for (uint64_t i = 0; i < task->n_weights; i++)
    weights[i] = .9f * task->weights[i] + .1f * (fli_rng_f32(&rng) - .5f);
}

static inline fl_status sim_train_callback(const fl_train_task *task,
                                           fl_train_result *result, void *user)
{
  sim_node *node = user;
  node->sim->trainings++;
  sim_train(node, task, node->scratch);
  result->weights = node->scratch;
  result->n = task->n_weights;
  result->samples = 5 + node->index;
  result->loss = 1. / (double)task->round;
  return FL_OK;
}

static inline fl_status sim_score_callback(const float *weights, uint64_t n,
                                           fl_score *score, void *user)
{
  sim_node *node = user;
  node->sim->evaluations++;
  score->loss = fabs((double)weights[n / 2]);
  score->correct = node->index;
  score->count = 10;
  return FL_OK;
}

/* The same by events; the host hands over the update, not the weights. */
static inline void sim_host_works(sim *s, sim_node *node,
                                  const fl_client_event *event)
{
  if (event->kind == FL_CLIENT_NEED_TRAIN) {
    fl_train_result result;
    const fl_train_task *task = &event->task;
    SIM_OK(s, fl_train_result_init(&result, sizeof result));
    SIM_OK(s, sim_train_callback(task, &result, node));
    for (uint64_t i = 0; i < task->n_weights; i++)
      node->scratch[i] -= task->weights[i];
    result.update = node->scratch;
    result.weights = NULL;
    SIM_OK(s, fl_client_submit(node->client, &result));
  } else {
    fl_score score;
    SIM_OK(s, fl_score_init(&score, sizeof score));
    SIM_OK(s, sim_score_callback(event->task.weights, event->task.n_weights,
                                 &score, node));
    SIM_OK(s, fl_client_submit_score(node->client, &score));
  }
}

/* ---- connections ----------------------------------------------------- */

/* The host of a client opens a new connection. */
static inline void sim_reconnect(sim *s, sim_node *node)
{
  node->peer = s->next_peer++;
  node->heard_ns = s->now_ns;
  if (node->client) SIM_OK(s, fl_client_disconnected(node->client));
}

/* A connection breaks; the server may notice much later. */
static inline void sim_break(sim *s, uint64_t peer)
{
  sim_node *node = sim_node_of(s, peer);
  if (sim_fault(s, 2))
    sim_post(s, peer, 1, NULL, 0, s->now_ns + 40 * SIM_SECOND, 1);
  else
    SIM_OK(s, fl_server_disconnected(s->server, peer));
  if (node) sim_reconnect(s, node);
}

static inline void sim_deliver(sim *s, const sim_message *message)
{
  sim_node *node = sim_node_of(s, message->peer);
  int is_stranger = message->peer >= SIM_STRANGER;
  if (message->is_upward && (node || is_stranger)) {
    if (message->n > 0)
      SIM_OK(s, fl_server_recv(s->server, message->peer, message->data,
                               message->n));
  } else if (node && node->client) {
    SIM_OK(s, fl_client_recv(node->client, message->data, message->n));
  }
  if (node) node->heard_ns = s->now_ns;
  if (!message->is_breaking) return;
  if (node)
    sim_break(s, message->peer);
  else
    SIM_OK(s, fl_server_disconnected(s->server, message->peer));
}

static inline void sim_deliver_due(sim *s)
{
  while (s->messages && s->messages->at_ns <= s->now_ns && !s->is_broken) {
    sim_message *message = s->messages;
    s->messages = message->next;
    sim_deliver(s, message);
    free(message);
  }
}

/* ---- clients ------------------------------------------------------------ */

static inline void sim_node_options(sim *s, sim_node *node,
                                    fl_client_options *options)
{
  SIM_OK(s, fl_client_options_init(options, sizeof *options));
  options->client_id = node->id;
  options->samples = 5 + node->index;
  options->retry_ns = 2 * SIM_SECOND;
  options->max_retries = 0;
  options->chunk_size = 4096;
  options->user = node;
  if (s->config.knows_model) options->model = s->model;
  if (s->config.has_part && node->index == 0) options->max_depth = 1;
  if (s->config.asks_host) return;
  options->train = sim_train_callback;
  options->evaluate = sim_score_callback;
}

static inline void sim_node_start(sim *s, sim_node *node)
{
  fl_client_options options;
  fl_reader reader;
  sim_node_options(s, node, &options);
  if (node->saved) {
    SIM_OK(s, fl_buffer_as_reader(node->saved, &reader));
    SIM_OK(s, fl_client_restore(&node->client, NULL, &options, &reader));
  } else {
    SIM_OK(s, fl_client_new(&node->client, NULL, &options));
  }
  if (s->config.has_keys && node->index != 1) {
    uint8_t secret[FLI_SECRET_BYTES], public_key[FLI_PUBLIC_BYTES];
    const uint8_t seed[FLI_KEY_BYTES] = {(uint8_t)(1 + node->index)};
    fli_sign_keys(secret, public_key, seed);
    SIM_OK(s, fl_client_set_key(node->client, secret, NULL));
  }
  node->peer = s->next_peer++;
  node->heard_ns = s->now_ns;
  node->return_ns = SIM_NEVER;
}

static inline void sim_node_save(sim *s, sim_node *node)
{
  fl_writer writer;
  if (!node->saved) SIM_OK(s, fl_buffer_new(&node->saved, NULL));
  fl_buffer_clear(node->saved);
  SIM_OK(s, fl_buffer_as_writer(node->saved, &writer));
  SIM_OK(s, fl_client_save(node->client, &writer));
}

static inline void sim_node_dies(sim *s, sim_node *node)
{
  fl_client_free(node->client);
  node->client = NULL;
  node->is_done = 0;
  s->client_deaths++;
  SIM_OK(s, fl_server_disconnected(s->server, node->peer));
  node->peer = s->next_peer++;
  node->return_ns = s->now_ns + fli_rng_below(&s->rng, 30) * SIM_SECOND;
  /* All are needed for the first round, and one for the others. */
  if (s->config.is_strict || !s->is_begun || node->index == 0) return;
  node->is_gone = fli_rng_below(&s->rng, 4) == 0;
  if (node->is_gone) node->return_ns = SIM_NEVER;
}

/* Events until there is nothing left to be told. */
static inline void sim_node_polls(sim *s, sim_node *node)
{
  for (int i = 0; i < 100 && !s->is_broken; i++) {
    fl_client_event event;
    SIM_OK(s, fl_client_event_init(&event, sizeof event));
    SIM_OK(s, fl_client_poll(node->client, s->now_ns, &event));
    switch (event.kind) {
    case FL_CLIENT_IDLE: return;
    case FL_CLIENT_NEED_TRAIN:
    case FL_CLIENT_NEED_EVALUATE: sim_host_works(s, node, &event); break;
    case FL_CLIENT_DONE: node->is_done = 1; break;
    case FL_CLIENT_ABORTED:
      /* A client that died before it had a token meets its own ghost. */
      if (event.reason == FL_REJECT_ID_IN_USE) {
        sim_node_dies(s, node);
        return;
      }
      fprintf(stderr, "  %s aborted: %s\n", node->id, event.text);
      SIM_CHECK(s, event.kind != FL_CLIENT_ABORTED);
      break;
    default: break;
    }
  }
}

static inline void sim_node_runs(sim *s, sim_node *node)
{
  if (!node->client) {
    if (s->now_ns >= node->return_ns) sim_node_start(s, node);
    if (!node->client) return;
  }
  if (!node->is_done && s->now_ns - node->heard_ns >= SIM_SILENCE)
    sim_break(s, node->peer);
  sim_node_polls(s, node);
  if (!node->client) return;
  for (int i = 0; i < 1000 && !s->is_broken; i++) {
    const uint8_t *data = NULL;
    size_t n = 0;
    SIM_OK(s, fl_client_send(node->client, &data, &n));
    if (n == 0) break;
    sim_transmit(s, node->peer, 1, data, n);
    if (sim_fault(s, 30)) sim_node_save(s, node);
    if (!sim_fault(s, 60)) continue;
    sim_node_dies(s, node);
    break;
  }
}

/* ---- the server --------------------------------------------------------- */

static inline void sim_server_save(sim *s)
{
  fl_writer writer;
  fl_buffer_clear(s->snapshot);
  SIM_OK(s, fl_buffer_as_writer(s->snapshot, &writer));
  SIM_OK(s, fl_server_save(s->server, &writer));
}

static inline void sim_server_events(sim *s)
{
  fl_server_event event;
  SIM_OK(s, fl_server_event_init(&event, sizeof event));
  while (fl_server_poll(s->server, &event) == FL_OK) {
    uint32_t bit;
    switch (event.kind) {
    case FL_SERVER_ROUND_STARTED:
      s->accepted = 0;
      if (!s->is_begun) sim_server_save(s);
      s->is_begun = 1;
      break;
    case FL_SERVER_ROUND_ABORTED: s->accepted = 0; break;
    case FL_SERVER_UPDATE_ACCEPTED:
      bit = 1u << (uint32_t)(event.client_id[5] - '0');
      SIM_CHECK(s, (s->accepted & bit) == 0);
      s->accepted |= bit;
      break;
    case FL_SERVER_ROUND_FINISHED:
      SIM_CHECK(s, event.accepted >= 1);
      SIM_CHECK(s, event.accepted <= event.selected);
      break;
    case FL_SERVER_JOB_FINISHED:
      /* Clients that were told do not come back for another end. */
      sim_server_save(s);
      break;
    default: break;
    }
  }
}

static inline void sim_server_options(const sim *s, fl_server_options *options)
{
  CHECK_OK(fl_server_options_init(options, sizeof *options));
  options->chunk_size = 4096;
  if (s->config.staging_cap) options->staging_cap = s->config.staging_cap;
  options->store = s->store;
}

static inline void sim_add_job(sim *s)
{
  const sim_config *config = &s->config;
  fl_compressor_options codec;
  fl_job_options job;
  const fl_freeze_fixed fixed[1] = {{.step = 2, .first_active = 1}};
  fl_freeze_options freeze;
  uint32_t index;
  SIM_OK(s, fl_freeze_options_init(&freeze, sizeof freeze));
  freeze.criterion = FL_FREEZE_FIXED;
  freeze.max_frozen = 1;
  freeze.fixed = fixed;
  freeze.n_fixed = 1;
  SIM_OK(s, fl_compressor_options_init(&codec, sizeof codec));
  codec.codec = config->codec;
  codec.thc_mode = config->thc_mode;
  SIM_OK(s, fl_job_options_init(&job, sizeof job));
  job.name = "net";
  job.codec = &codec;
  job.rounds = config->rounds;
  job.seed = config->seed;
  job.scale_mode = config->scale_mode;
  job.error_feedback = config->error_feedback;
  job.server_momentum = config->momentum;
  job.evaluate_every = config->evaluate_every;
  job.participants = config->participants;
  job.over_selection = config->over_selection;
  job.min_clients = config->n_nodes;
  job.norm_deadline_ns = 60 * SIM_SECOND;
  job.update_deadline_ns = 120 * SIM_SECOND;
  job.retry_pause_ns = SIM_SECOND;
  job.steps_kept = 2;
  if (config->freezes) job.freeze = &freeze;
  if (config->is_strict) {
    job.min_participants = config->n_nodes;
    job.norm_deadline_ns = UINT64_MAX / 4;
    job.update_deadline_ns = UINT64_MAX / 4;
    job.evaluate_deadline_ns = UINT64_MAX / 4;
    job.return_grace_ns = UINT64_MAX / 4;
  }
  SIM_OK(s, fl_server_add_job(s->server, s->model, &job, &index));
}

/* From what it had committed, which may be nothing. */
static inline void sim_server_recovers(sim *s, const fl_server_options *options)
{
  SIM_OK(s, fl_store_rollback(s->store));
  const fl_status st = fl_server_recover(&s->server, NULL, options);
  if (st != FL_E_NOT_FOUND) {
    SIM_OK(s, st);
    return;
  }
  SIM_OK(s, fl_server_new(&s->server, NULL, options));
  sim_add_job(s);
}

/* Killed, and back from its store or the last snapshot; all connections are
 * new. */
static inline void sim_server_dies(sim *s)
{
  fl_server_options options;
  fl_reader reader;
  sim_server_options(s, &options);
  fl_server_free(s->server);
  s->server = NULL;
  s->accepted = 0;
  s->server_deaths++;
  if (s->store) {
    sim_server_recovers(s, &options);
  } else {
    SIM_OK(s, fl_buffer_as_reader(s->snapshot, &reader));
    SIM_OK(s, fl_server_restore(&s->server, NULL, &options, &reader));
  }
  if (s->is_broken) return;
  for (uint32_t i = 0; i < s->config.n_nodes; i++)
    sim_reconnect(s, &s->nodes[i]);
}

static inline void sim_server_runs(sim *s)
{
  uint64_t peer = UINT64_MAX;
  SIM_OK(s, fl_server_tick(s->server, s->now_ns));
  sim_server_events(s);
  while (fl_server_next_ready(s->server, &peer) == FL_OK && !s->is_broken) {
    const uint8_t *data = NULL;
    size_t n = 0;
    for (int i = 0; i < 1000; i++) {
      SIM_OK(s, fl_server_send(s->server, peer, &data, &n));
      if (n == 0) break;
      if (sim_node_of(s, peer)) sim_transmit(s, peer, 0, data, n);
    }
    if (!fl_server_wants_close(s->server, peer)) continue;
    /* Behind the REJECT. */
    sim_post(s, peer, 0, NULL, 0, s->now_ns + 10 * SIM_MS, 1);
  }
  if (sim_fault(s, 60)) sim_server_save(s);
  if (sim_fault(s, 300)) sim_server_dies(s);
}

/* ---- strangers ---------------------------------------------------------- */

static inline void sim_stranger(sim *s)
{
  uint8_t bytes[64];
  uint64_t peer = SIM_STRANGER + fli_rng_below(&s->rng, 4);
  if (!s->config.is_disturbed || fli_rng_below(&s->rng, 40) != 0) return;
  for (size_t i = 0; i < sizeof bytes; i++)
    bytes[i] = (uint8_t)fli_rng_u32(&s->rng);
  if (fli_rng_below(&s->rng, 2)) { /* a frame that looks like ours */
    bytes[0] = 56;
    bytes[1] = bytes[2] = bytes[3] = 0;
    bytes[4] = 1;
    bytes[5] = (uint8_t)(1 + fli_rng_below(&s->rng, 40));
    bytes[6] = bytes[7] = 0;
  }
  SIM_OK(s, fl_server_recv(s->server, peer, bytes,
                           1 + fli_rng_below(&s->rng, sizeof bytes)));
  if (fli_rng_below(&s->rng, 2))
    SIM_OK(s, fl_server_disconnected(s->server, peer));
}

/* ---- runs --------------------------------------------------------------- */

static inline void sim_make_model(sim *s)
{
  const uint64_t large[2] = {70, 71}, small[1] = {70}, scalar[1] = {1};
  fl_model_builder *builder = NULL;
  float *weights;
  SIM_OK(s, fl_model_builder_new(&builder, NULL));
  SIM_OK(s, fl_model_builder_module(builder, 0));
  SIM_OK(s, fl_model_builder_tensor(builder, "w", large, 2, 1));
  SIM_OK(s, fl_model_builder_tensor(builder, "b", small, 1, 1));
  SIM_OK(s, fl_model_builder_module(builder, 1));
  SIM_OK(s, fl_model_builder_tensor(builder, "s", scalar, 1, 1));
  SIM_OK(s, fl_model_builder_build(builder, &s->model));
  fl_model_builder_free(builder);
  SIM_OK(s, fl_model_get_weights(s->model, &weights, &s->n_weights));
  for (uint64_t i = 0; i < s->n_weights; i++)
    weights[i] = (float)(i % 17) / 17.f - .5f;
}

static inline void sim_begin(sim *s, const sim_config *config)
{
  fl_server_options options;
  memset(s, 0, sizeof *s);
  s->config = *config;
  s->next_peer = 1;
  s->faults_left = SIM_FAULTS;
  fli_rng_init(&s->rng, config->seed, FLI_RNG_TEST, 0, 0);
  sim_make_model(s);
  if (config->has_store) SIM_OK(s, fl_store_memory_new(&s->store, NULL));
  sim_server_options(s, &options);
  SIM_OK(s, fl_server_new(&s->server, NULL, &options));
  SIM_OK(s, fl_buffer_new(&s->snapshot, NULL));
  sim_add_job(s);
  sim_server_save(s);
  for (uint32_t i = 0; i < config->n_nodes; i++) {
    sim_node *node = &s->nodes[i];
    node->sim = s;
    node->index = i;
    node->scratch = malloc((size_t)s->n_weights * sizeof *node->scratch);
    snprintf(node->id, sizeof node->id, "node-%u", i);
    sim_node_start(s, node);
  }
}

static inline void sim_end(sim *s)
{
  for (uint32_t i = 0; i < s->config.n_nodes; i++) {
    fl_client_free(s->nodes[i].client);
    fl_buffer_free(s->nodes[i].saved);
    free(s->nodes[i].scratch);
  }
  while (s->messages) {
    sim_message *message = s->messages;
    s->messages = message->next;
    free(message);
  }
  fl_buffer_free(s->snapshot);
  fl_server_free(s->server);
  fl_store_free(s->store);
  fl_model_free(s->model);
}

/* 1 when the job is over and everybody who is there knows. */
static inline int sim_is_over(sim *s)
{
  fl_job_status status;
  SIM_OK(s, fl_job_status_init(&status, sizeof status));
  SIM_OK(s, fl_server_get_status(s->server, 0, &status));
  if (!status.is_finished) return 0;
  for (uint32_t i = 0; i < s->config.n_nodes; i++)
    if (!s->nodes[i].is_gone && !(s->nodes[i].client && s->nodes[i].is_done))
      return 0;
  return 1;
}

static inline uint64_t sim_earlier(uint64_t a, uint64_t b)
{
  return a < b ? a : b;
}

/* When the next thing happens. */
static inline uint64_t sim_next_time(sim *s)
{
  uint64_t next = s->messages ? s->messages->at_ns : SIM_NEVER;
  uint64_t deadline = SIM_NEVER;
  SIM_OK(s, fl_server_next_timeout(s->server, &deadline));
  next = sim_earlier(next, deadline);
  for (uint32_t i = 0; i < s->config.n_nodes; i++) {
    const sim_node *node = &s->nodes[i];
    if (!node->client) {
      next = sim_earlier(next, node->return_ns);
      continue;
    }
    SIM_OK(s, fl_client_next_timeout(node->client, &deadline));
    next = sim_earlier(next, deadline);
    if (!node->is_done) next = sim_earlier(next, node->heard_ns + SIM_SILENCE);
  }
  return next;
}

/* Run to the end: 1 = it came. */
static inline int sim_run(sim *s)
{
  for (int step = 0; step < SIM_MAX_STEPS && !s->is_broken; step++) {
    sim_deliver_due(s);
    sim_server_runs(s);
    for (uint32_t i = 0; i < s->config.n_nodes && !s->is_broken; i++)
      sim_node_runs(s, &s->nodes[i]);
    if (s->is_broken || sim_is_over(s)) break;
    sim_stranger(s);
    uint64_t next = sim_next_time(s);
    SIM_CHECK(s, next != SIM_NEVER);
    s->now_ns = next > s->now_ns ? next : s->now_ns + SIM_MS;
  }
  SIM_CHECK(s, sim_is_over(s));
  return !s->is_broken;
}

#endif
