/* SPDX-License-Identifier: Apache-2.0 */
/* Saved error feedback, behind the two bytes that choose compressor and scale
 * (sums.h) and one that says how the round ends. What is accepted is finite,
 * comes back from being saved again, and goes through the rest of a round and
 * the next one without ever holding a value that is not finite; what is refused
 * says why. */
#include "sums.h"

#include "compress/feedback.h"
#include "wire/container.h"

enum { ENDINGS = 3, COUNTED = 0, LOST = 1, WITHDRAWN = 2, ID_AT = 3 };

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

static fl_status restore(const sums_round *s, const fli_bytes *saved,
                         fl_feedback **out)
{
  source from = {saved->data, saved->size};
  fl_reader reader = {take, &from};
  fl_status st = fl_feedback_restore(out, s->r.compressor, NULL, &reader);
  sums_has_text(st);
  return st;
}

static void save(const fl_feedback *feedback, fli_bytes *out)
{
  fl_writer writer = {append, out};
  fli_bytes_clear(out);
  cf_must(fl_feedback_save(feedback, &writer));
}

static void is_finite(const sums_round *s, const fl_feedback *feedback)
{
  static float memory[SUMS_DIM_MAX];
  cf_must(fl_feedback_copy_memory(feedback, memory, s->r.n));
  for (uint64_t i = 0; i < s->r.n; i++)
    FUZZ_CHECK(isfinite(memory[i]));
}

/* Saving is the same before and after. */
static void comes_back(const sums_round *s, const fl_feedback *feedback)
{
  fl_feedback *copy = NULL;
  fli_bytes once, twice;
  fli_bytes_init(&once, NULL);
  fli_bytes_init(&twice, NULL);
  save(feedback, &once);
  cf_must(restore(s, &once, &copy));
  save(copy, &twice);
  FUZZ_CHECK(once.size == twice.size);
  FUZZ_CHECK(memcmp(once.data, twice.data, once.size) == 0);
  fl_feedback_free(copy);
  fli_bytes_free(&once);
  fli_bytes_free(&twice);
}

static void end_round(sums_round *s, fl_feedback *feedback, uint32_t ending,
                      const float *x)
{
  static uint8_t buffer[4 * SUMS_DIM_MAX + 128];
  fl_status st = FL_OK;
  if (fl_feedback_phase(feedback) == FL_FEEDBACK_IDLE) return;
  cf_must(fl_feedback_copy_norms(feedback, s->r.norms, s->r.scale.n_norms));
  s->r.scale.weight_cap = feedback->cap;
  s->r.scale.is_public = 0;
  st = fl_feedback_encode(feedback, &s->r.scale, NULL, buffer, sizeof buffer,
                          NULL, NULL);
  sums_has_text(st);
  FUZZ_CHECK((st == FL_OK) == (feedback->cap <= FLI_WEIGHT_MAX));
  is_finite(s, feedback);
  st = ending == WITHDRAWN
           ? fl_feedback_withdraw(feedback, x, s->r.n)
           : fl_feedback_settle(feedback, ending == COUNTED, NULL, 0);
  sums_has_text(st);
  FUZZ_CHECK(st != FL_OK || fl_feedback_phase(feedback) == FL_FEEDBACK_IDLE);
  is_finite(s, feedback);
}

/* An update that cannot be used leaves the memory alone. */
static void next_round(sums_round *s, fl_feedback *feedback, const float *x)
{
  static float before[SUMS_DIM_MAX], after[SUMS_DIM_MAX];
  if (fl_feedback_phase(feedback) != FL_FEEDBACK_IDLE) return;
  s->r.scale.weight_cap = 100;
  cf_must(fl_feedback_copy_memory(feedback, before, s->r.n));
  fl_status st = fl_feedback_measure(feedback, &s->r.scale, 10, x, s->r.n,
                                     s->r.norms, s->r.scale.n_norms);
  sums_has_text(st);
  cf_must(fl_feedback_copy_memory(feedback, after, s->r.n));
  if (st == FL_OK) {
    end_round(s, feedback, COUNTED, x);
    comes_back(s, feedback);
  } else {
    FUZZ_CHECK(st == FL_E_RANGE || st == FL_E_NOT_FINITE);
    FUZZ_CHECK(memcmp(before, after, (size_t)s->r.n * 4) == 0);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  sums_round s;
  fl_feedback *feedback = NULL;
  fli_bytes payload, saved;
  sums_input input = {data, data + n};
  sums_open(&s, &input);
  uint32_t ending = sums_take(&input, 1) % ENDINGS;
  fli_bytes_init(&payload, NULL);
  fli_bytes_init(&saved, NULL);
  cf_must(fli_bytes_append(&payload, input.at, (size_t)(input.end - input.at)));
  for (size_t i = 0; s.is_mended && i < 8 && ID_AT + i < payload.size; i++)
    payload.data[ID_AT + i] = (uint8_t)(s.r.compressor->id >> (56 - 8 * i));
  fl_writer writer = {append, &saved};
  cf_must(fli_container_write(&writer, FLI_STATE_FEEDBACK, 1, &payload));
  if (restore(&s, &saved, &feedback) == FL_OK) {
    float *x = cf_normal(s.r.n, 1);
    is_finite(&s, feedback);
    comes_back(&s, feedback);
    end_round(&s, feedback, ending, x);
    next_round(&s, feedback, x);
    free(x);
  }
  FUZZ_CHECK(feedback != NULL || fl_last_error()[0] != '\0');
  fl_feedback_free(feedback);
  fli_bytes_free(&payload);
  fli_bytes_free(&saved);
  sums_close(&s);
  return 0;
}
