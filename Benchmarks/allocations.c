// Counts allocations of the process into which it is preloaded, in the first eight bytes of $ALLOCATIONS.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static unsigned long none, *count = &none;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("ALLOCATIONS");
    int file = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (file < 0 || ftruncate(file, sizeof none) != 0) return;
    void *place = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (place != MAP_FAILED) count = place;
    close(file);
}

static void one(void) { __atomic_fetch_add(count, 1, __ATOMIC_RELAXED); }

void *malloc(size_t size) { one(); return __libc_malloc(size); }
void *calloc(size_t number, size_t size) { one(); return __libc_calloc(number, size); }
void *realloc(void *old, size_t size) { one(); return __libc_realloc(old, size); }
int posix_memalign(void **out, size_t alignment, size_t size) {
    one();
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : 12;
}
