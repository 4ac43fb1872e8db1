/* SPDX-License-Identifier: Apache-2.0 */
/* Blobs as files of one folder, behind fl_storage. One process at a time uses
 * a folder; within it any threads. */
#ifndef FLI_HOST_STORAGE_H
#define FLI_HOST_STORAGE_H

#include <fl/base.h>

typedef struct fli_host_storage fli_host_storage;

/* Open the folder `path`, made when missing (its parent must be there).
 * FL_E_IO, FL_E_NOMEM. */
fl_status fli_host_storage_new(fli_host_storage **out, const char *path);
void fli_host_storage_free(fli_host_storage *storage);
/* Fill in hooks that borrow `storage`. */
void fli_host_storage_hooks(fli_host_storage *storage, fl_storage *hooks);

/* FL_E_ARGUMENT unless [a-z0-9_-][a-z0-9._-]{0,127}. */
fl_status fli_host_check_name(const char *name);
/* Open a blob for reading; it stays whole while it is open, even when it is
 * replaced. FL_E_ARGUMENT, FL_E_NOT_FOUND, FL_E_IO. */
fl_status fli_host_blob_open(fli_host_storage *storage, const char *name,
                             int *descriptor, uint64_t *size);
void fli_host_blob_close(int descriptor);
/* Read up to n bytes at `offset`; *got < n only at the end. FL_E_IO. */
fl_status fli_host_blob_read(int descriptor, uint64_t offset, void *buf,
                             size_t n, size_t *got);

#endif
