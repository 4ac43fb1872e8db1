/* SPDX-License-Identifier: Apache-2.0 */
/* Choices of clients, to the last place in their order: a server that is
 * restored on another machine asks the same ones. */
#include "check.h"

#include <math.h>

#include "base/bytes.h"
#include "base/rng.h"
#include "crypto/crypto.h"
#include "server/selector.h"

enum { N = 500 };

static uint64_t samples[N];
static float losses[N], seconds[N];
static uint32_t rounds[N];

static void draw(void)
{
  fli_rng rng;
  fli_rng_init(&rng, 42, FLI_RNG_TEST, 0, 0);
  for (uint32_t i = 0; i < N; i++) {
    const int is_seen = fli_rng_below(&rng, 3) > 0;
    samples[i] = 1 + fli_rng_below(&rng, 90);
    losses[i] = is_seen ? fli_rng_f32(&rng) * 4.0f : NAN;
    seconds[i] = is_seen ? fli_rng_f32(&rng) * 30.0f : NAN;
    rounds[i] = is_seen ? 1 + fli_rng_below(&rng, 39) : 0;
  }
}

static uint64_t order_of(fl_status (*choose)(fli_choice *, uint32_t *),
                         uint64_t seed, uint32_t attempt)
{
  uint32_t order[N];
  uint8_t bytes[4 * N], hash[FLI_HASH_BYTES];
  fl_selection_options options;
  const fl_selection_round round = {.count = N,
                                    .wanted = 60,
                                    .attempt = attempt,
                                    .round = 40,
                                    .samples = samples,
                                    .losses = losses,
                                    .seconds = seconds,
                                    .rounds = rounds};
  CHECK_OK(fl_selection_options_init(&options, sizeof options));
  fli_choice choice = {
      .options = &options, .round = &round, .seed = seed, .pace = options.pace};
  CHECK_OK(choose(&choice, order));
  for (uint32_t i = 0; i < N; i++)
    fli_store_u32(bytes + 4 * i, order[i]);
  fli_hash(hash, bytes, sizeof bytes);
  return fli_hash_id(hash);
}

static void choices_keep_their_order(void)
{
  draw();
  CHECK_EQ_U64(order_of(fli_choose_by_power, 5, 0),
               UINT64_C(0xc80bef7c3cc85cf1));
  CHECK_EQ_U64(order_of(fli_choose_by_power, 5, 1),
               UINT64_C(0x32cc0cecaa2e4c3f));
  CHECK_EQ_U64(order_of(fli_choose_by_oort, 5, 0),
               UINT64_C(0x5e2e7c01f51eb889));
  CHECK_EQ_U64(order_of(fli_choose_by_oort, 6, 0),
               UINT64_C(0x340fa9206949ece6));
}

int main(void)
{
  CHECK_CASE(choices_keep_their_order);
  return check_report();
}
