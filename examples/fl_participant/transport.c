/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP by libcurl, as lean as it gets: one connection kept alive, no header
 * that the aggregator does not need. The session's name is random and new
 * after every failure, so that nobody has to know how much of a broken request
 * arrived: the library's HELLO sorts that out.
 */
#include "fl_participant/transport.h"

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { CONNECT_SECONDS = 10, ANSWER_SECONDS = 900 };
static const size_t max_reply = 64u << 20;

static size_t on_data(char *data, size_t size, size_t count, void *user)
{
  struct transport *transport = user;
  size_t n = size * count;
  size_t want = transport->reply_size + n;
  if (want > max_reply) return 0;
  if (want > transport->reply_capacity) {
    uint8_t *grown = realloc(transport->reply, 2 * want);
    if (!grown) return 0;
    transport->reply = grown;
    transport->reply_capacity = 2 * want;
  }
  memcpy(transport->reply + transport->reply_size, data, n);
  transport->reply_size = want;
  return n;
}

/* curl calls this about once a second while it waits. */
static int on_progress(void *user, curl_off_t total_down, curl_off_t down,
                       curl_off_t total_up, curl_off_t up)
{
  (void)total_down;
  (void)down;
  (void)total_up;
  (void)up;
  const struct transport *transport = user;
  return *transport->stop != 0;
}

static int add_header(struct curl_slist **headers, const char *header)
{
  struct curl_slist *grown = curl_slist_append(*headers, header);
  if (!grown) return -1;
  *headers = grown;
  return 0;
}

static int set_options(struct transport *transport)
{
  /* A name with nothing behind the colon takes the header away. */
  static const char *const without[] = {"Accept:", "Content-Type:", "Expect:"};
  CURL *curl = transport->curl;
  for (size_t i = 0; i < sizeof without / sizeof without[0]; i++) {
    if (add_header(&transport->headers, without[i]) != 0 ||
        add_header(&transport->hasty_headers, without[i]) != 0)
      return -1;
  }
  if (add_header(&transport->hasty_headers, "Prefer: wait=0") != 0) return -1;
  curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, transport);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, transport);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
  curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)ANSWER_SECONDS);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, transport->error);
  return 0;
}

static int set_trust(struct transport *transport, const char *ca)
{
  CURL *curl = transport->curl;
  if (!*ca) return 0;
  if (access(ca, R_OK) != 0) {
    warn("ca: %s", ca);
    return -1;
  }
  if (curl_easy_setopt(curl, CURLOPT_CAINFO, ca) == CURLE_OK &&
      curl_easy_setopt(curl, CURLOPT_CAPATH, NULL) == CURLE_OK)
    return 0;
  warnx("ca: this libcurl cannot take one");
  return -1;
}

int transport_open(struct transport *transport, const char *server,
                   const char *ca, const volatile sig_atomic_t *stop)
{
  memset(transport, 0, sizeof *transport);
  transport->server = server;
  transport->stop = stop;
  transport_renew(transport);
  if (curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK)
    transport->curl = curl_easy_init();
  if (transport->curl && set_options(transport) == 0)
    return set_trust(transport, ca);
  warnx("curl: cannot be set up");
  return -1;
}

void transport_close(struct transport *transport)
{
  curl_easy_cleanup(transport->curl);
  curl_slist_free_all(transport->headers);
  curl_slist_free_all(transport->hasty_headers);
  free(transport->reply);
  curl_global_cleanup();
}

void transport_renew(struct transport *transport)
{
  uint8_t bytes[16];
  if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
    err(1, "getrandom");
  for (size_t i = 0; i < sizeof bytes; i++)
    snprintf(transport->session + 2 * i, 3, "%02x", bytes[i]);
  transport->is_open = 0;
}

/* The text of a refusal, one line of it, and nothing that a terminal would
 * obey: whoever answers need not be an aggregator. */
static void keep_refusal(struct transport *transport, long status)
{
  char text[100];
  size_t n = 0;
  while (n < transport->reply_size && n + 1 < sizeof text &&
         transport->reply[n] != '\n') {
    uint8_t byte = transport->reply[n];
    text[n++] = byte >= ' ' && byte <= '~' ? (char)byte : '?';
  }
  text[n] = 0;
  snprintf(transport->error, sizeof transport->error, "HTTP status %ld%s%s",
           status, n ? ": " : "", text);
}

/* Statuses that another try may change. 404: our session is gone; but one
 * that we wanted to open is only not found where there is no aggregator. */
static int may_pass(long status, int was_open)
{
  if (status == 404) return was_open;
  return status == 429 || (status >= 500 && status != 501 && status != 505);
}

/* What curl says, and what may be the reason when nothing has ever answered:
 * HTTP where HTTPS is spoken, or the other way round. */
static enum transport_result on_failure(struct transport *transport,
                                        CURLcode code)
{
  const int is_secure = strncmp(transport->server, "https://", 8) == 0;
  if (!transport->error[0])
    snprintf(transport->error, sizeof transport->error, "%s",
             curl_easy_strerror(code));
  if (code == CURLE_PEER_FAILED_VERIFICATION ||
      code == CURLE_SSL_CACERT_BADFILE)
    return TRANSPORT_REFUSED;
  const size_t n = strlen(transport->error);
  const char *hint = "";
  if (is_secure && code == CURLE_SSL_CONNECT_ERROR)
    hint = " (does it want http://?)";
  if (!is_secure && (code == CURLE_GOT_NOTHING || code == CURLE_RECV_ERROR))
    hint = " (does it want https://?)";
  if (!transport->has_answered)
    snprintf(transport->error + n, sizeof transport->error - n, "%s", hint);
  return TRANSPORT_BROKEN;
}

enum transport_result transport_exchange(struct transport *transport,
                                         const uint8_t *data, size_t n,
                                         int has_more)
{
  char url[2048];
  CURL *curl = transport->curl;
  int was_open = transport->is_open;
  size_t base = strlen(transport->server);
  while (base > 0 && transport->server[base - 1] == '/')
    base--;
  snprintf(url, sizeof url, "%.*s/fl/v1/session/%s", (int)base,
           transport->server, transport->session);
  transport->reply_size = 0;
  transport->error[0] = 0;
  curl_easy_setopt(curl, CURLOPT_URL, url);
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER,
                   has_more ? transport->hasty_headers : transport->headers);
  curl_easy_setopt(curl, CURLOPT_POST, 1L);
  curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST,
                   transport->is_open ? "POST" : "PUT");
  curl_easy_setopt(curl, CURLOPT_POSTFIELDS, n ? (const char *)data : "");
  curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)n);
  CURLcode code = curl_easy_perform(curl);
  if (*transport->stop) return TRANSPORT_STOPPED;
  if (code != CURLE_OK) return on_failure(transport, code);
  transport->has_answered = 1;
  long status = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  transport->is_open = 1;
  if (status == 200) return TRANSPORT_OK;
  if (status == 204) {
    transport->reply_size = 0;
    return TRANSPORT_OK;
  }
  keep_refusal(transport, status);
  return may_pass(status, was_open) ? TRANSPORT_BROKEN : TRANSPORT_REFUSED;
}
