/* SPDX-License-Identifier: Apache-2.0 */
/* What travels between ranks: norms by MPI_Allreduce, bytes by MPI_Bcast, and
 * sums by messages along a binomial tree. MPI_Reduce with an operation of our
 * own would want every sum at its widest, and has no way to say that two sums
 * do not fit together. Here a sum is as long as its lanes are wide, and before
 * it travels its receiver has got memory for it. */
#include "adapters/mpi/ranks.h"

#include <stdlib.h>

enum { BROADCAST_PIECE = 4 << 20 };

/* ---- norms --------------------------------------------------------------- */

/* All ranks have as many: the least of n and of -n are the same number. */
static fl_status settle_norms(fl_mpi *mpi, const float *norms, uint64_t n,
                              float *scratch)
{
  fl_status st = FL_OK;
  int64_t own[2], least[2] = {0, 0};
  if (!norms && n > 0) {
    st = fl_mpi_agree(mpi, FL_E_ARGUMENT, "norms: got NULL");
  } else if (!scratch) {
    st = fl_mpi_agree(mpi, FL_E_NOMEM, "norms: no memory for a copy");
  } else {
    /* Onto zeros: only looks at them. */
    st = fl_mpi_agree(mpi, fl_norms_merge(scratch, norms, n), NULL);
  }
  if (st != FL_OK) return st;
  own[0] = (int64_t)n;
  own[1] = -own[0];
  st = fli_mpi_result(
      MPI_Allreduce(own, least, 2, MPI_INT64_T, MPI_MIN, mpi->comm));
  if (st != FL_OK) return st;
  if (least[0] == -least[1]) return FL_OK;
  return fl_mpi_agree(mpi, FL_E_DIM, "norms: ranks have different numbers");
}

fl_status fl_mpi_merge_norms(fl_mpi *mpi, float *norms, uint64_t n)
{
  if (!mpi) return fli_mpi_bad_argument("mpi: got NULL");
  float *scratch = NULL;
  if (n < INT64_MAX / sizeof *scratch && n < SIZE_MAX / sizeof *scratch)
    scratch = calloc((size_t)n + 1, sizeof *scratch);
  fl_status st = settle_norms(mpi, norms, n, scratch);
  for (uint64_t at = 0; st == FL_OK && at < n; at += FLI_MPI_PIECE / 4) {
    const uint64_t left = n - at;
    const int count =
        left < FLI_MPI_PIECE / 4 ? (int)left : (int)(FLI_MPI_PIECE / 4);
    st = fli_mpi_result(MPI_Allreduce(MPI_IN_PLACE, norms + at, count,
                                      MPI_FLOAT, MPI_MAX, mpi->comm));
  }
  free(scratch);
  return st;
}

/* ---- sums ---------------------------------------------------------------- */

/* What goes before a sum, and alone when there is none to come. */
typedef struct announcement {
  fli_mpi_outcome outcome;
  uint64_t size;
} announcement;

/* The first failure stays. */
static void note(const fl_mpi *mpi, fli_mpi_outcome *outcome, fl_status status,
                 const char *text)
{
  if (status == FL_OK || outcome->status != FL_OK) return;
  *outcome = fli_mpi_outcome_of(mpi, status, text);
}

static int piece_of(uint64_t size, uint64_t at)
{
  const uint64_t left = size - at;
  return left < FLI_MPI_PIECE ? (int)left : (int)FLI_MPI_PIECE;
}

static fl_status send_bytes(fl_mpi *mpi, int to, const uint8_t *data,
                            uint64_t size)
{
  fl_status st = FL_OK;
  for (uint64_t at = 0; st == FL_OK && at < size; at += FLI_MPI_PIECE) {
    st = fli_mpi_result(MPI_Send(data + at, piece_of(size, at), MPI_BYTE, to,
                                 FLI_MPI_TAG, mpi->comm));
  }
  return st;
}

static fl_status receive_bytes(fl_mpi *mpi, int from, uint8_t *data,
                               uint64_t size)
{
  fl_status st = FL_OK;
  for (uint64_t at = 0; st == FL_OK && at < size; at += FLI_MPI_PIECE) {
    st = fli_mpi_result(MPI_Recv(data + at, piece_of(size, at), MPI_BYTE, from,
                                 FLI_MPI_TAG, mpi->comm, MPI_STATUS_IGNORE));
  }
  return st;
}

/* Take what `from` has. Only MPI's own failures are returned. */
static fl_status receive_sum(fl_mpi *mpi, int from, fl_partial *partial,
                             fli_mpi_outcome *outcome)
{
  announcement got;
  uint8_t *data = NULL;
  fl_status st =
      fli_mpi_result(MPI_Recv(&got, (int)sizeof got, MPI_BYTE, from,
                              FLI_MPI_TAG, mpi->comm, MPI_STATUS_IGNORE));
  if (st != FL_OK) return st;
  if (got.outcome.status != FL_OK) {
    if (outcome->status == FL_OK) *outcome = got.outcome;
    return FL_OK;
  }
  if (got.size <= SIZE_MAX) data = malloc((size_t)got.size);
  int is_wanted = data && outcome->status == FL_OK;
  if (!data)
    note(mpi, outcome, FL_E_NOMEM, "sum: no memory for another rank's");
  st = fli_mpi_result(
      MPI_Send(&is_wanted, 1, MPI_INT, from, FLI_MPI_TAG, mpi->comm));
  if (st == FL_OK && is_wanted) {
    st = receive_bytes(mpi, from, data, got.size);
    if (st == FL_OK)
      note(mpi, outcome,
           fl_partial_merge_bytes(partial, data, (size_t)got.size), NULL);
  }
  free(data);
  return st;
}

/* Hand on what this rank has, or why it has nothing. */
static fl_status send_sum(fl_mpi *mpi, int to, const fl_partial *partial,
                          fli_mpi_outcome *outcome)
{
  size_t size = 0;
  uint8_t *data = NULL;
  int is_wanted = 0;
  if (outcome->status == FL_OK) {
    note(mpi, outcome, fl_partial_copy_sum(partial, NULL, 0, &size), NULL);
    data = malloc(size);
    if (!data) note(mpi, outcome, FL_E_NOMEM, "sum: no memory for its bytes");
  }
  if (outcome->status == FL_OK)
    note(mpi, outcome, fl_partial_copy_sum(partial, data, size, &size), NULL);
  const announcement own = {.outcome = *outcome, .size = size};
  fl_status st = fli_mpi_result(
      MPI_Send(&own, (int)sizeof own, MPI_BYTE, to, FLI_MPI_TAG, mpi->comm));
  if (st == FL_OK && outcome->status == FL_OK) {
    st = fli_mpi_result(MPI_Recv(&is_wanted, 1, MPI_INT, to, FLI_MPI_TAG,
                                 mpi->comm, MPI_STATUS_IGNORE));
  }
  if (st == FL_OK && is_wanted) st = send_bytes(mpi, to, data, size);
  free(data);
  return st;
}

fl_status fl_mpi_reduce(fl_mpi *mpi, fl_partial *partial)
{
  if (!mpi) return fli_mpi_bad_argument("mpi: got NULL");
  fl_status st = FL_OK;
  fli_mpi_outcome outcome =
      fli_mpi_outcome_of(mpi, partial ? FL_OK : FL_E_ARGUMENT, "sum: got NULL");
  for (int step = 1; st == FL_OK && step < mpi->size; step *= 2) {
    if (mpi->rank & step) {
      st = send_sum(mpi, mpi->rank - step, partial, &outcome);
      break;
    }
    if (mpi->size - mpi->rank > step)
      st = receive_sum(mpi, mpi->rank + step, partial, &outcome);
  }
  return st == FL_OK ? fli_mpi_settle(mpi, &outcome) : st;
}

/* ---- bytes --------------------------------------------------------------- */

/* Bytes of rank 0 piece by piece, straight from its buffer. A rank that has no
 * room for them goes on receiving. */
static fl_status share(fl_mpi *mpi, fl_buffer *bytes, uint8_t *piece,
                       fli_mpi_outcome *outcome)
{
  const uint8_t *data = NULL;
  size_t n = 0;
  if (mpi->rank == 0) note(mpi, outcome, fl_buffer_get(bytes, &data, &n), NULL);
  uint64_t size = n;
  fl_status st =
      fli_mpi_result(MPI_Bcast(&size, 1, MPI_UINT64_T, 0, mpi->comm));
  if (mpi->rank != 0) fl_buffer_clear(bytes);
  for (uint64_t at = 0; st == FL_OK && at < size; at += BROADCAST_PIECE) {
    const uint64_t left = size - at;
    const int count = left < BROADCAST_PIECE ? (int)left : BROADCAST_PIECE;
    /* MPI takes no const; the root's is only read. */
    void *from =
        mpi->rank == 0 ? (void *)(uintptr_t)(data + at) : (void *)piece;
    st = fli_mpi_result(MPI_Bcast(from, count, MPI_BYTE, 0, mpi->comm));
    if (st == FL_OK && mpi->rank != 0 && outcome->status == FL_OK)
      note(mpi, outcome, fl_buffer_append(bytes, piece, (size_t)count), NULL);
  }
  return st;
}

fl_status fl_mpi_broadcast(fl_mpi *mpi, fl_buffer *bytes)
{
  if (!mpi) return fli_mpi_bad_argument("mpi: got NULL");
  uint8_t *piece = mpi->rank == 0 ? NULL : malloc(BROADCAST_PIECE);
  fl_status st = FL_OK;
  if (!bytes) {
    st = fl_mpi_agree(mpi, FL_E_ARGUMENT, "bytes: got NULL");
  } else if (mpi->rank != 0 && !piece) {
    st = fl_mpi_agree(mpi, FL_E_NOMEM, "bytes: no memory for a piece");
  } else {
    st = fl_mpi_agree(mpi, FL_OK, NULL);
  }
  fli_mpi_outcome outcome = fli_mpi_outcome_of(mpi, FL_OK, NULL);
  if (st == FL_OK) {
    st = share(mpi, bytes, piece, &outcome);
    if (st == FL_OK) st = fli_mpi_settle(mpi, &outcome);
  }
  free(piece);
  return st;
}
