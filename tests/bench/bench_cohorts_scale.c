/* SPDX-License-Identifier: Apache-2.0 */
/* A set with a million clients: what it takes and how long its calls last.
 * Medians of processor time, of `runs` (default 5), but for single calls, which
 * are means over many.
 *
 *   bench_cohorts_scale [clients [runs]]
 *
 * bytes_per_client (all that the set holds), join_ns, route_ns, report_us
 * (beside the sketch), sketch_ns_per_value of an update in float32 and
 * thc_decode_ns_per_value before it, or lane_sketch_ns_per_value of an update
 * as THC encodes it, round_end_us (50 sketches), decide_us (nothing to decide),
 * split_ms (one decision that splits), save_ms, load_ms, pick_ms, plan_ms */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cohort/cohort.h"
#include "compress/partial.h"
#include "server/cohort_sketch.h"

enum { ROUND_CLIENTS = 50, DIM = 512, SIDES = 2, VALUES = 50890 };

typedef struct bench {
  fl_context *context;
  fl_cohort_set *set;
  uint32_t clients;
  uint32_t runs;
  uint64_t state;
  uint8_t sketches[SIDES][8][DIM / 2];
} bench;

static void must(fl_status st, const char *what)
{
  if (st == FL_OK) return;
  fprintf(stderr, "bench_cohorts_scale: %s: %s (%s)\n", what,
          fl_status_name(st), fl_last_error());
  exit(1);
}

static double now_us(void)
{
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static uint64_t next(uint64_t *state)
{
  fli_split_rng rng = {*state};
  uint64_t z = fli_split_next(&rng);
  *state = rng.state;
  return z;
}

static int ascending(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void print_median(const char *key, double *times, uint32_t n,
                         double scale)
{
  qsort(times, n, sizeof *times, ascending);
  printf("%s %.3f\n", key, times[n / 2] * scale);
}

/* Two kinds, a few of each. */
static void draw_sketches(bench *b)
{
  for (uint32_t side = 0; side < SIDES; side++) {
    for (uint32_t i = 0; i < 8; i++) {
      uint64_t direction = side;
      for (uint32_t j = 0; j < DIM / 2; j++) {
        uint64_t z = next(&direction), noise = next(&b->state);
        unsigned low = (unsigned)(z % 12 + noise % 4);
        unsigned high = (unsigned)((z >> 32) % 12 + (noise >> 32) % 4);
        b->sketches[side][i][j] = (uint8_t)(low | high << 4);
      }
    }
  }
}

static void join_all(bench *b)
{
  uint64_t bytes = 0;
  fl_cohort_options o;
  uint32_t slot;
  must(fl_context_new(&b->context, NULL), "context");
  must(fl_cohort_options_init(&o, sizeof o), "options");
  o.clients = b->clients;
  o.gap = 1.0f;
  o.reseed = 1000;
  must(fl_cohort_set_new(&b->set, b->context, &o), "set");
  double begun = now_us();
  for (uint32_t i = 0; i < b->clients; i++) {
    uint64_t id = i;
    must(fl_cohort_set_join(b->set, next(&id), 0, NULL, 0, &slot, NULL),
         "join");
  }
  printf("join_ns %.1f\n", (now_us() - begun) * 1e3 / b->clients);
  must(fl_context_get_memory(b->context, &bytes, NULL), "memory");
  printf("bytes_per_client %.3f\n", (double)bytes / b->clients);
}

static void report(bench *b, uint32_t client, uint32_t round)
{
  fl_cohort_report r;
  must(fl_cohort_report_init(&r, sizeof r), "report");
  r.round = round;
  r.loss = 1.0;
  r.sketch = b->sketches[client % SIDES][client / SIDES % 8];
  r.sketch_size = DIM / 2;
  must(fl_cohort_set_report(b->set, client, &r), "report");
}

/* Rounds whose clients vote, but which are not decided by a split: the gap that
 * is wanted is out of reach. */
static void run_rounds(bench *b)
{
  enum { WARM = 5, ROUNDS = 41 };
  double ends[ROUNDS], decisions[ROUNDS], reports = 0.0;
  for (uint32_t t = 1; t <= WARM + ROUNDS; t++) {
    double begun = now_us();
    for (uint32_t i = 0; i < ROUND_CLIENTS; i++)
      report(b, (t % 4 * ROUND_CLIENTS + i) * 17, t);
    double reported = now_us();
    must(fl_cohort_set_end_round(b->set, 0, t), "end");
    double ended = now_us();
    must(fl_cohort_set_decide(b->set), "decide");
    if (t <= WARM) continue;
    reports += reported - begun;
    ends[t - WARM - 1] = ended - reported;
    decisions[t - WARM - 1] = now_us() - ended;
  }
  printf("report_us %.3f\n", reports / (ROUNDS * ROUND_CLIENTS));
  print_median("round_end_us", ends, ROUNDS, 1.0);
  print_median("decide_us", decisions, ROUNDS, 1.0);
}

static void time_routes(bench *b)
{
  enum { ROUTES = 2000000 };
  fl_cohort_route route;
  uint64_t sum = 0;
  must(fl_cohort_route_init(&route, sizeof route), "route");
  double begun = now_us();
  for (uint32_t i = 0; i < ROUTES; i++) {
    uint32_t slot = (uint32_t)((uint64_t)i * 7919 % b->clients);
    must(fl_cohort_set_route(b->set, slot, 100, NAN, &route), "route");
    sum += route.cohort;
  }
  printf("route_ns %.1f\n",
         (now_us() - begun) * 1e3 / ROUTES + 0.0 * (double)sum);
}

static void time_picks(bench *b)
{
  double *times = calloc(b->runs, sizeof *times);
  uint32_t slots[ROUND_CLIENTS], counts[8], n;
  fl_cohort_pick pick;
  must(times ? FL_OK : FL_E_NOMEM, "memory");
  must(fl_cohort_pick_init(&pick, sizeof pick), "pick");
  pick.want = ROUND_CLIENTS;
  for (uint32_t i = 0; i < b->runs; i++) {
    double begun = now_us();
    pick.round = i;
    must(fl_cohort_set_pick(b->set, &pick, slots, &n), "pick");
    times[i] = now_us() - begun;
  }
  print_median("pick_ms", times, b->runs, 1e-3);
  for (uint32_t i = 0; i < b->runs; i++) {
    double begun = now_us();
    must(fl_cohort_set_plan(b->set, 50, FL_COHORT_BY_SIZE, counts, 8), "plan");
    times[i] = now_us() - begun;
  }
  print_median("plan_ms", times, b->runs, 1e-3);
  free(times);
}

static void time_states(bench *b)
{
  double *saves = calloc(b->runs, sizeof *saves);
  double *loads = calloc(b->runs, sizeof *loads);
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  must(saves && loads ? FL_OK : FL_E_NOMEM, "memory");
  must(fl_buffer_new(&buffer, NULL), "buffer");
  for (uint32_t i = 0; i < b->runs; i++) {
    fl_buffer_clear(buffer);
    must(fl_buffer_as_writer(buffer, &writer), "writer");
    double begun = now_us();
    must(fl_cohort_set_save(b->set, &writer), "save");
    saves[i] = now_us() - begun;
    must(fl_buffer_as_reader(buffer, &reader), "reader");
    begun = now_us();
    must(fl_cohort_set_load(b->set, &reader), "load");
    loads[i] = now_us() - begun;
  }
  print_median("save_ms", saves, b->runs, 1e-3);
  print_median("load_ms", loads, b->runs, 1e-3);
  fl_buffer_free(buffer);
  free(saves);
  free(loads);
}

/* As if all clients had voted; the decision that splits, undone by hand. */
static void time_splits(bench *b)
{
  double *times = calloc(b->runs, sizeof *times);
  fl_cohort_event event;
  must(times ? FL_OK : FL_E_NOMEM, "memory");
  must(fl_cohort_event_init(&event, sizeof event), "event");
  for (uint32_t i = 0; i < b->runs; i++) {
    fl_cohort_set *set = b->set;
    for (uint32_t slot = 0; slot < set->n_slots; slot++) {
      set->members[slot].leaf = 0;
      set->members[slot].score = (int8_t)(slot % 2 ? 60 : -60);
    }
    set->leaves[0].has_ended = 1;
    set->leaves[0].proposes = 1;
    double begun = now_us();
    must(fl_cohort_set_decide(set), "split");
    times[i] = now_us() - begun;
    must(fl_cohort_set_poll(set, &event), "event");
    if (event.kind != FL_COHORT_TRIAL) must(FL_E_INTERNAL, "no split");
    set->n_trials = 0;
    fli_leaf_end(set, event.child);
  }
  print_median("split_ms", times, b->runs, 1e-3);
  free(times);
}

enum { TIMES = 200 };

static void print_per_value(const char *key, double begun)
{
  printf("%s %.3f\n", key, (now_us() - begun) * 1e3 / ((double)TIMES * VALUES));
}

static void time_encoded(const fl_compressor *compressor, const fl_scale *scale,
                         const float *update, float *decoded)
{
  fl_encode_options options;
  fl_partial *partial = NULL;
  fli_bytes bytes;
  uint8_t sketch[DIM / 2];
  const size_t size = (size_t)fl_compressor_max_update_size(compressor);
  fli_bytes_init(&bytes, NULL);
  must(fli_bytes_reserve(&bytes, size), "memory");
  must(fl_encode_options_init(&options, sizeof options), "options");
  must(fl_compressor_encode(compressor, scale, &options, update, VALUES,
                            bytes.data, size, &bytes.size, NULL),
       "encode");
  must(fl_partial_new(&partial, compressor, scale), "partial");
  double begun = now_us();
  for (uint32_t i = 0; i < TIMES; i++)
    must(fl_compressor_decode(compressor, scale, bytes.data, bytes.size,
                              decoded, VALUES),
         "decode");
  print_per_value("thc_decode_ns_per_value", begun);
  begun = now_us();
  for (uint32_t i = 0; i < TIMES; i++)
    must(fli_lane_sketch(&partial->agreed, &bytes, DIM, sketch), "sketch");
  print_per_value("lane_sketch_ns_per_value", begun);
  fl_partial_free(partial);
  fli_bytes_free(&bytes);
}

static void time_lanes(const float *update)
{
  const uint64_t segment = VALUES;
  fl_compressor_options options;
  fl_compressor *compressor = NULL;
  fl_scale scale;
  must(fl_compressor_options_init(&options, sizeof options), "options");
  must(fl_compressor_new(&compressor, NULL, &options, &segment, 1),
       "compressor");
  const uint64_t n = fl_compressor_norm_count(compressor);
  float *norms = calloc((size_t)n, sizeof *norms);
  float *decoded = calloc(VALUES, sizeof *decoded);
  must(norms && decoded ? FL_OK : FL_E_NOMEM, "memory");
  must(fl_scale_init(&scale, sizeof scale), "scale");
  scale.slots = ROUND_CLIENTS;
  scale.round = 1;
  must(fl_compressor_measure(compressor, &scale, 1, update, VALUES, norms, n),
       "measure");
  scale.norms = norms;
  scale.n_norms = n;
  time_encoded(compressor, &scale, update, decoded);
  fl_compressor_free(compressor);
  free(norms);
  free(decoded);
}

static void time_sketches(void)
{
  fl_sketcher *sketcher = NULL;
  float *update = calloc(VALUES, sizeof *update);
  uint8_t sketch[DIM / 2];
  size_t n;
  uint64_t state = 1;
  must(update ? FL_OK : FL_E_NOMEM, "memory");
  for (uint32_t i = 0; i < VALUES; i++)
    update[i] = (float)(next(&state) >> 40) - 0x1p23f;
  must(fl_sketcher_new(&sketcher, NULL, 1, VALUES, DIM), "sketcher");
  double begun = now_us();
  for (uint32_t i = 0; i < TIMES; i++) {
    must(fl_sketcher_write(sketcher, update, VALUES, sketch, sizeof sketch, &n),
         "sketch");
  }
  print_per_value("sketch_ns_per_value", begun);
  fl_sketcher_free(sketcher);
  time_lanes(update);
  free(update);
}

int main(int argc, char **argv)
{
  bench b = {.clients = 1000000, .runs = 5, .state = 3};
  if (argc > 1) b.clients = (uint32_t)strtoul(argv[1], NULL, 10);
  if (argc > 2) b.runs = (uint32_t)strtoul(argv[2], NULL, 10);
  if (b.clients < 10000 || b.runs == 0) {
    fprintf(stderr, "bench_cohorts_scale [clients >= 10000 [runs]]\n");
    return 2;
  }
  draw_sketches(&b);
  join_all(&b);
  run_rounds(&b);
  time_routes(&b);
  time_picks(&b);
  time_states(&b);
  time_splits(&b);
  time_sketches();
  fl_cohort_set_free(b.set);
  fl_context_free(b.context);
  return 0;
}
