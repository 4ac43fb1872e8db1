/* SPDX-License-Identifier: Apache-2.0 */
/* What mpi.c and reduce.c share. Not called mpi.h, which is the MPI's. */
#ifndef FLI_RANKS_H
#define FLI_RANKS_H

#include <fl/mpi.h>

enum {
  FLI_MPI_TEXT_BYTES = 256,
  FLI_MPI_PIECE = 1 << 30, /* bytes of one message: counts are ints */
  FLI_MPI_TAG = 1
};

struct fl_mpi {
  MPI_Comm comm; /* our own */
  int rank;
  int size;
};

/* How a step went: of all ranks the one that failed. Sent as bytes, between
 * processes of one program. */
typedef struct fli_mpi_outcome {
  int32_t status;
  int32_t rank;
  char text[FLI_MPI_TEXT_BYTES];
} fli_mpi_outcome;

/* This rank's own; `text` NULL = fl_last_error. */
fli_mpi_outcome fli_mpi_outcome_of(const fl_mpi *mpi, fl_status status,
                                   const char *text);
/* Keep the text for fl_mpi_last_error, and return the status. */
fl_status fli_mpi_report(const fli_mpi_outcome *outcome);
/* Agree on the least status of all ranks. */
fl_status fli_mpi_settle(fl_mpi *mpi, const fli_mpi_outcome *own);
/* An MPI code as a status. */
fl_status fli_mpi_result(int code);
/* Forget the text. */
void fli_mpi_clear(void);
/* FL_E_ARGUMENT, with the text. */
fl_status fli_mpi_bad_argument(const char *text);

#endif
