/* SPDX-License-Identifier: Apache-2.0 */
/* What older libraries have said and saved (kept.h), read by this one: their
 * clients finish with this server, this client finishes with their server,
 * states of every version go on or are refused as what they are, and peers
 * that speak other versions as well meet in the one that both know.
 *
 *   golden-kept FOLDER */
#include "kept.h"

static const char *folder;

/* ---- sessions -------------------------------------------------------------
 */

typedef struct record {
  uint64_t peer;
  int is_up;
  const uint8_t *data;
  size_t n;
} record;

/* Take the next record off; 0 = only the hash is left. */
static int next_record(const fli_bytes *log, size_t *at, record *out)
{
  if (*at + 12 + FLI_HASH_BYTES > log->size) return 0;
  const uint8_t *head = log->data + *at;
  *out = (record){fli_load_u32(head), fli_load_u32(head + 4) == 1, head + 12,
                  fli_load_u32(head + 8)};
  *at += 12 + out->n;
  CHECK(*at + FLI_HASH_BYTES <= log->size);
  return 1;
}

static void read_session(const mu_job *how, fli_bytes *log)
{
  char name[64];
  fli_bytes_init(log, NULL);
  snprintf(name, sizeof name, "wire-1-%s.session", how->name);
  CHECK(kept_read(folder, name, log) && log->size > FLI_HASH_BYTES);
}

static const uint8_t *hash_behind(const fli_bytes *log)
{
  return log->data + log->size - FLI_HASH_BYTES;
}

/* What this server answers an old client; it has to be of a frame's form. */
static uint32_t drain(mu_world *world, uint64_t peer, int type)
{
  fli_frame_parser parser;
  fli_frame frame;
  uint32_t n_found = 0;
  const uint8_t *data = NULL;
  size_t n = 1;
  fli_frame_parser_init(&parser, NULL, FLI_FRAME_MAX_BODY);
  while (n > 0) {
    MU_MUST(fl_server_send(world->server, peer, &data, &n));
    fli_frame_feed(&parser, data, n);
    while (fli_frame_next(&parser, &frame) == FL_OK) {
      CHECK(frame.type != FLI_MSG_REJECT);
      CHECK(frame.version == 1);
      n_found += frame.type == type;
    }
  }
  fli_frame_parser_free(&parser);
  return n_found;
}

static void old_client(const mu_job *how)
{
  fli_bytes log;
  size_t at = 0;
  record said;
  uint8_t hash[FLI_HASH_BYTES];
  uint32_t n_done = 0;
  mu_world *world = malloc(sizeof *world);
  read_session(how, &log);
  mu_begin(world, how);
  while (next_record(&log, &at, &said)) {
    if (!said.is_up) continue;
    MU_MUST(fl_server_recv(world->server, said.peer, said.data, said.n));
    mu_events(world);
    for (uint64_t peer = 1; peer <= MU_PEOPLE; peer++)
      n_done += drain(world, peer, FLI_MSG_DONE);
  }
  CHECK_EQ_U64(world->finished, 2);
  CHECK_EQ_U64(n_done, MU_PEOPLE);
  for (uint32_t reason = 1; reason < MU_REASONS; reason++)
    CHECK_EQ_U64(world->reasons[reason], 0);
  mu_hash(world, hash);
  uint8_t want[FLI_HASH_BYTES];
  fli_hash(want, world->server->jobs[0]->store.hash, FLI_HASH_BYTES);
  CHECK_EQ_MEM(hash, want, sizeof want);
  CHECK_EQ_MEM(hash, hash_behind(&log), sizeof hash);
  mu_end(world);
  free(world);
  fli_bytes_free(&log);
}

static void old_clients_finish_with_this_server(void)
{
  for (size_t i = 0; i < KEPT_SESSIONS; i++)
    old_client(&kept_jobs[i]);
}

/* What the client has to say is of no interest here but for its form. */
static uint32_t listen(mu_person *p)
{
  const uint8_t *data = NULL;
  size_t n = 1;
  uint32_t events = 0;
  fl_client_event event;
  MU_MUST(fl_client_event_init(&event, sizeof event));
  do {
    MU_MUST(fl_client_poll(p->client, 0, &event));
    events |= 1u << event.kind;
  } while (event.kind != FL_CLIENT_IDLE);
  while (n > 0)
    MU_MUST(fl_client_send(p->client, &data, &n));
  return events;
}

static void old_server(const mu_job *how, uint32_t index)
{
  fli_bytes log;
  size_t at = 0;
  record said;
  uint32_t events = 0;
  float weights[KEPT_SMALL + 44];
  uint64_t version = 0;
  uint8_t hash[FLI_HASH_BYTES];
  fli_canonical model;
  mu_world *world = malloc(sizeof *world);
  read_session(how, &log);
  mu_begin(world, how);
  mu_person *p = &world->people[index];
  events |= listen(p);
  while (next_record(&log, &at, &said)) {
    if (said.is_up || said.peer != index + 1) continue;
    MU_MUST(fl_client_recv(p->client, said.data, said.n));
    events |= listen(p);
  }
  CHECK(events & (1u << FL_CLIENT_ACCEPTED));
  CHECK(events & (1u << FL_CLIENT_DONE));
  CHECK(!(events & (1u << FL_CLIENT_ABORTED | 1u << FL_CLIENT_STALE)));
  MU_MUST(
      fl_client_copy_weights(p->client, weights, KEPT_SMALL + 44, &version));
  CHECK_EQ_U64(version, 2);
  MU_MUST(fli_canonical_init(&model, NULL, KEPT_SMALL + 44));
  memcpy(model.weights, weights, sizeof weights);
  model.is_valid = 1;
  model.version = version;
  fli_canonical_hash(&model, hash);
  fli_hash(hash, hash, sizeof hash);
  CHECK_EQ_MEM(hash, hash_behind(&log), sizeof hash);
  fli_canonical_free(&model);
  mu_end(world);
  free(world);
  fli_bytes_free(&log);
}

static void this_client_finishes_with_an_old_server(void)
{
  for (size_t i = 0; i < KEPT_SESSIONS; i++)
    for (uint32_t index = 0; index < MU_PEOPLE; index++)
      old_server(&kept_jobs[i], index);
}

/* ---- states ---------------------------------------------------------------
 */

static fl_status restore_client(mu_person *p, const fli_bytes *state)
{
  fl_client_options options;
  kept_source from = {state->data, state->size};
  const fl_reader reader = {.read = kept_read_hook, .user = &from};
  mu_person_options(p, &options);
  return fl_client_restore(&p->client, NULL, &options, &reader);
}

static fl_status restore_server(mu_world *world, const fli_bytes *state)
{
  fl_server_options options;
  kept_source from = {state->data, state->size};
  const fl_reader reader = {.read = kept_read_hook, .user = &from};
  mu_server_options(world, &options);
  return fl_server_restore(&world->server, world->context, &options, &reader);
}

/* The present versions, as the library itself says. */
static void present_versions(uint32_t *client, uint32_t *server)
{
  fli_bytes state;
  mu_world *world = malloc(sizeof *world);
  fli_bytes_init(&state, NULL);
  mu_begin(world, &kept_state_job);
  kept_save_client(world, 0, &state);
  *client = kept_version(&state);
  state.size = 0;
  kept_save_server(world, &state);
  *server = kept_version(&state);
  mu_end(world);
  free(world);
  fli_bytes_free(&state);
}

/* `dump`: of a store; else the state of a server. Nothing is trained again, for
 * both clients have. */
static void go_on(const fli_bytes clients[MU_PEOPLE], const fli_bytes *server,
                  const fli_bytes *dump)
{
  uint8_t hash[FLI_HASH_BYTES];
  fl_store *store = NULL;
  fl_server_options options;
  fli_bytes end;
  mu_world *world = malloc(sizeof *world);
  fli_bytes_init(&end, NULL);
  mu_init(world, &kept_state_job);
  if (dump) {
    MU_MUST(fl_store_memory_new(&store, NULL));
    kept_undump(dump, store);
    world->store = store;
    mu_server_options(world, &options);
    CHECK_OK(fl_server_recover(&world->server, world->context, &options));
  } else {
    CHECK_OK(restore_server(world, server));
  }
  for (uint32_t i = 0; i < MU_PEOPLE; i++)
    CHECK_OK(restore_client(&world->people[i], &clients[i]));
  CHECK_EQ_U64(world->server->jobs[0]->n_counted, 1);
  world->next_peer = 100;
  mu_connect(world);
  kept_finish(world, hash);
  CHECK(kept_read(folder, "end.hash", &end) && end.size == sizeof hash);
  CHECK_EQ_MEM(hash, end.data, sizeof hash);
  mu_end(world);
  free(world);
  fl_store_free(store);
  fli_bytes_free(&end);
}

static int read_kept(fli_bytes *out, const char *format, uint32_t a, uint32_t b)
{
  char name[64];
  fli_bytes_init(out, NULL);
  snprintf(name, sizeof name, format, a, b);
  return kept_read(folder, name, out);
}

static void saved_states_of_the_present_versions_go_on(void)
{
  uint32_t client = 0, server = 0;
  fli_bytes clients[MU_PEOPLE], state, dump;
  present_versions(&client, &server);
  for (uint32_t i = 0; i < MU_PEOPLE; i++)
    CHECK(read_kept(&clients[i], "client-%u-%u.state", client, i));
  CHECK(read_kept(&state, "server-%u.state", server, 0));
  CHECK(read_kept(&dump, "store-%u-%u.dump", FLI_JOURNAL_SCHEMA, server));
  go_on(clients, &state, NULL);
  go_on(clients, NULL, &dump);
  for (uint32_t i = 0; i < MU_PEOPLE; i++)
    fli_bytes_free(&clients[i]);
  fli_bytes_free(&state);
  fli_bytes_free(&dump);
}

/* Older ones that are kept: this library says that it cannot read them, and
 * does not take them for damage; newer ones, too. */
static void saved_states_of_other_versions_are_refused_as_such(void)
{
  uint32_t client = 0, server = 0;
  fli_bytes state;
  mu_world *world = malloc(sizeof *world);
  present_versions(&client, &server);
  mu_init(world, &kept_state_job);
  for (uint32_t v = 1; v <= server; v++) {
    const int is_there = read_kept(&state, "server-%u.state", v, 0);
    if (is_there && v < server)
      CHECK_STATUS(restore_server(world, &state), FL_E_VERSION);
    if (is_there && v == server) {
      fli_store_u32(state.data + 8, v + 1);
      fli_hash(state.data + state.size - FLI_HASH_BYTES, state.data,
               state.size - FLI_HASH_BYTES);
      CHECK_STATUS(restore_server(world, &state), FL_E_VERSION);
    }
    fli_bytes_free(&state);
  }
  for (uint32_t v = 1; v <= client; v++) {
    const int is_there = read_kept(&state, "client-%u-%u.state", v, 0);
    if (is_there && v == client) fli_store_u32(state.data + 8, v + 1);
    if (is_there && v == client)
      fli_hash(state.data + state.size - FLI_HASH_BYTES, state.data,
               state.size - FLI_HASH_BYTES);
    if (is_there)
      CHECK_STATUS(restore_client(&world->people[0], &state), FL_E_VERSION);
    fli_bytes_free(&state);
  }
  mu_end(world);
  free(world);
}

/* ---- versions of the wire -------------------------------------------------
 */

/* Say HELLO as a peer that speaks min..max; the version that is agreed, or 0
 * when it is refused for it. */
static uint32_t agreed(uint32_t min, uint32_t max)
{
  fli_bytes out;
  fli_frame_parser parser;
  fli_frame frame;
  fli_welcome welcome;
  fli_reject reject;
  uint32_t version = UINT32_MAX;
  const uint8_t *data = NULL;
  size_t n = 0;
  const fli_hello hello = {.version_min = min,
                           .version_max = max,
                           .client_id = "other",
                           .capabilities = FLI_CAP_TRAIN,
                           .samples = 1};
  mu_world *world = malloc(sizeof *world);
  fli_bytes_init(&out, NULL);
  fli_frame_parser_init(&parser, NULL, FLI_FRAME_MAX_BODY);
  mu_begin(world, &kept_jobs[0]);
  MU_MUST(fli_write_hello(&out, &hello));
  MU_MUST(fl_server_recv(world->server, 7, out.data, out.size));
  MU_MUST(fl_server_send(world->server, 7, &data, &n));
  fli_frame_feed(&parser, data, n);
  MU_MUST(fli_frame_next(&parser, &frame));
  if (frame.type == FLI_MSG_WELCOME) {
    MU_MUST(fli_parse_welcome(&welcome, frame.body, frame.size));
    version = welcome.version;
  } else if (frame.type == FLI_MSG_REJECT) {
    MU_MUST(fli_parse_reject(&reject, frame.body, frame.size));
    if (reject.reason == FL_REJECT_VERSION) version = 0;
  }
  fli_frame_parser_free(&parser);
  fli_bytes_free(&out);
  mu_end(world);
  free(world);
  return version;
}

static void peers_meet_in_a_version_that_both_speak(void)
{
  const uint32_t least = fl_protocol_version_min();
  const uint32_t most = fl_protocol_version_max();
  CHECK_EQ_U64(agreed(least, least), least);
  CHECK_EQ_U64(agreed(least, most), most);
  CHECK_EQ_U64(agreed(least, most + 1), most);
  CHECK_EQ_U64(agreed(least, UINT32_MAX), most);
  CHECK_EQ_U64(agreed(most, most + 3), most);
  CHECK_EQ_U64(agreed(most + 1, most + 1), 0);
  CHECK_EQ_U64(agreed(most + 1, UINT32_MAX), 0);
  if (least > 1) CHECK_EQ_U64(agreed(1, least - 1), 0);
}

/* A server that answers with another version than one that was offered. */
static void a_version_that_was_not_offered_is_refused_by_the_client(void)
{
  fli_bytes log, out;
  size_t at = 0;
  record said = {0};
  fli_frame_parser parser;
  fli_frame frame;
  fli_welcome welcome;
  mu_world *world = malloc(sizeof *world);
  fli_bytes_init(&out, NULL);
  read_session(&kept_jobs[0], &log);
  while (next_record(&log, &at, &said) && said.is_up)
    ;
  fli_frame_parser_init(&parser, NULL, FLI_FRAME_MAX_BODY);
  fli_frame_feed(&parser, said.data, said.n);
  MU_MUST(fli_frame_next(&parser, &frame));
  MU_MUST(fli_parse_welcome(&welcome, frame.body, frame.size));
  welcome.version = fl_protocol_version_max() + 1;
  MU_MUST(fli_write_welcome(&out, &welcome));
  mu_begin(world, &kept_jobs[0]);
  mu_person *p = &world->people[0];
  (void)listen(p);
  CHECK_STATUS(fl_client_recv(p->client, out.data, out.size), FL_E_RANGE);
  CHECK_EQ_U64(listen(p), 1u << FL_CLIENT_IDLE);
  fli_frame_parser_free(&parser);
  mu_end(world);
  free(world);
  fli_bytes_free(&log);
  fli_bytes_free(&out);
}

int main(int argc, char **argv)
{
  if (argc != 2) return fprintf(stderr, "usage: %s FOLDER\n", argv[0]), 2;
  folder = argv[1];
  CHECK_CASE(old_clients_finish_with_this_server);
  CHECK_CASE(this_client_finishes_with_an_old_server);
  CHECK_CASE(saved_states_of_the_present_versions_go_on);
  CHECK_CASE(saved_states_of_other_versions_are_refused_as_such);
  CHECK_CASE(peers_meet_in_a_version_that_both_speak);
  CHECK_CASE(a_version_that_was_not_offered_is_refused_by_the_client);
  return check_report();
}
