/* SPDX-License-Identifier: Apache-2.0 */
/* The store behind --state, when the program was built with libfl-sqlite. */
#include "fl_aggregator/durable.h"

#include <err.h>
#include <string.h>

#ifdef HAVE_FL_SQLITE
#  include <fl/sqlite.h>

int durable_open(fl_store **store, const struct config *config)
{
  static const char prefix[] = "server/";
  const char *path = config->state;
  fl_sqlite_options options;
  fl_sqlite_options_init(&options, sizeof options);
  options.max_bytes = config->state_max_mb << 20;
  if (fl_store_sqlite_open(store, path, &options) != FL_OK) {
    warnx("%s: %s", path, fl_sqlite_last_error());
    return -1;
  }
  if (!config->fresh) return 0;
  if (fl_store_clear(*store, prefix, strlen(prefix)) == FL_OK &&
      fl_store_commit(*store) == FL_OK)
    return 0;
  warnx("%s: %s", path, fl_last_error());
  return -1;
}
#else
int durable_open(fl_store **store, const struct config *config)
{
  (void)store;
  warnx("%s: this program was built without SQLite", config->state);
  return -1;
}
#endif
