/* SPDX-License-Identifier: Apache-2.0 */
/* A saved set of cohorts. The first byte chooses the rule, the rest are the
 * state's payload; the hash of the options is put in where it belongs, and the
 * container around it, so that the parser behind both is reached. What is
 * accepted comes back when saved again and goes on for some rounds; what is
 * refused says why and changes nothing. */
#include "cohort_job.h"

#include "cohort/cohort.h"

enum { HASH_AT = 4, ROUNDS = 8 };

static int is_equal(const fli_bytes *a, const fli_bytes *b)
{
  return a->size == b->size && memcmp(a->data, b->data, a->size) == 0;
}

static void go_on(fl_cohort_set *set)
{
  uint32_t round = 0, slot;
  for (uint32_t i = 0; i < JOB_CAP; i++) {
    if (set->leaves[i].round > round) round = set->leaves[i].round;
  }
  if (round > INT32_MAX - ROUNDS - 1) return;
  job_run(set, round + 1, round + ROUNDS);
  FUZZ_CHECK(fl_cohort_set_join(set, 1000, round, NULL, 0, &slot, NULL) ==
             FL_OK);
  FUZZ_CHECK(fl_cohort_set_leave(set, slot) == FL_OK);
  for (uint32_t i = 0; i < JOB_CAP; i++) {
    const fli_leaf *leaf = &set->leaves[i];
    FUZZ_CHECK(!leaf->is_alive ||
               (isfinite(leaf->loss) && isfinite(leaf->variance)));
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  fli_bytes payload, saved, before, again;
  if (n < 1) return 0;
  fl_cohort_set *set = job_set(data[0]);
  fli_bytes_init(&payload, NULL);
  fli_bytes_init(&saved, NULL);
  fli_bytes_init(&before, NULL);
  fli_bytes_init(&again, NULL);
  FUZZ_CHECK(fli_bytes_append(&payload, data + 1, n - 1) == FL_OK);
  if (payload.size >= HASH_AT + FLI_HASH_BYTES) {
    memcpy(payload.data + HASH_AT, set->options_hash, FLI_HASH_BYTES);
  }
  const fl_writer writer = {job_append, &saved};
  FUZZ_CHECK(fli_container_write(&writer, FLI_STATE_COHORTS, 2, &payload) ==
             FL_OK);
  job_save(set, &before);
  if (job_load(set, &saved) == FL_OK) {
    job_save(set, &before);
    FUZZ_CHECK(job_load(set, &before) == FL_OK);
    job_save(set, &again);
    FUZZ_CHECK(is_equal(&before, &again));
    go_on(set);
  } else {
    FUZZ_CHECK(strlen(fl_last_error()) > 0);
    job_save(set, &again);
    FUZZ_CHECK(is_equal(&before, &again));
  }
  fli_bytes_free(&payload);
  fli_bytes_free(&saved);
  fli_bytes_free(&before);
  fli_bytes_free(&again);
  fl_cohort_set_free(set);
  return 0;
}
