/* SPDX-License-Identifier: Apache-2.0 */
/* What a buffer does not go with, and its ranges. */
#include <criterion/criterion.h>

#include "server_fixture.h"

static void prepare(sv_world *world)
{
  sv_init(world, NULL, FL_CODEC_THC);
  world->codec.thc_mode = FL_THC_UNIFORM;
  world->job_options.scale_mode = FL_SCALE_PUBLIC;
  world->job_options.buffer = 2;
}

typedef void (*change)(sv_world *world);

static fl_status add_with(change change_it)
{
  sv_world world;
  prepare(&world);
  change_it(&world);
  cr_assert_eq(fl_server_new(&world.server, NULL, NULL), FL_OK);
  const fl_status st =
      fl_server_add_job(world.server, world.model, &world.job_options, NULL);
  sv_free(&world);
  return st;
}

#define CHANGE(name, statement)                \
  static void name(sv_world *world)            \
  {                                            \
    fl_job_options *job = &world->job_options; \
    (void)job;                                 \
    statement;                                 \
  }
CHANGE(nothing, )
CHANGE(of_f32, world->codec.codec = FL_CODEC_F32; world->codec.thc_mode = 0;
       world->codec.bits = 0; world->codec.granularity = 0;
       job->scale_mode = FL_SCALE_EXCHANGED)
CHANGE(with_dither, world->codec.thc_mode = FL_THC_DITHER)
CHANGE(exchanged, job->scale_mode = FL_SCALE_EXCHANGED)
CHANGE(capped, job->weight_cap = 5)
CHANGE(few_at_once, job->participants = 1)
CHANGE(more_than_it_holds, job->min_participants = 3)
CHANGE(evaluated, job->evaluate_every = 1)
CHANGE(with_feedback, job->error_feedback = 1)
CHANGE(too_long, job->buffer = 4096)
CHANGE(too_stale, job->buffer_staleness = 65)
static fl_freeze_options freezing;
CHANGE(frozen, job->freeze = &freezing;
       (void)fl_freeze_options_init(&freezing, sizeof freezing))
static fl_cohort_options cohorts;
CHANGE(in_cohorts, job->cohorts = &cohorts;
       (void)fl_cohort_options_init(&cohorts, sizeof cohorts))
static fl_selection_options selection;
CHANGE(selected, job->participants = 3; job->selection = &selection;
       (void)fl_selection_options_init(&selection, sizeof selection);
       selection.rule = FL_SELECT_OORT)
static fl_strategy_options rule;
CHANGE(robust, job->strategy = &rule;
       (void)fl_strategy_options_named(&rule, sizeof rule, "median"))
CHANGE(adaptive, job->strategy = &rule;
       (void)fl_strategy_options_named(&rule, sizeof rule, "fedadam"))

Test(server_buffered_options, what_excludes_each_other_is_refused)
{
  static const change conflicts[] = {
      of_f32,      with_dither,        exchanged, capped,
      few_at_once, more_than_it_holds, evaluated, with_feedback,
      frozen,      in_cohorts,         selected,  robust};
  cr_expect_eq(add_with(nothing), FL_OK);
  cr_expect_eq(add_with(adaptive), FL_OK);
  for (size_t i = 0; i < sizeof conflicts / sizeof *conflicts; i++)
    cr_expect_eq(add_with(conflicts[i]), FL_E_CONFLICT, "%zu: %s", i,
                 fl_last_error());
  cr_expect_eq(add_with(too_long), FL_E_OPTIONS);
  cr_expect_eq(add_with(too_stale), FL_E_OPTIONS);
}
