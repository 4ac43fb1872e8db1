/* SPDX-License-Identifier: Apache-2.0 */
/* Who trains what. A client trains a suffix of the modules: from the first one
 * that is not frozen, or from as deep as it says that it can afford. (Windows
 * in the middle of the model would spread the work more evenly; but a way back
 * that has to pass through the modules behind them costs almost as much as
 * training those, too.) What a member trains is fixed when the round begins,
 * and an update that holds anything else is refused: whoever could send frozen
 * segments could change them.
 *
 * A segment's mean is over those who sent it. */
#include "server/server.h"

#include <string.h>

#include "base/error.h"
#include "compress/compressor.h"
#include "compress/partial.h"
#include "compress/update.h"
#include "server/buffered.h"

uint32_t fli_parts_start(const fli_job *job, uint32_t depth)
{
  const uint32_t n = job->n_modules;
  const uint32_t start = depth == 0 || depth > n ? 0 : n - depth;
  return start > job->first_active ? start : job->first_active;
}

int fli_parts_has(const fli_job *job, const fli_member *member,
                  uint32_t segment)
{
  return job->modules[segment] >= member->first_active;
}

int fli_parts_is_idle(const fli_job *job, uint32_t segment)
{
  return fli_parts_count(job, segment) == 0;
}

uint32_t fli_parts_count(const fli_job *job, uint32_t segment)
{
  if (fli_buffered_runs(job)) return fli_buffered_count(job, segment);
  return job->partial->tallies[segment].count;
}

int fli_parts_are_equal(const fli_job *job)
{
  for (uint32_t i = 1; i < job->n_members; i++) {
    if (job->members[i].first_active != job->members[0].first_active) return 0;
  }
  return 1;
}

fl_status fli_parts_check(const fli_job *job, const fli_member *member,
                          const fli_bytes *data)
{
  fli_update update;
  const fl_status st = fli_update_read(&fli_round_partial(job, member)->agreed,
                                       data->data, data->size, &update);
  if (st != FL_OK) return st;
  for (uint32_t s = 0; s < job->n_segments; s++) {
    const int want = fli_parts_has(job, member, s);
    if (update.mask[s] == want) continue;
    return fli_error(FL_E_RANGE,
                     "update.segments: got %s segment %u of module %u, want "
                     "modules from %u on",
                     want ? "no" : "a", s, job->modules[s],
                     member->first_active);
  }
  return FL_OK;
}

void fli_parts_clear_norms(const fli_job *job, const fli_member *member,
                           uint8_t *norms)
{
  for (uint32_t s = 0; s < job->n_segments; s++) {
    uint64_t first, n;
    if (fli_parts_has(job, member, s)) continue;
    fli_segment_norms(&job->compressor->layout, s, &first, &n);
    memset(norms + 2 * first, 0, 2 * (size_t)n);
  }
}

/* Bytes that a segment has in an update, if none of its norms is zero. */
static uint64_t segment_bytes(const fli_job *job, uint32_t index)
{
  const fli_layout *layout = &job->compressor->layout;
  const fli_segment *s = &layout->segments[index];
  const uint64_t n =
      layout->is_rotated ? s->n_full * FLI_UNIT_MAX + s->tail_padded : s->n;
  return n * job->compressor->bits / 8;
}

uint64_t fli_parts_bytes_saved(const fli_job *job, const fli_member *member)
{
  uint64_t bytes = 0;
  for (uint32_t s = 0; s < job->n_segments; s++) {
    if (!fli_parts_has(job, member, s)) bytes += segment_bytes(job, s);
  }
  return bytes;
}

/* All that is not frozen is in the front-most module that is not, so whoever
 * trains that trains everything. */
void fli_parts_report_cover(fli_job *job)
{
  const uint32_t want = job->options.min_cover < job->n_members
                            ? job->options.min_cover
                            : job->n_members;
  uint32_t covered = 0;
  for (uint32_t i = 0; i < job->n_members; i++)
    covered += job->members[i].first_active == job->first_active;
  if (covered >= want) return;
  fl_server_event event = fli_event_of(job, FL_SERVER_SEGMENT_UNCOVERED);
  event.round = job->round;
  event.selected = job->n_members;
  event.accepted = covered;
  event.model_version = job->store.canonical.version;
  event.first_active = job->first_active;
  fli_events_add(&job->server->events, &event, "",
                 "round %llu: module %u is trained by %u, want %u",
                 (unsigned long long)job->round, job->first_active, covered,
                 job->options.min_cover);
}
