/* SPDX-License-Identifier: Apache-2.0 */
/* A job's selection (fl/selection.h): its options, what is known of clients,
 * and the pacer. What is known lies beside the registry, 12 bytes a client, so
 * that jobs that draw pay nothing. It changes when a round ends, by what its
 * members brought, and is part of the snapshot. */
#include "server/selector.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"
#include "server/resting.h"
#include "server/state.h"

enum { KNOWN_BYTES = 12, CAP_MEDIANS = 8 };

#define OPTION(member, kind) FLI_SAVED_ROW(fl_selection_options, member, kind)

/* The order is the format. */
static const fli_saved_field option_rows[] = {
    OPTION(rule, FLI_SAVED_U32),          OPTION(candidates, FLI_SAVED_U32),
    OPTION(explore, FLI_SAVED_F32),       OPTION(explore_decay, FLI_SAVED_F32),
    OPTION(explore_least, FLI_SAVED_F32), OPTION(clip_quantile, FLI_SAVED_F32),
    OPTION(pace, FLI_SAVED_F32),          OPTION(pacer, FLI_SAVED_U32),
    OPTION(pace_step, FLI_SAVED_F32),
};
static const fli_saved_table saved_selection = {option_rows,
                                                FLI_COUNT_OF(option_rows)};

/* ---- options ---- */

static const fl_selection_options default_options = {
    .rule = FL_SELECT_RANDOM,
    .explore = 0.9f,
    .explore_decay = 0.98f,
    .explore_least = 0.3f,
    .clip_quantile = 0.9f,
    .pace = 0.3f,
    .pacer = 20,
    .pace_step = 0.05f,
};

fl_status fl_selection_options_init(fl_selection_options *options, size_t size)
{
  fli_clear_error();
  return fli_options_init(options, size, &default_options,
                          sizeof default_options);
}

static int is_share(float value)
{
  return value >= 0.0f && value <= 1.0f;
}

static fl_status load(fl_selection_options *o,
                      const fl_selection_options *given)
{
  *o = default_options;
  const fl_status st =
      fli_options_load(o, sizeof *o, given, "fl_selection_options");
  if (st != FL_OK) return st;
  if (o->rule < FL_SELECT_RANDOM || o->rule > FL_SELECT_HOST)
    return fli_error(FL_E_OPTIONS, "selection: rule, got %u, want FL_SELECT_*",
                     o->rule);
  if (!is_share(o->explore) || !is_share(o->explore_least) ||
      !is_share(o->explore_decay) || o->explore_decay == 0.0f)
    return fli_error(FL_E_OPTIONS,
                     "selection: explore, explore_least: got %g, %g, want "
                     "0..1; explore_decay: got %g, want > 0..1",
                     (double)o->explore, (double)o->explore_least,
                     (double)o->explore_decay);
  if (!is_share(o->clip_quantile) || o->clip_quantile == 0.0f ||
      !is_share(o->pace) || o->pace == 0.0f || !is_share(o->pace_step))
    return fli_error(FL_E_OPTIONS,
                     "selection: clip_quantile, pace: got %g, %g, want > 0..1; "
                     "pace_step: got %g, want 0..1",
                     (double)o->clip_quantile, (double)o->pace,
                     (double)o->pace_step);
  if ((o->rule == FL_SELECT_HOST) != (o->choose != NULL))
    return fli_error(FL_E_CONFLICT,
                     "selection: rule HOST and `choose` go together");
  return FL_OK;
}

fl_status fli_selector_check(const fl_job_options *job)
{
  fl_selection_options o;
  if (!job->selection) return FL_OK;
  const fl_status st = load(&o, job->selection);
  if (st != FL_OK) return st;
  if (o.rule == FL_SELECT_RANDOM) return FL_OK;
  if (job->participants == 0)
    return fli_error(FL_E_CONFLICT,
                     "selection: with participants of 0 all are asked");
  if (job->cohorts)
    return fli_error(FL_E_CONFLICT, "selection: together with cohorts, want "
                                    "RANDOM");
  return FL_OK;
}

fl_status fli_selector_init(fli_job *job, const fl_selection_options *given)
{
  fl_selection_options o;
  job->options.selection = NULL;
  if (!given) return FL_OK;
  const fl_status st = load(&o, given);
  if (st != FL_OK || o.rule == FL_SELECT_RANDOM) return st;
  if (o.choose && job->server->journal.store)
    return fli_error(FL_E_CONFLICT,
                     "selection: has a function of the host, which a server "
                     "with a store cannot keep");
  job->selector = fli_alloc(job->context, 1, sizeof *job->selector);
  if (!job->selector) return fli_nomem(sizeof *job->selector);
  job->selector->options = o;
  job->selector->pace = o.pace;
  job->selector->previous = -1.0;
  return FL_OK;
}

void fli_selector_free(fli_job *job)
{
  fli_selector *self = job->selector;
  if (!self) return;
  fli_free(job->context, self->known, self->capacity * sizeof *self->known);
  fli_free(job->context, self->free_slots,
           self->free_capacity * sizeof *self->free_slots);
  fli_free(job->context, self, sizeof *self);
  job->selector = NULL;
}

/* ---- what is known ---- */

static const fli_known nothing = {.loss = NAN, .seconds = NAN};

uint32_t fli_selector_take_slot(const fli_job *job)
{
  fli_selector *self = job->selector;
  if (!self) return 0;
  return self->n_free > 0 ? self->free_slots[--self->n_free] : self->n_slots++;
}

void fli_selector_forget(const fli_participant *who)
{
  const fli_job *job = who->home;
  fli_selector *self = job->selector;
  if (!self) return;
  if (who->slot < self->n_known) self->known[who->slot] = nothing;
  void *items = self->free_slots;
  /* Without memory the slot is nobody's from now on. */
  if (fli_grow(job->context, &items, &self->free_capacity, self->n_free + 1,
               sizeof *self->free_slots) != FL_OK) {
    fli_clear_error();
    return;
  }
  self->free_slots = items;
  self->free_slots[self->n_free++] = who->slot;
}

fl_status fli_selector_reserve(fli_job *job)
{
  fli_selector *self = job->selector;
  const size_t want = self ? self->n_slots : 0;
  if (!self || self->n_known >= want) return FL_OK;
  void *items = self->known;
  const fl_status st = fli_grow(job->context, &items, &self->capacity, want,
                                sizeof *self->known);
  if (st != FL_OK) return st;
  self->known = items;
  while (self->n_known < want)
    self->known[self->n_known++] = nothing;
  return FL_OK;
}

static fli_known known_of(const fli_selector *self, const fli_participant *who)
{
  return who->slot < self->n_known ? self->known[who->slot] : nothing;
}

/* ---- a choice ---- */

/* Arrays of a round; freed together. */
typedef struct pool {
  fl_selection_round round;
  const char **ids;
  uint64_t *samples;
  float *losses, *seconds;
  uint32_t *rounds;
} pool;

static void pool_free(const fli_job *job, pool *p)
{
  const size_t n = p->round.count;
  fli_free(job->context, p->ids, n * sizeof *p->ids);
  fli_free(job->context, p->samples, n * sizeof *p->samples);
  fli_free(job->context, p->losses, n * sizeof *p->losses);
  fli_free(job->context, p->seconds, n * sizeof *p->seconds);
  fli_free(job->context, p->rounds, n * sizeof *p->rounds);
}

static int compare_u64(const void *a, const void *b)
{
  const uint64_t left = *(const uint64_t *)a;
  const uint64_t right = *(const uint64_t *)b;
  return (left > right) - (left < right);
}

/* Claims weigh at most 8 times their median, as they do in means. */
static void fill_samples(pool *p, fli_participant *const *candidates)
{
  const uint32_t n = p->round.count;
  for (uint32_t i = 0; i < n; i++)
    p->samples[i] = candidates[i]->samples;
  qsort(p->samples, n, sizeof *p->samples, compare_u64);
  const uint64_t cap = CAP_MEDIANS * p->samples[(n - 1) / 2];
  for (uint32_t i = 0; i < n; i++) {
    const uint64_t claim = candidates[i]->samples;
    p->samples[i] = claim < cap ? claim : cap;
  }
}

static fl_status pool_make(pool *p, const fli_job *job,
                           fli_participant *const *candidates)
{
  const size_t n = p->round.count;
  p->ids = fli_alloc(job->context, n, sizeof *p->ids);
  p->samples = fli_alloc(job->context, n, sizeof *p->samples);
  p->losses = fli_alloc(job->context, n, sizeof *p->losses);
  p->seconds = fli_alloc(job->context, n, sizeof *p->seconds);
  p->rounds = fli_alloc(job->context, n, sizeof *p->rounds);
  if (!p->ids || !p->samples || !p->losses || !p->seconds || !p->rounds)
    return fli_nomem(n * (sizeof *p->ids + sizeof *p->samples));
  for (size_t i = 0; i < n; i++) {
    const fli_known known = known_of(job->selector, candidates[i]);
    p->ids[i] = candidates[i]->id;
    p->losses[i] = known.loss;
    p->seconds[i] = known.seconds;
    p->rounds[i] = known.round;
  }
  fill_samples(p, candidates);
  p->round.ids = p->ids;
  p->round.samples = p->samples;
  p->round.losses = p->losses;
  p->round.seconds = p->seconds;
  p->round.rounds = p->rounds;
  return FL_OK;
}

/* Check what the host has chosen, and put the others behind it. */
static fl_status complete(const fl_selection_round *round, uint8_t *is_chosen,
                          uint32_t *order)
{
  uint32_t at = round->wanted;
  for (uint32_t i = 0; i < round->wanted; i++) {
    if (order[i] >= round->count || is_chosen[order[i]])
      return fli_error(FL_E_RANGE,
                       "selection: got %u, want different numbers below %u",
                       order[i], round->count);
    is_chosen[order[i]] = 1;
  }
  for (uint32_t i = 0; i < round->count; i++) {
    if (!is_chosen[i]) order[at++] = i;
  }
  return FL_OK;
}

static fl_status choose_by_host(const fli_job *job, const pool *p,
                                uint32_t *order)
{
  const fl_selection_options *o = &job->selector->options;
  uint8_t *is_chosen = fli_alloc(job->context, p->round.count, 1);
  if (!is_chosen) return fli_nomem(p->round.count);
  fl_status st = o->choose(o->user, &p->round, order);
  fli_clear_error();
  if (st != FL_OK) {
    st = fli_error(FL_E_CALLBACK, "selection: the host's function gave %s",
                   fl_status_name(st));
  } else {
    st = complete(&p->round, is_chosen, order);
  }
  fli_free(job->context, is_chosen, p->round.count);
  return st;
}

fl_status fli_selector_order(const fli_job *job,
                             fli_participant *const *candidates, uint32_t n,
                             uint32_t k, uint32_t *order)
{
  fl_status st = FL_OK;
  fli_fpguard guard;
  fli_selector *self = job->selector;
  pool p = {.round = {.struct_size = (uint32_t)sizeof p.round,
                      .count = n,
                      .wanted = k,
                      .attempt = job->attempt,
                      .round = job->round}};
  fli_choice choice = {.context = job->context,
                       .options = &self->options,
                       .round = &p.round,
                       .seed = job->options.seed,
                       .pace = self->pace};
  FLI_TRY(pool_make(&p, job, candidates));
  if (self->options.rule == FL_SELECT_HOST) {
    st = choose_by_host(job, &p, order);
    goto out;
  }
  fli_fpguard_enter(&guard);
  st = self->options.rule == FL_SELECT_OORT
           ? fli_choose_by_oort(&choice, order)
           : fli_choose_by_power(&choice, order);
  fli_fpguard_leave(&guard);
  self->clip = choice.clip;
out:
  pool_free(job, &p);
  return st;
}

/* ---- the end of a round ---- */

/* One who was asked and has not answered took at least as long as that. */
static void note(fli_known *known, const fli_job *job, const fli_member *member)
{
  const float waited = fli_round_seconds(job);
  known->round = job->round < UINT32_MAX ? (uint32_t)job->round : UINT32_MAX;
  if (member->is_counted) {
    known->seconds = member->seconds;
    known->loss = (float)member->loss;
    /* One that leaves float32 says nothing. */
    if (!isfinite(known->loss)) known->loss = NAN;
  } else if (!(known->seconds >= waited)) {
    known->seconds = waited;
  }
}

static void pace_on(fli_selector *self, uint64_t round)
{
  const fl_selection_options *o = &self->options;
  if (o->pacer == 0 || round % o->pacer != 0) return;
  if (self->previous > self->gained) {
    self->pace += o->pace_step;
    if (self->pace > 1.0f) self->pace = 1.0f;
  }
  self->previous = self->gained;
  self->gained = 0.0;
}

void fli_selector_end_round(fli_job *job)
{
  fli_selector *self = job->selector;
  if (!self) return;
  for (uint32_t i = 0; i < job->n_members; i++) {
    const fli_member *member = &job->members[i];
    const uint32_t slot = member->participant->slot;
    if (slot >= self->n_known) continue;
    note(&self->known[slot], job, member);
    if (!member->is_counted || isnan(self->known[slot].loss)) continue;
    const double gained = fli_utility(member->samples, self->known[slot].loss);
    self->gained += gained < self->clip ? gained : self->clip;
  }
  if (job->n_counted > 0) pace_on(self, job->round);
}

/* ---- snapshots ---- */

fl_status fli_selector_write_options(fli_msg_writer *writer, const fli_job *job)
{
  const fli_selector *self = job->selector;
  fli_writer_array(writer, self ? 1 : 0);
  if (!self) return FL_OK;
  if (self->options.choose)
    return fli_error(FL_E_UNSUPPORTED, "state: a selection with a function of "
                                       "the host cannot be saved");
  fli_saved_write(writer, &saved_selection, &self->options);
  return FL_OK;
}

const fl_selection_options *
fli_selector_read_options(fli_msg_reader *reader, fl_selection_options *options)
{
  const uint32_t n = fli_reader_array(reader);
  if (n > 1) fli_reader_fail(reader, FL_E_FORMAT, "state: selections");
  *options = default_options;
  options->struct_size = (uint32_t)sizeof *options;
  if (n == 1) fli_saved_read(reader, &saved_selection, options);
  fli_reader_leave(reader);
  return n == 1 ? options : NULL;
}

static void write_known(fli_msg_writer *writer, const fli_job *job,
                        fli_participant *const *sorted, uint32_t n)
{
  uint8_t *bytes = fli_alloc(job->context, n, KNOWN_BYTES);
  if (!bytes) {
    if (writer->status == FL_OK)
      writer->status = fli_nomem((size_t)n * KNOWN_BYTES);
    return;
  }
  for (uint32_t i = 0; i < n; i++) {
    fli_participant woken;
    const fli_participant *who = sorted[i];
    if (fli_is_resting(who)) {
      fli_resting_read(who, &woken);
      who = &woken;
    }
    const fli_known known = known_of(job->selector, who);
    uint8_t *at = bytes + (size_t)i * KNOWN_BYTES;
    fli_store_u32(at, fli_f32_bits(known.loss));
    fli_store_u32(at + 4, fli_f32_bits(known.seconds));
    fli_store_u32(at + 8, known.round);
  }
  fli_writer_bin(writer, bytes, (size_t)n * KNOWN_BYTES);
  fli_free(job->context, bytes, (size_t)n * KNOWN_BYTES);
}

void fli_selector_write(fli_msg_writer *writer, const fli_job *job,
                        fli_participant *const *sorted, uint32_t n)
{
  const fli_selector *self = job->selector;
  fli_writer_array(writer, self ? 5 : 0);
  if (!self) return;
  fli_writer_f32(writer, self->pace);
  fli_writer_f64(writer, self->clip);
  fli_writer_f64(writer, self->gained);
  fli_writer_f64(writer, self->previous);
  write_known(writer, job, sorted, n);
}

static fl_status take_known(fli_job *job, const uint8_t *data, size_t size)
{
  fl_status st = FL_OK;
  fli_selector *self = job->selector;
  fli_participant **sorted = NULL;
  uint32_t n = 0;
  FLI_TRY(fli_registry_sorted(job, 0, &sorted, &n));
  if (size != (size_t)n * KNOWN_BYTES)
    FLI_TRY(fli_error(FL_E_FORMAT, "state: what is known of clients"));
  FLI_TRY(fli_selector_reserve(job));
  for (uint32_t i = 0; i < n; i++) {
    fli_known *known = &self->known[sorted[i]->slot];
    const uint8_t *at = data + (size_t)i * KNOWN_BYTES;
    known->loss = fli_f32_from_bits(fli_load_u32(at));
    known->seconds = fli_f32_from_bits(fli_load_u32(at + 4));
    known->round = fli_load_u32(at + 8);
    if (isinf(known->loss) || isinf(known->seconds) || known->seconds < 0.0f)
      FLI_TRY(fli_error(FL_E_FORMAT, "state: what is known of a client"));
  }
out:
  fli_free(job->context, sorted, n * sizeof *sorted);
  return st;
}

fl_status fli_selector_read(fli_job *job, fli_msg_reader *reader)
{
  fl_status st = FL_OK;
  fli_selector *self = job->selector;
  size_t size = 0;
  const uint32_t n = fli_reader_array(reader);
  FLI_TRY(fli_reader_status(reader));
  if (n != (self ? 5u : 0u))
    return fli_error(FL_E_FORMAT, "state: the selection does not fit the job");
  if (self) {
    self->pace = fli_reader_f32(reader);
    self->clip = fli_reader_f64(reader);
    self->gained = fli_reader_f64(reader);
    self->previous = fli_reader_f64(reader);
    const uint8_t *data = fli_reader_bin(reader, &size);
    FLI_TRY(fli_reader_status(reader));
    if (!is_share(self->pace) || !(self->clip >= 0.0) ||
        !(self->gained >= 0.0) || isnan(self->previous))
      return fli_error(FL_E_FORMAT, "state: the selection's pace");
    FLI_TRY(take_known(job, data, size));
  }
  fli_reader_leave(reader);
  st = fli_reader_status(reader);
out:
  return st;
}
