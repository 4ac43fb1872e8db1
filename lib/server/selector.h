/* SPDX-License-Identifier: Apache-2.0 */
/* Who of those who are there is asked: what the rules of fl/selection.h need,
 * and what a job keeps of clients for them. */
#ifndef FLI_SELECTOR_H
#define FLI_SELECTOR_H

#include <fl/selection.h>
#include "server/server.h"

/* Of one client, by its slot. Only jobs whose rule asks for it have these. */
typedef struct fli_known {
  float loss;     /* NaN = not known */
  float seconds;  /* NaN = not known */
  uint32_t round; /* when it was last asked; 0 = never */
} fli_known;

struct fli_selector {
  fl_selection_options options;
  fli_known *known;
  size_t n_known;
  size_t capacity;
  uint32_t n_slots;     /* given so far */
  uint32_t *free_slots; /* of those that were forgotten */
  size_t n_free;
  size_t free_capacity;
  float pace;
  double clip;     /* of utilities, when the last round was drawn */
  double gained;   /* utility since the pacer looked last, */
  double previous; /* and as long before that; < 0: not known */
};

/* ---- selector.c ---- */

/* FL_E_OPTIONS, FL_E_CONFLICT. */
fl_status fli_selector_check(const fl_job_options *options);
/* Take the options; random needs no selector. */
fl_status fli_selector_init(fli_job *job, const fl_selection_options *given);
void fli_selector_free(fli_job *job);
/* A slot for a new participant; 0 in jobs without a selector. */
uint32_t fli_selector_take_slot(const fli_job *job);
/* Nothing is known of it any more, and another may have its slot. */
void fli_selector_forget(const fli_participant *who);
/* Put n candidates in order: the k that are asked come first. */
fl_status fli_selector_order(const fli_job *job,
                             fli_participant *const *candidates, uint32_t n,
                             uint32_t k, uint32_t *order);
/* Memory for all who are registered, and room to note what a round brings. */
fl_status fli_selector_reserve(fli_job *job);
/* A round has ended, in whatever way: note what its members brought. */
void fli_selector_end_round(fli_job *job);
fl_status fli_selector_write_options(fli_msg_writer *writer,
                                     const fli_job *job);
/* `options`, or NULL when the job has none. Errors stick to the reader. */
const fl_selection_options *
fli_selector_read_options(fli_msg_reader *reader,
                          fl_selection_options *options);
void fli_selector_write(fli_msg_writer *writer, const fli_job *job,
                        fli_participant *const *sorted, uint32_t n);
/* Participants are there already. */
fl_status fli_selector_read(fli_job *job, fli_msg_reader *reader);

/* ---- selector_rules.c: of what is known alone ---- */

typedef struct fli_choice {
  fl_context *context;
  const fl_selection_options *options;
  const fl_selection_round *round;
  uint64_t seed;
  float pace;  /* OORT */
  double clip; /* OORT: what utilities were cut to */
} fli_choice;

fl_status fli_choose_by_power(fli_choice *choice, uint32_t *order);
fl_status fli_choose_by_oort(fli_choice *choice, uint32_t *order);
/* What a client has to give; never negative. */
double fli_utility(uint64_t samples, float loss);

#endif
