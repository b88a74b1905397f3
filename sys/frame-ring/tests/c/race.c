/* race RING LARGEST on|again: what tests/torture.rs runs beside a writer that waits for nobody. Reads the ring until it ends, checks
 * every byte of frames of up to LARGEST bytes, and prints how many were read and lost. */
#define HEADWORKS_IMPLEMENTATION
#include "headworks.h"

#include <inttypes.h>
#include <stdio.h>

#define ODD UINT64_C(0x9E3779B97F4A7C15)
#define TIMEOUT_MS 20000

static uint64_t largest, frames_read, frames_lost;

static void fail(const char *what, uint64_t seq, uint64_t expected) {
    printf("%s: frame %" PRIu64 ", expected %" PRIu64 "\n", what, seq, expected);
    exit(1);
}

/* A frame's length follows from its number, and so does every word of it: as tests/torture.rs writes them. */
static uint64_t length_of(uint64_t seq) {
    uint64_t n = (seq ^ seq >> 31) * ODD;
    n = (n ^ n >> 29) * UINT64_C(0xBF58476D1CE4E5B9);
    return (n >> 20) % (largest + 1);
}

static void check(uint64_t seq, const uint8_t *bytes, size_t size) {
    size_t at;
    if (size != length_of(seq))
        fail("length", seq, length_of(seq));
    for (at = 0; at < size; at += 8) {
        uint64_t word = (seq ^ (uint64_t)(at / 8) << 48) * ODD;
        if (memcmp(bytes + at, &word, size - at < 8 ? size - at : 8) != 0)
            fail("a torn frame was accepted", seq, at);
    }
}

/* A frame that lies in the ring: copied, then judged. 1 if it was whole. */
static int check_borrowed(const headworks_frame *frame) {
    static uint8_t copy[16 << 10];
    if (frame->size > sizeof copy)
        fail("size", frame->seq, sizeof copy);
    if (!headworks_frame_copy(frame, 0, copy, frame->size))
        return 0;
    check(frame->seq, copy, frame->size);
    return 1;
}

/* Counts what the next call gave, of which frame `*expected` must be the first; 1 if there may be more. */
static int step(headworks_ring *ring, int timeout_ms, int borrow, uint64_t *expected) {
    headworks_next next;
    headworks_status status = borrow ? headworks_ring_borrow(ring, timeout_ms, &next) : headworks_ring_next(ring, timeout_ms, &next);
    switch (status) {
    case HEADWORKS_FRAME:
        if (next.frame.seq != *expected)
            fail("a loss was not reported", next.frame.seq, *expected);
        ++*expected;
        if (!borrow)
            check(next.frame.seq, next.frame.data, next.frame.size);
        else if (!check_borrowed(&next.frame)) {
            frames_lost++;
            return 1;
        }
        frames_read++;
        return 1;
    case HEADWORKS_LAPPED:
    case HEADWORKS_SKIPPED:
        *expected += next.count;
        frames_lost += next.count;
        if (next.resume_at != *expected)
            fail("the loss was not exact", next.resume_at, *expected);
        return 1;
    case HEADWORKS_WRITER_DEAD: return 1;
    case HEADWORKS_TIMEOUT:
    case HEADWORKS_ENDED: return 0;
    default: fail(headworks_status_text(status), headworks_ring_position(ring), *expected);
    }
    return 0;
}

/* From beginning to end: read and lost must be what was written. */
static void read_on(headworks_ring *ring) {
    uint64_t expected = headworks_ring_position(ring);
    while (step(ring, TIMEOUT_MS, 0, &expected))
        continue;
    if (expected != headworks_ring_head_seq(ring) || headworks_ring_state(ring) != HEADWORKS_STATE_ENDED)
        fail("the end", headworks_ring_head_seq(ring), expected);
}

/* All that the ring holds, again and again, every fourth time where it lies. */
static void read_again(headworks_ring *ring) {
    uint64_t expected, pass;
    int is_over = 0;
    for (pass = 0; !is_over; pass++) {
        is_over = headworks_ring_state(ring) == HEADWORKS_STATE_ENDED;
        headworks_ring_seek(ring, HEADWORKS_START_OLDEST, 0);
        expected = headworks_ring_position(ring);
        while (step(ring, 0, pass % 4 == 3, &expected))
            continue;
    }
}

int main(int argc, char **argv) {
    headworks_options options;
    headworks_ring *ring;
    headworks_status status;
    memset(&options, 0, sizeof options);
    options.start = HEADWORKS_START_LIVE;
    options.verify = 1;
    if (argc != 4)
        return 2;
    largest = strtoull(argv[2], NULL, 10);
    status = headworks_ring_open(&ring, argv[1], &options);
    if (status != HEADWORKS_OK)
        fail(headworks_status_text(status), 0, 0);
    if (strcmp(argv[3], "on") == 0)
        read_on(ring);
    else
        read_again(ring);
    headworks_ring_close(ring);
    printf("%" PRIu64 " %" PRIu64 "\n", frames_read, frames_lost);
    return 0;
}
