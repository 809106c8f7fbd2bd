// What Swift does not import of OpenSSL: calls that are macros, and the BIO by which sessions read from and write to memory. Thin wrappers
// only; every decision is made in Swift.
#ifndef MUSTER_CTLS_H
#define MUSTER_CTLS_H
#include <openssl/ssl.h>
#include <stddef.h>
#include <stdint.h>

/// What the sessions of one loop read and write while one of them works: only one does at a time, and what is in here is gone before the
/// next one begins.
struct muster_tls_pipe {
    /// Sealed bytes that came. Reading takes them from the front.
    const uint8_t *input;
    size_t input_left;
    /// Sealed bytes to be sent. Writing adds to them and always succeeds; the memory grows when it must.
    uint8_t *output;
    size_t output_count, output_capacity;
};

/// A BIO on a pipe, for any number of sessions of one loop. NULL for want of memory.
BIO *muster_tls_bio(struct muster_tls_pipe *pipe);
/// Gives a session the BIO, for both ways.
void muster_tls_attach(SSL *ssl, BIO *bio);

/// Settings that every server's context has: TLS 1.2 and 1.3, ciphers, groups, no renegotiation, no compression, no resumption by a store,
/// buffers given back. 1, or 0 with OpenSSL's errors in its queue.
int muster_tls_server_settings(SSL_CTX *context, const char *ciphers, const char *suites, const char *groups);
/// The name that a ClientHello asks for: its length, with `out` pointing into the message; 0: none, -1: the extension is malformed.
long muster_tls_hello_name(SSL *ssl, const uint8_t **out);

typedef int (*muster_ticket_callback)(SSL *, unsigned char *, unsigned char *, EVP_CIPHER_CTX *, EVP_MAC_CTX *, int);
/// Calls `ticket` for each ticket that is to be sealed or opened.
void muster_tls_tickets(SSL_CTX *context, muster_ticket_callback ticket);
/// Begins to seal or to open a ticket, with AES-256-CBC and HMAC-SHA256. 1, or 0.
int muster_ticket_start(EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, const void *cipher_key, const void *mac_key,
                        const unsigned char *vector, int seal);
/// Verifies a client's certificate against a store, and tells it which authorities are trusted: `names` are copied. 1, or 0.
int muster_tls_ask(SSL *ssl, X509_STORE *store, const STACK_OF(X509_NAME) *names, int depth);
/// A new key of ECDSA on P-256; NULL when OpenSSL makes none.
EVP_PKEY *muster_new_key(void);
/// Offers protocols by ALPN, each name after its length. 1, or 0.
int muster_tls_offer(SSL *ssl, const unsigned char *protocols, unsigned count);
#endif
