/* What memrun's reaction is measured against: the least that a program can do, in C, with epoll.
 *
 *   listener raise GROUP BYTES PERCENT COMMAND...   at its limit: that is multiplied by PERCENT / 100, each time
 *   listener kill GROUP BYTES - COMMAND...          out of memory: everybody in the group is killed
 *
 * On cgroup v1 the job is parked at its limit (oom_kill_disable), and an eventfd tells of it, or of the kernel's kill. v2 parks nobody:
 * there memory.high, a twentieth below the limit, is what tells that it gets near (memory.events), and where one is killed, all
 * are, by the kernel itself (memory.oom.group). GROUP is a directory that exists, and is left empty.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int group;

static int put(const char *file, const char *text)
{
    int fd = openat(group, file, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t done = write(fd, text, strlen(text));
    close(fd);
    return done < 0 ? -1 : 0;
}

static void limit(const char *file, long long bytes)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", bytes);
    put(file, text);
}

static void limit_v2(long long bytes, int wire)
{
    limit("memory.max", bytes);
    if (wire) limit("memory.high", bytes - bytes / 20); /* else the job crawls there, instead of being killed */
}

static int events_v2(int fd) /* they are news until they are read */
{
    char text[512];
    return pread(fd, text, sizeof text, 0) > 0;
}

static void kill_all(void)
{
    char text[4096];
    for (;;) { /* opened anew each time: what v1 has listed once it keeps for this descriptor */
        int fd = openat(group, "cgroup.procs", O_RDONLY | O_CLOEXEC);
        ssize_t got = read(fd, text, sizeof text - 1);
        close(fd);
        if (got <= 0) return;
        text[got] = 0;
        for (char *p = strtok(text, "\n"); p; p = strtok(NULL, "\n")) kill(atoi(p), SIGKILL);
        usleep(100);
        while (waitpid(-1, NULL, WNOHANG) > 0) continue;
    }
}

int main(int argc, char **argv)
{
    if (argc < 6) return 2;
    int raise_it = !strcmp(argv[1], "raise");
    long long bytes = atoll(argv[3]), percent = atoll(argv[4]);
    char text[64];
    uint64_t count;
    group = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int v2 = faccessat(group, "memory.max", F_OK, 0) == 0, oom;
    if (v2) {
        limit_v2(bytes, raise_it);
        put("memory.swap.max", "0");
        put("memory.oom.group", "1");
        oom = openat(group, "memory.events", O_RDONLY | O_CLOEXEC);
        events_v2(oom);
    } else {
        limit("memory.limit_in_bytes", bytes);
        limit("memory.memsw.limit_in_bytes", bytes);
        if (raise_it) put("memory.oom_control", "1");
        oom = eventfd(0, EFD_CLOEXEC);
        int control = openat(group, "memory.oom_control", O_RDONLY | O_CLOEXEC);
        snprintf(text, sizeof text, "%d %d", oom, control);
        if (put("cgroup.event_control", text) != 0) { perror("listener"); return 1; }
    }
    pid_t pid = fork();
    if (pid == 0) {
        put("cgroup.procs", "0");
        execv(argv[5], argv + 5);
        _exit(127);
    }
    int dead = (int)syscall(SYS_pidfd_open, pid, 0), ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event one = {.events = v2 ? EPOLLPRI : EPOLLIN, .data.fd = oom}, two = {.events = EPOLLIN, .data.fd = dead}, now;
    epoll_ctl(ep, EPOLL_CTL_ADD, oom, &one);
    epoll_ctl(ep, EPOLL_CTL_ADD, dead, &two);
    while (epoll_wait(ep, &now, 1, -1) == 1 && now.data.fd == oom) {
        if (v2 ? !events_v2(oom) : read(oom, &count, sizeof count) != sizeof count) return 1;
        if (raise_it && v2) {
            limit_v2(bytes = bytes * percent / 100, 1);
        } else if (raise_it) {
            bytes = bytes * percent / 100;
            limit("memory.memsw.limit_in_bytes", bytes);
            limit("memory.limit_in_bytes", bytes);
        } else if (!v2) {
            kill_all();
        }
    }
    waitpid(pid, NULL, 0);
    return 0;
}
