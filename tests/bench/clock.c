/* The benchmarks' clock and jobs: a static program, so that its own start weighs nothing. CLOCK_MONOTONIC, nanoseconds.
 *
 *   clock time COMMAND...       run it; prints its wall-clock time, and the CPU time of it and all that it waited for
 *   clock from COMMAND...       note the time, then become the command
 *   clock here                  time since `from`: as a launcher's command, what the launcher took to get here
 *   clock tell FIFO             write the time into a FIFO, then wait to be killed
 *   clock touch MIB US [FIFO]   (when a byte comes) touch memory page by page; prints 'BYTES NS' wherever that stopped for longer
 *   clock crowd FILE MIB        a child touches memory, and this process lives: both write their latest time into FILE
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SLOW 140000 /* more than there are pages: a slow machine stops at most of them */
#define NAP 12000000LL

static struct { size_t at; long long took; } slow[SLOW];
static int found;

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int run(char **words)
{
    struct rusage used;
    int status;
    long long began = now();
    pid_t pid = vfork();
    if (pid == 0) {
        execv(words[0], words);
        _exit(127);
    }
    if (wait4(pid, &status, 0, &used) < 0) return 1;
    long long wall = now() - began;
    long long cpu = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000LL + used.ru_utime.tv_usec + used.ru_stime.tv_usec;
    printf("%lld %lld\n", wall, cpu * 1000);
    return status;
}

static char *memory(size_t bytes)
{
    char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) exit(3);
    madvise(p, bytes, MADV_NOHUGEPAGE);
    return p;
}

static long long missed(long long since, size_t at, long long least)
{
    long long after = now();
    if (after - since > least && found < SLOW) {
        slow[found].at = at;
        slow[found++].took = after - since;
    }
    return after;
}

/* At full speed for a fortieth of what it has by then, after which it sleeps for a moment: whoever watches has as long for each tenth
 * more, however much it is. All the time that was not asked for counts, also that of a sleep that lasted too long. */
static int touch(size_t bytes, long long least)
{
    char *p = memory(bytes);
    prctl(PR_SET_TIMERSLACK, 1L);
    memset(slow, 1, sizeof slow); /* nothing but the pages below is to need memory */
    size_t next = 0;
    long long since = now();
    for (size_t i = 0; i < bytes; i += 4096) {
        if (i >= next) {
            next = i + (i / 40 > (256 << 10) ? i / 40 : 256 << 10);
            struct timespec until = {(since + NAP) / 1000000000, (since + NAP) % 1000000000};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
            since = missed(since + NAP, i, least);
        }
        p[i] = 1;
        since = missed(since, i, least);
    }
    for (int i = 0; i < found; i++) printf("%zu %lld\n", slow[i].at, slow[i].took);
    return 0;
}

static int crowd(const char *path, size_t bytes)
{
    int fd = open(path, O_RDWR);
    volatile long long *stamps = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (stamps == MAP_FAILED) return 3;
    if (fork() == 0) {
        char *p = memory(bytes);
        for (size_t i = 0; i < bytes; i += 4096) {
            stamps[0] = now();
            p[i] = 1;
        }
        return 0;
    }
    struct timespec a_little = {0, 20000};
    for (;;) {
        stamps[1] = now();
        nanosleep(&a_little, NULL);
    }
}

static int tell(const char *path)
{
    char text[32];
    int length = snprintf(text, sizeof text, "%20lld\n", now());
    int fd = open(path, O_WRONLY);
    if (write(fd, text, (size_t)length) != length) return 1;
    close(fd);
    for (;;) pause();
}

static void wait_for_a_byte(const char *path)
{
    char byte;
    int fd = open(path, O_RDONLY);
    if (read(fd, &byte, 1) != 1) exit(3);
    close(fd);
}

int main(int argc, char **argv)
{
    long long here = now();
    char text[32];
    const char *mode = argc > 1 ? argv[1] : "";
    if (argc > 2 && !strcmp(mode, "time")) return run(argv + 2);
    if (argc > 2 && !strcmp(mode, "from")) {
        snprintf(text, sizeof text, "%lld", now());
        setenv("CLOCK_FROM", text, 1);
        execv(argv[2], argv + 2);
        return 127;
    }
    if (!strcmp(mode, "here")) {
        const char *from = getenv("CLOCK_FROM");
        printf("%lld\n", from ? here - atoll(from) : 0);
        return 0;
    }
    if (argc > 2 && !strcmp(mode, "tell")) return tell(argv[2]);
    if (argc > 4 && (!strcmp(mode, "touch") || !strcmp(mode, "crowd"))) wait_for_a_byte(argv[4]);
    if (argc > 3 && !strcmp(mode, "touch")) return touch(strtoul(argv[2], NULL, 10) << 20, atoll(argv[3]) * 1000);
    if (argc > 3 && !strcmp(mode, "crowd")) return crowd(argv[2], strtoul(argv[3], NULL, 10) << 20);
    return 2;
}
