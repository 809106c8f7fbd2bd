#include "include/CTLS.h"
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static int pipe_read(BIO *bio, char *to, int count) {
    struct muster_tls_pipe *pipe = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (count <= 0) return 0;
    if (pipe->input_left == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    size_t taken = (size_t)count < pipe->input_left ? (size_t)count : pipe->input_left;
    memcpy(to, pipe->input, taken);
    pipe->input += taken;
    pipe->input_left -= taken;
    return (int)taken;
}

static int pipe_write(BIO *bio, const char *from, int count) {
    struct muster_tls_pipe *pipe = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (count <= 0) return 0;
    size_t wanted = pipe->output_count + (size_t)count;
    if (wanted > pipe->output_capacity) {
        size_t capacity = pipe->output_capacity < 65536 ? 65536 : pipe->output_capacity;
        while (capacity < wanted) capacity *= 2;
        uint8_t *larger = realloc(pipe->output, capacity);
        if (!larger) return -1;
        pipe->output = larger;
        pipe->output_capacity = capacity;
    }
    memcpy(pipe->output + pipe->output_count, from, (size_t)count);
    pipe->output_count = wanted;
    return count;
}

static long pipe_control(BIO *bio, int command, long number, void *pointer) {
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *method;
static pthread_once_t made = PTHREAD_ONCE_INIT;

static void make_method(void) {
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "pipe");
    if (!method) return;
    BIO_meth_set_read(method, pipe_read);
    BIO_meth_set_write(method, pipe_write);
    BIO_meth_set_ctrl(method, pipe_control);
}

BIO *muster_tls_bio(struct muster_tls_pipe *pipe) {
    pthread_once(&made, make_method);
    BIO *bio = method ? BIO_new(method) : NULL;
    if (!bio) return NULL;
    BIO_set_data(bio, pipe);
    BIO_set_init(bio, 1);
    return bio;
}

void muster_tls_attach(SSL *ssl, BIO *bio) {
    BIO_up_ref(bio);
    SSL_set_bio(ssl, bio, bio);
    // The 16 KiB for a record go when there is none: most connections are idle most of the time.
    SSL_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS);
}

int muster_tls_server_settings(SSL_CTX *context, const char *ciphers, const char *suites, const char *groups) {
    SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA | SSL_OP_NO_RENEGOTIATION
        | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    return SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 && SSL_CTX_set_cipher_list(context, ciphers) == 1
        && SSL_CTX_set_ciphersuites(context, suites) == 1 && SSL_CTX_set1_groups_list(context, groups) == 1;
}

long muster_tls_hello_name(SSL *ssl, const uint8_t **out) {
    const unsigned char *bytes;
    size_t count;
    if (!SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &bytes, &count)) return 0;
    // A list's length, a name's type and length, the name (RFC 6066, 3). Only host names exist, and one of them.
    if (count < 5 || (size_t)(bytes[0] << 8 | bytes[1]) != count - 2 || bytes[2] != TLSEXT_NAMETYPE_host_name) return -1;
    size_t length = (size_t)(bytes[3] << 8 | bytes[4]);
    if (length == 0 || length + 5 > count) return -1;
    *out = bytes + 5;
    return (long)length;
}

void muster_tls_tickets(SSL_CTX *context, muster_ticket_callback ticket) { SSL_CTX_set_tlsext_ticket_key_evp_cb(context, ticket); }

// Fetched once: looking a cipher up by its name takes longer than sealing a ticket with it.
static EVP_CIPHER *ticket_cipher;
static pthread_once_t fetched = PTHREAD_ONCE_INIT;
static void fetch(void) { ticket_cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL); }

int muster_ticket_start(EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, const void *cipher_key, const void *mac_key,
                        const unsigned char *vector, int seal) {
    pthread_once(&fetched, fetch);
    OSSL_PARAM settings[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)mac_key, 32),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, "SHA256", 0),
        OSSL_PARAM_construct_end(),
    };
    if (!ticket_cipher || EVP_MAC_CTX_set_params(mac, settings) != 1) return 0;
    return EVP_CipherInit_ex(cipher, ticket_cipher, NULL, cipher_key, vector, seal) == 1;
}

int muster_tls_ask(SSL *ssl, X509_STORE *store, const STACK_OF(X509_NAME) *names, int depth) {
    STACK_OF(X509_NAME) *copies = SSL_dup_CA_list(names);
    if (!copies || SSL_set1_verify_cert_store(ssl, store) != 1) {
        sk_X509_NAME_pop_free(copies, X509_NAME_free);
        return 0;
    }
    SSL_set_client_CA_list(ssl, copies);
    SSL_set_verify_depth(ssl, depth);
    return 1;
}

int muster_tls_offer(SSL *ssl, const unsigned char *protocols, unsigned count) {
    return SSL_set_alpn_protos(ssl, protocols, count) == 0;
}

EVP_PKEY *muster_new_key(void) { return EVP_EC_gen("P-256"); }
