/* SPDX-License-Identifier: Apache-2.0 */
/* What the targets of encoded updates and sums share: a round that the first
 * two bytes of the input choose, and messages that the rest holds, as they are
 * or described in six bytes (honest ones, of which a fuzzer makes hundreds).
 *
 *   byte 0   bits 0..3: kind, 4..5: segments, 6: first norm is 0, 7: mend
 *   byte 1   bits 0..1: slots, 2..3: weight cap, 4: public (THC), 5: huge norms
 *   message  op, bits 0..2: lane weight, 3..4: samples, 7: honest; then
 *            honest: u16 slot, u8 mask, u16 fill
 *            else:   u16 length, bytes
 *
 * Mended messages get the bytes of the header that no fuzzer finds: ids, which
 * are hashes, and what goes with them. */
#ifndef FUZZ_SUMS_H
#define FUZZ_SUMS_H

#include "fuzz.h"

#include <math.h>

#include "base/bytes.h"
#include "compress/partial.h"
#include "compress/update.h"
#include "compress_fixture.h"

enum { SUMS_KINDS = 13, SUMS_DIM_MAX = 4130, SUMS_MESSAGES = 300 };
enum { SUMS_SLOTS_MAX = 300 };
enum { SUMS_MEND = 0x80, SUMS_HONEST = 0x80, SUMS_ZERO_NORM = 0x40 };

typedef struct sums_kind {
  const char *name;
  uint32_t codec;
  uint32_t mode;
  uint32_t bits;
  uint32_t granularity;
} sums_kind;

static const sums_kind sums_kinds[SUMS_KINDS] = {
    {"f32", FL_CODEC_F32, 0, 0, 0},
    {"bf16", FL_CODEC_BF16, 0, 0, 0},
    {"uniform-4", FL_CODEC_THC, FL_THC_UNIFORM, 4, 0},
    {"dither-4", FL_CODEC_THC, FL_THC_DITHER, 4, 0},
    {"dither-3", FL_CODEC_THC, FL_THC_DITHER, 3, 0},
    {"table-2", FL_CODEC_THC, FL_THC_TABLE, 2, 5},
    {"table-3", FL_CODEC_THC, FL_THC_TABLE, 3, 12},
    {"table-4", FL_CODEC_THC, FL_THC_TABLE, 4, 30},
    {"table-5", FL_CODEC_THC, FL_THC_TABLE, 5, 60},
    {"table-4-255", FL_CODEC_THC, FL_THC_TABLE, 4, 255},
    {"uniform-8", FL_CODEC_THC, FL_THC_UNIFORM, 8, 0},
    {"uniform-1", FL_CODEC_THC, FL_THC_UNIFORM, 1, 0},
    {"dither-8", FL_CODEC_THC, FL_THC_DITHER, 8, 0},
};

static const struct {
  uint64_t sizes[4];
  uint32_t n;
} sums_shapes[4] = {
    {{20, 300}, 2}, {{300}, 1}, {{7, 256, 1, 40}, 4}, {{4100, 30}, 2}};

static const uint32_t sums_slots[4] = {5, 16, 20, SUMS_SLOTS_MAX};
static const uint64_t sums_caps[4] = {0, 1, 100, UINT64_C(1) << 40};
static const uint32_t sums_weights[8] = {1, 2, 17, 300, 4369, 65535, 0, 65536};
static const uint64_t sums_samples[4] = {1, 7, 100, UINT64_MAX};

typedef struct sums_input {
  const uint8_t *at;
  const uint8_t *end;
} sums_input;

typedef struct sums_round {
  cf_round r;
  const sums_kind *kind;
  fl_partial *empty; /* whose agreed scale messages are made for */
  uint32_t n_segments;
  int is_mended;
} sums_round;

/* Zeros behind the end. */
static inline uint32_t sums_take(sums_input *input, uint32_t n_bytes)
{
  uint32_t value = 0;
  for (uint32_t i = 0; i < n_bytes && input->at < input->end; i++)
    value |= (uint32_t)*input->at++ << (8 * i);
  return value;
}

/* Solving clips and tables takes longer than the rest of an input, so a
 * compressor is made once. */
static inline fl_compressor *sums_compressor(uint32_t kind, uint32_t shape)
{
  static fl_compressor *made[SUMS_KINDS][4];
  fl_compressor_options options;
  const sums_kind *k = &sums_kinds[kind];
  if (!made[kind][shape]) {
    cf_options(&options, k->codec, k->mode, k->bits);
    options.granularity = k->granularity;
    cf_must(fl_compressor_new(&made[kind][shape], NULL, &options,
                              sums_shapes[shape].sizes, sums_shapes[shape].n));
  }
  return fli_compressor_ref(made[kind][shape]);
}

static inline void sums_open(sums_round *s, sums_input *input)
{
  uint32_t first = sums_take(input, 1), second = sums_take(input, 1);
  uint32_t kind = (first & 15) % SUMS_KINDS, shape = first >> 4 & 3;
  s->kind = &sums_kinds[kind];
  s->is_mended = (first & SUMS_MEND) != 0;
  s->n_segments = sums_shapes[shape].n;
  cf_round *r = &s->r;
  r->compressor = sums_compressor(kind, shape);
  cf_open_scale(r, sums_slots[second & 3]);
  r->scale.weight_cap = sums_caps[second >> 2 & 3];
  r->scale.is_public = s->kind->codec == FL_CODEC_THC && (second & 16);
  for (uint64_t i = 0; i < r->scale.n_norms; i++)
    r->norms[i] = second & 32 ? 0x1p127f : 2.0f;
  if (first & SUMS_ZERO_NORM) r->norms[0] = 0.0f;
  s->empty = cf_partial(r);
}

static inline void sums_close(sums_round *s)
{
  fl_partial_free(s->empty);
  cf_close(&s->r);
}

/* All of the header behind the magic, but the length of the payload. */
static inline void sums_mend(const sums_round *s, cf_bytes *message)
{
  enum { FROM = 4, TO = 48 };
  uint8_t own[FLI_PREAMBLE_BYTES];
  if (!s->is_mended || message->size < TO) return;
  fli_preamble_write(&s->empty->agreed, FLI_SUM_MAGIC, 0, own);
  memcpy(message->data + FROM, own + FROM, TO - FROM);
}

/* An update of one byte again and again (odd fill), or of counted ones. Float
 * codecs accept 0x3f, which makes .75. */
static inline cf_bytes sums_update(const sums_round *s, uint32_t slot,
                                   uint64_t samples, uint32_t mask_bits,
                                   uint32_t fill)
{
  const fli_agreed *agreed = &s->empty->agreed;
  uint8_t mask[4];
  for (uint32_t i = 0; i < s->n_segments; i++)
    mask[i] = mask_bits >> i & 1;
  cf_bytes update = {NULL, fli_update_size(agreed, mask)};
  update.data = cf_get(update.size);
  size_t at = fli_update_write(agreed, slot, samples, mask, update.data);
  for (size_t i = at; i < update.size; i++)
    update.data[i] = (uint8_t)(fill + (fill & 1 ? 0 : 37 * i + (fill >> 8)));
  return update;
}

typedef struct sums_message {
  cf_bytes bytes;
  uint32_t weight;
} sums_message;

/* The next message: an update, or whatever the input says it is. 0 at the end
 * of the input. */
static inline int sums_next(const sums_round *s, sums_input *input,
                            sums_message *message)
{
  if (input->at == input->end) return 0;
  uint32_t op = sums_take(input, 1);
  message->weight = sums_weights[op & 7];
  if (op & SUMS_HONEST) {
    uint32_t slot = sums_take(input, 2);
    uint32_t mask = sums_take(input, 1);
    uint32_t fill = sums_take(input, 2);
    message->bytes = sums_update(s, slot % s->r.scale.slots,
                                 sums_samples[op >> 3 & 3], mask, fill);
    return 1;
  }
  size_t n = sums_take(input, 2);
  size_t left = (size_t)(input->end - input->at);
  if (n > left) n = left;
  message->bytes = (cf_bytes){fuzz_exact_copy(input->at, n), n};
  input->at += n;
  sums_mend(s, &message->bytes);
  return 1;
}

/* A failure says why. */
static inline void sums_has_text(fl_status st)
{
  FUZZ_CHECK(st == FL_OK || fl_last_error()[0] != '\0');
}

/* The sum still has these bytes. */
static inline void sums_is_still(const fl_partial *partial, cf_bytes before)
{
  cf_bytes now = cf_sum(partial);
  FUZZ_CHECK(cf_equal(now, before));
  free(now.data);
}

static inline void sums_are_equal(const fl_partial *a, const fl_partial *b)
{
  cf_bytes bytes = cf_sum(a);
  sums_is_still(b, bytes);
  free(bytes.data);
}

/* Could updates have made this? */
static inline int sums_can_be(const sums_round *s, uint64_t count,
                              uint64_t weight, uint64_t samples)
{
  uint64_t cap = s->r.scale.weight_cap;
  uint32_t mode = s->kind->mode;
  int is_weighted = mode == FL_THC_UNIFORM || mode == FL_THC_TABLE;
  uint64_t most = is_weighted ? FL_MAX_LANE_WEIGHT : 1;
  if (weight < count || weight > count * most || weight >= 1u << 30) return 0;
  if (cap == 0) return samples == weight;
  return samples >= weight && (weight == 0 || (samples - 1) / weight < cap);
}

static inline uint64_t sums_lane_at(const fli_lanes *lanes, size_t i)
{
  const uint8_t *p = lanes->data + (i << lanes->width);
  if (lanes->width == FLK_U8) return *p;
  if (lanes->width == FLK_U16) return fli_load_u16(p);
  if (lanes->width == FLK_U32) return fli_load_u32(p);
  uint64_t bits = fli_load_u64(p);
  return bits >> 63 ? 0 - bits : bits; /* length of an int64 */
}

/* Greatest lane that updates of this weight make. */
static inline double sums_lane_most(const sums_round *s, uint32_t segment,
                                    uint64_t weight)
{
  int exponent;
  uint32_t g = fl_compressor_granularity(s->r.compressor);
  if (s->kind->codec == FL_CODEC_THC) return (double)weight * g;
  double norm = (double)s->r.norms[segment];
  int log_slots = (int)ceil(log2(s->r.scale.slots));
  frexp(norm, &exponent);
  return ldexp((double)weight * norm, 61 - log_slots - exponent);
}

/* Whatever came, the sum is one that adding updates makes. */
static inline void sums_are_possible(const sums_round *s,
                                     const fl_partial *partial)
{
  const fli_tally *all = &partial->all;
  FUZZ_CHECK(sums_can_be(s, all->count, all->lane_weight, all->samples));
  for (uint32_t segment = 0; segment < s->n_segments; segment++) {
    const fli_tally *part = &partial->tallies[segment];
    const fli_lanes *lanes = &partial->lanes[segment];
    uint32_t count = 0;
    for (uint32_t slot = 0; slot < s->r.scale.slots; slot++) {
      int is_here = fli_has_slot(part, slot);
      count += (uint32_t)is_here;
      FUZZ_CHECK(!is_here || fli_has_slot(all, slot));
    }
    FUZZ_CHECK(part->count == count && all->count >= count);
    FUZZ_CHECK(sums_can_be(s, count, part->lane_weight, part->samples));
    FUZZ_CHECK(sums_can_be(s, all->count - count,
                           all->lane_weight - part->lane_weight,
                           all->samples - part->samples));
    double most = sums_lane_most(s, segment, part->lane_weight);
    size_t n = (size_t)fli_agreed_count(&partial->agreed, segment);
    for (size_t i = 0; lanes->data && i < n; i++)
      FUZZ_CHECK((double)sums_lane_at(lanes, i) <= most);
  }
}

/* Decode, if anything is in the sum: finite values or an error. */
static inline fl_status sums_decode(const sums_round *s,
                                    const fl_partial *partial, float *out)
{
  fl_status st = fl_partial_decode(partial, out, s->r.n);
  sums_has_text(st);
  FUZZ_CHECK((st == FL_E_EMPTY) == (fl_partial_count(partial) == 0));
  FUZZ_CHECK(st == FL_OK || st == FL_E_EMPTY || st == FL_E_RANGE);
  for (uint64_t i = 0; st == FL_OK && i < s->r.n; i++)
    FUZZ_CHECK(isfinite(out[i]));
  return st;
}

#endif
