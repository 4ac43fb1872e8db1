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
/* Kernels may read all of them, whatever the granularity. */
enum { FLI_TABLE_ENTRIES = 256 };
/* Bits of the signs of one unit. */
enum { FLI_SIGN_BYTES = FLI_UNIT_MAX / 8 };
/* Greatest weight cap: 65535 of them add up in 64 bits. */
#define FLI_WEIGHT_MAX (UINT64_C(1) << 40)

typedef struct fli_codec fli_codec;

/* What may be left open, and who then chooses: clip and table. Clients are told
 * both, and do not bring that code along (fli_compressor_agreed). */
typedef struct fli_chooser {
  float (*clip)(const fl_compressor *compressor, uint32_t workers,
                double correlation, double spread);
  fl_status (*table)(fl_compressor *compressor,
                     const fl_compressor_options *options);
} fli_chooser;

struct fl_compressor {
  const fli_chooser *chooser; /* NULL: nothing is open */
  fl_context *context;        /* reference */
  atomic_uint references;
  const fli_codec *codec;
  const flk_table *kernels;
  uint32_t mode;        /* THC, else 0 */
  uint32_t bits;        /* of one coordinate on the wire */
  uint32_t granularity; /* THC, else 0 */
  float clip;           /* THC, else 0 */
  uint64_t id; /* of everything above but clip, the values and the segments */
  fli_layout layout;
  uint8_t *signs; /* THC: FLI_SIGN_BYTES per unit */
  size_t signs_size;
  /* THC table: grid value of every index, 2^bits; and what quantising needs
   * to know of every grid value (table.h); NULL otherwise. */
  uint8_t *values;
  uint32_t *entries;
};

/* As fl_compressor_new, but clip and table have to be given: FL_E_OPTIONS. */
fl_status fli_compressor_agreed(fl_compressor **out, fl_context *context,
                                const fl_compressor_options *options,
                                const uint64_t *segment_sizes,
                                uint32_t n_segments);
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
  const float *x; /* of the vector, from value `x_first` on */
  uint64_t x_first;
  uint64_t x_end; /* no float of this unit is there, or of those behind */
  float weight;   /* x is multiplied by it */
  /* NULL, or where what the decoded update lacks of x goes (weight 1). */
  float *lost;
  fli_noise noise;
  uint16_t noise_offset;
  uint32_t segment; /* at hand */
  uint8_t *payload; /* of the segment, behind its first `skip` bytes */
  size_t skip;
  double factor; /* plain layouts: what x is multiplied by */
  atomic_uint_least64_t clamped;
  atomic_uint_least64_t rescaled;
  atomic_int is_not_finite;
  uint16_t *unit_clamped; /* optional */
} fli_encoding;

static inline const float *fli_encoding_at(const fli_encoding *encoding,
                                           uint64_t offset)
{
  return encoding->x + (offset - encoding->x_first);
}

/* How far a unit of length `own` must be scaled down: 1 for not at all; those
 * that must are counted. */
double fli_encoding_factor(fli_encoding *encoding, double own, float agreed);

/* The updates in a sum. */
typedef struct fli_tally {
  uint32_t count;
  uint64_t lane_weight; /* sum of their weights in lanes */
  uint64_t samples;     /* sum of lane weight * fli_agreed_weight */
  uint8_t *slots;       /* bit s: slot s */
} fli_tally;

/* How the sum of one segment becomes a mean. */
typedef struct fli_mean {
  const fli_agreed *agreed;
  const fli_tally *tally; /* count >= 1 */
  double weight;          /* the mean is multiplied by it */
  uint32_t segment;
  const uint8_t *lanes; /* of the segment, behind its first `skip` bytes */
  size_t skip;
  uint32_t width; /* FLK_* */
  float *out;     /* the vector, from value `out_first` on */
  uint64_t out_first;
  /* Dither: slots whose noise is added to (sign 1) or taken from (-1) what
   * all slots subtract. */
  uint16_t *offsets;
  uint32_t n_offsets;
  int32_t sign;
  int64_t offset_sum; /* of what all slots subtract: the constant part */
} fli_mean;

static inline float *fli_mean_at(const fli_mean *mean, uint64_t offset)
{
  return mean->out + (offset - mean->out_first);
}

/* A run of coordinates of one segment, in several updates. */
typedef struct fli_addends {
  const uint8_t *const *src; /* one per update: its bytes of the segment */
  const uint32_t *weights;   /* one per update; NULL: all 1 */
  size_t count;              /* of updates */
  uint32_t segment;
  uint64_t first;    /* coordinate of the segment */
  size_t n;          /* coordinates; whole units */
  int is_taken_away; /* undo what adding the same has done */
} fli_addends;

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
  /* Units [first, last) of the segment at hand. */
  void (*encode)(fli_encoding *encoding, uint64_t first, uint64_t last);
  /* Greatest lane weight of one update: 1 where weights make no sense. */
  uint32_t (*most_weight)(const fli_agreed *agreed);
  /* Greatest sum of lane weights that lanes hold. */
  uint64_t (*most_total)(const fli_agreed *agreed);
  /* Lane width of a sum of weights: FLK_*. */
  uint32_t (*lane_width)(const fli_agreed *agreed, uint64_t total);
  /* Greatest |lane| that a sum of weights makes. */
  uint64_t (*lane_limit)(const fli_agreed *agreed, uint32_t segment,
                         uint64_t total);
  /* 1 when n coordinates of a segment are possible; NULL when any bytes
   * are. */
  int (*check)(const fli_agreed *agreed, uint32_t segment, const uint8_t *src,
               size_t n);
  /* lanes, the run's own, += weight * values of every update. Returns 1 when
   * some value is not possible: with `check` alone, and taking the same away
   * then leaves the lanes as they were. */
  int (*add)(const fli_agreed *agreed, const fli_addends *addends,
             uint8_t *lanes, uint32_t width);
  /* Units [first, last) of the segment at hand. */
  void (*decode)(const fli_mean *mean, uint64_t first, uint64_t last);
};

/* decode.c: the mean of a segment, some units at a time. `offsets` has room for
 * slots / 2 + 1, or is NULL without a dither. FL_E_RANGE. */
fl_status fli_mean_begin(fli_mean *mean);
/* Units [first, last); lanes, skip and out are set. FL_E_RANGE. */
fl_status fli_mean_units(const fli_mean *mean, uint64_t first, uint64_t last);

/* thc_encode.c, thc_decode.c */
void fli_thc_encode(fli_encoding *encoding, uint64_t first, uint64_t last);
void fli_thc_decode(const fli_mean *mean, uint64_t first, uint64_t last);

extern const fli_codec fli_codec_thc;
extern const fli_codec fli_codec_f32;
extern const fli_codec fli_codec_bf16;

/* Let options, with which the compressor was made, say which table it has;
 * they borrow it as long as it lives. */
void fli_compressor_lend_table(const fl_compressor *compressor,
                               fl_compressor_options *options);
/* C(t): expected squared error of what is cut off N(0, 1) at -t and t. */
double fli_clamping_error(double t);
/* The clip in low..high, multiples of 2^-10, with the least error_at(arg, t).
 */
typedef double (*fli_clip_error_fn)(const void *arg, double t);
double fli_clip_search(fli_clip_error_fn error_at, const void *arg, double low,
                       double high);
/* The clip with the least expected error, see clip.c. */
float fli_best_clip(uint32_t mode, uint32_t granularity);
/* Correlation of two workers' coordinates, 0..1, from their coherence. */
double fli_clip_correlation(uint32_t workers, double coherence);
/* The best clip of a THC compressor for `workers` whose coordinates have a
 * correlation of 0..1 and whose norms are 1 / spread of the agreed ones;
 * a spread that is not above 1 counts as 1. */
float fli_best_clip_for(const fl_compressor *compressor, uint32_t workers,
                        double correlation, double spread);
/* Signs of the rotation, for all units. */
void fli_rotation_signs(uint8_t *signs, uint64_t n_units,
                        const uint8_t seed[FL_SEED_BYTES]);
/* Noise for a purpose and a slot of the round with this seed. */
void fli_noise_init(fli_noise *noise, const uint8_t seed[FL_SEED_BYTES],
                    const char *purpose, uint32_t slot);
/* Where the noise of a unit starts. */
void fli_noise_start(const fli_noise *noise, uint64_t unit, flk_noise *start);
/* o_s of every slot of a stratified dither. */
void fli_dither_offsets(uint16_t *offsets, uint32_t slots);

#endif
