/* SPDX-License-Identifier: Apache-2.0 */
/* Streams over one blob. A writer collects in memory and hands the whole to
 * the storage at close, for only whole blobs can be replaced atomically; after
 * a failed write nothing is committed. A reader holds the blob open. */
#include "adapters/host/host.h"

#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 129 };

struct fl_host_file {
  fl_host *host;
  fl_buffer *collected; /* NULL = a reader */
  fl_status failed;     /* first failure of a write */
  int descriptor;       /* readers */
  uint64_t read_at;
  char name[NAME_BYTES];
};

static fl_status file_write(void *user, const void *buf, size_t n)
{
  fl_host_file *file = user;
  if (file->failed == FL_OK) {
    file->failed = fl_buffer_append(file->collected, buf, n);
  }
  return file->failed;
}

static fl_status file_read(void *user, void *buf, size_t n, size_t *got)
{
  fl_host_file *file = user;
  fl_status st =
      fli_host_blob_read(file->descriptor, file->read_at, buf, n, got);
  if (st == FL_OK) file->read_at += *got;
  return st;
}

/* An empty file object; FL_E_STATE: the host has no storage. */
static fl_status file_new(fl_host_file **out, fl_host *host, const char *name)
{
  fl_status st = fli_host_check_name(name);
  if (st != FL_OK) return st;
  if (!host->storage) return FL_E_STATE;
  fl_host_file *file = calloc(1, sizeof *file);
  if (!file) return FL_E_NOMEM;
  file->host = host;
  file->descriptor = -1;
  memcpy(file->name, name, strlen(name) + 1);
  *out = file;
  return FL_OK;
}

fl_status fl_host_file_create(fl_host_file **out, fl_host *host,
                              const char *name, fl_writer *writer)
{
  if (!out || !host || !writer) return FL_E_ARGUMENT;
  fl_host_file *file = NULL;
  fl_status st = file_new(&file, host, name);
  if (st == FL_OK) st = fl_buffer_new(&file->collected, host->context);
  if (st != FL_OK) {
    fl_host_file_discard(file);
    return st;
  }
  *writer = (fl_writer){.write = file_write, .user = file};
  *out = file;
  return FL_OK;
}

fl_status fl_host_file_open(fl_host_file **out, fl_host *host, const char *name,
                            fl_reader *reader)
{
  if (!out || !host || !reader) return FL_E_ARGUMENT;
  fl_host_file *file = NULL;
  fl_status st = file_new(&file, host, name);
  if (st != FL_OK) return st;
  uint64_t size;
  st = fli_host_blob_open(host->storage, name, &file->descriptor, &size);
  if (st != FL_OK) {
    fl_host_file_discard(file);
    return st;
  }
  *reader = (fl_reader){.read = file_read, .user = file};
  *out = file;
  return FL_OK;
}

fl_status fl_host_file_close(fl_host_file *file)
{
  if (!file) return FL_OK;
  fl_status st = file->failed;
  if (st == FL_OK && file->collected) {
    const fl_storage *storage = &file->host->hooks;
    const uint8_t *data;
    size_t n;
    st = fl_buffer_get(file->collected, &data, &n);
    if (st == FL_OK) st = storage->write(storage->user, file->name, data, n);
    if (st == FL_OK) st = storage->sync(storage->user);
  }
  fl_host_file_discard(file);
  return st;
}

void fl_host_file_discard(fl_host_file *file)
{
  if (!file) return;
  fl_buffer_free(file->collected);
  if (file->descriptor >= 0) fli_host_blob_close(file->descriptor);
  free(file);
}
