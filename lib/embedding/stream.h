/* SPDX-License-Identifier: Apache-2.0 */
/* Saved tables and deltas as they are written and read: little-endian fields
 * over a host's stream, in steps, with BLAKE2b-256 of all that came before at
 * the end. The first failure sticks.
 *
 *   "FLEM" | u32 kind | u32 format | fields | hash */
#ifndef FLI_EMBEDDING_STREAM_H
#define FLI_EMBEDDING_STREAM_H

#include "crypto/crypto.h"
#include "embedding/embedding.h"
#include "wire/writer.h"

enum { FLI_SAVED_WHOLE = 1, FLI_SAVED_DELTA = 2, FLI_SAVED_FORMAT = 1 };
enum { FLI_STREAM_STEP = 4096 };

typedef struct fli_out {
  const fl_writer *writer;
  fli_hasher hasher;
  size_t n;
  fl_status status;
  uint8_t bytes[FLI_STREAM_STEP];
} fli_out;
void fli_out_begin(fli_out *out, const fl_writer *writer, uint32_t kind);
void fli_out_bytes(fli_out *out, const void *data, size_t n);
void fli_out_u32(fli_out *out, uint32_t value);
void fli_out_u64(fli_out *out, uint64_t value);
void fli_out_f32(fli_out *out, float value);
/* Write the hash; its first 8 bytes are the new version. */
fl_status fli_out_end(fli_out *out, uint64_t *version);

typedef struct fli_in {
  const fl_reader *reader;
  fli_hasher hasher;
  fl_status status;
  uint64_t n_read;   /* bytes */
  fli_bytes *copy;   /* of all that is read, or NULL; */
  uint64_t copy_max; /* FL_E_LIMIT beyond */
} fli_in;
/* in->copy is set. FL_E_FORMAT, FL_E_VERSION. */
void fli_in_begin(fli_in *in, const fl_reader *reader, uint32_t kind);
void fli_in_bytes(fli_in *in, void *data, size_t n);
/* 0 after a failure. */
uint32_t fli_in_u32(fli_in *in);
uint64_t fli_in_u64(fli_in *in);
/* FL_E_NOT_FINITE. */
float fli_in_f32(fli_in *in);
/* Fail, unless it has failed already. */
void fli_in_fail(fli_in *in, fl_status status, const char *what);
/* FL_E_FORMAT: the hash is another one, or bytes follow. */
fl_status fli_in_end(fli_in *in, uint64_t *version);

#endif
