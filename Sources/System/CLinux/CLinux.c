#define _GNU_SOURCE
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <string.h>
#include "CLinux.h"
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/pidfd.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

int muster_epoll_create(void) { return epoll_create1(EPOLL_CLOEXEC); }

static int add(int epoll, int fd, uint64_t data, uint32_t events) {
    struct epoll_event event = {.events = events, .data.u64 = data};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}
int muster_epoll_add(int epoll, int fd, uint64_t data, bool writable) {
    return add(epoll, fd, data, EPOLLIN | EPOLLRDHUP | EPOLLET | (writable ? EPOLLOUT : 0));
}
int muster_epoll_add_level(int epoll, int fd, uint64_t data) { return add(epoll, fd, data, EPOLLIN); }
int muster_epoll_remove(int epoll, int fd) { return epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL) == 0 ? 0 : -errno; }

int muster_epoll_wait(int epoll, struct muster_event *out, int capacity, int64_t timeout_ns) {
    struct epoll_event events[256];
    if (capacity > 256) capacity = 256;
    // epoll_pwait2 keeps sub-millisecond timers honest.
    struct timespec limit = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    int count = epoll_pwait2(epoll, events, capacity, timeout_ns < 0 ? NULL : &limit, NULL);
    if (count < 0) return -errno;
    for (int i = 0; i < count; i++) { out[i].events = events[i].events; out[i].data = events[i].data.u64; }
    return count;
}

int muster_eventfd(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }

int muster_signalfd(const int *signals, int count) {
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < count; i++) sigaddset(&set, signals[i]);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0) return -1;
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}
int muster_signalfd_read(int fd) {
    struct signalfd_siginfo info;
    return read(fd, &info, sizeof info) == sizeof info ? (int)info.ssi_signo : 0;
}

int muster_accept(int fd, void *address, uint32_t *length) {
    socklen_t size = *length;
    int result = accept4(fd, address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    *length = size;
    return result >= 0 ? result : -errno;
}

int muster_pidfd_open(int pid) {
    int fd = pidfd_open(pid, 0);
    return fd >= 0 ? fd : -errno;
}

static int64_t clock_ns(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
int64_t muster_monotonic_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
int64_t muster_realtime_ns(void) { return clock_ns(CLOCK_REALTIME); }
int64_t muster_process_cpu_ns(void) { return clock_ns(CLOCK_PROCESS_CPUTIME_ID); }

int muster_semaphore_wait(sem_t *semaphore, int64_t until_ns) {
    struct timespec until = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};
    while (sem_clockwait(semaphore, CLOCK_MONOTONIC, &until) != 0)
        if (errno != EINTR) return -errno;
    return 0;
}

static __thread void *slot;
void *muster_thread_slot(void) { return slot; }
void muster_set_thread_slot(void *value) { slot = value; }

int muster_spawn(int *pid, const char *path, char *const argv[], char *const envp[],
                 int in, int out, int err, bool new_session, const char *directory, const int *kept, int kept_count) {
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t actions;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                          (new_session ? POSIX_SPAWN_SETSID : POSIX_SPAWN_SETPGROUP));
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawn_file_actions_adddup2(&actions, in, 0);
    posix_spawn_file_actions_adddup2(&actions, out, 1);
    posix_spawn_file_actions_adddup2(&actions, err, 2);
    for (int i = 0; i < kept_count; i++) posix_spawn_file_actions_adddup2(&actions, kept[i], 3 + i);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3 + kept_count);
    if (directory) posix_spawn_file_actions_addchdir_np(&actions, directory);
    int result = posix_spawn(pid, path, &actions, &attributes, argv, envp);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return result;
}

// In the child of a fork of a program with threads: nothing but system calls. Returns only when something failed, with errno.
static void become(const char *path, char *const argv[], char *const envp[], int in, int out, int err, const char *directory,
                   unsigned uid, unsigned gid, const unsigned *groups, int group_count) {
    struct sigaction standard = {.sa_handler = SIG_DFL};
    sigset_t none;
    for (int signal = 1; signal < NSIG; signal++) sigaction(signal, &standard, NULL);
    if (setpgid(0, 0) != 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) return;
    if (close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) != 0) return;
    // The system's own calls: the library's would ask threads that are not here.
    if (syscall(SYS_setgroups, (size_t)group_count, groups) != 0 || syscall(SYS_setresgid, gid, gid, gid) != 0 ||
        syscall(SYS_setresuid, uid, uid, uid) != 0)
        return;
    if (directory && chdir(directory) != 0) return;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(path, argv, envp);
}

int muster_spawn_as(int *pid, const char *path, char *const argv[], char *const envp[], int in, int out, int err,
                    const char *directory, unsigned uid, unsigned gid, const unsigned *groups, int group_count) {
    int report[2], error = 0;
    sigset_t all, before;
    ssize_t got;
    if (pipe2(report, O_CLOEXEC) != 0) return errno;
    // No handler of this program may run in the child.
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t child = fork();
    if (child == 0) {
        become(path, argv, envp, in, out, err, directory, uid, gid, groups, group_count);
        error = errno;
        if (write(report[1], &error, sizeof error) < 0) _exit(126);
        _exit(127);
    }
    error = child < 0 ? errno : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(report[1]);
    if (child > 0) {
        // Ends with the child's exec, or with why there was none.
        do got = read(report[0], &error, sizeof error);
        while (got < 0 && errno == EINTR);
        if (got != sizeof error) error = 0;
        if (error != 0) waitpid(child, NULL, 0);
        else *pid = child;
    }
    close(report[0]);
    return error;
}

int muster_reap(int pid, int *code) {
    int status = 0;
    pid_t result = waitpid(pid, &status, WNOHANG);
    if (result == 0) return 0;
    if (result < 0) return -1;
    *code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    return 1;
}

int muster_reap_any(int *code) {
    int status = 0;
    pid_t result = waitpid(-1, &status, WNOHANG);
    if (result <= 0) return 0;
    *code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    return result;
}

int muster_block_signals(const int *signals, int count) {
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < count; i++) sigaddset(&set, signals[i]);
    return pthread_sigmask(SIG_BLOCK, &set, NULL) == 0 ? 0 : -1;
}

int muster_await_signal(const int *signals, int count, int64_t timeout_ns) {
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < count; i++) sigaddset(&set, signals[i]);
    struct timespec limit = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    int result = timeout_ns < 0 ? sigwaitinfo(&set, NULL) : sigtimedwait(&set, NULL, &limit);
    return result > 0 ? result : 0;
}

int muster_become_subreaper(void) { return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0 ? 0 : -errno; }
int muster_die_with_parent(int signal) { return prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0) == 0 ? 0 : -errno; }

bool muster_random(void *bytes, size_t count) { return getrandom(bytes, count, 0) == (ssize_t)count; }

void muster_name_thread(const char *name) { pthread_setname_np(pthread_self(), name); }

size_t muster_allocated(void) { return mallinfo2().uordblks; }

int muster_dns_query(const char *name, int type, uint32_t server, uint16_t port, struct muster_dns_record *out, int capacity) {
    struct __res_state state;
    unsigned char answer[65536];
    memset(&state, 0, sizeof state);
    if (res_ninit(&state) != 0) return -3;
    state.retrans = 2;
    state.retry = 2;
    if (port != 0) {
        state.nscount = 1;
        memset(&state.nsaddr_list[0], 0, sizeof state.nsaddr_list[0]);
        state.nsaddr_list[0].sin_family = AF_INET;
        state.nsaddr_list[0].sin_addr.s_addr = htonl(server);
        state.nsaddr_list[0].sin_port = htons(port);
    }
    int length = res_nquery(&state, name, ns_c_in, type, answer, sizeof answer);
    int failure = state.res_h_errno;
    res_nclose(&state);
    if (length < 0) return failure == HOST_NOT_FOUND ? -1 : failure == TRY_AGAIN ? -2 : failure == NO_DATA ? -4 : -3;
    ns_msg message;
    if (length > (int)sizeof answer || ns_initparse(answer, length, &message) != 0) return -5;
    int count = 0;
    uint32_t alias_ttl = UINT32_MAX;
    for (int i = 0; i < ns_msg_count(message, ns_s_an); i++) {
        ns_rr record;
        if (ns_parserr(&message, ns_s_an, i, &record) != 0) return -5;
        // What an alias points to may change when the alias is over, however long its addresses last.
        if (ns_rr_type(record) == ns_t_cname && ns_rr_ttl(record) < alias_ttl) alias_ttl = ns_rr_ttl(record);
        if (ns_rr_type(record) != type) continue;
        if (count == capacity) return -6;
        const unsigned char *data = ns_rr_rdata(record);
        struct muster_dns_record *to = &out[count];
        memset(to, 0, sizeof *to);
        to->ttl = ns_rr_ttl(record);
        if (type == ns_t_a && ns_rr_rdlen(record) == 4) {
            inet_ntop(AF_INET, data, to->name.text, sizeof to->name.text);
        } else if (type == ns_t_aaaa && ns_rr_rdlen(record) == 16) {
            inet_ntop(AF_INET6, data, to->name.text, sizeof to->name.text);
        } else if (type == ns_t_srv && ns_rr_rdlen(record) > 6) {
            to->priority = ns_get16(data);
            to->weight = ns_get16(data + 2);
            to->port = ns_get16(data + 4);
            if (dn_expand(answer, answer + length, data + 6, to->name.text, sizeof to->name.text) < 0) return -5;
        } else {
            return -5;
        }
        count++;
    }
    for (int i = 0; i < count; i++)
        if (out[i].ttl > alias_ttl) out[i].ttl = alias_ttl;
    return count == 0 ? -4 : count;
}
