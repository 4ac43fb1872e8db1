/* SPDX-License-Identifier: Apache-2.0 */
/* Small sets of cohorts for the targets and their seeds. */
#ifndef FUZZ_COHORT_JOB_H
#define FUZZ_COHORT_JOB_H

#include "fuzz.h"

#include <math.h>

#include <fl/cohort.h>
#include "wire/container.h"

enum { JOB_CLIENTS = 24, JOB_DIM = 16, JOB_CAP = 4, JOB_RULES = 3 };

static inline fl_cohort_set *job_set(uint8_t rule)
{
  static const uint8_t key[FL_COHORT_KEY_BYTES] = {7};
  static const uint32_t rules[JOB_RULES] = {FL_COHORT_SKETCH, FL_COHORT_AUXO,
                                            FL_COHORT_LOSS};
  fl_cohort_set *set = NULL;
  fl_cohort_options o;
  FUZZ_CHECK(fl_cohort_options_init(&o, sizeof o) == FL_OK);
  o.rule = rules[rule % JOB_RULES];
  o.dim = JOB_DIM;
  o.cap = JOB_CAP;
  o.key = key;
  o.min_members = 1;
  o.evidence = 10;
  FUZZ_CHECK(fl_cohort_set_new(&set, NULL, &o) == FL_OK);
  for (uint32_t i = 0; i < JOB_CLIENTS; i++) {
    uint32_t slot;
    FUZZ_CHECK(fl_cohort_set_join(set, i, 0, NULL, 0, &slot, NULL) == FL_OK);
  }
  return set;
}

/* Client `slot` of two groups trains, whatever it is routed to. */
static inline void job_train(fl_cohort_set *set, uint32_t slot, uint32_t round)
{
  fl_cohort_route route;
  fl_cohort_report report;
  double losses[FL_COHORT_MAX];
  uint8_t sketch[JOB_DIM / 2];
  float feature[JOB_DIM];
  FUZZ_CHECK(fl_cohort_route_init(&route, sizeof route) == FL_OK);
  if (fl_cohort_set_route(set, slot, round, NAN, &route) != FL_OK) return;
  FUZZ_CHECK(fl_cohort_report_init(&report, sizeof report) == FL_OK);
  for (uint32_t i = 0; i < JOB_DIM; i++)
    feature[i] = (float)((slot * 5 + i * (1 + slot % 2) + round) % 7) + .5f;
  for (uint32_t i = 0; i < JOB_DIM / 2; i++)
    sketch[i] = (uint8_t)(slot % 2 ? 0xf0 + i % 3 : 0x0f - i % 3);
  report.cohort = route.cohort;
  report.round = round;
  report.loss = .5;
  report.feature = feature;
  report.sketch = sketch;
  report.sketch_size = sizeof sketch;
  report.n_probes = route.n_probes;
  report.probes = route.probes;
  report.losses = losses;
  for (uint32_t i = 0; i < route.n_probes; i++)
    losses[i] = route.probes[i] % 2 == slot % 2 ? .2 : .9;
  for (uint32_t i = 0; route.chooses && i < route.n_probes; i++) {
    if (losses[i] < .5 || i == 0) report.cohort = route.probes[i];
  }
  for (uint32_t i = 0; route.chooses && i < route.n_probes; i++) {
    if (losses[i] < .5) report.cohort = route.probes[i];
  }
  (void)fl_cohort_set_report(set, slot, &report);
}

static inline void job_run(fl_cohort_set *set, uint32_t first, uint32_t last)
{
  fl_cohort_event event;
  FUZZ_CHECK(fl_cohort_event_init(&event, sizeof event) == FL_OK);
  for (uint32_t round = first; round <= last; round++) {
    for (uint32_t i = 0; i < 16; i++)
      job_train(set, (round * 5 + i) % JOB_CLIENTS, round);
    for (uint32_t m = 0; m < JOB_CAP; m++)
      (void)fl_cohort_set_end_round(set, m, round);
    FUZZ_CHECK(fl_cohort_set_decide(set) == FL_OK);
    while (fl_cohort_set_poll(set, &event) == FL_OK)
      continue;
    FUZZ_CHECK(fl_cohort_set_count(set) >= 1);
  }
}

static inline fl_status job_append(void *user, const void *buf, size_t n)
{
  return fli_bytes_append(user, buf, n);
}

typedef struct job_source {
  const uint8_t *at;
  size_t left;
} job_source;

static inline fl_status job_take(void *user, void *buf, size_t n, size_t *got)
{
  job_source *s = user;
  *got = n < s->left ? n : s->left;
  if (*got > 0) memcpy(buf, s->at, *got);
  s->at += *got;
  s->left -= *got;
  return FL_OK;
}

static inline void job_save(const fl_cohort_set *set, fli_bytes *out)
{
  const fl_writer writer = {job_append, out};
  fli_bytes_clear(out);
  FUZZ_CHECK(fl_cohort_set_save(set, &writer) == FL_OK);
}

static inline fl_status job_load(fl_cohort_set *set, const fli_bytes *saved)
{
  job_source from = {saved->data, saved->size};
  const fl_reader reader = {job_take, &from};
  return fl_cohort_set_load(set, &reader);
}

/* What is in the container. */
static inline void job_payload(const fl_cohort_set *set, fli_bytes *payload)
{
  fli_bytes saved;
  uint32_t version;
  fli_bytes_init(&saved, NULL);
  job_save(set, &saved);
  job_source from = {saved.data, saved.size};
  const fl_reader reader = {job_take, &from};
  FUZZ_CHECK(fli_container_read(&reader, FLI_STATE_COHORTS, 2, saved.size,
                                &version, payload) == FL_OK);
  fli_bytes_free(&saved);
}

#endif
