/* The floor: starts the same processes as a build would, so many at a time, and does nothing else.
 *
 *     floor JOBS COUNT TASK INPUT     runs `TASK OUTPUT INPUT` COUNT times; OUTPUT is floor.out.N in this folder
 *     cc -O2 -o floor floor.c -lpthread
 */
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

extern char **environ;
static atomic_long next;
static long count;
static char *task, *input;

static void *work(void *number) {
    char output[64];
    snprintf(output, sizeof output, "floor.out.%ld", (long)number);
    while (atomic_fetch_add(&next, 1) < count) {
        char *words[] = {task, "seed", output, input, NULL};
        pid_t pid;
        int status;
        if (posix_spawn(&pid, task, NULL, NULL, words, environ) != 0 || waitpid(pid, &status, 0) != pid || status != 0)
            exit(1);
    }
    return NULL;
}

int main(int words, char **word) {
    if (words != 5) return 2;
    long jobs = atol(word[1]);
    count = atol(word[2]), task = word[3], input = word[4];
    pthread_t threads[256];
    for (long number = 0; number < jobs && number < 256; number++) pthread_create(&threads[number], NULL, work, (void *)number);
    for (long number = 0; number < jobs && number < 256; number++) pthread_join(threads[number], NULL);
    return 0;
}
