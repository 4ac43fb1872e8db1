/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From request to answer. PUT on /fl/v1/session/<id> opens a session, POST
 * goes on with it (so a client whose aggregator was restarted gets a 404 and
 * opens another, instead of speaking out of turn); both carry bytes for
 * fl_server_recv and bring back what fl_server_send has. A body is fed as it
 * arrives; its answer is decided only after the main loop has passed time and
 * taken events (http_answer), so every request is suspended once.
 */
#include "fl_aggregator/request.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "fl_aggregator/admin.h"
#include "fl_aggregator/answer.h"

static const char session_prefix[] = "/fl/v1/session/";
static const uint64_t max_body = 16u << 20;

/* With the methods there are, as RFC 9110 asks of a 405. */
static enum MHD_Result reply_wrong_method(struct MHD_Connection *connection,
                                          const char *allowed)
{
  static const char text[] = "wrong method: the header Allow has the right\n";
  struct MHD_Response *response = MHD_create_response_from_buffer(
      sizeof text - 1, (void *)text, MHD_RESPMEM_PERSISTENT);
  if (response)
    MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, allowed);
  return reply(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain", response);
}

static enum MHD_Result reply_health(struct http *http,
                                    struct MHD_Connection *connection)
{
  const char *text = http->is_draining ? "{\"status\":\"draining\"}\n"
                                       : "{\"status\":\"ok\"}\n";
  return reply(connection, MHD_HTTP_OK, "application/json",
               MHD_create_response_from_buffer(strlen(text), (void *)text,
                                               MHD_RESPMEM_PERSISTENT));
}

static enum MHD_Result reply_metrics(struct http *http,
                                     struct MHD_Connection *connection)
{
  size_t n = 0;
  char *text = run_metrics_text(http->run, &n);
  if (!text)
    return reply_text(connection, MHD_HTTP_INTERNAL_SERVER_ERROR,
                      "out of memory\n");
  return reply(connection, MHD_HTTP_OK,
               "application/openmetrics-text; version=1.0.0; charset=utf-8",
               MHD_create_response_from_buffer(n, text, MHD_RESPMEM_MUST_FREE));
}

static int is_session_id(const char *id)
{
  size_t n = strspn(id, "0123456789abcdef");
  return id[n] == 0 && n >= SESSION_ID_MIN && n <= SESSION_ID_MAX;
}

static struct link *link_of(struct MHD_Connection *connection)
{
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
  return info ? info->socket_context : NULL;
}

struct request *request_new(struct http *http,
                            struct MHD_Connection *connection)
{
  struct link *link = link_of(connection);
  struct request *request = calloc(1, sizeof *request);
  if (!link || !request) {
    free(request);
    return NULL;
  }
  request->http = http;
  request->connection = connection;
  request->link = link;
  request->window_ns = http->now_ns;
  link->request = request;
  http->requests++;
  return request;
}

/* Make the request's state and tie connection and session together. */
static enum MHD_Result begin_request(struct http *http,
                                     struct MHD_Connection *connection,
                                     struct session *session, void **state)
{
  struct request *request = request_new(http, connection);
  if (!request) return MHD_NO;
  request->state = REQUEST_FEEDING;
  const char *prefer =
      MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Prefer");
  request->is_hasty = prefer && strcmp(prefer, "wait=0") == 0; /* RFC 7240 */
  answer_supersede(session);
  link_use(&http->run->sessions, request->link, session, http->now_ns);
  *state = request;
  return MHD_YES;
}

static enum MHD_Result begin_session(struct http *http,
                                     struct MHD_Connection *connection,
                                     const char *id, int is_opening,
                                     void **state)
{
  struct sessions *sessions = &http->run->sessions;
  if (!is_session_id(id))
    return reply_text(connection, MHD_HTTP_BAD_REQUEST,
                      "session: want 16 to 64 digits 0-9a-f\n");
  const char *length = MHD_lookup_connection_value(
      connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
  if (length && strtoull(length, NULL, 10) > max_body)
    return reply_text(connection, MHD_HTTP_CONTENT_TOO_LARGE,
                      "body: want 16 MiB at most\n");
  if (http->is_draining)
    return reply_text(connection, MHD_HTTP_SERVICE_UNAVAILABLE,
                      "going down: come back later\n");
  struct session *session = sessions_find(sessions, id);
  if (!session && !is_opening)
    return reply_text(connection, MHD_HTTP_NOT_FOUND,
                      "no such session: PUT opens one\n");
  if (!session) session = sessions_make(sessions, id);
  if (!session)
    return reply_text(connection, MHD_HTTP_SERVICE_UNAVAILABLE,
                      "too many sessions\n");
  if (session->is_closed)
    return reply_text(connection, MHD_HTTP_NOT_FOUND,
                      "the session is closed\n");
  const enum MHD_Result result =
      begin_request(http, connection, session, state);
  /* One without a connection would never be counted as gone. */
  if (result != MHD_YES && session->links == 0 && session->gone_since_ns == 0)
    sessions_drop(sessions, session);
  return result;
}

static enum MHD_Result begin(struct http *http,
                             struct MHD_Connection *connection, const char *url,
                             const char *method, void **state)
{
  struct link *link = link_of(connection);
  if (link) link->idle_since_ns = http->now_ns;
  http->run->metrics.requests++;
  int is_get = strcmp(method, MHD_HTTP_METHOD_GET) == 0 ||
               strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
  int is_health = strcmp(url, "/healthz") == 0;
  int is_metrics = strcmp(url, "/metrics") == 0;
  int is_put = strcmp(method, MHD_HTTP_METHOD_PUT) == 0;
  int is_post = strcmp(method, MHD_HTTP_METHOD_POST) == 0;
  if ((is_health || is_metrics) && !is_get)
    return reply_wrong_method(connection, "GET, HEAD");
  if (is_health) return reply_health(http, connection);
  enum MHD_Result result;
  if (is_metrics && !admin_lets_see_metrics(http, connection, &result))
    return result;
  if (is_metrics) return reply_metrics(http, connection);
  if (admin_is(url)) return admin_begin(http, connection, url, method, state);
  if (strncmp(url, session_prefix, sizeof session_prefix - 1) != 0)
    return reply_text(connection, MHD_HTTP_NOT_FOUND, "no such page\n");
  if (!is_put && !is_post) return reply_wrong_method(connection, "PUT, POST");
  return begin_session(http, connection, url + sizeof session_prefix - 1,
                       is_put, state);
}

/* A body without a declared length is cut off when it gets too long. */
static enum MHD_Result feed(struct request *request, const char *data, size_t n)
{
  struct session *session = request->link->session;
  request->size += n;
  if (request->size > max_body) return MHD_NO;
  if (!session || session->is_closed) return MHD_YES;
  struct http *http = request->http;
  if (fl_server_recv(http->run->server, session->peer, (const uint8_t *)data,
                     n) != FL_OK)
    session->is_closed = 1; /* out of memory: the client begins another */
  http->has_news = 1;       /* for others, perhaps */
  /* A round may have ended: close its books before the next one's bytes. */
  run_drain(http->run, http->now_ns);
  return MHD_YES;
}

static void append_waiting(struct request *request)
{
  struct http *http = request->http;
  request->previous = http->last_waiting;
  request->next = NULL;
  if (http->last_waiting)
    http->last_waiting->next = request;
  else
    http->waiting = request;
  http->last_waiting = request;
  if (!http->fresh) http->fresh = request;
}

static void remove_waiting(struct request *request)
{
  struct http *http = request->http;
  if (request->previous)
    request->previous->next = request->next;
  else
    http->waiting = request->next;
  if (request->next)
    request->next->previous = request->previous;
  else
    http->last_waiting = request->previous;
  if (http->fresh == request) http->fresh = request->next;
}

void request_release(struct request *request)
{
  struct session *session = request->link->session;
  if (session && session->waiting == request) session->waiting = NULL;
  remove_waiting(request);
  (void)epoll_ctl(request->http->epoll, EPOLL_CTL_DEL, request->link->fd, NULL);
  request->state = REQUEST_RELEASED;
  request->window_ns = request->http->now_ns;
  request->window_bytes = 0;
  request->acked = tcp_acked(request->link->fd);
  MHD_resume_connection(request->connection);
}

/* libmicrohttpd does not look at a suspended connection; the epoll set does,
 * so that a client that dies while it waits is noticed at once. */
static void hold(struct request *request)
{
  struct session *session = request->link->session;
  if (session && session->waiting) {
    session->waiting->is_superseded = 1;
    request_release(session->waiting);
  }
  if (session) session->waiting = request;
  request->state = REQUEST_WAITING;
  request->waiting_since_ns = request->http->now_ns;
  request->http->has_news = 1;
  append_waiting(request);
  struct epoll_event event = {.events = EPOLLRDHUP | EPOLLONESHOT,
                              .data.ptr = request};
  (void)epoll_ctl(request->http->epoll, EPOLL_CTL_ADD, request->link->fd,
                  &event);
  MHD_suspend_connection(request->connection);
}

enum MHD_Result request_handle(void *user, struct MHD_Connection *connection,
                               const char *url, const char *method,
                               const char *version, const char *upload,
                               size_t *upload_size, void **state)
{
  (void)version;
  struct request *request = *state;
  if (!request) return begin(user, connection, url, method, state);
  if (request->state == REQUEST_ADMIN) {
    const size_t n = *upload_size;
    *upload_size = 0;
    return admin_feed(request, upload, n);
  }
  if (*upload_size > 0) {
    size_t n = *upload_size;
    *upload_size = 0;
    return feed(request, upload, n);
  }
  if (request->state == REQUEST_RELEASED) return answer_session(request);
  hold(request);
  return MHD_YES;
}

void request_completed(void *user, struct MHD_Connection *connection,
                       void **state, enum MHD_RequestTerminationCode code)
{
  (void)connection;
  (void)code;
  struct http *http = user;
  struct request *request = *state;
  if (!request) return;
  link_sample(&http->run->sessions, request->link);
  answer_end(request);
  request->link->request = NULL;
  request->link->idle_since_ns = http->now_ns;
  http->requests--;
  *state = NULL;
  free(request->body);
  free(request);
}
