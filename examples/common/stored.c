/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots on disk. libfl-host keeps blobs in a folder and replaces them
 * atomically; people name files by path. This joins the two, so that a
 * program killed in the middle of a save finds the old state, never half of
 * the new one.
 */
#include "common/stored.h"

#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* libfl-host leaves a status and errno, the core a text. */
static void keep_error(struct stored *stored, fl_status st, const char *text)
{
  if (!*text) text = errno != 0 ? strerror(errno) : fl_status_text(st);
  snprintf(stored->error, sizeof stored->error, "%s", text);
}

static int is_name(const char *name)
{
  size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-");
  return n > 0 && n <= STORED_NAME_MAX && !name[n] && name[0] != '.';
}

int path_split(const char *path, char folder[PATH_FOLDER_BYTES],
               char name[STORED_NAME_MAX + 1])
{
  const char *slash = strrchr(path, '/');
  const char *last = slash ? slash + 1 : path;
  size_t folder_size = slash ? (size_t)(slash - path) : 0;
  if (slash == path) folder_size = 1;
  if (folder_size >= PATH_FOLDER_BYTES || !is_name(last)) {
    warnx("%s: the file's name: got \"%s\", want 1..%d of a-z 0-9 . _ - and no "
          "dot first",
          path, last, STORED_NAME_MAX);
    return -1;
  }
  memcpy(folder, ".", 2);
  if (folder_size > 0) {
    memcpy(folder, path, folder_size);
    folder[folder_size] = 0;
  }
  memcpy(name, last, strlen(last) + 1);
  return 0;
}

int stored_open(struct stored *stored, const char *path)
{
  char folder[PATH_FOLDER_BYTES];
  if (path_split(path, folder, stored->name)) return -1;
  fl_host_options options;
  fl_host_options_init(&options, sizeof options);
  options.storage_path = folder;
  errno = 0;
  fl_status st = fl_host_new(&stored->host, &options);
  if (st == FL_OK) return 0;
  keep_error(stored, st, "");
  warnx("%s: folder %s: %s", path, folder, stored->error);
  return -1;
}

void stored_close(struct stored *stored)
{
  fl_host_free(stored->host);
  stored->host = NULL;
}

int stored_exists(struct stored *stored)
{
  const fl_storage *storage = fl_host_storage(stored->host);
  uint64_t size = 0;
  errno = 0;
  fl_status st = storage->size(storage->user, stored->name, &size);
  if (st == FL_OK || st == FL_E_NOT_FOUND) return st == FL_OK;
  keep_error(stored, st, errno ? "" : "is no file");
  return -1;
}

fl_status stored_save(struct stored *stored, stored_save_fn save, void *user)
{
  fl_host_file *file = NULL;
  fl_writer writer;
  errno = 0;
  fl_status st =
      fl_host_file_create(&file, stored->host, stored->name, &writer);
  if (st != FL_OK) {
    keep_error(stored, st, "");
    return st;
  }
  st = save(&writer, user);
  if (st != FL_OK) {
    keep_error(stored, st, fl_last_error());
    fl_host_file_discard(file);
    return st;
  }
  errno = 0;
  st = fl_host_file_close(file);
  if (st != FL_OK) keep_error(stored, st, "");
  return st;
}

fl_status stored_load(struct stored *stored, stored_load_fn load, void *user)
{
  fl_host_file *file = NULL;
  fl_reader reader;
  errno = 0;
  fl_status st = fl_host_file_open(&file, stored->host, stored->name, &reader);
  if (st != FL_OK) {
    keep_error(stored, st, "");
    return st;
  }
  st = load(&reader, user);
  if (st != FL_OK) keep_error(stored, st, fl_last_error());
  fl_host_file_discard(file);
  return st;
}
