/* Reads files that say anything: returns, whatever the bytes. Shared by the seeded loop of corrupted.c and the fuzz target. */
#define HEADWORKS_IMPLEMENTATION
#include "headworks.h"

#include <stdio.h>

/* Bytes of `data`: sparse, all zero. */
#define CORRUPTED_DATA_SIZE ((off_t)1 << 20)

static volatile uint64_t corrupted_sink;

/* Everything a frame promises is touched. */
static void corrupted_touch(const headworks_next *next) {
    const headworks_frame *frame = &next->frame;
    uint64_t sum = 0;
    size_t i;
    if (next->status != HEADWORKS_FRAME)
        return;
    for (i = 0; i < frame->size; i++)
        sum += frame->data[i];
    for (i = 0; i < frame->side_data_size; i++)
        sum += frame->side_data[i];
    corrupted_sink += sum + frame->timeline_ns + (uint64_t)headworks_frame_is_intact(frame) + headworks_frame_margin(frame);
}

static int corrupted_file(const void *bytes, size_t size) {
    int file = memfd_create("corrupted", MFD_CLOEXEC);
    if (file < 0 || write(file, bytes, size) != (ssize_t)size)
        abort();
    return file;
}

/* Puts a valid magic and checksum on a header, so that what lies behind them is reached. */
static void corrupted_seal(uint8_t *ctl, size_t size) {
    uint32_t crc;
    if (size < HEADWORKS_CTL_HEADER_SIZE)
        return;
    memcpy(ctl, "HWRING\0\1", 8);
    crc = headworks_crc32c(ctl, HEADWORKS_CTL_HEADER_SIZE - 4);
    memcpy(ctl + HEADWORKS_CTL_HEADER_SIZE - 4, &crc, 4);
}

/* The same of a bell. */
static void corrupted_seal_bell(uint8_t *bell, size_t size) {
    uint32_t crc;
    if (size < HEADWORKS_BELL_SIZE)
        return;
    memcpy(bell, "HWBELL\0\1", 8);
    crc = headworks_crc32c(bell, HEADWORKS_BELL_HEAD_CRC);
    memcpy(bell + HEADWORKS_BELL_HEAD_CRC, &crc, 4);
}

static void corrupted_write(const char *directory, const char *name, const uint8_t *bytes, size_t size) {
    char path[1024];
    int file;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (file < 0 || write(file, bytes, size) != (ssize_t)size)
        abort();
    close(file);
}

static void corrupted_ring_files(int ctl, int data) {
    int start, i;
    for (start = 0; start <= HEADWORKS_START_SEQUENCE; start++) {
        headworks_ring *ring;
        headworks_next next;
        headworks_options options;
        uint8_t configuration[64];
        uint32_t generation;
        size_t length;
        memset(&options, 0, sizeof options);
        options.start = (headworks_start)start;
        options.sequence = 3;
        options.verify = 1;
        if (headworks_ring_open_files(&ring, ctl, data, &options) != HEADWORKS_OK)
            return;
        for (i = 0; i < 64; i++) {
            if (i % 4 == 3)
                headworks_ring_borrow(ring, 0, &next);
            else
                headworks_ring_next(ring, 0, &next);
            if (next.status == HEADWORKS_TIMEOUT || next.status == HEADWORKS_ENDED || next.status == HEADWORKS_SUPERSEDED ||
                next.status == HEADWORKS_ERROR_HEAD)
                break;
            corrupted_touch(&next);
        }
        for (generation = 0; generation < 12; generation++)
            (void)headworks_ring_configuration(ring, generation, configuration, sizeof configuration, &length);
        generation = headworks_ring_configuration_generation(ring);
        (void)headworks_ring_configuration(ring, generation, configuration, sizeof configuration, &length);
        headworks_ring_seek_stream_seq(ring, 5);
        headworks_ring_next(ring, 0, &next);
        corrupted_touch(&next);
        corrupted_sink += headworks_ring_totals(ring).frames + headworks_ring_last_key_seq(ring) + headworks_ring_epoch(ring);
        headworks_ring_close(ring);
    }
}

static void corrupted_ring(const uint8_t *ctl, size_t size) {
    int ctl_file = corrupted_file(ctl, size), data_file = corrupted_file("", 0);
    if (ftruncate(data_file, CORRUPTED_DATA_SIZE) != 0)
        abort();
    corrupted_ring_files(ctl_file, data_file);
    close(ctl_file);
    close(data_file);
}

/* A whole stream with a bell and rings that lie. */
static void corrupted_stream(const char *directory, headworks_start start) {
    headworks_stream *stream;
    headworks_next next;
    headworks_options options;
    headworks_anchor anchors[HEADWORKS_ANCHOR_COUNT];
    int i;
    memset(&options, 0, sizeof options);
    options.start = start;
    if (headworks_stream_open_directory(&stream, directory, &options) != HEADWORKS_OK)
        return;
    for (i = 0; i < 100; i++) {
        if (i % 2)
            headworks_stream_next(stream, 0, &next);
        else
            headworks_stream_borrow(stream, 0, &next);
        if (next.status == HEADWORKS_TIMEOUT || next.status == HEADWORKS_ENDED || next.status == HEADWORKS_SUPERSEDED)
            break;
        corrupted_touch(&next);
    }
    corrupted_sink += headworks_stream_anchors(stream, anchors);
    headworks_stream_close(stream);
}

static void corrupted_description(const uint8_t *bytes, size_t size) {
    headworks_description *description;
    size_t i;
    uint64_t sum = 0;
    if (headworks_description_decode(&description, bytes, size) != HEADWORKS_OK)
        return;
    sum += strlen(description->name);
    for (i = 0; i < description->programme_count; i++)
        sum += strlen(description->programmes[i].name) + strlen(description->programmes[i].provider);
    for (i = 0; i < description->track_count; i++)
        sum += strlen(description->tracks[i].name) + strlen(description->tracks[i].language) + strlen(description->tracks[i].codec);
    corrupted_sink += sum;
    headworks_description_free(description);
}

/* Any name is encoded and comes back. */
static void corrupted_name(const uint8_t *bytes, size_t size) {
    char name[512], encoded[HEADWORKS_NAME_SIZE], decoded[HEADWORKS_NAME_SIZE];
    if (size >= sizeof name)
        size = sizeof name - 1;
    memcpy(name, bytes, size);
    name[size] = 0;
    (void)headworks_decode_name(name, decoded);
    headworks_encode_name(name, encoded);
    if (encoded[0] == '.' || strlen(encoded) == 0 || strlen(encoded) > 200 || strchr(encoded, '/'))
        abort();
    if (!strchr(encoded, '+') && (!headworks_decode_name(encoded, decoded) || strcmp(decoded, name) != 0))
        abort();
}
