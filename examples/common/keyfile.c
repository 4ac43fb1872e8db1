/* SPDX-License-Identifier: Apache-2.0 */
#include "common/keyfile.h"

#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECRET_DIGITS = 2 * FL_SECRET_KEY_BYTES };

static int digit(char c)
{
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

int hex_read(uint8_t *out, size_t n, const char *text)
{
  size_t i = 0;
  for (; i < n; i++) {
    const int high = digit(text[2 * i]);
    const int low = high < 0 ? -1 : digit(text[2 * i + 1]);
    if (low < 0) return -1;
    out[i] = (uint8_t)(high << 4 | low);
  }
  return digit(text[2 * n]) < 0 ? 0 : -1;
}

void hex_write(char *out, const uint8_t *bytes, size_t n)
{
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < n; i++) {
    out[2 * i] = digits[bytes[i] >> 4];
    out[2 * i + 1] = digits[bytes[i] & 15];
  }
  out[2 * n] = '\0';
}

int public_key_check(const char *name, const char *text)
{
  uint8_t key[FL_PUBLIC_KEY_BYTES];
  if (!*text || hex_read(key, sizeof key, text) == 0) return 0;
  warnx("%s: want %d digits 0-9a-f", name, PUBLIC_KEY_DIGITS);
  return -1;
}

static void wipe(void *data, size_t n)
{
  explicit_bzero(data, n);
}

int keyfile_load(uint8_t secret_key[FL_SECRET_KEY_BYTES], const char *path)
{
  char text[SECRET_DIGITS + 2] = "";
  struct stat about;
  FILE *file = fopen(path, "re");
  if (!file || fstat(fileno(file), &about) != 0) {
    warn("%s", path);
    if (file) fclose(file);
    return -1;
  }
  const int is_open = (about.st_mode & (S_IRWXG | S_IRWXO)) != 0;
  const size_t n = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  if (n == sizeof text - 1 && text[n - 1] == '\n') text[n - 1] = '\0';
  const int result = hex_read(secret_key, FL_SECRET_KEY_BYTES, text);
  wipe(text, sizeof text);
  if (is_open) {
    warnx("%s: others may read it, want mode 600", path);
  } else if (result != 0) {
    warnx("%s: is no key of --new-key", path);
  } else {
    return 0;
  }
  wipe(secret_key, FL_SECRET_KEY_BYTES);
  return -1;
}

static int write_all(int fd, const char *text, size_t n)
{
  return write(fd, text, n) == (ssize_t)n && fsync(fd) == 0 ? 0 : -1;
}

int keyfile_make(const char *path)
{
  uint8_t secret[FL_SECRET_KEY_BYTES], public_key[FL_PUBLIC_KEY_BYTES];
  char text[SECRET_DIGITS + 1], shown[PUBLIC_KEY_DIGITS + 1];
  if (fl_key_generate(NULL, secret, public_key) != FL_OK) {
    warnx("key: %s", fl_last_error());
    return -1;
  }
  /* A key that is there is somebody. */
  const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) {
    warn("%s", path);
    return -1;
  }
  hex_write(text, secret, sizeof secret);
  hex_write(shown, public_key, sizeof public_key);
  text[SECRET_DIGITS] = '\n';
  const int result = write_all(fd, text, sizeof text);
  if (result != 0) {
    warn("%s", path);
    unlink(path);
  } else {
    printf("%s\n", shown);
  }
  close(fd);
  wipe(text, sizeof text);
  wipe(secret, sizeof secret);
  return result;
}
