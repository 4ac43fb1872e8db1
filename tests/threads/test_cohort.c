/* SPDX-License-Identifier: Apache-2.0 */
/* Reports and ends of rounds of different cohorts on two threads at once: the
 * same state, to the byte, as one after the other. */
#include <pthread.h>
#include <stdlib.h>

#include "check.h"

#define PEOPLE_MUST(call) CHECK_OK(call)
#include "cohort_people.h"

enum { CLIENTS = 400, FIRST = 60, ROUNDS = 30, PARTS = 2, PER_ROUND = 25 };

typedef struct part {
  people p; /* a copy: draws of its own, the same set */
  uint32_t cohort;
  uint32_t round;
  uint32_t clients[PER_ROUND];
} part;

/* Before the threads run: only reports and ends of rounds may meet. */
static void choose_clients(part *q)
{
  uint32_t n = 0;
  for (uint32_t i = q->round * 7 % CLIENTS; n < PER_ROUND;
       i = (i + 3) % CLIENTS) {
    if (people_member(&q->p, i).cohort == q->cohort) q->clients[n++] = i;
  }
}

static void *run_part(void *arg)
{
  part *q = arg;
  for (uint32_t k = 0; k < PER_ROUND; k++) {
    const uint32_t i = q->clients[k];
    fl_cohort_report report;
    uint8_t sketch[PEOPLE_DIM / 2];
    people_sketch(&q->p, i, sketch);
    CHECK_OK(fl_cohort_report_init(&report, sizeof report));
    report.cohort = q->cohort;
    report.round = q->round;
    report.sketch = sketch;
    report.sketch_size = sizeof sketch;
    report.loss = .3;
    CHECK_OK(fl_cohort_set_report(q->p.set, i, &report));
  }
  CHECK_OK(fl_cohort_set_end_round(q->p.set, q->cohort, q->round));
  return NULL;
}

static void run(people *p, int is_parallel)
{
  part parts[PARTS];
  for (uint32_t t = FIRST + 1; t <= FIRST + ROUNDS; t++) {
    pthread_t threads[PARTS];
    for (uint32_t k = 0; k < PARTS; k++) {
      parts[k] = (part){.p = *p, .cohort = k, .round = t};
      parts[k].p.state = t * 10 + k;
      choose_clients(&parts[k]);
    }
    for (uint32_t k = 0; k < PARTS; k++) {
      if (!is_parallel) run_part(&parts[k]);
      if (is_parallel)
        CHECK(pthread_create(&threads[k], NULL, run_part, &parts[k]) == 0);
    }
    for (uint32_t k = 0; is_parallel && k < PARTS; k++)
      CHECK(pthread_join(threads[k], NULL) == 0);
    CHECK_OK(fl_cohort_set_decide(p->set));
    people_follow(p);
  }
}

static void save(const people *p, fl_buffer **buffer)
{
  fl_writer writer;
  CHECK_OK(fl_buffer_new(buffer, NULL));
  CHECK_OK(fl_buffer_as_writer(*buffer, &writer));
  CHECK_OK(fl_cohort_set_save(p->set, &writer));
}

static void cohorts_run_beside_each_other(void)
{
  fl_buffer *states[2] = {NULL};
  const uint8_t *data[2] = {NULL};
  size_t n[2] = {0};
  for (int i = 0; i < 2; i++) {
    people p;
    fl_cohort_options o = people_options();
    o.seed = 7;
    people_open(&p, NULL, &o, CLIENTS, 2);
    people_rounds(&p, 1, FIRST);
    CHECK_EQ_U64(fl_cohort_set_count(p.set), PARTS);
    run(&p, i);
    save(&p, &states[i]);
    CHECK_OK(fl_buffer_get(states[i], &data[i], &n[i]));
    people_close(&p);
  }
  CHECK_EQ_U64(n[0], n[1]);
  if (n[0] == n[1]) CHECK_EQ_MEM(data[0], data[1], n[0]);
  fl_buffer_free(states[0]);
  fl_buffer_free(states[1]);
}

int main(void)
{
  CHECK_CASE(cohorts_run_beside_each_other);
  return check_report();
}
