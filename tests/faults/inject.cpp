// Preloaded before libc: counts the calls that write to files, and makes the one that is told fail, cut it
// short, or kill the process there. What is told and counted lies in memory that forked children share.
//
// Not counted: reads, and what goes to standard output and error.

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

enum Kind { FAIL, SHORT, KILL };

struct Shared {
    long count;      // write-side calls since it was armed
    long at;         // the one that fails; 0: none
    int kind;
    int number;      // errno
    bool on;
    char name[32];   // of the call that failed
};

Shared* shared() {
    static Shared* where = reinterpret_cast<Shared*>(syscall(
        SYS_mmap, nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    return where;
}

__attribute__((constructor)) void begin() { shared(); }

// Whether this call is the one. `writes`: it could be cut short instead.
bool hit(const char* name) {
    Shared* s = shared();
    if (!s->on) return false;
    long now = __atomic_add_fetch(&s->count, 1, __ATOMIC_SEQ_CST);
    if (now != s->at) return false;
    strncpy(s->name, name, sizeof s->name - 1);
    if (s->kind == KILL) kill(getpid(), SIGKILL);
    errno = s->number;
    return true;
}

bool counts(int descriptor) {
    struct stat state;
    return descriptor > 2 && fstat(descriptor, &state) == 0 && S_ISREG(state.st_mode);
}

bool writes(int flags) { return flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC); }

template <class F> F real(const char* name) { return reinterpret_cast<F>(dlsym(RTLD_NEXT, name)); }

}  // namespace

extern "C" {

void fault_arm(long at, int kind, int number) {
    Shared* s = shared();
    s->count = 0, s->at = at, s->kind = kind, s->number = number, s->on = true, s->name[0] = 0;
}
void fault_disarm() { shared()->on = false; }
long fault_count() { return shared()->count; }
const char* fault_name() { return shared()->name; }

#define OPEN(name)                                                              \
    int name(const char* path, int flags, ...) {                                \
        va_list more;                                                           \
        va_start(more, flags);                                                  \
        mode_t mode = va_arg(more, mode_t);                                     \
        va_end(more);                                                           \
        if (writes(flags) && hit("open")) return -1;                            \
        return real<int (*)(const char*, int, mode_t)>(#name)(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                   \
    int name(int folder, const char* path, int flags, ...) {                           \
        va_list more;                                                                  \
        va_start(more, flags);                                                         \
        mode_t mode = va_arg(more, mode_t);                                            \
        va_end(more);                                                                  \
        if (writes(flags) && hit("openat")) return -1;                                 \
        return real<int (*)(int, const char*, int, mode_t)>(#name)(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

int creat(const char* path, mode_t mode) {
    return hit("creat") ? -1 : real<int (*)(const char*, mode_t)>("creat")(path, mode);
}

ssize_t write(int descriptor, const void* data, size_t size) {
    auto call = real<ssize_t (*)(int, const void*, size_t)>("write");
    if (counts(descriptor) && hit("write")) {
        Shared* s = shared();
        if (s->kind != SHORT) {
            if (size > 1) call(descriptor, data, size / 2);  // torn: half of it reaches the disk
            errno = s->number;
            return -1;
        }
        s->at = s->count + 1, s->kind = FAIL;  // and the rest finds no room
        return call(descriptor, data, size > 1 ? size / 2 : size);
    }
    return call(descriptor, data, size);
}

ssize_t pwrite64(int descriptor, const void* data, size_t size, off64_t at) {
    if (counts(descriptor) && hit("pwrite")) return -1;
    return real<ssize_t (*)(int, const void*, size_t, off64_t)>("pwrite64")(descriptor, data, size, at);
}

size_t fwrite(const void* data, size_t size, size_t count, FILE* file) {
    if (counts(fileno(file)) && hit("fwrite")) return 0;
    return real<size_t (*)(const void*, size_t, size_t, FILE*)>("fwrite")(data, size, count, file);
}

int fflush(FILE* file) {
    if (file && counts(fileno(file)) && hit("fflush")) return EOF;
    return real<int (*)(FILE*)>("fflush")(file);
}

#define ONE(name, type)                                                  \
    int name(type a) { return hit(#name) ? -1 : real<int (*)(type)>(#name)(a); }
#define TWO(name, A, B)                                                  \
    int name(A a, B b) { return hit(#name) ? -1 : real<int (*)(A, B)>(#name)(a, b); }
#define THREE(name, A, B, C)                                             \
    int name(A a, B b, C c) { return hit(#name) ? -1 : real<int (*)(A, B, C)>(#name)(a, b, c); }

ONE(fsync, int)
ONE(fdatasync, int)
ONE(unlink, const char*)
ONE(rmdir, const char*)
TWO(mkdir, const char*, mode_t)
TWO(rename, const char*, const char*)
TWO(ftruncate, int, off_t)
TWO(ftruncate64, int, off64_t)
TWO(fchmod, int, mode_t)
THREE(mkdirat, int, const char*, mode_t)
THREE(unlinkat, int, const char*, int)
THREE(posix_fallocate, int, off_t, off_t)

int renameat(int a, const char* from, int b, const char* to) {
    if (hit("renameat")) return -1;
    return real<int (*)(int, const char*, int, const char*)>("renameat")(a, from, b, to);
}

int renameat2(int a, const char* from, int b, const char* to, unsigned flags) {
    if (hit("renameat2")) return -1;
    return real<int (*)(int, const char*, int, const char*, unsigned)>("renameat2")(a, from, b, to, flags);
}

#define MAP(name)                                                                          \
    void* name(void* at, size_t size, int protection, int flags, int file, off_t offset) { \
        if (file >= 0 && counts(file) && !(protection & PROT_EXEC) && hit("mmap")) return MAP_FAILED; \
        return real<void* (*)(void*, size_t, int, int, int, off_t)>(#name)(at, size, protection, flags, file, offset); \
    }
MAP(mmap)
MAP(mmap64)
}
