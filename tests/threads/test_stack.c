/* SPDX-License-Identifier: Apache-2.0 */
/* Stack that compression takes: every path runs on a thread whose stack was
 * painted before, and the deepest byte with another colour afterwards tells.
 * fl/compress.h promises hosts with small stacks how much it can be. */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>

#include <fl/feedback.h>

#include "check.h"
#include "compress/compressor.h"
#include "compress_fixture.h"
#include "kernels/kernels.h"

enum { PROMISED = 120 * 1024 };
/* Segments with full units, a group that is not full, and a tail. */
enum { DIM = 33 * 4096 + 3000, SLOTS = 20 };
enum { STACK = 1 << 20, PAINT = 0xa5 };

typedef struct setting {
  cf_round r;
  float *x;
  float *out;
  fl_feedback *feedback;
  fl_partial *partial;
  uint8_t *update;
  size_t size;
} setting;

typedef void (*path_fn)(setting *s);

typedef struct job {
  path_fn path;
  setting *setting;
  uintptr_t top;
} job;

static void measure(setting *s)
{
  cf_must(fl_compressor_measure(s->r.compressor, &s->r.scale, 1, s->x, DIM,
                                s->r.norms, s->r.scale.n_norms));
}

static void encode(setting *s)
{
  cf_must(fl_compressor_encode(s->r.compressor, &s->r.scale, NULL, s->x, DIM,
                               s->update, s->size, NULL, NULL));
}

static void decode(setting *s)
{
  cf_must(fl_partial_decode(s->partial, s->out, DIM));
}

static void decode_bytes(setting *s)
{
  cf_must(fl_compressor_decode(s->r.compressor, &s->r.scale, s->update, s->size,
                               s->out, DIM));
}

static void measure_with_feedback(setting *s)
{
  cf_must(fl_feedback_measure(s->feedback, &s->r.scale, 1, s->x, DIM, NULL, 0));
}

static void encode_with_feedback(setting *s)
{
  cf_must(fl_feedback_encode(s->feedback, &s->r.scale, NULL, s->update, s->size,
                             NULL, NULL));
}

static void add(setting *s)
{
  cf_must(fl_partial_add(s->partial, s->update, s->size));
}

static const struct {
  const char *name;
  path_fn run;
} paths[] = {{"measure", measure},
             {"encode", encode},
             {"add", add},
             {"decode", decode},
             {"decode_bytes", decode_bytes},
             {"measure_with_feedback", measure_with_feedback},
             {"encode_with_feedback", encode_with_feedback}};
enum { PATHS = sizeof paths / sizeof paths[0] };

static void *run_path(void *arg)
{
  job *j = arg;
  uint8_t here = 0;
  j->top = (uintptr_t)&here;
  j->path(j->setting);
  return NULL;
}

/* Bytes of stack below the caller of a path. */
static size_t depth_of(path_fn path, setting *s)
{
  job j = {.path = path, .setting = s};
  pthread_attr_t attributes;
  pthread_t thread;
  void *memory = NULL;
  size_t untouched = 0;
  CHECK(posix_memalign(&memory, 4096, STACK) == 0);
  if (!memory) return STACK;
  memset(memory, PAINT, STACK);
  CHECK(pthread_attr_init(&attributes) == 0);
  CHECK(pthread_attr_setstack(&attributes, memory, STACK) == 0);
  CHECK(pthread_create(&thread, &attributes, run_path, &j) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  (void)pthread_attr_destroy(&attributes);
  while (untouched < STACK && ((uint8_t *)memory)[untouched] == PAINT)
    untouched++;
  size_t depth = (size_t)(j.top - (uintptr_t)memory) - untouched;
  free(memory);
  return depth;
}

static setting open_setting(uint32_t codec, uint32_t mode,
                            const flk_table *kernels)
{
  setting s = {.x = cf_normal(DIM, 4), .out = cf_get(DIM * sizeof(float))};
  cf_open_simple(&s.r, codec, mode, DIM, SLOTS);
  s.r.compressor->kernels = kernels;
  s.size = (size_t)fl_compressor_max_update_size(s.r.compressor);
  s.update = cf_get(s.size);
  s.partial = cf_partial(&s.r);
  cf_must(fl_feedback_new(&s.feedback, s.r.compressor, NULL));
  return s;
}

static void close_setting(setting *s)
{
  fl_feedback_free(s->feedback);
  fl_partial_free(s->partial);
  cf_close(&s->r);
  free(s->x);
  free(s->out);
  free(s->update);
}

/* The deepest of all paths, each of which needs what those before it made. */
static void expect_promised(uint32_t codec, uint32_t mode,
                            const flk_table *kernels)
{
  setting s = open_setting(codec, mode, kernels);
  measure(&s);
  fl_partial_free(s.partial);
  s.partial = cf_partial(&s.r);
  size_t most = 0;
  const char *deepest = "";
  for (int p = 0; p < PATHS; p++) {
    size_t depth = depth_of(paths[p].run, &s);
    deepest = depth > most ? paths[p].name : deepest;
    most = depth > most ? depth : most;
  }
  printf("%s, codec %u, mode %u: %zu bytes (%s)\n", kernels->name, codec, mode,
         most, deepest);
  CHECK(most > 0 && most <= PROMISED);
  close_setting(&s);
}

static void compression_takes_no_more_stack_than_promised(void)
{
  for (size_t i = 0; flk_kernels_at(i); i++) {
    const flk_table *kernels = flk_kernels_at(i);
    expect_promised(FL_CODEC_F32, FL_THC_DITHER, kernels);
    expect_promised(FL_CODEC_BF16, FL_THC_DITHER, kernels);
    expect_promised(FL_CODEC_THC, FL_THC_UNIFORM, kernels);
    expect_promised(FL_CODEC_THC, FL_THC_DITHER, kernels);
    expect_promised(FL_CODEC_THC, FL_THC_TABLE, kernels);
  }
}

static void burn(setting *s)
{
  volatile uint8_t some[200 * 1024];
  for (size_t i = 0; i < sizeof some; i++)
    some[i] = 1;
  s->size += some[7];
}

static void deep_functions_are_noticed(void)
{
  setting s = {.size = 0};
  size_t depth = depth_of(burn, &s);
  CHECK(depth > 200 * 1024 && depth < 202 * 1024);
}

int main(void)
{
  CHECK_CASE(deep_functions_are_noticed);
  CHECK_CASE(compression_takes_no_more_stack_than_promised);
  return check_report();
}
