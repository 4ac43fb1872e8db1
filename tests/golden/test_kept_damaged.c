/* SPDX-License-Identifier: Apache-2.0 */
/* Old states (kept.h) that are torn, changed, or read without memory: what
 * holds of a state of the present version holds of them.
 *
 *   golden-kept_damaged FOLDER */
#include "kept.h"

#include "oom/oom.h"

enum { HEADER = 20, PROBES = 300, CLIENT_VERSIONS = 100 };

static const char *folder;

static void read_state(fli_bytes *out, const mu_job *how, uint32_t version)
{
  char name[64];
  snprintf(name, sizeof name, "server-%u%s.state", version, how->name);
  kept_must_read(folder, out, name);
}

/* Of a server that nobody has ever talked to. */
static fl_status restore(fl_server **server, fl_context *context,
                         const fli_bytes *state)
{
  kept_source from = {state->data, state->size};
  const fl_reader reader = {.read = kept_read_hook, .user = &from};
  return fl_server_restore(server, context, NULL, &reader);
}

/* For every kind and old version. */
static void for_all(void (*look)(fli_bytes *state))
{
  for (uint32_t v = KEPT_FIRST_SERVER; v < FLI_SERVER_STATE_VERSION; v++) {
    for (size_t i = 0; i < KEPT_KINDS; i++) {
      fli_bytes state;
      if (!kept_is_known(&kept_kinds[i], v, CLIENT_VERSIONS)) continue;
      read_state(&state, &kept_kinds[i], v);
      look(&state);
      fli_bytes_free(&state);
    }
  }
}

/* ---- servers ------------------------------------------------------------- */

static void tear(fli_bytes *state)
{
  const size_t whole = state->size;
  const size_t step = 1 + whole / PROBES;
  fl_server *server = NULL;
  for (state->size = 0; state->size < whole; state->size += step) {
    const fl_status st = restore(&server, NULL, state);
    CHECK(st == FL_E_TRUNCATED || st == FL_E_FORMAT);
    CHECK(server == NULL);
  }
  state->size = whole;
}

static void old_states_that_are_torn_are_refused(void)
{
  for_all(tear);
}

static void flip(fli_bytes *state)
{
  const size_t step = 1 + state->size / PROBES;
  fl_server *server = NULL;
  for (size_t at = 0; at < state->size; at += step) {
    state->data[at] ^= 0x20;
    CHECK(restore(&server, NULL, state) != FL_OK);
    CHECK(server == NULL);
    state->data[at] ^= 0x20;
  }
}

static void old_states_with_a_changed_byte_are_refused(void)
{
  for_all(flip);
}

/* What a server that read it would do with it. */
static void use(fl_server *server)
{
  fl_server_event event;
  fli_bytes saved;
  const fl_writer writer = {.write = kept_write_hook, .user = &saved};
  fli_bytes_init(&saved, NULL);
  MU_MUST(fl_server_event_init(&event, sizeof event));
  MU_MUST(fl_server_tick(server, 1));
  MU_MUST(fl_server_tick(server, UINT64_C(3600) * MU_SECOND));
  while (fl_server_poll(server, &event) == FL_OK) {
  }
  fli_clear_error();
  const fl_status st = fl_server_save(server, &writer);
  CHECK(st == FL_OK);
  CHECK_EQ_U64(kept_version(&saved), FLI_SERVER_STATE_VERSION);
  fli_bytes_free(&saved);
}

/* Under a right hash: refused with a word, or a server like any other. */
static void change(fli_bytes *state)
{
  static const uint8_t with[] = {0x01, 0x80, 0xff};
  const size_t end = state->size - FLI_HASH_BYTES;
  const size_t step = 1 + (end - HEADER) / PROBES;
  for (size_t at = HEADER; at < end; at += step) {
    const uint8_t was = state->data[at];
    for (size_t i = 0; i < sizeof with; i++) {
      fl_server *server = NULL;
      state->data[at] = was ^ with[i];
      kept_seal(state);
      if (restore(&server, NULL, state) == FL_OK) {
        use(server);
      } else {
        CHECK(server == NULL && strlen(fl_last_error()) > 0);
      }
      fl_server_free(server);
    }
    state->data[at] = was;
  }
  kept_seal(state);
}

static void old_states_changed_under_a_right_hash_are_refused_or_harmless(void)
{
  for_all(change);
}

/* A state says its version, and nothing is guessed from its layout. */
static void relabel(fli_bytes *state)
{
  fl_server *server = NULL;
  kept_set_version(state, FLI_SERVER_STATE_VERSION);
  CHECK_STATUS(restore(&server, NULL, state), FL_E_FORMAT);
}

static void old_states_that_say_to_be_new_are_refused(void)
{
  for_all(relabel);
}

static fl_status restore_without_memory(fl_context *context, void *arg)
{
  fl_server *server = NULL;
  const fl_status st = restore(&server, context, arg);
  fl_server_free(server);
  return st;
}

static void look_without_memory(fli_bytes *state)
{
  oom_loop(restore_without_memory, state);
}

static void old_states_that_are_read_without_memory_give_all_of_it_back(void)
{
  for_all(look_without_memory);
}

/* ---- clients, of every version ------------------------------------------- */

static void for_all_clients(const mu_job *how,
                            void (*look)(mu_person *p, fli_bytes *state))
{
  mu_world *world = malloc(sizeof *world);
  mu_init(world, how);
  for (uint32_t v = KEPT_FIRST_CLIENT; v <= CLIENT_VERSIONS; v++) {
    char name[64];
    fli_bytes state;
    snprintf(name, sizeof name, "client-%u%s-0.state", v, how->name);
    fli_bytes_init(&state, NULL);
    if (kept_read(folder, name, &state)) look(&world->people[0], &state);
    CHECK(state.size > 0 || v > KEPT_FIRST_CLIENT ||
          !kept_is_known(how, FLI_SERVER_STATE_VERSION, v));
    fli_bytes_free(&state);
  }
  mu_end(world);
  free(world);
}

static fl_status restore_client(mu_person *p, const fli_bytes *state)
{
  fl_client_options options;
  kept_source from = {state->data, state->size};
  const fl_reader reader = {.read = kept_read_hook, .user = &from};
  mu_person_options(p, &options);
  return fl_client_restore(&p->client, NULL, &options, &reader);
}

/* What one that read it would say first. */
static void speak(mu_person *p)
{
  const uint8_t *data = NULL;
  size_t n = 0;
  fl_client_event event;
  MU_MUST(fl_client_event_init(&event, sizeof event));
  MU_MUST(fl_client_poll(p->client, 1, &event));
  MU_MUST(fl_client_send(p->client, &data, &n));
}

static void damage_client(mu_person *p, fli_bytes *state)
{
  const size_t whole = state->size;
  const size_t step = 1 + whole / PROBES;
  for (state->size = 0; state->size < whole; state->size += step)
    CHECK(restore_client(p, state) != FL_OK);
  state->size = whole;
  for (size_t at = HEADER; at < whole - FLI_HASH_BYTES; at += step) {
    state->data[at] ^= 0x81;
    CHECK(restore_client(p, state) != FL_OK);
    kept_seal(state);
    const fl_status st = restore_client(p, state);
    if (st == FL_OK)
      speak(p);
    else
      CHECK(p->client == NULL && strlen(fl_last_error()) > 0);
    fl_client_free(p->client);
    p->client = NULL;
    state->data[at] ^= 0x81;
    kept_seal(state);
  }
}

static void states_of_clients_that_are_damaged_are_refused_or_harmless(void)
{
  for (size_t i = 0; i < KEPT_KINDS; i++)
    for_all_clients(&kept_kinds[i], damage_client);
}

int main(int argc, char **argv)
{
  if (argc != 2) return fprintf(stderr, "usage: %s FOLDER\n", argv[0]), 2;
  folder = argv[1];
  CHECK_CASE(old_states_that_are_torn_are_refused);
  CHECK_CASE(old_states_with_a_changed_byte_are_refused);
  CHECK_CASE(old_states_changed_under_a_right_hash_are_refused_or_harmless);
  CHECK_CASE(old_states_that_say_to_be_new_are_refused);
  CHECK_CASE(old_states_that_are_read_without_memory_give_all_of_it_back);
  CHECK_CASE(states_of_clients_that_are_damaged_are_refused_or_harmless);
  return check_report();
}
