/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An answer of one message has a length; one of more comes in chunks, and each
 * message is asked of the server when the one before has been written. So
 * however large the model, and however many read it slowly, a connection holds
 * one message or chunk of it and libmicrohttpd's buffer, and nobody is sent the
 * rest of what is over by now. It ends between two messages, so that whoever
 * reads one answer after the other has all of them, each whole.
 */
#include "fl_aggregator/answer.h"

#include <stdlib.h>
#include <string.h>

/* Of a body without a length that is not sent in chunks: HTTP/1.0. */
enum { BLOCK_BYTES = 4096 };
/* Enough that another request is no loss, for clients that read an answer as a
 * whole, in a time that has an end. */
static const uint64_t max_answer = 8u << 20;

enum MHD_Result reply(struct MHD_Connection *connection, unsigned code,
                      const char *type, struct MHD_Response *response)
{
  if (!response) return MHD_NO;
  if (type)
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
  enum MHD_Result result = MHD_queue_response(connection, code, response);
  MHD_destroy_response(response);
  return result;
}

enum MHD_Result reply_text(struct MHD_Connection *connection, unsigned code,
                           const char *text)
{
  /* The library only reads it. */
  return reply(connection, code, "text/plain",
               MHD_create_response_from_buffer(strlen(text), (void *)text,
                                               MHD_RESPMEM_PERSISTENT));
}

static size_t left(const struct part *part)
{
  return part->n - part->at;
}

static void drop(struct part *part)
{
  free(part->bytes);
  memset(part, 0, sizeof *part);
}

/* Fetch the server's next message for the peer. 1: it is there; 0: the server
 * has none that may be sent; -1: no memory to hold it, and it is lost, for the
 * server counts it as sent: the client has to notice, and says HELLO. */
static int fetch(struct request *request)
{
  const uint8_t *data;
  size_t n;
  struct part *part = &request->part;
  drop(part);
  if (fl_server_send(request->http->run->server, request->link->session->peer,
                     &data, &n) != FL_OK ||
      n == 0)
    return 0;
  part->bytes = malloc(n);
  if (!part->bytes) return -1;
  memcpy(part->bytes, data, n);
  part->n = n;
  return 1;
}

/* A session that the server is done with is over when all is said. */
static void conclude(struct request *request)
{
  fl_server *server = request->http->run->server;
  struct session *session = request->link->session;
  if (!sessions_is_over(server, session)) return;
  (void)fl_server_disconnected(server, session->peer);
  session->is_closed = 1;
  request->http->has_news = 1;
}

/* Called by libmicrohttpd when what it got before has been written. Nothing may
 * mean that it has to be committed first: the rest is for another answer. */
static ssize_t next_bytes(void *user, uint64_t position, char *out, size_t room)
{
  struct request *request = user;
  struct part *part = &request->part;
  if (left(part) == 0) {
    if (request->is_superseded || position >= max_answer)
      return MHD_CONTENT_READER_END_OF_STREAM;
    const int got = fetch(request);
    if (got < 0) return MHD_CONTENT_READER_END_WITH_ERROR;
    if (got == 0) {
      conclude(request);
      return MHD_CONTENT_READER_END_OF_STREAM;
    }
  }
  const size_t n = left(part) < room ? left(part) : room;
  memcpy(out, part->bytes + part->at, n);
  part->at += n;
  if (left(part) == 0) drop(part);
  return (ssize_t)n;
}

static enum MHD_Result answer_nothing(struct request *request)
{
  if (request->http->is_draining)
    return reply_text(request->connection, MHD_HTTP_SERVICE_UNAVAILABLE,
                      "going down: come back later\n");
  return reply(
      request->connection, MHD_HTTP_NO_CONTENT, NULL,
      MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT));
}

void answer_supersede(struct session *session)
{
  if (session->answered) session->answered->is_superseded = 1;
  session->answered = NULL;
}

enum MHD_Result answer_session(struct request *request)
{
  struct session *session = request->link->session;
  struct part *part = &request->part;
  struct MHD_Response *response;
  if (!session || session->is_closed || request->is_superseded)
    return answer_nothing(request);
  answer_supersede(session);
  const int got = fetch(request);
  if (got < 0) return MHD_NO; /* a lost connection is noticed */
  if (got > 0 &&
      fl_server_has_unsent(request->http->run->server, session->peer)) {
    session->answered = request;
    response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES,
                                                 next_bytes, request, NULL);
  } else {
    conclude(request);
    if (got == 0) return answer_nothing(request);
    response = MHD_create_response_from_buffer(part->n, part->bytes,
                                               MHD_RESPMEM_MUST_COPY);
    drop(part);
  }
  return reply(request->connection, MHD_HTTP_OK, "application/octet-stream",
               response);
}

void answer_end(struct request *request)
{
  struct session *session = request->link->session;
  if (session && session->answered == request) session->answered = NULL;
  drop(&request->part);
}
