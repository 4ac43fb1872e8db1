/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listening side, on the process's one thread: libmicrohttpd in epoll mode
 * is driven from the main loop. Besides its descriptor the epoll set here
 * holds the connections of held requests (see request.c).
 */
#include "fl_aggregator/http.h"

#include <err.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fl/host.h>

#include "fl_aggregator/request.h"
#include "fl_aggregator/tls.h"

static const uint64_t second_ns = UINT64_C(1000000000);
/* A session without a connection for this long counts as lost; a client that
 * merely opens another connection is faster. */
static const uint64_t reconnect_ns = UINT64_C(500000000);

/* For writing answers before anything else is done. */
static const uint64_t write_ns = UINT64_C(20000000);

/* Least of a body or an answer that has to pass in a second. */
static const uint64_t least_bytes = 1024;

enum {
  SPARE_CONNECTIONS = 16,
  SPARE_DESCRIPTORS = 32,
  CONNECTION_BYTES = 32768, /* for headers, and for reading a body */
  BACKLOG = 4096            /* the kernel has a bound of its own */
};

static void on_connection(void *user, struct MHD_Connection *connection,
                          void **context,
                          enum MHD_ConnectionNotificationCode code)
{
  struct http *http = user;
  struct sessions *sessions = &http->run->sessions;
  if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
    if (*context) link_close(sessions, *context, http->now_ns);
    return;
  }
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
  if (!info) return;
  const int on = 1;
  (void)setsockopt(info->connect_fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  *context = link_open(sessions, info->connect_fd, http->now_ns);
}

/* "host:port" or "[v6]:port" to an address. */
static struct addrinfo *resolve(const char *listen)
{
  char host[SETTING_TEXT_BYTES];
  const char *colon = strrchr(listen, ':');
  const char *from = listen;
  size_t n = (size_t)(colon - listen);
  if (n >= 2 && listen[0] == '[' && listen[n - 1] == ']') {
    from++;
    n -= 2;
  }
  memcpy(host, from, n);
  host[n] = 0;
  const struct addrinfo hints = {.ai_family = AF_UNSPEC,
                                 .ai_socktype = SOCK_STREAM,
                                 .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
  struct addrinfo *found = NULL;
  int error = getaddrinfo(host, colon + 1, &hints, &found);
  if (error == 0) return found;
  warnx("listen: %s: %s", listen, gai_strerror(error));
  return NULL;
}

/* Bytes are counted by the kernel: say at the start when it cannot. */
static int check_counters(const struct http *http)
{
  uint64_t received;
  uint64_t sent;
  const union MHD_DaemonInfo *info =
      MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_LISTEN_FD);
  if (info && tcp_bytes(info->listen_fd, &received, &sent) == 0) return 0;
  warn("TCP_INFO: this kernel does not count bytes per socket, want Linux "
       "4.19 or later");
  return -1;
}

/* Connections that we can hold and still open a snapshot. The usual limit of
 * 1024 descriptors is less than we may raise it to. */
static unsigned connection_limit(uint64_t max_sessions)
{
  rlim_t connections = max_sessions + SPARE_CONNECTIONS;
  rlim_t wanted = connections + SPARE_DESCRIPTORS;
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return SPARE_CONNECTIONS;
  if (limit.rlim_cur < wanted) {
    rlim_t had = limit.rlim_cur;
    limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = had;
  }
  if (limit.rlim_cur < wanted) {
    warnx("max_sessions: %llu descriptors are allowed (ulimit -n), all "
          "sessions want %llu",
          (unsigned long long)limit.rlim_cur, (unsigned long long)wanted);
    connections = SPARE_CONNECTIONS;
    if (limit.rlim_cur > SPARE_CONNECTIONS + SPARE_DESCRIPTORS)
      connections = limit.rlim_cur - SPARE_DESCRIPTORS;
  }
  return (unsigned)connections;
}

/* As long as a client may be busy with its training, or be held. */
static uint64_t longest_silence(const struct config *config)
{
  uint64_t longest = config->poll_seconds;
  if (config->norm_deadline_seconds > longest)
    longest = config->norm_deadline_seconds;
  if (config->update_deadline_seconds > longest)
    longest = config->update_deadline_seconds;
  return (longest + config->request_seconds) * second_ns;
}

static struct MHD_Daemon *start_daemon(struct http *http)
{
  const struct config *config = http->config;
  struct addrinfo *address = resolve(config->listen);
  if (!address) return NULL;
  unsigned flags =
      MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_SUPPRESS_DATE_NO_CLOCK;
  if (address->ai_family == AF_INET6) flags |= MHD_USE_IPv6;
  http->silence_ns = longest_silence(config);
  struct tls tls;
  if (tls_load(&tls, config) != 0) {
    freeaddrinfo(address);
    return NULL;
  }
  const struct MHD_OptionItem pem[] = {
      {MHD_OPTION_HTTPS_MEM_CERT, 0, tls.certificate},
      {MHD_OPTION_HTTPS_MEM_KEY, 0, tls.key},
      {MHD_OPTION_END, 0, NULL}};
  const struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
  if (tls.key) flags |= MHD_USE_TLS;
  errno = 0;
  struct MHD_Daemon *daemon = MHD_start_daemon(
      flags, 0, NULL, NULL, request_handle, http, MHD_OPTION_SOCK_ADDR,
      address->ai_addr, MHD_OPTION_NOTIFY_COMPLETED, request_completed, http,
      MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,
      MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
      MHD_OPTION_LISTEN_BACKLOG_SIZE, (unsigned)BACKLOG,
      MHD_OPTION_CONNECTION_LIMIT, connection_limit(config->max_sessions),
      MHD_OPTION_ARRAY, tls.key ? pem : none, MHD_OPTION_END);
  if (!daemon && errno != 0) warn("listen: %s", config->listen);
  if (!daemon && errno == 0 && tls.key)
    warnx("certificate, key_file: want PEM files that belong together");
  tls_free(&tls);
  freeaddrinfo(address);
  return daemon;
}

int http_start(struct http *http, const struct config *config, struct run *run)
{
  memset(http, 0, sizeof *http);
  http->run = run;
  http->config = config;
  http->epoll = epoll_create1(EPOLL_CLOEXEC);
  if (http->epoll < 0) {
    warn("epoll");
    return -1;
  }
  if (token_load(&http->admin, config->admin_token_file) != 0 ||
      token_load(&http->metrics, config->metrics_token_file) != 0)
    return -1;
  http->daemon = start_daemon(http);
  if (!http->daemon || check_counters(http) != 0) return -1;
  const union MHD_DaemonInfo *info =
      MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
  struct epoll_event event = {.events = EPOLLIN};
  if (info &&
      epoll_ctl(http->epoll, EPOLL_CTL_ADD, info->epoll_fd, &event) == 0)
    return 0;
  warn("epoll");
  return -1;
}

uint16_t http_port(const struct http *http)
{
  const union MHD_DaemonInfo *info =
      MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_BIND_PORT);
  return info ? info->port : 0;
}

void http_run(struct http *http, uint64_t now_ns)
{
  struct epoll_event events[64];
  http->now_ns = now_ns;
  int n = epoll_wait(http->epoll, events, 64, 0);
  for (int i = 0; i < n; i++) {
    /* NULL: libmicrohttpd's own descriptor. Else the client hung up. */
    if (events[i].data.ptr) request_release(events[i].data.ptr);
  }
  MHD_run(http->daemon);
}

static int is_due(const struct http *http, const struct request *request)
{
  const struct session *session = request->link->session;
  if (!session || session->is_closed || http->is_draining) return 1;
  if (http->now_ns - request->waiting_since_ns >=
      http->config->poll_seconds * second_ns)
    return 1;
  return request->is_hasty || sessions_is_over(http->run->server, session);
}

static void forget_gone(struct http *http)
{
  struct sessions *sessions = &http->run->sessions;
  struct session *session = sessions->gone_first;
  while (session && http->now_ns - session->gone_since_ns >= reconnect_ns) {
    http->has_news = 1;
    (void)fl_server_disconnected(http->run->server, session->peer);
    sessions_drop(sessions, session);
    session = sessions->gone_first;
  }
}

/* Of the body that comes in, or of the answer that goes out. */
static uint64_t bytes_passed(const struct request *request)
{
  if (request->state == REQUEST_RELEASED)
    return tcp_acked(request->link->fd) - request->acked;
  return request->size;
}

/* 1 when a connection has had time enough. Whatever begins a second window of
 * request_seconds has to have passed its least bytes in the one before. */
static int is_too_slow(const struct http *http, const struct link *link)
{
  const uint64_t seconds = http->config->request_seconds;
  struct request *request = link->request;
  if (!request)
    return http->now_ns - link->idle_since_ns >=
           (link->session ? http->silence_ns : seconds * second_ns);
  if (request->state == REQUEST_WAITING) return 0;
  const uint64_t passed = bytes_passed(request);
  if (passed - request->window_bytes >= seconds * least_bytes) {
    request->window_bytes = passed;
    request->window_ns = http->now_ns;
  }
  return http->now_ns - request->window_ns >= seconds * second_ns;
}

/* Once a second, whatever happens: close connections that are too slow,
 * however little by little they send, and look at all held requests. */
static void sweep(struct http *http)
{
  if (http->now_ns - http->swept_ns < second_ns && !http->is_draining) return;
  http->swept_ns = http->now_ns;
  for (struct link *link = http->run->sessions.links; link; link = link->next)
    if (is_too_slow(http, link)) {
      http->run->metrics.connections_too_slow++;
      /* libmicrohttpd sees that and says goodbye to the connection. */
      (void)shutdown(link->fd, SHUT_RDWR);
    }
  for (struct request *next, *at = http->waiting; at; at = next) {
    next = at->next;
    if (is_due(http, at)) request_release(at);
  }
}

/* Those who are being sent something are ready all the time. They are passed
 * over, and that there are many is no reason to do nothing else: a microsecond
 * of rest for each. */
static void release_ready(struct http *http)
{
  uint64_t peer = UINT64_MAX, passed = 0;
  http->is_scan_due = http->waiting && http->now_ns < http->rested_ns;
  if (!http->waiting || http->is_scan_due) return;
  while (fl_server_next_ready(http->run->server, &peer) == FL_OK) {
    struct session *session = sessions_find_peer(&http->run->sessions, peer);
    if (session && session->waiting)
      request_release(session->waiting);
    else
      passed++;
  }
  http->rested_ns = http->now_ns + passed * 1000;
}

/* A connection takes a message or two each time. As long as sockets do, go on,
 * or those who read a model get so little of it a turn, which may wait for the
 * disk; but not for longer than that. */
static void write_answers(struct http *http)
{
  const uint64_t begin_ns = fl_host_now();
  MHD_UNSIGNED_LONG_LONG ms = 0;
  do {
    MHD_run(http->daemon);
  } while (MHD_get_timeout(http->daemon, &ms) == MHD_YES && ms == 0 &&
           fl_host_now() - begin_ns < write_ns);
}

void http_answer(struct http *http, uint64_t now_ns)
{
  http->now_ns = now_ns;
  release_ready(http);
  while (http->fresh) {
    struct request *request = http->fresh;
    http->fresh = request->next;
    if (is_due(http, request)) request_release(request);
  }
  while (http->waiting && is_due(http, http->waiting))
    request_release(http->waiting);
  sweep(http);
  http->has_news = 0;
  forget_gone(http);
  write_answers(http);
}

uint64_t http_next_deadline(const struct http *http)
{
  if (http->has_news) return http->now_ns;
  uint64_t deadline = UINT64_MAX;
  MHD_UNSIGNED_LONG_LONG ms = 0;
  if (MHD_get_timeout(http->daemon, &ms) == MHD_YES)
    deadline = http->now_ns + ms * 1000000;
  if (http->waiting) {
    uint64_t due = http->waiting->waiting_since_ns +
                   http->config->poll_seconds * second_ns;
    if (due < deadline) deadline = due;
    if (http->is_scan_due && http->rested_ns < deadline)
      deadline = http->rested_ns;
  }
  const struct sessions *sessions = &http->run->sessions;
  if (sessions->links && http->swept_ns + second_ns < deadline)
    deadline = http->swept_ns + second_ns;
  if (sessions->gone_first) {
    uint64_t due = sessions->gone_first->gone_since_ns + reconnect_ns;
    if (due < deadline) deadline = due;
  }
  return deadline;
}

void http_drain(struct http *http)
{
  if (http->is_draining) return;
  http->is_draining = 1;
  MHD_socket listener = MHD_quiesce_daemon(http->daemon);
  if (listener != MHD_INVALID_SOCKET) close(listener);
}

int http_is_deserted(const struct http *http)
{
  for (const struct link *link = http->run->sessions.links; link;
       link = link->next)
    if (link->session) return 0;
  return 1;
}

void http_stop(struct http *http)
{
  if (http->daemon) {
    while (http->waiting)
      request_release(http->waiting);
    MHD_run(http->daemon);
    MHD_stop_daemon(http->daemon);
    http->daemon = NULL;
  }
  if (http->epoll >= 0) close(http->epoll);
  http->epoll = -1;
}
