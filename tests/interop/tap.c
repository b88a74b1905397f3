/* tap ROOT|SOCKET STREAM [broker]: like `headworks tap STREAM --from oldest --json`, by headworks.h; waits for the stream. In place of a hash the
 * payload itself stands in the line, in hexadecimal. */
#define HEADWORKS_IMPLEMENTATION
#include "headworks.h"

#include <inttypes.h>
#include <stdio.h>

static void print_time(const char *name, int there, int64_t value) {
    if (there)
        printf(",\"%s\":%" PRId64, name, value);
    else
        printf(",\"%s\":null", name);
}

static void print_word(const char *name, const char *word) {
    if (word)
        printf(",\"%s\":\"%s\"", name, word);
    else
        printf(",\"%s\":null", name);
}

static void print_frame(const char *track, const char *codec, const headworks_frame *f, uint64_t lapped) {
    static const char *const accesses[] = {NULL, "idr", "cra", "bla", "recovery_point", "random_access_indicator", "intra", "independent"};
    static const char *const causes[] = {NULL,        "start", "restart",      "source_change", "time_base_jump",
                                         "signalled", "loss",  "configuration"};
    size_t i;
    printf("{\"track\":\"%s\",\"codec\":\"%s\",\"seq\":%" PRIu64 ",\"stream_seq\":%" PRIu64 ",\"segment\":%" PRIu32, track, codec, f->seq,
           f->stream_seq, f->segment);
    print_time("pts", f->has_pts, f->pts);
    print_time("dts", f->has_dts, f->dts);
    print_time("timeline_ns", 1, f->timeline_ns);
    print_word("random_access", accesses[f->random_access]);
    print_word("discontinuity", causes[f->discontinuity]);
    printf(",\"key\":%s,\"len\":%zu,\"damaged\":%s,\"lost\":%" PRIu32 ",\"lapped\":%" PRIu64 ",\"payload\":\"", f->key ? "true" : "false",
           f->size, f->damaged ? "true" : "false", f->packets_lost, lapped);
    for (i = 0; i < f->size; i++)
        printf("%02x", f->data[i]);
    printf("\"}\n");
}

int main(int argc, char **argv) {
    const struct timespec a_moment = {0, 20000000};
    headworks_options options;
    headworks_stream *stream;
    headworks_next next;
    headworks_status status;
    uint64_t lapped = 0;
    int through = argc == 4 && strcmp(argv[3], "broker") == 0;
    if (argc != 3 && !through)
        return 2;
    memset(&options, 0, sizeof options);
    options.root = argv[1];
    options.start = HEADWORKS_START_OLDEST;
    options.verify = 1;
    while ((status = through ? headworks_stream_open_through(&stream, argv[1], argv[2], &options)
                             : headworks_stream_open(&stream, argv[2], &options)) == HEADWORKS_ERROR_SYSTEM &&
           errno == ENOENT)
        nanosleep(&a_moment, NULL);
    while (status >= HEADWORKS_OK) {
        const headworks_ring *ring;
        char codec[5];
        size_t length;
        status = headworks_stream_next(stream, -1, &next);
        if (status == HEADWORKS_LAPPED || status == HEADWORKS_SKIPPED)
            lapped += next.count;
        if (status == HEADWORKS_ENDED)
            return 0;
        if (status != HEADWORKS_FRAME)
            continue;
        ring = headworks_stream_track(stream, next.track);
        memcpy(codec, headworks_ring_header(ring)->codec, sizeof codec);
        for (length = strlen(codec); length > 0 && codec[length - 1] == ' '; length--)
            codec[length - 1] = 0;
        print_frame(headworks_stream_track_name(stream, next.track), codec, &next.frame, lapped);
        fflush(stdout);
        lapped = 0;
    }
    fprintf(stderr, "%s: %s: %s\n", argv[2], headworks_status_text(status), strerror(errno));
    return 1;
}
