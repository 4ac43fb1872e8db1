/* SPDX-License-Identifier: Apache-2.0 */
/* The handle, its leaves and its events. */
#include "cohort/cohort.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/options.h"

/* ---- lists --------------------------------------------------------------- */

void fli_list_free(fl_context *context, fli_list *list)
{
  if (list->items) fli_free(context, list->items, list->capacity * list->size);
  *list = (fli_list){0};
}

fl_status fli_list_room(fl_context *context, fli_list *list, size_t more,
                        size_t size)
{
  list->size = size;
  if (list->items && list->n + more <= list->capacity) return FL_OK;
  return fli_grow(context, &list->items, &list->capacity, list->n + more, size);
}

/* ---- leaves -------------------------------------------------------------- */

int fli_leaf_is_alive(const fl_cohort_set *set, uint32_t leaf)
{
  return leaf < set->options.cap && set->leaves[leaf].is_alive;
}

uint32_t fli_first_dead(const fl_cohort_set *set)
{
  for (uint32_t i = 0; i < set->options.cap; i++) {
    if (!set->leaves[i].is_alive) return i;
  }
  return FL_COHORT_NONE;
}

void fli_leaf_renew(fli_leaf *leaf, uint32_t round, uint32_t wait,
                    uint32_t back)
{
  leaf->has_centroids = leaf->wants_seed = leaf->proposes = 0;
  leaf->has_halves = 0;
  leaf->age = 0;
  leaf->round = round;
  leaf->wait = wait;
  leaf->back = back;
  leaf->seeded = 0;
  leaf->n_buffer = leaf->first_row = leaf->n_votes = leaf->first_vote = 0;
  leaf->loss = -1.0;
  leaf->variance = 0.0;
  leaf->limit = INFINITY;
  leaf->agreement = leaf->gap = NAN;
}

void fli_leaf_begin(fl_cohort_set *set, uint32_t index, uint32_t round)
{
  fli_leaf *leaf = &set->leaves[index];
  assert(!leaf->is_alive);
  leaf->is_alive = 1;
  leaf->has_ended = 0;
  leaf->open = 0;
  leaf->epoch = 0;
  fli_leaf_renew(leaf, round, 0, set->options.wait);
  set->n_alive++;
}

static size_t leaf_floats(const fl_cohort_set *set)
{
  return (size_t)(FLI_COHORT_BUFFER + 2) * set->options.dim;
}

fl_status fli_leaf_room(fl_cohort_set *set, fli_leaf *leaf)
{
  if (leaf->buffer) return FL_OK;
  const size_t n = leaf_floats(set);
  leaf->buffer = fli_alloc(set->context, n, sizeof *leaf->buffer);
  if (!leaf->buffer) return fli_nomem(n * sizeof *leaf->buffer);
  leaf->centroids = leaf->buffer + (size_t)FLI_COHORT_BUFFER * set->options.dim;
  return FL_OK;
}

static void free_leaf(fl_cohort_set *set, fli_leaf *leaf)
{
  if (leaf->buffer) {
    fli_free(set->context, leaf->buffer,
             leaf_floats(set) * sizeof *leaf->buffer);
  }
  leaf->buffer = leaf->centroids = NULL;
  fli_list_free(set->context, &leaf->pending);
  fli_list_free(set->context, &leaf->sketches);
  fli_list_free(set->context, &leaf->ratios);
  fli_list_free(set->context, &leaf->scratch);
}

void fli_leaf_end(fl_cohort_set *set, uint32_t index)
{
  fli_leaf *leaf = &set->leaves[index];
  assert(leaf->is_alive);
  free_leaf(set, leaf);
  fli_leaf_renew(leaf, 0, 0, 0);
  leaf->is_alive = leaf->has_ended = 0;
  leaf->open = 0;
  set->n_alive--;
}

/* ---- handle -------------------------------------------------------------- */

static fl_status take_memory(fl_cohort_set *set)
{
  const size_t cap = set->options.cap;
  set->leaves = fli_alloc(set->context, cap, sizeof *set->leaves);
  if (!set->leaves) return fli_nomem(cap * sizeof *set->leaves);
  for (size_t i = 0; i < cap; i++)
    fli_leaf_renew(&set->leaves[i], 0, 0, 0);
  set->pairs = fli_alloc(set->context, cap * cap, sizeof *set->pairs);
  if (!set->pairs) return fli_nomem(cap * cap * sizeof *set->pairs);
  return fli_cohort_reserve(set, set->options.clients);
}

static void take_options(fl_cohort_set *set, const fl_cohort_options *options)
{
  set->options = *options;
  if (options->key) {
    fli_derive(set->key, options->key, "fl cohort tickets", options->job, 0);
    set->has_key = 1;
  }
  for (uint32_t i = 0; i < options->n_splits; i++)
    set->splits[i] = options->splits[i];
  set->options.splits = NULL;
  set->options.key = NULL;
  set->rng.state = options->seed;
  set->exploration = .01;
  set->free_slot = FL_COHORT_NONE;
  fli_cohort_hash_options(set, set->options_hash);
}

fl_status fl_cohort_set_new(fl_cohort_set **out, fl_context *context,
                            const fl_cohort_options *given)
{
  fl_cohort_options options;
  fli_clear_error();
  if (!out) return fli_error(FL_E_ARGUMENT, "cohorts: out, got NULL");
  fl_status st = fl_cohort_options_init(&options, sizeof options);
  if (st == FL_OK)
    st = fli_options_load(&options, sizeof options, given, "cohort options");
  if (st == FL_OK) st = fli_cohort_check_options(&options);
  if (st == FL_OK) st = fli_crypto_init();
  if (st != FL_OK) return st;
  fl_cohort_set *set = fli_alloc(context, 1, sizeof *set);
  if (!set) return fli_nomem(sizeof *set);
  set->context = fli_context_ref(context);
  take_options(set, &options);
  st = take_memory(set);
  if (st != FL_OK) {
    fl_cohort_set_free(set);
    return st;
  }
  uint32_t n = options.rule == FL_COHORT_LOSS ? options.cap : 1;
  for (uint32_t i = 0; i < n; i++)
    fli_leaf_begin(set, i, 0);
  *out = set;
  return FL_OK;
}

void fl_cohort_set_free(fl_cohort_set *set)
{
  if (!set) return;
  fl_context *context = set->context;
  const size_t cap = set->options.cap, n = set->capacity;
  for (size_t i = 0; set->leaves && i < cap; i++)
    free_leaf(set, &set->leaves[i]);
  if (set->leaves) fli_free(context, set->leaves, cap * sizeof *set->leaves);
  if (set->pairs) fli_free(context, set->pairs, cap * cap * sizeof *set->pairs);
  if (set->members) fli_free(context, set->members, n * sizeof *set->members);
  if (set->ids) fli_free(context, set->ids, n * sizeof *set->ids);
  if (set->index)
    fli_free(context, set->index, set->index_size * sizeof *set->index);
  if (set->affinities)
    fli_free(context, set->affinities, n * cap * sizeof *set->affinities);
  if (set->assigned) fli_free(context, set->assigned, n);
  fli_wipe(set->key, sizeof set->key);
  fli_free(context, set, sizeof *set);
  fli_context_unref(context);
}

uint32_t fl_cohort_set_count(const fl_cohort_set *set)
{
  return set ? set->n_alive : 0;
}

uint32_t fl_cohort_set_cap(const fl_cohort_set *set)
{
  return set ? set->options.cap : 0;
}

/* ---- events -------------------------------------------------------------- */

fl_cohort_event *fli_cohort_emit(fl_cohort_set *set, uint32_t kind,
                                 uint32_t round)
{
  assert(set->n_events < FLI_COHORT_EVENTS);
  fl_cohort_event *event =
      &set->events[(set->first_event + set->n_events++) % FLI_COHORT_EVENTS];
  *event = (fl_cohort_event){.kind = kind,
                             .round = round,
                             .cohort = FL_COHORT_NONE,
                             .child = FL_COHORT_NONE};
  return event;
}

fl_status fl_cohort_event_init(fl_cohort_event *event, size_t size)
{
  static const fl_cohort_event defaults = {.cohort = FL_COHORT_NONE,
                                           .child = FL_COHORT_NONE};
  return fli_options_init(event, size, &defaults, sizeof defaults);
}

fl_status fl_cohort_set_poll(fl_cohort_set *set, fl_cohort_event *event)
{
  fli_clear_error();
  if (!set || !event) return fli_error(FL_E_ARGUMENT, "cohorts: got NULL");
  if (set->n_events == 0) return fli_error(FL_E_EMPTY, "cohorts: no event");
  fl_status st = fli_options_store(event, &set->events[set->first_event],
                                   sizeof *event, "cohort event");
  if (st != FL_OK) return st;
  set->first_event = (set->first_event + 1) % FLI_COHORT_EVENTS;
  set->n_events--;
  return FL_OK;
}
