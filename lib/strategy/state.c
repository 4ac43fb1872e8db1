/* SPDX-License-Identifier: Apache-2.0 */
/* What steps have left, as one msgpack map {1: rule, 2: optimiser, 3: n,
 * 4: steps, 5: bits of the clip, 6: bits of the gate's loss, 7: m, 8: v,
 * 9: c}; vectors that a strategy does not have are not there. */
#include <math.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "strategy/strategy.h"
#include "wire/container.h"
#include "wire/reader.h"

enum {
  KEY_RULE = 1,
  KEY_OPTIMISER,
  KEY_N,
  KEY_STEPS,
  KEY_CLIP,
  KEY_GATE,
  KEY_MOMENTUM,
  KEY_SECOND,
  KEY_CONTROL,
  KEYS_ALWAYS = KEY_GATE
};

fl_status fli_strategy_write(const fl_strategy *s, fli_bytes *out)
{
  const size_t n = (size_t)s->n;
  fli_msg_writer writer;
  if (s->n >= UINT32_MAX / sizeof(float))
    return fli_error(FL_E_TOO_LARGE, "strategy: state of 2^30 weights or more");
  fli_writer_init(&writer, out);
  fli_writer_map(&writer, KEYS_ALWAYS + (s->momentum ? 1u : 0u) +
                              (s->second ? 1u : 0u) + (s->control ? 1u : 0u));
  fli_field_u64(&writer, KEY_RULE, s->options.rule);
  fli_field_u64(&writer, KEY_OPTIMISER, s->options.optimiser);
  fli_field_u64(&writer, KEY_N, s->n);
  fli_field_u64(&writer, KEY_STEPS, s->steps);
  fli_field_u64(&writer, KEY_CLIP, fli_f64_bits(s->clip));
  fli_field_u64(&writer, KEY_GATE, fli_f64_bits(s->gate_loss));
  if (s->momentum) fli_field_floats(&writer, KEY_MOMENTUM, s->momentum, n);
  if (s->second) fli_field_floats(&writer, KEY_SECOND, s->second, n);
  if (s->control) fli_field_floats(&writer, KEY_CONTROL, s->control, n);
  return fli_writer_status(&writer);
}

/* What was read, before anything of it counts. */
typedef struct saved {
  uint64_t rule, optimiser, n, steps;
  double clip, gate_loss;
  float *vectors[3];
} saved;

static void read_vector(const fl_strategy *s, fli_msg_reader *reader,
                        saved *state, uint32_t which)
{
  const size_t n = (size_t)s->n;
  const int is_wanted = which == 0   ? s->momentum != NULL
                        : which == 1 ? s->second != NULL
                                     : s->control != NULL;
  if (!is_wanted) {
    fli_reader_fail(reader, FL_E_SCHEMA, "strategy: a vector too many");
    return;
  }
  float *values = fli_alloc(s->context, n, sizeof *values);
  if (!values) {
    fli_reader_fail(reader, FL_E_NOMEM, "strategy: no memory for its state");
    return;
  }
  state->vectors[which] = values;
  fli_reader_floats(reader, values, n, "strategy: state");
}

static void read_fields(const fl_strategy *s, fli_msg_reader *reader,
                        saved *state)
{
  uint32_t key = 0;
  for (fli_fields f = fli_fields_begin(reader); fli_fields_next(&f, &key);) {
    switch (key) {
    case KEY_RULE: state->rule = fli_reader_u64(reader); break;
    case KEY_OPTIMISER: state->optimiser = fli_reader_u64(reader); break;
    case KEY_N: state->n = fli_reader_u64(reader); break;
    case KEY_STEPS: state->steps = fli_reader_u64(reader); break;
    case KEY_CLIP:
      state->clip = fli_f64_from_bits(fli_reader_u64(reader));
      break;
    case KEY_GATE:
      state->gate_loss = fli_f64_from_bits(fli_reader_u64(reader));
      break;
    case KEY_MOMENTUM:
    case KEY_SECOND:
    case KEY_CONTROL: read_vector(s, reader, state, key - KEY_MOMENTUM); break;
    default: fli_fields_unknown(&f);
    }
  }
}

static fl_status check_vector(const fl_strategy *s, const float *own,
                              const float *got, int is_square)
{
  if (!own) return FL_OK;
  if (!got) return fli_error(FL_E_FORMAT, "strategy: a vector is missing");
  for (uint64_t i = 0; is_square && i < s->n; i++) {
    if (got[i] < 0.0f)
      return fli_error(FL_E_FORMAT, "strategy: a second moment below 0");
  }
  return fli_expect_finite(got, s->n, "a saved vector");
}

static fl_status check_saved(const fl_strategy *s, const saved *state)
{
  const int has_clip = s->clip > 0.0;
  fl_status st = FL_OK;
  if (state->rule != s->options.rule ||
      state->optimiser != s->options.optimiser)
    return fli_error(FL_E_SCHEMA,
                     "strategy: state of rule %llu, optimiser %llu, want %u, "
                     "%u",
                     (unsigned long long)state->rule,
                     (unsigned long long)state->optimiser, s->options.rule,
                     s->options.optimiser);
  if (state->n != s->n)
    return fli_error(FL_E_DIM, "strategy: state of %llu weights, want %llu",
                     (unsigned long long)state->n, (unsigned long long)s->n);
  if (has_clip ? !(state->clip > 0.0 && state->clip <= 1e30)
               : fli_f64_bits(state->clip) != 0)
    return fli_error(FL_E_FORMAT, "strategy: a clip of %g", state->clip);
  FLI_TRY(check_vector(s, s->momentum, state->vectors[0], 0));
  FLI_TRY(check_vector(s, s->second, state->vectors[1], 1));
  FLI_TRY(check_vector(s, s->control, state->vectors[2], 0));
out:
  return st;
}

fl_status fli_strategy_read(fl_strategy *s, const uint8_t *data, size_t size)
{
  fl_status st = FL_OK;
  fli_msg_reader reader;
  saved state = {0};
  float **own[3] = {&s->momentum, &s->second, &s->control};
  fli_reader_init(&reader, data, size);
  read_fields(s, &reader, &state);
  FLI_TRY(fli_reader_finish(&reader));
  FLI_TRY(check_saved(s, &state));
  for (size_t i = 0; i < FLI_COUNT_OF(own); i++) {
    float *was = *own[i];
    *own[i] = state.vectors[i];
    state.vectors[i] = was;
  }
  s->steps = state.steps;
  s->clip = state.clip;
  s->gate_loss = isfinite(state.gate_loss) ? state.gate_loss : (double)NAN;
out:
  for (size_t i = 0; i < FLI_COUNT_OF(own); i++)
    fli_free(s->context, state.vectors[i], (size_t)s->n * sizeof(float));
  return st;
}

fl_status fl_strategy_save(const fl_strategy *s, const fl_writer *writer)
{
  fl_status st = FL_OK;
  fli_bytes payload;
  fli_clear_error();
  if (!s || !writer || !writer->write)
    return fli_error(FL_E_ARGUMENT, "strategy: got NULL");
  fli_bytes_init(&payload, s->context);
  FLI_TRY(fli_strategy_write(s, &payload));
  FLI_TRY(fli_container_write(writer, FLI_STATE_STRATEGY,
                              FLI_STRATEGY_STATE_VERSION, &payload));
out:
  fli_bytes_free(&payload);
  return st;
}

fl_status fl_strategy_load(fl_strategy *s, const fl_reader *reader)
{
  fl_status st = FL_OK;
  fli_bytes payload;
  uint32_t version = 0;
  fli_clear_error();
  if (!s || !reader || !reader->read)
    return fli_error(FL_E_ARGUMENT, "strategy: got NULL");
  fli_bytes_init(&payload, s->context);
  FLI_TRY(fli_container_read(
      reader, FLI_STATE_STRATEGY, FLI_STRATEGY_STATE_VERSION,
      256 + 3 * (uint64_t)sizeof(float) * s->n, &version, &payload));
  FLI_TRY(fli_strategy_read(s, payload.data, payload.size));
out:
  fli_bytes_free(&payload);
  return st;
}
