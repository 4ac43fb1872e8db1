/* SPDX-License-Identifier: Apache-2.0 */
/* What a set may be made with. */
#include "cohort_fixture.h"

static fl_status try_options(const fl_cohort_options *o)
{
  fl_cohort_set *set = NULL;
  fl_status st = fl_cohort_set_new(&set, NULL, o);
  cr_assert_eq(set == NULL, st != FL_OK);
  fl_cohort_set_free(set);
  return st;
}

static fl_cohort_options defaults(void)
{
  fl_cohort_options o;
  PEOPLE_MUST(fl_cohort_options_init(&o, sizeof o));
  return o;
}

Test(cohort_options, defaults_and_none_are_good)
{
  fl_cohort_options o = defaults();
  IS(try_options(&o), FL_OK);
  IS(try_options(NULL), FL_OK);
  IS(fl_cohort_set_new(NULL, NULL, &o), FL_E_ARGUMENT);
  fl_cohort_set_free(NULL);
}

Test(cohort_options, numbers_out_of_range_are_refused)
{
#define REFUSED(field, value)                                             \
  do {                                                                    \
    fl_cohort_options o_ = defaults();                                    \
    o_.field = (value);                                                   \
    IS(try_options(&o_), FL_E_OPTIONS);                                   \
    cr_assert_not_null(strstr(fl_last_error(), #field), "%s: %s", #field, \
                       fl_last_error());                                  \
  } while (0)
  REFUSED(rule, 0);
  REFUSED(rule, 4);
  REFUSED(cap, FL_COHORT_MAX + 1);
  REFUSED(dim, 24);
  REFUSED(dim, 4112);
  REFUSED(min_members, 0);
  REFUSED(min_participants, 1);
  REFUSED(asks_first, 2);
  REFUSED(evidence, 9);
  REFUSED(evidence, 201);
  REFUSED(reseed, 0);
  REFUSED(wait, 0);
  REFUSED(trial_length, 0);
  REFUSED(trial_most, 65);
  REFUSED(trial_probes, 41);
  REFUSED(forget, 0);
  REFUSED(is_published, 2);
  REFUSED(floor, 1.5f);
  REFUSED(floor, NAN);
  REFUSED(spike, 0.0f);
  REFUSED(spike, INFINITY);
  REFUSED(agreement, -.1f);
  REFUSED(trial_margin, -1.0f);
  REFUSED(n_splits, 1);
#undef REFUSED
}

Test(cohort_options, limits_themselves_are_good)
{
  fl_cohort_options o = defaults();
  o.cap = FL_COHORT_MAX;
  o.dim = 4096;
  o.trial_most = 64;
  o.trial_probes = 64;
  o.evidence = 200;
  o.floor = 1.0f;
  IS(try_options(&o), FL_OK);
  o.cap = 1;
  o.dim = 16;
  o.trial_most = o.trial_probes = 10;
  o.evidence = 10;
  o.floor = 0.0f;
  IS(try_options(&o), FL_OK);
}

Test(cohort_options, splits_rise)
{
  const uint32_t rising[] = {5, 9}, falling[] = {9, 5};
  fl_cohort_options o = defaults();
  o.rule = FL_COHORT_AUXO;
  IS(try_options(&o), FL_E_OPTIONS);
  o.dim = 100;
  o.splits = rising;
  o.n_splits = 2;
  IS(try_options(&o), FL_OK);
  o.splits = falling;
  IS(try_options(&o), FL_E_OPTIONS);
}

Test(cohort_options, older_host_gets_the_rest_by_default)
{
  fl_cohort_options o;
  PEOPLE_MUST(fl_cohort_options_init(&o, 32));
  cr_assert_eq(o.struct_size, 32);
  o.rule = FL_COHORT_LOSS;
  IS(try_options(&o), FL_OK);
  o.struct_size = 2;
  IS(try_options(&o), FL_E_OPTIONS);
}
