/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file server.h
 * The aggregator, without sockets, threads or clock. The host accepts
 * connections, names each one by a number (`peer`), moves bytes and passes
 * time:
 *
 *   fl_server_recv(peer, bytes), fl_server_tick(now)
 *   while fl_server_next_ready(&peer): fl_server_send(peer) -> bytes
 *   while fl_server_poll(&event) == FL_OK: log it
 *
 * A server holds any number of jobs; each trains one model. What a peer does
 * wrong is an event, never an error of the call, and never stops a round.
 * Same inputs, same outputs: D0.
 */
#ifndef FL_SERVER_H
#define FL_SERVER_H

#include <fl/base.h>
#include <fl/channel.h>
#include <fl/cohort.h>
#include <fl/compress.h>
#include <fl/freeze.h>
#include <fl/model.h>
#include <fl/protocol.h>
#include <fl/selection.h>
#include <fl/slices.h>
#include <fl/store.h>
#include <fl/strategy.h>
#include <fl/train.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fl_server fl_server;

/** Who may take part. A client with a key (fl_client_set_key) proves that it
 * has it whenever it says HELLO, and signs its updates; the first key that
 * comes with an id has that id until the client leaves. */
enum {
  FL_ENROL_OPEN = 0,   /**< everybody, with a key or without */
  FL_ENROL_LISTED = 1, /**< keys of fl_server_allow */
  FL_ENROL_ASK = 2     /**< keys for which the host's hook says yes */
};

/** Somebody who has proven to have this key, and wants to be this client. */
typedef struct fl_enrol_request {
  uint32_t struct_size;
  uint32_t job;
  const char *client_id;
  const uint8_t *public_key; /**< FL_PUBLIC_KEY_BYTES */
} fl_enrol_request;
/** 1 = may take part. Asked at every HELLO: the same question wants the same
 * answer, until the host has changed its mind. May not use the server. */
typedef int32_t (*fl_enrol_fn)(const fl_enrol_request *request, void *user);

typedef struct fl_server_options {
  uint32_t struct_size;
  uint32_t max_peers;   /**< connections at once, >= 1; default 65536 */
  uint32_t max_clients; /**< registered ids in all jobs, >= 1; default 2^20 */
  uint32_t max_control_size; /**< bytes of a control message, 4 KiB..1 MiB,
                                  the default */
  uint32_t chunk_size;       /**< of downloads, 4 KiB..4 MiB; default 256 KiB */
  uint32_t reserved;
  /** Bytes of all uploads that are not committed yet; beyond it peers are
   * told to wait, those too whose upload has stood still for 30 s. >= 1;
   * default 256 MiB. */
  uint64_t staging_cap;
  /** Where the server keeps what it has acknowledged; NULL (default) = nowhere.
   * Borrowed, and nobody else's until the server is freed; keys that do not
   * begin with "server/" are left alone.
   *
   * **Acknowledged means durable**: with a store nothing is sent before what
   * led to it is committed. Every update that was counted is put into the store
   * as it comes, every step of a job (a round begins, its scale is agreed, it
   * ends) with all that the server is; fl_server_recover goes on from the last
   * commit, and the job ends with the bytes of one that was not killed. One
   * commit serves all that came since the last: it is made by the first
   * fl_server_send that would give bytes. While commits fail nothing is sent,
   * nothing is lost, and another is tried every second
   * (FL_SERVER_STORE_FAILED). The chunks of a download wait for none: what they
   * are of was committed before it began. */
  const fl_store *store;
  /** How long acknowledgements are held for others to share their commit, from
   * the first of them; at most 10 s. Steps of a job are not held, nor is
   * anything once 256 updates wait. Default 0. */
  uint64_t commit_window_ns;
  uint32_t enrolment; /**< FL_ENROL_*; default OPEN */
  /** Messages that a peer may send at once, without the chunks of an upload
   * that is under way; one that sends more is rejected (FL_REJECT_RATE). The
   * allowance fills up again evenly, from nothing to all in rate_interval_ns.
   * 0 = no limit (default). */
  uint32_t max_messages;
  fl_enrol_fn enrol; /**< ASK: required */
  void *enrol_user;
  /** The key that clients pin (FL_PUBLIC_KEY_BYTES), as that of a channel: what
   * a client has proven to another server is worth nothing here. NULL
   * (default): clients that pin one are refused. Copied. */
  const uint8_t *server_key;
  uint64_t rate_interval_ns; /**< 1 ms .. 1 day; default 60 s */
  /** Bad messages for which a client is banned for `ban_ns`, when there are
   * more than so many at once; the allowance fills up as that of messages does.
   * What is late, or a limit of ours, is not bad. Without keys an id can be
   * banned by whoever uses it. 0 = never (default). */
  uint32_t max_rejects;
  uint32_t max_bans; /**< at once, >= 1; default 65536 */
  uint64_t ban_ns;   /**< >= 1; default 1 h */
} fl_server_options;
FL_API fl_status fl_server_options_init(fl_server_options *options,
                                        size_t size);
/** Make a server without jobs. `options` NULL = defaults. FL_E_OPTIONS: a value
 * out of range; FL_E_STATE: the store has a server's state, for
 * fl_server_recover to go on from (fl_store_clear(store, "server/", 7) begins
 * anew); else what the store says. */
FL_API fl_status fl_server_new(fl_server **out, fl_context *context,
                               const fl_server_options *options);
FL_API void fl_server_free(fl_server *server);

enum {
  FL_WEIGHT_SAMPLES = 1, /**< FedAvg (McMahan et al. 2017): by samples */
  FL_WEIGHT_UNIFORM = 2
};

/** What updates of a job with cohorts are compared by. */
enum {
  FL_SKETCH_AUTO = 0,  /**< LANES with THC, else FLOATS */
  FL_SKETCH_LANES = 1, /**< THC: some of the values that came, as they are */
  FL_SKETCH_FLOATS = 2 /**< decoded, and sketched (fl_sketcher) */
};

/** How the rounds of cohorts go on. */
enum {
  /** Together: none begins its next one before all have ended theirs. */
  FL_COHORT_TOGETHER = 0,
  /** Each by itself: those whose clients are slow hold nobody up. */
  FL_COHORT_APART = 1
};

typedef struct fl_job_options {
  uint32_t struct_size;
  uint32_t rounds;  /**< default 10, >= 1 */
  const char *name; /**< 1..64 printable ASCII; default "default" */
  /** Codec of updates and steps; NULL = defaults. Its rotation seed is
   * replaced by one derived from `seed` when all zero. THC with a clip of 0:
   * the server chooses one every round, from what updates have in common.
   * `workers` of 0 counts as `participants`. Borrowed. */
  const fl_compressor_options *codec;
  uint64_t seed;
  /** Updates wanted per round; 0 = of all clients that are there when the
   * round begins. */
  uint32_t participants;
  uint32_t min_participants; /**< fewer: the round is aborted, and tried again;
                                  1..65535, default 1 */
  /** Clients that must have joined before the first round; default 1. */
  uint32_t min_clients;
  /** Ask round(participants * over_selection) clients, take the first
   * `participants` updates; 1..10, default 1. */
  float over_selection;
  uint32_t weighting;  /**< FL_WEIGHT_*; default SAMPLES */
  uint32_t scale_mode; /**< FL_SCALE_*; default EXCHANGED */
  /** Cap on the samples a client may claim; 0 = the largest number that any
   * selected client declared, but at most 8 x the median of them. */
  uint64_t weight_cap;
  uint32_t epochs;            /**< default 1 */
  uint32_t batch_size;        /**< default 32 */
  float learning_rate;        /**< clients'; default .05 */
  float server_learning_rate; /**< default 1 */
  float server_momentum;      /**< FedAvgM; 0..<1, default 0 */
  /** Every how many rounds clients score the model on local data; 0 = never
   * (default). */
  uint32_t evaluate_every;
  uint64_t norm_deadline_ns;     /**< from the plan; > 0, default 60 s */
  uint64_t update_deadline_ns;   /**< from the scale; > 0, default 600 s */
  uint64_t evaluate_deadline_ns; /**< > 0 with evaluate_every; default 60 s */
  /** How long a client whose connection was lost may stay away before the
   * round goes on without it; default 10 s. */
  uint64_t return_grace_ns;
  /** Pause before an aborted round is tried again; default 5 s. */
  uint64_t retry_pause_ns;
  /** Steps kept so that clients that missed rounds need no full copy;
   * default 8. */
  uint32_t steps_kept;
  uint32_t reserved;
  /** 1: clients send what an encoding has lost with their next update
   * (fl_feedback), which costs them two vectors of memory. Not with the codec
   * f32, which loses nothing. Default 0. */
  uint32_t error_feedback;
  /** What part of an update that was not counted they send with the next one;
   * 0..1, default .5. */
  float feedback_decay;
  /** How many of a round's clients should train everything that is not frozen,
   * when others can afford less (fl_client_options.max_depth). A draw that has
   * fewer takes more of them in the places of others; when there are too few,
   * the round goes on (FL_SERVER_SEGMENT_UNCOVERED). Default 1, 0 = no matter.
   */
  uint32_t min_cover;
  uint32_t reserved_cover;
  /** Freeze modules that have learned enough: NULL = never. GRADNORM and
   * PLASTICITY decide from what clients report (fl_freeze_end_round, each with
   * weight 1 whatever samples it claims; without reports nothing freezes);
   * FIXED has rounds for steps: `first_active` from round `step` (>= 1) on.
   * steps_per_epoch is not read; total_steps of 0 counts as `rounds`; `allowed`
   * is not for jobs; `job` of NULL is derived from the model's schema, the name
   * and the seed, and told to clients with every plan
   * (fl_train_task.freeze_job). Borrowed. */
  const fl_freeze_options *freeze;
  /** How learning_rate changes from round to round: as the schedule of
   * fl_optimiser_options, whose update t is round t + 1. Each
   * plan names its round's rate. */
  uint32_t rate_schedule; /**< FL_SCHEDULE_*; default constant */
  uint32_t rate_warmup;   /**< rounds; default 0 */
  float rate_factor;      /**< 0..1, default .1 */
  uint32_t rate_period;   /**< rounds; 0 = as many as the job has (default) */
  /** Find groups of clients whose data are alike, and train a model for each:
   * NULL = one model for all. Before a round the server asks clients for the
   * losses of cohorts' models where the rule wants them (event NEED_EVALUATE
   * with is_probe, or the callback `measure` of fl_client_options); then each
   * cohort has a round of its own with those who belong there. `key` and
   * `clients` are not read; `seed` and `job` of 0 are derived from `seed`;
   * `dim` of 0 is, with AUXO, a tenth of the model's values. With LOSS, models
   * but the first begin with weights that are drawn (fl_model_init_weights), in
   * loose tensors with those of the first, moved by up to .05. Not together
   * with `freeze`, error_feedback, SCAFFOLD or slices: FL_E_CONFLICT. A
   * strategy is each cohort's own: a new one begins with the state of the one
   * that it is split from, and of two that become one that of the first stays.
   * Borrowed. */
  const fl_cohort_options *cohorts;
  uint32_t cohort_sketches; /**< FL_SKETCH_*; LANES without THC:
                                 FL_E_CONFLICT */
  /** Clients that, each in its turn, tell losses before a round without
   * training, from two cohorts on: so that one whose data have changed is
   * noticed soon. Default 40. */
  uint32_t cohort_probed;
  /** What becomes of the updates (docs/design/aggregation.md): NULL = FedAvg
   * with server_learning_rate and server_momentum, which a strategy wants at
   * their defaults. One that needs the updates separately keeps all of a
   * round's (in the store, if there is one, without controls), and goes neither
   * with freezing nor with error_feedback;
   * KRUM wants min_participants >= 2 byzantine + 3; SCAFFOLD clients whose
   * trainers take controls (fl_train_task.control), and no slices. FAIR takes
   * the losses that clients report, NOVA the steps of the plan. A step that
   * fails, or that the gate refuses, aborts the round; the model stays. A job
   * with functions of the host cannot be saved: with a store it is
   * FL_E_CONFLICT. Borrowed; `user`
   * stays for as long as the job. */
  const fl_strategy_options *strategy;
  /** Who is asked, of those who are there (fl/selection.h): NULL = a draw.
   * Rules other than RANDOM want `participants` > 0, and no cohorts
   * (FL_E_CONFLICT). A job with a function of the host cannot be saved: with a
   * store it is FL_E_CONFLICT. Borrowed; `user` stays for as long as the job.
   */
  const fl_selection_options *selection;
  /** Clients are asked to train only while they have all of these
   * (fl_client_set_conditions): FL_CONDITION_* bits, default 0. */
  uint32_t demands;
  uint32_t reserved_demands;
  /** Clients that are not needed now, or whose update came too late, are told
   * to come back (WAIT) after this long, and up to as long again, times the
   * rounds that those who are there could fill: drawn for each from the seed,
   * so that they do not come at once. They can be asked meanwhile, if they are
   * connected. At most a day; 0 = nobody is told (default). */
  uint64_t checkin_ns;
  /** FedBuff (Nguyen et al., AISTATS 2022): a round ends with so many updates,
   * and clients still at work go on; their updates count later, by age. 0 =
   * rounds that all begin together (default). Up to `participants` train at
   * once. Each update counts 1/K whatever its samples, times
   * round(16 / sqrt(1 + s)) / 16 when it is s versions old. Wants THC in mode
   * UNIFORM or TABLE and scale_mode PUBLIC; not together with cohorts, freeze,
   * error_feedback, evaluate_every, slices, a selection, or a strategy that
   * needs updates separately: FL_E_CONFLICT. <= 4095. */
  uint32_t buffer;
  /** Updates older than so many versions are refused (FL_REJECT_STALE); 0..64,
   * default 16. */
  uint32_t buffer_staleness;
  /** Samples that a client may have: who claims more is refused
   * (FL_REJECT_RANGE), by HELLO or in a round. Default 2^40. */
  uint64_t max_samples;
  /** FL_COHORT_TOGETHER (default) or FL_COHORT_APART. APART, a cohort begins
   * its next round as soon as its last one has ended and clients are there: its
   * share of `participants`, see cohort_share, but min_participants at least;
   * clients of cohorts that have fewer train with those of others.
   * Rounds of all cohorts are numbered in one row, as they begin: that number
   * is `round` of events that name a cohort, but EVALUATED and COHORT_CHANGED.
   * A round of the whole job, which `rounds` counts, which events without a
   * cohort and fl_job_status name and learning rates follow, is `participants`
   * updates of any cohorts (0: as many as clients are there); rounds that were
   * aborted do not count, and the job ends when those that run have ended. A
   * cohort's round keeps the learning rate that it began with.
   * After every evaluate_every-th one each cohort's clients score its model as
   * soon as the cohort is between two rounds, and EVALUATED without a cohort
   * comes when all have, or the next evaluation begins. A change of cohorts of
   * which one is in the middle of a round waits for that to end, and the others
   * of the change with it. */
  uint32_t cohort_pace;
  /** How APART shares `participants` among cohorts: FL_COHORT_BY_SIZE
   * (default), FL_COHORT_EQUAL or FL_COHORT_BY_LOSS. */
  uint32_t cohort_share;
} fl_job_options;
FL_API fl_status fl_job_options_init(fl_job_options *options, size_t size);

/** Add a job that trains `model` (description and weights are copied).
 * FL_E_OPTIONS: a setting out of range, those of `freeze` included;
 * FL_E_CONFLICT: settings exclude each other; FL_E_ARGUMENT: name taken;
 * FL_E_NOT_FINITE: a weight; FL_E_LIMIT: the model has more norms (2 bytes
 * each) than max_control_size has room for. */
FL_API fl_status fl_server_add_job(fl_server *server, const fl_model *model,
                                   const fl_job_options *options,
                                   uint32_t *job);
/** Number of jobs; they are numbered 0..count-1. */
FL_API uint32_t fl_server_job_count(const fl_server *server);

/** Take bytes that peer `peer` sent, in any cut; the first ones open the
 * session. Misbehaviour comes as FL_SERVER_PEER_REJECTED. FL_E_ARGUMENT: peer
 * UINT64_MAX, which is none. FL_E_NOMEM: the peer's session is then closed. */
FL_API fl_status fl_server_recv(fl_server *server, uint64_t peer,
                                const uint8_t *data, size_t n);
/** Take what is to be sent to a peer: *n bytes at *data, 0 = nothing. They
 * count as sent; valid until the next call on the server. At most about one
 * chunk at a time: call until *n is 0, and when the connection can take it, for
 * what nobody has asked for takes no memory. FL_E_NOMEM: call again later. */
FL_API fl_status fl_server_send(fl_server *server, uint64_t peer,
                                const uint8_t **data, size_t *n);
/** 1 when the server wants the peer's connection closed after what is still
 * to be sent (it was rejected): see fl_server_has_unsent. */
FL_API int32_t fl_server_wants_close(const fl_server *server, uint64_t peer);
/** 1 when something is to be sent to the peer, though perhaps not before a
 * commit, until which fl_server_send gives nothing. */
FL_API int32_t fl_server_has_unsent(const fl_server *server, uint64_t peer);
/** Next peer to which something can be sent now, in order of peer number after
 * *peer; start with *peer = UINT64_MAX (which comes before 0). FL_E_EMPTY when
 * there is none: while a commit is held or has failed, all but those who are in
 * the middle of a download. */
FL_API fl_status fl_server_next_ready(const fl_server *server, uint64_t *peer);
/** Say that a peer's connection is gone. Its client may come back by another
 * peer number. Unknown numbers are fine. */
FL_API fl_status fl_server_disconnected(fl_server *server, uint64_t peer);
/** Advance to `now_ns` (any monotonic clock). */
FL_API fl_status fl_server_tick(fl_server *server, uint64_t now_ns);
/** When tick wants to be called at the latest; UINT64_MAX = no timer runs. */
FL_API fl_status fl_server_next_timeout(const fl_server *server,
                                        uint64_t *deadline_ns);

enum {
  FL_SERVER_CLIENT_JOINED = 1,
  FL_SERVER_CLIENT_RETURNED = 2, /**< known id, new connection */
  FL_SERVER_PEER_REJECTED = 3,   /**< reason, text; client_id if known */
  FL_SERVER_ROUND_STARTED = 4,   /**< selected */
  FL_SERVER_SCALE_AGREED = 5,
  FL_SERVER_UPDATE_ACCEPTED = 6, /**< client_id, samples, loss */
  FL_SERVER_CLIENT_LOST = 7,     /**< selected, yet not counted: reason */
  FL_SERVER_ROUND_FINISHED = 8,  /**< accepted, version, loss */
  FL_SERVER_ROUND_ABORTED = 9,   /**< reason, text */
  FL_SERVER_EVALUATED = 10,      /**< loss, correct, count over clients */
  /** reason: 0 after its last round, STOPPED, or LIMIT: cohorts that go on
   * apart have begun 2^31 rounds. */
  FL_SERVER_JOB_FINISHED = 11,
  /** From this round on: first_active, plan_version, freeze_reason. */
  FL_SERVER_FREEZE_CHANGED = 12,
  /** From module first_active on, only `accepted` of `selected` train all. */
  FL_SERVER_SEGMENT_UNCOVERED = 13,
  /** What this round's reports said of the front module: module, value,
   * threshold, raw, below, as in fl_freeze_event; raw is their median. */
  FL_SERVER_FREEZE_EVALUATED = 16,
  FL_SERVER_FREEZE_BOOTED = 17, /**< the bootstrapping phase is over */
  /** A commit failed: text. Until one succeeds nothing is sent but downloads
   * that have begun. */
  FL_SERVER_STORE_FAILED = 14,
  /** Cohorts have changed: cohort, child, cohort_change, count (comparisons
   * that decided). */
  FL_SERVER_COHORT_CHANGED = 15,
  FL_SERVER_CLIENT_BANNED = 20, /**< client_id, text */
  FL_SERVER_CLIENT_LEFT = 21,   /**< client_id: all about it is forgotten */
  /** A restored round's sums of rows are lost, because no slices were attached
   * before the next one began: text. */
  FL_SERVER_SLICES_DROPPED = 24
};

typedef struct fl_server_event {
  uint32_t struct_size;
  uint32_t kind; /**< FL_SERVER_* */
  uint32_t job;
  uint32_t reason;       /**< FL_REJECT_* */
  uint64_t round;        /**< from 1; 0 = none */
  uint64_t peer;         /**< UINT64_MAX = none */
  const char *client_id; /**< "" = unknown; never NULL */
  const char *text;      /**< for people; never NULL */
  uint64_t model_version;
  uint32_t selected; /**< clients asked */
  uint32_t accepted; /**< updates counted */
  uint64_t samples;
  double loss; /**< mean training or evaluation loss; NaN = unknown */
  uint64_t correct;
  uint64_t count;
  uint32_t first_active;  /**< rounds: modules below are frozen */
  uint32_t freeze_reason; /**< FL_FREEZE_REASON_*: FREEZE_CHANGED */
  uint64_t plan_version;  /**< FREEZE_CHANGED */
  uint32_t module;        /**< FREEZE_EVALUATED, as the next four */
  uint32_t below;         /**< rounds running, so far */
  double value;           /**< what is compared: the median, or its slope */
  double threshold;       /**< NaN = not known yet */
  double raw;             /**< the median of the reports */
  uint32_t cohort;        /**< whose round, model or client; FL_COHORT_NONE =
                               all, or there are none */
  uint32_t child;         /**< COHORT_CHANGED */
  uint32_t cohort_change; /**< COHORT_CHANGED: FL_COHORT_TRIAL .. */
  float cohort_win;       /**< COHORT_CHANGED, with lump: what decided */
  float cohort_lump;
  uint32_t reserved;
} fl_server_event;
FL_API fl_status fl_server_event_init(fl_server_event *event, size_t size);
/** Take the next event; FL_E_EMPTY when there is none. Pointers in it are
 * valid until the next call on the server. */
FL_API fl_status fl_server_poll(fl_server *server, fl_server_event *event);

/** With cohorts: those of all of them; model_version is the first one's. */
typedef struct fl_job_status {
  uint32_t struct_size;
  uint32_t is_finished;
  uint64_t round; /**< the one that runs, from 1; 0 = not begun */
  uint64_t rounds;
  uint64_t model_version; /**< 0 = the initial model */
  uint64_t n_weights;
  uint32_t clients;  /**< joined and there */
  uint32_t selected; /**< in this round */
  uint32_t accepted; /**< in this round */
  uint32_t reserved;
  uint32_t first_active; /**< modules below are frozen */
  uint32_t is_paused;    /**< no round begins: fl_server_pause_job */
  /** Of updates that were counted: how much longer they would have been with
   * all their segments. */
  uint64_t bytes_saved;
} fl_job_status;
FL_API fl_status fl_job_status_init(fl_job_status *status, size_t size);
/** Say where a job is. FL_E_NOT_FOUND: no such job. */
FL_API fl_status fl_server_get_status(const fl_server *server, uint32_t job,
                                      fl_job_status *status);
/** Copy a job's canonical model: what clients hold, bit for bit, and its
 * version (may be NULL); of a job with cohorts, the model of its first one.
 * FL_E_NOT_FOUND: no such job; FL_E_DIM: `count` is not the model's. */
FL_API fl_status fl_server_copy_weights(const fl_server *server, uint32_t job,
                                        float *weights, uint64_t count,
                                        uint64_t *version);
/** How well a job's models do for its clients, one by one: of those who scored
 * in the last evaluation (FL_SERVER_EVALUATED) on data of their own, each with
 * its own cohort's model. Accuracy is correct / count. */
typedef struct fl_client_accuracy {
  uint32_t struct_size;
  uint32_t clients; /**< with count > 0; 0 = none yet, and all numbers 0 */
  uint64_t round;   /**< after which it was */
  double mean;      /**< each client counts the same */
  double worst;     /**< mean of the worst tenth, rounded up */
  double jain;      /**< (sum)^2 / (clients x sum of squares), 1 = all equal */
  /** The least, those below which 10, 20 .. 90 % are (interpolated), the
   * greatest. */
  double quantiles[11];
} fl_client_accuracy;
FL_API fl_status fl_client_accuracy_init(fl_client_accuracy *accuracy,
                                         size_t size);
/** FL_E_NOT_FOUND: no such job. */
FL_API fl_status fl_server_get_accuracy(const fl_server *server, uint32_t job,
                                        fl_client_accuracy *accuracy);

/** Borrow a job's cohorts, to look at: valid until the next call on the server
 * that is not one to ask. APART, the set is ahead of the models while a change
 * that it has decided waits for a round to end: COHORT_CHANGED says when both
 * are the same. FL_E_NOT_FOUND: no such job; FL_E_STATE: it has no cohorts. */
FL_API fl_status fl_server_get_cohorts(const fl_server *server, uint32_t job,
                                       const fl_cohort_set **cohorts);
/** As fl_server_copy_weights, of one cohort's model: the one that clients are
 * given. While a change waits (fl_server_get_cohorts) a cohort that the set has
 * begun has none yet, FL_E_NOT_FOUND, and one that it has ended has its own,
 * also where the set has given its number to another. FL_E_NOT_FOUND: no such
 * job or cohort; FL_E_STATE: it has none; FL_E_DIM. */
FL_API fl_status fl_server_copy_cohort(const fl_server *server, uint32_t job,
                                       uint32_t cohort, float *weights,
                                       uint64_t count, uint64_t *version);
/** The slot of a client among the job's cohorts (fl_cohort_set_get_member).
 * FL_E_NOT_FOUND: no such job or client; FL_E_STATE. */
FL_API fl_status fl_server_find_member(const fl_server *server, uint32_t job,
                                       const char *client_id, uint32_t *slot);

/** Have a job serve these slices beside its dense model. Call it before the
 * first round, or after fl_server_restore and before anything else: what was
 * added is in the server's state, and the store has to be as it was saved after
 * the last finished round (FL_E_STALE, FL_E_SCHEMA). NULL: no more, between two
 * rounds. FL_E_NOT_FOUND: no such job; FL_E_CONFLICT: it has cohorts;
 * FL_E_LIMIT: plans, or what clients ask with, would not go into messages of
 * max_control_size;
 * FL_E_STATE: a round is running, or one of both is attached already. Borrowed:
 * it is freed after the server, or after it was given up. Clients that have no
 * slices train the dense model alone. */
FL_API fl_status fl_server_attach_slices(fl_server *server, uint32_t job,
                                         fl_slice_server *slices);
/** End a job after the running round; it then finishes like any other.
 * FL_E_NOT_FOUND. */
FL_API fl_status fl_server_stop_job(fl_server *server, uint32_t job);
/** Let no further round begin, until fl_server_resume_job; the running one goes
 * on to its end. It is part of the state: a restored server is still paused.
 * Clients stay, and wait. FL_E_NOT_FOUND; FL_E_STATE: the job is over. Twice is
 * fine. */
FL_API fl_status fl_server_pause_job(fl_server *server, uint32_t job);
/** The opposite. */
FL_API fl_status fl_server_resume_job(fl_server *server, uint32_t job);
/** Give up the running round (FL_SERVER_ROUND_ABORTED, reason
 * FL_REJECT_STOPPED): what it has counted is dropped, the model stays, and the
 * round is tried again after the job's pause, unless it is paused. With cohorts
 * those whose rounds are running give up theirs. FL_E_NOT_FOUND; FL_E_STATE: no
 * round is running. */
FL_API fl_status fl_server_abort_round(fl_server *server, uint32_t job);

/** Let a key (FL_PUBLIC_KEY_BYTES) take part where enrolment is LISTED, under
 * this client id; NULL: the first that it comes with, which is its own then. A
 * key that is on the list gets the new id. FL_E_ARGUMENT: an id that none can
 * be; FL_E_NOMEM. */
FL_API fl_status fl_server_allow(fl_server *server, const uint8_t *public_key,
                                 const char *client_id);
/** Take a key off the list; clients that have it are turned away. What they
 * gave stays. FL_E_NOT_FOUND. */
FL_API fl_status fl_server_disallow(fl_server *server,
                                    const uint8_t *public_key);
/** Keys on the list. */
FL_API uint32_t fl_server_allow_count(const fl_server *server);

/** Turn a client id away in all jobs for `duration_ns`, UINT64_MAX = for ever,
 * and with it the key that the id belongs to, whatever name it comes with. It
 * need not be known. What was counted stays. FL_E_ARGUMENT: an id that none can
 * be, duration 0; FL_E_LIMIT: max_bans; FL_E_NOMEM. */
FL_API fl_status fl_server_ban(fl_server *server, const char *client_id,
                               uint64_t duration_ns);
/** Undo a ban, with that of the key. FL_E_NOT_FOUND: there is none. */
FL_API fl_status fl_server_unban(fl_server *server, const char *client_id);
/** How long a ban still lasts, UINT64_MAX = for ever, 0 = it is none. */
FL_API uint64_t fl_server_ban_left(const fl_server *server,
                                   const char *client_id);
/** Forget a client in a job, as if it had asked for it (fl_client_leave): at
 * the latest when the round that it takes part in is over,
 * FL_SERVER_CLIENT_LEFT says when. FL_E_NOT_FOUND: no such job or client. */
FL_API fl_status fl_server_forget(fl_server *server, uint32_t job,
                                  const char *client_id);

/** Save all jobs, clients and the running rounds (uploads that are not
 * committed yet are sent again by their clients). Guarded by a hash.
 * FL_E_IO: the writer failed; FL_E_STATE: cohorts could not be decided for want
 * of memory; that is tried again after the job's pause, and until then nothing
 * is committed to a store, either. FL_E_UNSUPPORTED: a job's strategy has
 * functions of the host. */
FL_API fl_status fl_server_save(const fl_server *server,
                                const fl_writer *writer);
/** Restore into a new server; every connection is new afterwards. FL_E_FORMAT,
 * FL_E_VERSION, FL_E_TRUNCATED, FL_E_TOO_LARGE; FL_E_IO: the reader failed. */
FL_API fl_status fl_server_restore(fl_server **out, fl_context *context,
                                   const fl_server_options *options,
                                   const fl_reader *reader);
/** Commit now what the store does not have yet, window or not: after
 * fl_server_stop_job, or before the process ends. Fine without a store. FL_E_IO
 * and what else the store says: it is tried again later. */
FL_API fl_status fl_server_commit(fl_server *server);
/** Make a server of what the store in the options (required) has; every
 * connection is new afterwards. FL_E_NOT_FOUND: it has no server's state;
 * FL_E_VERSION: a newer libfl's, or an older one's that is not read any more;
 * FL_E_FORMAT: it is damaged; else as fl_server_restore, and what the store
 * says. The store is only read. */
FL_API fl_status fl_server_recover(fl_server **out, fl_context *context,
                                   const fl_server_options *options);

#ifdef __cplusplus
}
#endif
#endif
