/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the embedding store: ids are hashed into segments of buckets, an
 * entry says which chunks of its row are kept and where; the kept chunks lie
 * side by side in one extent of a pool.
 *
 *   directory[top bits of the hash] -> segment -> bucket of 4 entries
 *   entry -> pool of the table and the number of chunks -> extent
 *
 * Whatever is allocated here, but for a batch's scratch, goes through
 * fli_embedding_take and is within the budget. One thread writes; lookups may
 * read meanwhile: what is unlinked is given back when no reader can have it
 * (fli_embedding_retire), and a segment's sequence tells whether an entry was
 * what it seemed to be. */
#ifndef FLI_EMBEDDING_H
#define FLI_EMBEDDING_H

#include <stdatomic.h>

#include <fl/embedding.h>

enum {
  FLI_CHUNKS_MAX = FL_EMBEDDING_MAX_CHUNKS,
  FLI_DIM_MAX = 1024,
  FLI_BUCKET = 4, /* entries: a line of 64 bytes */
  FLI_DEPTH_MAX = 24,
  FLI_SEGMENT_BUCKETS_MAX = 512,
  FLI_GROUP = 16, /* extents that have their accumulators side by side */
  FLI_INDEX_BITS = 25,
  FLI_BLOCKS_FIRST = 8,   /* places of a pool's list */
  FLI_DROPPED_LEVELS = 4, /* half an octave */
  FLI_DROPPED_ABOVE = 12, /* levels above the candidates' */
  FLI_DROPPED_BYTES = 4,
  FLI_WINDOW = 64 /* ids that are looked up side by side */
};

/* So that rows stay finite: of 1024 values with a mean square below 2^128 none
 * is above 2^69, so no step is longer than 2^99, and adding that often comes to
 * an end where it is less than half a unit of the last place, below 2^125. */
#define FLI_RATE_MAX 1e9f

#define FLI_COUNTERS_MAX ((uint64_t)2 * UINT32_MAX) /* of a sketch */
#define FLI_CANDIDATE_BUCKETS_MAX (UINT32_MAX / 64)

/* `where` of an entry: mask << 28 | flags | index of the extent. 0, which no
 * entry in use has, is a free place; so that ids may be any number. */
enum { FLI_MASK_SHIFT = 28 };
#define FLI_INDEX_MASK ((1u << FLI_INDEX_BITS) - 1u)
#define FLI_IS_CHANGED (1u << FLI_INDEX_BITS) /* since the last version */
#define FLI_AGE_SHIFT (FLI_INDEX_BITS + 1)    /* 2 bits: adjusts, up to 3 */
#define FLI_AGE_MASK (3u << FLI_AGE_SHIFT)

typedef struct fli_entry {
  _Atomic uint64_t id;
  _Atomic uint32_t where;
  uint8_t utility[FLI_CHUNKS_MAX]; /* utility.h */
} fli_entry;

/* Never moves; a larger one takes its place. An odd sequence: it is being
 * changed, or is not in use any more. */
typedef struct fli_segment {
  _Atomic uint32_t sequence;
  uint32_t n_buckets;
  uint32_t n_used;
  uint32_t depth; /* top bits of the hash that its ids share */
  _Alignas(64) fli_entry entries[];
} fli_segment;

typedef _Atomic(uint8_t *) fli_block;

/* Never changes its size: a longer one takes its place. */
typedef struct fli_directory {
  uint32_t depth;
  _Atomic(fli_segment *) segments[]; /* [2^depth] */
} fli_directory;

/* Extents of one size, of all tables that have use for it. Blocks have
 * 2^shift extents: groups of FLI_GROUP, each with its accumulators behind it.
 * Free extents below n_made are chained by their first 4 bytes. */
typedef struct fli_pool {
  uint32_t extent_bytes;
  uint32_t group_bytes;
  int has_floats; /* values are float32, not bytes */
  uint32_t shift;
  uint32_t n_blocks;
  uint32_t blocks_capacity;
  uint32_t n_made;
  uint32_t n_free;
  uint32_t free_first; /* FLI_NONE: none */
  uint32_t limit;      /* while blocks are given back */
  size_t block_bytes;
  _Atomic(fli_block *) blocks; /* replaced by a longer copy */
} fli_pool;
#define FLI_NONE UINT32_MAX

/* What forward leaves for backward, and backward's own scratch; as long as the
 * longest batch. */
typedef struct fli_batch {
  size_t capacity;     /* ids */
  size_t map_capacity; /* a power of two, at least 2 x capacity */
  size_t n_ids;        /* of those found last; */
  uint64_t layout;     /* they are where they are while this is the same */
  uint64_t *ids;
  fli_entry **entries; /* of every id; NULL: none */
  uint32_t *wheres;    /* what they said; 0: none */
  uint32_t *hashes;
  uint32_t *unique;  /* which of the different ids it is */
  uint32_t *order;   /* bags by unique id */
  float *factors;    /* beside order */
  uint32_t *first;   /* [n_unique + 1], where each begins in order */
  uint32_t *firsts;  /* [n_unique], an id's first place in the batch */
  float *increments; /* [n_unique, chunks] of utilities */
  uint32_t *map;
  size_t n_unique;
  uint8_t *block; /* has all arrays */
  size_t bytes;
} fli_batch;

/* An id that lost its last chunk since the last version. */
typedef struct fli_tombstone {
  uint64_t id;
  uint32_t table;
} fli_tombstone;

/* An id without a chunk that may be worth some. */
typedef struct fli_candidate {
  uint64_t id;
  uint8_t levels[FLI_CHUNKS_MAX];
  uint32_t is_there;
} fli_candidate;

typedef struct fli_table {
  uint32_t index;
  uint32_t dim;
  uint32_t chunks;
  uint32_t chunk_floats;
  uint32_t chunk_bytes;
  uint32_t precision;
  uint32_t admit_after;
  uint32_t keep_for;
  float share;
  float init_scale;
  uint64_t prune_from;
  fli_pool *pools[FLI_CHUNKS_MAX + 1]; /* by the number of chunks; 0 is none */
  _Atomic(fli_directory *) directory;
  uint32_t n_segments;
  uint64_t n_rows;
  uint64_t n_chunks;
  uint64_t segment_bytes;
  /* utilities (utility.h) */
  int32_t base; /* 0: nothing was added yet */
  float scale;
  uint8_t admit_level; /* candidates are above it */
  uint8_t charge;      /* levels that a row's first chunk is worth less, for
                          it bears the entry */
  uint64_t quota;      /* bytes that the table's rows may take */
  uint64_t asked;      /* ids in forward, since the handle was made */
  uint64_t hits;       /* of them, that had a row */
  /* Only under a budget: 2 rows of counters (levels), the same of touches, and
   * buckets of candidates. */
  size_t sketch_width;
  uint8_t *sketch;
  uint8_t *touches; /* NULL: every id is admitted */
  uint32_t n_candidate_buckets;
  fli_candidate *candidates;
  /* Ids that would have been candidates, had there been places: a bit for
   * each and half octave, and how many came to each. */
  uint8_t *dropped_bits; /* [FLI_DROPPED_BYTES x candidates] */
  uint32_t dropped[256 / FLI_DROPPED_LEVELS];
  fli_batch batch;
} fli_table;

/* Lookups that are under way, by epoch. */
typedef struct fli_readers {
  _Alignas(64) _Atomic uint32_t epoch;
  _Alignas(64) _Atomic uint32_t n[2];
} fli_readers;

struct fl_embedding {
  fl_context *context; /* reference */
  fl_embedding_options options;
  uint8_t secret[16];
  uint64_t mix[2];          /* the secret as numbers */
  uint64_t budget;          /* UINT64_MAX: none */
  uint64_t bytes_used;      /* of it */
  uint64_t reserve;         /* of it, for what adjust needs on its way */
  size_t block_bytes;       /* at most */
  uint32_t segment_buckets; /* at most */
  uint64_t step;            /* calls of backward */
  uint64_t n_adjusts;
  uint64_t layout; /* changes when entries move */
  uint32_t n_tables;
  uint32_t n_pools;
  fli_table *tables[FL_EMBEDDING_MAX_TABLES];
  fli_pool *pools[FL_EMBEDDING_MAX_TABLES * FLI_CHUNKS_MAX];
  fli_readers *readers;
  struct fli_attached *attached; /* to models; attach.c */
  struct fli_watch *watch;       /* slice_rows.h; NULL: none */
  fl_embedding_report totals;    /* of all adjusts */
  uint64_t version;
  fli_tombstone *tombstones; /* [options.tombstones] */
  uint64_t n_tombstones;     /* more than there are: some were forgotten */
};

/* attach.c: leave all models that it is attached to. */
void fli_embedding_detach_all(fl_embedding *embedding);

/* ---- memory (memory.c) --------------------------------------------------- */

/* Zeroed bytes within the budget; NULL when there is no room (*no_memory = 0)
 * or the host has none (1). does_dip: the reserve may be used. */
void *fli_embedding_take(fl_embedding *embedding, size_t bytes, int does_dip,
                         int *no_memory);
void fli_embedding_give(fl_embedding *embedding, void *ptr, size_t bytes);
/* Give back what lookups can find no more; waits for those that may have. */
void fli_embedding_retire(fl_embedding *embedding, void *ptr, size_t bytes);
/* Around a lookup's use of segments and blocks; enter returns what leave
 * wants. */
uint32_t fli_readers_enter(fli_readers *readers);
void fli_readers_leave(fli_readers *readers, uint32_t epoch);

/* What taking something led to. */
typedef enum fli_room {
  FLI_ROOM = 0,
  FLI_NO_ROOM,  /* in the budget */
  FLI_NO_MEMORY /* of the host */
} fli_room;

/* ---- extents (slab.c) ---------------------------------------------------- */

/* The pool of that size, made if there is none. FL_E_NOMEM, FL_E_LIMIT. */
fl_status fli_pool_get(fl_embedding *embedding, uint32_t extent_bytes,
                       int has_floats, fli_pool **out);
void fli_pool_free(fl_embedding *embedding, fli_pool *pool);
/* An extent of zeros, as its accumulator is. */
fli_room fli_pool_take(fl_embedding *embedding, fli_pool *pool, int does_dip,
                       uint32_t *out);
void fli_pool_give(fli_pool *pool, uint32_t index);
fli_room fli_pool_fit_list(fl_embedding *embedding, fli_pool *pool,
                           uint32_t n_blocks, int does_dip);
/* The last block comes or goes. */
fli_room fli_pool_add_block(fl_embedding *embedding, fli_pool *pool,
                            int does_dip);
void fli_pool_drop_block(fl_embedding *embedding, fli_pool *pool);

static inline uint8_t *fli_pool_group(const fli_pool *pool, uint32_t index)
{
  fli_block *blocks = atomic_load_explicit(&pool->blocks, memory_order_acquire);
  uint8_t *block =
      atomic_load_explicit(&blocks[index >> pool->shift], memory_order_acquire);
  uint32_t in_block = index & ((1u << pool->shift) - 1u);
  return block + (size_t)(in_block / FLI_GROUP) * pool->group_bytes;
}

/* Where an extent begins in its block: behind others, and the accumulators of
 * the groups before it. */
static inline size_t fli_pool_offset(const fli_pool *pool, uint32_t index)
{
  const size_t in_block = index & ((1u << pool->shift) - 1u);
  return in_block * pool->extent_bytes +
         (in_block & ~(size_t)(FLI_GROUP - 1)) * sizeof(float);
}

static inline uint8_t *fli_pool_row(const fli_pool *pool, uint32_t index)
{
  fli_block *blocks = atomic_load_explicit(&pool->blocks, memory_order_acquire);
  uint8_t *block =
      atomic_load_explicit(&blocks[index >> pool->shift], memory_order_acquire);
  return block + fli_pool_offset(pool, index);
}

static inline float *fli_pool_square(const fli_pool *pool, uint32_t index)
{
  void *squares =
      fli_pool_group(pool, index) + (size_t)FLI_GROUP * pool->extent_bytes;
  return (float *)squares + index % FLI_GROUP;
}

/* ---- ids (hash.c) -------------------------------------------------------- */

fl_status fli_hash_new(fl_embedding *embedding, fli_table *table);
/* For load: a segment of its own, and a directory of what came in order of the
 * hash. FL_E_NOMEM, FL_E_LIMIT. */
fl_status fli_segment_new(fl_embedding *embedding, uint32_t n_buckets,
                          uint32_t depth, fli_segment **out);
void fli_segment_free(fl_embedding *embedding, fli_segment *segment);
/* A free place for an id that is not there, or NULL. */
fli_entry *fli_segment_place(const fl_embedding *embedding,
                             fli_segment *segment, uint64_t hash);
fl_status fli_hash_set(fl_embedding *embedding, fli_table *table,
                       fli_segment *const *segments, uint32_t n);
void fli_hash_free(fl_embedding *embedding, fli_table *table);
/* NULL: it is not there. */
fli_entry *fli_hash_find(const fli_table *table, uint64_t id, uint64_t hash);
fli_entry *fli_segment_find(fli_segment *segment, uint64_t id, uint64_t hash);
/* Put an entry for an id that is not there; its `where` is not 0. Other
 * entries may move: embedding->layout changes. *out may be NULL. */
fli_room fli_hash_insert(fl_embedding *embedding, fli_table *table, uint64_t id,
                         uint32_t where, fli_entry **out);
/* Say that an entry's row is elsewhere; 0 takes the entry out. */
void fli_hash_move(fli_table *table, fli_segment *segment, fli_entry *entry,
                   uint32_t where);

/* ---- batches ------------------------------------------------------------- */

/* What a host gives, checked (bags.c). */
fl_status fli_bags_load(fl_embedding_bags *bags,
                        const fl_embedding_bags *given);
/* And what goes with it: `values` is out or gradient. */
fl_status fli_bags_check(const fl_embedding *embedding, uint32_t table,
                         const fl_embedding_bags *bags, const float *values);

/* Where a bag's ids begin. bag <= n_bags. */
static inline uint64_t fli_bag_begin(const fl_embedding_bags *bags,
                                     uint64_t bag)
{
  if (bag == bags->n_bags) return bags->n_ids;
  return bags->offsets ? bags->offsets[bag] : bags->n_ids / bags->n_bags * bag;
}

/* Room for a batch of n ids (batch.c). FL_E_NOMEM leaves it as it was. */
fl_status fli_batch_reserve(fl_embedding *embedding, fli_table *table,
                            size_t n);
void fli_batch_free(fl_embedding *embedding, fli_table *table);
/* Which ids are the same, and the bags of each in order. */
void fli_batch_group(fli_batch *batch, const fl_embedding_bags *bags);
/* Up to FLI_WINDOW ids that are looked for together: begin asks memory for
 * their buckets, find (a little later) has their entries, but for those that
 * are in their second bucket, which it asks for; find_rest has these, and
 * fli_rows_ask says where their rows are and asks for them. Beside a writer
 * what is found may be wrong, as segments and sequences tell. */
typedef struct fli_window {
  uint64_t first; /* of the ids of a batch */
  size_t n;
  uint64_t hashes[FLI_WINDOW];
  fli_segment *segments[FLI_WINDOW];
  uint32_t sequences[FLI_WINDOW]; /* of the segments, as begin saw them */
  fli_entry *buckets[FLI_WINDOW]; /* the first ones */
  size_t n_missing;               /* ids that are not in them */
  uint32_t missing[FLI_WINDOW];
  uint32_t masks[FLI_WINDOW];    /* 0: no row */
  const float *rows[FLI_WINDOW]; /* or what precision.c makes of them */
  int are_whole;                 /* all masks are all chunks */
} fli_window;
void fli_window_begin(fli_window *window, const fl_embedding *embedding,
                      const fli_table *table, const uint64_t *ids);
/* wheres: what the entries say; 0 without one. */
void fli_window_find(fli_window *window, const uint64_t *ids,
                     fli_entry **entries, uint32_t *wheres);
void fli_window_find_rest(fli_window *window, const uint64_t *ids,
                          fli_entry **entries, uint32_t *wheres);
/* Returns how many are without a row. */
size_t fli_rows_ask(fli_window *window, const fli_table *table,
                    const uint32_t *wheres);
/* Find a whole batch, beside a copy of the ids. */
void fli_batch_find(const fl_embedding *embedding, fli_table *table,
                    const fl_embedding_bags *bags);

/* ---- ids without a chunk (sketch.c) -------------------------------------- */

/* FL_E_NOMEM, FL_E_LIMIT. */
fl_status fli_sketch_new(fl_embedding *embedding, fli_table *table,
                         size_t counters, size_t n_candidates);
void fli_sketch_free(fl_embedding *embedding, fli_table *table);
/* Arrays as a saved table has them; sizes are in the table. */
size_t fli_candidate_bytes(const fli_table *table);
size_t fli_dropped_bytes(const fli_table *table);
/* An id without an entry got these increments, already scaled. */
void fli_sketch_add(fli_table *table, uint64_t id, uint64_t hash,
                    const float *increments, uint64_t chance);
/* An id that loses its entry, worth `utility`. */
void fli_sketch_raise(fli_table *table, uint64_t hash, float utility);
/* Whether an id was there often enough before. */
int fli_sketch_admits(const fli_table *table, uint64_t hash);
/* After an adjust: levels sink, candidates are gone. */
void fli_sketch_lower(fli_table *table, uint32_t levels);

/* ---- tables (table.c) ---------------------------------------------------- */

/* A table without sketch; it is the last one of the embedding. */
fl_status fli_table_add(fl_embedding *embedding,
                        const fl_embedding_table_options *options,
                        fli_table **out);
/* What options say of its sketch; with FL_AUTO counters by default. */
fl_status fli_table_add_sketch(fl_embedding *embedding, fli_table *table,
                               uint64_t counters);
void fli_tombstone_add(fl_embedding *embedding, uint32_t table, uint64_t id);

/* ---- adjust -------------------------------------------------------------- */

/* What an adjust does to a table, in levels and bytes. */
typedef struct fli_plan {
  uint64_t demand; /* bytes if all that is worth something were kept */
  uint8_t threshold;
  uint8_t middle; /* median of the levels */
  int is_tight;   /* not all that is worth something can be kept */
  int has_losers;
  uint8_t loser; /* chunks below go, and of it so many bytes */
  uint64_t loser_bytes;
  int winner; /* chunks above it come */
} fli_plan;

/* Bytes by the level at which they would be lost or won. */
typedef struct fli_levels {
  uint64_t live[256];
  uint64_t wanted[256];
  uint64_t kept[256]; /* live, of rows that are too young */
} fli_levels;

enum { FLI_ROW_BYTES = 22 }; /* entry at the usual load, and accumulator */

/* Whether the row is too young to lose anything. */
int fli_row_is_kept(const fli_table *table, uint32_t where);
void fli_levels_measure(const fl_embedding *embedding, const fli_table *table,
                        fli_levels *levels);
uint64_t fli_table_bytes(const fli_table *table);
/* Bytes that rows of all tables may take. */
uint64_t fli_capacity(const fl_embedding *embedding);
/* Let every table's quota and plan be what the budget allows (quota.c). */
void fli_plan_all(fl_embedding *embedding, fli_plan *plans);
/* Pools with fewer blocks, where one is free (compact.c); and segments that
 * have become too large. */
void fli_compact(fl_embedding *embedding, fl_embedding_report *report);
fli_room fli_hash_shrink(fl_embedding *embedding, fli_table *table);

/* Walk over a table's segments: the next one, NULL at the end. */
static inline fli_segment *fli_segments_next(const fli_table *table,
                                             uint64_t *at)
{
  fli_directory *directory = atomic_load(&table->directory);
  uint64_t n = (uint64_t)1 << directory->depth;
  if (*at >= n) return NULL;
  fli_segment *segment = atomic_load(&directory->segments[*at]);
  *at += n >> segment->depth;
  return segment;
}

/* ---- precisions (precision.c) -------------------------------------------- */

uint32_t fli_chunk_bytes(uint32_t precision, uint32_t floats);
/* Chunks of an extent, one behind the other. `name`: of random numbers. */
void fli_chunks_decode(const fli_table *table, const uint8_t *src, float *dst,
                       uint32_t n_chunks);
void fli_chunks_encode(const fli_table *table, uint8_t *dst, const float *src,
                       uint32_t n_chunks, uint64_t name);

/* ---- rows (rows.c) ------------------------------------------------------- */

/* All values of a row, zeros where there is none. */
void fli_row_read(const fli_table *table, uint32_t where, float *values);
/* Whether the values of an extent are finite; `bytes`: as they are saved. */
int fli_row_is_finite(const fli_table *table, const uint8_t *row, size_t n);
int fli_row_bytes_are_finite(const fli_table *table, const uint8_t *bytes,
                             size_t n);
/* Values of a new row. */
void fli_row_init(const fl_embedding *embedding, const fli_table *table,
                  uint64_t id, uint8_t *row);

/* ---- sums (sums.c) ------------------------------------------------------- */

/* Add n rows of a window from `i` on to sum[dim]; weights NULL: 1. */
void fli_rows_add(const fli_table *table, float *sum, const fli_window *window,
                  size_t i, size_t n, const float *weights);
/* The chunks of one row that `mask` says; the row may be NULL without. */
void fli_row_add(const fli_table *table, float *sum, const float *row,
                 uint32_t mask, float factor);

#endif
