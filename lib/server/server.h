/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of lib/server share. One server holds peers (connections) and
 * jobs; a job holds its participants (ids that live longer than connections),
 * the canonical model and everything of the running round. Who calls whom:
 *
 *   server.c -> journal.c (what is durable), recover.c
 *   server.c -> inbox.c -> registry.c, round.c, evaluate.c -> step.c, store.c
 *   server.c -> outbox.c (what a peer is sent is derived from the job's state)
 *   inbox.c, collect.c -> identity.c, enrol.c, ban.c, forget.c (trust.h)
 *   all      -> peer.c, peer_table.c, events.c
 *
 * Only handlers in inbox.c and round.c report a peer's faults; every function
 * that returns fl_status here fails with what the host must hear of. */
#ifndef FLI_SERVER_H
#define FLI_SERVER_H

#include <fl/server.h>
#include "base/compiler.h"
#include "compress/canonical.h"
#include "server/journal.h"
#include "server/participant.h"
#include "server/trust.h"
#include "wire/transfer.h"

typedef struct fli_participant fli_participant;
typedef struct fli_parked fli_parked;     /* parked.c */
typedef struct fli_cohorts fli_cohorts;   /* cohorts.h */
typedef struct fli_selector fli_selector; /* selector.h */
typedef struct fli_buffered fli_buffered; /* buffered.h */

enum {
  FLI_NO_MEMBER = UINT32_MAX,
  FLI_STAGING_WAIT_MS = 1000,
  FLI_MESSAGE_SLACK = 512 /* of a control message, for what is always there */
};

/* ---- events (events.c) ---- */

typedef struct fli_event {
  struct fli_event *next;
  size_t size; /* of this allocation; the text stands behind the struct */
  fl_server_event body;
  char client_id[FLI_ID_BYTES];
} fli_event;

typedef struct fli_events {
  fl_context *context;
  fli_event *first;
  fli_event *last;
  fli_event *taken; /* given to the host, freed at the next poll */
  uint32_t count;
  uint64_t dropped;
} fli_events;

void fli_events_init(fli_events *events, fl_context *context);
void fli_events_free(fli_events *events);
/* Queue a copy of `event` with a printf text. Beyond a bound, events about
 * single peers are counted instead; those about rounds and jobs never are.
 * Lack of memory drops the event: an event is news, not state. */
void fli_events_add(fli_events *events, const fl_server_event *event,
                    const char *client_id, const char *format, ...)
    FLI_PRINTF(4, 5);
/* An event of `kind` with everything unknown, of no job or of one: it names the
 * job and, of a leaf, the cohort. */
fl_server_event fli_event_blank(uint32_t kind);
fl_server_event fli_event_of(const fli_job *job, uint32_t kind);
fl_status fli_events_poll(fli_events *events, fl_server_event *event);

/* ---- shared bytes (store.c) ---- */

/* Immutable bytes that several peers are being sent. */
typedef struct fli_blob {
  uint32_t references;
  fli_bytes bytes;
  int has_hash;
  uint8_t hash[FLI_HASH_BYTES]; /* see fli_blob_hash */
} fli_blob;

fli_blob *
fli_blob_new(fl_context *context); /* one reference; NULL: no memory */
fli_blob *fli_blob_ref(fli_blob *blob);
void fli_blob_unref(fli_blob *blob);
/* Hash of the bytes, computed once: asking for a download again must not cost
 * the server a pass over it. */
const uint8_t *fli_blob_hash(fli_blob *blob);

/* The canonical model and how to bring others up to it. */
typedef struct fli_step {
  uint64_t base_version;
  uint8_t base_hash[FLI_HASH_BYTES];
  fli_blob *record;
  fli_blob *chain; /* this record and all after it; made when asked for */
} fli_step;

typedef struct fli_store {
  fl_context *context;
  fli_canonical canonical;
  uint8_t hash[FLI_HASH_BYTES]; /* of the canonical model */
  fli_blob *full;               /* full copy; made when asked for */
  fli_step *steps;              /* oldest first, the last leads to `version` */
  size_t n_steps;
  size_t capacity;
  uint32_t steps_kept;
} fli_store;

fl_status fli_store_init(fli_store *store, fl_context *context, uint64_t n,
                         uint32_t steps_kept);
void fli_store_free(fli_store *store);
/* Take version `version` from f32 LE bytes; the steps kept are dropped.
 * Unchanged on failure. */
fl_status fli_store_set(fli_store *store, uint64_t version, const uint8_t *data,
                        size_t size);
/* Apply one step record and keep it. Unchanged on failure. The reference to
 * `record` becomes the store's only on success. */
fl_status fli_store_step(fli_store *store, const fl_compressor *compressor,
                         fli_blob *record);
/* Keep a step without applying it: for restoring. */
fl_status fli_store_keep(fli_store *store, uint64_t base_version,
                         const uint8_t base_hash[FLI_HASH_BYTES],
                         fli_blob *record);
/* 1 when `hash` is that of a version from which a peer can be brought up. */
int fli_store_knows(const fli_store *store, uint64_t version,
                    const uint8_t hash[FLI_HASH_BYTES]);
/* The cheapest bytes that bring a peer up to date; `has_model` 0 = it holds
 * nothing. Fills the manifest's kind and versions. *blob gets a reference. */
fl_status fli_store_transfer(fli_store *store, int has_model,
                             uint64_t held_version, fli_blob **blob,
                             fli_manifest *manifest);

/* ---- peers (peer_table.c, peer.c) ---- */

/* What a peer still has to be told; resolved against the job's state only
 * when its turn comes, in this order. */
enum {
  FLI_DUE_MODEL = 1,
  FLI_DUE_PLAN = 2,
  FLI_DUE_SCALE = 4,
  FLI_DUE_EVALUATE = 8,
  FLI_DUE_DONE = 16,
  FLI_DUE_PROBE_MODEL = 32,
  FLI_DUE_PROBE = 64
};

/* Has something to be sent; and it is the next chunk of a download whose
 * manifest has been sent, which was committed before that was. */
enum { FLI_READY_ANY, FLI_READY_MIDWAY };

/* Node of the crit-bit tree over peer numbers: see peer_table.c. */
typedef struct fli_peer_node {
  struct fli_peer_node *parent;
  struct fli_peer_node *child[2]; /* NULL in leaves */
  uint64_t prefix; /* inner: number with `bit` and below zero; leaf: number */
  uint32_t bit;    /* inner: the first bit in which the children differ */
  /* Leaves below (or this leaf) that have bytes to send, and those of them
   * whose bytes need no commit: FLI_READY_*. */
  uint32_t n_ready[2];
  fli_peer *peer; /* leaves */
} fli_peer_node;

typedef struct fli_peer_table {
  fl_context *context;
  fli_peer_node *root;
  uint32_t count;
} fli_peer_table;

struct fli_peer {
  fl_server *server;
  fli_peer_node leaf;
  uint64_t number;
  fli_participant *participant; /* NULL before HELLO and when closing */
  int is_closing;
  uint32_t due; /* FLI_DUE_* */
  fli_frame_parser parser;
  fli_bytes queue;
  size_t answers; /* bytes of `queue` that are ACKs and WAITs */
  fli_incoming incoming;
  uint64_t staged;      /* bytes of the staging cap that `incoming` reserves */
  uint64_t progress_ns; /* when the upload last got further */
  fli_peer *upload_previous, *upload_next; /* list of those with `staged` */
  fli_outgoing outgoing;
  fli_blob *blob; /* what `outgoing` borrows from */
  uint64_t blob_version;
  uint32_t blob_cohort; /* of a probe; FL_COHORT_NONE: it is the model */
  fli_proof proof;
  uint64_t messages_ns; /* allowance of one that is no client yet */
  uint32_t version;     /* of the protocol, the highest that both speak */
};

fli_peer *fli_peer_table_find(const fli_peer_table *table, uint64_t number);
fl_status fli_peer_table_insert(fli_peer_table *table, fli_peer *peer);
void fli_peer_table_remove(fli_peer_table *table, fli_peer *peer);
void fli_peer_table_set_ready(fli_peer *peer, uint32_t kind, int is_ready);
/* Lowest number >= from that is ready so; NULL when there is none. */
fli_peer *fli_peer_table_next_ready(const fli_peer_table *table, uint32_t kind,
                                    uint64_t from);
/* Any peer, or NULL: for freeing all. */
fli_peer *fli_peer_table_any(const fli_peer_table *table);

fl_status fli_peer_new(fli_peer **out, fl_server *server, uint64_t number);
void fli_peer_free(fli_peer *peer); /* takes it out of the table, too */
/* What comes next needs no commit: see FLI_READY_MIDWAY. */
int fli_peer_is_midway(const fli_peer *peer);
/* Recompute whether the peer has something to be sent. */
void fli_peer_touch(fli_peer *peer);
void fli_peer_add_due(fli_peer *peer, uint32_t due);
/* Reserve `size` bytes of the staging cap for the upload that begins;
 * FL_E_LIMIT when they are not to be had. Uploads that have stood still for
 * long make room: their senders are told to wait. */
fl_status fli_peer_reserve(fli_peer *peer, uint64_t size);
/* The upload got `n` bytes further. */
void fli_peer_progress(fli_peer *peer, uint64_t n);
/* Give back what an upload holds. */
void fli_peer_drop_upload(fli_peer *peer);
void fli_peer_drop_download(fli_peer *peer);
/* Stop talking: nothing more is read, and sent only what is queued if
 * `keep_queue`. The participant, if any, is let go with its grace. */
void fli_peer_close(fli_peer *peer, int keep_queue);
/* REJECT, close. */
fl_status fli_peer_dismiss(fli_peer *peer, uint32_t reason, const char *text);
/* The same with an event. */
fl_status fli_peer_reject(fli_peer *peer, uint32_t reason, const char *format,
                          ...) FLI_PRINTF(3, 4);
/* ACK; a reason other than NONE and STALE is an event, too. */
fl_status fli_peer_ack(fli_peer *peer, uint64_t round, uint32_t attempt,
                       uint32_t reason, const char *format, ...)
    FLI_PRINTF(5, 6);
fl_status fli_peer_wait(fli_peer *peer, uint64_t wait_ms, const char *text);
/* STATUS of the upload, if it is due and the peer listens. */
fl_status fli_peer_status(fli_peer *peer);

/* ---- jobs (job.c) ---- */

typedef enum fli_phase {
  FLI_PHASE_WAITING = 1,
  FLI_PHASE_NORMS,
  FLI_PHASE_UPDATES,
  FLI_PHASE_EVALUATING,
  FLI_PHASE_FINISHED,
  /* Of the front of cohorts: */
  FLI_PHASE_PROBING,
  FLI_PHASE_LEAVES,
  FLI_PHASE_SCORES
} fli_phase;

/* Of a buffered round: what a member works on, which may be of an earlier one.
 */
typedef struct fli_task {
  uint64_t round;
  uint32_t attempt;
  uint32_t slot;
  uint64_t version; /* of the model it trains */
  uint64_t epoch;   /* of the scale; see buffered.h */
} fli_task;

/* One participant's part in the running round or evaluation. */
typedef struct fli_member {
  fli_participant *participant;
  uint64_t samples; /* of its NORM */
  double loss;      /* of its update or its score */
  uint64_t correct, count;
  uint32_t first_active; /* modules below are not its part of the round */
  uint32_t lost;         /* FL_REJECT_NONE = in play */
  uint8_t is_out;        /* lost for good: returning does not help */
  uint8_t has_norm;
  uint8_t is_counted;
  uint8_t has_score;
  uint8_t has_report; /* a number >= 0 */
  uint32_t report_module;
  double report_value;
  fli_bytes update; /* counted, in jobs that need them separately (rule.c) */
  uint64_t asked_bytes; /* requests for rows; see slices.c */
  fli_parked *parked;   /* an upload whose connection ended; NULL: none */
  /* Bytes of the update that the store has; 0 = none. While `update` has them,
   * too, they are not committed (spooled.c). */
  uint64_t spooled;
  uint8_t spool_hash[FLI_HASH_BYTES];
  float seconds;  /* that its part has taken so far */
  fli_task task;  /* of buffered rounds */
  int is_carried; /* goes on in the next round */
} fli_member;

/* See freezing.c. */
typedef struct fli_freezing {
  fl_freeze *controller;     /* NULL: never */
  fl_freeze_options options; /* as given, with the pointers to what follows */
  fl_freeze_fixed *fixed;
  uint8_t name[FL_HASH_BYTES];
  fli_bytes plan;     /* as it travels */
  uint64_t announced; /* the version of the last event */
} fli_freezing;

struct fli_job {
  fl_server *server;
  fl_context *context;
  uint32_t index;
  fl_job_options options; /* `name` and `codec` point at the two below */
  char name[FLI_ID_BYTES];
  fl_compressor_options codec;
  uint8_t seed[FLI_KEY_BYTES]; /* of noise, hashed from options.seed */
  uint8_t schema[FLI_HASH_BYTES];
  fli_bytes description;
  uint64_t *segments;
  uint32_t *modules; /* of every segment */
  uint32_t n_segments;
  uint32_t n_modules;    /* the last segment's is the last one */
  uint32_t first_active; /* modules below are frozen */
  uint64_t bytes_saved;  /* see fl_job_status */
  fli_freezing freezing;
  fli_cohorts *cohorts; /* NULL: none */
  fli_job *front;       /* of a leaf; NULL: it is none */
  uint32_t cohort;      /* of a leaf */
  fl_client_accuracy accuracy;
  fl_compressor *compressor;
  uint64_t n_norms;
  fli_store store;
  float *momentum; /* NULL unless the options ask for it */
  float *residual; /* NULL when steps lose nothing in encoding */
  fl_strategy_options strategy_options; /* see options.strategy */
  fl_strategy *strategy;                /* NULL: the options above say it all */
  int is_spooling;                      /* it needs every update by itself */
  fli_selector *selector;               /* NULL: a draw */
  fli_buffered *buffered;               /* NULL: rounds begin together */
  fli_blob *control;                    /* of SCAFFOLD; made when asked for */
  fli_registry registry;

  fli_phase phase;
  uint64_t round; /* the one that runs or comes next, from 1 */
  uint32_t attempt;
  int is_begun; /* some round was started */
  int is_stopping;
  int is_paused;        /* no round begins */
  uint64_t waiting_ns;  /* since when this phase is WAITING */
  uint64_t hold_ns;     /* no start before */
  uint64_t deadline_ns; /* of the phase; UINT64_MAX = none */

  fli_member *members; /* sorted by id: index = slot */
  uint32_t n_members;
  uint32_t n_open;    /* members that the phase still waits for */
  uint32_t n_reports; /* norms, or scores */
  uint32_t n_counted;
  uint32_t n_wanted; /* updates that end the round */
  uint64_t weight_cap;
  int is_public; /* this round's scale came with the plan */
  uint8_t noise_seed[FLI_KEY_BYTES];
  uint8_t *reported;   /* NORMS: n_members * n_norms bf16, by slot */
  float *norms;        /* agreed */
  uint8_t *norms_wire; /* the same as bf16 */
  fl_partial *partial;
  float clip;          /* of the round's scale; f32, bf16: 0 */
  double energy;       /* |mean|^2 to expect of equal updates; 0 = not known */
  double correlation;  /* of two clients' coordinates, last time it was known */
  uint64_t *clamped;   /* public: sum per block */
  float *public_norms; /* announced with the next plan; NULL = not yet */

  fl_slice_server *slices; /* borrowed; NULL: none */
  fli_bytes slices_plan;   /* of this round */
  fli_bytes slices_saved;  /* restored, for when they are attached */
  int is_spool_there;      /* the store may have pieces of it (spooled.c) */
};

/* Make a job that begins with `model`. The options are checked ones; `codec`
 * and `name` are copied. */
fl_status fli_job_new(fli_job **out, fl_server *server, uint32_t index,
                      const fl_job_options *options, const fl_model *model);
void fli_job_free(fli_job *job);
fl_status fli_job_options_check(const fl_job_options *options);
/* Read the caller's struct; the codec's goes to `codec`. */
fl_status fli_job_options_load(fl_job_options *local,
                               fl_compressor_options *codec,
                               const fl_job_options *options);
/* 1 when the server's step is the mean itself. */
int fli_job_is_plain_mean(const fl_job_options *options);
/* Take `weights` as version `version`; unchanged on failure. */
fl_status fli_job_set_weights(fli_job *job, uint64_t version,
                              const float *weights);
/* a + b, saturating: UINT64_MAX is never. */
uint64_t fli_later(uint64_t a_ns, uint64_t b_ns);
/* Server now + delay, saturating. */
uint64_t fli_job_after(const fli_job *job, uint64_t delay_ns);
uint64_t fli_job_left_ms(const fli_job *job);
/* Run timers and transitions until nothing changes. */
void fli_job_advance(fli_job *job);
uint64_t fli_job_next_timeout(const fli_job *job);
/* The clock jumped by `delta_ns` (the host's first tick). */
void fli_job_rebase(fli_job *job, uint64_t delta_ns);
/* A cohort's model that nobody trains in a round has an older one itself. */
uint64_t fli_job_round(const fli_job *job);
/* What draws of a round are keyed by: its number, or, where cohorts go on apart
 * and numbers depend on who was first, that of the version it is to make. */
uint64_t fli_job_turn(const fli_job *job);
/* Tell one peer all it needs in the present state. */
fl_status fli_job_resync(fli_job *job, fli_peer *peer);
void fli_job_finish(fli_job *job);

/* ---- rounds (round.c, select.c, collect.c, ...) ---- */

int fli_member_is_open(const fli_job *job, const fli_member *member);
/* Bracket a change of a member, so that n_open stays right. */
void fli_member_lose(fli_job *job, fli_member *member, uint32_t reason,
                     int is_out);
void fli_member_revive(fli_job *job, fli_member *member);
fli_member *fli_member_of(const fli_participant *participant);
void fli_round_count_open(fli_job *job);
void fli_round_clear(fli_job *job);
/* A transition, if one is due: 1 = something changed. */
int fli_round_progress(fli_job *job);
/* The round's scale; views into the job. */
fl_scale fli_round_scale(const fli_job *job);
fl_status fli_round_open_partial(fli_job *job);
/* Memory for the norms of the round; `with_reported`: also the members'. */
fl_status fli_round_alloc_scale(fli_job *job, int with_reported);
/* Since the phase began; NaN = it has no deadline to tell by. */
float fli_round_seconds(const fli_job *job);
/* The round (and its evaluation) is over: the next one, or the end. */
void fli_round_next(fli_job *job);
/* 1 when there are enough clients for a round, and its time has come. */
int fli_round_is_due(const fli_job *job);
void fli_round_begin(fli_job *job);
/* The running round, which is tried again; 0 = none runs. */
int fli_round_abort(fli_job *job, uint32_t reason, const char *text);
/* Nothing runs; drop what did. */
void fli_round_wait(fli_job *job);

/* Members: all, or `limit` drawn ones, of those there with a capability; for
 * training also the weight cap. */
fl_status fli_select_members(fli_job *job, uint64_t capability, uint32_t limit);
/* The weight cap for the members. */
fl_status fli_select_cap(fli_job *job);
/* Keep k of n candidates, drawn for the round, in their order. */
fl_status fli_select_draw(const fli_job *job, fli_participant **candidates,
                          uint32_t n, uint32_t k);
/* Who trains what (parts.c). First module that a client of this depth trains.
 */
uint32_t fli_parts_start(const fli_job *job, uint32_t depth);
/* 1 when the segment is the member's to train. */
int fli_parts_has(const fli_job *job, const fli_member *member,
                  uint32_t segment);
/* Counted updates that hold the segment; 1 when none does. */
uint32_t fli_parts_count(const fli_job *job, uint32_t segment);
int fli_parts_is_idle(const fli_job *job, uint32_t segment);
/* 1 when all members train the same. */
int fli_parts_are_equal(const fli_job *job);
/* FL_E_RANGE when an update, whose header is good, has other segments than
 * those that are the member's to train. */
fl_status fli_parts_check(const fli_job *job, const fli_member *member,
                          const fli_bytes *data);
/* Zeros in place of bf16 norms that the member has nothing to say of. */
void fli_parts_clear_norms(const fli_job *job, const fli_member *member,
                           uint8_t *norms);
/* What the member's update would have been longer with all segments. */
uint64_t fli_parts_bytes_saved(const fli_job *job, const fli_member *member);
/* An event when too few train everything. */
void fli_parts_report_cover(fli_job *job);

/* Freezing (freezing.c): take the options, which may be NULL. */
fl_status fli_freezing_init(fli_job *job, const fl_freeze_options *given);
void fli_freezing_free(fli_job *job);
/* What clients are to report: FL_FREEZE_* or 0. */
uint32_t fli_freezing_reports(const fli_job *job);
/* A round begins: what was decided holds from now on. */
fl_status fli_freezing_begin_round(fli_job *job);
/* Keep what came with an update that was counted; what cannot be used is an
 * event. */
void fli_freezing_take_report(fli_peer *peer, fli_member *member,
                              const fli_manifest *manifest);
/* A round has finished with this mean loss. */
void fli_freezing_end_round(fli_job *job, double loss);
fl_status fli_freezing_write(fli_msg_writer *writer, const fli_job *job);
/* Into a job without freezing. */
fl_status fli_freezing_read(fli_job *job, fli_msg_reader *reader);

/* Tell a peer of whom nothing is wanted when to come back (backoff.c). */
fl_status fli_backoff_tell(fli_peer *peer);
/* What a client can do now: without what the job demands, it cannot train. */
uint64_t fli_backoff_capabilities(const fli_job *job, const fli_hello *hello);

/* How many a round asks at most. */
uint32_t fli_select_size(const fli_job *job);

/* 1 when that is what the sender, or everybody, is asked for now. */
int fli_collect_is_turn(const fli_job *job, const fli_member *mine,
                        uint64_t round, uint32_t attempt);
fl_status fli_collect_norm(fli_peer *peer, const fli_norm *norm);
fl_status fli_collect_manifest(fli_peer *peer, const fli_manifest *manifest);
/* The peer's upload is whole. */
fl_status fli_collect_update(fli_peer *peer);
/* The member's update is in the sum: count it. */
void fli_collect_count(fli_job *job, fli_member *member, double loss,
                       uint64_t samples);

int fli_evaluate_is_due(const fli_job *job);
void fli_evaluate_begin(fli_job *job);
int fli_evaluate_progress(fli_job *job);
/* Tell the host of the scores; of a front, those of all leaves. */
void fli_evaluate_report(const fli_job *job);
/* Scores of clients, one by one, which are sorted (accuracy.c). */
void fli_accuracy_of(fl_client_accuracy *accuracy, double *scores, uint32_t n);
/* Of the members who scored; without memory it stays as it was. */
void fli_accuracy_take(fli_job *job);
fl_status fli_evaluate_on_metrics(fli_peer *peer, const fli_metrics *metrics);

/* Choose the round's clip, whose norms are agreed or announced. */
void fli_clip_choose(fli_job *job);
/* That of the step that a server encodes by itself. */
float fli_clip_of_step(const fli_job *job);
/* 1 when fli_clip_learn has a use for the square. */
int fli_clip_is_learning(const fli_job *job);
/* Keep for the next round what the mean of this one says: `square` is its
 * |mean|^2, as decoded. */
void fli_clip_learn(fli_job *job, double square);
/* |a - b|^2; b NULL = zeros. */
double fli_clip_square(const float *a, const float *b, uint64_t n);

/* Per block: cap each reported norm at 8 x the median of the non-zero ones,
 * take the maximum. `reported` is bf16 LE, one row of n per member that
 * has_norm. */
fl_status fli_norms_agree(fl_context *context, const uint8_t *reported,
                          const fli_member *members, uint32_t n_members,
                          uint64_t n, float *agreed);
/* Start announced norms from exchanged ones; 0 = there is nothing to start
 * from, all are zero. */
int fli_norms_publish(float *announced, const float *agreed, uint64_t n);
/* Add one client's clamp counts (u16 LE per norm) to the round's. */
void fli_norms_count(fli_job *job, const fli_member *member,
                     const fli_bytes *clamped);
/* Adapt the job's announced norms to what those that were counted had to
 * clamp. What nobody trained stays. */
void fli_norms_adapt(fli_job *job);

/* Turn the round's sum into the next version. Unchanged on failure.
 * FL_E_NOT_FINITE: the step would ruin the model. */
fl_status fli_step_run(fli_job *job);
/* Append fl_partial_copy_sum's bytes. */
fl_status fli_sum_bytes(const fl_partial *partial, fli_bytes *out);

/* ---- the server ---- */

struct fl_server {
  fl_context *context;
  fl_server_options options;
  uint8_t secret[FLI_KEY_BYTES]; /* tokens are derived from it */
  fli_peer_table peers;
  fli_job **jobs;
  size_t n_jobs;
  size_t job_capacity;
  uint32_t n_participants;              /* in all jobs */
  uint64_t staged;                      /* bytes reserved by uploads */
  fli_peer *upload_first, *upload_last; /* the one that waited longest first */
  fli_parked *parked;                   /* a list */
  uint64_t now_ns;
  int has_clock;    /* tick was called */
  fli_bytes handed; /* what fl_server_send gave out last */
  fli_events events;
  fli_journal journal;
  fli_trust trust;
};

/* ---- uploads between two connections (parked.c) ---- */

/* Keep what has come of the peer's upload, if it is worth it. */
void fli_parked_keep(fli_peer *peer);
/* Go on with what is kept of this payload; 1 = there was something. */
int fli_parked_take(fli_peer *peer, fli_member *member,
                    const fli_manifest *manifest);
void fli_parked_drop(fl_server *server, fli_member *member);
/* Others need the room. */
void fli_parked_drop_all(fl_server *server);

/* A server of a snapshot's bytes (restore.c). */
fl_status fli_server_read(fl_server **out, fl_context *context,
                          const fl_server_options *options,
                          const fl_reader *reader);
fl_status fli_server_create(fl_server **out, fl_context *context,
                            const fl_server_options *options);
/* FL_E_ARGUMENT, FL_E_NOT_FOUND (control.c). */
fl_status fli_server_find_job(const fl_server *server, uint32_t index,
                              fli_job **job);
/* Own a job that is ready. */
fl_status fli_server_adopt(fl_server *server, fli_job *job);

/* One frame of a peer (inbox.c). Fails with FL_E_NOMEM only. */
fl_status fli_inbox_handle(fli_peer *peer, const fli_frame *frame);
/* Bytes could not be read: close the session, with a REJECT if there is
 * memory for one. */
fl_status fli_inbox_refuse(fli_peer *peer, fl_status status);
/* Fill an empty queue with the next thing to be said (outbox.c). */
fl_status fli_outbox_pump(fli_peer *peer);
fl_status fli_outbox_welcome(fli_peer *peer, int with_description);
/* Begin to send a blob, which is the peer's from then on; to score as this
 * cohort's, FL_COHORT_NONE: to keep. */
fl_status fli_outbox_download(fli_peer *peer, fli_blob *blob,
                              fli_manifest *manifest, uint32_t cohort);
/* Begin to send the model, unless it is held. */
fl_status fli_outbox_model(fli_peer *peer);

#endif
