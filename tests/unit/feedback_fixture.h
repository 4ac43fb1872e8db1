/* SPDX-License-Identifier: Apache-2.0 */
/* One worker with error feedback, for every codec: its vector of three
 * segments, a scale that follows its norms, what it encoded. */
#ifndef FEEDBACK_FIXTURE_H
#define FEEDBACK_FIXTURE_H

#include <fl/feedback.h>

#include "compress_fixture.h"

enum { KINDS = 7, SEGMENTS = 3, DIM = 300 + 3 * 4096 + 77 + 4096 };

static const struct {
  uint32_t codec;
  uint32_t mode;
  uint32_t bits;
} kinds[KINDS] = {
    {FL_CODEC_F32, 0, 4},
    {FL_CODEC_BF16, 0, 4},
    {FL_CODEC_THC, FL_THC_UNIFORM, 4},
    {FL_CODEC_THC, FL_THC_DITHER, 4},
    {FL_CODEC_THC, FL_THC_UNIFORM, 1},
    {FL_CODEC_THC, FL_THC_DITHER, 8},
    {FL_CODEC_THC, FL_THC_TABLE, 4},
};

/* A tail alone, blocks with a tail, a block alone. */
static const uint64_t sizes[SEGMENTS] = {300, 3 * 4096 + 77, 4096};

typedef struct world {
  cf_round r;
  fl_feedback *feedback;
  float *x;
  float *got; /* scratch, as long as x */
  float *memory;
  uint8_t *bytes;
  size_t size;
  uint64_t samples;
} world;

static inline void open_decay(world *w, uint32_t kind, float decay)
{
  fl_compressor_options options;
  fl_feedback_options feedback;
  cf_options(&options, kinds[kind].codec, kinds[kind].mode, kinds[kind].bits);
  cf_open(&w->r, NULL, &options, sizes, SEGMENTS, 4);
  cf_must(fl_feedback_options_init(&feedback, sizeof feedback));
  feedback.decay = decay;
  cf_must(fl_feedback_new(&w->feedback, w->r.compressor, &feedback));
  w->x = cf_normal(DIM, 11);
  w->got = cf_get(DIM * sizeof(float));
  w->memory = cf_get(DIM * sizeof(float));
  w->size = (size_t)fl_compressor_max_update_size(w->r.compressor);
  w->bytes = cf_get(w->size);
  w->samples = 1;
}

static inline void open_world(world *w, uint32_t kind)
{
  open_decay(w, kind, .5f);
}

static inline void close_world(world *w)
{
  fl_feedback_free(w->feedback);
  free(w->x);
  free(w->got);
  free(w->memory);
  free(w->bytes);
  cf_close(&w->r);
}

static inline fl_status measure(world *w)
{
  return fl_feedback_measure(w->feedback, &w->r.scale, w->samples, w->x, DIM,
                             w->r.norms, w->r.scale.n_norms);
}

static inline fl_status encode_some(world *w, const uint8_t *mask)
{
  fl_encode_options options;
  size_t capacity = (size_t)fl_compressor_max_update_size(w->r.compressor);
  cf_must(fl_encode_options_init(&options, sizeof options));
  options.slot = 2;
  options.segments = mask;
  options.n_segments = mask ? SEGMENTS : 0;
  return fl_feedback_encode(w->feedback, &w->r.scale, &options, w->bytes,
                            capacity, &w->size, NULL);
}

static inline fl_status encode(world *w)
{
  return encode_some(w, NULL);
}

static inline fl_status settle(world *w, int32_t is_counted)
{
  return fl_feedback_settle(w->feedback, is_counted, NULL, 0);
}

static inline const float *memory(world *w)
{
  cf_must(fl_feedback_copy_memory(w->feedback, w->memory, DIM));
  return w->memory;
}

/* What decoding the last encoding alone gives back. */
static inline const float *decoded(world *w)
{
  cf_must(fl_compressor_decode(w->r.compressor, &w->r.scale, w->bytes, w->size,
                               w->got, DIM));
  return w->got;
}

#endif
