/* SPDX-License-Identifier: Apache-2.0 */
/* A federation has far more clients than are there at any moment, and a server
 * knows every one that ever came. Of those that are away it keeps, in one
 * block: its size, 32 bits of the id's hash, what there is of a standing, the
 * key's name (16 bytes), when its allowances are whole (16 bytes; of few), the
 * fields below as LEB128, the id. That is about 30 bytes without a key, with 8
 * to 16 in the table. Token and hash are derived from the id again. Blocks are
 * even, so an odd pointer is one of these. */
#include "server/resting.h"

#include <assert.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"

enum { HEAD = 6, MAX_VARINT = 10, WHOLE_BYTES = 16 };
enum { HAS_KEY = 1, IS_METERED = 2 };

typedef struct resting_field {
  size_t offset;
  int is_wide; /* uint64_t, else uint32_t */
} resting_field;

#define WIDE(name)                     \
  {                                    \
    offsetof(fli_participant, name), 1 \
  }
#define NARROW(name)                   \
  {                                    \
    offsetof(fli_participant, name), 0 \
  }

/* What outlives an absence. */
static const resting_field fields[] = {
    WIDE(samples),           WIDE(capabilities),
    NARROW(depth),           WIDE(counted_round),
    NARROW(counted_attempt), WIDE(before_round),
    NARROW(before_attempt),  NARROW(slot),
};

enum {
  N_FIELDS = sizeof fields / sizeof fields[0],
  MAX_BLOCK =
      HEAD + FLI_NAME_BYTES + WHOLE_BYTES + N_FIELDS * MAX_VARINT + FLI_ID_BYTES
};

static uint8_t *block_of(const fli_participant *resting)
{
  assert(fli_is_resting(resting));
  return (uint8_t *)((uintptr_t)resting - 1);
}

static uint64_t value_of(const fli_participant *who, const resting_field *field)
{
  const char *at = (const char *)who + field->offset;
  uint64_t wide = 0;
  uint32_t narrow = 0;
  if (!field->is_wide) {
    memcpy(&narrow, at, sizeof narrow);
    return narrow;
  }
  memcpy(&wide, at, sizeof wide);
  return wide;
}

static void set_value(fli_participant *who, const resting_field *field,
                      uint64_t value)
{
  char *at = (char *)who + field->offset;
  const uint32_t narrow = (uint32_t)value;
  if (field->is_wide) {
    memcpy(at, &value, sizeof value);
  } else {
    memcpy(at, &narrow, sizeof narrow);
  }
}

static size_t put(uint8_t *at, uint64_t value)
{
  size_t n = 0;
  for (; value > 127; value >>= 7)
    at[n++] = (uint8_t)(value | 128);
  at[n++] = (uint8_t)value;
  return n;
}

static const uint8_t *get(const uint8_t *at, uint64_t *value)
{
  uint32_t shift = 0;
  *value = 0;
  do {
    *value |= (uint64_t)(*at & 127) << shift;
    shift += 7;
  } while (*at++ > 127);
  return at;
}

/* What is whole again by now need not be said. */
static size_t put_standing(uint8_t local[MAX_BLOCK],
                           const fli_participant *participant)
{
  const fli_standing *standing = participant->standing;
  const uint64_t now = participant->home->server->now_ns;
  size_t n = HEAD;
  local[HEAD - 1] = 0;
  if (standing && standing->has_key) {
    local[HEAD - 1] |= HAS_KEY;
    memcpy(local + n, standing->key, FLI_NAME_BYTES);
    n += FLI_NAME_BYTES;
  }
  if (standing && (standing->messages_ns > now || standing->rejects_ns > now)) {
    local[HEAD - 1] |= IS_METERED;
    fli_store_u64(local + n, standing->messages_ns);
    fli_store_u64(local + n + 8, standing->rejects_ns);
    n += WHOLE_BYTES;
  }
  return n;
}

fli_participant *fli_resting_make(const fli_participant *participant)
{
  uint8_t local[MAX_BLOCK];
  const size_t id_size = strlen(participant->id) + 1;
  size_t n = put_standing(local, participant);
  for (size_t i = 0; i < N_FIELDS; i++)
    n += put(local + n, value_of(participant, &fields[i]));
  memcpy(local + n, participant->id, id_size);
  n += id_size;
  local[0] = (uint8_t)n;
  fli_store_u32(local + 1, (uint32_t)participant->hash);
  uint8_t *block = fli_alloc(participant->home->context, n, 1);
  if (!block) return NULL;
  memcpy(block, local, n);
  return (fli_participant *)((uintptr_t)block + 1);
}

void fli_resting_free(fl_context *context, fli_participant *resting)
{
  uint8_t *block = block_of(resting);
  fli_free(context, block, block[0]);
}

/* Of when the allowances are whole, or what comes behind. */
static uint8_t *behind_key(const fli_participant *resting)
{
  uint8_t *at = block_of(resting) + HEAD;
  return at[-1] & HAS_KEY ? at + FLI_NAME_BYTES : at;
}

static int is_metered(const fli_participant *resting)
{
  return block_of(resting)[HEAD - 1] & IS_METERED;
}

static const uint8_t *read_fields(const fli_participant *resting,
                                  fli_participant *out)
{
  const uint8_t *at = behind_key(resting);
  if (is_metered(resting)) at += WHOLE_BYTES;
  for (size_t i = 0; i < N_FIELDS; i++) {
    uint64_t value;
    at = get(at, &value);
    if (out) set_value(out, &fields[i], value);
  }
  return at;
}

const char *fli_resting_id(const fli_participant *resting)
{
  return (const char *)read_fields(resting, NULL);
}

const uint8_t *fli_participant_key(const fli_participant *who)
{
  if (!fli_is_resting(who))
    return who->standing && who->standing->has_key ? who->standing->key : NULL;
  const uint8_t *at = block_of(who) + HEAD;
  return at[-1] & HAS_KEY ? at : NULL;
}

int fli_participant_standing(const fli_participant *who, fli_standing *out)
{
  memset(out, 0, sizeof *out);
  if (!fli_is_resting(who)) {
    if (who->standing) *out = *who->standing;
    return who->standing != NULL;
  }
  const uint8_t *key = fli_participant_key(who);
  if (key) memcpy(out->key, key, FLI_NAME_BYTES);
  out->has_key = key != NULL;
  if (is_metered(who)) {
    out->messages_ns = fli_load_u64(behind_key(who));
    out->rejects_ns = fli_load_u64(behind_key(who) + 8);
  }
  return key || is_metered(who);
}

void fli_resting_rebase(fli_participant *resting, uint64_t delta_ns)
{
  uint8_t *at = behind_key(resting);
  if (!is_metered(resting)) return;
  fli_store_u64(at, fli_later(fli_load_u64(at), delta_ns));
  fli_store_u64(at + 8, fli_later(fli_load_u64(at + 8), delta_ns));
}

uint32_t fli_resting_hash(const fli_participant *resting)
{
  return fli_load_u32(block_of(resting) + 1);
}

void fli_resting_read(const fli_participant *resting, fli_participant *out)
{
  const char *id = (const char *)read_fields(resting, out);
  memcpy(out->id, id, strlen(id) + 1);
}
