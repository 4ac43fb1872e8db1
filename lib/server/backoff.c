/* SPDX-License-Identifier: Apache-2.0 */
/* Clients of whom nothing is wanted now, and when they are told to come back.
 * The more there are for a round's places, the longer the time over which they
 * are spread, so that about as many return in each `checkin_ns` as a round can
 * use. Each has its own draw, from the seed, the round and its id. */
#include "server/server.h"

#include <string.h>

#include "base/rng.h"
#include "server/rule.h"

#define FLI_MS UINT64_C(1000000)
#define FLI_DAY_MS (UINT64_C(24) * 3600 * 1000)

uint64_t fli_backoff_capabilities(const fli_job *job, const fli_hello *hello)
{
  uint64_t lost = 0;
  if (hello->lacks & job->options.demands) lost = FLI_CAP_TRAIN;
  if (fli_controls_are_used(job) && !(hello->capabilities & FLI_CAP_CONTROLS))
    lost |= FLI_CAP_TRAIN;
  if (hello->lacks & FLI_LACKS_BYTES) lost = FLI_CAP_TRAIN | FLI_CAP_EVALUATE;
  return hello->capabilities & ~lost;
}

/* Something is asked, or will be said at once. */
static int is_wanted(const fli_peer *peer)
{
  const fli_member *member = fli_member_of(peer->participant);
  return peer->due != 0 || (member && member->lost == FL_REJECT_NONE &&
                            fli_member_is_open(peer->participant->job, member));
}

/* Rounds that those who are there could fill, at least 1. */
static uint64_t crowd(const fli_job *job)
{
  const uint64_t live = job->registry.live;
  const uint64_t places = fli_select_size(job);
  return live > places ? (live + places - 1) / places : 1;
}

static uint64_t wait_ms(const fli_participant *who)
{
  const fli_job *job = who->home;
  const double checkin = (double)(job->options.checkin_ns / FLI_MS);
  uint8_t digest[FLI_HASH_BYTES];
  fli_rng rng;
  fli_hash(digest, who->id, strlen(who->id));
  fli_rng_init(&rng, job->options.seed, FLI_RNG_BACKOFF, job->round,
               (uint32_t)fli_hash_id(digest));
  const double spread = checkin * (double)crowd(job);
  const double wait = checkin + fli_rng_f64(&rng) * spread;
  return wait < (double)FLI_DAY_MS ? (uint64_t)wait : FLI_DAY_MS;
}

fl_status fli_backoff_tell(fli_peer *peer)
{
  const fli_participant *who = peer->participant;
  if (!who || peer->is_closing || who->home->options.checkin_ns == 0 ||
      who->home->phase == FLI_PHASE_FINISHED || is_wanted(peer))
    return FL_OK;
  return fli_peer_wait(peer, wait_ms(who), "nothing to do now");
}
