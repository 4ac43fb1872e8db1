/* SPDX-License-Identifier: Apache-2.0 */
/* A saved controller. The first byte chooses the criterion, the rest are the
 * state's payload; the hash of the options is put in where it belongs, and the
 * container around it, so that the parser behind both is reached. What is
 * accepted comes back when saved again and goes on for 40 steps or rounds
 * without a value that is not finite, or a frozen head; what is refused says
 * why and changes nothing. */
#include "freeze_job.h"

#include "freeze/freeze.h"
#include "wire/container.h"

static fl_status append(void *user, const void *buf, size_t n)
{
  return fli_bytes_append(user, buf, n);
}

typedef struct source {
  const uint8_t *at;
  size_t left;
} source;

static fl_status take(void *user, void *buf, size_t n, size_t *got)
{
  source *s = user;
  *got = n < s->left ? n : s->left;
  if (*got > 0) memcpy(buf, s->at, *got);
  s->at += *got;
  s->left -= *got;
  return FL_OK;
}

static fl_status load(fl_freeze *freeze, const fli_bytes *saved)
{
  source from = {saved->data, saved->size};
  const fl_reader reader = {take, &from};
  return fl_freeze_load(freeze, &reader);
}

static void save(const fl_freeze *freeze, fli_bytes *out)
{
  const fl_writer writer = {append, out};
  fli_bytes_clear(out);
  FUZZ_CHECK(fl_freeze_save(freeze, &writer) == FL_OK);
}

static int is_equal(const fli_bytes *a, const fli_bytes *b)
{
  return a->size == b->size && memcmp(a->data, b->data, a->size) == 0;
}

static void is_good(fl_freeze *freeze)
{
  fl_freeze_event event;
  const fli_freeze_state *state = &freeze->state;
  FUZZ_CHECK(state->decided <= freeze->options.max_frozen);
  FUZZ_CHECK(state->first_active <= state->decided);
  for (uint32_t i = 0; i < JOB_MODULES; i++) {
    FUZZ_CHECK(state->frozen[i] <= 1);
    FUZZ_CHECK(i < freeze->options.max_frozen || state->frozen[i] == 0);
  }
  FUZZ_CHECK(fl_freeze_event_init(&event, sizeof event) == FL_OK);
  while (fl_freeze_poll(freeze, &event) == FL_OK)
    continue;
}

/* Saving is the same before and after. */
static void comes_back(const fl_freeze *freeze, uint8_t choice)
{
  fl_freeze *copy = job_make(choice);
  fli_bytes once, twice;
  fli_bytes_init(&once, NULL);
  fli_bytes_init(&twice, NULL);
  save(freeze, &once);
  FUZZ_CHECK(load(copy, &once) == FL_OK);
  save(copy, &twice);
  FUZZ_CHECK(is_equal(&once, &twice));
  fli_bytes_free(&once);
  fli_bytes_free(&twice);
  fl_freeze_free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  fli_bytes payload, saved, before, after;
  if (n < 1) return 0;
  fl_freeze *freeze = job_make(data[0]);
  fli_bytes_init(&payload, NULL);
  fli_bytes_init(&saved, NULL);
  fli_bytes_init(&before, NULL);
  fli_bytes_init(&after, NULL);
  FUZZ_CHECK(fli_bytes_append(&payload, data + 1, n - 1) == FL_OK);
  if (payload.size >= JOB_HASH_AT + sizeof freeze->options_hash)
    memcpy(payload.data + JOB_HASH_AT, freeze->options_hash,
           sizeof freeze->options_hash);
  const fl_writer writer = {append, &saved};
  FUZZ_CHECK(fli_container_write(&writer, FLI_STATE_FREEZE,
                                 FLI_FREEZE_STATE_VERSION, &payload) == FL_OK);
  save(freeze, &before);
  if (load(freeze, &saved) == FL_OK) {
    is_good(freeze);
    comes_back(freeze, data[0]);
    for (int i = 0; i < 40; i++) {
      job_step(freeze);
      is_good(freeze);
    }
    comes_back(freeze, data[0]);
  } else {
    FUZZ_CHECK(fl_last_error()[0] != '\0');
    save(freeze, &after);
    FUZZ_CHECK(is_equal(&before, &after));
  }
  fl_freeze_free(freeze);
  fli_bytes_free(&payload);
  fli_bytes_free(&saved);
  fli_bytes_free(&before);
  fli_bytes_free(&after);
  return 0;
}
