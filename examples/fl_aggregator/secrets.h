/* SPDX-License-Identifier: Apache-2.0 */
/* Files that nobody else should read, and tokens from them. */
#ifndef FL_AGGREGATOR_SECRETS_H
#define FL_AGGREGATOR_SECRETS_H

#include <stddef.h>

enum { TOKEN_MIN = 16, TOKEN_MAX = 256 };

/* The text of a file of at most `max` bytes; NULL with a line on stderr. */
char *secret_load(const char *path, size_t max);
/* Wipe and free. */
void secret_free(char *text);

/* "" = there is none. */
struct token {
  char text[TOKEN_MAX + 1];
};
/* Read the first line of the file, TOKEN_MIN to TOKEN_MAX printable
 * characters; path "" = none. 0, or -1 with a line on stderr. */
int token_load(struct token *token, const char *path);
/* 1 when the value of a header Authorization is "Bearer <token>"; its time says
 * nothing of the token. `header` may be NULL. */
int token_fits(const struct token *token, const char *header);

#endif
