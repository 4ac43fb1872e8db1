/* SPDX-License-Identifier: Apache-2.0 */
/* Dropout: each table against a scalar version of its hash, so that masks are
 * the same bits with every table on every machine. */
#include "nn_check.h"

static uint8_t mask[NN_LONG / 8 + 3];

static uint32_t mix(uint32_t h)
{
  h = (h ^ h >> 16) * 0x85ebca6bu;
  h = (h ^ h >> 13) * 0xc2b2ae35u;
  return h ^ h >> 16;
}

static int stays(uint32_t element, const flk_dropout *d)
{
  return mix(mix(element + d->key[0]) ^ d->key[1]) >= d->threshold;
}

static int bit(size_t i)
{
  return mask[i / 8] >> i % 8 & 1;
}

static void check_dropout(size_t n, size_t offset, float p)
{
  float *x = nn_new(0, n, offset);
  float *y = nn_new(1, n, 1);
  float *dx = nn_new(2, n, offset);
  const uint32_t first = n % 2 ? UINT32_MAX - 40 : (uint32_t)n;
  flk_dropout d;
  flk_dropout_init(&d, 17, n, 3, p);
  nn_draw(x, n, 1.0f, n);
  if (n > 5) x[5] = NAN;
  memset(mask, 0xa5, sizeof mask);
  nn->dropout.forward(y, x, mask, n, first, &d);
  nn->dropout.backward(dx, x, mask, n, d.factor);
  for (size_t i = 0; i < n; i++) {
    int is_kept = stays(first + (uint32_t)i, &d);
    CHECK_EQ_U64(bit(i), is_kept);
    double want = is_kept ? (double)(x[i] * d.factor) : 0.0;
    NN_NEAR(y[i], want, i, 0.0, 0.0);
    NN_NEAR(dx[i], want, i, 0.0, 0.0);
  }
  for (size_t i = n; i < (n + 7) / 8 * 8; i++) {
    CHECK_EQ_U64(bit(i), 0);
  }
  CHECK_EQ_U64(mask[(n + 7) / 8], 0xa5);
  nn->dropout.forward(x, x, mask, n, first, &d);
  CHECK_EQ_MEM(x, y, n * sizeof *x);
  for (size_t slot = 0; slot < 3; slot++) {
    nn_check_guards(slot);
  }
}

static void dropout_is_the_hash_of_elements(void)
{
  static const float p[] = {0.0f, 0.1f, 0.5f, 0.99f};
  for (size_t n = 0; n <= NN_LONG; n = nn_next(n)) {
    for (size_t o = 0; o < NN_OFFSETS; o++) {
      for (size_t k = 0; k < FLI_COUNT_OF(p); k++) {
        check_dropout(n, nn_offsets[o], p[k]);
      }
    }
  }
}

/* As many stay as should, and masks of other layers, steps and seeds agree as
 * often as chance would have it (5 standard deviations). */
static void masks_look_independent(void)
{
  enum { N = 20000, NAMES = 4 };
  static uint8_t masks[NAMES][N / 8];
  static const uint64_t names[NAMES][3] = {
      {1, 1, 1}, {1, 1, 2}, {1, 2, 1}, {2, 1, 1}};
  const double p = 0.25;
  float *x = nn_new(0, N, 0);
  nn_draw(x, N, 1.0f, 1);
  for (size_t k = 0; k < NAMES; k++) {
    flk_dropout d;
    flk_dropout_init(&d, names[k][0], names[k][1], (uint32_t)names[k][2],
                     (float)p);
    nn->dropout.forward(nn_new(1, N, 0), x, masks[k], N, 0, &d);
  }
  for (size_t k = 0; k < NAMES; k++) {
    for (size_t other = 0; other <= k; other++) {
      /* of one mask, neighbours */
      size_t shift = other == k;
      size_t kept = 0, equal = 0;
      for (size_t i = 0; i < N; i++) {
        size_t j = (i + shift) % N;
        int a = masks[k][i / 8] >> i % 8 & 1;
        int b = masks[other][j / 8] >> j % 8 & 1;
        kept += (size_t)a;
        equal += a == b;
      }
      double same = p * p + (1.0 - p) * (1.0 - p);
      CHECK(fabs((double)kept - N * (1.0 - p)) < 5.0 * sqrt(N * p * (1.0 - p)));
      CHECK(fabs((double)equal - N * same) <
            5.0 * sqrt(N * same * (1.0 - same)));
    }
  }
}

int main(void)
{
  NN_CASE(dropout_is_the_hash_of_elements);
  NN_CASE(masks_look_independent);
  return check_report();
}
