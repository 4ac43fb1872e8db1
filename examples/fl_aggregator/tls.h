/* SPDX-License-Identifier: Apache-2.0 */
/* Certificate and key of HTTPS. */
#ifndef FL_AGGREGATOR_TLS_H
#define FL_AGGREGATOR_TLS_H

#include "fl_aggregator/config.h"

/* PEM texts; NULL: plain HTTP. */
struct tls {
  char *certificate;
  char *key;
};

/* Read what the settings name. 0, or -1 with a line on stderr. */
int tls_load(struct tls *tls, const struct config *config);
void tls_free(struct tls *tls);

#endif
