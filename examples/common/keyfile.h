/* SPDX-License-Identifier: Apache-2.0 */
/* Ed25519 keys as people see them: hexadecimal digits. */
#ifndef EXAMPLES_KEYFILE_H
#define EXAMPLES_KEYFILE_H

#include <fl/channel.h>

enum { PUBLIC_KEY_DIGITS = 2 * FL_PUBLIC_KEY_BYTES };

/* n bytes of 2 n digits, and no more of them: 0, or -1. */
int hex_read(uint8_t *out, size_t n, const char *text);
/* 2 n digits and a zero byte. */
void hex_write(char *out, const uint8_t *bytes, size_t n);
/* Whether a setting is empty or a public key: 0, or -1 with a line on stderr.
 */
int public_key_check(const char *name, const char *text);

/* The secret key of a file that only its owner may read: 0, or -1 with a line
 * on stderr. */
int keyfile_load(uint8_t secret_key[FL_SECRET_KEY_BYTES], const char *path);
/* Draw a key, write its secret half to a new file, and print the public one. */
int keyfile_make(const char *path);

#endif
