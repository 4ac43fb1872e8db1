/* SPDX-License-Identifier: Apache-2.0 */
/* A server of a job with cohorts that meets a failing allocation: with memory
 * again it goes on to the end, finds the two groups, and gives every byte
 * back. */
#include "oom.h"

#define CW_MUST(call) CHECK_OK(call)
#define CW_SERVED(call) (void)(call)
#include "cohort_world.h"

enum { CLIENTS = 24, ROUNDS = 24, MEND_ROUNDS = 400 };

static void configure(cw_world *w, fl_context *context, uint32_t sketches)
{
  cw_init(w, FL_CODEC_THC, CLIENTS, 2);
  w->context = context;
  w->job.rounds = ROUNDS;
  w->job.participants = 0;
  w->job.evaluate_every = 5;
  w->job.cohort_sketches = sketches;
  w->job.retry_pause_ns = 1;
  w->cohorts.dim = 16;
  w->cohorts.evidence = 20;
}

static void mend(cw_world *w)
{
  for (uint32_t i = 0; i < w->n_clients; i++) {
    (void)fl_server_disconnected(w->server, i);
    CHECK_OK(fl_client_disconnected(w->clients[i].handle));
  }
  w->now += 20 * CW_SECOND;
  (void)fl_server_tick(w->server, w->now);
}

static void serve(cw_world *w, oom_heap *heap)
{
  for (int i = 0; i < MEND_ROUNDS && !w->is_finished; i++) {
    if (i == 1) heap->fail_at = 0; /* there is memory again */
    cw_run(w, UINT32_MAX);
    if (!w->is_finished) mend(w);
  }
  heap->fail_at = 0;
  CHECK_EQ_U64(w->is_finished, 1);
}

/* Each cohort that the set has, the server has a model of. */
static void check_models(const cw_world *w)
{
  float weights[CW_WEIGHTS];
  fl_cohort_info info;
  CHECK_OK(fl_cohort_info_init(&info, sizeof info));
  for (uint32_t i = 0; i < w->cohorts.cap; i++) {
    if (fl_cohort_set_get_info(cw_set(w), i, &info) != FL_OK || !info.is_alive)
      continue;
    CHECK_OK(fl_server_copy_cohort(w->server, 0, i, weights, CW_WEIGHTS, NULL));
  }
}

typedef struct variant {
  uint32_t sketches;
  uint32_t pace;
  const fl_strategy_options *strategy;
  int is_auxo;
  uint32_t after; /* rounds without a failure */
} variant;

/* One cohort splits in the third round, both in the sixth. */
static void configure_auxo(cw_world *w)
{
  static const uint32_t splits[] = {3, 6};
  w->job.rounds = 8;
  w->cohorts.rule = FL_COHORT_AUXO;
  w->cohorts.splits = splits;
  w->cohorts.n_splits = 2;
}

/* 0 once the failure is not met any more. */
static int run(const variant *v, uint64_t fail_at)
{
  static cw_world w;
  oom_heap heap = {.is_sticky = 0};
  fl_context *context = NULL;
  uint64_t bytes = 1;
  CHECK_OK(oom_context(&context, &heap));
  if (!context) return 0;
  configure(&w, context, v->sketches);
  w.job.strategy = v->strategy;
  w.job.cohort_pace = v->pace;
  if (v->is_auxo) configure_auxo(&w);
  if (v->after == 0) heap.fail_at = heap.asked + fail_at;
  fl_status st = fl_server_new(&w.server, context, NULL);
  if (st == FL_OK) st = fl_server_add_job(w.server, w.model, &w.job, NULL);
  if (st == FL_OK) {
    for (uint32_t i = 0; i < w.n_clients; i++)
      cw_add(&w, i);
    if (v->after > 0) {
      cw_run(&w, v->after);
      heap.fail_at = heap.asked + fail_at;
    }
    serve(&w, &heap);
    if (v->pace == FL_COHORT_TOGETHER) check_models(&w);
  } else {
    CHECK_STATUS(st, FL_E_NOMEM);
  }
  cw_free(&w);
  CHECK_OK(fl_context_get_memory(context, &bytes, NULL));
  CHECK_EQ_U64(bytes, 0);
  fl_context_free(context);
  CHECK_EQ_U64(heap.live_blocks, 0);
  return heap.was_hit;
}

/* Every one of the first allocations, later ones ever more apart. */
static void run_all(const variant *v, uint64_t first, uint64_t apart)
{
  uint64_t fail_at = 1;
  while (run(v, fail_at))
    fail_at += fail_at < first ? 1 : 1 + fail_at / apart;
  CHECK(fail_at > 1000);
}

static void cohorts_are_found_by_lanes(void)
{
  const variant lanes = {.sketches = FL_SKETCH_LANES};
  run_all(&lanes, 100, 25);
}

static void cohorts_are_found_by_floats(void)
{
  const variant floats = {.sketches = FL_SKETCH_FLOATS};
  run_all(&floats, 1, 12);
}

static void cohorts_go_on_apart(void)
{
  const variant apart = {.sketches = FL_SKETCH_LANES, .pace = FL_COHORT_APART};
  run_all(&apart, 1, 12);
}

static void leaves_have_a_strategy(void)
{
  fl_strategy_options adam;
  CHECK_OK(fl_strategy_options_named(&adam, sizeof adam, "fedadam"));
  adam.rate = .05f;
  const variant steps = {.sketches = FL_SKETCH_LANES, .strategy = &adam};
  run_all(&steps, 1, 4);
}

static void cohorts_split_by_affinity(void)
{
  const variant auxo = {.sketches = FL_SKETCH_LANES, .is_auxo = 1};
  run_all(&auxo, 1, 12);
}

/* Both cohorts split in the round that is met: taking over a split has some
 * twenty allocations. */
static void splits_are_taken_over_one_by_one(void)
{
  const variant auxo = {.sketches = FL_SKETCH_LANES, .is_auxo = 1, .after = 5};
  uint64_t fail_at = 1;
  while (run(&auxo, fail_at))
    fail_at += 11;
  CHECK(fail_at > 1000);
}

int main(void)
{
  CHECK_CASE(cohorts_are_found_by_lanes);
  CHECK_CASE(cohorts_are_found_by_floats);
  CHECK_CASE(cohorts_go_on_apart);
  CHECK_CASE(leaves_have_a_strategy);
  CHECK_CASE(cohorts_split_by_affinity);
  CHECK_CASE(splits_are_taken_over_one_by_one);
  return check_report();
}
