/* SPDX-License-Identifier: Apache-2.0 */
/* Cohorts, to the last bit: a sketch, a ticket, and the state after a run with
 * splits. A change here is a new version of a format, or sets that decide
 * otherwise on other machines. */
#include "check.h"

#define PEOPLE_MUST(call) CHECK_OK(call)
#include "cohort_people.h"

#include "crypto/crypto.h"

static uint64_t hash_of(const void *data, size_t n)
{
  uint8_t hash[FLI_HASH_BYTES];
  fli_hash(hash, data, n);
  return fli_hash_id(hash);
}

static void sketch_has_its_bytes(void)
{
  enum { N = 1003, DIM = 32 };
  static const uint8_t want[DIM / 2] = {0x1a, 0x09, 0x98, 0x97, 0x87, 0xd9,
                                        0x64, 0x79, 0x34, 0x18, 0x94, 0x58,
                                        0x67, 0x79, 0xa3, 0x59};
  float update[N];
  uint8_t sketch[DIM / 2];
  uint64_t state = 5;
  size_t n;
  fl_sketcher *sketcher = NULL;
  for (int i = 0; i < N; i++)
    update[i] = (float)people_uniform(&state);
  CHECK_OK(fl_sketcher_new(&sketcher, NULL, 8011, N, DIM));
  CHECK_OK(fl_sketcher_write(sketcher, update, N, sketch, sizeof sketch, &n));
  CHECK_EQ_MEM(sketch, want, sizeof want);
  fl_sketcher_free(sketcher);
}

static void run_has_its_state(void)
{
  static const uint8_t key[FL_COHORT_KEY_BYTES] = {9};
  static const uint8_t want[FL_COHORT_TICKET_BYTES] = {
      0x01, 0x00, 0x02, 0x00, 0x03, 0x00, 0x00, 0x00, 0x3c, 0x00, 0x00, 0x00,
      0x5d, 0x08, 0xff, 0x00, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
      0x11, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x91, 0x75, 0x6c, 0x35,
      0xb8, 0x91, 0xb1, 0x8c, 0xd4, 0xee, 0xc2, 0xc1, 0xe7, 0x9b, 0xf9, 0x7b};
  people p;
  uint8_t ticket[FL_COHORT_TICKET_BYTES];
  const uint8_t *data = NULL;
  size_t n = 0;
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_cohort_options o = people_options();
  o.seed = 3;
  o.key = key;
  o.job = 0x1122334455667788;
  people_open(&p, NULL, &o, 300, 4);
  people_rounds(&p, 1, 60);
  CHECK_EQ_U64(p.events[FL_COHORT_TRIAL], 3);
  CHECK_EQ_U64(p.events[FL_COHORT_KEPT], 3);
  CHECK_OK(fl_cohort_set_copy_ticket(p.set, 17, ticket, sizeof ticket, &n));
  CHECK_EQ_MEM(ticket, want, sizeof want);
  CHECK_OK(fl_buffer_new(&buffer, NULL));
  CHECK_OK(fl_buffer_as_writer(buffer, &writer));
  CHECK_OK(fl_cohort_set_save(p.set, &writer));
  CHECK_OK(fl_buffer_get(buffer, &data, &n));
  CHECK_EQ_U64(n, 199431);
  CHECK_EQ_U64(hash_of(data, n), UINT64_C(0x3dbfb9de0119f9f9));
  fl_buffer_free(buffer);
  people_close(&p);
}

int main(void)
{
  CHECK_CASE(sketch_has_its_bytes);
  CHECK_CASE(run_has_its_state);
  return check_report();
}
