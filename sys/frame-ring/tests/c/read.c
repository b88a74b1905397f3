/* What tests/c_reader.rs runs: prints a line for everything that headworks.h says about a ring, a stream or a root. */
#define HEADWORKS_IMPLEMENTATION
#include "headworks.h"

#include <inttypes.h>
#include <stdio.h>

static void fail(const char *what, headworks_status status) {
    printf("error %s: %s\n", what, headworks_status_text(status));
    exit(1);
}

/* FNV-1a. */
static uint64_t hash(const uint8_t *bytes, size_t size) {
    uint64_t value = UINT64_C(0xCBF29CE484222325);
    size_t i;
    for (i = 0; i < size; i++)
        value = (value ^ bytes[i]) * UINT64_C(0x100000001B3);
    return value;
}

static void print_id(const char *name, const uint8_t id[16]) {
    int i;
    printf("%s ", name);
    for (i = 0; i < 16; i++)
        printf("%02x", id[i]);
    printf("\n");
}

static void print_header(const headworks_ring *ring) {
    const headworks_header *h = headworks_ring_header(ring);
    headworks_totals totals = headworks_ring_totals(ring);
    printf("minor %u features_optional %" PRIu64 "\n", h->minor, h->features_optional);
    print_id("boot_id", h->boot_id);
    print_id("ring_uuid", h->ring_uuid);
    printf("slots %" PRIu64 " %" PRIu32 " data %" PRIu64 " %" PRIu32 " config %" PRIu64 " %" PRIu32 " %" PRIu32 "\n",
           h->slot_offset, h->slot_count, h->data_capacity, h->frame_size_max, h->config_offset, h->config_size,
           h->config_count);
    printf("codec %s kind %d clock_rate %" PRIu32 " numa_node %" PRId32 " page %" PRIu32 "\n", h->codec, (int)h->kind,
           h->clock_rate, h->numa_node, h->backing_page_size);
    printf("head %" PRIu64 " key %" PRIu64 " epoch %" PRIu32 " configuration %" PRIu32 " state %d\n",
           headworks_ring_head_seq(ring), headworks_ring_last_key_seq(ring), headworks_ring_epoch(ring),
           headworks_ring_configuration_generation(ring), (int)headworks_ring_state(ring));
    printf("totals %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", totals.frames, totals.bytes, totals.damaged,
           totals.discontinuities);
}

static void print_configurations(const headworks_ring *ring) {
    uint32_t current = headworks_ring_configuration_generation(ring), generation;
    for (generation = current > 9 ? current - 9 : 0; generation <= current + 1; generation++) {
        uint8_t bytes[8192], none[1];
        size_t length;
        headworks_status status = headworks_ring_configuration(ring, generation, bytes, sizeof bytes, &length);
        if (status == HEADWORKS_OK) {
            printf("configuration %" PRIu32 " %.*s\n", generation, (int)length, (const char *)bytes);
            if (headworks_ring_configuration(ring, generation, none, 0, &length) != HEADWORKS_ERROR_ROOM)
                fail("configuration", HEADWORKS_OK);
        } else {
            printf("configuration %" PRIu32 ": %s\n", generation, headworks_status_text(status));
        }
    }
}

static void print_all(const headworks_frame *f) {
    printf("seq %" PRIu64 " stream_seq %" PRIu64 " key_seq %" PRIu64 "\n", f->seq, f->stream_seq, f->key_seq);
    printf("data %.*s side_data %.*s\n", (int)f->size, (const char *)f->data, (int)f->side_data_size,
           (const char *)f->side_data);
    printf("pts %d %" PRId64 " %d dts %d %" PRId64 " %d duration %" PRIu32 "\n", f->has_pts, f->pts, f->pts_interpolated,
           f->has_dts, f->dts, f->dts_derived, f->duration);
    printf("timeline_ns %" PRId64 " origin %u %" PRIu64 " segment %" PRIu32 "\n", f->timeline_ns, f->origin_kind, f->origin,
           f->segment);
    printf("arrival %" PRIu64 " %" PRIu64 " due %" PRIu64 " commit %" PRIu64 "\n", f->first_arrival_ns,
           f->last_arrival_ns, f->due_ns, f->commit_ns);
    printf("wall_clock %u %u %" PRId64 "\n", f->wall_clock, f->wall_clock_quality, f->wall_clock_ns);
    printf("configuration %" PRIu32 " changed %d discontinuity %u\n", f->config_generation, f->configuration_changed,
           f->discontinuity);
    printf("packets %" PRIu32 " %" PRIu32 " paths %" PRIu32 " damaged %d %" PRIu32 "\n", f->packets_lost, f->packets_recovered,
           f->path_mask, f->damaged, f->damage_reasons);
    printf("crc32c %d %08" PRIx32 "\n", f->has_crc, f->crc32c);
    printf("picture %u %u access %u %u key %d layer %u\n", f->picture_type, f->picture_structure, f->random_access,
           f->recovery_count, f->key, f->temporal_id);
    printf("timecode %d %02u:%02u:%02u:%02u %d\n", f->has_timecode, f->timecode_hours, f->timecode_minutes,
           f->timecode_seconds, f->timecode_frames, f->timecode_drop_frame);
}

/* Prints an event; 1 if it is the last one wanted. */
static int print_next(const char *track, const headworks_next *next, uint64_t stop_after) {
    const headworks_frame *f = &next->frame;
    switch (next->status) {
    case HEADWORKS_FRAME: {
        uint64_t bytes = hash(f->data, f->size), side = hash(f->side_data, f->side_data_size);
        if (!headworks_frame_is_intact(f)) {
            printf("%s torn %" PRIu64 "\n", track, f->seq);
            break;
        }
        printf("%s frame %" PRIu64 " %zu %016" PRIx64 " %016" PRIx64 " stream %" PRIu64 " key %d discontinuity %u damaged %d changed %d\n",
               track, f->seq, f->size, bytes, side, f->stream_seq, f->key, f->discontinuity, f->damaged,
               f->configuration_changed);
        return f->seq == stop_after;
    }
    case HEADWORKS_LAPPED:
    case HEADWORKS_SKIPPED:
    case HEADWORKS_ERROR_BOUNDS:
    case HEADWORKS_ERROR_DESCRIPTOR:
    case HEADWORKS_ERROR_CHECKSUM:
        printf("%s %s: %" PRIu64 ", on to %" PRIu64 "\n", track, headworks_status_text(next->status), next->count,
               next->resume_at);
        break;
    default: printf("%s %s\n", track, headworks_status_text(next->status)); break;
    }
    return next->status == HEADWORKS_ENDED || next->status == HEADWORKS_SUPERSEDED || next->status == HEADWORKS_ERROR_HEAD;
}

static headworks_options options_of(int argc, char **argv) {
    headworks_options options;
    int i;
    memset(&options, 0, sizeof options);
    for (i = 3; i < argc; i++) {
        if (strcmp(argv[i], "live") == 0)
            options.start = HEADWORKS_START_LIVE;
        else if (strcmp(argv[i], "oldest") == 0)
            options.start = HEADWORKS_START_OLDEST;
        else if (strcmp(argv[i], "oldest-key") == 0)
            options.start = HEADWORKS_START_OLDEST_KEY;
        else if (strncmp(argv[i], "sequence=", 9) == 0) {
            options.start = HEADWORKS_START_SEQUENCE;
            options.sequence = strtoull(argv[i] + 9, NULL, 10);
        } else if (strncmp(argv[i], "track=", 6) == 0)
            options.track = argv[i] + 6;
        else if (strcmp(argv[i], "verify") == 0)
            options.verify = 1;
        else if (strcmp(argv[i], "stay") == 0)
            options.stay = 1;
    }
    return options;
}

static int has(int argc, char **argv, const char *word) {
    int i;
    for (i = 3; i < argc; i++)
        if (strcmp(argv[i], word) == 0)
            return 1;
    return 0;
}

static uint64_t number(int argc, char **argv, const char *name, uint64_t otherwise) {
    int i;
    for (i = 3; i < argc; i++)
        if (strncmp(argv[i], name, strlen(name)) == 0)
            return strtoull(argv[i] + strlen(name), NULL, 10);
    return otherwise;
}

/* The text behind `name`, or NULL. */
static const char *text(int argc, char **argv, const char *name) {
    int i;
    for (i = 3; i < argc; i++)
        if (strncmp(argv[i], name, strlen(name)) == 0)
            return argv[i] + strlen(name);
    return NULL;
}

/* The path that was given counts no more from here. */
static void leave(void) {
    if (chdir("/") != 0)
        fail("chdir", HEADWORKS_ERROR_SYSTEM);
}

int main(int argc, char **argv) {
    headworks_options options = options_of(argc, argv);
    uint64_t stop_after = number(argc, argv, "stop-after=", UINT64_MAX);
    int timeout_ms = (int)number(argc, argv, "timeout=", 20000), borrow = has(argc, argv, "borrow");
    /* A call for each line of the standard input; on after the end, or after another took the place. */
    int step = has(argc, argv, "step"), on = has(argc, argv, "on"), is_over;
    headworks_status status;
    headworks_next next;
    int tries = (int)number(argc, argv, "calls=", UINT64_C(1) << 30);
    if (argc < 3)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (strcmp(argv[1], "ring") == 0) {
        headworks_ring *ring;
        status = headworks_ring_open(&ring, argv[2], &options);
        if (status != HEADWORKS_OK)
            fail("ring", status);
        if (has(argc, argv, "leave"))
            leave();
        printf("ready %" PRIu64 "\n", headworks_ring_position(ring));
        if (has(argc, argv, "header"))
            print_header(ring);
        if (has(argc, argv, "configurations"))
            print_configurations(ring);
        /* Whoever runs this writes meanwhile. */
        if (has(argc, argv, "pause"))
            (void)!getchar();
        while (tries-- > 0) {
            if (step && getchar() == EOF)
                break;
            status = borrow ? headworks_ring_borrow(ring, timeout_ms, &next) : headworks_ring_next(ring, timeout_ms, &next);
            if (status == HEADWORKS_FRAME && has(argc, argv, "all"))
                print_all(&next.frame);
            if (status == HEADWORKS_FRAME && has(argc, argv, "hold")) {
                printf("ring held %" PRIu64 "\n", next.frame.seq);
                (void)!getchar();
            }
            is_over = print_next("ring", &next, stop_after) && !(status == HEADWORKS_SUPERSEDED && on);
            if (is_over || (status == HEADWORKS_TIMEOUT && !step))
                break;
        }
        headworks_ring_close(ring);
    } else if (strcmp(argv[1], "stream") == 0) {
        headworks_stream *stream;
        const char *broker = text(argc, argv, "broker=");
        status = broker ? headworks_stream_open_through(&stream, broker, argv[2], &options)
                        : headworks_stream_open_directory(&stream, argv[2], &options);
        if (status != HEADWORKS_OK)
            fail("stream", status);
        if (has(argc, argv, "leave"))
            leave();
        printf("ready\n");
        while (tries-- > 0) {
            const char *track;
            if (step && getchar() == EOF)
                break;
            status = borrow ? headworks_stream_borrow(stream, timeout_ms, &next) : headworks_stream_next(stream, timeout_ms, &next);
            track = headworks_stream_track_name(stream, next.track);
            is_over = print_next(track ? track : "stream", &next, stop_after) &&
                      !((status == HEADWORKS_ENDED || status == HEADWORKS_SUPERSEDED) && on);
            if (is_over || (status == HEADWORKS_TIMEOUT && !step))
                break;
        }
        headworks_stream_close(stream);
    } else if (strcmp(argv[1], "describe") == 0) {
        headworks_description *d;
        size_t i;
        /* A directory, or a broker and a name. */
        status = argc == 4 ? headworks_description_read_through(&d, argv[2], argv[3]) : headworks_description_read(&d, argv[2]);
        if (status != HEADWORKS_OK)
            fail("describe", status);
        printf("%s %" PRIu32 " %" PRId64 "\n", d->name, d->generation, d->created_utc_ns);
        for (i = 0; i < d->programme_count; i++)
            printf("programme %" PRIu32 " %u [%s] [%s]\n", d->programmes[i].number, d->programmes[i].pcr_pid, d->programmes[i].name,
                   d->programmes[i].provider);
        for (i = 0; i < d->track_count; i++) {
            const headworks_track_description *t = &d->tracks[i];
            printf("track %s %" PRIu32 " %d [%s] %" PRIu32 " %" PRIu32 " [%s] %d %" PRIu32 "x%" PRIu32 " %" PRIu32 "/%" PRIu32
                   " %" PRIu32 " %u %d\n",
                   t->name, t->programme, (int)t->kind, t->codec, t->source_id, t->clock_rate, t->language, t->component_tag,
                   t->width, t->height, t->frame_rate_numerator, t->frame_rate_denominator, t->sample_rate, t->channels,
                   t->ended);
        }
        headworks_description_free(d);
    } else if (strcmp(argv[1], "streams") == 0 || strcmp(argv[1], "tracks") == 0) {
        char **names;
        size_t count, i;
        status = argv[1][0] == 's' ? headworks_stream_names(argv[2], &names, &count) : headworks_track_names(argv[2], &names, &count);
        if (status != HEADWORKS_OK)
            fail(argv[1], status);
        for (i = 0; i < count; i++)
            printf("%s\n", names[i]);
        headworks_names_free(names, count);
    } else if (strcmp(argv[1], "path") == 0) {
        char path[512];
        status = headworks_stream_directory("", argv[2], path, sizeof path);
        printf("%s\n", status == HEADWORKS_OK ? path + 1 : headworks_status_text(status));
    } else {
        return 2;
    }
    return 0;
}
