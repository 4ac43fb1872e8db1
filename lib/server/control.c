/* SPDX-License-Identifier: Apache-2.0 */
/* What an operator does to a job. Pausing keeps rounds from beginning and
 * leaves the running one alone; both marks, paused and stopping, are part of
 * the state, so that a server that is restored or recovered keeps to them. */
#include "server/server.h"

#include "base/error.h"
#include "server/cohorts.h"

fl_status fli_server_find_job(const fl_server *server, uint32_t index,
                              fli_job **job)
{
  if (!server) return fli_error(FL_E_ARGUMENT, "server: is NULL");
  if (index >= server->n_jobs)
    return fli_error(FL_E_NOT_FOUND, "job: got %u, want < %zu", index,
                     server->n_jobs);
  *job = server->jobs[index];
  return FL_OK;
}

fl_status fl_server_stop_job(fl_server *server, uint32_t job)
{
  fli_job *found = NULL;
  fli_clear_error();
  const fl_status st = fli_server_find_job(server, job, &found);
  if (st != FL_OK) return st;
  found->is_stopping = 1;
  fli_journal_step(server);
  fli_job_advance(found);
  return FL_OK;
}

static fl_status set_paused(fl_server *server, uint32_t job, int is_paused)
{
  fli_job *found = NULL;
  fli_clear_error();
  const fl_status st = fli_server_find_job(server, job, &found);
  if (st != FL_OK) return st;
  if (found->phase == FLI_PHASE_FINISHED)
    return fli_error(FL_E_STATE, "job %s: it is over", found->name);
  if (found->is_paused == is_paused) return FL_OK;
  found->is_paused = is_paused;
  fli_journal_step(server);
  fli_job_advance(found);
  return FL_OK;
}

fl_status fl_server_pause_job(fl_server *server, uint32_t job)
{
  return set_paused(server, job, 1);
}

fl_status fl_server_resume_job(fl_server *server, uint32_t job)
{
  return set_paused(server, job, 0);
}

fl_status fl_server_abort_round(fl_server *server, uint32_t job)
{
  static const char text[] = "aborted by the host";
  fli_job *found = NULL;
  fli_clear_error();
  const fl_status st = fli_server_find_job(server, job, &found);
  if (st != FL_OK) return st;
  const int is_aborted = found->cohorts
                             ? fli_cohorts_abort(found, FL_REJECT_STOPPED, text)
                             : fli_round_abort(found, FL_REJECT_STOPPED, text);
  if (!is_aborted)
    return fli_error(FL_E_STATE, "job %s: no round is running", found->name);
  fli_journal_step(server);
  fli_job_advance(found);
  return FL_OK;
}
