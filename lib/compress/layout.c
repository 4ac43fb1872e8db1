/* SPDX-License-Identifier: Apache-2.0 */
/* Segments, units and the pieces of work that units are handed out in. Pieces
 * depend on the number of units alone, never on the number of threads. */
#include "compress/layout.h"

#include "base/context.h"
#include "base/error.h"
#include "base/size.h"

enum { PIECE_UNITS = 32, PIECES_MAX = 128 };

static uint32_t padded_size(uint32_t n)
{
  uint32_t padded = FLK_BLOCK_MIN;
  while (padded < n)
    padded *= 2;
  return padded;
}

/* Sizes are checked for coordinates, not floats: a segment of one float is
 * padded to 256. At most 64 bytes are ever kept for a coordinate. */
enum { COORDINATE_BYTES = 64 };

static void place_segment(fli_layout *layout, fli_segment *segment, uint64_t n)
{
  segment->offset = layout->dim;
  segment->n = n;
  segment->first_unit = layout->n_units;
  segment->n_full = n / FLI_UNIT_MAX;
  segment->tail = (uint32_t)(n % FLI_UNIT_MAX);
  uint64_t hoods = segment->n_full / FLI_NEIGHBOURS_MAX +
                   (segment->n_full % FLI_NEIGHBOURS_MAX > 0);
  if (hoods > 0) {
    segment->neighbours = (uint32_t)(segment->n_full / hoods);
    segment->n_larger = segment->n_full % hoods;
  }
  if (segment->tail > 0) {
    segment->tail_padded =
        layout->is_rotated ? padded_size(segment->tail) : segment->tail;
  }
  layout->n_units += fli_segment_units(segment);
}

fl_status fli_layout_init(fli_layout *layout, fl_context *context,
                          const uint64_t *sizes, uint32_t n_segments,
                          uint32_t is_rotated)
{
  *layout = (fli_layout){
      .context = context, .n_segments = n_segments, .is_rotated = is_rotated};
  if (!sizes || n_segments == 0) {
    return fli_error(FL_E_DIM, "segments: count, got 0, want >= 1");
  }
  layout->segments = fli_alloc(context, n_segments, sizeof(fli_segment));
  if (!layout->segments) return fli_nomem(n_segments * sizeof(fli_segment));
  uint64_t coordinates = 0;
  for (uint32_t i = 0; i < n_segments; i++) {
    const fli_segment *segment = &layout->segments[i];
    uint64_t bytes;
    size_t fits;
    if (sizes[i] == 0) {
      fli_layout_free(layout);
      return fli_error(FL_E_DIM, "segment %u: size, got 0, want >= 1", i);
    }
    place_segment(layout, &layout->segments[i], sizes[i]);
    uint64_t padding = segment->tail_padded - segment->tail;
    if (!fli_add_u64(coordinates, sizes[i], &coordinates) ||
        !fli_add_u64(coordinates, padding, &coordinates) ||
        !fli_mul_u64(coordinates, COORDINATE_BYTES, &bytes) ||
        !fli_to_size(bytes, &fits)) {
      fli_layout_free(layout);
      return fli_error(FL_E_DIM, "segment %u: the vector fits no memory", i);
    }
    layout->dim += sizes[i];
  }
  return FL_OK;
}

void fli_layout_free(fli_layout *layout)
{
  fli_free(layout->context, layout->segments,
           layout->n_segments * sizeof(fli_segment));
  layout->segments = NULL;
}

void fli_segment_norms(const fli_layout *layout, uint32_t segment,
                       uint64_t *first, uint64_t *n)
{
  const fli_segment *s = &layout->segments[segment];
  *first = layout->is_rotated ? s->first_unit : segment;
  *n = layout->is_rotated ? fli_segment_units(s) : 1;
}

uint64_t fli_segment_units(const fli_segment *segment)
{
  return segment->n_full + (segment->tail > 0);
}

/* The neighbourhood of unit k of the segment's full ones: its first, and how
 * many it has. */
static uint64_t find_neighbours(const fli_segment *s, uint64_t k,
                                uint64_t *count)
{
  const uint64_t larger = s->n_larger * (s->neighbours + 1);
  *count = s->neighbours;
  if (k >= larger) return larger + (k - larger) / *count * *count;
  (*count)++;
  return k / *count * *count;
}

static void place_unit(const fli_segment *s, uint64_t k, fli_unit *unit)
{
  uint64_t count;
  const uint64_t first = find_neighbours(s, k, &count);
  unit->offset = s->offset + first * FLI_UNIT_MAX + (k - first) * FLK_LINE;
  unit->stride = (size_t)count * FLK_LINE;
  unit->left = (uint32_t)(first + count - k);
}

fli_unit fli_layout_unit(const fli_layout *layout, uint32_t segment,
                         uint64_t index)
{
  const fli_segment *s = &layout->segments[segment];
  uint64_t k = index - s->first_unit;
  fli_unit unit = {
      .index = index, .segment = segment, .stride = FLK_LINE, .left = 1};
  if (k == s->n_full) {
    unit.offset = s->offset + s->n_full * FLI_UNIT_MAX;
    unit.n = s->tail;
    unit.padded = s->tail_padded;
    return unit;
  }
  unit.n = FLI_UNIT_MAX;
  unit.padded = FLI_UNIT_MAX;
  if (layout->is_rotated) {
    place_unit(s, k, &unit);
  } else {
    unit.offset = s->offset + k * FLI_UNIT_MAX;
  }
  return unit;
}

fli_window fli_layout_window(const fli_layout *layout, uint32_t segment,
                             uint64_t unit)
{
  const fli_segment *s = &layout->segments[segment];
  const uint64_t k = unit - s->first_unit;
  uint64_t first = s->n_full, count = 1;
  if (k < s->n_full) first = find_neighbours(s, k, &count);
  return (fli_window){.first = s->first_unit + first,
                      .last = s->first_unit + first + count,
                      .offset = s->offset + first * FLI_UNIT_MAX,
                      .n = k < s->n_full ? (size_t)count * FLI_UNIT_MAX
                                         : s->tail};
}

int fli_unit_is_full(const fli_unit *unit)
{
  return unit->n == FLI_UNIT_MAX;
}

int fli_unit_is_first(const fli_unit *unit)
{
  return unit->left * (size_t)FLK_LINE == unit->stride;
}

flk_lines fli_layout_neighbours(const fli_unit *unit)
{
  return (flk_lines){.stride = unit->stride, .n = unit->n, .count = unit->left};
}

static flk_lines lines_of(const fli_unit *unit, uint64_t most)
{
  flk_lines lines = fli_layout_neighbours(unit);
  if (lines.count > most) lines.count = (size_t)most;
  if (lines.count > FLK_GROUP_MAX) lines.count = FLK_GROUP_MAX;
  return lines;
}

fli_group fli_layout_group(const fli_layout *layout, uint32_t segment,
                           uint64_t first, uint64_t last)
{
  const fli_segment *s = &layout->segments[segment];
  uint64_t full = s->first_unit + s->n_full;
  if (last > full) last = full;
  fli_unit unit = fli_layout_unit(layout, segment, first);
  fli_group group = {.lines = lines_of(&unit, last - first),
                     .offset = unit.offset};
  uint64_t next = first + group.lines.count;
  if (next >= full) return group;
  unit = fli_layout_unit(layout, segment, next);
  group.next = unit.offset;
  group.ahead = lines_of(&unit, full - next);
  return group;
}

typedef struct pieces {
  fli_units_fn fn;
  void *arg;
  uint64_t first;
  uint64_t last;
  uint64_t units; /* per piece */
  uint8_t is_done[PIECES_MAX];
} pieces;

static void run_piece(void *arg, uint64_t index)
{
  pieces *p = arg;
  uint64_t first = p->first + index * p->units;
  uint64_t left = p->last - first;
  p->fn(p->arg, first, first + (left < p->units ? left : p->units));
  p->is_done[index] = 1;
}

void fli_for_units(fl_context *context, uint64_t first, uint64_t last,
                   fli_units_fn fn, void *arg)
{
  uint64_t n = last - first;
  pieces p = {.fn = fn, .arg = arg, .first = first, .last = last};
  p.units = n / PIECES_MAX + (n % PIECES_MAX != 0);
  if (p.units < PIECE_UNITS) p.units = PIECE_UNITS;
  uint64_t count = n / p.units + (n % p.units != 0);
  if (fli_parallel_for(context, count, run_piece, &p) != FL_OK) {
    fli_log(context, FL_LOG_WARNING, "compress: %s", fl_last_error());
    fli_clear_error();
  }
  for (uint64_t i = 0; i < count; i++) {
    if (!p.is_done[i]) run_piece(&p, i);
  }
}

void fli_for_segment(const fli_layout *layout, uint32_t segment,
                     fli_units_fn fn, void *arg)
{
  const fli_segment *s = &layout->segments[segment];
  fli_for_units(layout->context, s->first_unit,
                s->first_unit + fli_segment_units(s), fn, arg);
}
