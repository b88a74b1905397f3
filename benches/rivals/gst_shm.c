/* GStreamer's shmsink and shmsrc under the load of benches/frame_ring (Debian 12 has GStreamer 1.22: no unixfdsink).
 * Build: cc -O2 -o gst_shm gst_shm.c $(pkg-config --cflags --libs gstreamer-app-1.0)
 * Run:   gst_shm writer|reader KEY=VALUE …        with the keys of frame_ring/load.rs
 * The payload is all that shmsink carries: number and stamp are its first two words. */
#define _GNU_SOURCE
#include <gst/app/gstappsink.h>
#include <gst/app/gstappsrc.h>
#include <gst/gst.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SOURCE_SIZE ((size_t)32 << 20)
#define WARM_UP 50
#define LAST ((uint64_t)1 << 63)
#define FRAME_FACTOR 0x9E3779B97F4A7C15u
#define WORD_FACTOR 0xD1B54A32D192ED03u

static const char *place, *result;
static size_t size;
static uint64_t duration_ns, interval_ns, readers, window;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t due)
{
    const struct timespec t = {.tv_sec = (time_t)(due / 1000000000u), .tv_nsec = (long)(due % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) != 0)
        ;
}

static void pin(int core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static uint64_t source_frames(void)
{
    return SOURCE_SIZE / size > 0 ? SOURCE_SIZE / size : 1;
}

struct figures {
    uint64_t *values;
    size_t count, room;
};

static void add(struct figures *f, uint64_t value)
{
    if (f->count == f->room) {
        f->room = f->room ? f->room * 2 : 65536;
        f->values = realloc(f->values, f->room * sizeof *f->values);
    }
    f->values[f->count++] = value;
}

static void lines(FILE *file, const char *key, const struct figures *f)
{
    for (size_t i = 0; i < f->count; i++)
        fprintf(file, "%s %" PRIu64 "\n", key, f->values[i]);
}

static GstElement *launch(const char *text)
{
    GError *error = NULL;
    GstElement *pipeline = gst_parse_launch(text, &error);
    if (!pipeline || error) {
        fprintf(stderr, "%s: %s\n", text, error ? error->message : "no pipeline");
        exit(1);
    }
    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    return pipeline;
}

static int writer(void)
{
    const size_t words = size / 8, frames = source_frames();
    uint64_t *source = malloc(frames * size);
    for (size_t f = 0; f < frames; f++)
        for (size_t i = 0; i < words; i++)
            source[f * words + i] = (f + 1) * FRAME_FACTOR + i * WORD_FACTOR;

    char text[512];
    snprintf(text, sizeof text,
             "appsrc name=source format=time max-bytes=0 max-buffers=%d block=true caps=application/octet-stream "
             "! shmsink socket-path=%s/socket shm-size=%zu wait-for-connection=false sync=false",
             window ? (int)window : 60, place, size * 64 + (4 << 20));
    GstElement *pipeline = launch(text);
    GstAppSrc *output = GST_APP_SRC(gst_bin_get_by_name(GST_BIN(pipeline), "source"));
    char bytes[64];
    snprintf(text, sizeof text, "%s/socket", place);
    while (access(text, F_OK) != 0)
        usleep(1000);
    snprintf(text, sizeof text, "%s.ready", result);
    FILE *ready = fopen(text, "w");
    if (!ready || fclose(ready) != 0)
        return 1;
    for (uint64_t there = 0; there < readers;) {
        ssize_t count = read(0, bytes, 1);
        if (count <= 0)
            return 1;
        there += (uint64_t)count;
    }
    /* Buffers that already lie in shmsink's memory are not copied there. */
    GstAllocator *shared = NULL;
    GstPad *pad = gst_element_get_static_pad(GST_ELEMENT(output), "src");
    GstCaps *caps = gst_caps_new_empty_simple("application/octet-stream");
    GstQuery *query = gst_query_new_allocation(caps, FALSE);
    if (gst_pad_peer_query(pad, query) && gst_query_get_n_allocation_params(query) > 0)
        gst_query_parse_nth_allocation_param(query, 0, &shared, NULL);
    if (!shared)
        fprintf(stderr, "shmsink offers no memory of its own: every frame is copied twice\n");
    gst_query_unref(query);
    gst_caps_unref(caps);
    gst_object_unref(pad);

    struct figures puts = {0}, commits = {0};
    uint64_t late = 0, returned = 0;
    const uint64_t begin = now_ns() + 50000000;
    sleep_until(begin);
    for (uint64_t number = 0;; number++) {
        if (interval_ns > 0) {
            const uint64_t due = begin + number * interval_ns;
            late += now_ns() > due + interval_ns;
            sleep_until(due);
        }
        while (window > 0 && number - returned >= window) {
            ssize_t count = read(0, bytes, sizeof bytes);
            if (count <= 0)
                return 1;
            returned += (uint64_t)count;
        }
        const int is_last = now_ns() >= begin + duration_ns && number > WARM_UP;
        const uint64_t start = now_ns();
        GstBuffer *buffer = gst_buffer_new_allocate(shared, size, NULL);
        if (!buffer)
            return 1;
        GstMapInfo map;
        gst_buffer_map(buffer, &map, GST_MAP_WRITE);
        memcpy(map.data, source + number % frames * words, size);
        const uint64_t stamp = now_ns();
        ((uint64_t *)map.data)[0] = is_last ? number | LAST : number;
        ((uint64_t *)map.data)[1] = stamp;
        gst_buffer_unmap(buffer, &map);
        gst_app_src_push_buffer(output, buffer);
        const uint64_t end = now_ns();
        if (number >= WARM_UP) {
            add(&puts, stamp - start);
            add(&commits, end - stamp);
        }
        if (is_last)
            break;
    }
    FILE *file = fopen(result, "w");
    if (!file)
        return 1;
    fprintf(file, "late %" PRIu64 "\nframes %zu\n", late, commits.count);
    lines(file, "p", &puts);
    lines(file, "c", &commits);
    fclose(file);
    while (read(0, bytes, sizeof bytes) > 0)
        ;
    gst_element_set_state(pipeline, GST_STATE_NULL);
    return 0;
}

static int reader(void)
{
    char text[512];
    snprintf(text, sizeof text,
             "shmsrc socket-path=%s/socket is-live=true do-timestamp=false ! appsink name=sink sync=false max-buffers=4",
             place);
    GstElement *pipeline = launch(text);
    GstAppSink *input = GST_APP_SINK(gst_bin_get_by_name(GST_BIN(pipeline), "sink"));
    gst_element_get_state(pipeline, NULL, NULL, GST_SECOND);
    usleep(100000);
    if (write(1, ".", 1) != 1)
        return 1;

    const uint64_t words = size / 8;
    struct figures latencies = {0};
    uint64_t frames = 0, lost = 0, wrong = 0, first = 0, elapsed = 0, expected = 0, is_last = 0, silent = 0;
    while (!is_last) {
        GstSample *sample = gst_app_sink_try_pull_sample(input, 2 * GST_SECOND);
        const uint64_t awake = now_ns();
        GstMapInfo map;
        if (!sample || !gst_buffer_map(gst_sample_get_buffer(sample), &map, GST_MAP_READ) || map.size != size) {
            silent = 1;
            break;
        }
        const uint64_t *payload = (const uint64_t *)map.data;
        const uint64_t number = payload[0] & ~LAST, stamp = payload[1];
        is_last = payload[0] & LAST;
        uint64_t sum = 0;
        for (uint64_t i = 2; i < words; i++)
            sum += payload[i];
        gst_buffer_unmap(gst_sample_get_buffer(sample), &map);
        gst_sample_unref(sample);
        const uint64_t heard = now_ns();
        if (window > 0 && write(1, ".", 1) != 1)
            return 1;
        const uint64_t start = (number % source_frames() + 1) * FRAME_FACTOR;
        wrong += sum != words * start + words * (words - 1) / 2 * WORD_FACTOR - start - (start + WORD_FACTOR);
        lost += number > expected ? number - expected : 0;
        expected = number + 1;
        if (number >= WARM_UP) {
            if (frames++ == 0)
                first = heard;
            elapsed = heard - first;
            add(&latencies, awake > stamp ? awake - stamp : 0);
        }
    }
    FILE *file = fopen(result, "w");
    if (!file)
        return 1;
    fprintf(file, "read %" PRIu64 "\nlost %" PRIu64 "\nwrong %" PRIu64 "\nelapsed_ns %" PRIu64 "\nsilent %" PRIu64 "\n",
            frames, lost, wrong, elapsed, silent);
    lines(file, "l", &latencies);
    fclose(file);
    gst_element_set_state(pipeline, GST_STATE_NULL);
    return 0;
}

int main(int argc, char **argv)
{
    for (int i = 2; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value)
            return 2;
        *value++ = 0;
        if (!strcmp(argv[i], "place"))
            place = value;
        else if (!strcmp(argv[i], "result"))
            result = value;
        else if (!strcmp(argv[i], "size"))
            size = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "duration_ns"))
            duration_ns = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "interval_ns"))
            interval_ns = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "readers"))
            readers = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "window"))
            window = strtoull(value, NULL, 10);
    }
    if (argc < 2 || !place || !result || size < 16) {
        fprintf(stderr, "usage: %s writer|reader KEY=VALUE …\n", argv[0]);
        return 2;
    }
    pin(strcmp(argv[1], "writer") ? 1 : 0);
    gst_init(NULL, NULL);
    return strcmp(argv[1], "writer") ? reader() : writer();
}
