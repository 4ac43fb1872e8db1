/* SPDX-License-Identifier: Apache-2.0 */
/* What a server does in a second, and what it keeps of its clients:
 *
 *   bench_server [--quick] [--folder DIR]
 *   bench_server --sessions N --aggregator PROGRAM [--folder DIR]
 *                [--weights N]
 *
 * The first prints check-ins a second (HELLO, WELCOME, goodbye of clients that
 * are known; first_: of new ones), updates of 500 KB a second, counted and
 * committed, without a store and with SQLite (fsync; one commit each, and one
 * for 16), and bytes per registered client at a million. Time is the thread's
 * CPU time; with SQLite the clock's. The second has N
 * sessions in flight in one round of a real fl-aggregator on loopback, each
 * with a socket of its own, and prints how long it took and what the process
 * needed. --quick: small numbers, to see that it runs. */
#include "bench_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static int usage(const char *program)
{
  fprintf(stderr,
          "usage: %s [--quick] [--folder DIR]\n"
          "       %s --sessions N --aggregator PROGRAM [--folder DIR] "
          "[--weights N]\n",
          program, program);
  return 2;
}

static fl_status run(int is_quick, const char *folder)
{
  fl_status st = FL_OK;
  FLI_TRY(bench_checkins(is_quick ? 2000 : 200000));
  FLI_TRY(bench_updates(is_quick ? 4 : 64, is_quick ? 2 : 5, folder));
  FLI_TRY(bench_registered(is_quick ? 20000 : 1000000));
out:
  if (st != FL_OK) fprintf(stderr, "bench_server: %s\n", fl_last_error());
  return st;
}

int main(int argc, char **argv)
{
  struct bench_sessions sessions = {
      .folder = ".", .weights = 10000, .limit_s = 60};
  int is_quick = 0;
  for (int i = 1; i < argc; i++) {
    const int has_value = i + 1 < argc;
    if (strcmp(argv[i], "--quick") == 0) {
      is_quick = 1;
    } else if (strcmp(argv[i], "--folder") == 0 && has_value) {
      sessions.folder = argv[++i];
    } else if (strcmp(argv[i], "--aggregator") == 0 && has_value) {
      sessions.aggregator = argv[++i];
    } else if (strcmp(argv[i], "--sessions") == 0 && has_value) {
      sessions.sessions = (uint32_t)strtoul(argv[++i], NULL, 10);
    } else if (strcmp(argv[i], "--weights") == 0 && has_value) {
      sessions.weights = (uint32_t)strtoul(argv[++i], NULL, 10);
    } else {
      return usage(argv[0]);
    }
  }
  if (!sessions.aggregator != !sessions.sessions) return usage(argv[0]);
  if (sessions.sessions) return bench_sessions(&sessions);
  return run(is_quick, sessions.folder) == FL_OK ? 0 : 1;
}
