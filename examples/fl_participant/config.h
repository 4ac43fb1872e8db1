/* SPDX-License-Identifier: Apache-2.0 */
/* Settings of fl-participant. */
#ifndef FL_PARTICIPANT_CONFIG_H
#define FL_PARTICIPANT_CONFIG_H

#include <stdint.h>

#include "common/settings.h"

struct config {
  char server[SETTING_TEXT_BYTES];
  char id[SETTING_TEXT_BYTES];
  char job[SETTING_TEXT_BYTES];
  char data[SETTING_TEXT_BYTES];
  char state[SETTING_TEXT_BYTES];
  char cache[SETTING_TEXT_BYTES];
  char key[SETTING_TEXT_BYTES];
  char server_key[SETTING_TEXT_BYTES];
  char ca[SETTING_TEXT_BYTES];
  uint64_t index;
  uint64_t participants;
  uint64_t seed;
  uint64_t retry_seconds;
  uint64_t die_in_round;
  double alpha;
  int new_key;
  int leave;
  int verbose;
};

extern const struct settings participant_settings;

void config_defaults(struct config *config);
/* What settings say together: 0, or -1 with a line on stderr. */
int config_check(const struct config *config);

#endif
