/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings of fl-aggregator: their table, defaults, and how they become a job
 * of the library.
 */
#include "fl_aggregator/config.h"

#include <err.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fl_aggregator/enrol.h"

static const uint64_t second_ns = UINT64_C(1000000000);

#define AT(member) offsetof(struct config, member)
enum { FREEZE_ANY = 4096 };      /* modules, when they are not known yet */
#define SEEDS 9007199254740992.0 /* 2^53: what JSON carries exactly */

static const struct setting table[] = {
    {"listen", SETTING_TEXT, AT(listen), 0, 0, NULL, "HOST:PORT",
     "address to serve; port 0 takes a free one"},
    {"port-file", SETTING_TEXT, AT(port_file), 0, 0, NULL, "FILE",
     "write the port in use to FILE"},
    {"rounds", SETTING_COUNT, AT(rounds), 1, 1e6, NULL, "N", "rounds to train"},
    {"participants", SETTING_COUNT, AT(participants), 0, FL_MAX_SLOTS, NULL,
     "N", "updates wanted per round; 0 = of everybody who is there"},
    {"over-select", SETTING_REAL, AT(over_select), 1, 10, NULL, "X",
     "ask so many times participants, take the first that come"},
    {"selector", SETTING_TEXT, AT(selector), 0, 0, "random|choice|oort", "NAME",
     "whom a round asks: random, or by losses: choice, oort"},
    {"fedbuff", SETTING_COUNT, AT(fedbuff), 0, 4095, NULL, "K",
     "a round ends with K updates, slow participants go on; 0 = never"},
    {"staleness", SETTING_COUNT, AT(staleness), 0, 64, NULL, "N",
     "with fedbuff: versions that an update may be old"},
    {"demands", SETTING_COUNT, AT(demands), 0, FL_CONDITION_ALL, NULL, "BITS",
     "ask devices only while they are: 1 charging, 2 on an unmetered "
     "network, 4 idle"},
    {"checkin-seconds", SETTING_COUNT, AT(checkin_seconds), 0, 86400, NULL, "N",
     "who is not needed is told to come back after so long and more; 0 = "
     "nobody is told"},
    {"min-participants", SETTING_COUNT, AT(min_participants), 1, FL_MAX_SLOTS,
     NULL, "N", "fewer updates than this abort the round"},
    {"min-clients", SETTING_COUNT, AT(min_clients), 1, 1e6, NULL, "N",
     "clients that must have joined before the first round"},
    {"codec", SETTING_TEXT, AT(codec), 0, 0, "f32|bf16|thc", "NAME",
     "how updates travel: f32, bf16 or thc"},
    {"thc-mode", SETTING_TEXT, AT(thc_mode), 0, 0, "dither|uniform|table",
     "NAME", "rounding of thc: dither, uniform or table"},
    {"bits", SETTING_COUNT, AT(bits), 1, 8, NULL, "N",
     "bits of thc per weight, on the way up"},
    {"error-feedback", SETTING_FLAG, AT(error_feedback), 0, 0, NULL, NULL,
     "participants send what their encodings lost with later updates"},
    {"epochs", SETTING_COUNT, AT(epochs), 1, 10000, NULL, "N",
     "local epochs per round"},
    {"batch", SETTING_COUNT, AT(batch), 1, 1e6, NULL, "N", "batch size"},
    {"lr", SETTING_REAL, AT(lr), 0, 1000, NULL, "X",
     "learning rate of the participants"},
    {"lr-schedule", SETTING_TEXT, AT(lr_schedule), 0, 0, "constant|cosine",
     "NAME", "cosine: the rate falls from lr to lr-end over the rounds"},
    {"lr-end", SETTING_REAL, AT(lr_end), 0, 1, NULL, "X",
     "what part of lr a cosine ends at"},
    {"seed", SETTING_COUNT, AT(seed), 0, SEEDS, NULL, "N",
     "seed of the initial model and of all draws"},
    {"server-lr", SETTING_REAL, AT(server_lr), 0, 1000, NULL, "X",
     "factor on the mean update"},
    {"server-momentum", SETTING_REAL, AT(server_momentum), 0, 0.9999, NULL, "X",
     "momentum over rounds"},
    {"strategy", SETTING_TEXT, AT(strategy), 0, 0,
     "fedavg|fedavgm|fedprox|fedadam|fedyogi|fedadagrad|fednova|scaffold|"
     "q-fedavg|"
     "median|trimmed-mean|krum|multi-krum|geometric-median",
     "NAME",
     "what becomes of the updates; with another than fedavg, server-lr is its "
     "rate"},
    {"byzantine", SETTING_COUNT, AT(byzantine), 0, FL_MAX_SLOTS, NULL, "N",
     "updates of a round that krum and multi-krum reckon with being anything"},
    {"clip", SETTING_REAL, AT(clip), 0, 1e6, NULL, "X",
     "make longer updates as long as this; 0 = never"},
    {"freeze", SETTING_TEXT, AT(freeze), 0, 0, NULL, "KIND",
     "freeze modules: gradnorm[:TOLERANCE] (when their gradients change by "
     "less than TOLERANCE, .9, times as much as at first), or "
     "fixed:ROUND:N,... (the first N from ROUND on)"},
    {"hidden", SETTING_TEXT, AT(hidden), 0, 0, NULL, "N,...",
     "widths of the MLP's hidden layers (128), each a module of its own"},
    {"model-description", SETTING_TEXT, AT(model_description), 0, 0, NULL,
     "FILE", "train this model (description bytes) instead of the MLP"},
    {"test-data", SETTING_TEXT, AT(test_data), 0, 0, NULL, "DIR",
     "score the model on the t10k IDX files in DIR after every round"},
    {"log", SETTING_TEXT, AT(log), 0, 0, NULL, "FILE",
     "append one JSON object per event to FILE; - is standard output"},
    {"snapshot", SETTING_TEXT, AT(snapshot), 0, 0, NULL, "FILE",
     "save the state to FILE after every round and on SIGTERM; go on from it "
     "at the start"},
    {"state", SETTING_TEXT, AT(state), 0, 0, NULL, "FILE",
     "keep the state in FILE (SQLite) before anything is acknowledged; go on "
     "from it at the start, however the process ended"},
    {"commit-ms", SETTING_COUNT, AT(commit_ms), 0, 10000, NULL, "N",
     "with --state: hold acknowledgements so long for others to share a "
     "commit"},
    {"state-max-mb", SETTING_COUNT, AT(state_max_mb), 0, 1e6, NULL, "N",
     "with --state: the file's size at most, MiB; 0 = no bound"},
    {"fresh", SETTING_FLAG, AT(fresh), 0, 0, NULL, NULL,
     "begin anew even if the snapshot or state is there"},
    {"model-out", SETTING_TEXT, AT(model_out), 0, 0, NULL, "FILE",
     "when the job is over, write its model to FILE (safetensors)"},
    {"exit-when-done", SETTING_FLAG, AT(exit_when_done), 0, 0, NULL, NULL,
     "leave when the job is over and the clients have fetched the end"},
    {"poll-seconds", SETTING_COUNT, AT(poll_seconds), 1, 600, NULL, "N",
     "how long a request with nothing to answer is held"},
    {"grace-seconds", SETTING_COUNT, AT(grace_seconds), 0, 86400, NULL, "N",
     "how long a client whose connection broke may stay away"},
    {"norm-deadline-seconds", SETTING_COUNT, AT(norm_deadline_seconds), 1,
     86400, NULL, "N", "time for local training, from the plan on"},
    {"update-deadline-seconds", SETTING_COUNT, AT(update_deadline_seconds), 1,
     86400, NULL, "N", "time for sending updates"},
    {"enrol", SETTING_TEXT, AT(enrol), 0, 0, "open|list", "KIND",
     "who may take part: open (everybody), or list (keys of --allow-list)"},
    {"allow-list", SETTING_TEXT, AT(allow_list), 0, 0, NULL, "FILE",
     "public keys that may take part, one a line, with an id if any; -KEY "
     "takes one off"},
    {"server-key", SETTING_TEXT, AT(server_key), 0, 0, NULL, "HEX",
     "public key that participants pin with theirs"},
    {"max-samples", SETTING_COUNT, AT(max_samples), 1, 1099511627776.0, NULL,
     "N", "refuse participants that claim more samples"},
    {"max-messages", SETTING_COUNT, AT(max_messages), 0, 1e9, NULL, "N",
     "messages that a peer may send in a minute; 0 = no limit"},
    {"max-rejects", SETTING_COUNT, AT(max_rejects), 0, 1e6, NULL, "N",
     "bad messages in a minute before a participant is banned; 0 = never"},
    {"ban-seconds", SETTING_COUNT, AT(ban_seconds), 1, 31536000, NULL, "N",
     "how long it is banned then"},
    {"max-sessions", SETTING_COUNT, AT(max_sessions), 1, 65536, NULL, "N",
     "sessions at once"},
    {"request-seconds", SETTING_COUNT, AT(request_seconds), 1, 3600, NULL, "N",
     "time for a request's headers, for each N KiB of its body or answer, and "
     "for a connection without a session to make one"},
    {"staging-mb", SETTING_COUNT, AT(staging_mb), 1, 1e6, NULL, "N",
     "bytes of updates that have begun to come in, MiB; beyond it clients "
     "wait"},
    {"certificate", SETTING_TEXT, AT(certificate), 0, 0, NULL, "FILE",
     "serve HTTPS with this certificate (PEM, the chain after it)"},
    {"key-file", SETTING_TEXT, AT(key_file), 0, 0, NULL, "FILE",
     "the certificate's private key (PEM)"},
    {"admin-token-file", SETTING_TEXT, AT(admin_token_file), 0, 0, NULL, "FILE",
     "serve POST /admin/pause, resume, stop, abort, ban, unban to who has this"
     " token"},
    {"metrics-token-file", SETTING_TEXT, AT(metrics_token_file), 0, 0, NULL,
     "FILE", "serve /metrics only to who has this token, or the admin's"},
    {"models", SETTING_TEXT, AT(models), 0, 0, NULL, "DIR",
     "write every version of the model to DIR (safetensors)"},
    {"keep-models", SETTING_COUNT, AT(keep_models), 1, 1e6, NULL, "N",
     "with --models: keep the last N"},
};

const struct settings aggregator_settings = {
    .program_doc =
        "Serve one federated training over HTTP."
        "\v"
        "Exit status: 0 the job is over (--exit-when-done) or SIGTERM or "
        "SIGINT came and the state is saved, 1 failure at run time, 2 bad "
        "option or configuration.",
    .table = table,
    .n = sizeof table / sizeof table[0],
};

void config_defaults(struct config *config)
{
  *config = (struct config){
      .listen = "127.0.0.1:8437",
      .codec = "thc",
      .strategy = "fedavg",
      .selector = "random",
      .over_select = 1,
      .staleness = 16,
      .byzantine = 1,
      .thc_mode = "dither",
      .bits = 4,
      .rounds = 15,
      .min_participants = 1,
      .min_clients = 1,
      .epochs = 1,
      .batch = 32,
      .seed = 1,
      .poll_seconds = 20,
      .grace_seconds = 10,
      .norm_deadline_seconds = 600,
      .update_deadline_seconds = 600,
      .max_sessions = 4096,
      .enrol = "open",
      .max_samples = UINT64_C(1) << 40,
      .ban_seconds = 3600,
      .request_seconds = 30,
      .keep_models = 5,
      .staging_mb = 256,
      .lr = .05,
      .lr_schedule = "constant",
      .hidden = "128",
      .lr_end = .1,
      .server_lr = 1,
  };
}

/* HOST:PORT or [V6]:PORT. */
static int is_address(const char *text)
{
  const char *colon = strrchr(text, ':');
  if (!colon || colon == text) return 0;
  const char *other = memchr(text, ':', (size_t)(colon - text));
  if (other && !(text[0] == '[' && colon[-1] == ']')) return 0;
  size_t digits = strspn(colon + 1, "0123456789");
  if (digits == 0 || digits > 5 || colon[1 + digits]) return 0;
  return strtoul(colon + 1, NULL, 10) <= 65535;
}

/* ROUND:N,... with rising rounds; the rest is the library's to judge. */
static int parse_schedule(const char *text, struct freeze_config *freeze)
{
  uint32_t n = 0;
  for (const char *at = text; *at; n++) {
    unsigned long long round;
    unsigned count;
    int end = 0;
    if (n == sizeof freeze->fixed / sizeof freeze->fixed[0] ||
        sscanf(at, "%9llu:%4u%n", &round, &count, &end) != 2 ||
        (at[end] != '\0' && at[end] != ','))
      return -1;
    freeze->fixed[n] = (fl_freeze_fixed){.step = round, .first_active = count};
    if (count > freeze->options.max_frozen) freeze->options.max_frozen = count;
    at += end;
    if (*at == ',' && !*++at) return -1;
  }
  freeze->options.fixed = freeze->fixed;
  freeze->options.n_fixed = n;
  return n > 0 ? 0 : -1;
}

/* gradnorm, or gradnorm:TOLERANCE. */
static int parse_gradnorm(const char *text, struct freeze_config *freeze)
{
  static const char name[] = "gradnorm";
  char *end = NULL;
  if (strncmp(text, name, strlen(name)) != 0) return -1;
  text += strlen(name);
  freeze->options.criterion = FL_FREEZE_GRADNORM;
  if (!*text) return 0;
  if (*text != ':' || !strchr(".0123456789", text[1])) return -1;
  freeze->options.tolerance = strtof(text + 1, &end);
  return *end || !(freeze->options.tolerance > 0) ||
                 freeze->options.tolerance > 1e3f
             ? -1
             : 0;
}

int config_freeze(const struct config *config, uint32_t n_modules,
                  struct freeze_config *freeze)
{
  const char *kind = config->freeze;
  static const char fixed[] = "fixed:";
  if (!*kind) return 0;
  fl_freeze_options_init(&freeze->options, sizeof freeze->options);
  if (parse_gradnorm(kind, freeze) == 0) {
    if (n_modules == 2) freeze->options.max_frozen = 1;
    return 1;
  }
  freeze->options.criterion = FL_FREEZE_FIXED;
  if (strncmp(kind, fixed, strlen(fixed)) == 0 &&
      parse_schedule(kind + strlen(fixed), freeze) == 0)
    return 1;
  warnx("freeze: got \"%s\", want gradnorm[:TOLERANCE] or "
        "fixed:ROUND:N,...",
        kind);
  return -1;
}

int config_hidden(const struct config *config, struct hidden_config *hidden)
{
  const uint32_t max = sizeof hidden->widths / sizeof hidden->widths[0];
  const char *at = config->hidden;
  for (hidden->n = 0; hidden->n < max;) {
    unsigned width = 0;
    int end = 0;
    if (sscanf(at, "%4u%n", &width, &end) != 1 || width - 1 >= 9999 ||
        (at[end] != '\0' && at[end] != ','))
      break;
    hidden->widths[hidden->n++] = width;
    if (!at[end]) return 0;
    at += end + 1;
  }
  warnx("hidden: got \"%s\", want N,... of 1..9999, %u at most", config->hidden,
        max);
  return -1;
}

int config_check(const struct config *config)
{
  struct hidden_config hidden;
  if (!is_address(config->listen)) {
    warnx("listen: got \"%s\", want HOST:PORT, PORT being 0..65535",
          config->listen);
    return -1;
  }
  if (config->participants > 0 &&
      config->min_participants > config->participants) {
    warnx("min_participants: got %llu, want participants (%llu) at most",
          (unsigned long long)config->min_participants,
          (unsigned long long)config->participants);
    return -1;
  }
  if (*config->snapshot && *config->state) {
    warnx("state: there is a snapshot too, want one of them");
    return -1;
  }
  if (enrol_check(config) != 0) return -1;
  if (!*config->certificate != !*config->key_file) {
    warnx("certificate: want key_file with it, and it with key_file");
    return -1;
  }
  if (config->error_feedback && strcmp(config->codec, "f32") == 0) {
    warnx("error_feedback: codec f32 loses nothing, want bf16 or thc");
    return -1;
  }
  if (config->fedbuff > 0 && (strcmp(config->codec, "thc") != 0 ||
                              strcmp(config->thc_mode, "dither") == 0)) {
    warnx("fedbuff: want codec thc, and thc_mode uniform or table");
    return -1;
  }
  struct freeze_config freeze;
  if (config_freeze(config, FREEZE_ANY, &freeze) < 0) return -1;
  return config_hidden(config, &hidden);
}

static uint32_t mode_of(const struct config *config)
{
  if (strcmp(config->thc_mode, "uniform") == 0) return FL_THC_UNIFORM;
  if (strcmp(config->thc_mode, "table") == 0) return FL_THC_TABLE;
  return FL_THC_DITHER;
}

/* The names are in the table, so there is one. */
static void choose_strategy(const struct config *config, fl_job_options *job,
                            fl_strategy_options *strategy)
{
  const int is_mean = strcmp(config->strategy, "fedavg") == 0;
  if (is_mean && config->clip == 0) return;
  fl_strategy_options_named(strategy, sizeof *strategy, config->strategy);
  /* 1 is the default here, and every optimiser has its own. */
  if (config->server_lr != 1) strategy->rate = (float)config->server_lr;
  if (config->server_momentum > 0)
    strategy->momentum = (float)config->server_momentum;
  strategy->byzantine = (uint32_t)config->byzantine;
  strategy->clip = (float)config->clip;
  job->server_learning_rate = 1;
  job->server_momentum = 0;
  job->strategy = strategy;
}

int config_selection(const struct config *config,
                     fl_selection_options *selection)
{
  fl_selection_options_init(selection, sizeof *selection);
  if (strcmp(config->selector, "choice") == 0)
    selection->rule = FL_SELECT_CHOICE;
  if (strcmp(config->selector, "oort") == 0) selection->rule = FL_SELECT_OORT;
  return selection->rule != FL_SELECT_RANDOM;
}

void config_job(const struct config *config, fl_job_options *job,
                fl_compressor_options *codec, fl_strategy_options *strategy)
{
  fl_compressor_options_init(codec, sizeof *codec);
  codec->codec = FL_CODEC_THC;
  if (strcmp(config->codec, "f32") == 0) codec->codec = FL_CODEC_F32;
  if (strcmp(config->codec, "bf16") == 0) codec->codec = FL_CODEC_BF16;
  codec->thc_mode = mode_of(config);
  codec->bits = (uint32_t)config->bits;
  fl_job_options_init(job, sizeof *job);
  job->codec = codec;
  job->rounds = (uint32_t)config->rounds;
  job->seed = config->seed;
  job->participants = (uint32_t)config->participants;
  job->min_participants = (uint32_t)config->min_participants;
  job->min_clients = (uint32_t)config->min_clients;
  job->over_selection = (float)config->over_select;
  job->demands = (uint32_t)config->demands;
  job->checkin_ns = config->checkin_seconds * second_ns;
  job->buffer = (uint32_t)config->fedbuff;
  job->buffer_staleness = (uint32_t)config->staleness;
  if (config->fedbuff > 0) job->scale_mode = FL_SCALE_PUBLIC;
  job->epochs = (uint32_t)config->epochs;
  job->batch_size = (uint32_t)config->batch;
  job->learning_rate = (float)config->lr;
  job->rate_schedule = strcmp(config->lr_schedule, "cosine") == 0
                           ? FL_SCHEDULE_COSINE
                           : FL_SCHEDULE_CONSTANT;
  job->rate_factor = (float)config->lr_end;
  job->server_learning_rate = (float)config->server_lr;
  job->server_momentum = (float)config->server_momentum;
  choose_strategy(config, job, strategy);
  job->max_samples = config->max_samples;
  job->error_feedback = (uint32_t)config->error_feedback;
  job->return_grace_ns = config->grace_seconds * second_ns;
  job->norm_deadline_ns = config->norm_deadline_seconds * second_ns;
  job->update_deadline_ns = config->update_deadline_seconds * second_ns;
}
