/* SPDX-License-Identifier: Apache-2.0 */
/* Writes what is kept for ever (kept.h): states of the present versions, and
 * sessions that are not there yet. Those that are there are left alone: they
 * were said by an older library, and stay what it said.
 *
 *   golden-make_kept FOLDER           write what is missing or different
 *   golden-make_kept --check FOLDER   exit 1 when a state is
 *
 * After a state has got another version its file has another name; the old one
 * stays. */
#include "kept.h"

static const char *folder;
static int is_check;
static int n_wrong;

static void keep(const char *name, const fli_bytes *bytes, int is_for_ever)
{
  char path[1024];
  fli_bytes there;
  fli_bytes_init(&there, NULL);
  const int is_there = kept_read(folder, name, &there);
  const int is_same = is_there && there.size == bytes->size &&
                      memcmp(there.data, bytes->data, bytes->size) == 0;
  fli_bytes_free(&there);
  if (is_same || (is_there && is_for_ever)) return;
  if (is_check) {
    n_wrong++;
    fprintf(stderr, "%s/%s: %s\n", folder, name,
            is_there ? "is different" : "is missing");
    return;
  }
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "wb");
  CHECK(file && fwrite(bytes->data, 1, bytes->size, file) == bytes->size);
  if (file) fclose(file);
  printf("%s: %zu bytes\n", path, bytes->size);
}

static void make_session(const mu_job *how)
{
  char name[64];
  uint8_t hash[FLI_HASH_BYTES];
  fli_bytes log;
  mu_world *world = malloc(sizeof *world);
  fli_bytes_init(&log, NULL);
  mu_begin(world, how);
  world->log = &log;
  mu_connect(world);
  kept_finish(world, hash);
  MU_MUST(fli_bytes_append(&log, hash, sizeof hash));
  snprintf(name, sizeof name, "wire-1-%s.session", how->name);
  keep(name, &log, 1);
  mu_end(world);
  free(world);
  fli_bytes_free(&log);
}

static void make_clients(const mu_world *world)
{
  for (uint32_t i = 0; i < MU_PEOPLE; i++) {
    char name[64];
    fli_bytes state;
    fli_bytes_init(&state, NULL);
    kept_save_client(world, i, &state);
    snprintf(name, sizeof name, "client-%u-%u.state", kept_version(&state), i);
    keep(name, &state, 0);
    fli_bytes_free(&state);
  }
}

static void make_states(void)
{
  char name[64];
  uint8_t hash[FLI_HASH_BYTES];
  fl_store *store = NULL;
  fli_bytes state, dump, end;
  mu_world *world = malloc(sizeof *world);
  fli_bytes_init(&state, NULL);
  fli_bytes_init(&dump, NULL);
  fli_bytes_init(&end, NULL);
  MU_MUST(fl_store_memory_new(&store, NULL));
  mu_init(world, &kept_state_job);
  world->store = store;
  mu_start(world);
  for (uint32_t i = 0; i < MU_PEOPLE; i++)
    mu_start_person(&world->people[i]);
  kept_to_the_middle(world);
  make_clients(world);
  MU_MUST(fl_server_commit(world->server));
  kept_save_server(world, &state);
  kept_dump(store, &dump);
  snprintf(name, sizeof name, "server-%u.state", kept_version(&state));
  keep(name, &state, 0);
  snprintf(name, sizeof name, "store-%d-%u.dump", FLI_JOURNAL_SCHEMA,
           kept_version(&state));
  keep(name, &dump, 0);
  kept_finish(world, hash);
  MU_MUST(fli_bytes_append(&end, hash, sizeof hash));
  keep("end.hash", &end, 0);
  mu_end(world);
  free(world);
  fl_store_free(store);
  fli_bytes_free(&state);
  fli_bytes_free(&dump);
  fli_bytes_free(&end);
}

int main(int argc, char **argv)
{
  is_check = argc == 3 && strcmp(argv[1], "--check") == 0;
  if (argc != 2 + is_check)
    return fprintf(stderr, "usage: %s [--check] FOLDER\n", argv[0]), 2;
  folder = argv[1 + is_check];
  for (size_t i = 0; i < KEPT_SESSIONS; i++)
    make_session(&kept_jobs[i]);
  make_states();
  if (n_wrong > 0)
    fprintf(stderr, "after a change that is meant: %s %s\n", argv[0], folder);
  return n_wrong > 0 || atomic_load(&check_totals.failures) > 0;
}
