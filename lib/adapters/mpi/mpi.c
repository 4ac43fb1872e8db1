/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks, agreement and what one rank tells all others. A failure on one rank
 * must leave none of them waiting, so that every function ends with all ranks
 * knowing the least status: one MPI_Allreduce where all is well, and then one
 * MPI_Bcast of the reason. */
#include "adapters/mpi/ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local char last_error[FLI_MPI_TEXT_BYTES + 32];

void fli_mpi_clear(void)
{
  last_error[0] = '\0';
}

const char *fl_mpi_last_error(void)
{
  return last_error;
}

fl_status fli_mpi_bad_argument(const char *text)
{
  snprintf(last_error, sizeof last_error, "%s", text);
  return FL_E_ARGUMENT;
}

fl_status fli_mpi_result(int code)
{
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  if (code == MPI_SUCCESS) return FL_OK;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) text[0] = '\0';
  snprintf(last_error, sizeof last_error, "MPI: %.200s", text);
  return FL_E_IO;
}

fli_mpi_outcome fli_mpi_outcome_of(const fl_mpi *mpi, fl_status status,
                                   const char *text)
{
  fli_mpi_outcome outcome = {.status = status, .rank = mpi->rank};
  if (status != FL_OK) {
    if (!text) text = fl_last_error();
    if (*text == '\0') text = fl_status_text(status);
    snprintf(outcome.text, sizeof outcome.text, "%s", text);
  }
  return outcome;
}

fl_status fli_mpi_report(const fli_mpi_outcome *outcome)
{
  fli_mpi_clear();
  if (outcome->status != FL_OK) {
    snprintf(last_error, sizeof last_error, "rank %d: %.*s", outcome->rank,
             FLI_MPI_TEXT_BYTES, outcome->text);
  }
  return outcome->status;
}

fl_status fli_mpi_settle(fl_mpi *mpi, const fli_mpi_outcome *own)
{
  /* As MPI_2INT: MINLOC gives the least status and the first rank with it. */
  const struct {
    int status;
    int rank;
  } mine = {own->status, mpi->rank};
  int worst[2] = {0, 0};
  fl_status st = fli_mpi_result(
      MPI_Allreduce(&mine, worst, 1, MPI_2INT, MPI_MINLOC, mpi->comm));
  if (st != FL_OK) return st;
  if (worst[0] == FL_OK) {
    fli_mpi_clear();
    return FL_OK;
  }
  fli_mpi_outcome outcome = *own;
  st = fli_mpi_result(
      MPI_Bcast(&outcome, (int)sizeof outcome, MPI_BYTE, worst[1], mpi->comm));
  return st == FL_OK ? fli_mpi_report(&outcome) : st;
}

static fl_status check_running(void)
{
  int is_begun = 0, is_over = 0;
  if (MPI_Initialized(&is_begun) == MPI_SUCCESS &&
      MPI_Finalized(&is_over) == MPI_SUCCESS && is_begun && !is_over)
    return FL_OK;
  snprintf(last_error, sizeof last_error,
           "MPI: not initialised, or finalised already");
  return FL_E_STATE;
}

static fl_status start(fl_mpi *mpi, MPI_Comm comm)
{
  int code = MPI_Comm_dup(comm, &mpi->comm);
  if (code != MPI_SUCCESS) mpi->comm = MPI_COMM_NULL;
  if (code == MPI_SUCCESS)
    code = MPI_Comm_set_errhandler(mpi->comm, MPI_ERRORS_RETURN);
  if (code == MPI_SUCCESS) code = MPI_Comm_rank(mpi->comm, &mpi->rank);
  if (code == MPI_SUCCESS) code = MPI_Comm_size(mpi->comm, &mpi->size);
  return fli_mpi_result(code);
}

fl_status fl_mpi_new(fl_mpi **out, MPI_Comm comm)
{
  fl_mpi local = {.comm = MPI_COMM_NULL};
  fli_mpi_clear();
  if (comm == MPI_COMM_NULL)
    return fli_mpi_bad_argument("mpi: got MPI_COMM_NULL");
  fl_status st = check_running();
  if (st == FL_OK) st = start(&local, comm);
  if (st != FL_OK) return st;
  /* What fails from here on fails everywhere, as others would wait. */
  fl_mpi *mpi = out ? calloc(1, sizeof *mpi) : NULL;
  st = !out ? FL_E_ARGUMENT : mpi ? FL_OK : FL_E_NOMEM;
  st = fl_mpi_agree(&local, st, out ? "mpi: no memory" : "mpi: got NULL");
  if (st != FL_OK) {
    (void)MPI_Comm_free(&local.comm);
    free(mpi);
    return st;
  }
  *mpi = local;
  *out = mpi;
  return FL_OK;
}

void fl_mpi_free(fl_mpi *mpi)
{
  if (!mpi) return;
  if (mpi->comm != MPI_COMM_NULL) (void)MPI_Comm_free(&mpi->comm);
  free(mpi);
}

uint32_t fl_mpi_rank(const fl_mpi *mpi)
{
  return mpi ? (uint32_t)mpi->rank : 0;
}

uint32_t fl_mpi_size(const fl_mpi *mpi)
{
  return mpi ? (uint32_t)mpi->size : 1;
}

fl_status fl_mpi_agree(fl_mpi *mpi, fl_status status, const char *text)
{
  if (!mpi) return fli_mpi_bad_argument("mpi: got NULL");
  const fli_mpi_outcome own = fli_mpi_outcome_of(mpi, status, text);
  return fli_mpi_settle(mpi, &own);
}
