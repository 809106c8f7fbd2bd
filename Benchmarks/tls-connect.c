#define _GNU_SOURCE
// A client of whole connections for Benchmarks/gateway-tls: connects, shakes hands, asks once, reads the answer, closes.
//
//   tls-connect PORT COUNT full|resumed|idle [1.2|1.3]
//
// With `resumed` each connection offers the ticket of the one before, and it is counted how many were taken. With `idle` all stay open until
// standard input ends; "ready" is printed when they stand. Prints JSON. Status 1: something failed.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static SSL_SESSION *ticket;

static int came(SSL *ssl, SSL_SESSION *session) {
    (void)ssl;
    SSL_SESSION_free(ticket);
    ticket = session;
    return 1;
}

static int fail(const char *what) {
    fprintf(stderr, "tls-connect: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int count, char **words) {
    if (count < 4) fail("PORT COUNT full|resumed|idle [1.2|1.3]");
    int port = atoi(words[1]), wanted = atoi(words[2]), resumes = !strcmp(words[3], "resumed"), stays = !strcmp(words[3], "idle");
    int old = count > 4 && !strcmp(words[4], "1.2");
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, old ? TLS1_2_VERSION : TLS1_3_VERSION);
    SSL_CTX_set_max_proto_version(context, old ? TLS1_2_VERSION : TLS1_3_VERSION);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, came);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set_cipher_list(context, "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256");
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    SSL **kept = calloc(wanted, sizeof *kept);
    int resumed = 0;
    double began = now();
    for (int i = 0; i < wanted; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (fd < 0 || connect(fd, (struct sockaddr *)&place, sizeof place)) fail("connect");
        SSL *ssl = SSL_new(context);
        SSL_set_fd(ssl, fd);
        SSL_set_tlsext_host_name(ssl, "bench.local");
        if (resumes && ticket) SSL_set_session(ssl, ticket);
        if (SSL_connect(ssl) != 1) fail("handshake");
        resumed += SSL_session_reused(ssl);
        const char *ask = stays ? "GET / HTTP/1.1\r\nHost: bench.local\r\n\r\n" : "GET / HTTP/1.1\r\nHost: bench.local\r\nConnection: close\r\n\r\n";
        if (SSL_write(ssl, ask, strlen(ask)) <= 0) fail("write");
        char answer[4096];
        int got = 0, more;
        // The body's 100 bytes end it; what has `Connection: close` is read to its end.
        while (got < (int)sizeof answer && (more = SSL_read(ssl, answer + got, sizeof answer - got)) > 0) {
            got += more;
            char *end = memmem(answer, got, "\r\n\r\n", 4);
            if (stays && end && answer + got - end >= 104) break;
        }
        if (got < 12 || memcmp(answer, "HTTP/1.1 200", 12)) fail("no 200");
        if (stays) {
            kept[i] = ssl;
        } else {
            SSL_shutdown(ssl);
            SSL_free(ssl);
            close(fd);
        }
    }
    double took = now() - began;
    if (stays) {
        printf("ready\n");
        fflush(stdout);
        while (getchar() != EOF) {}
        // They must have stayed open: nothing but tickets may have come.
        for (int i = 0; i < wanted; i++) {
            char byte;
            int got = recv(SSL_get_fd(kept[i]), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
            if (got == 0) fail("an idle connection was closed");
        }
    }
    printf("{\"connections\":%d,\"resumed\":%d,\"seconds\":%.6f}\n", wanted, resumed, took);
    return 0;
}
