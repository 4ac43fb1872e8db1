/* SPDX-License-Identifier: Apache-2.0 */
/* Segments, units and the pieces of work that units are handed out in. Pieces
 * depend on the number of units alone, never on the number of threads. */
#include "compress/layout.h"

#include <math.h>

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

uint64_t fli_segment_units(const fli_segment *segment)
{
  return segment->n_full + (segment->tail > 0);
}

fli_unit fli_layout_unit(const fli_layout *layout, uint32_t segment,
                         uint64_t index)
{
  const fli_segment *s = &layout->segments[segment];
  uint64_t k = index - s->first_unit;
  fli_unit unit = {.index = index, .segment = segment, .stride = FLK_LINE};
  if (k == s->n_full) {
    unit.offset = s->offset + s->n_full * FLI_UNIT_MAX;
    unit.n = s->tail;
    unit.padded = s->tail_padded;
    return unit;
  }
  unit.n = FLI_UNIT_MAX;
  unit.padded = FLI_UNIT_MAX;
  if (layout->is_rotated) {
    unit.offset = s->offset + k * FLK_LINE;
    unit.stride = (size_t)s->n_full * FLK_LINE;
  } else {
    unit.offset = s->offset + k * FLI_UNIT_MAX;
  }
  return unit;
}

uint32_t fli_unit_group(const fli_layout *layout, const fli_unit *unit,
                        uint64_t n)
{
  const fli_segment *s = &layout->segments[unit->segment];
  uint64_t full = s->first_unit + s->n_full;
  if (!layout->is_rotated || unit->index >= full) return 1;
  if (n > full - unit->index) n = full - unit->index;
  return n < FLI_GROUP_MAX ? (uint32_t)n : FLI_GROUP_MAX;
}

void fli_unit_gather(const fli_unit *unit, uint32_t group,
                     const fli_gathering *how, float *blocks, float *about)
{
  flk_lines all = {.src = how->x + unit->offset,
                   .stride = unit->stride,
                   .lines = unit->n / FLK_LINE,
                   .count = group,
                   .weight = how->weight};
  how->kernels->gather(blocks, &all, about);
  uint32_t i = unit->n / FLK_LINE * FLK_LINE;
  if (i < unit->n && about) about[0] = INFINITY;
  for (; i < unit->n; i++)
    blocks[i] = all.src[i] * how->weight;
  for (; i < unit->padded; i++)
    blocks[i] = 0.0f;
}

/* One line more than needed, lest the lines of a unit compete for the same
 * cache sets. */
size_t fli_group_stride(uint32_t group)
{
  return FLK_LINE * (group > 1 ? (size_t)group + 1 : 1);
}

void fli_unit_scatter(const fli_unit *unit, uint32_t group,
                      const flk_table *kernels, float *x, const float *rows)
{
  float *dst = x + unit->offset;
  uint32_t lines = unit->n / FLK_LINE;
  kernels->scatter(dst, unit->stride, rows, fli_group_stride(group), lines,
                   group);
  for (uint32_t i = lines * FLK_LINE; i < unit->n; i++)
    dst[i] = rows[i];
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
