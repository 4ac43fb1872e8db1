/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots on disk. libfl-host keeps blobs in a folder and replaces them
 * atomically; people name files by path. This joins the two, so that a
 * program killed in the middle of a save finds the old state, never half of
 * the new one.
 */
#include "common/stored.h"

#include <err.h>
#include <string.h>

int stored_open(struct stored *stored, const char *path)
{
  char folder[4096] = ".";
  const char *slash = strrchr(path, '/');
  const char *name = slash ? slash + 1 : path;
  size_t folder_size = slash ? (size_t)(slash - path) : 0;
  if (slash == path) folder_size = 1;
  if (folder_size >= sizeof folder || strlen(name) >= sizeof stored->name ||
      !*name) {
    warnx("%s: want a path to a file of 1..%zu bytes", path,
          sizeof stored->name - 1);
    return -1;
  }
  if (folder_size > 0) {
    memcpy(folder, path, folder_size);
    folder[folder_size] = 0;
  }
  memcpy(stored->name, name, strlen(name) + 1);
  fl_host_options options;
  fl_host_options_init(&options, sizeof options);
  options.storage_path = folder;
  if (fl_host_new(&stored->host, &options) != FL_OK) {
    warnx("%s: %s", path, fl_last_error());
    return -1;
  }
  return 0;
}

void stored_close(struct stored *stored)
{
  fl_host_free(stored->host);
  stored->host = NULL;
}

int stored_exists(const struct stored *stored)
{
  const fl_storage *storage = fl_host_storage(stored->host);
  uint64_t size = 0;
  return storage->size(storage->user, stored->name, &size) == FL_OK;
}

fl_status stored_save(const struct stored *stored, stored_save_fn save,
                      void *user)
{
  fl_host_file *file = NULL;
  fl_writer writer;
  fl_status st =
      fl_host_file_create(&file, stored->host, stored->name, &writer);
  if (st != FL_OK) return st;
  st = save(&writer, user);
  if (st == FL_OK) return fl_host_file_close(file);
  fl_host_file_discard(file);
  return st;
}

fl_status stored_load(const struct stored *stored, stored_load_fn load,
                      void *user)
{
  fl_host_file *file = NULL;
  fl_reader reader;
  fl_status st = fl_host_file_open(&file, stored->host, stored->name, &reader);
  if (st != FL_OK) return st;
  st = load(&reader, user);
  fl_host_file_discard(file);
  return st;
}
