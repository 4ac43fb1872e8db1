/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the freezing controller. What a controller is made with (fl_freeze)
 * stands apart from what it has learned (fli_freeze_state): the latter is what
 * is saved, and what loading replaces as a whole.
 *
 * `decided` is what the criterion wants; the plan follows it at the next
 * beginning of a step, rounded down to what is allowed. What a step has pushed
 * counts only when the step ends, so that a step that failed can be begun
 * again. */
#ifndef FLI_FREEZE_H
#define FLI_FREEZE_H

#include <fl/freeze.h>
#include "wire/writer.h"

enum {
  FLI_FREEZE_WINDOW_MAX = 256,
  /* Values that a criterion keeps: two more make the first mean of three. */
  FLI_FREEZE_VALUES = FLI_FREEZE_WINDOW_MAX + 2,
  /* Evaluations that the report of a round is made of, at most. */
  FLI_FREEZE_RECENT = 512,
  FLI_FREEZE_EVENTS = 256,
  FLI_FREEZE_ROUNDS = 4, /* whose greatest median, or slope, is kept */
  FLI_FREEZE_ROWS_MAX = 1024,
  FLI_FREEZE_COLUMNS_MAX = 65536
};

/* Above it steps are not counted: twice this fits everywhere. */
#define FLI_FREEZE_STEPS_MAX (UINT64_C(1) << 40)

typedef struct fli_gradient {
  float *values; /* NULL: none */
  uint64_t n;
} fli_gradient;

/* SAFE: what one module's adapter has shown so far. */
typedef struct fli_importance {
  double sum;
  uint64_t n;
} fli_importance;

/* Plasticity of the front module and of the last one; < 0 = not shown. */
typedef struct fli_pairs {
  double front;
  double last;
} fli_pairs;

/* Pairs that a step has asked for, until they count. */
typedef struct fli_waiting {
  uint32_t asked; /* FL_FREEZE_WANTS_*PAIR, _SNAPSHOT; 0 = nothing waits */
  uint64_t step;  /* that asked */
  fli_pairs shown;
} fli_waiting;

typedef struct fli_freeze_state {
  uint64_t step; /* steps, or rounds, that are over */
  uint32_t decided;
  uint32_t first_active;
  uint64_t version;
  uint64_t seen_version; /* at the end of the last step */
  uint64_t plan_step;
  uint32_t reason;
  uint8_t *frozen; /* n_modules */

  /* Bootstrapping: the first losses and the window's are sums. */
  int is_booted;
  uint64_t n_losses;
  double first_losses;
  double window_losses;
  double last_mean;

  /* has_frozen: the rates and last_freeze are there. */
  int has_frozen;
  double rate_at_freeze;
  double lowest_rate;
  uint64_t last_freeze;
  uint64_t refreeze_from;

  /* What the criterion knows of the front module. */
  uint32_t window;
  uint32_t patience;
  uint32_t below;
  uint32_t n_values;
  uint64_t n_evaluations;
  double peak; /* the greatest one of the first evaluations */
  double values[FLI_FREEZE_VALUES];
  double others[FLI_FREEZE_VALUES]; /* of the last module */

  /* is_pair: the step before asked for the first gradient of two. */
  int is_pair;
  fli_gradient gradient;
  uint32_t since_snapshot; /* pairs asked for */
  fli_waiting waiting;     /* at the end of the last step */

  uint64_t n_reported;
  double reported; /* a sum */
  uint32_t n_recent;
  double recent[FLI_FREEZE_RECENT];

  fli_importance *importance; /* n_modules with CKA, else NULL */
} fli_freeze_state;

/* What is told of one evaluation. */
typedef struct fli_evaluation {
  uint32_t module;
  double value;
  double threshold;
  double raw;
} fli_evaluation;

typedef struct fli_criterion {
  /* What this step is to show; NULL: nothing, ever. */
  uint32_t (*wants)(const fl_freeze *freeze);
  /* Take in what was shown; 0 when that is no evaluation. */
  int (*take)(fl_freeze *freeze, fli_evaluation *evaluation);
  /* Decide by the number of the step that begins; or NULL. */
  void (*begin)(fl_freeze *freeze);
  int has_bootstrapping;
  int is_half_reported; /* the later half of a round's evaluations */
} fli_criterion;

extern const fli_criterion fli_criterion_gradnorm;
extern const fli_criterion fli_criterion_plasticity;
extern const fli_criterion fli_criterion_relative;
extern const fli_criterion fli_criterion_safe;
extern const fli_criterion fli_criterion_fixed;
extern const fli_criterion fli_criterion_none;

struct fli_attachment;

struct fl_freeze {
  fl_context *context; /* reference */
  const fli_criterion *criterion;
  uint32_t n_modules;
  fl_freeze_options options; /* every default filled in */
  fl_freeze_fixed *fixed;    /* what its pointers point to */
  uint32_t *allowed;
  int is_aggregator;
  uint8_t *empty; /* n_modules, 1 = nothing to train there */
  uint8_t job[FL_HASH_BYTES];
  uint8_t options_hash[FL_HASH_BYTES];

  fli_freeze_state state;
  uint32_t floor; /* follow.c: nothing in front of it is trained here */
  int has_snapshot;

  /* The step that was begun. */
  int is_begun;
  int is_first; /* of the two that gradients are compared of */
  double rate;
  uint32_t wants;
  fli_gradient first;
  int has_change;
  double change;         /* sum of squares */
  uint32_t asked;        /* of pairs, by this step or by one before */
  fli_pairs shown;       /* at its end: those that count now */
  double *features;      /* CKA: largest importance per module,
                            < 0 = not shown */
  double last_threshold; /* CKA: tau_T, < 0 = not known yet */
  uint8_t *mask;         /* n_modules, scratch of criteria that are no prefix */

  fl_freeze_event events[FLI_FREEZE_EVENTS];
  uint32_t first_event;
  uint32_t n_events;
  char text[160];                    /* of the event that was polled last */
  char cache_text[160];              /* why there is no cache any more */
  struct fli_attachment *attachment; /* NULL: by itself */
};

/* ---- attach.c ------------------------------------------------------------ */

/* Take it off the model, and free it. */
void fli_detach(struct fli_attachment *attachment);

/* ---- follow.c ------------------------------------------------------------ */

/* What a server wants of this round. */
typedef struct fli_orders {
  const uint8_t *plan; /* NULL: nothing is frozen */
  size_t plan_size;
  const uint8_t *job; /* FL_HASH_BYTES */
  uint32_t reports;   /* GRADNORM, PLASTICITY or 0 */
  uint64_t steps;     /* of the round */
  uint32_t floor;     /* first module that this device trains */
} fli_orders;

/* A controller of criterion SERVER follows them, begun anew where it has to be;
 * on failure all is as before. */
fl_status fli_freeze_follow(fl_freeze *freeze, const fli_orders *orders);

/* ---- late.c -------------------------------------------------------------- */

/* Wait for what is measured beside the steps, and take it in; or forget it. */
void fli_late_settle(struct fli_attachment *attachment);
void fli_late_drop(struct fli_attachment *attachment);

/* ---- options.c ----------------------------------------------------------- */

/* Read, check and fill in; copies `fixed` and `allowed`. */
fl_status fli_freeze_take_options(fl_freeze *freeze,
                                  const fl_freeze_options *given);
void fli_freeze_drop_options(fl_freeze *freeze);

/* ---- controller.c -------------------------------------------------------- */

fl_status fli_freeze_state_init(const fl_freeze *freeze,
                                fli_freeze_state *state);
void fli_freeze_state_free(const fl_freeze *freeze, fli_freeze_state *state);
/* The largest value of first_active that is allowed, not above this. */
uint32_t fli_freeze_allow(const fl_freeze *freeze, uint32_t first_active);
/* As if the step that was begun, if one is, had not been; what is decided
 * stays. */
void fli_freeze_drop_step(fl_freeze *freeze);
/* Say where there is nothing to train: n_modules bytes, 1 = there; NULL, as
 * before the first call: nowhere. Copied. The front steps over such modules.
 * Those before all others count as frozen from the start, without an event. A
 * schedule's plan and a server's are what they say. */
void fli_freeze_set_empty(fl_freeze *freeze, const uint8_t *empty);
/* The same for a state that was loaded. */
void fli_freeze_step_over(fl_freeze *freeze);
/* The first module from this one on that has something to train, or
 * max_frozen. */
uint32_t fli_freeze_front(const fl_freeze *freeze, uint32_t from);
/* The last module of the body that has: the head is behind it. */
uint32_t fli_freeze_last(const fl_freeze *freeze);
/* Another front module: forget what was measured of the one before. */
void fli_freeze_forget(fl_freeze *freeze);
/* Other weights come: what those before have shown is not compared with. */
void fli_freeze_drop_seen(fl_freeze *freeze);
/* There is no snapshot any more. */
void fli_freeze_drop_snapshot(fl_freeze *freeze);
/* Take in pairs that `step` asked for: the step at hand, which is begun, or one
 * that has ended and whose pairs still wait. Others are dropped. */
void fli_freeze_show_pairs(fl_freeze *freeze, uint64_t step,
                           const fli_pairs *pairs);
/* Make the plan what is decided, and the modules of `mask` (NULL: none)
 * besides, if it is another. */
void fli_freeze_publish(fl_freeze *freeze, const uint8_t *mask,
                        uint32_t reason);
/* Make it so in any case. */
void fli_freeze_set_plan(fl_freeze *freeze, const uint8_t *mask,
                         uint64_t version, uint32_t reason);
/* Freeze the front module if the criterion is met and time allows. */
void fli_freeze_consider(fl_freeze *freeze);

/* ---- boot.c: what losses and learning rates say ---------------------------
 */

void fli_freeze_boot(fl_freeze *freeze, double loss);
/* FL_FREEZE_REASON_RATE_FELL or _RESTART when everything is to be unfrozen at
 * this rate, else 0. */
uint32_t fli_freeze_unfreeze_reason(const fl_freeze *freeze, double rate);
/* Whether a job from a trained model has so many steps at most to go until it
 * has bootstrapped. */
int fli_freeze_is_near(const fl_freeze *freeze, uint64_t steps);

/* ---- criteria -------------------------------------------------------------
 */

/* Append to the values that are kept, `keep` of them at most. */
void fli_freeze_remember(fli_freeze_state *state, double value, double other,
                         uint32_t keep);
/* One evaluation more that counts. */
void fli_freeze_count(fli_freeze_state *state, int is_below);
/* Or nothing at all: what does not move has a threshold of 0, too. */
int fli_freeze_is_below(double value, double threshold);
double fli_freeze_mean(const double *values, uint32_t n);
/* Slope of the least-squares line through n >= 2 values at 0, 1, ... */
double fli_freeze_slope(const double *values, uint32_t n);
/* Whether the step at hand, or the one that is so many behind it, ends an
 * interval, and there is a module left to freeze. */
int fli_freeze_is_due(const fl_freeze *freeze, uint64_t steps_before);

/* ---- median.c -------------------------------------------------------------
 */

typedef struct fli_weighted {
  double value;
  double weight;
} fli_weighted;

void fli_weighted_sort(fli_weighted *items, uint32_t n);
/* First value, of sorted ones, up to which half of the weight lies. */
double fli_weighted_median(const fli_weighted *items, uint32_t n);
double fli_weighted_total(const fli_weighted *items, uint32_t n);
/* Median of 1..FLI_FREEZE_WINDOW_MAX values. */
double fli_median(const double *values, uint32_t n);

/* ---- similarity.c ---------------------------------------------------------
 */

/* n values of each of `rows` samples. */
typedef struct fli_outputs {
  const float *values;
  uint64_t n;
  uint32_t rows;
} fli_outputs;

fl_status fli_plasticity(fl_context *context, const fli_outputs *a,
                         const fli_outputs *b, double *plasticity);
fl_status fli_cka(fl_context *context, const fli_outputs *a,
                  const fli_outputs *b, double *cka);
/* Sum of (a - b)^2. */
double fli_change_squares(const float *a, const float *b, uint64_t n);

/* ---- report.c, events.c ---------------------------------------------------
 */

void fli_freeze_report_evaluation(fl_freeze *freeze, double raw);
void fli_freeze_drop_report(fli_freeze_state *state);
/* An event of the step at hand, to be filled in. The oldest one is dropped when
 * there is no place. */
fl_freeze_event *fli_freeze_emit(fl_freeze *freeze, uint32_t kind,
                                 uint64_t step);
void fli_freeze_emit_evaluation(fl_freeze *freeze, const fli_evaluation *e,
                                uint64_t step);

/* ---- state.c, state_load.c ------------------------------------------------
 */

enum { FLI_FREEZE_STATE_VERSION = 1 };

/* The state without its envelope, and back; `out` is made by
 * fli_freeze_state_init and unspecified on failure. */
fl_status fli_freeze_write(const fl_freeze *freeze, fli_bytes *out);
fl_status fli_freeze_read(const fl_freeze *freeze, const uint8_t *data,
                          size_t n, fli_freeze_state *out);

#endif
