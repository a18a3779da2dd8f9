/* A disk that can be broken: loaded before libc (LD_PRELOAD), it counts every operation that changes a
   file below one folder, by whichever library (Python, SQLite, safetensors), and at a chosen one kills
   the process, fails, is slow, or writes down what was done. disk.py drives it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF, COUNT, KILL, FAIL, TRACE, SLOW };

static char below[PATH_MAX];
static int mode = OFF, number, book = -1;
static long count, from, to;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

void disk_arm(const char *folder, int what, long first, long last, int code, const char *log) {
    mode = OFF;
    snprintf(below, sizeof below, "%s", folder);
    count = 0, from = first, to = last, number = code;
    book = log[0] ? syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    mode = what;
}

long disk_count(void) { return count; }

static int of_fd(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH_MAX - 1);
    out[n > 0 ? n : 0] = 0;
    return n > 0;
}

static void whole(int dir, const char *path, char *out) {
    char base[PATH_MAX];
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
        return;
    }
    if (dir == AT_FDCWD) {
        if (!getcwd(base, sizeof base)) base[0] = 0;
    } else
        of_fd(dir, base);
    snprintf(out, PATH_MAX, "%.2000s/%.2000s", base, path);
}

static int watched(const char *path) {
    size_t n = strlen(below), m = strlen(path);
    if (mode == OFF || strncmp(path, below, n)) return 0;
    return m < 4 || strcmp(path + m - 4, "-shm"); /* SQLite's shared memory is never meant to last */
}

/* Whether the operation is to fail. A process that is to be killed does not come back; of a write it
   has then done a half. */
static int due(int fd, const void *data, size_t size, off_t at) {
    long now = __sync_add_and_fetch(&count, 1);
    if (mode == KILL && now == from) {
        if (size > 1) {
            if (at >= 0) syscall(SYS_pwrite64, fd, data, size / 2, at);
            else syscall(SYS_write, fd, data, size / 2);
        }
        syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
        for (;;) pause();
    }
    if (mode == SLOW) usleep(1000 * ((now * 7919 + from * 104729) % to)); /* up to so many milliseconds */
    return mode == FAIL && now >= from && now < to;
}

static void note(const char *line, const void *data, size_t size) {
    if (mode != TRACE) return;
    pthread_mutex_lock(&turn);
    syscall(SYS_write, book, line, strlen(line));
    if (size) syscall(SYS_write, book, data, size);
    pthread_mutex_unlock(&turn);
}

static long inode(int fd) {
    struct stat found;
    return fstat(fd, &found) ? -1 : (long)found.st_ino;
}

#define FAILS(path) (watched(path) && due(-1, 0, 0, -1))
#define FAIL_WITH do { errno = number; return -1; } while (0)

static int opened(int dir, const char *path, int flags, mode_t bits, int *done) {
    char full[PATH_MAX], line[2 * PATH_MAX];
    *done = 0;
    if (mode == OFF || !(flags & (O_CREAT | O_TRUNC))) return 0;
    whole(dir, path, full);
    if (!watched(full)) return 0;
    *done = 1;
    struct stat found;
    int there = !stat(full, &found);
    if (there && !(flags & O_TRUNC) && !(flags & O_EXCL)) { /* it changes nothing */
        *done = 0;
        return 0;
    }
    if (due(-1, 0, 0, -1)) FAIL_WITH;
    int fd = syscall(SYS_openat, dir, path, flags, bits);
    if (fd >= 0) {
        snprintf(line, sizeof line, "%s\t%ld\t%s\n", there ? "cut" : "new", inode(fd), full);
        note(line, 0, 0);
    }
    return fd;
}

#define OPEN(name, params, dir)                                                  \
    int name params {                                                            \
        mode_t bits = 0;                                                         \
        int done;                                                                \
        if (flags & (O_CREAT | O_TMPFILE)) {                                     \
            va_list list;                                                        \
            va_start(list, flags);                                               \
            bits = va_arg(list, int);                                            \
            va_end(list);                                                        \
        }                                                                        \
        int fd = opened(dir, path, flags, bits, &done);                          \
        return done ? fd : (int)syscall(SYS_openat, dir, path, flags, bits);     \
    }

OPEN(open, (const char *path, int flags, ...), AT_FDCWD)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD)
OPEN(openat, (int at, const char *path, int flags, ...), at)
OPEN(openat64, (int at, const char *path, int flags, ...), at)

int creat(const char *path, mode_t bits) { return open(path, O_WRONLY | O_CREAT | O_TRUNC, bits); }

static ssize_t written(int fd, const void *data, size_t size, off_t at) {
    char full[PATH_MAX], line[2 * PATH_MAX];
    if (mode != OFF && of_fd(fd, full) && watched(full)) {
        if (due(fd, data, size, at)) FAIL_WITH;
        off_t place = at >= 0 ? at : lseek(fd, 0, SEEK_CUR);
        snprintf(line, sizeof line, "write\t%ld\t%ld\t%zu\n", inode(fd), (long)place, size);
        note(line, data, size);
    }
    return at >= 0 ? syscall(SYS_pwrite64, fd, data, size, at) : syscall(SYS_write, fd, data, size);
}

ssize_t write(int fd, const void *data, size_t size) { return written(fd, data, size, -1); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return written(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return written(fd, data, size, at); }

ssize_t writev(int fd, const struct iovec *parts, int n) {
    char full[PATH_MAX];
    if (mode == OFF || !of_fd(fd, full) || !watched(full)) return syscall(SYS_writev, fd, parts, n);
    ssize_t all = 0;
    for (int i = 0; i < n; i++) {
        ssize_t got = written(fd, parts[i].iov_base, parts[i].iov_len, -1);
        if (got < 0) return all ? all : got;
        all += got;
        if ((size_t)got < parts[i].iov_len) break;
    }
    return all;
}

static int synced(int fd) {
    char full[PATH_MAX], line[2 * PATH_MAX];
    if (mode == OFF || !of_fd(fd, full) || !watched(full)) return 0;
    if (due(-1, 0, 0, -1)) FAIL_WITH;
    struct stat found;
    fstat(fd, &found);
    if (S_ISDIR(found.st_mode)) snprintf(line, sizeof line, "syncdir\t%s\n", full);
    else snprintf(line, sizeof line, "sync\t%ld\t%s\n", (long)found.st_ino, full);
    note(line, 0, 0);
    return 0;
}

int fsync(int fd) { return synced(fd) ? -1 : (int)syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return synced(fd) ? -1 : (int)syscall(SYS_fdatasync, fd); }

static int cut(int fd, off_t size) {
    char full[PATH_MAX], line[2 * PATH_MAX];
    if (mode != OFF && of_fd(fd, full) && watched(full)) {
        if (due(-1, 0, 0, -1)) FAIL_WITH;
        snprintf(line, sizeof line, "size\t%ld\t%ld\n", inode(fd), (long)size);
        note(line, 0, 0);
    }
    return syscall(SYS_ftruncate, fd, size);
}
int ftruncate(int fd, off_t size) { return cut(fd, size); }
int ftruncate64(int fd, off_t size) { return cut(fd, size); }

static int named(int dir, const char *path, const char *what, long call, int flags) {
    char full[PATH_MAX], line[2 * PATH_MAX];
    int mine = 0, out;
    if (mode != OFF) {
        whole(dir, path, full);
        if ((mine = watched(full)) && due(-1, 0, 0, -1)) FAIL_WITH;
    }
    out = syscall(call, dir, path, flags);
    if (mine && !out) {
        snprintf(line, sizeof line, "%s\t%s\n", what, full);
        note(line, 0, 0);
    }
    return out;
}
int mkdir(const char *path, mode_t bits) { return named(AT_FDCWD, path, "mkdir", SYS_mkdirat, bits); }
int mkdirat(int dir, const char *path, mode_t bits) { return named(dir, path, "mkdir", SYS_mkdirat, bits); }
int unlink(const char *path) { return named(AT_FDCWD, path, "unlink", SYS_unlinkat, 0); }
int rmdir(const char *path) { return named(AT_FDCWD, path, "rmdir", SYS_unlinkat, AT_REMOVEDIR); }
int unlinkat(int dir, const char *path, int flags) {
    return named(dir, path, flags & AT_REMOVEDIR ? "rmdir" : "unlink", SYS_unlinkat, flags);
}

static int moved(int one, const char *a, int other, const char *b, const char *what) {
    char left[PATH_MAX], right[PATH_MAX], line[3 * PATH_MAX];
    int mine = 0, out;
    if (mode != OFF) {
        whole(one, a, left), whole(other, b, right);
        if ((mine = watched(right)) && due(-1, 0, 0, -1)) FAIL_WITH;
    }
    out = what[0] == 'r' ? syscall(SYS_renameat2, one, a, other, b, 0)
                         : syscall(SYS_linkat, one, a, other, b, 0);
    if (mine && !out) {
        snprintf(line, sizeof line, "%s\t%s\t%s\n", what, left, right);
        note(line, 0, 0);
    }
    return out;
}
int rename(const char *a, const char *b) { return moved(AT_FDCWD, a, AT_FDCWD, b, "rename"); }
int renameat(int one, const char *a, int other, const char *b) { return moved(one, a, other, b, "rename"); }
int link(const char *a, const char *b) { return moved(AT_FDCWD, a, AT_FDCWD, b, "link"); }
int linkat(int one, const char *a, int other, const char *b, int flags) {
    (void)flags;
    return moved(one, a, other, b, "link");
}
