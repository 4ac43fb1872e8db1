/* SPDX-License-Identifier: Apache-2.0 */
/* The messages of the protocol: one struct per type, one parse and one write
 * function each. docs/design/protocol.md describes the same for people.
 *
 * fli_parse_x(frame body) fills the struct with views into the body, checks
 * ranges and required fields, and returns FL_E_FORMAT, FL_E_TRUNCATED,
 * FL_E_RANGE, FL_E_TOO_LARGE, FL_E_VERSION, FL_E_NOT_FINITE, or FL_E_DIM (a
 * hash or token of the wrong length); the struct is then undefined. Absent
 * numbers are 0, absent losses NaN, absent views NULL. fli_write_x appends one
 * whole frame. Numbers in comments are map keys; ? = optional. */
#ifndef FLI_MESSAGES_H
#define FLI_MESSAGES_H

#include "crypto/crypto.h"
#include "wire/frame.h"
#include "wire/reader.h"

enum {
  /* client -> server */
  FLI_MSG_HELLO = 1,
  FLI_MSG_NORM = 2,
  FLI_MSG_METRICS = 3,
  FLI_MSG_DECLINE = 4,
  FLI_MSG_GET_MODEL = 5,
  FLI_MSG_BYE = 6,
  FLI_MSG_GET_SLICE = 12,
  /* server -> client */
  FLI_MSG_WELCOME = 16,
  FLI_MSG_PLAN = 17,
  FLI_MSG_SCALE = 18,
  FLI_MSG_ACK = 19,
  FLI_MSG_EVALUATE = 20,
  FLI_MSG_WAIT = 21,
  FLI_MSG_REJECT = 22,
  FLI_MSG_DONE = 23,
  FLI_MSG_CHALLENGE = 24,
  FLI_MSG_SLICE = 28,
  /* both ways */
  FLI_MSG_MANIFEST = 32,
  FLI_MSG_CHUNK = 33,
  FLI_MSG_STATUS = 34
};

enum { FLI_ID_BYTES = 65, FLI_TEXT_BYTES = 256, FLI_PROOF_BYTES = 64 };

/* Capability bits of HELLO. COHORTS: knows what keys named `cohort` mean;
 * STATUS: that message; CONTROLS: trains with SCAFFOLD's. */
enum {
  FLI_CAP_TRAIN = 1,
  FLI_CAP_EVALUATE = 2,
  FLI_CAP_COHORTS = 4,
  FLI_CAP_STATUS = 8,
  FLI_CAP_CONTROLS = 16
};

/* Beside FL_CONDITION_*: bytes for a round today. Every job demands them. */
enum { FLI_LACKS_BYTES = 8 };

typedef struct fli_hello {
  uint32_t version_min;            /* 1 */
  uint32_t version_max;            /* 2 */
  char client_id[FLI_ID_BYTES];    /* 3: 1..64 printable ASCII */
  char job[FLI_ID_BYTES];          /* 4?: "" = first */
  uint64_t capabilities;           /* 5 */
  uint64_t samples;                /* 6: >= 1 */
  char device_class[FLI_ID_BYTES]; /* 7? */
  int has_schema;
  uint8_t schema[FLI_HASH_BYTES]; /* 8?: absent = send the description */
  int has_token;
  uint8_t token[FLI_TOKEN_BYTES]; /* 9?: proves a returning client */
  int has_model;
  uint64_t model_version;             /* 10?: canonical model held */
  uint8_t model_hash[FLI_HASH_BYTES]; /* 11? with 10 */
  uint32_t depth; /* 12?: last modules it can train; 0 = all */
  int has_key;
  uint8_t public_key[FLI_KEY_BYTES]; /* 13?: the client's, Ed25519 */
  int has_signature;
  uint8_t signature[FLI_PROOF_BYTES]; /* 14?: see signed.h */
  int has_server_key;
  uint8_t server_key[FLI_KEY_BYTES]; /* 15?: that the client pins */
  uint32_t lacks;                    /* 20?: FL_CONDITION_* that do not hold */
} fli_hello;

/* Answer to a HELLO with a key: the next one is to be signed for this. */
typedef struct fli_challenge {
  uint8_t nonce[FLI_KEY_BYTES]; /* 1 */
} fli_challenge;

typedef struct fli_welcome {
  uint32_t version;               /* 1 */
  char job[FLI_ID_BYTES];         /* 2 */
  uint8_t token[FLI_TOKEN_BYTES]; /* 3 */
  uint8_t schema[FLI_HASH_BYTES]; /* 4 */
  const uint8_t *description;     /* 5?: when HELLO had no schema */
  size_t description_size;
  uint32_t codec;                       /* 6 */
  uint32_t thc_mode;                    /* 7 */
  uint32_t bits;                        /* 8 */
  uint32_t granularity;                 /* 9 */
  float clip;                           /* 10 */
  uint8_t rotation_seed[FLI_KEY_BYTES]; /* 11 */
  uint64_t round;                       /* 12 */
  uint64_t rounds;                      /* 13 */
  const uint8_t *table;                 /* 14?: THC's values in table mode */
  size_t table_size;
  int has_feedback;     /* clients keep what encodings lose */
  float feedback_decay; /* 15? */
  uint32_t has_status;  /* 31?: 1 = the server knows STATUS */
} fli_welcome;

typedef struct fli_plan {
  uint64_t round;                     /* 1: >= 1 */
  uint32_t attempt;                   /* 2: from 0 */
  uint32_t slot;                      /* 3 */
  uint32_t slots;                     /* 4: 1..65535 */
  uint64_t weight_cap;                /* 5: 0 = uniform */
  uint32_t epochs;                    /* 6 */
  uint32_t batch_size;                /* 7 */
  float learning_rate;                /* 8 */
  uint64_t seed;                      /* 9 */
  uint64_t model_version;             /* 10: train on this one */
  uint8_t model_hash[FLI_HASH_BYTES]; /* 11 */
  uint64_t deadline_ms; /* 12: from now, for people and schedulers */
  uint32_t scale_mode;  /* 13: FL_SCALE_* (of this round) */
  /* 14?, 15?, 16?: the scale, when public */
  const uint8_t *noise_seed; /* 14: 32 bytes */
  const uint8_t *norms;      /* 15: bf16 LE */
  size_t norms_size;
  float clip; /* 16: 0 = the compressor's */
  /* 17?, 18?: with error feedback: this client's last update that was counted,
   * in a round that was not aborted; round 0 = none */
  int has_counted;
  uint64_t counted_round;
  uint32_t counted_attempt;
  uint32_t first_active;      /* 19?: modules below are neither trained nor
                                 sent by this client */
  const uint8_t *freeze_plan; /* 20?: fl_freeze_copy_plan's bytes */
  size_t freeze_plan_size;
  uint32_t freeze_reports; /* 21?: FL_FREEZE_* to report; 0 = nothing */
  int has_cohort;
  uint32_t cohort;      /* 22?: whose model it trains */
  uint32_t demands;     /* 24?: FL_CONDITION_* that have to hold */
  uint32_t scale_round; /* 25?: of the scale, where it is not `round`; 0 = it
                           is */
  int has_control;
  uint8_t control_hash[FLI_HASH_BYTES]; /* 26?: SCAFFOLD: of the probe that is
                                           the server's control */
  float prox_mu;                        /* 30?: FedProx: >= 0; 0 = nothing */
  const uint8_t *slices; /* 28?: fl_slice_server_copy_plan's bytes */
  size_t slices_size;
} fli_plan;

typedef struct fli_norm {
  uint64_t round;       /* 1 */
  uint32_t attempt;     /* 2 */
  const uint8_t *norms; /* 3: bf16 LE */
  size_t norms_size;
  uint64_t samples; /* 4: trained on, >= 1 */
} fli_norm;

typedef struct fli_scale_msg {
  uint64_t round;            /* 1 */
  uint32_t attempt;          /* 2 */
  const uint8_t *noise_seed; /* 3: 32 bytes */
  const uint8_t *norms;      /* 4: bf16 LE */
  size_t norms_size;
  float clip;           /* 5 */
  uint64_t deadline_ms; /* 6 */
} fli_scale_msg;

/* Answer to an upload, or to a message out of turn. */
typedef struct fli_ack {
  uint64_t round;            /* 1 */
  uint32_t attempt;          /* 2 */
  uint32_t reason;           /* 3: FL_REJECT_NONE = counted, durable */
  char text[FLI_TEXT_BYTES]; /* 4? */
} fli_ack;

typedef struct fli_evaluate {
  uint64_t round;                     /* 1: the round after which it is asked */
  uint64_t model_version;             /* 2 */
  uint8_t model_hash[FLI_HASH_BYTES]; /* 3 */
  /* 4?, 5?: a probe, asked before the round: only the loss of this cohort's
   * model on what the client trains on is wanted. */
  int is_probe;
  uint32_t cohort;
  uint32_t attempt;
} fli_evaluate;

typedef struct fli_metrics {
  uint64_t round;         /* 1 */
  uint64_t model_version; /* 2 */
  double loss;            /* 3: finite, but for probes */
  uint64_t correct;       /* 4: <= count */
  uint64_t count;         /* 5 */
  /* 6?, 7?: the answer to a probe; its loss is any double, and checked where it
   * is used. */
  int is_probe;
  uint32_t cohort;
  uint32_t attempt;
} fli_metrics;

/* DECLINE and BYE: round 0 = no round. */
typedef struct fli_decline {
  uint64_t round;   /* 1 */
  uint32_t attempt; /* 2 */
  uint32_t forgets; /* 3?: BYE: 1 = forget this client */
} fli_decline;

/* Ask for a full copy (hash mismatch, nothing held). */
typedef struct fli_get_model {
  uint64_t version; /* 1: of the model that is wanted */
} fli_get_model;

/* Ask for rows of the job's embedding, before training. */
typedef struct fli_get_slice {
  uint64_t round;         /* 1 */
  uint32_t attempt;       /* 2 */
  const uint8_t *request; /* 3: fl_slice_client_request's bytes */
  size_t request_size;
} fli_get_slice;

/* SLICE */
typedef struct fli_slice_msg {
  uint64_t round;        /* 1 */
  uint32_t attempt;      /* 2 */
  const uint8_t *answer; /* 3: fl_slice_server_answer's bytes */
  size_t answer_size;
} fli_slice_msg;

typedef struct fli_wait {
  uint64_t wait_ms;          /* 1 */
  char text[FLI_TEXT_BYTES]; /* 2? */
} fli_wait;

typedef struct fli_reject {
  uint32_t reason;           /* 1: FL_REJECT_* */
  char text[FLI_TEXT_BYTES]; /* 2? */
} fli_reject;

typedef struct fli_done {
  uint64_t rounds;                    /* 1 */
  uint64_t model_version;             /* 2: final */
  uint8_t model_hash[FLI_HASH_BYTES]; /* 3 */
} fli_done;

#define FLI_TRANSFER_MAX (UINT64_C(1) << 48)
/* Modules that freezing can tell apart, and bytes of its plan. */
enum { FLI_MAX_MODULES = 4096, FLI_MAX_FREEZE_PLAN = 8192 };
enum { FLI_MAX_SLICES_PLAN = 4096 };

/* What a transfer carries. */
enum {
  FLI_TRANSFER_UPDATE = 1, /* fl_compressor_encode's bytes */
  FLI_TRANSFER_MODEL = 2,  /* canonical.h: full copy, f32 LE */
  FLI_TRANSFER_STEPS = 3,  /* canonical.h: chain of step records */
  FLI_TRANSFER_PROBE = 4   /* as MODEL, of another cohort: to be scored only */
};

typedef struct fli_manifest {
  uint64_t transfer;            /* 1: id, unique per sender and session */
  uint32_t kind;                /* 2: FLI_TRANSFER_* */
  uint64_t total;               /* 3: bytes, 1..FLI_TRANSFER_MAX */
  uint32_t chunk_size;          /* 4 */
  uint8_t hash[FLI_HASH_BYTES]; /* 5: BLAKE2b-256 of the whole */
  uint64_t round;               /* 6: UPDATE: the round */
  uint32_t attempt;             /* 7: UPDATE */
  double loss;                  /* 8?: UPDATE: training loss, NaN when absent */
  uint64_t model_version;       /* 9: MODEL, STEPS: version reached */
  uint64_t base_version;        /* 10: STEPS: version started from */
  const uint8_t *clamped;       /* 11?: UPDATE, public scale: u16 LE per norm */
  size_t clamped_size;
  /* 12?, 13?: UPDATE: what freezing is decided from, any double. It is checked
   * where it is used, for a bad one must not cost the update. */
  int has_report;
  uint32_t report_module;
  double report_value;
  int has_cohort;
  uint32_t cohort; /* 14?: MODEL, STEPS, PROBE: whose model it is */
  /* 24?: UPDATE: so many bytes at the end are a sparse update */
  uint32_t slices_size;
  int has_signature;
  uint8_t signature[FLI_PROOF_BYTES]; /* 25?: UPDATE: see signed.h */
} fli_manifest;

/* Body is not a map, so that bulk bytes stay cheap: u64 transfer | u64 offset
 * | data, little-endian. */
/* `data` NULL, to be written: the frame's last `size` bytes are the caller's to
 * fill in. */
typedef struct fli_chunk {
  uint64_t transfer;
  uint64_t offset;
  const uint8_t *data;
  size_t size;
} fli_chunk;
/* What a receiver does not have yet of a transfer: `ranges` is u64 LE first
 * byte | u64 LE byte behind the last, of each gap in order. */
typedef struct fli_missing {
  uint64_t transfer;     /* 1 */
  const uint8_t *ranges; /* 2 */
  size_t ranges_size;
} fli_missing;
enum { FLI_RANGE_BYTES = 16, FLI_MAX_GAPS = 9 };
enum {
  FLI_CHUNK_HEADER = 16,
  FLI_CHUNK_MIN = 4096, /* least and largest chunk_size */
  FLI_CHUNK_MAX = 4 << 20
};

#define FLI_MESSAGES(X)   \
  X(hello, HELLO)         \
  X(norm, NORM)           \
  X(metrics, METRICS)     \
  X(get_model, GET_MODEL) \
  X(get_slice, GET_SLICE) \
  X(welcome, WELCOME)     \
  X(plan, PLAN)           \
  X(ack, ACK)             \
  X(evaluate, EVALUATE)   \
  X(wait, WAIT)           \
  X(reject, REJECT)       \
  X(done, DONE)           \
  X(challenge, CHALLENGE) \
  X(manifest, MANIFEST)   \
  X(chunk, CHUNK)         \
  X(missing, STATUS)

#define FLI_MESSAGE_DECLARE(name, TYPE)                                       \
  fl_status fli_parse_##name(struct fli_##name *message, const uint8_t *body, \
                             size_t n);                                       \
  fl_status fli_write_##name(fli_bytes *out, const struct fli_##name *message);
FLI_MESSAGES(FLI_MESSAGE_DECLARE)
#undef FLI_MESSAGE_DECLARE
fl_status fli_parse_scale(fli_scale_msg *message, const uint8_t *body,
                          size_t n);
fl_status fli_write_scale(fli_bytes *out, const fli_scale_msg *message);
fl_status fli_parse_slice_msg(fli_slice_msg *message, const uint8_t *body,
                              size_t n);
fl_status fli_write_slice_msg(fli_bytes *out, const fli_slice_msg *message);
/* `type`: FLI_MSG_DECLINE or FLI_MSG_BYE. */
fl_status fli_parse_decline(fli_decline *message, const uint8_t *body,
                            size_t n);
fl_status fli_write_decline(fli_bytes *out, uint8_t type,
                            const fli_decline *message);

/* Norms on the wire; data must be on the bf16 grid. FL_E_DIM, FL_E_NOT_FINITE,
 * FL_E_RANGE (negative, above 2^127): norms untouched. */
fl_status fli_norms_from_bf16(float *norms, uint64_t n, const uint8_t *data,
                              size_t size);
void fli_norms_to_bf16(uint8_t *data, const float *norms, uint64_t n);

#endif
