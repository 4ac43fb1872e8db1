/* SPDX-License-Identifier: Apache-2.0 */
/* A delta, from behind the version that it starts from on and without its
 * hash: both are put in, so that the parser is reached. What is accepted obeys
 * the store's rules, has a new version, and trains on; what is refused says
 * why and changes nothing, unless there was no room for it: then the store has
 * no version any more, and obeys its rules. */
#include "embedding_job.h"

#include "base/bytes.h"
#include "crypto/crypto.h"

static const uint8_t head[JOB_HEAD] = {'F', 'L', 'E', 'M', 2, 0,
                                       0,   0,   1,   0,   0, 0};

static void wrap(fli_bytes *out, uint64_t version, const uint8_t *data,
                 size_t n)
{
  uint8_t number[8], hash[JOB_TAIL];
  fli_store_u64(number, version);
  FUZZ_CHECK(fli_bytes_append(out, head, sizeof head) == FL_OK);
  FUZZ_CHECK(fli_bytes_append(out, number, sizeof number) == FL_OK);
  FUZZ_CHECK(fli_bytes_append(out, data, n) == FL_OK);
  fli_hash(hash, out->data, out->size);
  FUZZ_CHECK(fli_bytes_append(out, hash, sizeof hash) == FL_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  fl_embedding *e = job_make();
  fli_bytes before, after, delta;
  fli_bytes_init(&before, NULL);
  fli_bytes_init(&after, NULL);
  fli_bytes_init(&delta, NULL);
  job_step(e, 0);
  job_save(e, &before);
  uint64_t version = fl_embedding_version(e);
  wrap(&delta, version, data, n);
  job_source from = {delta.data, delta.size};
  const fl_reader reader = {job_read, &from};
  fl_status st = fl_embedding_apply_delta(e, &reader);
  job_is_good(e);
  if (st == FL_OK) {
    FUZZ_CHECK(fl_embedding_version(e) != version);
  } else {
    FUZZ_CHECK(fl_last_error()[0] != '\0');
    FUZZ_CHECK(fl_embedding_version(e) == (st == FL_E_LIMIT ? 0 : version));
    job_save(e, &after);
    FUZZ_CHECK(st == FL_E_LIMIT ||
               (before.size == after.size &&
                memcmp(before.data, after.data, before.size) == 0));
  }
  for (uint32_t step = 1; step < 4; step++) {
    job_step(e, step);
    job_is_good(e);
  }
  fl_embedding_free(e);
  fli_bytes_free(&before);
  fli_bytes_free(&after);
  fli_bytes_free(&delta);
  return 0;
}
