/* SPDX-License-Identifier: Apache-2.0 */
/* The list of keys that may take part. A key has one client id, given with it
 * or the first that it came with: so one key is one client, whatever it says.
 */
#include "server/server.h"

#include <string.h>

#include "base/error.h"
#include "server/resting.h"

uint32_t fli_enrol_check(const fl_server *server,
                         const uint8_t key[FLI_NAME_BYTES], const char *id)
{
  uint8_t owner[FLI_NAME_BYTES];
  if (server->options.enrolment != FL_ENROL_LISTED) return FL_REJECT_NONE;
  const fli_mark *mark = fli_marks_find(&server->trust.allowed, key);
  if (!mark) return FL_REJECT_NOT_ENROLLED;
  if (!mark->has_owner) return FL_REJECT_NONE;
  fli_name_of(owner, server, FLI_NAME_OF_ID, id, strlen(id));
  return memcmp(owner, mark->owner, sizeof owner) == 0 ? FL_REJECT_NONE
                                                       : FL_REJECT_KEY;
}

void fli_enrol_take(fl_server *server, const uint8_t key[FLI_NAME_BYTES],
                    const char *id)
{
  fli_mark *mark = fli_marks_find(&server->trust.allowed, key);
  if (!mark || mark->has_owner) return;
  fli_name_of(mark->owner, server, FLI_NAME_OF_ID, id, strlen(id));
  mark->has_owner = mark->is_taken = 1;
}

void fli_enrol_release(fl_server *server, const uint8_t key[FLI_NAME_BYTES])
{
  fli_mark *mark = fli_marks_find(&server->trust.allowed, key);
  if (!mark || !mark->is_taken) return;
  mark->has_owner = mark->is_taken = 0;
  memset(mark->owner, 0, sizeof mark->owner);
}

fl_status fli_enrol_check_id(const char *id)
{
  size_t n = 0;
  for (; id && id[n]; n++) {
    if (n + 1 >= FLI_ID_BYTES || id[n] < 0x20 || id[n] > 0x7e) break;
  }
  if (n == 0 || id[n] != '\0')
    return fli_error(FL_E_ARGUMENT,
                     "client id: want 1..%d printable ASCII characters",
                     FLI_ID_BYTES - 1);
  return FL_OK;
}

fl_status fl_server_allow(fl_server *server, const uint8_t *public_key,
                          const char *client_id)
{
  uint8_t name[FLI_NAME_BYTES];
  fl_status st = FL_OK;
  fli_clear_error();
  if (!server || !public_key)
    return fli_error(FL_E_ARGUMENT, "fl_server_allow: NULL argument");
  if (client_id) st = fli_enrol_check_id(client_id);
  if (st != FL_OK) return st;
  fli_name_of(name, server, FLI_NAME_OF_KEY, public_key, FLI_KEY_BYTES);
  fli_mark *mark = fli_marks_add(&server->trust.allowed, name);
  if (!mark) return fli_nomem(sizeof *mark);
  if (client_id) {
    fli_name_of(mark->owner, server, FLI_NAME_OF_ID, client_id,
                strlen(client_id));
    mark->has_owner = 1;
    mark->is_taken = 0;
  }
  fli_journal_step(server);
  return FL_OK;
}

static void turn_away(fli_job *job, const uint8_t key[FLI_NAME_BYTES])
{
  const fli_registry *registry = &job->registry;
  for (size_t i = 0; i < registry->capacity; i++) {
    fli_participant *who = registry->slots[i];
    if (!who || fli_is_resting(who)) continue;
    const uint8_t *own = fli_participant_key(who);
    if (!own || memcmp(own, key, FLI_NAME_BYTES) != 0) continue;
    fli_ban_turn_away(who, FL_REJECT_NOT_ENROLLED, "the key is not enrolled");
  }
}

fl_status fl_server_disallow(fl_server *server, const uint8_t *public_key)
{
  uint8_t name[FLI_NAME_BYTES];
  fli_clear_error();
  if (!server || !public_key)
    return fli_error(FL_E_ARGUMENT, "fl_server_disallow: NULL argument");
  fli_name_of(name, server, FLI_NAME_OF_KEY, public_key, FLI_KEY_BYTES);
  fli_mark *mark = fli_marks_find(&server->trust.allowed, name);
  if (!mark) return fli_error(FL_E_NOT_FOUND, "public key: is not on the list");
  fli_marks_remove(&server->trust.allowed, mark);
  fli_journal_step(server);
  if (server->options.enrolment != FL_ENROL_LISTED) return FL_OK;
  for (size_t i = 0; i < server->n_jobs; i++) {
    turn_away(server->jobs[i], name);
    fli_job_advance(server->jobs[i]);
  }
  return FL_OK;
}

uint32_t fl_server_allow_count(const fl_server *server)
{
  return server ? server->trust.allowed.count : 0;
}
