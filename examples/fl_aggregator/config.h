/* SPDX-License-Identifier: Apache-2.0 */
/* Settings of fl-aggregator. */
#ifndef FL_AGGREGATOR_CONFIG_H
#define FL_AGGREGATOR_CONFIG_H

#include <stdint.h>

#include <fl/server.h>

#include "common/settings.h"

struct config {
  char listen[SETTING_TEXT_BYTES];
  char port_file[SETTING_TEXT_BYTES];
  char codec[SETTING_TEXT_BYTES];
  char lr_schedule[SETTING_TEXT_BYTES];
  char thc_mode[SETTING_TEXT_BYTES];
  char model_description[SETTING_TEXT_BYTES];
  char test_data[SETTING_TEXT_BYTES];
  char log[SETTING_TEXT_BYTES];
  char snapshot[SETTING_TEXT_BYTES];
  char state[SETTING_TEXT_BYTES];
  char model_out[SETTING_TEXT_BYTES];
  char freeze[SETTING_TEXT_BYTES];
  char strategy[SETTING_TEXT_BYTES];
  char selector[SETTING_TEXT_BYTES];
  char hidden[SETTING_TEXT_BYTES];
  char enrol[SETTING_TEXT_BYTES];
  char allow_list[SETTING_TEXT_BYTES];
  char server_key[SETTING_TEXT_BYTES];
  char certificate[SETTING_TEXT_BYTES];
  char key_file[SETTING_TEXT_BYTES];
  char admin_token_file[SETTING_TEXT_BYTES];
  char metrics_token_file[SETTING_TEXT_BYTES];
  char models[SETTING_TEXT_BYTES];
  uint64_t bits;
  uint64_t rounds;
  uint64_t participants;
  uint64_t min_participants;
  uint64_t min_clients;
  uint64_t epochs;
  uint64_t batch;
  uint64_t seed;
  uint64_t poll_seconds;
  uint64_t grace_seconds;
  uint64_t norm_deadline_seconds;
  uint64_t update_deadline_seconds;
  uint64_t max_sessions;
  uint64_t request_seconds;
  uint64_t keep_models;
  uint64_t staging_mb;
  uint64_t commit_ms;
  uint64_t state_max_mb;
  uint64_t byzantine;
  uint64_t max_samples;
  uint64_t max_messages;
  uint64_t max_rejects;
  uint64_t ban_seconds;
  uint64_t fedbuff;
  uint64_t staleness;
  uint64_t demands;
  uint64_t checkin_seconds;
  double over_select;
  double lr;
  double lr_end;
  double server_lr;
  double server_momentum;
  double clip;
  int error_feedback;
  int fresh;
  int exit_when_done;
};

/* What --freeze says, and what it points to. */
struct freeze_config {
  fl_freeze_options options;
  fl_freeze_fixed fixed[16];
};

/* Widths of the MLP's hidden layers. */
struct hidden_config {
  uint32_t n;
  uint32_t widths[8];
};

extern const struct settings aggregator_settings;

void config_defaults(struct config *config);
/* What settings say together: 0, or -1 with a line on stderr. */
int config_check(const struct config *config);
/* The job that they describe; `codec` and `strategy` are filled in and
 * borrowed. */
void config_job(const struct config *config, fl_job_options *job,
                fl_compressor_options *codec, fl_strategy_options *strategy);
/* Whom a round asks: 1, or 0 for whoever is drawn. */
int config_selection(const struct config *config,
                     fl_selection_options *selection);
/* How a model of n_modules modules is to be frozen: 1, 0 for never, or -1 with
 * a line on stderr. */
int config_freeze(const struct config *config, uint32_t n_modules,
                  struct freeze_config *freeze);
/* 0, or -1 with a line on stderr. */
int config_hidden(const struct config *config, struct hidden_config *hidden);

#endif
