/* SPDX-License-Identifier: Apache-2.0 */
/* What the trainings of this folder share: images to train and to test on, a
 * host with threads, Ctrl-C, and files of weights. */
#ifndef EXAMPLES_IMAGES_H
#define EXAMPLES_IMAGES_H

#include <fl/fl.h>
#include <fl/host.h>

#include "common/idx.h"

struct images {
  struct idx_set train;
  struct idx_set test;
};

/* 0, or -1 with a line on standard error. Samples have 28 x 28 pixels and
 * labels below 10, or it fails. */
int images_load(struct images *images, const char *dir);
void images_free(struct images *images);

/* A context with `threads` threads, and the folder `storage` unless it is NULL;
 * NULL with a line on standard error. */
fl_host *host_open(uint64_t threads, const char *storage);

/* A flag that SIGINT and SIGTERM raise; NULL when out of memory. Made once. */
fl_cancel *stop_flag(void);

/* Share of `data` that the model puts into the right class. */
fl_status accuracy_of(fl_model *model, const fl_dataset *data, double *share);

/* Bytes of one update of the model, as thc sends it, without what is frozen. */
fl_status update_size(const fl_model *model, uint64_t *size);

/* Weights to and from a safetensors file: 0, or -1 with a line on standard
 * error. */
int weights_save(fl_model *model, const char *path);
int weights_load(fl_model *model, const char *path);

#endif
