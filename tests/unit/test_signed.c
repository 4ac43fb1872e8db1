/* SPDX-License-Identifier: Apache-2.0 */
/* What clients sign, byte for byte: hashes that Python's hashlib made from
 * docs/design/protocol.md, "Signatures". */
#include <criterion/criterion.h>

#include "wire/signed.h"
#include "wire_messages.h"

static void expect(const uint8_t hash[FLI_HASH_BYTES], const char *hex)
{
  char text[2 * FLI_HASH_BYTES + 1];
  for (size_t i = 0; i < FLI_HASH_BYTES; i++)
    snprintf(text + 2 * i, 3, "%02x", hash[i]);
  cr_expect_str_eq(text, hex);
}

Test(signed, a_hello_with_a_pinned_server_and_without)
{
  fli_hello hello;
  uint8_t nonce[FLI_KEY_BYTES], hash[FLI_HASH_BYTES];
  wire_hello(&hello);
  hello.depth = 3;
  hello.has_key = hello.has_server_key = 1;
  wire_fill(hello.public_key, sizeof hello.public_key, 0x50);
  wire_fill(hello.server_key, sizeof hello.server_key, 0x30);
  wire_fill(nonce, sizeof nonce, 0x20);
  fli_signed_hello(hash, &hello, nonce);
  expect(hash,
         "c0ce3ddce6ecdf0a3634faa265bd2dc6899ac112d517b06c0ef41e5903123638");
  hello.has_server_key = 0;
  fli_signed_hello(hash, &hello, nonce);
  expect(hash,
         "62528977cdca4811d216db30f50915777d0ffedaa73bf445db53fc525bd4bf67");
}

Test(signed, an_update_with_all_that_it_may_have_and_with_little)
{
  fli_manifest manifest;
  uint8_t session[FLI_HASH_BYTES], hash[FLI_HASH_BYTES];
  wire_manifest(&manifest);
  wire_fill(session, sizeof session, 0x70);
  manifest.report_module = 9; /* nothing without has_report */
  fli_signed_update(hash, &manifest, session);
  expect(hash,
         "87b8697c8ae12bd8ae1d22748b288d6bd77e705e6bf9a650155d57ff33d38375");
  manifest.loss = -(double)NAN;
  manifest.has_report = 1;
  manifest.report_module = 2;
  manifest.report_value = 0.125;
  manifest.slices_size = 4000;
  fli_signed_update(hash, &manifest, session);
  expect(hash,
         "38b082c00e2771af8c63a8d2bc6c1ea3e2b165721ad4afff97ddc0a26f9081fc");
}
