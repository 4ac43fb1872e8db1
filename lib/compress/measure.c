/* SPDX-License-Identifier: Apache-2.0 */
/* Norms of the weighted update: what participants exchange before they
 * encode. A norm is the length of a unit (THC) or of a segment, rounded up to
 * the bf16 grid, so that whoever is at the maximum need not scale down. */
#include "compress/measure.h"

#include <math.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"

float fli_update_weight(uint64_t samples, uint64_t cap)
{
  if (cap == 0 || samples >= cap) return 1.0f;
  return (float)((double)samples / (double)cap);
}

static const float *at(const fli_measuring *m, uint64_t offset)
{
  return m->x + (offset - m->x_first);
}

static void measure_plain(const fli_measuring *m, uint64_t first, uint64_t last)
{
  const fl_compressor *compressor = m->compressor;
  for (; first < last; first++) {
    fli_unit unit = fli_layout_unit(&compressor->layout, m->segment, first);
    m->squares[first] =
        compressor->kernels->sum_squares(at(m, unit.offset), unit.n);
  }
}

/* Whole neighbourhoods, read from front to back: those that begin in
 * [first, last). */
static void measure_units(void *arg, uint64_t first, uint64_t last)
{
  const fli_measuring *m = arg;
  const fli_layout *layout = &m->compressor->layout;
  while (first < last) {
    fli_unit unit = fli_layout_unit(layout, m->segment, first);
    if (!layout->is_rotated || !fli_unit_is_full(&unit)) {
      measure_plain(m, first, last);
      return;
    }
    if (fli_unit_is_first(&unit)) {
      flk_lines lines = fli_layout_neighbours(&unit);
      m->compressor->kernels->sum_squares_group(m->squares + first,
                                                at(m, unit.offset), &lines);
    }
    first += unit.left;
  }
}

void fli_measure_segment(fli_measuring *m, uint32_t segment)
{
  m->segment = segment;
  fli_for_segment(&m->compressor->layout, segment, measure_units, m);
}

void fli_measure_window(fli_measuring *m, uint32_t segment,
                        const fli_window *window)
{
  m->segment = segment;
  measure_units(m, window->first, window->last);
}

double fli_segment_length(const fli_measuring *m, uint32_t segment)
{
  const fli_segment *s = &m->compressor->layout.segments[segment];
  double sum = 0.0;
  for (uint64_t k = 0; k < fli_segment_units(s); k++) {
    sum += m->squares[s->first_unit + k];
  }
  return sqrt(sum) * (double)m->weight;
}

static fl_status check_values(const fli_measuring *m, uint64_t offset, size_t n)
{
  const float *x = at(m, offset);
  const size_t i = m->compressor->kernels->find_not_finite(x, n);
  if (i == n) return FL_OK;
  return fli_error(FL_E_NOT_FINITE, "coordinate %llu: got %g",
                   (unsigned long long)(offset + i), (double)x[i]);
}

fl_status fli_check_window(const fli_measuring *m, const fli_window *window)
{
  return check_values(m, window->offset, window->n);
}

fl_status fli_check_finite(const fli_measuring *m, uint32_t segment)
{
  const fli_segment *s = &m->compressor->layout.segments[segment];
  return check_values(m, s->offset, (size_t)s->n);
}

/* Length number k of a segment that was measured. */
static double length_of(const fli_measuring *m, uint32_t segment, uint64_t k)
{
  const fli_layout *layout = &m->compressor->layout;
  if (!layout->is_rotated) return fli_segment_length(m, segment);
  double squares = m->squares[layout->segments[segment].first_unit + k];
  return sqrt(squares) * (double)m->weight;
}

/* Every length of a segment as a norm: checked when `norms` is NULL, stored
 * otherwise. */
static fl_status segment_norms(const fli_measuring *m, uint32_t segment,
                               float *norms)
{
  const fli_layout *layout = &m->compressor->layout;
  const fli_segment *s = &layout->segments[segment];
  uint64_t first = layout->is_rotated ? s->first_unit : segment;
  uint64_t n = layout->is_rotated ? fli_segment_units(s) : 1;
  for (uint64_t k = 0; k < n; k++) {
    double length = length_of(m, segment, k);
    float norm = fli_norm_round_up(length);
    if (norms) {
      norms[first + k] = norm;
    } else if (!isfinite(length)) {
      return fli_check_finite(m, segment);
    } else if (norm > FLI_NORM_MAX) {
      return fli_error(FL_E_RANGE, "norm %llu: got %g, want <= 2^127",
                       (unsigned long long)(first + k), length);
    }
  }
  return FL_OK;
}

fl_status fli_measured_norms(const fli_measuring *m, uint32_t segment,
                             float *norms)
{
  const fl_status st = segment_norms(m, segment, NULL);
  return st == FL_OK ? segment_norms(m, segment, norms) : st;
}

static fl_status measure(fli_measuring *m, float *norms)
{
  fl_status st = FL_OK;
  fl_context *context = m->compressor->context;
  const fli_layout *layout = &m->compressor->layout;
  size_t n_units = (size_t)layout->n_units;
  m->squares = fli_alloc(context, n_units, sizeof(double));
  if (!m->squares) return fli_nomem(n_units * sizeof(double));
  for (uint32_t s = 0; s < layout->n_segments; s++) {
    fli_measure_segment(m, s);
    FLI_TRY(segment_norms(m, s, NULL));
  }
  for (uint32_t s = 0; norms && s < layout->n_segments; s++) {
    FLI_TRY(segment_norms(m, s, norms));
  }
out:
  fli_free(context, m->squares, n_units * sizeof(double));
  return st;
}

fl_status fli_measure(const fl_compressor *compressor, const float *x,
                      float weight, float *norms)
{
  fli_measuring m = {.compressor = compressor, .x = x, .weight = weight};
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  fl_status st = measure(&m, norms);
  fli_fpguard_leave(&guard);
  return st;
}

fl_status fl_compressor_measure(const fl_compressor *compressor,
                                const fl_scale *scale, uint64_t samples,
                                const float *x, uint64_t n, float *norms,
                                uint64_t n_norms)
{
  fli_clear_error();
  fl_scale local;
  if (!compressor || !x || !norms) {
    return fli_error(FL_E_ARGUMENT, "measure: got NULL");
  }
  fl_status st = fli_scale_load(&local, scale);
  if (st != FL_OK) return st;
  if (samples == 0) {
    return fli_error(FL_E_ARGUMENT, "measure: samples, got 0, want >= 1");
  }
  if (n != compressor->layout.dim ||
      n_norms != fl_compressor_norm_count(compressor)) {
    return fli_error(FL_E_DIM,
                     "measure: got %llu values and %llu norms, want %llu, %llu",
                     (unsigned long long)n, (unsigned long long)n_norms,
                     (unsigned long long)compressor->layout.dim,
                     (unsigned long long)fl_compressor_norm_count(compressor));
  }
  return fli_measure(compressor, x,
                     fli_update_weight(samples, local.weight_cap), norms);
}
