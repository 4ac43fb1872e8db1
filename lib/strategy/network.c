/* SPDX-License-Identifier: Apache-2.0 */
/* Batcher's merge exchange (Knuth, The Art of Computer Programming 3, section
 * 5.2.2, algorithm M) for any number of rows, without what the rows that are
 * wanted do not depend on. */
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "strategy/strategy.h"

static fl_status append(fli_network *network, fl_context *context, uint32_t low,
                        uint32_t high)
{
  void *items = network->exchanges;
  const fl_status st = fli_grow(context, &items, &network->capacity,
                                network->n + 1, sizeof *network->exchanges);
  network->exchanges = items;
  if (st != FL_OK) return st;
  network->exchanges[network->n++] =
      (flk_exchange){(uint16_t)low, (uint16_t)high};
  return FL_OK;
}

/* One row of the algorithm: those i that have bit p like r meet i + d. */
static fl_status append_row(fli_network *network, fl_context *context,
                            uint32_t n, const uint32_t prd[3])
{
  for (uint32_t i = 0; i + prd[2] < n; i++) {
    if ((i & prd[0]) != prd[1]) continue;
    const fl_status st = append(network, context, i, i + prd[2]);
    if (st != FL_OK) return st;
  }
  return FL_OK;
}

static fl_status append_all(fli_network *network, fl_context *context,
                            uint32_t n)
{
  uint32_t top = 1;
  while (top * 2 < n)
    top *= 2;
  for (uint32_t p = top; p > 0 && n > 1; p /= 2) {
    uint32_t q = top, r = 0, d = p;
    for (;;) {
      const uint32_t row[3] = {p, r, d};
      const fl_status st = append_row(network, context, n, row);
      if (st != FL_OK) return st;
      if (q == p) break;
      d = q - p;
      q /= 2;
      r = p;
    }
  }
  return FL_OK;
}

/* Backwards, with what is wanted of every row: nothing, to be one of a set
 * whose order does not matter, or its very value. Two of the set may stay as
 * they are. */
enum { NOTHING = 0, IN_SET = 1, VALUE = 2 };

static void prune(fli_network *network, uint32_t first, uint32_t last)
{
  uint8_t wanted[FLI_NETWORK_MAX] = {NOTHING};
  size_t kept = network->n;
  memset(wanted + first, IN_SET, last - first);
  for (size_t e = network->n; e-- > 0;) {
    const flk_exchange exchange = network->exchanges[e];
    uint8_t *low = &wanted[exchange.low], *high = &wanted[exchange.high];
    if (*low == *high && *low != VALUE) continue;
    *low = *high = VALUE;
    network->exchanges[--kept] = exchange;
  }
  network->n -= kept;
  memmove(network->exchanges, network->exchanges + kept,
          network->n * sizeof *network->exchanges);
}

fl_status fli_network_make(fli_network *network, fl_context *context,
                           uint32_t n, uint32_t first, uint32_t last)
{
  *network = (fli_network){0};
  const fl_status st = append_all(network, context, n);
  if (st != FL_OK) {
    fli_network_free(network, context);
    return st;
  }
  if (network->n > 0) prune(network, first, last);
  return FL_OK;
}

void fli_network_free(fli_network *network, fl_context *context)
{
  fli_free(context, network->exchanges,
           network->capacity * sizeof *network->exchanges);
  *network = (fli_network){0};
}
