/* SPDX-License-Identifier: Apache-2.0 */
/* The store behind --state, when the program was built with libfl-sqlite. */
#include "fl_aggregator/durable.h"

#include <err.h>
#include <string.h>

#ifdef HAVE_FL_SQLITE
#  include <fl/sqlite.h>

int durable_open(fl_store **store, const char *path, int is_fresh)
{
  static const char prefix[] = "server/";
  if (fl_store_sqlite_open(store, path, NULL) != FL_OK) {
    warnx("%s: %s", path, fl_sqlite_last_error());
    return -1;
  }
  if (!is_fresh) return 0;
  if (fl_store_clear(*store, prefix, strlen(prefix)) == FL_OK &&
      fl_store_commit(*store) == FL_OK)
    return 0;
  warnx("%s: %s", path, fl_last_error());
  return -1;
}
#else
int durable_open(fl_store **store, const char *path, int is_fresh)
{
  (void)store;
  (void)is_fresh;
  warnx("%s: this program was built without SQLite", path);
  return -1;
}
#endif
