/* What memrun's reaction is measured against: the least that a program can do, in C, with epoll, on cgroup v1.
 *
 *   listener raise GROUP BYTES PERCENT COMMAND...   parked at its limit: the limit is multiplied by PERCENT / 100, each time
 *   listener kill GROUP BYTES - COMMAND...          out of memory: everybody in the group is killed
 *
 * GROUP is a directory that exists, and is left empty.
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
    limit("memory.limit_in_bytes", bytes);
    limit("memory.memsw.limit_in_bytes", bytes);
    if (raise_it) put("memory.oom_control", "1");
    int oom = eventfd(0, EFD_CLOEXEC), control = openat(group, "memory.oom_control", O_RDONLY | O_CLOEXEC);
    snprintf(text, sizeof text, "%d %d", oom, control);
    if (put("cgroup.event_control", text) != 0) { perror("listener"); return 1; }
    pid_t pid = fork();
    if (pid == 0) {
        put("cgroup.procs", "0");
        execv(argv[5], argv + 5);
        _exit(127);
    }
    int dead = (int)syscall(SYS_pidfd_open, pid, 0), ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event one = {.events = EPOLLIN, .data.fd = oom}, two = {.events = EPOLLIN, .data.fd = dead}, now;
    epoll_ctl(ep, EPOLL_CTL_ADD, oom, &one);
    epoll_ctl(ep, EPOLL_CTL_ADD, dead, &two);
    while (epoll_wait(ep, &now, 1, -1) == 1 && now.data.fd == oom) {
        if (read(oom, &count, sizeof count) != sizeof count) return 1;
        if (raise_it) {
            bytes = bytes * percent / 100;
            limit("memory.memsw.limit_in_bytes", bytes);
            limit("memory.limit_in_bytes", bytes);
        } else {
            kill_all();
        }
    }
    waitpid(pid, NULL, 0);
    return 0;
}
