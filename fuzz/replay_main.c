/* SPDX-License-Identifier: Apache-2.0 */
/* Run a fuzz target over files and folders of inputs: how corpora are replayed
 * as ordinary tests, by any compiler, without libFuzzer. Fails when there was
 * no input at all, for such a test would test nothing. */
#define _POSIX_C_SOURCE 200809L
#include "fuzz.h"

#include <dirent.h>
#include <sys/stat.h>

static unsigned replay_file(const char *path)
{
  FILE *file = fopen(path, "rb");
  if (!file) {
    fprintf(stderr, "%s: cannot be read\n", path);
    exit(1);
  }
  uint8_t *data = NULL;
  size_t n = 0, got = 0;
  do {
    n += got;
    uint8_t *more = realloc(data, n + 65536);
    FUZZ_CHECK(more != NULL);
    data = more;
    got = fread(data + n, 1, 65536, file);
  } while (got > 0);
  fclose(file);
  uint8_t *exact = fuzz_exact_copy(data, n);
  free(data);
  fprintf(stderr, "%s\n", path); /* the last line names a crash's input */
  LLVMFuzzerTestOneInput(exact, n);
  free(exact);
  return 1;
}

static unsigned replay_folder(const char *path)
{
  struct dirent **entries;
  unsigned count = 0;
  int n = scandir(path, &entries, NULL, alphasort);
  for (int i = 0; i < n; i++) {
    char name[4096];
    snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
    if (entries[i]->d_name[0] != '.') count += replay_file(name);
    free(entries[i]);
  }
  if (n >= 0) free(entries);
  return count;
}

int main(int argc, char **argv)
{
  unsigned count = 0;
  for (int i = 1; i < argc; i++) {
    struct stat info;
    int is_folder = stat(argv[i], &info) == 0 && S_ISDIR(info.st_mode);
    count += is_folder ? replay_folder(argv[i]) : replay_file(argv[i]);
  }
  printf("%u inputs replayed\n", count);
  return count > 0 ? 0 : 1;
}
