/* SPDX-License-Identifier: Apache-2.0 */
/* What users of stores inside the library need beside fl/store.h. */
#ifndef FLI_STORE_STORE_H
#define FLI_STORE_STORE_H

#include <fl/store.h>

/* 1 when the key begins with the prefix, or is it. */
int fli_store_key_has(const void *key, size_t key_size, const void *prefix,
                      size_t prefix_size);

#endif
