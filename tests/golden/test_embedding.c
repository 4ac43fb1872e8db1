/* SPDX-License-Identifier: Apache-2.0 */
/* What training, adjusting and saving leave, to the last bit: there is nothing
 * in it but IEEE 754's own operations, one by one. */
#include "check.h"

#include <fl/embedding.h>

enum { IDS = 600, BAGS = 60, DIM = 16, BUDGET = 80 * 1024 };

static void train(fl_embedding *e, uint64_t step)
{
  static float out[BAGS * DIM], gradient[BAGS * DIM];
  uint64_t ids[IDS];
  fl_embedding_bags bags;
  CHECK_OK(fl_embedding_bags_init(&bags, sizeof bags));
  for (uint64_t i = 0; i < IDS; i++)
    ids[i] = (i * i + step * 31) % 701 * 0x9e3779b97f4a7c15u;
  for (size_t i = 0; i < BAGS * DIM; i++)
    gradient[i] = (float)((i * 7 + step) % 11) * 0.0625f - 0.3125f;
  bags.ids = ids;
  bags.n_ids = IDS;
  bags.n_bags = BAGS;
  bags.mode = step % 2 ? FL_EMBEDDING_MEAN : FL_EMBEDDING_SUM;
  for (uint32_t t = 0; t < 3; t++) {
    CHECK_OK(fl_embedding_forward(e, t, &bags, out));
    CHECK_OK(fl_embedding_backward(e, t, &bags, gradient, 0.1f));
  }
}

static uint64_t version_after(uint64_t steps, uint64_t budget)
{
  static const uint8_t secret[16] = "gold, all golden";
  fl_embedding *e = NULL;
  fl_embedding_options options;
  fl_embedding_table_options table;
  fl_buffer *buffer = NULL;
  fl_writer writer;
  uint32_t t;
  CHECK_OK(fl_embedding_options_init(&options, sizeof options));
  options.byte_budget = budget;
  options.secret = secret;
  options.seed = 9;
  CHECK_OK(fl_embedding_new(&e, NULL, &options));
  CHECK_OK(fl_embedding_table_options_init(&table, sizeof table));
  table.dim = DIM;
  table.prune_from = 0;
  for (uint32_t precision = 1; precision <= 3; precision++) {
    table.precision = precision;
    CHECK_OK(fl_embedding_add_table(e, &table, &t));
  }
  for (uint64_t step = 0; step < steps; step++) {
    train(e, step);
    if (step % 5 == 4) CHECK_OK(fl_embedding_adjust(e, NULL));
  }
  CHECK_OK(fl_buffer_new(&buffer, NULL));
  CHECK_OK(fl_buffer_as_writer(buffer, &writer));
  CHECK_OK(fl_embedding_save(e, &writer));
  uint64_t version = fl_embedding_version(e);
  fl_buffer_free(buffer);
  fl_embedding_free(e);
  return version;
}

/* The version is of the hash of all that was saved. What a budget has room for
 * depends on the size of pointers, which count. */
static void saved_bytes_are_what_they_were(void)
{
  CHECK_EQ_U64(version_after(0, BUDGET), 0xbfd69facd7ffbcf5u);
  CHECK_EQ_U64(version_after(7, 0), 0xf3479b17e33c277eu);
  if (sizeof(void *) == 8)
    CHECK_EQ_U64(version_after(23, BUDGET), 0x541155a6b37e0f69u);
}

int main(void)
{
  CHECK_CASE(saved_bytes_are_what_they_were);
  return check_report();
}
