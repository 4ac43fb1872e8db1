/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors files made by hand, and streams over memory that give and take
 * as they like: for the tests of weight files. */
#ifndef WEIGHT_FILE_H
#define WEIGHT_FILE_H

#include <stdint.h>
#include <string.h>

#include <fl/weights.h>

#include "base/bytes.h"

enum { WEIGHT_FILE_MAX = 1 << 16 };

typedef struct weight_file {
  uint8_t bytes[WEIGHT_FILE_MAX];
  size_t n;
  size_t at;        /* of the reader */
  size_t step;      /* most bytes of one read; 0 = no limit */
  int fail_after;   /* calls; -1 = never */
  fl_status status; /* of the failing call */
} weight_file;

static inline fl_status weight_file_read(void *user, void *buf, size_t n,
                                         size_t *got)
{
  weight_file *file = user;
  if (file->fail_after == 0) return file->status;
  if (file->fail_after > 0) file->fail_after--;
  if (file->step > 0 && n > file->step) n = file->step;
  if (n > file->n - file->at) n = file->n - file->at;
  memcpy(buf, file->bytes + file->at, n);
  file->at += n;
  *got = n;
  return FL_OK;
}

static inline fl_status weight_file_write(void *user, const void *buf, size_t n)
{
  weight_file *file = user;
  if (file->fail_after == 0) return file->status;
  if (file->fail_after > 0) file->fail_after--;
  if (n > WEIGHT_FILE_MAX - file->n) return FL_E_IO;
  memcpy(file->bytes + file->n, buf, n);
  file->n += n;
  return FL_OK;
}

static inline void weight_file_clear(weight_file *file)
{
  file->n = file->at = file->step = 0;
  file->fail_after = -1;
  file->status = FL_E_CALLBACK;
}

/* A file of this header and these values. */
static inline void weight_file_make(weight_file *file, const char *header,
                                    const void *data, size_t n)
{
  size_t length = strlen(header);
  weight_file_clear(file);
  fli_store_u64(file->bytes, length);
  memcpy(file->bytes + 8, header, length);
  memcpy(file->bytes + 8 + length, data, n);
  file->n = 8 + length + n;
}

static inline fl_status weight_file_save(weight_file *file,
                                         const fl_model *model)
{
  fl_writer writer = {weight_file_write, file};
  file->n = 0;
  return fl_model_save_weights(model, &writer);
}

static inline fl_status weight_file_load(weight_file *file, fl_model *model,
                                         uint32_t flags, fl_load_report *report)
{
  fl_reader reader = {weight_file_read, file};
  file->at = 0;
  return fl_model_load_weights(model, &reader, flags, report);
}

#endif
