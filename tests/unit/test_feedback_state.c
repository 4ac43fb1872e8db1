/* SPDX-License-Identifier: Apache-2.0 */
/* Saved error feedback: goes on from every phase to the last bit, and believes
 * nothing. */
#include <criterion/criterion.h>

#include <math.h>

#include "compress/feedback.h"
#include "feedback_fixture.h"

static fl_status restore(const world *w, const uint8_t *data, size_t n,
                         fl_feedback **out)
{
  fl_buffer *buffer = NULL;
  fl_reader reader;
  cf_must(fl_buffer_new(&buffer, NULL));
  if (n > 0) cf_must(fl_buffer_append(buffer, data, n));
  cf_must(fl_buffer_as_reader(buffer, &reader));
  fl_status st = fl_feedback_restore(out, w->r.compressor, NULL, &reader);
  fl_buffer_free(buffer);
  return st;
}

static cf_bytes save(const fl_feedback *feedback)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  const uint8_t *data;
  cf_bytes bytes;
  cf_must(fl_buffer_new(&buffer, NULL));
  cf_must(fl_buffer_as_writer(buffer, &writer));
  cf_must(fl_feedback_save(feedback, &writer));
  cf_must(fl_buffer_get(buffer, &data, &bytes.size));
  bytes.data = cf_get(bytes.size);
  memcpy(bytes.data, data, bytes.size);
  fl_buffer_free(buffer);
  return bytes;
}

static void reload(world *w)
{
  fl_feedback *other = NULL;
  cf_bytes state = save(w->feedback);
  cf_must(restore(w, state.data, state.size, &other));
  cf_bytes again = save(other);
  cr_expect(cf_equal(state, again));
  fl_feedback_free(w->feedback);
  w->feedback = other;
  free(state.data);
  free(again.data);
}

/* Two rounds, saved and restored after step `at` (0: nowhere). */
static cf_bytes play(uint32_t kind, int at)
{
  world w;
  cf_bytes all = {NULL, DIM * sizeof(float)};
  int step = 0;
  open_world(&w, kind);
  w.samples = 3;
  w.r.scale.weight_cap = 5;
  for (int round = 0; round < 2; round++) {
    if (++step == at) reload(&w);
    cf_must(measure(&w));
    if (++step == at) reload(&w);
    memset(w.r.norms, 0, (size_t)w.r.scale.n_norms * sizeof(float));
    cf_must(fl_feedback_copy_norms(w.feedback, w.r.norms, w.r.scale.n_norms));
    cf_must(encode(&w));
    if (++step == at) reload(&w);
    cf_must(settle(&w, 1));
  }
  all.data = cf_get(all.size + w.size);
  memcpy(all.data, memory(&w), all.size);
  memcpy(all.data + all.size, w.bytes, w.size);
  all.size += w.size;
  close_world(&w);
  return all;
}

Test(feedback_state, goes_on_from_a_saved_state_in_every_phase)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    cf_bytes want = play(kind, 0);
    for (int at = 1; at <= 6; at++) {
      cf_bytes got = play(kind, at);
      cr_expect(cf_equal(want, got), "kind %u, step %d", kind, at);
      free(got.data);
    }
    free(want.data);
  }
}

Test(feedback_state, cut_anywhere_is_refused)
{
  world w;
  fl_feedback *other = NULL;
  open_world(&w, 3);
  cf_must(measure(&w));
  cf_must(encode(&w));
  cf_bytes state = save(w.feedback);
  for (size_t n = 0; n < state.size;
       n += n < 200 || n + 64 > state.size ? 1 : 997)
    cr_assert_eq(restore(&w, state.data, n, &other), FL_E_TRUNCATED, "%zu", n);
  state.data[state.size / 2] ^= 1;
  cr_expect_eq(restore(&w, state.data, state.size, &other), FL_E_FORMAT);
  free(state.data);
  close_world(&w);
}

Test(feedback_state, of_another_compressor_is_refused)
{
  world a, b;
  fl_feedback *other = NULL;
  open_world(&a, 2);
  open_world(&b, 3);
  cf_bytes state = save(a.feedback);
  cr_expect_eq(restore(&b, state.data, state.size, &other), FL_E_SCHEMA);
  free(state.data);
  close_world(&a);
  close_world(&b);
}

/* States that a hash does not protect: written on purpose. */
static fl_status read_back(world *w, void (*harm)(fl_feedback *feedback))
{
  fl_feedback *other = NULL;
  fli_bytes bytes;
  fli_bytes_init(&bytes, NULL);
  cf_must(measure(w));
  harm(w->feedback);
  cf_must(fli_feedback_write(w->feedback, &bytes));
  cf_must(fli_feedback_make(&other, w->r.compressor, 0.5f));
  fl_status st = fli_feedback_read(other, bytes.data, bytes.size);
  for (size_t n = 0; n < 40; n++)
    cr_expect_neq(fli_feedback_read(other, bytes.data, n), FL_OK);
  fl_feedback_free(other);
  fli_bytes_free(&bytes);
  cf_must(fl_feedback_reset(w->feedback));
  return st;
}

static void harm_nothing(fl_feedback *feedback)
{
  (void)feedback;
}

static void harm_held(fl_feedback *feedback)
{
  feedback->held[DIM - 1] = NAN;
}

static void harm_other(fl_feedback *feedback)
{
  feedback->other[0] = INFINITY;
}

static void harm_size(fl_feedback *feedback)
{
  feedback->held[0] = feedback->held[1] = 0x1.8p127f;
}

static void harm_phase(fl_feedback *feedback)
{
  feedback->phase = 3;
}

static void harm_samples(fl_feedback *feedback)
{
  feedback->samples = 0;
}

Test(feedback_state, hostile_values_are_refused)
{
  world w;
  open_world(&w, 3);
  cr_expect_eq(read_back(&w, harm_nothing), FL_OK);
  cr_expect_eq(read_back(&w, harm_held), FL_E_NOT_FINITE);
  cr_expect_eq(read_back(&w, harm_size), FL_E_RANGE);
  cr_expect_eq(read_back(&w, harm_phase), FL_E_RANGE);
  cr_expect_eq(read_back(&w, harm_samples), FL_E_FORMAT);
  cr_expect_eq(read_back(&w, harm_other), FL_E_NOT_FINITE);
  close_world(&w);
}
