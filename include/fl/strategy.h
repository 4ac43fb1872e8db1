/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file strategy.h
 * From the updates of a round to the next model: how they are combined (the
 * rule), and what the server makes of it (the optimiser). For hosts that move
 * updates by themselves, and for jobs of fl_server.
 *
 *   fl_strategy_options_named(&options, sizeof options, "fedadam");
 *   fl_strategy_new(&strategy, NULL, &options, n_weights);
 *   every round: fl_strategy_step(strategy, &round, weights, n_weights);
 *
 * D_k is what client k's training has added to the weights, p_k its share.
 * Updates are read piece by piece through the host's reader, so that a round
 * needs one piece of every update in memory (docs/design/aggregation.md).
 *
 * For every function here. Thread-safety: one thread per handle at a time.
 * Determinism: D0 in what is given, the order of the updates included.
 */
#ifndef FL_STRATEGY_H
#define FL_STRATEGY_H

#include <fl/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fl_strategy fl_strategy;

/** How the updates become one vector D. */
enum {
  FL_RULE_MEAN = 1, /**< sum p_k D_k: FedAvg */
  /** FedNova (Wang et al., NeurIPS 2020): updates of unequal work. */
  FL_RULE_NOVA = 2,
  /** q-FedAvg (Li et al., ICLR 2020): more weight where the loss is high. */
  FL_RULE_FAIR = 3,
  /** SCAFFOLD, option II (Karimireddy et al., ICML 2020). */
  FL_RULE_SCAFFOLD = 4,
  FL_RULE_MEDIAN = 5,       /**< of every coordinate */
  FL_RULE_TRIMMED_MEAN = 6, /**< without the ends of every coordinate */
  FL_RULE_KRUM = 7,         /**< Blanchard et al., NeurIPS 2017 */
  FL_RULE_MULTI_KRUM = 8,
  FL_RULE_GEOMETRIC_MEDIAN = 9, /**< Pillutla et al., IEEE TSP 2022 */
  FL_RULE_HOST = 10             /**< fl_strategy_options.combine */
};

/** How D moves the model. */
enum {
  FL_STEP_SGD = 1, /**< m = momentum m + D; w += rate m */
  /** Reddi et al., ICLR 2021: m = beta1 m + (1 - beta1) D;
   * w += rate m / (sqrt(v) + tau). */
  FL_STEP_ADAM = 2,    /**< v = beta2 v + (1 - beta2) D^2 */
  FL_STEP_YOGI = 3,    /**< v -= (1 - beta2) D^2 sign(v - D^2) */
  FL_STEP_ADAGRAD = 4, /**< v += D^2 */
  FL_STEP_HOST = 5     /**< fl_strategy_options.optimise */
};

/** A round's updates. Arrays have `count` values and may be NULL where the rule
 * has no use for them. */
typedef struct fl_strategy_round {
  uint32_t struct_size;
  uint32_t count;          /**< of updates, >= 1 */
  const uint64_t *samples; /**< >= 1 each; NULL: all count the same */
  const uint64_t *steps;   /**< local steps, >= 1: NOVA */
  const double *losses;    /**< at the model that clients began with: FAIR */
  /** Updates that lie in memory: `count` pointers. `read` is not called then.
   */
  const float *const *rows;
  /** The same for how clients' controls have changed: SCAFFOLD. */
  const float *const *control_rows;
  /** Give values [at, at + n) of update `index`: either write them to
   * `buffer`, or let *values, which is `buffer`, point at memory that stays as
   * it is until the step has ended. Pieces come in any order, more than once.
   */
  fl_status (*read)(void *user, uint32_t index, uint64_t at, uint64_t n,
                    float *buffer, const float **values);
  /** The same for controls. */
  fl_status (*read_control)(void *user, uint32_t index, uint64_t at, uint64_t n,
                            float *buffer, const float **values);
  void *user;
} fl_strategy_round;
FL_API fl_status fl_strategy_round_init(fl_strategy_round *round, size_t size);

typedef struct fl_strategy_options {
  uint32_t struct_size;
  uint32_t rule;       /**< FL_RULE_*; default MEAN */
  uint32_t optimiser;  /**< FL_STEP_*; default SGD */
  uint32_t is_uniform; /**< 1: p_k = 1/K whatever the samples. Default 0 */
  float rate;     /**< > 0; 0 (default): 1, ADAM and ADAGRAD .1, YOGI .01 */
  float momentum; /**< SGD: 0..<1, default 0 */
  float beta1;    /**< 0..<1, default .9 */
  float beta2;    /**< 0..<1, default .99 */
  float tau;      /**< > 0, default 1e-3 */
  float v0;       /**< what v begins with; >= 0, default 0 */
  /** 1: m / (1 - beta1^t), v / (1 - beta2^t). ADAM and YOGI. Default 0 */
  uint32_t bias_correction;
  /** FedProx (Li et al., MLSys 2020): clients add mu (w_local - w) to their
   * gradients (fl_local_options); NOVA counts with it. >= 0, default 0 */
  float prox_mu;
  float client_rate;     /**< eta_l of FAIR, and of NOVA with prox_mu; > 0,
                              default .05 */
  float client_momentum; /**< NOVA; 0..<1, default 0 */
  float fairness;        /**< q of FAIR; 0..16, default 1 */
  float trim;            /**< TRIMMED_MEAN: floor(trim K) at each end; 0..<.5,
                              default .2 */
  uint32_t byzantine;    /**< f of KRUM, MULTI_KRUM: K >= 2 f + 3. Default 1 */
  uint32_t passes;       /**< GEOMETRIC_MEDIAN; 1..64, default 4 */
  float smoothing;       /**< its nu; > 0, default 1e-6 */
  /** Updates longer than this are made as long as this, before anything else.
   * 0 = never (default). */
  float clip;
  /** 1: from round to round the bound moves to where `clip_quantile` of the
   * updates are shorter (Andrew et al., NeurIPS 2021): it becomes
   * bound exp(-clip_rate (share of those not longer - clip_quantile)). */
  uint32_t clip_adapts;
  float clip_quantile; /**< 0..1, default .5 */
  float clip_rate;     /**< 0..4, default .2 */
  uint64_t population; /**< SCAFFOLD's N, all clients; 0 = those of a round */
  /** Rule HOST: write n values to `combined`. NaN or infinity, and a failure,
   * end the step: the model stays. */
  fl_status (*combine)(void *user, const fl_strategy_round *round,
                       float *combined, uint64_t n);
  /** Optimiser HOST: write what is to be added to the weights to `step`. */
  fl_status (*optimise)(void *user, const float *combined, const float *weights,
                        float *step, uint64_t n);
  /** Hold-out gate; NULL = none. Score what would be the next model. A step
   * whose loss is NaN, or above (1 + gate_tolerance) times that of the last
   * step taken, is refused. */
  fl_status (*score)(void *user, const float *weights, uint64_t n,
                     double *loss);
  void *user;
  float gate_tolerance; /**< 0..1000, default .1 */
  uint32_t reserved;
} fl_strategy_options;
FL_API fl_status fl_strategy_options_init(fl_strategy_options *options,
                                          size_t size);
/** The options of a strategy by name: fedavg, fedavgm (momentum .9), fedprox
 * (mu .01), fedadam, fedyogi, fedadagrad, fednova, scaffold, q-fedavg, median,
 * trimmed-mean, krum, multi-krum, geometric-median. FL_E_NOT_FOUND. */
FL_API fl_status fl_strategy_options_named(fl_strategy_options *options,
                                           size_t size, const char *name);

/** Make a strategy for models of `n` weights. FL_E_OPTIONS: a value out of
 * range; FL_E_CONFLICT: values exclude each other; FL_E_ARGUMENT: n 0.
 * Ownership: *out is the caller's. */
FL_API fl_status fl_strategy_new(fl_strategy **out, fl_context *context,
                                 const fl_strategy_options *options,
                                 uint64_t n);
FL_API void fl_strategy_free(fl_strategy *strategy);

enum {
  FL_STRATEGY_NEEDS_UPDATES = 1, /**< separately: no sum will do */
  FL_STRATEGY_NEEDS_STEPS = 2,
  FL_STRATEGY_NEEDS_LOSSES = 4,
  FL_STRATEGY_NEEDS_CONTROLS = 8
};
/** FL_STRATEGY_NEEDS_* of these options; 0 also when they cannot be read. */
FL_API uint32_t fl_strategy_needs(const fl_strategy_options *options);

/** Combine the updates and move `weights`. All or nothing: on failure weights
 * and strategy are as before.
 * FL_E_ARGUMENT: what the rule needs is NULL, or a 0 in it; FL_E_DIM: n;
 * FL_E_EMPTY: count 0; FL_E_RANGE: too few updates for KRUM, a loss out of
 * range; FL_E_NOT_FINITE: an update, or what came out; FL_E_CALLBACK: a
 * callback gave a positive status; a negative one is passed on;
 * FL_E_LIMIT: the gate refused the step; FL_E_NOMEM. */
FL_API fl_status fl_strategy_step(fl_strategy *strategy,
                                  const fl_strategy_round *round,
                                  float *weights, uint64_t n);
/** The same where sum p_k D_k was made elsewhere (fl_partial_decode).
 * FL_E_STATE: the strategy needs more than that (fl_strategy_needs). */
FL_API fl_status fl_strategy_step_mean(fl_strategy *strategy, const float *mean,
                                       float *weights, uint64_t n);

typedef struct fl_strategy_report {
  uint32_t struct_size;
  uint32_t count;   /**< updates of the last step taken */
  uint64_t steps;   /**< taken so far */
  double clip;      /**< the bound of the next round; 0 = none */
  uint32_t clipped; /**< updates of the last step that were longer */
  uint32_t chosen;  /**< KRUM: index of the update; else UINT32_MAX */
  double length;    /**< |D| of the last step */
  double gate_loss; /**< of the last step taken; NaN = not known */
} fl_strategy_report;
FL_API fl_status fl_strategy_report_init(fl_strategy_report *report,
                                         size_t size);
FL_API fl_status fl_strategy_get_report(const fl_strategy *strategy,
                                        fl_strategy_report *report);
/** Copy what each update of the last step was multiplied with on its way into D
 * (clipping included): 0 = left out. FL_E_EMPTY: no step was taken, or the rule
 * has no such numbers (MEDIAN, TRIMMED_MEAN, HOST); FL_E_DIM: count. */
FL_API fl_status fl_strategy_copy_factors(const fl_strategy *strategy,
                                          double *factors, uint32_t count);
/** SCAFFOLD: borrow the server's control, which clients are sent; valid until
 * the strategy is freed, changed by steps. FL_E_STATE: another rule. */
FL_API fl_status fl_strategy_get_control(const fl_strategy *strategy,
                                         const float **control, uint64_t *n);

/** Save and restore what steps have left (not the options). FL_E_IO;
 * FL_E_FORMAT, FL_E_VERSION, FL_E_TRUNCATED, FL_E_DIM: other weights;
 * FL_E_SCHEMA: saved by another rule or optimiser. The strategy is unchanged
 * then. Hostile bytes are fine. */
FL_API fl_status fl_strategy_save(const fl_strategy *strategy,
                                  const fl_writer *writer);
FL_API fl_status fl_strategy_load(fl_strategy *strategy,
                                  const fl_reader *reader);

/* ---- at the client ------------------------------------------------------- */

/** What FedProx and SCAFFOLD add to a client's gradients, and the client's
 * control, which outlives rounds. For the built-in trainer:
 *
 *   fl_local_begin(local, global_weights, control, n);
 *   fl_model_set_gradient_hook(model, fl_local_gradient, local);
 *   train;
 *   fl_local_end(local, weights, steps, rate, control_change, n);
 *
 * Trainers of their own call fl_local_correct on each piece of a gradient. */
typedef struct fl_local fl_local;

/** `mu` >= 0, 0 = no FedProx. FL_E_OPTIONS. */
FL_API fl_status fl_local_new(fl_local **out, fl_context *context, float mu,
                              uint64_t n);
FL_API void fl_local_free(fl_local *local);
/** A round begins with these global weights, and with the server's control
 * (NULL: no SCAFFOLD). Both are copied. FL_E_DIM, FL_E_NOT_FINITE. */
FL_API fl_status fl_local_begin(fl_local *local, const float *weights,
                                const float *control, uint64_t n);
/** gradient += mu (weights - w) - c_k + c, for coordinates [at, at + n).
 * FL_E_STATE: no round was begun; FL_E_DIM. */
FL_API fl_status fl_local_correct(const fl_local *local, float *gradient,
                                  const float *weights, uint64_t at,
                                  uint64_t n);
/** An fl_gradient_fn: `local` is an fl_local. */
FL_API fl_status fl_local_gradient(float *gradient, const float *weights,
                                   uint64_t count, void *local);
/** A round has ended with these weights after `steps` >= 1 steps of `rate` > 0:
 * c_k' = c_k - c + (w - weights) / (steps rate). Writes c_k' - c_k, which goes
 * to the server, to `change`. Without a control, zeros; `change` may be NULL.
 * FL_E_STATE, FL_E_DIM, FL_E_ARGUMENT, FL_E_NOT_FINITE: c_k stays. */
FL_API fl_status fl_local_end(fl_local *local, const float *weights,
                              uint64_t steps, float rate, float *change,
                              uint64_t n);
/** Save and restore c_k. A lost one begins as zeros. As fl_strategy_load. */
FL_API fl_status fl_local_save(const fl_local *local, const fl_writer *writer);
FL_API fl_status fl_local_load(fl_local *local, const fl_reader *reader);

#ifdef __cplusplus
}
#endif
#endif
