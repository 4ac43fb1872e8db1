/* SPDX-License-Identifier: Apache-2.0 */
/* Adjust: the budget goes to the chunks that are worth most. Losers give up as
 * much as winners want, lowest level first; a chunk that comes back is worth
 * hysteresis times the threshold, so that nothing goes back and forth. Rows
 * change their extent when they change their number of chunks; what that takes
 * on the way is in the reserve, and comes back by compaction. */
#include "embedding/hash.h"

#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"
#include "embedding/utility.h"

static const fl_embedding_report report_defaults = {
    .struct_size = sizeof(fl_embedding_report),
};

fl_status fl_embedding_report_init(fl_embedding_report *report, size_t size)
{
  return fli_options_init(report, size, &report_defaults,
                          sizeof report_defaults);
}

#define SCALE_MAX 0x1p60f
#define SCALE_MIN 0x1p-90f /* 24 octaves at a time: load.c wants 2^-120 */

typedef struct adjusting {
  fl_embedding *embedding;
  fli_table *table;
  const fli_plan *plan;
  uint64_t loser_bytes; /* of the plan's last level, that are left to take */
  fl_embedding_report *report;
  int was_refused; /* by the host's allocator */
} adjusting;

/* ---- rows that change their chunks --------------------------------------- */

static void copy_chunks(const fli_table *table, uint8_t *dst, uint32_t mask,
                        const uint8_t *src, uint32_t old_mask)
{
  const size_t n = table->chunk_bytes;
  for (uint32_t k = 0; k < table->chunks; k++) {
    uint32_t bit = 1u << k;
    if (mask & old_mask & bit) memcpy(dst, src, n);
    dst += mask & bit ? n : 0;
    src += old_mask & bit ? n : 0;
  }
}

static fli_room take_extent(adjusting *run, fli_pool *pool, int does_dip,
                            uint32_t *out)
{
  fli_room room = fli_pool_take(run->embedding, pool, does_dip, out);
  if (room == FLI_NO_ROOM) {
    fli_compact(run->embedding, run->report);
    room = fli_pool_take(run->embedding, pool, does_dip, out);
  }
  if (room == FLI_NO_MEMORY) run->was_refused = 1;
  return room;
}

/* To another, not empty mask. */
static int change_row(adjusting *run, fli_segment *segment, fli_entry *entry,
                      uint32_t mask, int does_dip)
{
  uint32_t index;
  fli_table *table = run->table;
  fli_pool *pool = table->pools[fli_count_of(mask)];
  if (take_extent(run, pool, does_dip, &index) != FLI_ROOM) return 0;
  uint32_t where = fli_entry_where(entry); /* compaction may have moved it */
  uint32_t old = where & FLI_INDEX_MASK, old_mask = where >> FLI_MASK_SHIFT;
  fli_pool *old_pool = table->pools[fli_count_of(old_mask)];
  copy_chunks(table, fli_pool_row(pool, index), mask,
              fli_pool_row(old_pool, old), old_mask);
  *fli_pool_square(pool, index) = *fli_pool_square(old_pool, old);
  fli_hash_move(table, segment, entry,
                mask << FLI_MASK_SHIFT | (where & FLI_AGE_MASK) |
                    FLI_IS_CHANGED | index);
  fli_pool_give(old_pool, old);
  table->n_chunks += fli_count_of(mask);
  table->n_chunks -= fli_count_of(old_mask);
  return 1;
}

static void drop_row(adjusting *run, fli_segment *segment, fli_entry *entry)
{
  fli_table *table = run->table;
  uint32_t where = fli_entry_where(entry);
  uint64_t hash = fli_mix(run->embedding->mix, fli_entry_id(entry));
  float sum = 0;
  for (uint32_t k = 0; k < table->chunks; k++)
    sum += fli_utility_of(entry->utility[k], table->base);
  fli_sketch_raise(table, hash, sum);
  fli_tombstone_add(run->embedding, table->index, fli_entry_id(entry));
  fli_hash_move(table, segment, entry, 0);
  fli_pool_give(table->pools[fli_where_count(where)], where & FLI_INDEX_MASK);
  table->n_chunks -= fli_where_count(where);
  run->report->rows_lost++;
}

/* ---- losers -------------------------------------------------------------- */

/* Whether a chunk at this level, which would free so many bytes, goes. */
static int is_loser(adjusting *run, uint8_t level, uint64_t bytes)
{
  if (level != run->plan->loser) return level < run->plan->loser;
  if (run->loser_bytes == 0) return 0;
  run->loser_bytes -= bytes < run->loser_bytes ? bytes : run->loser_bytes;
  return 1;
}

/* The mask that stays; the greatest chunk goes last and bears the entry. */
static uint32_t mask_without_losers(adjusting *run, const fli_entry *entry)
{
  const fli_table *table = run->table;
  uint32_t mask = fli_entry_where(entry) >> FLI_MASK_SHIFT, kept = 0, top = 0;
  for (uint32_t k = 0; k < table->chunks; k++) {
    if (!(mask >> k & 1)) continue;
    if (!(mask >> top & 1) || entry->utility[k] > entry->utility[top]) top = k;
  }
  for (uint32_t k = 0; k < table->chunks; k++) {
    if (!(mask >> k & 1) || k == top) continue;
    if (!is_loser(run, entry->utility[k], table->chunk_bytes)) kept |= 1u << k;
  }
  uint8_t level = entry->utility[top];
  level = level > table->charge ? (uint8_t)(level - table->charge) : 0;
  if (kept || !is_loser(run, level, table->chunk_bytes + FLI_ROW_BYTES))
    kept |= 1u << top;
  return kept;
}

static void take_from_row(adjusting *run, fli_segment *segment,
                          fli_entry *entry)
{
  uint32_t where = fli_entry_where(entry);
  if (where == 0 || fli_row_is_kept(run->table, where)) return;
  uint32_t mask = where >> FLI_MASK_SHIFT;
  uint32_t kept = mask_without_losers(run, entry);
  if (kept == mask) return;
  if (kept == 0) {
    drop_row(run, segment, entry);
  } else if (!change_row(run, segment, entry, kept, 1)) {
    return;
  }
  run->report->evicted += fli_count_of(mask) - fli_count_of(kept);
}

static void take_from_losers(adjusting *run)
{
  uint64_t at = 0;
  fli_segment *segment;
  if (!run->plan->has_losers) return;
  run->loser_bytes = run->plan->loser_bytes;
  while ((segment = fli_segments_next(run->table, &at)) != NULL) {
    for (size_t i = 0; i < (size_t)segment->n_buckets * FLI_BUCKET; i++)
      take_from_row(run, segment, &segment->entries[i]);
  }
}

/* ---- winners ------------------------------------------------------------- */

static int has_quota(const adjusting *run, uint64_t bytes)
{
  return fli_table_bytes(run->table) + bytes <= run->table->quota;
}

static void give_to_row(adjusting *run, fli_segment *segment, fli_entry *entry)
{
  const fli_table *table = run->table;
  uint32_t where = fli_entry_where(entry);
  uint32_t mask = where >> FLI_MASK_SHIFT, wanted = mask;
  if (mask == 0 || mask + 1 == 1u << table->chunks) return;
  for (uint32_t k = 0; k < table->chunks; k++) {
    if (entry->utility[k] > run->plan->winner) wanted |= 1u << k;
  }
  uint32_t more = fli_count_of(wanted) - fli_count_of(mask);
  if (more == 0 || !has_quota(run, (uint64_t)more * table->chunk_bytes)) return;
  if (change_row(run, segment, entry, wanted, 0)) run->report->grown += more;
}

static void give_to_rows(adjusting *run)
{
  uint64_t at = 0;
  fli_segment *segment;
  if (run->table->chunks == 1) return;
  while ((segment = fli_segments_next(run->table, &at)) != NULL) {
    for (size_t i = 0; i < (size_t)segment->n_buckets * FLI_BUCKET; i++)
      give_to_row(run, segment, &segment->entries[i]);
  }
}

static void give_to_candidate(adjusting *run, const fli_candidate *candidate)
{
  fli_table *table = run->table;
  uint32_t mask = 0, top = 0, index;
  fli_entry *entry;
  for (uint32_t k = 0; k < table->chunks; k++) {
    if (candidate->levels[k] > run->plan->winner) mask |= 1u << k;
    if (candidate->levels[k] > candidate->levels[top]) top = k;
  }
  if (mask == 0) return;
  /* As long as there is room for everybody, the entry costs nothing. */
  const int charge = run->plan->is_tight ? table->charge : 0;
  if (candidate->levels[top] <= run->plan->winner + charge) return;
  /* It may have become a row since it was noted. */
  if (fli_hash_find(table, candidate->id,
                    fli_mix(run->embedding->mix, candidate->id)))
    return;
  uint32_t count = fli_count_of(mask);
  if (!has_quota(run, count * (uint64_t)table->chunk_bytes + FLI_ROW_BYTES))
    return;
  fli_pool *pool = table->pools[count];
  if (take_extent(run, pool, 0, &index) != FLI_ROOM) return;
  *fli_pool_square(pool, index) = run->embedding->options.initial_square;
  fli_room room =
      fli_hash_insert(run->embedding, table, candidate->id,
                      mask << FLI_MASK_SHIFT | FLI_IS_CHANGED | index, &entry);
  if (room != FLI_ROOM) {
    fli_pool_give(pool, index);
    run->was_refused |= room == FLI_NO_MEMORY;
    return;
  }
  memcpy(entry->utility, candidate->levels, sizeof entry->utility);
  table->n_chunks += count;
  run->report->grown += count;
  run->report->rows_gained++;
}

/* Best first, as far as there is room. */
static void give_to_candidates(adjusting *run)
{
  const fli_table *table = run->table;
  const uint32_t n = table->n_candidate_buckets * FLI_BUCKET;
  enum { BAND = 16 }; /* levels that are as good as each other */
  for (int from = FLI_LEVELS - BAND; from >= 0; from -= BAND) {
    if (from + BAND <= run->plan->winner) return;
    for (uint32_t i = 0; i < n; i++) {
      const fli_candidate *candidate = &table->candidates[i];
      uint8_t top = 0;
      for (uint32_t k = 0; k < table->chunks; k++)
        top = candidate->levels[k] > top ? candidate->levels[k] : top;
      if (candidate->is_there && top >= from && top < from + BAND)
        give_to_candidate(run, candidate);
    }
  }
}

/* ---- afterwards ---------------------------------------------------------- */

static void age_row(const fli_table *table, fli_entry *entry, uint32_t lower)
{
  uint32_t where = fli_entry_where(entry);
  if (where == 0) return;
  if (table->keep_for > 0 && (where & FLI_AGE_MASK) != FLI_AGE_MASK) {
    atomic_store_explicit(&entry->where,
                          (where + (1u << FLI_AGE_SHIFT)) | FLI_IS_CHANGED,
                          memory_order_relaxed);
  } else if (lower > 0) {
    atomic_store_explicit(&entry->where, where | FLI_IS_CHANGED,
                          memory_order_relaxed);
  }
  for (int k = 0; k < FLI_CHUNKS_MAX && lower > 0; k++) {
    uint8_t *level = &entry->utility[k];
    *level = *level > lower ? (uint8_t)(*level - lower) : 0;
  }
}

/* Later increments count more; when the median has risen far, all levels sink
 * by whole octaves, and either what comes later counts as much less, or the
 * levels begin as much higher. */
static void decay(const fl_embedding *embedding, fli_table *table,
                  const fli_plan *plan)
{
  enum { FAR = 32, OCTAVE = 8, SCALE_OCTAVES = 20 };
  uint32_t lower = 0;
  uint64_t at = 0;
  fli_segment *segment;
  table->scale /= embedding->options.decay;
  if (plan->middle >= FLI_LEVEL_MIDDLE + FAR)
    lower = (uint32_t)(plan->middle - FLI_LEVEL_MIDDLE) / OCTAVE * OCTAVE;
  if (table->scale > SCALE_MAX && lower < SCALE_OCTAVES * OCTAVE)
    lower = SCALE_OCTAVES * OCTAVE; /* nothing was trained for long */
  if (table->scale > SCALE_MIN) {
    for (uint32_t i = 0; i < lower; i += OCTAVE)
      table->scale *= 0.5f;
  } else if (table->base + (int32_t)lower <= FLI_BASE_MAX) {
    table->base += (int32_t)lower;
  } else {
    lower = 0;
  }
  int admit = plan->winner + (plan->is_tight ? table->charge : 0) - (int)lower;
  table->admit_level = (uint8_t)(admit < 0 ? 0 : admit > 255 ? 255 : admit);
  fli_sketch_lower(table, lower);
  if (lower == 0 && table->keep_for == 0) return;
  while ((segment = fli_segments_next(table, &at)) != NULL) {
    for (size_t i = 0; i < (size_t)segment->n_buckets * FLI_BUCKET; i++)
      age_row(table, &segment->entries[i], lower);
  }
}

static fl_status adjust_tables(fl_embedding *embedding,
                               fl_embedding_report *report)
{
  fli_plan plans[FL_EMBEDDING_MAX_TABLES];
  int was_refused = 0;
  fli_plan_all(embedding, plans);
  for (uint32_t i = 0; i < embedding->n_tables; i++) {
    adjusting run = {.embedding = embedding,
                     .table = embedding->tables[i],
                     .plan = &plans[i],
                     .report = report};
    take_from_losers(&run);
    was_refused |= run.was_refused;
  }
  fli_compact(embedding, report);
  for (uint32_t i = 0; i < embedding->n_tables; i++) {
    adjusting run = {.embedding = embedding,
                     .table = embedding->tables[i],
                     .plan = &plans[i],
                     .report = report};
    give_to_candidates(&run);
    give_to_rows(&run);
    was_refused |= run.was_refused;
    decay(embedding, run.table, &plans[i]);
  }
  fli_compact(embedding, report);
  for (uint32_t i = 0; i < embedding->n_tables; i++)
    was_refused |=
        fli_hash_shrink(embedding, embedding->tables[i]) == FLI_NO_MEMORY;
  return was_refused ? fli_nomem(embedding->block_bytes) : FL_OK;
}

static void add_report(fl_embedding_report *sum, const fl_embedding_report *one)
{
  sum->evicted += one->evicted;
  sum->grown += one->grown;
  sum->rows_lost += one->rows_lost;
  sum->rows_gained += one->rows_gained;
  sum->bytes_moved += one->bytes_moved;
  sum->blocks_returned += one->blocks_returned;
}

fl_status fl_embedding_adjust(fl_embedding *embedding,
                              fl_embedding_report *report)
{
  fl_embedding_report done = report_defaults;
  fli_fpguard guard;
  fli_clear_error();
  if (!embedding) return fli_error(FL_E_ARGUMENT, "embedding: got NULL");
  if (report) {
    fl_status st =
        fli_options_store(report, &done, sizeof done, "embedding report");
    if (st != FL_OK) return st;
  }
  if (embedding->n_tables == 0 || embedding->budget == UINT64_MAX) return FL_OK;
  fli_fpguard_enter(&guard);
  fl_status st = adjust_tables(embedding, &done);
  embedding->layout++;
  embedding->n_adjusts++;
  add_report(&embedding->totals, &done);
  fli_fpguard_leave(&guard);
  if (report)
    (void)fli_options_store(report, &done, sizeof done, "embedding report");
  return st;
}
