/* SPDX-License-Identifier: Apache-2.0 */
/* Sets of cohorts for unit tests: what a call must return, and small sets. */
#ifndef COHORT_FIXTURE_H
#define COHORT_FIXTURE_H

#include <criterion/criterion.h>

#include <fl/base.h>

#define PEOPLE_MUST(call)                                       \
  do {                                                          \
    fl_status must_ = (call);                                   \
    cr_assert_eq(must_, FL_OK, "%s: %s", fl_status_name(must_), \
                 fl_last_error());                              \
  } while (0)
#include "cohort_people.h"

#define IS(call, want)                                            \
  do {                                                            \
    fl_status is_ = (call);                                       \
    cr_assert_eq(is_, (want), "got %s (%s)", fl_status_name(is_), \
                 fl_last_error());                                \
  } while (0)

static inline void open_groups(people *p, uint64_t seed, uint32_t n,
                               uint32_t groups)
{
  fl_cohort_options o = people_options();
  o.seed = seed;
  people_open(p, NULL, &o, n, groups);
}

/* Two cohorts, 0 and 1, kept, at the end of round 60; clients 0, 2, 4 ... of
 * the one, 1, 3, 5 ... of the other. */
static inline void open_two(people *p)
{
  open_groups(p, 7, 200, 2);
  people_rounds(p, 1, 60);
  cr_assert_eq(fl_cohort_set_count(p->set), 2);
  cr_assert_float_eq(people_ari(p), 1.0, 1e-12);
}

static inline fl_cohort_route route_of(people *p, uint32_t slot, uint32_t round,
                                       double loss)
{
  fl_cohort_route route;
  PEOPLE_MUST(fl_cohort_route_init(&route, sizeof route));
  PEOPLE_MUST(fl_cohort_set_route(p->set, slot, round, loss, &route));
  return route;
}

static inline fl_cohort_info info_of(const people *p, uint32_t cohort)
{
  fl_cohort_info info;
  PEOPLE_MUST(fl_cohort_info_init(&info, sizeof info));
  PEOPLE_MUST(fl_cohort_set_get_info(p->set, cohort, &info));
  return info;
}

/* The set's bytes; *n of them, to be freed. */
static inline uint8_t *bytes_of(const fl_cohort_set *set, size_t *n)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  const uint8_t *data = NULL;
  PEOPLE_MUST(fl_buffer_new(&buffer, NULL));
  PEOPLE_MUST(fl_buffer_as_writer(buffer, &writer));
  PEOPLE_MUST(fl_cohort_set_save(set, &writer));
  PEOPLE_MUST(fl_buffer_get(buffer, &data, n));
  uint8_t *copy = malloc(*n);
  cr_assert_not_null(copy);
  memcpy(copy, data, *n);
  fl_buffer_free(buffer);
  return copy;
}

static inline fl_status load_bytes(fl_cohort_set *set, const uint8_t *data,
                                   size_t n)
{
  fl_buffer *buffer = NULL;
  fl_reader reader;
  PEOPLE_MUST(fl_buffer_new(&buffer, NULL));
  PEOPLE_MUST(fl_buffer_append(buffer, data, n));
  PEOPLE_MUST(fl_buffer_as_reader(buffer, &reader));
  fl_status st = fl_cohort_set_load(set, &reader);
  fl_buffer_free(buffer);
  return st;
}

static inline int is_as(const fl_cohort_set *set, const uint8_t *before,
                        size_t n_before)
{
  size_t n;
  uint8_t *now = bytes_of(set, &n);
  int is_same = n == n_before && memcmp(now, before, n) == 0;
  free(now);
  return is_same;
}

#endif
