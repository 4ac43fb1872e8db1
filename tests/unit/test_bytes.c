/* SPDX-License-Identifier: Apache-2.0 */
/* Little-endian access at any alignment; bf16 rounding. */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>

#include "base/bytes.h"

Test(bytes, loads_are_little_endian_at_odd_addresses)
{
  const uint8_t bytes[] = {0xff, 0x01, 0x02, 0x03, 0x84,
                           0x05, 0x06, 0x07, 0x88};
  cr_assert_eq(fli_load_u16(bytes + 1), 0x0201);
  cr_assert_eq(fli_load_u32(bytes + 1), 0x84030201u);
  cr_assert_eq(fli_load_u64(bytes + 1), UINT64_C(0x8807060584030201));
}

Test(bytes, store_then_load_gives_the_same_and_no_more)
{
  uint8_t bytes[11];
  memset(bytes, 0xee, sizeof bytes);
  fli_store_u64(bytes + 1, UINT64_C(0xf0e1d2c3b4a59687));
  cr_assert_eq(fli_load_u64(bytes + 1), UINT64_C(0xf0e1d2c3b4a59687));
  fli_store_u32(bytes + 1, 0x80000001u);
  cr_assert_eq(fli_load_u32(bytes + 1), 0x80000001u);
  fli_store_u16(bytes + 1, 0xfedc);
  cr_assert_eq(fli_load_u16(bytes + 1), 0xfedc);
  cr_assert_eq(bytes[0], 0xee);
  cr_assert_eq(bytes[9], 0xee);
  cr_assert_eq(bytes[10], 0xee);
}

Test(bytes, floats_keep_their_bits)
{
  const float values[] = {0.0f, -0.0f, 1.5f, FLT_MAX, FLT_MIN / 4, -INFINITY};
  uint8_t bytes[5];
  for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
    fli_store_f32(bytes + 1, values[i]);
    cr_assert_eq(fli_f32_bits(fli_load_f32(bytes + 1)),
                 fli_f32_bits(values[i]));
  }
  cr_assert_eq(fli_f32_bits(1.0f), 0x3f800000u);
  cr_assert_eq(fli_f64_bits(-2.0), UINT64_C(0xc000000000000000));
  cr_assert_eq(fli_f64_from_bits(UINT64_C(0x3ff8000000000000)), 1.5);
}

Test(bytes, bf16_rounds_to_nearest_ties_to_even)
{
  /* 1 + 1/256 is half way between 1 (even) and 1 + 1/128. */
  cr_assert_eq(fli_bf16_from_f32(1.0f + 1.0f / 256), 0x3f80);
  cr_assert_eq(fli_bf16_from_f32(1.0f + 3.0f / 256), 0x3f82);
  cr_assert_eq(fli_bf16_from_f32(1.0f + 1.01f / 256), 0x3f81);
  cr_assert_eq(fli_bf16_from_f32(-1.0f), 0xbf80);
  cr_assert_eq(fli_bf16_from_f32(FLT_MAX), 0x7f80);
}

Test(bytes, bf16_up_never_falls_below_the_value)
{
  cr_assert_eq(fli_bf16_from_f32_up(0.0f), 0);
  cr_assert_eq(fli_bf16_from_f32_up(1.0f), 0x3f80);
  cr_assert_eq(fli_bf16_from_f32_up(fli_f32_from_bits(1)), 1);
  for (uint32_t bits = 0; bits < 0x7f000000u; bits += 65521) {
    float value = fli_f32_from_bits(bits);
    float up = fli_f32_from_bf16(fli_bf16_from_f32_up(value));
    cr_assert_geq(up, value);
    cr_assert_leq(fli_f32_bits(up) - bits, 0xffffu);
  }
}

Test(bytes, bf16_values_survive_both_ways)
{
  for (uint32_t v = 0; v <= 0x7f80; v++) {
    float value = fli_f32_from_bf16((uint16_t)v);
    cr_assert_eq(fli_bf16_from_f32(value), v);
    cr_assert_eq(fli_bf16_from_f32_up(value), v);
  }
}
