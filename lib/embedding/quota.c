/* SPDX-License-Identifier: Apache-2.0 */
/* Who gets how many bytes, and from which level on. Levels are counted in
 * bytes, live ones and wanted ones (chunks that ids do not hold), over a sample
 * of the segments. The bytes of an entry and an accumulator are a row's first
 * chunk's: it is worth so many levels less. */
#include "embedding/hash.h"

#include <string.h>

#include "embedding/utility.h"

enum { SEGMENTS_MIN = 16, /* of a sample */ NINETY_FIVE = 95 };

int fli_row_is_kept(const fli_table *table, uint32_t where)
{
  return (where & FLI_AGE_MASK) >> FLI_AGE_SHIFT < table->keep_for;
}

uint64_t fli_table_bytes(const fli_table *table)
{
  return table->n_chunks * table->chunk_bytes + table->n_rows * FLI_ROW_BYTES;
}

/* ---- levels -------------------------------------------------------------- */

static uint8_t less(uint8_t level, uint8_t charge)
{
  return level > charge ? (uint8_t)(level - charge) : 0;
}

/* The greatest level among live chunks stands for the row: it goes last. */
static void count_row(const fli_table *table, const fli_entry *entry,
                      uint64_t weight, fli_levels *levels)
{
  uint32_t where = fli_entry_where(entry), top = FLI_CHUNKS_MAX;
  const uint64_t bytes = weight * table->chunk_bytes;
  const int is_kept = fli_row_is_kept(table, where);
  uint8_t second = 0;
  for (uint32_t k = 0; k < table->chunks; k++) {
    if (!(where >> (FLI_MASK_SHIFT + k) & 1)) {
      levels->wanted[entry->utility[k]] += bytes;
    } else if (top == FLI_CHUNKS_MAX ||
               entry->utility[k] > entry->utility[top]) {
      top = k;
    }
  }
  for (uint32_t k = 0; k < table->chunks; k++) {
    uint8_t level = entry->utility[k];
    if (k == top || !(where >> (FLI_MASK_SHIFT + k) & 1)) continue;
    if (level > second) second = level;
    (is_kept ? levels->kept : levels->live)[level] += bytes;
  }
  uint8_t level = less(entry->utility[top], table->charge);
  if (level < second) level = second;
  (is_kept ? levels->kept : levels->live)[level] +=
      bytes + weight * FLI_ROW_BYTES;
}

static void count_candidates(const fli_table *table, fli_levels *levels)
{
  for (uint32_t i = 0; i < table->n_candidate_buckets * FLI_BUCKET; i++) {
    const fli_candidate *candidate = &table->candidates[i];
    uint32_t top = 0;
    if (!candidate->is_there) continue;
    for (uint32_t k = 0; k < table->chunks; k++)
      top = candidate->levels[k] > candidate->levels[top] ? k : top;
    uint8_t first = less(candidate->levels[top], table->charge);
    levels->wanted[first] += table->chunk_bytes + FLI_ROW_BYTES;
    for (uint32_t k = 0; k < table->chunks; k++) {
      uint8_t level = candidate->levels[k];
      if (k != top)
        levels->wanted[level < first ? level : first] += table->chunk_bytes;
    }
  }
}

/* They would get all their chunks. Who came to a level was at those below
 * before. */
static void count_dropped(const fli_table *table, fli_levels *levels)
{
  const uint64_t bytes =
      (uint64_t)table->chunks * table->chunk_bytes + FLI_ROW_BYTES;
  uint32_t above = 0;
  for (size_t i = FLI_COUNT_OF(table->dropped); i-- > 0;) {
    uint8_t level =
        less((uint8_t)(FLI_DROPPED_LEVELS * i + FLI_DROPPED_LEVELS / 2),
             table->charge);
    if (table->dropped[i] <= above) continue;
    levels->wanted[level] += (table->dropped[i] - above) * bytes;
    above = table->dropped[i];
  }
}

void fli_levels_measure(const fl_embedding *embedding, const fli_table *table,
                        fli_levels *levels)
{
  uint64_t at = 0, n = 0;
  fli_segment *segment;
  uint64_t every = embedding->options.sample_every;
  if (table->n_segments < SEGMENTS_MIN * every) every = 1;
  memset(levels, 0, sizeof *levels);
  while ((segment = fli_segments_next(table, &at)) != NULL) {
    if (n++ % every != embedding->n_adjusts % every) continue;
    for (size_t i = 0; i < (size_t)segment->n_buckets * FLI_BUCKET; i++) {
      if (fli_entry_where(&segment->entries[i]) != 0)
        count_row(table, &segment->entries[i], every, levels);
    }
  }
  count_candidates(table, levels);
  count_dropped(table, levels);
}

/* ---- quotas -------------------------------------------------------------- */

/* What rows may take, all tables together: what is neither fixed nor kept back
 * for adjust. Half a block of each pool is empty on the average. */
uint64_t fli_capacity(const fl_embedding *embedding)
{
  uint64_t fixed = embedding->bytes_used + embedding->reserve;
  for (uint32_t i = 0; i < embedding->n_tables; i++)
    fixed -= embedding->tables[i]->segment_bytes;
  for (uint32_t i = 0; i < embedding->n_pools; i++) {
    const fli_pool *pool = embedding->pools[i];
    fixed -= pool->n_blocks * (uint64_t)pool->block_bytes;
    if (pool->n_made > pool->n_free) fixed += pool->block_bytes / 2;
  }
  return embedding->budget > fixed ? embedding->budget - fixed : 0;
}

static int is_small(const fli_table *table)
{
  return table->n_rows < table->prune_from;
}

/* By share, but no table gets more than it has use for: what is left goes to
 * the others. */
static void share_out(fl_embedding *embedding, const fli_plan *plans,
                      uint64_t capacity)
{
  int is_done[FL_EMBEDDING_MAX_TABLES] = {0};
  /* Small tables first, as long as they leave half to the others. */
  for (uint32_t i = 0; i < embedding->n_tables; i++) {
    fli_table *table = embedding->tables[i];
    if (!is_small(table) || plans[i].demand > capacity / 2) continue;
    table->quota = plans[i].demand;
    capacity -= table->quota;
    is_done[i] = 1;
  }
  for (int has_changed = 1; has_changed;) {
    double shares = 0;
    uint64_t left = capacity;
    has_changed = 0;
    for (uint32_t i = 0; i < embedding->n_tables; i++) {
      if (!is_done[i]) shares += (double)embedding->tables[i]->share;
    }
    for (uint32_t i = 0; i < embedding->n_tables; i++) {
      fli_table *table = embedding->tables[i];
      if (is_done[i]) continue;
      table->quota = (uint64_t)((double)left * (double)table->share / shares);
      if (plans[i].demand > table->quota) continue;
      table->quota = plans[i].demand;
      capacity -= table->quota;
      is_done[i] = has_changed = 1;
    }
  }
  /* Nobody has use for the rest yet: it is for who comes first. */
  for (uint32_t i = 0; i < embedding->n_tables; i++) {
    if (!is_done[i]) return;
  }
  for (uint32_t i = 0; i < embedding->n_tables; i++)
    embedding->tables[i]->quota += capacity;
}

/* ---- one threshold for all ----------------------------------------------- */

/* The level that so many percent of the bytes that are worth something do not
 * exceed; 0 when there are none. */
static int percentile_of(const fli_levels *levels, uint64_t percent)
{
  uint64_t sum = 0, below = 0;
  for (int i = 1; i < FLI_LEVELS; i++)
    sum += levels->live[i] + levels->wanted[i] + levels->kept[i];
  if (sum == 0) return 0;
  for (int i = 1; i < FLI_LEVELS; i++) {
    below += levels->live[i] + levels->wanted[i] + levels->kept[i];
    if (below * 100 >= sum * percent) return i;
  }
  return FLI_LEVELS - 1;
}

/* Quotas are what every table has above the common threshold, levels being
 * counted from its percentile. */
static void share_by_level(fl_embedding *embedding, uint64_t capacity)
{
  uint64_t sums[2 * FLI_LEVELS] = {0};
  int tops[FL_EMBEDDING_MAX_TABLES];
  fli_levels levels;
  for (uint32_t i = 0; i < embedding->n_tables; i++) {
    fli_levels_measure(embedding, embedding->tables[i], &levels);
    tops[i] = percentile_of(&levels, NINETY_FIVE);
    for (int k = 0; k < FLI_LEVELS; k++)
      sums[k - tops[i] + FLI_LEVELS - 1] += levels.live[k] + levels.wanted[k];
    for (int k = 0; k < FLI_LEVELS; k++)
      sums[2 * FLI_LEVELS - 1] += levels.kept[k];
  }
  int from = 2 * FLI_LEVELS;
  uint64_t sum = 0;
  while (from > 0 && sum + sums[from - 1] <= capacity)
    sum += sums[--from];
  for (uint32_t i = 0; i < embedding->n_tables; i++) {
    fli_table *table = embedding->tables[i];
    fli_levels_measure(embedding, table, &levels);
    table->quota = 0;
    for (int k = 0; k < FLI_LEVELS; k++) {
      table->quota += levels.kept[k];
      if (k - tops[i] + FLI_LEVELS - 1 >= from)
        table->quota += levels.live[k] + levels.wanted[k];
    }
    /* What is left is too little for the next level of all. */
    table->quota += (capacity - sum) / embedding->n_tables;
  }
}

/* ---- plans --------------------------------------------------------------- */

static int hysteresis_levels(float factor)
{
  uint32_t half = 1u << (FLI_LEVEL_BITS - 1);
  return (int)((fli_f32_bits(factor) + half) >> FLI_LEVEL_BITS) -
         (int)(fli_f32_bits(1.0f) >> FLI_LEVEL_BITS);
}

static void plan_table(const fl_embedding *embedding, const fli_table *table,
                       const fli_levels *levels, fli_plan *plan)
{
  uint64_t used = fli_table_bytes(table), wanted = 0;
  plan->winner = plan->threshold = 0;
  plan->has_losers = 0;
  plan->is_tight = plan->demand > table->quota;
  if (!plan->is_tight) return;
  /* The lowest threshold at which what winners want is there: free, or of
   * losers that are worth less by the hysteresis. */
  const int more = hysteresis_levels(embedding->options.hysteresis);
  uint64_t room = table->quota > used ? table->quota - used : 0;
  uint64_t short_of = used > table->quota ? used - table->quota : 0;
  int level = 0;
  for (int i = more + 1; i < FLI_LEVELS; i++)
    wanted += levels->wanted[i];
  for (room += levels->live[0]; level < FLI_LEVELS - 1; level++) {
    if (wanted + short_of <= room) break;
    room += levels->live[level + 1];
    if (level + more + 1 < FLI_LEVELS)
      wanted -= levels->wanted[level + more + 1];
  }
  plan->threshold = (uint8_t)level;
  plan->winner = level + more;
  if (used + wanted <= table->quota) return;
  uint64_t over = used + wanted - table->quota;
  plan->has_losers = 1;
  for (int i = 0; i <= level; i++) {
    plan->loser = (uint8_t)i;
    plan->loser_bytes = over;
    if (levels->live[i] >= over) return;
    over -= levels->live[i];
  }
  plan->loser_bytes = UINT64_MAX; /* the sample was wrong: all of the level */
}

void fli_plan_all(fl_embedding *embedding, fli_plan *plans)
{
  fli_levels levels;
  uint64_t capacity = fli_capacity(embedding);
  for (uint32_t i = 0; i < embedding->n_tables; i++) {
    fli_levels_measure(embedding, embedding->tables[i], &levels);
    plans[i].demand = fli_table_bytes(embedding->tables[i]);
    for (int k = 1; k < FLI_LEVELS; k++)
      plans[i].demand += levels.wanted[k];
    plans[i].middle = (uint8_t)percentile_of(&levels, 50);
  }
  if (embedding->options.is_global && embedding->n_tables > 1) {
    share_by_level(embedding, capacity);
  } else {
    share_out(embedding, plans, capacity);
  }
  for (uint32_t i = 0; i < embedding->n_tables; i++) {
    fli_levels_measure(embedding, embedding->tables[i], &levels);
    plan_table(embedding, embedding->tables[i], &levels, &plans[i]);
  }
}
