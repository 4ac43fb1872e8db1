/* SPDX-License-Identifier: Apache-2.0 */
/* The scale of a round, which for most callers came from a peer: checked
 * once, copied, and turned into what encoder, sums and decoder need: which
 * units are sent, where they lie in a payload, the dither's key and offsets,
 * and an id that stands in every header so that nothing of another scale is
 * ever added. */
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"
#include "compress/compressor.h"

static const fl_scale scale_defaults = {
    .struct_size = sizeof(fl_scale),
    .slots = 1,
};

static int is_on_grid(float norm)
{
  uint32_t bits = fli_f32_bits(norm);
  return bits <= fli_f32_bits(FLI_NORM_MAX) && (bits & 0xffffu) == 0;
}

static fl_status check_norms(const float *norms, uint64_t n)
{
  for (uint64_t i = 0; i < n; i++) {
    if (is_on_grid(norms[i])) continue;
    return fli_error(FL_E_RANGE,
                     "norm %llu: got %g, want a bf16 value in 0..2^127",
                     (unsigned long long)i, (double)norms[i]);
  }
  return FL_OK;
}

static fl_status check_clip(fli_agreed *agreed, const fl_scale *scale)
{
  const fl_compressor *compressor = agreed->compressor;
  agreed->clip = 0.0f;
  if (!compressor->codec->is_rotated) {
    if (scale->is_public) {
      return fli_error(FL_E_CONFLICT, "scale: is_public goes with THC only");
    }
    return FL_OK;
  }
  agreed->clip = scale->clip == 0.0f ? compressor->clip : scale->clip;
  if (!(agreed->clip >= FLI_CLIP_MIN && agreed->clip <= FLI_CLIP_MAX)) {
    return fli_error(FL_E_RANGE, "scale: clip, got %g, want %g..%g",
                     (double)agreed->clip, (double)FLI_CLIP_MIN,
                     (double)FLI_CLIP_MAX);
  }
  return FL_OK;
}

static fl_status check_scale(fli_agreed *agreed, const fl_scale *scale)
{
  uint64_t want = fl_compressor_norm_count(agreed->compressor);
  if (scale->slots < 1 || scale->slots > FL_MAX_SLOTS) {
    return fli_error(FL_E_RANGE, "scale: slots, got %u, want 1..%d",
                     scale->slots, (int)FL_MAX_SLOTS);
  }
  if (scale->is_public > 1) {
    return fli_error(FL_E_RANGE, "scale: is_public, got %u, want 0 or 1",
                     scale->is_public);
  }
  if (scale->weight_cap > FLI_WEIGHT_MAX) {
    return fli_error(FL_E_RANGE, "scale: weight cap, got %llu, want <= 2^40",
                     (unsigned long long)scale->weight_cap);
  }
  if (!scale->norms || scale->n_norms != want) {
    return fli_error(FL_E_DIM, "scale: norms, got %llu, want %llu",
                     (unsigned long long)(scale->norms ? scale->n_norms : 0),
                     (unsigned long long)want);
  }
  fl_status st = check_norms(scale->norms, scale->n_norms);
  return st == FL_OK ? check_clip(agreed, scale) : st;
}

static void set_id(fli_agreed *agreed, uint64_t n_norms)
{
  static const char purpose[] = "fl scale 1";
  fli_hasher hasher;
  fli_hasher_init(&hasher);
  fli_hasher_update(&hasher, purpose, sizeof purpose);
  fli_hasher_u64(&hasher, agreed->round);
  fli_hasher_u64(&hasher, agreed->slots);
  fli_hasher_u64(&hasher, agreed->weight_cap);
  fli_hasher_u64(&hasher, agreed->is_public);
  fli_hasher_u64(&hasher, fli_f32_bits(agreed->clip));
  fli_hasher_update(&hasher, agreed->noise_seed, FL_SEED_BYTES);
  for (uint64_t i = 0; i < n_norms; i++) {
    uint8_t norm[2];
    fli_store_u16(norm, (uint16_t)(fli_f32_bits(agreed->norms[i]) >> 16));
    fli_hasher_update(&hasher, norm, sizeof norm);
  }
  uint8_t hash[FLI_HASH_BYTES];
  fli_hasher_final(&hasher, hash);
  agreed->id = fli_hash_id(hash);
}

static void set_starts(fli_agreed *agreed)
{
  const fli_layout *layout = &agreed->compressor->layout;
  float min_norm = agreed->compressor->codec->min_norm;
  uint64_t at = 0;
  for (uint32_t s = 0; s < layout->n_segments; s++) {
    const fli_segment *segment = &layout->segments[s];
    uint64_t last = segment->first_unit + fli_segment_units(segment);
    for (uint64_t u = segment->first_unit; u < last; u++) {
      fli_unit unit = fli_layout_unit(layout, s, u);
      agreed->starts[u] = at;
      if (fli_agreed_norm(agreed, &unit) >= min_norm) at += unit.padded;
    }
  }
  agreed->starts[layout->n_units] = at;
}

static fl_status fill(fli_agreed *agreed, const fl_scale *scale)
{
  const fl_compressor *compressor = agreed->compressor;
  fl_context *context = compressor->context;
  size_t n_norms = (size_t)scale->n_norms;
  size_t n_starts = (size_t)compressor->layout.n_units + 1;
  agreed->norms = fli_alloc(context, n_norms, sizeof(float));
  if (!agreed->norms) return fli_nomem(n_norms * sizeof(float));
  memcpy(agreed->norms, scale->norms, n_norms * sizeof(float));
  agreed->starts = fli_alloc(context, n_starts, sizeof(uint64_t));
  if (!agreed->starts) return fli_nomem(n_starts * sizeof(uint64_t));
  set_starts(agreed);
  if (compressor->mode == FL_THC_DITHER) {
    agreed->offsets = fli_alloc(context, agreed->slots, sizeof(uint16_t));
    if (!agreed->offsets) return fli_nomem(agreed->slots * sizeof(uint16_t));
    fli_dither_offsets(agreed->offsets, agreed->slots);
    fli_noise_init(&agreed->dither, agreed->noise_seed, "thc dither", 0);
  }
  set_id(agreed, n_norms);
  return FL_OK;
}

fl_status fli_scale_load(fl_scale *local, const fl_scale *scale)
{
  if (!scale) return fli_error(FL_E_ARGUMENT, "scale: got NULL");
  *local = scale_defaults;
  return fli_options_load(local, sizeof *local, scale, "scale");
}

fl_status fli_agreed_init(fli_agreed *agreed, const fl_compressor *compressor,
                          const fl_scale *given)
{
  fl_scale scale;
  *agreed = (fli_agreed){0};
  fl_status st = fli_scale_load(&scale, given);
  if (st != FL_OK) return st;
  agreed->compressor = fli_compressor_ref(compressor);
  agreed->round = scale.round;
  agreed->slots = scale.slots;
  agreed->weight_cap = scale.weight_cap;
  agreed->is_public = scale.is_public;
  memcpy(agreed->noise_seed, scale.noise_seed, FL_SEED_BYTES);
  FLI_TRY(check_scale(agreed, &scale));
  FLI_TRY(fill(agreed, &scale));
out:
  if (st != FL_OK) fli_agreed_free(agreed);
  return st;
}

void fli_agreed_free(fli_agreed *agreed)
{
  fl_compressor *compressor = agreed->compressor;
  if (!compressor) return;
  fl_context *context = compressor->context;
  fli_free(context, agreed->norms,
           (size_t)fl_compressor_norm_count(compressor) * sizeof(float));
  fli_free(context, agreed->starts,
           ((size_t)compressor->layout.n_units + 1) * sizeof(uint64_t));
  fli_free(context, agreed->offsets, agreed->slots * sizeof(uint16_t));
  *agreed = (fli_agreed){0};
  fl_compressor_free(compressor);
}

uint64_t fli_agreed_count(const fli_agreed *agreed, uint32_t segment)
{
  const fli_segment *s = &agreed->compressor->layout.segments[segment];
  uint64_t last = s->first_unit + fli_segment_units(s);
  return agreed->starts[last] - agreed->starts[s->first_unit];
}

int fli_agreed_is_sent(const fli_agreed *agreed, const fli_unit *unit)
{
  return agreed->starts[unit->index + 1] > agreed->starts[unit->index];
}

float fli_agreed_norm(const fli_agreed *agreed, const fli_unit *unit)
{
  int per_unit = agreed->compressor->layout.is_rotated != 0;
  return agreed->norms[per_unit ? unit->index : unit->segment];
}

uint64_t fli_agreed_weight(const fli_agreed *agreed, uint64_t samples)
{
  if (agreed->weight_cap == 0) return 1;
  return samples < agreed->weight_cap ? samples : agreed->weight_cap;
}

float fli_norm_round_up(double norm)
{
  if (norm > 0x1.fffffep127) return INFINITY;
  float nearest = (float)norm;
  uint32_t bits = fli_f32_bits(nearest) + ((double)nearest < norm);
  uint16_t up = fli_bf16_from_f32_up(fli_f32_from_bits(bits));
  return fli_f32_from_bf16(up);
}

fl_status fl_scale_init(fl_scale *scale, size_t size)
{
  return fli_options_init(scale, size, &scale_defaults, sizeof scale_defaults);
}

fl_status fl_norms_merge(float *into, const float *other, uint64_t n)
{
  fli_clear_error();
  if (n > 0 && (!into || !other)) {
    return fli_error(FL_E_ARGUMENT, "norms: got NULL");
  }
  fl_status st = check_norms(other, n);
  if (st != FL_OK) return st;
  /* Flush-to-zero would take the smallest norms for zeros. */
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  for (uint64_t i = 0; i < n; i++) {
    if (other[i] > into[i]) into[i] = other[i];
  }
  fli_fpguard_leave(&guard);
  return FL_OK;
}
