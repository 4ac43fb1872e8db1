/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a saved set into a fresh one, which takes the old one's place when
 * everything has been found good. */
#include "cohort/state.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "wire/container.h"
#include "wire/reader.h"

enum { SCORE_MOST = 107 };

#define STATE_MOST ((uint64_t)1 << 36)

typedef struct source {
  fli_msg_reader reader;
  fl_cohort_set *set;
} source;

static void refuse(source *s, const char *what)
{
  fli_reader_fail(&s->reader, FL_E_RANGE, what);
}

static int is_good(const source *s)
{
  return fli_reader_status(&s->reader) == FL_OK;
}

/* A bin of n x size bytes, or NULL and the error. */
static const uint8_t *read_items(source *s, size_t size, size_t n_most,
                                 size_t *n, const char *what)
{
  size_t bytes;
  const uint8_t *data = fli_reader_bin(&s->reader, &bytes);
  *n = 0;
  if (!is_good(s)) return NULL;
  if (bytes % size != 0 || bytes / size > n_most) {
    fli_reader_fail(&s->reader, FL_E_DIM, what);
    return NULL;
  }
  *n = bytes / size;
  return data;
}

/* ---- clients ------------------------------------------------------------- */

static void read_members(source *s)
{
  fl_cohort_set *set = s->set;
  size_t n;
  const uint8_t *data =
      read_items(s, MEMBER_BYTES, INT32_MAX, &n, "cohorts: members");
  if (!data) return;
  fl_status st = fli_cohort_reserve(set, n);
  if (st != FL_OK) {
    fli_reader_fail(&s->reader, st, "cohorts: members");
    return;
  }
  for (size_t i = 0; i < n; i++) {
    const uint8_t *at = data + i * MEMBER_BYTES;
    set->members[i] = (fli_member){.leaf = at[0],
                                   .other = at[1],
                                   .score = (int8_t)at[2],
                                   .bits = at[3],
                                   .last = fli_load_u32(at + 4)};
    set->n_clients +=
        (uint32_t)fli_member_is(&set->members[i], FLI_MEMBER_HERE);
  }
  set->n_slots = (uint32_t)n;
}

static void read_ids(source *s)
{
  fl_cohort_set *set = s->set;
  size_t n;
  const uint8_t *data =
      read_items(s, MEMBER_BYTES, INT32_MAX, &n, "cohorts: ids");
  if (!data) return;
  if (n != set->n_slots) {
    fli_reader_fail(&s->reader, FL_E_DIM, "cohorts: ids");
    return;
  }
  for (size_t i = 0; i < n; i++)
    set->ids[i] = fli_load_u64(data + i * MEMBER_BYTES);
}

/* Free slots are a list without an end that comes back, and all of them. */
static int free_slots_are_good(const fl_cohort_set *set)
{
  uint32_t n = 0, slot = set->free_slot;
  for (; slot != FL_COHORT_NONE; slot = set->members[slot].last) {
    if (slot >= set->n_slots) return 0;
    if (fli_member_is(&set->members[slot], FLI_MEMBER_HERE)) return 0;
    if (++n > set->n_slots - set->n_clients) return 0;
  }
  return n == set->n_slots - set->n_clients;
}

static int member_is_good(const fl_cohort_set *set, const fli_member *m)
{
  if (!fli_member_is(m, FLI_MEMBER_HERE)) return 1;
  if (!fli_leaf_is_alive(set, m->leaf)) return 0;
  if (m->score > SCORE_MOST || m->score < -SCORE_MOST) return 0;
  if (m->other == FLI_COHORT_NO_LEAF) return 1;
  return m->other != m->leaf && fli_leaf_is_alive(set, m->other);
}

static void check_clients(source *s)
{
  fl_cohort_set *set = s->set;
  if (!is_good(s)) return;
  for (uint32_t i = 0; i < set->n_slots; i++) {
    if (member_is_good(set, &set->members[i])) continue;
    refuse(s, "cohorts: a member");
    return;
  }
  if (!free_slots_are_good(set)) {
    refuse(s, "cohorts: free slots");
  } else if (set->index_size > 0 && !fli_cohort_reindex(set)) {
    refuse(s, "cohorts: two clients with one id");
  }
}

/* ---- trials and pairs ---------------------------------------------------- */

static int unpack_trial(const fl_cohort_set *set, fli_trial *trial,
                        const uint8_t *at)
{
  *trial = (fli_trial){.parent = at[0],
                       .child = at[1],
                       .is_extended = at[2] & 1,
                       .is_scarce = at[2] >> 1,
                       .n = at[3],
                       .begun = fli_load_u32(at + 4)};
  if (trial->n > set->options.trial_most || trial->is_scarce > 1 ||
      trial->begun > INT32_MAX) {
    return 0;
  }
  for (uint32_t i = 0; i < trial->n; i++) {
    const uint8_t *entry = at + TRIAL_HEAD + i * TRIAL_ENTRY;
    trial->ratio[i] = fli_load_f32(entry);
    trial->side[i] = entry[4];
    trial->third[i] = entry[5];
    if (!isfinite(trial->ratio[i]) || trial->side[i] > 1) return 0;
    if (trial->third[i] != FLI_COHORT_NO_LEAF &&
        trial->third[i] >= set->options.cap) {
      return 0;
    }
  }
  return 1;
}

static void read_trials(source *s)
{
  fl_cohort_set *set = s->set;
  size_t n;
  const uint8_t *data =
      read_items(s, TRIAL_BYTES, FL_COHORT_MAX / 2, &n, "cohorts: trials");
  for (size_t i = 0; data && i < n; i++) {
    if (unpack_trial(set, &set->trials[i], data + i * TRIAL_BYTES)) continue;
    refuse(s, "cohorts: a trial");
    return;
  }
  set->n_trials = (uint32_t)n;
}

static void check_trials(source *s)
{
  const fl_cohort_set *set = s->set;
  uint8_t is_taken[FL_COHORT_MAX] = {0};
  for (uint32_t i = 0; is_good(s) && i < set->n_trials; i++) {
    const uint8_t leaves[2] = {set->trials[i].parent, set->trials[i].child};
    for (unsigned k = 0; k < 2; k++) {
      if (!fli_leaf_is_alive(set, leaves[k]) || is_taken[leaves[k]]) {
        refuse(s, "cohorts: halves of a trial");
        return;
      }
      is_taken[leaves[k]] = 1;
    }
  }
}

static void read_pairs(source *s)
{
  fl_cohort_set *set = s->set;
  const size_t want = (size_t)set->options.cap * set->options.cap;
  size_t n;
  const uint8_t *data = read_items(s, PAIR_BYTES, want, &n, "cohorts: pairs");
  if (data && n != want)
    fli_reader_fail(&s->reader, FL_E_DIM, "cohorts: pairs");
  for (size_t i = 0; is_good(s) && i < n; i++) {
    const uint8_t *at = data + i * PAIR_BYTES;
    set->pairs[i].n = fli_load_u32(at);
    if (set->pairs[i].n >= 2 * FLI_COHORT_PAIR) refuse(s, "cohorts: a pair");
    for (unsigned k = 0; k < FLI_COHORT_PAIR; k++) {
      set->pairs[i].values[k] = fli_load_f32(at + 4 + 4 * k);
      if (!isfinite(set->pairs[i].values[k])) refuse(s, "cohorts: a pair");
    }
  }
}

/* ---- leaves -------------------------------------------------------------- */

static void read_votes(source *s, fli_leaf *leaf)
{
  size_t n;
  const uint8_t *data =
      read_items(s, VOTE_BYTES, FLI_COHORT_VOTES, &n, "cohorts: votes");
  for (size_t i = 0; data && i < n; i++) {
    const uint8_t *at = data + i * VOTE_BYTES;
    leaf->votes[i] = (fli_vote){fli_load_f32(at), at[4] & 1, at[4] >> 1};
    if (!isfinite(leaf->votes[i].x) || at[4] > 3) refuse(s, "cohorts: a vote");
  }
  leaf->n_votes = (uint32_t)n;
}

/* `n` rows of floats, or as many as there are for n = 0. */
static size_t read_floats(source *s, fli_leaf *leaf,
                          float *(*where)(fli_leaf *), size_t rows_most)
{
  const size_t dim = s->set->options.dim;
  size_t n;
  /* Other rules keep none, and theirs would be as long as features. */
  if (s->set->options.rule != FL_COHORT_SKETCH) rows_most = 0;
  const uint8_t *data =
      read_items(s, dim * sizeof(float), rows_most, &n, "cohorts: rows");
  if (!data || n == 0) return 0;
  fl_status st = fli_leaf_room(s->set, leaf);
  if (st != FL_OK) {
    fli_reader_fail(&s->reader, st, "cohorts: rows");
    return 0;
  }
  float *out = where(leaf);
  for (size_t i = 0; i < n * dim; i++) {
    out[i] = fli_load_f32(data + 4 * i);
    /* Unit vectors and their means. */
    if (!(fabsf(out[i]) <= 2.0f)) refuse(s, "cohorts: a row");
  }
  return n;
}

static float *rows_of(fli_leaf *leaf)
{
  return leaf->buffer;
}

static float *centroids_of(fli_leaf *leaf)
{
  return leaf->centroids;
}

static void read_centroids(source *s, fli_leaf *leaf)
{
  size_t n = read_floats(s, leaf, centroids_of, 2);
  if (is_good(s) && n != 2) refuse(s, "cohorts: centroids");
  leaf->has_centroids = 1;
}

static float read_bits(source *s)
{
  float value = fli_f32_from_bits(fli_reader_u32(&s->reader));
  if (isinf(value)) refuse(s, "cohorts: a share");
  return value;
}

static uint32_t read_in(source *s, uint64_t most, const char *what)
{
  return (uint32_t)fli_reader_u64_in(&s->reader, 0, most, what);
}

static void read_leaf_field(source *s, fli_leaf *leaf, uint32_t key)
{
  switch (key) {
  case LEAF_AGE: leaf->age = read_in(s, INT32_MAX, "age"); break;
  case LEAF_ROUND: leaf->round = read_in(s, INT32_MAX, "round"); break;
  case LEAF_WAIT: leaf->wait = read_in(s, UINT32_MAX, "wait"); break;
  case LEAF_BACK: leaf->back = read_in(s, FLI_COHORT_BACK_MOST, "back"); break;
  case LEAF_SEEDED: leaf->seeded = read_in(s, INT32_MAX, "seeded"); break;
  case LEAF_EPOCH: leaf->epoch = read_in(s, INT32_MAX, "epoch"); break;
  case LEAF_HAS_HALVES:
    leaf->has_halves = (uint8_t)read_in(s, 1, "has halves");
    break;
  case LEAF_LOSS: leaf->loss = fli_reader_f64(&s->reader); break;
  case LEAF_VARIANCE: leaf->variance = fli_reader_f64(&s->reader); break;
  case LEAF_AGREEMENT: leaf->agreement = read_bits(s); break;
  case LEAF_GAP: leaf->gap = read_bits(s); break;
  case LEAF_VOTES: read_votes(s, leaf); break;
  case LEAF_ROWS:
    leaf->n_buffer = (uint32_t)read_floats(s, leaf, rows_of, FLI_COHORT_BUFFER);
    break;
  case LEAF_CENTROIDS: read_centroids(s, leaf); break;
  default: fli_reader_skip(&s->reader); break;
  }
}

static void read_leaf(source *s)
{
  fl_cohort_set *set = s->set;
  fli_leaf *leaf = NULL;
  uint32_t key, fields = 0;
  for (fli_fields f = fli_fields_begin(&s->reader);
       fli_fields_next(&f, &key);) {
    if (key == LEAF_INDEX) {
      uint32_t index = read_in(s, set->options.cap - 1, "cohort");
      if (is_good(s) && set->leaves[index].is_alive)
        refuse(s, "cohorts: a cohort that is there twice");
      if (!is_good(s)) return;
      fli_leaf_begin(set, index, 0);
      leaf = &set->leaves[index];
    } else if (leaf && key <= LEAF_CENTROIDS) {
      read_leaf_field(s, leaf, key);
    } else {
      fli_fields_unknown(&f);
      continue;
    }
    fields += key <= LEAF_ROWS;
  }
  if (!is_good(s)) return;
  if (!leaf || fields != LEAF_KEYS_ALWAYS) {
    fli_reader_fail(&s->reader, FL_E_FORMAT, "cohorts: a cohort's fields");
  } else if (!isfinite(leaf->loss) || !isfinite(leaf->variance) ||
             leaf->variance < 0.0 || (leaf->loss < 0.0 && leaf->loss != -1.0) ||
             leaf->seeded > leaf->round || leaf->back == 0) {
    refuse(s, "cohorts: a cohort's numbers");
  }
}

static void read_leaves(source *s)
{
  uint32_t n = fli_reader_array(&s->reader);
  if (is_good(s) && (n == 0 || n > s->set->options.cap))
    refuse(s, "cohorts: number of cohorts");
  for (uint32_t i = 0; is_good(s) && i < n; i++)
    read_leaf(s);
  fli_reader_leave(&s->reader);
}

/* ---- AUXO ---------------------------------------------------------------- */

static void read_affinities(source *s)
{
  fl_cohort_set *set = s->set;
  const size_t want = (size_t)set->n_slots * set->options.cap;
  size_t n;
  const uint8_t *data =
      read_items(s, AFFINITY_BYTES, want, &n, "cohorts: affinities");
  if (is_good(s) && (n != want || set->options.rule != FL_COHORT_AUXO))
    fli_reader_fail(&s->reader, FL_E_DIM, "cohorts: affinities");
  for (size_t i = 0; is_good(s) && i < n; i++) {
    const uint8_t *at = data + i * AFFINITY_BYTES;
    double r = fli_f64_from_bits(fli_load_u64(at));
    float half = fli_load_f32(at + 8);
    if (isnan(r) || r > 1e30 || !isfinite(half)) refuse(s, "cohorts: affinity");
    set->affinities[i] = (fli_affinity){r, half, fli_load_u32(at + 12)};
  }
}

static void read_assigned(source *s)
{
  fl_cohort_set *set = s->set;
  size_t n;
  const uint8_t *data = read_items(s, 1, set->n_slots, &n, "cohorts: assigned");
  if (is_good(s) && (n != set->n_slots || set->options.rule != FL_COHORT_AUXO))
    fli_reader_fail(&s->reader, FL_E_DIM, "cohorts: assigned");
  for (size_t i = 0; is_good(s) && i < n; i++) {
    set->assigned[i] = data[i];
    if (!fli_leaf_is_alive(set, data[i])) refuse(s, "cohorts: assigned");
  }
}

/* ---- the set ------------------------------------------------------------- */

static void read_options(source *s)
{
  uint8_t hash[FLI_HASH_BYTES] = {0};
  fli_reader_bin_exact(&s->reader, hash, sizeof hash, "cohorts: options");
  if (is_good(s) && memcmp(hash, s->set->options_hash, sizeof hash) != 0)
    fli_reader_fail(&s->reader, FL_E_CONFLICT, "cohorts: other options");
}

static void read_field(source *s, uint32_t key)
{
  fl_cohort_set *set = s->set;
  switch (key) {
  case KEY_OPTIONS: read_options(s); break;
  case KEY_RNG: set->rng.state = fli_reader_u64(&s->reader); break;
  case KEY_EXPLORATION:
    set->exploration = fli_reader_f64(&s->reader);
    if (!(set->exploration >= 0.0 && set->exploration <= 1.0))
      refuse(s, "cohorts: exploration");
    break;
  case KEY_EPOCH: set->splits_made = fli_reader_u64(&s->reader); break;
  case KEY_FREE: set->free_slot = fli_reader_u32(&s->reader); break;
  case KEY_MEMBERS: read_members(s); break;
  case KEY_IDS: read_ids(s); break;
  case KEY_TRIALS: read_trials(s); break;
  case KEY_PAIRS: read_pairs(s); break;
  case KEY_LEAVES: read_leaves(s); break;
  case KEY_AFFINITIES: read_affinities(s); break;
  default: read_assigned(s); break;
  }
}

static fl_status read_set(fl_cohort_set *set, const fli_bytes *payload)
{
  source s = {.set = set};
  uint32_t key, fields = 0;
  const uint32_t want =
      KEYS_ALWAYS + (set->options.rule == FL_COHORT_AUXO ? 2U : 0U);
  fli_reader_init(&s.reader, payload->data, payload->size);
  for (fli_fields f = fli_fields_begin(&s.reader); fli_fields_next(&f, &key);) {
    if (key == 0 || key > KEY_ASSIGNED) {
      fli_fields_unknown(&f);
      continue;
    }
    read_field(&s, key);
    fields++;
  }
  if (is_good(&s) && fields != want)
    fli_reader_fail(&s.reader, FL_E_FORMAT, "cohorts: fields are missing");
  check_clients(&s);
  check_trials(&s);
  return fli_reader_finish(&s.reader);
}

/* A set without leaves, to be filled. */
static fl_status make_empty(fl_cohort_set **out, const fl_cohort_set *like)
{
  fl_cohort_options options = like->options;
  options.splits = like->splits;
  options.clients = 0;
  fl_status st = fl_cohort_set_new(out, like->context, &options);
  if (st != FL_OK) return st;
  for (uint32_t i = 0; i < options.cap; i++) {
    if ((*out)->leaves[i].is_alive) fli_leaf_end(*out, i);
  }
  memcpy((*out)->key, like->key, sizeof like->key);
  (*out)->has_key = like->has_key;
  return FL_OK;
}

fl_status fl_cohort_set_load(fl_cohort_set *set, const fl_reader *reader)
{
  fl_status st = FL_OK;
  fl_cohort_set *fresh = NULL;
  fli_bytes payload;
  fli_fpguard guard;
  uint32_t version;
  fli_clear_error();
  if (!set || !reader || !reader->read)
    return fli_error(FL_E_ARGUMENT, "cohorts: got NULL");
  fli_bytes_init(&payload, set->context);
  FLI_TRY(fli_container_read(reader, FLI_STATE_COHORTS,
                             FLI_COHORT_STATE_VERSION, STATE_MOST, &version,
                             &payload));
  FLI_TRY(make_empty(&fresh, set));
  FLI_TRY(read_set(fresh, &payload));
  fli_fpguard_enter(&guard);
  fli_limits_renew(fresh);
  fli_fpguard_leave(&guard);
  fl_cohort_set old = *set;
  *set = *fresh;
  *fresh = old;
out:
  fl_cohort_set_free(fresh);
  fli_bytes_free(&payload);
  return st;
}
