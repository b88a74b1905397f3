/* GStreamer as a receiver: one pipeline, a branch for each feed, its port one above that of the feed before.
 * Build: cc -O2 -o gst_receive gst_receive.c $(pkg-config --cflags --libs gstreamer-1.0)
 * Run:   gst_receive PORT FEEDS SECONDS receive|demux        0 feeds: only whether the elements are there
 * What runs is the description that gst-launch-1.0 would be given; added are counters before the sinks, and a look at the elements'
 * statistics twice a second. Ends when all senders have hung up. Prints one line of JSON: buffers and bytes that reached the sinks,
 * of them buffers of video, packets that were missing at first. */
#include <gst/gst.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FEEDS_MAX 64

/* Each has one writer, its feed's thread. */
struct counts {
    guint64 buffers, bytes;
    gboolean video;
};

static struct counts counts[2 * FEEDS_MAX];
static int lost[FEEDS_MAX];
static GstElement *sources[FEEDS_MAX];
static int feeds, sinks;

static GstPadProbeReturn count(GstPad *pad, GstPadProbeInfo *info, gpointer data)
{
    struct counts *of = data;
    (void)pad;
    of->buffers++;
    of->bytes += gst_buffer_get_size(GST_PAD_PROBE_INFO_BUFFER(info));
    return GST_PAD_PROBE_OK;
}

/* A feed's statistics are gone when its sender is, so the newest that there were stay. */
static gboolean look(gpointer unused)
{
    (void)unused;
    for (int feed = 0; feed < feeds; feed++) {
        GstStructure *statistics = NULL;
        g_object_get(sources[feed], "stats", &statistics, NULL);
        const GValue *list = statistics ? gst_structure_get_value(statistics, "callers") : NULL;
        const GValueArray *callers = list ? g_value_get_boxed(list) : NULL;
        for (guint i = 0; callers && i < callers->n_values; i++)
            gst_structure_get_int(g_value_get_boxed(&callers->values[i]), "packets-received-lost", &lost[feed]);
        if (statistics)
            gst_structure_free(statistics);
    }
    return G_SOURCE_CONTINUE;
}

static gboolean over(gpointer loop)
{
    g_main_loop_quit(loop);
    return G_SOURCE_REMOVE;
}

static gboolean message(GstBus *bus, GstMessage *what, gpointer loop)
{
    (void)bus;
    if (GST_MESSAGE_TYPE(what) == GST_MESSAGE_ERROR) {
        GError *error = NULL;
        gst_message_parse_error(what, &error, NULL);
        fprintf(stderr, "%s\n", error->message);
        g_error_free(error);
    }
    if (GST_MESSAGE_TYPE(what) == GST_MESSAGE_ERROR || GST_MESSAGE_TYPE(what) == GST_MESSAGE_EOS)
        g_main_loop_quit(loop);
    return TRUE;
}

static gboolean have(const char *name)
{
    GstElementFactory *factory = gst_element_factory_find(name);
    if (!factory)
        fprintf(stderr, "no element %s\n", name);
    else
        gst_object_unref(factory);
    return factory != NULL;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: %s PORT FEEDS SECONDS receive|demux\n", argv[0]);
        return 2;
    }
    const int port = atoi(argv[1]), seconds = atoi(argv[3]);
    const gboolean demux = strcmp(argv[4], "demux") == 0;
    feeds = atoi(argv[2]);
    gst_init(NULL, NULL);
    if (feeds < 0 || feeds > FEEDS_MAX || !have("srtsrc") || !have("tsdemux") || !have("fakesink"))
        return 1;
    if (feeds == 0)
        return 0;

    GString *text = g_string_new(NULL);
    for (int feed = 0; feed < feeds; feed++) {
        g_string_append_printf(text, "srtsrc name=source%d uri=srt://127.0.0.1:%d?mode=listener latency=120 ! ", feed, port + feed);
        const char *sink = "fakesink sync=false async=false";
        if (demux) {
            g_string_append_printf(text, "tsdemux name=demux%d ", feed);
            g_string_append_printf(text, "demux%d. ! video/x-h264 ! %s name=sink%d ", feed, sink, sinks);
            g_string_append_printf(text, "demux%d. ! audio/mpeg ! %s name=sink%d ", feed, sink, sinks + 1);
            counts[sinks].video = TRUE;
            sinks += 2;
        } else {
            g_string_append_printf(text, "%s name=sink%d ", sink, sinks++);
        }
    }
    GError *error = NULL;
    GstElement *pipeline = gst_parse_launch(text->str, &error);
    if (!pipeline || error) {
        fprintf(stderr, "%s: %s\n", text->str, error ? error->message : "no pipeline");
        return 1;
    }
    char name[32];
    for (int sink = 0; sink < sinks; sink++) {
        snprintf(name, sizeof name, "sink%d", sink);
        GstElement *element = gst_bin_get_by_name(GST_BIN(pipeline), name);
        GstPad *pad = gst_element_get_static_pad(element, "sink");
        gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, count, &counts[sink], NULL);
    }
    for (int feed = 0; feed < feeds; feed++) {
        snprintf(name, sizeof name, "source%d", feed);
        sources[feed] = gst_bin_get_by_name(GST_BIN(pipeline), name);
    }

    GMainLoop *loop = g_main_loop_new(NULL, FALSE);
    gst_bus_add_watch(gst_element_get_bus(pipeline), message, loop);
    g_timeout_add(500, look, NULL);
    g_timeout_add_seconds((guint)seconds, over, loop);
    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    g_main_loop_run(loop);
    gst_element_set_state(pipeline, GST_STATE_NULL);

    struct counts sum = {0};
    guint64 video = 0;
    gint64 missing = 0;
    for (int sink = 0; sink < sinks; sink++) {
        sum.buffers += counts[sink].buffers;
        sum.bytes += counts[sink].bytes;
        video += counts[sink].video ? counts[sink].buffers : 0;
    }
    for (int feed = 0; feed < feeds; feed++)
        missing += lost[feed];
    printf("{\"buffers\":%" G_GUINT64_FORMAT ",\"bytes\":%" G_GUINT64_FORMAT ",\"video\":%" G_GUINT64_FORMAT ",\"lost\":%" G_GINT64_FORMAT "}\n",
           sum.buffers, sum.bytes, video, missing);
    return 0;
}
