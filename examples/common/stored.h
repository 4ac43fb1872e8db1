/* SPDX-License-Identifier: Apache-2.0 */
/* A file that is replaced as a whole, by libfl-host's storage. */
#ifndef EXAMPLES_STORED_H
#define EXAMPLES_STORED_H

#include <fl/base.h>
#include <fl/host.h>

enum { STORED_NAME_MAX = 128, PATH_FOLDER_BYTES = 4096 };

/* Cut a path such as "state/fl.snapshot" into folder, "." when there is none,
 * and name, which must be [a-z0-9._-]{1,128} without a dot at its front. 0, or
 * -1 with a line on stderr. */
int path_split(const char *path, char folder[PATH_FOLDER_BYTES],
               char name[STORED_NAME_MAX + 1]);

/* A file at such a path, whose folder is made when missing. */
struct stored {
  fl_host *host;
  char name[STORED_NAME_MAX + 1];
  char error[256]; /* why the last call failed */
};

/* 0, or -1 with a line on stderr. */
int stored_open(struct stored *stored, const char *path);
void stored_close(struct stored *stored);
/* 1 when the file is there, 0 when not, -1 when something else is, or when it
 * cannot be read. */
int stored_exists(struct stored *stored);

typedef fl_status (*stored_save_fn)(const fl_writer *writer, void *user);
typedef fl_status (*stored_load_fn)(const fl_reader *reader, void *user);
/* Replace the file by what `save` writes, durably; or leave it as it was. */
fl_status stored_save(struct stored *stored, stored_save_fn save, void *user);
fl_status stored_load(struct stored *stored, stored_load_fn load, void *user);

#endif
