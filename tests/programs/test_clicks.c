/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of clicks: files byte by byte, every one that is cut or lies refused
 * with its reason, and made-up rows against what their recipe says.
 */
#include "common/clicks.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "common/auc.h"

enum { FIELDS = 3, ROWS = 5, HEAD = 48, SIZE = HEAD + 72 + ROWS * 13 };

static char path[] = "/tmp/test-clicks-XXXXXX";
static char error[512];

static void put_u32(uint8_t *p, uint64_t value)
{
  for (int i = 0; i < 4; i++)
    p[i] = (uint8_t)(value >> 8 * i);
}

static void put_u64(uint8_t *p, uint64_t value)
{
  put_u32(p, value);
  put_u32(p + 4, value >> 32);
}

static uint32_t value_at(uint32_t row, uint32_t field)
{
  return field == 2 ? 0xFFFFFFF0u + row : row * FIELDS + field;
}

/* A file without fault. */
static void make_file(uint8_t *bytes)
{
  static const char *const names[] = {"user", "item_0123456789a", "x"};
  static const uint64_t sizes[] = {100, 14, UINT32_MAX};
  memset(bytes, 0, SIZE);
  memcpy(bytes, "FLCLICKS", 8);
  put_u32(bytes + 8, 1);
  put_u32(bytes + 12, FIELDS);
  put_u64(bytes + 16, ROWS);
  put_u64(bytes + 24, 4);
  put_u32(bytes + 32, 1);
  put_u64(bytes + 40, SIZE);
  for (uint32_t i = 0; i < FIELDS; i++) {
    memcpy(bytes + HEAD + 24 * i, names[i], strlen(names[i]));
    put_u64(bytes + HEAD + 24 * i + 16, sizes[i]);
  }
  for (uint32_t i = 0; i < ROWS; i++) {
    for (uint32_t f = 0; f < FIELDS; f++)
      put_u32(bytes + HEAD + 72 + 4 * (i * FIELDS + f), value_at(i, f));
    bytes[SIZE - ROWS + i] = i % 2;
  }
}

static void write_file(const uint8_t *bytes, size_t n)
{
  FILE *file = fopen(path, "wb");
  CHECK(file && fwrite(bytes, 1, n, file) == n && fclose(file) == 0);
}

static void file_is_read_as_it_was_written(void)
{
  uint8_t bytes[SIZE];
  struct clicks clicks;
  make_file(bytes);
  write_file(bytes, SIZE);
  CHECK_EQ_I64(clicks_load(&clicks, path, error, sizeof error), 0);
  CHECK_EQ_U64(clicks.n_fields, FIELDS);
  CHECK_EQ_U64(clicks.n_rows, ROWS);
  CHECK_EQ_U64(clicks.n_train, 4);
  CHECK_EQ_U64(clicks.customer_field, 1);
  CHECK_EQ_STR(clicks.fields[0].name, "user");
  CHECK_EQ_STR(clicks.fields[1].name, "item_0123456789a");
  CHECK_EQ_U64(clicks.fields[1].n_values, 14);
  CHECK_EQ_U64(clicks_count_values(&clicks), 114 + (uint64_t)UINT32_MAX);
  CHECK(clicks.truth == NULL);
  for (uint32_t i = 0; i < ROWS; i++) {
    CHECK_EQ_U64(clicks.labels[i], i % 2);
    for (uint32_t f = 0; f < FIELDS; f++)
      CHECK_EQ_U64(clicks.values[i * FIELDS + f], value_at(i, f));
  }
  clicks_free(&clicks);
  clicks_free(&clicks);
}

static void ids_are_field_and_value(void)
{
  static const uint32_t rows[] = {3, 0, 3};
  uint64_t ids[9];
  uint8_t bytes[SIZE];
  struct clicks clicks;
  make_file(bytes);
  write_file(bytes, SIZE);
  CHECK_EQ_I64(clicks_load(&clicks, path, error, sizeof error), 0);
  clicks_ids(&clicks, rows, 3, ids);
  for (uint32_t i = 0; i < 3; i++) {
    for (uint32_t f = 0; f < FIELDS; f++)
      CHECK_EQ_U64(ids[i * FIELDS + f],
                   (uint64_t)f << 32 | value_at(rows[i], f));
  }
  clicks_free(&clicks);
}

static void check_refused(const uint8_t *bytes, size_t n, const char *why)
{
  struct clicks clicks = {.n_rows = 77};
  write_file(bytes, n);
  CHECK_EQ_I64(clicks_load(&clicks, path, error, sizeof error), -1);
  CHECK_EQ_U64(clicks.n_rows, 77);
  CHECK(strncmp(error, path, strlen(path)) == 0);
  if (strstr(error, why)) return;
  CHECK_EQ_STR(error, why);
}

static void cut_file_is_refused_at_every_byte(void)
{
  uint8_t bytes[SIZE + 1];
  make_file(bytes);
  for (size_t n = 0; n < SIZE; n++)
    check_refused(bytes, n, n < HEAD ? "ends too early" : "want");
  bytes[SIZE] = 0;
  check_refused(bytes, SIZE + 1, "want");
}

struct lie {
  size_t at;
  int is_wide; /* 8 bytes, else 4 */
  uint64_t value;
  const char *why;
};

static void file_that_lies_is_refused(void)
{
  static const struct lie lies[] = {
      {0, 0, 0x4C434C45, "is no file of prepare.py"},
      {8, 0, 2, "version: got 2"},
      {12, 0, 0, "fields: got 0"},
      {12, 0, 65, "fields: got 65"},
      {12, 0, UINT32_MAX, "fields: got 4294967295"},
      {16, 1, 0, "rows: got 0"},
      {16, 1, UINT64_C(1) << 32, "rows: got 4294967296"},
      {16, 1, UINT64_MAX, "rows: got"},
      {16, 1, UINT32_MAX, "for its rows"},
      {24, 1, ROWS + 1, "6 rows to train on of 5"},
      {32, 0, FIELDS, "customers are field 3 of 3"},
      {40, 1, SIZE - 1, "for its rows"},
      {HEAD, 0, 0, "field 0: no name"},
      {HEAD, 0, 0x2F2E2E, "field 0: no name"},
      {HEAD + 16, 1, 0, "field user: got 0 values"},
      {HEAD + 16, 1, UINT64_C(1) << 32, "field user: got 4294967296 values"},
      {HEAD + 40, 1, 13, "row 4, item_0123456789a: got 13, want below 13"},
      {HEAD + 72 + 8, 0, UINT32_MAX, "row 0, x: got 4294967295"},
      {SIZE - 4, 0, 2, "row 1: got label 2"},
  };
  for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
    uint8_t bytes[SIZE];
    make_file(bytes);
    if (lies[i].is_wide) {
      put_u64(bytes + lies[i].at, lies[i].value);
    } else {
      put_u32(bytes + lies[i].at, lies[i].value);
    }
    check_refused(bytes, SIZE, lies[i].why);
  }
}

static void file_needs_no_customers(void)
{
  uint8_t bytes[SIZE];
  struct clicks clicks;
  make_file(bytes);
  put_u32(bytes + 32, CLICKS_NO_FIELD);
  write_file(bytes, SIZE);
  CHECK_EQ_I64(clicks_load(&clicks, path, error, sizeof error), 0);
  CHECK_EQ_U64(clicks.customer_field, CLICKS_NO_FIELD);
  clicks_free(&clicks);
}

static void what_is_no_file_is_refused(void)
{
  struct clicks clicks;
  CHECK_EQ_I64(clicks_load(&clicks, "/nowhere", error, sizeof error), -1);
  CHECK_EQ_STR(error, "/nowhere: No such file or directory");
  CHECK_EQ_I64(clicks_load(&clicks, "/tmp", error, sizeof error), -1);
  CHECK_EQ_I64(clicks_load(&clicks, "/nowhere", error, 9), -1);
  CHECK_EQ_STR(error, "/nowhere");
}

static const struct clicks_recipe usual = {.seed = 3,
                                           .n_rows = 40000,
                                           .n_train = 30000,
                                           .n_fields = 5,
                                           .customers = 200,
                                           .n_values = 1000,
                                           .exponent = 1.05,
                                           .strength = 1};

static struct clicks made(const struct clicks_recipe *recipe)
{
  struct clicks clicks;
  CHECK_EQ_I64(clicks_make(&clicks, recipe), 0);
  return clicks;
}

static void made_values_are_below_their_fields_sizes(void)
{
  static const uint32_t sizes[] = {200, 1000, 250, 62, 1000};
  struct clicks clicks = made(&usual);
  CHECK_EQ_U64(clicks.customer_field, 0);
  CHECK_EQ_U64(clicks.n_train, usual.n_train);
  for (uint32_t f = 0; f < 5; f++) {
    CHECK_EQ_U64(clicks.fields[f].n_values, sizes[f]);
    for (uint64_t row = 0; row < clicks.n_rows; row++)
      CHECK(clicks.values[row * 5 + f] < sizes[f]);
  }
  clicks_free(&clicks);
}

static void same_recipe_makes_the_same_rows(void)
{
  struct clicks_recipe other = usual;
  struct clicks a = made(&usual), b = made(&usual);
  size_t n = (size_t)usual.n_rows;
  other.seed++;
  struct clicks c = made(&other);
  CHECK_EQ_MEM(a.values, b.values, n * 20);
  CHECK_EQ_MEM(a.labels, b.labels, n);
  CHECK_EQ_MEM(a.truth, b.truth, n * sizeof(float));
  CHECK(memcmp(a.values, c.values, n * 20) != 0);
  CHECK(memcmp(a.labels, c.labels, n) != 0);
  clicks_free(&a);
  clicks_free(&b);
  clicks_free(&c);
}

static int falling(const void *a, const void *b)
{
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x < y) - (x > y);
}

/* Share of the k most frequent values of a field. */
static double top_share(const struct clicks *clicks, uint32_t field, uint32_t k)
{
  uint32_t n = clicks->fields[field].n_values;
  uint32_t *counts = calloc(n, sizeof *counts);
  uint64_t sum = 0;
  for (uint64_t row = 0; row < clicks->n_rows; row++)
    counts[clicks->values[row * clicks->n_fields + field]]++;
  qsort(counts, n, sizeof *counts, falling);
  for (uint32_t i = 0; i < k; i++)
    sum += counts[i];
  free(counts);
  return (double)sum / (double)clicks->n_rows;
}

static double law(double exponent, uint32_t n, uint32_t k)
{
  double top = 0, all = 0;
  for (uint32_t i = 1; i <= n; i++) {
    double part = pow(i, -exponent);
    all += part;
    if (i <= k) top += part;
  }
  return top / all;
}

static void made_values_follow_zipfs_law(void)
{
  static const double exponents[] = {.5, 1, 1.05, 1.5};
  for (size_t i = 0; i < 4; i++) {
    struct clicks_recipe recipe = usual;
    recipe.exponent = exponents[i];
    struct clicks clicks = made(&recipe);
    CHECK(fabs(top_share(&clicks, 0, 20) - .1) < .02);
    /* The continuous law is rounded: near, not the same. */
    CHECK(fabs(top_share(&clicks, 1, 100) - law(exponents[i], 1000, 100)) <
          .03);
    clicks_free(&clicks);
  }
}

static void truth_is_what_labels_were_drawn_by(void)
{
  struct clicks clicks = made(&usual);
  double want = 0, got = 0, auc = 0;
  for (uint64_t row = 0; row < clicks.n_rows; row++) {
    want += 1 / (1 + exp(-clicks.truth[row]));
    got += clicks.labels[row];
  }
  CHECK(fabs(want - got) / (double)clicks.n_rows < .01);
  CHECK_EQ_I64(auc_of(clicks.truth, clicks.labels, (size_t)clicks.n_rows, &auc),
               0);
  CHECK(auc > .7 && auc < .9);
  clicks_free(&clicks);
}

static void labels_without_strength_are_chance(void)
{
  struct clicks_recipe recipe = usual;
  recipe.strength = 0;
  struct clicks clicks = made(&recipe);
  for (uint64_t row = 0; row < clicks.n_rows; row++)
    CHECK_EQ_F64(clicks.truth[row], -1);
  clicks_free(&clicks);
}

static void impossible_recipes_are_refused(void)
{
  struct clicks clicks = {.n_rows = 77};
  struct clicks_recipe wrong[9];
  for (size_t i = 0; i < 9; i++)
    wrong[i] = usual;
  wrong[0].n_rows = 0;
  wrong[1].n_rows = UINT64_C(1) << 32;
  wrong[2].n_train = usual.n_rows + 1;
  wrong[3].n_fields = 0;
  wrong[4].n_fields = CLICKS_FIELDS_MAX + 1;
  wrong[5].customers = 0;
  wrong[6].n_values = 0;
  wrong[7].exponent = NAN;
  wrong[8].strength = -1;
  for (size_t i = 0; i < 9; i++) {
    CHECK_EQ_I64(clicks_make(&clicks, &wrong[i]), -1);
    CHECK_EQ_U64(clicks.n_rows, 77);
  }
}

static void smallest_recipe_is_made(void)
{
  struct clicks_recipe recipe = {
      .n_rows = 1, .n_fields = 1, .customers = 1, .n_values = 1, .strength = 1};
  struct clicks clicks = made(&recipe);
  CHECK_EQ_U64(clicks.values[0], 0);
  clicks_free(&clicks);
}

int main(void)
{
  int file = mkstemp(path);
  CHECK(file >= 0 && close(file) == 0);
  CHECK_CASE(file_is_read_as_it_was_written);
  CHECK_CASE(ids_are_field_and_value);
  CHECK_CASE(cut_file_is_refused_at_every_byte);
  CHECK_CASE(file_that_lies_is_refused);
  CHECK_CASE(file_needs_no_customers);
  CHECK_CASE(what_is_no_file_is_refused);
  CHECK_CASE(made_values_are_below_their_fields_sizes);
  CHECK_CASE(same_recipe_makes_the_same_rows);
  CHECK_CASE(made_values_follow_zipfs_law);
  CHECK_CASE(truth_is_what_labels_were_drawn_by);
  CHECK_CASE(labels_without_strength_are_chance);
  CHECK_CASE(impossible_recipes_are_refused);
  CHECK_CASE(smallest_recipe_is_made);
  (void)unlink(path);
  return check_report();
}
