/* SPDX-License-Identifier: Apache-2.0 */
/* A factorisation machine with a net beside it, and the table that its rows
 * are in. */
#ifndef RECOMMENDER_MODEL_H
#define RECOMMENDER_MODEL_H

#include <fl/embedding.h>
#include <fl/host.h>

#include "recommender/config.h"

struct recommender {
  fl_host *host;
  fl_model *model;
  fl_embedding *store;
  uint32_t table;
};

/* Make one for rows of `n_fields` ids, whose table has all rows with a
 * budget of 0 bytes. FL_E_IO with a line on standard error, or why it failed.
 * Free with recommender_close in any case. */
fl_status recommender_open(struct recommender *recommender,
                           const struct config *config, uint32_t n_fields,
                           uint64_t budget);
/* The same for server and devices: the net by plain SGD, and the model has no
 * rows yet. */
fl_status recommender_open_federated(struct recommender *recommender,
                                     const struct config *config,
                                     uint32_t n_fields, uint64_t budget);
/* A table alone; the caller frees it. */
fl_status recommender_store(fl_embedding **out, fl_host *host,
                            const struct config *config, uint64_t budget,
                            uint32_t optimiser, float decay);
void recommender_close(struct recommender *recommender);

/* Can files be at `path`, and at the same with .net behind it? 0, or -1 with a
 * line on standard error. */
int recommender_check(const char *path);
/* Write rows to `path` and the net to `path`.net, and read them back into one
 * of the same fields and budget. 0, or -1 with a line on standard error. */
int recommender_save(const struct recommender *recommender, const char *path);
int recommender_load(struct recommender *recommender,
                     const struct config *config, uint32_t n_fields,
                     uint64_t budget);

#endif
