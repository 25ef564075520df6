/* Every way of using memory that the tests need. Each mode waits for a line on stdin first where a gate is asked for
 * (HOG_GATE=1), so that no test has to sleep.
 *
 *   touch MIB [THREADS [PROCESSES]]  anonymous memory, page by page     read MIB     read(2) from /dev/zero into fresh memory
 *   mlock MIB    populate MIB        one call that charges it all       memfd MIB    one write(2) into a memfd
 *   grandchild MIB                   a child is killed, we exit 0       file PATH MIB  write and re-read a file
 *   step KIB MS N                    one step every MS, says so         forks N      that many children that wait
 *   loop N                           fork chains, N generations         mapbig MIB   one big mapping, touched backwards
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static size_t each;

static void touch(size_t bytes)
{
    char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) { perror("mmap"); exit(3); }
    for (size_t i = 0; i < bytes; i += 4096) p[i] = 1;
}

static void *touch_thread(void *unused) { (void)unused; touch(each); return NULL; }

static int mode_touch(size_t mib, int threads, int processes)
{
    each = (mib << 20) / (size_t)(threads * processes);
    int told[2], go[2]; /* nobody ends before all have what they want: else eight may fit, one after the other */
    char byte = 0;
    if (pipe(told) != 0 || pipe(go) != 0) return 9;
    for (int c = 1; c < processes; c++)
        if (fork() == 0) {
            close(go[1]);
            touch(each);
            close(told[1]);
            exit(read(go[0], &byte, 1) == 0 ? 0 : 9);
        }
    close(told[1]);
    pthread_t t[64];
    for (int i = 1; i < threads; i++) pthread_create(&t[i], NULL, touch_thread, NULL);
    touch(each);
    for (int i = 1; i < threads; i++) pthread_join(t[i], NULL);
    if (read(told[0], &byte, 1) != 0) return 9; /* the end of it: the last has closed it, or is dead */
    close(go[1]);
    int bad = 0, status;
    while (wait(&status) > 0) {
        if (status) printf("child: wait status %d\n", status);
        bad |= status;
    }
    printf("done %zu MiB\n", mib);
    return bad ? 4 : 0;
}

static int mode_read(size_t mib)
{
    size_t want = mib << 20, got = 0;
    int fd = open("/dev/zero", O_RDONLY);
    char *p = mmap(NULL, want, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    while (got < want) {
        ssize_t n = read(fd, p + got, want - got);
        if (n <= 0) { printf("read stopped at %zu: %s\n", got, strerror(errno)); return 5; }
        got += (size_t)n;
    }
    printf("read %zu\n", got);
    return 0;
}

static int mode_memfd(size_t mib)
{
    size_t want = mib << 20, got = 0;
    char *p = mmap(NULL, want, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* the shared zero page: not charged */
    int fd = memfd_create("hog", 0);
    while (got < want) {
        ssize_t n = write(fd, p + got, want - got);
        if (n <= 0) { printf("write stopped at %zu: %s\n", got, strerror(errno)); return 5; }
        got += (size_t)n;
    }
    printf("wrote %zu\n", got);
    return 0;
}

static int mode_mlock(size_t mib)
{
    char *p = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mlock(p, mib << 20) != 0) { printf("mlock: %s\n", strerror(errno)); return 5; }
    puts("locked");
    return 0;
}

static int mode_populate(size_t mib)
{
    char *p = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (p == MAP_FAILED) { perror("mmap"); return 5; }
    for (size_t i = 0; i < mib << 20; i += 4096) p[i] = 1;
    puts("populated");
    return 0;
}

static int mode_grandchild(size_t mib)
{
    int status;
    if (fork() == 0) { touch(mib << 20); _exit(0); }
    wait(&status);
    printf("child %s\n", WIFSIGNALED(status) ? "killed" : "lived");
    return 0;
}

static int mode_file(const char *path, size_t mib)
{
    static char block[1 << 20];
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    for (size_t i = 0; i < mib; i++)
        if (write(fd, block, sizeof block) != sizeof block) { perror("write"); return 5; }
    lseek(fd, 0, SEEK_SET);
    while (read(fd, block, sizeof block) > 0) continue;
    unlink(path);
    puts("file done");
    return 0;
}

static int mode_step(size_t kib, long ms, int n)
{
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
    for (int i = 1; i <= n; i++) {
        touch(kib << 10);
        printf("step %d\n", i);
        nanosleep(&pause, NULL);
    }
    return 0;
}

static int mode_loop(int n)
{
    /* n generations: each forks the next and ends; kill -9 by pid never catches up with a fast one */
    signal(SIGTERM, SIG_IGN);
    for (int i = 0; i < n; i++) {
        pid_t pid = fork();
        if (pid < 0) return 6;
        if (pid > 0) _exit(0);
        usleep(1000);
        if (i == n - 1) i = 0;
    }
    return 0;
}

int main(int argc, char **argv)
{
    char line[16];
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (getenv("HOG_GATE")) { puts("ready"); if (!fgets(line, sizeof line, stdin)) return 9; }
    const char *mode = argc > 1 ? argv[1] : "";
    size_t a = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
    int b = argc > 3 ? atoi(argv[3]) : 1, c = argc > 4 ? atoi(argv[4]) : 1;
    if (!strcmp(mode, "touch")) return mode_touch(a, b, c);
    if (!strcmp(mode, "read")) return mode_read(a);
    if (!strcmp(mode, "memfd")) return mode_memfd(a);
    if (!strcmp(mode, "mlock")) return mode_mlock(a);
    if (!strcmp(mode, "populate")) return mode_populate(a);
    if (!strcmp(mode, "grandchild")) return mode_grandchild(a);
    if (!strcmp(mode, "file")) return mode_file(argv[2], strtoul(argv[3], NULL, 10));
    if (!strcmp(mode, "step")) return mode_step(a, b, c);
    if (!strcmp(mode, "loop")) return mode_loop((int)a);
    if (!strcmp(mode, "mapbig")) { touch(a << 20); puts("done"); return 0; }
    if (!strcmp(mode, "forks")) {
        for (size_t i = 0; i < a; i++) if (fork() == 0) { pause(); _exit(0); }
        puts("forked");
        pause();
    }
    fprintf(stderr, "hog: unknown mode '%s'\n", mode);
    return 2;
}
