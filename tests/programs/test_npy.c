/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader of .npy files that nmse_thc takes vectors from: what numpy writes
 * is read, anything else is refused before memory is asked for.
 */
#include "../bench/npy.h"

#include "check.h"

#define MAGIC "\x93NUMPY\x01"
#define NORMAL "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n"

static const uint8_t six_floats[24] = {0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0};

/* Read a file of magic, the header and n bytes of values. */
static int read_parts(npy_matrix *matrix, const char *header,
                      uint16_t header_size, size_t n, char error[200])
{
  FILE *file = tmpfile();
  CHECK(file);
  if (!file) return -1;
  uint8_t size[2] = {(uint8_t)header_size, (uint8_t)(header_size >> 8)};
  static const uint8_t zeros[4096];
  (void)fwrite(MAGIC, 1, sizeof MAGIC, file); /* its NUL: minor version */
  (void)fwrite(size, 1, 2, file);
  (void)fwrite(header, 1, strlen(header), file);
  (void)fwrite(n == sizeof six_floats ? six_floats : zeros, 1, n, file);
  rewind(file);
  error[0] = 0;
  int result = npy_read(matrix, file, error, 200);
  (void)fclose(file);
  return result;
}

static void check_refused(const char *header, size_t n, const char *says)
{
  npy_matrix matrix = {0};
  char error[200];
  CHECK_EQ_I64(read_parts(&matrix, header, (uint16_t)strlen(header), n, error),
               -1);
  CHECK(strstr(error, says));
  CHECK(!matrix.values);
}

static void a_matrix_is_read_row_after_row(void)
{
  npy_matrix matrix = {0};
  char error[200];
  CHECK_EQ_I64(read_parts(&matrix, NORMAL, (uint16_t)strlen(NORMAL), 24, error),
               0);
  CHECK_EQ_U64(matrix.rows, 2);
  CHECK_EQ_U64(matrix.columns, 3);
  CHECK(matrix.values && matrix.values[0] == 1.0f &&
        matrix.values[1] == -2.0f && matrix.values[5] == 0.0f);
  npy_free(&matrix);
  CHECK(!matrix.values);
}

static void blanks_of_the_header_do_not_matter(void)
{
  const char *header = "{ 'descr' :'<f4','fortran_order':False ,"
                       "'shape':( 2,3 )}   \n";
  npy_matrix matrix = {0};
  char error[200];
  CHECK_EQ_I64(read_parts(&matrix, header, (uint16_t)strlen(header), 24, error),
               0);
  npy_free(&matrix);
}

static void other_arrays_are_refused_with_the_reason(void)
{
#define LIKE(descr, order, shape) \
  "{'descr': " descr ", 'fortran_order': " order ", 'shape': " shape ", }\n"
  check_refused(LIKE("'<f8'", "False", "(2, 3)"), 48, "descr");
  check_refused(LIKE("'>f4'", "False", "(2, 3)"), 24, "descr");
  check_refused(LIKE("'|O'", "False", "(2, 3)"), 24, "descr");
  check_refused(LIKE("'<f4'", "True", "(2, 3)"), 24, "fortran_order");
  check_refused(LIKE("'<f4'", "False", "(6,)"), 24, "shape");
  check_refused(LIKE("'<f4'", "False", "(1, 2, 3)"), 24, "shape");
  check_refused(LIKE("'<f4'", "False", "()"), 4, "shape");
}

static void sizes_that_overflow_are_refused(void)
{
  check_refused(LIKE("'<f4'", "False", "(0, 3)"), 0, "shape");
  check_refused(LIKE("'<f4'", "False", "(2, 0)"), 0, "shape");
  check_refused(LIKE("'<f4'", "False", "(-2, -3)"), 24, "shape");
  check_refused(LIKE("'<f4'", "False", "(65536, 1)"), 24, "shape");
  check_refused(LIKE("'<f4'", "False", "(4, 4611686018427387904)"), 0, "shape");
  check_refused(LIKE("'<f4'", "False", "(2, 18446744073709551619)"), 24,
                "shape");
  check_refused(LIKE("'<f4'", "False", "(65535, 999999999999999)"), 24,
                "values");
}

static void values_must_be_exactly_those_of_the_shape(void)
{
  check_refused(NORMAL, 0, "values");
  check_refused(NORMAL, 20, "values");
  check_refused(NORMAL, 23, "values");
  check_refused(NORMAL, 25, "values");
  check_refused(NORMAL, 28, "values");
}

static void damaged_headers_are_refused(void)
{
  npy_matrix matrix = {0};
  char error[200];
  check_refused("", 0, "header");
  check_refused("{", 0, "header");
  check_refused(LIKE("'<f4'", "False", "(2, 3)") "\n", 24, "header");
  check_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)", 24,
                "header");
  check_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3", 24,
                "shape");
  /* Longer than the file, longer than any header, with a NUL inside. */
  CHECK_EQ_I64(read_parts(&matrix, NORMAL, 4000, 24, error), -1);
  CHECK(strstr(error, "cut short"));
  CHECK_EQ_I64(read_parts(&matrix, NORMAL, 65535, 24, error), -1);
  CHECK(strstr(error, "at most"));
  CHECK_EQ_I64(read_parts(&matrix, NORMAL, 80, 4000, error), -1);
  CHECK(strstr(error, "NUL"));
}

static void every_cut_of_a_good_file_is_refused(void)
{
  const char prefix[] = MAGIC "\0";
  uint8_t whole[200] = {0};
  size_t n = sizeof MAGIC;
  memcpy(whole, prefix, n);
  whole[n] = (uint8_t)strlen(NORMAL);
  n += 2;
  memcpy(whole + n, NORMAL, strlen(NORMAL));
  n += strlen(NORMAL) + sizeof six_floats;
  for (size_t cut = 0; cut <= n; cut++) {
    npy_matrix matrix = {0};
    char error[200] = "";
    FILE *file = tmpfile();
    CHECK(file && fwrite(whole, 1, cut, file) == cut);
    if (!file) return;
    rewind(file);
    CHECK_EQ_I64(npy_read(&matrix, file, error, sizeof error),
                 cut == n ? 0 : -1);
    CHECK(cut == n || error[0] != 0);
    npy_free(&matrix);
    (void)fclose(file);
  }
}

int main(void)
{
  CHECK_CASE(a_matrix_is_read_row_after_row);
  CHECK_CASE(blanks_of_the_header_do_not_matter);
  CHECK_CASE(other_arrays_are_refused_with_the_reason);
  CHECK_CASE(sizes_that_overflow_are_refused);
  CHECK_CASE(values_must_be_exactly_those_of_the_shape);
  CHECK_CASE(damaged_headers_are_refused);
  CHECK_CASE(every_cut_of_a_good_file_is_refused);
  return check_report();
}
