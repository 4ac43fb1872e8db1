/* SPDX-License-Identifier: Apache-2.0 */
/* What a round of K updates costs where they are added: on one server, on 8
 * edges and a root, or on the ranks of MPI, when it is started by mpirun
 * (bench_hierarchy.py does all of it). Encoding is not in it. CPU time of one
 * core for server and tree, the clock for ranks, median over --runs. Prints
 * `key value` lines, SHAPE server, tree8 or mpiN:
 *
 *   SHAPE_s          seconds from the updates to the mean; tree8: one edge and
 *                    then the root, as if edges had machines of their own
 *   SHAPE_root_s     seconds of it at the root (ranks: none)
 *   SHAPE_in_bytes   what reaches the root, or travels between ranks
 *   SHAPE_out_bytes  what it sends to those right below, or to ranks
 *   SHAPE_sum        hash of the sum: the same for every shape */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <fl/compress.h>
#ifdef HAVE_FL_MPI
#  include <fl/mpi.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { EDGES = 8, RUNS_MAX = 31, UPDATES_MAX = 4096 };

static const char help[] =
    "usage: [mpirun -n N] bench_hierarchy [OPTION VALUE]...\n"
    "  --dim N      coordinates; 1000000 (default)\n"
    "  --count N    updates, 8..4096; 64 (default)\n"
    "  --codec C    f32 or thc (default)\n"
    "  --runs N     1..31; 5 (default)\n";

typedef struct bench {
  uint64_t dim;
  uint32_t count;
  uint32_t codec;
  int runs;
  fl_compressor *compressor;
  fl_scale scale;
  float *norms;
  float *vector;
  uint8_t *data[UPDATES_MAX];
  size_t sizes[UPDATES_MAX];
} bench;

static void require(fl_status st)
{
  if (st == FL_OK) return;
  fprintf(stderr, "%s: %s\n", fl_status_name(st), fl_last_error());
  exit(1);
}

static void *allocate(size_t n)
{
  void *memory = malloc(n > 0 ? n : 1);
  if (memory) return memory;
  fprintf(stderr, "no memory for %zu bytes\n", n);
  exit(1);
}

static double now_s(clockid_t clock)
{
  struct timespec now;
  if (clock_gettime(clock, &now) != 0) return 0.0;
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int compare(const void *a, const void *b)
{
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, int n)
{
  qsort(values, (size_t)n, sizeof *values, compare);
  return values[n / 2];
}

static void draw(const bench *b, uint32_t index)
{
  uint64_t state = 0x9e3779b97f4a7c15u * (index + 1u);
  for (uint64_t i = 0; i < b->dim; i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    b->vector[i] = (float)(int32_t)(state >> 40) * 0x1p-22f - 2.0f;
  }
}

/* The updates of the slots first, first + step, ... */
static void set_up(bench *b, uint32_t first, uint32_t step)
{
  fl_compressor_options options;
  fl_encode_options own;
  require(fl_compressor_options_init(&options, sizeof options));
  options.codec = b->codec;
  require(fl_compressor_new(&b->compressor, NULL, &options, &b->dim, 1));
  require(fl_scale_init(&b->scale, sizeof b->scale));
  b->vector = allocate((size_t)b->dim * sizeof(float));
  b->scale.slots = b->count;
  b->scale.round = 1;
  b->scale.n_norms = fl_compressor_norm_count(b->compressor);
  b->norms = allocate((size_t)b->scale.n_norms * sizeof(float));
  draw(b, 0);
  require(fl_compressor_measure(b->compressor, &b->scale, 1, b->vector, b->dim,
                                b->norms, b->scale.n_norms));
  b->scale.norms = b->norms;
  const size_t room = (size_t)fl_compressor_max_update_size(b->compressor);
  require(fl_encode_options_init(&own, sizeof own));
  for (uint32_t k = first; k < b->count; k += step) {
    own.slot = k;
    draw(b, k);
    b->data[k] = allocate(room);
    require(fl_compressor_encode(b->compressor, &b->scale, &own, b->vector,
                                 b->dim, b->data[k], room, &b->sizes[k], NULL));
  }
}

static void tear_down(bench *b)
{
  for (uint32_t k = 0; k < b->count; k++)
    free(b->data[k]);
  free(b->vector);
  free(b->norms);
  fl_compressor_free(b->compressor);
}

static fl_partial *new_sum(const bench *b)
{
  fl_partial *partial = NULL;
  require(fl_partial_new(&partial, b->compressor, &b->scale));
  return partial;
}

static void add(const bench *b, fl_partial *partial, uint32_t first,
                uint32_t step)
{
  const uint8_t *data[64];
  size_t sizes[64];
  uint32_t n = 0;
  for (uint32_t k = first; k < b->count; k += step) {
    data[n] = b->data[k];
    sizes[n++] = b->sizes[k];
    if (n < 64 && k + step < b->count) continue;
    require(fl_partial_add_batch(partial, data, sizes, NULL, n, NULL));
    n = 0;
  }
}

static uint8_t *bytes_of(const fl_partial *partial, size_t *n)
{
  require(fl_partial_copy_sum(partial, NULL, 0, n));
  uint8_t *bytes = allocate(*n);
  require(fl_partial_copy_sum(partial, bytes, *n, n));
  return bytes;
}

static uint64_t hash_of(const uint8_t *bytes, size_t n)
{
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t i = 0; i < n; i++)
    hash = (hash ^ bytes[i]) * 0x100000001b3u;
  return hash;
}

typedef struct result {
  double seconds[RUNS_MAX], root[RUNS_MAX];
  uint64_t in, out, sum;
} result;

static void print(const bench *b, const char *shape, result *r)
{
  printf("%s_s %.4f\n", shape, median(r->seconds, b->runs));
  if (r->root[0] > 0.0)
    printf("%s_root_s %.4f\n", shape, median(r->root, b->runs));
  printf("%s_in_bytes %llu\n%s_out_bytes %llu\n%s_sum %016llx\n", shape,
         (unsigned long long)r->in, shape, (unsigned long long)r->out, shape,
         (unsigned long long)r->sum);
  fflush(stdout);
}

static void run_server(const bench *b)
{
  static result r;
  for (int run = 0; run < b->runs; run++) {
    size_t n;
    const double begin = now_s(CLOCK_THREAD_CPUTIME_ID);
    fl_partial *partial = new_sum(b);
    add(b, partial, 0, 1);
    uint8_t *sum = bytes_of(partial, &n);
    require(fl_partial_decode(partial, b->vector, b->dim));
    r.seconds[run] = r.root[run] = now_s(CLOCK_THREAD_CPUTIME_ID) - begin;
    r.sum = hash_of(sum, n);
    r.in = 0;
    for (uint32_t k = 0; k < b->count; k++)
      r.in += b->sizes[k];
    r.out = (uint64_t)n * b->count;
    free(sum);
    fl_partial_free(partial);
  }
  print(b, "server", &r);
}

static void run_tree(const bench *b)
{
  static result r;
  for (int run = 0; run < b->runs; run++) {
    uint8_t *sums[EDGES];
    size_t sizes[EDGES], n;
    double slowest = 0.0;
    r.in = 0;
    for (uint32_t e = 0; e < EDGES; e++) {
      const double begin = now_s(CLOCK_THREAD_CPUTIME_ID);
      fl_partial *edge = new_sum(b);
      add(b, edge, e, EDGES);
      sums[e] = bytes_of(edge, &sizes[e]);
      const double took = now_s(CLOCK_THREAD_CPUTIME_ID) - begin;
      fl_partial_free(edge);
      if (took > slowest) slowest = took;
      r.in += sizes[e];
    }
    const double begin = now_s(CLOCK_THREAD_CPUTIME_ID);
    fl_partial *root = new_sum(b);
    for (uint32_t e = 0; e < EDGES; e++)
      require(fl_partial_merge_bytes(root, sums[e], sizes[e]));
    uint8_t *sum = bytes_of(root, &n);
    require(fl_partial_decode(root, b->vector, b->dim));
    r.root[run] = now_s(CLOCK_THREAD_CPUTIME_ID) - begin;
    r.seconds[run] = slowest + r.root[run];
    r.sum = hash_of(sum, n);
    r.out = (uint64_t)n * EDGES;
    free(sum);
    fl_partial_free(root);
    for (uint32_t e = 0; e < EDGES; e++)
      free(sums[e]);
  }
  print(b, "tree8", &r);
}

#ifdef HAVE_FL_MPI
static void require_mpi(fl_status st)
{
  if (st == FL_OK) return;
  fprintf(stderr, "%s: %s\n", fl_status_name(st), fl_mpi_last_error());
  MPI_Abort(MPI_COMM_WORLD, 1);
}

/* A round; what this rank sent up the tree. */
static uint64_t run_round(const bench *b, fl_mpi *mpi, fl_buffer *step,
                          uint64_t *hash)
{
  size_t n = 0;
  const uint8_t *bytes = NULL;
  fl_partial *partial = new_sum(b);
  add(b, partial, fl_mpi_rank(mpi), fl_mpi_size(mpi));
  require_mpi(fl_mpi_reduce(mpi, partial));
  uint8_t *sum = bytes_of(partial, &n);
  const uint64_t sent = fl_mpi_rank(mpi) > 0 ? n : 0;
  fl_buffer_clear(step);
  if (fl_mpi_rank(mpi) == 0) require(fl_buffer_append(step, sum, n));
  require_mpi(fl_mpi_broadcast(mpi, step));
  require(fl_buffer_get(step, &bytes, &n));
  require(fl_compressor_decode(b->compressor, &b->scale, bytes, n, b->vector,
                               b->dim));
  *hash = hash_of(bytes, n);
  free(sum);
  fl_partial_free(partial);
  return sent;
}

static void run_ranks(bench *b, fl_mpi *mpi)
{
  static result r;
  char shape[16];
  fl_buffer *step = NULL;
  const uint8_t *bytes = NULL;
  size_t n = 0;
  set_up(b, fl_mpi_rank(mpi), fl_mpi_size(mpi));
  require(fl_buffer_new(&step, NULL));
  for (int run = 0; run < b->runs; run++) {
    MPI_Barrier(MPI_COMM_WORLD);
    const double begin = now_s(CLOCK_MONOTONIC);
    const uint64_t sent = run_round(b, mpi, step, &r.sum);
    MPI_Barrier(MPI_COMM_WORLD);
    r.seconds[run] = now_s(CLOCK_MONOTONIC) - begin;
    MPI_Reduce(&sent, &r.in, 1, MPI_UINT64_T, MPI_SUM, 0, MPI_COMM_WORLD);
  }
  require(fl_buffer_get(step, &bytes, &n));
  r.out = (uint64_t)n * (fl_mpi_size(mpi) - 1);
  snprintf(shape, sizeof shape, "mpi%u", fl_mpi_size(mpi));
  if (fl_mpi_rank(mpi) == 0) print(b, shape, &r);
  fl_buffer_free(step);
  tear_down(b);
}

static int run_mpi(bench *b, int argc, char **argv)
{
  fl_mpi *mpi = NULL;
  if (MPI_Init(&argc, &argv) != MPI_SUCCESS) return 1;
  require_mpi(fl_mpi_new(&mpi, MPI_COMM_WORLD));
  run_ranks(b, mpi);
  fl_mpi_free(mpi);
  MPI_Finalize();
  return 0;
}
#endif

static int read_option(bench *b, const char *name, const char *value)
{
  if (strcmp(name, "--dim") == 0) {
    b->dim = strtoull(value, NULL, 10);
  } else if (strcmp(name, "--count") == 0) {
    b->count = (uint32_t)strtoul(value, NULL, 10);
  } else if (strcmp(name, "--runs") == 0) {
    b->runs = atoi(value);
  } else if (strcmp(name, "--codec") == 0) {
    b->codec = strcmp(value, "f32") == 0 ? FL_CODEC_F32 : FL_CODEC_THC;
  } else {
    return 0;
  }
  return 1;
}

int main(int argc, char **argv)
{
  static bench b = {
      .dim = 1000000, .count = 64, .codec = FL_CODEC_THC, .runs = 5};
  int is_good = argc % 2 == 1;
  for (int i = 1; is_good && i < argc; i += 2)
    is_good = read_option(&b, argv[i], argv[i + 1]);
  if (!is_good || b.dim < 1 || b.dim > UINT64_C(1) << 28 || b.count < EDGES ||
      b.count > UPDATES_MAX || b.runs < 1 || b.runs > RUNS_MAX) {
    fputs(help, stderr);
    return 2;
  }
#ifdef HAVE_FL_MPI
  /* Set by Open MPI's mpirun and by those that speak PMI (MPICH, Slurm). */
  if (getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMI_SIZE"))
    return run_mpi(&b, argc, argv);
#endif
  set_up(&b, 0, 1);
  run_server(&b);
  run_tree(&b);
  tear_down(&b);
  return 0;
}
