/* Reads a stream beside another file: poll /dev/shm/headworks/cam1; Enter ends it.
 *
 *     cc -std=c99 -I sys/frame-ring/include sys/frame-ring/examples/c/poll.c -o poll -pthread
 */
#define HEADWORKS_IMPLEMENTATION
#include "headworks.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>

static int event;

/* A futex cannot be polled: this thread sleeps on it, with a stream of its own, and rings when something came. */
static void *ring(void *stream) {
    const uint64_t one = 1;
    headworks_next next;
    while (headworks_stream_borrow((headworks_stream *)stream, -1, &next) != HEADWORKS_ENDED)
        if (write(event, &one, sizeof one) < 0)
            break;
    (void)!write(event, &one, sizeof one);
    return NULL;
}

int main(int argc, char **argv) {
    headworks_options live;
    headworks_stream *stream, *waited;
    headworks_next next;
    headworks_status status;
    struct pollfd files[2];
    pthread_t thread;
    uint64_t count;
    memset(&live, 0, sizeof live);
    live.start = HEADWORKS_START_LIVE;
    if (argc != 2)
        return 2;
    /* This one first: it sees everything that the other does. */
    status = headworks_stream_open_directory(&waited, argv[1], &live);
    if (status == HEADWORKS_OK)
        status = headworks_stream_open_directory(&stream, argv[1], NULL);
    event = eventfd(0, EFD_CLOEXEC);
    if (status != HEADWORKS_OK || event < 0 || pthread_create(&thread, NULL, ring, waited) != 0) {
        fprintf(stderr, "%s: %s\n", argv[1], headworks_status_text(status));
        return 1;
    }
    files[0].fd = event;
    files[1].fd = STDIN_FILENO;
    files[0].events = files[1].events = POLLIN;
    do {
        while (headworks_stream_next(stream, 0, &next) != HEADWORKS_TIMEOUT && next.status != HEADWORKS_ENDED)
            if (next.status == HEADWORKS_FRAME)
                printf("%s %llu: %zu bytes\n", headworks_stream_track_name(stream, next.track),
                       (unsigned long long)next.frame.seq, next.frame.size);
            else
                printf("%s\n", headworks_status_text(next.status));
        fflush(stdout);
        if (next.status == HEADWORKS_ENDED || poll(files, 2, -1) < 0)
            break;
        if (files[0].revents && read(event, &count, sizeof count) < 0)
            break;
    } while (!files[1].revents);
    return 0;
}
