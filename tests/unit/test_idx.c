/* SPDX-License-Identifier: Apache-2.0 */
/* IDX files in memory, and data sets of them. */
#include <fl/idx.h>

#include <stdlib.h>

#include "model_fixture.h"

enum { N = 3, SIDE = 2, HEADER = 16 };

static const uint8_t images[HEADER + N * SIDE * SIDE] = {
    0, 0,    8, 3, 0, 0, 0, N, 0, 0, 0,   SIDE, 0, 0,
    0, SIDE, 1, 2, 3, 4, 5, 6, 7, 8, 255, 0,    9, 10};
static const uint8_t labels[8 + N] = {0, 0, 8, 1, 0, 0, 0, N, 7, 0, 255};

static fl_idx parsed(const uint8_t *bytes, size_t n)
{
  fl_idx idx;
  cr_assert_eq(fl_idx_init(&idx, sizeof idx), FL_OK);
  cr_assert_eq(fl_idx_parse(&idx, bytes, n), FL_OK, "%s", fl_last_error());
  return idx;
}

/* Parse in a block of exactly `n` bytes; what fails leaves `idx` alone. */
static fl_status parse(const uint8_t *bytes, size_t n)
{
  fl_idx idx;
  fl_idx before;
  uint8_t *exact = malloc(n > 0 ? n : 1);
  cr_assert_not_null(exact);
  memcpy(exact, bytes, n);
  cr_assert_eq(fl_idx_init(&idx, sizeof idx), FL_OK);
  idx.count = 77;
  before = idx;
  fl_status st = fl_idx_parse(&idx, exact, n);
  if (st != FL_OK) cr_expect_arr_eq(&idx, &before, sizeof idx);
  free(exact);
  return st;
}

/* `bytes` with one byte changed. */
static fl_status parse_changed(size_t at, uint8_t value)
{
  uint8_t changed[sizeof images];
  memcpy(changed, images, sizeof images);
  changed[at] = value;
  return parse(changed, sizeof changed);
}

Test(idx, dimensions_and_values_are_found_without_a_copy)
{
  fl_idx idx = parsed(images, sizeof images);
  cr_expect_eq(idx.n_dims, 3);
  cr_expect_eq(idx.dims[0], N);
  cr_expect_eq(idx.dims[1], SIDE);
  cr_expect_eq(idx.dims[2], SIDE);
  cr_expect_eq(idx.count, N * SIDE * SIDE);
  cr_expect_eq(idx.values, images + HEADER);
}

Test(idx, one_to_eight_dimensions_are_read)
{
  uint8_t bytes[4 + 4 * 9 + 1] = {0, 0, 8, 0};
  for (size_t i = 0; i < 9; i++)
    bytes[4 + 4 * i + 3] = 1;
  for (size_t n_dims = 1; n_dims <= 8; n_dims++) {
    bytes[3] = (uint8_t)n_dims;
    fl_idx idx = parsed(bytes, 4 + 4 * n_dims + 1);
    cr_expect_eq(idx.n_dims, n_dims);
    cr_expect_eq(idx.count, 1);
  }
  bytes[3] = 9;
  cr_expect_eq(parse(bytes, sizeof bytes), FL_E_TOO_LARGE);
  cr_expect_str_eq(fl_last_error(), "idx: dimensions, got 9, want <= 8");
}

Test(idx, every_cut_is_truncated)
{
  for (size_t n = 0; n < sizeof images; n++)
    cr_expect_eq(parse(images, n), FL_E_TRUNCATED, "at %zu", n);
  cr_expect_str_eq(fl_last_error(), "idx: ends early, got 27 bytes, want 28");
}

Test(idx, a_byte_too_many_is_refused)
{
  uint8_t longer[sizeof images + 1] = {0};
  memcpy(longer, images, sizeof images);
  cr_expect_eq(parse(longer, sizeof longer), FL_E_FORMAT);
  cr_expect_str_eq(fl_last_error(), "idx: goes on, got 29 bytes, want 28");
}

Test(idx, what_is_no_idx_file_is_refused)
{
  cr_expect_eq(parse_changed(0, 0x1f), FL_E_FORMAT);
  cr_expect_eq(parse_changed(1, 1), FL_E_FORMAT);
  cr_expect_eq(parse_changed(2, 0x0a), FL_E_FORMAT);
  cr_expect_eq(parse_changed(3, 0), FL_E_FORMAT);
  cr_expect_str_eq(fl_last_error(),
                   "idx: magic number, got 0x00000800, want 0x000008 and the "
                   "number of dimensions");
}

Test(idx, other_values_than_unsigned_bytes_are_named)
{
  static const uint8_t types[] = {0x09, 0x0b, 0x0c, 0x0e, 0x0d};
  for (size_t i = 0; i < sizeof types; i++)
    cr_expect_eq(parse_changed(2, types[i]), FL_E_UNSUPPORTED);
  cr_expect_str_eq(fl_last_error(), "idx: type, got 0x0d (float32), want 0x08 "
                                    "(unsigned bytes)");
}

Test(idx, absurd_dimensions_are_refused)
{
  uint8_t absurd[sizeof images];
  memcpy(absurd, images, sizeof absurd);
  cr_expect_eq(parse_changed(7, 0), FL_E_RANGE);
  cr_expect_str_eq(fl_last_error(), "idx: dimension 0, got 0, want >= 1");
  memset(absurd + 4, 0xff, 8); /* (2^32 - 1)^2 * 2 fits no 64 bits */
  cr_expect_eq(parse(absurd, sizeof absurd), FL_E_TOO_LARGE);
  cr_expect_str_eq(fl_last_error(), "idx: dimension 2, got 2, want a product "
                                    "of at most 2^64 - 1");
  absurd[15] = 1; /* without the 2 it does, and the bytes are not there */
  cr_expect_eq(parse(absurd, sizeof absurd), FL_E_TRUNCATED);
  cr_expect_str_eq(fl_last_error(), "idx: ends early, got 28 bytes, want "
                                    "18446744065119617041");
}

Test(idx, data_set_borrows_pixels_and_copies_labels)
{
  fl_idx pixels = parsed(images, sizeof images);
  fl_idx classes = parsed(labels, sizeof labels);
  int32_t y[N + 1] = {5, 5, 5, 5};
  uint32_t indices[1] = {0};
  fl_dataset data = fixture_data(NULL, NULL, 0);
  data.indices = indices;
  data.n_indices = 1;
  cr_assert_eq(fl_dataset_from_idx(&data, &pixels, &classes, y, N + 1), FL_OK);
  cr_expect_eq(data.x_dtype, FL_DTYPE_U8);
  cr_expect_eq(data.x, images + HEADER);
  cr_expect_eq(data.y, y);
  cr_expect_eq(data.n, N);
  cr_expect_eq(data.sample_size, SIDE * SIDE);
  cr_expect_null(data.indices);
  cr_expect_eq(data.n_indices, 0);
  cr_expect(y[0] == 7 && y[1] == 0 && y[2] == 255 && y[3] == 5);
}

Test(idx, a_model_trains_on_it)
{
  fl_model *model = fixture_mlp(NULL, SIDE * SIDE, 3, 10);
  fl_idx pixels = parsed(images, sizeof images);
  uint8_t digits[sizeof labels];
  int32_t y[N];
  double loss = 0.0;
  fl_dataset data = fixture_data(NULL, NULL, 0);
  memcpy(digits, labels, sizeof digits);
  digits[10] = 9;
  fl_idx classes = parsed(digits, sizeof digits);
  cr_assert_eq(fl_dataset_from_idx(&data, &pixels, &classes, y, N), FL_OK);
  cr_expect_eq(fl_model_step(model, &data, 0.01f, &loss), FL_OK, "%s",
               fl_last_error());
  cr_expect_float_eq(loss, 2.302585, 1e-5); /* ten classes, zero weights */
  fl_model_free(model);
}

Test(idx, images_of_another_size_are_refused)
{
  fl_model *model = fixture_mlp(NULL, SIDE * SIDE + 1, 3, 10);
  fl_idx pixels = parsed(images, sizeof images);
  float y[N * 10];
  fl_dataset data = fixture_data(NULL, NULL, 0);
  cr_assert_eq(fl_dataset_from_idx(&data, &pixels, NULL, NULL, 0), FL_OK);
  cr_expect_eq(fl_model_predict(model, &data, y, N * 10), FL_E_DIM);
  cr_expect_str_eq(fl_last_error(), "data set: a sample has 4 values, the "
                                    "model takes 5");
  fl_model_free(model);
}

Test(idx, images_may_come_without_labels)
{
  fl_idx pixels = parsed(images, sizeof images);
  fl_dataset data = fixture_data(NULL, NULL, 0);
  cr_assert_eq(fl_dataset_from_idx(&data, &pixels, NULL, NULL, 0), FL_OK);
  cr_expect_null(data.y);
  cr_expect_eq(data.n, N);
}

Test(idx, labels_that_do_not_fit_are_refused_and_nothing_is_written)
{
  static const uint8_t two[] = {0, 0, 8, 1, 0, 0, 0, 2, 7, 0};
  fl_idx pixels = parsed(images, sizeof images);
  fl_idx classes = parsed(labels, sizeof labels);
  fl_idx short_ones = parsed(two, sizeof two);
  int32_t y[N] = {5, 5, 5};
  fl_dataset data = fixture_data(NULL, NULL, 42);
  cr_expect_eq(fl_dataset_from_idx(&data, &pixels, &classes, y, N - 1),
               FL_E_SIZE);
  cr_expect_str_eq(fl_last_error(), "labels: got room for 2, want 3");
  cr_expect_eq(fl_dataset_from_idx(&data, &pixels, &short_ones, y, N),
               FL_E_DIM);
  cr_expect_str_eq(fl_last_error(), "labels: got 2 in 1 dimensions, want one "
                                    "for each of 3 images");
  cr_expect_eq(fl_dataset_from_idx(&data, &pixels, &pixels, y, N), FL_E_DIM);
  data.struct_size = 1;
  cr_expect_eq(fl_dataset_from_idx(&data, &pixels, &classes, y, N),
               FL_E_OPTIONS);
  cr_expect_eq(data.n, 42);
  cr_expect(y[0] == 5 && y[1] == 5 && y[2] == 5);
}

Test(idx, null_arguments_and_empty_structs_are_refused)
{
  fl_idx pixels = parsed(images, sizeof images);
  fl_idx empty;
  int32_t y[N];
  fl_dataset data = fixture_data(NULL, NULL, 0);
  cr_assert_eq(fl_idx_init(&empty, sizeof empty), FL_OK);
  cr_expect_eq(fl_idx_parse(NULL, images, sizeof images), FL_E_ARGUMENT);
  cr_expect_eq(fl_idx_parse(&empty, NULL, 4), FL_E_ARGUMENT);
  cr_expect_eq(fl_idx_parse(&empty, NULL, 0), FL_E_TRUNCATED);
  cr_expect_eq(fl_dataset_from_idx(NULL, &pixels, NULL, NULL, 0),
               FL_E_ARGUMENT);
  cr_expect_eq(fl_dataset_from_idx(&data, NULL, NULL, NULL, 0), FL_E_ARGUMENT);
  cr_expect_eq(fl_dataset_from_idx(&data, &pixels, NULL, y, N), FL_E_ARGUMENT);
  cr_expect_eq(fl_dataset_from_idx(&data, &pixels, &pixels, NULL, 0),
               FL_E_ARGUMENT);
  cr_expect_eq(fl_dataset_from_idx(&data, &empty, NULL, NULL, 0), FL_E_EMPTY);
  cr_expect_eq(fl_dataset_from_idx(&data, &pixels, &empty, y, N), FL_E_EMPTY);
}

Test(idx, structs_of_older_hosts_are_cut_short)
{
  fl_idx idx;
  memset(&idx, 0x5a, sizeof idx);
  cr_assert_eq(fl_idx_init(&idx, offsetof(fl_idx, count)), FL_OK);
  cr_expect_eq(fl_idx_parse(&idx, images, sizeof images), FL_OK);
  cr_expect_eq(idx.n_dims, 3);
  cr_expect_eq(idx.count, UINT64_C(0x5a5a5a5a5a5a5a5a));
}
