/* SPDX-License-Identifier: Apache-2.0 */
/* Size-prefixed structs across the ABI. Every such struct begins with
 * uint32_t struct_size. */
#ifndef FLI_OPTIONS_H
#define FLI_OPTIONS_H

#include <fl/base.h>

/* Body of every fl_<name>_init: write the first min(size, full) bytes of
 * `defaults` (whose struct_size is ignored), zero the rest of what the caller
 * has, set struct_size = size. FL_E_OPTIONS: NULL or size < 4 or > 64 KiB. */
fl_status fli_options_init(void *options, size_t size, const void *defaults,
                           size_t full);
/* Read a caller's struct into `local`, which holds the defaults and is `full`
 * bytes: shorter = older host (missing fields keep the default), longer =
 * accepted if the tail is all zero. src NULL = defaults. `name` is for the
 * error text. FL_E_OPTIONS. */
fl_status fli_options_load(void *local, size_t full, const void *src,
                           const char *name);
/* Write a result struct: the first min(dst->struct_size, full) bytes of `src`
 * and zeros to the rest of a newer host's, keeping dst->struct_size.
 * FL_E_OPTIONS: struct_size < 4 or > 64 KiB. */
fl_status fli_options_store(void *dst, const void *src, size_t full,
                            const char *name);

#endif
