/* Allocates and touches 1 MiB a second, and says so. Under `memrun --limit 5M` it gets four lines far.
 *
 *   mem-allocate [LIMIT_MIB [MILLISECONDS]]    stop after LIMIT_MIB (0: never), one step every MILLISECONDS (1000)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { STEP = 1 << 20 };

int main(int argc, char **argv)
{
    long most = argc > 1 ? atol(argv[1]) : 0;
    long pause = argc > 2 ? atol(argv[2]) : 1000;
    struct timespec wait = {pause / 1000, pause % 1000 * 1000000};

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (long mib = 1; most == 0 || mib <= most; mib++) {
        char *block = malloc(STEP);
        if (block == NULL) {
            perror("malloc");
            return 1;
        }
        memset(block, 'x', STEP);
        printf("%ld MiB\n", mib);
        nanosleep(&wait, NULL);
    }
    return 0;
}
