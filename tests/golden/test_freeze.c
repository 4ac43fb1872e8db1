/* SPDX-License-Identifier: Apache-2.0 */
/* Layer freezing, to the last bit: measures of fixed outputs, and the bytes of
 * a plan and of a state. A change here is a new version of a format, or
 * controllers that decide otherwise on other machines. */
#include "check.h"

#include <fl/freeze.h>

#include "base/bytes.h"
#include "base/rng.h"
#include "crypto/crypto.h"
#include "freeze/freeze.h"

enum { ROWS = 16, WIDE = 1000 };

static void fill(float *x, size_t n, uint32_t seed)
{
  fli_rng rng;
  fli_rng_init(&rng, seed, FLI_RNG_TEST, 0, 0);
  for (size_t i = 0; i < n; i++)
    x[i] = fli_rng_f32(&rng) - .25f;
}

static void measures_have_their_bits(void)
{
  static float a[ROWS * WIDE], b[ROWS * WIDE];
  double plasticity = 0, cka = 0;
  fill(a, ROWS * WIDE, 1);
  fill(b, ROWS * WIDE, 2);
  CHECK_OK(fl_plasticity(NULL, a, b, ROWS, WIDE, &plasticity));
  CHECK_OK(fl_cka(NULL, a, WIDE, b, WIDE - 3, ROWS, &cka));
  CHECK_EQ_U64(fli_f64_bits(plasticity), UINT64_C(0x3f3503fc1f757ff7));
  CHECK_EQ_U64(fli_f64_bits(cka), UINT64_C(0x3fef939f0fed7ff9));
  CHECK_EQ_U64(fli_f64_bits(fli_change_squares(a, b, ROWS * WIDE - 5)),
               UINT64_C(0x40a4ddf7f91c9c0a));
}

static fl_freeze *make(void)
{
  static const fl_freeze_fixed fixed[] = {{1, 2, 0}};
  fl_freeze *freeze = NULL;
  fl_freeze_options o;
  CHECK_OK(fl_freeze_options_init(&o, sizeof o));
  o.criterion = FL_FREEZE_FIXED;
  o.steps_per_epoch = 10;
  o.fixed = fixed;
  o.n_fixed = 1;
  CHECK_OK(fl_freeze_new(&freeze, NULL, 5, &o));
  fl_freeze_request request;
  CHECK_OK(fl_freeze_request_init(&request, sizeof request));
  for (int i = 0; i < 3; i++) {
    CHECK_OK(fl_freeze_begin_step(freeze, .1f, &request));
    CHECK_OK(fl_freeze_end_step(freeze, 1));
  }
  return freeze;
}

static void plan_has_its_bytes(void)
{
  uint8_t want[48] = {0x87, 1, 1, 2, 0xc4, 32};
  static const uint8_t tail[] = {3, 5, 4, 2, 5, 1, 6, 1, 7, 2};
  uint8_t plan[64];
  size_t n = 0;
  memcpy(want + 38, tail, sizeof tail);
  fl_freeze *freeze = make();
  CHECK_OK(fl_freeze_copy_plan(freeze, plan, sizeof plan, &n));
  CHECK_EQ_U64(n, sizeof want);
  CHECK_EQ_MEM(plan, want, sizeof want);
  fl_freeze_free(freeze);
}

static void state_has_its_bytes(void)
{
  uint8_t hash[FLI_HASH_BYTES];
  fl_freeze *freeze = make();
  fli_bytes state;
  fli_bytes_init(&state, NULL);
  CHECK_OK(fli_freeze_write(freeze, &state));
  fli_hash(hash, state.data, state.size);
  CHECK_EQ_U64(state.size, 161);
  CHECK_EQ_U64(fli_hash_id(hash), UINT64_C(0x55b616de2b486316));
  fli_bytes_free(&state);
  fl_freeze_free(freeze);
}

int main(void)
{
  CHECK_CASE(measures_have_their_bits);
  CHECK_CASE(plan_has_its_bytes);
  CHECK_CASE(state_has_its_bytes);
  return check_report();
}
