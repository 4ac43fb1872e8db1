/* SPDX-License-Identifier: Apache-2.0 */
/* Settings of a program, from one table: command line, JSON file, --help and
 * the printed effective configuration. */
#ifndef EXAMPLES_SETTINGS_H
#define EXAMPLES_SETTINGS_H

#include <stddef.h>

enum { SETTING_TEXT_BYTES = 1024 };

enum setting_kind {
  SETTING_TEXT = 1, /* char[SETTING_TEXT_BYTES] */
  SETTING_COUNT,    /* uint64_t */
  SETTING_REAL,     /* double */
  SETTING_FLAG      /* int, 0 or 1 */
};

/* One setting; option --two-words is the key "two_words" of the file. */
struct setting {
  const char *name;
  enum setting_kind kind;
  size_t offset; /* in the program's config struct */
  double min;    /* COUNT, REAL */
  double max;
  const char *choices;  /* TEXT: "a|b|c", or NULL */
  const char *argument; /* shown in --help */
  const char *help;
};

struct settings {
  const char *program_doc; /* for --help */
  const struct setting *table;
  size_t n;
};

enum { SETTINGS_EXIT_USAGE = 2 };

/* Read the command line into `config`, which holds the defaults, after the
 * file that --config names. --help, --version, and whatever is wrong end the
 * process (status 0, or SETTINGS_EXIT_USAGE with a line on stderr).
 * Returns 1 when --check-config was given, else 0. */
int settings_parse(const struct settings *settings, int argc, char **argv,
                   void *config);
/* Print the configuration as JSON; what it prints is a valid --config. */
void settings_print(const struct settings *settings, const void *config);

#endif
