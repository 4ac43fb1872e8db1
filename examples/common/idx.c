/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loader for IDX files: the library takes them apart, this finds and unpacks
 * them, and puts the file's name before what is wrong with it, because a wrong
 * folder is the first mistake that people make with such a program.
 */
#include "common/idx.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zlib.h>

#include "common/fault.h"

enum { MAX_PATH = 4096, MAX_READ = 1 << 20, FIRST_READ = 1 << 16 };
static const uint64_t max_bytes = UINT64_C(1) << 31;

struct source {
  char path[MAX_PATH];
  gzFile file;
  struct fault fault;
};

static int open_source(struct source *source, const char *dir,
                       const char *prefix, const char *kind)
{
  static const char *const endings[] = {".gz", ""};
  for (size_t i = 0; i < 2; i++) {
    int n = snprintf(source->path, sizeof source->path, "%s/%s-%s%s", dir,
                     prefix, kind, endings[i]);
    if (n < 0 || (size_t)n >= sizeof source->path)
      return fault_say(&source->fault,
                       "path: too long, want less than %d bytes", MAX_PATH);
    if (access(source->path, F_OK) == 0) break;
  }
  errno = 0;
  source->file = gzopen(source->path, "rb");
  if (source->file) return 0;
  return fault_say(&source->fault,
                   "cannot open: %s (want the file, or the same with .gz)",
                   errno ? strerror(errno) : "out of memory");
}

/* Up to `n` bytes; *got < n at the end of the file only. */
static int read_some(struct source *source, uint8_t *into, size_t n,
                     size_t *got)
{
  *got = 0;
  while (*got < n) {
    size_t left = n - *got;
    int more = gzread(source->file, into + *got,
                      left < MAX_READ ? (unsigned)left : MAX_READ);
    if (more < 0) {
      int code;
      return fault_say(&source->fault, "damaged: %s",
                       gzerror(source->file, &code));
    }
    if (more == 0) break;
    *got += (size_t)more;
  }
  return 0;
}

/* Read until the bytes are a whole file, or can become none. Memory doubles:
 * what a file says of its size is believed as far as bytes have come. */
static int read_idx(struct source *source, uint8_t **bytes, fl_idx *idx)
{
  size_t size = 0;
  for (size_t capacity = FIRST_READ;; capacity *= 2) {
    size_t got;
    uint8_t *more = capacity <= max_bytes ? realloc(*bytes, capacity) : NULL;
    if (!more) {
      return fault_say(&source->fault, "out of memory for %llu bytes",
                       (unsigned long long)capacity);
    }
    *bytes = more;
    if (read_some(source, more + size, capacity - size, &got) != 0) return -1;
    size += got;
    fl_status st = fl_idx_parse(idx, more, size);
    int is_full = size == capacity;
    /* A file that fills the memory to the last byte may still go on. */
    if (is_full && (st == FL_OK || st == FL_E_TRUNCATED)) continue;
    return st == FL_OK ? 0 : fault_say(&source->fault, "%s", fl_last_error());
  }
}

static int load_file(struct source *source, const char *dir, const char *prefix,
                     const char *kind, uint8_t **bytes, fl_idx *idx)
{
  if (open_source(source, dir, prefix, kind) != 0) return -1;
  fl_idx_init(idx, sizeof *idx);
  int result = read_idx(source, bytes, idx);
  (void)gzclose_r(source->file);
  return result;
}

/* `loaded` has the bytes of both files. */
static int fill_set(struct idx_set *loaded, const struct source *source,
                    const fl_idx *images, const fl_idx *labels)
{
  loaded->n = (uint32_t)images->dims[0];
  loaded->sample_size = (uint32_t)(images->count / images->dims[0]);
  loaded->labels = labels->values;
  loaded->classes = malloc(loaded->n * sizeof *loaded->classes);
  if (!loaded->classes)
    return fault_say(&source->fault, "out of memory for %u labels", loaded->n);
  fl_dataset_init(&loaded->data, sizeof loaded->data);
  if (fl_dataset_from_idx(&loaded->data, images, labels, loaded->classes,
                          loaded->n) != FL_OK)
    return fault_say(&source->fault, "%s", fl_last_error());
  return 0;
}

int idx_load(struct idx_set *set, const char *dir, const char *prefix,
             char *error, size_t error_size)
{
  struct source source = {.fault = {.error = error, .error_size = error_size}};
  source.fault.path = source.path;
  struct idx_set loaded = {0};
  fl_idx images, labels;
  if (load_file(&source, dir, prefix, "images-idx3-ubyte", &loaded.image_file,
                &images) == 0 &&
      load_file(&source, dir, prefix, "labels-idx1-ubyte", &loaded.label_file,
                &labels) == 0 &&
      fill_set(&loaded, &source, &images, &labels) == 0) {
    *set = loaded;
    return 0;
  }
  idx_free(&loaded);
  return -1;
}

void idx_free(struct idx_set *set)
{
  free(set->image_file);
  free(set->label_file);
  free(set->classes);
  memset(set, 0, sizeof *set);
}
