/* SPDX-License-Identifier: Apache-2.0 */
/* What a job's freeze options may be, and what becomes of those left out. */
#include "server_freezing.h"

static fl_status add_job(freezing *f)
{
  const fl_status st = fl_server_add_job(f->world.server, f->world.model,
                                         &f->world.job_options, NULL);
  return st;
}

Test(server_freeze_options, options_that_no_job_can_have_are_refused)
{
  freezing f;
  const uint32_t allowed[1] = {0};
  init(&f, FL_CODEC_F32, FL_FREEZE_SERVER);
  cr_assert_eq(fl_server_new(&f.world.server, NULL, NULL), FL_OK);
  cr_expect_eq(add_job(&f), FL_E_OPTIONS);
  f.options.criterion = FL_FREEZE_CKA;
  cr_expect_eq(add_job(&f), FL_E_OPTIONS);
  f.options.criterion = FL_FREEZE_RELATIVE_PLASTICITY;
  cr_expect_eq(add_job(&f), FL_E_OPTIONS);
  f.options.criterion = FL_FREEZE_FIXED; /* without a schedule */
  cr_expect_eq(add_job(&f), FL_E_OPTIONS);
  f.options.criterion = FL_FREEZE_GRADNORM;
  f.options.max_frozen = 2; /* the last one, too */
  cr_expect_eq(add_job(&f), FL_E_OPTIONS);
  f.options.max_frozen = 1;
  f.options.n_allowed = 1;
  f.options.allowed = allowed;
  cr_expect_eq(add_job(&f), FL_E_CONFLICT);
  f.options.n_allowed = 0;
  f.options.criterion = FL_FREEZE_PLASTICITY;
  f.options.interval = 4;
  f.options.lag = 2; /* of steps */
  cr_expect_eq(add_job(&f), FL_E_CONFLICT);
  f.options.criterion = FL_FREEZE_GRADNORM;
  f.options.interval = f.options.lag = 0;
  cr_expect_eq(fl_server_job_count(f.world.server), 0u);
  cr_expect_eq(add_job(&f), FL_OK);
  sv_free(&f.world);
}

/* It would be the round of step 0, which is that of step 1, too. */
Test(server_freeze_options, schedule_of_round_0_is_refused)
{
  freezing f;
  const fl_freeze_fixed fixed[2] = {{.step = 0, .first_active = 0},
                                    {.step = 1, .first_active = 1}};
  init_fixed(&f, FL_CODEC_F32, 0);
  cr_assert_eq(fl_server_new(&f.world.server, NULL, NULL), FL_OK);
  cr_expect_eq(add_job(&f), FL_E_OPTIONS);
  cr_expect_str_eq(fl_last_error(), "freeze.fixed: got round 0, want >= 1, as "
                                    "rounds are counted from 1");
  f.options.fixed = fixed;
  f.options.n_fixed = 2;
  cr_expect_eq(add_job(&f), FL_E_OPTIONS);
  cr_expect_not_null(strstr(fl_last_error(), "got round 0"));
  f.options.fixed++;
  f.options.n_fixed--;
  cr_expect_eq(add_job(&f), FL_OK);
  sv_free(&f.world);
}

/* Options of an older caller end before `freeze`. */
Test(server_freeze_options, shorter_options_never_freeze)
{
  freezing f;
  init_fixed(&f, FL_CODEC_F32, 1);
  f.world.job_options.struct_size = (uint32_t)offsetof(fl_job_options, freeze);
  cr_assert_eq(fl_server_new(&f.world.server, NULL, NULL), FL_OK);
  cr_assert_eq(add_job(&f), FL_OK);
  cr_expect_null(job_of(&f)->freezing.controller);
  sv_free(&f.world);
}

/* A job that differs from the plain one in the model, its name or its seed; its
 * plan. */
typedef struct job_case {
  int has_other_model;
  const char *name;
  uint64_t seed;
  const uint8_t *given;
} job_case;

static size_t plan_of_job(const job_case *c, uint8_t *bytes, size_t capacity)
{
  freezing f;
  const uint64_t dims[1] = {300};
  fl_model_builder *builder = NULL;
  init_fixed(&f, FL_CODEC_F32, 2);
  if (c->has_other_model) {
    fl_model_free(f.world.model);
    cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
    for (uint32_t i = 0; i < 2; i++) {
      cr_assert_eq(fl_model_builder_module(builder, i), FL_OK);
      cr_assert_eq(fl_model_builder_tensor(builder, i ? "b" : "a", dims, 1, 1),
                   FL_OK);
    }
    cr_assert_eq(fl_model_builder_build(builder, &f.world.model), FL_OK);
    fl_model_builder_free(builder);
  }
  f.world.job_options.name = c->name;
  f.world.job_options.seed = c->seed;
  f.options.job = c->given;
  cr_assert_eq(fl_server_new(&f.world.server, NULL, NULL), FL_OK);
  cr_assert_eq(fl_server_add_job(f.world.server, f.world.model,
                                 &f.world.job_options, NULL),
               FL_OK, "%s", fl_last_error());
  const fli_bytes *plan = &job_of(&f)->freezing.plan;
  const size_t size = plan->size;
  cr_assert(size <= capacity);
  memcpy(bytes, plan->data, size);
  sv_free(&f.world);
  return size;
}

/* All that the plans of version 0 say but the name is the same. */
Test(server_freeze_options, plans_name_their_job)
{
  static const uint8_t given[2][FL_HASH_BYTES] = {{0}, {1}};
  const job_case cases[] = {{0, "a", 1, NULL},     {0, "b", 1, NULL},
                            {0, "a", 2, NULL},     {1, "a", 1, NULL},
                            {0, "a", 1, given[0]}, {0, "a", 1, given[1]}};
  enum { N = sizeof cases / sizeof *cases };
  uint8_t plans[N][256] = {{0}}, again[256] = {0};
  size_t size = 0;
  for (int i = 0; i < N; i++)
    size = plan_of_job(&cases[i], plans[i], sizeof plans[i]);
  for (int i = 0; i < N; i++)
    for (int k = 0; k < i; k++)
      cr_expect_arr_neq(plans[i], plans[k], size, "%d and %d", i, k);
  cr_expect_eq(plan_of_job(&cases[0], again, sizeof again), size);
  cr_expect_arr_eq(plans[0], again, size);
}
