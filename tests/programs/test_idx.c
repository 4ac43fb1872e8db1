/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The IDX loader of the programs: what it loads, and the line it leaves for
 * each way in which a folder can be wrong. Files are made in a folder of their
 * own under the current one.
 */
#include "common/idx.h"

#include <stdlib.h>
#include <unistd.h>

#include <zlib.h>

#include "check.h"

enum { N = 3, SIDE = 2 };

static char folder[] = "idx-XXXXXX";
static char error[512];

static void path_of(char *path, size_t size, const char *name)
{
  snprintf(path, size, "%s/%s", folder, name);
}

static void write_file(const char *name, const void *data, size_t n, int is_gz)
{
  char path[128];
  path_of(path, sizeof path, name);
  if (is_gz) {
    gzFile file = gzopen(path, "wb");
    CHECK(file && gzwrite(file, data, (unsigned)n) == (int)n);
    CHECK(gzclose(file) == Z_OK);
  } else {
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(data, 1, n, file) == n);
    CHECK(file && fclose(file) == 0);
  }
}

static void remove_file(const char *name)
{
  char path[128];
  path_of(path, sizeof path, name);
  unlink(path);
}

static void clean(void)
{
  static const char *const names[] = {
      "train-images-idx3-ubyte.gz", "train-images-idx3-ubyte",
      "train-labels-idx1-ubyte.gz", "train-labels-idx1-ubyte"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    remove_file(names[i]);
}

static const uint8_t images[] = {0, 0,    8, 3, 0, 0,    0,  N, 0, 0,
                                 0, SIDE, 0, 0, 0, SIDE, 1,  2, 3, 4,
                                 5, 6,    7, 8, 9, 10,   11, 12};
static const uint8_t labels[] = {0, 0, 8, 1, 0, 0, 0, N, 7, 0, 9};

static void write_good(int is_gz)
{
  const char *ending = is_gz ? ".gz" : "";
  char name[64];
  clean();
  snprintf(name, sizeof name, "train-images-idx3-ubyte%s", ending);
  write_file(name, images, sizeof images, is_gz);
  snprintf(name, sizeof name, "train-labels-idx1-ubyte%s", ending);
  write_file(name, labels, sizeof labels, is_gz);
}

static void check_loads(void)
{
  struct idx_set set;
  CHECK_EQ_I64(idx_load(&set, folder, "train", error, sizeof error), 0);
  CHECK_EQ_U64(set.n, N);
  CHECK_EQ_U64(set.sample_size, SIDE * SIDE);
  CHECK_EQ_U64(set.data.n, N);
  CHECK_EQ_U64(set.data.x_dtype, FL_DTYPE_U8);
  CHECK_EQ_MEM(set.data.x, images + 16, N * SIDE * SIDE);
  CHECK_EQ_MEM(set.labels, labels + 8, N);
  CHECK_EQ_I64(set.data.y[2], 9);
  idx_free(&set);
}

static void check_refused(const char *says)
{
  struct idx_set set = {.n = 77};
  CHECK_EQ_I64(idx_load(&set, folder, "train", error, sizeof error), -1);
  CHECK_EQ_U64(set.n, 77);
  if (!strstr(error, says)) CHECK_EQ_STR(error, says);
}

static void loads_gzipped_files(void)
{
  write_good(1);
  check_loads();
}

static void loads_plain_files(void)
{
  write_good(0);
  check_loads();
}

static void names_a_missing_file(void)
{
  write_good(1);
  remove_file("train-labels-idx1-ubyte.gz");
  check_refused("train-labels-idx1-ubyte: cannot open: No such file");
}

static void refuses_another_kind_of_file(void)
{
  write_good(1);
  write_file("train-labels-idx1-ubyte.gz", images, sizeof images, 1);
  check_refused("train-labels-idx1-ubyte.gz: labels: got 3 in 3 dimensions");
  uint8_t other[sizeof images];
  memcpy(other, images, sizeof other);
  other[2] = 0x0d; /* floats */
  write_file("train-images-idx3-ubyte.gz", other, sizeof other, 1);
  check_refused("train-images-idx3-ubyte.gz: idx: type, got 0x0d (float32)");
}

static void refuses_every_cut(void)
{
  for (size_t n = 0; n < sizeof images; n++) {
    write_good(1);
    write_file("train-images-idx3-ubyte.gz", images, n, 1);
    check_refused("train-images-idx3-ubyte.gz: idx: ends early");
  }
}

static void refuses_bytes_behind_the_end(void)
{
  uint8_t longer[sizeof labels + 1] = {0};
  write_good(1);
  memcpy(longer, labels, sizeof labels);
  write_file("train-labels-idx1-ubyte.gz", longer, sizeof longer, 1);
  check_refused("idx: goes on, got 12 bytes, want 11");
}

static void refuses_absurd_dimensions(void)
{
  uint8_t absurd[sizeof images];
  memcpy(absurd, images, sizeof absurd);
  memset(absurd + 4, 0xff, 12);
  write_good(1);
  write_file("train-images-idx3-ubyte.gz", absurd, sizeof absurd, 1);
  check_refused("idx: dimension 2, got 4294967295");
  memset(absurd + 4, 0, 4);
  write_file("train-images-idx3-ubyte.gz", absurd, sizeof absurd, 1);
  check_refused("idx: dimension 0, got 0");
}

static void refuses_labels_of_another_number(void)
{
  static const uint8_t two[] = {0, 0, 8, 1, 0, 0, 0, 2, 7, 0};
  write_good(1);
  write_file("train-labels-idx1-ubyte.gz", two, sizeof two, 1);
  check_refused("labels: got 2 in 1 dimensions");
}

/* The loader's memory doubles from 64 KiB: files that end there, one byte
 * before and one behind. */
static void files_end_anywhere_in_the_memory(void)
{
  static uint8_t big[(1 << 17) + 2];
  static const uint8_t one[] = {0, 0, 8, 1, 0, 0, 0, 1, 7};
  for (size_t limit = 1 << 16; limit <= 1 << 17; limit *= 2) {
    for (size_t n = limit - 1; n <= limit + 1; n++) {
      struct idx_set set;
      uint32_t pixels = (uint32_t)n - 16;
      memcpy(big, images, 16);
      memset(big + 4, 0, 12);
      big[7] = big[11] = 1;
      for (int i = 0; i < 4; i++)
        big[12 + i] = (uint8_t)(pixels >> (24 - 8 * i));
      clean();
      write_file("train-images-idx3-ubyte", big, n, 0);
      write_file("train-labels-idx1-ubyte", one, sizeof one, 0);
      CHECK_EQ_I64(idx_load(&set, folder, "train", error, sizeof error), 0);
      CHECK_EQ_U64(set.sample_size, pixels);
      idx_free(&set);
      write_file("train-images-idx3-ubyte", big, n + 1, 0);
      check_refused("idx: goes on");
      write_file("train-images-idx3-ubyte", big, n - 1, 0);
      check_refused("idx: ends early");
    }
  }
}

static void refuses_a_damaged_gzip_file(void)
{
  static const uint8_t damaged[] = {
      0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  write_good(1);
  write_file("train-images-idx3-ubyte.gz", damaged, sizeof damaged, 0);
  check_refused("train-images-idx3-ubyte.gz: damaged");
}

int main(void)
{
  if (!mkdtemp(folder)) return 1;
  CHECK_CASE(loads_gzipped_files);
  CHECK_CASE(loads_plain_files);
  CHECK_CASE(names_a_missing_file);
  CHECK_CASE(refuses_another_kind_of_file);
  CHECK_CASE(refuses_every_cut);
  CHECK_CASE(refuses_bytes_behind_the_end);
  CHECK_CASE(refuses_absurd_dimensions);
  CHECK_CASE(refuses_labels_of_another_number);
  CHECK_CASE(files_end_anywhere_in_the_memory);
  CHECK_CASE(refuses_a_damaged_gzip_file);
  clean();
  rmdir(folder);
  return check_report();
}
