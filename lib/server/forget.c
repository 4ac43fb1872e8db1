/* SPDX-License-Identifier: Apache-2.0 */
/* Clients that leave. A client's record is what the server has of it beside
 * sums: id, key's hash, claims, place among cohorts. In a round its place is
 * taken until the round is over, so the record goes then; at once otherwise, in
 * the order of ids. Those who wait for it are a list: others cost nothing. */
#include "server/server.h"

#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "server/cohorts.h"
#include "server/resting.h"

void fli_forget_mark(fli_participant *who)
{
  who->is_leaving = 1;
  fli_link_put(&who->home->registry.leaving, &who->leaving);
  who->home->registry.is_sweep_due = 1;
}

void fli_forget_ask(fli_participant *who)
{
  fli_member *member = fli_member_of(who);
  fli_forget_mark(who);
  /* Without memory for the answer it asks again. */
  if (who->peer) (void)fli_peer_dismiss(who->peer, FL_REJECT_FORGOTTEN, "");
  fli_registry_end_grace(who);
  if (member) fli_member_lose(who->job, member, FL_REJECT_FORGOTTEN, 1);
  fli_visits_lose(who);
  fli_journal_note(who->home->server);
}

void fli_forget_cancel(fli_participant *who)
{
  if (!who->is_leaving) return;
  fli_link_take(&who->leaving);
  who->is_leaving = 0;
  fli_journal_note(who->home->server);
}

static int may_go(const fli_participant *who)
{
  return who->member == FLI_NO_MEMBER && who->visit == FLI_NO_MEMBER;
}

/* Another job may know the same client. */
static void release_key(const fli_participant *who)
{
  const fl_server *server = who->home->server;
  const uint8_t *key = fli_participant_key(who);
  if (!key) return;
  for (size_t i = 0; i < server->n_jobs; i++) {
    const uint8_t *other = server->jobs[i] == who->home
                               ? NULL
                               : fli_registry_key(server->jobs[i], who->id);
    if (other && memcmp(other, key, FLI_NAME_BYTES) == 0) return;
  }
  fli_enrol_release(who->home->server, key);
}

static void forget(fli_participant *who)
{
  fli_job *home = who->home;
  fl_server *server = home->server;
  /* While what it reported is not decided on, it stays. */
  if (home->cohorts &&
      fl_cohort_set_leave(home->cohorts->set, who->slot) == FL_E_STATE) {
    fli_clear_error();
    return;
  }
  fl_server_event event = fli_event_of(home, FL_SERVER_CLIENT_LEFT);
  event.reason = FL_REJECT_FORGOTTEN;
  fli_events_add(&server->events, &event, who->id, "left, and is forgotten");
  release_key(who);
  fli_registry_remove(who);
  fli_journal_note(server);
}

static int compare_ids(const void *a, const void *b)
{
  const fli_participant *const *left = a;
  const fli_participant *const *right = b;
  return strcmp((*left)->id, (*right)->id);
}

/* How many of them may go; those, unless `out` is NULL. */
static size_t collect(const fli_registry *registry, fli_participant **out)
{
  size_t n = 0;
  for (fli_link *link = registry->leaving; link; link = link->next) {
    fli_participant *who = FLI_PARTICIPANT_OF(link, leaving);
    if (!may_go(who)) continue;
    if (out) out[n] = who;
    n++;
  }
  return n;
}

void fli_forget_sweep(fli_job *home)
{
  fli_registry *registry = &home->registry;
  if (!registry->is_sweep_due) return;
  registry->is_sweep_due = 0;
  const size_t n = collect(registry, NULL);
  if (n == 0) return;
  fli_participant **going = fli_alloc(home->context, n, sizeof *going);
  if (!going) { /* later */
    registry->is_sweep_due = 1;
    return;
  }
  (void)collect(registry, going);
  qsort(going, n, sizeof *going, compare_ids);
  for (size_t i = 0; i < n; i++)
    forget(going[i]);
  fli_free(home->context, going, n * sizeof *going);
}

fl_status fl_server_forget(fl_server *server, uint32_t job,
                           const char *client_id)
{
  fli_clear_error();
  if (!server || !client_id)
    return fli_error(FL_E_ARGUMENT, "fl_server_forget: NULL argument");
  if (job >= server->n_jobs)
    return fli_error(FL_E_NOT_FOUND, "job: got %u, want < %zu", job,
                     server->n_jobs);
  fl_status st = fli_enrol_check_id(client_id);
  if (st != FL_OK) return st;
  fli_participant *who = NULL;
  st = fli_registry_call(server->jobs[job], client_id, &who);
  if (st != FL_OK) return st;
  if (!who)
    return fli_error(FL_E_NOT_FOUND,
                     "client id: got \"%s\", which is not known", client_id);
  fli_forget_ask(who);
  fli_job_advance(server->jobs[job]);
  return FL_OK;
}
