/* SPDX-License-Identifier: Apache-2.0 */
/* The activation cache in real files, as a host has it: public headers and
 * shared libraries only. Processes that are killed, disks that are full. */
#define _XOPEN_SOURCE 700
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fl/fl.h>
#include <fl/host.h>
#include "cache_blob.h"

enum { PATH_BYTES = 256, SAMPLES = 50, VALUES = 300 };

static char folder[PATH_BYTES];
static char path[PATH_BYTES + 20];
static fl_host *host;

static fl_host *open_host(void)
{
  fl_host *made = NULL;
  fl_host_options options;
  cr_assert_eq(fl_host_options_init(&options, sizeof options), FL_OK);
  options.storage_path = folder;
  cr_assert_eq(fl_host_new(&made, &options), FL_OK);
  return made;
}

static void open_folder(void)
{
  snprintf(folder, sizeof folder, "%s/fl-test-cache-XXXXXX", P_tmpdir);
  cr_assert_not_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/outputs", folder);
  host = open_host();
}

static void close_folder(void)
{
  fl_host_free(host);
  unlink(path);
  cr_assert_eq(rmdir(folder), 0, "something is left in %s", folder);
}

static fl_cache *new_cache(fl_host *on)
{
  fl_cache *cache = NULL;
  fl_cache_options options;
  (void)fl_cache_options_init(&options, sizeof options);
  options.name = "outputs";
  (void)fl_cache_new(&cache, fl_host_context(on), &options);
  return cache;
}

static fl_status put(fl_cache *cache, uint64_t first, uint64_t last)
{
  fl_status st = FL_OK;
  for (uint64_t id = first; id < last && st == FL_OK; id++) {
    float row[VALUES];
    cache_fill(row, VALUES, id, 0);
    st = fl_cache_put(cache, &id, 1, row);
  }
  return st;
}

/* Rows there for a new handle, each the right one. */
static uint64_t found(void)
{
  uint64_t count = 0;
  fl_cache *cache = new_cache(host);
  cr_assert_not_null(cache);
  cr_assert_eq(fl_cache_begin(cache, cache_tag(1), SAMPLES, VALUES), FL_OK);
  for (uint64_t id = 0; id < SAMPLES; id++) {
    float row[VALUES], want[VALUES];
    cache_fill(want, VALUES, id, 0);
    cr_assert_eq(fl_cache_prefetch(cache, &id, 1), FL_OK);
    if (fl_cache_get(cache, &id, 1, row) != FL_OK) continue;
    cr_assert_eq(memcmp(row, want, sizeof row), 0);
    count++;
  }
  fl_cache_free(cache);
  return count;
}

/* Run in a process of its own; its exit status, -1 when a signal ended it. */
static int in_child(int (*body)(void))
{
  int status = 0;
  pid_t child = fork();
  if (child == 0) _exit(body());
  cr_assert_eq(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

Test(cache_host, file_is_the_users_alone_and_outlives_the_host,
     .init = open_folder, .fini = close_folder)
{
  struct stat info;
  fl_cache *cache = new_cache(host);
  cr_assert_eq(fl_cache_begin(cache, cache_tag(1), SAMPLES, VALUES), FL_OK);
  cr_assert_eq(put(cache, 0, SAMPLES), FL_OK);
  cr_assert_eq(fl_cache_flush(cache), FL_OK);
  fl_cache_free(cache);
  cr_assert_eq(stat(path, &info), 0);
  cr_assert_eq(info.st_mode & 0777, 0600);
  fl_host_free(host);
  host = open_host();
  cr_assert_eq(found(), SAMPLES);
}

static int put_and_be_killed(void)
{
  fl_host *own = open_host();
  fl_cache *cache = new_cache(own);
  if (fl_cache_begin(cache, cache_tag(1), SAMPLES, VALUES) != FL_OK) return 1;
  if (put(cache, 0, 20) != FL_OK) return 2;
  raise(SIGKILL);
  return 3;
}

Test(cache_host, rows_outlive_a_process_that_is_killed, .init = open_folder,
     .fini = close_folder)
{
  cr_assert_eq(in_child(put_and_be_killed), -1);
  cr_assert_eq(found(), 20);
}

Test(cache_host, file_cut_by_somebody_counts_as_empty, .init = open_folder,
     .fini = close_folder)
{
  const off_t sizes[] = {0, 1, 255, 256, 4096, 50000};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    fl_cache *cache = new_cache(host);
    cr_assert_eq(fl_cache_begin(cache, cache_tag(1), SAMPLES, VALUES), FL_OK);
    cr_assert_eq(put(cache, 0, SAMPLES), FL_OK);
    fl_cache_free(cache);
    cr_assert_eq(truncate(path, sizes[i]), 0);
    cr_assert_eq(found(), 0);
  }
}

/* The disk is full: as much as the process may write. */
static int fill_the_disk(void)
{
  const struct rlimit most = {65536, 65536};
  fl_cache_status status;
  struct stat info;
  float row[VALUES] = {0};
  const uint64_t id = 0;
  fl_cache *cache = new_cache(host);
  if (signal(SIGXFSZ, SIG_IGN) == SIG_ERR) return 1;
  if (fl_cache_begin(cache, cache_tag(1), 10, VALUES) != FL_OK) return 2;
  if (setrlimit(RLIMIT_FSIZE, &most) != 0) return 3;
  if (fl_cache_begin(cache, cache_tag(1), 1000, VALUES) != FL_E_IO) return 4;
  if (!strstr(fl_last_error(), "outputs")) return 5;
  if (fl_cache_put(cache, &id, 1, row) != FL_E_STATE) return 6;
  if (fl_cache_get(cache, &id, 1, row) != FL_E_STATE) return 7;
  (void)fl_cache_status_init(&status, sizeof status);
  (void)fl_cache_get_status(cache, &status);
  if (status.is_on) return 8;
  if (stat(path, &info) == 0) return 9;
  if (fl_cache_begin(cache, cache_tag(1), 10, VALUES) != FL_OK) return 10;
  if (put(cache, 0, 10) != FL_OK) return 11;
  fl_cache_free(cache);
  return 0;
}

Test(cache_host, full_disk_turns_it_off_and_leaves_nothing, .init = open_folder,
     .fini = close_folder)
{
  cr_assert_eq(in_child(fill_the_disk), 0);
}

Test(cache_host, wiped_file_is_gone, .init = open_folder, .fini = close_folder)
{
  fl_cache *cache = new_cache(host);
  cr_assert_eq(fl_cache_begin(cache, cache_tag(1), SAMPLES, VALUES), FL_OK);
  cr_assert_eq(put(cache, 0, SAMPLES), FL_OK);
  cr_assert_eq(access(path, F_OK), 0);
  cr_assert_eq(fl_cache_wipe(cache), FL_OK);
  cr_assert_neq(access(path, F_OK), 0);
  fl_cache_free(cache);
  cr_assert_eq(found(), 0);
}
