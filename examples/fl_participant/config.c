/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings of fl-participant: their table, their defaults, and what they must
 * say together.
 */
#include "fl_participant/config.h"

#include <err.h>
#include <stddef.h>
#include <string.h>

#include <curl/curl.h>

#include "common/keyfile.h"

enum { ID_MAX = 64 };

#define AT(member) offsetof(struct config, member)
#define SEEDS 9007199254740992.0 /* 2^53: what JSON carries exactly */

static const struct setting table[] = {
    {"server", SETTING_TEXT, AT(server), 0, 0, NULL, "URL",
     "the aggregator, for example http://127.0.0.1:8437"},
    {"ca", SETTING_TEXT, AT(ca), 0, 0, NULL, "FILE",
     "with https://: trust who FILE (PEM) vouches for, and nobody else"},
    {"id", SETTING_TEXT, AT(id), 0, 0, NULL, "NAME",
     "stable identity, 1 to 64 printable characters"},
    {"job", SETTING_TEXT, AT(job), 0, 0, NULL, "NAME",
     "job to join; empty = the aggregator's first"},
    {"data", SETTING_TEXT, AT(data), 0, 0, NULL, "DIR",
     "folder with the train-* IDX files"},
    {"index", SETTING_COUNT, AT(index), 0, 65534, NULL, "N",
     "which of the shards is ours, from 0"},
    {"participants", SETTING_COUNT, AT(participants), 1, 65535, NULL, "N",
     "into how many shards the data is cut"},
    {"alpha", SETTING_REAL, AT(alpha), 1e-3, 1e6, NULL, "X",
     "evenness of the shards: Dirichlet(X) over the labels"},
    {"seed", SETTING_COUNT, AT(seed), 0, SEEDS, NULL, "N",
     "seed of the partition, the same for all participants"},
    {"state", SETTING_TEXT, AT(state), 0, 0, NULL, "FILE",
     "keep the state in FILE and go on from it"},
    {"key", SETTING_TEXT, AT(key), 0, 0, NULL, "FILE",
     "prove to have the key in FILE, and sign updates with it"},
    {"new-key", SETTING_FLAG, AT(new_key), 0, 0, NULL, NULL,
     "draw a key, write it to --key FILE, print its public half, and leave"},
    {"server-key", SETTING_TEXT, AT(server_key), 0, 0, NULL, "HEX",
     "prove it to the aggregator with this public key alone"},
    {"leave", SETTING_FLAG, AT(leave), 0, 0, NULL, NULL,
     "leave the job: the aggregator forgets --id"},
    {"cache", SETTING_TEXT, AT(cache), 0, 0, NULL, "none|memory|FILE",
     "where outputs of frozen modules are kept from round to round (none)"},
    {"retry-seconds", SETTING_COUNT, AT(retry_seconds), 0, 86400, NULL, "N",
     "give up when the aggregator cannot be reached for this long"},
    {"die-in-round", SETTING_COUNT, AT(die_in_round), 0, 1e6, NULL, "N",
     "kill this process while it trains round N (0 = never): a drill"},
    {"verbose", SETTING_FLAG, AT(verbose), 0, 0, NULL, NULL,
     "say on stderr what happens"},
};

const struct settings participant_settings = {
    .program_doc =
        "Take part in a federated training with one shard of a data set."
        "\v"
        "Exit status: 0 the training is over, or SIGTERM or SIGINT came and "
        "the state is saved, 1 failure at run time, 2 bad option or "
        "configuration, 3 refused by the aggregator, 4 the aggregator cannot "
        "be reached.",
    .table = table,
    .n = sizeof table / sizeof table[0],
};

void config_defaults(struct config *config)
{
  *config = (struct config){
      .server = "http://127.0.0.1:8437",
      .participants = 1,
      .seed = 1,
      .cache = "none",
      .retry_seconds = 60,
      .alpha = .5,
  };
}

static int is_printable(const char *text)
{
  for (; *text; text++)
    if (*text < ' ' || *text > '~') return 0;
  return 1;
}

/* Ends in what the session's path can be appended to. */
static int is_server(const char *url)
{
  if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
    return 0;
  CURLU *parts = curl_url();
  int is_good = parts && !strpbrk(url, "?#") &&
                curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK;
  curl_url_cleanup(parts);
  return is_good;
}

/* Its settings do not need the others. */
static int check_key(const struct config *config)
{
  if ((config->new_key || *config->server_key) && !*config->key) {
    warnx("key: got nothing, want --key FILE");
    return -1;
  }
  return public_key_check("server_key", config->server_key);
}

int config_check(const struct config *config)
{
  if (check_key(config) != 0) return -1;
  if (config->new_key) return 0;
  if (!*config->id) {
    warnx("id: got nothing, want --id NAME");
    return -1;
  }
  if (!is_printable(config->id) || strlen(config->id) > ID_MAX) {
    warnx("id: want 1 to %d printable ASCII characters", ID_MAX);
    return -1;
  }
  if (!*config->data) {
    warnx("data: got nothing, want --data DIR");
    return -1;
  }
  if (config->index >= config->participants) {
    warnx("index: got %llu, want less than participants (%llu)",
          (unsigned long long)config->index,
          (unsigned long long)config->participants);
    return -1;
  }
  if (!is_server(config->server)) {
    warnx("server: got \"%s\", want http://HOST:PORT or https://HOST:PORT",
          config->server);
    return -1;
  }
  if (*config->ca && strncmp(config->server, "https://", 8) != 0) {
    warnx("ca: is for https://, the server is \"%s\"", config->server);
    return -1;
  }
  return 0;
}
