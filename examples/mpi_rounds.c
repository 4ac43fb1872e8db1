/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rounds among the ranks of an MPI job: a simulation, or one model trained by a
 * cluster. Clients are dealt out to the ranks; every rank trains its own, adds
 * their compressed updates to a sum, and the sums are reduced to rank 0, which
 * writes a snapshot and sends the sum to all. It is the step: everybody adds
 * what it decodes to. Any number of ranks ends with the same bytes.
 *
 *   mpirun -n 4 mpi-rounds --rounds 10 --clients 16 --folder state
 *
 * A rank that dies ends the job (mpirun says which). What is in the folder then
 * is the last round that was finished, and the same command goes on from there.
 */
#include <fl/fl.h>
#include <fl/host.h>
#include <fl/mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INPUTS = 16, HIDDEN = 64, CLASSES = 4, SAMPLES = 96, KEPT = 2 };

static const char help[] =
    "usage: mpirun -n N mpi-rounds [OPTION VALUE]...\n"
    "  --rounds N    1..100000; 10 (default)\n"
    "  --clients N   1..65535; 16 (default)\n"
    "  --codec NAME  thc (default) or f32\n"
    "  --folder DIR  snapshots, and where to go on from; none (default)\n";

typedef struct config {
  uint32_t rounds;
  uint32_t clients;
  uint32_t codec;
  const char *folder;
} config;

typedef struct work {
  config own;
  fl_mpi *mpi;
  fl_host *host;
  fl_model *model;
  fl_compressor *compressor;
  fl_buffer *bytes;
  uint64_t n; /* weights */
  uint64_t n_norms;
  float *weights; /* of the last round */
  float *updates; /* of this rank's clients */
  float *norms;
  float *client_norms;
  uint8_t *encoded;
  size_t room;
  double loss; /* of this rank's clients, in this round */
} work;

/* A rank that cannot go on takes the job with it. */
static void fail(const char *what, const char *why)
{
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  fprintf(stderr, "mpi-rounds: on rank %d: %s: %s\n", rank, what, why);
  MPI_Abort(MPI_COMM_WORLD, 1);
}

static void check(fl_status st, const char *what)
{
  if (st != FL_OK)
    fail(what, *fl_last_error() ? fl_last_error() : fl_status_text(st));
}

/* All ranks know, so that rank 0 alone says it. */
static void check_mpi(const work *w, fl_status st, const char *what)
{
  if (st == FL_OK) return;
  if (fl_mpi_rank(w->mpi) == 0) fail(what, fl_mpi_last_error());
  MPI_Barrier(MPI_COMM_WORLD); /* that never is complete: rank 0 aborts */
}

static void *get(size_t n, size_t size)
{
  void *memory = calloc(n, size);
  if (!memory) fail("memory", "there is none");
  return memory;
}

static uint32_t clients_here(const work *w)
{
  const uint32_t ranks = fl_mpi_size(w->mpi), rank = fl_mpi_rank(w->mpi);
  return (w->own.clients + ranks - 1 - rank) / ranks;
}

static uint32_t client_at(const work *w, uint32_t index)
{
  return fl_mpi_rank(w->mpi) + index * fl_mpi_size(w->mpi);
}

/* ---- model and data ------------------------------------------------------ */

static void make_model(work *w)
{
  const uint64_t inputs = INPUTS;
  fl_context *context = fl_host_context(w->host);
  fl_model_builder *builder;
  uint64_t sizes[16];
  fl_compressor_options options;
  check(fl_model_builder_new(&builder, context), "model");
  check(fl_model_builder_input(builder, &inputs, 1, 1, 0), "model");
  check(fl_model_builder_dense(builder, "hidden", HIDDEN), "model");
  check(fl_model_builder_relu(builder, "relu"), "model");
  check(fl_model_builder_dense(builder, "out", CLASSES), "model");
  check(fl_model_builder_softmax_cross_entropy(builder, "loss"), "model");
  check(fl_model_builder_build(builder, &w->model), "model");
  fl_model_builder_free(builder);
  check(fl_model_init_weights(w->model, 1), "model");
  w->n = fl_model_weight_count(w->model);
  const uint32_t segments = fl_model_segment_count(w->model);
  if (segments > 16) fail("model", "more segments than this program expects");
  check(fl_model_copy_segments(w->model, sizes, segments), "model");
  check(fl_compressor_options_init(&options, sizeof options), "codec");
  options.codec = w->own.codec;
  check(fl_compressor_new(&w->compressor, context, &options, sizes, segments),
        "codec");
  w->n_norms = fl_compressor_norm_count(w->compressor);
  w->room = (size_t)fl_compressor_max_update_size(w->compressor);
}

/* Points around one centre per class; clients see the classes unevenly. */
static void draw_data(uint32_t client, float *x, int32_t *y)
{
  uint64_t state = 0x9e3779b97f4a7c15u * (client + 1u);
  for (uint32_t i = 0; i < SAMPLES; i++) {
    y[i] = (int32_t)((client + i % (1 + i % 3)) % CLASSES);
    for (uint32_t k = 0; k < INPUTS; k++) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      const float noise = (float)(uint32_t)(state >> 40) * 0x1p-23f - 1;
      x[i * INPUTS + k] = noise + ((k + 1) % CLASSES == (uint32_t)y[i] ? 1 : 0);
    }
  }
}

/* What a client's training adds to the weights. */
static void train(work *w, uint32_t round, uint32_t client, float *update)
{
  float x[SAMPLES * INPUTS];
  int32_t y[SAMPLES];
  fl_dataset data;
  fl_fit_options options;
  fl_fit_result result;
  float *weights = NULL;
  draw_data(client, x, y);
  check(fl_dataset_init(&data, sizeof data), "training");
  check(fl_fit_options_init(&options, sizeof options), "training");
  check(fl_fit_result_init(&result, sizeof result), "training");
  data.x = x;
  data.y = y;
  data.n = SAMPLES;
  options.learning_rate = 0.1f;
  options.seed = ((uint64_t)round << 32) + client;
  check(fl_model_set_weights(w->model, NULL, w->weights, w->n), "training");
  check(fl_model_fit(w->model, &data, &options, &result), "training");
  check(fl_model_get_weights(w->model, &weights, NULL), "training");
  for (uint64_t i = 0; i < w->n; i++)
    update[i] = weights[i] - w->weights[i];
  w->loss += result.mean_loss;
}

/* ---- a round ------------------------------------------------------------- */

static fl_scale scale_of(const work *w, uint32_t round)
{
  fl_scale scale;
  check(fl_scale_init(&scale, sizeof scale), "scale");
  scale.slots = w->own.clients;
  scale.round = round;
  memcpy(scale.noise_seed, &round, sizeof round);
  scale.norms = w->norms;
  scale.n_norms = w->n_norms;
  return scale;
}

/* Train all clients of this rank, and agree with the others on the scale. */
static void train_all(work *w, uint32_t round)
{
  const fl_scale scale = scale_of(w, round);
  memset(w->norms, 0, (size_t)w->n_norms * sizeof(float));
  w->loss = 0;
  for (uint32_t k = 0; k < clients_here(w); k++) {
    float *update = w->updates + (size_t)k * w->n;
    train(w, round, client_at(w, k), update);
    check(fl_compressor_measure(w->compressor, &scale, 1, update, w->n,
                                w->client_norms, w->n_norms),
          "measuring");
    check(fl_norms_merge(w->norms, w->client_norms, w->n_norms), "measuring");
  }
  check_mpi(w, fl_mpi_merge_norms(w->mpi, w->norms, w->n_norms), "norms");
}

/* Leave the bytes of the sum of all ranks in w->bytes, on all of them. */
static void reduce(work *w, uint32_t round)
{
  const fl_scale scale = scale_of(w, round);
  fl_partial *sum;
  fl_encode_options own;
  size_t size;
  check(fl_partial_new(&sum, w->compressor, &scale), "sum");
  check(fl_encode_options_init(&own, sizeof own), "sum");
  for (uint32_t k = 0; k < clients_here(w); k++) {
    own.slot = client_at(w, k);
    check(fl_compressor_encode(w->compressor, &scale, &own,
                               w->updates + (size_t)k * w->n, w->n, w->encoded,
                               w->room, &size, NULL),
          "encoding");
    check(fl_partial_add(sum, w->encoded, size), "sum");
  }
  check_mpi(w, fl_mpi_reduce(w->mpi, sum), "reduction");
  fl_buffer_clear(w->bytes);
  if (fl_mpi_rank(w->mpi) == 0) {
    check(fl_partial_copy_sum(sum, NULL, 0, &size), "sum");
    uint8_t *bytes = get(size, 1);
    check(fl_partial_copy_sum(sum, bytes, size, &size), "sum");
    check(fl_buffer_append(w->bytes, bytes, size), "sum");
    free(bytes);
  }
  check_mpi(w, fl_mpi_broadcast(w->mpi, w->bytes), "step");
  fl_partial_free(sum);
}

static void step(work *w, uint32_t round)
{
  const fl_scale scale = scale_of(w, round);
  const uint8_t *bytes;
  size_t n;
  float *mean = w->updates; /* this rank's have been sent */
  check(fl_buffer_get(w->bytes, &bytes, &n), "step");
  check(fl_compressor_decode(w->compressor, &scale, bytes, n, mean, w->n),
        "step");
  for (uint64_t i = 0; i < w->n; i++)
    w->weights[i] += mean[i];
  check(fl_model_set_weights(w->model, NULL, w->weights, w->n), "step");
}

/* ---- snapshots ----------------------------------------------------------- */

static const char *name_of(char *name, size_t n, uint32_t round)
{
  snprintf(name, n, "model-%06u.safetensors", round);
  return name;
}

/* Rank 0 writes; the others wait until it is on disk, so that none is ahead of
 * what a restart begins with. */
static void save(work *w, uint32_t round)
{
  char name[64];
  fl_host_file *file;
  fl_writer writer;
  fl_status st = FL_OK;
  if (!w->own.folder) return;
  if (fl_mpi_rank(w->mpi) == 0) {
    st = fl_host_file_create(&file, w->host, name_of(name, sizeof name, round),
                             &writer);
    if (st == FL_OK) {
      st = fl_model_save_weights(w->model, &writer);
      const fl_status closed = fl_host_file_close(file);
      if (st == FL_OK) st = closed;
    }
    const fl_storage *storage = fl_host_storage(w->host);
    if (st == FL_OK && round > KEPT)
      st = storage->remove(storage->user,
                           name_of(name, sizeof name, round - KEPT));
  }
  check_mpi(w, fl_mpi_agree(w->mpi, st, "the snapshot was not written"),
            "snapshot");
}

/* The last snapshot's round, its bytes in w->bytes; 0: there is none. */
static uint32_t find(work *w)
{
  char name[64];
  uint64_t n;
  const fl_storage *storage = fl_host_storage(w->host);
  for (uint32_t round = w->own.rounds; storage && round > 0; round--) {
    name_of(name, sizeof name, round);
    if (storage->size(storage->user, name, &n) != FL_OK) continue;
    uint8_t *bytes = get((size_t)n, 1);
    check(storage->read(storage->user, name, 0, bytes, (size_t)n), name);
    check(fl_buffer_append(w->bytes, bytes, (size_t)n), name);
    free(bytes);
    return round;
  }
  return 0;
}

/* Rank 0's model, snapshot or not, is everybody's. Returns its round. */
static uint32_t begin(work *w)
{
  fl_writer writer;
  fl_reader reader;
  fl_buffer_clear(w->bytes);
  uint32_t round = fl_mpi_rank(w->mpi) == 0 ? find(w) : 0;
  if (fl_mpi_rank(w->mpi) == 0 && round == 0) {
    check(fl_buffer_as_writer(w->bytes, &writer), "model");
    check(fl_model_save_weights(w->model, &writer), "model");
  }
  check_mpi(w, fl_mpi_broadcast(w->mpi, w->bytes), "model");
  check(fl_buffer_as_reader(w->bytes, &reader), "model");
  check(fl_model_load_weights(w->model, &reader, 0, NULL), "snapshot");
  check(fl_model_copy_weights(w->model, w->weights, w->n), "model");
  MPI_Bcast(&round, 1, MPI_UINT32_T, 0, MPI_COMM_WORLD);
  return round;
}

/* ---- all of it ----------------------------------------------------------- */

static uint64_t hash_of(const work *w)
{
  uint64_t hash = 0xcbf29ce484222325u;
  const unsigned char *bytes = (const unsigned char *)w->weights;
  for (size_t i = 0; i < (size_t)w->n * sizeof(float); i++)
    hash = (hash ^ bytes[i]) * 0x100000001b3u;
  return hash;
}

static void run(work *w)
{
  double loss;
  for (uint32_t round = begin(w) + 1; round <= w->own.rounds; round++) {
    train_all(w, round);
    reduce(w, round);
    step(w, round);
    save(w, round);
    MPI_Reduce(&w->loss, &loss, 1, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
    if (fl_mpi_rank(w->mpi) > 0) continue;
    printf("round %u: loss %.4f\n", round, loss / w->own.clients);
    fflush(stdout);
  }
  if (fl_mpi_rank(w->mpi) == 0)
    printf("%u ranks, model %016llx\n", fl_mpi_size(w->mpi),
           (unsigned long long)hash_of(w));
}

static void open_all(work *w)
{
  fl_host_options options;
  check(fl_host_options_init(&options, sizeof options), "host");
  if (fl_mpi_rank(w->mpi) == 0) options.storage_path = w->own.folder;
  check(fl_host_new(&w->host, &options), "folder");
  check(fl_buffer_new(&w->bytes, fl_host_context(w->host)), "memory");
  make_model(w);
  const size_t n = (size_t)w->n;
  w->weights = get(n, sizeof(float));
  w->updates = get(n * (clients_here(w) + 1), sizeof(float));
  w->norms = get((size_t)w->n_norms, sizeof(float));
  w->client_norms = get((size_t)w->n_norms, sizeof(float));
  w->encoded = get(w->room, 1);
}

static void close_all(work *w)
{
  free(w->weights);
  free(w->updates);
  free(w->norms);
  free(w->client_norms);
  free(w->encoded);
  fl_buffer_free(w->bytes);
  fl_compressor_free(w->compressor);
  fl_model_free(w->model);
  fl_host_free(w->host);
}

static int read_count(const char *text, unsigned long most, uint32_t *count)
{
  char *end;
  const unsigned long value = strtoul(text, &end, 10);
  if (*text < '0' || *text > '9' || *end || value < 1 || value > most) return 0;
  *count = (uint32_t)value;
  return 1;
}

static int read_option(config *own, const char *name, const char *value)
{
  if (strcmp(name, "--rounds") == 0)
    return read_count(value, 100000, &own->rounds);
  if (strcmp(name, "--clients") == 0)
    return read_count(value, 65535, &own->clients);
  if (strcmp(name, "--folder") == 0) {
    own->folder = value;
    return 1;
  }
  if (strcmp(name, "--codec") != 0) return 0;
  own->codec = strcmp(value, "f32") == 0 ? FL_CODEC_F32 : FL_CODEC_THC;
  return own->codec == FL_CODEC_F32 || strcmp(value, "thc") == 0;
}

int main(int argc, char **argv)
{
  work w = {.own = {.rounds = 10, .clients = 16, .codec = FL_CODEC_THC}};
  if (MPI_Init(&argc, &argv) != MPI_SUCCESS) return 1;
  int is_good = argc % 2 == 1;
  for (int i = 1; is_good && i + 1 < argc; i += 2)
    is_good = read_option(&w.own, argv[i], argv[i + 1]);
  if (!is_good) {
    fputs(help, stderr);
    MPI_Abort(MPI_COMM_WORLD, 2);
  }
  fl_status st = fl_mpi_new(&w.mpi, MPI_COMM_WORLD);
  if (st != FL_OK) fail("MPI", fl_mpi_last_error());
  open_all(&w);
  run(&w);
  close_all(&w);
  fl_mpi_free(w.mpi);
  MPI_Finalize();
  return 0;
}
