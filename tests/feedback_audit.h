/* SPDX-License-Identifier: Apache-2.0 */
/* One server and one client with error feedback of decay 1: then the model and
 * the memory together are what was begun with and all that was trained,
 * whatever gets lost on the way. Looked at whenever training is asked. */
#ifndef FEEDBACK_AUDIT_H
#define FEEDBACK_AUDIT_H

#include <math.h>

#include "base/rng.h"
#include "client/client.h"
#include "client_pair.h"
#include "compress/feedback.h"

typedef struct audit {
  pair p;
  fli_rng rng;
  double sum[PAIR_WEIGHTS]; /* begun with, and trained */
  uint64_t trained;
  int gives_up; /* when memory was short; else it submits once more */
  double worst; /* distance of one coordinate from it */
} audit;

static inline fl_status audit_begin(audit *a, fl_context *context,
                                    uint64_t seed, uint32_t rounds)
{
  fl_status st = FL_OK;
  fl_compressor_options codec;
  fl_job_options job;
  memset(a, 0, sizeof *a);
  fli_rng_init(&a->rng, seed, FLI_RNG_TEST, 0, 0);
  a->p.context = context;
  a->p.peer = PAIR_PEER;
  FLI_TRY(pair_make_model(&a->p.model));
  FLI_TRY(fl_server_new(&a->p.server, NULL, NULL));
  FLI_TRY(fl_compressor_options_init(&codec, sizeof codec));
  FLI_TRY(fl_job_options_init(&job, sizeof job));
  codec.bits = 2;
  job.codec = &codec;
  job.rounds = rounds;
  job.retry_pause_ns = 1;
  /* A round is given up often, before and behind its SCALE. */
  job.update_deadline_ns = 3000000;
  job.return_grace_ns = 2000000;
  job.error_feedback = 1;
  job.feedback_decay = 1.f;
  job.scale_mode = seed % 2 ? FL_SCALE_PUBLIC : FL_SCALE_EXCHANGED;
  FLI_TRY(fl_server_add_job(a->p.server, a->p.model, &job, NULL));
  FLI_TRY(fl_client_options_init(&a->p.options, sizeof a->p.options));
  a->p.options.client_id = "one";
out:
  return st;
}

static inline fl_status audit_look(audit *a)
{
  float weights[PAIR_WEIGHTS];
  fl_status st =
      fl_client_copy_weights(a->p.client, weights, PAIR_WEIGHTS, NULL);
  if (st != FL_OK) return st;
  for (size_t i = 0; i < PAIR_WEIGHTS; i++) {
    if (a->trained == 0) a->sum[i] = (double)weights[i];
    double held = (double)a->p.client->feedback->held[i];
    double distance = fabs(a->sum[i] - (double)weights[i] - held);
    if (distance > a->worst) a->worst = distance;
  }
  return FL_OK;
}

/* Answer NEED_TRAIN. */
static inline fl_status audit_train(audit *a)
{
  fl_train_result result;
  fl_status st = audit_look(a);
  if (st != FL_OK) return st;
  for (size_t i = 0; i < PAIR_WEIGHTS; i++)
    a->p.update[i] = (float)fli_rng_f64(&a->rng) - .5f;
  st = fl_train_result_init(&result, sizeof result);
  if (st != FL_OK) return st;
  result.update = a->p.update;
  result.n = PAIR_WEIGHTS;
  st = fl_client_submit(a->p.client, &result);
  if (st == FL_E_NOMEM && !a->gives_up)
    st = fl_client_submit(a->p.client, &result);
  if (st != FL_OK) return st;
  for (size_t i = 0; i < PAIR_WEIGHTS; i++)
    a->sum[i] += (double)a->p.update[i];
  a->trained++;
  return FL_OK;
}

/* All events of the client. */
static inline fl_status audit_poll(audit *a)
{
  do {
    fl_status st = pair_poll(&a->p);
    if (st == FL_OK && a->p.last_kind == FL_CLIENT_NEED_TRAIN)
      st = audit_train(a);
    if (st != FL_OK) return st;
  } while (a->p.last_kind != FL_CLIENT_IDLE);
  return FL_OK;
}

#endif
