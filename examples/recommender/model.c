/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fm(v) + net(v), v being one row for each field (DeepFM: Guo et al., 2017).
 * The rows are no tensor of the model: ids are numbers of 64 bits, and a store
 * gives them rows while they are worth their bytes. Rows and net are saved
 * apart.
 */
#include "recommender/model.h"

#include <err.h>
#include <stdio.h>

#include <fl/layers.h>

#include "common/images.h"
#include "common/stored.h"

enum { HIDDEN = 64 };
#define DECAY .98f /* of what rows are worth, per adjust */

/* The builder keeps the first error, so that one look at the end will do. */
static fl_status build(struct recommender *r, uint64_t dim, uint64_t n_fields)
{
  fl_model_builder *b = NULL;
  fl_status st = fl_model_builder_new(&b, fl_host_context(r->host));
  if (st != FL_OK) return st;
  fl_model_builder_input(b, &n_fields, 1, 1, 0);
  fl_model_builder_sparse_embedding(b, "rows", dim);
  fl_model_builder_factorisation_machine(b, "pairs");
  fl_model_builder_from(b, "rows");
  fl_model_builder_flatten(b, "flat");
  fl_model_builder_dense(b, "hidden", HIDDEN);
  fl_model_builder_relu(b, "relu");
  fl_model_builder_dense(b, "out", 1);
  fl_model_builder_add(b, "sum", "pairs");
  fl_model_builder_binary_cross_entropy(b, "loss");
  st = fl_model_builder_build(b, &r->model);
  fl_model_builder_free(b);
  return st;
}

static fl_status prepare_net(struct recommender *r, const struct config *config,
                             uint32_t n_fields)
{
  fl_optimiser_options optimiser;
  fl_optimiser_options_init(&optimiser, sizeof optimiser);
  optimiser.kind = FL_OPTIMISER_ADAM;
  optimiser.learning_rate = (float)config->lr;
  fl_status st = build(r, config->dim, n_fields);
  if (st == FL_OK) st = fl_model_init_weights(r->model, config->seed);
  if (st == FL_OK) st = fl_model_set_optimiser(r->model, &optimiser);
  return st;
}

/* Fields share one table: the ids tell them apart. */
fl_status recommender_store(fl_embedding **out, fl_host *host,
                            const struct config *config, uint64_t budget,
                            uint32_t optimiser, float decay)
{
  /* Every run is the same. A service that takes ids from strangers leaves it
   * NULL: nobody can choose ids that collide then. */
  static const uint8_t secret[16] = {0};
  fl_embedding_options options;
  fl_embedding_table_options table;
  uint32_t index;
  fl_embedding_options_init(&options, sizeof options);
  fl_embedding_table_options_init(&table, sizeof table);
  options.byte_budget = budget;
  options.seed = config->seed;
  options.secret = secret;
  options.optimiser = optimiser;
  options.decay = decay;
  table.dim = (uint32_t)config->dim;
  table.chunks = (uint32_t)config->chunks;
  /* A counter is a byte. */
  table.sketch_counters = (uint64_t)(config->sketch / 100 * (double)budget);
  fl_status st = fl_embedding_new(out, fl_host_context(host), &options);
  if (st == FL_OK) st = fl_embedding_add_table(*out, &table, &index);
  return st;
}

static fl_status attach(struct recommender *r, const struct config *config)
{
  fl_embedding_attach_options options;
  fl_embedding_attach_options_init(&options, sizeof options);
  options.table = r->table;
  options.rate = (float)config->rows_lr;
  return fl_embedding_attach(r->store, r->model, &options);
}

static fl_status open_parts(struct recommender *recommender,
                            const struct config *config, uint32_t n_fields,
                            uint64_t budget, float decay)
{
  *recommender = (struct recommender){0};
  recommender->host = host_open(config->threads, NULL);
  if (!recommender->host) return FL_E_IO;
  fl_status st = prepare_net(recommender, config, n_fields);
  if (st == FL_OK)
    st = recommender_store(&recommender->store, recommender->host, config,
                           budget, FL_EMBEDDING_ROW_ADAGRAD, decay);
  return st;
}

fl_status recommender_open(struct recommender *recommender,
                           const struct config *config, uint32_t n_fields,
                           uint64_t budget)
{
  fl_status st = open_parts(recommender, config, n_fields, budget, DECAY);
  return st == FL_OK ? attach(recommender, config) : st;
}

fl_status recommender_open_federated(struct recommender *recommender,
                                     const struct config *config,
                                     uint32_t n_fields, uint64_t budget)
{
  fl_optimiser_options optimiser;
  fl_optimiser_options_init(&optimiser, sizeof optimiser);
  fl_status st = open_parts(recommender, config, n_fields, budget,
                            (float)config->server_decay);
  return st == FL_OK ? fl_model_set_optimiser(recommender->model, &optimiser)
                     : st;
}

void recommender_close(struct recommender *recommender)
{
  fl_model_free(recommender->model);
  fl_embedding_free(recommender->store);
  fl_host_free(recommender->host);
}

/* ---- files --------------------------------------------------------------- */

struct loading {
  struct recommender *recommender;
  uint64_t budget;
};

static fl_status write_rows(const fl_writer *writer, void *user)
{
  return fl_embedding_save(user, writer);
}

/* The budget bounds what a file can make the call take. */
static fl_status read_rows(const fl_reader *reader, void *user)
{
  struct loading *loading = user;
  struct recommender *r = loading->recommender;
  return fl_embedding_load(&r->store, fl_host_context(r->host), reader,
                           loading->budget);
}

static const char *name_net(const char *path, char name[PATH_FOLDER_BYTES])
{
  snprintf(name, PATH_FOLDER_BYTES, "%s.net", path);
  return name;
}

int recommender_check(const char *path)
{
  struct stored stored;
  char name[PATH_FOLDER_BYTES];
  const char *const paths[] = {path, name_net(path, name)};
  for (int i = 0; i < 2; i++) {
    if (stored_open(&stored, paths[i])) return -1;
    int found = stored_exists(&stored);
    if (found < 0) warnx("%s: %s", paths[i], stored.error);
    stored_close(&stored);
    if (found < 0) return -1;
  }
  return 0;
}

int recommender_save(const struct recommender *recommender, const char *path)
{
  struct stored stored;
  char name[PATH_FOLDER_BYTES];
  if (stored_open(&stored, path)) return -1;
  fl_status st = stored_save(&stored, write_rows, recommender->store);
  if (st != FL_OK) warnx("%s: not saved: %s", path, stored.error);
  stored_close(&stored);
  if (st != FL_OK) return -1;
  return weights_save(recommender->model, name_net(path, name));
}

int recommender_load(struct recommender *recommender,
                     const struct config *config, uint32_t n_fields,
                     uint64_t budget)
{
  struct stored stored;
  struct loading loading = {recommender, budget};
  char name[PATH_FOLDER_BYTES];
  *recommender = (struct recommender){0};
  recommender->host = host_open(config->threads, NULL);
  if (!recommender->host || stored_open(&stored, config->save)) return -1;
  fl_status st = stored_load(&stored, read_rows, &loading);
  if (st != FL_OK) warnx("%s: %s", config->save, stored.error);
  stored_close(&stored);
  if (st != FL_OK) return -1;
  st = prepare_net(recommender, config, n_fields);
  if (st == FL_OK) st = attach(recommender, config);
  if (st == FL_OK)
    return weights_load(recommender->model, name_net(config->save, name));
  warnx("%s: %s", config->save, fl_last_error());
  return -1;
}
