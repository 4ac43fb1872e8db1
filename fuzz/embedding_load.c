/* SPDX-License-Identifier: Apache-2.0 */
/* A saved embedding store, without head and hash, which are put around it so
 * that the parser is reached. Memory stays within the budget that is given.
 * What is accepted obeys the store's rules, comes back when saved again, and
 * trains and adjusts on; what is refused says why. */
#include "embedding_job.h"

#include "crypto/crypto.h"

static const uint8_t head[JOB_HEAD] = {'F', 'L', 'E', 'M', 1, 0,
                                       0,   0,   1,   0,   0, 0};

static fl_status load(fl_embedding **out, const fli_bytes *saved)
{
  job_source from = {saved->data, saved->size};
  const fl_reader reader = {job_read, &from};
  return fl_embedding_load(out, NULL, &reader, 4 * JOB_BUDGET);
}

static void comes_back(fl_embedding *e)
{
  fl_embedding *copy = NULL;
  fli_bytes once, twice;
  fli_bytes_init(&once, NULL);
  fli_bytes_init(&twice, NULL);
  job_save(e, &once);
  FUZZ_CHECK(load(&copy, &once) == FL_OK);
  job_is_good(copy);
  job_save(copy, &twice);
  FUZZ_CHECK(once.size == twice.size);
  FUZZ_CHECK(memcmp(once.data, twice.data, once.size) == 0);
  fli_bytes_free(&once);
  fli_bytes_free(&twice);
  fl_embedding_free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  fl_embedding *e = NULL;
  uint8_t hash[JOB_TAIL];
  fli_bytes saved;
  fli_bytes_init(&saved, NULL);
  FUZZ_CHECK(fli_bytes_append(&saved, head, sizeof head) == FL_OK);
  FUZZ_CHECK(fli_bytes_append(&saved, data, n) == FL_OK);
  fli_hash(hash, saved.data, saved.size);
  FUZZ_CHECK(fli_bytes_append(&saved, hash, sizeof hash) == FL_OK);
  if (load(&e, &saved) == FL_OK) {
    job_is_good(e);
    comes_back(e);
    for (uint32_t step = 0; step < 6; step++) {
      job_step(e, step);
      job_is_good(e);
    }
  } else {
    FUZZ_CHECK(e == NULL);
    FUZZ_CHECK(fl_last_error()[0] != '\0');
  }
  fl_embedding_free(e);
  fli_bytes_free(&saved);
  return 0;
}
