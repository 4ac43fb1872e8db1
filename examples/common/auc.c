/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AUC by ranks: scores are sorted once, and each run of equal ones counts its
 * pairs of labels as halves. Counts are whole numbers until the end, so the
 * result does not depend on the order of equal scores.
 */
#include "common/auc.h"

#include <stdlib.h>

struct scored {
  float score;
  uint8_t label;
};

static int compare(const void *a, const void *b)
{
  float x = ((const struct scored *)a)->score;
  float y = ((const struct scored *)b)->score;
  return (x > y) - (x < y);
}

/* Twice the number of pairs that are in order, as a share of them all. */
static double share_of(const struct scored *sorted, size_t n, uint64_t ones)
{
  double doubled = 0;
  uint64_t zeros_below = 0;
  for (size_t i = 0; i < n;) {
    uint64_t ones_here = 0, zeros_here = 0;
    size_t end = i;
    for (; end < n && !(sorted[end].score > sorted[i].score); end++) {
      ones_here += sorted[end].label;
      zeros_here += !sorted[end].label;
    }
    doubled += (double)ones_here * (double)(2 * zeros_below + zeros_here);
    zeros_below += zeros_here;
    i = end;
  }
  return doubled / 2.0 / ((double)ones * (double)(n - ones));
}

int auc_of(const float *scores, const uint8_t *labels, size_t n, double *auc)
{
  uint64_t ones = 0;
  *auc = .5;
  for (size_t i = 0; i < n; i++) {
    if (scores[i] != scores[i]) return -2;
    ones += labels[i] != 0;
  }
  if (ones == 0 || ones == n) return -2;
  struct scored *sorted =
      n <= SIZE_MAX / sizeof *sorted ? malloc(n * sizeof *sorted) : NULL;
  if (!sorted) return -1;
  for (size_t i = 0; i < n; i++)
    sorted[i] = (struct scored){scores[i], labels[i] != 0};
  qsort(sorted, n, sizeof *sorted, compare);
  *auc = share_of(sorted, n, ones);
  free(sorted);
  return 0;
}
