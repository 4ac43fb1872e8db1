/* SPDX-License-Identifier: Apache-2.0 */
#include "fl_participant/identity.h"

#include <err.h>
#include <string.h>

#include "common/keyfile.h"

static fl_status give_key(fl_client *client, const struct config *config,
                          const uint8_t *secret)
{
  uint8_t server_key[FL_PUBLIC_KEY_BYTES];
  if (!*config->server_key) return fl_client_set_key(client, secret, NULL);
  /* config_check has read it before. */
  (void)hex_read(server_key, sizeof server_key, config->server_key);
  return fl_client_set_key(client, secret, server_key);
}

int identity_apply(fl_client *client, const struct config *config)
{
  uint8_t secret[FL_SECRET_KEY_BYTES];
  fl_status st = FL_OK;
  if (*config->key) {
    if (keyfile_load(secret, config->key) != 0) return -1;
    st = give_key(client, config, secret);
    explicit_bzero(secret, sizeof secret);
  }
  if (st == FL_OK && config->leave) st = fl_client_leave(client);
  if (st != FL_OK) warnx("client: %s", fl_last_error());
  return st == FL_OK ? 0 : -1;
}
