/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file freeze.h
 * Layer freezing: modules that have learned enough stop costing time, memory
 * and traffic (KGT: Wang et al., "Egeria: Efficient DNN Training with
 * Knowledge-Guided Layer Freezing", EuroSys 2023; gradient criterion after
 * AutoFreeze and GradES; SAFE for adapters).
 *
 * A model is `n_modules` modules in the order of its forward pass; modules
 * 0 .. first_active - 1 are frozen, and backward stops there. An fl_freeze
 * decides when `first_active` grows. It computes with numbers only, so it works
 * with any trainer:
 *
 *   for every step:
 *     fl_freeze_begin_step(freeze, learning_rate, &request);
 *       train modules request.first_active and up; if request.wants says so,
 *       fl_freeze_push_gradient / _push_pair / _push_features
 *     fl_freeze_end_step(freeze, loss);
 *
 * With a model of this library fl_freeze_attach does all of that inside of
 * fl_model_step and fl_model_fit. The plan changes in fl_freeze_begin_step,
 * fl_freeze_end_round and fl_freeze_apply_plan, nowhere else.
 *
 * For every function here. Thread-safety: one thread per fl_freeze at a time.
 * Determinism: D0: the same numbers pushed give the same plan everywhere.
 */
#ifndef FL_FREEZE_H
#define FL_FREEZE_H

#include <fl/base.h>
#include <fl/cache.h>
#include <fl/model.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fl_freeze fl_freeze;

/* ---- options ------------------------------------------------------------ */

/** What says that a module has learned enough. */
enum {
  /** The default. D = |g_t - g_(t-1)|, L2, of the front module's gradient on
   * two steps in a row; its mean over the last 4 evaluations falls below
   * `tolerance` (.9) times its maximum over the module's first 8 as the front
   * one, `patience` (8) times running. */
  FL_FREEZE_GRADNORM = 1,
  /** P, the similarity-preserving loss between the module's output in the model
   * and in an int8 snapshot of it: the slope of its trailing mean stays below
   * `tolerance` times the largest of the module's first window + 2
   * evaluations, `window` times running. See the presets. */
  FL_FREEZE_PLASTICITY = 2,
  /** P of the front module over P of the last one of the body, n_modules - 2,
   * which never freezes by it; medians of 16: the learning rate cancels out.
   * Below `tolerance` (.2), `patience` (8) times running. */
  FL_FREEZE_RELATIVE_PLASTICITY = 3,
  /** SAFE, for models with adapters: importance 1 - CKA(features before, after
   * the adapter), of several in a module the largest, is measured during the
   * first `warmup_share` of the job; then, until `until_share`, every module
   * whose importance is below a threshold that rises with a cubic is frozen for
   * good, half of them at most. Not a prefix: see fl_freeze_plan.frozen. */
  FL_FREEZE_CKA = 4,
  /** As `fixed` says, whatever happens. */
  FL_FREEZE_FIXED = 5,
  /** What fl_freeze_apply_plan brings, nothing else. `reports` names what is
   * measured meanwhile, for fl_freeze_get_report. */
  FL_FREEZE_SERVER = 6
};

/** Window, tolerance and loss level of plasticity in one. */
enum {
  FL_FREEZE_CAREFUL = 1,  /**< window 20, tolerance .05, loss level .25 */
  FL_FREEZE_BALANCED = 2, /**< 12, .1, .6; the default */
  FL_FREEZE_FAST = 3      /**< 6, .2, .6 */
};

/** From step `step` on `first_active` is this. */
typedef struct fl_freeze_fixed {
  uint64_t step;
  uint32_t first_active;
  uint32_t reserved;
} fl_freeze_fixed;

/** 0 in a field means the default, which is the criterion's own. */
typedef struct fl_freeze_options {
  uint32_t struct_size;
  uint32_t criterion; /**< FL_FREEZE_*; default GRADNORM */
  uint32_t preset;    /**< FL_FREEZE_CAREFUL ..; default BALANCED */
  uint32_t reports;   /**< SERVER: GRADNORM, PLASTICITY or 0 = nothing */
  /** Steps of an epoch, or of a client's round; required, >= 1, but for an
   * aggregator's (fl_freeze_end_round), which has rounds for steps. */
  uint64_t steps_per_epoch;
  uint64_t total_steps; /**< of the job; 0 = not known. Required for CKA */
  uint64_t interval; /**< steps between evaluations, >= 2 for GRADNORM; default
                          steps_per_epoch / 16, at least 2 */
  uint32_t window;   /**< evaluations, 3..256 */
  uint32_t patience; /**< evaluations, or rounds (3) of an aggregator */
  float tolerance;   /**< > 0 */
  float loss_level;  /**< bootstrapping: see is_pretrained; > 0, default .6 */
  float loss_change; /**< > 0, default .1 */
  /** Nothing freezes in the bootstrapping phase. It ends when the loss changes
   * by less than `loss_change` from one window of 2 intervals to the next, and
   * is below `loss_level` times its mean over the first 3 steps; or, when the
   * job starts from a trained model (1), after `pretrained_share` of its steps
   * (total_steps), for then the loss may have nowhere to fall. */
  uint32_t is_pretrained;
  float pretrained_share; /**< 0..1, default .2 */
  uint32_t max_frozen;    /**< modules; default n_modules - 2, n_modules - 1 at
                               most: the last module never freezes, nor the head,
                               which is the last one in our own models */
  uint64_t hold;          /**< steps before the first freeze */
  uint64_t gap;       /**< steps between two; default 2 epochs, or 2 rounds, of
                           a job from a trained model a quarter of its rounds */
  uint32_t unfreezes; /**< when the learning rate falls to a tenth of what it
                           was at the last freeze: FL_AUTO, the default (the
                           plasticity criteria do), 0 or 1. A warm restart, a
                           rate of twice the lowest since the freeze, unfreezes
                           always. Not CKA, FIXED, SERVER */
  uint32_t halves_window; /**< 1: window and patience halve at each unfreeze */
  uint32_t rows;          /**< samples that a pair wants; 4..256, default 16;
                               features (CKA) 256 */
  uint32_t refresh;       /**< evaluations per snapshot; default 8 */
  float warmup_share;     /**< CKA; default .1 */
  float until_share;      /**< CKA; default .5 */
  /** FIXED: rising steps. Copied. */
  const fl_freeze_fixed *fixed;
  uint32_t n_fixed;
  /** Values of first_active that a trainer compiled ahead of time has a way
   * back for, rising, from 0: the plan takes the largest that is not above what
   * was decided. NULL = all. Copied. */
  uint32_t n_allowed;
  const uint32_t *allowed;
  /** Names the job: FL_HASH_BYTES, such as the model's schema hash. Plans of
   * another job are refused. NULL = zeros. Copied. */
  const uint8_t *job;
  /** PLASTICITY, RELATIVE_PLASTICITY, SERVER that reports PLASTICITY: pairs
   * count at the end of the step so many after the one that asked for them, and
   * may be pushed until then: whoever measures them need not hold up a step,
   * and the plan is the same whenever they come. 0, the default: the step that
   * asked; below `interval`. */
  uint64_t lag;
} fl_freeze_options;
FL_API fl_status fl_freeze_options_init(fl_freeze_options *options,
                                        size_t size);

/** Make a controller for `n_modules` modules, 2..4096. `options` may be NULL
 * only for an aggregator's GRADNORM controller. FL_E_OPTIONS: a value out of
 * range, or what the criterion requires is missing; FL_E_CONFLICT. */
FL_API fl_status fl_freeze_new(fl_freeze **out, fl_context *context,
                               uint32_t n_modules,
                               const fl_freeze_options *options);
/** Detaches it first, if it is attached. */
FL_API void fl_freeze_free(fl_freeze *freeze);

/* ---- the plan ----------------------------------------------------------- */

/** Why the plan is as it is. */
enum {
  FL_FREEZE_REASON_NONE = 0,      /**< nothing was frozen yet */
  FL_FREEZE_REASON_CRITERION = 1, /**< the criterion was met */
  FL_FREEZE_REASON_FIXED = 2,     /**< the schedule says so */
  FL_FREEZE_REASON_SERVER = 3,    /**< the server's plan */
  FL_FREEZE_REASON_RATE_FELL = 4, /**< unfrozen */
  FL_FREEZE_REASON_RESTART = 5    /**< unfrozen: warm restart */
};

typedef struct fl_freeze_plan {
  uint32_t struct_size;
  uint32_t first_active; /**< modules below are frozen */
  uint64_t version;      /**< rises by 1 with each change, from 0 */
  uint64_t step;         /**< of the last change; rounds at an aggregator */
  uint32_t reason;       /**< FL_FREEZE_REASON_*, of the last change */
  uint32_t n_modules;
  /** n_modules bytes, 1 = frozen; more than the prefix with CKA. Borrowed,
   * valid until the next call on the controller. */
  const uint8_t *frozen;
} fl_freeze_plan;
FL_API fl_status fl_freeze_plan_init(fl_freeze_plan *plan, size_t size);
FL_API fl_status fl_freeze_get_plan(const fl_freeze *freeze,
                                    fl_freeze_plan *plan);
/** The plan as bytes (msgpack, versioned), for fl_freeze_apply_plan elsewhere:
 * the aggregator's PLAN message carries them. */
FL_API fl_status fl_freeze_copy_plan(const fl_freeze *freeze, uint8_t *buffer,
                                     size_t capacity, size_t *needed);
/** Follow a plan made elsewhere, with criterion SERVER. Hostile bytes are fine;
 * a plan with the version held changes nothing, but for version 0, which
 * freezes what has nothing to train. FL_E_FORMAT, FL_E_VERSION, FL_E_TRUNCATED;
 * FL_E_CONFLICT: of another job; FL_E_DIM: other modules; FL_E_STALE: older
 * than the one held; FL_E_RANGE: freezes more than max_frozen allows;
 * FL_E_STATE: another criterion. The plan held stays. A plan that is taken
 * drops a step that was begun and not ended: begin it anew. */
FL_API fl_status fl_freeze_apply_plan(fl_freeze *freeze, const uint8_t *data,
                                      size_t n);

/* ---- steps -------------------------------------------------------------- */

enum {
  /** The gradient of `module`, all its trainable values in order: push it. */
  FL_FREEZE_WANTS_GRADIENT = 1,
  /** Outputs of `module` in the model, before this step's update, and in the
   * snapshot, both on the model's own input of the module. */
  FL_FREEZE_WANTS_PAIR = 2,
  FL_FREEZE_WANTS_LAST_PAIR = 4, /**< and the same of module `last` */
  /** Features before and after the adapter of each module not frozen. */
  FL_FREEZE_WANTS_FEATURES = 8,
  /** Make the snapshot anew before: the model's weights now, quantised. Asked
   * for again until a pair was pushed in such a step. */
  FL_FREEZE_WANTS_SNAPSHOT = 16
};

/** What the step that begins should train, and show. */
typedef struct fl_freeze_request {
  uint32_t struct_size;
  uint32_t wants; /**< FL_FREEZE_WANTS_*, ORed; 0 = nothing */
  uint32_t first_active;
  uint32_t has_changed; /**< 1: the plan is another than in the step before */
  uint32_t module;      /**< the front module: first that is not frozen
                             and, attached, has something to train */
  uint32_t last;        /**< last module of the body, before the head:
                             n_modules - 2; attached, of those to train */
  uint32_t rows;        /**< samples of a pair, or features, at most */
  uint32_t reserved;
  uint64_t step; /**< from 0 */
} fl_freeze_request;
FL_API fl_status fl_freeze_request_init(fl_freeze_request *request,
                                        size_t size);

/** Begin a step at this learning rate (finite, >= 0). A step that was begun and
 * not ended (it failed) is begun anew. FL_E_NOT_FINITE, FL_E_ARGUMENT. */
FL_API fl_status fl_freeze_begin_step(fl_freeze *freeze, float learning_rate,
                                      fl_freeze_request *request);
/** Show the module's gradient, `n` values. The first of two steps' is copied:
 * 4 n bytes until the second. FL_E_STATE: not asked for; FL_E_ARGUMENT: another
 * module; FL_E_DIM: another n than the step before; FL_E_NOT_FINITE,
 * FL_E_NOMEM: this evaluation is left out. */
FL_API fl_status fl_freeze_push_gradient(fl_freeze *freeze, uint32_t module,
                                         const float *gradient, uint64_t n);
/** The same for a trainer that computes the difference itself, on the second of
 * the two steps: the sum of squares of g_t - g_(t-1), >= 0. */
FL_API fl_status fl_freeze_push_gradient_change(fl_freeze *freeze,
                                                uint32_t module,
                                                double sum_of_squares);
/** Show outputs of `module` in the model and in the snapshot, each [rows, n],
 * in the step that asked or one of the `lag` behind it: samples flattened,
 * tokens too. rows 2..1024; more than request.rows are fine.
 * Of n above 65536 every k-th value is read, k = ceil(n / 65536). FL_E_STATE,
 * FL_E_ARGUMENT, FL_E_DIM (n = 0, rows), FL_E_NOT_FINITE, FL_E_NOMEM: this
 * evaluation is left out. */
FL_API fl_status fl_freeze_push_pair(fl_freeze *freeze, uint32_t module,
                                     const float *model, const float *snapshot,
                                     uint32_t rows, uint64_t n);
/** Show features before [rows, n_before] and after [rows, n_after] the adapter
 * of `module`. A module with several is as important as the one that does most:
 * push each; the largest 1 - CKA of the step counts. FL_E_* as a pair's. */
FL_API fl_status fl_freeze_push_features(fl_freeze *freeze, uint32_t module,
                                         const float *before, uint64_t n_before,
                                         const float *after, uint64_t n_after,
                                         uint32_t rows);
/** End the step with its loss. Steps that showed nothing of what was asked for
 * (a module without activations) just have no evaluation. FL_E_STATE: not
 * begun; FL_E_NOT_FINITE: the loss; the step is then begun still. */
FL_API fl_status fl_freeze_end_step(fl_freeze *freeze, double loss);

/** P of two sets of outputs, [rows, n] each, as the criterion sees them:
 * |G_a - G_b|_F^2 / rows^2 of the row-normalised Gram matrices. Scratch is
 * allocated. FL_E_DIM, FL_E_NOT_FINITE, FL_E_NOMEM. */
FL_API fl_status fl_plasticity(fl_context *context, const float *a,
                               const float *b, uint32_t rows, uint64_t n,
                               double *plasticity);
/** Linear CKA (Kornblith et al. 2019) of features [rows, n_a] and [rows, n_b],
 * columns centred: 0..1; 1 when either is constant. */
FL_API fl_status fl_cka(fl_context *context, const float *a, uint64_t n_a,
                        const float *b, uint64_t n_b, uint32_t rows,
                        double *cka);

/* ---- federated ---------------------------------------------------------- */

/** What a client tells of a round: the mean of the criterion's value of the
 * front module, over the round's evaluations (plasticity: over the later half
 * of them). */
typedef struct fl_freeze_report {
  uint32_t struct_size;
  uint32_t module;
  double value;  /**< finite, >= 0 */
  double weight; /**< for the aggregator: > 0, such as samples */
} fl_freeze_report;
FL_API fl_status fl_freeze_report_init(fl_freeze_report *report, size_t size);
/** Take the report since the last one; weight 1. FL_E_EMPTY: nothing was
 * measured. Either way the round is over, and what comes next has other
 * weights: no gradient and no snapshot of before is compared with them. */
FL_API fl_status fl_freeze_take_report(fl_freeze *freeze,
                                       fl_freeze_report *report);
/** At the aggregator: end a round with its mean training loss (NaN = unknown:
 * in the first round that means no bootstrapping, later the round is passed
 * over) and the clients' reports. Those of other modules than the front one,
 * not finite or negative, are left out. GRADNORM: M = the largest weighted
 * median over the module's first 4 rounds as the front one; after those a
 * client is below when its value < tolerance M. PLASTICITY: M = the largest
 * |slope| of the medians so far (the last `window` of them) over its first 5
 * rounds, of which the first has none; after those a client is below when
 * |slope| with its value as the last one < tolerance M. The module freezes when
 * clients with 70 % of the weight are below, `patience` (3) rounds running.
 * In a job from a trained model the rounds of bootstrapping count as others do,
 * but nothing freezes in them, and GRADNORM's tolerance is 1.25: it does not
 * wait for a fall, only while the change of the gradient rises.
 * FL_E_STATE: another criterion, or a controller that has steps. */
FL_API fl_status fl_freeze_end_round(fl_freeze *freeze, double loss,
                                     const fl_freeze_report *reports,
                                     uint32_t n_reports);

/* ---- attached to a model of this library -------------------------------- */

typedef struct fl_freeze_attach_options {
  uint32_t struct_size;
  /** Nothing in front of this module is trained, whatever the plan: what a
   * device can afford (fl_train_task.first_active). A criterion that decides
   * begins with it; one that follows a server measures nothing while that
   * one's front module is before it. Default 0. */
  uint32_t first_active;
  /** Keeps what comes out of the frozen modules, so that it need not be
   * computed again; NULL, the default: nothing does. Used for data sets with
   * ids, which name one and the same sample in all data that this cache sees
   * (nobody looks at the sample again), and for those of fl_model_fit, whose
   * ids are the places of samples, and which are hashed; not for models with a
   * sparse embedding, whose rows others may change. Borrowed until the
   * controller is detached. */
  fl_cache *cache;
  /** Ids are below it; 0, the default: the samples of the data set at hand. */
  uint64_t n_samples;
} fl_freeze_attach_options;
FL_API fl_status
fl_freeze_attach_options_init(fl_freeze_attach_options *options, size_t size);
/** Let the controller see all training of `model` from now on, and set its
 * first active module: weights, optimiser state, gradients and activations of
 * what is frozen cost nothing from that step on. A step of the controller is an
 * update of the model. Its numbers of modules must agree: modules of the model
 * with tensors are 0 .. n_modules - 1. What is measured is measured in the
 * step that asks for it. Pairs with a `lag` are measured beside the steps that
 * follow, on a thread of the model's context, if that has `start`, and else
 * when the step that asks has ended. The numbers are the same, and count at the
 * same step, which waits for them if they are late; so do freeing, detaching
 * and saving. Until then what is shown, `rows` samples of it, is held.
 *
 * The snapshot that plasticity wants takes 4 bytes per weight, which hold
 * what 8 bits per weight and a scale per output channel can say, and
 * activations of `rows` samples; made at its first use.
 *
 * The cache is given up, with an event, when it fails or samples have no ids;
 * training goes on. It is not used, with an event, as long as a sample's
 * outputs of the frozen modules are more than 4 times as many values as its
 * inputs, or more than one layer's cross to the others. Whether reading is
 * faster than computing on the device at hand is for the host to know
 * (bench_cache, bench_kgt). With FL_CACHE_F32 the losses are those without it,
 * to the last bit, as long as a sample's outputs do not depend on the samples
 * beside it (model.h: dense layers with few rows).
 *
 * Between fl_model_accumulate and fl_model_update the controller goes by the
 * rate of the optimiser's schedule, which is known when an update begins.
 *
 * Neither owns the other: free them in any order. Checkpoints of the model hold
 * its first active module; fl_freeze_save the rest. FL_E_STATE: the controller
 * is attached, or the model has one, or no layers; FL_E_DIM: modules;
 * FL_E_NOT_FOUND: CKA, and the model has no adapters (fl_model_with_lora,
 * fl_model_with_adapters); FL_E_UNSUPPORTED: an aggregator's. */
FL_API fl_status fl_freeze_attach(fl_freeze *freeze, fl_model *model,
                                  const fl_freeze_attach_options *options);
/** Leave the model as it is. FL_E_STATE: not attached. */
FL_API fl_status fl_freeze_detach(fl_freeze *freeze);

/* ---- what happened ------------------------------------------------------ */

enum {
  FL_FREEZE_EVALUATED = 1, /**< value, threshold, below */
  FL_FREEZE_BOOTED = 2,    /**< the bootstrapping phase is over */
  FL_FREEZE_CHANGED = 3,   /**< the plan: first_active, version, reason */
  FL_FREEZE_CACHE_OFF = 4  /**< attached: the cache is not used; text */
};

typedef struct fl_freeze_event {
  uint32_t struct_size;
  uint32_t kind; /**< FL_FREEZE_EVALUATED .. */
  uint64_t step; /**< or round */
  uint32_t module;
  uint32_t below;   /**< evaluations running, so far */
  double value;     /**< what is compared: D, slope, ratio, importance */
  double threshold; /**< NaN = not known yet */
  double raw;       /**< this evaluation alone: D or P; NaN = none */
  uint32_t first_active;
  uint32_t reason; /**< FL_FREEZE_REASON_* */
  uint64_t version;
  const char *text; /**< for people; never NULL. Static, or valid until the
                         next call on the controller */
} fl_freeze_event;
FL_API fl_status fl_freeze_event_init(fl_freeze_event *event, size_t size);
/** Take the oldest event; FL_E_EMPTY when there is none. The last 256 are kept.
 */
FL_API fl_status fl_freeze_poll(fl_freeze *freeze, fl_freeze_event *event);

/* ---- state -------------------------------------------------------------- */

/** Save everything, but events and a step that was begun and not ended, which
 * stays begun. Attached, it waits for what is measured beside the steps.
 * FL_E_TOO_LARGE: a gradient of 2^30 values; FL_E_NOMEM, FL_E_IO. */
FL_API fl_status fl_freeze_save(const fl_freeze *freeze,
                                const fl_writer *writer);
/** Take it back, into a controller with the same modules and options.
 * FL_E_CONFLICT: of others; FL_E_FORMAT, FL_E_VERSION, FL_E_TRUNCATED,
 * FL_E_TOO_LARGE, FL_E_IO, FL_E_NOMEM: as before. */
FL_API fl_status fl_freeze_load(fl_freeze *freeze, const fl_reader *reader);

#ifdef __cplusplus
}
#endif
#endif
