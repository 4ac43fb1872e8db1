/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a run begins with: the model (the MLP of the quick start unless a
 * description is given), the test data, and the server, new or restored.
 */
#include "fl_aggregator/setup.h"

#include <err.h>
#include <stdio.h>
#include <stdlib.h>

#include "fl_aggregator/enrol.h"

enum {
  MAX_DESCRIPTION = 256 * 1024,
  SIDE = 28,
  CLASSES = 10,
  DOWNLOAD_CHUNK = 28 * 1024 /* fits into a connection's buffer (http.c) */
};

/* Fashion-MNIST's pixels have mean .286 and deviation .353. */
static const float pixel_mean = .286f;
static const float pixel_deviation = .353f;

static void add_dense(fl_model_builder *builder, uint32_t number,
                      uint32_t width)
{
  char name[16];
  snprintf(name, sizeof name, "fc%u", number);
  fl_model_builder_dense(builder, name, width);
}

static fl_status build_mlp(fl_model **model, const struct hidden_config *hidden)
{
  const uint64_t dims[] = {SIDE, SIDE};
  fl_model_builder *builder = NULL;
  fl_status st = fl_model_builder_new(&builder, NULL);
  if (st != FL_OK) return st;
  /* A builder keeps its first error, so only build is checked. */
  fl_model_builder_input(builder, dims, 2, 1.0f / (255.0f * pixel_deviation),
                         -pixel_mean / pixel_deviation);
  fl_model_builder_flatten(builder, "flatten");
  for (uint32_t i = 1; i <= hidden->n; i++) {
    char relu[16];
    add_dense(builder, i, hidden->widths[i - 1]);
    snprintf(relu, sizeof relu, "relu%u", i);
    fl_model_builder_relu(builder, relu);
  }
  add_dense(builder, hidden->n + 1, CLASSES);
  fl_model_builder_softmax_cross_entropy(builder, "loss");
  st = fl_model_builder_build(builder, model);
  fl_model_builder_free(builder);
  return st;
}

static int load_described(fl_model **model, const char *path)
{
  static uint8_t bytes[MAX_DESCRIPTION + 1];
  FILE *file = fopen(path, "rbe");
  if (!file) {
    warn("%s", path);
    return -1;
  }
  size_t n = fread(bytes, 1, sizeof bytes, file);
  if (ferror(file)) {
    warn("%s", path);
    fclose(file);
    return -1;
  }
  fclose(file);
  if (n > MAX_DESCRIPTION) {
    warnx("%s: got more than %d bytes", path, MAX_DESCRIPTION);
    return -1;
  }
  if (fl_model_from_description(model, NULL, bytes, n) == FL_OK) return 0;
  warnx("%s: %s", path, fl_last_error());
  return -1;
}

int setup_model(fl_model **model, const struct config *config)
{
  struct hidden_config hidden;
  if (config_hidden(config, &hidden) != 0) return -1;
  if (*config->model_description) {
    if (load_described(model, config->model_description) != 0) return -1;
  } else if (build_mlp(model, &hidden) != FL_OK) {
    warnx("model: %s", fl_last_error());
    return -1;
  }
  if (fl_model_init_weights(*model, config->seed) == FL_OK) return 0;
  warnx("model: %s", fl_last_error());
  return -1;
}

int setup_test_data(struct idx_set *test, const fl_model *model,
                    const struct config *config)
{
  char error[SETTING_TEXT_BYTES + 256];
  if (!*config->test_data) return 0;
  if (idx_load(test, config->test_data, "t10k", error, sizeof error) != 0) {
    warnx("test data: %s", error);
    return -1;
  }
  if (test->sample_size != fl_model_input_count(model)) {
    warnx("test data: %u values per sample, the model wants %llu",
          test->sample_size, (unsigned long long)fl_model_input_count(model));
    return -1;
  }
  return 0;
}

static const uint64_t ms_ns = 1000000;

struct restored {
  fl_server *server;
  const fl_server_options *options;
};

static fl_status restore_server(const fl_reader *reader, void *user)
{
  struct restored *restored = user;
  return fl_server_restore(&restored->server, NULL, restored->options, reader);
}

/* What was restored has to be of this model: else it is freed, and NULL. */
static fl_server *check_model(fl_server *server, const fl_model *model,
                              const char *path)
{
  fl_job_status status;
  fl_job_status_init(&status, sizeof status);
  if (fl_server_get_status(server, 0, &status) != FL_OK) {
    warnx("%s: %s (--fresh begins anew)", path, fl_last_error());
  } else if (status.n_weights != fl_model_weight_count(model)) {
    warnx("%s: holds another model: got %llu weights, want %llu (--fresh "
          "begins anew)",
          path, (unsigned long long)status.n_weights,
          (unsigned long long)fl_model_weight_count(model));
  } else {
    return server;
  }
  fl_server_free(server);
  return NULL;
}

/* Whether there is something to go on from: 1, 0, or -1 with a line on stderr;
 * then *server is it, or NULL with a line on stderr. */
static int restore(fl_server **server, const fl_model *model,
                   const struct kept *kept, const struct config *config,
                   const fl_server_options *options)
{
  struct restored restored = {.options = options};
  if (kept->store) {
    const fl_status st = fl_server_recover(&restored.server, NULL, options);
    if (st == FL_E_NOT_FOUND) return 0;
    if (st != FL_OK)
      warnx("%s: %s (--fresh begins anew)", config->state, fl_last_error());
    if (st == FL_OK)
      *server = check_model(restored.server, model, config->state);
    return 1;
  }
  if (!kept->snapshot->host || config->fresh) return 0;
  int is_there = stored_exists(kept->snapshot);
  if (is_there == 0) return 0;
  if (is_there < 0 ||
      stored_load(kept->snapshot, restore_server, &restored) != FL_OK) {
    warnx("%s: %s (--fresh begins anew)", config->snapshot,
          kept->snapshot->error);
    return is_there;
  }
  *server = check_model(restored.server, model, config->snapshot);
  return 1;
}

static uint32_t count_modules(const fl_model *model)
{
  const uint32_t n = fl_model_segment_count(model);
  uint32_t *modules = calloc(n, sizeof *modules);
  uint32_t count = 0;
  if (modules && fl_model_copy_segment_modules(model, modules, n) == FL_OK)
    for (uint32_t s = 0; s < n; s++)
      if (modules[s] >= count) count = modules[s] + 1;
  free(modules);
  return count;
}

fl_server *setup_server(const fl_model *model, const struct kept *kept,
                        const struct config *config, int *is_restored)
{
  fl_server *server = NULL;
  fl_server_options options;
  fl_job_options job_options;
  fl_compressor_options codec;
  struct freeze_config freeze;
  fl_strategy_options strategy;
  uint8_t server_key[FL_PUBLIC_KEY_BYTES];
  fl_selection_options selection;
  uint32_t job = 0;
  fl_server_options_init(&options, sizeof options);
  options.store = kept->store;
  options.commit_window_ns = config->commit_ms * ms_ns;
  enrol_options(config, &options, server_key);
  options.staging_cap = config->staging_mb << 20;
  options.chunk_size = DOWNLOAD_CHUNK;
  const int is_there = restore(&server, model, kept, config, &options);
  *is_restored = is_there > 0;
  if (is_there != 0) return enrol_load(server, config);
  config_job(config, &job_options, &codec, &strategy);
  const int freezes = config_freeze(config, count_modules(model), &freeze);
  if (freezes < 0) return NULL;
  if (config_selection(config, &selection)) job_options.selection = &selection;
  if (freezes) job_options.freeze = &freeze.options;
  if (fl_server_new(&server, NULL, &options) == FL_OK &&
      fl_server_add_job(server, model, &job_options, &job) == FL_OK)
    return enrol_load(server, config);
  warnx("server: %s", fl_last_error());
  fl_server_free(server);
  return NULL;
}
