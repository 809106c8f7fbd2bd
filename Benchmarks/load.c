// Load for the benchmarks: one thread, one epoll, HTTP/1.1 or WebSocket echo on loopback, closed loop or at a fixed rate.
//
// Closed loop (no --rate): every connection sends its next request when it has its answer.
// Fixed rate (--rate N): request i is due at i/N s whatever the answers do; its time counts from when it was due, also when every
// connection was taken at that moment (so waiting that a slow server causes is not left out), and connections take turns.
//
// It opens all connections, each makes one request, then it prints `ready` and waits for a line on standard input: `go` runs, end of
// input leaves. After the run it prints one line of JSON. Times are microseconds. A wrong status or length, a lost connection or no
// answer within five seconds after the end is a failed request; `stale` are those lost without a byte of answer on a connection that
// had served before (the server closed it as the request was sent). Each answer is checked: status 200 and --expect body bytes.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ACCEPT_KEY "dGhlIHNhbXBsZSBub25jZQ==" // RFC 6455's own example, and the answer to it
#define ACCEPT_ANSWER "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define SECOND 1000000000ull
enum { HEAD_MAX = 8192, RAMP = 128, RETRY_AFTER = 10000000 };
enum error { E_CONNECT, E_STALE, E_LOST, E_STATUS, E_LENGTH, E_FRAME, ERRORS };
static const char *error_names[] = {"connect", "stale", "lost", "status", "length", "frame"};
enum state { CLOSED, CONNECTING, SHAKING, FREE, BUSY };
enum part { HEAD, BODY, UNTIL_CLOSE, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER };

struct conn {
    int fd;
    enum state state;
    enum part part;
    bool want;   // a request is to be sent once it is connected
    bool queued; // in the ring of free connections
    bool served; // has answered before
    bool keep;   // the answer lets the connection live
    bool got;    // a byte of the answer has come
    bool line;   // a trailer line has characters
    int status;
    unsigned sent, head_length;
    uint64_t due, left, body;
    char *head;
};

static struct {
    int port, connections, spread, body, frame;
    double seconds, rate;
    const char *path;
    bool close;
    long expect;
} opt = {.connections = 64, .spread = 1, .seconds = 1, .path = "/", .expect = -1};

static struct conn *conns;
static int ep, *ring, ring_head, ring_count, *retry, retry_head, retry_count;
static uint64_t *retry_at;
static char *request, *handshake, *expected;
static size_t request_length, handshake_length, expected_length;
static bool running;
static uint64_t start_time, end_time, next_request, total, outstanding, done, in_window, reconnects, errors[ERRORS], ramp_errors;
static int opened, ramping, ready, last_status;
static double used_before;

// Processor time this program has used, microseconds.
static double used(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

// Times: 256 steps for each doubling, so a figure is within 0.4 %.
static uint64_t buckets[64 * 256], samples;
static void record(uint64_t ns) {
    unsigned shift = ns < 512 ? 0 : 55 - (unsigned)__builtin_clzll(ns);
    buckets[shift * 256 + (ns >> shift)]++;
    samples++;
}
static double percentile(double share) {
    uint64_t wanted = (uint64_t)((double)samples * share + 0.999999), seen = 0;
    if (wanted < 1) wanted = 1;
    for (unsigned i = 0; i < sizeof buckets / sizeof *buckets; i++) {
        seen += buckets[i];
        if (seen >= wanted && samples) {
            unsigned shift = i < 512 ? 0 : i / 256 - 1;
            return (double)((uint64_t)(i - shift * 256) << shift) / 1000;
        }
    }
    return 0;
}

static void push_free(struct conn *c) {
    if (c->queued) return;
    c->queued = true;
    ring[(ring_head + ring_count++) % opt.connections] = (int)(c - conns);
}
static struct conn *pop_free(void) {
    while (ring_count) {
        struct conn *c = conns + ring[ring_head];
        ring_head = (ring_head + 1) % opt.connections;
        ring_count--;
        c->queued = false;
        if (c->state == FREE || (opt.close && c->state == CLOSED)) return c;
    }
    return NULL;
}

static void failed(struct conn *c, enum error kind);
static void transmit(struct conn *c);

static void drop(struct conn *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->state = CLOSED;
    c->head_length = 0;
}

static void later(struct conn *c) {
    int at = (retry_head + retry_count++) % (opt.connections + 1);
    retry[at] = (int)(c - conns);
    retry_at[at] = now() + RETRY_AFTER;
}

static void open_conn(struct conn *c) {
    static unsigned turn;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket: %s", strerror(errno));
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (opt.spread > 1) {
        struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001u + turn++ % (unsigned)opt.spread)};
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(c->fd, (struct sockaddr *)&from, sizeof from)) die("bind: %s", strerror(errno));
    }
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port), .sin_addr.s_addr = htonl(0x7f000001u)};
    c->state = CONNECTING;
    c->served = false;
    c->sent = 0;
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
        failed(c, E_CONNECT);
        return;
    }
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e)) die("epoll_ctl: %s", strerror(errno));
}

// Sends a request now, or as soon as the connection is there.
static void begin(struct conn *c, uint64_t due) {
    outstanding++;
    c->due = due;
    c->want = true;
    if (c->state == CLOSED) open_conn(c);
    else if (c->state == FREE) transmit(c);
}

// The connection has nothing to do: it takes what is due.
static void idle(struct conn *c) {
    if (!running) {
        if (!opt.close && c->state == CLOSED) later(c);
        return;
    }
    uint64_t t = now();
    if (opt.rate == 0) {
        if (t < end_time) begin(c, t);
        else if (c->state == CLOSED) drop(c);
    } else if (c->state == FREE || opt.close) {
        push_free(c);
    } else if (c->state == CLOSED) {
        open_conn(c);
    }
}

static void failed(struct conn *c, enum error kind) {
    bool had = c->want || c->state == BUSY;
    last_status = c->status;
    drop(c);
    if (!running) {
        if (++ramp_errors > 100 || kind == E_STATUS || kind == E_LENGTH || kind == E_FRAME)
            die("the first answers failed: %s, status %d", error_names[kind], last_status);
        if (had) c->want = true;
        later(c);
        return;
    }
    if (had || kind != E_CONNECT) errors[kind]++; // without a request it is an attempt that is made again
    reconnects++;
    if (had) {
        c->want = false;
        outstanding--;
    }
    if (kind == E_CONNECT || kind == E_STATUS) later(c);
    else idle(c);
}

static void transmit(struct conn *c) {
    const char *bytes = c->state == SHAKING ? handshake : request;
    size_t length = c->state == SHAKING ? handshake_length : request_length;
    if (c->state == FREE) {
        c->state = BUSY;
        c->want = false;
        c->sent = 0;
        c->part = HEAD;
        c->head_length = 0;
        c->body = 0;
        c->got = false;
        c->left = 0;
    }
    while (c->sent < length) {
        ssize_t n = send(c->fd, bytes + c->sent, length - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n < 0) {
            failed(c, c->served ? E_STALE : E_LOST);
            return;
        }
        c->sent += (unsigned)n;
    }
}

static void connected(struct conn *c) {
    c->state = FREE;
    if (!running) {
        c->due = now();
        c->want = true;
    }
    if (c->want) transmit(c);
    else idle(c);
}

static void complete(struct conn *c) {
    if (!opt.frame && c->status != 200) {
        failed(c, E_STATUS);
        return;
    }
    if (!opt.frame && opt.expect >= 0 && c->body != (uint64_t)opt.expect) {
        failed(c, E_LENGTH);
        return;
    }
    c->served = true;
    c->state = FREE;
    if (opt.close || !c->keep) drop(c);
    if (!running) {
        ready++;
        ramping--;
        if (c->state == CLOSED && !opt.close) die("the server closed the connection after the first answer");
        return;
    }
    uint64_t t = now();
    record(t - c->due);
    outstanding--;
    done++;
    if (t <= end_time) in_window++;
    if (c->state == CLOSED && !opt.close) reconnects++;
    idle(c);
}

static bool name_is(const char *line, const char *end, const char *name) {
    size_t n = strlen(name);
    return (size_t)(end - line) > n && !strncasecmp(line, name, n);
}

// The head up to its empty line. False: the connection is done with.
static bool parse_head(struct conn *c, const char *p, const char *end) {
    bool chunked = false, length = false, accepted = false;
    c->keep = true;
    if (end - p < 13 || strncmp(p, "HTTP/1.", 7)) {
        failed(c, E_FRAME);
        return false;
    }
    if (p[7] == '0') c->keep = false;
    c->status = atoi(p + 9);
    for (p = memchr(p, '\n', (size_t)(end - p)) + 1; p < end;) {
        const char *next = memchr(p, '\n', (size_t)(end - p));
        if (!next) break;
        switch (*p | 0x20) {
        case 'c':
            if (name_is(p, next, "content-length:")) {
                c->left = strtoull(p + 15, NULL, 10);
                length = true;
            } else if (name_is(p, next, "connection:") && memmem(p, (size_t)(next - p), "close", 5)) {
                c->keep = false;
            }
            break;
        case 't':
            if (name_is(p, next, "transfer-encoding:")) chunked = true;
            break;
        case 's':
            if (name_is(p, next, "sec-websocket-accept:") && memmem(p, (size_t)(next - p), ACCEPT_ANSWER, 28)) accepted = true;
            break;
        }
        p = next + 1;
    }
    if (c->state == SHAKING) {
        if (c->status != 101 || !accepted) {
            failed(c, E_STATUS);
            return false;
        }
        connected(c);
        return false;
    }
    c->part = chunked ? CHUNK_SIZE : length ? BODY : UNTIL_CLOSE;
    if (chunked) c->left = 0;
    if (length && !chunked && !c->left) {
        complete(c);
        return false;
    }
    if (c->status / 100 == 1) c->part = HEAD;
    return true;
}

static size_t take_head(struct conn *c, const char *p, size_t n) {
    const char *found;
    if (!c->head_length && (found = memmem(p, n, "\r\n\r\n", 4))) {
        size_t used = (size_t)(found + 4 - p);
        return parse_head(c, p, found + 4) ? used : n;
    }
    if (!c->head) c->head = malloc(HEAD_MAX);
    size_t take = n < HEAD_MAX - c->head_length ? n : HEAD_MAX - c->head_length;
    memcpy(c->head + c->head_length, p, take);
    found = memmem(c->head, c->head_length + take, "\r\n\r\n", 4);
    if (!found) {
        c->head_length += (unsigned)take;
        if (c->head_length == HEAD_MAX) {
            failed(c, E_FRAME);
        }
        return n;
    }
    size_t used = (size_t)(found + 4 - c->head) - c->head_length;
    c->head_length = 0;
    return parse_head(c, c->head, found + 4) ? used : n;
}

// All of what came; answers are never pipelined, so nothing may follow a complete one.
static void consume(struct conn *c, const char *p, size_t n) {
    c->got = true;
    if (opt.frame && c->state == BUSY) {
        if (c->body + n > expected_length || memcmp(p, expected + c->body, n)) {
            failed(c, E_FRAME);
        } else if ((c->body += n) == expected_length) {
            complete(c);
        }
        return;
    }
    while (n) {
        size_t used = 1;
        switch (c->part) {
        case HEAD: used = take_head(c, p, n); break;
        case BODY:
        case CHUNK_DATA:
            used = n < c->left ? n : c->left;
            c->left -= used;
            c->body += used;
            if (c->left) break;
            if (c->part == BODY) {
                complete(c);
                return;
            }
            c->part = CHUNK_END;
            break;
        case UNTIL_CLOSE:
            c->body += n;
            used = n;
            break;
        case CHUNK_SIZE:
            if (*p == '\n') {
                c->part = c->left ? CHUNK_DATA : TRAILER;
                c->line = false;
            } else if (*p != '\r') {
                int digit = *p >= '0' && *p <= '9' ? *p - '0' : (*p | 0x20) >= 'a' && (*p | 0x20) <= 'f' ? (*p | 0x20) - 'a' + 10 : -1;
                if (digit < 0) {
                    failed(c, E_FRAME);
                    return;
                }
                c->left = c->left * 16 + (unsigned)digit;
            }
            break;
        case CHUNK_END:
            if (*p == '\n') {
                c->part = CHUNK_SIZE;
                c->left = 0;
            }
            break;
        case TRAILER:
            if (*p == '\n' && !c->line) {
                complete(c);
                return;
            }
            c->line = *p == '\n' ? false : *p != '\r' || c->line;
            break;
        }
        p += used;
        n -= used;
    }
}

static void gone(struct conn *c) {
    if (c->state == BUSY && c->part == UNTIL_CLOSE && c->got && !opt.frame) {
        c->keep = false;
        complete(c);
    } else if (c->state == BUSY || c->state == SHAKING) {
        failed(c, c->served && !c->got ? E_STALE : E_LOST);
    } else if (c->state == CONNECTING) {
        failed(c, E_CONNECT);
    } else { // nothing was under way: the server may close
        drop(c);
        reconnects++;
        idle(c);
    }
}

static void on_event(struct conn *c, uint32_t events) {
    static char buffer[1 << 18];
    if (c->state == CLOSED) return;
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) return;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            failed(c, E_CONNECT);
            return;
        }
        if (opt.frame) {
            c->state = SHAKING;
            c->part = HEAD;
            c->got = false;
            c->sent = 0;
            transmit(c);
        } else {
            connected(c);
        }
        if (c->state == CLOSED || c->state == CONNECTING) return;
    } else if ((events & EPOLLOUT) && ((c->state == BUSY && c->sent < request_length) || (c->state == SHAKING && c->sent < handshake_length))) {
        transmit(c);
    }
    int fd = c->fd;
    if (!(events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP))) return;
    while (c->fd == fd && c->state != CLOSED && c->state != CONNECTING) {
        ssize_t n = recv(fd, buffer, sizeof buffer, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            gone(c);
            return;
        }
        if (c->state == FREE) { // bytes nobody asked for
            if (running) errors[E_FRAME]++;
            gone(c);
            return;
        }
        consume(c, buffer, (size_t)n);
        if (!(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) && n < (ssize_t)sizeof buffer) return;
    }
}

static uint64_t due(uint64_t i) { return start_time + (uint64_t)((double)i * 1e9 / opt.rate); }

static void poll_once(uint64_t until) {
    static struct epoll_event events[512];
    uint64_t t = now();
    if (retry_count && retry_at[retry_head] < until) until = retry_at[retry_head];
    uint64_t wait = until > t ? until - t : 0;
    struct timespec timeout = {(time_t)(wait / SECOND), (long)(wait % SECOND)};
    int n = epoll_pwait2(ep, events, 512, &timeout, NULL);
    if (n < 0 && errno != EINTR) die("epoll: %s", strerror(errno));
    for (int i = 0; i < n; i++)
        if (events[i].data.ptr) on_event(events[i].data.ptr, events[i].events);
    t = now();
    while (retry_count && retry_at[retry_head] <= t) {
        struct conn *c = conns + retry[retry_head];
        retry_head = (retry_head + 1) % (opt.connections + 1);
        retry_count--;
        if (c->state != CLOSED) continue;
        if (running && (opt.rate == 0 || opt.close)) idle(c);
        else open_conn(c);
    }
}

static void ramp(void) {
    uint64_t limit = now() + 60 * SECOND;
    while (ready < opt.connections) {
        while (opened < opt.connections && ramping < RAMP) {
            ramping++;
            open_conn(conns + opened++);
        }
        poll_once(now() + SECOND / 10);
        if (now() > limit) die("%d of %d connections had their first answer within a minute", ready, opt.connections);
    }
    puts("ready");
    fflush(stdout);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, 0, &e)) die("standard input must be a pipe");
    fcntl(0, F_SETFL, O_NONBLOCK);
    for (;;) {
        char line[64];
        ssize_t n = read(0, line, sizeof line);
        if (n > 0) break;
        if (n == 0) exit(0);
        poll_once(now() + SECOND);
    }
    epoll_ctl(ep, EPOLL_CTL_DEL, 0, NULL);
}

static void run(void) {
    used_before = used();
    reconnects = 0;
    ring_count = 0;
    start_time = now();
    end_time = start_time + (uint64_t)(opt.seconds * 1e9);
    uint64_t limit = end_time + 5 * SECOND;
    running = true;
    total = (uint64_t)(opt.rate * opt.seconds);
    for (int i = 0; i < opt.connections; i++) {
        conns[i].queued = conns[i].want = false;
        idle(conns + i);
    }
    for (;;) {
        uint64_t t = now(), until = limit;
        if (opt.rate > 0) {
            while (next_request < total && due(next_request) <= t) {
                struct conn *c = pop_free();
                if (!c) break;
                begin(c, due(next_request++));
            }
            if (next_request < total && ring_count) until = due(next_request);
            if (next_request == total && !outstanding && t >= end_time) break;
            if (next_request == total && !outstanding) until = end_time;
        } else {
            if (t >= end_time && !outstanding) break;
            if (t < end_time) until = end_time;
        }
        if (t >= limit) break;
        poll_once(until);
    }
}

static void report(void) {
    double took = (double)(now() - start_time) / 1e9;
    uint64_t unfinished = outstanding, bad = 0, t = now();
    for (int i = 0; i < opt.connections; i++)
        if (conns[i].state == BUSY || conns[i].want) record(t - conns[i].due);
    for (; opt.rate > 0 && next_request < total; next_request++, unfinished++) record(t - due(next_request));
    printf("{\"requests\": %lu, \"rate\": %.1f, \"took\": %.3f, \"p50\": %.1f, \"p95\": %.1f, \"p99\": %.1f, \"p999\": %.1f, \"max\": %.1f, ",
        done, (double)in_window / opt.seconds, took, percentile(0.5), percentile(0.95), percentile(0.99), percentile(0.999), percentile(1));
    printf("\"cpu\": %.0f, \"errors\": {", used() - used_before);
    for (int i = 0; i < ERRORS; i++) {
        printf("\"%s\": %lu, ", error_names[i], errors[i]);
        bad += errors[i];
    }
    printf("\"unfinished\": %lu}, \"failed\": %lu, \"reconnects\": %lu, \"ramp_errors\": %lu, \"last_status\": %d}\n", unfinished, bad + unfinished,
        reconnects, ramp_errors, last_status);
}

static void prepare(void) {
    request = malloc((size_t)opt.body + (size_t)opt.frame + 1024);
    if (opt.frame) {
        const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
        if (opt.frame > 4096) die("--websocket takes at most 4096 bytes");
        int extended = opt.frame > 125;
        handshake = malloc(1024);
        handshake_length = (size_t)sprintf(handshake, "GET %s HTTP/1.1\r\nHost: bench.local\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: " ACCEPT_KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n", opt.path);
        expected = malloc((size_t)opt.frame + 4);
        request[0] = expected[0] = (char)0x82;
        request[1] = (char)(0x80 | (extended ? 126 : opt.frame));
        expected[1] = (char)(extended ? 126 : opt.frame);
        if (extended) {
            request[2] = expected[2] = (char)(opt.frame >> 8);
            request[3] = expected[3] = (char)opt.frame;
        }
        size_t at = extended ? 4 : 2;
        memcpy(request + at, mask, 4);
        for (int i = 0; i < opt.frame; i++) {
            expected[at + (size_t)i] = (char)('0' + i % 10);
            request[at + 4 + (size_t)i] = (char)((unsigned)('0' + i % 10) ^ mask[i % 4]);
        }
        expected_length = at + (size_t)opt.frame;
        request_length = expected_length + 4;
        return;
    }
    // A browser's usual fields, so that there is something to parse.
    request_length = (size_t)sprintf(request, "%s %s HTTP/1.1\r\nHost: bench.local\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) bench/1\r\n"
        "Accept: text/html,application/json;q=0.9,*/*;q=0.8\r\nAccept-Language: en\r\nCookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n",
        opt.body ? "POST" : "GET", opt.path);
    if (opt.close) request_length += (size_t)sprintf(request + request_length, "Connection: close\r\n");
    if (opt.body) request_length += (size_t)sprintf(request + request_length, "Content-Type: text/plain\r\nContent-Length: %d\r\n", opt.body);
    request_length += (size_t)sprintf(request + request_length, "\r\n");
    memset(request + request_length, 'x', (size_t)opt.body);
    request_length += (size_t)opt.body;
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"port", 1, 0, 'p'}, {"connections", 1, 0, 'c'}, {"seconds", 1, 0, 's'}, {"rate", 1, 0, 'r'},
        {"path", 1, 0, 'u'}, {"body", 1, 0, 'b'}, {"close", 0, 0, 'x'}, {"websocket", 1, 0, 'w'}, {"spread", 1, 0, 'a'}, {"expect", 1, 0, 'e'}, {0}};
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) >= 0;) switch (o) {
        case 'p': opt.port = atoi(optarg); break;
        case 'c': opt.connections = atoi(optarg); break;
        case 's': opt.seconds = atof(optarg); break;
        case 'r': opt.rate = atof(optarg); break;
        case 'u': opt.path = optarg; break;
        case 'b': opt.body = atoi(optarg); break;
        case 'x': opt.close = true; break;
        case 'w': opt.frame = atoi(optarg); break;
        case 'a': opt.spread = atoi(optarg); break;
        case 'e': opt.expect = atol(optarg); break;
        default: return 2;
    }
    if (!opt.port || opt.connections < 1 || opt.spread < 1 || opt.spread > 250 || opt.body < 0) {
        fputs("usage: load --port N [--connections N] [--seconds S] [--rate N] [--path P] [--body N] [--close] [--websocket N] [--spread N] [--expect N]\n", stderr);
        return 2;
    }
    prctl(PR_SET_TIMERSLACK, 1);
    ep = epoll_create1(EPOLL_CLOEXEC);
    conns = calloc((size_t)opt.connections, sizeof *conns);
    ring = calloc((size_t)opt.connections, sizeof *ring);
    retry = calloc((size_t)opt.connections + 1, sizeof *retry);
    retry_at = calloc((size_t)opt.connections + 1, sizeof *retry_at);
    for (int i = 0; i < opt.connections; i++) conns[i].fd = -1;
    prepare();
    ramp();
    run();
    report();
    return 0;
}
