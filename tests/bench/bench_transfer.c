/* SPDX-License-Identifier: Apache-2.0 */
/* What a client and a server hold in memory while a model goes down and an
 * update comes up, in multiples of the model (4 bytes a value): `now` when the
 * step is over, `peak` the most so far, and the CPU time of both. One client,
 * whose update lies outside. With a folder for its files also a client whose
 * model is paged (fl/paged.h), and is trained 100,000 weights at a time.
 *
 *   bench_transfer [WEIGHTS [FOLDER]] */
#include <fl/client.h>
#include <fl/paged.h>
#include <fl/server.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "adapters/host/storage.h"
#include "base/compiler.h"
#include "base/error.h"

typedef struct bench {
  uint64_t n;
  float *update;
  fl_model *model;
  fl_context *below, *above; /* of the client, of the server */
  const char *folder;        /* of a paged model; NULL: in memory */
  fli_host_storage *storage;
  fl_paged *paged;
  fl_client *client;
  fl_server *server;
  uint64_t now_ns;
  clock_t since; /* the step began */
} bench;

/* The client's context, and where its model lies. */
static fl_status begin_below(bench *b, fl_client_options *options)
{
  fl_status st = FL_OK;
  fl_storage hooks;
  fl_context_options context;
  fl_paged_options paged;
  if (!b->folder) return fl_context_new(&b->below, NULL);
  FLI_TRY(fli_host_storage_new(&b->storage, b->folder));
  fli_host_storage_hooks(b->storage, &hooks);
  FLI_TRY(fl_context_options_init(&context, sizeof context));
  context.storage = &hooks;
  FLI_TRY(fl_context_new(&b->below, &context));
  FLI_TRY(fl_paged_options_init(&paged, sizeof paged));
  paged.name = "bench";
  FLI_TRY(fl_paged_new(&b->paged, b->below, &paged));
  options->paged = b->paged;
out:
  return st;
}

static fl_status begin(bench *b, uint32_t codec_id, uint32_t feedback)
{
  fl_status st = FL_OK;
  fl_model_builder *builder = NULL;
  fl_compressor_options codec;
  fl_job_options job;
  fl_client_options options;
  FLI_TRY(fl_context_new(&b->above, NULL));
  FLI_TRY(fl_model_builder_new(&builder, NULL));
  FLI_TRY(fl_model_builder_tensor(builder, "w", &b->n, 1, 1));
  FLI_TRY(fl_model_builder_build(builder, &b->model));
  FLI_TRY(fl_compressor_options_init(&codec, sizeof codec));
  codec.codec = codec_id;
  FLI_TRY(fl_job_options_init(&job, sizeof job));
  job.codec = &codec;
  job.rounds = 2;
  job.error_feedback = feedback;
  FLI_TRY(fl_server_new(&b->server, b->above, NULL));
  FLI_TRY(fl_server_add_job(b->server, b->model, &job, NULL));
  FLI_TRY(fl_client_options_init(&options, sizeof options));
  options.client_id = "one";
  FLI_TRY(begin_below(b, &options));
  FLI_TRY(fl_client_new(&b->client, b->below, &options));
out:
  fl_model_builder_free(builder);
  return st;
}

static void end(bench *b)
{
  fl_client_free(b->client);
  if (b->paged) (void)fl_paged_remove(b->paged);
  fl_paged_free(b->paged);
  b->paged = NULL;
  fl_server_free(b->server);
  fl_model_free(b->model);
  fl_context_free(b->below);
  fli_host_storage_free(b->storage);
  b->storage = NULL;
  fl_context_free(b->above);
}

static void print(bench *b, const char *codec, const char *step)
{
  uint64_t now[2] = {0}, peak[2] = {0};
  const double model = 4. * (double)b->n;
  (void)fl_context_get_memory(b->below, &now[0], &peak[0]);
  (void)fl_context_get_memory(b->above, &now[1], &peak[1]);
  printf("%-12s %-9s client now %5.2f peak %5.2f  server now %5.2f peak "
         "%5.2f  %6.1f ms\n",
         codec, step, (double)now[0] / model, (double)peak[0] / model,
         (double)now[1] / model, (double)peak[1] / model,
         1e3 * (double)(clock() - b->since) / CLOCKS_PER_SEC);
  b->since = clock();
}

/* Up and down until an event of this kind. */
static fl_status until(bench *b, uint32_t kind)
{
  fl_status st = FL_OK;
  const uint8_t *data = NULL;
  size_t n = 0;
  fl_client_event event;
  for (int i = 0; i < 1000000; i++) {
    FLI_TRY(fl_client_event_init(&event, sizeof event));
    FLI_TRY(fl_client_poll(b->client, b->now_ns, &event));
    if (event.kind == kind) return FL_OK;
    if (event.kind != FL_CLIENT_IDLE) continue;
    FLI_TRY(fl_client_send(b->client, &data, &n));
    FLI_TRY(fl_server_recv(b->server, 1, data, n));
    FLI_TRY(fl_server_send(b->server, 1, &data, &n));
    FLI_TRY(fl_client_recv(b->client, data, n));
    FLI_TRY(fl_server_tick(b->server, b->now_ns += 1000));
  }
  st = fli_error(FL_E_STATE, "no event %u", kind);
out:
  return st;
}

static fl_status train_paged(bench *b)
{
  enum { PIECE = 100000 };
  static float weights[PIECE];
  fl_status st = FL_OK;
  for (uint64_t at = 0; at < b->n && st == FL_OK; at += PIECE) {
    const uint64_t n = b->n - at < PIECE ? b->n - at : PIECE;
    FLI_TRY(fl_paged_read(b->paged, at, n, weights));
    for (uint64_t i = 0; i < n; i++)
      weights[i] += b->update[at + i];
    st = fl_paged_write(b->paged, at, n, weights);
  }
out:
  return st;
}

static fl_status run(bench *b, const char *name)
{
  fl_status st = FL_OK;
  fl_train_result result;
  FLI_TRY(until(b, FL_CLIENT_JOINED));
  print(b, name, "joined");
  FLI_TRY(until(b, FL_CLIENT_NEED_TRAIN));
  print(b, name, "download");
  FLI_TRY(fl_train_result_init(&result, sizeof result));
  if (b->paged) {
    FLI_TRY(train_paged(b));
  } else {
    result.update = b->update;
    result.n = b->n;
  }
  FLI_TRY(fl_client_submit(b->client, &result));
  print(b, name, "trained");
  FLI_TRY(until(b, FL_CLIENT_ACCEPTED));
  print(b, name, "upload");
  FLI_TRY(until(b, FL_CLIENT_NEED_TRAIN));
  print(b, name, "next");
out:
  return st;
}

int main(int argc, char **argv)
{
  static const struct {
    const char *name;
    uint32_t codec, feedback;
  } codecs[] = {
      {"f32", FL_CODEC_F32, 0},       {"bf16", FL_CODEC_BF16, 0},
      {"thc", FL_CODEC_THC, 0},       {"thc feedback", FL_CODEC_THC, 1},
      {"f32 paged", FL_CODEC_F32, 0}, {"bf16 paged", FL_CODEC_BF16, 0},
      {"thc paged", FL_CODEC_THC, 0}};
  enum { IN_MEMORY = 4 };
  const size_t n_codecs = argc > 2 ? FLI_COUNT_OF(codecs) : IN_MEMORY;
  bench b = {.n = argc > 1 ? strtoull(argv[1], NULL, 10) : 2000000};
  b.update = malloc((size_t)b.n * sizeof *b.update);
  if (!b.update || b.n < 1) return 1;
  for (uint64_t i = 0; i < b.n; i++)
    b.update[i] = (float)(i % 1001) / 1001.f - .5f;
  for (size_t i = 0; i < n_codecs; i++) {
    b.folder = i < IN_MEMORY ? NULL : argv[2];
    fl_status st = begin(&b, codecs[i].codec, codecs[i].feedback);
    if (st == FL_OK) st = run(&b, codecs[i].name);
    if (st != FL_OK) {
      fprintf(stderr, "bench_transfer: %s\n", fl_last_error());
      return 1;
    }
    end(&b);
  }
  free(b.update);
  return 0;
}
