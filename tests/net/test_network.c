/* SPDX-License-Identifier: Apache-2.0 */
/* Server and clients together over a bad network (sim.h). Whatever happens on
 * the way: the job comes to its end, everybody who is there holds the server's
 * model bit for bit, and nobody is counted twice. Where the result is unique
 * (everybody in every round, no deadline) it is that of the undisturbed run.
 *
 *   net-network [--seeds N] [--first S] [--long]
 * N seeds for each of the two kinds of disturbed runs; default 40, with --long
 * 2000. A failed run prints its seed. */
#include "net/sim.h"

static uint64_t first_seed = 1;
static uint64_t n_seeds = 40;
static uint64_t n_faults, n_client_deaths, n_server_deaths;
static uint64_t n_of_kind[SIM_KINDS];

/* Settings that differ from seed to seed. */
static sim_config make_config(uint64_t seed)
{
  static const uint32_t codecs[][2] = {{FL_CODEC_THC, FL_THC_DITHER},
                                       {FL_CODEC_F32, FL_THC_DITHER},
                                       {FL_CODEC_THC, FL_THC_UNIFORM},
                                       {FL_CODEC_BF16, FL_THC_DITHER}};
  fli_rng rng;
  fli_rng_init(&rng, seed, FLI_RNG_TEST, 1, 0);
  sim_config config = {.seed = seed};
  const uint32_t *codec = codecs[seed % 4];
  config.codec = codec[0];
  config.thc_mode = codec[1];
  config.n_nodes = 2 + fli_rng_below(&rng, 4);
  config.rounds = 2 + fli_rng_below(&rng, 4);
  config.evaluate_every = fli_rng_below(&rng, 3);
  config.momentum = fli_rng_below(&rng, 3) == 0 ? .5f : 0.f;
  config.over_selection = 1.f;
  config.scale_mode = FL_SCALE_EXCHANGED;
  if (config.codec == FL_CODEC_THC && fli_rng_below(&rng, 2))
    config.scale_mode = FL_SCALE_PUBLIC;
  config.asks_host = (int)fli_rng_below(&rng, 2);
  config.knows_model = (int)fli_rng_below(&rng, 2);
  if (fli_rng_below(&rng, 4) == 0) config.staging_cap = 48 << 10;
  config.freezes = fli_rng_below(&rng, 3) == 0;
  config.has_part = fli_rng_below(&rng, 3) == 0;
  config.has_keys = fli_rng_below(&rng, 3) == 0;
  config.has_store = fli_rng_below(&rng, 3) == 0;
  return config;
}

/* Everybody there holds the server's model; copy it out. */
static void check_models(sim *s, float *weights)
{
  uint64_t version = 0;
  float *held = malloc((size_t)s->n_weights * sizeof *held);
  SIM_OK(s,
         fl_server_copy_weights(s->server, 0, weights, s->n_weights, &version));
  SIM_CHECK(s, version >= 1 && version <= s->config.rounds);
  for (uint32_t i = 0; i < s->config.n_nodes; i++) {
    uint64_t held_version = 0;
    if (!s->nodes[i].client) continue;
    SIM_OK(s, fl_client_copy_weights(s->nodes[i].client, held, s->n_weights,
                                     &held_version));
    SIM_CHECK(s, held_version == version);
    SIM_CHECK(s,
              memcmp(held, weights, (size_t)s->n_weights * sizeof *held) == 0);
  }
  free(held);
}

/* Run once; NULL when it failed. Free the weights. */
static float *run(const sim_config *config, sim *s)
{
  sim_begin(s, config);
  float *weights = calloc((size_t)s->n_weights, sizeof *weights);
  if (!sim_run(s)) {
    free(weights);
    return NULL;
  }
  check_models(s, weights);
  return weights;
}

static void end(sim *s)
{
  n_faults += SIM_FAULTS - s->faults_left;
  for (int kind = 0; kind < SIM_KINDS; kind++)
    n_of_kind[kind] += s->faults[kind];
  n_client_deaths += s->client_deaths;
  n_server_deaths += s->server_deaths;
  sim_end(s);
}

static void undisturbed_runs_train_once_per_round(void)
{
  for (uint64_t seed = 0; seed < 16; seed++) {
    sim s;
    sim_config config = make_config(seed);
    config.is_strict = 1;
    float *weights = run(&config, &s);
    SIM_CHECK(&s, s.trainings == config.n_nodes * config.rounds);
    uint32_t evaluations =
        config.evaluate_every ? config.rounds / config.evaluate_every : 0;
    SIM_CHECK(&s, s.evaluations == config.n_nodes * evaluations);
    SIM_CHECK(&s, weights && weights[0] != -.5f);
    free(weights);
    end(&s);
  }
}

static void strict_runs_end_with_the_bytes_of_the_undisturbed_run(void)
{
  for (uint64_t i = 0; i < n_seeds && check_totals.failures == 0; i++) {
    sim calm, bad;
    sim_config config = make_config(first_seed + i);
    config.is_strict = 1;
    float *want = run(&config, &calm);
    config.is_disturbed = 1;
    float *got = run(&config, &bad);
    if (want && got)
      SIM_CHECK(&bad,
                memcmp(want, got, (size_t)bad.n_weights * sizeof *got) == 0);
    free(want);
    free(got);
    end(&calm);
    end(&bad);
  }
}

static void runs_with_deadlines_and_losses_end(void)
{
  for (uint64_t i = 0; i < n_seeds && check_totals.failures == 0; i++) {
    sim s;
    sim_config config = make_config(first_seed + i);
    config.n_nodes++;
    config.is_disturbed = 1;
    if (i % 3 > 0) config.participants = config.n_nodes - 1;
    if (i % 3 > 1) config.over_selection = 1.5f;
    config.error_feedback = config.codec != FL_CODEC_F32 && i / 4 % 2 == 0;
    free(run(&config, &s));
    end(&s);
  }
}

/* A simulation in which nothing bad happens would prove little. */
static void the_runs_were_disturbed(void)
{
  CHECK(n_faults >= 20 * n_seeds);
  for (int kind = 0; kind < SIM_KINDS; kind++)
    CHECK(n_of_kind[kind] >= n_seeds);
  CHECK(n_client_deaths >= n_seeds / 8);
  CHECK(n_server_deaths >= n_seeds / 8);
  printf("faults %" PRIu64 ": dropped %" PRIu64 ", duplicated %" PRIu64
         ", reordered %" PRIu64 ", cut %" PRIu64 "; clients killed %" PRIu64
         ", servers killed %" PRIu64 "\n",
         n_faults, n_of_kind[SIM_DROPPED], n_of_kind[SIM_DUPLICATED],
         n_of_kind[SIM_REORDERED], n_of_kind[SIM_CUT], n_client_deaths,
         n_server_deaths);
}

int main(int argc, char **argv)
{
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc)
      n_seeds = strtoull(argv[++i], NULL, 10);
    else if (strcmp(argv[i], "--first") == 0 && i + 1 < argc)
      first_seed = strtoull(argv[++i], NULL, 10);
    else if (strcmp(argv[i], "--long") == 0)
      n_seeds = 2000;
    else
      return fprintf(stderr, "usage: %s [--seeds N] [--first S] [--long]\n",
                     argv[0]),
             2;
  }
  CHECK_CASE(undisturbed_runs_train_once_per_round);
  CHECK_CASE(strict_runs_end_with_the_bytes_of_the_undisturbed_run);
  CHECK_CASE(runs_with_deadlines_and_losses_end);
  CHECK_CASE(the_runs_were_disturbed);
  return check_report();
}
