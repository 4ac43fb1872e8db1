/* SPDX-License-Identifier: Apache-2.0 */
/* A job's strategy (fl/strategy.h): what can be refused before it begins, the
 * updates that rules need separately, and the step that it proposes. Such
 * updates are kept encoded, as they came, with equal weights; what a client
 * does not train counts as no change there. Rules that a mean is enough for
 * take it from the sum, as everybody else. */
#include "server/rule.h"
#include "server/buffered.h"
#include "server/state.h"

#include <string.h>

#include "base/context.h"
#include "base/error.h"

#define OPTION(member, kind) FLI_SAVED_ROW(fl_strategy_options, member, kind)

/* The order is the format. */
static const fli_saved_field option_rows[] = {
    OPTION(rule, FLI_SAVED_U32),
    OPTION(optimiser, FLI_SAVED_U32),
    OPTION(is_uniform, FLI_SAVED_U32),
    OPTION(rate, FLI_SAVED_F32),
    OPTION(momentum, FLI_SAVED_F32),
    OPTION(beta1, FLI_SAVED_F32),
    OPTION(beta2, FLI_SAVED_F32),
    OPTION(tau, FLI_SAVED_F32),
    OPTION(v0, FLI_SAVED_F32),
    OPTION(bias_correction, FLI_SAVED_U32),
    OPTION(prox_mu, FLI_SAVED_F32),
    OPTION(client_rate, FLI_SAVED_F32),
    OPTION(client_momentum, FLI_SAVED_F32),
    OPTION(fairness, FLI_SAVED_F32),
    OPTION(trim, FLI_SAVED_F32),
    OPTION(byzantine, FLI_SAVED_U32),
    OPTION(passes, FLI_SAVED_U32),
    OPTION(smoothing, FLI_SAVED_F32),
    OPTION(clip, FLI_SAVED_F32),
    OPTION(clip_adapts, FLI_SAVED_U32),
    OPTION(clip_quantile, FLI_SAVED_F32),
    OPTION(clip_rate, FLI_SAVED_F32),
    OPTION(population, FLI_SAVED_U64),
    OPTION(gate_tolerance, FLI_SAVED_F32),
};
static const fli_saved_table saved_rule = {option_rows,
                                           FLI_COUNT_OF(option_rows)};

/* ---- options ------------------------------------------------------------- */

/* One that the plain mean gives, too. */
static int is_mean(const fl_strategy_options *o)
{
  return o->rule == FL_RULE_MEAN && o->optimiser == FL_STEP_SGD &&
         o->rate == 1.0f && o->momentum == 0.0f && o->clip == 0.0f && !o->score;
}

int fli_rule_is_plain(const fl_strategy_options *options)
{
  fl_strategy_options local;
  return !options || (fli_strategy_options_load(&local, options) == FL_OK &&
                      is_mean(&local));
}

static fl_status check_separate(const fl_job_options *job,
                                const fl_strategy_options *o)
{
  const uint64_t least = 2 * (uint64_t)o->byzantine + 3;
  const int is_krum = o->rule == FL_RULE_KRUM || o->rule == FL_RULE_MULTI_KRUM;
  if (job->freeze)
    return fli_error(FL_E_CONFLICT, "strategy: one that needs the updates "
                                    "separately, with freezing");
  if (job->error_feedback)
    return fli_error(FL_E_CONFLICT, "strategy: one that needs the updates "
                                    "separately, with error_feedback");
  if (is_krum && job->min_participants < least)
    return fli_error(FL_E_CONFLICT,
                     "strategy: Krum with byzantine %u, min_participants: got "
                     "%u, want >= %llu",
                     o->byzantine, job->min_participants,
                     (unsigned long long)least);
  return FL_OK;
}

fl_status fli_rule_check(const fl_job_options *job)
{
  fl_strategy_options o;
  if (!job->strategy) return FL_OK;
  const fl_status st = fli_strategy_options_load(&o, job->strategy);
  if (st != FL_OK) return st;
  if (job->server_learning_rate != 1.0f || job->server_momentum != 0.0f)
    return fli_error(FL_E_CONFLICT,
                     "strategy: it has the server's rate and momentum: "
                     "server_learning_rate, server_momentum: got %g, %g",
                     (double)job->server_learning_rate,
                     (double)job->server_momentum);
  if (o.is_uniform && job->weight_cap != 0)
    return fli_error(FL_E_CONFLICT,
                     "strategy: is_uniform with a weight_cap, want 0");
  if (fl_strategy_needs(&o) & FL_STRATEGY_NEEDS_UPDATES)
    return check_separate(job, &o);
  return FL_OK;
}

/* Functions cannot be written down. */
static int is_host(const fl_strategy_options *o)
{
  return o->combine || o->optimise || o->score;
}

fl_status fli_rule_take(fli_job *job, const fl_strategy_options *given)
{
  fl_strategy_options *o = &job->strategy_options;
  job->options.strategy = NULL;
  if (!given) return FL_OK;
  const fl_status st = fli_strategy_options_load(o, given);
  if (st != FL_OK) return st;
  if (job->server->journal.store && is_host(o))
    return fli_error(FL_E_CONFLICT,
                     "strategy: has functions of the host, which a server with "
                     "a store cannot keep");
  job->options.strategy = o;
  job->is_spooling = (fl_strategy_needs(o) & FL_STRATEGY_NEEDS_UPDATES) != 0;
  if (o->is_uniform) job->options.weighting = FL_WEIGHT_UNIFORM;
  if (job->options.weighting == FL_WEIGHT_UNIFORM) o->is_uniform = 1;
  return FL_OK;
}

fl_status fli_rule_make(fli_job *job)
{
  if (fli_rule_is_plain(job->options.strategy)) return FL_OK;
  if (fli_controls_are_used(job) &&
      job->store.canonical.n > UINT32_MAX / sizeof(float))
    return fli_error(FL_E_LIMIT, "strategy: controls of 2^30 weights or more");
  return fl_strategy_new(&job->strategy, job->context, job->options.strategy,
                         job->store.canonical.n);
}

/* ---- what was kept ------------------------------------------------------- */

void fli_rule_keep(const fli_job *job, fli_member *member, fli_bytes *data)
{
  if (!job->is_spooling) return;
  fli_bytes_free(&member->update);
  member->update = *data;
  fli_bytes_init(data, job->context);
}

void fli_rule_forget(fli_member *member)
{
  fli_bytes_free(&member->update);
  member->spooled = 0;
}

/* ---- a step -------------------------------------------------------------- */

static fl_status propose_of_updates(fli_job *job, fli_pending *pending)
{
  fl_status st = FL_OK;
  fli_spool spool;
  FLI_TRY(fli_spool_open(&spool, job));
  FLI_TRY(fli_strategy_propose(job->strategy, &spool.round, NULL,
                               job->store.canonical.weights, pending));
out:
  fli_spool_close(&spool);
  return st;
}

fl_status fli_rule_propose(fli_job *job, float *mean, fli_pending *pending)
{
  const fli_canonical *model = &job->store.canonical;
  if (job->is_spooling) return propose_of_updates(job, pending);
  const fl_status st = fli_round_mean(job, mean);
  if (st != FL_OK) return st;
  return fli_strategy_propose(job->strategy, NULL, mean, model->weights,
                              pending);
}

static void hold(float *next, const float *now, uint64_t at, uint64_t n,
                 int is_dropped)
{
  if (!next) return;
  if (is_dropped) {
    memset(next + at, 0, (size_t)n * sizeof *next);
  } else {
    memcpy(next + at, now + at, (size_t)n * sizeof *next);
  }
}

void fli_rule_hold(const fli_job *job, fli_pending *pending, uint64_t at,
                   uint64_t n, int is_frozen)
{
  const fl_strategy *strategy = job->strategy;
  memset(pending->step + at, 0, (size_t)n * sizeof(float));
  hold(pending->momentum, strategy->momentum, at, n, is_frozen);
  hold(pending->second, strategy->second, at, n, 0);
}

/* ---- snapshots ----------------------------------------------------------- */

fl_status fli_rule_write_options(fli_msg_writer *writer, const fli_job *job)
{
  const fl_strategy_options *o = job->options.strategy;
  fli_writer_array(writer, o ? 1 : 0);
  if (!o) return FL_OK;
  if (is_host(o))
    return fli_error(FL_E_UNSUPPORTED, "state: a strategy with functions of "
                                       "the host cannot be saved");
  fli_saved_write(writer, &saved_rule, o);
  return FL_OK;
}

const fl_strategy_options *fli_rule_read_options(fli_msg_reader *reader,
                                                 fl_strategy_options *options)
{
  (void)fl_strategy_options_init(options, sizeof *options);
  const uint32_t n = fli_reader_array(reader);
  if (n > 1) fli_reader_fail(reader, FL_E_FORMAT, "state: strategies");
  if (n == 1) fli_saved_read(reader, &saved_rule, options);
  fli_reader_leave(reader);
  return n == 1 ? options : NULL;
}

/* State of the strategy, then the updates of those that were counted. */
fl_status fli_rule_write(fli_msg_writer *writer, const fli_job *job)
{
  fl_status st = FL_OK;
  fli_bytes state;
  fli_bytes_init(&state, job->context);
  if (job->strategy) FLI_TRY(fli_strategy_write(job->strategy, &state));
  fli_writer_array(writer, 1 + (job->is_spooling ? job->n_counted : 0));
  fli_writer_bin(writer, state.data, state.size);
  for (uint32_t i = 0; job->is_spooling && i < job->n_members; i++) {
    const fli_member *member = &job->members[i];
    if (member->is_counted) FLI_TRY(fli_spooled_write(writer, job, member));
  }
out:
  fli_bytes_free(&state);
  return st;
}

static fl_status read_update(fli_job *job, fli_msg_reader *reader, uint32_t i)
{
  fl_status st = FL_OK;
  uint32_t slot = 0;
  uint64_t samples = 0;
  size_t size = 0;
  fli_member *member = &job->members[i];
  const uint8_t *data = fli_reader_bin(reader, &size);
  fli_bytes stored;
  fli_bytes_init(&stored, job->context);
  fli_bytes_init(&member->update, job->context);
  FLI_TRY(fli_reader_status(reader));
  if (!job->partial)
    FLI_TRY(fli_error(FL_E_FORMAT, "state: updates without a sum"));
  if (size == FLI_SPOOL_NAME) {
    FLI_TRY(fli_spooled_take(job, member, data));
    FLI_TRY(fli_spooled_load(job, member, &stored));
    data = stored.data;
    size = stored.size;
  }
  if (size < fli_controls_size(job))
    FLI_TRY(fli_error(FL_E_FORMAT, "state: an update without its control"));
  FLI_TRY(fl_partial_peek(job->partial, data, size - fli_controls_size(job),
                          &slot, &samples));
  if (slot != i || samples != member->samples)
    FLI_TRY(fli_error(FL_E_FORMAT, "state: an update of another client"));
  if (member->spooled == 0)
    FLI_TRY(fli_bytes_append(&member->update, data, size));
out:
  fli_bytes_free(&stored);
  return st;
}

fl_status fli_rule_read(fli_job *job, fli_msg_reader *reader)
{
  fl_status st = FL_OK;
  size_t size = 0;
  const uint32_t n = fli_reader_array(reader);
  const uint8_t *state = fli_reader_bin(reader, &size);
  FLI_TRY(fli_reader_status(reader));
  if (n != 1 + (job->is_spooling ? job->n_counted : 0) ||
      (size > 0) != (job->strategy != NULL))
    return fli_error(FL_E_FORMAT, "state: the strategy does not fit the job");
  if (job->strategy) FLI_TRY(fli_strategy_read(job->strategy, state, size));
  for (uint32_t i = 0; job->is_spooling && i < job->n_members; i++) {
    if (job->members[i].is_counted) FLI_TRY(read_update(job, reader, i));
  }
  job->is_spool_there = 1; /* for all that is known */
  fli_reader_leave(reader);
  st = fli_reader_status(reader);
out:
  return st;
}
