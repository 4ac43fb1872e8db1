/* SPDX-License-Identifier: Apache-2.0 */
/* The options of a job: defaults, reading a host's struct of any age, and
 * everything about them that can be refused. */
#include "server/server.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/options.h"
#include "server/buffered.h"
#include "server/cohorts.h"
#include "server/rule.h"
#include "server/selector.h"

#define FLI_SECONDS UINT64_C(1000000000)
/* What PLAN can carry. */
#define FLI_MAX_SAMPLES (UINT64_C(1) << 40)
enum { FLI_MAX_PASSES = 1000000 };

static fl_job_options defaults(void)
{
  const fl_job_options options = {
      .struct_size = (uint32_t)sizeof(fl_job_options),
      .rounds = 10,
      .name = "default",
      .min_participants = 1,
      .min_clients = 1,
      .over_selection = 1.0f,
      .weighting = FL_WEIGHT_SAMPLES,
      .scale_mode = FL_SCALE_EXCHANGED,
      .epochs = 1,
      .batch_size = 32,
      .learning_rate = 0.05f,
      .rate_factor = 0.1f,
      .server_learning_rate = 1.0f,
      .norm_deadline_ns = 60 * FLI_SECONDS,
      .update_deadline_ns = 600 * FLI_SECONDS,
      .evaluate_deadline_ns = 60 * FLI_SECONDS,
      .return_grace_ns = 10 * FLI_SECONDS,
      .retry_pause_ns = 5 * FLI_SECONDS,
      .steps_kept = 8,
      .feedback_decay = 0.5f,
      .min_cover = 1,
      .cohort_probed = 40,
      .cohort_share = FL_COHORT_BY_SIZE,
      .max_samples = FLI_MAX_SAMPLES,
      .buffer_staleness = 16,
  };
  return options;
}

fl_status fl_job_options_init(fl_job_options *options, size_t size)
{
  const fl_job_options full = defaults();
  fli_clear_error();
  return fli_options_init(options, size, &full, sizeof full);
}

/* Of new jobs alone: one that was kept with such a deadline is restored. */
static fl_status check_deadlines(const fl_job_options *options)
{
  const struct {
    const char *name;
    uint64_t ns;
  } deadlines[] = {
      {"norm_deadline_ns", options->norm_deadline_ns},
      {"update_deadline_ns", options->update_deadline_ns},
      {"evaluate_deadline_ns",
       options->evaluate_every > 0 ? options->evaluate_deadline_ns : 1},
  };
  for (size_t i = 0; i < FLI_COUNT_OF(deadlines); i++)
    if (deadlines[i].ns == 0)
      return fli_error(FL_E_OPTIONS, "%s: got 0, want time to answer",
                       deadlines[i].name);
  return FL_OK;
}

fl_status fli_job_options_load(fl_job_options *local,
                               fl_compressor_options *codec,
                               const fl_job_options *options)
{
  fl_status st = FL_OK;
  *local = defaults();
  FLI_TRY(fl_compressor_options_init(codec, sizeof *codec));
  FLI_TRY(fli_options_load(local, sizeof *local, options, "fl_job_options"));
  FLI_TRY(fli_options_load(codec, sizeof *codec, local->codec,
                           "fl_compressor_options"));
  local->codec = codec;
  /* How many updates a table's sums will hold. */
  if (codec->workers == 0) codec->workers = local->participants;
  FLI_TRY(fli_job_options_check(local));
  FLI_TRY(check_deadlines(local));
out:
  return st;
}

static int is_printable(const char *text)
{
  size_t n = 0;
  while (text[n] >= 0x20 && text[n] < 0x7f && n < FLI_ID_BYTES)
    n++;
  return text[n] == '\0' && n >= 1 && n < FLI_ID_BYTES;
}

static fl_status check_numbers(const fl_job_options *options)
{
  const float over = options->over_selection;
  const float momentum = options->server_momentum;
  if (options->rounds < 1)
    return fli_error(FL_E_OPTIONS, "rounds: got 0, want >= 1");
  if (!(over >= 1.0f && over <= 10.0f))
    return fli_error(FL_E_OPTIONS, "over_selection: got %g, want 1..10",
                     (double)over);
  if (options->participants > FL_MAX_SLOTS)
    return fli_error(FL_E_OPTIONS, "participants: got %u, want <= %d",
                     options->participants, FL_MAX_SLOTS);
  if (options->min_participants < 1 || options->min_participants > FL_MAX_SLOTS)
    return fli_error(FL_E_OPTIONS, "min_participants: got %u, want 1..%d",
                     options->min_participants, FL_MAX_SLOTS);
  if (options->min_clients < 1)
    return fli_error(FL_E_OPTIONS, "min_clients: got 0, want >= 1");
  if (options->epochs < 1 || options->epochs > FLI_MAX_PASSES ||
      options->batch_size < 1 || options->batch_size > FLI_MAX_PASSES)
    return fli_error(FL_E_OPTIONS, "epochs, batch_size: got %u, %u, want 1..%d",
                     options->epochs, options->batch_size, FLI_MAX_PASSES);
  if (options->weight_cap > FLI_MAX_SAMPLES)
    return fli_error(FL_E_OPTIONS, "weight_cap: got %llu, want <= 2^40",
                     (unsigned long long)options->weight_cap);
  if (options->max_samples < 1 || options->max_samples > FLI_MAX_SAMPLES)
    return fli_error(FL_E_OPTIONS, "max_samples: got %llu, want 1..2^40",
                     (unsigned long long)options->max_samples);
  if (!isfinite(options->learning_rate) || options->learning_rate < 0.0f)
    return fli_error(FL_E_OPTIONS, "learning_rate: got %g, want >= 0",
                     (double)options->learning_rate);
  if (!(options->rate_factor >= 0.0f && options->rate_factor <= 1.0f))
    return fli_error(FL_E_OPTIONS, "rate_factor: got %g, want 0..1",
                     (double)options->rate_factor);
  if (!isfinite(options->server_learning_rate) ||
      options->server_learning_rate <= 0.0f)
    return fli_error(FL_E_OPTIONS, "server_learning_rate: got %g, want > 0",
                     (double)options->server_learning_rate);
  if (!(momentum >= 0.0f && momentum < 1.0f))
    return fli_error(FL_E_OPTIONS, "server_momentum: got %g, want 0..<1",
                     (double)momentum);
  if (!(options->feedback_decay >= 0.0f && options->feedback_decay <= 1.0f))
    return fli_error(FL_E_OPTIONS, "feedback_decay: got %g, want 0..1",
                     (double)options->feedback_decay);
  return FL_OK;
}

static fl_status check_calls(const fl_job_options *options)
{
  if (options->demands & ~(uint32_t)FL_CONDITION_ALL)
    return fli_error(FL_E_OPTIONS, "demands: got %x, want FL_CONDITION_*",
                     options->demands);
  if (options->checkin_ns > 24 * 3600 * FLI_SECONDS)
    return fli_error(FL_E_OPTIONS, "checkin_ns: got more than a day");
  return FL_OK;
}

static fl_status check_choices(const fl_job_options *options)
{
  if (options->rate_schedule > FL_SCHEDULE_COSINE)
    return fli_error(FL_E_OPTIONS, "rate_schedule: got %u, want FL_SCHEDULE_*",
                     options->rate_schedule);
  if (options->weighting != FL_WEIGHT_SAMPLES &&
      options->weighting != FL_WEIGHT_UNIFORM)
    return fli_error(FL_E_OPTIONS, "weighting: got %u, want FL_WEIGHT_*",
                     options->weighting);
  if (options->scale_mode != FL_SCALE_EXCHANGED &&
      options->scale_mode != FL_SCALE_PUBLIC)
    return fli_error(FL_E_OPTIONS, "scale_mode: got %u, want FL_SCALE_*",
                     options->scale_mode);
  if (options->scale_mode == FL_SCALE_PUBLIC &&
      options->codec->codec != FL_CODEC_THC)
    return fli_error(FL_E_CONFLICT,
                     "scale_mode: got PUBLIC with codec %u, want THC",
                     options->codec->codec);
  if (options->error_feedback > 1)
    return fli_error(FL_E_OPTIONS, "error_feedback: got %u, want 0 or 1",
                     options->error_feedback);
  if (options->error_feedback && options->codec->codec == FL_CODEC_F32)
    return fli_error(FL_E_CONFLICT,
                     "error_feedback: got 1 with codec f32, which loses "
                     "nothing");
  if (options->weighting == FL_WEIGHT_UNIFORM && options->weight_cap != 0)
    return fli_error(FL_E_CONFLICT,
                     "weight_cap: got a cap with uniform weights, want 0");
  if (options->participants > 0 &&
      options->min_participants > options->participants)
    return fli_error(FL_E_CONFLICT, "min_participants: got %u, want <= %u",
                     options->min_participants, options->participants);
  return FL_OK;
}

fl_status fli_job_options_check(const fl_job_options *options)
{
  if (!options->name || !is_printable(options->name))
    return fli_error(FL_E_ARGUMENT,
                     "job name: want 1..64 printable ASCII bytes");
  fl_status st = check_numbers(options);
  if (st == FL_OK) st = check_calls(options);
  if (st == FL_OK) st = check_choices(options);
  if (st == FL_OK) st = fli_cohorts_check(options);
  if (st == FL_OK) st = fli_selector_check(options);
  if (st == FL_OK) st = fli_buffered_check(options);
  return st == FL_OK ? fli_rule_check(options) : st;
}
