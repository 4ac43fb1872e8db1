/* SPDX-License-Identifier: Apache-2.0 */
/* The sparse lattice and the bytes of slices, to the last bit. */
#include "check.h"

#include <fl/slices.h>
#include "compress/sparse.h"
#include "crypto/crypto.h"

enum { DIM = 16, N = 300, GOLD_CLAMPED = 13 };
#define GOLD_CODES 0x385ab13497bd1d86u
#define GOLD_UTILITIES 0xae5bd3debd9eda28u
#define GOLD_UPDATES 0x5e0351c8acf6d9c8u
#define GOLD_ANSWERS 0x1d4baf7368bdc6e8u

static void check_hash(const void *data, size_t n, uint64_t want)
{
  uint8_t hash[FLI_HASH_BYTES];
  fli_hash(hash, data, n);
  CHECK_EQ_U64(fli_hash_id(hash), want);
}

static void values_are_rounded(void)
{
  float values[64];
  int8_t codes[64];
  uint8_t packed[32], utilities[64];
  fli_rng rng;
  fli_rng_init(&rng, 77, FLI_RNG_SPARSE, 5, 1);
  for (int i = 0; i < 64; i++)
    values[i] = (float)((i * 37) % 101 - 50) * 0.0173f;
  CHECK_EQ_U64(fli_grid_round(codes, values, 64, 0.1f, &rng), GOLD_CLAMPED);
  fli_grid_pack(packed, codes, 64);
  check_hash(packed, sizeof packed, GOLD_CODES);
  for (int i = 0; i < 64; i++)
    utilities[i] = fli_grid_utility((float)(i * i * i) * 0.37f, 0.7f, &rng);
  check_hash(utilities, sizeof utilities, GOLD_UTILITIES);
}

static fl_embedding *store(uint32_t optimiser)
{
  static const uint8_t secret[16] = "gold, all golden";
  fl_embedding *e = NULL;
  fl_embedding_options options;
  fl_embedding_table_options table;
  uint32_t t;
  CHECK_OK(fl_embedding_options_init(&options, sizeof options));
  options.optimiser = optimiser;
  options.secret = secret;
  options.seed = 4;
  CHECK_OK(fl_embedding_new(&e, NULL, &options));
  CHECK_OK(fl_embedding_table_options_init(&table, sizeof table));
  table.dim = DIM;
  table.prune_from = 0;
  CHECK_OK(fl_embedding_add_table(e, &table, &t));
  return e;
}

static void fetch(fl_slice_server *server, fl_slice_client *client,
                  fl_buffer *answers)
{
  fl_buffer *request = NULL;
  uint8_t plan[4096];
  const uint8_t *data;
  size_t n, before, after;
  CHECK_OK(fl_buffer_new(&request, NULL));
  CHECK_OK(fl_slice_server_copy_plan(server, plan, sizeof plan, &n));
  CHECK_OK(fl_slice_client_begin(client, plan, n));
  while (fl_slice_client_request(client, request) == FL_OK) {
    CHECK_OK(fl_buffer_get(answers, &data, &before));
    CHECK_OK(fl_buffer_get(request, &data, &n));
    CHECK_OK(fl_slice_server_answer(server, data, n, answers));
    CHECK_OK(fl_buffer_get(answers, &data, &after));
    CHECK_OK(fl_slice_client_take(client, data + before, after - before));
    fl_buffer_clear(request);
  }
  fl_buffer_free(request);
}

static void train(fl_embedding *e, const uint64_t *ids, uint64_t round)
{
  static float values[N * DIM];
  fl_embedding_bags bags;
  CHECK_OK(fl_embedding_bags_init(&bags, sizeof bags));
  bags.ids = ids;
  bags.n_ids = N;
  bags.n_bags = N;
  CHECK_OK(fl_embedding_forward(e, 0, &bags, values));
  for (size_t i = 0; i < (size_t)N * DIM; i++)
    values[i] = (float)((i * 13 + round) % 9) * 0.125f - 0.5f;
  CHECK_OK(fl_embedding_backward(e, 0, &bags, values, 0.05f));
}

static void rounds_go_on_the_same(void)
{
  fl_embedding *global = store(FL_EMBEDDING_SGD);
  fl_embedding *local = store(FL_EMBEDDING_ROW_ADAGRAD);
  fl_slice_server *server = NULL;
  fl_slice_client *client = NULL;
  fl_buffer *answers = NULL, *updates = NULL;
  uint64_t ids[N];
  const uint8_t *data;
  size_t n, before = 0, after;
  CHECK_OK(fl_slice_server_new(&server, NULL, global, NULL));
  CHECK_OK(fl_slice_client_new(&client, NULL, local, NULL));
  CHECK_OK(fl_buffer_new(&answers, NULL));
  CHECK_OK(fl_buffer_new(&updates, NULL));
  for (uint64_t round = 0; round < 4; round++) {
    for (uint64_t who = 0; who < 2; who++) {
      for (uint64_t i = 0; i < N; i++)
        ids[i] = i * i % 211 * (who + 1) * 0x9e3779b97f4a7c15u;
      CHECK_OK(fl_slice_client_set_ids(client, 0, ids, N));
      fetch(server, client, answers);
      train(local, ids, round);
      CHECK_OK(fl_slice_client_update(client, who + 10 * round, updates));
      CHECK_OK(fl_buffer_get(updates, &data, &after));
      CHECK_OK(fl_slice_server_add(server, data + before, after - before));
      before = after;
    }
    CHECK_OK(fl_slice_server_step(server, NULL));
  }
  CHECK_OK(fl_buffer_get(updates, &data, &n));
  check_hash(data, n, GOLD_UPDATES);
  CHECK_OK(fl_buffer_get(answers, &data, &n));
  check_hash(data, n, GOLD_ANSWERS);
  fl_buffer_free(answers);
  fl_buffer_free(updates);
  fl_slice_server_free(server);
  fl_slice_client_free(client);
  fl_embedding_free(global);
  fl_embedding_free(local);
}

int main(void)
{
  CHECK_CASE(values_are_rounded);
  CHECK_CASE(rounds_go_on_the_same);
  return check_report();
}
