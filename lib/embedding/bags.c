/* SPDX-License-Identifier: Apache-2.0 */
/* Ids in bags as a host gives them: everything that could make a lookup read
 * or write beside its arrays is refused here. */
#include "embedding/embedding.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "kernels/kernels.h"

static const fl_embedding_bags bags_defaults = {
    .struct_size = sizeof(fl_embedding_bags),
    .mode = FL_EMBEDDING_SUM,
};

fl_status fl_embedding_bags_init(fl_embedding_bags *bags, size_t size)
{
  return fli_options_init(bags, size, &bags_defaults, sizeof bags_defaults);
}

static fl_status check_offsets(const fl_embedding_bags *bags)
{
  uint64_t last = 0;
  if (!bags->offsets) {
    if (bags->n_ids == 0 ||
        (bags->n_bags > 0 && bags->n_ids % bags->n_bags == 0))
      return FL_OK;
    return fli_error(FL_E_DIM,
                     "embedding: %" PRIu64 " ids, want the same number for "
                     "each of %" PRIu64 " bags",
                     bags->n_ids, bags->n_bags);
  }
  for (uint64_t i = 0; i < bags->n_bags; i++) {
    uint64_t offset = bags->offsets[i];
    if (offset >= last && offset <= bags->n_ids && (i > 0 || offset == 0)) {
      last = offset;
      continue;
    }
    return fli_error(FL_E_RANGE,
                     "embedding: offsets[%" PRIu64 "], got %" PRIu64
                     ", want %s%" PRIu64 "..%" PRIu64,
                     i, offset, i == 0 ? "0 of " : "", last, bags->n_ids);
  }
  if (bags->n_bags > 0 || bags->n_ids == 0) return FL_OK;
  return fli_error(FL_E_DIM, "embedding: %" PRIu64 " ids, but no bag",
                   bags->n_ids);
}

fl_status fli_bags_load(fl_embedding_bags *bags, const fl_embedding_bags *given)
{
  *bags = bags_defaults;
  if (!given) return fli_error(FL_E_ARGUMENT, "embedding: bags, got NULL");
  fl_status st = fli_options_load(bags, sizeof *bags, given, "embedding bags");
  if (st != FL_OK) return st;
  if (bags->mode != FL_EMBEDDING_SUM && bags->mode != FL_EMBEDDING_MEAN) {
    return fli_error(FL_E_OPTIONS, "embedding: mode, got %u, want %d or %d",
                     (unsigned)bags->mode, FL_EMBEDDING_SUM, FL_EMBEDDING_MEAN);
  }
  if (bags->n_ids > INT32_MAX || bags->n_bags > INT32_MAX) {
    return fli_error(FL_E_TOO_LARGE,
                     "embedding: got %" PRIu64 " ids, %" PRIu64
                     " bags, want < 2^31",
                     bags->n_ids, bags->n_bags);
  }
  if (bags->n_ids > 0 && !bags->ids)
    return fli_error(FL_E_ARGUMENT, "embedding: ids, got NULL");
  st = check_offsets(bags);
  if (st != FL_OK || !bags->weights) return st;
  size_t bad =
      flk_kernels()->find_not_finite(bags->weights, (size_t)bags->n_ids);
  if (bad == bags->n_ids) return FL_OK;
  return fli_error(FL_E_NOT_FINITE, "embedding: weights[%zu]", bad);
}

fl_status fli_bags_check(const fl_embedding *embedding, uint32_t table,
                         const fl_embedding_bags *bags, const float *values)
{
  if (!embedding) return fli_error(FL_E_ARGUMENT, "embedding: got NULL");
  if (table >= embedding->n_tables) {
    return fli_error(FL_E_NOT_FOUND, "embedding: table, got %u, want < %u",
                     (unsigned)table, (unsigned)embedding->n_tables);
  }
  if (bags->n_bags > 0 && !values)
    return fli_error(FL_E_ARGUMENT, "embedding: values of bags, got NULL");
  return FL_OK;
}
