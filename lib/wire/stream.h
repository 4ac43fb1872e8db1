/* SPDX-License-Identifier: Apache-2.0 */
/* Whole reads and writes over a host's streams. A stream's own failure is
 * FL_E_IO (its FL_E_NOMEM is passed on); `what` names the thing that is read in
 * error texts. */
#ifndef FLI_STREAM_H
#define FLI_STREAM_H

#include "wire/writer.h"

fl_status fli_stream_write(const fl_writer *writer, const void *data, size_t n);
/* Exactly n bytes. FL_E_TRUNCATED. */
fl_status fli_stream_read(const fl_reader *reader, void *out, size_t n,
                          const char *what);
/* Append exactly n bytes, in steps: a lie about n costs no memory. */
fl_status fli_stream_append(const fl_reader *reader, fli_bytes *bytes, size_t n,
                            const char *what);
/* FL_E_FORMAT when the stream goes on. */
fl_status fli_stream_end(const fl_reader *reader, const char *what);

#endif
