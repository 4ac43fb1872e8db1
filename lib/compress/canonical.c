/* SPDX-License-Identifier: Apache-2.0 */
/* The canonical model and its step records. Everybody who holds version v and
 * applies the same records holds the same bytes afterwards: decoding is D0,
 * and a step is one multiplication and one addition per weight. A step is
 * computed beside the model and swapped in when all of it is finite, so a bad
 * record changes nothing. */
#include "compress/canonical.h"

#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/size.h"
#include "kernels/kernels.h"
#include "wire/messages.h"

enum { HASH_FLOATS = 1024 };

/* Keys of a step record. */
enum {
  STEP_BASE = 1,
  STEP_RATE = 2,
  STEP_ROUND = 3,
  STEP_SLOTS = 4,
  STEP_WEIGHT_CAP = 5,
  STEP_NOISE_SEED = 6,
  STEP_NORMS = 7,
  STEP_CLIP = 8,
  STEP_PAYLOAD = FLI_STEP_PAYLOAD,
  STEP_PUBLIC = 10,
  STEP_FIELDS = FLI_STEP_FIELDS
};

fl_status fli_canonical_init(fli_canonical *canonical, fl_context *context,
                             uint64_t n)
{
  size_t count;
  *canonical = (fli_canonical){0};
  if (!fli_to_size(n, &count)) return fli_nomem(SIZE_MAX);
  canonical->context = context;
  canonical->n = n;
  canonical->weights = fli_alloc(context, count, sizeof(float));
  canonical->scratch = fli_alloc(context, count, sizeof(float));
  if (canonical->weights && canonical->scratch) return FL_OK;
  fli_canonical_free(canonical);
  return fli_nomem(count * sizeof(float));
}

void fli_canonical_free(fli_canonical *canonical)
{
  size_t bytes = (size_t)canonical->n * sizeof(float);
  fli_free(canonical->context, canonical->weights, bytes);
  fli_free(canonical->context, canonical->scratch, bytes);
  *canonical = (fli_canonical){0};
}

void fli_canonical_hash(const fli_canonical *canonical,
                        uint8_t hash[FLI_HASH_BYTES])
{
  uint8_t bytes[4 * HASH_FLOATS];
  size_t n = (size_t)canonical->n;
  fli_hasher hasher;
  fli_hasher_init(&hasher);
  for (size_t i = 0; i < n; i += HASH_FLOATS) {
    size_t part = n - i < HASH_FLOATS ? n - i : HASH_FLOATS;
    flk_kernels()->f32_store(bytes, canonical->weights + i, part);
    fli_hasher_update(&hasher, bytes, 4 * part);
  }
  fli_hasher_final(&hasher, hash);
}

/* Bytes that came straight to where they are wanted. */
static void load_in_place(float *values, size_t n)
{
  for (size_t i = 0; i < n; i++)
    values[i] = fli_f32_from_bits(fli_load_u32((const uint8_t *)(values + i)));
}

fl_status fli_canonical_set(fli_canonical *canonical, uint64_t version,
                            const uint8_t *data, size_t size)
{
  const flk_table *kernels = flk_kernels();
  size_t n = (size_t)canonical->n;
  if (size != n * sizeof(float)) {
    return fli_error(FL_E_DIM, "model: got %zu bytes, want %zu", size,
                     n * sizeof(float));
  }
  if (data == (const uint8_t *)canonical->scratch)
    load_in_place(canonical->scratch, n);
  else
    kernels->f32_load(canonical->scratch, data, n);
  size_t bad = kernels->find_not_finite(canonical->scratch, n);
  if (bad != n) {
    return fli_error(FL_E_NOT_FINITE, "model: weight %zu is not finite", bad);
  }
  memcpy(canonical->weights, canonical->scratch, n * sizeof(float));
  canonical->version = version;
  canonical->is_valid = 1;
  return FL_OK;
}

fl_status fli_canonical_write(const fli_canonical *canonical, fli_bytes *out)
{
  size_t n = (size_t)canonical->n;
  fl_status st = fli_bytes_reserve(out, n * sizeof(float));
  if (st != FL_OK) return st;
  flk_kernels()->f32_store(out->data + out->size, canonical->weights, n);
  out->size += n * sizeof(float);
  return FL_OK;
}

fl_status fli_step_write(fli_bytes *out, uint64_t base_version, float rate,
                         const fl_scale *scale, const uint8_t *payload,
                         size_t payload_size)
{
  fl_context *context = out->context;
  size_t norms_size, n_norms;
  if (!fli_to_size(scale->n_norms, &n_norms) ||
      !fli_mul_size(n_norms, 2, &norms_size)) {
    return fli_nomem(SIZE_MAX);
  }
  uint8_t *norms = fli_alloc(context, norms_size, 1);
  if (!norms) return fli_nomem(norms_size);
  fli_norms_to_bf16(norms, scale->norms, scale->n_norms);
  fli_msg_writer writer;
  fli_writer_init(&writer, out);
  fli_writer_map(&writer, STEP_FIELDS);
  fli_field_u64(&writer, STEP_BASE, base_version);
  fli_field_f32(&writer, STEP_RATE, rate);
  fli_field_u64(&writer, STEP_ROUND, scale->round);
  fli_field_u64(&writer, STEP_SLOTS, scale->slots);
  fli_field_u64(&writer, STEP_WEIGHT_CAP, scale->weight_cap);
  fli_field_bin(&writer, STEP_NOISE_SEED, scale->noise_seed, FL_SEED_BYTES);
  fli_field_bin(&writer, STEP_NORMS, norms, norms_size);
  fli_field_f32(&writer, STEP_CLIP, scale->clip);
  fli_field_bin(&writer, STEP_PAYLOAD, payload, payload_size);
  fli_field_u64(&writer, STEP_PUBLIC, scale->is_public);
  fli_free(context, norms, norms_size);
  return fli_writer_status(&writer);
}

void fli_step_init(fli_step_record *step)
{
  *step = (fli_step_record){0};
  fl_scale_init(&step->scale, sizeof step->scale);
}

void fli_step_field(fli_msg_reader *reader, fli_fields *fields, uint32_t key,
                    fli_step_record *s)
{
  switch (key) {
  case STEP_BASE: s->base_version = fli_reader_u64(reader); break;
  case STEP_RATE: s->rate = fli_reader_f32(reader); break;
  case STEP_ROUND: s->scale.round = fli_reader_u64(reader); break;
  case STEP_SLOTS: s->scale.slots = fli_reader_u32(reader); break;
  case STEP_WEIGHT_CAP: s->scale.weight_cap = fli_reader_u64(reader); break;
  case STEP_NOISE_SEED:
    fli_reader_bin_exact(reader, s->scale.noise_seed, FL_SEED_BYTES,
                         "noise seed");
    break;
  case STEP_NORMS: s->norms = fli_reader_bin(reader, &s->norms_size); break;
  case STEP_CLIP: s->scale.clip = fli_reader_f32(reader); break;
  case STEP_PAYLOAD:
    s->payload = fli_reader_bin(reader, &s->payload_size);
    break;
  case STEP_PUBLIC: s->scale.is_public = fli_reader_u32(reader); break;
  default: fli_fields_unknown(fields); break;
  }
}

/* Read one record at the reader's place; all fields are required. */
static fl_status read_step(fli_msg_reader *reader, fli_step_record *s)
{
  uint32_t key, seen = 0;
  fli_step_init(s);
  fli_fields fields = fli_fields_begin(reader);
  while (fli_fields_next(&fields, &key)) {
    seen += key >= STEP_BASE && key <= STEP_FIELDS;
    fli_step_field(reader, &fields, key, s);
  }
  fl_status st = fli_reader_status(reader);
  if (st == FL_OK && seen != STEP_FIELDS) {
    st = fli_error(FL_E_FORMAT, "step: got %u of %d fields", seen,
                   (int)STEP_FIELDS);
  }
  return st;
}

/* Adding zero would make -0 a 0, and what nobody trained another weight. */
void fli_step_add(float *change, const float *before, float rate, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    const float more = rate * change[i];
    const float after = before[i] + more;
    change[i] = more == 0.0f ? before[i] : after;
  }
}

/* scratch = weights + rate * mean */
static fl_status add_step(fli_canonical *canonical,
                          const fl_compressor *compressor,
                          const fli_step_record *s, float *norms)
{
  fl_status st = FL_OK;
  size_t n = (size_t)canonical->n;
  fl_scale scale = s->scale;
  scale.norms = norms;
  scale.n_norms = fl_compressor_norm_count(compressor);
  FLI_TRY(fli_norms_from_bf16(norms, scale.n_norms, s->norms, s->norms_size));
  FLI_TRY(fl_compressor_decode(compressor, &scale, s->payload, s->payload_size,
                               canonical->scratch, n));
  fli_step_add(canonical->scratch, canonical->weights, s->rate, n);
  size_t bad = flk_kernels()->find_not_finite(canonical->scratch, n);
  if (bad != n) {
    st = fli_error(FL_E_NOT_FINITE, "step: weight %zu leaves float32", bad);
  }
out:
  return st;
}

static fl_status apply_one(fli_canonical *canonical,
                           const fl_compressor *compressor,
                           fli_msg_reader *reader, float *norms)
{
  fli_step_record s;
  fl_status st = FL_OK;
  FLI_TRY(read_step(reader, &s));
  if (s.base_version != canonical->version) {
    return fli_error(FL_E_STALE, "step: base version, got %llu, want %llu",
                     (unsigned long long)s.base_version,
                     (unsigned long long)canonical->version);
  }
  FLI_TRY(add_step(canonical, compressor, &s, norms));
  float *weights = canonical->weights;
  canonical->weights = canonical->scratch;
  canonical->scratch = weights;
  canonical->version++;
out:
  return st;
}

fl_status fli_canonical_apply(fli_canonical *canonical,
                              const fl_compressor *compressor,
                              const uint8_t *data, size_t size)
{
  fl_status st = FL_OK;
  if (!canonical->is_valid) {
    return fli_error(FL_E_STATE, "step: no model to apply it to");
  }
  if (fl_compressor_dim(compressor) != canonical->n) {
    return fli_error(FL_E_DIM, "step: compressor of %llu values, want %llu",
                     (unsigned long long)fl_compressor_dim(compressor),
                     (unsigned long long)canonical->n);
  }
  size_t n_norms = (size_t)fl_compressor_norm_count(compressor);
  float *norms = fli_alloc(canonical->context, n_norms, sizeof(float));
  if (!norms) return fli_nomem(n_norms * sizeof(float));
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  fli_msg_reader reader;
  fli_reader_init(&reader, data, size);
  uint64_t before = canonical->version;
  do {
    FLI_TRY(apply_one(canonical, compressor, &reader, norms));
  } while (fli_reader_peek(&reader) != FLI_KIND_END);
out:
  if (st != FL_OK && canonical->version != before) canonical->is_valid = 0;
  fli_fpguard_leave(&guard);
  fli_free(canonical->context, norms, n_norms * sizeof(float));
  return st;
}
