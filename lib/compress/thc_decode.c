/* SPDX-License-Identifier: Apache-2.0 */
/* THC's way out: lanes of a sum to coordinates, and blocks that lie side by
 * side rotated back together. docs/design/thc.md has the formulas; names here
 * are its names. */
#include <string.h>

#include "base/compiler.h"
#include "compress/compressor.h"
#include "compress/partial.h"

/* Bits below a cell that are left when a coordinate of m updates takes 32: it
 * is at most m (g + 1) / 2 cells away from the middle. */
static uint32_t fraction_bits(uint64_t count, uint32_t g)
{
  uint32_t bits = 16;
  while (count * (g + 1) >> (32 - bits) > 0)
    bits--;
  return bits;
}

/* `one`: of a whole cell. Returns the lattice's bias towards the middle. */
static int32_t set_lattice(flk_lattice *lattice, const fli_mean *mean,
                           double *one)
{
  const fl_compressor *compressor = mean->agreed->compressor;
  int64_t count = mean->tally->count;
  int64_t g = compressor->granularity;
  lattice->shift = 1;
  *one = 2.0;
  if (compressor->mode != FL_THC_DITHER) {
    return (int32_t)(-(int64_t)mean->tally->lane_weight * g);
  }
  lattice->shift = fraction_bits((uint64_t)count, compressor->granularity);
  *one = (double)(1u << lattice->shift);
  lattice->factor = mean->sign < 0 ? mean->agreed->slots : 0;
  lattice->offsets = mean->offsets;
  lattice->n_offsets = mean->n_offsets;
  lattice->sign = mean->sign;
  int64_t all = mean->offset_sum >> (16 - lattice->shift);
  return (int32_t)(uint32_t)(-(count * (g - 1) << lattice->shift) / 2 - all);
}

static void decode_units(const fli_mean *mean, const flk_lattice *common,
                         const fli_unit *units, size_t count, float *blocks)
{
  const fli_agreed *agreed = mean->agreed;
  const flk_table *kernels = agreed->compressor->kernels;
  for (size_t b = 0; b < count; b++) {
    float *block = blocks + b * FLK_BLOCK_STRIDE;
    if (!fli_agreed_is_sent(agreed, &units[b])) {
      memset(block, 0, units[b].padded * sizeof(float));
      continue;
    }
    flk_lattice lattice = *common;
    flk_noise noise;
    if (agreed->compressor->mode == FL_THC_DITHER) {
      fli_noise_start(&agreed->dither, units[b].index, &noise);
      lattice.noise = &noise;
    }
    size_t at = fli_lane_offset(agreed, &units[b], mean->width);
    kernels->decode(block, mean->lanes + (at - mean->skip), &lattice,
                    units[b].padded);
  }
}

/* xhat = D H y 2 t l weight / (one g m B) */
static flk_turn turn_of(const fli_mean *mean, const fli_unit *unit, double one)
{
  const fli_agreed *agreed = mean->agreed;
  const fl_compressor *compressor = agreed->compressor;
  flk_turn turn = {.signs = compressor->signs + unit->index * FLI_SIGN_BYTES};
  if (!fli_agreed_is_sent(agreed, unit)) return turn;
  double cell = 2.0 * (double)agreed->clip / (double)compressor->granularity;
  double norm = (double)fli_agreed_norm(agreed, unit);
  double total = (double)mean->tally->lane_weight;
  turn.scale = (float)(cell * norm * mean->weight /
                       (one * total * (double)unit->padded));
  return turn;
}

/* Zeros without a sign where nothing was sent. */
static void clear_unsent(const fli_mean *mean, const fli_unit *units,
                         size_t count)
{
  for (size_t b = 0; b < count; b++) {
    if (fli_agreed_is_sent(mean->agreed, &units[b])) continue;
    for (uint32_t i = 0; i < units[b].n; i++) {
      size_t at = i / FLK_LINE * units[b].stride + i % FLK_LINE;
      fli_mean_at(mean, units[b].offset)[at] = 0.0f;
    }
  }
}

/* Not part of its caller, whose stack need not have room for it all along. */
static FLI_NOINLINE void decode_tail(const fli_mean *mean,
                                     const flk_lattice *lattice,
                                     const fli_unit *unit, double one,
                                     float *block)
{
  float padded[FLI_UNIT_MAX];
  const flk_lines lines = {.stride = FLK_LINE, .n = unit->padded, .count = 1};
  flk_turn turn = turn_of(mean, unit, one);
  decode_units(mean, lattice, unit, 1, block);
  mean->agreed->compressor->kernels->rotate_out(padded, block, &lines, &turn,
                                                0);
  memcpy(fli_mean_at(mean, unit->offset), padded, unit->n * sizeof(float));
  clear_unsent(mean, unit, 1);
}

void fli_thc_decode(const fli_mean *mean, uint64_t first, uint64_t last)
{
  const fl_compressor *compressor = mean->agreed->compressor;
  const fli_layout *layout = &compressor->layout;
  int is_streamed = layout->dim >= FLI_STREAM_FLOATS;
  _Alignas(64) float blocks[FLK_GROUP_FLOATS];
  flk_lattice lattice = {.width = mean->width};
  double one;
  lattice.bias = set_lattice(&lattice, mean, &one);
  while (first < last) {
    fli_unit units[FLK_GROUP_MAX];
    flk_turn turns[FLK_GROUP_MAX];
    units[0] = fli_layout_unit(layout, mean->segment, first);
    if (!fli_unit_is_full(&units[0])) {
      decode_tail(mean, &lattice, &units[0], one, blocks);
      return;
    }
    fli_group place = fli_layout_group(layout, mean->segment, first, last);
    for (size_t b = 0; b < place.lines.count; b++) {
      units[b] = fli_layout_unit(layout, mean->segment, first++);
      turns[b] = turn_of(mean, &units[b], one);
    }
    decode_units(mean, &lattice, units, place.lines.count, blocks);
    compressor->kernels->rotate_out(fli_mean_at(mean, place.offset), blocks,
                                    &place.lines, turns, is_streamed);
    clear_unsent(mean, units, place.lines.count);
  }
}
