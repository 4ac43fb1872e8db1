/* SPDX-License-Identifier: Apache-2.0 */
/* What clients keep for the server: only their own, unchanged and fresh. */
#include "cohort_fixture.h"

enum { TICKET = FL_COHORT_TICKET_BYTES, FORGET = 100 };

static const uint8_t key[FL_COHORT_KEY_BYTES] = {1, 2, 3};

static fl_cohort_options keyed(void)
{
  fl_cohort_options o = people_options();
  o.seed = 7;
  o.key = key;
  o.job = 99;
  o.forget = FORGET;
  return o;
}

static void open_keyed(people *p)
{
  fl_cohort_options o = keyed();
  people_open(p, NULL, &o, 200, 2);
  people_rounds(p, 1, 60);
  cr_assert_eq(fl_cohort_set_count(p->set), 2);
}

static void ticket_of(const people *p, uint32_t slot, uint8_t ticket[TICKET])
{
  size_t n = 0;
  PEOPLE_MUST(fl_cohort_set_copy_ticket(p->set, slot, NULL, 0, &n));
  cr_assert_eq(n, TICKET);
  PEOPLE_MUST(fl_cohort_set_copy_ticket(p->set, slot, ticket, TICKET, &n));
}

/* A client leaves, and comes again with this ticket. */
static int32_t come_again(people *p, uint32_t client, uint32_t round,
                          const uint8_t *ticket)
{
  uint32_t slot;
  int32_t counts = 7;
  PEOPLE_MUST(fl_cohort_set_leave(p->set, client));
  PEOPLE_MUST(fl_cohort_set_join(p->set, client, round, ticket,
                                 ticket ? TICKET : 0, &slot, &counts));
  cr_assert_eq(slot, client);
  return counts;
}

static void is_newcomer(const people *p, uint32_t client)
{
  fl_cohort_member member = people_member(p, client);
  cr_assert_eq(member.is_unknown, 1);
  cr_assert_eq(member.last, 0);
  cr_assert_eq(member.seen, 0);
}

Test(cohort_ticket, brings_back_all_that_was_known)
{
  people p;
  uint8_t ticket[TICKET];
  open_keyed(&p);
  for (uint32_t i = 0; i < 200; i++) {
    fl_cohort_member before = people_member(&p, i);
    ticket_of(&p, i, ticket);
    cr_assert_eq(come_again(&p, i, 61, ticket), 1);
    fl_cohort_member after = people_member(&p, i);
    cr_assert_eq(memcmp(&before, &after, sizeof before), 0);
  }
  people_close(&p);
}

Test(cohort_ticket, changed_anywhere_is_a_newcomers)
{
  people p;
  uint8_t ticket[TICKET];
  open_keyed(&p);
  ticket_of(&p, 5, ticket);
  for (size_t bit = 0; bit < 8 * TICKET; bit++) {
    ticket[bit / 8] ^= (uint8_t)(1u << bit % 8);
    cr_assert_eq(come_again(&p, 5, 61, ticket), 0, "bit %zu", bit);
    is_newcomer(&p, 5);
    ticket[bit / 8] ^= (uint8_t)(1u << bit % 8);
  }
  cr_assert_eq(come_again(&p, 5, 61, ticket), 1);
  people_close(&p);
}

Test(cohort_ticket, another_clients_is_a_newcomers)
{
  people p;
  uint8_t ticket[TICKET];
  open_keyed(&p);
  ticket_of(&p, 6, ticket);
  cr_assert_eq(come_again(&p, 5, 61, ticket), 0);
  is_newcomer(&p, 5);
  people_close(&p);
}

Test(cohort_ticket, another_jobs_or_keys_is_a_newcomers)
{
  static const uint8_t other_key[FL_COHORT_KEY_BYTES] = {1, 2, 4};
  people p;
  fl_cohort_options o = keyed();
  uint8_t ticket[TICKET];
  open_keyed(&p);
  ticket_of(&p, 5, ticket);
  people_close(&p);
  o.job++;
  people_open(&p, NULL, &o, 200, 2);
  cr_assert_eq(come_again(&p, 5, 61, ticket), 0);
  people_close(&p);
  o = keyed();
  o.key = other_key;
  people_open(&p, NULL, &o, 200, 2);
  cr_assert_eq(come_again(&p, 5, 61, ticket), 0);
  people_close(&p);
}

Test(cohort_ticket, outdated_is_a_newcomers)
{
  people p;
  uint8_t ticket[TICKET];
  open_keyed(&p);
  uint32_t last = people_member(&p, 5).last;
  ticket_of(&p, 5, ticket);
  cr_assert_eq(come_again(&p, 5, last + FORGET, ticket), 1);
  cr_assert_eq(come_again(&p, 5, last + FORGET + 1, ticket), 0);
  is_newcomer(&p, 5);
  /* Nor is one of the future. */
  cr_assert_eq(come_again(&p, 5, last - 1, ticket), 0);
  people_close(&p);
}

Test(cohort_ticket, replayed_changes_nothing_of_who_is_there)
{
  people p;
  uint8_t old[TICKET];
  uint32_t slot;
  int32_t counts = 7;
  open_keyed(&p);
  ticket_of(&p, 5, old);
  people_train(&p, 5, 61);
  people_end_round(&p, 61);
  fl_cohort_member before = people_member(&p, 5);
  PEOPLE_MUST(fl_cohort_set_join(p.set, 5, 62, old, TICKET, &slot, &counts));
  cr_assert_eq(counts, 0);
  fl_cohort_member after = people_member(&p, 5);
  cr_assert_eq(memcmp(&before, &after, sizeof before), 0);
  people_close(&p);
}

Test(cohort_ticket, of_another_tree_is_asked_again)
{
  people p;
  fl_cohort_options o = keyed();
  uint8_t ticket[TICKET];
  people_open(&p, NULL, &o, 200, 2);
  people_rounds(&p, 1, 3);
  uint32_t client = 0;
  while (people_member(&p, client).last == 0)
    client++;
  ticket_of(&p, client, ticket);
  people_rounds(&p, 4, 60);
  cr_assert_eq(fl_cohort_set_count(p.set), 2);
  cr_assert_eq(come_again(&p, client, 61, ticket), 1);
  cr_assert_eq(people_member(&p, client).is_unknown, 1);
  cr_assert_eq(route_of(&p, client, 61, NAN).n_probes, 2);
  people_close(&p);
}

Test(cohort_ticket, of_another_size_is_a_newcomers)
{
  people p;
  uint8_t ticket[TICKET + 1] = {0};
  uint32_t slot;
  int32_t counts = 7;
  open_keyed(&p);
  ticket_of(&p, 5, ticket);
  PEOPLE_MUST(fl_cohort_set_leave(p.set, 5));
  PEOPLE_MUST(
      fl_cohort_set_join(p.set, 5, 61, ticket, TICKET - 1, &slot, &counts));
  cr_assert_eq(counts, 0);
  PEOPLE_MUST(fl_cohort_set_leave(p.set, 5));
  PEOPLE_MUST(
      fl_cohort_set_join(p.set, 5, 61, ticket, TICKET + 1, &slot, &counts));
  cr_assert_eq(counts, 0);
  people_close(&p);
}

Test(cohort_ticket, there_are_none_without_a_key_or_under_auxo)
{
  people p;
  fl_cohort_set *set = NULL;
  fl_cohort_options o = keyed();
  uint8_t ticket[TICKET];
  uint32_t slot;
  size_t n;
  open_groups(&p, 1, 5, 1);
  IS(fl_cohort_set_copy_ticket(p.set, 0, ticket, TICKET, &n), FL_E_STATE);
  people_close(&p);
  o.rule = FL_COHORT_AUXO;
  PEOPLE_MUST(fl_cohort_set_new(&set, NULL, &o));
  PEOPLE_MUST(fl_cohort_set_join(set, 1, 0, NULL, 0, &slot, NULL));
  IS(fl_cohort_set_copy_ticket(set, 0, ticket, TICKET, &n), FL_E_UNSUPPORTED);
  fl_cohort_set_free(set);
  open_keyed(&p);
  IS(fl_cohort_set_copy_ticket(p.set, 0, ticket, TICKET - 1, &n), FL_E_SIZE);
  IS(fl_cohort_set_copy_ticket(p.set, 200, ticket, TICKET, &n), FL_E_NOT_FOUND);
  IS(fl_cohort_set_copy_ticket(p.set, 0, ticket, TICKET, NULL), FL_E_ARGUMENT);
  people_close(&p);
}
