/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file channel.h
 * A sealed channel for hosts without TLS: both ends' bytes encrypted and
 * authenticated, the server known by a pinned key, the client by a key of its
 * own if it has one. Without sockets, like client and server, and between them
 * and the host's transport:
 *
 *   fl_channel_recv(bytes that came), fl_channel_read() -> to fl_client_recv
 *   what fl_client_send gave -> fl_channel_write, fl_channel_send() ->
 * transport
 *
 * X25519 with fresh keys for every channel (what was recorded stays sealed when
 * a long-term key is lost), Ed25519 signatures over both of them, and
 * XChaCha20-Poly1305 in libsodium's secretstream: a record that is changed,
 * repeated, left out or moved ends the channel. The wire:
 * docs/design/channel.md. Bytes have to come in order, as TCP has them.
 *
 * For every function here. Thread-safety: one thread per fl_channel at a time.
 * Determinism: none, keys are drawn from the context's entropy.
 */
#ifndef FL_CHANNEL_H
#define FL_CHANNEL_H

#include <fl/base.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { FL_PUBLIC_KEY_BYTES = 32, FL_SECRET_KEY_BYTES = 64 };

/** Draw an Ed25519 key pair: a device's identity, or a server's, whose public
 * half its clients pin. Keep the secret half where secrets are kept, and wipe
 * it when it is not needed. FL_E_ARGUMENT, FL_E_ENTROPY. */
FL_API fl_status fl_key_generate(fl_context *context,
                                 uint8_t secret_key[FL_SECRET_KEY_BYTES],
                                 uint8_t public_key[FL_PUBLIC_KEY_BYTES]);

typedef struct fl_channel fl_channel;

typedef struct fl_channel_options {
  uint32_t struct_size;
  uint32_t is_server; /**< 1: the end that was connected to; default 0 */
  /** This end's key, FL_SECRET_KEY_BYTES: required by a server; a client's is
   * its identity, told to the server alone; NULL (default) = it has none.
   * Copied, and wiped with the handle. */
  const uint8_t *secret_key;
  /** Clients: the server's pinned public key, FL_PUBLIC_KEY_BYTES. Required.
   * Copied. */
  const uint8_t *server_key;
  /** Servers: 1 = clients without a key are refused. Default 0. */
  uint32_t needs_client_key;
  uint32_t reserved;
} fl_channel_options;
FL_API fl_status fl_channel_options_init(fl_channel_options *options,
                                         size_t size);

/** Make one end. FL_E_ARGUMENT: a key that is required is NULL; FL_E_OPTIONS,
 * FL_E_ENTROPY, FL_E_NOMEM. */
FL_API fl_status fl_channel_new(fl_channel **out, fl_context *context,
                                const fl_channel_options *options);
/** Wipe keys, and free; NULL is fine. */
FL_API void fl_channel_free(fl_channel *channel);

/** Take bytes from the transport, in any cut. After an error the channel is
 * broken, and every call but free is FL_E_STATE: close the connection.
 * FL_E_FORMAT: not what the other end sealed, or another server than the
 * pinned one; FL_E_TOO_LARGE; FL_E_NOMEM. */
FL_API fl_status fl_channel_recv(fl_channel *channel, const uint8_t *data,
                                 size_t n);
/** Borrow what the other end wrote, *n bytes at *data, 0 = nothing; it counts
 * as read. Valid until the next call on the channel. */
FL_API fl_status fl_channel_read(fl_channel *channel, const uint8_t **data,
                                 size_t *n);
/** Have bytes sealed and sent. Before the channel is open they wait.
 * FL_E_STATE: closed, or broken; FL_E_NOMEM: nothing of them is taken. */
FL_API fl_status fl_channel_write(fl_channel *channel, const uint8_t *data,
                                  size_t n);
/** Say that no more comes from this end: without it the other end cannot tell
 * the end of what was said from a cut. Errors as fl_channel_write. */
FL_API fl_status fl_channel_close(fl_channel *channel);
/** Borrow what is to be sent, *n bytes at *data, 0 = nothing; it counts as
 * sent. Valid until the next call on the channel. */
FL_API fl_status fl_channel_send(fl_channel *channel, const uint8_t **data,
                                 size_t *n);

/** 1 once the other end is known and bytes flow. */
FL_API int32_t fl_channel_is_open(const fl_channel *channel);
/** 1 when the other end has said that no more comes, and all of it was taken
 * in. */
FL_API int32_t fl_channel_has_ended(const fl_channel *channel);
/** Copy the other end's key: servers learn who their client is here, before
 * anything it wrote can be read. FL_E_STATE: the channel is not open;
 * FL_E_NOT_FOUND: the client has no key. */
FL_API fl_status fl_channel_copy_peer_key(const fl_channel *channel,
                                          uint8_t key[FL_PUBLIC_KEY_BYTES]);

#ifdef __cplusplus
}
#endif
#endif
