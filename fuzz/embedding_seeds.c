/* SPDX-License-Identifier: Apache-2.0 */
/* Seeds of embedding_load and embedding_delta: an empty store and trained ones,
 * and some with a byte that says something else. */
#include "seeds.h"

#include "embedding_job.h"

/* What is between head and hash. */
static void put(const char *folder, const char *target, const char *name,
                const fli_bytes *saved, size_t skip)
{
  seeds_put(folder, target, name, saved->data + skip,
            saved->size - skip - JOB_TAIL);
}

static void put_lies(const char *folder, const char *target,
                     const fli_bytes *saved, size_t skip)
{
  /* In fields of the options and of the first table, and in rows. */
  static const size_t at[] = {4, 40, 60, 76, 84, 96, 120, 160, 400, 2000};
  uint8_t bytes[JOB_BUDGET * 2];
  size_t n = saved->size - skip - JOB_TAIL;
  FUZZ_CHECK(n <= sizeof bytes);
  for (size_t i = 0; i < sizeof at / sizeof *at && at[i] < n; i++) {
    char name[32];
    memcpy(bytes, saved->data + skip, n);
    bytes[at[i]] ^= 0x81;
    (void)snprintf(name, sizeof name, "bad-%zu", at[i]);
    seeds_put(folder, target, name, bytes, n);
  }
  seeds_put(folder, target, "cut", saved->data + skip, n - 5);
}

void seeds_put_embeddings(const char *folder)
{
  fli_bytes saved;
  fl_embedding *e = job_make();
  const fl_writer writer = {job_append, &saved};
  fli_bytes_init(&saved, NULL);
  job_save(e, &saved);
  put(folder, "embedding_load", "empty", &saved, JOB_HEAD);
  job_step(e, 0);
  job_save(e, &saved);
  put(folder, "embedding_load", "trained", &saved, JOB_HEAD);
  put_lies(folder, "embedding_load", &saved, JOB_HEAD);
  for (uint32_t step = 1; step < 3; step++) {
    job_step(e, step);
    fli_bytes_clear(&saved);
    FUZZ_CHECK(fl_embedding_save_delta(e, fl_embedding_version(e), &writer) ==
               FL_OK);
    put(folder, "embedding_delta", step == 1 ? "trained" : "adjusted", &saved,
        JOB_HEAD + 8);
    if (step == 2) put_lies(folder, "embedding_delta", &saved, JOB_HEAD + 8);
  }
  fl_embedding_free(e);
  fli_bytes_free(&saved);
}
