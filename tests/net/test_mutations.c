/* SPDX-License-Identifier: Apache-2.0 */
/* Servers and clients that are sent what recorded sessions become on a very bad
 * way (mutated.h), and honest rounds between: whatever came, a round that is
 * tried again with honest clients ends with the bytes of a server that heard
 * nothing of it, memory stays bounded, and every answer is a frame that parses.
 *
 * Three worlds of one job go through the same rounds (mu_world.h): in RECORDED
 * real clients are recorded, CALM hears nothing but honest clients, BAD hears
 * mutated recordings as well. Every round has an attempt that is attacked
 * before the scale is agreed, one that is attacked behind it, and one that is
 * honest in all three; evaluations are attacked, too. In a job with keys the
 * strangers have those of its clients (mu_forge.h), and get them banned and
 * forgotten; bans are over when an honest attempt begins. A member that does
 * not answer keeps the first two open to their deadline, so nothing of them may
 * be left.
 *
 *   net-mutations [--mutations N] [--seed S] [--long]
 * Default 24000, with --long 1000000. The seed is printed. */
#include "net/mu_forge.h"
#include "net/mu_world.h"

#include "wire_messages.h"

enum {
  PER_STAGE = 256,
  MEMORY_CAP = 8 << 20,
  STRANGERS = 8,
  N_JOBS = 13,
  MAX_SENDS = 10000
};

static uint64_t n_mutations = 24000, seed = 1;
static uint64_t n_done, n_rounds, n_sessions, n_answers, n_counted, peak_bytes;
static uint64_t n_of_kind[MU_KINDS];
static uint64_t n_forged[MU_FORGERIES];
static uint64_t reasons[MU_REASONS];

static const mu_job jobs[N_JOBS] = {
    {.name = "plain", .codec = FL_CODEC_F32, .n = 300},
    {.name = "norms and scale",
     .codec = FL_CODEC_THC,
     .n = 300,
     .evaluate_every = 1},
    {.name = "public scale",
     .codec = FL_CODEC_THC,
     .scale_mode = FL_SCALE_PUBLIC,
     .n = 300,
     .momentum = .5f},
    {.name = "chunked", .codec = FL_CODEC_BF16, .n = 6000},
    {.name = "error feedback",
     .codec = FL_CODEC_THC,
     .thc_mode = FL_THC_UNIFORM,
     .n = 300,
     .has_feedback = 1},
    {.name = "freezing and parts",
     .codec = FL_CODEC_THC,
     .n = 300,
     .freezes = 1},
    {.name = "separate updates",
     .codec = FL_CODEC_THC,
     .n = 300,
     .rule = FL_RULE_MEDIAN,
     .evaluate_every = 2},
    {.name = "adaptive steps",
     .codec = FL_CODEC_THC,
     .n = 300,
     .rule = FL_RULE_NOVA,
     .step = FL_STEP_ADAM},
    {.name = "slices", .codec = FL_CODEC_THC, .n = 300, .has_slices = 1},
    {.name = "cohorts",
     .codec = FL_CODEC_THC,
     .n = 300,
     .cohorts = FL_COHORT_SKETCH},
    {.name = "cohorts apart",
     .codec = FL_CODEC_THC,
     .n = 300,
     .cohorts = FL_COHORT_SKETCH,
     .pace = FL_COHORT_APART},
    {.name = "cohorts that are chosen",
     .codec = FL_CODEC_THC,
     .n = 300,
     .cohorts = FL_COHORT_LOSS},
    {.name = "enrolled keys",
     .codec = FL_CODEC_THC,
     .n = 300,
     .evaluate_every = 2,
     .is_enrolled = 1},
};

typedef struct trial {
  mu_world recorded, calm, bad;
  mu_session said[MU_PEOPLE];
  mu_session heard[MU_PEOPLE];
  uint64_t strangers[STRANGERS]; /* connections left open */
  uint64_t next_stranger;
  fli_rng rng;
} trial;

static mu_pool pool; /* of all jobs */

/* ---- what the server answers --------------------------------------------- */

static void take_answer(const fli_frame *frame)
{
  fli_ack ack;
  fli_reject reject;
  fli_bytes again;
  fli_bytes_init(&again, NULL);
  CHECK(frame->type >= FLI_MSG_WELCOME);
  CHECK_OK(wire_rewrite(frame, &again));
  fli_bytes_free(&again);
  n_answers++;
  if (frame->type == FLI_MSG_ACK &&
      fli_parse_ack(&ack, frame->body, frame->size) == FL_OK &&
      ack.reason < MU_REASONS)
    reasons[ack.reason]++;
  if (frame->type == FLI_MSG_REJECT &&
      fli_parse_reject(&reject, frame->body, frame->size) == FL_OK &&
      reject.reason < MU_REASONS)
    reasons[reject.reason]++;
}

static void drain(mu_world *world, uint64_t peer, mu_forger *forger)
{
  fli_frame_parser parser;
  fli_frame frame;
  int i = 0;
  fli_frame_parser_init(&parser, NULL, FLI_FRAME_MAX_BODY);
  for (; i < MAX_SENDS; i++) {
    const uint8_t *data = NULL;
    size_t n = 0;
    CHECK_OK(fl_server_send(world->server, peer, &data, &n));
    if (n == 0) break;
    fli_frame_feed(&parser, data, n);
    while (fli_frame_next(&parser, &frame) == FL_OK) {
      take_answer(&frame);
      mu_forger_hear(forger, &frame);
    }
  }
  CHECK(i < MAX_SENDS);
  CHECK_EQ_U64(parser.pending.size, 0);
  fli_frame_parser_free(&parser);
}

/* ---- attacks --------------------------------------------------------------
 */

static void mutate(trial *t, mu_session *s)
{
  for (uint32_t k = 1 + fli_rng_below(&t->rng, 3); k > 0; k--) {
    const int kind = (int)fli_rng_below(&t->rng, MU_KINDS);
    mu_mutate(s, &pool, kind, &t->rng);
    n_of_kind[kind]++;
    n_done++;
  }
}

/* One frame, in two pieces. */
static void say(trial *t, const mu_frame *frame, uint64_t peer)
{
  fl_server *server = t->bad.server;
  const size_t cut = fli_rng_below(&t->rng, (uint32_t)frame->n + 1);
  CHECK_OK(fl_server_recv(server, peer, frame->data, cut));
  CHECK_OK(fl_server_recv(server, peer, frame->data + cut, frame->n - cut));
}

/* One connection says all of it. Some read no answer. In a job with keys it has
 * the one of `index`. */
static void play(trial *t, mu_session *s, uint32_t index)
{
  mu_world *world = &t->bad;
  mu_forger forger = {.index = index, .counts = n_forged};
  const uint64_t peer = t->next_stranger++;
  const int reads = fli_rng_below(&t->rng, 16) > 0;
  for (size_t i = 0; i < s->n; i++) {
    if (world->how->is_enrolled) mu_forge(&forger, &s->frames[i], &t->rng);
    for (int k = mu_forge_times(&forger, &t->rng); k > 0; k--) {
      say(t, &s->frames[i], peer);
      if (reads) drain(world, peer, &forger);
    }
  }
  mu_pass(world, MU_MS);
  if (reads && fli_rng_below(&t->rng, 8) == 0) {
    uint64_t *place = &t->strangers[peer % STRANGERS];
    if (*place) CHECK_OK(fl_server_disconnected(world->server, *place));
    *place = peer;
    return;
  }
  CHECK_OK(fl_server_disconnected(world->server, peer));
}

static void check_memory(const mu_world *world)
{
  uint64_t bytes = 0, peak = 0;
  CHECK_OK(fl_context_get_memory(world->context, &bytes, &peak));
  CHECK(bytes <= MEMORY_CAP);
  if (bytes > peak_bytes) peak_bytes = bytes;
}

/* A client that is no part of the job hears what others heard, mutated. */
static void attack_client(trial *t, uint32_t index)
{
  fl_client *victim = NULL;
  fl_client_options options;
  mu_session s;
  mu_person *like = &t->recorded.people[index];
  CHECK_OK(fl_client_options_init(&options, sizeof options));
  options.client_id = like->id;
  options.max_retries = 1;
  options.train = mu_train;
  options.evaluate = mu_score;
  options.user = like;
  mu_copy(&s, &t->heard[index]);
  mutate(t, &s);
  CHECK_OK(fl_client_new(&victim, NULL, &options));
  if (t->recorded.how->is_enrolled) mu_set_key(like, victim);
  fl_slice_client *slices = like->slices; /* not its own: it trains without */
  like->slices = NULL;
  for (size_t i = 0; i < s.n + 4; i++) {
    const uint8_t *data = NULL;
    size_t n = 1;
    fl_client_event event;
    CHECK_OK(fl_client_event_init(&event, sizeof event));
    for (int k = 0; k < 64 && n > 0; k++)
      if (fl_client_send(victim, &data, &n) != FL_OK) break;
    if (i < s.n) {
      const mu_frame *frame = &s.frames[i];
      if (fl_client_recv(victim, frame->data, frame->n) != FL_OK)
        CHECK_OK(fl_client_disconnected(victim));
    }
    for (int k = 0; k < 64; k++) {
      (void)fl_client_poll(victim, (i + 1) * 100 * MU_SECOND, &event);
      if (event.kind == FL_CLIENT_ABORTED && event.reason < MU_REASONS)
        reasons[event.reason]++;
      if (event.kind == FL_CLIENT_IDLE) break;
    }
  }
  fli_clear_error();
  like->slices = slices;
  fl_client_free(victim);
  mu_clear(&s);
}

static void attack(trial *t)
{
  const uint64_t until = n_done + PER_STAGE;
  for (uint32_t i = 0; i < MU_PEOPLE; i++)
    mu_pool_add(&pool, &t->said[i]);
  while (n_done < until) {
    mu_session s;
    const uint32_t index = fli_rng_below(&t->rng, MU_HOLD);
    if (fli_rng_below(&t->rng, 16) == 0) {
      attack_client(t, index);
      continue;
    }
    mu_copy(&s, &t->said[index]);
    mutate(t, &s);
    play(t, &s, index);
    mu_clear(&s);
    n_sessions++;
    check_memory(&t->bad);
  }
  for (size_t i = 0; i < STRANGERS; i++) {
    if (t->strangers[i])
      CHECK_OK(fl_server_disconnected(t->bad.server, t->strangers[i]));
    t->strangers[i] = 0;
  }
}

/* ---- rounds ---------------------------------------------------------------
 */

static mu_world *world_of(trial *t, int i)
{
  return i == 0 ? &t->recorded : i == 1 ? &t->calm : &t->bad;
}

static void connect_all(trial *t)
{
  for (int i = 0; i < 3; i++) {
    mu_connect(world_of(t, i));
    mu_pass(world_of(t, i), MU_SECOND);
  }
}

/* The recorded ones talk, all but the last; elsewhere these leave, and what
 * they said comes mutated. */
static void disturb(trial *t)
{
  mu_run(&t->recorded, MU_HOLD, NULL);
  for (uint32_t i = 0; i < MU_HOLD; i++) {
    mu_leave(&t->calm.people[i]);
    mu_leave(&t->bad.people[i]);
  }
  attack(t);
}

/* Past every deadline. */
static void give_up(trial *t)
{
  for (int i = 0; i < 3; i++)
    mu_pass(world_of(t, i), 1000 * MU_SECOND);
}

static int is_evaluating(const mu_world *world)
{
  return mu_is_in(world, FLI_PHASE_EVALUATING);
}

static int is_updating_or_finished(const mu_world *world)
{
  return mu_is_updating(world) || mu_is_finished(world);
}

static void honest_round(trial *t)
{
  uint8_t want[FLI_HASH_BYTES], got[FLI_HASH_BYTES];
  for (int i = 0; i < 3; i++) {
    mu_world *world = world_of(t, i);
    mu_run(world, MU_PEOPLE, mu_is_finished);
    CHECK(mu_is_finished(world));
  }
  n_rounds++;
  /* Losses that strangers tell decide on cohorts: those are others then. */
  if (t->calm.how->cohorts == FL_COHORT_LOSS) return;
  mu_hash(&t->recorded, want);
  mu_hash(&t->calm, got);
  CHECK_EQ_MEM(got, want, sizeof want);
  mu_hash(&t->bad, got);
  CHECK_EQ_MEM(got, want, sizeof want);
}

static void run_round(trial *t)
{
  for (int i = 0; i < 3; i++)
    world_of(t, i)->wanted = world_of(t, i)->finished + 1;
  connect_all(t);
  disturb(t);
  give_up(t);
  connect_all(t);
  for (int i = 0; i < 3; i++)
    mu_run(world_of(t, i), MU_PEOPLE, is_updating_or_finished);
  disturb(t);
  give_up(t);
  connect_all(t);
  honest_round(t);
  if (!is_evaluating(&t->recorded)) return;
  connect_all(t);
  disturb(t);
  give_up(t);
}

static void stop(mu_world *world)
{
  CHECK_OK(fl_server_stop_job(world->server, 0));
  mu_connect(world);
  for (int i = 0; i < 3; i++) {
    mu_run(world, MU_PEOPLE, NULL);
    mu_pass(world, 1000 * MU_SECOND);
  }
}

/* Enough mutations; up to twice as many until a stranger's update has counted,
 * for where clients say little that is a matter of luck. */
static int has_seen_enough(const trial *t, uint64_t since)
{
  const uint64_t share = n_mutations / N_JOBS + 1;
  const int was_reached =
      t->bad.strange > 0 || t->bad.how->cohorts == FL_COHORT_LOSS;
  return n_done - since >= (was_reached ? share : 2 * share);
}

static void run_job(const mu_job *how, uint64_t number)
{
  const uint64_t since = n_done;
  trial *t = calloc(1, sizeof *t);
  uint64_t calm_bytes = 0, bad_bytes = 0;
  fli_rng_init(&t->rng, seed, FLI_RNG_TEST, 2, (uint32_t)number);
  t->next_stranger = MU_STRANGER;
  for (int i = 0; i < 3; i++)
    mu_begin(world_of(t, i), how);
  t->recorded.tapes = t->said;
  t->recorded.heard = t->heard;
  while (!has_seen_enough(t, since) && check_totals.failures == 0)
    run_round(t);
  /* What strangers leave behind are names. */
  CHECK_OK(fl_context_get_memory(t->calm.context, &calm_bytes, NULL));
  CHECK_OK(fl_context_get_memory(t->bad.context, &bad_bytes, NULL));
  CHECK(bad_bytes <= calm_bytes + 64 * 1024);
  CHECK(t->bad.strange > 0 || how->cohorts == FL_COHORT_LOSS);
  n_counted += t->bad.strange;
  stop(&t->bad);
  for (size_t i = 0; i < MU_REASONS; i++)
    reasons[i] += t->bad.reasons[i];
  for (uint32_t i = 0; i < MU_PEOPLE; i++) {
    mu_clear(&t->said[i]);
    mu_clear(&t->heard[i]);
  }
  for (int i = 0; i < 3; i++)
    mu_end(world_of(t, i));
  free(t);
  if (check_totals.failures)
    fprintf(stderr, "  job \"%s\", --seed %" PRIu64 "\n", how->name, seed);
}

static void honest_rounds_end_like_those_of_a_server_in_peace(void)
{
  for (uint64_t i = 0; i < N_JOBS && check_totals.failures == 0; i++)
    run_job(&jobs[i], i);
  CHECK(n_done >= n_mutations);
  CHECK(n_rounds >= N_JOBS);
  printf("seed %" PRIu64 ": %" PRIu64 " mutations in %" PRIu64
         " sessions of %d jobs, %" PRIu64 " honest rounds, %" PRIu64
         " answers, %" PRIu64
         " updates counted and taken back, at most %" PRIu64 " bytes held\n",
         seed, n_done, n_sessions, (int)N_JOBS, n_rounds, n_answers, n_counted,
         peak_bytes);
  for (int kind = 0; kind < MU_KINDS; kind++) {
    printf("  %s: %" PRIu64 "\n", mu_kinds[kind], n_of_kind[kind]);
    CHECK(n_of_kind[kind] * 2 * MU_KINDS >= n_done);
  }
  for (int way = 0; way < MU_FORGERIES; way++) {
    printf("  %s: %" PRIu64 "\n", mu_forgeries[way], n_forged[way]);
    CHECK(n_forged[way] > 0);
  }
}

/* A test that hits few of the ways to be refused would prove little. */
static void nine_of_ten_reasons_were_given(void)
{
#define LISTED(name, number, text) number,
  static const uint32_t all[] = {FL_REJECT_TABLE(LISTED)};
#undef LISTED
  size_t n_hit = 0;
  for (size_t i = 1; i < FLI_COUNT_OF(all); i++) {
    const uint64_t n = all[i] < MU_REASONS ? reasons[all[i]] : 0;
    printf("  %s %" PRIu64 "\n", fl_reject_name(all[i]), n);
    n_hit += n > 0;
  }
  printf("%zu of %zu reasons\n", n_hit, FLI_COUNT_OF(all) - 1);
  CHECK(10 * n_hit >= 9 * (FLI_COUNT_OF(all) - 1));
}

int main(int argc, char **argv)
{
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--mutations") == 0 && i + 1 < argc)
      n_mutations = strtoull(argv[++i], NULL, 10);
    else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
      seed = strtoull(argv[++i], NULL, 10);
    else if (strcmp(argv[i], "--long") == 0)
      n_mutations = 1000000;
    else
      return fprintf(stderr, "usage: %s [--mutations N] [--seed S] [--long]\n",
                     argv[0]),
             2;
  }
  CHECK_CASE(honest_rounds_end_like_those_of_a_server_in_peace);
  CHECK_CASE(nine_of_ten_reasons_were_given);
  mu_pool_free(&pool);
  return check_report();
}
