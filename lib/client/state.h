/* SPDX-License-Identifier: Apache-2.0 */
/* A client's saved state: its keys, and what is read of it. */
#ifndef FLI_CLIENT_STATE_H
#define FLI_CLIENT_STATE_H

#include "client/client.h"

/* Keys of the map. */
enum {
  KEY_ID = 1,
  KEY_JOB = 2,
  KEY_TOKEN = 3,
  KEY_DESCRIPTION = 4,
  KEY_CODEC = 5,
  KEY_THC_MODE = 6,
  KEY_BITS = 7,
  KEY_GRANULARITY = 8,
  KEY_CLIP = 9,
  KEY_ROTATION_SEED = 10,
  KEY_MODEL_VERSION = 11,
  KEY_WEIGHTS = 12, /* f32 LE */
  KEY_PLAN = 13,    /* body of the PLAN that was trained for */
  KEY_SAMPLES = 14,
  KEY_LOSS = 15,   /* absent = unknown */
  KEY_UPDATE = 16, /* f32 LE */
  KEY_ENCODED_ATTEMPT = 17,
  KEY_ENCODED_SLOT = 18,
  KEY_SCALE_ID = 19,
  KEY_ENCODED = 20, /* its bytes; read past, not written any more */
  KEY_CLAMPED = 21,
  KEY_UNACKED_ROUND = 22,
  KEY_UNACKED_ATTEMPT = 23,
  KEY_IS_DONE = 24,
  KEY_TABLE = 25, /* of the codec, when it has one */
  KEY_FEEDBACK_DECAY = 26,
  KEY_FEEDBACK = 27, /* state of an fl_feedback */
  KEY_FED_ROUND = 28,
  KEY_FED_ATTEMPT = 29,
  KEY_REPORT_MODULE = 30, /* absent, both: none */
  KEY_REPORT_VALUE = 31,
  KEY_SPARSE_ID = 48, /* absent, both: none */
  KEY_SPARSE = 49,
  KEY_PAGED = 50, /* instead of WEIGHTS and UPDATE */
  KEY_PAGED_UPDATE = 51,
  KEY_DAY = 60, /* absent, both: nothing was counted */
  KEY_SPENT = 61
};

/* A parsed state: views into the payload. */
typedef struct state_view {
  const uint8_t *data;
  size_t size;
} state_view;

typedef struct fli_saved_state {
  char id[FLI_ID_BYTES];
  char job[FLI_ID_BYTES];
  int has_token;
  uint8_t token[FLI_TOKEN_BYTES];
  state_view description;
  fl_compressor_options codec; /* codec 0: not known yet */
  uint64_t model_version;
  state_view weights;
  state_view plan;
  uint64_t samples;
  double loss;
  state_view update;
  uint32_t attempt;
  uint32_t slot;
  uint8_t scale_id[FLI_HASH_BYTES];
  int has_encoded;
  state_view clamped;
  fli_turn unacked;
  int is_done;
  float decay;
  state_view feedback;
  fli_turn fed;
  uint32_t report_module;
  double report_value;
  uint64_t sparse_id;
  state_view sparse;
  int is_paged;
  uint8_t paged[2][FLI_PAGED_STATE];
  uint64_t day, spent;
} fli_saved_state;

/* Views into the payload. Whatever is wrong with it as a map; whether it is of
 * this client and fits its model is not looked at. */
fl_status fli_client_read_state(const fli_bytes *payload,
                                fli_saved_state *state);

#endif
