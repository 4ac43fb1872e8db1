/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs that freeze modules: what clients report decides, the plan tells all of
 * them, and what is frozen neither travels nor changes. */
#include <criterion/criterion.h>

#include "server_freezing.h"

/* 300 weights are 512 coordinates, 44 are 256, at 4 bits. */
enum { FRONT = 128, FIRST_BYTES = 512 / 2, SECOND_BYTES = 256 / 2 };

static void begin(freezing *f)
{
  sv_start(&f->world);
  sv_join(&f->world);
  sv_tick(&f->world, SV_SECOND_NS);
}

/* Everybody's norms and updates of the round that runs. */
static void play_round(freezing *f)
{
  sv_report(&f->world, 3);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&f->world.clients[i]);
  for (size_t i = 0; i < 3; i++)
    sv_update(&f->world.clients[i]);
}

static void pull_all(freezing *f)
{
  for (size_t i = 0; i < 3; i++)
    sv_pull(&f->world.clients[i]);
}

/* ---- a schedule ---- */

typedef struct schedule_case {
  uint32_t codec;
  float momentum;
  uint32_t scale_mode;
} schedule_case;

static void check_schedule(const schedule_case *c)
{
  freezing f;
  float before[SV_WEIGHTS];
  const sv_client *client = &f.world.clients[1];
  init_fixed(&f, c->codec, 3);
  f.world.job_options.rounds = 6;
  f.world.job_options.server_momentum = c->momentum;
  f.world.job_options.scale_mode = c->scale_mode;
  begin(&f);
  for (size_t i = 0; i < 3; i++)
    f.world.clients[i].is_mute = 1;
  for (uint32_t round = 1; round <= 6; round++) {
    pull_all(&f);
    cr_assert_eq(client->plan.round, round);
    cr_assert_eq(client->plan.first_active, round < 3 ? 0u : 1u);
    if (round == 3) memcpy(before, client->model.weights, sizeof before);
    if (client->has_scale) {
      for (size_t i = 0; i < 3; i++)
        sv_update(&f.world.clients[i]);
    } else {
      play_round(&f);
    }
  }
  pull_all(&f);
  cr_assert(sv_is_finished(&f.world));
  cr_expect_arr_eq(client->model.weights, before, SV_FIRST * sizeof(float));
  cr_expect_neq(client->model.weights[SV_FIRST], before[SV_FIRST]);
  sv_free(&f.world);
}

Test(server_freeze, schedule_holds_with_f32)
{
  check_schedule(&(schedule_case){FL_CODEC_F32, 0, FL_SCALE_EXCHANGED});
}

Test(server_freeze, schedule_holds_with_bf16)
{
  check_schedule(&(schedule_case){FL_CODEC_BF16, .5f, FL_SCALE_EXCHANGED});
}

Test(server_freeze, schedule_holds_with_thc)
{
  check_schedule(&(schedule_case){FL_CODEC_THC, 0, FL_SCALE_EXCHANGED});
}

Test(server_freeze, schedule_holds_with_thc_and_momentum)
{
  check_schedule(&(schedule_case){FL_CODEC_THC, .5f, FL_SCALE_EXCHANGED});
}

Test(server_freeze, schedule_holds_with_announced_norms)
{
  check_schedule(&(schedule_case){FL_CODEC_THC, 0, FL_SCALE_PUBLIC});
}

Test(server_freeze, bytes_fall_both_ways)
{
  freezing f;
  const sv_client *client = &f.world.clients[0];
  init_fixed(&f, FL_CODEC_THC, 2);
  f.world.job_options.rounds = 3;
  begin(&f);
  play_round(&f);
  cr_expect_eq(client->update_size, (size_t)FRONT + FIRST_BYTES + SECOND_BYTES);
  cr_expect_eq(sv_status(&f.world).bytes_saved, 0u);
  cr_expect_eq(sv_status(&f.world).first_active, 1u);
  pull_all(&f);
  const uint64_t down = client->down_size;
  play_round(&f);
  cr_expect_eq(client->update_size, (size_t)FRONT + SECOND_BYTES);
  cr_expect_eq(sv_status(&f.world).bytes_saved, 3u * FIRST_BYTES);
  pull_all(&f);
  /* Lanes of a byte, and two tallies more of 16 bytes and a bitmap of one. */
  cr_expect_eq(client->down_size, down - 512 + 2 * 17);
  sv_free(&f.world);
}

Test(server_freeze, momentum_of_what_is_frozen_is_dropped)
{
  freezing f;
  init_fixed(&f, FL_CODEC_THC, 2);
  f.world.job_options.rounds = 5;
  f.world.job_options.server_momentum = .5f;
  begin(&f);
  play_round(&f);
  cr_expect_neq(job_of(&f)->momentum[1], 0.0f);
  cr_expect_neq(job_of(&f)->residual[1], 0.0f);
  play_round(&f);
  for (size_t i = 0; i < SV_FIRST; i++) {
    cr_assert_eq(job_of(&f)->momentum[i], 0.0f);
    cr_assert_eq(job_of(&f)->residual[i], 0.0f);
  }
  cr_expect_neq(job_of(&f)->momentum[SV_FIRST], 0.0f);
  sv_free(&f.world);
}

Test(server_freeze, change_is_an_event_of_the_round_that_begins)
{
  freezing f;
  const sv_event *event = NULL;
  init_fixed(&f, FL_CODEC_F32, 2);
  f.world.job_options.rounds = 3;
  begin(&f);
  cr_expect_eq(sv_events(&f.world, FL_SERVER_FREEZE_CHANGED, NULL), 0u);
  sv_run(&f.world);
  cr_assert(sv_is_finished(&f.world));
  cr_assert_eq(sv_events(&f.world, FL_SERVER_FREEZE_CHANGED, &event), 1u);
  cr_expect_eq(event->body.round, 2u);
  cr_expect_eq(event->body.first_active, 1u);
  cr_expect_eq(event->body.plan_version, 1u);
  cr_expect_eq(event->body.freeze_reason, (uint32_t)FL_FREEZE_REASON_FIXED);
  sv_free(&f.world);
}

Test(server_freeze, schedule_may_begin_with_the_job)
{
  freezing f;
  init_fixed(&f, FL_CODEC_F32, 1);
  begin(&f);
  pull_all(&f);
  cr_expect_eq(f.world.clients[2].plan.first_active, 1u);
  cr_expect_eq(sv_events(&f.world, FL_SERVER_FREEZE_CHANGED, NULL), 1u);
  sv_free(&f.world);
}

/* What a client's controller makes of the plan's bytes. */
static uint32_t applied(const sv_client *client, const uint8_t *job,
                        uint64_t *version)
{
  fl_freeze *controller = NULL;
  fl_freeze_options options;
  fl_freeze_plan plan;
  cr_assert_eq(fl_freeze_options_init(&options, sizeof options), FL_OK);
  options.criterion = FL_FREEZE_SERVER;
  options.steps_per_epoch = 10;
  options.max_frozen = 1;
  options.job = job;
  cr_assert_eq(fl_freeze_new(&controller, NULL, 2, &options), FL_OK);
  cr_assert_eq(fl_freeze_apply_plan(controller, client->plan.freeze_plan,
                                    client->plan.freeze_plan_size),
               FL_OK, "%s", fl_last_error());
  cr_assert_eq(fl_freeze_plan_init(&plan, sizeof plan), FL_OK);
  cr_assert_eq(fl_freeze_get_plan(controller, &plan), FL_OK);
  const uint32_t first_active = plan.first_active;
  *version = plan.version;
  fl_freeze_free(controller);
  return first_active;
}

/* The views of a parsed plan lie in the parser: read at once. */
static void expect_plan(freezing *f, uint32_t first_active)
{
  sv_client *client = &f->world.clients[0];
  uint8_t bytes[256];
  uint64_t version = 0;
  cr_assert(client->plan.freeze_plan_size <= sizeof bytes);
  const fli_bytes *plan = &job_of(f)->freezing.plan;
  cr_assert_eq(client->plan.freeze_plan_size, plan->size);
  memcpy(bytes, plan->data, plan->size);
  client->plan.freeze_plan = bytes;
  cr_expect_eq(applied(client, job_of(f)->freezing.name, &version),
               first_active);
  cr_expect_eq(version, first_active);
}

Test(server_freeze, plan_travels_and_comes_again_with_hello)
{
  freezing f;
  sv_client *client = &f.world.clients[0];
  init_fixed(&f, FL_CODEC_F32, 2);
  f.world.job_options.rounds = 3;
  begin(&f);
  pull_all(&f);
  expect_plan(&f, 0);
  play_round(&f);
  pull_all(&f);
  expect_plan(&f, 1);
  memset(&client->plan, 0, sizeof client->plan);
  sv_lose(client);
  sv_return(client);
  sv_pull(client);
  cr_expect_eq(client->plan.first_active, 1u);
  expect_plan(&f, 1);
  sv_free(&f.world);
}

/* ---- reports ---- */

/* What every client reports: below .9 from round 5 on, three times. */
static double value_of(uint64_t round)
{
  return round <= 4 ? 1.0 : .5;
}

static void set_reports(freezing *f, double value)
{
  for (size_t i = 0; i < 3; i++) {
    f->world.clients[i].has_report = 1;
    f->world.clients[i].report = value;
  }
}

static void init_reports(freezing *f, uint32_t codec, uint32_t rounds)
{
  init(f, codec, FL_FREEZE_GRADNORM);
  f->world.job_options.rounds = rounds;
}

Test(server_freeze, reports_of_the_clients_decide)
{
  freezing f;
  const sv_event *event = NULL;
  init_reports(&f, FL_CODEC_THC, 9);
  begin(&f);
  pull_all(&f);
  cr_expect_eq(f.world.clients[0].plan.freeze_reports,
               (uint32_t)FL_FREEZE_GRADNORM);
  for (uint64_t round = 1; round <= 9; round++) {
    set_reports(&f, value_of(round));
    pull_all(&f);
    cr_assert_eq(f.world.clients[0].plan.first_active, round < 8 ? 0u : 1u,
                 "round %u", (unsigned)round);
    play_round(&f);
  }
  pull_all(&f);
  cr_assert(sv_is_finished(&f.world));
  cr_assert_eq(sv_events(&f.world, FL_SERVER_FREEZE_CHANGED, &event), 1u);
  cr_expect_eq(event->body.round, 8u);
  cr_expect_eq(event->body.freeze_reason, (uint32_t)FL_FREEZE_REASON_CRITERION);
  cr_expect_eq(sv_events(&f.world, FL_SERVER_PEER_REJECTED, NULL), 0u);
  sv_free(&f.world);
}

/* Rounds 1..9 of medians 1, 1, 1, 1, .5 ..: the fifth is the first that has a
 * mark, .9, to be compared with. */
static void check_evaluation(const fl_server_event *event, uint64_t round)
{
  const int has_mark = round > 4;
  cr_expect_eq(event->round, round);
  cr_expect_eq(event->module, 0u);
  cr_expect_eq(event->raw, value_of(round));
  cr_expect_eq(event->value, event->raw);
  cr_expect_eq(isnan(event->threshold) != 0, !has_mark);
  if (has_mark) cr_expect_float_eq(event->threshold, .9, 1e-6);
  cr_expect_eq(event->below, has_mark ? (uint32_t)round - 4 : 0u);
  cr_expect(isnan(event->loss));
}

Test(server_freeze, what_was_compared_in_a_round_is_an_event)
{
  freezing f;
  const sv_event *event = NULL;
  init_reports(&f, FL_CODEC_F32, 9);
  begin(&f);
  for (uint64_t round = 1; round <= 9; round++) {
    set_reports(&f, value_of(round));
    if (round <= 4) f.world.clients[round % 3].report = round % 2 ? 0 : 7;
    pull_all(&f);
    const uint32_t before =
        sv_events(&f.world, FL_SERVER_FREEZE_EVALUATED, NULL);
    play_round(&f);
    const uint32_t n =
        sv_events(&f.world, FL_SERVER_FREEZE_EVALUATED, &event) - before;
    /* From round 8 on no module is left that may be frozen. */
    cr_assert_eq(n, round < 8 ? 1u : 0u, "round %u: %u", (unsigned)round, n);
    if (n) check_evaluation(&event->body, round);
  }
  cr_expect_eq(sv_events(&f.world, FL_SERVER_FREEZE_BOOTED, &event), 1u);
  cr_expect_eq(event->body.round, 1u);
  sv_free(&f.world);
}

Test(server_freeze, front_steps_over_modules_without_weights)
{
  freezing f;
  init_reports(&f, FL_CODEC_THC, 9);
  fl_model_free(f.world.model);
  f.world.modules[0] = 1;
  f.world.modules[1] = 3;
  f.world.model = sv_make_model_of(NULL, SV_FIRST, f.world.modules);
  cr_assert_eq(fl_model_copy_schema(f.world.model, f.world.schema), FL_OK);
  f.options.max_frozen = 3;
  begin(&f);
  pull_all(&f);
  cr_expect_eq(sv_events(&f.world, FL_SERVER_FREEZE_CHANGED, NULL), 0u);
  for (uint64_t round = 1; round <= 9; round++) {
    set_reports(&f, value_of(round));
    pull_all(&f);
    cr_assert_eq(f.world.clients[0].plan.first_active, round < 8 ? 1u : 3u,
                 "round %u: got %u", (unsigned)round,
                 f.world.clients[0].plan.first_active);
    play_round(&f);
  }
  sv_free(&f.world);
}

/* Two of three clients say that there is nothing to learn; the third says
 * otherwise, or nothing. Rounds 1..8; the plan of round 9. */
static uint32_t vote(double other, uint32_t *n_rejected)
{
  freezing f;
  init_reports(&f, FL_CODEC_F32, 9);
  begin(&f);
  for (uint64_t round = 1; round <= 8; round++) {
    set_reports(&f, value_of(round));
    f.world.clients[2].report = other;
    play_round(&f);
  }
  pull_all(&f);
  cr_assert_eq(f.world.clients[0].plan.round, 9u);
  cr_expect_eq(sv_events(&f.world, FL_SERVER_UPDATE_ACCEPTED, NULL), 24u);
  *n_rejected = sv_events(&f.world, FL_SERVER_PEER_REJECTED, NULL);
  const uint32_t first_active = f.world.clients[0].plan.first_active;
  sv_free(&f.world);
  return first_active;
}

Test(server_freeze, two_of_three_freeze_nothing)
{
  uint32_t n_rejected;
  cr_expect_eq(vote(1.0, &n_rejected), 0u);
  cr_expect_eq(n_rejected, 0u);
}

/* A third of those that count reports; the others are of too little depth, say.
 */
Test(server_freeze, less_than_half_is_no_majority)
{
  for (size_t n_reports = 1; n_reports <= 2; n_reports++) {
    freezing f;
    init_reports(&f, FL_CODEC_F32, 9);
    begin(&f);
    for (uint64_t round = 1; round <= 8; round++) {
      set_reports(&f, value_of(round));
      for (size_t i = n_reports; i < 3; i++)
        f.world.clients[i].has_report = 0;
      play_round(&f);
    }
    pull_all(&f);
    cr_expect_eq(f.world.clients[0].plan.first_active, n_reports == 2);
    sv_free(&f.world);
  }
}

/* Eight clients, of which two say that they have as many samples as count and
 * that there is nothing to learn: 16 of 22 parts of the weight in the mean. */
Test(server_freeze, samples_that_a_client_claims_do_not_weigh_its_report)
{
  static const char *const ids[] = {"abe", "bea", "cay", "dot",
                                    "eve", "fay", "gus", "hal"};
  enum { N = 8, LIARS = 2 };
  freezing f;
  init_reports(&f, FL_CODEC_F32, 9);
  for (size_t i = 3; i < N; i++)
    sv_add(&f.world, ids[i], 10);
  for (size_t i = 0; i < N; i++) {
    f.world.clients[i].samples = i < LIARS ? 1000000 : 10;
    f.world.clients[i].loss = (double)NAN;
    f.world.clients[i].has_report = 1;
  }
  f.world.job_options.min_clients = N;
  begin(&f);
  for (uint64_t round = 1; round <= 9; round++) {
    for (size_t i = 0; i < N; i++) {
      f.world.clients[i].report = i < LIARS ? value_of(round) : 1.0;
      sv_pull(&f.world.clients[i]);
    }
    cr_assert_eq(f.world.clients[0].plan.round, round);
    cr_expect_eq(f.world.clients[0].plan.first_active, 0u);
    sv_report(&f.world, N);
    for (size_t i = 0; i < N; i++)
      sv_pull(&f.world.clients[i]);
    for (size_t i = 0; i < N; i++)
      sv_update(&f.world.clients[i]);
  }
  cr_expect_eq(job_of(&f)->weight_cap, 80u);
  cr_expect_eq(sv_events(&f.world, FL_SERVER_UPDATE_ACCEPTED, NULL), 9u * N);
  cr_expect_eq(sv_events(&f.world, FL_SERVER_FREEZE_CHANGED, NULL), 0u);
  sv_free(&f.world);
}

Test(server_freeze, report_that_is_no_number_is_left_out_and_the_update_counts)
{
  uint32_t n_rejected;
  cr_expect_eq(vote((double)NAN, &n_rejected), 1u);
  cr_expect_eq(n_rejected, 8u);
  cr_expect_eq(vote(-1.0, &n_rejected), 1u);
  cr_expect_eq(n_rejected, 8u);
  cr_expect_eq(vote((double)INFINITY, &n_rejected), 1u);
  cr_expect_eq(n_rejected, 8u);
}

Test(server_freeze, jobs_that_never_freeze_do_not_read_reports)
{
  freezing f;
  init(&f, FL_CODEC_F32, FL_FREEZE_GRADNORM);
  f.world.job_options.freeze = NULL;
  set_reports(&f, (double)NAN);
  begin(&f);
  sv_run(&f.world);
  cr_assert(sv_is_finished(&f.world));
  cr_expect_eq(sv_events(&f.world, FL_SERVER_PEER_REJECTED, NULL), 0u);
  sv_free(&f.world);
}

/* ---- who does not follow ---- */

Test(server_freeze, update_with_frozen_segments_is_refused)
{
  freezing f;
  const sv_event *event = NULL;
  init_fixed(&f, FL_CODEC_THC, 2);
  f.world.clients[0].is_old = 1;
  begin(&f);
  play_round(&f);
  cr_expect_eq(sv_events(&f.world, FL_SERVER_PEER_REJECTED, NULL), 0u);
  play_round(&f);
  pull_all(&f);
  cr_expect_eq(f.world.clients[0].ack.reason, (uint32_t)FL_REJECT_RANGE);
  cr_assert_eq(sv_events(&f.world, FL_SERVER_CLIENT_LOST, &event), 1u);
  cr_expect_str_eq(event->client_id, "abe");
  cr_assert_eq(sv_events(&f.world, FL_SERVER_ROUND_FINISHED, &event), 2u);
  cr_expect_eq(event->body.accepted, 2u);
  cr_expect(sv_is_finished(&f.world));
  sv_free(&f.world);
}

Test(server_freeze, aborted_round_decides_nothing)
{
  freezing f;
  init_fixed(&f, FL_CODEC_F32, 2);
  f.world.job_options.min_participants = 3;
  begin(&f);
  for (int i = 0; i < 3; i++) {
    pull_all(&f);
    cr_expect_eq(f.world.clients[0].plan.first_active, 0u);
    sv_decline(&f.world.clients[0], FLI_MSG_DECLINE);
    sv_tick(&f.world, 700 * SV_SECOND_NS);
    sv_tick(&f.world, 10 * SV_SECOND_NS);
  }
  cr_expect_eq(sv_events(&f.world, FL_SERVER_ROUND_ABORTED, NULL), 3u);
  sv_free(&f.world);
}

/* ---- snapshots ---- */

/* Nine rounds of reports; the server dies in the middle of round `killed`, when
 * one update is in, and comes back. */
static void play(uint64_t killed, uint32_t codec, float weights[SV_WEIGHTS],
                 uint64_t *frozen_in)
{
  freezing f;
  const sv_event *event = NULL;
  init_reports(&f, codec, 9);
  f.world.job_options.server_momentum = .5f;
  begin(&f);
  for (uint64_t round = 1; round <= 9; round++) {
    set_reports(&f, value_of(round));
    sv_report(&f.world, 3);
    pull_all(&f);
    sv_update(&f.world.clients[0]);
    if (round == killed) {
      sv_restart(&f.world);
      sv_tick(&f.world, SV_SECOND_NS);
      for (size_t i = 0; i < 3; i++) {
        f.world.clients[i].peer += 100;
        sv_hello(&f.world.clients[i]);
      }
      pull_all(&f);
    }
    sv_update(&f.world.clients[1]);
    sv_update(&f.world.clients[2]);
  }
  pull_all(&f);
  cr_assert(sv_is_finished(&f.world));
  cr_assert_eq(sv_events(&f.world, FL_SERVER_FREEZE_CHANGED, &event), 1u);
  *frozen_in = event->body.round;
  memcpy(weights, f.world.clients[0].model.weights,
         SV_WEIGHTS * sizeof *weights);
  sv_free(&f.world);
}

static void check_restart(uint32_t codec)
{
  float plain[SV_WEIGHTS], other[SV_WEIGHTS];
  uint64_t frozen_in = 0, again = 0;
  play(0, codec, plain, &frozen_in);
  cr_expect_eq(frozen_in, 8u);
  for (uint64_t killed = 5; killed <= 9; killed += 2) {
    play(killed, codec, other, &again);
    cr_expect_eq(again, frozen_in, "killed in %u", (unsigned)killed);
    cr_expect_arr_eq(plain, other, sizeof plain);
  }
}

Test(server_freeze, restored_server_goes_on_to_the_same_bits)
{
  check_restart(FL_CODEC_THC);
}

Test(server_freeze, restored_server_goes_on_to_the_same_bits_with_f32)
{
  check_restart(FL_CODEC_F32);
}

Test(server_freeze, restored_schedule_goes_on)
{
  freezing f;
  init_fixed(&f, FL_CODEC_F32, 3);
  f.world.job_options.rounds = 4;
  begin(&f);
  play_round(&f);
  sv_restart(&f.world);
  sv_tick(&f.world, SV_SECOND_NS);
  sv_join(&f.world);
  pull_all(&f);
  cr_expect_eq(f.world.clients[0].plan.round, 2u);
  cr_expect_eq(f.world.clients[0].plan.first_active, 0u);
  play_round(&f);
  sv_restart(&f.world);
  sv_tick(&f.world, SV_SECOND_NS);
  cr_expect_eq(sv_status(&f.world).first_active, 1u);
  sv_join(&f.world);
  pull_all(&f);
  cr_expect_eq(f.world.clients[0].plan.round, 3u);
  cr_expect_eq(f.world.clients[0].plan.first_active, 1u);
  expect_plan(&f, 1);
  cr_expect_eq(sv_events(&f.world, FL_SERVER_FREEZE_CHANGED, NULL), 1u);
  sv_free(&f.world);
}
