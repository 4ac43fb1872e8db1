/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks in fewer bits: bfloat16, or a scale (float32) and a signed byte for
 * each value. What is written is rounded to one of its two neighbours by
 * chance, so that steps smaller than the grid are not lost. */
#include "embedding/hash.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"

enum { SCALE_BYTES = 4, STEPS = 127 };

uint32_t fli_chunk_bytes(uint32_t precision, uint32_t floats)
{
  if (precision == FL_EMBEDDING_BF16) return 2 * floats;
  if (precision == FL_EMBEDDING_I8) return SCALE_BYTES + floats;
  return (uint32_t)sizeof(float) * floats;
}

/* ---- reading ------------------------------------------------------------- */

static void decode_i8(const uint8_t *src, float *dst, size_t n)
{
  float scale = fli_load_f32(src);
  const int8_t *steps = (const int8_t *)(src + SCALE_BYTES);
  for (size_t i = 0; i < n; i++)
    dst[i] = scale * (float)steps[i];
}

void fli_chunks_decode(const fli_table *table, const uint8_t *src, float *dst,
                       uint32_t n_chunks)
{
  const size_t n = table->chunk_floats;
  for (uint32_t k = 0; k < n_chunks; k++) {
    if (table->precision == FL_EMBEDDING_F32) {
      memcpy(dst, src, n * sizeof *dst);
    } else if (table->precision == FL_EMBEDDING_I8) {
      decode_i8(src, dst, n);
    } else {
      for (size_t i = 0; i < n; i++)
        dst[i] = fli_f32_from_bf16(fli_load_u16(src + 2 * i));
    }
    src += table->chunk_bytes;
    dst += n;
  }
}

/* ---- writing ------------------------------------------------------------- */

/* Greatest finite one instead of infinity. */
static uint16_t bf16_by_chance(float value, uint32_t chance)
{
  uint32_t bits = fli_f32_bits(value) + chance;
  if ((bits & 0x7f800000u) == 0x7f800000u) bits = fli_f32_bits(value);
  return (uint16_t)(bits >> 16);
}

static void encode_i8(uint8_t *dst, const float *src, size_t n, uint64_t name)
{
  float most = 0;
  for (size_t i = 0; i < n; i++)
    most = fabsf(src[i]) > most ? fabsf(src[i]) : most;
  float scale = most / STEPS;
  /* What is too small for a scale is nothing. */
  if (!(1.0f / scale <= 1e38f)) scale = 0;
  const float factor = scale > 0 ? 1.0f / scale : 0.0f;
  fli_store_f32(dst, scale);
  for (size_t i = 0; i < n; i++) {
    float u = (float)(fli_scatter(name + i) >> 40) * 0x1p-24f;
    float step = floorf(src[i] * factor + u);
    if (step > STEPS) step = STEPS;
    if (step < -STEPS) step = -STEPS;
    dst[SCALE_BYTES + i] = (uint8_t)(int8_t)step;
  }
}

void fli_chunks_encode(const fli_table *table, uint8_t *dst, const float *src,
                       uint32_t n_chunks, uint64_t name)
{
  const size_t n = table->chunk_floats;
  for (uint32_t k = 0; k < n_chunks; k++) {
    if (table->precision == FL_EMBEDDING_F32) {
      memcpy(dst, src, n * sizeof *src);
    } else if (table->precision == FL_EMBEDDING_I8) {
      encode_i8(dst, src, n, fli_scatter(name + k * FLI_ODD));
    } else {
      uint64_t chunk = fli_scatter(name + k * FLI_ODD);
      for (size_t i = 0; i < n; i++) {
        uint32_t chance = (uint32_t)(fli_scatter(chunk + i) >> 48);
        fli_store_u16(dst + 2 * i, bf16_by_chance(src[i], chance));
      }
    }
    dst += table->chunk_bytes;
    src += n;
  }
}
