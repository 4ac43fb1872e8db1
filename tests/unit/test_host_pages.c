/* SPDX-License-Identifier: Apache-2.0 */
/* A host's memory in huge pages, behind a store of rows. */
#include <criterion/criterion.h>

#include <string.h>

#include <fl/embedding.h>
#include <fl/host.h>

static fl_host_options options_of(void)
{
  fl_host_options options;
  cr_assert_eq(fl_host_options_init(&options, sizeof options), FL_OK);
  return options;
}

/* Training in a store of such memory, or of the C library's. */
static void train_rows(uint32_t huge_pages, float *out)
{
  enum { IDS = 4096, DIM = 16 };
  static uint64_t ids[IDS];
  static float gradient[IDS * DIM];
  static const uint8_t secret[16] = "of huge pages";
  uint32_t table;
  fl_host *made = NULL;
  fl_embedding *store = NULL;
  fl_embedding_options options;
  fl_embedding_table_options shape;
  fl_embedding_bags bags;
  fl_host_options hooks = options_of();
  hooks.huge_pages = huge_pages;
  cr_assert_eq(fl_host_new(&made, &hooks), FL_OK);
  (void)fl_embedding_options_init(&options, sizeof options);
  options.secret = secret;
  cr_assert_eq(fl_embedding_new(&store, fl_host_context(made), &options),
               FL_OK);
  (void)fl_embedding_table_options_init(&shape, sizeof shape);
  shape.dim = DIM;
  cr_assert_eq(fl_embedding_add_table(store, &shape, &table), FL_OK);
  (void)fl_embedding_bags_init(&bags, sizeof bags);
  bags.ids = ids;
  bags.n_ids = bags.n_bags = IDS;
  for (uint64_t step = 0; step < 8; step++) {
    for (uint64_t i = 0; i < IDS; i++)
      ids[i] = step * IDS / 2 + i;
    for (size_t i = 0; i < IDS * DIM; i++)
      gradient[i] = (float)(i % 11) - 5;
    cr_assert_eq(fl_embedding_forward(store, table, &bags, out), FL_OK);
    cr_assert_eq(fl_embedding_backward(store, table, &bags, gradient, .1f),
                 FL_OK);
  }
  cr_assert_eq(fl_embedding_lookup(store, table, &bags, out), FL_OK);
  fl_embedding_free(store);
  fl_host_free(made);
}

Test(host_pages, huge_pages_change_no_bit)
{
  static float one[4096 * 16], other[4096 * 16];
  fl_host *made = NULL;
  fl_host_options options = options_of();
  train_rows(0, one);
  train_rows(1, other);
  cr_assert_eq(memcmp(one, other, sizeof one), 0);
  options.huge_pages = 2;
  cr_assert_eq(fl_host_new(&made, &options), FL_E_OPTIONS);
}
