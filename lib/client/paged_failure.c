/* SPDX-License-Identifier: Apache-2.0 */
/* A storage that fails, or gives what was not written. Once is tried again at
 * once. From the second time on, the update is given up (it may be what cannot
 * be read, and training makes it anew) and the client waits, longer every time,
 * until a model has come whole or it has tried as often as the options say. */
#include "base/error.h"
#include "client/paged.h"

static uint64_t pause_of(const fl_client *client, uint32_t failures)
{
  uint64_t pause = client->options.retry_ns;
  for (uint32_t i = 2; i < failures && i < 5; i++)
    pause = pause > UINT64_MAX / 2 ? UINT64_MAX : 2 * pause;
  return pause;
}

void fli_paged_failed(fl_client *client, fl_status st)
{
  fl_paged *paged = client->options.paged;
  const uint32_t most = client->options.max_retries;
  if (st != FL_E_IO && st != FL_E_NOT_FINITE) return;
  if (fli_client_is_over(client)) return;
  if (paged->failures < UINT32_MAX) paged->failures++;
  if (most > 0 && paged->failures > most) {
    fli_client_abort(client, FL_REJECT_LIMIT, fl_last_error());
    return;
  }
  if (st == FL_E_IO && paged->failures == 1) return;
  fli_client_forget_trained(client);
  fli_client_resync(client);
  if (paged->failures == 1) return;
  client->has_new_wait = 1;
  client->wait_ns = pause_of(client, paged->failures);
  client->wait_reason = FL_REJECT_LIMIT;
  fli_client_copy_text(client->text, fl_last_error());
}
