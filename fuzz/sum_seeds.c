/* SPDX-License-Identifier: Apache-2.0 */
/* Seeds of thc_decode, thc_aggregate, thc_merge and feedback: updates and sums
 * of every kind of sums.h, with every width of lanes, and one lie for each
 * check that a reader makes. */
#include "seeds.h"
#include "sums.h"

#include "base/compiler.h"
#include "compress/canonical.h"
#include "compress/feedback.h"

/* First byte of an input. */
enum { TWO = 0 << 4, ONE = 1 << 4, FOUR = 2 << 4, LONG = 3 << 4 };
/* Second byte. */
enum {
  SLOTS_5 = 0,
  SLOTS_16 = 1,
  SLOTS_20 = 2,
  SLOTS_300 = 3,
  CAP_1 = 1 << 2,
  CAP_100 = 2 << 2,
  CAP_MOST = 3 << 2,
  PUBLIC = 16,
  HUGE = 32
};
enum { F32, BF16, UNIFORM_4, DITHER_4, TABLE_4 = 7, UNIFORM_8 = 10 };
enum { UNIFORM_1 = 11, DITHER_8 = 12 };

/* An input that grows. */
typedef struct input {
  uint8_t bytes[16384];
  size_t n;
} input;

static void append(input *to, const void *data, size_t n)
{
  FUZZ_CHECK(n <= sizeof to->bytes - to->n);
  memcpy(to->bytes + to->n, data, n);
  to->n += n;
}

static void begin(input *to, uint32_t first, uint32_t second)
{
  const uint8_t config[2] = {(uint8_t)first, (uint8_t)second};
  to->n = 0;
  append(to, config, sizeof config);
}

static void open_round(sums_round *s, const input *from)
{
  sums_input read = {from->bytes, from->bytes + 2};
  sums_open(s, &read);
}

static cf_bytes encode(const sums_round *s, uint32_t slot, int is_masked)
{
  uint8_t mask[4] = {1, 1, 1, 1};
  float *x = cf_normal(s->r.n, 100 + slot);
  mask[slot % s->n_segments] = !is_masked;
  cf_bytes update =
      cf_encode_some(&s->r, slot, 10 + slot, mask, s->n_segments, x);
  free(x);
  return update;
}

/* The sum of `count` updates of a weight; the second leaves out a segment. */
static cf_bytes encode_sum(const sums_round *s, uint32_t count, uint32_t weight,
                           int is_masked)
{
  fl_partial *partial = cf_partial(&s->r);
  for (uint32_t slot = 0; slot < count; slot++) {
    cf_bytes update = encode(s, slot, is_masked && slot == 1);
    const uint8_t *data = update.data;
    cf_must(
        fl_partial_add_batch(partial, &data, &update.size, &weight, 1, NULL));
    free(update.data);
  }
  FUZZ_CHECK(fl_partial_count(partial) == count);
  cf_bytes sum = cf_sum(partial);
  fl_partial_free(partial);
  return sum;
}

static void put_message(const char *folder, const char *name, const char *kind,
                        const input *config, cf_bytes message)
{
  char full[64];
  input all = *config;
  snprintf(full, sizeof full, "%s%s%s", name, kind[0] ? "-" : "", kind);
  append(&all, message.data, message.size);
  seeds_put(folder, "thc_decode", full, all.bytes, all.n);
}

static void put_kind(const char *folder, uint32_t kind)
{
  static const struct {
    const char *name;
    uint32_t first;
    uint32_t second;
    uint32_t count; /* of the sum; 0: an update */
    int is_masked;
  } forms[] = {
      {"update", TWO, SLOTS_5 | CAP_100, 0, 0},
      {"update-masked", FOUR, SLOTS_20, 0, 1},
      {"sum", TWO, SLOTS_5 | CAP_100, 3, 0},
      {"sum-masked", FOUR | SUMS_ZERO_NORM, SLOTS_20 | CAP_MOST, 2, 1},
  };
  for (size_t i = 0; i < FLI_COUNT_OF(forms); i++) {
    input config;
    sums_round s;
    begin(&config, kind | forms[i].first | SUMS_MEND, forms[i].second);
    open_round(&s, &config);
    cf_bytes message =
        forms[i].count ? encode_sum(&s, forms[i].count, 1, forms[i].is_masked)
                       : encode(&s, 1, forms[i].is_masked);
    put_message(folder, forms[i].name, s.kind->name, &config, message);
    free(message.data);
    sums_close(&s);
  }
}

static void put_special(const char *folder)
{
  static const struct {
    const char *name;
    uint32_t first;
    uint32_t second;
    uint32_t count;
    uint32_t weight;
  } sums[] = {
      {"sum-empty", UNIFORM_4, SLOTS_5, 0, 1},
      {"sum-16-bit-lanes", UNIFORM_4 | ONE, SLOTS_16 | CAP_1, 2, 300},
      {"sum-32-bit-lanes", TABLE_4 | ONE, SLOTS_16 | CAP_MOST, 3, 65535},
      {"sum-most-weight", UNIFORM_8 | ONE, SLOTS_300, 64, 65535},
      {"sum-many-dithered", DITHER_4 | ONE, SLOTS_300, 290, 1},
      {"sum-many-dithered-8", DITHER_8 | ONE, SLOTS_300, 258, 1},
      {"sum-few-dithered", DITHER_4 | ONE, SLOTS_300, 18, 1},
      {"sum-all-slots", DITHER_4 | ONE, SLOTS_20, 20, 1},
      {"sum-public", DITHER_4 | TWO, SLOTS_5 | PUBLIC, 2, 1},
      {"sum-huge", DITHER_4 | TWO, SLOTS_5 | HUGE, 2, 1},
      {"sum-huge-weight", DITHER_4 | TWO, SLOTS_5 | HUGE | CAP_MOST, 2, 1},
      {"sum-huge-f32", F32 | TWO, SLOTS_5 | HUGE, 2, 1},
      {"sum-full-blocks", UNIFORM_4 | LONG, SLOTS_5, 2, 1},
      {"sum-full-dithered", DITHER_4 | LONG | SUMS_ZERO_NORM, SLOTS_5, 2, 1},
  };
  for (size_t i = 0; i < FLI_COUNT_OF(sums); i++) {
    input config;
    sums_round s;
    begin(&config, sums[i].first | SUMS_MEND, sums[i].second);
    open_round(&s, &config);
    cf_bytes sum = encode_sum(&s, sums[i].count, sums[i].weight, 0);
    put_message(folder, sums[i].name, "", &config, sum);
    free(sum.data);
    sums_close(&s);
  }
}

/* All values alike: turned back, one of them is as large as all together. */
static void put_too_large(const char *folder)
{
  input config;
  sums_round s;
  begin(&config, UNIFORM_4 | SUMS_MEND, SLOTS_5 | HUGE);
  open_round(&s, &config);
  cf_bytes update = sums_update(&s, 0, 1, 0xff, 0xff);
  put_message(folder, "update-leaves-float32", "", &config, update);
  free(update.data);
  sums_close(&s);
}

/* A message with some bytes changed, its end cut off or made longer. */
typedef struct lie {
  const char *name;
  size_t at;
  size_t n; /* bytes set, 0: none */
  uint8_t to;
  int longer;
} lie;

static const lie update_lies[] = {
    {"bad-magic", 0, 1, 'G', 0},        {"bad-version", 4, 1, 9, 0},
    {"bad-codec", 6, 1, 7, 0},          {"bad-mode", 7, 1, 3, 0},
    {"bad-bits", 8, 1, 5, 0},           {"bad-public", 9, 1, 1, 0},
    {"bad-granularity", 10, 1, 30, 0},  {"bad-slots", 12, 1, 9, 0},
    {"bad-segments", 16, 1, 9, 0},      {"bad-reserved", 20, 1, 1, 0},
    {"bad-round", 24, 1, 9, 0},         {"bad-compressor", 32, 8, 1, 0},
    {"bad-scale", 40, 8, 1, 0},         {"bad-payload", 48, 1, 1, 0},
    {"bad-slot", 56, 1, 5, 0},          {"bad-slot-reserved", 60, 1, 1, 0},
    {"bad-samples", 64, 8, 0, 0},       {"bad-mask", 72, 1, 2, 0},
    {"bad-mask-cut", 73, 1, 0, 0},      {"bad-mask-padding", 127, 1, 1, 0},
    {"bad-update-longer", 0, 0, 0, 1},  {"bad-update-cut", 0, 0, 0, -1},
    {"bad-header-cut", 0, 0, 0, -1000},
};

/* Two segments, 5 slots: tallies of 17 bytes at 64, 81, 98, lanes at 115. */
static const lie sum_lies[] = {
    {"bad-sum-tallies", 56, 1, 2, 0},
    {"bad-sum-reserved", 60, 1, 1, 0},
    {"bad-sum-count", 64, 1, 3, 0},
    {"bad-sum-bitmap", 80, 1, 7, 0},
    {"bad-sum-bitmap-padding", 80, 1, 0x22, 0},
    {"bad-sum-weight", 68, 2, 0xff, 0},
    {"bad-sum-no-weight", 68, 1, 0, 0},
    {"bad-sum-samples", 72, 1, 0, 0},
    {"bad-sum-samples-huge", 72, 8, 0xff, 0},
    {"bad-sum-part-samples", 89, 1, 0xff, 0},
    {"bad-sum-part-slot", 114, 1, 4, 0},
    {"bad-sum-part-count", 98, 1, 2, 0},
    {"bad-sum-lane", 115, 1, 0xff, 0},
    {"bad-sum-payload", 48, 1, 1, 0},
    {"bad-sum-cut", 0, 0, 0, -1},
    {"bad-sum-longer", 0, 0, 0, 1},
    {"bad-sum-tally-cut", 0, 0, 0, -700},
};

static void put_lie(const char *folder, const lie *l, const input *config,
                    cf_bytes message)
{
  uint8_t *copy = cf_get(message.size + 1);
  memcpy(copy, message.data, message.size);
  if (l->n) memset(copy + l->at, l->to, l->n);
  cf_bytes changed = {copy, message.size};
  if (l->longer > 0) changed.size++;
  if (l->longer < 0) {
    size_t cut = (size_t)-l->longer;
    changed.size -= cut < message.size - 30 ? cut : message.size - 30;
  }
  put_message(folder, l->name, "", config, changed);
  free(copy);
}

/* The same tally three times, where one says it all. */
static cf_bytes tallies_twice(cf_bytes sum)
{
  enum { AT = 64, TALLY = 17 };
  cf_bytes twice = {cf_get(sum.size + 2 * TALLY), sum.size + 2 * TALLY};
  memcpy(twice.data, sum.data, AT);
  twice.data[56] = 3;
  for (int i = 0; i < 3; i++)
    memcpy(twice.data + AT + i * TALLY, sum.data + AT, TALLY);
  memcpy(twice.data + AT + 3 * TALLY, sum.data + AT + TALLY,
         sum.size - AT - TALLY);
  return twice;
}

static void put_lies(const char *folder)
{
  input config;
  sums_round s;
  begin(&config, UNIFORM_4 | TWO, SLOTS_5 | CAP_100);
  open_round(&s, &config);
  cf_bytes update = encode(&s, 1, 0), sum = encode_sum(&s, 2, 1, 1);
  cf_bytes equal = encode_sum(&s, 2, 1, 0), twice = tallies_twice(equal);
  for (size_t i = 0; i < FLI_COUNT_OF(update_lies); i++)
    put_lie(folder, &update_lies[i], &config, update);
  for (size_t i = 0; i < FLI_COUNT_OF(sum_lies); i++)
    put_lie(folder, &sum_lies[i], &config, sum);
  put_message(folder, "bad-sum-tallies-twice", "", &config, twice);
  put_lie(folder, &(lie){"bad-sum-padding", 80, 1, 0x22, 0}, &config, equal);
  put_lie(folder, &(lie){"bad-sum-header-cut", 0, 0, 0, 0}, &config,
          (cf_bytes){sum.data, 60});
  free(update.data);
  free(sum.data);
  free(equal.data);
  free(twice.data);
  sums_close(&s);
  begin(&config, F32 | TWO, SLOTS_5);
  open_round(&s, &config);
  update = encode(&s, 1, 0);
  memset(update.data + update.size - 4, 0xff, 4);
  put_message(folder, "bad-value", "f32", &config, update);
  free(update.data);
  sums_close(&s);
}

static void put_steps(const char *folder)
{
  static const uint32_t kinds[] = {F32, UNIFORM_4, DITHER_4, TABLE_4};
  for (size_t i = 0; i < FLI_COUNT_OF(kinds); i++) {
    input config;
    sums_round s;
    char name[64];
    fli_bytes steps;
    fli_bytes_init(&steps, NULL);
    begin(&config, kinds[i] | ONE, SLOTS_5);
    open_round(&s, &config);
    for (uint64_t base = 0; base < 2; base++) {
      cf_bytes update = encode(&s, (uint32_t)base, 0);
      cf_must(fli_step_write(&steps, base, .5f, &s.r.scale, update.data,
                             update.size));
      free(update.data);
    }
    cf_bytes all = {steps.data, steps.size};
    put_message(folder, "steps", s.kind->name, &config, all);
    all.size -= 5;
    snprintf(name, sizeof name, "steps-cut");
    if (kinds[i] == DITHER_4) put_message(folder, name, "", &config, all);
    fli_bytes_free(&steps);
    sums_close(&s);
  }
}

static void append_honest(input *to, uint32_t op, uint32_t slot, uint32_t mask,
                          uint32_t fill)
{
  uint8_t bytes[6] = {(uint8_t)(SUMS_HONEST | op),
                      (uint8_t)slot,
                      (uint8_t)(slot >> 8),
                      (uint8_t)mask,
                      (uint8_t)fill,
                      (uint8_t)(fill >> 8)};
  append(to, bytes, sizeof bytes);
}

static void append_raw(input *to, uint32_t op, cf_bytes message)
{
  uint8_t head[3] = {(uint8_t)op, (uint8_t)message.size,
                     (uint8_t)(message.size >> 8)};
  append(to, head, sizeof head);
  append(to, message.data, message.size);
}

/* Honest updates of slots 0, 1, 2, ..., for both targets. */
static void put_honest(const char *folder)
{
  enum { ALL = 0xff, MIXED = 0 };
  static const struct {
    const char *name;
    uint32_t first;
    uint32_t second;
    uint32_t count;
    uint32_t op;
    uint32_t mask; /* or MIXED */
  } rows[] = {
      {"f32", F32, SLOTS_5 | CAP_100, 5, 0, MIXED},
      {"bf16", BF16, SLOTS_16, 7, 0, ALL},
      {"uniform", UNIFORM_4 | FOUR, SLOTS_20 | CAP_100, 20, 8, MIXED},
      {"dither", DITHER_4 | FOUR, SLOTS_20, 20, 16, MIXED},
      {"dither-3", 4, SLOTS_16 | CAP_1, 9, 0, ALL},
      {"table-2", 5 | FOUR, SLOTS_20, 9, 0, MIXED},
      {"table-3", 6, SLOTS_5, 5, 1, ALL},
      {"table-4", TABLE_4, SLOTS_16 | CAP_100, 10, 2, MIXED},
      {"table-5", 8 | ONE, SLOTS_20, 9, 3, ALL},
      {"table-4-255", 9 | ONE, SLOTS_20 | CAP_MOST, 20, 5, ALL},
      {"widening", UNIFORM_4 | ONE, SLOTS_20, 19, 0, ALL},
      {"widening-twice", UNIFORM_4 | ONE, SLOTS_300, 18, 3, ALL},
      {"weight-limit", UNIFORM_8 | ONE, SLOTS_300, 66, 5, ALL},
      {"samples-limit", UNIFORM_1 | ONE, SLOTS_300 | CAP_MOST, 258, 24 | 5,
       ALL},
      {"weight-0", UNIFORM_4, SLOTS_5, 3, 6, ALL},
      {"weight-65536", UNIFORM_4, SLOTS_5, 3, 7, ALL},
      {"weight-of-dither", DITHER_4, SLOTS_5, 3, 1, ALL},
      {"twice", UNIFORM_4, SLOTS_5 | CAP_100, 8, 8, MIXED},
      {"zero-norm", DITHER_4 | SUMS_ZERO_NORM, SLOTS_5, 5, 0, MIXED},
      {"public", DITHER_4, SLOTS_5 | PUBLIC | CAP_100, 5, 24, ALL},
      {"huge", F32, SLOTS_5 | HUGE, 3, 0, ALL},
      {"leaves-float32", UNIFORM_4, SLOTS_5 | HUGE, 1, 0, ALL},
      {"full-blocks", TABLE_4 | LONG, SLOTS_5, 5, 1, MIXED},
      {"full-floats", BF16 | LONG, SLOTS_5, 3, 0, ALL},
  };
  for (size_t i = 0; i < FLI_COUNT_OF(rows); i++) {
    input all;
    char name[64];
    begin(&all, rows[i].first, rows[i].second);
    for (uint32_t k = 0; k < rows[i].count; k++) {
      uint32_t mask = rows[i].mask == MIXED ? 0xff ^ 1u << k % 4 : ALL;
      int is_float = (rows[i].first & 15) <= BF16;
      uint32_t fill = is_float ? 0x3f : k % 3 == 0 ? 0xff : 256 * k;
      append_honest(&all, rows[i].op, k, mask, fill);
    }
    snprintf(name, sizeof name, "honest-%s", rows[i].name);
    seeds_put(folder, "thc_aggregate", name, all.bytes, all.n);
    seeds_put(folder, "thc_merge", name, all.bytes, all.n);
  }
}

/* Bytes of updates and sums of every kind, the second one cut, the third the
 * first again, between honest ones. */
static void put_raw(const char *folder)
{
  for (uint32_t kind = 0; kind < SUMS_KINDS; kind++) {
    input updates, sums;
    sums_round s;
    char name[64];
    uint32_t op = kind == UNIFORM_4 || kind == TABLE_4 ? 2 : 0;
    begin(&updates, kind | TWO | SUMS_MEND, SLOTS_5 | CAP_100);
    sums = updates;
    open_round(&s, &updates);
    cf_bytes update = encode(&s, 1, 0), sum = encode_sum(&s, 3, 1, 1);
    append_honest(&updates, op, 0, 3, 0x3f);
    append_honest(&sums, op, 4, 3, 0x3f);
    append_raw(&updates, op, update);
    append_raw(&sums, 0, sum);
    update.size -= 9;
    sum.size -= 9;
    append_raw(&updates, op, update);
    append_raw(&sums, 0, sum);
    update.size += 9;
    sum.size += 9;
    append_raw(&updates, 1, update);
    append_raw(&sums, 0, sum);
    append_honest(&updates, 1, 2, 1, 0x3f);
    append_honest(&sums, 0, 3, 1, 0x3f);
    snprintf(name, sizeof name, "bytes-%s", s.kind->name);
    seeds_put(folder, "thc_aggregate", name, updates.bytes, updates.n);
    seeds_put(folder, "thc_merge", name, sums.bytes, sums.n);
    free(update.data);
    free(sum.data);
    sums_close(&s);
  }
}

/* A saved state in one of its phases, and what may be wrong with it. */
static void put_feedback(const char *folder, uint32_t kind, uint32_t phase,
                         const lie *l)
{
  sums_round s;
  input all;
  char name[64];
  fl_feedback *feedback = NULL;
  fli_bytes state;
  begin(&all, kind | FOUR | (l->name[0] ? 0 : SUMS_MEND), SLOTS_5 | CAP_100);
  open_round(&s, &all);
  append(&all, &(uint8_t){(uint8_t)(kind % 3)}, 1);
  float *x = cf_normal(s.r.n, kind);
  cf_must(fl_feedback_new(&feedback, s.r.compressor, NULL));
  cf_must(fl_feedback_measure(feedback, &s.r.scale, 10, x, s.r.n, s.r.norms,
                              s.r.scale.n_norms));
  cf_bytes buffer = {cf_get(4096), 4096};
  if (phase != FL_FEEDBACK_MEASURED)
    cf_must(fl_feedback_encode(feedback, &s.r.scale, NULL, buffer.data,
                               buffer.size, NULL, NULL));
  if (phase == FL_FEEDBACK_IDLE)
    cf_must(fl_feedback_settle(feedback, 1, NULL, 0));
  fli_bytes_init(&state, NULL);
  cf_must(fli_feedback_write(feedback, &state));
  if (l->n) memset(state.data + l->at, l->to, l->n);
  append(&all, state.data, l->longer < 0 ? state.size - 9 : state.size);
  if (l->longer > 0) all.bytes[0] = (uint8_t)(kind | LONG | SUMS_MEND);
  snprintf(name, sizeof name, "%s%s-%u%s", l->name[0] ? "bad-" : "",
           s.kind->name, phase, l->name);
  seeds_put(folder, "feedback", name, all.bytes, all.n);
  fli_bytes_free(&state);
  fl_feedback_free(feedback);
  free(buffer.data);
  free(x);
  sums_close(&s);
}

static void put_feedbacks(const char *folder)
{
  static const uint32_t kinds[] = {F32, BF16, UNIFORM_4, DITHER_4, TABLE_4};
  /* 87 01 cf ID 02 PHASE 03 0a 04 64 05 BEFORE 06 c5 SIZE VECTOR */
  static const lie lies[] = {
      {"", 0, 0, 0, 0},           {"-fields", 0, 1, 0x86, 0},
      {"-id", 3, 1, 1, 0},        {"-phase", 12, 1, 3, 0},
      {"-samples", 14, 1, 0, 0},  {"-cap", 16, 1, 0, 0},
      {"-key", 17, 1, 9, 0},      {"-size", 22, 1, 0, 0},
      {"-value", 24, 8, 0xff, 0}, {"-huge", 24, 8, 0x7f, 0},
      {"-cut", 0, 0, 0, -9},
  };
  for (size_t i = 0; i < FLI_COUNT_OF(kinds); i++) {
    for (uint32_t phase = FL_FEEDBACK_IDLE; phase <= FL_FEEDBACK_ENCODED;
         phase++)
      put_feedback(folder, kinds[i], phase, &lies[0]);
  }
  for (size_t i = 1; i < FLI_COUNT_OF(lies); i++)
    put_feedback(folder, UNIFORM_4, FL_FEEDBACK_MEASURED, &lies[i]);
  put_feedback(folder, UNIFORM_4, FL_FEEDBACK_IDLE,
               &(lie){"-value", 24, 8, 0xff, 0});
  put_feedback(folder, UNIFORM_4, FL_FEEDBACK_IDLE,
               &(lie){"-of-another-model", 0, 0, 0, 1});
}

void seeds_put_sums(const char *folder)
{
  put_feedbacks(folder);
  for (uint32_t kind = 0; kind < SUMS_KINDS; kind++)
    put_kind(folder, kind);
  put_special(folder);
  put_too_large(folder);
  put_lies(folder);
  put_steps(folder);
  put_honest(folder);
  put_raw(folder);
}
