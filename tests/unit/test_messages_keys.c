/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of messages that came with keys of clients: what they may be, and that
 * all of them can be left out. */
#include <criterion/criterion.h>

#include "wire_messages.h"

/* Body of a map with these bytes. */
static fl_status parse_bye(const uint8_t *body, size_t n, fli_decline *out)
{
  return fli_parse_decline(out, body, n);
}

Test(messages_keys, a_bye_forgets_or_not)
{
  const uint8_t plain[] = {0x82, 1, 0, 2, 0};
  const uint8_t none[] = {0x83, 1, 0, 2, 0, 3, 0};
  const uint8_t one[] = {0x83, 1, 0, 2, 0, 3, 1};
  const uint8_t two[] = {0x83, 1, 0, 2, 0, 3, 2};
  fli_decline bye;
  cr_assert_eq(parse_bye(plain, sizeof plain, &bye), FL_OK);
  cr_expect_eq(bye.forgets, 0u);
  cr_assert_eq(parse_bye(none, sizeof none, &bye), FL_OK);
  cr_expect_eq(bye.forgets, 0u);
  cr_assert_eq(parse_bye(one, sizeof one, &bye), FL_OK);
  cr_expect_eq(bye.forgets, 1u);
  cr_expect_eq(parse_bye(two, sizeof two, &bye), FL_E_RANGE);
}

/* A key of `n` bytes of zeros behind `body`, which says how many there are. */
static fl_status with_bin(const uint8_t *body, size_t size, uint8_t key,
                          size_t n, uint8_t type)
{
  uint8_t bytes[512] = {0};
  fli_hello hello;
  fli_challenge challenge;
  fli_manifest manifest;
  memcpy(bytes, body, size);
  bytes[size] = key;
  bytes[size + 1] = 0xc4;
  bytes[size + 2] = (uint8_t)n;
  const size_t all = size + 3 + n;
  if (type == FLI_MSG_HELLO) return fli_parse_hello(&hello, bytes, all);
  if (type == FLI_MSG_CHALLENGE)
    return fli_parse_challenge(&challenge, bytes, all);
  return fli_parse_manifest(&manifest, bytes, all);
}

Test(messages_keys, keys_and_signatures_have_their_lengths)
{
  const uint8_t hello[] = {0x86, 1, 1, 2, 1, 3, 0xa1, 'a', 5, 3, 6, 1};
  const struct {
    uint8_t key;
    size_t n;
  } of_hello[] = {{13, 32}, {14, 64}, {15, 32}};
  for (size_t i = 0; i < 3; i++) {
    const size_t n = of_hello[i].n;
    for (size_t k = n - 1; k <= n + 1; k++) {
      cr_expect_eq(
          with_bin(hello, sizeof hello, of_hello[i].key, k, FLI_MSG_HELLO),
          k == n ? FL_OK : FL_E_DIM);
    }
  }
  const uint8_t manifest[] = {0x8a, 1, 9, 2, 1, 3, 1, 4,  0xcd, 0x10,
                              0,    6, 1, 7, 0, 9, 0, 10, 0};
  uint8_t whole[sizeof manifest + 35];
  memcpy(whole, manifest, 11);
  memset(whole + 11, 0, 35);
  memcpy(whole + 11, (const uint8_t[]){5, 0xc4, 32}, 3);
  memcpy(whole + 46, manifest + 11, sizeof manifest - 11);
  for (size_t k = 63; k <= 65; k++) {
    cr_expect_eq(with_bin(whole, sizeof whole, 25, k, FLI_MSG_MANIFEST),
                 k == 64 ? FL_OK : FL_E_DIM, "%s", fl_last_error());
  }
  const uint8_t challenge[] = {0x81};
  cr_expect_eq(with_bin(challenge, 1, 1, 32, FLI_MSG_CHALLENGE), FL_OK);
  cr_expect_eq(with_bin(challenge, 1, 1, 31, FLI_MSG_CHALLENGE), FL_E_DIM);
  cr_expect_eq(with_bin(challenge, 1, 2, 32, FLI_MSG_CHALLENGE), FL_E_FORMAT);
}

Test(messages_keys, what_is_not_there_is_not_there)
{
  fli_bytes bytes;
  fli_hello hello, back;
  wire_hello(&hello);
  fli_bytes_init(&bytes, NULL);
  cr_assert_eq(fli_write_hello(&bytes, &hello), FL_OK);
  cr_assert_eq(fli_parse_hello(&back, bytes.data + FLI_FRAME_HEADER,
                               bytes.size - FLI_FRAME_HEADER),
               FL_OK);
  cr_expect_eq(back.has_key || back.has_signature || back.has_server_key, 0);
  fli_bytes_free(&bytes);
}
