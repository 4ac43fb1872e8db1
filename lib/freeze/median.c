/* SPDX-License-Identifier: Apache-2.0 */
/* Medians, plain and weighted. Equal values are put in the order of their
 * weights, so that sums over sorted reports do not depend on the order in which
 * clients answered. */
#include "freeze/freeze.h"

#include <assert.h>
#include <stdlib.h>

static int compare(const void *a, const void *b)
{
  const fli_weighted *x = a, *y = b;
  if (x->value != y->value) return x->value < y->value ? -1 : 1;
  if (x->weight != y->weight) return x->weight < y->weight ? -1 : 1;
  return 0;
}

void fli_weighted_sort(fli_weighted *items, uint32_t n)
{
  qsort(items, n, sizeof *items, compare);
}

double fli_weighted_total(const fli_weighted *items, uint32_t n)
{
  double total = 0;
  for (uint32_t i = 0; i < n; i++)
    total += items[i].weight;
  return total;
}

double fli_weighted_median(const fli_weighted *items, uint32_t n)
{
  const double half = fli_weighted_total(items, n) / 2;
  double sum = 0;
  uint32_t i = 0;
  assert(n > 0);
  for (; i + 1 < n; i++) {
    sum += items[i].weight;
    if (sum >= half) break;
  }
  return items[i].value;
}

double fli_median(const double *values, uint32_t n)
{
  double sorted[FLI_FREEZE_WINDOW_MAX];
  assert(n > 0 && n <= FLI_FREEZE_WINDOW_MAX);
  for (uint32_t i = 0; i < n; i++) {
    uint32_t at = i;
    for (; at > 0 && sorted[at - 1] > values[i]; at--)
      sorted[at] = sorted[at - 1];
    sorted[at] = values[i];
  }
  return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}
