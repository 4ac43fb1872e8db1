/* SPDX-License-Identifier: Apache-2.0 */
/* Participants at rest: gone, and part of nothing. All that is kept of one is
 * a few bytes (resting.c); in tables and lists of participants it is a pointer
 * that must not be followed, which fli_is_resting tells. */
#ifndef FLI_SERVER_RESTING_H
#define FLI_SERVER_RESTING_H

#include <stdint.h>

#include "server/server.h"

static inline int fli_is_resting(const fli_participant *participant)
{
  return ((uintptr_t)participant & 1u) != 0;
}

/* The bytes that stand for a participant, to be put in its place; NULL without
 * memory. */
fli_participant *fli_resting_make(const fli_participant *participant);
void fli_resting_free(fl_context *context, fli_participant *resting);
const char *fli_resting_id(const fli_participant *resting);
/* Of one at rest or awake: the name of its key (FLI_NAME_BYTES), NULL = it has
 * none. */
const uint8_t *fli_participant_key(const fli_participant *who);
/* The same of all of its standing; 0 = it has none. */
int fli_participant_standing(const fli_participant *who, fli_standing *out);
/* The clock jumped by `delta_ns`. */
void fli_resting_rebase(fli_participant *resting, uint64_t delta_ns);
/* The low 32 bits of the id's hash. */
uint32_t fli_resting_hash(const fli_participant *resting);
/* Id and all that was kept; the rest of `out` stays. */
void fli_resting_read(const fli_participant *resting, fli_participant *out);

#endif
