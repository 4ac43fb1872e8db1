/* SPDX-License-Identifier: Apache-2.0 */
/* A set as bytes, between decisions: a map of numbers, clients and trials as
 * packed arrays, one map per leaf. */
#include "cohort/state.h"

#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "wire/container.h"

/* ---- packed arrays ------------------------------------------------------- */

static uint8_t *take(const fl_cohort_set *set, size_t bytes)
{
  return fli_alloc(set->context, bytes, 1);
}

static void give(const fl_cohort_set *set, uint8_t *data, size_t bytes)
{
  fli_free(set->context, data, bytes);
}

static fl_status write_members(const fl_cohort_set *set, fli_msg_writer *writer)
{
  const size_t n = set->n_slots, bytes = n * MEMBER_BYTES;
  uint8_t *data = take(set, bytes);
  if (!data) return fli_nomem(bytes);
  for (size_t i = 0; i < n; i++) {
    const fli_member *m = &set->members[i];
    uint8_t *at = data + i * MEMBER_BYTES;
    at[0] = m->leaf;
    at[1] = m->other;
    at[2] = (uint8_t)m->score;
    at[3] = m->bits;
    fli_store_u32(at + 4, m->last);
  }
  fli_field_bin(writer, KEY_MEMBERS, data, bytes);
  for (size_t i = 0; i < n; i++)
    fli_store_u64(data + i * MEMBER_BYTES, set->ids[i]);
  fli_field_bin(writer, KEY_IDS, data, bytes);
  give(set, data, bytes);
  return FL_OK;
}

static void pack_trial(uint8_t *at, const fli_trial *trial)
{
  at[0] = trial->parent;
  at[1] = trial->child;
  at[2] = (uint8_t)(trial->is_extended | trial->is_scarce << 1);
  at[3] = (uint8_t)trial->n;
  fli_store_u32(at + 4, trial->begun);
  for (uint32_t i = 0; i < trial->n; i++) {
    uint8_t *entry = at + TRIAL_HEAD + i * TRIAL_ENTRY;
    fli_store_f32(entry, trial->ratio[i]);
    entry[4] = trial->side[i];
    entry[5] = trial->third[i];
  }
}

static fl_status write_trials(const fl_cohort_set *set, fli_msg_writer *writer)
{
  const size_t bytes = set->n_trials * TRIAL_BYTES;
  uint8_t *data = take(set, bytes);
  if (!data) return fli_nomem(bytes);
  for (uint32_t i = 0; i < set->n_trials; i++)
    pack_trial(data + i * TRIAL_BYTES, &set->trials[i]);
  fli_field_bin(writer, KEY_TRIALS, data, bytes);
  give(set, data, bytes);
  return FL_OK;
}

static fl_status write_pairs(const fl_cohort_set *set, fli_msg_writer *writer)
{
  const size_t n = (size_t)set->options.cap * set->options.cap;
  const size_t bytes = n * PAIR_BYTES;
  uint8_t *data = take(set, bytes);
  if (!data) return fli_nomem(bytes);
  for (size_t i = 0; i < n; i++) {
    uint8_t *at = data + i * PAIR_BYTES;
    fli_store_u32(at, set->pairs[i].n);
    for (unsigned k = 0; k < FLI_COHORT_PAIR; k++)
      fli_store_f32(at + 4 + 4 * k, set->pairs[i].values[k]);
  }
  fli_field_bin(writer, KEY_PAIRS, data, bytes);
  give(set, data, bytes);
  return FL_OK;
}

static fl_status write_affinities(const fl_cohort_set *set,
                                  fli_msg_writer *writer)
{
  const size_t n = (size_t)set->n_slots * set->options.cap;
  const size_t bytes = n * AFFINITY_BYTES;
  if (set->options.rule != FL_COHORT_AUXO) return FL_OK;
  uint8_t *data = take(set, bytes);
  if (!data) return fli_nomem(bytes);
  for (size_t i = 0; i < n; i++) {
    uint8_t *at = data + i * AFFINITY_BYTES;
    fli_store_u64(at, fli_f64_bits(set->affinities[i].r));
    fli_store_f32(at + 8, set->affinities[i].s);
    fli_store_u32(at + 12, set->affinities[i].times);
  }
  fli_field_bin(writer, KEY_AFFINITIES, data, bytes);
  fli_field_bin(writer, KEY_ASSIGNED, set->assigned, set->n_slots);
  give(set, data, bytes);
  return FL_OK;
}

/* ---- leaves -------------------------------------------------------------- */

static fl_status write_rows(const fl_cohort_set *set, const fli_leaf *leaf,
                            fli_msg_writer *writer)
{
  const size_t dim = set->options.dim, n = leaf->n_buffer * dim;
  const size_t bytes = n * sizeof(float);
  float *rows = fli_alloc(set->context, n, sizeof *rows);
  if (!rows) return fli_nomem(bytes);
  for (uint32_t i = 0; i < leaf->n_buffer; i++) {
    size_t at = (leaf->first_row + i) % FLI_COHORT_BUFFER;
    memcpy(rows + i * dim, leaf->buffer + at * dim, dim * sizeof *rows);
  }
  fli_field_floats(writer, LEAF_ROWS, rows, n);
  fli_free(set->context, rows, bytes);
  if (leaf->has_centroids)
    fli_field_floats(writer, LEAF_CENTROIDS, leaf->centroids, 2 * dim);
  return FL_OK;
}

static void write_votes(const fli_leaf *leaf, fli_msg_writer *writer)
{
  uint8_t data[FLI_COHORT_VOTES * VOTE_BYTES];
  for (uint32_t i = 0; i < leaf->n_votes; i++) {
    const fli_vote *v = &leaf->votes[(leaf->first_vote + i) % FLI_COHORT_VOTES];
    fli_store_f32(data + i * VOTE_BYTES, v->x);
    data[i * VOTE_BYTES + 4] = (uint8_t)(v->before | v->now << 1);
  }
  fli_field_bin(writer, LEAF_VOTES, data, leaf->n_votes * VOTE_BYTES);
}

static fl_status write_leaf(const fl_cohort_set *set, uint32_t index,
                            fli_msg_writer *writer)
{
  const fli_leaf *leaf = &set->leaves[index];
  fli_writer_map(writer, LEAF_KEYS_ALWAYS + leaf->has_centroids);
  fli_field_u64(writer, LEAF_INDEX, index);
  fli_field_u64(writer, LEAF_AGE, leaf->age);
  fli_field_u64(writer, LEAF_ROUND, leaf->round);
  fli_field_u64(writer, LEAF_WAIT, leaf->wait);
  fli_field_u64(writer, LEAF_BACK, leaf->back);
  fli_field_u64(writer, LEAF_SEEDED, leaf->seeded);
  fli_field_u64(writer, LEAF_EPOCH, leaf->epoch);
  fli_field_u64(writer, LEAF_HAS_HALVES, leaf->has_halves);
  fli_field_f64(writer, LEAF_LOSS, leaf->loss);
  fli_field_f64(writer, LEAF_VARIANCE, leaf->variance);
  fli_field_u64(writer, LEAF_AGREEMENT, fli_f32_bits(leaf->agreement));
  fli_field_u64(writer, LEAF_GAP, fli_f32_bits(leaf->gap));
  write_votes(leaf, writer);
  return write_rows(set, leaf, writer);
}

/* ---- the set ------------------------------------------------------------- */

static fl_status write_set(const fl_cohort_set *set, fli_bytes *out)
{
  fl_status st = FL_OK;
  fli_msg_writer writer;
  fli_writer_init(&writer, out);
  fli_writer_map(&writer,
                 KEYS_ALWAYS + (set->options.rule == FL_COHORT_AUXO ? 2U : 0U));
  fli_field_bin(&writer, KEY_OPTIONS, set->options_hash,
                sizeof set->options_hash);
  fli_field_u64(&writer, KEY_RNG, set->rng.state);
  fli_field_f64(&writer, KEY_EXPLORATION, set->exploration);
  fli_field_u64(&writer, KEY_EPOCH, set->splits_made);
  fli_field_u64(&writer, KEY_FREE, set->free_slot);
  FLI_TRY(write_members(set, &writer));
  FLI_TRY(write_trials(set, &writer));
  FLI_TRY(write_pairs(set, &writer));
  fli_writer_u64(&writer, KEY_LEAVES);
  fli_writer_array(&writer, set->n_alive);
  for (uint32_t i = 0; i < set->options.cap; i++) {
    if (set->leaves[i].is_alive) FLI_TRY(write_leaf(set, i, &writer));
  }
  FLI_TRY(write_affinities(set, &writer));
  st = fli_writer_status(&writer);
out:
  return st;
}

static int is_quiet(const fl_cohort_set *set)
{
  for (uint32_t i = 0; i < set->options.cap; i++) {
    const fli_leaf *leaf = &set->leaves[i];
    if (leaf->has_ended || leaf->pending.n > 0 || leaf->ratios.n > 0) return 0;
  }
  return set->n_events == 0;
}

fl_status fl_cohort_set_save(const fl_cohort_set *set, const fl_writer *writer)
{
  fl_status st = FL_OK;
  fli_bytes payload;
  fli_clear_error();
  if (!set || !writer || !writer->write)
    return fli_error(FL_E_ARGUMENT, "cohorts: got NULL");
  if (!is_quiet(set))
    return fli_error(FL_E_STATE, "cohorts: reports or events wait");
  fli_bytes_init(&payload, set->context);
  FLI_TRY(fli_bytes_reserve(&payload,
                            2 * (size_t)set->n_slots * MEMBER_BYTES + RESERVE));
  FLI_TRY(write_set(set, &payload));
  FLI_TRY(fli_container_write(writer, FLI_STATE_COHORTS,
                              FLI_COHORT_STATE_VERSION, &payload));
out:
  fli_bytes_free(&payload);
  return st;
}
