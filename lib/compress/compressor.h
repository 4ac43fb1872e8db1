/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of a compressor: the codec contract, and the scale of one round after
 * it was checked and resolved. Encoder, sums and decoder know codecs only by
 * this table. */
#ifndef FLI_COMPRESSOR_H
#define FLI_COMPRESSOR_H

#include <stdatomic.h>

#include <fl/compress.h>
#include "compress/layout.h"
#include "crypto/crypto.h"

/* Half widths of a grid that make sense, in standard deviations. */
#define FLI_CLIP_MIN 0.5f
#define FLI_CLIP_MAX 16.0f
/* Greatest norm: leaves float32 room for what decoding makes of it. */
#define FLI_NORM_MAX 0x1p127f
/* Greatest weight cap: 65535 of them add up in 64 bits. */
#define FLI_WEIGHT_MAX (UINT64_C(1) << 40)

typedef struct fli_codec fli_codec;

struct fl_compressor {
  fl_context *context; /* reference */
  atomic_uint references;
  const fli_codec *codec;
  const flk_table *kernels;
  uint32_t mode;        /* THC, else 0 */
  uint32_t bits;        /* of one coordinate on the wire */
  uint32_t granularity; /* THC, else 0 */
  float clip;           /* THC, else 0 */
  uint64_t id; /* of everything above but clip, the values and the segments */
  fli_layout layout;
  uint8_t *signs; /* THC: 512 bytes per unit */
  size_t signs_size;
  /* THC table: grid value of every index, 2^bits; and what quantising needs
   * to know of every grid value, granularity + 1 (table.h). NULL otherwise. */
  uint8_t *values;
  uint32_t *entries;
};

fl_compressor *fli_compressor_ref(const fl_compressor *compressor);

/* Where the noise of units starts: a 64-bit counter for every lane. */
typedef struct fli_noise {
  uint64_t lanes[FLK_NOISE_LANES];
} fli_noise;

/* What the participants of a round agreed on. */
typedef struct fli_agreed {
  fl_compressor *compressor; /* reference */
  uint64_t id;               /* of everything below, as the header carries */
  uint64_t round;
  uint64_t weight_cap;
  uint32_t slots;
  uint32_t is_public;
  float clip; /* THC, else 0 */
  uint8_t noise_seed[FL_SEED_BYTES];
  float *norms;
  /* starts[i]: coordinates in all units before i, as if every segment were
   * sent. A unit whose agreed norm counts as 0 has none. n_units + 1. */
  uint64_t *starts;
  uint16_t *offsets; /* dither: of every slot */
  fli_noise dither;  /* shared by all slots */
} fli_agreed;

/* Read the caller's struct. FL_E_ARGUMENT, FL_E_OPTIONS. */
fl_status fli_scale_load(fl_scale *local, const fl_scale *scale);
/* FL_E_ARGUMENT, FL_E_OPTIONS (struct), FL_E_DIM (norms), FL_E_RANGE,
 * FL_E_CONFLICT, FL_E_NOMEM. */
fl_status fli_agreed_init(fli_agreed *agreed, const fl_compressor *compressor,
                          const fl_scale *scale);
void fli_agreed_free(fli_agreed *agreed);
/* Coordinates of a segment. */
uint64_t fli_agreed_count(const fli_agreed *agreed, uint32_t segment);
/* 0 when the unit's agreed norm counts as 0: it has no coordinates. */
int fli_agreed_is_sent(const fli_agreed *agreed, const fli_unit *unit);
/* Norm that a unit is encoded with. */
float fli_agreed_norm(const fli_agreed *agreed, const fli_unit *unit);
/* Weight of an update in sums: min(samples, cap), 1 without a cap. */
uint64_t fli_agreed_weight(const fli_agreed *agreed, uint64_t samples);

/* Length -> bf16 grid, rounded up; infinity when the grid ends before. */
float fli_norm_round_up(double norm);

/* Encoding of one update, as codecs see it. */
typedef struct fli_encoding {
  const fli_agreed *agreed;
  fli_noise noise;
  uint16_t noise_offset;
  double own_norm; /* plain layouts: of the segment at hand */
  atomic_uint_least64_t clamped;
  atomic_uint_least64_t rescaled;
  uint16_t *unit_clamped; /* optional */
} fli_encoding;

/* How far a unit of length `own` must be scaled down: 1 for not at all. */
double fli_encoding_factor(const fli_encoding *encoding, double own,
                           float agreed);

/* The updates in a sum. */
typedef struct fli_tally {
  uint32_t count;
  uint64_t samples; /* sum of fli_agreed_weight */
  uint8_t *slots;   /* bit s: slot s */
} fli_tally;

/* How the sum of one segment becomes a mean. */
typedef struct fli_mean {
  const fli_agreed *agreed;
  const fli_tally *tally; /* count >= 1 */
  double weight;          /* the mean is multiplied by it */
  /* Dither: slots whose noise is added to (sign 1) or taken from (-1) what
   * all slots subtract. */
  uint16_t *offsets;
  uint32_t n_offsets;
  int32_t sign;
} fli_mean;

struct fli_codec {
  uint32_t id;
  const char *name;
  uint32_t is_rotated; /* layout; also one norm per unit, not per segment */
  float min_norm;      /* agreed norms below count as 0 */
  /* Sets mode, bits, granularity, clip and the table. FL_E_OPTIONS,
   * FL_E_NOMEM. */
  fl_status (*configure)(fl_compressor *compressor,
                         const fl_compressor_options *options);
  void (*begin)(fli_encoding *encoding, uint32_t slot);
  /* `block`: gathered and weighted, scratch afterwards; `own`: its length (of
   * the whole segment in a plain layout), or 0 when it is known not to be
   * above the agreed one; `ahead`: lines that will be wanted next. */
  void (*encode)(fli_encoding *encoding, const fli_unit *unit, float *block,
                 double own, const flk_ahead *ahead, uint8_t *dst);
  /* Lane width of a sum of `count` updates: FLK_*. */
  uint32_t (*lane_width)(const fli_agreed *agreed, uint32_t count);
  /* Greatest |lane| that `count` updates make. */
  uint64_t (*lane_limit)(const fli_agreed *agreed, uint32_t segment,
                         uint32_t count);
  /* 1 when a payload is possible; NULL when any bytes are. */
  int (*check)(const fli_agreed *agreed, const fli_unit *unit,
               const uint8_t *src);
  void (*add)(const fli_agreed *agreed, const fli_unit *unit, uint8_t *lanes,
              uint32_t width, const uint8_t *src);
  /* Line j of the unit goes to dst[stride j]; plain layouts have
   * stride = FLK_LINE. */
  void (*decode)(const fli_mean *mean, const fli_unit *unit, float *dst,
                 size_t stride, const uint8_t *lanes, uint32_t width);
};

extern const fli_codec fli_codec_thc;
extern const fli_codec fli_codec_f32;
extern const fli_codec fli_codec_bf16;

/* Let options, with which the compressor was made, say which table it has;
 * they borrow it as long as it lives. */
void fli_compressor_lend_table(const fl_compressor *compressor,
                               fl_compressor_options *options);
/* The clip with the least expected error, see clip.c. */
float fli_best_clip(uint32_t mode, uint32_t granularity);
/* The same of a THC compressor for `workers` whose vectors have a coherence. */
float fli_best_clip_for(const fl_compressor *compressor, uint32_t workers,
                        double coherence);
/* Signs of the rotation, for all units. */
void fli_rotation_signs(uint8_t *signs, uint64_t n_units,
                        const uint8_t seed[FL_SEED_BYTES]);
/* Noise for a purpose and a slot of the round with this seed. */
void fli_noise_init(fli_noise *noise, const uint8_t seed[FL_SEED_BYTES],
                    const char *purpose, uint32_t slot);
/* Lane states of a unit, none of them 0. */
void fli_noise_start(const fli_noise *noise, uint64_t unit,
                     uint32_t state[FLK_NOISE_LANES]);
/* o_s of every slot of a stratified dither. */
void fli_dither_offsets(uint16_t *offsets, uint32_t slots);

#endif
