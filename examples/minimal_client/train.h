/* SPDX-License-Identifier: Apache-2.0 */
/* The trainer of the smallest client, and its data: the library's, or the
 * host's own. */
#ifndef EXAMPLES_TRAIN_H
#define EXAMPLES_TRAIN_H

#include <fl/client.h>

/* Take the bytes of two IDX files, which stay. Returns the number of samples,
 * 0 when there is something wrong with them. */
uint64_t trainer_open(const uint8_t *images, size_t images_size,
                      const uint8_t *labels, size_t labels_size);
/* The server has described the model. 0, or -1: it is none for this data. */
int trainer_describe(const uint8_t *description, size_t n);
/* Train on one task (an fl_train_fn; `user` is not used). */
fl_status trainer_train(const fl_train_task *task, fl_train_result *result,
                        void *user);
void trainer_close(void);

#endif
