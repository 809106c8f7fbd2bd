// The WebSocket backend of the benchmarks: one thread on 127.0.0.1; sends every frame back, answers a plain GET with 200 and `ok`.
// Serves Benchmarks/load.c only: it knows one Sec-WebSocket-Key (the RFC's example) and messages up to 8 KB.
//   echo PORT
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROOM = 16384 };
struct conn {
    int fd;
    bool upgraded;
    size_t in, out;
    unsigned char input[ROOM], output[ROOM];
};
static const char plain[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
static const char bad[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
static const char upgrade[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

static void put(struct conn *c, const void *bytes, size_t n) {
    memcpy(c->output + c->out, bytes, n);
    c->out += n;
}

// Takes one piece from the input; the bytes used, 0 when more must come, -1 when the connection is to be closed.
static long take(struct conn *c) {
    if (!c->upgraded) {
        unsigned char *end = memmem(c->input, c->in, "\r\n\r\n", 4);
        if (!end) return c->in == ROOM ? -1 : 0;
        size_t used = (size_t)(end + 4 - c->input);
        *end = 0; // the head is text up to here
        bool websocket = strcasestr((char *)c->input, "\nupgrade: websocket");
        if (!websocket) {
            put(c, plain, sizeof plain - 1);
        } else if (strcasestr((char *)c->input, "\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==")) {
            put(c, upgrade, sizeof upgrade - 1);
            c->upgraded = true;
        } else {
            put(c, bad, sizeof bad - 1);
        }
        return (long)used;
    }
    if (c->in < 6) return 0;
    size_t length = c->input[1] & 127, at = 2;
    if (!(c->input[1] & 128) || length == 127) return -1;
    if (length == 126) {
        length = (size_t)c->input[2] << 8 | c->input[3];
        at = 4;
    }
    if (length > 8192) return -1;
    if (c->in < at + 4 + length) return 0;
    unsigned char head[4] = {c->input[0], c->input[1] & 127, c->input[2], c->input[3]}, *mask = c->input + at, *body = mask + 4;
    if ((head[0] & 15) == 9) head[0] = 0x8a; // ping: pong
    put(c, head, at);
    for (size_t i = 0; i < length; i++) c->output[c->out++] = body[i] ^ mask[i % 4];
    return (head[0] & 15) == 8 ? -1 : (long)(at + 4 + length);
}

static bool flush(struct conn *c) {
    size_t sent = 0;
    while (sent < c->out) {
        ssize_t n = send(c->fd, c->output + sent, c->out - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) return false;
        sent += (size_t)n;
    }
    memmove(c->output, c->output + sent, c->out -= sent);
    return true;
}

// False: the connection is over.
static bool serve(struct conn *c) {
    for (;;) {
        size_t used = 0;
        long piece = 0;
        while (c->out + 8300 < ROOM && (piece = take(c)) > 0) {
            memmove(c->input, c->input + piece, c->in -= (size_t)piece);
            used += (size_t)piece;
        }
        if (!flush(c) || piece < 0) return false;
        if (used) continue;
        if (c->in == ROOM) return true; // the other side does not read: wait for it
        ssize_t n = recv(c->fd, c->input + c->in, ROOM - c->in, 0);
        if (n < 0 && errno == EAGAIN) return true;
        if (n <= 0) return false;
        c->in += (size_t)n;
    }
}

int main(int argc, char **argv) {
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), ep = epoll_create1(EPOLL_CLOEXEC);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(argc == 2 ? atoi(argv[1]) : 0)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (argc != 2 || bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 4096)) {
        perror("echo");
        return 1;
    }
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int n = epoll_wait(ep, events, 256, -1);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c) {
                int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (fd < 0 || !(c = malloc(sizeof *c))) continue;
                c->fd = fd, c->upgraded = false, c->in = c->out = 0;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                e = (struct epoll_event){.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
                epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
            } else if (!serve(c)) {
                close(c->fd);
                free(c);
            }
        }
    }
}
