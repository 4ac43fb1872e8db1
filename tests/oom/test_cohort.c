/* SPDX-License-Identifier: Apache-2.0 */
/* Every allocation of a set of cohorts fails once: no leak, no crash, and the
 * call that failed can be made again. */
#include "oom/oom.h"

#include "base/error.h"

static fl_status people_status;
#define PEOPLE_MUST(call)                                  \
  do {                                                     \
    if (people_status == FL_OK) {                          \
      fl_status must_ = (call);                            \
      if (must_ != FL_OK && must_ != FL_E_NOMEM) CHECK(0); \
      people_status = must_;                               \
    }                                                      \
  } while (0)
#include "cohort_people.h"

enum { CLIENTS = 90, ROUNDS = 14, DIM = 20 };

static fl_status save_and_load(fl_context *context, const fl_cohort_options *o,
                               const fl_cohort_set *set)
{
  fl_status st = FL_OK;
  fl_buffer *buffer = NULL;
  fl_cohort_set *copy = NULL;
  fl_writer writer;
  fl_reader reader;
  FLI_TRY(fl_buffer_new(&buffer, context));
  FLI_TRY(fl_buffer_as_writer(buffer, &writer));
  FLI_TRY(fl_cohort_set_save(set, &writer));
  FLI_TRY(fl_buffer_as_reader(buffer, &reader));
  FLI_TRY(fl_cohort_set_new(&copy, context, o));
  st = fl_cohort_set_load(copy, &reader);
  if (st != FL_OK) {
    CHECK_EQ_U64(fl_cohort_set_client_count(copy), 0);
    CHECK_EQ_U64(fl_cohort_set_count(copy), 1);
    (void)fli_error(st, "as it was loaded");
  }
out:
  fl_cohort_set_free(copy);
  fl_buffer_free(buffer);
  return st;
}

static fl_status by_sketches(fl_context *context, void *arg)
{
  people p = {.set = NULL};
  fl_cohort_options o;
  (void)arg;
  people_status = FL_OK;
  o = people_options();
  o.evidence = 30;
  people_open(&p, context, &o, CLIENTS, 2);
  p.per_round = 40;
  for (uint32_t t = 1; t <= ROUNDS && people_status == FL_OK; t++)
    people_round(&p, t);
  if (people_status == FL_OK) {
    CHECK(p.events[FL_COHORT_TRIAL] > 0);
    people_status = save_and_load(context, &o, p.set);
  }
  people_close(&p);
  return people_status;
}

static fl_status train(fl_cohort_set *set, uint32_t round)
{
  fl_status st = FL_OK;
  fl_cohort_report report;
  float feature[DIM];
  for (uint32_t i = 0; i < 12; i++) {
    for (uint32_t j = 0; j < DIM; j++)
      feature[j] = (float)((i * 31 + j * (1 + i % 2)) % 17) - 8.0f;
    FLI_TRY(fl_cohort_report_init(&report, sizeof report));
    report.round = round;
    report.loss = 1.0;
    report.feature = feature;
    FLI_TRY(fl_cohort_set_report(set, i, &report));
  }
  FLI_TRY(fl_cohort_set_end_round(set, 0, round));
  st = fl_cohort_set_decide(set);
  if (st == FL_E_NOMEM) {
    (void)fl_cohort_set_decide(set);
    (void)fli_error(st, "as it was decided");
  }
out:
  return st;
}

static fl_status by_affinity(fl_context *context, void *arg)
{
  fl_status st = FL_OK;
  fl_cohort_set *set = NULL;
  fl_cohort_options o;
  (void)arg;
  FLI_TRY(fl_cohort_options_init(&o, sizeof o));
  o.rule = FL_COHORT_AUXO;
  o.dim = DIM;
  o.cap = 1;
  FLI_TRY(fl_cohort_set_new(&set, context, &o));
  for (uint32_t i = 0; i < CLIENTS; i++) {
    uint32_t slot;
    FLI_TRY(fl_cohort_set_join(set, i, 0, NULL, 0, &slot, NULL));
  }
  for (uint32_t t = 1; t <= 3; t++)
    FLI_TRY(train(set, t));
  FLI_TRY(save_and_load(context, &o, set));
out:
  fl_cohort_set_free(set);
  return st;
}

static fl_status one_sketch(fl_context *context, void *arg)
{
  fl_status st = FL_OK;
  fl_sketcher *sketcher = NULL;
  float update[100] = {1.0f};
  uint8_t sketch[8];
  size_t n;
  (void)arg;
  FLI_TRY(fl_sketcher_new(&sketcher, context, 1, 100, 16));
  FLI_TRY(fl_sketcher_write(sketcher, update, 100, sketch, 8, &n));
out:
  fl_sketcher_free(sketcher);
  return st;
}

static void sketches_find_groups(void)
{
  oom_loop(by_sketches, NULL);
}

static void affinities_find_groups(void)
{
  oom_loop(by_affinity, NULL);
}

static void updates_are_sketched(void)
{
  oom_loop(one_sketch, NULL);
}

int main(void)
{
  CHECK_CASE(sketches_find_groups);
  CHECK_CASE(affinities_find_groups);
  CHECK_CASE(updates_are_sketched);
  return check_report();
}
