/* SPDX-License-Identifier: Apache-2.0 */
/* How alike two sets of outputs of the same samples are, from the Gram matrices
 * of their rows.
 *
 * P, the similarity-preserving loss (Tung and Mori, ICCV 2019; Egeria, section
 * 4.2): |G_a - G_b|_F^2 / rows^2, rows of each G = A A' divided by their norms.
 * Linear CKA (Kornblith et al., ICML 2019) with K, L the Gram matrices of
 * centred columns: <K, L>_F / (|K|_F |L|_F).
 *
 * D0: columns are read in blocks of 256, as doubles, in which products of
 * float32 are exact; a dot product adds column k of a block to sum k mod 8, the
 * sums are folded k += k + 4, 2, 1 and added to what the blocks before gave. */
#include "freeze/freeze.h"

#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"

enum { LANES = 8, BLOCK = 256 };

static double fold(const double *lanes)
{
  const double a = lanes[0] + lanes[4], b = lanes[1] + lanes[5];
  const double c = lanes[2] + lanes[6], d = lanes[3] + lanes[7];
  return (a + c) + (b + d);
}

/* n a multiple of LANES. */
static double dot(const double *restrict a, const double *restrict b, size_t n)
{
  double lanes[LANES] = {0};
  for (size_t i = 0; i < n; i += LANES) {
    for (size_t k = 0; k < LANES; k++)
      lanes[k] += a[i + k] * b[i + k];
  }
  return fold(lanes);
}

double fli_change_squares(const float *a, const float *b, uint64_t n)
{
  double lanes[LANES] = {0};
  uint64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    for (size_t k = 0; k < LANES; k++) {
      const double change = (double)a[i + k] - (double)b[i + k];
      lanes[k] += change * change;
    }
  }
  for (size_t k = 0; i + k < n; k++) {
    const double change = (double)a[i + k] - (double)b[i + k];
    lanes[k] += change * change;
  }
  return fold(lanes);
}

/* What the Gram matrices are made with: `step` between the columns that are
 * read, a block of each row. */
typedef struct gram_work {
  double *block; /* rows x BLOCK */
  int is_centred;
} gram_work;

static uint64_t column_step(uint64_t n)
{
  return n / FLI_FREEZE_COLUMNS_MAX + (n % FLI_FREEZE_COLUMNS_MAX != 0);
}

static void centre(double *block, uint32_t rows, size_t n)
{
  for (size_t k = 0; k < n; k++) {
    double sum = 0;
    for (uint32_t r = 0; r < rows; r++)
      sum += block[r * (size_t)BLOCK + k];
    const double mean = sum / rows;
    for (uint32_t r = 0; r < rows; r++)
      block[r * (size_t)BLOCK + k] -= mean;
  }
}

/* Columns `first`, first + 1, ... of those that are read; returns how many,
 * filled up with zeros. */
static size_t load_block(const gram_work *work, const fli_outputs *x,
                         uint64_t first, uint64_t n_columns)
{
  const uint64_t step = column_step(x->n);
  const uint64_t left = n_columns - first;
  const size_t n = left < BLOCK ? (size_t)left : BLOCK;
  const size_t padded = (n + LANES - 1) / LANES * LANES;
  for (uint32_t r = 0; r < x->rows; r++) {
    double *dst = work->block + r * (size_t)BLOCK;
    const float *src = x->values + r * (size_t)x->n + (size_t)(first * step);
    for (size_t k = 0; k < n; k++)
      dst[k] = (double)src[k * (size_t)step];
    for (size_t k = n; k < padded; k++)
      dst[k] = 0;
  }
  if (work->is_centred) centre(work->block, x->rows, n);
  return padded;
}

static void gram(double *g, const gram_work *work, const fli_outputs *x)
{
  const size_t rows = x->rows;
  const uint64_t step = column_step(x->n);
  const uint64_t n_columns = (x->n - 1) / step + 1;
  memset(g, 0, rows * rows * sizeof *g);
  for (uint64_t first = 0; first < n_columns; first += BLOCK) {
    const size_t n = load_block(work, x, first, n_columns);
    for (size_t i = 0; i < rows; i++) {
      for (size_t k = 0; k <= i; k++)
        g[i * rows + k] +=
            dot(work->block + i * BLOCK, work->block + k * BLOCK, n);
    }
  }
  for (size_t i = 0; i < rows; i++) {
    for (size_t k = i + 1; k < rows; k++)
      g[i * rows + k] = g[k * rows + i];
  }
}

static double row_factor(const double *row, size_t n)
{
  double sum = 0;
  for (size_t k = 0; k < n; k++)
    sum += row[k] * row[k];
  return sum > 0 ? 1 / sqrt(sum) : 0;
}

static double distance(const double *a, const double *b, size_t rows)
{
  double total = 0;
  for (size_t i = 0; i < rows; i++) {
    const double *x = a + i * rows, *y = b + i * rows;
    const double fx = row_factor(x, rows), fy = row_factor(y, rows);
    for (size_t k = 0; k < rows; k++) {
      const double d = x[k] * fx - y[k] * fy;
      total += d * d;
    }
  }
  return total / ((double)rows * (double)rows);
}

static double alignment(const double *a, const double *b, size_t rows)
{
  double both = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < rows * rows; i++) {
    both += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  if (!(aa > 0) || !(bb > 0)) return 1;
  const double cka = both / (sqrt(aa) * sqrt(bb));
  return cka > 1 ? 1 : cka < 0 ? 0 : cka;
}

static fl_status compare(fl_context *context, const fli_outputs *a,
                         const fli_outputs *b, int is_centred, double *result)
{
  const size_t rows = a->rows;
  const size_t size = (2 * rows * rows + rows * BLOCK) * sizeof(double);
  double *scratch = fli_alloc(context, size, 1);
  if (!scratch) return fli_nomem(size);
  double *ga = scratch, *gb = scratch + rows * rows;
  const gram_work work = {gb + rows * rows, is_centred};
  gram(ga, &work, a);
  gram(gb, &work, b);
  *result = is_centred ? alignment(ga, gb, rows) : distance(ga, gb, rows);
  fli_free(context, scratch, size);
  return FL_OK;
}

fl_status fli_plasticity(fl_context *context, const fli_outputs *a,
                         const fli_outputs *b, double *plasticity)
{
  return compare(context, a, b, 0, plasticity);
}

fl_status fli_cka(fl_context *context, const fli_outputs *a,
                  const fli_outputs *b, double *cka)
{
  return compare(context, a, b, 1, cka);
}
