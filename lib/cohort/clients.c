/* SPDX-License-Identifier: Apache-2.0 */
/* Clients and where they are: members and ids by slot, and an index of open
 * addressing over the ids, which is at most 4/5 full. Ids are mixed, so that
 * those that count up do not pile up. */
#include "cohort/cohort.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/options.h"
#include "base/size.h"

enum { CAPACITY_LEAST = 64 };

/* ---- index --------------------------------------------------------------- */

static size_t home_of(const fl_cohort_set *set, uint64_t id)
{
  uint64_t z = id ^ set->options.seed;
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  z ^= z >> 31;
  return (size_t)((z >> 32) * set->index_size >> 32);
}

size_t fli_cohort_index_size(size_t clients)
{
  return clients + clients / 4 + 1;
}

/* Place of the id, or of the empty entry where it would be. */
static size_t place_of(const fl_cohort_set *set, uint64_t id)
{
  size_t at = home_of(set, id);
  while (set->index[at] && set->ids[set->index[at] - 1] != id)
    at = at + 1 < set->index_size ? at + 1 : 0;
  return at;
}

int fli_cohort_reindex(fl_cohort_set *set)
{
  memset(set->index, 0, set->index_size * sizeof *set->index);
  for (uint32_t slot = 0; slot < set->n_slots; slot++) {
    if (!fli_member_is(&set->members[slot], FLI_MEMBER_HERE)) continue;
    size_t at = place_of(set, set->ids[slot]);
    if (set->index[at]) return 0;
    set->index[at] = slot + 1;
  }
  return 1;
}

/* The entries behind an empty one move up, if it lies on their way. */
static void remove_entry(fl_cohort_set *set, size_t at)
{
  const size_t size = set->index_size;
  size_t next = at;
  for (;;) {
    next = next + 1 < size ? next + 1 : 0;
    if (!set->index[next]) break;
    size_t home = home_of(set, set->ids[set->index[next] - 1]);
    size_t from_home = (next + size - home) % size;
    size_t from_hole = (next + size - at) % size;
    if (from_home < from_hole) continue;
    set->index[at] = set->index[next];
    at = next;
  }
  set->index[at] = 0;
}

/* ---- room ---------------------------------------------------------------- */

static fl_status grow_index(fl_cohort_set *set, size_t capacity)
{
  const size_t size = fli_cohort_index_size(capacity);
  uint32_t *index = fli_alloc(set->context, size, sizeof *index);
  if (!index) return fli_nomem(size * sizeof *index);
  if (set->index)
    fli_free(set->context, set->index, set->index_size * sizeof *index);
  set->index = index;
  set->index_size = size;
  (void)fli_cohort_reindex(set);
  return FL_OK;
}

/* What has grown when a later one fails stays larger than `capacity` says, and
 * is freed by its own size: so all of them are made first. */
static fl_status grow_arrays(fl_cohort_set *set, size_t capacity)
{
  size_t bytes;
  if (!fli_mul_size(capacity, sizeof *set->ids, &bytes))
    return fli_nomem(SIZE_MAX);
  fli_member *members = fli_alloc(set->context, capacity, sizeof *members);
  uint64_t *ids = fli_alloc(set->context, capacity, sizeof *ids);
  if (!members || !ids) {
    if (members) fli_free(set->context, members, capacity * sizeof *members);
    if (ids) fli_free(set->context, ids, capacity * sizeof *ids);
    return fli_nomem(bytes);
  }
  fl_status st = fli_auxo_room(set, capacity);
  if (st != FL_OK) {
    fli_free(set->context, members, capacity * sizeof *members);
    fli_free(set->context, ids, capacity * sizeof *ids);
    return st;
  }
  if (set->capacity > 0) {
    memcpy(members, set->members, set->n_slots * sizeof *members);
    memcpy(ids, set->ids, set->n_slots * sizeof *ids);
    fli_free(set->context, set->members, set->capacity * sizeof *members);
    fli_free(set->context, set->ids, set->capacity * sizeof *ids);
  }
  set->members = members;
  set->ids = ids;
  set->capacity = capacity;
  return FL_OK;
}

fl_status fli_cohort_reserve(fl_cohort_set *set, size_t clients)
{
  if (clients <= set->capacity) return FL_OK;
  size_t capacity = clients;
  if (set->capacity > 0 && capacity < set->capacity + set->capacity / 2)
    capacity = set->capacity + set->capacity / 2;
  if (capacity < CAPACITY_LEAST) capacity = CAPACITY_LEAST;
  if (fli_cohort_index_size(capacity) > set->index_size) {
    fl_status st = grow_index(set, capacity);
    if (st != FL_OK) return st;
  }
  return grow_arrays(set, capacity);
}

/* ---- joining and leaving ------------------------------------------------- */

fl_status fli_cohort_check_slot(const fl_cohort_set *set, uint32_t slot)
{
  if (slot < set->n_slots &&
      fli_member_is(&set->members[slot], FLI_MEMBER_HERE)) {
    return FL_OK;
  }
  return fli_error(FL_E_NOT_FOUND, "cohorts: slot, got %u, no client has it",
                   (unsigned)slot);
}

static fli_member newcomer(const fl_cohort_set *set)
{
  uint8_t leaf = 0;
  while (!set->leaves[leaf].is_alive)
    leaf++;
  return (fli_member){.leaf = leaf,
                      .other = FLI_COHORT_NO_LEAF,
                      .bits = FLI_MEMBER_HERE | FLI_MEMBER_UNKNOWN};
}

static uint32_t take_slot(fl_cohort_set *set, uint64_t client)
{
  uint32_t slot = set->free_slot;
  if (slot != FL_COHORT_NONE) {
    set->free_slot = set->members[slot].last;
  } else {
    slot = set->n_slots++;
  }
  set->ids[slot] = client;
  set->index[place_of(set, client)] = slot + 1;
  set->n_clients++;
  return slot;
}

fl_status fl_cohort_set_join(fl_cohort_set *set, uint64_t client,
                             uint32_t round, const uint8_t *ticket, size_t n,
                             uint32_t *slot, int32_t *has_ticket)
{
  fli_member known;
  fli_clear_error();
  if (!set || !slot || (!ticket && n > 0))
    return fli_error(FL_E_ARGUMENT, "cohorts: got NULL");
  int counts = n == FL_COHORT_TICKET_BYTES &&
               fli_ticket_read(set, client, round, ticket, &known);
  uint32_t entry = set->index_size ? set->index[place_of(set, client)] : 0;
  if (entry) {
    fli_member *member = &set->members[entry - 1];
    counts = counts && known.last > member->last;
    if (counts) *member = known;
    *slot = entry - 1;
    if (has_ticket) *has_ticket = counts;
    return FL_OK;
  }
  if (set->n_clients >= INT32_MAX)
    return fli_error(FL_E_LIMIT, "cohorts: there are 2^31 - 1 clients");
  if (set->free_slot == FL_COHORT_NONE) {
    fl_status st = fli_cohort_reserve(set, (size_t)set->n_slots + 1);
    if (st != FL_OK) return st;
  }
  uint32_t at = take_slot(set, client);
  set->members[at] = counts ? known : newcomer(set);
  fli_auxo_join(set, at);
  *slot = at;
  if (has_ticket) *has_ticket = counts;
  return FL_OK;
}

static int has_pending(const fl_cohort_set *set, uint32_t slot)
{
  for (uint32_t i = 0; i < set->options.cap; i++) {
    const fli_list *list = &set->leaves[i].pending;
    const fli_pending *items = list->items;
    for (size_t k = 0; k < list->n; k++) {
      if (items[k].slot == slot) return 1;
    }
  }
  return 0;
}

fl_status fl_cohort_set_leave(fl_cohort_set *set, uint32_t slot)
{
  fli_clear_error();
  if (!set) return fli_error(FL_E_ARGUMENT, "cohorts: got NULL");
  fl_status st = fli_cohort_check_slot(set, slot);
  if (st != FL_OK) return st;
  if (has_pending(set, slot)) {
    return fli_error(FL_E_STATE, "cohorts: slot %u, a report of it waits",
                     (unsigned)slot);
  }
  remove_entry(set, place_of(set, set->ids[slot]));
  set->members[slot] = (fli_member){.last = set->free_slot};
  set->free_slot = slot;
  set->n_clients--;
  return FL_OK;
}

fl_status fl_cohort_set_find(const fl_cohort_set *set, uint64_t client,
                             uint32_t *slot)
{
  fli_clear_error();
  if (!set || !slot) return fli_error(FL_E_ARGUMENT, "cohorts: got NULL");
  uint32_t entry = set->index_size ? set->index[place_of(set, client)] : 0;
  if (!entry) {
    return fli_error(FL_E_NOT_FOUND,
                     "cohorts: client %" PRIu64 " has not "
                     "joined",
                     client);
  }
  *slot = entry - 1;
  return FL_OK;
}

uint32_t fl_cohort_set_client_count(const fl_cohort_set *set)
{
  return set ? set->n_clients : 0;
}

/* ---- looking at one ------------------------------------------------------ */

fl_status fl_cohort_member_init(fl_cohort_member *member, size_t size)
{
  static const fl_cohort_member defaults = {.other = FL_COHORT_NONE};
  return fli_options_init(member, size, &defaults, sizeof defaults);
}

fl_status fl_cohort_set_get_member(const fl_cohort_set *set, uint32_t slot,
                                   fl_cohort_member *out)
{
  fli_clear_error();
  if (!set || !out) return fli_error(FL_E_ARGUMENT, "cohorts: got NULL");
  fl_status st = fli_cohort_check_slot(set, slot);
  if (st != FL_OK) return st;
  const fli_member *m = &set->members[slot];
  fl_cohort_member member = {
      .cohort = m->leaf,
      .other = m->other == FLI_COHORT_NO_LEAF ? FL_COHORT_NONE : m->other,
      .is_unknown = (uint32_t)fli_member_is(m, FLI_MEMBER_UNKNOWN),
      .seen = (uint32_t)fli_member_seen(m),
      .last = m->last,
      .score = (float)m->score / FLI_COHORT_SCORE_ONE,
      .is_needed = (uint32_t)fli_is_needed(set, slot)};
  return fli_options_store(out, &member, sizeof member, "cohort member");
}
