/* SPDX-License-Identifier: Apache-2.0 */
/* Ids to entries: extendible hashing over small segments, each a table of
 * buckets of 4 in which an id has two places to be (cuckoo hashing with
 * buckets). Two lines are the most that any lookup reads, whatever the ids
 * are. A segment that is full is written anew, an eighth larger, or as two
 * when it is large: growth costs one segment of 32 KiB at a time, and no
 * moment has a second copy of more than that.
 *
 * Linear hashing proper would leave the buckets that are not split yet twice
 * as full as the others, too full for fixed buckets at a load of .9; here the
 * number of buckets of a segment is any, so all are equally full. */
#include "embedding/hash.h"

#include <string.h>

#include "base/context.h"
#include "base/error.h"

enum {
  FIRST_BUCKETS = 4,
  NODES_MAX = 170, /* 2 + 8 + 32 + 128: moves at most 3 entries */
  FULL_NUMERATOR = 15,
  FULL_DENOMINATOR = 16
};

static size_t bytes_of(uint32_t n_buckets)
{
  return sizeof(fli_segment) +
         (size_t)n_buckets * FLI_BUCKET * sizeof(fli_entry);
}

static size_t directory_bytes(uint32_t depth)
{
  return sizeof(fli_directory) +
         ((size_t)1 << depth) * sizeof(_Atomic(fli_segment *));
}

static fli_entry *bucket_at(fli_segment *segment, uint32_t bucket)
{
  return segment->entries + (size_t)bucket * FLI_BUCKET;
}

/* ---- one segment --------------------------------------------------------- */

static void begin_change(fli_segment *segment)
{
  uint32_t sequence =
      atomic_load_explicit(&segment->sequence, memory_order_relaxed);
  atomic_store_explicit(&segment->sequence, sequence + 1, memory_order_relaxed);
  atomic_thread_fence(memory_order_release);
}

static void end_change(fli_segment *segment)
{
  uint32_t sequence =
      atomic_load_explicit(&segment->sequence, memory_order_relaxed);
  atomic_store_explicit(&segment->sequence, sequence + 1, memory_order_release);
  /* What is written next, into extents that are free now, comes later. */
  atomic_thread_fence(memory_order_release);
}

static void copy_entry(fli_entry *dst, const fli_entry *src)
{
  atomic_store_explicit(&dst->id, fli_entry_id(src), memory_order_relaxed);
  memcpy(dst->utility, src->utility, sizeof dst->utility);
  atomic_store_explicit(&dst->where, fli_entry_where(src),
                        memory_order_relaxed);
}

static void set_where(fli_entry *entry, uint32_t where)
{
  atomic_store_explicit(&entry->where, where, memory_order_relaxed);
}

static int free_place(fli_entry *bucket)
{
  for (int i = 0; i < FLI_BUCKET; i++) {
    if (fli_entry_where(&bucket[i]) == 0) return i;
  }
  return -1;
}

/* Buckets that could be reached by moving entries. */
typedef struct path_node {
  uint32_t bucket;
  int16_t parent; /* -1: one of the id's own */
  int16_t place;  /* of the entry in the parent's bucket that can go here */
} path_node;

/* Move the entries on the way to a free place; returns the place that has
 * become free in one of the id's own buckets. */
static fli_entry *clear_path(fli_segment *segment, const path_node *nodes,
                             int at, int place)
{
  fli_entry *to = &bucket_at(segment, nodes[at].bucket)[place];
  while (nodes[at].parent >= 0) {
    int parent = nodes[at].parent;
    fli_entry *from =
        &bucket_at(segment, nodes[parent].bucket)[nodes[at].place];
    copy_entry(to, from);
    set_where(from, 0);
    to = from;
    at = parent;
  }
  return to;
}

static uint32_t other_bucket(const fli_segment *segment, uint64_t hash,
                             uint32_t bucket)
{
  uint32_t first = fli_first_bucket(hash, segment->n_buckets);
  return bucket == first ? fli_second_bucket(hash, segment->n_buckets) : first;
}

/* A free place for the hash, or NULL. */
static fli_entry *make_place(const uint64_t mix[2], fli_segment *segment,
                             uint64_t hash, int *has_moved)
{
  path_node nodes[NODES_MAX];
  int n = 2;
  nodes[0] = (path_node){fli_first_bucket(hash, segment->n_buckets), -1, 0};
  nodes[1] = (path_node){fli_second_bucket(hash, segment->n_buckets), -1, 0};
  for (int at = 0; at < n; at++) {
    fli_entry *bucket = bucket_at(segment, nodes[at].bucket);
    int place = free_place(bucket);
    if (place >= 0) {
      *has_moved |= nodes[at].parent >= 0;
      return clear_path(segment, nodes, at, place);
    }
    for (int i = 0; i < FLI_BUCKET && n < NODES_MAX; i++) {
      uint64_t there = fli_mix(mix, fli_entry_id(&bucket[i]));
      nodes[n++] = (path_node){other_bucket(segment, there, nodes[at].bucket),
                               (int16_t)at, (int16_t)i};
    }
  }
  return NULL;
}

/* ---- larger ones --------------------------------------------------------- */

static fli_segment *new_segment(fl_embedding *embedding, uint32_t n_buckets,
                                uint32_t depth, int does_dip, fli_room *room)
{
  int no_memory;
  fli_segment *segment =
      fli_embedding_take(embedding, bytes_of(n_buckets), does_dip, &no_memory);
  *room = segment ? FLI_ROOM : no_memory ? FLI_NO_MEMORY : FLI_NO_ROOM;
  if (!segment) return NULL;
  segment->n_buckets = n_buckets;
  segment->depth = depth;
  return segment;
}

/* The entries of `from` that belong to one of the two halves (bit: 0, 1; 2:
 * all). 0 when one has no place. */
static int fill_segment(const uint64_t mix[2], fli_segment *segment,
                        fli_segment *from, uint32_t bit)
{
  int has_moved = 0;
  for (size_t i = 0; i < (size_t)from->n_buckets * FLI_BUCKET; i++) {
    fli_entry *entry = &from->entries[i];
    if (fli_entry_where(entry) == 0) continue;
    uint64_t hash = fli_mix(mix, fli_entry_id(entry));
    if (bit < 2 && (hash >> (63 - from->depth) & 1) != bit) continue;
    fli_entry *place = make_place(mix, segment, hash, &has_moved);
    if (!place) return 0;
    copy_entry(place, entry);
    segment->n_used++;
  }
  return 1;
}

/* A segment with those entries and room for more; larger, if they do not fit
 * by bad luck. */
static fli_segment *make_segment(fl_embedding *embedding, fli_segment *from,
                                 uint32_t bit, uint32_t n_buckets,
                                 fli_room *room)
{
  int does_dip = n_buckets < from->n_buckets; /* adjust makes it smaller */
  for (;;) {
    fli_segment *segment =
        new_segment(embedding, n_buckets, from->depth + (bit < 2),
                    does_dip && bit == 2, room);
    if (!segment) return NULL;
    if (fill_segment(embedding->mix, segment, from, bit)) return segment;
    fli_embedding_give(embedding, segment, bytes_of(n_buckets));
    n_buckets += n_buckets / 8 + 1;
  }
}

/* Let all places of the directory that have `from` have one or the other. */
static void replace(fl_embedding *embedding, fli_table *table, uint64_t hash,
                    fli_segment *const by[2])
{
  fli_directory *directory = atomic_load(&table->directory);
  fli_segment *from = fli_segment_of(table, hash);
  uint64_t run = (uint64_t)1 << (directory->depth - from->depth);
  uint64_t first = hash >> 1 >> (63 - directory->depth) & ~(run - 1);
  begin_change(from); /* for ever */
  for (uint64_t i = 0; i < run; i++)
    atomic_store(&directory->segments[first + i], by[i >= run / 2 && run > 1]);
  table->segment_bytes += bytes_of(by[0]->n_buckets);
  if (by[1] != by[0]) {
    table->segment_bytes += bytes_of(by[1]->n_buckets);
    table->n_segments++;
  }
  table->segment_bytes -= bytes_of(from->n_buckets);
  embedding->layout++;
  fli_embedding_retire(embedding, from, bytes_of(from->n_buckets));
}

static fli_room double_directory(fl_embedding *embedding, fli_table *table)
{
  int no_memory;
  fli_directory *old = atomic_load(&table->directory);
  size_t bytes = directory_bytes(old->depth + 1);
  fli_directory *directory =
      fli_embedding_take(embedding, bytes, 0, &no_memory);
  if (!directory) return no_memory ? FLI_NO_MEMORY : FLI_NO_ROOM;
  directory->depth = old->depth + 1;
  for (size_t i = 0; i < (size_t)2 << old->depth; i++)
    atomic_init(&directory->segments[i], atomic_load(&old->segments[i / 2]));
  atomic_store(&table->directory, directory);
  fli_embedding_retire(embedding, old, directory_bytes(old->depth));
  return FLI_ROOM;
}

/* Far from the budget's end space is cheaper than writing segments anew. */
static int is_roomy(const fl_embedding *embedding)
{
  return embedding->bytes_used < embedding->budget / 4 * 3;
}

static uint32_t more_buckets(const fl_embedding *embedding, uint32_t n)
{
  return is_roomy(embedding) ? n + n / 2 : n + n / 8 + 1;
}

static fli_room split(fl_embedding *embedding, fli_table *table, uint64_t hash)
{
  fli_room room = FLI_ROOM;
  fli_segment *segment = fli_segment_of(table, hash);
  fli_segment *halves[2] = {NULL, NULL};
  uint32_t n_buckets = more_buckets(embedding, segment->n_buckets) / 2 + 1;
  for (uint32_t i = 0; i < 2 && room == FLI_ROOM; i++)
    halves[i] = make_segment(embedding, segment, i, n_buckets, &room);
  /* No longer a directory than segments want, whatever fails. */
  if (room == FLI_ROOM &&
      segment->depth == atomic_load(&table->directory)->depth)
    room = double_directory(embedding, table);
  if (room == FLI_ROOM) {
    replace(embedding, table, hash, halves);
    return FLI_ROOM;
  }
  for (int i = 0; i < 2; i++) {
    if (halves[i])
      fli_embedding_give(embedding, halves[i], bytes_of(halves[i]->n_buckets));
  }
  return room;
}

static fli_room grow(fl_embedding *embedding, fli_table *table, uint64_t hash)
{
  fli_room room = FLI_ROOM;
  fli_segment *segment = fli_segment_of(table, hash);
  if (segment->n_buckets >= embedding->segment_buckets &&
      segment->depth < FLI_DEPTH_MAX)
    return split(embedding, table, hash);
  fli_segment *larger =
      make_segment(embedding, segment, 2,
                   more_buckets(embedding, segment->n_buckets), &room);
  if (!larger) return room;
  fli_segment *const both[2] = {larger, larger};
  replace(embedding, table, hash, both);
  return FLI_ROOM;
}

/* ---- inside of the library ----------------------------------------------- */

fl_status fli_hash_new(fl_embedding *embedding, fli_table *table)
{
  int no_memory;
  fli_room room = FLI_ROOM;
  fli_directory *directory =
      fli_embedding_take(embedding, directory_bytes(0), 0, &no_memory);
  if (!directory && no_memory) return fli_nomem(directory_bytes(0));
  fli_segment *segment = NULL;
  if (directory) segment = new_segment(embedding, FIRST_BUCKETS, 0, 0, &room);
  if (!segment) {
    fli_embedding_give(embedding, directory, directory_bytes(0));
    if (room == FLI_NO_MEMORY) return fli_nomem(bytes_of(FIRST_BUCKETS));
    return fli_error(FL_E_LIMIT, "embedding: the budget is too small");
  }
  atomic_init(&directory->segments[0], segment);
  atomic_store(&table->directory, directory);
  table->n_segments = 1;
  table->segment_bytes = bytes_of(FIRST_BUCKETS);
  return FL_OK;
}

void fli_hash_free(fl_embedding *embedding, fli_table *table)
{
  fli_directory *directory = atomic_load(&table->directory);
  if (!directory) return;
  uint64_t n = (uint64_t)1 << directory->depth;
  for (uint64_t i = 0; i < n;) {
    fli_segment *segment = atomic_load(&directory->segments[i]);
    i += n >> segment->depth;
    fli_embedding_give(embedding, segment, bytes_of(segment->n_buckets));
  }
  fli_embedding_give(embedding, directory, directory_bytes(directory->depth));
}

fli_entry *fli_segment_find(fli_segment *segment, uint64_t id, uint64_t hash)
{
  uint32_t bucket = fli_first_bucket(hash, segment->n_buckets);
  fli_entry *entry = fli_bucket_find(bucket_at(segment, bucket), id);
  if (entry) return entry;
  bucket = fli_second_bucket(hash, segment->n_buckets);
  return fli_bucket_find(bucket_at(segment, bucket), id);
}

fli_entry *fli_hash_find(const fli_table *table, uint64_t id, uint64_t hash)
{
  return fli_segment_find(fli_segment_of(table, hash), id, hash);
}

fli_room fli_hash_insert(fl_embedding *embedding, fli_table *table, uint64_t id,
                         uint32_t where, fli_entry **out)
{
  uint64_t hash = fli_mix(embedding->mix, id);
  for (;;) {
    int has_moved = 0;
    fli_segment *segment = fli_segment_of(table, hash);
    uint64_t places = (uint64_t)segment->n_buckets * FLI_BUCKET;
    fli_entry *place = NULL;
    if ((uint64_t)(segment->n_used + 1) * FULL_DENOMINATOR <=
        places * FULL_NUMERATOR) {
      begin_change(segment);
      place = make_place(embedding->mix, segment, hash, &has_moved);
      if (place) {
        atomic_store_explicit(&place->id, id, memory_order_relaxed);
        memset(place->utility, 0, sizeof place->utility);
        set_where(place, where);
        segment->n_used++;
      }
      end_change(segment);
    }
    embedding->layout += (uint64_t)has_moved;
    if (place) {
      table->n_rows++;
      *out = place;
      return FLI_ROOM;
    }
    fli_room room = grow(embedding, table, hash);
    if (room != FLI_ROOM) return room;
  }
}

void fli_hash_move(fli_table *table, fli_segment *segment, fli_entry *entry,
                   uint32_t where)
{
  begin_change(segment);
  set_where(entry, where);
  if (where == 0) {
    segment->n_used--;
    table->n_rows--;
  }
  end_change(segment);
}

/* A segment that adjust has emptied is written anew with the usual load. */
fli_room fli_hash_shrink(fl_embedding *embedding, fli_table *table)
{
  uint64_t at = 0, first = 0;
  fli_segment *segment;
  while ((segment = fli_segments_next(table, &at)) != NULL) {
    fli_directory *directory = atomic_load(&table->directory);
    uint64_t hash = first << 1 << (63 - directory->depth);
    first = at;
    uint32_t n_buckets = segment->n_used * 5 / (4 * FLI_BUCKET) + 2;
    if (n_buckets + n_buckets / 8 + 1 >= segment->n_buckets) continue;
    /* Half full is good enough then. */
    if (is_roomy(embedding) && segment->n_used >= 2 * segment->n_buckets)
      continue;
    fli_room room = FLI_ROOM;
    fli_segment *smaller =
        make_segment(embedding, segment, 2, n_buckets, &room);
    if (!smaller) return room;
    fli_segment *const both[2] = {smaller, smaller};
    replace(embedding, table, hash, both);
  }
  return FLI_ROOM;
}

/* ---- for load ------------------------------------------------------------ */

fl_status fli_segment_new(fl_embedding *embedding, uint32_t n_buckets,
                          uint32_t depth, fli_segment **out)
{
  fli_room room;
  *out = new_segment(embedding, n_buckets, depth, 1, &room);
  if (room == FLI_NO_MEMORY) return fli_nomem(bytes_of(n_buckets));
  if (room == FLI_ROOM) return FL_OK;
  return fli_error(FL_E_LIMIT, "embedding: the budget is too small");
}

void fli_segment_free(fl_embedding *embedding, fli_segment *segment)
{
  fli_embedding_give(embedding, segment, bytes_of(segment->n_buckets));
}

fli_entry *fli_segment_place(const fl_embedding *embedding,
                             fli_segment *segment, uint64_t hash)
{
  int has_moved = 0;
  return make_place(embedding->mix, segment, hash, &has_moved);
}

fl_status fli_hash_set(fl_embedding *embedding, fli_table *table,
                       fli_segment *const *segments, uint32_t n)
{
  int no_memory;
  uint32_t depth = 0;
  for (uint32_t i = 0; i < n; i++)
    depth = segments[i]->depth > depth ? segments[i]->depth : depth;
  fli_directory *directory =
      fli_embedding_take(embedding, directory_bytes(depth), 1, &no_memory);
  if (!directory && no_memory) return fli_nomem(directory_bytes(depth));
  if (!directory)
    return fli_error(FL_E_LIMIT, "embedding: the budget is too small");
  directory->depth = depth;
  fli_hash_free(embedding, table);
  table->segment_bytes = 0;
  table->n_segments = n;
  size_t at = 0;
  for (uint32_t i = 0; i < n; i++) {
    table->segment_bytes += bytes_of(segments[i]->n_buckets);
    for (size_t k = (size_t)1 << (depth - segments[i]->depth); k > 0; k--)
      atomic_init(&directory->segments[at++], segments[i]);
  }
  atomic_store(&table->directory, directory);
  return FL_OK;
}
