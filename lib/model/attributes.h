/* SPDX-License-Identifier: Apache-2.0 */
/* Shapes, and what each kind of node is told beside its inputs. */
#ifndef FLI_ATTRIBUTES_H
#define FLI_ATTRIBUTES_H

#include <fl/model.h>

/* Largest dimension, and largest number of elements of anything counted. */
#define FLI_MAX_DIM (UINT64_C(1) << 32)
#define FLI_MAX_ELEMENTS (UINT64_C(1) << 31)

/* Shape of one sample, or of a tensor; count = product of dims. Samples of
 * three dimensions are images, named [channels, height, width] as everywhere,
 * and stored [height][width][pixel] with a pixel's channels side by side,
 * pixel >= channels. */
typedef struct fli_shape {
  uint32_t n_dims;
  uint64_t dims[FL_MAX_DIMS];
  uint64_t count;
  uint64_t pixel; /* 0: row-major as dims say */
} fli_shape;

/* Floats that a sample takes. */
static inline uint64_t fli_shape_floats(const fli_shape *shape)
{
  if (shape->pixel == 0) return shape->count;
  return shape->dims[1] * shape->dims[2] * shape->pixel;
}

/* What the model's input may be beside numbers. */
enum {
  FLI_IDS_NONE,
  FLI_IDS_OF_TABLE, /* I32, places in a table */
  FLI_IDS_ANY       /* U64, or I32 from 0 on */
};

typedef union fli_attributes {
  struct {
    fli_shape shape;
    float scale;
    float shift;
    int takes_ids; /* FLI_IDS_*; set by the embedding behind it */
  } input;
  struct {
    uint64_t units;
    uint64_t rank; /* of LoRA's update */
    float alpha;
  } dense;
  struct {
    uint32_t kind; /* FL_ACTIVATION_* */
  } activation;
  struct {
    float rate;
  } dropout;
  struct {
    uint64_t rows;
    uint64_t width;
  } embedding;
  struct {
    uint64_t width;
  } sparse;
  struct {
    uint32_t groups;
    float epsilon;
  } norm;
  struct {
    uint32_t heads;
    int32_t is_causal;
  } attention;
  struct {
    uint32_t filters;
    uint32_t height, width; /* of the kernel */
    uint32_t stride, padding, groups;
  } conv;
  struct {
    uint32_t kind; /* FL_POOL_* */
    uint32_t size, stride, padding;
  } pool;
  struct {
    int32_t ignore;
    float smoothing;
  } cross_entropy;
  struct {
    fli_shape shape;
    int32_t is_trainable;
  } tensor;
} fli_attributes;

#endif
