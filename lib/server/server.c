/* SPDX-License-Identifier: Apache-2.0 */
/* The handle and its public functions. Every entry point leaves all jobs where
 * nothing more can happen without bytes or time, so the order of calls is the
 * only input besides them: same inputs, same outputs. */
#include "server/server.h"

#include <assert.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/options.h"
#include "server/cohorts.h"

#include "server/slices.h"

#define SECOND_NS UINT64_C(1000000000)
#define COMMIT_WINDOW_MAX_NS (10 * SECOND_NS)
#define RATE_INTERVAL_MIN_NS (SECOND_NS / 1000)
#define RATE_INTERVAL_MAX_NS (86400 * SECOND_NS)

/* ---- making ---- */

static fl_server_options defaults(void)
{
  const fl_server_options options = {
      .struct_size = (uint32_t)sizeof(fl_server_options),
      .max_peers = 65536,
      .max_clients = 1u << 20,
      .max_control_size = FLI_FRAME_MAX_CONTROL,
      .chunk_size = 256 * 1024,
      .staging_cap = UINT64_C(256) << 20,
      .rate_interval_ns = 60 * SECOND_NS,
      .max_bans = 65536,
      .ban_ns = 3600 * SECOND_NS,
  };
  return options;
}

fl_status fl_server_options_init(fl_server_options *options, size_t size)
{
  const fl_server_options full = defaults();
  fli_clear_error();
  return fli_options_init(options, size, &full, sizeof full);
}

static fl_status check_options(const fl_server_options *options)
{
  if (options->max_peers < 1 || options->max_clients < 1)
    return fli_error(FL_E_OPTIONS, "max_peers, max_clients: want >= 1");
  if (options->chunk_size < FLI_CHUNK_MIN ||
      options->chunk_size > FLI_CHUNK_MAX)
    return fli_error(FL_E_OPTIONS, "chunk_size: got %u, want %d..%d",
                     options->chunk_size, FLI_CHUNK_MIN, FLI_CHUNK_MAX);
  if (options->max_control_size < FLI_CHUNK_MIN ||
      options->max_control_size > FLI_FRAME_MAX_CONTROL)
    return fli_error(FL_E_OPTIONS, "max_control_size: got %u, want %d..%d",
                     options->max_control_size, FLI_CHUNK_MIN,
                     FLI_FRAME_MAX_CONTROL);
  if (options->staging_cap < 1)
    return fli_error(FL_E_OPTIONS, "staging_cap: got 0, want >= 1");
  if (options->commit_window_ns > COMMIT_WINDOW_MAX_NS)
    return fli_error(FL_E_OPTIONS, "commit_window_ns: got %llu, want <= %llu",
                     (unsigned long long)options->commit_window_ns,
                     (unsigned long long)COMMIT_WINDOW_MAX_NS);
  if (options->rate_interval_ns < RATE_INTERVAL_MIN_NS ||
      options->rate_interval_ns > RATE_INTERVAL_MAX_NS)
    return fli_error(FL_E_OPTIONS, "rate_interval_ns: got %llu, want 1 ms..1 d",
                     (unsigned long long)options->rate_interval_ns);
  if (options->max_bans < 1 || options->ban_ns < 1)
    return fli_error(FL_E_OPTIONS, "max_bans, ban_ns: want >= 1");
  return fli_identity_check_options(options);
}

fl_status fli_server_create(fl_server **out, fl_context *context,
                            const fl_server_options *options)
{
  fl_server_options local = defaults();
  fl_status st = FL_OK;
  fl_server *server = NULL;
  FLI_TRY(fli_options_load(&local, sizeof local, options, "fl_server_options"));
  FLI_TRY(check_options(&local));
  FLI_TRY(fli_crypto_init());
  server = fli_alloc(context, 1, sizeof *server);
  if (!server) FLI_TRY(fli_nomem(sizeof *server));
  server->context = fli_context_ref(context);
  server->options = local;
  server->journal.store = local.store;
  server->peers.context = context;
  server->trust.allowed.context = server->trust.banned.context = context;
  if (local.server_key) {
    memcpy(server->trust.server_key, local.server_key, FLI_KEY_BYTES);
    server->trust.has_server_key = 1;
  }
  server->options.server_key = NULL;
  fli_bytes_init(&server->handed, context);
  fli_events_init(&server->events, context);
  *out = server;
out:
  return st;
}

fl_status fl_server_new(fl_server **out, fl_context *context,
                        const fl_server_options *options)
{
  fl_status st = FL_OK;
  fl_server *server = NULL;
  fli_clear_error();
  if (!out) return fli_error(FL_E_ARGUMENT, "fl_server_new: out is NULL");
  FLI_TRY(fli_server_create(&server, context, options));
  FLI_TRY(fli_journal_check_empty(server->journal.store));
  FLI_TRY(fli_random_bytes(context, server->secret, sizeof server->secret));
  *out = server;
  server = NULL;
out:
  fl_server_free(server);
  return st;
}

void fl_server_free(fl_server *server)
{
  if (!server) return;
  fl_context *context = server->context;
  fli_peer *peer = fli_peer_table_any(&server->peers);
  while (peer) {
    fli_peer_free(peer);
    peer = fli_peer_table_any(&server->peers);
  }
  for (size_t i = 0; i < server->n_jobs; i++)
    fli_job_free(server->jobs[i]);
  fli_free(context, server->jobs, server->job_capacity * sizeof *server->jobs);
  fli_events_free(&server->events);
  fli_marks_free(&server->trust.allowed);
  fli_marks_free(&server->trust.banned);
  fli_journal_free(server);
  fli_bytes_free(&server->handed);
  fli_wipe(server->secret, sizeof server->secret);
  fli_free(context, server, sizeof *server);
  fli_context_unref(context);
}

/* ---- jobs ---- */

fl_status fli_server_adopt(fl_server *server, fli_job *job)
{
  void *items = server->jobs;
  const fl_status st = fli_grow(server->context, &items, &server->job_capacity,
                                server->n_jobs + 1, sizeof *server->jobs);
  if (st != FL_OK) return st;
  server->jobs = items;
  server->jobs[server->n_jobs++] = job;
  return FL_OK;
}

static fl_status check_new_job(const fl_server *server,
                               const fl_job_options *options)
{
  for (size_t i = 0; i < server->n_jobs; i++) {
    if (strcmp(server->jobs[i]->name, options->name) == 0)
      return fli_error(FL_E_ARGUMENT,
                       "job name: got \"%s\", want one not taken",
                       options->name);
  }
  return FL_OK;
}

fl_status fl_server_add_job(fl_server *server, const fl_model *model,
                            const fl_job_options *options, uint32_t *job)
{
  fl_status st = FL_OK;
  fl_job_options local;
  fl_compressor_options codec;
  fli_job *made = NULL;
  fli_clear_error();
  if (!server || !model)
    return fli_error(FL_E_ARGUMENT, "fl_server_add_job: NULL handle");
  const uint32_t index = (uint32_t)server->n_jobs;
  FLI_TRY(fli_job_options_load(&local, &codec, options));
  FLI_TRY(check_new_job(server, &local));
  FLI_TRY(fli_job_new(&made, server, index, &local, model));
  FLI_TRY(fli_server_adopt(server, made));
  made = NULL;
  fli_journal_step(server);
  if (job) *job = index;
out:
  fli_job_free(made);
  return st;
}

uint32_t fl_server_job_count(const fl_server *server)
{
  return server ? (uint32_t)server->n_jobs : 0;
}

fl_status fl_job_status_init(fl_job_status *status, size_t size)
{
  const fl_job_status full = {.struct_size = (uint32_t)sizeof full};
  fli_clear_error();
  return fli_options_init(status, size, &full, sizeof full);
}

static void add_members(const fli_job *job, fl_job_status *status)
{
  for (uint32_t i = 0; job->cohorts && i < FL_COHORT_MAX; i++) {
    const fli_job *leaf = job->cohorts->leaves[i];
    if (!leaf) continue;
    status->selected += leaf->n_members;
    status->accepted += leaf->n_counted;
    status->bytes_saved += leaf->bytes_saved;
  }
}

fl_status fl_server_get_status(const fl_server *server, uint32_t job,
                               fl_job_status *status)
{
  fli_job *found = NULL;
  fli_clear_error();
  if (!status) return fli_error(FL_E_ARGUMENT, "status: is NULL");
  const fl_status st = fli_server_find_job(server, job, &found);
  if (st != FL_OK) return st;
  fl_job_status full = {
      .struct_size = (uint32_t)sizeof full,
      .is_finished = found->phase == FLI_PHASE_FINISHED,
      .round = found->is_begun ? found->round : 0,
      .rounds = found->options.rounds,
      .model_version = fli_cohorts_first(found)->store.canonical.version,
      .n_weights = found->store.canonical.n,
      .clients = found->registry.live,
      .selected = found->n_members,
      .accepted = found->n_counted,
      .first_active = found->first_active,
      .is_paused = (uint32_t)found->is_paused,
      .bytes_saved = found->bytes_saved,
  };
  add_members(found, &full);
  return fli_options_store(status, &full, sizeof full, "fl_job_status");
}

fl_status fl_server_copy_weights(const fl_server *server, uint32_t job,
                                 float *weights, uint64_t count,
                                 uint64_t *version)
{
  fli_job *found = NULL;
  fli_clear_error();
  const fl_status st = fli_server_find_job(server, job, &found);
  if (st != FL_OK) return st;
  const fli_canonical *model = &fli_cohorts_first(found)->store.canonical;
  if (!weights) return fli_error(FL_E_ARGUMENT, "weights: is NULL");
  if (count != model->n)
    return fli_error(FL_E_DIM, "weights: got %llu, want %llu",
                     (unsigned long long)count, (unsigned long long)model->n);
  memcpy(weights, model->weights, (size_t)count * sizeof *weights);
  if (version) *version = model->version;
  return FL_OK;
}

fl_status fl_server_attach_slices(fl_server *server, uint32_t job,
                                  fl_slice_server *slices)
{
  fli_job *found = NULL;
  fli_clear_error();
  const fl_status st = fli_server_find_job(server, job, &found);
  return st != FL_OK ? st : fli_slices_attach(found, slices);
}

/* ---- bytes ---- */

/* The peer's session, a new one if need be; NULL when there is no room. */
static fl_status open_peer(fl_server *server, uint64_t number, fli_peer **peer)
{
  *peer = fli_peer_table_find(&server->peers, number);
  if (*peer) return FL_OK;
  if (server->peers.count < server->options.max_peers) {
    return fli_peer_new(peer, server, number);
  }
  fl_server_event event = fli_event_blank(FL_SERVER_PEER_REJECTED);
  event.peer = number;
  event.reason = FL_REJECT_LIMIT;
  fli_events_add(&server->events, &event, "",
                 "peers: got more than %u, want no more",
                 server->options.max_peers);
  return FL_OK;
}

static fl_status handle_frames(fli_peer *peer)
{
  fl_status st = FL_OK;
  while (st == FL_OK && !peer->is_closing) {
    fli_frame frame;
    fli_job *job = peer->participant ? peer->participant->job : NULL;
    st = fli_frame_next(&peer->parser, &frame);
    if (st == FL_E_EMPTY) return FL_OK;
    st = st == FL_OK ? fli_inbox_handle(peer, &frame)
                     : fli_inbox_refuse(peer, st);
    if (peer->participant) job = peer->participant->job;
    if (job) fli_job_advance(job);
    fli_ban_enforce(peer->server);
  }
  return st;
}

fl_status fl_server_recv(fl_server *server, uint64_t peer, const uint8_t *data,
                         size_t n)
{
  fli_peer *session = NULL;
  fli_clear_error();
  if (!server || (!data && n > 0) || peer == UINT64_MAX)
    return fli_error(FL_E_ARGUMENT, "fl_server_recv: NULL or no peer number");
  fl_status st = open_peer(server, peer, &session);
  if (st != FL_OK || !session || session->is_closing) return st;
  fli_frame_feed(&session->parser, data, n);
  st = handle_frames(session);
  if (st != FL_OK) fli_peer_close(session, 0);
  return st;
}

/* Whoever reads a model waits for nobody else's commit, and causes none. */
fl_status fl_server_send(fl_server *server, uint64_t peer, const uint8_t **data,
                         size_t *n)
{
  fli_clear_error();
  if (!server || !data || !n)
    return fli_error(FL_E_ARGUMENT, "fl_server_send: NULL argument");
  fli_peer *session = fli_peer_table_find(&server->peers, peer);
  fli_bytes_free(&server->handed);
  if (session && session->leaf.n_ready[FLI_READY_ANY] &&
      (fli_peer_is_midway(session) || fli_journal_commit(server))) {
    const fl_status st = fli_outbox_pump(session);
    if (st != FL_OK) return st;
    server->handed = session->queue;
    fli_bytes_init(&session->queue, server->context);
    fli_peer_touch(session);
  }
  *data = server->handed.data;
  *n = server->handed.size;
  return FL_OK;
}

int32_t fl_server_wants_close(const fl_server *server, uint64_t peer)
{
  if (!server) return 0;
  const fli_peer *session = fli_peer_table_find(&server->peers, peer);
  if (session) return session->is_closing;
  return server->peers.count >= server->options.max_peers;
}

int32_t fl_server_has_unsent(const fl_server *server, uint64_t peer)
{
  if (!server) return 0;
  const fli_peer *session = fli_peer_table_find(&server->peers, peer);
  return session && session->leaf.n_ready[FLI_READY_ANY] > 0;
}

fl_status fl_server_next_ready(const fl_server *server, uint64_t *peer)
{
  fli_clear_error();
  if (!server || !peer)
    return fli_error(FL_E_ARGUMENT, "fl_server_next_ready: NULL argument");
  const uint32_t kind =
      fli_journal_may_send(server) ? FLI_READY_ANY : FLI_READY_MIDWAY;
  const fli_peer *next =
      fli_peer_table_next_ready(&server->peers, kind, *peer + 1);
  if (!next) return FL_E_EMPTY;
  *peer = next->number;
  return FL_OK;
}

fl_status fl_server_disconnected(fl_server *server, uint64_t peer)
{
  fli_clear_error();
  if (!server) return fli_error(FL_E_ARGUMENT, "server: is NULL");
  fli_peer *session = fli_peer_table_find(&server->peers, peer);
  if (!session) return FL_OK;
  fli_job *job = session->participant ? session->participant->job : NULL;
  fli_peer_free(session);
  if (job) fli_job_advance(job);
  return FL_OK;
}

/* ---- time ---- */

fl_status fl_server_tick(fl_server *server, uint64_t now_ns)
{
  fli_clear_error();
  if (!server) return fli_error(FL_E_ARGUMENT, "server: is NULL");
  /* The clock may start anywhere: what happened before the first tick
   * happened then. It never runs backwards. */
  for (size_t i = 0; !server->has_clock && i < server->n_jobs; i++) {
    fli_job_rebase(server->jobs[i], now_ns);
  }
  if (!server->has_clock) fli_ban_rebase(server, now_ns);
  server->has_clock = 1;
  if (now_ns > server->now_ns) server->now_ns = now_ns;
  /* Which is never: a pause that ends then must not end at once. */
  if (server->now_ns == UINT64_MAX) server->now_ns--;
  for (size_t i = 0; i < server->n_jobs; i++) {
    fli_job_advance(server->jobs[i]);
  }
  return FL_OK;
}

fl_status fl_server_next_timeout(const fl_server *server, uint64_t *deadline_ns)
{
  fli_clear_error();
  if (!server || !deadline_ns)
    return fli_error(FL_E_ARGUMENT, "fl_server_next_timeout: NULL argument");
  uint64_t next = fli_journal_next_timeout(server);
  for (size_t i = 0; i < server->n_jobs; i++) {
    const uint64_t deadline = fli_job_next_timeout(server->jobs[i]);
    if (deadline < next) next = deadline;
  }
  *deadline_ns = next;
  return FL_OK;
}

fl_status fl_server_event_init(fl_server_event *event, size_t size)
{
  const fl_server_event full = {
      .struct_size = (uint32_t)sizeof full, .client_id = "", .text = ""};
  fli_clear_error();
  return fli_options_init(event, size, &full, sizeof full);
}

fl_status fl_server_poll(fl_server *server, fl_server_event *event)
{
  fli_clear_error();
  if (!server || !event)
    return fli_error(FL_E_ARGUMENT, "fl_server_poll: NULL argument");
  return fli_events_poll(&server->events, event);
}
