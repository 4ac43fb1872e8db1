/* SPDX-License-Identifier: Apache-2.0 */
/* What is kept for ever in tests/golden/kept, and how it is made: two clients
 * and a server that train two rounds.
 *
 *   wire-1-<codec>.session     all that was said, in order, by the library that
 *                              spoke version 1 alone; then the model's hash
 *   client-<V><kind>-<I>.state client I in the middle of round 1: it has
 *                              trained, and encoded on the agreed scale
 *   server-<V><kind>.state     the server then: one of the two is counted
 *   store-<S>-<V><kind>.dump   a store then: u32 key bytes | u32 bytes | both
 *   end<kind>.hash             of the model that all of them end with
 *   aggregator-<V>.sqlite      the file of an fl-aggregator (--hidden=1) whose
 *                              fourth round was running (tests/programs)
 *
 * V is a state's version, S the schema of a store's keys, a kind is one of
 * kept_kinds: between them they have all that a server can save. */
#ifndef KEPT_H
#define KEPT_H

#define MU_PEOPLE 2
#include "net/mu_world.h"
#include "server/state.h"
#include "store/store.h"

enum {
  KEPT_SESSIONS = 2,
  KEPT_KINDS = 11,
  KEPT_SMALL = 16,
  KEPT_FIRST_SERVER = 7, /* the oldest states that are read */
  KEPT_FIRST_CLIENT = 2
};

static const mu_job kept_jobs[KEPT_SESSIONS] = {
    {.name = "f32", .codec = FL_CODEC_F32, .n = KEPT_SMALL, .rounds = 2},
    {.name = "thc",
     .codec = FL_CODEC_THC,
     .n = KEPT_SMALL,
     .rounds = 2,
     .evaluate_every = 1},
};

static const mu_job kept_kinds[KEPT_KINDS] = {
    /* with error feedback, so that clients have as much to keep as they can */
    {.name = "",
     .codec = FL_CODEC_THC,
     .thc_mode = FL_THC_UNIFORM,
     .n = KEPT_SMALL,
     .rounds = 2,
     .has_feedback = 1},
    {.name = "-public",
     .codec = FL_CODEC_THC,
     .scale_mode = FL_SCALE_PUBLIC,
     .n = KEPT_SMALL,
     .rounds = 2,
     .evaluate_every = 1,
     .momentum = .5f},
    {.name = "-table",
     .codec = FL_CODEC_THC,
     .thc_mode = FL_THC_TABLE,
     .n = KEPT_SMALL,
     .rounds = 2},
    {.name = "-freezing",
     .codec = FL_CODEC_THC,
     .n = KEPT_SMALL,
     .rounds = 2,
     .freezes = 1},
    {.name = "-strategy",
     .codec = FL_CODEC_THC,
     .n = KEPT_SMALL,
     .rounds = 2,
     .rule = FL_RULE_MEDIAN,
     .step = FL_STEP_ADAM},
    {.name = "-cohorts",
     .codec = FL_CODEC_THC,
     .n = KEPT_SMALL,
     .rounds = 2,
     .cohorts = FL_COHORT_SKETCH},
    {.name = "-enrolled",
     .codec = FL_CODEC_F32,
     .n = KEPT_SMALL,
     .rounds = 2,
     .is_enrolled = 1},
    {.name = "-buffered",
     .codec = FL_CODEC_THC,
     .thc_mode = FL_THC_UNIFORM,
     .scale_mode = FL_SCALE_PUBLIC,
     .n = KEPT_SMALL,
     .rounds = 2,
     .buffer = 2},
    {.name = "-selection",
     .codec = FL_CODEC_BF16,
     .n = KEPT_SMALL,
     .rounds = 2,
     .selection = FL_SELECT_OORT},
    {.name = "-slices",
     .codec = FL_CODEC_THC,
     .n = KEPT_SMALL,
     .rounds = 2,
     .has_slices = 1},
    {.name = "-apart",
     .codec = FL_CODEC_THC,
     .n = KEPT_SMALL,
     .rounds = 2,
     .cohorts = FL_COHORT_SKETCH,
     .pace = FL_COHORT_APART},
};

/* 0: a kind of job that there was not yet in one of these versions. */
static inline int kept_is_known(const mu_job *how, uint32_t server,
                                uint32_t client)
{
  return how->pace == 0 || (server >= 8 && client >= 3);
}

static inline int kept_read(const char *folder, const char *name,
                            fli_bytes *out)
{
  char path[1024];
  uint8_t piece[4096];
  size_t n;
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "rb");
  if (!file) return 0;
  while ((n = fread(piece, 1, sizeof piece, file)) > 0)
    MU_MUST(fli_bytes_append(out, piece, n));
  fclose(file);
  return 1;
}

static inline fl_status kept_write_hook(void *user, const void *data, size_t n)
{
  return fli_bytes_append(user, data, n);
}

typedef struct kept_source {
  const uint8_t *data;
  size_t left;
} kept_source;

static inline fl_status kept_read_hook(void *user, void *buf, size_t n,
                                       size_t *got)
{
  kept_source *from = user;
  *got = n < from->left ? n : from->left;
  if (*got > 0) memcpy(buf, from->data, *got);
  from->data += *got;
  from->left -= *got;
  return FL_OK;
}

static inline void kept_must_read(const char *folder, fli_bytes *out,
                                  const char *name)
{
  fli_bytes_init(out, NULL);
  if (kept_read(folder, name, out)) return;
  fprintf(stderr, "%s/%s: is missing\n", folder, name);
  CHECK(0);
}

/* Of a container (wire/container.h). */
static inline uint32_t kept_version(const fli_bytes *state)
{
  return state->size >= 12 ? fli_load_u32(state->data + 8) : 0;
}

/* The hash behind a container's bytes, as it has to be. */
static inline void kept_seal(fli_bytes *state)
{
  fli_hash(state->data + state->size - FLI_HASH_BYTES, state->data,
           state->size - FLI_HASH_BYTES);
}

static inline void kept_set_version(fli_bytes *state, uint32_t version)
{
  fli_store_u32(state->data + 8, version);
  kept_seal(state);
}

static inline fl_status kept_restore_server(mu_world *world,
                                            const fli_bytes *state)
{
  fl_server_options options;
  kept_source from = {state->data, state->size};
  const fl_reader reader = {.read = kept_read_hook, .user = &from};
  mu_server_options(world, &options);
  const fl_status st =
      fl_server_restore(&world->server, world->context, &options, &reader);
  if (st == FL_OK && world->how->has_slices) mu_add_slices(world);
  return st;
}

/* ---- the world in the middle of its first round -------------------------- */

/* With cohorts, those of all. */
static inline uint32_t kept_count(const mu_world *world)
{
  const fli_job *job = world->server->jobs[0];
  uint32_t n = job->n_counted;
  for (uint32_t k = 0; job->cohorts && k < FL_COHORT_MAX; k++)
    if (job->cohorts->leaves[k]) n += job->cohorts->leaves[k]->n_counted;
  return n;
}

/* A list of bans is more than an empty one. */
static inline void kept_start(mu_world *world)
{
  mu_start(world);
  if (world->how->is_enrolled)
    MU_MUST(fl_server_ban(world->server, "somebody", 3600 * MU_SECOND));
}

/* Up to where the states are saved: the server has counted the first client,
 * both have encoded, and the second has not uploaded yet. */
static inline void kept_to_the_middle(mu_world *world)
{
  mu_connect(world);
  mu_run(world, MU_PEOPLE, mu_is_updating);
  for (uint32_t i = MU_PEOPLE; i-- > 0;) {
    (void)mu_down(&world->people[i]);
    mu_poll(&world->people[i]);
  }
  (void)mu_up(&world->people[0], 0);
  CHECK_EQ_U64(kept_count(world), 1);
}

static inline void kept_save_client(const mu_world *world, uint32_t i,
                                    fli_bytes *out)
{
  const fl_writer writer = {.write = kept_write_hook, .user = out};
  MU_MUST(fl_client_save(world->people[i].client, &writer));
}

static inline void kept_save_server(const mu_world *world, fli_bytes *out)
{
  const fl_writer writer = {.write = kept_write_hook, .user = out};
  MU_MUST(fl_server_save(world->server, &writer));
}

static inline void kept_dump(const fl_store *store, fli_bytes *out)
{
  uint8_t head[8];
  char key[FL_STORE_KEY_MAX];
  const void *found = NULL, *value = NULL;
  size_t n = 0, size = 0;
  fl_status st = fl_store_next(store, NULL, 0, &found, &n);
  for (; st == FL_OK; st = fl_store_next(store, key, n, &found, &n)) {
    memcpy(key, found, n);
    MU_MUST(fl_store_get(store, key, n, &value, &size));
    fli_store_u32(head, (uint32_t)n);
    fli_store_u32(head + 4, (uint32_t)size);
    MU_MUST(fli_bytes_append(out, head, sizeof head));
    MU_MUST(fli_bytes_append(out, (const uint8_t *)key, n));
    MU_MUST(fli_bytes_append(out, value, size));
  }
  fli_clear_error();
}

static inline void kept_undump(const fli_bytes *dump, fl_store *store)
{
  size_t at = 0;
  while (at + 8 <= dump->size) {
    const size_t n = fli_load_u32(dump->data + at);
    const size_t size = fli_load_u32(dump->data + at + 4);
    CHECK(at + 8 + n + size <= dump->size);
    MU_MUST(fl_store_put(store, dump->data + at + 8, n, dump->data + at + 8 + n,
                         size));
    at += 8 + n + size;
  }
  MU_MUST(fl_store_commit(store));
}

/* Run on to the end of the job. */
static inline void kept_finish(mu_world *world, uint8_t *hash)
{
  fl_job_status status;
  world->wanted = UINT64_MAX;
  mu_run(world, MU_PEOPLE, NULL);
  MU_MUST(fl_job_status_init(&status, sizeof status));
  MU_MUST(fl_server_get_status(world->server, 0, &status));
  CHECK_EQ_U64(status.is_finished, 1);
  CHECK_EQ_U64(status.model_version, 2);
  mu_hash(world, hash);
}

#endif
