/* SPDX-License-Identifier: Apache-2.0 */
/* Seeds of cohort_state and cohort_ticket: payloads of saved sets and tickets,
 * whole, cut, and with a byte that says something else. */
#include "seeds.h"

#include <stdio.h>

#include "cohort_job.h"

static void put_states(const char *folder, const char *kind, uint8_t rule,
                       uint32_t rounds)
{
  static const struct {
    const char *name;
    size_t at;
    uint8_t to;
  } lies[] = {{"bad-fields", 0, 0x8f},
              {"bad-key", 36, 0x7f},
              {"bad-rng", 37, 0xc0},
              {"bad-members", 80, 0xff},
              {"bad-count", 72, 0xff}};
  char name[64];
  fli_bytes payload;
  fl_cohort_set *set = job_set(rule);
  job_run(set, 1, rounds);
  fli_bytes_init(&payload, NULL);
  job_payload(set, &payload);
  uint8_t *all = malloc(payload.size + 1);
  FUZZ_CHECK(all != NULL);
  all[0] = rule;
  memcpy(all + 1, payload.data, payload.size);
  (void)snprintf(name, sizeof name, "%s-%u", kind, (unsigned)rounds);
  seeds_put(folder, "cohort_state", name, all, payload.size + 1);
  if (rounds == 1) {
    (void)snprintf(name, sizeof name, "%s-cut", kind);
    seeds_put(folder, "cohort_state", name, all, payload.size / 2);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
      const uint8_t kept = all[1 + lies[i].at];
      all[1 + lies[i].at] = lies[i].to;
      (void)snprintf(name, sizeof name, "%s-%s", kind, lies[i].name);
      seeds_put(folder, "cohort_state", name, all, payload.size + 1);
      all[1 + lies[i].at] = kept;
    }
  }
  free(all);
  fli_bytes_free(&payload);
  fl_cohort_set_free(set);
}

void seeds_put_cohorts(const char *folder)
{
  uint8_t ticket[FL_COHORT_TICKET_BYTES];
  size_t n;
  put_states(folder, "sketch", 0, 1);
  put_states(folder, "sketch", 0, 20);
  put_states(folder, "auxo", 1, 1);
  put_states(folder, "auxo", 1, 5);
  put_states(folder, "loss", 2, 1);
  fl_cohort_set *set = job_set(0);
  job_run(set, 1, 5);
  FUZZ_CHECK(fl_cohort_set_copy_ticket(set, 2, ticket, sizeof ticket, &n) ==
             FL_OK);
  fl_cohort_set_free(set);
  seeds_put(folder, "cohort_ticket", "good", ticket, n);
  seeds_put(folder, "cohort_ticket", "cut", ticket, n - 1);
  ticket[20] ^= 1;
  seeds_put(folder, "cohort_ticket", "forged", ticket, n);
}
