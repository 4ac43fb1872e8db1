/* SPDX-License-Identifier: Apache-2.0 */
/* Error feedback (fl_feedback) where the job wants it: what an encoding has
 * lost is sent with the next update.
 *
 * Whether an update was counted is learnt from the next plan, which names the
 * last one of this client that is in the model. An ACK is not asked: it may get
 * lost, and a round that is aborted takes back what it has acknowledged. Until
 * then the round is provisional: another attempt encodes the same corrected
 * update again, another weight cap or another task for the round takes it out
 * of the memory first. `fed` is the newest turn that the memory knows of; when
 * a plan names a newer one, a life of this client that was not saved has sent
 * the memory, and it must not be sent again. */
#include "client/client.h"

#include "compress/feedback.h"

void fli_client_drop_feedback(fl_client *client)
{
  fl_feedback_free(client->feedback);
  client->feedback = NULL;
  client->fed = (fli_turn){0, 0};
}

/* Norms and encoding without error feedback are of no use with it, nor the
 * other way round. */
static void forget_scaled(fl_client *client)
{
  client->trained.has_norms = 0;
  fli_client_forget_encoded(client);
}

fl_status fli_client_set_feedback(fl_client *client, int has_feedback,
                                  float decay)
{
  fl_feedback *feedback = NULL;
  if (!has_feedback) {
    if (client->feedback) forget_scaled(client);
    fli_client_drop_feedback(client);
    return FL_OK;
  }
  if (client->paging) return client->paging->refuse_feedback();
  if (client->feedback && client->feedback->decay == decay) return FL_OK;
  fl_status st = fli_feedback_make(&feedback, client->compressor, decay);
  if (st != FL_OK) return st;
  forget_scaled(client);
  fli_client_drop_feedback(client);
  client->feedback = feedback;
  return FL_OK;
}

/* What a segment that was not sent has in the memory fades: it may be long
 * before it is trained again. */
static void settle_counted(fl_client *client)
{
  const fli_trained *trained = &client->trained;
  const uint32_t first = trained->is_valid ? trained->plan.first_active : 0;
  const uint8_t *mask = fli_client_mask(client, first);
  fli_feedback_settle(client->feedback, 1, mask);
}

void fli_client_settle(fl_client *client, const fli_plan *plan)
{
  fl_feedback *feedback = client->feedback;
  const fli_turn fed = client->fed;
  if (!feedback) return;
  int is_known = plan->has_counted && plan->counted_round == fed.round;
  int is_newer = plan->has_counted && plan->counted_round > fed.round;
  uint32_t phase = feedback->phase;
  if (!is_newer && (phase == FL_FEEDBACK_IDLE || plan->round == fed.round))
    return;
  /* None of these can fail in its phase. */
  if (!is_newer && !is_known)
    fli_feedback_settle(feedback, 0, NULL);
  else if (is_known && phase == FL_FEEDBACK_ENCODED &&
           plan->counted_attempt == fed.attempt)
    settle_counted(client);
  else
    (void)fl_feedback_reset(feedback);
  fli_client_forget_trained(client);
}

int fli_client_is_fed(const fl_client *client)
{
  return client->feedback && client->feedback->phase != FL_FEEDBACK_IDLE;
}

void fli_client_withdraw(fl_client *client)
{
  fl_feedback *feedback = client->feedback;
  if (!fli_client_is_fed(client)) return;
  if (client->trained.is_valid &&
      fl_feedback_withdraw(feedback, client->trained.update,
                           client->n_weights) == FL_OK)
    return;
  /* What was measured is gone: all there is to be done is to call it lost. */
  fli_feedback_settle(feedback, 0, NULL);
}

fl_status fli_client_correct(fl_client *client, const fl_scale *scale,
                             float *norms)
{
  fl_feedback *feedback = client->feedback;
  const fli_trained *trained = &client->trained;
  if (feedback->phase != FL_FEEDBACK_IDLE && feedback->cap == scale->weight_cap)
    return norms
               ? fli_measure(feedback->compressor, feedback->held, 1.0f, norms)
               : FL_OK;
  fli_client_withdraw(client);
  fl_status st = fli_feedback_measure(
      feedback, trained->samples, scale->weight_cap, trained->update, norms);
  if (st == FL_OK) client->fed = (fli_turn){trained->plan.round, 0};
  return st;
}
