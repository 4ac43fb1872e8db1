/* SPDX-License-Identifier: Apache-2.0 */
/* Who may take part: lists of keys, and a host that is asked. */
#include "server_trust.h"

Test(server_enrolment, only_keys_on_the_list_take_part)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.enrolment = FL_ENROL_LISTED;
  sv_start(&world);
  sv_client *listed = add_keyed(&world, "abe", KEY_A);
  sv_client *other = add_keyed(&world, "bea", KEY_B);
  sv_client *nobody = sv_add(&world, "cay", 1);
  cr_assert_eq(fl_server_allow(world.server, listed->public_key, NULL), FL_OK);
  cr_expect_eq(fl_server_allow_count(world.server), 1u);
  sv_join(&world);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  cr_expect_eq(listed->got[FLI_MSG_WELCOME], 1u);
  cr_expect_eq(other->reject.reason, (uint32_t)FL_REJECT_NOT_ENROLLED);
  cr_expect_eq(other->got[FLI_MSG_CHALLENGE], 0u);
  cr_expect_eq(nobody->reject.reason, (uint32_t)FL_REJECT_NOT_ENROLLED);
  cr_expect_eq(sv_status(&world).clients, 1u);
  sv_free(&world);
}

Test(server_enrolment, a_listed_key_is_one_client)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.enrolment = FL_ENROL_LISTED;
  sv_start(&world);
  sv_client *first = add_keyed(&world, "abe", KEY_A);
  sv_client *second = add_keyed(&world, "bea", KEY_A);
  sv_client *named = add_keyed(&world, "cay", KEY_B);
  sv_client *misnamed = add_keyed(&world, "dan", KEY_B);
  cr_assert_eq(fl_server_allow(world.server, first->public_key, NULL), FL_OK);
  cr_assert_eq(fl_server_allow(world.server, named->public_key, "cay"), FL_OK);
  EXPECT_ANSWER(answer_to_hello(misnamed), FL_REJECT_KEY);
  sv_hello(first);
  EXPECT_ANSWER(answer_to_hello(second), FL_REJECT_KEY);
  EXPECT_ANSWER(answer_to_hello(named), FL_REJECT_NONE);
  sv_restart(&world);
  EXPECT_ANSWER(answer_on_return(second), FL_REJECT_KEY);
  EXPECT_ANSWER(answer_on_return(first), FL_REJECT_NONE);
  sv_free(&world);
}

Test(server_enrolment, a_key_off_the_list_is_turned_away_and_the_round_goes_on)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.enrolment = FL_ENROL_LISTED;
  world.job_options.rounds = 1;
  sv_start(&world);
  sv_add_three(&world);
  for (size_t i = 0; i < 3; i++) {
    sv_give_key(&world.clients[i], (uint8_t)(KEY_A + i));
    cr_assert_eq(
        fl_server_allow(world.server, world.clients[i].public_key, NULL),
        FL_OK);
  }
  sv_join(&world);
  sv_tick(&world, SV_SECOND_NS);
  sv_report(&world, 3);
  cr_assert_eq(fl_server_disallow(world.server, world.clients[0].public_key),
               FL_OK);
  cr_expect_eq(fl_server_disallow(world.server, world.clients[0].public_key),
               FL_E_NOT_FOUND);
  sv_pull(&world.clients[0]);
  cr_expect_eq(world.clients[0].reject.reason,
               (uint32_t)FL_REJECT_NOT_ENROLLED);
  world.clients[0].is_mute = 1;
  sv_run(&world);
  cr_expect_eq(sv_status(&world).is_finished, 1u);
  cr_expect_eq(sv_events(&world, FL_SERVER_UPDATE_ACCEPTED, NULL), 2u);
  EXPECT_ANSWER(answer_on_return(&world.clients[0]), FL_REJECT_NOT_ENROLLED);
  cr_expect_eq(reason_of_last(&world), (uint32_t)FL_REJECT_NOT_ENROLLED);
  sv_free(&world);
}

typedef struct asked {
  uint32_t n;
  char id[80];
  uint8_t key[FL_PUBLIC_KEY_BYTES];
} asked;

static int32_t ask(const fl_enrol_request *request, void *user)
{
  asked *self = user;
  self->n++;
  snprintf(self->id, sizeof self->id, "%s", request->client_id);
  memcpy(self->key, request->public_key, sizeof self->key);
  return strcmp(request->client_id, "abe") == 0 && request->job == 0;
}

Test(server_enrolment, the_host_is_asked_about_keys_that_were_proven)
{
  sv_world world;
  asked self = {0};
  sv_init(&world, NULL, FL_CODEC_F32);
  world.options.enrolment = FL_ENROL_ASK;
  world.options.enrol = ask;
  world.options.enrol_user = &self;
  sv_start(&world);
  sv_client *good = add_keyed(&world, "abe", KEY_A);
  sv_client *bad = add_keyed(&world, "bea", KEY_B);
  sv_client *nobody = sv_add(&world, "abe", 1);
  sv_ask_challenge(good);
  cr_expect_eq(self.n, 0u);
  EXPECT_ANSWER(answer_to_hello(good), FL_REJECT_NONE);
  cr_expect_eq(self.n, 1u);
  cr_expect_str_eq(self.id, "abe");
  cr_expect(memcmp(self.key, good->public_key, sizeof self.key) == 0);
  EXPECT_ANSWER(answer_to_hello(bad), FL_REJECT_NOT_ENROLLED);
  EXPECT_ANSWER(answer_to_hello(nobody), FL_REJECT_NOT_ENROLLED);
  cr_expect_eq(self.n, 2u);
  sv_free(&world);
}

Test(server_enrolment, options_and_arguments_are_checked)
{
  uint8_t key[FL_PUBLIC_KEY_BYTES] = {3};
  char longest[66];
  fl_server *server = NULL;
  fl_server_options options;
  cr_assert_eq(fl_server_options_init(&options, sizeof options), FL_OK);
  cr_expect_eq(options.enrolment, (uint32_t)FL_ENROL_OPEN);
  options.enrolment = FL_ENROL_ASK;
  cr_expect_eq(fl_server_new(&server, NULL, &options), FL_E_OPTIONS);
  options.enrolment = FL_ENROL_ASK + 1;
  cr_expect_eq(fl_server_new(&server, NULL, &options), FL_E_OPTIONS);
  cr_assert_eq(fl_server_new(&server, NULL, NULL), FL_OK);
  memset(longest, 'x', sizeof longest);
  longest[65] = '\0';
  cr_expect_eq(fl_server_allow(server, key, longest), FL_E_ARGUMENT);
  longest[64] = '\0';
  cr_expect_eq(fl_server_allow(server, key, longest), FL_OK);
  cr_expect_eq(fl_server_allow(server, key, "other"), FL_OK);
  cr_expect_eq(fl_server_allow_count(server), 1u);
  cr_expect_eq(fl_server_allow(server, key, ""), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_allow(server, key, "a\n"), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_allow(server, NULL, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_allow(NULL, key, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_disallow(server, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_allow_count(NULL), 0u);
  fl_server_free(server);
}

/* The list of many keys, against an array of which are on it. */
Test(server_enrolment, the_list_is_a_set_whatever_comes_and_goes)
{
  enum { KEYS = 300, STEPS = 4000 };
  uint8_t on[KEYS] = {0};
  uint32_t count = 0, mix = 1;
  fl_server *server = NULL;
  cr_assert_eq(fl_server_new(&server, NULL, NULL), FL_OK);
  for (int i = 0; i < STEPS; i++) {
    mix = mix * 1664525u + 1013904223u;
    const uint32_t k = (mix >> 8) % KEYS;
    uint8_t key[FL_PUBLIC_KEY_BYTES] = {0};
    fli_store_u32(key, k);
    if (mix >> 31) {
      cr_assert_eq(fl_server_allow(server, key, NULL), FL_OK);
      count += !on[k];
      on[k] = 1;
    } else {
      cr_assert_eq(fl_server_disallow(server, key),
                   on[k] ? FL_OK : FL_E_NOT_FOUND);
      count -= on[k];
      on[k] = 0;
    }
    cr_assert_eq(fl_server_allow_count(server), count);
  }
  fl_server_free(server);
}
