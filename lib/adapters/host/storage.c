/* SPDX-License-Identifier: Apache-2.0 */
/* A blob is a file; replacing it is: write ".<name>.tmp", fsync, rename. Names
 * that begin with a dot are refused, so no blob can be taken for such a
 * temporary, and a temporary that a crash left behind is overwritten by the
 * next write of its blob. The folder's own entries become durable at sync, and
 * what was written into mapped blobs, of which the storage keeps a list. */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64
#include "adapters/host/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
  NAME_MAX_BYTES = 128,
  TEMPORARY_BYTES = NAME_MAX_BYTES + 8,
  FOLDER_MODE = 0700,
  FILE_MODE = 0600
};

typedef struct mapping {
  struct mapping *next;
  void *data;
  size_t n;
} mapping;

struct fli_host_storage {
  int folder;
  pthread_mutex_t writing; /* one temporary per name at a time; mappings */
  mapping *mappings;       /* by map_write, not unmapped yet */
};

fl_status fli_host_check_name(const char *name)
{
  static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
  if (!name || name[0] == '.') return FL_E_ARGUMENT;
  size_t n = strnlen(name, NAME_MAX_BYTES + 1);
  if (n == 0 || n > NAME_MAX_BYTES) return FL_E_ARGUMENT;
  return strspn(name, allowed) == n ? FL_OK : FL_E_ARGUMENT;
}

static fl_status status_of_errno(void)
{
  return errno == ENOENT ? FL_E_NOT_FOUND : FL_E_IO;
}

void fli_host_blob_close(int descriptor)
{
  close(descriptor);
}

fl_status fli_host_blob_open(fli_host_storage *storage, const char *name,
                             int *descriptor, uint64_t *size)
{
  fl_status st = fli_host_check_name(name);
  if (st != FL_OK) return st;
  int fd = openat(storage->folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return status_of_errno();
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    return FL_E_IO;
  }
  *descriptor = fd;
  *size = (uint64_t)info.st_size;
  return FL_OK;
}

fl_status fli_host_blob_read(int descriptor, uint64_t offset, void *buf,
                             size_t n, size_t *got)
{
  uint8_t *at = buf;
  size_t done = 0;
  while (done < n) {
    if (offset > INT64_MAX - done) return FL_E_IO;
    ssize_t count =
        pread(descriptor, at + done, n - done, (off_t)(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FL_E_IO;
    if (count == 0) break;
    done += (size_t)count;
  }
  *got = done;
  return FL_OK;
}

static fl_status storage_size(void *user, const char *name, uint64_t *size)
{
  int fd;
  fl_status st = fli_host_blob_open(user, name, &fd, size);
  if (st == FL_OK) close(fd);
  return st;
}

static fl_status storage_read(void *user, const char *name, uint64_t offset,
                              void *buf, size_t n)
{
  int fd;
  uint64_t size;
  fl_status st = fli_host_blob_open(user, name, &fd, &size);
  if (st != FL_OK) return st;
  size_t got = 0;
  st = fli_host_blob_read(fd, offset, buf, n, &got);
  close(fd);
  if (st != FL_OK) return st;
  return got == n ? FL_OK : FL_E_IO;
}

static fl_status write_all(int fd, const void *buf, size_t n)
{
  const uint8_t *at = buf;
  while (n > 0) {
    ssize_t count = write(fd, at, n);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return FL_E_IO;
    at += count;
    n -= (size_t)count;
  }
  return FL_OK;
}

/* The caller holds storage->writing. */
static fl_status replace_file(fli_host_storage *storage, const char *name,
                              const void *buf, size_t n)
{
  char temporary[TEMPORARY_BYTES];
  snprintf(temporary, sizeof temporary, ".%s.tmp", name);
  int fd =
      openat(storage->folder, temporary,
             O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
  if (fd < 0) return FL_E_IO;
  fl_status st = write_all(fd, buf, n);
  if (st == FL_OK && fsync(fd) != 0) st = FL_E_IO;
  if (close(fd) != 0) st = FL_E_IO;
  if (st == FL_OK &&
      renameat(storage->folder, temporary, storage->folder, name) != 0) {
    st = FL_E_IO;
  }
  if (st != FL_OK) unlinkat(storage->folder, temporary, 0);
  return st;
}

static fl_status storage_write(void *user, const char *name, const void *buf,
                               size_t n)
{
  fli_host_storage *storage = user;
  fl_status st = fli_host_check_name(name);
  if (st != FL_OK) return st;
  pthread_mutex_lock(&storage->writing);
  st = replace_file(storage, name, buf, n);
  pthread_mutex_unlock(&storage->writing);
  return st;
}

static fl_status storage_remove(void *user, const char *name)
{
  fli_host_storage *storage = user;
  fl_status st = fli_host_check_name(name);
  if (st != FL_OK) return st;
  if (unlinkat(storage->folder, name, 0) == 0 || errno == ENOENT) return FL_OK;
  return FL_E_IO;
}

static fl_status storage_sync(void *user)
{
  fli_host_storage *storage = user;
  fl_status st = FL_OK;
  pthread_mutex_lock(&storage->writing);
  for (const mapping *m = storage->mappings; m; m = m->next) {
    if (msync(m->data, m->n, MS_SYNC) != 0) st = FL_E_IO;
  }
  pthread_mutex_unlock(&storage->writing);
  return fsync(storage->folder) == 0 ? st : FL_E_IO;
}

/* A blob of 0 bytes cannot be mapped: it is any address with n == 0. */
static fl_status storage_map(void *user, const char *name, const void **data,
                             size_t *n)
{
  static const char empty[1];
  int fd;
  uint64_t size;
  fl_status st = fli_host_blob_open(user, name, &fd, &size);
  if (st != FL_OK) return st;
  const void *at = empty;
  if (size > SIZE_MAX) st = FL_E_NOMEM;
  if (st == FL_OK && size > 0) {
    at = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED) st = errno == ENOMEM ? FL_E_NOMEM : FL_E_IO;
  }
  close(fd);
  if (st != FL_OK) return st;
  *data = at;
  *n = (size_t)size;
  return FL_OK;
}

static void storage_unmap(void *user, const void *data, size_t n)
{
  (void)user;
  /* munmap takes a pointer to non-const, though it writes nothing. */
  if (n > 0) munmap((void *)(uintptr_t)data, n);
}

/* Space for all of the file, so that no page of it can fail later. */
static fl_status reserve(int fd, off_t n)
{
  int error;
  do {
    error = posix_fallocate(fd, 0, n);
  } while (error == EINTR);
  return error == 0 ? FL_OK : FL_E_IO;
}

/* An empty file in place of what bears the name. */
static fl_status replace_by_empty(const fli_host_storage *storage,
                                  const char *name, int *descriptor)
{
  if (unlinkat(storage->folder, name, 0) != 0 && errno != ENOENT)
    return FL_E_IO;
  *descriptor = openat(storage->folder, name,
                       O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE);
  return *descriptor < 0 ? FL_E_IO : FL_OK;
}

/* Open the blob, of n bytes, with space for all of them. The caller closes
 * *descriptor when it is not negative, on failure too. */
static fl_status open_reserved(const fli_host_storage *storage,
                               const char *name, off_t n, int *descriptor,
                               int32_t *is_new)
{
  struct stat info;
  fl_status st = FL_OK;
  *is_new = 0;
  *descriptor = openat(storage->folder, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (*descriptor < 0 && errno != ENOENT) return FL_E_IO;
  if (*descriptor >= 0) {
    if (fstat(*descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
      return FL_E_IO;
    }
    if (info.st_size == n) return reserve(*descriptor, n);
    close(*descriptor);
  }
  *is_new = 1;
  st = replace_by_empty(storage, name, descriptor);
  if (st != FL_OK) return st;
  st = reserve(*descriptor, n);
  if (st != FL_OK) unlinkat(storage->folder, name, 0);
  return st;
}

static fl_status storage_map_write(void *user, const char *name, uint64_t n,
                                   void **data, int32_t *is_new)
{
  fli_host_storage *storage = user;
  fl_status st = fli_host_check_name(name);
  if (st != FL_OK) return st;
  if (n == 0) return FL_E_ARGUMENT;
  if (n > SIZE_MAX || n > INT64_MAX) return FL_E_NOMEM;
  mapping *m = malloc(sizeof *m);
  if (!m) return FL_E_NOMEM;
  int fd = -1;
  void *at = MAP_FAILED;
  pthread_mutex_lock(&storage->writing);
  st = open_reserved(storage, name, (off_t)n, &fd, is_new);
  if (st == FL_OK) {
    at = mmap(NULL, (size_t)n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) st = errno == ENOMEM ? FL_E_NOMEM : FL_E_IO;
  }
  if (fd >= 0) close(fd);
  if (st == FL_OK) {
    *m = (mapping){storage->mappings, at, (size_t)n};
    storage->mappings = m;
    *data = at;
  }
  pthread_mutex_unlock(&storage->writing);
  if (st != FL_OK) free(m);
  return st;
}

static void storage_unmap_write(void *user, void *data, uint64_t n)
{
  fli_host_storage *storage = user;
  pthread_mutex_lock(&storage->writing);
  for (mapping **at = &storage->mappings; *at; at = &(*at)->next) {
    mapping *m = *at;
    if (m->data != data) continue;
    *at = m->next;
    free(m);
    break;
  }
  pthread_mutex_unlock(&storage->writing);
  munmap(data, (size_t)n);
}

static void storage_advise(void *user, const void *data, uint64_t offset,
                           uint64_t n)
{
  (void)user;
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
  uintptr_t first = (uintptr_t)data + (uintptr_t)offset;
  uintptr_t begin = first - first % page;
  (void)posix_madvise((void *)begin, (size_t)(first - begin + n),
                      POSIX_MADV_WILLNEED);
}

/* A new folder's own entry is in its parent; without the right to read that,
 * there is nothing to be done. */
static void sync_parent(int folder)
{
  int parent = openat(folder, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (parent < 0) return;
  (void)fsync(parent);
  close(parent);
}

fl_status fli_host_storage_new(fli_host_storage **out, const char *path)
{
  int is_new = mkdir(path, FOLDER_MODE) == 0;
  if (!is_new && errno != EEXIST) return FL_E_IO;
  int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return FL_E_IO;
  if (is_new) sync_parent(folder);
  fli_host_storage *storage = malloc(sizeof *storage);
  if (!storage || pthread_mutex_init(&storage->writing, NULL) != 0) {
    free(storage);
    close(folder);
    return FL_E_NOMEM;
  }
  storage->folder = folder;
  storage->mappings = NULL;
  *out = storage;
  return FL_OK;
}

void fli_host_storage_free(fli_host_storage *storage)
{
  if (!storage) return;
  close(storage->folder);
  pthread_mutex_destroy(&storage->writing);
  free(storage);
}

void fli_host_storage_hooks(fli_host_storage *storage, fl_storage *hooks)
{
  *hooks = (fl_storage){
      .struct_size = sizeof *hooks,
      .user = storage,
      .size = storage_size,
      .read = storage_read,
      .write = storage_write,
      .remove = storage_remove,
      .sync = storage_sync,
      .map = storage_map,
      .unmap = storage_unmap,
      .map_write = storage_map_write,
      .unmap_write = storage_unmap_write,
      .advise = storage_advise,
  };
}
