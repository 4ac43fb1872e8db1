/* SPDX-License-Identifier: Apache-2.0 */
/* Plans, ids and rows of slices as bytes, little-endian. Ids rise, so each is
 * the distance to the one before, in 7 bits a byte: twice the same and out of
 * order cannot be said. */
#include "embedding/slice.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"

enum { VARINT_BYTES = 10, VARINT_BITS = 7, VARINT_MORE = 0x80 };
#define LARGEST 1e20f
#define SMALLEST 1e-30f

/* ---- in ------------------------------------------------------------------ */

void fli_slice_fail(fli_slice_in *in, fl_status status, const char *what)
{
  if (in->status == FL_OK) in->status = fli_error(status, "slice: %s", what);
}

const uint8_t *fli_slice_view(fli_slice_in *in, size_t n)
{
  const uint8_t *view = in->at;
  if (in->status == FL_OK && in->left < n)
    fli_slice_fail(in, FL_E_TRUNCATED, "its end is missing");
  if (in->status != FL_OK) return NULL;
  in->at += n;
  in->left -= n;
  return view;
}

uint32_t fli_slice_u8(fli_slice_in *in)
{
  const uint8_t *view = fli_slice_view(in, 1);
  return view ? view[0] : 0;
}

uint32_t fli_slice_u16(fli_slice_in *in)
{
  const uint8_t *view = fli_slice_view(in, 2);
  return view ? fli_load_u16(view) : 0;
}

uint32_t fli_slice_u32(fli_slice_in *in)
{
  const uint8_t *view = fli_slice_view(in, 4);
  return view ? fli_load_u32(view) : 0;
}

uint64_t fli_slice_u64(fli_slice_in *in)
{
  const uint8_t *view = fli_slice_view(in, 8);
  return view ? fli_load_u64(view) : 0;
}

float fli_slice_f32(fli_slice_in *in)
{
  const float value = fli_f32_from_bits(fli_slice_u32(in));
  if (isfinite(value)) return value;
  fli_slice_fail(in, FL_E_NOT_FINITE, "a number");
  return 0.0f;
}

static uint64_t read_varint(fli_slice_in *in)
{
  uint64_t value = 0;
  for (uint32_t i = 0; i < VARINT_BYTES; i++) {
    const uint32_t byte = fli_slice_u8(in);
    if (i == VARINT_BYTES - 1 && byte > 1)
      fli_slice_fail(in, FL_E_RANGE, "an id above 2^64");
    value |= (uint64_t)(byte & (VARINT_MORE - 1)) << VARINT_BITS * i;
    if (!(byte & VARINT_MORE)) break;
  }
  return in->status == FL_OK ? value : 0;
}

uint64_t fli_slice_id(fli_slice_in *in, uint64_t i, uint64_t last)
{
  const uint64_t step = read_varint(in);
  if (i == 0) return step;
  if (last == UINT64_MAX || step > UINT64_MAX - 1 - last) {
    fli_slice_fail(in, FL_E_RANGE, "an id above 2^64");
    return last;
  }
  return last + 1 + step;
}

fl_status fli_slice_end(fli_slice_in *in)
{
  if (in->left > 0) fli_slice_fail(in, FL_E_FORMAT, "bytes behind its end");
  return in->status;
}

void fli_slice_begin(fli_slice_in *in, const uint8_t *data, size_t n,
                     uint32_t kind, fli_slice_head *head)
{
  *in = (fli_slice_in){.at = data, .left = n, .status = FL_OK};
  if (fli_slice_u8(in) != FLI_SLICE_FORMAT)
    fli_slice_fail(in, FL_E_VERSION, "of another version");
  head->kind = fli_slice_u8(in);
  head->table = fli_slice_u16(in);
  head->layout = fli_slice_u64(in);
  if (head->kind != kind) fli_slice_fail(in, FL_E_FORMAT, "of another kind");
}

/* ---- out ----------------------------------------------------------------- */

void fli_slice_put(fli_slice_out *out, const void *data, size_t n)
{
  if (out->status == FL_OK)
    out->status = fli_bytes_append(&out->bytes, data, n);
}

void fli_slice_put_u8(fli_slice_out *out, uint32_t value)
{
  const uint8_t byte = (uint8_t)value;
  fli_slice_put(out, &byte, 1);
}

void fli_slice_put_u32(fli_slice_out *out, uint32_t value)
{
  uint8_t bytes[4];
  fli_store_u32(bytes, value);
  fli_slice_put(out, bytes, sizeof bytes);
}

void fli_slice_put_u64(fli_slice_out *out, uint64_t value)
{
  uint8_t bytes[8];
  fli_store_u64(bytes, value);
  fli_slice_put(out, bytes, sizeof bytes);
}

void fli_slice_put_f32(fli_slice_out *out, float value)
{
  fli_slice_put_u32(out, fli_f32_bits(value));
}

void fli_slice_put_id(fli_slice_out *out, uint64_t i, uint64_t last,
                      uint64_t id)
{
  uint8_t bytes[VARINT_BYTES];
  size_t n = 0;
  uint64_t step = i == 0 ? id : id - last - 1;
  while (step >= VARINT_MORE) {
    bytes[n++] = (uint8_t)(step | VARINT_MORE);
    step >>= VARINT_BITS;
  }
  bytes[n++] = (uint8_t)step;
  fli_slice_put(out, bytes, n);
}

void fli_slice_open(fli_slice_out *out, fl_context *context,
                    const fli_slice_head *head)
{
  uint8_t table[2];
  fli_bytes_init(&out->bytes, context);
  out->status = FL_OK;
  fli_slice_put_u8(out, FLI_SLICE_FORMAT);
  fli_slice_put_u8(out, head->kind);
  fli_store_u16(table, (uint16_t)head->table);
  fli_slice_put(out, table, sizeof table);
  fli_slice_put_u64(out, head->layout);
}

fl_status fli_slice_close(fli_slice_out *out, fl_buffer *buffer)
{
  fl_status st = out->status;
  if (st == FL_OK)
    st = fl_buffer_append(buffer, out->bytes.data, out->bytes.size);
  fli_bytes_free(&out->bytes);
  return st;
}

/* ---- plans --------------------------------------------------------------- */

void fli_slice_write_plan(fli_slice_out *out, const fli_slice_plan *plan)
{
  fli_slice_put_u64(out, plan->seed);
  fli_slice_put_u64(out, plan->max_ids);
  fli_slice_put_u32(out, plan->precision);
  for (uint32_t t = 0; t < plan->n_tables; t++) {
    const fli_slice_table *table = &plan->tables[t];
    fli_slice_put_u32(out, table->dim);
    fli_slice_put_u32(out, table->chunks);
    fli_slice_put_f32(out, table->threshold);
    fli_slice_put_f32(out, table->unit);
    for (uint32_t k = 0; k < table->chunks; k++)
      fli_slice_put_f32(out, table->deltas[k]);
  }
}

static float read_scale(fli_slice_in *in)
{
  const float value = fli_slice_f32(in);
  if (value >= SMALLEST && value <= LARGEST) return value;
  fli_slice_fail(in, FL_E_RANGE, "a grid");
  return 1.0f;
}

static void read_table(fli_slice_in *in, fli_slice_table *table)
{
  table->dim = fli_slice_u32(in);
  table->chunks = fli_slice_u32(in);
  table->threshold = fli_slice_f32(in);
  table->unit = read_scale(in);
  if (table->chunks < 1 || table->chunks > FLI_CHUNKS_MAX || table->dim < 4 ||
      table->dim > FLI_DIM_MAX || table->dim % (4 * table->chunks) != 0)
    fli_slice_fail(in, FL_E_RANGE, "a table's shape");
  if (!(table->threshold >= 0)) fli_slice_fail(in, FL_E_RANGE, "a threshold");
  for (uint32_t k = 0; in->status == FL_OK && k < table->chunks; k++)
    table->deltas[k] = read_scale(in);
}

fl_status fli_slice_read_plan(fli_slice_plan *plan, const uint8_t *data,
                              size_t n)
{
  fli_slice_in in;
  fli_slice_head head;
  memset(plan, 0, sizeof *plan);
  fli_slice_begin(&in, data, n, FLI_SLICE_PLAN, &head);
  plan->layout = head.layout;
  plan->n_tables = head.table;
  plan->seed = fli_slice_u64(&in);
  plan->max_ids = fli_slice_u64(&in);
  plan->precision = fli_slice_u32(&in);
  if (plan->n_tables < 1 || plan->n_tables > FL_EMBEDDING_MAX_TABLES)
    fli_slice_fail(&in, FL_E_RANGE, "its number of tables");
  if (plan->precision != FL_EMBEDDING_F32 &&
      plan->precision != FL_EMBEDDING_BF16)
    fli_slice_fail(&in, FL_E_RANGE, "its precision");
  for (uint32_t t = 0; in.status == FL_OK && t < plan->n_tables; t++)
    read_table(&in, &plan->tables[t]);
  return fli_slice_end(&in);
}

size_t fli_slice_request_ids(const fli_slice_plan *plan, uint32_t table)
{
  const size_t value = plan->precision == FL_EMBEDDING_F32 ? 4 : 2;
  return FLI_SLICE_ANSWER_MAX / (1 + value * plan->tables[table].dim);
}

fl_status fli_slice_check_shapes(const fli_slice_plan *plan,
                                 const fl_embedding *embedding)
{
  int is_same = plan->n_tables == embedding->n_tables;
  for (uint32_t t = 0; is_same && t < plan->n_tables; t++) {
    const fli_table *table = embedding->tables[t];
    is_same = plan->tables[t].dim == table->dim &&
              plan->tables[t].chunks == table->chunks;
  }
  if (is_same) return FL_OK;
  return fli_error(FL_E_SCHEMA, "slice: of a store with other tables");
}

/* ---- rows of updates ----------------------------------------------------- */

void fli_slice_write_row(fli_slice_out *out, const fli_slice_table *table,
                         const fli_sparse_row *row)
{
  uint8_t packed[FLI_DIM_MAX / 2];
  const size_t n = table->dim / table->chunks;
  uint32_t masks = row->mask;
  /* Chunks that a table has not are 0. */
  for (uint32_t k = 0; k < FLI_CHUNKS_MAX; k++)
    masks |= (uint32_t)(row->utilities[k] != 0) << (FLI_CHUNKS_MAX + k);
  fli_slice_put_u8(out, masks);
  for (uint32_t k = 0; k < table->chunks; k++)
    if (row->utilities[k] != 0) fli_slice_put_u8(out, row->utilities[k]);
  for (uint32_t k = 0; k < table->chunks; k++) {
    if (!(row->mask >> k & 1)) continue;
    fli_grid_pack(packed, row->codes + k * n, n);
    fli_slice_put(out, packed, n / 2);
  }
}

void fli_slice_read_row(fli_slice_in *in, const fli_slice_table *table,
                        fli_sparse_row *row)
{
  const size_t n = table->dim / table->chunks;
  const uint32_t all = (1u << table->chunks) - 1u;
  const uint32_t masks = fli_slice_u8(in);
  const uint32_t worth = masks >> FLI_CHUNKS_MAX;
  row->mask = masks & 15u;
  if ((row->mask | worth) > all) fli_slice_fail(in, FL_E_RANGE, "a mask");
  for (uint32_t k = 0; k < table->chunks; k++)
    row->utilities[k] = worth >> k & 1 ? (uint8_t)fli_slice_u8(in) : 0;
  for (uint32_t k = 0; k < table->chunks && in->status == FL_OK; k++) {
    if (!(row->mask >> k & 1)) continue;
    const uint8_t *packed = fli_slice_view(in, n / 2);
    if (packed && !fli_grid_unpack(row->codes + k * n, packed, n))
      fli_slice_fail(in, FL_E_RANGE, "a value beside the grid");
  }
}
