/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed channels: what one end writes the other reads, in any cut; whatever is
 * changed, repeated, left out or moved on the way, and whoever is another than
 * expected, ends the channel. */
#include <criterion/criterion.h>

#include <fl/channel.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 1 << 20 };

#define OK(call)                                                        \
  do {                                                                  \
    const fl_status ok_ = (call);                                       \
    cr_assert_eq(ok_, FL_OK, "%s: %s (%s)", #call, fl_status_name(ok_), \
                 fl_last_error());                                      \
  } while (0)

typedef struct ends {
  uint8_t server_secret[FL_SECRET_KEY_BYTES], server_key[FL_PUBLIC_KEY_BYTES];
  uint8_t client_secret[FL_SECRET_KEY_BYTES], client_key[FL_PUBLIC_KEY_BYTES];
  fl_channel_options server_options, client_options;
  fl_channel *server, *client;
} ends;

static void make_keys(ends *e)
{
  memset(e, 0, sizeof *e);
  OK(fl_key_generate(NULL, e->server_secret, e->server_key));
  OK(fl_key_generate(NULL, e->client_secret, e->client_key));
  OK(fl_channel_options_init(&e->server_options, sizeof e->server_options));
  OK(fl_channel_options_init(&e->client_options, sizeof e->client_options));
  e->server_options.is_server = 1;
  e->server_options.secret_key = e->server_secret;
  e->client_options.server_key = e->server_key;
  e->client_options.secret_key = e->client_secret;
}

static void make(ends *e)
{
  OK(fl_channel_new(&e->server, NULL, &e->server_options));
  OK(fl_channel_new(&e->client, NULL, &e->client_options));
}

static void begin(ends *e)
{
  make_keys(e);
  make(e);
}

static void end(ends *e)
{
  fl_channel_free(e->server);
  fl_channel_free(e->client);
}

/* A copy of what one end has to send. */
static size_t sent(fl_channel *from, uint8_t *out, size_t capacity)
{
  const uint8_t *data = NULL;
  size_t n = 0;
  OK(fl_channel_send(from, &data, &n));
  cr_assert_leq(n, capacity);
  if (n > 0) memcpy(out, data, n);
  return n;
}

static uint8_t carried[2 * MOST];

/* Everything that `from` has, in pieces of `piece` bytes. */
static fl_status carry(fl_channel *from, fl_channel *to, size_t piece)
{
  const size_t n = sent(from, carried, sizeof carried);
  for (size_t at = 0; at < n; at += piece) {
    const fl_status st =
        fl_channel_recv(to, carried + at, n - at < piece ? n - at : piece);
    if (st != FL_OK) return st;
  }
  return FL_OK;
}

static void shake(ends *e)
{
  OK(carry(e->client, e->server, MOST));
  OK(carry(e->server, e->client, MOST));
  OK(carry(e->client, e->server, MOST));
  cr_assert(fl_channel_is_open(e->client));
  cr_assert(fl_channel_is_open(e->server));
}

static void want_read(fl_channel *channel, const void *want, size_t size)
{
  const uint8_t *data = NULL;
  size_t n = 0;
  OK(fl_channel_read(channel, &data, &n));
  cr_assert(n == size && (n == 0 || memcmp(data, want, n) == 0),
            "got %zu bytes, want %zu", n, size);
}

static void want_broken(fl_channel *channel)
{
  const uint8_t *data = NULL;
  size_t n = 0;
  uint8_t key[FL_PUBLIC_KEY_BYTES];
  cr_expect_eq(fl_channel_recv(channel, (const uint8_t *)"x", 1), FL_E_STATE);
  cr_expect_eq(fl_channel_read(channel, &data, &n), FL_E_STATE);
  cr_expect_eq(fl_channel_send(channel, &data, &n), FL_E_STATE);
  cr_expect_eq(fl_channel_write(channel, (const uint8_t *)"x", 1), FL_E_STATE);
  cr_expect_eq(fl_channel_close(channel), FL_E_STATE);
  cr_expect_eq(fl_channel_copy_peer_key(channel, key), FL_E_STATE);
  cr_expect_eq(fl_channel_is_open(channel), 0);
}

Test(channel, both_ends_read_what_the_other_wrote_in_any_cut)
{
  static const size_t sizes[] = {0, 1, 16, 65535, 65536, 65537, 300000};
  static const size_t pieces[] = {1, 7, 4096, MOST};
  uint8_t *bytes = malloc(MOST);
  cr_assert_not_null(bytes);
  for (size_t i = 0; i < MOST; i++)
    bytes[i] = (uint8_t)(i * 31 + i / 251);
  for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++) {
    ends e;
    begin(&e);
    for (int i = 0; i < 3; i++) {
      OK(carry(e.client, e.server, pieces[p]));
      OK(carry(e.server, e.client, pieces[p]));
    }
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
      OK(fl_channel_write(e.client, bytes, sizes[s]));
      OK(carry(e.client, e.server, pieces[p]));
      want_read(e.server, bytes, sizes[s]);
      OK(fl_channel_write(e.server, bytes + s, sizes[s]));
      OK(carry(e.server, e.client, pieces[p]));
      want_read(e.client, bytes + s, sizes[s]);
    }
    end(&e);
  }
  free(bytes);
}

Test(channel, what_is_written_before_it_is_open_waits)
{
  ends e;
  begin(&e);
  OK(fl_channel_write(e.client, (const uint8_t *)"from client", 11));
  OK(fl_channel_write(e.server, (const uint8_t *)"from ", 5));
  OK(fl_channel_write(e.server, (const uint8_t *)"server", 6));
  OK(fl_channel_close(e.server));
  cr_assert_eq(sent(e.server, carried, sizeof carried), 0u,
               "a server does not speak first");
  shake(&e);
  want_read(e.server, "from client", 11);
  OK(carry(e.server, e.client, 3));
  want_read(e.client, "from server", 11);
  cr_expect(fl_channel_has_ended(e.client));
  end(&e);
}

Test(channel, each_end_learns_whose_key_the_other_has)
{
  ends e;
  uint8_t key[FL_PUBLIC_KEY_BYTES];
  begin(&e);
  cr_expect_eq(fl_channel_copy_peer_key(e.server, key), FL_E_STATE);
  shake(&e);
  OK(fl_channel_copy_peer_key(e.server, key));
  cr_expect_arr_eq(key, e.client_key, sizeof key);
  OK(fl_channel_copy_peer_key(e.client, key));
  cr_expect_arr_eq(key, e.server_key, sizeof key);
  end(&e);
}

Test(channel, a_client_without_a_key_is_nobody_or_refused)
{
  ends e;
  uint8_t key[FL_PUBLIC_KEY_BYTES];
  make_keys(&e);
  e.client_options.secret_key = NULL;
  make(&e);
  shake(&e);
  cr_expect_eq(fl_channel_copy_peer_key(e.server, key), FL_E_NOT_FOUND);
  end(&e);
  e.server_options.needs_client_key = 1;
  make(&e);
  OK(carry(e.client, e.server, MOST));
  OK(carry(e.server, e.client, MOST));
  cr_expect_eq(carry(e.client, e.server, MOST), FL_E_FORMAT);
  cr_expect_str_eq(fl_last_error(), "channel: the client has no key, want one");
  want_broken(e.server);
  end(&e);
}

Test(channel, another_server_than_the_pinned_one_is_refused)
{
  ends e, other;
  begin(&e);
  begin(&other);
  OK(carry(e.client, other.server, MOST));
  cr_expect_eq(carry(other.server, e.client, MOST), FL_E_FORMAT);
  cr_expect_str_eq(fl_last_error(),
                   "channel: not the server whose key is pinned");
  want_broken(e.client);
  end(&e);
  end(&other);
}

/* A server that a client trusts hands its proof on to another one. */
Test(channel, a_proof_for_one_server_is_none_for_another)
{
  ends e, victim;
  uint8_t hello[64], header[4096];
  begin(&e);
  begin(&victim);
  const size_t n = sent(e.client, hello, sizeof hello);
  OK(fl_channel_recv(victim.server, hello, n));
  OK(fl_channel_recv(e.server, hello, n));
  OK(carry(e.server, e.client, MOST));
  const size_t m = sent(e.client, header, sizeof header);
  cr_expect_eq(fl_channel_recv(victim.server, header, m), FL_E_FORMAT);
  want_broken(victim.server);
  end(&e);
  end(&victim);
}

Test(channel, an_answer_of_another_exchange_is_refused)
{
  ends e;
  uint8_t old[256];
  fl_channel *again = NULL;
  begin(&e);
  OK(carry(e.client, e.server, MOST));
  const size_t n = sent(e.server, old, sizeof old);
  OK(fl_channel_new(&again, NULL, &e.client_options));
  cr_expect_eq(fl_channel_recv(again, old, n), FL_E_FORMAT);
  want_broken(again);
  fl_channel_free(again);
  end(&e);
}

/* One bit of the handshake, or of a record after it. */
Test(channel, a_changed_bit_anywhere_ends_it)
{
  for (size_t bit = 0; bit < 8u * 1200; bit += 13) {
    ends e;
    size_t at = 0;
    int is_broken = 0;
    begin(&e);
    OK(fl_channel_write(e.client, (const uint8_t *)"secret bytes", 12));
    for (int i = 0; i < 4 && !is_broken; i++) {
      fl_channel *from = i % 2 ? e.server : e.client;
      fl_channel *to = i % 2 ? e.client : e.server;
      if (i == 3) OK(fl_channel_write(e.server, (const uint8_t *)"answer", 6));
      const size_t n = sent(from, carried, sizeof carried);
      if (bit / 8 >= at && bit / 8 < at + n)
        carried[bit / 8 - at] ^= (uint8_t)(1 << bit % 8);
      at += n;
      is_broken = fl_channel_recv(to, carried, n) != FL_OK;
    }
    /* A length that grew waits for more: nothing is read either. */
    const uint8_t *data = NULL;
    size_t n = 0;
    if (bit / 8 < at && !is_broken) {
      const fl_status a = fl_channel_read(e.server, &data, &n);
      const int is_whole = a == FL_OK && n == 12;
      const fl_status b = fl_channel_read(e.client, &data, &n);
      cr_expect(!is_whole || b != FL_OK || n != 6, "bit %zu was not noticed",
                bit);
    }
    end(&e);
  }
}

Test(channel, a_repeated_missing_or_moved_record_ends_it)
{
  for (int what = 0; what < 3; what++) {
    ends e;
    uint8_t records[3][64];
    size_t n[3];
    begin(&e);
    shake(&e);
    for (int i = 0; i < 3; i++) {
      OK(fl_channel_write(e.client, (const uint8_t *)"abc" + i, 1));
      n[i] = sent(e.client, records[i], sizeof records[i]);
    }
    OK(fl_channel_recv(e.server, records[0], n[0]));
    const int next = what == 0 ? 0 : 2; /* again; or the one after the next */
    cr_expect_eq(fl_channel_recv(e.server, records[next], n[next]),
                 FL_E_FORMAT);
    want_broken(e.server);
    end(&e);
  }
}

Test(channel, bytes_sent_back_are_not_the_other_ends)
{
  ends e;
  begin(&e);
  shake(&e);
  OK(fl_channel_write(e.client, (const uint8_t *)"hello", 5));
  const size_t n = sent(e.client, carried, sizeof carried);
  cr_expect_eq(fl_channel_recv(e.client, carried, n), FL_E_FORMAT);
  end(&e);
}

Test(channel, an_end_is_told_from_a_cut)
{
  ends e;
  begin(&e);
  shake(&e);
  OK(fl_channel_write(e.client, (const uint8_t *)"last words", 10));
  OK(carry(e.client, e.server, MOST));
  cr_expect_eq(fl_channel_has_ended(e.server), 0);
  OK(fl_channel_close(e.client));
  cr_expect_eq(fl_channel_write(e.client, (const uint8_t *)"x", 1), FL_E_STATE);
  cr_expect_eq(fl_channel_close(e.client), FL_E_STATE);
  OK(carry(e.client, e.server, 1));
  cr_expect(fl_channel_has_ended(e.server));
  want_read(e.server, "last words", 10);
  /* The other way goes on, and nothing comes after an end. */
  OK(fl_channel_write(e.server, (const uint8_t *)"bye", 3));
  OK(carry(e.server, e.client, MOST));
  want_read(e.client, "bye", 3);
  cr_expect_eq(fl_channel_recv(e.server, (const uint8_t *)"x", 1), FL_E_FORMAT);
  end(&e);
}

Test(channel, records_of_an_impossible_length_are_refused)
{
  static const uint8_t lengths[][4] = {
      {16, 0, 0, 0}, {0, 0, 0, 0}, {18, 0, 1, 0}, {255, 255, 255, 255}};
  static const fl_status want[] = {FL_E_FORMAT, FL_E_FORMAT, FL_E_TOO_LARGE,
                                   FL_E_TOO_LARGE};
  for (size_t i = 0; i < 4; i++) {
    ends e;
    begin(&e);
    shake(&e);
    cr_expect_eq(fl_channel_recv(e.client, lengths[i], 4), want[i]);
    want_broken(e.client);
    end(&e);
  }
}

/* All zeros: the shared secret would be known to everybody. */
Test(channel, a_key_of_small_order_is_refused)
{
  ends e;
  uint8_t hello[36] = {'F', 'L', 'C', '1'};
  begin(&e);
  cr_expect_eq(fl_channel_recv(e.server, hello, sizeof hello), FL_E_FORMAT);
  want_broken(e.server);
  hello[0] = 'X';
  end(&e);
  begin(&e);
  cr_expect_eq(fl_channel_recv(e.server, hello, sizeof hello), FL_E_FORMAT);
  end(&e);
}

Test(channel, arguments_and_options_are_checked)
{
  ends e;
  fl_channel *channel = NULL;
  const uint8_t *data = NULL;
  size_t n = 0;
  make_keys(&e);
  cr_expect_eq(fl_key_generate(NULL, NULL, e.client_key), FL_E_ARGUMENT);
  cr_expect_eq(fl_key_generate(NULL, e.client_secret, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_channel_new(NULL, NULL, &e.client_options), FL_E_ARGUMENT);
  cr_expect_eq(fl_channel_new(&channel, NULL, NULL), FL_E_ARGUMENT);
  e.server_options.secret_key = NULL;
  cr_expect_eq(fl_channel_new(&channel, NULL, &e.server_options),
               FL_E_ARGUMENT);
  e.client_options.is_server = 2;
  cr_expect_eq(fl_channel_new(&channel, NULL, &e.client_options), FL_E_OPTIONS);
  cr_expect_null(channel);
  cr_expect_eq(fl_channel_recv(NULL, carried, 1), FL_E_ARGUMENT);
  cr_expect_eq(fl_channel_read(NULL, &data, &n), FL_E_ARGUMENT);
  cr_expect_eq(fl_channel_is_open(NULL), 0);
  cr_expect_eq(fl_channel_has_ended(NULL), 0);
  begin(&e);
  cr_expect_eq(fl_channel_recv(e.client, NULL, 1), FL_E_ARGUMENT);
  cr_expect_eq(fl_channel_write(e.client, NULL, 1), FL_E_ARGUMENT);
  cr_expect_eq(fl_channel_send(e.client, NULL, &n), FL_E_ARGUMENT);
  cr_expect_eq(fl_channel_copy_peer_key(e.client, NULL), FL_E_ARGUMENT);
  end(&e);
  fl_channel_free(NULL);
}
