/* SPDX-License-Identifier: Apache-2.0 */
/* An embedding store for tests. */
#ifndef EMBEDDING_FIXTURE_H
#define EMBEDDING_FIXTURE_H

#include <criterion/criterion.h>

#include <fl/embedding.h>
#include "base/bytes.h"
#include "base/rng.h"
#include "embedding/embedding.h"

static const uint8_t embedding_secret[16] = "fifteen letters";

static inline fl_embedding *embedding_of(fl_context *context, int is_adagrad,
                                         uint64_t budget)
{
  fl_embedding *e = NULL;
  fl_embedding_options options;
  cr_assert_eq(fl_embedding_options_init(&options, sizeof options), FL_OK);
  options.optimiser = is_adagrad ? FL_EMBEDDING_ROW_ADAGRAD : FL_EMBEDDING_SGD;
  options.byte_budget = budget;
  options.seed = 7;
  options.secret = embedding_secret;
  cr_assert_eq(fl_embedding_new(&e, context, &options), FL_OK, "%s",
               fl_last_error());
  return e;
}

static inline uint32_t table_of(fl_embedding *e, uint32_t dim, uint32_t chunks)
{
  uint32_t t = 99;
  fl_embedding_table_options options;
  cr_assert_eq(fl_embedding_table_options_init(&options, sizeof options),
               FL_OK);
  options.dim = dim;
  options.chunks = chunks;
  options.prune_from = 0;
  cr_assert_eq(fl_embedding_add_table(e, &options, &t), FL_OK, "%s",
               fl_last_error());
  return t;
}

static inline fl_embedding_bags bags_of(const uint64_t *ids, uint64_t n_ids,
                                        const uint64_t *offsets,
                                        uint64_t n_bags)
{
  fl_embedding_bags bags;
  cr_assert_eq(fl_embedding_bags_init(&bags, sizeof bags), FL_OK);
  bags.ids = ids;
  bags.n_ids = n_ids;
  bags.offsets = offsets;
  bags.n_bags = n_bags;
  return bags;
}

static inline uint64_t bag_begin(const fl_embedding_bags *bags, uint64_t bag)
{
  if (bag == bags->n_bags) return bags->n_ids;
  return bags->offsets ? bags->offsets[bag]
                       : bag * (bags->n_ids / bags->n_bags);
}

/* Saved as a whole, or what has changed since a version. */
static inline fl_buffer *saved_as(fl_embedding *e, uint64_t since)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  fl_status st = since ? fl_embedding_save_delta(e, since, &writer)
                       : fl_embedding_save(e, &writer);
  cr_assert_eq(st, FL_OK, "%s", fl_last_error());
  return buffer;
}

#endif
