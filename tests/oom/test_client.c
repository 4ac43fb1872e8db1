/* SPDX-License-Identifier: Apache-2.0 */
/* A client whose allocations fail: it reports FL_E_NOMEM, gives everything
 * back, and when only one allocation failed it goes on to the end of the job
 * with the server's model. The server's memory does not fail. */
#include "oom.h"

#include "client/client.h"
#include "client_pair.h"
#include "crypto/keys.h"
#include "feedback_audit.h"

enum { ROUNDS = 3, STEPS = 200 };

static fl_status whole_job(fl_context *context, void *arg)
{
  fl_status st = FL_OK;
  pair p;
  const uint32_t *codec = arg;
  FLI_TRY(pair_begin(&p, context, *codec, ROUNDS));
  FLI_TRY(pair_connect(&p));
  for (int i = 0; i < STEPS && !p.is_done; i++)
    FLI_TRY(pair_step(&p));
  CHECK(p.is_done);
out:
  pair_end(&p);
  return st;
}

/* Proves its key, signs, and leaves at the end. */
static fl_status signed_job(fl_context *context, void *arg)
{
  fl_status st = FL_OK;
  uint8_t secret[FL_SECRET_KEY_BYTES], public_key[FL_PUBLIC_KEY_BYTES];
  const uint8_t seed[FLI_KEY_BYTES] = {1};
  pair p;
  const uint32_t *codec = arg;
  fli_sign_keys(secret, public_key, seed);
  FLI_TRY(pair_begin(&p, context, *codec, ROUNDS));
  FLI_TRY(pair_connect(&p));
  FLI_TRY(fl_client_set_key(p.client, secret, public_key));
  FLI_TRY(fl_client_set_key(p.client, secret, NULL));
  for (int i = 0; i < STEPS && !p.is_done; i++)
    FLI_TRY(pair_step(&p));
  CHECK(p.is_done);
  FLI_TRY(fl_client_leave(p.client));
  for (int i = 0; i < STEPS && p.client->phase != FLI_PHASE_ABORTED; i++)
    FLI_TRY(pair_step(&p));
  CHECK_EQ_U64(p.client->phase, FLI_PHASE_ABORTED);
out:
  pair_end(&p);
  return st;
}

static fl_status save_and_restore(fl_context *context, void *arg)
{
  fl_status st = FL_OK;
  pair p;
  fl_buffer *buffer = NULL;
  fl_client *again = NULL;
  fl_writer writer;
  fl_reader reader;
  const uint32_t *codec = arg;
  FLI_TRY(pair_begin(&p, context, *codec, ROUNDS));
  FLI_TRY(pair_connect(&p));
  for (int i = 0; i < 6; i++)
    FLI_TRY(pair_step(&p));
  FLI_TRY(fl_buffer_new(&buffer, NULL));
  FLI_TRY(fl_buffer_as_writer(buffer, &writer));
  FLI_TRY(fl_client_save(p.client, &writer));
  FLI_TRY(fl_buffer_as_reader(buffer, &reader));
  FLI_TRY(fl_client_restore(&again, context, &p.options, &reader));
out:
  fl_client_free(again);
  fl_buffer_free(buffer);
  pair_end(&p);
  return st;
}

static fl_status freezing_job(fl_context *context, void *arg)
{
  fl_status st = FL_OK;
  pair p;
  const uint32_t *codec = arg;
  FLI_TRY(pair_begin(&p, context, *codec, ROUNDS));
  FLI_TRY(pair_freeze(&p, *codec, ROUNDS));
  FLI_TRY(pair_connect(&p));
  for (int i = 0; i < STEPS && !p.is_done; i++)
    FLI_TRY(pair_step(&p));
  CHECK(p.is_done);
out:
  pair_end(&p);
  return st;
}

/* A job in which the failures are met by hosts that reconnect and go on;
 * 1 when allocation `fail_at` was reached. */
static int run_on(uint32_t codec, uint64_t fail_at)
{
  oom_heap heap = {0};
  fl_context *context = NULL;
  pair p;
  float mine[PAIR_WEIGHTS], theirs[PAIR_WEIGHTS];
  CHECK_OK(oom_context(&context, &heap));
  heap.fail_at = heap.asked + fail_at;
  CHECK_OK(pair_begin(&p, context, codec, ROUNDS));
  fl_status st = pair_connect(&p);
  if (st == FL_E_NOMEM) st = pair_connect(&p);
  CHECK_OK(st);
  for (int i = 0; p.client && i < STEPS && !p.is_done; i++) {
    st = pair_step(&p);
    if (st == FL_E_NOMEM) st = pair_reconnect(&p);
    CHECK_OK(st);
  }
  CHECK(p.is_done);
  CHECK_OK(fl_client_copy_weights(p.client, mine, PAIR_WEIGHTS, NULL));
  CHECK_OK(fl_server_copy_weights(p.server, 0, theirs, PAIR_WEIGHTS, NULL));
  CHECK_EQ_MEM(mine, theirs, sizeof mine);
  pair_end(&p);
  fl_context_free(context);
  CHECK_EQ_U64(heap.live_blocks, 0);
  return heap.was_hit;
}

/* What a plan sets, and nothing else may. */
typedef struct told {
  fli_plan plan;
  uint8_t freeze_plan[4096];
  size_t size;
  uint8_t noise_seed[FL_SEED_BYTES];
  float clip;
} told;

static void look(const fl_client *client, told *out)
{
  memset(out, 0, sizeof *out);
  out->plan = client->plan;
  out->size = client->freeze_plan.size;
  if (out->size > 0)
    memcpy(out->freeze_plan, client->freeze_plan.data, out->size);
  memcpy(out->noise_seed, client->noise_seed, sizeof out->noise_seed);
  out->clip = client->clip;
}

/* The next round's PLAN, with another scale and a longer freeze plan; 1 when
 * allocation `fail_at` was reached, and the client then is as before. */
static int plan_on(uint64_t fail_at)
{
  static const uint8_t longer[4096] = {1, 2, 3};
  static const uint8_t seed[FL_SEED_BYTES] = {7};
  uint8_t norms[2 * 64] = {0};
  oom_heap heap = {0};
  fl_context *context = NULL;
  fli_bytes frame;
  told before, after;
  pair p;
  CHECK_OK(oom_context(&context, &heap));
  CHECK_OK(pair_begin(&p, context, FL_CODEC_THC, ROUNDS));
  CHECK_OK(pair_freeze(&p, FL_CODEC_THC, ROUNDS));
  CHECK_OK(pair_connect(&p));
  while (p.client->plan.round < 1)
    CHECK_OK(pair_step(&p));
  look(p.client, &before);
  CHECK(before.size > 0);
  fli_plan plan = p.client->plan;
  plan.round++;
  plan.noise_seed = seed;
  plan.clip = before.clip + 1;
  plan.norms = norms;
  plan.norms_size = 2 * (size_t)p.client->n_norms;
  plan.freeze_plan = longer;
  plan.freeze_plan_size = sizeof longer;
  fli_bytes_init(&frame, NULL);
  CHECK_OK(fli_write_plan(&frame, &plan));
  heap.fail_at = heap.asked + fail_at;
  const fl_status st = fl_client_recv(p.client, frame.data, frame.size);
  CHECK_STATUS(st, heap.was_hit ? FL_E_NOMEM : FL_OK);
  look(p.client, &after);
  if (st == FL_OK) {
    CHECK_EQ_U64(after.plan.round, before.plan.round + 1);
    CHECK_EQ_U64(after.size, sizeof longer);
    CHECK_EQ_MEM(after.noise_seed, seed, sizeof seed);
  } else {
    CHECK_EQ_MEM(&after, &before, sizeof after);
  }
  fli_bytes_free(&frame);
  pair_end(&p);
  fl_context_free(context);
  CHECK_EQ_U64(heap.live_blocks, 0);
  return heap.was_hit;
}

static void plan_is_taken_whole_or_not_at_all(void)
{
  uint64_t fail_at = 1;
  while (check_totals.failures == 0 && plan_on(fail_at))
    fail_at++;
  CHECK(fail_at > 1);
}

/* The same with error feedback: no failure makes the client send anything
 * twice, or lose it. */
static int audit_on(uint64_t seed, uint64_t fail_at)
{
  oom_heap heap = {0};
  fl_context *context = NULL;
  audit a;
  CHECK_OK(oom_context(&context, &heap));
  CHECK_OK(audit_begin(&a, context, seed, ROUNDS));
  CHECK_OK(pair_connect(&a.p));
  heap.fail_at = heap.asked + fail_at;
  for (int i = 0; i < STEPS && !a.p.is_done; i++) {
    size_t n = 1;
    a.p.now_ns += 1000000;
    fl_status st = audit_poll(&a);
    if (st == FL_OK) st = pair_up(&a.p);
    while (st == FL_OK && n > 0)
      st = pair_down(&a.p, &n);
    if (st == FL_E_NOMEM) st = pair_reconnect(&a.p);
    CHECK_OK(st);
  }
  CHECK(a.p.is_done);
  CHECK(a.worst < 1e-4);
  pair_end(&a.p);
  fl_context_free(context);
  CHECK_EQ_U64(heap.live_blocks, 0);
  return heap.was_hit;
}

static void feedback_goes_on_after_one_failure(void)
{
  for (uint64_t seed = 0; seed < 2; seed++) {
    uint64_t fail_at = 1;
    while (check_totals.failures == 0 && audit_on(seed, fail_at))
      fail_at++;
    if (check_totals.failures > 0)
      fprintf(stderr, "with allocation %" PRIu64 " failing\n", fail_at);
    CHECK(fail_at > 10);
  }
}

static fl_status save_feedback(fl_context *context, void *arg)
{
  fl_status st = FL_OK;
  audit a;
  fl_buffer *buffer = NULL;
  fl_client *again = NULL;
  fl_writer writer;
  fl_reader reader;
  const int *steps = arg;
  FLI_TRY(audit_begin(&a, context, 0, ROUNDS));
  a.gives_up = 1;
  FLI_TRY(pair_connect(&a.p));
  for (int i = 0; i < *steps; i++) {
    size_t n = 1;
    FLI_TRY(audit_poll(&a));
    FLI_TRY(pair_up(&a.p));
    while (n > 0)
      FLI_TRY(pair_down(&a.p, &n));
  }
  FLI_TRY(fl_buffer_new(&buffer, NULL));
  FLI_TRY(fl_buffer_as_writer(buffer, &writer));
  FLI_TRY(fl_client_save(a.p.client, &writer));
  FLI_TRY(fl_buffer_as_reader(buffer, &reader));
  FLI_TRY(fl_client_restore(&again, context, &a.p.options, &reader));
out:
  fl_client_free(again);
  fl_buffer_free(buffer);
  pair_end(&a.p);
  return st;
}

static void feedback_reports_lack_of_memory(void)
{
  for (int steps = 2; steps <= 5; steps++)
    oom_loop(save_feedback, &steps);
}

static uint32_t codecs[] = {FL_CODEC_F32, FL_CODEC_THC};

static void jobs_report_lack_of_memory(void)
{
  for (size_t i = 0; i < 2; i++) {
    oom_loop(whole_job, &codecs[i]);
    oom_loop(freezing_job, &codecs[i]);
    oom_loop(signed_job, &codecs[i]);
  }
}

static void save_and_restore_report_lack_of_memory(void)
{
  for (size_t i = 0; i < 2; i++)
    oom_loop(save_and_restore, &codecs[i]);
}

static void clients_go_on_after_one_failure(void)
{
  for (size_t i = 0; i < 2; i++) {
    uint64_t fail_at = 1;
    while (check_totals.failures == 0 && run_on(codecs[i], fail_at))
      fail_at++;
    if (check_totals.failures > 0)
      fprintf(stderr, "with allocation %" PRIu64 " failing\n", fail_at);
    CHECK(fail_at > 10);
  }
}

int main(void)
{
  CHECK_CASE(jobs_report_lack_of_memory);
  CHECK_CASE(save_and_restore_report_lack_of_memory);
  CHECK_CASE(clients_go_on_after_one_failure);
  CHECK_CASE(plan_is_taken_whole_or_not_at_all);
  CHECK_CASE(feedback_goes_on_after_one_failure);
  CHECK_CASE(feedback_reports_lack_of_memory);
  return check_report();
}
