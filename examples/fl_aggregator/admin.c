/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The admin's requests. Whoever has no token learns nothing, not even which
 * actions there are. What was done is saved before it is answered, and in the
 * log; so are refusals, one line a second at most, as anybody can make them.
 */
#include "fl_aggregator/admin.h"

#include <netdb.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const char prefix[] = "/admin/";
static const uint64_t second_ns = UINT64_C(1000000000);
static const uint64_t refusal_ns = UINT64_C(1000000000);

/* What the body says. */
struct order {
  const char *client; /* NULL: the action is about the job */
  json_int_t seconds; /* 0 = for ever */
};

struct admin_action {
  const char *name;
  const char *status; /* when it is done */
  fl_status (*act)(fl_server *server, uint32_t job);
  /* Or, with a body: */
  const char *wanted;                             /* of it, for people */
  int (*read)(struct order *order, json_t *body); /* as json_unpack */
  fl_status (*act_on)(fl_server *server, const struct order *order);
};

static int read_ban(struct order *order, json_t *body)
{
  if (json_unpack_ex(body, NULL, JSON_STRICT, "{s:s,s?:I}", "client",
                     &order->client, "seconds", &order->seconds) != 0)
    return -1;
  return order->seconds >= 0 &&
                 order->seconds <= (json_int_t)(INT64_MAX / second_ns)
             ? 0
             : -1;
}

static int read_unban(struct order *order, json_t *body)
{
  return json_unpack_ex(body, NULL, JSON_STRICT, "{s:s}", "client",
                        &order->client);
}

static fl_status ban(fl_server *server, const struct order *order)
{
  const uint64_t seconds = (uint64_t)order->seconds;
  return fl_server_ban(server, order->client,
                       seconds > 0 ? seconds * second_ns : UINT64_MAX);
}

static fl_status unban(fl_server *server, const struct order *order)
{
  return fl_server_unban(server, order->client);
}

static const struct admin_action actions[] = {
    {.name = "pause", .status = "paused", .act = fl_server_pause_job},
    {.name = "resume", .status = "resumed", .act = fl_server_resume_job},
    {.name = "stop", .status = "stopping", .act = fl_server_stop_job},
    {.name = "abort", .status = "aborted", .act = fl_server_abort_round},
    {.name = "ban",
     .status = "banned",
     .wanted = "body: want {\"client\": ID} or {\"client\": ID, \"seconds\": "
               "0..9223372036}",
     .read = read_ban,
     .act_on = ban},
    {.name = "unban",
     .status = "unbanned",
     .wanted = "body: want {\"client\": ID}",
     .read = read_unban,
     .act_on = unban},
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

static int is_too_large(struct MHD_Connection *connection)
{
  const char *length = MHD_lookup_connection_value(
      connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
  return length && strtoull(length, NULL, 10) > ADMIN_BODY_MAX;
}

static enum MHD_Result reply_too_large(struct MHD_Connection *connection)
{
  return reply_error(connection, MHD_HTTP_CONTENT_TOO_LARGE,
                     "body: want 4 KiB at most");
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
  if (is_too_large(connection)) return reply_too_large(connection);
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
  switch (st) {
  case FL_E_ARGUMENT: return MHD_HTTP_BAD_REQUEST;
  case FL_E_NOT_FOUND: return MHD_HTTP_NOT_FOUND;
  case FL_E_STATE:
  case FL_E_LIMIT: return MHD_HTTP_CONFLICT;
  default: return MHD_HTTP_INTERNAL_SERVER_ERROR;
  }
}

static json_t *state_of(const struct http *http, const char *status,
                        const struct order *order)
{
  fl_job_status job;
  fl_job_status_init(&job, sizeof job);
  if (fl_server_get_status(http->run->server, 0, &job) != FL_OK) return NULL;
  return json_pack("{s:s,s:I,s:I,s:b,s:b,s:s*}", "status", status, "round",
                   (json_int_t)job.round, "version",
                   (json_int_t)job.model_version, "is_paused",
                   (int)job.is_paused, "is_finished", (int)job.is_finished,
                   "client", order->client);
}

static void log_action(const struct request *request, const struct order *order,
                       const char *result)
{
  char address[64];
  address_of(request->connection, address);
  json_t *fields =
      json_pack("{s:s,s:s,s:s,s:s*}", "action", request->action->name, "from",
                address, "result", result, "client", order->client);
  if (fields && order->seconds > 0)
    (void)json_object_set_new(fields, "seconds", json_integer(order->seconds));
  log_event(&request->http->run->log, "admin", fields);
}

static enum MHD_Result act(struct request *request, const struct order *order)
{
  struct http *http = request->http;
  struct MHD_Connection *connection = request->connection;
  const struct admin_action *action = request->action;
  fl_server *server = http->run->server;
  const fl_status st =
      action->act ? action->act(server, 0) : action->act_on(server, order);
  const char *text = st == FL_OK ? "done" : fl_last_error();
  log_action(request, order, text);
  if (st != FL_OK) return reply_error(connection, code_of(st), text);
  run_drain(http->run, http->now_ns);
  http->has_news = 1; /* clients may have something to hear */
  if (run_save(http->run) != 0)
    return reply_error(connection, MHD_HTTP_INTERNAL_SERVER_ERROR,
                       "done, but not saved");
  return reply_json(connection, MHD_HTTP_OK,
                    state_of(http, action->status, order), NULL, NULL);
}

/* ---- bodies ---- */

static enum MHD_Result act_on_body(struct request *request)
{
  const struct admin_action *action = request->action;
  struct order order = {NULL, 0};
  json_t *body = json_loadb(request->body ? request->body : "", request->size,
                            JSON_REJECT_DUPLICATES, NULL);
  const enum MHD_Result result =
      body && action->read(&order, body) == 0
          ? act(request, &order)
          : reply_error(request->connection, MHD_HTTP_BAD_REQUEST,
                        action->wanted);
  json_decref(body);
  return result;
}

static enum MHD_Result keep(struct request *request, const char *data, size_t n)
{
  if (!request->body) request->body = malloc(ADMIN_BODY_MAX);
  if (!request->body) return MHD_NO;
  memcpy(request->body + request->size, data, n);
  return MHD_YES;
}

enum MHD_Result admin_feed(struct request *request, const char *data, size_t n)
{
  const struct order none = {NULL, 0};
  const struct admin_action *action = request->action;
  const uint64_t size = request->size + n;
  if (n > 0 && size <= ADMIN_BODY_MAX && action->read &&
      keep(request, data, n) != MHD_YES)
    return MHD_NO;
  request->size = size;
  /* One that came without a length is heard to its end, if that is near. */
  if (size > 16 * ADMIN_BODY_MAX) return MHD_NO;
  if (n > 0) return MHD_YES;
  if (size > ADMIN_BODY_MAX) return reply_too_large(request->connection);
  if (action->read) return act_on_body(request);
  if (size > 0)
    return reply_error(request->connection, MHD_HTTP_BAD_REQUEST,
                       "body: want none");
  return act(request, &none);
}
