/* SPDX-License-Identifier: Apache-2.0 */
/* Writes what is kept for ever (kept.h): states of the present versions, and
 * sessions that are not there yet. What is there is never written again.
 *
 *   golden-make_kept FOLDER           write what is missing
 *   golden-make_kept --check FOLDER   exit 1 when a state is missing, or is not
 *                                     what this library saves
 *
 * After a state has got another version its file has another name, and the old
 * one stays. A version that no release has had may change still: remove its
 * files by hand then. */
#include "kept.h"

static const char *folder;
static int is_check;
static int n_wrong;

static void write_file(const char *name, const fli_bytes *bytes)
{
  char path[1024];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "wb");
  CHECK(file && fwrite(bytes->data, 1, bytes->size, file) == bytes->size);
  if (file) fclose(file);
  printf("%s: %zu bytes\n", path, bytes->size);
}

static void keep(const char *name, const fli_bytes *bytes)
{
  fli_bytes there;
  fli_bytes_init(&there, NULL);
  const int is_there = kept_read(folder, name, &there);
  const int is_same = is_there && there.size == bytes->size &&
                      memcmp(there.data, bytes->data, bytes->size) == 0;
  fli_bytes_free(&there);
  if (is_same) return;
  if (!is_there && !is_check) {
    write_file(name, bytes);
    return;
  }
  n_wrong++;
  fprintf(stderr, "%s/%s: %s\n", folder, name,
          is_there ? "is different" : "is missing");
}

/* Sessions were said by an older library, and stay what it said. */
static int is_said(const char *name)
{
  fli_bytes there;
  fli_bytes_init(&there, NULL);
  const int is_there = kept_read(folder, name, &there);
  fli_bytes_free(&there);
  return is_there;
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
  if (!is_said(name)) keep(name, &log);
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
    snprintf(name, sizeof name, "client-%u%s-%u.state", kept_version(&state),
             world->how->name, i);
    keep(name, &state);
    fli_bytes_free(&state);
  }
}

static void make_states(const mu_job *how)
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
  mu_init(world, how);
  world->store = store;
  kept_start(world);
  for (uint32_t i = 0; i < MU_PEOPLE; i++)
    mu_start_person(&world->people[i]);
  kept_to_the_middle(world);
  make_clients(world);
  MU_MUST(fl_server_commit(world->server));
  kept_save_server(world, &state);
  kept_dump(store, &dump);
  snprintf(name, sizeof name, "server-%u%s.state", kept_version(&state),
           how->name);
  keep(name, &state);
  snprintf(name, sizeof name, "store-%d-%u%s.dump", FLI_JOURNAL_SCHEMA,
           kept_version(&state), how->name);
  keep(name, &dump);
  kept_finish(world, hash);
  MU_MUST(fli_bytes_append(&end, hash, sizeof hash));
  snprintf(name, sizeof name, "end%s.hash", how->name);
  keep(name, &end);
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
  for (size_t i = 0; i < KEPT_KINDS; i++)
    make_states(&kept_kinds[i]);
  if (n_wrong > 0)
    fprintf(stderr,
            "what is saved has changed: raise the state's version, and\n"
            "  %s %s\n"
            "writes its files (docs/design/server.md, \"Versions\")\n",
            argv[0], folder);
  return n_wrong > 0 || atomic_load(&check_totals.failures) > 0;
}
