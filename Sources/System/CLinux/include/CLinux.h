// What Swift's Glibc module does not import: epoll, pidfd, accept4, a thread-local slot, and
// posix_spawn's newer attributes. Thin wrappers only; every decision is made in Swift.
#ifndef MUSTER_CLINUX_H
#define MUSTER_CLINUX_H
#include <semaphore.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct muster_event { uint32_t events; uint64_t data; };

enum {
    MUSTER_EPOLLIN = 0x001, MUSTER_EPOLLOUT = 0x004, MUSTER_EPOLLERR = 0x008,
    MUSTER_EPOLLHUP = 0x010, MUSTER_EPOLLRDHUP = 0x2000,
};

int muster_epoll_create(void);
/// Registers once, edge-triggered. `writable` adds EPOLLOUT.
int muster_epoll_add(int epoll, int fd, uint64_t data, bool writable);
/// Registers for input only, level-triggered: for eventfd, signalfd, pidfd.
int muster_epoll_add_level(int epoll, int fd, uint64_t data);
int muster_epoll_remove(int epoll, int fd);
/// Fills `out` with up to `capacity` events; `timeout_ns` < 0 waits for ever. Returns the count or -errno.
int muster_epoll_wait(int epoll, struct muster_event *out, int capacity, int64_t timeout_ns);
int muster_eventfd(void);
int muster_signalfd(const int *signals, int count);
/// The next pending signal of a signalfd, or 0.
int muster_signalfd_read(int fd);
int muster_accept(int fd, void *address, uint32_t *length);
/// Fills `bytes` from the kernel's random source; false if it could not.
bool muster_random(void *bytes, size_t count);
int muster_pidfd_open(int pid);
int64_t muster_monotonic_ns(void);
int64_t muster_realtime_ns(void);
/// CPU time of this process, user and system, in nanoseconds.
int64_t muster_process_cpu_ns(void);

/// Bytes that malloc has given out in the main arena: for tests that count allocations.
size_t muster_allocated(void);
void muster_name_thread(const char *name);
void *muster_thread_slot(void);
void muster_set_thread_slot(void *value);

/// Starts a program in a process group of its own (or a session of its own), with its standard streams
/// replaced. It keeps the descriptors `kept` as 3, 4, …; they must be above 3 + kept_count. Returns 0 and the pid, or an errno. All signals are reset to their defaults in the child.
int muster_spawn(int *pid, const char *path, char *const argv[], char *const envp[],
                 int in, int out, int err, bool new_session, const char *directory,
                 const int *kept, int kept_count);
/// Like `muster_spawn`, as another user: sets the groups, then the group, then the user, and enters the folder as that user. Only root may.
int muster_spawn_as(int *pid, const char *path, char *const argv[], char *const envp[],
                    int in, int out, int err, const char *directory,
                    unsigned uid, unsigned gid, const unsigned *groups, int group_count);
/// Reaps the child if it has ended: 1 = ended (`code` ≥ 0 exit status, or -signal), 0 = still running,
/// -1 = not a child of this process.
int muster_reap(int pid, int *code);

/// Reaps any child that has ended and returns its pid (`code` as above), or 0.
int muster_reap_any(int *code);
/// Keeps `signals` from their default action in this thread, for `muster_await_signal`. 0, or -1.
int muster_block_signals(const int *signals, int count);
/// Waits for one of `signals`, which must be blocked; `timeout_ns` < 0 waits for ever. Returns it, or 0 when the time is over or the wait
/// was interrupted.
int muster_await_signal(const int *signals, int count, int64_t timeout_ns);
/// From now on descendants whose parent has ended become children of this process. 0 or -errno.
int muster_become_subreaper(void);
/// The kernel sends `signal` to this process when its parent ends (0: no more). 0 or -errno.
int muster_die_with_parent(int signal);

/// Waits for a semaphore until a time of the monotonic clock; 0 when it was posted, -ETIMEDOUT when the time came first.
int muster_semaphore_wait(sem_t *semaphore, int64_t until_ns);

enum { MUSTER_DNS_A = 1, MUSTER_DNS_AAAA = 28, MUSTER_DNS_SRV = 33 };
struct muster_dns_name { char text[256]; };
/// An address as text, or an SRV record's target.
struct muster_dns_record { struct muster_dns_name name; uint32_t ttl; uint16_t port, priority, weight; };
/// Asks the system's name servers (or, if `port` is not 0, the one at `server`, host byte order) and fills `out`. Returns the count, or
/// -1 no such name, -2 no answer, -3 the server failed, -4 no record of this kind, -5 an answer that cannot be read.
int muster_dns_query(const char *name, int type, uint32_t server, uint16_t port, struct muster_dns_record *out, int capacity);
#endif
