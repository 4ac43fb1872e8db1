/* SPDX-License-Identifier: Apache-2.0 */
/* Tickets: what the set knows of a client, kept by the client. Layout, numbers
 * little-endian: version u8, bits u8 (2: other, too), cohort u16, epoch of the
 * tree u32, last round u32, score i8, seen u8, other u8, zero u8, job u64,
 * client u64, and 16 bytes of BLAKE2b keyed for the job. */
#include "cohort/cohort.h"

#include <string.h>

#include "base/bytes.h"
#include "base/error.h"

enum {
  VERSION = 1,
  BITS_AT = 1,
  COHORT_AT = 2,
  EPOCH_AT = 4,
  LAST_AT = 8,
  SCORE_AT = 12,
  SEEN_AT = 13,
  OTHER_AT = 14,
  JOB_AT = 16,
  CLIENT_AT = 24,
  MAC_AT = 32,
  MAC_BYTES = FL_COHORT_TICKET_BYTES - MAC_AT,
  BITS = FLI_MEMBER_UNKNOWN | FLI_MEMBER_FRESH
};

static void authenticate(const fl_cohort_set *set, const uint8_t *ticket,
                         uint8_t mac[MAC_BYTES])
{
  uint8_t hash[FLI_HASH_BYTES];
  fli_hash_keyed(hash, set->key, sizeof set->key, ticket, MAC_AT);
  memcpy(mac, hash, MAC_BYTES);
}

static uint8_t first_alive(const fl_cohort_set *set)
{
  uint8_t leaf = 0;
  while (!set->leaves[leaf].is_alive)
    leaf++;
  return leaf;
}

/* When the tree has changed since, numbers of cohorts may mean others: the
 * client is asked again. */
static fli_member member_of(const fl_cohort_set *set, const uint8_t *ticket)
{
  fli_member m = {.other = FLI_COHORT_NO_LEAF,
                  .last = fli_load_u32(ticket + LAST_AT)};
  uint32_t cohort = fli_load_u16(ticket + COHORT_AT);
  uint32_t epoch = fli_load_u32(ticket + EPOCH_AT);
  int is_alive = fli_leaf_is_alive(set, cohort);
  m.leaf = is_alive ? (uint8_t)cohort : first_alive(set);
  m.bits = FLI_MEMBER_HERE | FLI_MEMBER_UNKNOWN;
  if (!is_alive || epoch != (uint32_t)set->splits_made) return m;
  uint8_t other = ticket[OTHER_AT];
  m.bits =
      (uint8_t)(FLI_MEMBER_HERE | (ticket[BITS_AT] & BITS) |
                (ticket[SEEN_AT] & FLI_COHORT_SEEN_MOST) << FLI_MEMBER_SEEN_AT);
  m.score = (int8_t)ticket[SCORE_AT];
  if (fli_leaf_is_alive(set, other) && other != m.leaf) m.other = other;
  return m;
}

int fli_ticket_read(const fl_cohort_set *set, uint64_t client, uint32_t round,
                    const uint8_t *ticket, fli_member *member)
{
  uint8_t mac[MAC_BYTES];
  if (!set->has_key || set->options.rule == FL_COHORT_AUXO) return 0;
  authenticate(set, ticket, mac);
  if (!fli_equal_secret(mac, ticket + MAC_AT, MAC_BYTES)) return 0;
  uint32_t last = fli_load_u32(ticket + LAST_AT);
  if (ticket[0] != VERSION ||
      fli_load_u64(ticket + JOB_AT) != set->options.job ||
      fli_load_u64(ticket + CLIENT_AT) != client || last > round ||
      round - last > set->options.forget) {
    return 0;
  }
  *member = member_of(set, ticket);
  return 1;
}

static void write_ticket(const fl_cohort_set *set, uint32_t slot,
                         uint8_t *ticket)
{
  const fli_member *m = &set->members[slot];
  memset(ticket, 0, FL_COHORT_TICKET_BYTES);
  ticket[0] = VERSION;
  ticket[BITS_AT] = m->bits & BITS;
  fli_store_u16(ticket + COHORT_AT, m->leaf);
  fli_store_u32(ticket + EPOCH_AT, (uint32_t)set->splits_made);
  fli_store_u32(ticket + LAST_AT, m->last);
  ticket[SCORE_AT] = (uint8_t)m->score;
  ticket[SEEN_AT] = (uint8_t)fli_member_seen(m);
  ticket[OTHER_AT] = m->other;
  fli_store_u64(ticket + JOB_AT, set->options.job);
  fli_store_u64(ticket + CLIENT_AT, set->ids[slot]);
  authenticate(set, ticket, ticket + MAC_AT);
}

fl_status fl_cohort_set_copy_ticket(const fl_cohort_set *set, uint32_t slot,
                                    uint8_t *buffer, size_t capacity,
                                    size_t *needed)
{
  fli_clear_error();
  if (!set || !needed || (!buffer && capacity > 0))
    return fli_error(FL_E_ARGUMENT, "cohorts: got NULL");
  if (set->options.rule == FL_COHORT_AUXO)
    return fli_error(FL_E_UNSUPPORTED, "cohorts: Auxo's rule has no tickets");
  if (!set->has_key)
    return fli_error(FL_E_STATE, "cohorts: there is no key for tickets");
  fl_status st = fli_cohort_check_slot(set, slot);
  if (st != FL_OK) return st;
  *needed = FL_COHORT_TICKET_BYTES;
  if (!buffer) return FL_OK;
  if (capacity < FL_COHORT_TICKET_BYTES) {
    return fli_error(FL_E_SIZE, "cohorts: ticket, got %zu bytes, want %d",
                     capacity, FL_COHORT_TICKET_BYTES);
  }
  write_ticket(set, slot, buffer);
  return FL_OK;
}
