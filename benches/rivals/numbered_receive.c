/* A receiver on libsrt for feeds of numbered_send: tells of each which messages came to it, and how long they took.
 * Build: cc -O2 -o numbered_receive numbered_receive.c -lsrt        Run: numbered_receive PORT FEEDS MESSAGES SECONDS
 * Prints a line of JSON for each: came, of the numbers below MESSAGES; took_us, from sending to receiving, sorted into hundredths. */
#include <arpa/inet.h>
#include <srt/srt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FEEDS_MAX = 32, MESSAGE = 1316, NUMBER_AT = 2 * 188 + 4 + 14 };

struct feed {
    SRTSOCKET socket;
    char stream_id[513];
    uint8_t *came;
    int32_t *took_us;
    uint64_t count, repeated;
    SRT_TRACEBSTATS statistics;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t get(const char *from, int bytes)
{
    uint64_t value = 0;
    while (bytes-- > 0)
        value = value << 8 | (uint8_t)*from++;
    return value;
}

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, srt_getlasterror_str());
    return 1;
}

static int compare(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static void note(struct feed *feed, uint64_t messages, const char *message, int length)
{
    if (length != MESSAGE)
        return;
    const uint64_t number = get(message + NUMBER_AT, 8), sent_ns = get(message + NUMBER_AT + 8, 8);
    if (number >= messages)
        return;
    if (feed->came[number]++) {
        feed->repeated++;
        return;
    }
    feed->took_us[feed->count++] = (int32_t)((now_ns() - sent_ns) / 1000);
}

int main(int argc, char **argv)
{
    static struct feed feeds[FEEDS_MAX];
    const int count = argc == 5 ? atoi(argv[2]) : 0;
    if (count < 1 || count > FEEDS_MAX) {
        fprintf(stderr, "usage: %s PORT FEEDS MESSAGES SECONDS\n", argv[0]);
        return 2;
    }
    const uint64_t messages = strtoull(argv[3], NULL, 10);
    srt_startup();
    SRTSOCKET listener = srt_create_socket();
    /* The callers say what they want. */
    int latency = 20, buffer = 64 << 20, window = 60000, udp_buffer = 32 << 20, no = 0;
    srt_setsockflag(listener, SRTO_LATENCY, &latency, sizeof latency);
    srt_setsockflag(listener, SRTO_FC, &window, sizeof window);
    srt_setsockflag(listener, SRTO_RCVBUF, &buffer, sizeof buffer);
    srt_setsockflag(listener, SRTO_UDP_RCVBUF, &udp_buffer, sizeof udp_buffer);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (srt_bind(listener, (struct sockaddr *)&address, sizeof address) == SRT_ERROR || srt_listen(listener, count) == SRT_ERROR)
        return fail("listen");
    srt_setsockflag(listener, SRTO_RCVSYN, &no, sizeof no);

    int poll = srt_epoll_create(), there = 0, open = count;
    const int events = SRT_EPOLL_IN | SRT_EPOLL_ERR;
    srt_epoll_add_usock(poll, listener, &events);
    const uint64_t end_ns = now_ns() + strtoull(argv[4], NULL, 10) * 1000000000u;
    while (open > 0 && now_ns() < end_ns) {
        SRTSOCKET ready[FEEDS_MAX + 1];
        int readies = FEEDS_MAX + 1;
        if (srt_epoll_wait(poll, ready, &readies, NULL, NULL, 100, NULL, NULL, NULL, NULL) == SRT_ERROR)
            continue;
        for (int i = 0; i < readies; i++) {
            if (ready[i] == listener) {
                SRTSOCKET socket = srt_accept(listener, NULL, NULL);
                if (socket == SRT_INVALID_SOCK || there == count)
                    continue;
                struct feed *feed = &feeds[there++];
                int length = 512;
                feed->socket = socket;
                feed->came = calloc(messages, 1);
                feed->took_us = calloc(messages, sizeof *feed->took_us);
                srt_getsockflag(socket, SRTO_STREAMID, feed->stream_id, &length);
                srt_setsockflag(socket, SRTO_RCVSYN, &no, sizeof no);
                srt_epoll_add_usock(poll, socket, &events);
                continue;
            }
            struct feed *feed = feeds;
            while (feed < feeds + there && feed->socket != ready[i])
                feed++;
            if (feed == feeds + there)
                continue;
            for (;;) {
                char message[1500];
                const int length = srt_recvmsg(feed->socket, message, sizeof message);
                if (length > 0) {
                    note(feed, messages, message, length);
                    continue;
                }
                if (srt_getlasterror(NULL) != SRT_EASYNCRCV) {
                    srt_bstats(feed->socket, &feed->statistics, 0);
                    srt_epoll_remove_usock(poll, feed->socket);
                    srt_close(feed->socket);
                    feed->socket = SRT_INVALID_SOCK;
                    open--;
                }
                break;
            }
        }
    }
    for (int i = 0; i < there; i++) {
        struct feed *feed = &feeds[i];
        qsort(feed->took_us, feed->count, sizeof *feed->took_us, compare);
        const int32_t half = feed->count ? feed->took_us[feed->count / 2] : 0;
        const int32_t most = feed->count ? feed->took_us[feed->count * 99 / 100] : 0;
        printf("{\"stream\":\"%s\",\"came\":%llu,\"repeated\":%llu,\"took_p50_us\":%d,\"took_p99_us\":%d,\"given_up\":%d,\"loss_reports\":%d}\n",
               feed->stream_id, (unsigned long long)feed->count, (unsigned long long)feed->repeated, half, most,
               feed->statistics.pktRcvDropTotal, feed->statistics.pktSentNAKTotal);
    }
    srt_cleanup();
    return there == count && open == 0 ? 0 : 1;
}
