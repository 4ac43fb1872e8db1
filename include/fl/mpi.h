/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file mpi.h
 * libfl-mpi: rounds whose updates are made by the ranks of an MPI job. Every
 * rank adds its clients' updates to an fl_partial of its own; the sums are
 * reduced to rank 0, and what it decides goes back to all. A library of its
 * own; the core never needs it.
 *
 *   fl_mpi_merge_norms(mpi, norms, n)      everywhere: the agreed scale
 *   fl_partial_add(partial, ...)           each rank, its own slots
 *   fl_mpi_reduce(mpi, partial)            rank 0 has the sum of all
 *   fl_mpi_broadcast(mpi, bytes)           its bytes are everywhere
 *
 * Integer sums do not know their tree: any number of ranks gives the bytes of
 * one process.
 *
 * Every function that takes an fl_mpi is collective, but for rank, size and
 * agree's argument: all ranks call it, in the same order, and all return the
 * same status; what went wrong on one of them is told on all
 * (fl_mpi_last_error names the rank). MPI's own failures are FL_E_IO, as far as
 * the MPI returns from them: of a rank that dies Open MPI's mpirun ends all
 * others at once, and what a host keeps, it has to have written before.
 *
 * Thread-safety: one thread per fl_mpi, which MPI was told may call it
 * (MPI_THREAD_FUNNELED: the main thread). Determinism: D0.
 */
#ifndef FL_MPI_H
#define FL_MPI_H

#include <fl/compress.h>
#include <mpi.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fl_mpi fl_mpi;

/** Take part in rounds of a communicator's ranks. It is duplicated: messages of
 * the host's are never met, and its error handler stays as it is. FL_E_STATE:
 * MPI is not initialised, or is finalised already; FL_E_ARGUMENT: NULL, or
 * MPI_COMM_NULL; FL_E_NOMEM, FL_E_IO.
 * Ownership: *out is the caller's, fl_mpi_free before MPI_Finalize. */
FL_API fl_status fl_mpi_new(fl_mpi **out, MPI_Comm comm);
/** Free it, on all ranks; NULL is fine. */
FL_API void fl_mpi_free(fl_mpi *mpi);
/** This process among the ranks; 0 decides. 0 for NULL. */
FL_API uint32_t fl_mpi_rank(const fl_mpi *mpi);
/** Number of ranks. 1 for NULL. */
FL_API uint32_t fl_mpi_size(const fl_mpi *mpi);

/** Agree on how a step went that every rank made by itself: the least status of
 * all, FL_OK only when it is everybody's. So no rank waits in the next call for
 * one that has given up. `text` says why this rank failed; NULL = fl_last_error
 * of this thread. */
FL_API fl_status fl_mpi_agree(fl_mpi *mpi, fl_status status, const char *text);

/** norms[i] = the maximum over all ranks: fl_norms_merge of all of them.
 * FL_E_DIM: ranks have different n; FL_E_RANGE: a value off the bf16 grid or
 * outside 0..2^127; FL_E_ARGUMENT. Then `norms` are as they were. */
FL_API fl_status fl_mpi_merge_norms(fl_mpi *mpi, float *norms, uint64_t n);

/** Add the sums of all ranks into rank 0's, by a binomial tree of checked adds
 * (fl_partial_merge_bytes). Ranks need not have the same number of updates;
 * none is fine.
 *
 * @return FL_E_DUPLICATE: two ranks share a slot; FL_E_STALE: other round or
 * scale; FL_E_SCHEMA: other compressor; FL_E_RANGE: no lane holds the sum;
 * FL_E_NOMEM, FL_E_ARGUMENT, FL_E_IO.
 * Afterwards, also after a failure, the sums of other ranks than 0 hold parts
 * of it, and after a failure rank 0's may: make new ones for the next round. */
FL_API fl_status fl_mpi_reduce(fl_mpi *mpi, fl_partial *partial);

/** Replace what the buffers of other ranks hold by what rank 0's holds, of any
 * size. FL_E_NOMEM, FL_E_ARGUMENT, FL_E_IO: what is in the others' is
 * unspecified. */
FL_API fl_status fl_mpi_broadcast(fl_mpi *mpi, fl_buffer *bytes);

/** Why this thread's last call failed, and on which rank, for people: "rank 2:
 * update: slot 3 is in the sum". Never NULL; "" after one that succeeded. Valid
 * until the next one.  Thread-safety: any thread. */
FL_API const char *fl_mpi_last_error(void);

#ifdef __cplusplus
}
#endif
#endif
