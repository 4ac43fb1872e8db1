/* SPDX-License-Identifier: Apache-2.0 */
/* A sketch straight from the values of a THC update. The rotation is the same
 * for all clients and rounds of a job, so that a coordinate of one update is
 * that coordinate of another, and any few hundred of them, spread over the
 * blocks, are a random projection of the whole: nothing is decoded, rotated or
 * multiplied by anything but the block's norm. What dither or rounding added
 * stays in: it is noise of a cell's width in a number that gets 16 levels.
 *
 * From unit floor(j n_units / dim) comes number j: several from one unit when
 * there are fewer units than numbers, from the front of it. Units that are not
 * sent, and those of segments that the client does not train, give zeros. */
#include "server/cohorts.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/fpguard.h"
#include "compress/partial.h"
#include "compress/update.h"

/* Kernels add whole runs of this many. */
enum { RUN = 256, LEVELS = 15, DIM_MOST = 4096 };

/* Numbers [from, to) of the sketch come from this unit. */
typedef struct fli_share {
  const uint8_t *payload; /* of its segment */
  fli_unit unit;
  uint32_t from, to;
} fli_share;

static void read_unit(const fli_agreed *agreed, const fli_share *share,
                      float *numbers)
{
  const fl_compressor *compressor = agreed->compressor;
  uint8_t lanes[RUN] = {0};
  const uint8_t *src =
      share->payload + fli_payload_offset(agreed, &share->unit);
  const float norm = fli_agreed_norm(agreed, &share->unit);
  const uint32_t runs = share->unit.padded / RUN;
  for (uint32_t j = share->from; j < share->to; j++) {
    const uint32_t k = j - share->from;
    const flk_packed packed = {.src = &src,
                               .skip = (size_t)(k / RUN % runs) * RUN *
                                       compressor->bits / 8,
                               .count = 1,
                               .bits = compressor->bits,
                               .values = compressor->values};
    if (k % RUN == 0) {
      memset(lanes, 0, sizeof lanes);
      compressor->kernels->add_packed(lanes, FLK_U8, &packed, RUN);
    }
    const int centred = 2 * (int)lanes[k % RUN] - (int)compressor->granularity;
    numbers[j] = (float)centred * norm;
  }
}

static void read_units(const fli_agreed *agreed, const fli_update *update,
                       uint32_t dim, float *numbers)
{
  const fli_layout *layout = &agreed->compressor->layout;
  const uint8_t *payload = update->payload;
  for (uint32_t s = 0; s < layout->n_segments; s++) {
    const fli_segment *segment = &layout->segments[s];
    const uint64_t end = segment->first_unit + fli_segment_units(segment);
    if (!update->mask[s]) continue;
    for (uint64_t u = segment->first_unit; u < end; u++) {
      const uint64_t n = layout->n_units;
      const fli_share share = {
          .payload = payload,
          .unit = fli_layout_unit(layout, s, u),
          .from = (uint32_t)((u * dim + n - 1) / n),
          .to = (uint32_t)(((u + 1) * dim + n - 1) / n),
      };
      if (share.from == share.to || !fli_agreed_is_sent(agreed, &share.unit))
        continue;
      read_unit(agreed, &share, numbers);
    }
    payload += fli_payload_size(agreed, fli_agreed_count(agreed, s));
  }
}

static fl_status pack(const float *numbers, uint32_t dim, uint8_t *sketch)
{
  float most = 0.0f;
  for (uint32_t j = 0; j < dim; j++) {
    if (fabsf(numbers[j]) > most) most = fabsf(numbers[j]);
  }
  if (!(most > 0.0f && isfinite(most)))
    return fli_error(FL_E_RANGE, "sketch: the update has no direction");
  for (uint32_t j = 0; j < dim; j += 2) {
    const double scale = LEVELS / (2.0 * (double)most);
    const double low = ((double)numbers[j] + (double)most) * scale;
    const double high = ((double)numbers[j + 1] + (double)most) * scale;
    sketch[j / 2] = (uint8_t)((uint32_t)rint(low) | (uint32_t)rint(high) << 4);
  }
  return FL_OK;
}

fl_status fli_lane_sketch(const fli_agreed *agreed, const fli_bytes *update,
                          uint32_t dim, uint8_t *sketch)
{
  float numbers[DIM_MOST];
  fli_update view;
  fli_fpguard guard;
  fl_status st = fli_update_read(agreed, update->data, update->size, &view);
  if (st != FL_OK) return st;
  memset(numbers, 0, dim * sizeof *numbers);
  fli_fpguard_enter(&guard);
  read_units(agreed, &view, dim, numbers);
  st = pack(numbers, dim, sketch);
  fli_fpguard_leave(&guard);
  return st;
}
