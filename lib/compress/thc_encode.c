/* SPDX-License-Identifier: Apache-2.0 */
/* THC's way in: blocks that lie side by side are rotated together, then each
 * becomes indices on the grid of its agreed norm, and what the indices lack is
 * rotated back when it is wanted (error feedback). docs/design/thc.md has the
 * formulas; names here are its names. */
#include <math.h>
#include <string.h>

#include "base/compiler.h"
#include "compress/update.h"

/* A group of units on its way. */
typedef struct thc_group {
  fli_encoding *encoding;
  const flk_table *kernels;
  const float *src;
  float *lost; /* or NULL */
  flk_lines lines;
  flk_lines ahead; /* of the next group, count 0 without */
  const float *next;
  fli_unit units[FLK_GROUP_MAX];
  flk_turn turns[FLK_GROUP_MAX];
  float about[FLK_GROUP_MAX];
  double factor[FLK_GROUP_MAX];
  uint8_t is_sent[FLK_GROUP_MAX];
  /* Cache lines of its own: every load and store of a line is one access. */
  _Alignas(64) float blocks[FLK_GROUP_FLOATS];
} thc_group;

/* Coordinates are in 1/65536 of a cell: a = 65536 g / (2 t l). */
static double cells(const fli_agreed *agreed, const fli_unit *unit)
{
  double g = 65536.0 * (double)agreed->compressor->granularity;
  double norm = (double)fli_agreed_norm(agreed, unit);
  return g / (2.0 * (double)agreed->clip * norm);
}

static void set_turn(thc_group *group, size_t b, double factor)
{
  const fli_encoding *encoding = group->encoding;
  const fli_agreed *agreed = encoding->agreed;
  const fli_unit *unit = &group->units[b];
  double scale = (double)encoding->weight * factor;
  if (group->is_sent[b]) scale *= cells(agreed, unit);
  group->factor[b] = factor;
  group->turns[b] = (flk_turn){.signs = agreed->compressor->signs +
                                        unit->index * FLI_SIGN_BYTES,
                               .scale = (float)scale};
}

/* 1 when a block whose sum of squares is `about` (flk_table.rotate_in) is
 * finite and surely not longer than the agreed norm; then its exact length, a
 * pass of its own, changes nothing. */
static int is_short(float about, float weight, float norm)
{
  if (!(about >= 0x1p-100f && about <= 0x1p100f)) return 0;
  double length = sqrt((double)about) * (double)weight;
  return length * (1.0 + 0x1p-15) <= (double)norm;
}

/* Compare a block with its agreed norm; one that is longer is rotated anew, at
 * a smaller scale. 0: it is not finite. */
static int check_length(thc_group *group, size_t b)
{
  fli_encoding *encoding = group->encoding;
  float norm = fli_agreed_norm(encoding->agreed, &group->units[b]);
  if (is_short(group->about[b], encoding->weight, norm)) return 1;
  flk_lines one = group->lines;
  one.count = 1;
  const float *src = group->src + b * FLK_LINE;
  double squares;
  group->kernels->sum_squares_group(&squares, src, &one);
  double own = sqrt(squares) * (double)encoding->weight;
  if (!isfinite(own)) return 0;
  double factor = fli_encoding_factor(encoding, own, norm);
  if (factor == 1.0) return 1;
  float about;
  set_turn(group, b, factor);
  group->kernels->rotate_in(group->blocks + b * FLK_BLOCK_STRIDE, src, &one,
                            &group->turns[b], NULL, &about);
  return 1;
}

static uint16_t left_by(const fli_encoding *encoding)
{
  if (!encoding->lost) return FLK_LEAVE_NOTHING;
  return encoding->agreed->compressor->mode == FL_THC_DITHER
             ? FLK_LEAVE_DITHERED
             : FLK_LEAVE_ROUNDED;
}

/* While block b of a group is encoded: its share of the group that follows. */
static flk_ahead ahead_of(const thc_group *group, size_t b)
{
  size_t each = FLK_BLOCK_MAX / FLK_LINE / group->lines.count;
  flk_ahead ahead = {.stride = group->ahead.stride,
                     .lines = each,
                     .count = group->ahead.count};
  if (group->ahead.count > 0) {
    ahead.src = group->next + b * each * ahead.stride;
  }
  return ahead;
}

static void encode_block(thc_group *group, size_t b)
{
  fli_encoding *encoding = group->encoding;
  const fli_agreed *agreed = encoding->agreed;
  const fl_compressor *compressor = agreed->compressor;
  const fli_unit *unit = &group->units[b];
  flk_noise noise;
  flk_grid grid = {
      .centre = 32768.0f * (float)compressor->granularity + 0.5f,
      .g = compressor->granularity,
      .bits = compressor->bits,
      .noise = &noise,
      .offset = encoding->noise_offset,
      .leave = left_by(encoding),
      .entries = compressor->entries,
      .ahead = ahead_of(group, b),
  };
  fli_noise_start(&encoding->noise, unit->index, &noise);
  uint32_t clamped = group->kernels->encode(
      encoding->payload + (fli_payload_offset(agreed, unit) - encoding->skip),
      group->blocks + b * FLK_BLOCK_STRIDE, &grid, unit->padded);
  atomic_fetch_add_explicit(&encoding->clamped, clamped, memory_order_relaxed);
  if (encoding->unit_clamped) {
    encoding->unit_clamped[unit->index] =
        (uint16_t)(clamped < UINT16_MAX ? clamped : UINT16_MAX);
  }
}

/* What lies in unit b, times `part`, is lost. */
static void lose(const thc_group *group, size_t b, float part)
{
  const fli_unit *unit = &group->units[b];
  for (uint32_t i = 0; i < unit->n; i++) {
    size_t at =
        i / FLK_LINE * group->lines.stride + b * FLK_LINE + i % FLK_LINE;
    float more = group->src[at] * part;
    group->lost[at] = group->is_sent[b] ? group->lost[at] + more : more;
  }
}

/* What the indices lack, back into the vector. */
static void rotate_back(thc_group *group)
{
  const fli_agreed *agreed = group->encoding->agreed;
  for (size_t b = 0; b < group->lines.count; b++) {
    double scale = 0.0;
    if (group->is_sent[b]) {
      scale = 1.0 / (cells(agreed, &group->units[b]) * (double)group->lines.n);
    }
    group->turns[b].scale = (float)scale;
  }
  int is_streamed = agreed->compressor->layout.dim >= FLI_STREAM_FLOATS;
  group->kernels->rotate_out(group->lost, group->blocks, &group->lines,
                             group->turns, is_streamed);
  for (size_t b = 0; b < group->lines.count; b++) {
    if (!group->is_sent[b]) {
      lose(group, b, 1.0f);
    } else if (group->factor[b] != 1.0) {
      lose(group, b, (float)(1.0 - group->factor[b]));
    }
  }
}

static void encode_group(thc_group *group)
{
  fli_encoding *encoding = group->encoding;
  int is_finite = 1;
  for (size_t b = 0; b < group->lines.count; b++) {
    group->is_sent[b] =
        fli_agreed_is_sent(encoding->agreed, &group->units[b]) != 0;
    set_turn(group, b, 1.0);
  }
  group->kernels->rotate_in(group->blocks, group->src, &group->lines,
                            group->turns, group->next, group->about);
  for (size_t b = 0; b < group->lines.count && is_finite; b++) {
    is_finite = check_length(group, b);
    if (is_finite && group->is_sent[b]) encode_block(group, b);
  }
  if (!is_finite) {
    atomic_store_explicit(&encoding->is_not_finite, 1, memory_order_relaxed);
  } else if (encoding->lost) {
    rotate_back(group);
  }
}

/* Not part of its caller, whose stack need not have room for it all along. */
static FLI_NOINLINE void encode_tail(thc_group *group, const fli_unit *unit)
{
  fli_encoding *encoding = group->encoding;
  _Alignas(64) float padded[FLI_UNIT_MAX] = {0};
  float lost[FLI_UNIT_MAX];
  memcpy(padded, fli_encoding_at(encoding, unit->offset),
         unit->n * sizeof(float));
  group->lines = (flk_lines){.stride = FLK_LINE, .n = unit->padded, .count = 1};
  group->ahead = (flk_lines){0};
  group->next = NULL;
  group->src = padded;
  group->lost = lost;
  group->units[0] = *unit;
  encode_group(group);
  if (!encoding->lost) return;
  memcpy(encoding->lost + unit->offset, lost, unit->n * sizeof(float));
}

void fli_thc_encode(fli_encoding *encoding, uint64_t first, uint64_t last)
{
  const fl_compressor *compressor = encoding->agreed->compressor;
  const fli_layout *layout = &compressor->layout;
  thc_group group;
  group.encoding = encoding;
  group.kernels = compressor->kernels;
  while (first < last) {
    fli_unit unit = fli_layout_unit(layout, encoding->segment, first);
    if (!fli_unit_is_full(&unit)) {
      encode_tail(&group, &unit);
      return;
    }
    fli_group place = fli_layout_group(layout, encoding->segment, first, last);
    group.lines = place.lines;
    if (first + place.lines.count >= encoding->x_end) place.ahead.count = 0;
    group.ahead = place.ahead;
    group.src = fli_encoding_at(encoding, place.offset);
    group.next =
        place.ahead.count > 0 ? fli_encoding_at(encoding, place.next) : NULL;
    group.lost = encoding->lost ? encoding->lost + place.offset : NULL;
    for (size_t b = 0; b < place.lines.count; b++)
      group.units[b] = fli_layout_unit(layout, encoding->segment, first++);
    encode_group(&group);
  }
}
