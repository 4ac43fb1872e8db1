/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTPS by libmicrohttpd's GnuTLS, which takes certificate (the chain, ours
 * first) and key as PEM texts. The key is wiped as soon as it has them.
 */
#include "fl_aggregator/tls.h"

#include <err.h>
#include <stdlib.h>
#include <string.h>

#include <microhttpd.h>

#include "fl_aggregator/secrets.h"

enum { MAX_PEM = 256 * 1024 };

static char *load_pem(const char *path, const char *begin)
{
  char *text = secret_load(path, MAX_PEM);
  if (!text) return NULL;
  if (strstr(text, begin)) return text;
  warnx("%s: want PEM, with a line \"%s...\"", path, begin);
  secret_free(text);
  return NULL;
}

int tls_load(struct tls *tls, const struct config *config)
{
  *tls = (struct tls){NULL, NULL};
  if (!*config->certificate) return 0;
  if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES) {
    warnx("certificate: this libmicrohttpd was built without TLS");
    return -1;
  }
  tls->certificate = load_pem(config->certificate, "-----BEGIN CERTIFICATE");
  tls->key = load_pem(config->key_file, "-----BEGIN ");
  if (tls->certificate && tls->key) return 0;
  tls_free(tls);
  return -1;
}

void tls_free(struct tls *tls)
{
  free(tls->certificate);
  secret_free(tls->key);
  *tls = (struct tls){NULL, NULL};
}
