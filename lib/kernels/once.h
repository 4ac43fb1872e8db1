/* SPDX-License-Identifier: Apache-2.0 */
/* Static data that is filled when it is first wanted, by any thread. */
#ifndef FLK_ONCE_H
#define FLK_ONCE_H

#include <stdatomic.h>

/* Fill by the call that finds `state` 0; others wait for it. */
static inline void flk_once(atomic_int *state, void (*fill)(void))
{
  int was = 0; /* untouched; 1 being filled, 2 ready */
  if (atomic_load_explicit(state, memory_order_acquire) == 2) return;
  if (atomic_compare_exchange_strong(state, &was, 1)) {
    fill();
    atomic_store_explicit(state, 2, memory_order_release);
    return;
  }
  while (atomic_load_explicit(state, memory_order_acquire) != 2) {
  }
}

#endif
