/* Decodes the newest key frame of a stream with libavcodec and writes it as a PNG: keyframe_to_png /dev/shm/headworks/cam1 key.png
 *
 *     cc -std=c99 -I sys/frame-ring/include sys/frame-ring/examples/c/keyframe_to_png.c -o keyframe_to_png \
 *         $(pkg-config --cflags --libs libavcodec libavutil libswscale)
 */
#define HEADWORKS_IMPLEMENTATION
#include "headworks.h"

#include <libavcodec/avcodec.h>
#include <libswscale/swscale.h>
#include <stdio.h>

/* How long to wait for a key frame. */
#define TIMEOUT_MS 10000

static void fail(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

/* The four characters of a ring's header. */
static enum AVCodecID codec_of(const char *codec) {
    static const struct {
        const char *codec;
        enum AVCodecID id;
    } known[] = {{"h264", AV_CODEC_ID_H264}, {"hevc", AV_CODEC_ID_HEVC}, {"mpg2", AV_CODEC_ID_MPEG2VIDEO}};
    size_t i;
    for (i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].codec, codec) == 0)
            return known[i].id;
    return AV_CODEC_ID_NONE;
}

static AVCodecContext *decoder_of(const headworks_ring *ring, uint32_t generation) {
    const headworks_header *header = headworks_ring_header(ring);
    const AVCodec *codec = avcodec_find_decoder(codec_of(header->codec));
    AVCodecContext *decoder = codec ? avcodec_alloc_context3(codec) : NULL;
    size_t room = header->config_size, length;
    if (!decoder)
        fail(header->codec, "no decoder");
    /* Parameter sets. Most encoders repeat them before each key frame; those that do not are the reason for this block. */
    decoder->extradata = (uint8_t *)av_mallocz(room + AV_INPUT_BUFFER_PADDING_SIZE);
    if (decoder->extradata && headworks_ring_configuration(ring, generation, decoder->extradata, room, &length) == HEADWORKS_OK)
        decoder->extradata_size = (int)length;
    decoder->thread_count = 1;
    if (avcodec_open2(decoder, codec, NULL) < 0)
        fail(header->codec, "the decoder does not open");
    return decoder;
}

static void give(AVCodecContext *decoder, const headworks_frame *frame) {
    AVPacket *packet = av_packet_alloc();
    if (!packet || av_new_packet(packet, (int)frame->size) < 0)
        fail("packet", "no memory");
    /* The decoder wants room behind the bytes, and keeps them: this is a copy. */
    memcpy(packet->data, frame->data, frame->size);
    if (avcodec_send_packet(decoder, packet) < 0)
        fail("decoder", "it does not take the frame");
    av_packet_free(&packet);
}

static void write_png(const AVFrame *picture, const char *path) {
    const AVCodec *codec = avcodec_find_encoder(AV_CODEC_ID_PNG);
    AVCodecContext *encoder = codec ? avcodec_alloc_context3(codec) : NULL;
    AVFrame *rgb = av_frame_alloc();
    AVPacket *packet = av_packet_alloc();
    struct SwsContext *scaler = sws_getContext(picture->width, picture->height, (enum AVPixelFormat)picture->format, picture->width,
                                               picture->height, AV_PIX_FMT_RGB24, SWS_BILINEAR, NULL, NULL, NULL);
    FILE *file;
    if (!encoder || !rgb || !packet || !scaler)
        fail("PNG", "no encoder, no conversion or no memory");
    rgb->width = encoder->width = picture->width;
    rgb->height = encoder->height = picture->height;
    rgb->format = encoder->pix_fmt = AV_PIX_FMT_RGB24;
    encoder->time_base.num = encoder->time_base.den = 1;
    if (av_frame_get_buffer(rgb, 0) < 0 ||
        sws_scale(scaler, (const uint8_t *const *)picture->data, picture->linesize, 0, picture->height, rgb->data, rgb->linesize) < 0 ||
        avcodec_open2(encoder, codec, NULL) < 0 || avcodec_send_frame(encoder, rgb) < 0 || avcodec_receive_packet(encoder, packet) < 0)
        fail("PNG", "cannot be encoded");
    file = fopen(path, "wb");
    if (!file || fwrite(packet->data, 1, (size_t)packet->size, file) != (size_t)packet->size || fclose(file) != 0)
        fail(path, "cannot be written");
    sws_freeContext(scaler);
    av_packet_free(&packet);
    av_frame_free(&rgb);
    avcodec_free_context(&encoder);
}

int main(int argc, char **argv) {
    headworks_stream *stream;
    headworks_next next;
    headworks_status status;
    AVCodecContext *decoder = NULL;
    AVFrame *picture = av_frame_alloc();
    uint32_t track = 0;
    int half = 0;
    if (argc != 3 || !picture)
        fail("usage", "keyframe_to_png STREAM_DIRECTORY FILE");
    /* The first frame of the video is the newest key frame that is still there, else the next one. */
    status = headworks_stream_open_directory(&stream, argv[1], NULL);
    if (status != HEADWORKS_OK)
        fail(argv[1], headworks_status_text(status));
    while (!decoder || half) {
        const headworks_ring *ring;
        status = headworks_stream_next(stream, TIMEOUT_MS, &next);
        if (status == HEADWORKS_TIMEOUT || status == HEADWORKS_ENDED)
            fail(argv[1], "no key frame");
        ring = headworks_stream_track(stream, next.track);
        if (status != HEADWORKS_FRAME || (decoder && next.track != track))
            continue;
        if (!decoder) {
            if (headworks_ring_header(ring)->kind != HEADWORKS_KIND_VIDEO || !next.frame.key)
                continue;
            decoder = decoder_of(ring, next.frame.config_generation);
            track = next.track;
        }
        give(decoder, &next.frame);
        /* Field-coded H.264 has a frame of the ring for each field. */
        half = next.frame.picture_structure == HEADWORKS_STRUCTURE_TOP_FIRST || next.frame.picture_structure == HEADWORKS_STRUCTURE_BOTTOM_FIRST;
    }
    /* Nothing more comes: the decoder need not hold the picture back. */
    if (avcodec_send_packet(decoder, NULL) < 0 || avcodec_receive_frame(decoder, picture) < 0)
        fail("decoder", "no picture");
    write_png(picture, argv[2]);
    printf("%s: %dx%d, pts %lld\n", argv[2], picture->width, picture->height, (long long)next.frame.pts);
    avcodec_free_context(&decoder);
    av_frame_free(&picture);
    headworks_stream_close(stream);
    return 0;
}
