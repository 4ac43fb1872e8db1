/* SPDX-License-Identifier: Apache-2.0 */
/* A ticket that a client brings: twice, as it is, and with the tag that belongs
 * to it, so that the parser behind the tag is reached. The client is then
 * there, in a cohort that is alive, and can train. */
#include "cohort_job.h"

#include "cohort/cohort.h"

enum { TAG_AT = 32 };

static void come(const uint8_t *ticket, size_t n)
{
  fl_cohort_set *set = job_set(0);
  uint32_t slot;
  int32_t counts = 7;
  uint8_t *copy = fuzz_exact_copy(ticket, n);
  FUZZ_CHECK(fl_cohort_set_leave(set, 2) == FL_OK);
  FUZZ_CHECK(fl_cohort_set_join(set, 2, 900, copy, n, &slot, &counts) == FL_OK);
  FUZZ_CHECK(counts == 0 || counts == 1);
  FUZZ_CHECK(slot == 2 && set->leaves[set->members[slot].leaf].is_alive);
  free(copy);
  job_run(set, 901, 904);
  fl_cohort_set_free(set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  if (n > 4096) return 0;
  come(data, n);
  if (n != FL_COHORT_TICKET_BYTES) return 0;
  uint8_t ticket[FL_COHORT_TICKET_BYTES], tag[FLI_HASH_BYTES];
  fl_cohort_set *set = job_set(0);
  memcpy(ticket, data, n);
  fli_hash_keyed(tag, set->key, sizeof set->key, ticket, TAG_AT);
  memcpy(ticket + TAG_AT, tag, sizeof ticket - TAG_AT);
  fl_cohort_set_free(set);
  come(ticket, n);
  return 0;
}
