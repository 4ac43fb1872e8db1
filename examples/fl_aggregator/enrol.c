/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may take part: --enrol, --allow-list and how much a peer may send. A line
 * of the list is
 *
 *   HEX        a public key, as fl-participant --new-key prints it
 *   HEX ID     the same, under this id only
 *   -HEX       take it off again: what was added stays in the saved state
 *   # ...      nothing, as an empty line
 */
#include "fl_aggregator/enrol.h"

#include <err.h>
#include <stdio.h>
#include <string.h>

#include "common/keyfile.h"

enum { LINE_BYTES = 256 };
static const uint64_t second_ns = UINT64_C(1000000000);

int enrol_check(const struct config *config)
{
  const int is_listed = strcmp(config->enrol, "list") == 0;
  if (is_listed && !*config->allow_list) {
    warnx("enrol: a list, want --allow-list FILE");
    return -1;
  }
  if (!is_listed && *config->allow_list) {
    warnx("allow_list: got one, want --enrol list");
    return -1;
  }
  return public_key_check("server_key", config->server_key);
}

void enrol_options(const struct config *config, fl_server_options *options,
                   uint8_t *server_key)
{
  options->enrolment =
      strcmp(config->enrol, "list") == 0 ? FL_ENROL_LISTED : FL_ENROL_OPEN;
  options->max_messages = (uint32_t)config->max_messages;
  options->max_rejects = (uint32_t)config->max_rejects;
  options->ban_ns = config->ban_seconds * second_ns;
  if (*config->server_key &&
      hex_read(server_key, FL_PUBLIC_KEY_BYTES, config->server_key) == 0)
    options->server_key = server_key;
}

/* 0, or -1: no such line. */
static int take_line(fl_server *server, char *line)
{
  uint8_t key[FL_PUBLIC_KEY_BYTES];
  line[strcspn(line, "\r\n")] = '\0';
  if (!*line || *line == '#') return 0;
  const int is_off = *line == '-';
  char *digits = line + is_off;
  if (hex_read(key, sizeof key, digits) != 0) return -1;
  char *id = digits + PUBLIC_KEY_DIGITS;
  if (*id != '\0' && *id++ != ' ') return -1;
  if (is_off) {
    const fl_status st = fl_server_disallow(server, key);
    return *id == '\0' && (st == FL_OK || st == FL_E_NOT_FOUND) ? 0 : -1;
  }
  return fl_server_allow(server, key, *id ? id : NULL) == FL_OK ? 0 : -1;
}

static int load(fl_server *server, const char *path)
{
  char line[LINE_BYTES];
  int n = 0, result = 0;
  FILE *file = fopen(path, "re");
  if (!file) {
    warn("%s", path);
    return -1;
  }
  while (result == 0 && fgets(line, sizeof line, file)) {
    n++;
    result = take_line(server, line);
  }
  if (result != 0)
    warnx("%s:%d: want a public key (%d digits), and an id if any", path, n,
          PUBLIC_KEY_DIGITS);
  if (ferror(file)) {
    warn("%s", path);
    result = -1;
  }
  fclose(file);
  return result;
}

fl_server *enrol_load(fl_server *server, const struct config *config)
{
  if (!server || !*config->allow_list) return server;
  if (load(server, config->allow_list) == 0) return server;
  fl_server_free(server);
  return NULL;
}
