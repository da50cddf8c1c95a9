// Read memory with several threads and print bytes per second, the best pass of ten.
// usage: probe THREADS MIB

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PASSES = 10, MOST_THREADS = 64 };

static pthread_barrier_t barrier;
static volatile uint64_t sink;

struct share {
    const uint64_t *words;
    size_t count;
};

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static void *read_all(void *argument) {
    const struct share *share = argument;
    for (int pass = 0; pass < PASSES; pass++) {
        uint64_t sum[32] = {0}; // enough that no addition waits for another
        pthread_barrier_wait(&barrier);
        for (size_t at = 0; at + 32 <= share->count; at += 32)
            for (int lane = 0; lane < 32; lane++)
                sum[lane] += share->words[at + lane];
        for (int lane = 0; lane < 32; lane++)
            sink += sum[lane];
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 3)
        return 2;
    int threads = atoi(arguments[1]);
    size_t bytes = strtoull(arguments[2], NULL, 10) << 20;
    if (threads < 1 || threads > MOST_THREADS || bytes == 0)
        return 2;
    uint64_t *words = aligned_alloc(4096, bytes);
    if (words == NULL)
        return 1;
    memset(words, 1, bytes);
    pthread_barrier_init(&barrier, NULL, threads + 1);
    pthread_t handles[MOST_THREADS];
    struct share shares[MOST_THREADS];
    size_t each = bytes / 8 / threads;
    for (int i = 0; i < threads; i++) {
        shares[i] = (struct share){words + i * each, each};
        pthread_create(&handles[i], NULL, read_all, &shares[i]);
    }
    double best = 0;
    for (int pass = 0; pass < PASSES; pass++) {
        pthread_barrier_wait(&barrier);
        double started = now();
        pthread_barrier_wait(&barrier);
        double speed = (double)(each * threads * 8) / (now() - started);
        best = speed > best ? speed : best;
    }
    for (int i = 0; i < threads; i++)
        pthread_join(handles[i], NULL);
    printf("%.0f\n", best);
    return 0;
}
