/* SPDX-License-Identifier: Apache-2.0 */
/* Every version of the model as a file of its own, for who wants to use it. */
#ifndef FL_AGGREGATOR_PUBLISH_H
#define FL_AGGREGATOR_PUBLISH_H

#include <jansson.h>

#include <fl/model.h>

#include "common/stored.h"
#include "fl_aggregator/config.h"

struct publish {
  struct stored file; /* its folder is open when file.host is there */
  char error[256];    /* why the last call failed */
};

void publish_close(struct publish *publish);
/* Write the model of a finished round, whose log fields `row` has, to
 * model-<version>.safetensors in --models, point latest.safetensors to it, and
 * remove what is too old. The file's name, or NULL and an error. */
const char *publish_model(struct publish *publish, const struct config *config,
                          const fl_model *model, const json_t *row);

#endif
