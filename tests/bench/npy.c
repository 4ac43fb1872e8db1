/* SPDX-License-Identifier: Apache-2.0 */
/* A .npy file is "\x93NUMPY", version 1.0, a 16-bit length and a Python
 * dictionary as text of that length, then the numbers. numpy writes the keys
 * in one order and with single quotes, so that is what is accepted; blanks may
 * stand wherever Python lets them. */
#include "npy.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

enum { PREFIX = 10, CHUNK = 1 << 16 };

typedef struct failure {
  char *text;
  size_t size;
} failure;

__attribute__((format(printf, 2, 3))) static int fail(const failure *at_fault,
                                                      const char *format, ...)
{
  va_list args;
  va_start(args, format);
  (void)vsnprintf(at_fault->text, at_fault->size, format, args);
  va_end(args);
  return -1;
}

static void skip_blanks(const char **at)
{
  while (**at == ' ')
    (*at)++;
}

/* 1 when `token` comes next; it and the blanks around it are gone then. */
static int take(const char **at, const char *token)
{
  skip_blanks(at);
  size_t n = strlen(token);
  if (strncmp(*at, token, n) != 0) return 0;
  *at += n;
  skip_blanks(at);
  return 1;
}

/* A decimal number of at most 15 digits, so that nothing overflows. */
static int take_number(const char **at, uint64_t *number)
{
  uint64_t n = 0;
  int digits = 0;
  skip_blanks(at);
  for (; **at >= '0' && **at <= '9'; (*at)++) {
    if (++digits > 15) return 0;
    n = n * 10 + (uint64_t)(**at - '0');
  }
  *number = n;
  return digits > 0;
}

static int parse_shape(npy_matrix *matrix, const char **at)
{
  uint64_t rows = 0, columns = 0;
  if (!take(at, "(") || !take_number(at, &rows) || !take(at, ",") ||
      !take_number(at, &columns)) {
    return 0;
  }
  (void)take(at, ",");
  if (!take(at, ")") || rows == 0 || rows > NPY_MAX_ROWS || columns == 0)
    return 0;
  matrix->rows = (uint32_t)rows;
  matrix->columns = columns;
  return 1;
}

static int parse_header(npy_matrix *matrix, const char *text,
                        const failure *at_fault)
{
  const char *at = text;
  if (!take(&at, "{") || !take(&at, "'descr'") || !take(&at, ":"))
    return fail(at_fault, "header: want numpy's dictionary");
  if (!take(&at, "'<f4'") || !take(&at, ","))
    return fail(at_fault, "descr: got %.12s, want '<f4' (float32)", at);
  if (!take(&at, "'fortran_order'") || !take(&at, ":") || !take(&at, "False") ||
      !take(&at, ",")) {
    return fail(at_fault, "fortran_order: got %.24s, want False", at);
  }
  if (!take(&at, "'shape'") || !take(&at, ":") || !parse_shape(matrix, &at)) {
    return fail(at_fault, "shape: want (rows, columns), 1..%d rows",
                NPY_MAX_ROWS);
  }
  (void)take(&at, ",");
  if (!take(&at, "}") || strcmp(at, "\n") != 0)
    return fail(at_fault, "header: goes on behind its shape");
  return 0;
}

static int read_header(npy_matrix *matrix, FILE *file, const failure *at_fault)
{
  uint8_t prefix[PREFIX];
  char text[NPY_MAX_HEADER + 1];
  if (fread(prefix, 1, PREFIX, file) != PREFIX ||
      memcmp(prefix, "\x93NUMPY", 6) != 0) {
    return fail(at_fault, "not a .npy file");
  }
  if (prefix[6] != 1 || prefix[7] != 0) {
    return fail(at_fault, "format: got version %d.%d, want 1.0", prefix[6],
                prefix[7]);
  }
  size_t n = fli_load_u16(prefix + 8);
  if (n > NPY_MAX_HEADER) {
    return fail(at_fault, "header: got %zu bytes, want at most %d", n,
                NPY_MAX_HEADER);
  }
  if (fread(text, 1, n, file) != n) return fail(at_fault, "header: cut short");
  text[n] = 0;
  if (strlen(text) != n) return fail(at_fault, "header: holds a NUL");
  return parse_header(matrix, text, at_fault);
}

/* Bytes from here to the file's end; -1 when it has none. */
static long bytes_left(FILE *file)
{
  long here = ftell(file);
  if (here < 0 || fseek(file, 0, SEEK_END) != 0) return -1;
  long end = ftell(file);
  if (fseek(file, here, SEEK_SET) != 0) return -1;
  return end - here;
}

static int read_values(npy_matrix *matrix, FILE *file, const failure *at_fault)
{
  static const uint64_t most = SIZE_MAX / sizeof(float) / NPY_MAX_ROWS;
  long bytes = bytes_left(file);
  uint64_t n = matrix->columns <= most ? matrix->rows * matrix->columns : 0;
  if (bytes < 0 || n == 0 || (uint64_t)bytes / sizeof(float) != n ||
      (uint64_t)bytes % sizeof(float) != 0) {
    return fail(
        at_fault, "values: got %ld bytes, want %lu rows of %llu float32", bytes,
        (unsigned long)matrix->rows, (unsigned long long)matrix->columns);
  }
  matrix->values = malloc((size_t)bytes);
  if (!matrix->values)
    return fail(at_fault, "out of memory for %ld bytes", bytes);
  uint8_t chunk[CHUNK];
  for (uint64_t i = 0; i < n;) {
    size_t count = n - i < CHUNK / 4 ? (size_t)(n - i) : CHUNK / 4;
    if (fread(chunk, 4, count, file) != count) {
      npy_free(matrix);
      return fail(at_fault, "values: cannot be read");
    }
    for (size_t k = 0; k < count; k++)
      matrix->values[i + k] = fli_load_f32(chunk + 4 * k);
    i += count;
  }
  return 0;
}

int npy_read(npy_matrix *matrix, FILE *file, char *error, size_t error_size)
{
  failure at_fault = {error, error_size};
  npy_matrix read = {0};
  if (read_header(&read, file, &at_fault) != 0) return -1;
  if (read_values(&read, file, &at_fault) != 0) return -1;
  *matrix = read;
  return 0;
}

void npy_free(npy_matrix *matrix)
{
  free(matrix->values);
  memset(matrix, 0, sizeof *matrix);
}
