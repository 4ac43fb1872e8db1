/* SPDX-License-Identifier: Apache-2.0 */
/* From PyTorch's order of weights to panels and back. The widths of panels are
 * those of the instruction set; all of them come in eights, so that a pixel of
 * outputs is whole panels. */
#include "linalg/conv_panels.h"

#include "linalg/conv.h"
#include "linalg/sizes.h"

size_t fli_panel_columns(size_t channels)
{
  return fli_round_up(channels, FLI_CONV_LANES);
}

int fli_panel_kind(const flk_nn_table *kernels, size_t columns_left)
{
  for (int kind = FLK_PANEL_TWO; kind > FLK_PANEL_HALF; kind--) {
    if (columns_left >= kernels->width[kind]) return kind;
  }
  return FLK_PANEL_HALF;
}

size_t fli_panel_size(const fli_panel_weights *layout)
{
  return layout->kernel_height * layout->kernel_width * layout->n_depth *
         fli_panel_columns(layout->n_columns);
}

/* Where columns from `column` on are, from the first one of all. */
static void find_columns(const fli_panel_weights *layout, size_t column,
                         size_t n, ptrdiff_t *places)
{
  for (size_t j = 0; j < n; j++) {
    size_t group = layout->together ? (column + j) / layout->together : 0;
    size_t rest = column + j - group * layout->together;
    places[j] = (ptrdiff_t)group * layout->next +
                (ptrdiff_t)rest * layout->panel_column;
  }
}

static void pack_panel(const fli_panel_weights *layout, const float *at,
                       const ptrdiff_t *places, size_t columns, size_t width,
                       float *packed)
{
  for (size_t t = 0; t < layout->kernel_height; t++) {
    for (size_t u = 0; u < layout->kernel_width; u++) {
      const float *src =
          at + (ptrdiff_t)t * layout->row + (ptrdiff_t)u * layout->column;
      for (size_t k = 0; k < layout->n_depth; k++) {
        for (size_t j = 0; j < columns; j++) {
          packed[j] = src[places[j]];
        }
        for (size_t j = columns; j < width; j++) {
          packed[j] = 0.0f;
        }
        src += layout->depth;
        packed += width;
      }
    }
  }
}

static void unpack_panel(const fli_panel_weights *layout, const float *packed,
                         size_t columns, size_t width, float *at)
{
  for (size_t t = 0; t < layout->kernel_height; t++) {
    for (size_t u = 0; u < layout->kernel_width; u++) {
      float *dst =
          at + (ptrdiff_t)t * layout->row + (ptrdiff_t)u * layout->column;
      for (size_t k = 0; k < layout->n_depth; k++) {
        for (size_t j = 0; j < columns; j++) {
          dst[(ptrdiff_t)j * layout->panel_column] = packed[j];
        }
        dst += layout->depth;
        packed += width;
      }
    }
  }
}

/* Columns of the panel at `column`, of those that there are. */
static size_t columns_in(const fli_panel_weights *layout, size_t column,
                         size_t width)
{
  size_t left = layout->n_columns - column;
  return fli_min_size(left, width);
}

void fli_panel_pack(const fli_panel_weights *layout,
                    const flk_nn_table *kernels, const float *weights,
                    float *packed)
{
  ptrdiff_t places[FLK_PANEL_MAX];
  size_t end = fli_panel_columns(layout->n_columns);
  size_t depth = fli_panel_size(layout) / end;
  for (size_t column = 0; column < end;) {
    size_t width = kernels->width[fli_panel_kind(kernels, end - column)];
    size_t columns = columns_in(layout, column, width);
    find_columns(layout, column, columns, places);
    pack_panel(layout, weights, places, columns, width,
               packed + column * depth);
    column += width;
  }
}

void fli_panel_unpack(const fli_panel_weights *layout,
                      const flk_nn_table *kernels, const float *packed,
                      float *weights)
{
  size_t end = fli_panel_columns(layout->n_columns);
  size_t depth = fli_panel_size(layout) / end;
  for (size_t column = 0; column < end;) {
    size_t width = kernels->width[fli_panel_kind(kernels, end - column)];
    unpack_panel(layout, packed + column * depth,
                 columns_in(layout, column, width), width,
                 weights + (ptrdiff_t)column * layout->panel_column);
    column += width;
  }
}
