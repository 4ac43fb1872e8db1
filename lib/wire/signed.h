/* SPDX-License-Identifier: Apache-2.0 */
/* What clients sign: hashes of it, so that a signature covers what the receiver
 * uses before it decodes anything else. Byte for byte in
 * docs/design/protocol.md, "Signatures". */
#ifndef FLI_SIGNED_H
#define FLI_SIGNED_H

#include "wire/messages.h"

/* A HELLO, for a challenge. It stands for the session, too. */
void fli_signed_hello(uint8_t out[FLI_HASH_BYTES], const fli_hello *hello,
                      const uint8_t nonce[FLI_KEY_BYTES]);
/* An update that is announced in the session. */
void fli_signed_update(uint8_t out[FLI_HASH_BYTES],
                       const fli_manifest *manifest,
                       const uint8_t session[FLI_HASH_BYTES]);

#endif
