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

/* ---- states -------------------------------------------------------------- */

static fl_status restore_client(mu_person *p, const fli_bytes *state)
{
  fl_client_options options;
  kept_source from = {state->data, state->size};
  const fl_reader reader = {.read = kept_read_hook, .user = &from};
  mu_person_options(p, &options);
  const fl_status st = fl_client_restore(&p->client, NULL, &options, &reader);
  if (st == FL_OK) mu_equip(p);
  return st;
}

/* The present versions, as the library itself says. */
static void present_versions(uint32_t *client, uint32_t *server)
{
  fli_bytes state;
  mu_world *world = malloc(sizeof *world);
  fli_bytes_init(&state, NULL);
  mu_begin(world, &kept_kinds[0]);
  kept_save_client(world, 0, &state);
  *client = kept_version(&state);
  state.size = 0;
  kept_save_server(world, &state);
  *server = kept_version(&state);
  mu_end(world);
  free(world);
  fli_bytes_free(&state);
}

/* What is kept of one kind of job, in one version of servers and one of
 * clients. */
typedef struct kept_set {
  const mu_job *how;
  uint32_t version;
  fli_bytes clients[MU_PEOPLE], server, dump, end;
} kept_set;

static void read_set(kept_set *set, const mu_job *how, uint32_t server,
                     uint32_t client)
{
  char name[64];
  set->how = how;
  set->version = server;
  for (uint32_t i = 0; i < MU_PEOPLE; i++) {
    snprintf(name, sizeof name, "client-%u%s-%u.state", client, how->name, i);
    kept_must_read(folder, &set->clients[i], name);
  }
  snprintf(name, sizeof name, "server-%u%s.state", server, how->name);
  kept_must_read(folder, &set->server, name);
  snprintf(name, sizeof name, "store-%d-%u%s.dump", FLI_JOURNAL_SCHEMA, server,
           how->name);
  kept_must_read(folder, &set->dump, name);
  snprintf(name, sizeof name, "end%s.hash", how->name);
  kept_must_read(folder, &set->end, name);
}

static void free_set(kept_set *set)
{
  for (uint32_t i = 0; i < MU_PEOPLE; i++)
    fli_bytes_free(&set->clients[i]);
  fli_bytes_free(&set->server);
  fli_bytes_free(&set->dump);
  fli_bytes_free(&set->end);
}

/* The store's state is the present version's as soon as anything is committed:
 * an older library that is put back says so, and does not lose what this one
 * has done. */
static void check_store(const fl_store *store, uint32_t present)
{
  const void *head = NULL, *piece = NULL;
  size_t n = 0;
  uint8_t key[FLI_PIECE_KEY_BYTES];
  MU_MUST(fl_store_get(store, "server/head", 11, &head, &n));
  fli_journal_piece_key(key, 0);
  MU_MUST(fl_store_get(store, key, sizeof key, &piece, &n));
  const fli_bytes state = {.data = (uint8_t *)(uintptr_t)piece, .size = n};
  CHECK_EQ_U64(kept_version(&state), present);
}

/* From the store, or from the server's state. Nothing is trained again, for
 * both clients have. */
static void go_on(const kept_set *set, int from_store, uint32_t present)
{
  uint8_t hash[FLI_HASH_BYTES];
  fl_store *store = NULL;
  fl_server_options options;
  mu_world *world = malloc(sizeof *world);
  mu_init(world, set->how);
  if (from_store) {
    MU_MUST(fl_store_memory_new(&store, NULL));
    kept_undump(&set->dump, store);
    world->store = store;
    mu_server_options(world, &options);
    CHECK_OK(fl_server_recover(&world->server, world->context, &options));
    if (set->how->has_slices) mu_add_slices(world);
    MU_MUST(fl_server_commit(world->server));
    check_store(store, present);
  } else {
    CHECK_OK(kept_restore_server(world, &set->server));
  }
  for (uint32_t i = 0; i < MU_PEOPLE; i++)
    CHECK_OK(restore_client(&world->people[i], &set->clients[i]));
  CHECK_EQ_U64(kept_count(world), 1);
  if (set->how->is_enrolled)
    CHECK(fl_server_ban_left(world->server, "somebody") > 0);
  world->next_peer = 100;
  mu_connect(world);
  kept_finish(world, hash);
  CHECK_EQ_U64(set->end.size, sizeof hash);
  CHECK_EQ_MEM(hash, set->end.data, sizeof hash);
  mu_end(world);
  free(world);
  fl_store_free(store);
}

static void saved_states_of_every_version_go_on(void)
{
  uint32_t client = 0, server = 0;
  present_versions(&client, &server);
  for (uint32_t s = KEPT_FIRST_SERVER; s <= server; s++) {
    for (uint32_t c = KEPT_FIRST_CLIENT; c <= client; c++) {
      for (size_t i = 0; i < KEPT_KINDS; i++) {
        kept_set set;
        if (!kept_is_known(&kept_kinds[i], s, c)) continue;
        read_set(&set, &kept_kinds[i], s, c);
        go_on(&set, 0, server);
        go_on(&set, 1, server);
        free_set(&set);
      }
    }
  }
}

/* A server that is saved right after it was read says what one of the present
 * version would: nothing of an old state is lost or made up. Allowances came
 * with version 8; of those before, all are whole. */
static void an_old_state_is_saved_as_the_present_version(void)
{
  uint32_t client = 0, server = 0;
  present_versions(&client, &server);
  for (size_t i = 0; i < KEPT_KINDS; i++) {
    fli_bytes first, saved;
    kept_set old;
    if (kept_kinds[i].is_enrolled) continue;
    fli_bytes_init(&first, NULL);
    for (uint32_t s = server + 1; s-- > KEPT_FIRST_SERVER;) {
      if (!kept_is_known(&kept_kinds[i], s, client)) continue;
      mu_world *world = malloc(sizeof *world);
      read_set(&old, &kept_kinds[i], s, client);
      fli_bytes_init(&saved, NULL);
      mu_init(world, &kept_kinds[i]);
      CHECK_OK(kept_restore_server(world, &old.server));
      kept_save_server(world, &saved);
      CHECK_EQ_U64(kept_version(&saved), server);
      if (s == server)
        MU_MUST(fli_bytes_append(&first, saved.data, saved.size));
      CHECK_EQ_U64(saved.size, first.size);
      CHECK_EQ_MEM(saved.data, first.data, first.size);
      mu_end(world);
      free(world);
      fli_bytes_free(&saved);
      free_set(&old);
    }
    fli_bytes_free(&first);
  }
}

static void must_name(uint32_t got, uint32_t least, uint32_t most)
{
  char want[64];
  snprintf(want, sizeof want, "got %u, want %u..%u", got, least, most);
  CHECK(strstr(fl_last_error(), want) != NULL);
}

/* A library that is too old, or too new by far, says so with both numbers, and
 * does not take the state for damage. */
static void saved_states_of_other_versions_are_refused_as_such(void)
{
  uint32_t client = 0, server = 0;
  kept_set set;
  fl_store *store = NULL;
  fl_server_options options;
  mu_world *world = malloc(sizeof *world);
  present_versions(&client, &server);
  read_set(&set, &kept_kinds[0], server, client);
  mu_init(world, &kept_kinds[0]);
  for (uint32_t i = 0; i < 2; i++) {
    const uint32_t s = i ? server + 1 : KEPT_FIRST_SERVER - 1;
    const uint32_t c = i ? client + 1 : KEPT_FIRST_CLIENT - 1;
    kept_set_version(&set.server, s);
    CHECK_STATUS(kept_restore_server(world, &set.server), FL_E_VERSION);
    must_name(s, i ? 1 : KEPT_FIRST_SERVER, server);
    kept_set_version(&set.clients[0], c);
    CHECK_STATUS(restore_client(&world->people[0], &set.clients[0]),
                 FL_E_VERSION);
    must_name(c, i ? 1 : KEPT_FIRST_CLIENT, client);
  }
  free_set(&set);
  kept_must_read(folder, &set.server, "server-6.state");
  CHECK_STATUS(kept_restore_server(world, &set.server), FL_E_VERSION);
  fli_bytes_free(&set.server);
  kept_must_read(folder, &set.dump, "store-1-6.dump");
  MU_MUST(fl_store_memory_new(&store, NULL));
  kept_undump(&set.dump, store);
  world->store = store;
  mu_server_options(world, &options);
  CHECK_STATUS(fl_server_recover(&world->server, world->context, &options),
               FL_E_VERSION);
  fli_bytes_free(&set.dump);
  fl_store_free(store);
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
  CHECK_CASE(saved_states_of_every_version_go_on);
  CHECK_CASE(an_old_state_is_saved_as_the_present_version);
  CHECK_CASE(saved_states_of_other_versions_are_refused_as_such);
  CHECK_CASE(peers_meet_in_a_version_that_both_speak);
  CHECK_CASE(a_version_that_was_not_offered_is_refused_by_the_client);
  return check_report();
}
