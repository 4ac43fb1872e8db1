/* SPDX-License-Identifier: Apache-2.0 */
/* A host's callbacks may give fewer bytes than asked for, and one of them may
 * be wrong about how many it gave: everything that reads or writes a stream
 * goes through here. */
#include "wire/stream.h"

#include <inttypes.h>

#include "base/error.h"

enum { READ_STEP = 1 << 16 };

/* fl_buffer streams run out of memory; all else is the stream's own affair. A
 * host's stream leaves no text, or that of another call. */
static fl_status stream_failed(fl_status status, const char *what)
{
  return fli_error(status == FL_E_NOMEM ? FL_E_NOMEM : FL_E_IO,
                   "stream: %s gave status %" PRId32, what, status);
}

/* One call of the host's; *got <= n. */
static fl_status read_some(const fl_reader *reader, void *out, size_t n,
                           size_t *got)
{
  *got = 0;
  fl_status status = reader->read(reader->user, out, n, got);
  if (status != FL_OK) return stream_failed(status, "read");
  if (*got > n)
    return fli_error(FL_E_IO, "stream: read gave %zu bytes, want <= %zu", *got,
                     n);
  return FL_OK;
}

fl_status fli_stream_write(const fl_writer *writer, const void *data, size_t n)
{
  if (n == 0) return FL_OK;
  fl_status status = writer->write(writer->user, data, n);
  return status == FL_OK ? FL_OK : stream_failed(status, "write");
}

fl_status fli_stream_read(const fl_reader *reader, void *out, size_t n,
                          const char *what)
{
  size_t done = 0;
  while (done < n) {
    size_t got;
    fl_status status = read_some(reader, (uint8_t *)out + done, n - done, &got);
    if (status != FL_OK) return status;
    if (got == 0)
      return fli_error(FL_E_TRUNCATED, "%s: ends %zu bytes too early", what,
                       n - done);
    done += got;
  }
  return FL_OK;
}

fl_status fli_stream_append(const fl_reader *reader, fli_bytes *bytes, size_t n,
                            const char *what)
{
  while (n > 0) {
    size_t step = n < READ_STEP ? n : READ_STEP;
    fl_status status = fli_bytes_reserve(bytes, step);
    if (status == FL_OK)
      status = fli_stream_read(reader, bytes->data + bytes->size, step, what);
    if (status != FL_OK) return status;
    bytes->size += step;
    n -= step;
  }
  return FL_OK;
}

fl_status fli_stream_end(const fl_reader *reader, const char *what)
{
  uint8_t more;
  size_t got;
  fl_status status = read_some(reader, &more, 1, &got);
  if (status != FL_OK || got == 0) return status;
  return fli_error(FL_E_FORMAT, "%s: goes on behind its end", what);
}
