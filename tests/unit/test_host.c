/* SPDX-License-Identifier: Apache-2.0 */
/* libfl-host as a host sees it: only public headers, linked to the shared
 * libraries. Each test has a fresh folder. */
#define _XOPEN_SOURCE 700
#include <criterion/criterion.h>
#include <fcntl.h>
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

enum { PATH_BYTES = 256 };

static char folder[PATH_BYTES];
static fl_host *host;
static const fl_storage *storage;

static fl_host_options default_options(void)
{
  fl_host_options options;
  cr_assert_eq(fl_host_options_init(&options, sizeof options), FL_OK);
  return options;
}

static void open_host(void)
{
  snprintf(folder, sizeof folder, "%s/fl-test-host-XXXXXX", P_tmpdir);
  cr_assert_not_null(mkdtemp(folder));
  fl_host_options options = default_options();
  options.storage_path = folder;
  cr_assert_eq(fl_host_new(&host, &options), FL_OK);
  storage = fl_host_storage(host);
  cr_assert_not_null(storage);
}

static void close_host(void)
{
  storage->remove(storage->user, "blob");
  storage->remove(storage->user, "state.bin");
  fl_host_free(host);
  cr_assert_eq(rmdir(folder), 0, "something is left in %s", folder);
}

static void put(const char *name, const char *text)
{
  cr_assert_eq(storage->write(storage->user, name, text, strlen(text)), FL_OK);
}

static void check_blob(const char *name, const char *want)
{
  uint64_t size = 0;
  char got[100] = {0};
  cr_assert_eq(storage->size(storage->user, name, &size), FL_OK);
  cr_assert_eq(size, strlen(want));
  cr_assert_eq(storage->read(storage->user, name, 0, got, strlen(want)), FL_OK);
  cr_assert_str_eq(got, want);
}

static void path_of(char path[PATH_BYTES + 20], const char *name)
{
  snprintf(path, PATH_BYTES + 20, "%s/%s", folder, name);
}

Test(host, version_of_library_and_headers_agree)
{
  cr_assert_eq(fl_version_number(), FL_VERSION_NUMBER);
  cr_assert_str_eq(fl_version_string(), "0.1.0");
}

Test(host, build_info_names_version_and_kernels)
{
  const char *info = fl_build_info();
  cr_assert_not_null(strstr(info, fl_version_string()));
  cr_assert_not_null(strstr(info, "kernels"));
  cr_assert_eq(strstr(info, "OpenBLAS") != NULL, fl_feature(FL_FEATURE_BLAS));
  cr_assert_eq(fl_build_info(), info);
  cr_assert_null(strchr(info, '\n'));
}

Test(host, features_are_known_or_absent)
{
  cr_assert_eq(fl_feature(FL_FEATURE_MODEL), 1);
  cr_assert_eq(fl_feature(FL_FEATURE_THC), 1);
  cr_assert_eq(fl_feature(FL_FEATURE_CLIENT), 1);
  cr_assert_eq(fl_feature(FL_FEATURE_SERVER), 1);
  cr_assert_eq(fl_feature(FL_FEATURE_FREEZE), 1);
  cr_assert_eq(fl_feature(FL_FEATURE_COHORT), 1);
  cr_assert_eq(fl_feature(FL_FEATURE_EMBEDDING), 1);
  cr_assert_eq(fl_feature(0), 0);
  cr_assert_eq(fl_feature(UINT32_MAX), 0);
}

Test(host, default_options_make_a_context_without_storage)
{
  fl_host *plain = NULL;
  cr_assert_eq(fl_host_new(&plain, NULL), FL_OK);
  cr_assert_not_null(fl_host_context(plain));
  cr_assert_null(fl_host_storage(plain));
  fl_host_free(plain);
  fl_host_free(NULL);
  cr_assert_null(fl_host_context(NULL));
  cr_assert_null(fl_host_storage(NULL));
}

Test(host, options_of_other_ages_are_taken_if_nothing_unknown_is_set)
{
  struct {
    fl_host_options known;
    uint64_t unknown;
  } newer;
  fl_host *made = NULL;
  cr_assert_eq(fl_host_options_init(&newer.known, sizeof newer), FL_OK);
  cr_assert_eq(fl_host_new(&made, &newer.known), FL_OK);
  fl_host_free(made);
  made = NULL;
  newer.unknown = 1;
  cr_assert_eq(fl_host_new(&made, &newer.known), FL_E_OPTIONS);
  newer.known.struct_size = 8;
  cr_assert_eq(fl_host_new(&made, &newer.known), FL_OK);
  fl_host_free(made);
}

Test(host, bad_options_are_refused)
{
  fl_host *made = NULL;
  fl_host_options options = default_options();
  options.threads = 1025;
  cr_assert_eq(fl_host_new(&made, &options), FL_E_OPTIONS);
  options = default_options();
  options.log_level = FL_LOG_DEBUG + 1;
  cr_assert_eq(fl_host_new(&made, &options), FL_E_OPTIONS);
  options = default_options();
  options.struct_size = 0;
  cr_assert_eq(fl_host_new(&made, &options), FL_E_OPTIONS);
  cr_assert_eq(fl_host_new(NULL, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_host_options_init(NULL, sizeof options), FL_E_OPTIONS);
  cr_assert_eq(fl_host_options_init(&options, 3), FL_E_OPTIONS);
  cr_assert_null(made);
}

Test(host, absurd_struct_size_is_refused_whatever_lies_behind)
{
  static union {
    fl_host_options options;
    uint8_t zeros[65537];
  } block;
  fl_host *made = NULL;
  block.options = default_options();
  block.options.struct_size = sizeof block.zeros;
  cr_assert_eq(fl_host_new(&made, &block.options), FL_E_OPTIONS);
  cr_assert_null(made);
  cr_assert_eq(fl_host_options_init(&block.options, sizeof block.zeros),
               FL_E_OPTIONS);
  cr_assert_eq(fl_host_options_init(&block.options, sizeof block.zeros - 1),
               FL_OK);
  cr_assert_eq(fl_host_new(&made, &block.options), FL_OK);
  fl_host_free(made);
}

Test(host, pools_of_several_threads_start_and_end)
{
  const uint32_t threads[] = {0, 2, 8};
  for (size_t i = 0; i < sizeof threads / sizeof threads[0]; i++) {
    fl_host *made = NULL;
    fl_host_options options = default_options();
    options.threads = threads[i];
    cr_assert_eq(fl_host_new(&made, &options), FL_OK);
    fl_host_free(made);
  }
}

Test(host, missing_folder_is_made_and_found_again)
{
  char parent[] = P_tmpdir "/fl-test-host-XXXXXX";
  char path[sizeof parent + 8];
  cr_assert_not_null(mkdtemp(parent));
  snprintf(path, sizeof path, "%s/state", parent);
  for (int i = 0; i < 2; i++) {
    fl_host *made = NULL;
    fl_host_options options = default_options();
    options.storage_path = path;
    cr_assert_eq(fl_host_new(&made, &options), FL_OK);
    fl_host_free(made);
  }
  cr_assert_eq(rmdir(path), 0);
  cr_assert_eq(rmdir(parent), 0);
}

Test(host, folder_that_cannot_be_made_is_an_io_error)
{
  fl_host *made = NULL;
  fl_host_options options = default_options();
  options.storage_path = "/nonexistent-libfl/child";
  cr_assert_eq(fl_host_new(&made, &options), FL_E_IO);
  options.storage_path = "/dev/null";
  cr_assert_eq(fl_host_new(&made, &options), FL_E_IO);
  cr_assert_null(made);
}

Test(host, memory_cap_reaches_the_context)
{
  fl_host *made = NULL;
  fl_buffer *buffer = NULL;
  fl_host_options options = default_options();
  options.memory_cap = 8;
  cr_assert_eq(fl_host_new(&made, &options), FL_OK);
  cr_assert_eq(fl_buffer_new(&buffer, fl_host_context(made)), FL_E_NOMEM);
  fl_host_free(made);
}

Test(host, clock_does_not_go_back)
{
  uint64_t before = fl_host_now();
  uint64_t after = fl_host_now();
  cr_assert_gt(before, 0);
  cr_assert_geq(after, before);
}

Test(storage, blob_is_what_was_written_last, .init = open_host,
     .fini = close_host)
{
  put("blob", "first, and longer");
  put("blob", "second");
  check_blob("blob", "second");
}

Test(storage, blob_can_be_empty, .init = open_host, .fini = close_host)
{
  const void *data = NULL;
  size_t n = 1;
  put("blob", "");
  check_blob("blob", "");
  cr_assert_eq(storage->map(storage->user, "blob", &data, &n), FL_OK);
  cr_assert_not_null(data);
  cr_assert_eq(n, 0);
  storage->unmap(storage->user, data, n);
}

Test(storage, parts_are_read_at_their_offset, .init = open_host,
     .fini = close_host)
{
  char part[4] = {0};
  put("blob", "0123456789");
  cr_assert_eq(storage->read(storage->user, "blob", 4, part, 3), FL_OK);
  cr_assert_str_eq(part, "456");
  cr_assert_eq(storage->read(storage->user, "blob", 10, part, 0), FL_OK);
  cr_assert_eq(storage->read(storage->user, "blob", 8, part, 3), FL_E_IO);
  cr_assert_eq(storage->read(storage->user, "blob", UINT64_MAX, part, 1),
               FL_E_IO);
}

Test(storage, missing_blob_is_not_found, .init = open_host, .fini = close_host)
{
  uint64_t size;
  char byte;
  const void *data;
  size_t n;
  cr_assert_eq(storage->size(storage->user, "blob", &size), FL_E_NOT_FOUND);
  cr_assert_eq(storage->read(storage->user, "blob", 0, &byte, 1),
               FL_E_NOT_FOUND);
  cr_assert_eq(storage->map(storage->user, "blob", &data, &n), FL_E_NOT_FOUND);
  cr_assert_eq(storage->remove(storage->user, "blob"), FL_OK);
}

Test(storage, names_outside_the_alphabet_are_refused, .init = open_host,
     .fini = close_host)
{
  char long_name[130];
  memset(long_name, 'a', sizeof long_name - 1);
  long_name[129] = '\0';
  const char *names[] = {"",   ".",    "..",  "../x", "a/b",      "/etc/x",
                         ".x", "Blob", "a b", "a\n",  "\xc3\xa4", long_name};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    uint64_t size;
    const char *name = names[i];
    cr_assert_eq(storage->write(storage->user, name, "x", 1), FL_E_ARGUMENT);
    cr_assert_eq(storage->remove(storage->user, name), FL_E_ARGUMENT);
    cr_assert_eq(storage->size(storage->user, name, &size), FL_E_ARGUMENT);
  }
  long_name[128] = '\0';
  cr_assert_eq(storage->write(storage->user, long_name, "x", 1), FL_OK);
  cr_assert_eq(storage->remove(storage->user, long_name), FL_OK);
}

Test(storage, failed_write_keeps_the_old_blob, .init = open_host,
     .fini = close_host)
{
  char path[PATH_BYTES + 20];
  put("blob", "old");
  /* A folder stands where the temporary would go. */
  path_of(path, ".blob.tmp");
  cr_assert_eq(mkdir(path, 0700), 0);
  cr_assert_eq(storage->write(storage->user, "blob", "new", 3), FL_E_IO);
  check_blob("blob", "old");
  cr_assert_eq(rmdir(path), 0);
}

Test(storage, temporary_left_by_a_crash_does_no_harm, .init = open_host,
     .fini = close_host)
{
  char path[PATH_BYTES + 20];
  path_of(path, ".blob.tmp");
  int fd = open(path, O_WRONLY | O_CREAT, 0600);
  cr_assert_geq(fd, 0);
  cr_assert_eq(write(fd, "torn and longer", 15), 15);
  close(fd);
  put("blob", "whole");
  check_blob("blob", "whole");
  cr_assert_neq(access(path, F_OK), 0);
}

Test(storage, symbolic_link_is_not_followed, .init = open_host,
     .fini = close_host)
{
  char path[PATH_BYTES + 20];
  uint64_t size;
  path_of(path, "blob");
  cr_assert_eq(symlink("/etc/passwd", path), 0);
  cr_assert_eq(storage->size(storage->user, "blob", &size), FL_E_IO);
}

Test(storage, map_shows_the_blob_of_its_time, .init = open_host,
     .fini = close_host)
{
  const void *data;
  size_t n;
  put("blob", "mapped");
  cr_assert_eq(storage->map(storage->user, "blob", &data, &n), FL_OK);
  put("blob", "other");
  cr_assert_eq(n, 6);
  cr_assert_eq(memcmp(data, "mapped", 6), 0);
  storage->unmap(storage->user, data, n);
}

static uint8_t *map_blob(uint64_t n, int32_t want_new)
{
  void *data = NULL;
  int32_t is_new = -1;
  cr_assert_eq(storage->map_write(storage->user, "blob", n, &data, &is_new),
               FL_OK);
  cr_assert_eq(is_new, want_new);
  cr_assert_not_null(data);
  return data;
}

Test(storage, mapped_blob_is_zeros_and_then_what_was_written, .init = open_host,
     .fini = close_host)
{
  enum { BYTES = 10000 };
  uint8_t *data = map_blob(BYTES, 1);
  for (size_t i = 0; i < BYTES; i++)
    cr_assert_eq(data[i], 0);
  memcpy(data + 9000, "here", 4);
  storage->advise(storage->user, data, 9000, 4);
  cr_assert_eq(storage->sync(storage->user), FL_OK);
  storage->unmap_write(storage->user, data, BYTES);
  data = map_blob(BYTES, 0);
  cr_assert_eq(memcmp(data + 9000, "here", 4), 0);
  storage->unmap_write(storage->user, data, BYTES);
  char part[4];
  cr_assert_eq(storage->read(storage->user, "blob", 9000, part, 4), FL_OK);
  cr_assert_eq(memcmp(part, "here", 4), 0);
  cr_assert_eq(storage->sync(storage->user), FL_OK);
}

Test(storage, mapped_blob_of_another_size_is_made_anew, .init = open_host,
     .fini = close_host)
{
  const uint64_t sizes[] = {1, 4096, 4097, 3};
  put("blob", "0123456789");
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    uint8_t *data = map_blob(sizes[i], 1);
    cr_assert_eq(data[0], 0);
    data[0] = 'x';
    storage->unmap_write(storage->user, data, sizes[i]);
    uint64_t size = 0;
    cr_assert_eq(storage->size(storage->user, "blob", &size), FL_OK);
    cr_assert_eq(size, sizes[i]);
  }
}

Test(storage, space_of_a_mapped_blob_is_reserved, .init = open_host,
     .fini = close_host)
{
  enum { BYTES = 1 << 20 };
  char path[PATH_BYTES + 20];
  struct stat info;
  uint8_t *data = map_blob(BYTES, 1);
  path_of(path, "blob");
  cr_assert_eq(stat(path, &info), 0);
  cr_assert_geq(info.st_blocks * 512, BYTES);
  storage->unmap_write(storage->user, data, BYTES);
  /* One with holes, as somebody may have copied it. */
  cr_assert_eq(truncate(path, 0), 0);
  cr_assert_eq(truncate(path, BYTES), 0);
  storage->unmap_write(storage->user, map_blob(BYTES, 0), BYTES);
  cr_assert_eq(stat(path, &info), 0);
  cr_assert_geq(info.st_blocks * 512, BYTES);
}

Test(storage, what_cannot_be_mapped_is_said, .init = open_host,
     .fini = close_host)
{
  char path[PATH_BYTES + 20];
  void *data = NULL;
  int32_t is_new;
  void *user = storage->user;
  cr_assert_eq(storage->map_write(user, "../x", 1, &data, &is_new),
               FL_E_ARGUMENT);
  cr_assert_eq(storage->map_write(user, "blob", 0, &data, &is_new),
               FL_E_ARGUMENT);
  cr_assert_neq(storage->map_write(user, "blob", UINT64_MAX, &data, &is_new),
                FL_OK);
  path_of(path, "blob");
  cr_assert_eq(symlink("/etc/passwd", path), 0);
  cr_assert_eq(storage->map_write(user, "blob", 1, &data, &is_new), FL_E_IO);
  cr_assert_eq(unlink(path), 0);
  cr_assert_eq(mkdir(path, 0700), 0);
  cr_assert_eq(storage->map_write(user, "blob", 1, &data, &is_new), FL_E_IO);
  cr_assert_eq(rmdir(path), 0);
  cr_assert_null(data);
}

/* Ends with the number of the check that failed, 0 = none. */
static int map_beyond_the_limit(uint64_t limit)
{
  const struct rlimit most = {limit, limit};
  void *data = NULL;
  int32_t is_new;
  uint64_t size;
  if (signal(SIGXFSZ, SIG_IGN) == SIG_ERR) return 1;
  if (setrlimit(RLIMIT_FSIZE, &most) != 0) return 2;
  void *user = storage->user;
  if (storage->map_write(user, "blob", limit + 1, &data, &is_new) != FL_E_IO)
    return 3;
  if (storage->size(user, "blob", &size) != FL_E_NOT_FOUND) return 4;
  if (storage->map_write(user, "blob", limit, &data, &is_new) != FL_OK)
    return 5;
  memset(data, 1, (size_t)limit);
  storage->unmap_write(user, data, limit);
  return 0;
}

/* Nothing of a blob that did not fit is left. */
Test(storage, blob_beyond_the_room_there_is_is_an_io_error, .init = open_host,
     .fini = close_host)
{
  int status = 0;
  pid_t child = fork();
  if (child == 0) _exit(map_beyond_the_limit(65536));
  cr_assert_eq(waitpid(child, &status, 0), child);
  cr_assert(WIFEXITED(status));
  cr_assert_eq(WEXITSTATUS(status), 0, "check %d", WEXITSTATUS(status));
}

Test(storage, sync_succeeds, .init = open_host, .fini = close_host)
{
  put("blob", "x");
  cr_assert_eq(storage->sync(storage->user), FL_OK);
}

Test(file, written_at_close_not_before, .init = open_host, .fini = close_host)
{
  fl_host_file *file = NULL;
  fl_writer writer;
  put("state.bin", "old");
  cr_assert_eq(fl_host_file_create(&file, host, "state.bin", &writer), FL_OK);
  cr_assert_eq(writer.write(writer.user, "new ", 4), FL_OK);
  cr_assert_eq(writer.write(writer.user, "state", 5), FL_OK);
  check_blob("state.bin", "old");
  cr_assert_eq(fl_host_file_close(file), FL_OK);
  check_blob("state.bin", "new state");
}

Test(file, discarded_writer_changes_nothing, .init = open_host,
     .fini = close_host)
{
  fl_host_file *file = NULL;
  fl_writer writer;
  put("state.bin", "old");
  cr_assert_eq(fl_host_file_create(&file, host, "state.bin", &writer), FL_OK);
  cr_assert_eq(writer.write(writer.user, "new", 3), FL_OK);
  fl_host_file_discard(file);
  check_blob("state.bin", "old");
}

Test(file, reads_pieces_then_end_of_data, .init = open_host, .fini = close_host)
{
  fl_host_file *file = NULL;
  fl_reader reader;
  char piece[4];
  size_t got = 9;
  put("state.bin", "abcdef");
  cr_assert_eq(fl_host_file_open(&file, host, "state.bin", &reader), FL_OK);
  cr_assert_eq(reader.read(reader.user, piece, 4, &got), FL_OK);
  cr_assert_eq(got, 4);
  put("state.bin", "replaced meanwhile");
  cr_assert_eq(reader.read(reader.user, piece, 4, &got), FL_OK);
  cr_assert_eq(got, 2);
  cr_assert_eq(memcmp(piece, "ef", 2), 0);
  cr_assert_eq(reader.read(reader.user, piece, 4, &got), FL_OK);
  cr_assert_eq(got, 0);
  cr_assert_eq(fl_host_file_close(file), FL_OK);
}

Test(file, failed_write_is_not_committed)
{
  char path[] = P_tmpdir "/fl-test-host-XXXXXX";
  static const uint8_t block[100000];
  fl_host *small = NULL;
  fl_host_file *file = NULL;
  fl_writer writer;
  uint64_t size;
  cr_assert_not_null(mkdtemp(path));
  fl_host_options options = default_options();
  options.storage_path = path;
  options.memory_cap = 50000;
  cr_assert_eq(fl_host_new(&small, &options), FL_OK);
  cr_assert_eq(fl_host_file_create(&file, small, "state.bin", &writer), FL_OK);
  cr_assert_eq(writer.write(writer.user, block, 10), FL_OK);
  cr_assert_eq(writer.write(writer.user, block, sizeof block), FL_E_NOMEM);
  cr_assert_eq(writer.write(writer.user, block, 10), FL_E_NOMEM);
  cr_assert_eq(fl_host_file_close(file), FL_E_NOMEM);
  const fl_storage *hooks = fl_host_storage(small);
  cr_assert_eq(hooks->size(hooks->user, "state.bin", &size), FL_E_NOT_FOUND);
  fl_host_free(small);
  cr_assert_eq(rmdir(path), 0);
}

Test(file, failures_by_argument_and_state, .init = open_host,
     .fini = close_host)
{
  fl_host *plain = NULL;
  fl_host_file *file = NULL;
  fl_writer writer;
  fl_reader reader;
  cr_assert_eq(fl_host_file_open(&file, host, "blob", &reader), FL_E_NOT_FOUND);
  cr_assert_eq(fl_host_file_open(&file, host, "../blob", &reader),
               FL_E_ARGUMENT);
  cr_assert_eq(fl_host_file_create(&file, host, NULL, &writer), FL_E_ARGUMENT);
  cr_assert_eq(fl_host_file_create(NULL, host, "blob", &writer), FL_E_ARGUMENT);
  cr_assert_eq(fl_host_file_open(&file, NULL, "blob", &reader), FL_E_ARGUMENT);
  cr_assert_eq(fl_host_new(&plain, NULL), FL_OK);
  cr_assert_eq(fl_host_file_create(&file, plain, "blob", &writer), FL_E_STATE);
  cr_assert_eq(fl_host_file_open(&file, plain, "blob", &reader), FL_E_STATE);
  fl_host_free(plain);
  cr_assert_null(file);
  cr_assert_eq(fl_host_file_close(NULL), FL_OK);
  fl_host_file_discard(NULL);
}
