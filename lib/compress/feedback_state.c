/* SPDX-License-Identifier: Apache-2.0 */
/* Saving and restoring error feedback: one msgpack map {1: compressor id,
 * 2: phase, 3: samples, 4: weight cap, 5: weight cap before, 6: the vector
 * held, 7: the other one, 8: samples before, in a round}, in a container of its
 * own or within the state of whoever owns the handle. Vectors are little-endian
 * float32. */
#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "compress/feedback.h"
#include "compress/measure.h"
#include "wire/container.h"
#include "wire/reader.h"

enum { STATE_VERSION = 1, STATE_SLACK = 256 };

enum {
  KEY_COMPRESSOR = 1,
  KEY_PHASE = 2,
  KEY_SAMPLES = 3,
  KEY_CAP = 4,
  KEY_BEFORE_CAP = 5,
  KEY_HELD = 6,
  KEY_OTHER = 7,
  KEY_BEFORE_SAMPLES = 8
};

static fl_status write_vector(const fl_feedback *feedback,
                              fli_msg_writer *writer, uint32_t key,
                              const float *values)
{
  fl_context *context = feedback->compressor->context;
  size_t size = fli_feedback_bytes(feedback);
  uint8_t *bytes = fli_alloc(context, size, 1);
  if (!bytes) return fli_nomem(size);
  feedback->compressor->kernels->f32_store(bytes, values, size / sizeof(float));
  fli_field_bin(writer, key, bytes, size);
  fli_free(context, bytes, size);
  return FL_OK;
}

fl_status fli_feedback_write(const fl_feedback *feedback, fli_bytes *out)
{
  fl_status st = FL_OK;
  const uint64_t dim = feedback->compressor->layout.dim;
  const int is_idle = feedback->phase == FL_FEEDBACK_IDLE;
  fli_msg_writer writer;
  if (dim > UINT32_MAX / sizeof(float)) {
    return fli_error(FL_E_TOO_LARGE, "feedback: got %llu values, want <= %llu",
                     (unsigned long long)dim,
                     (unsigned long long)(UINT32_MAX / sizeof(float)));
  }
  fli_writer_init(&writer, out);
  fli_writer_map(&writer, is_idle ? KEY_HELD : KEY_BEFORE_SAMPLES);
  fli_field_u64(&writer, KEY_COMPRESSOR, feedback->compressor->id);
  fli_field_u64(&writer, KEY_PHASE, feedback->phase);
  fli_field_u64(&writer, KEY_SAMPLES, feedback->samples);
  fli_field_u64(&writer, KEY_CAP, feedback->cap);
  fli_field_u64(&writer, KEY_BEFORE_CAP, feedback->before_cap);
  FLI_TRY(write_vector(feedback, &writer, KEY_HELD, feedback->held));
  if (!is_idle) {
    FLI_TRY(write_vector(feedback, &writer, KEY_OTHER, feedback->other));
    fli_field_u64(&writer, KEY_BEFORE_SAMPLES, feedback->before_samples);
  }
  st = fli_writer_status(&writer);
out:
  return st;
}

/* A parsed state: views into it. */
typedef struct saved_feedback {
  uint64_t compressor;
  uint32_t phase;
  uint64_t samples;
  uint64_t cap;
  uint64_t before_cap;
  uint64_t before_samples;
  const uint8_t *held;
  size_t held_size;
  const uint8_t *other;
  size_t other_size;
} saved_feedback;

static fl_status parse(saved_feedback *saved, const uint8_t *data, size_t n)
{
  uint32_t key;
  fli_msg_reader reader;
  *saved = (saved_feedback){0};
  fli_reader_init(&reader, data, n);
  for (fli_fields f = fli_fields_begin(&reader); fli_fields_next(&f, &key);) {
    switch (key) {
    case KEY_COMPRESSOR: saved->compressor = fli_reader_u64(&reader); break;
    case KEY_PHASE:
      saved->phase = (uint32_t)fli_reader_u64_in(
          &reader, FL_FEEDBACK_IDLE, FL_FEEDBACK_ENCODED, "feedback: phase");
      break;
    case KEY_SAMPLES: saved->samples = fli_reader_u64(&reader); break;
    case KEY_CAP: saved->cap = fli_reader_u64(&reader); break;
    case KEY_BEFORE_CAP: saved->before_cap = fli_reader_u64(&reader); break;
    case KEY_BEFORE_SAMPLES:
      saved->before_samples = fli_reader_u64(&reader);
      break;
    case KEY_HELD:
      saved->held = fli_reader_bin(&reader, &saved->held_size);
      break;
    case KEY_OTHER:
      saved->other = fli_reader_bin(&reader, &saved->other_size);
      break;
    default: fli_fields_unknown(&f); break;
    }
  }
  return fli_reader_finish(&reader);
}

static fl_status read_vector(const fl_feedback *feedback, float *values,
                             const uint8_t *data, size_t size)
{
  const flk_table *kernels = feedback->compressor->kernels;
  size_t n = (size_t)feedback->compressor->layout.dim;
  if (!data || size != fli_feedback_bytes(feedback)) {
    return fli_error(FL_E_FORMAT, "feedback: vector, got %zu bytes, want %zu",
                     size, fli_feedback_bytes(feedback));
  }
  kernels->f32_load(values, data, n);
  size_t bad = kernels->find_not_finite(values, n);
  if (bad == n) return FL_OK;
  return fli_error(FL_E_NOT_FINITE, "feedback: coordinate %zu is not finite",
                   bad);
}

fl_status fli_feedback_read(fl_feedback *feedback, const uint8_t *data,
                            size_t n)
{
  fl_status st = FL_OK;
  saved_feedback saved;
  FLI_TRY(parse(&saved, data, n));
  if (saved.compressor != feedback->compressor->id) {
    return fli_error(FL_E_SCHEMA, "feedback: made with another compressor");
  }
  if (saved.phase != FL_FEEDBACK_IDLE && saved.samples == 0) {
    return fli_error(FL_E_FORMAT, "feedback: a round without samples");
  }
  FLI_TRY(read_vector(feedback, feedback->held, saved.held, saved.held_size));
  if (saved.phase != FL_FEEDBACK_IDLE) {
    FLI_TRY(
        read_vector(feedback, feedback->other, saved.other, saved.other_size));
    FLI_TRY(fli_measure(feedback->compressor, feedback->held, 1.0f, NULL));
  }
  feedback->phase = saved.phase;
  feedback->samples = saved.samples;
  feedback->cap = saved.cap;
  feedback->before_cap = saved.before_cap;
  feedback->before_samples = saved.before_samples;
out:
  return st;
}

fl_status fl_feedback_save(const fl_feedback *feedback, const fl_writer *writer)
{
  fl_status st = FL_OK;
  fli_bytes payload;
  fli_clear_error();
  if (!feedback || !writer || !writer->write) {
    return fli_error(FL_E_ARGUMENT, "feedback: got NULL");
  }
  fli_bytes_init(&payload, feedback->compressor->context);
  FLI_TRY(fli_feedback_write(feedback, &payload));
  FLI_TRY(
      fli_container_write(writer, FLI_STATE_FEEDBACK, STATE_VERSION, &payload));
out:
  fli_bytes_free(&payload);
  return st;
}

fl_status fl_feedback_restore(fl_feedback **out,
                              const fl_compressor *compressor,
                              const fl_feedback_options *options,
                              const fl_reader *reader)
{
  fl_status st = FL_OK;
  uint32_t version;
  fl_feedback *feedback = NULL;
  fli_bytes payload;
  fli_clear_error();
  if (!out || !compressor || !reader || !reader->read) {
    return fli_error(FL_E_ARGUMENT, "feedback: got NULL");
  }
  fli_bytes_init(&payload, compressor->context);
  FLI_TRY(fl_feedback_new(&feedback, compressor, options));
  FLI_TRY(fli_container_read(reader, FLI_STATE_FEEDBACK, STATE_VERSION,
                             2 * (uint64_t)fli_feedback_bytes(feedback) +
                                 STATE_SLACK,
                             &version, &payload));
  FLI_TRY(fli_feedback_read(feedback, payload.data, payload.size));
  *out = feedback;
  feedback = NULL;
out:
  fli_bytes_free(&payload);
  fl_feedback_free(feedback);
  return st;
}
