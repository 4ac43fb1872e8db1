/* SPDX-License-Identifier: Apache-2.0 */
/* A job's embedding store beside its dense model: its plan goes with PLAN, rows
 * are answered when they are asked for, sparse updates come behind the dense
 * ones in the same upload, so that both count or neither. */
#include "server/slices.h"

#include "base/error.h"
#include "embedding/slice_use.h"
#include "server/rule.h"

enum { ASKED_TIMES = 4, ID_BYTES = 11, HEAD_BYTES = 65536 };

/* ---- attaching ----------------------------------------------------------- */

static int is_running(const fli_job *job)
{
  return job->phase == FLI_PHASE_NORMS || job->phase == FLI_PHASE_UPDATES;
}

static fl_status copy_plan(fli_job *job)
{
  size_t n = 0;
  fli_bytes_clear(&job->slices_plan);
  fl_status st = fli_bytes_reserve(&job->slices_plan, FLI_SLICE_PLAN_MAX);
  if (st == FL_OK)
    st = fl_slice_server_copy_plan(job->slices, job->slices_plan.data,
                                   FLI_SLICE_PLAN_MAX, &n);
  if (st == FL_OK) job->slices_plan.size = n;
  return st;
}

/* What will have to be said must fit into a message. */
static fl_status check_sizes(const fli_job *job)
{
  const uint64_t most = job->server->options.max_control_size;
  const uint64_t request =
      fli_slice_request_max(job->slices) + FLI_MESSAGE_SLACK;
  const uint64_t plan = FLI_MESSAGE_SLACK + job->slices_plan.size +
                        job->freezing.plan.size + 2 * job->n_norms;
  const uint64_t size = request > plan ? request : plan;
  if (size <= most) return FL_OK;
  return fli_error(FL_E_LIMIT,
                   "slices: got messages of %llu bytes, max_control_size %llu",
                   (unsigned long long)size, (unsigned long long)most);
}

static fl_status attach(fli_job *job, fl_slice_server *slices)
{
  fl_status st = FL_OK;
  if (job->slices || !fli_slice_server_attach(slices))
    return fli_error(FL_E_STATE, "slices: job or slices have one already");
  if (job->slices_saved.size == 0 && is_running(job))
    FLI_TRY(fli_error(FL_E_STATE, "slices: a round is running without them"));
  if (job->slices_saved.size > 0)
    FLI_TRY(fli_slice_read_state(slices, job->slices_saved.data,
                                 job->slices_saved.size));
  job->slices = slices;
  FLI_TRY(copy_plan(job));
  FLI_TRY(check_sizes(job));
  fli_bytes_free(&job->slices_saved);
out:
  if (st != FL_OK) {
    job->slices = NULL;
    fli_slice_server_detach(slices);
  }
  return st;
}

void fli_slices_free(fli_job *job)
{
  if (job->slices) fli_slice_server_detach(job->slices);
  job->slices = NULL;
  fli_bytes_free(&job->slices_plan);
  fli_bytes_free(&job->slices_saved);
}

fl_status fli_slices_attach(fli_job *job, fl_slice_server *slices)
{
  if (slices && job->cohorts)
    return fli_error(FL_E_CONFLICT, "slices: the job has cohorts");
  if (slices && job->buffered)
    return fli_error(FL_E_CONFLICT, "slices: the job has a buffer");
  if (slices && fli_controls_are_used(job))
    return fli_error(FL_E_CONFLICT, "slices: the job's strategy has controls");
  if (slices) return attach(job, slices);
  if (is_running(job) && job->slices)
    return fli_error(FL_E_STATE, "slices: a round is running with them");
  fli_slices_free(job);
  return FL_OK;
}

/* ---- a round ------------------------------------------------------------- */

/* A restored round's sums, which nobody came for in time. */
static void drop_saved(fli_job *job)
{
  fl_server_event event = fli_event_of(job, FL_SERVER_SLICES_DROPPED);
  if (job->slices_saved.size == 0) return;
  event.round = job->round;
  fli_events_add(&job->server->events, &event, "",
                 "round %llu begins without slices: sums of rows are lost",
                 (unsigned long long)job->round);
  fli_bytes_free(&job->slices_saved);
}

fl_status fli_slices_begin(fli_job *job)
{
  if (!job->slices) {
    drop_saved(job);
    return FL_OK;
  }
  fl_slice_server_drop(job->slices);
  return copy_plan(job);
}

/* The sender's part in the round; NULL: it was answered here. */
static fl_status check_turn(fli_peer *peer, const fli_get_slice *message,
                            fli_member **member)
{
  const fli_job *job = peer->participant->job;
  fli_member *mine = fli_member_of(peer->participant);
  if (!job->slices)
    return fli_peer_ack(peer, message->round, message->attempt, FL_REJECT_STATE,
                        "slice: the job has no embedding");
  if (!is_running(job) || message->round != job->round ||
      message->attempt != job->attempt || !mine || mine->is_out ||
      mine->is_counted)
    return fli_peer_ack(peer, message->round, message->attempt, FL_REJECT_STALE,
                        "slice: asked for out of turn");
  *member = mine;
  return FL_OK;
}

/* How much one client may ask in a round, and have in our queue. */
static fl_status check_amount(fli_peer *peer, fli_member *member, size_t n)
{
  const uint64_t most =
      ASKED_TIMES *
      (HEAD_BYTES +
       ID_BYTES * fli_slice_max_ids(peer->participant->job->slices));
  if (peer->queue.size > FLI_SLICE_ANSWER_MAX)
    return fli_error(FL_E_LIMIT, "slice: answers are not read");
  if (n > most - member->asked_bytes)
    return fli_error(FL_E_LIMIT, "slice: got more requests than a round has");
  member->asked_bytes += n;
  return FL_OK;
}

static fl_status write_answer(fli_peer *peer, const fli_get_slice *message,
                              fl_buffer *answer)
{
  fli_slice_msg reply = {.round = message->round, .attempt = message->attempt};
  fl_status st = fl_buffer_get(answer, &reply.answer, &reply.answer_size);
  if (st == FL_OK) st = fli_write_slice_msg(&peer->queue, &reply);
  fli_peer_touch(peer);
  return st;
}

fl_status fli_slices_answer(fli_peer *peer, const fli_get_slice *message)
{
  fli_job *job = peer->participant->job;
  fli_member *member = NULL;
  fl_buffer *answer = NULL;
  fl_status st = check_turn(peer, message, &member);
  if (st != FL_OK || !member) return st;
  st = check_amount(peer, member, message->request_size);
  if (st == FL_E_LIMIT)
    return fli_peer_reject(peer, FL_REJECT_LIMIT, "%s", fl_last_error());
  st = fl_buffer_new(&answer, job->context);
  if (st != FL_OK) return st;
  st = fl_slice_server_answer(job->slices, message->request,
                              message->request_size, answer);
  if (st == FL_OK) {
    st = write_answer(peer, message, answer);
  } else if (st != FL_E_NOMEM) {
    st = fli_peer_ack(peer, message->round, message->attempt,
                      st == FL_E_STALE ? FL_REJECT_STALE : FL_REJECT_RANGE,
                      "%s", fl_last_error());
  }
  fl_buffer_free(answer);
  return st;
}

uint64_t fli_slices_max(const fli_job *job)
{
  return job->slices ? fli_slice_update_max(job->slices) : 0;
}

fl_status fli_slices_check(fli_job *job, const fli_bytes *update,
                           uint32_t n_sparse)
{
  if (n_sparse == 0) return FL_OK;
  return fli_slice_check(job->slices, update->data + update->size - n_sparse,
                         n_sparse);
}

void fli_slices_fold(fli_job *job, const fli_bytes *update, uint32_t n_sparse)
{
  if (n_sparse == 0) return;
  fli_slice_fold(job->slices, update->data + update->size - n_sparse, n_sparse);
}

fl_status fli_slices_prepare(fli_job *job)
{
  return job->slices ? fli_slice_prepare(job->slices) : FL_OK;
}

void fli_slices_finish(fli_job *job)
{
  if (job->slices) fli_slice_finish(job->slices);
}

/* ---- snapshots ----------------------------------------------------------- */

fl_status fli_slices_write(fli_msg_writer *writer, const fli_job *job)
{
  fl_status st = FL_OK;
  fli_bytes state;
  fli_bytes_init(&state, job->context);
  if (job->slices) {
    FLI_TRY(fli_slice_write_state(job->slices, &state));
    fli_writer_bin(writer, state.data, state.size);
  } else {
    fli_writer_bin(writer, job->slices_saved.data, job->slices_saved.size);
  }
out:
  fli_bytes_free(&state);
  return st;
}

fl_status fli_slices_read(fli_job *job, fli_msg_reader *reader)
{
  size_t n = 0;
  const uint8_t *data = fli_reader_bin(reader, &n);
  const fl_status st = fli_reader_status(reader);
  return st != FL_OK ? st : fli_bytes_append(&job->slices_saved, data, n);
}
