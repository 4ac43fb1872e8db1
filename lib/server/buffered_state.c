/* SPDX-License-Identifier: Apache-2.0 */
/* Buffered rounds in snapshots: epochs with their sums, counts of what was
 * clamped, and, between rounds, tasks under way. Members' tasks are saved with
 * the members. */
#include "server/buffered.h"

#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "server/state.h"

enum { PARTS = 5, EPOCH_PARTS = 4, CARRIED_PARTS = 7 };

/* ---- writing ---- */

static fl_status write_epoch(fli_msg_writer *writer, const fli_job *job,
                             const fli_epoch *epoch)
{
  fl_status st = FL_OK;
  fli_bytes sum;
  fli_bytes_init(&sum, job->context);
  if (fl_partial_count(epoch->partial) > 0)
    FLI_TRY(fli_sum_bytes(epoch->partial, &sum));
  fli_writer_array(writer, EPOCH_PARTS);
  fli_writer_u64(writer, epoch->round);
  fli_writer_f32(writer, epoch->clip);
  fli_writer_bin(writer, epoch->norms_wire, (size_t)job->n_norms * 2);
  fli_writer_bin(writer, sum.data, sum.size);
out:
  fli_bytes_free(&sum);
  return st;
}

/* Both lists are by id. */
static void write_carried(fli_msg_writer *writer, const fli_buffered *self,
                          fli_participant *const *sorted, uint32_t n)
{
  uint32_t place = 0;
  fli_writer_array(writer, self->n_carried);
  for (uint32_t i = 0; i < self->n_carried; i++) {
    const fli_carried *one = &self->carried[i];
    while (place < n && sorted[place] != one->participant)
      place++;
    fli_writer_array(writer, CARRIED_PARTS);
    fli_writer_u64(writer, place);
    fli_writer_u64(writer, one->task.round);
    fli_writer_u64(writer, one->task.attempt);
    fli_writer_u64(writer, one->task.slot);
    fli_writer_u64(writer, one->task.version);
    fli_writer_u64(writer, one->task.epoch);
    fli_writer_u64(writer, one->first_active);
  }
}

fl_status fli_buffered_write(fli_msg_writer *writer, const fli_job *job,
                             fli_participant *const *sorted, uint32_t n)
{
  const fli_buffered *self = job->buffered;
  fl_status st = FL_OK;
  fli_writer_array(writer, self ? PARTS : 0);
  if (!self) return FL_OK;
  fli_writer_u64(writer, self->next_slot);
  fli_writer_u64(writer, self->n_seen);
  fli_writer_array(writer, (uint32_t)job->n_norms);
  for (uint64_t i = 0; i < job->n_norms; i++)
    fli_writer_u64(writer, self->clamped[i]);
  fli_writer_array(writer, self->n_epochs);
  for (uint32_t i = 0; i < self->n_epochs; i++)
    FLI_TRY(write_epoch(writer, job, &self->epochs[i]));
  write_carried(writer, self, sorted, n);
out:
  return st;
}

/* ---- reading ---- */

static fl_status malformed(const char *what)
{
  return fli_error(FL_E_FORMAT, "state: buffer: %s", what);
}

static fl_status read_epoch(fli_job *job, fli_msg_reader *reader,
                            uint64_t *before)
{
  fl_status st = FL_OK;
  const size_t n = (size_t)job->n_norms;
  size_t size = 0, sum_size = 0;
  const uint32_t parts = fli_reader_array(reader);
  const uint64_t round = fli_reader_u64(reader);
  const float clip = fli_reader_f32(reader);
  const uint8_t *wire = fli_reader_bin(reader, &size);
  const uint8_t *sum = fli_reader_bin(reader, &sum_size);
  float *norms = fli_alloc(job->context, n, sizeof *norms);
  if (!norms) return fli_nomem(n * sizeof *norms);
  FLI_TRY(fli_reader_status(reader));
  if (parts != EPOCH_PARTS || round <= *before || round > job->round)
    FLI_TRY(malformed("a scale"));
  *before = round;
  FLI_TRY(fli_norms_from_bf16(norms, n, wire, size));
  FLI_TRY(fli_buffered_add_epoch(job, round, norms, clip));
  if (sum_size > 0) {
    FLI_TRY(fli_buffered_open(job));
    fli_epoch *epoch = &job->buffered->epochs[job->buffered->n_epochs - 1];
    FLI_TRY(fl_partial_merge_bytes(epoch->partial, sum, sum_size));
  }
  fli_reader_leave(reader);
out:
  fli_free(job->context, norms, n * sizeof *norms);
  return st;
}

static fl_status read_epochs(fli_job *job, fli_msg_reader *reader)
{
  fl_status st = FL_OK;
  uint64_t before = 0;
  uint32_t left = fli_reader_array(reader);
  FLI_TRY(fli_reader_status(reader));
  if (left > FLI_EPOCHS_MAX) return malformed("its scales");
  for (; left > 0; left--)
    FLI_TRY(read_epoch(job, reader, &before));
  fli_reader_leave(reader);
  st = fli_reader_status(reader);
out:
  return st;
}

static int has_epoch(const fli_job *job, uint64_t round)
{
  for (uint32_t i = 0; i < job->buffered->n_epochs; i++) {
    if (job->buffered->epochs[i].round == round) return 1;
  }
  return 0;
}

static int is_task(const fli_job *job, const fli_task *task)
{
  return task->round >= 1 && task->round <= job->round &&
         task->slot < FL_MAX_SLOTS &&
         task->version <= job->store.canonical.version &&
         has_epoch(job, task->epoch);
}

static fl_status read_carried(fli_job *job, fli_msg_reader *reader)
{
  fl_status st = FL_OK;
  fli_buffered *self = job->buffered;
  fli_participant **sorted = NULL;
  uint32_t n = 0, next = 0;
  const uint32_t count = fli_reader_array(reader);
  FLI_TRY(fli_reader_status(reader));
  FLI_TRY(fli_registry_sorted(job, 0, &sorted, &n));
  if (count > n) FLI_TRY(malformed("tasks under way"));
  self->carried = fli_alloc(job->context, count, sizeof *self->carried);
  if (!self->carried) FLI_TRY(fli_nomem(count * sizeof *self->carried));
  self->capacity = count;
  for (uint32_t i = 0; i < count; i++) {
    fli_carried *one = &self->carried[i];
    const uint32_t parts = fli_reader_array(reader);
    const uint32_t place = fli_reader_u32(reader);
    one->task.round = fli_reader_u64(reader);
    one->task.attempt = fli_reader_u32(reader);
    one->task.slot = fli_reader_u32(reader);
    one->task.version = fli_reader_u64(reader);
    one->task.epoch = fli_reader_u64(reader);
    one->first_active = fli_reader_u32(reader);
    fli_reader_leave(reader);
    FLI_TRY(fli_reader_status(reader));
    if (parts != CARRIED_PARTS || place < next || place >= n ||
        one->first_active >= job->n_modules || !is_task(job, &one->task))
      FLI_TRY(malformed("a task under way"));
    one->participant = sorted[place];
    next = place + 1;
    self->n_carried = next > 0 ? i + 1 : 0;
  }
  fli_reader_leave(reader);
  st = fli_reader_status(reader);
out:
  fli_free(job->context, sorted, n * sizeof *sorted);
  return st;
}

/* Every counted member is in a sum, and nobody else is. */
static fl_status check_members(const fli_job *job)
{
  uint64_t in_sums = 0;
  if (!fli_buffered_runs(job)) return FL_OK;
  for (uint32_t i = 0; i < job->n_members; i++) {
    const fli_member *member = &job->members[i];
    if (!is_task(job, &member->task)) return malformed("a member's task");
    if (fl_partial_has_slot(fli_round_partial(job, member),
                            member->task.slot) != member->is_counted)
      return malformed("a sum");
  }
  for (uint32_t i = 0; i < job->buffered->n_epochs; i++)
    in_sums += fl_partial_count(job->buffered->epochs[i].partial);
  return in_sums == job->n_counted ? FL_OK : malformed("the sums");
}

fl_status fli_buffered_read(fli_job *job, fli_msg_reader *reader)
{
  fl_status st = FL_OK;
  fli_buffered *self = job->buffered;
  const uint32_t n = fli_reader_array(reader);
  FLI_TRY(fli_reader_status(reader));
  if (n != (self ? PARTS : 0u)) return malformed("does not fit the job");
  if (self) {
    self->next_slot = fli_reader_u32(reader) % FL_MAX_SLOTS;
    self->n_seen = fli_reader_u32(reader);
    if (fli_reader_array(reader) != job->n_norms)
      return malformed("the clamp counts");
    for (uint64_t i = 0; i < job->n_norms; i++)
      self->clamped[i] = fli_reader_u64(reader);
    fli_reader_leave(reader);
    FLI_TRY(read_epochs(job, reader));
    if (fli_buffered_runs(job)) FLI_TRY(fli_buffered_open(job));
    FLI_TRY(read_carried(job, reader));
    FLI_TRY(check_members(job));
  }
  fli_reader_leave(reader);
  st = fli_reader_status(reader);
out:
  return st;
}
