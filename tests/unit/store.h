/* SPDX-License-Identifier: Apache-2.0 */
/* A store for recommenders (recommender.h), and fits of them. */
#ifndef STORE_H
#define STORE_H

#include "recommender.h"

#include <fl/embedding.h>

enum { BATCH = 64 };

static const uint8_t secret[16] = "fifteen letters";

static inline fl_embedding *store_new(fl_context *context, uint32_t optimiser,
                                      uint32_t n_tables, uint32_t dim)
{
  fl_embedding *e = NULL;
  fl_embedding_options o;
  fl_embedding_table_options t;
  cr_assert_eq(fl_embedding_options_init(&o, sizeof o), FL_OK);
  cr_assert_eq(fl_embedding_table_options_init(&t, sizeof t), FL_OK);
  o.optimiser = optimiser;
  o.seed = 7;
  o.secret = secret;
  cr_assert_eq(fl_embedding_new(&e, context, &o), FL_OK);
  t.dim = dim;
  t.init_scale = 0.1f;
  for (uint32_t i = 0; i < n_tables; i++) {
    uint32_t table = 99;
    cr_assert_eq(fl_embedding_add_table(e, &t, &table), FL_OK, "%s",
                 fl_last_error());
    cr_assert_eq(table, i);
  }
  return e;
}

static inline fl_embedding_bags one_each(const uint64_t *ids, uint64_t n)
{
  fl_embedding_bags bags;
  cr_assert_eq(fl_embedding_bags_init(&bags, sizeof bags), FL_OK);
  bags.ids = ids;
  bags.n_ids = bags.n_bags = n;
  return bags;
}

/* Rows of ids 0 .. n - 1 as they are; zeros for those that have none. */
static inline void read_rows(const fl_embedding *e, uint32_t table, uint64_t n,
                             float *rows)
{
  uint64_t ids[IDS];
  cr_assert_leq(n, IDS);
  for (uint64_t i = 0; i < n; i++) {
    ids[i] = i;
  }
  fl_embedding_bags bags = one_each(ids, n);
  cr_assert_eq(fl_embedding_lookup(e, table, &bags, rows), FL_OK);
}

static inline double fit(fl_model *model, const fl_dataset *data,
                         uint32_t epochs, float rate)
{
  fl_fit_options o;
  fl_fit_result result;
  cr_assert_eq(fl_fit_options_init(&o, sizeof o), FL_OK);
  cr_assert_eq(fl_fit_result_init(&result, sizeof result), FL_OK);
  o.epochs = epochs;
  o.batch_size = BATCH;
  o.learning_rate = rate;
  o.seed = 3;
  cr_assert_eq(fl_model_fit(model, data, &o, &result), FL_OK, "%s",
               fl_last_error());
  return result.mean_loss;
}

#endif
