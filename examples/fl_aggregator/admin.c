/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The admin's requests. Whoever has no token learns nothing, not even which
 * actions there are. What was done is saved before it is answered, and in the
 * log; so are refusals, one line a second at most, as anybody can make them.
 */
#include "fl_aggregator/admin.h"

#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const char prefix[] = "/admin/";
static const uint64_t refusal_ns = UINT64_C(1000000000);

struct admin_action {
  const char *name;
  const char *status; /* when it is done */
  fl_status (*act)(fl_server *server, uint32_t job);
};

static const struct admin_action actions[] = {
    {"pause", "paused", fl_server_pause_job},
    {"resume", "resumed", fl_server_resume_job},
    {"stop", "stopping", fl_server_stop_job},
    {"abort", "aborted", fl_server_abort_round},
};

int admin_is(const char *url)
{
  return strncmp(url, prefix, sizeof prefix - 1) == 0;
}

/* ---- answers ---- */

/* Takes `body` over. `name` NULL: no further header. */
static enum MHD_Result reply_json(struct MHD_Connection *connection,
                                  unsigned code, json_t *body, const char *name,
                                  const char *value)
{
  char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
  json_decref(body);
  struct MHD_Response *response =
      text ? MHD_create_response_from_buffer(strlen(text), text,
                                             MHD_RESPMEM_MUST_FREE)
           : NULL;
  if (!response) {
    free(text);
    return MHD_NO;
  }
  MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE,
                          "application/json");
  if (name) MHD_add_response_header(response, name, value);
  const enum MHD_Result result = MHD_queue_response(connection, code, response);
  MHD_destroy_response(response);
  return result;
}

static enum MHD_Result reply_error(struct MHD_Connection *connection,
                                   unsigned code, const char *text)
{
  return reply_json(connection, code, json_pack("{s:s}", "error", text), NULL,
                    NULL);
}

static void address_of(struct MHD_Connection *connection, char text[64])
{
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
  const socklen_t n = info && info->client_addr->sa_family == AF_INET6
                          ? sizeof(struct sockaddr_in6)
                          : sizeof(struct sockaddr_in);
  if (!info ||
      getnameinfo(info->client_addr, n, text, 64, NULL, 0, NI_NUMERICHOST) != 0)
    memcpy(text, "?", 2);
}

/* ---- tokens ---- */

static void log_refusal(struct http *http, struct MHD_Connection *connection,
                        unsigned code)
{
  char address[64];
  http->run->metrics.admin_refused++;
  if (http->refused_ns != 0 && http->now_ns - http->refused_ns < refusal_ns)
    return;
  http->refused_ns = http->now_ns;
  address_of(connection, address);
  log_event(&http->run->log, "admin_refused",
            json_pack("{s:s,s:i}", "from", address, "status", (int)code));
}

/* 1, or 0 when it was answered: 401 without a token, 403 with a wrong one. */
static int has_token(struct http *http, struct MHD_Connection *connection,
                     const struct token *second, enum MHD_Result *result)
{
  const char *header = MHD_lookup_connection_value(
      connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
  const int is_admin = token_fits(&http->admin, header);
  const int is_second = second ? token_fits(second, header) : 0;
  if (is_admin || is_second) return 1;
  log_refusal(http, connection,
              header ? MHD_HTTP_FORBIDDEN : MHD_HTTP_UNAUTHORIZED);
  *result =
      header ? reply_error(connection, MHD_HTTP_FORBIDDEN, "token: a wrong one")
             : reply_json(connection, MHD_HTTP_UNAUTHORIZED,
                          json_pack("{s:s}", "error",
                                    "token: want Authorization: Bearer TOKEN"),
                          MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
  return 0;
}

int admin_lets_see_metrics(struct http *http, struct MHD_Connection *connection,
                           enum MHD_Result *result)
{
  return !*http->metrics.text ||
         has_token(http, connection, &http->metrics, result);
}

/* ---- requests ---- */

static const struct admin_action *find_action(const char *name)
{
  for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++)
    if (strcmp(actions[i].name, name) == 0) return &actions[i];
  return NULL;
}

enum MHD_Result admin_begin(struct http *http,
                            struct MHD_Connection *connection, const char *url,
                            const char *method, void **state)
{
  enum MHD_Result result;
  const struct admin_action *action = find_action(url + sizeof prefix - 1);
  if (!*http->admin.text)
    return reply_error(connection, MHD_HTTP_NOT_FOUND,
                       "admin: not served, as there is no admin_token_file");
  if (!has_token(http, connection, NULL, &result)) return result;
  if (!action)
    return reply_error(connection, MHD_HTTP_NOT_FOUND, "admin: no such action");
  if (strcmp(method, MHD_HTTP_METHOD_POST) != 0)
    return reply_json(connection, MHD_HTTP_METHOD_NOT_ALLOWED,
                      json_pack("{s:s}", "error", "wrong method: want POST"),
                      MHD_HTTP_HEADER_ALLOW, "POST");
  if (http->is_draining)
    return reply_error(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "going down");
  struct request *request = request_new(http, connection);
  if (!request) return MHD_NO;
  request->state = REQUEST_ADMIN;
  request->action = action;
  *state = request;
  return MHD_YES;
}

static unsigned code_of(fl_status st)
{
  if (st == FL_E_STATE) return MHD_HTTP_CONFLICT;
  return MHD_HTTP_INTERNAL_SERVER_ERROR;
}

static json_t *state_of(const struct http *http, const char *status)
{
  fl_job_status job;
  fl_job_status_init(&job, sizeof job);
  if (fl_server_get_status(http->run->server, 0, &job) != FL_OK) return NULL;
  return json_pack("{s:s,s:I,s:I,s:b,s:b}", "status", status, "round",
                   (json_int_t)job.round, "version",
                   (json_int_t)job.model_version, "is_paused",
                   (int)job.is_paused, "is_finished", (int)job.is_finished);
}

static enum MHD_Result act(struct request *request)
{
  struct http *http = request->http;
  struct MHD_Connection *connection = request->connection;
  const struct admin_action *action = request->action;
  char address[64];
  const fl_status st = action->act(http->run->server, 0);
  const char *text = st == FL_OK ? "done" : fl_last_error();
  address_of(connection, address);
  log_event(&http->run->log, "admin",
            json_pack("{s:s,s:s,s:s}", "action", action->name, "from", address,
                      "result", text));
  if (st != FL_OK) return reply_error(connection, code_of(st), text);
  run_drain(http->run, http->now_ns);
  http->has_news = 1; /* clients may have something to hear */
  if (run_save(http->run) != 0)
    return reply_error(connection, MHD_HTTP_INTERNAL_SERVER_ERROR,
                       "done, but not saved");
  return reply_json(connection, MHD_HTTP_OK, state_of(http, action->status),
                    NULL, NULL);
}

enum MHD_Result admin_feed(struct request *request, const char *data, size_t n)
{
  (void)data; /* no action has a body */
  request->size += n;
  if (request->size > ADMIN_BODY_MAX) return MHD_NO;
  if (n > 0) return MHD_YES;
  if (request->size > 0)
    return reply_error(request->connection, MHD_HTTP_BAD_REQUEST,
                       "body: want none");
  return act(request);
}
