/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this module share: the client's whole state.
 *
 * The client only ever reacts. Frames set the phase and raise `due` bits;
 * fl_client_send turns those bits into frames, so nothing is queued twice and
 * a repeated request costs nothing. Whatever is lost on the way comes again
 * after a HELLO, which drops all due bits: the server's answer raises those
 * that still matter. */
#ifndef FLI_CLIENT_H
#define FLI_CLIENT_H

#include <fl/client.h>
#include <fl/compress.h>
#include <fl/feedback.h>
#include "compress/canonical.h"
#include "compress/encoder.h"
#include "wire/transfer.h"

/* What the wire can say. */
#define FLI_CLIENT_MAX_SAMPLES (UINT64_C(1) << 40)

typedef enum fli_link {
  FLI_LINK_HELLO_DUE = 0,
  FLI_LINK_HELLO_SENT,
  FLI_LINK_WELCOMED
} fli_link;

/* The numbers are part of the saved state. */
typedef enum fli_phase {
  FLI_PHASE_IDLE = 0,
  FLI_PHASE_MODEL = 1,    /* `demand` waits for its model */
  FLI_PHASE_TRAIN = 2,    /* training asked */
  FLI_PHASE_NORM = 3,     /* trained; SCALE awaited */
  FLI_PHASE_UPDATE = 4,   /* encoded; ACK awaited */
  FLI_PHASE_EVALUATE = 5, /* scoring asked */
  FLI_PHASE_DONE = 6,
  FLI_PHASE_ABORTED = 7
} fli_phase;

/* What a phase MODEL goes on with. */
typedef enum fli_demand {
  FLI_DEMAND_PLAN = 1,
  FLI_DEMAND_EVALUATE,
  FLI_DEMAND_DONE
} fli_demand;

/* Frames to be written by the next fl_client_send. */
enum {
  FLI_DUE_GET_MODEL = 1 << 0,
  FLI_DUE_DECLINE = 1 << 1,
  FLI_DUE_METRICS = 1 << 2,
  FLI_DUE_NORM = 1 << 3,
  FLI_DUE_UPDATE = 1 << 4,
  FLI_DUE_GET_SLICE = 1 << 5,
  FLI_DUE_LEAVE = 1 << 6
};

/* Bytes of one part of a paged model in the saved state: region, hash. */
enum { FLI_PAGED_STATE = 1 + FLI_HASH_BYTES };

/* Events not yet taken, one bit per kind. */
#define FLI_EVENT_BIT(kind) (1u << (kind))

/* One piece of work of a round, counted so that what is older than the newest
 * seen on this connection can be told from what is new. */
typedef struct fli_turn {
  uint64_t round;
  uint32_t attempt; /* UINT32_MAX: the evaluation behind the round */
} fli_turn;

typedef struct fli_trained {
  int is_valid;
  fli_plan plan; /* trained for; its views are cleared */
  float *update; /* n_weights; NULL when the model is paged */
  uint64_t samples;
  double loss;
  uint32_t report_module;
  double report_value; /* NaN = none */
  int has_norms;
  uint64_t norms_cap; /* weight cap that `norms` were measured under */
  float *norms;       /* n_norms */
} fli_trained;

typedef struct fli_encoded {
  int is_valid;
  fli_turn turn;
  uint32_t slot;
  uint8_t scale_id[FLI_HASH_BYTES]; /* of the scale it was encoded on */
  /* Makes the bytes, in front of the sparse update; NULL: restored. */
  fli_encoder *encoder;
  uint8_t hash[FLI_HASH_BYTES]; /* of all */
  fli_bytes clamped;    /* u16 LE per norm; empty unless the scale is public */
  uint32_t slices_size; /* of the sparse update */
} fli_encoded;

/* What slices can do. A table, so that a client that never attaches any does
 * not bring the code of embeddings along. */
typedef struct fli_rows {
  void (*detach)(fl_slice_client *slices);
  int (*is_ready)(const fl_slice_client *slices);
  fl_status (*begin)(fl_slice_client *slices, const uint8_t *plan, size_t n);
  fl_status (*request)(fl_slice_client *slices, fl_buffer *request);
  fl_status (*take)(fl_slice_client *slices, const uint8_t *answer, size_t n);
  fl_status (*update)(fl_slice_client *slices, uint64_t seed,
                      fl_buffer *update);
} fli_rows;

/* The client's key (identity.c): what has one begins with this table, so that a
 * client without keys does not bring signatures along. */
typedef struct fli_signer {
  fl_status (*on_challenge)(fl_client *client, const fli_frame *frame);
  void (*sign_hello)(fl_client *client, fli_hello *hello);
  void (*sign_update)(fl_client *client, fli_manifest *manifest);
  void (*free)(fl_client *client);
} fli_signer;
/* The daily budget, for clients that have one (conditions.c). */
typedef struct fli_limits {
  /* 1 when there is something left today, or enough for the plan at hand. */
  int (*allow)(const fl_client *client, int is_plan);
} fli_limits;

/* A model that lies in a storage (paged.c): an fl_paged begins with this table,
 * so that a client without one does not bring its code along. */
typedef struct fli_paging {
  /* FL_E_STATE: it has a client already. */
  fl_status (*attach)(fl_client *client);
  void (*detach)(fl_client *client);
  /* The model's shape is known, and nothing that it needs is there yet.
   * FL_E_LIMIT: of the memory budget. */
  fl_status (*afford)(const fl_client *client, uint32_t codec);
  /* The model's codec, too, is known, and not that of before. */
  fl_status (*open)(fl_client *client);
  /* A transfer is whole: it becomes the model. */
  fl_status (*take)(fl_client *client);
  fl_status (*copy)(const fl_client *client, float *weights);
  /* What is against the plan; NULL = nothing. */
  const char *(*objection)(const fli_plan *plan);
  fl_status (*refuse_feedback)(void); /* FL_E_CONFLICT */
  /* Training begins; it is over. */
  void (*begin)(fl_client *client);
  fl_status (*finish)(fl_client *client, const fl_train_result *result);
  fl_status (*measure)(fl_client *client, const fl_scale *scale, float *norms);
  fl_status (*fetch)(void *client, fli_encoding *encoding, uint64_t unit,
                     uint64_t *last); /* see fli_floats, and this */
  fl_status (*measure_segment)(void *client, fli_encoding *encoding,
                               double *squares, uint32_t segment);
  /* Receiving or sending has failed, with the reason in fl_last_error. */
  void (*failed)(fl_client *client, fl_status st);
  /* What the saved state has of it: of the model, then of the update. */
  fl_status (*save)(const fl_client *client, uint8_t state[2][FLI_PAGED_STATE]);
  /* Whether the storage holds what the state says. FL_E_IO, FL_E_NOMEM: nobody
   * knows. */
  fl_status (*restore_model)(fl_client *client, const uint8_t *state,
                             int *is_held);
  fl_status (*restore_update)(fl_client *client, const uint8_t *state,
                              int *is_held);
} fli_paging;

struct fl_client {
  fl_context *context;
  fl_client_options options; /* strings point to the three below */
  char id[FLI_ID_BYTES];
  char job[FLI_ID_BYTES];
  char device_class[FLI_ID_BYTES];

  /* The model (replica.c). */
  fli_bytes description;
  int has_schema;
  uint8_t schema[FLI_HASH_BYTES];
  uint64_t *segments;
  uint32_t *modules; /* of every segment */
  uint8_t *mask;     /* see fli_client_mask */
  uint32_t n_segments;
  uint64_t n_weights;
  fl_compressor *compressor;
  fl_compressor_options codec;
  uint64_t n_norms;
  const fli_paging *paging; /* NULL: the model is in memory */
  fl_feedback *feedback;    /* NULL when the job wants none (feedback.c) */
  fli_turn fed;             /* the last one that it has measured, encoded for */
  int has_canonical;        /* its memory is there */
  fli_canonical canonical;  /* without vectors when it is paged */
  uint8_t model_hash[FLI_HASH_BYTES]; /* of `canonical`, when valid */
  int has_cohort; /* `cohort` is whose model `canonical` is (probe.c) */
  uint32_t cohort;
  int has_probe; /* its memory is there */
  fli_canonical probe;
  uint8_t probe_hash[FLI_HASH_BYTES];
  fli_incoming incoming;
  int is_model_awaited; /* a transfer has begun, or GET_MODEL is out */
  uint64_t wanted_version;

  /* The connection. */
  fli_link link;
  fli_frame_parser parser;
  int has_token;
  uint8_t token[FLI_TOKEN_BYTES];
  const fli_signer *signer; /* NULL: none */
  void *keys;               /* of the signer */
  int is_leaving;           /* says so, and hears nothing but the answer */
  int has_said_hello;       /* on an earlier connection */
  int has_joined;           /* welcomed once by this handle */
  int has_failed;           /* the last fl_client_send */
  int has_missed;           /* a frame overtook WELCOME and was dropped */
  int is_stream_void;       /* REJECT: nothing behind it counts */
  uint32_t due;
  fli_bytes sent;
  fli_outgoing outgoing;

  /* The work at hand. */
  fli_phase phase;
  fli_demand demand;
  fli_turn newest; /* since WELCOME */
  int has_plan;
  fli_plan plan; /* its views are cleared; the public scale is below */
  uint8_t noise_seed[FL_SEED_BYTES];
  float clip;
  float *scale_norms; /* n_norms */
  fli_bytes freeze_plan;
  int is_asked; /* NEED_TRAIN or NEED_EVALUATE was given out */
  int has_declined;
  fli_turn declined;
  fli_trained trained;
  fli_encoded encoded;
  /* All of the update of turn `unacked` was sent; see fli_client_is_sent. */
  int is_unacked;
  fli_turn unacked;
  fli_evaluate evaluate;
  int has_metrics;
  fli_evaluate scored; /* what `metrics` answers */
  fli_metrics metrics;
  fli_done done;

  /* Rows of the job's embedding (slices.c). */
  fl_slice_client *slices; /* borrowed; NULL: none */
  const fli_rows *rows;    /* what it can do; with `slices` */
  fli_bytes slices_plan;
  uint64_t slices_id; /* of these bytes; 0: none */
  int slices_begun;   /* with this plan, and not yet submitted */
  uint64_t sparse_id; /* of the plan that `sparse` was trained for; 0: none */
  fli_bytes sparse;

  /* Time: what happened since the last poll, and the timers. */
  uint64_t now_ns;
  int is_touched; /* bytes moved: the retry timer starts over */
  int is_retrying;
  uint64_t retry_at_ns;
  uint64_t pause_ns;
  uint32_t tries;
  int has_new_wait;
  int is_waiting;
  uint64_t wait_ns;
  uint64_t wait_until_ns;

  /* What the device has, and what may move (conditions.c). */
  uint32_t lacks;           /* FL_CONDITION_* that do not hold, */
  uint32_t said;            /* and what the server knows of that */
  const fli_limits *limits; /* NULL: none */
  uint64_t daily_bytes;
  uint64_t day;
  uint64_t spent;

  /* Events. */
  uint32_t events;
  uint64_t accepted_round;
  uint64_t stale_round;
  uint32_t stale_reason;
  uint32_t aborted_reason;
  uint32_t wait_reason;
  char stale_text[FLI_TEXT_BYTES];
  char text[FLI_TEXT_BYTES]; /* of ABORTED and WAIT */
};

/* All of the update that the plan asks for was sent, and is not answered. */
static inline int fli_client_is_sent(const fl_client *client)
{
  return client->is_unacked && client->unacked.round == client->plan.round &&
         client->unacked.attempt == client->plan.attempt;
}

static inline int fli_client_is_over(const fl_client *client)
{
  return client->phase == FLI_PHASE_DONE || client->phase == FLI_PHASE_ABORTED;
}

/* client.c */
/* FL_E_ARGUMENT, for the public functions. */
fl_status fli_client_null(const char *function);
/* Check the options and make a client that has not said anything yet. */
fl_status fli_client_make(fl_client **out, fl_context *context,
                          const fl_client_options *options);
/* Say HELLO next; payloads on their way in either direction are void. */
void fli_client_resync(fl_client *client);
void fli_client_raise(fl_client *client, uint32_t event);
/* Cut to what fits. */
void fli_client_copy_text(char out[FLI_TEXT_BYTES], const char *text);
void fli_client_abort(fl_client *client, uint32_t reason, const char *text);
/* Wait longer before the next HELLO, up to 8 times the option. */
void fli_client_double_pause(fl_client *client);

/* replica.c: the model, its codec and how both get here. */
/* Take the model's shape. FL_E_LIMIT above max_weights. */
fl_status fli_client_learn(fl_client *client, const fl_model *model);
/* The same from a description; refused before memory is taken for it. */
fl_status fli_client_learn_description(fl_client *client, const uint8_t *data,
                                       size_t n);
fl_status fli_client_set_codec(fl_client *client,
                               const fl_compressor_options *codec);
/* Which segments a client sends that trains modules from `first_active` on;
 * NULL = all. Valid until the next call. */
const uint8_t *fli_client_mask(fl_client *client, uint32_t first_active);
int fli_client_holds(const fl_client *client, uint64_t version,
                     const uint8_t hash[FLI_HASH_BYTES]);
/* Note that the canonical model is another one: what was trained on the old
 * one is void, what waited for it goes on. */
fl_status fli_client_model_changed(fl_client *client);
void fli_client_ask_model(fl_client *client, uint64_t version);
fl_status fli_client_on_manifest(fl_client *client,
                                 const fli_manifest *manifest);
fl_status fli_client_on_chunk(fl_client *client, const fli_chunk *chunk);

/* probe.c: models of other cohorts. */
void fli_client_drop_probe(fl_client *client);
/* A whole probe has come. */
fl_status fli_client_take_probe(fl_client *client);
/* 1 when what the plan trains from is held: its model, and the server's
 * control, which lies where probes do. */
int fli_client_has_models(const fl_client *client);
/* The model that an evaluation asks for; NULL = it is not held. */
const fli_canonical *fli_client_scored(const fl_client *client);
/* The plan's cohort is the client's from now on. */
fl_status fli_client_enter_cohort(fl_client *client, const fli_plan *plan);
/* 1 when the model is that of another cohort than the client's. */
int fli_client_is_elsewhere(const fl_client *client,
                            const fli_manifest *manifest);
/* The callback for the evaluation at hand; NULL = none. */
fl_evaluate_fn fli_client_evaluator(const fl_client *client);

/* session.c: messages in. */
fl_status fli_client_on_frame(fl_client *client, const fli_frame *frame);
/* Go on with what waited for the model. */
fl_status fli_client_continue(fl_client *client);
/* The server went on: what is at hand will not be counted. */
void fli_client_supersede(fl_client *client, uint32_t reason, const char *text);

/* Decline the plan at hand, however far it has got. */
void fli_client_forgo(fl_client *client, const char *why);

/* slices.c: rows of the job's embedding. */
void fli_client_free_slices(fl_client *client);
/* Reserve says whether keep has room for a plan's part. */
fl_status fli_client_reserve_slices(fl_client *client, const fli_plan *plan);
void fli_client_keep_slices(fl_client *client, const fli_plan *plan);
/* Whether what was trained has the sparse update that the plan wants, if any.
 */
int fli_client_has_sparse(const fl_client *client);
/* Begin with the plan's rows, if that is to be done. They are asked for when
 * the phase is MODEL afterwards. */
fl_status fli_client_want_slices(fl_client *client);
int fli_client_awaits_slices(const fl_client *client);
fl_status fli_client_write_get_slice(fl_client *client);
fl_status fli_client_on_slice(fl_client *client, const fli_frame *frame);
/* Training is over: keep what it has changed. */
fl_status fli_client_take_sparse(fl_client *client);
/* Of what goes behind the dense update. */
size_t fli_client_sparse_size(const fl_client *client);

/* feedback.c: what encodings have lost. */
/* As the job wants it; what is held stays if that is nothing new. */
fl_status fli_client_set_feedback(fl_client *client, int has_feedback,
                                  float decay);
void fli_client_drop_feedback(fl_client *client);
/* End the round before, if `plan` is of another. */
void fli_client_settle(fl_client *client, const fli_plan *plan);
/* 1 while the trained update is in the memory, and its fate is not known. */
int fli_client_is_fed(const fl_client *client);
/* Take the trained update out again: it will be replaced. */
void fli_client_withdraw(fl_client *client);
/* With error feedback: correct the trained update, once for each weight cap,
 * and store its norms unless NULL. */
fl_status fli_client_correct(fl_client *client, const fl_scale *scale,
                             float *norms);

/* upload.c: from a trained update to frames. */
fl_status fli_client_take_result(fl_client *client,
                                 const fl_train_result *result);
fl_status fli_client_take_score(fl_client *client, const fl_score *score);
/* "Not this time", to training or evaluation. */
void fli_client_refuse(fl_client *client);
/* Training is over: say the norms, or encode at once on a public scale. */
fl_status fli_client_offer(fl_client *client);
/* Encode on the scale at hand (unless that is done) and upload. The bytes are
 * made twice: for their hash, and again as they are sent. */
fl_status fli_client_upload(fl_client *client);
void fli_client_forget_trained(fl_client *client);
void fli_client_forget_encoded(fl_client *client);
/* Write what is due into `sent`. */
fl_status fli_client_write_due(fl_client *client);

#endif
