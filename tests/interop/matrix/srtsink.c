/*
 * What gst-launch-1.0 cannot do: runs the pipeline of its arguments until its standard input ends, past the end of the stream and with the
 * connection still there; and for whatever comes there, prints the numbers among the statistics of the element named "srt" as lines of
 * name=value. Of a listener they are those of its one caller.
 */
#define GLIB_DISABLE_DEPRECATION_WARNINGS

#include <gst/gst.h>
#include <stdio.h>
#include <unistd.h>

static gboolean print_number(GQuark name, const GValue *value, gpointer unused)
{
    (void)unused;
    if (G_VALUE_HOLDS_INT(value) || G_VALUE_HOLDS_INT64(value) || G_VALUE_HOLDS_UINT64(value) || G_VALUE_HOLDS_DOUBLE(value)) {
        gchar *text = gst_value_serialize(value);
        printf("%s=%s\n", g_quark_to_string(name), text);
        g_free(text);
    }
    return TRUE;
}

static void print_statistics(GstElement *sink)
{
    GstStructure *statistics = NULL;
    g_object_get(sink, "stats", &statistics, NULL);
    const GValue *callers = gst_structure_get_value(statistics, "callers");
    if (callers != NULL) {
        GValueArray *each = g_value_get_boxed(callers);
        for (guint index = 0; index < each->n_values; index++)
            gst_structure_foreach(gst_value_get_structure(g_value_array_get_nth(each, index)), print_number, NULL);
    } else {
        gst_structure_foreach(statistics, print_number, NULL);
    }
    gst_structure_free(statistics);
    fflush(stdout);
}

/* What went wrong, of all elements; 0 if nothing did. */
static int print_errors(GstElement *pipeline)
{
    int errors = 0;
    GstBus *bus = gst_element_get_bus(pipeline);
    for (GstMessage *message; (message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR)) != NULL; errors++) {
        GError *error = NULL;
        gchar *more = NULL;
        gst_message_parse_error(message, &error, &more);
        fprintf(stderr, "%s: %s\n%s\n", GST_OBJECT_NAME(message->src), error->message, more != NULL ? more : "");
        g_error_free(error);
        g_free(more);
        gst_message_unref(message);
    }
    gst_object_unref(bus);
    return errors;
}

int main(int argc, char **argv)
{
    gst_init(&argc, &argv);
    GError *error = NULL;
    GstElement *pipeline = gst_parse_launchv((const gchar **)argv + 1, &error);
    if (pipeline == NULL || error != NULL) {
        fprintf(stderr, "%s\n", error->message);
        return 2;
    }
    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    GstElement *sink = gst_bin_get_by_name(GST_BIN(pipeline), "srt");
    char asked[64];
    while (read(STDIN_FILENO, asked, sizeof asked) > 0)
        print_statistics(sink);
    gst_object_unref(sink);
    gst_element_set_state(pipeline, GST_STATE_NULL);
    int errors = print_errors(pipeline);
    gst_object_unref(pipeline);
    return errors != 0;
}
