/* SPDX-License-Identifier: Apache-2.0 */
/* msgpack writer over msgpack-c into a growable byte buffer. The first failure
 * (out of memory) sticks; check fli_writer_status once at the end. Shortest
 * forms, so equal values give equal bytes. */
#ifndef FLI_WRITER_H
#define FLI_WRITER_H

#include <fl/base.h>

/* Growable bytes of a context; also used as send queues. */
typedef struct fli_bytes {
  fl_context *context; /* not a reference: lives as long as its owner's */
  uint8_t *data;
  size_t size;
  size_t capacity;
} fli_bytes;
void fli_bytes_init(fli_bytes *bytes, fl_context *context);
void fli_bytes_clear(fli_bytes *bytes); /* keeps the memory */
void fli_bytes_free(fli_bytes *bytes);  /* gives it back; usable again */
fl_status fli_bytes_reserve(fli_bytes *bytes, size_t more);
fl_status fli_bytes_append(fli_bytes *bytes, const void *data, size_t n);
/* Drop the first n bytes. */
void fli_bytes_consume(fli_bytes *bytes, size_t n);

typedef struct fli_msg_writer {
  fli_bytes *bytes;
  fl_status status;
} fli_msg_writer;

void fli_writer_init(fli_msg_writer *writer, fli_bytes *bytes);
fl_status fli_writer_status(const fli_msg_writer *writer);
void fli_writer_map(fli_msg_writer *writer, uint32_t n);
void fli_writer_array(fli_msg_writer *writer, uint32_t n);
void fli_writer_u64(fli_msg_writer *writer, uint64_t value);
void fli_writer_i64(fli_msg_writer *writer, int64_t value);
void fli_writer_f32(fli_msg_writer *writer, float value);
void fli_writer_f64(fli_msg_writer *writer, double value);
void fli_writer_bool(fli_msg_writer *writer, int32_t value);
void fli_writer_str(fli_msg_writer *writer, const char *text);
void fli_writer_bin(fli_msg_writer *writer, const void *data, size_t n);
/* Key + value pairs of a message map. */
void fli_field_u64(fli_msg_writer *writer, uint32_t key, uint64_t value);
void fli_field_f32(fli_msg_writer *writer, uint32_t key, float value);
void fli_field_f64(fli_msg_writer *writer, uint32_t key, double value);
void fli_field_str(fli_msg_writer *writer, uint32_t key, const char *text);
void fli_field_bin(fli_msg_writer *writer, uint32_t key, const void *data,
                   size_t n);
/* n float32, little-endian, as a bin; n < 2^30. */
void fli_field_floats(fli_msg_writer *writer, uint32_t key, const float *values,
                      size_t n);

#endif
