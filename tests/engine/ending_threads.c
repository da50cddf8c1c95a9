/*
 * Preloaded into a program, it holds up a thread that is ending, as a busy machine may.
 *
 * A thread that asked for it stops in its thread-local destructors, before the second mutex that
 * one of them takes, until `let_threads_end` is called or some seconds are over. What any thread
 * frees meanwhile is filled with a pattern, and never given out again. When the thread then finds
 * the pattern where a mutex should be, the program ends with code 86: the thread was about to take
 * a mutex, and to write, in memory that was freed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_MILLISECONDS = 500, PATTERN = 0x5a, FREED_MUTEX = 86 };

struct destructor {
    void (*run)(void *);
    void *object;
};

static __thread int held_up;
static __thread int ending;
static __thread int mutexes;
static atomic_int threads_ending;
static atomic_int may_end;

void hold_up_this_thread(void) { held_up = 1; }

void let_threads_end(void) { atomic_store(&may_end, 1); }

static void run_watched(void *argument) {
    struct destructor destructor = *(struct destructor *)argument;
    free(argument);
    ending = held_up;
    mutexes = 0;
    atomic_fetch_add(&threads_ending, ending);
    destructor.run(destructor.object);
    atomic_fetch_sub(&threads_ending, ending);
    ending = 0;
}

/* What C++ calls for each thread_local object that has a destructor. */
int __cxa_thread_atexit_impl(void (*run)(void *), void *object, void *library) {
    static int (*next)(void (*)(void *), void *, void *);
    if (next == NULL)
        next = dlsym(RTLD_NEXT, "__cxa_thread_atexit_impl");
    struct destructor *destructor = malloc(sizeof *destructor);
    if (destructor == NULL)
        abort();
    destructor->run = run;
    destructor->object = object;
    return next(run_watched, destructor, library);
}

int pthread_mutex_lock(pthread_mutex_t *mutex) {
    static int (*next)(pthread_mutex_t *);
    if (next == NULL)
        next = dlsym(RTLD_NEXT, "pthread_mutex_lock");
    if (ending && ++mutexes > 1) {
        for (int slept = 0; slept < MOST_MILLISECONDS && !atomic_load(&may_end); slept++)
            usleep(1000);
        pthread_mutex_t filled;
        memset(&filled, PATTERN, sizeof filled);
        if (memcmp(mutex, &filled, sizeof filled) == 0) {
            dprintf(STDERR_FILENO, "an ending thread takes a mutex that was freed\n");
            _exit(FREED_MUTEX);
        }
    }
    return next(mutex);
}

void free(void *memory) {
    static void (*next)(void *);
    if (next == NULL)
        next = dlsym(RTLD_NEXT, "free");
    if (memory != NULL && atomic_load(&threads_ending) > 0)
        memset(memory, PATTERN, malloc_usable_size(memory));
    else
        next(memory);
}
