/* SPDX-License-Identifier: Apache-2.0 */
/* What comes of a payload behind a gap: for receivers that keep it. Clients do
 * not, and ask again for all behind the first gap. */
#ifndef FLI_GAPS_H
#define FLI_GAPS_H

#include "wire/transfer.h"

/* For `note` of fli_incoming. */
int fli_gaps_note(fli_incoming *incoming, fli_range range);
/* Append a STATUS with all that is missing; it is not due any more. */
fl_status fli_gaps_write_status(fli_incoming *incoming, fli_bytes *out);

#endif
