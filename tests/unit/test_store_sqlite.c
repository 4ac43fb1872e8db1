/* SPDX-License-Identifier: Apache-2.0 */
/* Stores in SQLite files, as a host sees them: what every store has to pass,
 * and what is a file's alone: damage, a full disk, other processes, kills. */
#define _XOPEN_SOURCE 700
#include "store_suite.h"

#include <errno.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <fl/sqlite.h>

enum { PATH_BYTES = 256, KILLS = 12 };

static char folder[PATH_BYTES], path[PATH_BYTES + 16];

static void make_folder(void)
{
  snprintf(folder, sizeof folder, "%s/fl-test-sqlite-XXXXXX", P_tmpdir);
  cr_assert_not_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/store", folder);
}

static void remove_folder(void)
{
  static const char *const suffixes[] = {"", "-wal", "-shm", "-lock"};
  char name[PATH_BYTES + 32];
  for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
    snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
    unlink(name);
  }
  cr_assert_eq(rmdir(folder), 0, "something is left in %s", folder);
}

static fl_store *open_file(void)
{
  fl_store *store = NULL;
  const fl_status st = fl_store_sqlite_open(&store, path, NULL);
  cr_assert_eq(st, FL_OK, "%s: %s", fl_status_name(st), fl_sqlite_last_error());
  return store;
}

static void want_refused(fl_status want, const char *text)
{
  fl_store *store = NULL;
  const fl_status st = fl_store_sqlite_open(&store, path, NULL);
  cr_assert_eq(st, want, "got %s (%s), want %s", fl_status_name(st),
               fl_sqlite_last_error(), fl_status_name(want));
  cr_assert_null(store);
  cr_assert(strstr(fl_sqlite_last_error(), text), "got \"%s\", want \"%s\"",
            fl_sqlite_last_error(), text);
}

static fl_store *suite_open(void)
{
  make_folder();
  return open_file();
}

/* A free does nothing for what is not committed that a kill would not; real
 * kills are below. */
static fl_store *suite_reopen(fl_store *store)
{
  fl_store_free(store);
  return open_file();
}

static void suite_close(fl_store *store)
{
  fl_store_free(store);
  remove_folder();
}

STORE_CASE(store_sqlite, values_come_back_as_they_were_put)
STORE_CASE(store_sqlite, the_last_put_counts)
STORE_CASE(store_sqlite, removed_is_gone_and_may_be_put_again)
STORE_CASE(store_sqlite, keys_come_in_order)
STORE_CASE(store_sqlite, a_rollback_leaves_the_last_commit)
STORE_CASE(store_sqlite, what_was_committed_stays_and_no_more)
STORE_CASE(store_sqlite, what_it_lends_may_be_given_back)
STORE_CASE(store_sqlite, clear_takes_a_prefix_and_nothing_else)
STORE_CASE(store_sqlite, any_changes_are_as_a_table_says)

/* ---- opening ---- */

Test(store_sqlite, options_are_checked)
{
  fl_sqlite_options options;
  fl_store *store = NULL;
  cr_assert_eq(fl_sqlite_options_init(NULL, sizeof options), FL_E_OPTIONS);
  cr_assert_eq(fl_sqlite_options_init(&options, 3), FL_E_OPTIONS);
  cr_assert_eq(fl_sqlite_options_init(&options, sizeof options), FL_OK);
  cr_assert_eq(options.busy_ms, 5000);
  cr_assert_eq(options.check, 1);
  cr_assert_eq(options.max_bytes, 0);
  cr_assert_eq(fl_store_sqlite_open(NULL, "x", &options), FL_E_ARGUMENT);
  cr_assert_eq(fl_store_sqlite_open(&store, NULL, &options), FL_E_ARGUMENT);
  cr_assert_eq(fl_store_sqlite_open(&store, "", &options), FL_E_ARGUMENT);
  options.struct_size = 2;
  cr_assert_eq(fl_store_sqlite_open(&store, "x", &options), FL_E_OPTIONS);
  struct {
    fl_sqlite_options known;
    uint64_t newer;
  } longer = {.newer = 1};
  cr_assert_eq(fl_sqlite_options_init(&longer.known, sizeof options), FL_OK);
  longer.known.struct_size = sizeof longer;
  cr_assert_eq(fl_store_sqlite_open(&store, "x", &longer.known), FL_E_OPTIONS);
  cr_assert_null(store);
}

Test(store_sqlite, a_folder_that_is_not_there_is_told)
{
  snprintf(path, sizeof path, "%s/no/such/folder", P_tmpdir);
  want_refused(FL_E_IO, "No such file");
}

static int child(void (*run)(void))
{
  const pid_t pid = fork();
  cr_assert_geq(pid, 0);
  if (pid == 0) {
    run();
    _exit(0);
  }
  int status = 0;
  cr_assert_eq(waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100;
}

static void open_once_more(void)
{
  fl_store *store = NULL;
  _exit(fl_store_sqlite_open(&store, path, NULL) == FL_E_STATE ? 7 : 8);
}

Test(store_sqlite, a_second_store_of_a_file_is_refused)
{
  fl_store *store = suite_open();
  want_refused(FL_E_STATE, "another store has the file");
  cr_assert_eq(child(open_once_more), 7);
  suite_put(store, "a", "1");
  WANT_OK(fl_store_commit(store));
  store = suite_reopen(store);
  suite_want(store, "a", "1");
  suite_close(store);
}

Test(store_sqlite, others_read_the_last_commit_meanwhile)
{
  fl_store *store = suite_open();
  sqlite3 *other = NULL;
  sqlite3_stmt *query = NULL;
  suite_put(store, "a", "1");
  WANT_OK(fl_store_commit(store));
  suite_put(store, "b", "1");
  cr_assert_eq(sqlite3_open(path, &other), SQLITE_OK);
  cr_assert_eq(sqlite3_prepare_v2(other, "SELECT count(*) FROM fl_store", -1,
                                  &query, NULL),
               SQLITE_OK);
  cr_assert_eq(sqlite3_step(query), SQLITE_ROW);
  cr_assert_eq(sqlite3_column_int(query, 0), 1);
  /* Its transaction is open, and in nobody's way. */
  WANT_OK(fl_store_commit(store));
  sqlite3_finalize(query);
  sqlite3_close(other);
  suite_want_keys(store, "a,b,");
  suite_close(store);
}

static void execute(const char *sql)
{
  sqlite3 *database = NULL;
  cr_assert_eq(sqlite3_open(path, &database), SQLITE_OK);
  cr_assert_eq(sqlite3_exec(database, sql, NULL, NULL, NULL), SQLITE_OK, "%s",
               sqlite3_errmsg(database));
  sqlite3_close(database);
}

Test(store_sqlite, another_programs_database_is_refused_and_left_alone)
{
  make_folder();
  execute("CREATE TABLE things(a); PRAGMA application_id=17");
  want_refused(FL_E_FORMAT, "no store of libfl");
  execute("INSERT INTO things VALUES(1)");
  remove_folder();
}

Test(store_sqlite, a_newer_files_version_is_refused)
{
  fl_store_free(suite_open());
  execute("PRAGMA user_version=2");
  want_refused(FL_E_VERSION, "got 2, want 1..1");
  remove_folder();
}

/* ---- damage ---- */

static long file_size(void)
{
  struct stat about;
  cr_assert_eq(stat(path, &about), 0);
  return (long)about.st_size;
}

static void overwrite(long offset, int byte, size_t n)
{
  FILE *file = fopen(path, "r+b");
  cr_assert_not_null(file);
  cr_assert_eq(fseek(file, offset, SEEK_SET), 0);
  for (size_t i = 0; i < n; i++)
    fputc(byte, file);
  cr_assert_eq(fclose(file), 0);
}

static void fill(fl_store *store, unsigned n)
{
  static char value[1000];
  char key[16];
  memset(value, 'v', sizeof value);
  for (unsigned i = 0; i < n; i++) {
    snprintf(key, sizeof key, "key %04u", i);
    WANT_OK(fl_store_put(store, key, strlen(key), value, sizeof value));
  }
}

Test(store_sqlite, a_damaged_file_is_refused)
{
  fl_store *store = suite_open();
  fill(store, 500);
  WANT_OK(fl_store_commit(store));
  fl_store_free(store);
  overwrite(100, 0, 3000); /* the schema's page */
  want_refused(FL_E_FORMAT, "");
  overwrite(0, 'x', 100); /* the file's header */
  want_refused(FL_E_FORMAT, "not a database");
  remove_folder();
}

Test(store_sqlite, a_damaged_page_is_found_when_the_file_is_opened)
{
  fl_store *store = suite_open();
  fill(store, 500);
  WANT_OK(fl_store_commit(store));
  fl_store_free(store);
  overwrite(20 * 4096, 0xff, 4096);
  want_refused(FL_E_FORMAT, "");
  remove_folder();
}

Test(store_sqlite, a_file_cut_short_anywhere_is_refused)
{
  fl_store *store = suite_open();
  fill(store, 60);
  WANT_OK(fl_store_commit(store));
  fl_store_free(store);
  for (long size = file_size() - 1; size > 0; size -= 1000) {
    cr_assert_eq(truncate(path, size), 0);
    want_refused(FL_E_FORMAT, "");
  }
  remove_folder();
}

/* ---- no room ---- */

static fl_status fill_up(fl_store *store)
{
  static char value[10000];
  char key[16];
  fl_status st = FL_OK;
  for (unsigned i = 0; st == FL_OK && i < 10000; i++) {
    snprintf(key, sizeof key, "more %u", i);
    st = fl_store_put(store, key, strlen(key), value, sizeof value);
  }
  return st;
}

Test(store_sqlite, a_full_file_keeps_what_was_committed)
{
  fl_sqlite_options options;
  fl_store *store = NULL;
  make_folder();
  cr_assert_eq(fl_sqlite_options_init(&options, sizeof options), FL_OK);
  options.max_bytes = 200000;
  cr_assert_eq(fl_store_sqlite_open(&store, path, &options), FL_OK);
  suite_put(store, "a", "1");
  WANT_OK(fl_store_commit(store));
  cr_assert_eq(fill_up(store), FL_E_IO);
  cr_assert(strstr(fl_last_error(), "full"), "%s", fl_last_error());
  cr_assert_eq(fl_store_commit(store), FL_E_STATE);
  cr_assert_eq(fl_store_put(store, "b", 1, "1", 1), FL_E_STATE);
  WANT_OK(fl_store_rollback(store));
  suite_want_keys(store, "a,");
  suite_put(store, "b", "1");
  WANT_OK(fl_store_commit(store));
  store = suite_reopen(store);
  suite_want_keys(store, "a,b,");
  cr_assert_leq(file_size(), 200000);
  suite_close(store);
}

Test(store_sqlite, a_disk_that_takes_no_more_keeps_what_was_committed)
{
  fl_store *store = suite_open();
  suite_put(store, "a", "1");
  WANT_OK(fl_store_commit(store));
  const struct rlimit limit = {.rlim_cur = 100000, .rlim_max = RLIM_INFINITY};
  const struct rlimit none = {.rlim_cur = RLIM_INFINITY,
                              .rlim_max = RLIM_INFINITY};
  signal(SIGXFSZ, SIG_IGN);
  cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
  fl_status st = FL_OK;
  fill(store, 500);
  st = fl_store_commit(store);
  cr_assert_eq(st, FL_E_IO, "%s", fl_status_name(st));
  cr_assert(strlen(fl_last_error()) > 0);
  suite_want_keys(store, "a,");
  cr_assert_eq(setrlimit(RLIMIT_FSIZE, &none), 0);
  suite_put(store, "b", "1");
  WANT_OK(fl_store_commit(store));
  store = suite_reopen(store);
  suite_want_keys(store, "a,b,");
  suite_close(store);
}

/* ---- kills ---- */

/* Commit pairs of equal numbers, telling each when it is committed. */
static void count_up(int pipe_end, unsigned from)
{
  fl_store *store = NULL;
  if (fl_store_sqlite_open(&store, path, NULL) != FL_OK) _exit(1);
  for (unsigned i = from; fl_store_put(store, "a", 1, &i, sizeof i) == FL_OK &&
                          fl_store_put(store, "b", 1, &i, sizeof i) == FL_OK &&
                          fl_store_commit(store) == FL_OK;
       i++) {
    if (write(pipe_end, &i, sizeof i) != sizeof i) break;
  }
  _exit(1);
}

static unsigned number(const fl_store *store, const char *key)
{
  const void *value = NULL;
  size_t n = 0;
  unsigned i = 0;
  const fl_status st = fl_store_get(store, key, 1, &value, &n);
  cr_assert(st == FL_OK || st == FL_E_NOT_FOUND, "%s", fl_last_error());
  if (st == FL_OK) memcpy(&i, value, sizeof i);
  return i;
}

static void nap_us(long us)
{
  const struct timespec time = {.tv_nsec = us * 1000};
  nanosleep(&time, NULL);
}

Test(store_sqlite, killed_at_any_moment_it_has_all_of_a_commit_or_nothing)
{
  unsigned last = 0;
  uint32_t random = 20260802; /* the seed */
  fl_store_free(suite_open());
  for (int kill_number = 0; kill_number < KILLS; kill_number++) {
    int ends[2];
    unsigned told = last, heard = 0;
    cr_assert_eq(pipe(ends), 0);
    const pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) count_up(ends[1], last + 1);
    close(ends[1]);
    cr_assert_eq(read(ends[0], &heard, sizeof heard), sizeof heard);
    told = heard;
    random = random * 1664525u + 1013904223u;
    nap_us((long)(random >> 18)); /* up to 16 ms */
    kill(pid, SIGKILL);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
    while (read(ends[0], &heard, sizeof heard) == sizeof heard)
      told = heard;
    close(ends[0]);
    fl_store *store = open_file();
    last = number(store, "a");
    cr_assert_eq(number(store, "b"), last, "torn after kill %d", kill_number);
    cr_assert(last == told || last == told + 1, "got %u, was told %u", last,
              told);
    fl_store_free(store);
  }
  remove_folder();
}
