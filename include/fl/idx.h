/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file idx.h
 * Data sets in IDX files (the MNIST family), from memory: the core has no
 * files, so reading, unpacking or mapping them is the host's. Values are
 * borrowed, not copied.
 */
#ifndef FL_IDX_H
#define FL_IDX_H

#include <fl/model.h>

#ifdef __cplusplus
extern "C" {
#endif

/** One IDX file of unsigned bytes. */
typedef struct fl_idx {
  uint32_t struct_size;
  uint32_t n_dims;            /**< 1..FL_MAX_DIMS */
  uint64_t dims[FL_MAX_DIMS]; /**< each >= 1; the first counts samples */
  uint64_t count;             /**< values: the product of dims */
  const uint8_t *values;      /**< borrowed from the file's bytes */
} fl_idx;
/** Set the defaults: no values. FL_E_OPTIONS. */
FL_API fl_status fl_idx_init(fl_idx *idx, size_t size);

/** Find dimensions and values in the bytes of a file (unpacked, whole, and
 * nothing behind it); hostile bytes are fine.
 *
 * @param idx  From fl_idx_init; untouched on failure.
 * @param data  `n` bytes; has to stay as long as `idx` is used.
 * @return FL_OK; FL_E_TRUNCATED: header or values are not all there yet, and
 * the text says how many bytes are wanted; FL_E_FORMAT: no IDX file, or it goes
 * on; FL_E_UNSUPPORTED: other values than unsigned bytes; FL_E_RANGE: a
 * dimension of 0; FL_E_TOO_LARGE: more than FL_MAX_DIMS dimensions, or a
 * product above 2^64 - 1.
 * Ownership: `idx` borrows `data`.  Thread-safety: any thread.
 * Determinism: D0. */
FL_API fl_status fl_idx_parse(fl_idx *idx, const void *data, size_t n);

/** Make a data set of images and their labels. Nothing but the labels is
 * copied: `data` borrows the images' values and `y`. Its sample_size says how
 * many pixels an image has, so that a model that takes others refuses it.
 *
 * @param data  From fl_dataset_init; x_dtype, x, y, n and sample_size are set,
 * the rest is cleared.
 * @param images  Of any dimensions, the first of which counts samples.
 * @param labels  One dimension, 0..255; NULL with y NULL = no labels (predict).
 * @param y  Written: the labels, of which y[0 .. images->dims[0] - 1].
 * @param y_count  Room in `y`, labels.
 * @return FL_OK; FL_E_ARGUMENT: only one of labels and y is NULL; FL_E_DIM: not
 * one label for each image; FL_E_SIZE: y_count; FL_E_EMPTY: no values, want
 * what fl_idx_parse found. `data` and `y` are untouched on failure.
 * Ownership: see above.  Thread-safety: any thread.  Determinism: D0. */
FL_API fl_status fl_dataset_from_idx(fl_dataset *data, const fl_idx *images,
                                     const fl_idx *labels, int32_t *y,
                                     uint64_t y_count);

#ifdef __cplusplus
}
#endif
#endif
