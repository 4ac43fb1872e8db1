/* SPDX-License-Identifier: Apache-2.0 */
/* The freeze controller of a job. At the end of a round that finished it gets
 * the mean loss and what the counted clients reported, one voice each; what it
 * decides holds from the next round on, which is when first_active and the
 * bytes that plans carry change. So a round has one plan, whatever happens in
 * it, and an aborted one decides nothing.
 *
 * A schedule (FIXED) needs no reports: to it, the round is a step. */
#include "server/server.h"

#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/options.h"
#include "freeze/freeze.h"
#include "server/state.h"

/* ---- making ---- */

static int is_scheduled(const fli_freezing *freezing)
{
  return freezing->options.criterion == FL_FREEZE_FIXED;
}

/* The step that begins is the round that comes next. */
static fl_status pass_round(fl_freeze *controller)
{
  fl_freeze_request request;
  fl_status st = fl_freeze_request_init(&request, sizeof request);
  if (st == FL_OK) st = fl_freeze_begin_step(controller, 0.0f, &request);
  return st == FL_OK ? fl_freeze_end_step(controller, 0.0) : st;
}

static fl_status check_options(const fl_freeze_options *options)
{
  if (options->criterion != FL_FREEZE_GRADNORM &&
      options->criterion != FL_FREEZE_PLASTICITY &&
      options->criterion != FL_FREEZE_FIXED)
    return fli_error(FL_E_OPTIONS,
                     "freeze.criterion: got %u, want GRADNORM, PLASTICITY or "
                     "FIXED",
                     options->criterion);
  if (options->n_allowed > 0)
    return fli_error(FL_E_CONFLICT,
                     "freeze.allowed: got %u values, want none: the plan is "
                     "for all clients",
                     options->n_allowed);
  if (options->lag > 0)
    return fli_error(FL_E_CONFLICT,
                     "freeze.lag: got %llu, want 0: a round has no steps",
                     (unsigned long long)options->lag);
  if (options->n_fixed > 0 && !options->fixed)
    return fli_error(FL_E_OPTIONS, "freeze.fixed: got NULL, want %u rows",
                     options->n_fixed);
  for (uint32_t i = 0; i < options->n_fixed; i++)
    if (options->fixed[i].step == 0)
      return fli_error(FL_E_OPTIONS,
                       "freeze.fixed: got round 0, want >= 1, as rounds are "
                       "counted from 1");
  return FL_OK;
}

/* Another model, name or seed is another job, whose plans are not for the
 * controllers that clients made for this one. */
static void derive_name(const fli_job *job, uint8_t name[FL_HASH_BYTES])
{
  fli_hasher hasher;
  fli_hasher_init(&hasher);
  fli_hasher_update(&hasher, "libfl freeze job", 16);
  fli_hasher_update(&hasher, job->schema, sizeof job->schema);
  fli_hasher_u64(&hasher, job->options.seed);
  fli_hasher_update(&hasher, job->name, strlen(job->name));
  fli_hasher_final(&hasher, name);
}

/* Everything that the caller's options point to becomes ours. */
static fl_status keep_options(fli_job *job, const fl_freeze_options *given)
{
  fl_status st = FL_OK;
  fli_freezing *freezing = &job->freezing;
  fl_freeze_options options;
  FLI_TRY(fl_freeze_options_init(&options, sizeof options));
  FLI_TRY(
      fli_options_load(&options, sizeof options, given, "fl_freeze_options"));
  if (options.criterion == 0) options.criterion = FL_FREEZE_GRADNORM;
  FLI_TRY(check_options(&options));
  if (options.n_fixed > 0) {
    const size_t n = options.n_fixed;
    freezing->fixed = fli_alloc(job->context, n, sizeof *freezing->fixed);
    if (!freezing->fixed) FLI_TRY(fli_nomem(n * sizeof *freezing->fixed));
    memcpy(freezing->fixed, options.fixed, n * sizeof *freezing->fixed);
  }
  if (options.job)
    memcpy(freezing->name, options.job, sizeof freezing->name);
  else
    derive_name(job, freezing->name);
  options.fixed = freezing->fixed;
  options.job = freezing->name;
  freezing->options = options;
out:
  return st;
}

/* Rounds are numbered from 1, steps from 0. Nobody reports of a module that has
 * nothing to train: the front steps over it. */
static fl_status make_controller(fli_job *job)
{
  fl_status st = FL_OK;
  fli_freezing *freezing = &job->freezing;
  fl_freeze_options options = freezing->options;
  const size_t n = options.n_fixed;
  uint8_t *empty = NULL;
  fl_freeze_fixed *steps = fli_alloc(job->context, n, sizeof *steps);
  if (!steps) return fli_nomem(n * sizeof *steps);
  for (size_t i = 0; i < n; i++) {
    steps[i] = options.fixed[i];
    steps[i].step--;
  }
  options.fixed = n > 0 ? steps : NULL;
  options.steps_per_epoch = is_scheduled(freezing) ? 1 : 0;
  if (options.total_steps == 0) options.total_steps = job->options.rounds;
  empty = fli_alloc(job->context, job->n_modules, 1);
  if (!empty) FLI_TRY(fli_nomem(job->n_modules));
  FLI_TRY(fl_freeze_new(&freezing->controller, job->context, job->n_modules,
                        &options));
  memset(empty, 1, job->n_modules);
  for (uint32_t s = 0; s < job->n_segments; s++)
    empty[job->modules[s]] = 0;
  fli_freeze_set_empty(freezing->controller, empty);
out:
  fli_free(job->context, empty, job->n_modules);
  fli_free(job->context, steps, n * sizeof *steps);
  return st;
}

static fl_status copy_plan(fli_job *job)
{
  fl_status st = FL_OK;
  fl_freeze_plan plan;
  size_t size = 0;
  fli_bytes bytes;
  fli_freezing *freezing = &job->freezing;
  fli_bytes_init(&bytes, job->context);
  FLI_TRY(fl_freeze_plan_init(&plan, sizeof plan));
  FLI_TRY(fl_freeze_get_plan(freezing->controller, &plan));
  FLI_TRY(fl_freeze_copy_plan(freezing->controller, NULL, 0, &size));
  FLI_TRY(fli_bytes_reserve(&bytes, size));
  FLI_TRY(fl_freeze_copy_plan(freezing->controller, bytes.data, size, &size));
  bytes.size = size;
  fli_bytes_free(&freezing->plan);
  freezing->plan = bytes;
  job->first_active = plan.first_active;
  return FL_OK;
out:
  fli_bytes_free(&bytes);
  return st;
}

fl_status fli_freezing_init(fli_job *job, const fl_freeze_options *given)
{
  fl_status st = FL_OK;
  job->options.freeze = NULL;
  if (!given) return FL_OK;
  FLI_TRY(keep_options(job, given));
  job->options.freeze = &job->freezing.options;
  FLI_TRY(make_controller(job));
  if (is_scheduled(&job->freezing))
    FLI_TRY(pass_round(job->freezing.controller));
  FLI_TRY(copy_plan(job));
out:
  return st;
}

void fli_freezing_free(fli_job *job)
{
  fli_freezing *freezing = &job->freezing;
  fl_freeze_free(freezing->controller);
  fli_free(job->context, freezing->fixed,
           freezing->options.n_fixed * sizeof *freezing->fixed);
  fli_bytes_free(&freezing->plan);
}

/* ---- rounds ---- */

uint32_t fli_freezing_reports(const fli_job *job)
{
  const fli_freezing *freezing = &job->freezing;
  return freezing->controller && !is_scheduled(freezing)
             ? freezing->options.criterion
             : 0;
}

static void announce(fli_job *job, const fl_freeze_plan *plan)
{
  fl_server_event event = fli_event_of(job, FL_SERVER_FREEZE_CHANGED);
  event.round = job->round;
  event.model_version = job->store.canonical.version;
  event.first_active = plan->first_active;
  event.plan_version = plan->version;
  event.freeze_reason = plan->reason;
  fli_events_add(&job->server->events, &event, "",
                 "round %llu: modules below %u of %u are frozen",
                 (unsigned long long)job->round, plan->first_active,
                 plan->n_modules);
}

fl_status fli_freezing_begin_round(fli_job *job)
{
  fl_freeze_plan plan;
  fl_status st = FL_OK;
  fli_freezing *freezing = &job->freezing;
  if (!freezing->controller) return FL_OK;
  FLI_TRY(fl_freeze_plan_init(&plan, sizeof plan));
  FLI_TRY(fl_freeze_get_plan(freezing->controller, &plan));
  if (plan.version == freezing->announced) return FL_OK;
  FLI_TRY(copy_plan(job));
  freezing->announced = plan.version;
  announce(job, &plan);
out:
  return st;
}

static int is_report(const fli_manifest *manifest)
{
  return isfinite(manifest->report_value) && manifest->report_value >= 0.0;
}

void fli_freezing_take_report(fli_peer *peer, fli_member *member,
                              const fli_manifest *manifest)
{
  const fli_participant *who = peer->participant;
  const fli_job *job = who->job;
  if (!manifest->has_report || !fli_freezing_reports(job)) return;
  if (is_report(manifest)) {
    member->has_report = 1;
    member->report_module = manifest->report_module;
    member->report_value = manifest->report_value;
    return;
  }
  fl_server_event event = fli_event_of(job, FL_SERVER_PEER_REJECTED);
  event.round = job->round;
  event.peer = peer->number;
  event.reason = FL_REJECT_RANGE;
  fli_events_add(&job->server->events, &event, who->id,
                 "report of module %u: got %g, want a number >= 0; the update "
                 "counts",
                 manifest->report_module, manifest->report_value);
}

/* In order of id, as the losses. Each has the same weight: samples are what
 * clients say that they have, and the medians are there to bound what liars
 * do. Fewer than half of those that count are nobody's majority: clients of
 * little depth do not report. */
static uint32_t gather(const fli_job *job, fl_freeze_report *reports)
{
  uint32_t n = 0, n_counted = 0;
  for (uint32_t i = 0; i < job->n_members; i++) {
    const fli_member *member = &job->members[i];
    n_counted += member->is_counted != 0;
    if (!member->is_counted || !member->has_report) continue;
    reports[n++] = (fl_freeze_report){
        .struct_size = (uint32_t)sizeof *reports,
        .module = member->report_module,
        .value = member->report_value,
        .weight = 1,
    };
  }
  return 2 * (uint64_t)n >= n_counted ? n : 0;
}

static fl_status end_round(fli_job *job, double loss)
{
  const size_t n = job->n_members;
  fl_freeze_report *reports = fli_alloc(job->context, n, sizeof *reports);
  if (!reports) return fli_nomem(n * sizeof *reports);
  const fl_status st = fl_freeze_end_round(job->freezing.controller, loss,
                                           reports, gather(job, reports));
  fli_free(job->context, reports, n * sizeof *reports);
  return st;
}

/* Why the plan is as it is. A change itself is told of when it holds. */
static void tell(fli_job *job)
{
  fl_freeze_event seen;
  fl_status st = fl_freeze_event_init(&seen, sizeof seen);
  for (; st == FL_OK; st = fl_freeze_poll(job->freezing.controller, &seen)) {
    const int is_value = seen.kind == FL_FREEZE_EVALUATED;
    if (!is_value && seen.kind != FL_FREEZE_BOOTED) continue;
    fl_server_event event = fli_event_of(
        job, is_value ? FL_SERVER_FREEZE_EVALUATED : FL_SERVER_FREEZE_BOOTED);
    event.round = job->round;
    event.first_active = seen.first_active;
    event.plan_version = seen.version;
    if (is_value) {
      event.module = seen.module;
      event.below = seen.below;
      event.value = seen.value;
      event.threshold = seen.threshold;
      event.raw = seen.raw;
    }
    fli_events_add(&job->server->events, &event, "", "round %llu: %s",
                   (unsigned long long)job->round, seen.text);
  }
  fli_clear_error(); /* that there is no more */
}

void fli_freezing_end_round(fli_job *job, double loss)
{
  const fli_freezing *freezing = &job->freezing;
  if (!freezing->controller) return;
  /* For lack of memory this round's reports say nothing; the next ones may. */
  (void)(is_scheduled(freezing) ? pass_round(freezing->controller)
                                : end_round(job, loss));
  tell(job);
}

/* ---- snapshots ---- */

static void write_options(fli_msg_writer *writer, const fli_freezing *freezing)
{
  const fl_freeze_options *options = &freezing->options;
  fli_saved_write(writer, &fli_saved_freeze_options, options);
  fli_writer_array(writer, 2 * options->n_fixed);
  for (uint32_t i = 0; i < options->n_fixed; i++) {
    fli_writer_u64(writer, options->fixed[i].step);
    fli_writer_u64(writer, options->fixed[i].first_active);
  }
  fli_writer_bin(writer, freezing->name, sizeof freezing->name);
  fli_writer_u64(writer, freezing->announced);
}

fl_status fli_freezing_write(fli_msg_writer *writer, const fli_job *job)
{
  fl_status st = FL_OK;
  fl_buffer *buffer = NULL;
  fl_writer state;
  const uint8_t *data = NULL;
  size_t size = 0;
  const fli_freezing *freezing = &job->freezing;
  fli_writer_array(writer, freezing->controller ? FLI_SAVED_FREEZING_PARTS : 0);
  if (!freezing->controller) return FL_OK;
  write_options(writer, freezing);
  FLI_TRY(fl_buffer_new(&buffer, job->context));
  FLI_TRY(fl_buffer_as_writer(buffer, &state));
  FLI_TRY(fl_freeze_save(freezing->controller, &state));
  FLI_TRY(fl_buffer_get(buffer, &data, &size));
  fli_writer_bin(writer, data, size);
out:
  fl_buffer_free(buffer);
  return st;
}

/* The schedule; *fixed is the caller's to free. */
static fl_status read_fixed(fli_job *job, fli_msg_reader *reader,
                            fl_freeze_options *options, fl_freeze_fixed **fixed)
{
  const uint32_t n = fli_reader_array(reader) / 2;
  fl_status st = fli_reader_status(reader);
  if (st != FL_OK) return st;
  *fixed = fli_alloc(job->context, n, sizeof **fixed);
  if (!*fixed) return fli_nomem(n * sizeof **fixed);
  options->n_fixed = n;
  options->fixed = n > 0 ? *fixed : NULL;
  for (uint32_t i = 0; i < n; i++) {
    (*fixed)[i].step = fli_reader_u64(reader);
    (*fixed)[i].first_active = fli_reader_u32(reader);
  }
  fli_reader_leave(reader);
  return fli_reader_status(reader);
}

static fl_status load_state(fli_job *job, const uint8_t *data, size_t size)
{
  fl_status st = FL_OK;
  fl_buffer *buffer = NULL;
  fl_reader state;
  FLI_TRY(fl_buffer_new(&buffer, job->context));
  FLI_TRY(fl_buffer_append(buffer, data, size));
  FLI_TRY(fl_buffer_as_reader(buffer, &state));
  FLI_TRY(fl_freeze_load(job->freezing.controller, &state));
  FLI_TRY(copy_plan(job));
out:
  fl_buffer_free(buffer);
  return st;
}

fl_status fli_freezing_read(fli_job *job, fli_msg_reader *reader)
{
  fl_status st = FL_OK;
  fl_freeze_options options = {0};
  fl_freeze_fixed *fixed = NULL;
  uint8_t name[FL_HASH_BYTES];
  size_t size = 0;
  const uint32_t n = fli_reader_array(reader);
  FLI_TRY(fli_reader_status(reader));
  FLI_TRY(fl_freeze_options_init(&options, sizeof options));
  if (n == FLI_SAVED_FREEZING_PARTS) {
    fli_saved_read(reader, &fli_saved_freeze_options, &options);
    FLI_TRY(read_fixed(job, reader, &options, &fixed));
    fli_reader_bin_exact(reader, name, sizeof name, "state: freeze job");
    const uint64_t announced = fli_reader_u64(reader);
    const uint8_t *state = fli_reader_bin(reader, &size);
    FLI_TRY(fli_reader_status(reader));
    options.job = name;
    FLI_TRY(fli_freezing_init(job, &options));
    FLI_TRY(load_state(job, state, size));
    job->freezing.announced = announced;
  } else if (n != 0) {
    FLI_TRY(fli_error(FL_E_FORMAT, "state: freezing of another size"));
  }
  fli_reader_leave(reader);
  st = fli_reader_status(reader);
out:
  fli_free(job->context, fixed, options.n_fixed * sizeof *fixed);
  return st;
}
