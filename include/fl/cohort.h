/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file cohort.h
 * Cohorts: groups of clients whose data are alike, found while training, and a
 * model for each (after Auxo: Liu et al., "Auxo: Efficient Federated Learning
 * via Scalable Client Clustering", SoCC 2023; IFCA: Ghosh et al., NeurIPS
 * 2020).
 *
 * An fl_cohort_set takes numbers and gives decisions; models are the host's. It
 * starts with one cohort, 0. For every round:
 *
 *   for every client that trains:
 *     fl_cohort_set_route(set, slot, round, NAN, &route);
 *       send model route.cohort and those of route.probes; measure their
 *       losses on the client's data; with route.chooses the least wins;
 *       train that one
 *     fl_cohort_set_report(set, slot, &report);
 *   for every cohort: fl_cohort_set_end_round(set, cohort, round);
 *   fl_cohort_set_decide(set);
 *   while (fl_cohort_set_poll(set, &event) == FL_OK)
 *     copy, average or drop models as the event says
 *
 * Cohorts may have rounds of their own: what is called for every cohort above
 * may be called for one, with fl_cohort_set_decide after it.
 *
 * For every function here. Thread-safety: one thread per fl_cohort_set at a
 * time; but fl_cohort_set_report and fl_cohort_set_end_round may run on
 * several threads at once if these are about different cohorts and clients,
 * and nothing else runs meanwhile. Determinism: D0: the same calls, those for
 * one cohort in the same order, give the same decisions on every machine.
 */
#ifndef FL_COHORT_H
#define FL_COHORT_H

#include <fl/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fl_cohort_set fl_cohort_set;

/* ---- options ------------------------------------------------------------ */

/** How groups are found. */
enum {
  /** The default. Sketches of updates propose that a cohort be split; a trial
   * decides: both halves train on, and clients compare their losses. */
  FL_COHORT_SKETCH = 1,
  /** Auxo's rule: clients gather affinity to cohorts and to their halves. Keeps
   * 16 bytes per client and cohort, and looks at all clients after each round
   * of a cohort: for comparison. */
  FL_COHORT_AUXO = 2,
  /** IFCA: `cap` models from the start, each client trains the one with the
   * least loss. */
  FL_COHORT_LOSS = 3
};

enum {
  FL_COHORT_MAX = 64,
  FL_COHORT_KEY_BYTES = 32,
  FL_COHORT_TICKET_BYTES = 48,
  FL_COHORT_SPLITS_MAX = 16
};
/** No cohort, no slot. */
#define FL_COHORT_NONE UINT32_MAX

/** Shares are 0..1. What begins with "trial" is of the SKETCH rule's trials:
 * the share of clients for whom the other half's loss is clearly above their
 * own half's ("win"), and how far the two halves' log loss ratios lie apart
 * ("lump": 1 - variance within halves / variance). */
typedef struct fl_cohort_options {
  uint32_t struct_size;
  uint32_t rule; /**< FL_COHORT_*; default SKETCH */
  uint64_t seed; /**< of all that is drawn; default 0 */
  uint64_t job;  /**< in tickets: those of another job are refused */
  /** FL_COHORT_KEY_BYTES, authenticates tickets. NULL: there are none. Not
   * kept: one derived from it is. */
  const uint8_t *key;
  uint32_t clients; /**< make room for so many; default 0, grows as they come */
  uint32_t cap;     /**< cohorts at most, 1..FL_COHORT_MAX; default 8; LOSS:
                         models, default (0) 4 */
  /** Numbers of a sketch, a multiple of 16, 16..4096; default 512. AUXO: values
   * of a feature, 1..2^20; required. */
  uint32_t dim;
  float floor;               /**< share of all clients that the smaller half of
                                  a split has at least; default .02 */
  uint32_t min_members;      /**< and their number, >= 1; default 10 */
  uint32_t min_participants; /**< rounds of a cohort with fewer sketches teach
                                  nothing, 2..1024; default 4, AUXO 5 */
  float spike;         /**< a client whose loss is above its cohort's median by
                            so many deviations compares all models; > 0,
                            default 3 */
  uint32_t asks_first; /**< 1, the default: route.limit is set, so that such a
                            client compares before it trains; 0: it trains, and
                            compares when it comes again */
  uint32_t evidence;   /**< votes before a split may be proposed, 10..200;
                            default 60 */
  float agreement;     /**< Cohen's kappa of clients' votes with what they voted
                            before, more is wanted; default .85 */
  float gap;           /**< 1 - variance of projections within halves /
                            variance, more is wanted; default .82 */
  uint32_t reseed;     /**< rounds without a split after which halves are drawn
                            anew, >= 1; default 30 */
  uint32_t settle;     /**< rounds after a split in which clients of neither
                            half stay so; default 5 */
  uint32_t wait;       /**< rounds before a cohort whose trial failed may
                            propose again, doubling each time; >= 1, default
                            20 */
  uint32_t trial_start;  /**< rounds after the split before losses are compared;
                              default 8 */
  uint32_t trial_length; /**< rounds before it is decided, 1..1000; default 10;
                              with fewer than trial_probes by then, up to three
                              times as long */
  uint32_t trial_probes; /**< comparisons wanted, 10..trial_most; default 30 */
  uint32_t trial_most;   /**< and at most, ..64; default 40 */
  float trial_margin;    /**< log loss ratio to win, >= 0; default .05 */
  float trial_share;     /**< and share of the median ratio; default .33 */
  float trial_sure;      /**< kept if so many win; default .95 */
  float trial_win;       /**< or so many, and ... default .9 */
  float trial_lump;      /**< ... the lump is above; default .85 */
  float trial_again; /**< if both are at least this, look once more, and keep
                          it if it is sure and the lump above .9; default .75
                          */
  float merge;       /**< cohorts are one when the median |log loss ratio| of 30
                          clients' comparisons is below, >= 0; default .12 */
  uint32_t forget;   /**< rounds after which a ticket is a newcomer's, >= 1;
                          default 1000 */
  /** AUXO: 1 = as published, but for what cannot work: no forgetting, a half
   * once known is not revised, affinity of features as long as they are.
   * Default 0. */
  uint32_t is_published;
  /** AUXO: splits at the cohort's rounds so numbered, whatever the data, rising
   * from 1; FL_COHORT_SPLITS_MAX at most. NULL = when halves are there. Copied.
   */
  const uint32_t *splits;
  uint32_t n_splits;
  uint32_t reserved;
} fl_cohort_options;
FL_API fl_status fl_cohort_options_init(fl_cohort_options *options,
                                        size_t size);

/** Make a set with one cohort (LOSS: `cap`) and no clients. `options` NULL =
 * defaults. FL_E_OPTIONS: a value out of range; FL_E_ENTROPY: a key, and
 * libsodium fails. Ownership: *out is the caller's. */
FL_API fl_status fl_cohort_set_new(fl_cohort_set **out, fl_context *context,
                                   const fl_cohort_options *options);
FL_API void fl_cohort_set_free(fl_cohort_set *set);

/* ---- clients ------------------------------------------------------------ */

/** Find or add a client, by a number that names it: a hash of its id. Slots are
 * small numbers, used again after fl_cohort_set_leave. A ticket (`n` bytes; 0 =
 * none) that was made for this client and job and in the last `forget` rounds
 * tells where it belongs; with any other, and with none, it is a newcomer. A
 * client that is there keeps what is known of it, unless the ticket is of a
 * later round. `has_ticket`, may be NULL, gets whether the ticket counted.
 * FL_E_LIMIT: 2^31 clients. */
FL_API fl_status fl_cohort_set_join(fl_cohort_set *set, uint64_t client,
                                    uint32_t round, const uint8_t *ticket,
                                    size_t n, uint32_t *slot,
                                    int32_t *has_ticket);
/** Forget a client. Not while a report of its waits for fl_cohort_set_decide:
 * FL_E_STATE. FL_E_NOT_FOUND: no client has this slot, here and below. */
FL_API fl_status fl_cohort_set_leave(fl_cohort_set *set, uint32_t slot);
/** The slot of a client that joined. FL_E_NOT_FOUND. */
FL_API fl_status fl_cohort_set_find(const fl_cohort_set *set, uint64_t client,
                                    uint32_t *slot);
FL_API uint32_t fl_cohort_set_client_count(const fl_cohort_set *set);
/** Write what is known of a client, for it to keep and to bring when it joins
 * again: FL_COHORT_TICKET_BYTES, authenticated, not secret. SKETCH and LOSS.
 * FL_E_STATE: no key was given; FL_E_UNSUPPORTED: AUXO. */
FL_API fl_status fl_cohort_set_copy_ticket(const fl_cohort_set *set,
                                           uint32_t slot, uint8_t *buffer,
                                           size_t capacity, size_t *needed);

/** What is known of a client. */
typedef struct fl_cohort_member {
  uint32_t struct_size;
  uint32_t cohort;
  uint32_t other;      /**< undecided between the two; FL_COHORT_NONE */
  uint32_t is_unknown; /**< 1: it will compare, `other` or all cohorts */
  uint32_t seen;       /**< votes since the cohort began; 31 = or more */
  uint32_t last;       /**< round of its last training, 0 = never */
  float score;         /**< which half it votes for; multiples of 1/32 */
  /** 1: where clients are few, all would have trained before a trial compares
   * losses, and nobody be left to ask: this one should not train before it has
   * compared, in an EVALUATE phase. */
  uint32_t is_needed;
} fl_cohort_member;
FL_API fl_status fl_cohort_member_init(fl_cohort_member *member, size_t size);
FL_API fl_status fl_cohort_set_get_member(const fl_cohort_set *set,
                                          uint32_t slot,
                                          fl_cohort_member *member);

/* ---- a client's round --------------------------------------------------- */

typedef struct fl_cohort_route {
  uint32_t struct_size;
  uint32_t cohort;  /**< whose model it trains, unless it chooses */
  uint32_t chooses; /**< 1: it trains the one of `probes` with the least loss */
  uint32_t n_probes;
  /** A loss of model `cohort` above it: ask again, with the loss. Infinite when
   * no loss matters. */
  double limit;
  /** Cohorts whose models' losses on its data it should tell, `cohort` itself
   * among them; nothing to tell: none. */
  uint32_t probes[FL_COHORT_MAX];
} fl_cohort_route;
FL_API fl_status fl_cohort_route_init(fl_cohort_route *route, size_t size);
/** Say which models a client needs in this round. `loss` is that of model
 * `cohort` on the client's data, NaN as long as it is not known: above the
 * limit it compares all models. FL_E_ARGUMENT: round 0. */
FL_API fl_status fl_cohort_set_route(fl_cohort_set *set, uint32_t slot,
                                     uint32_t round, double loss,
                                     fl_cohort_route *route);

typedef struct fl_cohort_report {
  uint32_t struct_size;
  uint32_t cohort; /**< what it trained, or would have */
  uint32_t round;  /**< 1..2^31 - 1 */
  uint32_t n_probes;
  /** SKETCH: dim / 2 bytes of fl_sketcher_write. NULL: it has not trained, as
   * in an EVALUATE phase, or the rule has no use for it. */
  const uint8_t *sketch;
  size_t sketch_size;
  /** AUXO: dim values, the end of (weights before - weights after). */
  const float *feature;
  /** Of the model that was trained, on the client's data; the same way each
   * time. Not looked at when it has not trained. */
  double loss;
  uint32_t has_trained; /**< 1, the default */
  uint32_t reserved;
  const uint32_t *probes; /**< cohorts, `cohort` among them, each once */
  const double *losses;   /**< n_probes */
} fl_cohort_report;
FL_API fl_status fl_cohort_report_init(fl_cohort_report *report, size_t size);
/** Take what a client tells. On failure nothing has changed: FL_E_NOT_FINITE: a
 * loss or feature is NaN or infinite; FL_E_RANGE: a loss below 0 or above 1e30,
 * a feature that is all zeros or has a value above 1e15, probes that are none
 * or twice there; FL_E_DIM: the size of the sketch, or none; FL_E_STALE: a
 * cohort that is no more, or a round that is over or not the open one;
 * FL_E_CONFLICT: a cohort that it was not routed to; FL_E_DUPLICATE: it has
 * trained in this round of the cohort, or, untrained, has chosen this cohort
 * before in it; FL_E_STATE: the cohort's round has ended, decide first. */
FL_API fl_status fl_cohort_set_report(fl_cohort_set *set, uint32_t slot,
                                      const fl_cohort_report *report);

/** End the round of a cohort: learn from what was reported, also nothing.
 * FL_E_STALE: a round that is over or not the open one; FL_E_STATE: decide
 * first; FL_E_NOT_FOUND: no such cohort. FL_E_NOMEM: as before. */
FL_API fl_status fl_cohort_set_end_round(fl_cohort_set *set, uint32_t cohort,
                                         uint32_t round);
/** Draw the conclusions of all rounds that have ended since the last call.
 * FL_E_STATE: events of the last call were not taken; FL_E_NOMEM: call it
 * again. */
FL_API fl_status fl_cohort_set_decide(fl_cohort_set *set);

enum {
  /** `child` is a copy of `cohort`'s model from now on, on trial. */
  FL_COHORT_TRIAL = 1,
  FL_COHORT_KEPT = 2,   /**< both stay */
  FL_COHORT_AGAIN = 3,  /**< the trial goes on, with new comparisons */
  FL_COHORT_UNDONE = 4, /**< as MERGED: the trial failed */
  /** The members of `child` prefer `cohort`; drop the model of `child`. */
  FL_COHORT_MOVED = 5,
  /** cohort = (weight cohort + child_weight child) / (weight + child_weight);
   * drop the model of `child`. */
  FL_COHORT_MERGED = 6,
  FL_COHORT_SPLIT = 7 /**< AUXO: as TRIAL, for good */
};

typedef struct fl_cohort_event {
  uint32_t struct_size;
  uint32_t kind;  /**< FL_COHORT_TRIAL .. */
  uint32_t round; /**< of `cohort`; of trials that of its half that is behind */
  uint32_t cohort;
  uint32_t child;
  uint32_t n_probes;     /**< that decided */
  uint64_t weight;       /**< members of `cohort`: TRIAL, SPLIT after it, all
                              others before */
  uint64_t child_weight; /**< members of `child` */
  float win;  /**< KEPT, AGAIN, UNDONE: see the options; TRIAL: agreement */
  float lump; /**< TRIAL: the gap; MERGED: the median ratio */
} fl_cohort_event;
FL_API fl_status fl_cohort_event_init(fl_cohort_event *event, size_t size);
/** Take the oldest event; FL_E_EMPTY when there is none. */
FL_API fl_status fl_cohort_set_poll(fl_cohort_set *set, fl_cohort_event *event);

/* ---- cohorts ------------------------------------------------------------ */

typedef struct fl_cohort_info {
  uint32_t struct_size;
  uint32_t is_alive;
  uint32_t rounds;  /**< since it began */
  uint32_t round;   /**< that ended last */
  uint32_t sibling; /**< the other half of the trial; FL_COHORT_NONE */
  uint32_t unknown; /**< members who will compare */
  uint64_t members;
  double loss;      /**< trailing median; NaN = nothing reported yet */
  double deviation; /**< trailing */
  float agreement;  /**< of the last votes; NaN = too few */
  float gap;
} fl_cohort_info;
FL_API fl_status fl_cohort_info_init(fl_cohort_info *info, size_t size);
/** Numbers of cohorts are below `cap`; those of dead ones are used again. Looks
 * at all clients. FL_E_NOT_FOUND: >= cap. */
FL_API fl_status fl_cohort_set_get_info(const fl_cohort_set *set,
                                        uint32_t cohort, fl_cohort_info *info);
/** Cohorts that are alive. */
FL_API uint32_t fl_cohort_set_count(const fl_cohort_set *set);
FL_API uint32_t fl_cohort_set_cap(const fl_cohort_set *set);

enum {
  FL_COHORT_BY_SIZE = 1, /**< as many as it has members */
  FL_COHORT_EQUAL = 2,
  FL_COHORT_BY_LOSS = 3 /**< size times trailing loss */
};
/** Share `total` participants among the cohorts: counts[0 .. n - 1], n = cap,
 * which add up to it (0 without members). Largest remainders; ties go to the
 * lower number. FL_E_DIM: n. Looks at all clients. */
FL_API fl_status fl_cohort_set_plan(const fl_cohort_set *set, uint32_t total,
                                    uint32_t by, uint32_t *counts, uint32_t n);
/** Draw up to `want` members of a cohort who are online, each as likely as any
 * other, into `slots`, rising; *n gets how many. Bit slot % 8 of byte slot / 8
 * of `online` says who is; `n_bytes` of it, slots behind are offline; NULL, 0 =
 * all are. Same (seed, cohort, round), same draw. */
typedef struct fl_cohort_pick {
  uint32_t struct_size;
  uint32_t cohort;
  uint32_t round;
  uint32_t want;
  const uint8_t *online;
  size_t n_bytes;
} fl_cohort_pick;
FL_API fl_status fl_cohort_pick_init(fl_cohort_pick *pick, size_t size);
FL_API fl_status fl_cohort_set_pick(const fl_cohort_set *set,
                                    const fl_cohort_pick *pick, uint32_t *slots,
                                    uint32_t *n);

/* ---- state -------------------------------------------------------------- */

/** Save everything but events, which have to be polled before, and reports that
 * wait: FL_E_STATE. FL_E_NOMEM, FL_E_IO. */
FL_API fl_status fl_cohort_set_save(const fl_cohort_set *set,
                                    const fl_writer *writer);
/** Take it back, into a set with the same options (`key` and `clients` apart).
 * FL_E_CONFLICT: of others; FL_E_FORMAT, FL_E_VERSION, FL_E_TRUNCATED,
 * FL_E_TOO_LARGE, FL_E_RANGE, FL_E_IO, FL_E_NOMEM: as before. */
FL_API fl_status fl_cohort_set_load(fl_cohort_set *set,
                                    const fl_reader *reader);

/* ---- sketches ----------------------------------------------------------- */

/** Makes sketches of updates of `n` values: a count sketch (Charikar et al.,
 * ICALP 2002) of `dim` numbers, rounded to 4 bits of its largest. One job has
 * one seed. Takes 2 bytes per value.  Thread-safety: one thread at a time. */
typedef struct fl_sketcher fl_sketcher;
/** FL_E_ARGUMENT: n 0; FL_E_OPTIONS: dim, as above. */
FL_API fl_status fl_sketcher_new(fl_sketcher **out, fl_context *context,
                                 uint64_t seed, uint64_t n, uint32_t dim);
FL_API void fl_sketcher_free(fl_sketcher *sketcher);
/** Write the dim / 2 bytes of an update (weights after - weights before).
 * FL_E_DIM: n; FL_E_NOT_FINITE; FL_E_RANGE: it is all zeros, or so small or
 * large that its sketch is; FL_E_SIZE. */
FL_API fl_status fl_sketcher_write(fl_sketcher *sketcher, const float *update,
                                   uint64_t n, uint8_t *buffer, size_t capacity,
                                   size_t *needed);

#ifdef __cplusplus
}
#endif
#endif
