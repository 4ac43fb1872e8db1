/* SPDX-License-Identifier: Apache-2.0 */
/* SCAFFOLD's controls on the wire. Down goes the server's c, in whole and as
 * float32, as a probe does, before the plan that names its hash. Up comes the
 * change of the client's own behind its update, float32 as well: what is added
 * up over all rounds is not to be rounded in each. */
#include "server/rule.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"

int fli_controls_are_used(const fli_job *job)
{
  return job->options.strategy &&
         job->options.strategy->rule == FL_RULE_SCAFFOLD;
}

uint32_t fli_controls_size(const fli_job *job)
{
  return fli_controls_are_used(job)
             ? (uint32_t)(job->store.canonical.n * sizeof(float))
             : 0;
}

fl_status fli_controls_check(const fli_job *job, const fli_bytes *update,
                             uint32_t size)
{
  const uint32_t want = fli_controls_size(job);
  if (size != want || update->size < want)
    return fli_error(FL_E_FORMAT, "update: control, got %u bytes, want %u",
                     size, want);
  const uint8_t *at = update->data + (update->size - want);
  for (size_t i = 0; i < want; i += sizeof(float)) {
    if (isfinite(fli_load_f32(at + i))) continue;
    return fli_error(FL_E_RANGE, "update: its control is not finite");
  }
  return FL_OK;
}

/* ---- down ---- */

void fli_controls_change(fli_job *job)
{
  fli_blob_unref(job->control);
  job->control = NULL;
}

/* The server's control as bytes, made once a version. */
static fl_status find(fli_job *job)
{
  const float *control = NULL;
  uint64_t n = 0;
  if (job->control) return FL_OK;
  fl_status st = fl_strategy_get_control(job->strategy, &control, &n);
  if (st != FL_OK) return st;
  fli_blob *blob = fli_blob_new(job->context);
  if (!blob) return fli_nomem(sizeof *blob);
  st = fli_bytes_reserve(&blob->bytes, (size_t)n * sizeof *control);
  if (st != FL_OK) {
    fli_blob_unref(blob);
    return st;
  }
  for (size_t i = 0; i < (size_t)n; i++)
    fli_store_f32(blob->bytes.data + 4 * i, control[i]);
  blob->bytes.size = (size_t)n * sizeof *control;
  job->control = blob;
  return FL_OK;
}

fl_status fli_controls_send(fli_peer *peer)
{
  const fli_participant *who = peer->participant;
  fli_job *job = who->job;
  const fli_member *member = fli_member_of(who);
  const uint64_t version = job->store.canonical.version;
  const int is_running =
      job->phase == FLI_PHASE_NORMS || job->phase == FLI_PHASE_UPDATES;
  fli_manifest manifest = {.kind = FLI_TRANSFER_PROBE,
                           .model_version = version,
                           .round = job->round};
  if (!fli_controls_are_used(job) || !is_running || !member ||
      member->is_counted || member->is_out ||
      (who->probe_cohort == 0 && who->probe_version == version))
    return FL_OK;
  const fl_status st = find(job);
  if (st != FL_OK) return st;
  return fli_outbox_download(peer, fli_blob_ref(job->control), &manifest, 0);
}

fl_status fli_controls_plan(fli_job *job, fli_plan *plan)
{
  if (!fli_controls_are_used(job)) return FL_OK;
  const fl_status st = find(job);
  if (st != FL_OK) return st;
  plan->has_control = 1;
  memcpy(plan->control_hash, fli_blob_hash(job->control),
         sizeof plan->control_hash);
  return FL_OK;
}
