/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens are compared in a time that depends on their bounds alone; a file that
 * others may read is said to be one, and used.
 */
#include "fl_aggregator/secrets.h"

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

char *secret_load(const char *path, size_t max)
{
  FILE *file = fopen(path, "rbe");
  char *text = calloc(max + 2, 1);
  if (!file || !text) {
    warn("%s", path);
    if (file) fclose(file);
    free(text);
    return NULL;
  }
  const size_t n = fread(text, 1, max + 1, file);
  const int has_failed = ferror(file);
  fclose(file);
  if (!has_failed && n <= max && strlen(text) == n) return text;
  warnx("%s: want a text of %zu bytes at most", path, max);
  secret_free(text);
  return NULL;
}

void secret_free(char *text)
{
  if (text) explicit_bzero(text, strlen(text));
  free(text);
}

static void warn_if_open(const char *path)
{
  struct stat status;
  if (stat(path, &status) == 0 && (status.st_mode & (S_IRGRP | S_IROTH)))
    warnx("%s: others may read it (chmod 600)", path);
}

int token_load(struct token *token, const char *path)
{
  memset(token, 0, sizeof *token);
  if (!*path) return 0;
  char *text = secret_load(path, 4096);
  if (!text) return -1;
  const size_t n = strcspn(text, "\r\n");
  int is_good = n >= TOKEN_MIN && n <= TOKEN_MAX;
  for (size_t i = 0; i < n; i++)
    is_good = is_good && text[i] > ' ' && text[i] <= '~';
  if (is_good) memcpy(token->text, text, n);
  secret_free(text);
  if (is_good) {
    warn_if_open(path);
    return 0;
  }
  warnx("%s: want a token of %d to %d printable characters without blanks in "
        "the first line",
        path, TOKEN_MIN, TOKEN_MAX);
  return -1;
}

int token_fits(const struct token *token, const char *header)
{
  static const char scheme[] = "Bearer ";
  char given[TOKEN_MAX + 1] = {0};
  unsigned difference = 0;
  if (!*token->text || !header ||
      strncasecmp(header, scheme, sizeof scheme - 1) != 0)
    return 0;
  header += sizeof scheme - 1;
  const size_t n = strlen(header);
  if (n > TOKEN_MAX) return 0;
  memcpy(given, header, n);
  for (size_t i = 0; i < sizeof given; i++)
    difference |=
        (unsigned)((unsigned char)given[i] ^ (unsigned char)token->text[i]);
  explicit_bzero(given, sizeof given);
  return difference == 0;
}
