/* SPDX-License-Identifier: Apache-2.0 */
/* A job's embedding store beside its dense model: slices.c, and where rounds
 * have to do with it. */
#ifndef FLI_SERVER_SLICES_H
#define FLI_SERVER_SLICES_H

#include "server/server.h"

fl_status fli_slices_attach(fli_job *job, fl_slice_server *slices);
void fli_slices_free(fli_job *job);
/* A round begins; what an aborted one has left is dropped. */
fl_status fli_slices_begin(fli_job *job);
fl_status fli_slices_answer(fli_peer *peer, const fli_get_slice *message);
/* The largest sparse update; 0: none are taken. */
uint64_t fli_slices_max(const fli_job *job);
/* Check the last n_sparse bytes of an update, then (it cannot fail) add them.
 */
fl_status fli_slices_check(fli_job *job, const fli_bytes *update,
                           uint32_t n_sparse);
void fli_slices_fold(fli_job *job, const fli_bytes *update, uint32_t n_sparse);
/* The step, in what can fail and may be repeated, and what cannot. */
fl_status fli_slices_prepare(fli_job *job);
void fli_slices_finish(fli_job *job);
fl_status fli_slices_write(fli_msg_writer *writer, const fli_job *job);
fl_status fli_slices_read(fli_job *job, fli_msg_reader *reader);

#endif
