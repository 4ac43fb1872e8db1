/* SPDX-License-Identifier: Apache-2.0 */
/* A storage with one blob, in memory, whose bytes a test can look at and
 * change, for what keeps a cache in it. */
#ifndef CACHE_BLOB_H
#define CACHE_BLOB_H

#include <stdlib.h>
#include <string.h>

#include <fl/cache.h>

typedef struct cache_blob {
  uint8_t *data; /* NULL: there is none */
  uint64_t n;
  unsigned mapped; /* mappings that are open */
  unsigned syncs;
  unsigned advices;
  uint64_t advised; /* bytes, of all of them */
  uint64_t last_offset;
  fl_status map_status; /* what hooks say from now on */
  fl_status remove_status;
  fl_status sync_status;
} cache_blob;

static inline fl_status cache_blob_size(void *user, const char *name,
                                        uint64_t *size)
{
  cache_blob *blob = user;
  (void)name;
  if (!blob->data) return FL_E_NOT_FOUND;
  *size = blob->n;
  return FL_OK;
}

static inline fl_status cache_blob_read(void *user, const char *name,
                                        uint64_t offset, void *buf, size_t n)
{
  cache_blob *blob = user;
  (void)name;
  if (!blob->data) return FL_E_NOT_FOUND;
  if (offset > blob->n || n > blob->n - offset) return FL_E_IO;
  memcpy(buf, blob->data + offset, n);
  return FL_OK;
}

/* Put these bytes in the blob's place, as another process would. */
static inline fl_status cache_blob_write(void *user, const char *name,
                                         const void *buf, size_t n)
{
  cache_blob *blob = user;
  (void)name;
  uint8_t *copy = malloc(n > 0 ? n : 1);
  if (!copy) return FL_E_NOMEM;
  if (n > 0) memcpy(copy, buf, n);
  free(blob->data);
  blob->data = copy;
  blob->n = n;
  return FL_OK;
}

static inline fl_status cache_blob_remove(void *user, const char *name)
{
  cache_blob *blob = user;
  (void)name;
  if (blob->remove_status != FL_OK) return blob->remove_status;
  free(blob->data);
  blob->data = NULL;
  blob->n = 0;
  return FL_OK;
}

static inline fl_status cache_blob_sync(void *user)
{
  cache_blob *blob = user;
  blob->syncs++;
  return blob->sync_status;
}

static inline fl_status cache_blob_map(void *user, const char *name, uint64_t n,
                                       void **data, int32_t *is_new)
{
  cache_blob *blob = user;
  (void)name;
  if (blob->map_status != FL_OK) return blob->map_status;
  *is_new = !blob->data || blob->n != n;
  if (*is_new) {
    uint8_t *made = calloc(1, (size_t)n);
    if (!made) return FL_E_NOMEM;
    free(blob->data);
    blob->data = made;
    blob->n = n;
  }
  blob->mapped++;
  *data = blob->data;
  return FL_OK;
}

static inline void cache_blob_unmap(void *user, void *data, uint64_t n)
{
  cache_blob *blob = user;
  if (data != blob->data || n != blob->n || blob->mapped != 1) abort();
  blob->mapped--;
}

static inline void cache_blob_advise(void *user, const void *data,
                                     uint64_t offset, uint64_t n)
{
  cache_blob *blob = user;
  if (data != blob->data || offset > blob->n || n > blob->n - offset) abort();
  blob->advices++;
  blob->advised += n;
  blob->last_offset = offset;
}

static inline fl_storage cache_blob_hooks(cache_blob *blob)
{
  return (fl_storage){.struct_size = sizeof(fl_storage),
                      .user = blob,
                      .size = cache_blob_size,
                      .read = cache_blob_read,
                      .write = cache_blob_write,
                      .remove = cache_blob_remove,
                      .sync = cache_blob_sync,
                      .map_write = cache_blob_map,
                      .unmap_write = cache_blob_unmap,
                      .advise = cache_blob_advise};
}

/* A context of which the blob is the storage; NULL when there is no memory. */
static inline fl_context *cache_blob_context(cache_blob *blob)
{
  fl_storage hooks = cache_blob_hooks(blob);
  fl_context_options options;
  fl_context *context = NULL;
  (void)fl_context_options_init(&options, sizeof options);
  options.storage = &hooks;
  (void)fl_context_new(&context, &options);
  return context;
}

/* Byte i of tag number `which`. */
static inline const uint8_t *cache_tag(uint8_t which)
{
  static uint8_t tags[256][FL_HASH_BYTES];
  for (size_t i = 0; i < FL_HASH_BYTES; i++)
    tags[which][i] = (uint8_t)(which + 3 * i);
  return tags[which];
}

/* Multiples of 2^-7 in -8 .. 8, different for each id and version: exact in
 * f32 and in f16. */
static inline float cache_value(uint64_t id, uint64_t i, uint64_t version)
{
  uint64_t mix = (id * 7919 + i * 104729 + version * 1299709) & 2047;
  return ((float)mix - 1024.0f) / 128.0f;
}

static inline void cache_fill(float *row, uint64_t n, uint64_t id,
                              uint64_t version)
{
  for (uint64_t i = 0; i < n; i++)
    row[i] = cache_value(id, i, version);
}

#endif
