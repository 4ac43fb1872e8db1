/* SPDX-License-Identifier: Apache-2.0 */
/* A population without a model: sketches of clients of a group lie around the
 * group's direction, and a cohort's loss on a client falls with the share of
 * its group in what the cohort has been trained on lately. Groups 0 and 2 are a
 * little alike, as are 1 and 3. Numbers are made by
 * sums, products and rint alone: the same everywhere. Failures are passed to
 * PEOPLE_MUST, which the test program defines. */
#ifndef COHORT_PEOPLE_H
#define COHORT_PEOPLE_H

#include <fl/cohort.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PEOPLE_GROUPS = 4, PEOPLE_CAP = 8, PEOPLE_DIM = 64, PEOPLE_MOST = 1000 };

typedef struct people {
  fl_cohort_set *set;
  uint64_t state;
  uint32_t n;
  uint32_t per_round;
  double apart; /* how far groups lie from each other; 0: they do not */
  double noise;
  uint8_t group[PEOPLE_MOST];
  uint8_t is_random[PEOPLE_MOST]; /* its sketches are */
  double share[PEOPLE_CAP][PEOPLE_GROUPS];
  double trained[PEOPLE_CAP][PEOPLE_GROUPS]; /* in this round */
  uint32_t events[8];                        /* by kind */
  fl_cohort_event last;
  uint32_t first_kept; /* round; 0: never */
  uint64_t probes;
} people;

static inline uint64_t people_next(uint64_t *state)
{
  uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

static inline uint32_t people_below(people *p, uint32_t n)
{
  return (uint32_t)((people_next(&p->state) >> 32) * n >> 32);
}

/* Uniform in -1..1. */
static inline double people_uniform(uint64_t *state)
{
  return (double)(people_next(state) >> 11) * 0x1p-52 - 1.0;
}

static inline fl_cohort_options people_options(void)
{
  fl_cohort_options o;
  PEOPLE_MUST(fl_cohort_options_init(&o, sizeof o));
  o.dim = PEOPLE_DIM;
  o.cap = PEOPLE_CAP;
  o.min_members = 1;
  o.seed = 1;
  return o;
}

/* `groups` of the same size, in turn. */
static inline void people_open(people *p, fl_context *context,
                               const fl_cohort_options *o, uint32_t n,
                               uint32_t groups)
{
  *p = (people){.n = n, .per_round = 50, .apart = 1.0, .noise = .5};
  p->state = o->seed * 1000;
  PEOPLE_MUST(fl_cohort_set_new(&p->set, context, o));
  for (uint32_t i = 0; i < n; i++) {
    uint32_t slot = 0;
    p->group[i] = (uint8_t)(i % groups);
    PEOPLE_MUST(fl_cohort_set_join(p->set, i, 0, NULL, 0, &slot, NULL));
  }
}

static inline void people_close(people *p)
{
  fl_cohort_set_free(p->set);
}

static inline void people_sketch(people *p, uint32_t client,
                                 uint8_t sketch[PEOPLE_DIM / 2])
{
  uint64_t direction = 77 + p->group[client];
  uint64_t pairs_direction = 99 + p->group[client] % 2;
  double apart = p->is_random[client] ? 0.0 : p->apart;
  memset(sketch, 0, PEOPLE_DIM / 2);
  for (uint32_t j = 0; j < PEOPLE_DIM; j++) {
    double x = apart * (.7 * people_uniform(&direction) +
                        people_uniform(&pairs_direction)) +
               p->noise * people_uniform(&p->state);
    double level = rint(7.5 + 3.0 * x);
    level = level < 0.0 ? 0.0 : level > 15.0 ? 15.0 : level;
    sketch[j / 2] |= (uint8_t)((unsigned)level << j % 2 * 4);
  }
}

static inline double people_loss(people *p, uint32_t cohort, uint32_t client)
{
  const double *shares = p->share[cohort];
  double share = shares[p->group[client]] + .4 * shares[p->group[client] ^ 2];
  if (p->apart == 0.0) share = 1.0;
  return .3 + 1.5 * (1.0 - share) + .02 * people_uniform(&p->state);
}

/* A client's part of a round, as far as its report; *report borrows losses. */
static inline void people_visit(people *p, uint32_t client, uint32_t round,
                                fl_cohort_route *route,
                                double losses[FL_COHORT_MAX],
                                fl_cohort_report *report)
{
  double loss = NAN;
  PEOPLE_MUST(fl_cohort_route_init(route, sizeof *route));
  PEOPLE_MUST(fl_cohort_set_route(p->set, client, round, NAN, route));
  if (route->n_probes == 0) {
    loss = people_loss(p, route->cohort, client);
    PEOPLE_MUST(fl_cohort_set_route(p->set, client, round, loss, route));
  }
  PEOPLE_MUST(fl_cohort_report_init(report, sizeof *report));
  report->cohort = route->cohort;
  report->round = round;
  report->n_probes = route->n_probes;
  report->probes = route->probes;
  report->losses = losses;
  double best = INFINITY;
  for (uint32_t i = 0; i < route->n_probes; i++) {
    losses[i] = people_loss(p, route->probes[i], client);
    if (route->chooses && losses[i] < best) report->cohort = route->probes[i];
    if (losses[i] < best) best = losses[i];
  }
  for (uint32_t i = 0; i < route->n_probes; i++) {
    if (route->probes[i] == report->cohort) loss = losses[i];
  }
  report->loss = loss;
  p->probes += route->n_probes;
}

static inline void people_train(people *p, uint32_t client, uint32_t round)
{
  fl_cohort_route route;
  fl_cohort_report report;
  double losses[FL_COHORT_MAX];
  uint8_t sketch[PEOPLE_DIM / 2];
  people_visit(p, client, round, &route, losses, &report);
  people_sketch(p, client, sketch);
  report.sketch = sketch;
  report.sketch_size = sizeof sketch;
  PEOPLE_MUST(fl_cohort_set_report(p->set, client, &report));
  p->trained[report.cohort][p->group[client]] += 1.0;
}

/* Nobody trains: it tells what it measures. */
static inline void people_evaluate(people *p, uint32_t client, uint32_t round)
{
  fl_cohort_route route;
  fl_cohort_report report;
  double losses[FL_COHORT_MAX];
  people_visit(p, client, round, &route, losses, &report);
  report.has_trained = 0;
  if (report.n_probes > 0)
    PEOPLE_MUST(fl_cohort_set_report(p->set, client, &report));
}

static inline int people_is_alive(const people *p, uint32_t cohort)
{
  fl_cohort_info info;
  PEOPLE_MUST(fl_cohort_info_init(&info, sizeof info));
  PEOPLE_MUST(fl_cohort_set_get_info(p->set, cohort, &info));
  return info.is_alive != 0;
}

static inline void people_follow(people *p)
{
  fl_cohort_event e;
  PEOPLE_MUST(fl_cohort_event_init(&e, sizeof e));
  while (fl_cohort_set_poll(p->set, &e) == FL_OK) {
    p->events[e.kind]++;
    p->last = e;
    if (e.kind == FL_COHORT_KEPT && p->first_kept == 0) p->first_kept = e.round;
    double *kept = p->share[e.cohort], *child = p->share[e.child];
    double sum = (double)e.weight + (double)e.child_weight;
    for (uint32_t g = 0; g < PEOPLE_GROUPS; g++) {
      if (e.kind == FL_COHORT_TRIAL) child[g] = kept[g];
      if (e.kind != FL_COHORT_UNDONE && e.kind != FL_COHORT_MERGED) continue;
      if (sum > 0.0) {
        kept[g] =
            ((double)e.weight * kept[g] + (double)e.child_weight * child[g]) /
            sum;
      }
    }
  }
}

static inline void people_end_cohort(people *p, uint32_t m, uint32_t round)
{
  double sum = 0.0;
  if (!people_is_alive(p, m)) return;
  for (uint32_t g = 0; g < PEOPLE_GROUPS; g++)
    sum += p->trained[m][g];
  for (uint32_t g = 0; g < PEOPLE_GROUPS && sum > 0.0; g++) {
    p->share[m][g] += .2 * (p->trained[m][g] / sum - p->share[m][g]);
    p->trained[m][g] = 0.0;
  }
  PEOPLE_MUST(fl_cohort_set_end_round(p->set, m, round));
}

static inline void people_end_round(people *p, uint32_t round)
{
  for (uint32_t m = 0; m < fl_cohort_set_cap(p->set); m++)
    people_end_cohort(p, m, round);
  PEOPLE_MUST(fl_cohort_set_decide(p->set));
  people_follow(p);
}

/* `per_round` clients, or all, each once. */
static inline void people_round(people *p, uint32_t round)
{
  uint8_t has_trained[PEOPLE_MOST] = {0};
  for (uint32_t i = 0; i < p->per_round && i < p->n;) {
    uint32_t client = people_below(p, p->n);
    if (has_trained[client]) continue;
    has_trained[client] = 1;
    people_train(p, client, round);
    i++;
  }
  people_end_round(p, round);
}

/* Rounds first .. last. */
static inline void people_rounds(people *p, uint32_t first, uint32_t last)
{
  for (uint32_t round = first; round <= last; round++)
    people_round(p, round);
}

static inline fl_cohort_member people_member(const people *p, uint32_t client)
{
  fl_cohort_member member;
  PEOPLE_MUST(fl_cohort_member_init(&member, sizeof member));
  PEOPLE_MUST(fl_cohort_set_get_member(p->set, client, &member));
  return member;
}

static inline double people_pairs(double n)
{
  return n * (n - 1.0) / 2.0;
}

/* Adjusted Rand index over those who have trained, will not compare, and are
 * not random. */
static inline double people_ari(const people *p)
{
  double table[PEOPLE_GROUPS][PEOPLE_CAP] = {{0}};
  double rows[PEOPLE_GROUPS] = {0}, columns[PEOPLE_CAP] = {0};
  double n = 0.0, together = 0.0, a = 0.0, b = 0.0;
  for (uint32_t i = 0; i < p->n; i++) {
    fl_cohort_member member = people_member(p, i);
    if (member.last == 0 || member.is_unknown || p->is_random[i]) continue;
    table[p->group[i]][member.cohort] += 1.0;
    rows[p->group[i]] += 1.0;
    columns[member.cohort] += 1.0;
    n += 1.0;
  }
  for (uint32_t g = 0; g < PEOPLE_GROUPS; g++) {
    a += people_pairs(rows[g]);
    for (uint32_t m = 0; m < PEOPLE_CAP; m++)
      together += people_pairs(table[g][m]);
  }
  for (uint32_t m = 0; m < PEOPLE_CAP; m++)
    b += people_pairs(columns[m]);
  double chance = a * b / people_pairs(n), most = (a + b) / 2.0;
  return most == chance ? 1.0 : (together - chance) / (most - chance);
}

#endif
