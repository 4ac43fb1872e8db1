/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation failures of sealed channels: reported, and everything is given
 * back. */
#include "oom.h"

#include <fl/channel.h>
#include "base/error.h"

static fl_status carry(fl_channel *from, fl_channel *to)
{
  const uint8_t *data = NULL;
  size_t n = 0;
  const fl_status st = fl_channel_send(from, &data, &n);
  return st == FL_OK ? fl_channel_recv(to, data, n) : st;
}

static fl_status talk(fl_context *context, void *arg)
{
  uint8_t secret[FL_SECRET_KEY_BYTES], key[FL_PUBLIC_KEY_BYTES];
  fl_channel_options options;
  fl_channel *server = NULL, *client = NULL;
  const uint8_t *data = NULL;
  size_t n = 0;
  fl_status st = FL_OK;
  (void)arg;
  FLI_TRY(fl_key_generate(NULL, secret, key));
  FLI_TRY(fl_channel_options_init(&options, sizeof options));
  options.secret_key = secret;
  options.server_key = key;
  FLI_TRY(fl_channel_new(&client, context, &options));
  options.is_server = 1;
  FLI_TRY(fl_channel_new(&server, context, &options));
  FLI_TRY(fl_channel_write(client, (const uint8_t *)"early", 5));
  FLI_TRY(carry(client, server));
  FLI_TRY(carry(server, client));
  FLI_TRY(carry(client, server));
  FLI_TRY(fl_channel_read(server, &data, &n));
  CHECK_EQ_U64(n, 5);
  FLI_TRY(fl_channel_write(server, secret, sizeof secret));
  FLI_TRY(fl_channel_close(server));
  FLI_TRY(carry(server, client));
  CHECK_EQ_U64(fl_channel_has_ended(client), 1);
out:
  fl_channel_free(client);
  fl_channel_free(server);
  return st;
}

static void both_ends_report_it(void)
{
  oom_loop(talk, NULL);
}

int main(void)
{
  CHECK_CASE(both_ends_report_it);
  return check_report();
}
