/* SPDX-License-Identifier: Apache-2.0 */
/* Fields of saved tables. */
#include "embedding/stream.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "wire/stream.h"

static const uint8_t magic[4] = {'F', 'L', 'E', 'M'};

/* ---- out ----------------------------------------------------------------- */

void fli_out_begin(fli_out *out, const fl_writer *writer, uint32_t kind)
{
  out->writer = writer;
  out->n = 0;
  out->status = FL_OK;
  fli_hasher_init(&out->hasher);
  fli_out_bytes(out, magic, sizeof magic);
  fli_out_u32(out, kind);
  fli_out_u32(out, FLI_SAVED_FORMAT);
}

static void flush(fli_out *out)
{
  fli_hasher_update(&out->hasher, out->bytes, out->n);
  if (out->status == FL_OK)
    out->status = fli_stream_write(out->writer, out->bytes, out->n);
  out->n = 0;
}

void fli_out_bytes(fli_out *out, const void *data, size_t n)
{
  const uint8_t *bytes = data;
  while (n > 0 && out->status == FL_OK) {
    size_t part = FLI_STREAM_STEP - out->n < n ? FLI_STREAM_STEP - out->n : n;
    memcpy(out->bytes + out->n, bytes, part);
    out->n += part;
    bytes += part;
    n -= part;
    if (out->n == FLI_STREAM_STEP) flush(out);
  }
}

void fli_out_u32(fli_out *out, uint32_t value)
{
  uint8_t bytes[4];
  fli_store_u32(bytes, value);
  fli_out_bytes(out, bytes, sizeof bytes);
}

void fli_out_u64(fli_out *out, uint64_t value)
{
  uint8_t bytes[8];
  fli_store_u64(bytes, value);
  fli_out_bytes(out, bytes, sizeof bytes);
}

void fli_out_f32(fli_out *out, float value)
{
  fli_out_u32(out, fli_f32_bits(value));
}

fl_status fli_out_end(fli_out *out, uint64_t *version)
{
  uint8_t hash[FLI_HASH_BYTES];
  flush(out);
  fli_hasher_final(&out->hasher, hash);
  if (out->status != FL_OK) return out->status;
  fl_status st = fli_stream_write(out->writer, hash, sizeof hash);
  if (st == FL_OK) *version = fli_hash_id(hash);
  return st;
}

/* ---- in ------------------------------------------------------------------ */

void fli_in_begin(fli_in *in, const fl_reader *reader, uint32_t kind)
{
  uint8_t start[4];
  in->reader = reader;
  in->status = FL_OK;
  in->n_read = 0;
  fli_hasher_init(&in->hasher);
  fli_in_bytes(in, start, sizeof start);
  if (memcmp(start, magic, sizeof magic) != 0 || fli_in_u32(in) != kind)
    fli_in_fail(in, FL_E_FORMAT, "not what it should be");
  if (fli_in_u32(in) != FLI_SAVED_FORMAT)
    fli_in_fail(in, FL_E_VERSION, "unknown format");
}

void fli_in_bytes(fli_in *in, void *data, size_t n)
{
  memset(data, 0, n);
  if (in->status != FL_OK) return;
  in->status = fli_stream_read(in->reader, data, n, "embedding");
  fli_hasher_update(&in->hasher, data, n);
  if (in->status != FL_OK) return;
  in->n_read += n;
  if (in->copy && in->n_read > in->copy_max)
    fli_in_fail(in, FL_E_LIMIT, "larger than the budget");
  if (in->copy && in->status == FL_OK)
    in->status = fli_bytes_append(in->copy, data, n);
}

uint32_t fli_in_u32(fli_in *in)
{
  uint8_t bytes[4];
  fli_in_bytes(in, bytes, sizeof bytes);
  return in->status == FL_OK ? fli_load_u32(bytes) : 0;
}

uint64_t fli_in_u64(fli_in *in)
{
  uint8_t bytes[8];
  fli_in_bytes(in, bytes, sizeof bytes);
  return in->status == FL_OK ? fli_load_u64(bytes) : 0;
}

float fli_in_f32(fli_in *in)
{
  float value = fli_f32_from_bits(fli_in_u32(in));
  if (isfinite(value)) return value;
  fli_in_fail(in, FL_E_NOT_FINITE, "a number");
  return 0;
}

void fli_in_fail(fli_in *in, fl_status status, const char *what)
{
  if (in->status == FL_OK)
    in->status = fli_error(status, "embedding: saved one: %s", what);
}

fl_status fli_in_end(fli_in *in, uint64_t *version)
{
  uint8_t hash[FLI_HASH_BYTES], want[FLI_HASH_BYTES];
  if (in->status != FL_OK) return in->status;
  fli_hasher_final(&in->hasher, want);
  fl_status st = fli_stream_read(in->reader, hash, sizeof hash, "embedding");
  if (st != FL_OK) return st;
  if (in->copy) st = fli_bytes_append(in->copy, hash, sizeof hash);
  if (st != FL_OK) return st;
  if (memcmp(hash, want, sizeof hash) != 0)
    return fli_error(FL_E_FORMAT, "embedding: its hash is another one");
  *version = fli_hash_id(hash);
  return fli_stream_end(in->reader, "embedding");
}
