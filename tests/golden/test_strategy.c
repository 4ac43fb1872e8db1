/* SPDX-License-Identifier: Apache-2.0 */
/* Strategies, to the last bit: the weights after three rounds. A change here is
 * another result on machines that train together. */
#include "check.h"

#include <fl/strategy.h>
#include "base/rng.h"
#include "crypto/crypto.h"

enum { N = 2100, COUNT = 9, SOME = 100, MANY = 1100 };

static float updates[MANY][N];
static const float *rows[MANY];
static uint64_t counts[MANY];
static double losses[MANY];

static void draw(void)
{
  fli_rng rng;
  fli_rng_init(&rng, 77, FLI_RNG_TEST, 0, 0);
  for (size_t k = 0; k < MANY; k++) {
    rows[k] = updates[k];
    counts[k] = 1 + k % 13;
    losses[k] = 0.1 + fli_rng_f64(&rng);
    for (size_t i = 0; i < N; i++)
      updates[k][i] = (float)(fli_rng_f64(&rng) + fli_rng_f64(&rng) - 0.9);
  }
}

static uint64_t weights_of(const char *name, uint32_t count, float clip)
{
  float weights[N] = {0};
  uint8_t hash[FLI_HASH_BYTES];
  fl_strategy *strategy = NULL;
  fl_strategy_options options;
  fl_strategy_round round;
  CHECK_OK(fl_strategy_options_named(&options, sizeof options, name));
  CHECK_OK(fl_strategy_round_init(&round, sizeof round));
  options.clip = clip;
  options.clip_adapts = clip > 0.0f;
  round.count = count;
  round.samples = counts;
  round.steps = counts;
  round.losses = losses;
  round.rows = rows;
  round.control_rows = rows;
  CHECK_OK(fl_strategy_new(&strategy, NULL, &options, N));
  for (int i = 0; i < 3; i++)
    CHECK_OK(fl_strategy_step(strategy, &round, weights, N));
  fl_strategy_free(strategy);
  fli_hash(hash, weights, sizeof weights);
  return fli_hash_id(hash);
}

static void strategies_keep_their_bits(void)
{
  static const struct {
    const char *name;
    uint32_t count;
    float clip;
    uint64_t want;
  } all[] = {
      {"fedavg", COUNT, 0.0f, 0x7b0d548ce3cf82db},
      {"fedavgm", MANY, 0.0f, 0xd5b574dc7e401dec},
      {"fedadam", COUNT, 0.0f, 0xc7008a8600f2759c},
      {"fedyogi", COUNT, 0.0f, 0x408f0dc6f29f1c59},
      {"fedadagrad", COUNT, 0.0f, 0x3931066df694def3},
      {"fednova", COUNT, 0.0f, 0xe1adc410f50de6d5},
      {"scaffold", COUNT, 0.0f, 0x52b7893fd39a4b12},
      {"q-fedavg", COUNT, 0.0f, 0x7687f614ae8c6b43},
      {"median", COUNT, 10.0f, 0xf764bbaab9f020cc},
      {"median", MANY, 0.0f, 0xa07361ea68384c0d},
      {"trimmed-mean", COUNT, 0.0f, 0x29e34402a318b47f},
      {"trimmed-mean", MANY, 10.0f, 0x57b41049591842f},
      {"krum", COUNT, 0.0f, 0xd8ec99b0d620a2c6},
      {"multi-krum", SOME, 10.0f, 0xf920e6635155bb5c},
      {"geometric-median", COUNT, 10.0f, 0xc3ee610cba37337e},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    CHECK_EQ_U64(weights_of(all[i].name, all[i].count, all[i].clip),
                 all[i].want);
  }
}

int main(void)
{
  draw();
  CHECK_CASE(strategies_keep_their_bits);
  return check_report();
}
