/* A task that costs as little as a task can: reads its inputs, writes one small file that depends on them and on a
 * seed, so that no two tasks make the same.
 *
 *     task SEED OUTPUT INPUT...
 *
 * Without a C library, so that starting it is all that is measured:
 *     cc -O2 -static -nostdlib -fno-stack-protector -o task task.c        (Linux, x86-64)
 * Anywhere else, with one:
 *     cc -O2 -DHOSTED -o task task.c
 */
#ifdef HOSTED
#include <fcntl.h>
#include <unistd.h>
#define exit_with _exit
#else
static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}
#define read(file, bytes, size) call(0, file, (long)(bytes), size)
#define write(file, bytes, size) call(1, file, (long)(bytes), size)
#define open(path, flags, mode) call(2, (long)(path), flags, mode)
#define close(file) call(3, file, 0, 0)
#define exit_with(code) call(60, code, 0, 0)
#define O_RDONLY 0
#define O_WRONLY 01
#define O_CREAT 0100
#define O_TRUNC 01000
#endif

static char bytes[4096];

static int work(int count, char **words) {
    unsigned long mixed = 5381;
    for (const char *seed = words[1]; *seed; seed++) mixed = mixed * 33 ^ (unsigned char)*seed;
    for (int at = 3; at < count; at++) {
        long file = open(words[at], O_RDONLY, 0), size;
        if (file < 0) return 1;
        while ((size = read(file, bytes, sizeof bytes)) > 0)
            for (long place = 0; place < size; place++) mixed = mixed * 33 ^ (unsigned char)bytes[place];
        close(file);
    }
    long file = open(words[2], O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0) return 2;
    for (int digit = 0; digit < 16; digit++, mixed <<= 4) bytes[digit] = "0123456789abcdef"[mixed >> 60];
    bytes[16] = '\n';
    return write(file, bytes, 17) == 17 ? 0 : 3;
}

#ifdef HOSTED
int main(int count, char **words) { return work(count, words); }
#else
void begin(long *stack) { exit_with(work((int)stack[0], (char **)(stack + 1))); }
__asm__(".globl _start\n_start:\n mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");
#endif
