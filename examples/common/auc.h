/* SPDX-License-Identifier: Apache-2.0 */
/* Area under the ROC curve. */
#ifndef EXAMPLES_AUC_H
#define EXAMPLES_AUC_H

#include <stddef.h>
#include <stdint.h>

/* The share of pairs of a label 1 and a label 0 in which the former has the
 * higher score; equal scores count half (Mann and Whitney's U). Returns 0; -1
 * out of memory; -2 when a score is NaN or a label is missing, and *auc is .5
 * then. */
int auc_of(const float *scores, const uint8_t *labels, size_t n, double *auc);

#endif
