/* SPDX-License-Identifier: Apache-2.0 */
/* A client with error feedback: what its encodings lose goes out with later
 * updates, once, whatever becomes of rounds, messages and the client. */
#include "client_fixture.h"

#include "feedback_audit.h"

/* The norm of every block that fx_scale agrees on: about that of the update. */
static const float norm = 50.f;

static void begin(fixture *fx)
{
  fx_begin(fx, FL_CODEC_THC);
  fx->has_feedback = 1;
  fx->decay = .5f;
  fx_new(fx);
}

static const float *held(const fixture *fx)
{
  cr_assert_not_null(fx->client->feedback);
  return fx->client->feedback->held;
}

static uint32_t phase(const fixture *fx)
{
  return fl_feedback_phase(fx->client->feedback);
}

/* Copies of the update given in round 1 and of what decoding gave of it. */
typedef struct first_round {
  float update[FX_WEIGHTS];
  float decoded[FX_WEIGHTS];
} first_round;

/* Round 1: the update is sent whole. Nobody has answered. */
static void play_first(fixture *fx, first_round *first)
{
  uint8_t *data;
  begin(fx);
  fx_to_norm(fx);
  fx_scale(fx, norm, 1);
  fli_manifest manifest = fx_take_upload(fx, &data);
  fx_decode(fx, norm, 1, data, (size_t)manifest.total, first->decoded);
  fx_update(first->update, 1.f);
  free(data);
  fx_drain(fx);
}

/* PLAN of a later round on a new model, that says what was counted. */
static void next_plan(fixture *fx, uint64_t round, uint64_t counted_round,
                      uint32_t counted_attempt)
{
  fx_set_model(fx, fx->version + 1);
  fx_send_model(fx);
  fx->plan.round = round;
  fx->plan.attempt = 0;
  fx->plan.has_counted = 1;
  fx->plan.counted_round = counted_round;
  fx->plan.counted_attempt = counted_attempt;
  fx_plan(fx);
  fx_drain(fx);
}

static void expect_lost(const fixture *fx, const first_round *first)
{
  for (size_t i = 0; i < FX_WEIGHTS; i++)
    cr_assert_float_eq(held(fx)[i], first->update[i] - first->decoded[i], 1e-4);
}

static void expect_scaled(const fixture *fx, const float *update, float factor)
{
  for (size_t i = 0; i < FX_WEIGHTS; i++)
    cr_assert_float_eq(held(fx)[i], update[i] * factor, 1e-6, "%zu: %g", i,
                       (double)held(fx)[i]);
}

Test(client_feedback, none_without_the_jobs_wish)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_THC);
  fx_to_update(&fx);
  cr_expect_null(fx.client->feedback);
  fx_free(&fx);
}

Test(client_feedback, next_update_carries_what_the_counted_one_lost)
{
  fixture fx;
  first_round first;
  float update[FX_WEIGHTS], got[FX_WEIGHTS], want[FX_WEIGHTS];
  uint8_t *data;
  play_first(&fx, &first);
  fx_ack(&fx, FL_REJECT_NONE);
  next_plan(&fx, 2, 1, 0);
  cr_expect_eq(phase(&fx), FL_FEEDBACK_IDLE);
  expect_lost(&fx, &first);
  fx_submit(&fx, .5f);
  fx_update(update, .5f);
  for (size_t i = 0; i < FX_WEIGHTS; i++)
    want[i] = update[i] + (first.update[i] - first.decoded[i]);
  for (size_t i = 0; i < FX_WEIGHTS; i++)
    cr_assert_float_eq(held(&fx)[i], want[i], 1e-4);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_scale(&fx, norm, 2);
  fli_manifest manifest = fx_take_upload(&fx, &data);
  fx_decode(&fx, norm, 2, data, (size_t)manifest.total, got);
  for (size_t i = 0; i < FX_WEIGHTS; i++)
    cr_assert_float_eq(fx.client->feedback->other[i], want[i] - got[i], 1e-4);
  free(data);
  fx_free(&fx);
}

Test(client_feedback, the_plan_says_what_a_lost_ack_would_have)
{
  fixture fx;
  first_round first;
  play_first(&fx, &first);
  next_plan(&fx, 3, 1, 0);
  expect_lost(&fx, &first);
  fx_free(&fx);
}

Test(client_feedback, update_not_counted_is_kept_by_its_decay)
{
  fixture fx;
  first_round first;
  play_first(&fx, &first);
  fx_ack(&fx, FL_REJECT_STALE);
  next_plan(&fx, 2, 0, 0);
  expect_scaled(&fx, first.update, .5f);
  fx_free(&fx);
}

Test(client_feedback, aborted_round_takes_its_ack_back)
{
  fixture fx;
  first_round first;
  play_first(&fx, &first);
  fx_ack(&fx, FL_REJECT_NONE);
  next_plan(&fx, 2, 0, 0);
  expect_scaled(&fx, first.update, .5f);
  fx_free(&fx);
}

Test(client_feedback, plan_without_a_word_counts_as_not_counted)
{
  fixture fx;
  first_round first;
  play_first(&fx, &first);
  fx_ack(&fx, FL_REJECT_NONE);
  fx.plan.round = 2;
  fx_plan(&fx);
  expect_scaled(&fx, first.update, .5f);
  fx_free(&fx);
}

Test(client_feedback, norms_alone_are_settled_as_not_counted)
{
  fixture fx;
  float update[FX_WEIGHTS];
  begin(&fx);
  fx_to_norm(&fx);
  cr_expect_eq(phase(&fx), FL_FEEDBACK_MEASURED);
  next_plan(&fx, 2, 0, 0);
  fx_update(update, 1.f);
  expect_scaled(&fx, update, .5f);
  fx_free(&fx);
}

Test(client_feedback, another_attempt_sends_the_same_update_once)
{
  fixture fx;
  first_round first;
  uint8_t *data;
  play_first(&fx, &first);
  fx.plan.attempt = 1;
  fx.plan.slot = 3;
  fx_plan(&fx);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_scale(&fx, 2 * norm, 9);
  fli_manifest manifest = fx_take_upload(&fx, &data);
  expect_scaled(&fx, first.update, 1.f);
  fx_decode(&fx, 2 * norm, 9, data, (size_t)manifest.total, first.decoded);
  next_plan(&fx, 2, 1, 1);
  expect_lost(&fx, &first);
  free(data);
  fx_free(&fx);
}

/* What lost the encoding that was counted is not known here. */
Test(client_feedback, counted_in_another_attempt_leaves_nothing)
{
  fixture fx;
  first_round first;
  play_first(&fx, &first);
  next_plan(&fx, 2, 1, 7);
  expect_scaled(&fx, first.update, 0.f);
  fx_free(&fx);
}

/* The fixture's client has 10 samples. */
Test(client_feedback, another_weight_cap_weighs_once)
{
  static const uint64_t caps[] = {40, 10, 80};
  fixture fx;
  first_round first;
  float memory[FX_WEIGHTS], update[FX_WEIGHTS];
  fx_update(update, 1.f);
  for (size_t i = 0; i < 3; i++) {
    play_first(&fx, &first);
    fx.plan.weight_cap = 20;
    next_plan(&fx, 2, 1, 0);
    memcpy(memory, held(&fx), sizeof memory);
    fx_submit(&fx, 1.f);
    fx_skip(&fx, FLI_MSG_NORM);
    fx_scale(&fx, norm, 2);
    fx_take_upload(&fx, NULL);
    fx.plan.attempt = 1;
    fx.plan.weight_cap = caps[i];
    fx_plan(&fx);
    fx_skip(&fx, FLI_MSG_NORM);
    /* The memory was brought from 20 to the new cap. */
    float weight = 10.f / (float)caps[i], ratio = 20.f / (float)caps[i];
    for (size_t k = 0; k < FX_WEIGHTS; k++)
      cr_assert_float_eq(held(&fx)[k], update[k] * weight + memory[k] * ratio,
                         1e-5);
    fx_scale(&fx, norm, 3);
    fx_take_upload(&fx, NULL);
    fx_free(&fx);
  }
}

Test(client_feedback, another_task_for_the_round_replaces_the_update)
{
  fixture fx;
  first_round first;
  float memory[FX_WEIGHTS], update[FX_WEIGHTS];
  play_first(&fx, &first);
  next_plan(&fx, 2, 1, 0);
  memcpy(memory, held(&fx), sizeof memory);
  fx_submit(&fx, 3.f);
  fx.plan.seed++;
  fx_plan(&fx);
  for (size_t k = 0; k < FX_WEIGHTS; k++)
    cr_assert_eq(held(&fx)[k], memory[k]);
  fx_drain(&fx);
  fx_submit(&fx, 1.f);
  fx_update(update, 1.f);
  for (size_t k = 0; k < FX_WEIGHTS; k++)
    cr_assert_eq(held(&fx)[k], update[k] + memory[k]);
  fx_free(&fx);
}

/* The server has gone back: the round comes again, on another model. */
static void replace_model(fixture *fx, int is_pushed)
{
  first_round first;
  float memory[FX_WEIGHTS], update[FX_WEIGHTS];
  play_first(fx, &first);
  next_plan(fx, 2, 1, 0);
  memcpy(memory, held(fx), sizeof memory);
  fx_submit(fx, 3.f);
  fx_skip(fx, FLI_MSG_NORM);
  fx_scale(fx, norm, 2);
  fx_take_upload(fx, NULL);
  fx_set_model(fx, is_pushed ? fx->version + 1 : 2);
  fx->plan.attempt = 1;
  if (is_pushed) fx_send_model(fx);
  fx_plan(fx);
  if (!is_pushed) fx_send_model(fx);
  for (size_t k = 0; k < FX_WEIGHTS; k++)
    cr_assert_float_eq(held(fx)[k], memory[k], 1e-5);
  fx_drain(fx);
  fx_submit(fx, 1.f);
  fx_update(update, 1.f);
  for (size_t k = 0; k < FX_WEIGHTS; k++)
    cr_assert_float_eq(held(fx)[k], update[k] + memory[k], 1e-5);
  fx_free(fx);
}

Test(client_feedback, same_round_on_another_model_counts_once)
{
  fixture fx;
  replace_model(&fx, 0);
}

Test(client_feedback, same_round_behind_another_model_counts_once)
{
  fixture fx;
  replace_model(&fx, 1);
}

Test(client_feedback, unusable_result_leaves_the_memory_alone)
{
  fixture fx;
  first_round first;
  float memory[FX_WEIGHTS], update[FX_WEIGHTS] = {0};
  fl_train_result result;
  play_first(&fx, &first);
  next_plan(&fx, 2, 1, 0);
  memcpy(memory, held(&fx), sizeof memory);
  cr_assert_eq(fl_train_result_init(&result, sizeof result), FL_OK);
  result.update = update;
  result.n = FX_WEIGHTS;
  update[3] = 0x1.8p127f;
  cr_expect_eq(fl_client_submit(fx.client, &result), FL_E_RANGE);
  update[3] = INFINITY;
  cr_expect_eq(fl_client_submit(fx.client, &result), FL_E_NOT_FINITE);
  cr_expect_arr_eq(held(&fx), memory, sizeof memory);
  fx_submit(&fx, 1.f);
  cr_expect_eq(phase(&fx), FL_FEEDBACK_MEASURED);
  fx_free(&fx);
}

Test(client_feedback, repeated_messages_change_nothing)
{
  fixture fx;
  first_round first;
  play_first(&fx, &first);
  fx_plan(&fx);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_scale(&fx, norm, 1);
  fx_take_upload(&fx, NULL);
  next_plan(&fx, 2, 1, 0);
  fx_plan(&fx);
  expect_lost(&fx, &first);
  fx_free(&fx);
}

Test(client_feedback, goes_with_the_codec_and_the_decay)
{
  fixture fx;
  first_round first;
  play_first(&fx, &first);
  next_plan(&fx, 2, 1, 0);
  cr_assert_eq(fl_client_disconnected(fx.client), FL_OK);
  fx_join(&fx);
  expect_lost(&fx, &first);
  cr_assert_eq(fl_client_disconnected(fx.client), FL_OK);
  fx.decay = .25f;
  fx_join(&fx);
  expect_scaled(&fx, first.update, 0.f);
  cr_assert_eq(fl_client_disconnected(fx.client), FL_OK);
  fx.has_feedback = 0;
  fx_join(&fx);
  cr_expect_null(fx.client->feedback);
  cr_assert_eq(fl_client_disconnected(fx.client), FL_OK);
  fx.has_feedback = 1;
  fx.codec.bits = 5;
  fx_join(&fx);
  expect_scaled(&fx, first.update, 0.f);
  fx_free(&fx);
}

Test(client_feedback, decay_that_is_none_is_an_abort)
{
  fixture fx;
  fx_begin(&fx, FL_CODEC_THC);
  fx.has_feedback = 1;
  fx.decay = 1.5f;
  fx_new(&fx);
  fx_join(&fx);
  FX_EVENT(&fx, FL_CLIENT_ABORTED);
  fx_free(&fx);
}

/* ---- killed and restored ------------------------------------------------ */

static fl_buffer *save(fl_client *client)
{
  fl_buffer *state = NULL;
  fl_writer writer;
  cr_assert_eq(fl_buffer_new(&state, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(state, &writer), FL_OK);
  cr_assert_eq(fl_client_save(client, &writer), FL_OK, "%s", fl_last_error());
  return state;
}

/* Free the client and make the one that was saved. */
static void bring_back(fl_client **client, const fl_client_options *options,
                       fl_buffer *state)
{
  fl_reader reader;
  fl_client_free(*client);
  *client = NULL;
  cr_assert_eq(fl_buffer_as_reader(state, &reader), FL_OK);
  cr_assert_eq(fl_client_restore(client, NULL, options, &reader), FL_OK, "%s",
               fl_last_error());
  fl_buffer_free(state);
}

static void reincarnate(fixture *fx)
{
  bring_back(&fx->client, &fx->options, save(fx->client));
}

/* Come back to the plan at hand. */
static void return_to_plan(fixture *fx)
{
  reincarnate(fx);
  fx_join(fx);
  fx_plan(fx);
  fx_drain(fx);
}

/* Two rounds; the client dies at step `at` (0: never). The second upload. */
static fli_manifest play_rounds(int at, uint8_t **data)
{
  fixture fx;
  first_round first;
  play_first(&fx, &first);
  if (at == 1) { /* encoded */
    return_to_plan(&fx);
    fx_skip(&fx, FLI_MSG_NORM);
    fx_scale(&fx, norm, 1);
    fx_take_upload(&fx, NULL);
  }
  if (at == 2) { /* encoded; comes back to the next round */
    reincarnate(&fx);
    fx_join(&fx);
  }
  next_plan(&fx, 2, 1, 0);
  if (at == 3) return_to_plan(&fx); /* settled */
  fx_submit(&fx, .5f);
  fx_skip(&fx, FLI_MSG_NORM);
  if (at == 4) { /* measured */
    return_to_plan(&fx);
    fx_skip(&fx, FLI_MSG_NORM);
  }
  fx_scale(&fx, norm, 2);
  fli_manifest manifest = fx_take_upload(&fx, data);
  fx_free(&fx);
  return manifest;
}

Test(client_feedback, restored_in_every_phase_it_sends_the_same)
{
  uint8_t *want, *got;
  fli_manifest a = play_rounds(0, &want);
  for (int at = 1; at <= 4; at++) {
    fli_manifest b = play_rounds(at, &got);
    cr_assert_eq(a.total, b.total);
    cr_expect_arr_eq(want, got, (size_t)a.total, "step %d", at);
    free(got);
  }
  free(want);
}

/* A life that was not saved has sent the memory: it must not go out twice. */
Test(client_feedback, memory_that_another_life_has_sent_is_dropped)
{
  fixture fx;
  first_round first;
  play_first(&fx, &first);
  next_plan(&fx, 2, 1, 0);
  fl_buffer *state = save(fx.client);
  fx_submit(&fx, 1.f);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_scale(&fx, norm, 2);
  fx_take_upload(&fx, NULL);
  bring_back(&fx.client, &fx.options, state);
  expect_lost(&fx, &first);
  fx_join(&fx);
  next_plan(&fx, 3, 2, 0);
  expect_scaled(&fx, first.update, 0.f);
  fx_free(&fx);
}

Test(client_feedback, measured_yet_counted_leaves_nothing)
{
  fixture fx;
  float update[FX_WEIGHTS];
  begin(&fx);
  fx_to_norm(&fx);
  fl_buffer *state = save(fx.client);
  fx_scale(&fx, norm, 2);
  fx_take_upload(&fx, NULL);
  bring_back(&fx.client, &fx.options, state);
  fx_join(&fx);
  next_plan(&fx, 2, 1, 0);
  fx_update(update, 1.f);
  expect_scaled(&fx, update, 0.f);
  fx_free(&fx);
}

/* ---- with a server, over a network that loses things --------------------- */

static int happens(audit *a, double share)
{
  return fli_rng_f64(&a->rng) < share;
}

/* What is taken from the client, or from the server, may be gone; then so is
 * the connection. 1: it is. */
static int lose_up(audit *a)
{
  const uint8_t *data;
  size_t n;
  if (!happens(a, .15)) return 0;
  cr_assert_eq(fl_client_send(a->p.client, &data, &n), FL_OK);
  return 1;
}

static int lose_down(audit *a)
{
  const uint8_t *data;
  size_t n;
  if (!happens(a, .15)) return 0;
  cr_assert_eq(fl_server_tick(a->p.server, a->p.now_ns), FL_OK);
  cr_assert_eq(fl_server_send(a->p.server, a->p.peer, &data, &n), FL_OK);
  return 1;
}

/* After a loss the client is restored from its state, every other time. */
static void step_lossy(audit *a)
{
  size_t n = 0;
  pair *p = &a->p;
  p->now_ns += 1000000;
  cr_assert_eq(audit_poll(a), FL_OK, "%s", fl_last_error());
  int is_broken = lose_up(a);
  if (!is_broken) cr_assert_eq(pair_up(p), FL_OK);
  do {
    is_broken = is_broken || lose_down(a);
    if (!is_broken) cr_assert_eq(pair_down(p, &n), FL_OK);
  } while (n > 0 && !is_broken);
  if (is_broken) {
    if (happens(a, .5)) bring_back(&p->client, &p->options, save(p->client));
    cr_assert_eq(pair_reconnect(p), FL_OK);
  }
}

Test(client_feedback, nothing_is_lost_or_sent_twice_over_a_bad_network)
{
  for (uint64_t seed = 1; seed <= 60; seed++) {
    audit a;
    cr_assert_eq(audit_begin(&a, NULL, seed, 12), FL_OK);
    cr_assert_eq(pair_connect(&a.p), FL_OK);
    for (int i = 0; i < 5000 && !a.p.is_done; i++)
      step_lossy(&a);
    cr_expect(a.p.is_done, "seed %d", (int)seed);
    cr_expect_geq(a.trained, 12);
    cr_expect_lt(a.worst, 1e-3, "seed %d: %g", (int)seed, a.worst);
    pair_end(&a.p);
  }
}
