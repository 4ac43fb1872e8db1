/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Table-driven settings. Each program lists its settings once; from the list
 * come the argp options, the keys that a JSON file may hold, the checks, and
 * the printout of --check-config. The command line always wins over the file,
 * wherever --config stands in it. An unknown key is an error that names it: a
 * misspelt setting that is ignored costs somebody a night.
 */
#include "common/settings.h"

#include <argp.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fl/base.h>
#include <jansson.h>

enum { KEY_CONFIG = 1 << 16, KEY_CHECK, KEY_FIRST, NAME_BYTES = 64 };

struct parse {
  const struct settings *settings;
  void *config;
  const char **given; /* per setting: text from the command line, or NULL */
  const char *file;
  json_t *root; /* the file's content */
  int check_only;
};

__attribute__((format(printf, 1, 2), noreturn)) static void
usage_error(const char *format, ...)
{
  va_list args;
  fprintf(stderr, "%s: ", program_invocation_short_name);
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  fputc('\n', stderr);
  exit(SETTINGS_EXIT_USAGE);
}

static void file_key(const struct setting *setting, char key[NAME_BYTES])
{
  size_t i = 0;
  for (; setting->name[i] && i + 1 < NAME_BYTES; i++)
    key[i] = setting->name[i] == '-' ? '_' : setting->name[i];
  key[i] = 0;
}

static int is_choice(const char *choices, const char *text)
{
  size_t n = strlen(text);
  for (const char *at = choices; *at;) {
    size_t length = strcspn(at, "|");
    if (length == n && memcmp(at, text, n) == 0) return 1;
    at += length;
    if (*at) at++;
  }
  return 0;
}

static void set_text(const struct setting *setting, void *config,
                     const char *where, const char *text)
{
  if (setting->choices && !is_choice(setting->choices, text))
    usage_error("%s: got \"%s\", want %s", where, text, setting->choices);
  size_t n = strlen(text);
  if (n >= SETTING_TEXT_BYTES)
    usage_error("%s: got %zu bytes, want less than %d", where, n,
                SETTING_TEXT_BYTES);
  memcpy((char *)config + setting->offset, text, n + 1);
}

static void set_count(const struct setting *setting, void *config,
                      const char *where, uint64_t value)
{
  /* The bounds are whole numbers that double and uint64_t both hold. */
  if (value < (uint64_t)setting->min || value > (uint64_t)setting->max)
    usage_error("%s: got %llu, want %.0f..%.0f", where,
                (unsigned long long)value, setting->min, setting->max);
  memcpy((char *)config + setting->offset, &value, sizeof value);
}

static void set_real(const struct setting *setting, void *config,
                     const char *where, double value)
{
  if (!(value >= setting->min && value <= setting->max))
    usage_error("%s: got %g, want %g..%g", where, value, setting->min,
                setting->max);
  memcpy((char *)config + setting->offset, &value, sizeof value);
}

static void set_flag(const struct setting *setting, void *config, int value)
{
  memcpy((char *)config + setting->offset, &value, sizeof value);
}

static void set_from_option(const struct setting *setting, void *config,
                            const char *text)
{
  char where[NAME_BYTES + 2];
  char *end = NULL;
  snprintf(where, sizeof where, "--%s", setting->name);
  errno = 0;
  if (setting->kind == SETTING_TEXT) {
    set_text(setting, config, where, text);
  } else if (setting->kind == SETTING_FLAG) {
    set_flag(setting, config, 1);
  } else if (setting->kind == SETTING_REAL) {
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value))
      usage_error("%s: got \"%s\", want a number", where, text);
    set_real(setting, config, where, value);
  } else {
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno == ERANGE)
      usage_error("%s: got \"%s\", want an integer %.0f..%.0f", where, text,
                  setting->min, setting->max);
    set_count(setting, config, where, value);
  }
}

static void set_from_json(const struct setting *setting, void *config,
                          const char *where, const json_t *value)
{
  static const char *const wanted[] = {"", "a string", "an integer >= 0",
                                       "a number", "true or false"};
  if (setting->kind == SETTING_TEXT && json_is_string(value)) {
    set_text(setting, config, where, json_string_value(value));
  } else if (setting->kind == SETTING_COUNT && json_is_integer(value) &&
             json_integer_value(value) >= 0) {
    set_count(setting, config, where, (uint64_t)json_integer_value(value));
  } else if (setting->kind == SETTING_REAL && json_is_number(value)) {
    set_real(setting, config, where, json_number_value(value));
  } else if (setting->kind == SETTING_FLAG && json_is_boolean(value)) {
    set_flag(setting, config, json_is_true(value));
  } else {
    char *got = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    usage_error("%s: got %.60s, want %s", where, got ? got : "?",
                wanted[setting->kind]);
  }
}

static void load_file(struct parse *parse)
{
  json_error_t error;
  json_t *root = json_load_file(parse->file, JSON_REJECT_DUPLICATES, &error);
  parse->root = root;
  if (!root)
    usage_error("%s: line %d: %s", parse->file, error.line, error.text);
  if (!json_is_object(root)) usage_error("%s: want a JSON object", parse->file);
  const char *key;
  json_t *value;
  json_object_foreach(root, key, value)
  {
    char name[NAME_BYTES];
    size_t i = 0;
    for (; i < parse->settings->n; i++) {
      file_key(&parse->settings->table[i], name);
      if (strcmp(name, key) == 0) break;
    }
    if (i == parse->settings->n)
      usage_error("%s: unknown key \"%s\"", parse->file, key);
    char where[SETTING_TEXT_BYTES + NAME_BYTES];
    snprintf(where, sizeof where, "%.900s: %s", parse->file, name);
    set_from_json(&parse->settings->table[i], parse->config, where, value);
  }
}

static error_t on_option(int key, char *text, struct argp_state *state)
{
  struct parse *parse = state->input;
  const struct settings *settings = parse->settings;
  if (key == KEY_CONFIG) {
    parse->file = text;
  } else if (key == KEY_CHECK) {
    parse->check_only = 1;
  } else if (key >= KEY_FIRST && (size_t)(key - KEY_FIRST) < settings->n) {
    parse->given[key - KEY_FIRST] = text ? text : "";
  } else if (key == ARGP_KEY_ARG) {
    argp_error(state, "unexpected argument \"%s\"", text);
  } else if (key == ARGP_KEY_END) {
    if (parse->file) load_file(parse);
    for (size_t i = 0; i < settings->n; i++)
      if (parse->given[i])
        set_from_option(&settings->table[i], parse->config, parse->given[i]);
  } else {
    return ARGP_ERR_UNKNOWN;
  }
  return 0;
}

static void print_version(FILE *stream, struct argp_state *state)
{
  fprintf(stream, "%s (libfl %s)\n", state->name, fl_version_string());
}

int settings_parse(const struct settings *settings, int argc, char **argv,
                   void *config)
{
  struct argp_option *options = calloc(settings->n + 3, sizeof *options);
  struct parse parse = {.settings = settings, .config = config};
  parse.given = calloc(settings->n, sizeof *parse.given);
  if (!options || !parse.given) usage_error("out of memory");
  for (size_t i = 0; i < settings->n; i++) {
    options[i].name = settings->table[i].name;
    options[i].key = KEY_FIRST + (int)i;
    options[i].arg = settings->table[i].argument;
    options[i].doc = settings->table[i].help;
  }
  options[settings->n] = (struct argp_option){
      .name = "config",
      .key = KEY_CONFIG,
      .arg = "FILE",
      .group = 1,
      .doc = "JSON object with settings; options win over it"};
  options[settings->n + 1] = (struct argp_option){
      .name = "check-config",
      .key = KEY_CHECK,
      .group = 1,
      .doc = "check the settings, print them as JSON and exit"};
  struct argp argp = {
      .options = options, .parser = on_option, .doc = settings->program_doc};
  argp_err_exit_status = SETTINGS_EXIT_USAGE;
  argp_program_version_hook = print_version;
  error_t error = argp_parse(&argp, argc, argv, 0, NULL, &parse);
  if (error) usage_error("%s", strerror(error));
  json_decref(parse.root);
  free(options);
  free(parse.given);
  return parse.check_only;
}

void settings_print(const struct settings *settings, const void *config)
{
  json_t *root = json_object();
  for (size_t i = 0; i < settings->n; i++) {
    const struct setting *setting = &settings->table[i];
    const char *at = (const char *)config + setting->offset;
    char key[NAME_BYTES];
    json_t *value = NULL;
    file_key(setting, key);
    if (setting->kind == SETTING_TEXT) {
      value = json_string(at);
    } else if (setting->kind == SETTING_COUNT) {
      uint64_t count;
      memcpy(&count, at, sizeof count);
      value = json_integer((json_int_t)count);
    } else if (setting->kind == SETTING_REAL) {
      double real;
      memcpy(&real, at, sizeof real);
      value = json_real(real);
    } else {
      int flag;
      memcpy(&flag, at, sizeof flag);
      value = json_boolean(flag);
    }
    json_object_set_new(root, key, value);
  }
  json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
  putchar('\n');
  json_decref(root);
}
