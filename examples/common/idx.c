/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loader for IDX files: a big-endian magic number whose last byte is the
 * number of dimensions, the dimensions, then the bytes. Everything that a
 * wrong, cut or foreign file can get wrong is checked and named, because a
 * wrong folder is the first mistake that people make with such a program.
 */
#include "common/idx.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zlib.h>

enum {
  MAX_DIMS = 3,
  MAX_PATH = 4096,
  MAX_READ = 1 << 20,
  UBYTE_MAGIC = 0x0800 /* plus the number of dimensions */
};
static const uint64_t max_bytes = UINT64_C(1) << 32;

struct source {
  char path[MAX_PATH];
  gzFile file;
  char *error;
  size_t error_size;
};

#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

PRINTF_LIKE(2, 3)
static int fail(const struct source *source, const char *format, ...)
{
  int used = snprintf(source->error, source->error_size, "%s: ", source->path);
  if (used < 0 || (size_t)used >= source->error_size) return -1;
  va_list args;
  va_start(args, format);
  (void)vsnprintf(source->error + used, source->error_size - (size_t)used,
                  format, args);
  va_end(args);
  return -1;
}

static int open_source(struct source *source, const char *dir,
                       const char *prefix, const char *kind)
{
  static const char *const endings[] = {".gz", ""};
  for (size_t i = 0; i < 2; i++) {
    int n = snprintf(source->path, sizeof source->path, "%s/%s-%s%s", dir,
                     prefix, kind, endings[i]);
    if (n < 0 || (size_t)n >= sizeof source->path)
      return fail(source, "path: too long, want less than %d bytes", MAX_PATH);
    if (access(source->path, F_OK) == 0) break;
  }
  errno = 0;
  source->file = gzopen(source->path, "rb");
  if (source->file) return 0;
  return fail(source, "cannot open: %s (want the file, or the same with .gz)",
              errno ? strerror(errno) : "out of memory");
}

static int read_exactly(struct source *source, uint8_t *into, uint64_t n)
{
  uint64_t done = 0;
  while (done < n) {
    uint64_t left = n - done;
    int got = gzread(source->file, into + done,
                     left < MAX_READ ? (unsigned)left : MAX_READ);
    if (got < 0) {
      int code;
      return fail(source, "damaged: %s", gzerror(source->file, &code));
    }
    if (got == 0) {
      return fail(source, "ends early: got %llu bytes more, want %llu",
                  (unsigned long long)done, (unsigned long long)n);
    }
    done += (uint64_t)got;
  }
  return 0;
}

static uint32_t big_endian(const uint8_t *p)
{
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 |
         (uint32_t)p[3];
}

/* Header: magic and n_dims dimensions, each at least 1, product bounded. */
static int read_header(struct source *source, uint32_t n_dims,
                       uint32_t dims[MAX_DIMS], uint64_t *bytes)
{
  uint8_t header[4 + 4 * MAX_DIMS];
  if (read_exactly(source, header, 4 + 4 * n_dims) != 0) return -1;
  uint32_t magic = big_endian(header);
  if (magic != UBYTE_MAGIC + n_dims) {
    return fail(source, "magic number: got 0x%08x, want 0x%08x", magic,
                UBYTE_MAGIC + n_dims);
  }
  uint64_t total = 1;
  for (uint32_t i = 0; i < n_dims; i++) {
    dims[i] = big_endian(header + 4 + 4 * i);
    if (dims[i] == 0 || dims[i] > max_bytes / total) {
      return fail(source,
                  "dimension %u: got %u, want 1 or more and %llu "
                  "bytes in all at most",
                  i, dims[i], (unsigned long long)max_bytes);
    }
    total *= dims[i];
  }
  *bytes = total;
  return 0;
}

static uint8_t *read_body(struct source *source, uint64_t bytes)
{
  uint8_t *body = malloc((size_t)bytes);
  if (!body) {
    (void)fail(source, "out of memory for %llu bytes",
               (unsigned long long)bytes);
    return NULL;
  }
  uint8_t more;
  if (read_exactly(source, body, bytes) == 0) {
    if (gzread(source->file, &more, 1) == 0) return body;
    (void)fail(source, "goes on: got more than the %llu bytes declared",
               (unsigned long long)bytes);
  }
  free(body);
  return NULL;
}

static uint8_t *load_file(struct source *source, const char *dir,
                          const char *prefix, const char *kind, uint32_t n_dims,
                          uint32_t dims[MAX_DIMS])
{
  uint64_t bytes = 0;
  uint8_t *body = NULL;
  if (open_source(source, dir, prefix, kind) != 0) return NULL;
  if (read_header(source, n_dims, dims, &bytes) == 0)
    body = read_body(source, bytes);
  (void)gzclose_r(source->file);
  return body;
}

int idx_load(struct idx_set *set, const char *dir, const char *prefix,
             char *error, size_t error_size)
{
  struct source source = {.error = error, .error_size = error_size};
  struct idx_set loaded = {0};
  uint32_t dims[MAX_DIMS] = {0};
  uint32_t label_dims[MAX_DIMS] = {0};

  loaded.pixels = load_file(&source, dir, prefix, "images-idx3-ubyte", 3, dims);
  if (!loaded.pixels) goto failed;
  loaded.n = dims[0];
  loaded.sample_size = dims[1] * dims[2];
  loaded.labels =
      load_file(&source, dir, prefix, "labels-idx1-ubyte", 1, label_dims);
  if (!loaded.labels) goto failed;
  if (label_dims[0] != loaded.n) {
    (void)fail(&source, "labels: got %u, want one per image: %u", label_dims[0],
               loaded.n);
    goto failed;
  }
  loaded.classes = malloc(loaded.n * sizeof *loaded.classes);
  if (!loaded.classes) {
    (void)fail(&source, "out of memory for %u labels", loaded.n);
    goto failed;
  }
  for (uint32_t i = 0; i < loaded.n; i++)
    loaded.classes[i] = loaded.labels[i];
  *set = loaded;
  return 0;

failed:
  idx_free(&loaded);
  return -1;
}

void idx_free(struct idx_set *set)
{
  free(set->pixels);
  free(set->labels);
  free(set->classes);
  memset(set, 0, sizeof *set);
}
