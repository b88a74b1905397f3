/* A sender on libsrt whose every message says which it is: a transport stream of which each message is a PAT, a PMT and one whole PES
 * packet of private data, with its number and its time of sending (CLOCK_MONOTONIC).
 * Build: cc -O2 -o numbered_send numbered_send.c -lsrt -lpthread
 * Run: numbered_send PER_SECOND MESSAGES FEED…, a FEED being PORT:LATENCY_MS:STREAMID of a listener on the loopback interface.
 * Each feed has a connection and a thread. What follows the messages asked for shows which of them are lost, and is not counted.
 * Prints a line of JSON for each: sent, late (messages handed in more than 2 ms after their time), retransmitted, dropped. */
#include <arpa/inet.h>
#include <pthread.h>
#include <srt/srt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PACKET = 188, PACKETS = 7, MESSAGE = PACKET * PACKETS, PMT_PID = 0x1000, DATA_PID = 0x100 };
/* Of a PES packet, after its header of 14 bytes. */
enum { PES_PACKETS = PACKETS - 2, PES_PAYLOAD = PES_PACKETS * (PACKET - 4) - 14 };

static long per_second;
static uint64_t messages;

struct feed {
    int port, latency_ms;
    const char *stream_id;
    uint64_t late;
    SRT_TRACEBSTATS statistics;
    int failed;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void sleep_until(uint64_t at_ns)
{
    struct timespec at = {.tv_sec = (time_t)(at_ns / 1000000000u), .tv_nsec = (long)(at_ns % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) != 0)
        ;
}

static void put(uint8_t *to, uint64_t value, int bytes)
{
    while (bytes-- > 0) {
        to[bytes] = (uint8_t)value;
        value >>= 8;
    }
}

/* CRC-32 of MPEG-2 sections. */
static uint32_t crc(const uint8_t *bytes, int length)
{
    uint32_t crc = 0xffffffff;
    while (length-- > 0) {
        crc ^= (uint32_t)*bytes++ << 24;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 0x80000000 ? crc << 1 ^ 0x04c11db7 : crc << 1;
    }
    return crc;
}

static void header(uint8_t *packet, int pid, int start, uint64_t counter)
{
    packet[0] = 0x47;
    packet[1] = (uint8_t)((start ? 0x40 : 0) | pid >> 8);
    packet[2] = (uint8_t)pid;
    packet[3] = (uint8_t)(0x10 | (counter & 0xf));
}

/* A section without its CRC in a packet of its own. */
static void section(uint8_t *packet, int pid, uint64_t counter, const uint8_t *bytes, int length)
{
    memset(packet, 0xff, PACKET);
    header(packet, pid, 1, counter);
    packet[4] = 0;
    memcpy(packet + 5, bytes, (size_t)length);
    put(packet + 5 + length, crc(bytes, length), 4);
}

static void fill(uint8_t *message, uint64_t number)
{
    static const uint8_t pat[] = {0x00, 0xb0, 13, 0, 1, 0xc1, 0, 0, 0, 1, 0xe0 | PMT_PID >> 8, PMT_PID & 0xff};
    /* One track of private data (stream_type 6), without a PCR. */
    static const uint8_t pmt[] = {0x02, 0xb0, 18, 0, 1, 0xc1, 0, 0, 0xff, 0xff, 0xf0, 0, 0x06, 0xe0 | DATA_PID >> 8, DATA_PID & 0xff, 0xf0, 0};
    section(message, 0, number, pat, sizeof pat);
    section(message + PACKET, PMT_PID, number, pmt, sizeof pmt);

    uint8_t pes[14 + PES_PAYLOAD] = {0, 0, 1, 0xbd, 0, 0, 0x80, 0x80, 5};
    put(pes + 4, sizeof pes - 6, 2);
    const uint64_t pts = number * 90000u / (uint64_t)per_second;
    pes[9] = (uint8_t)(0x21 | (pts >> 29 & 0xe));
    put(pes + 10, (pts >> 15 & 0x7fff) << 1 | 1, 2);
    put(pes + 12, (pts & 0x7fff) << 1 | 1, 2);
    put(pes + 14, number, 8);
    put(pes + 22, now_ns(), 8);
    for (int i = 0; i < PES_PACKETS; i++) {
        uint8_t *packet = message + (2 + i) * PACKET;
        header(packet, DATA_PID, i == 0, number * PES_PACKETS + (uint64_t)i);
        memcpy(packet + 4, pes + i * (PACKET - 4), PACKET - 4);
    }
}

static int connect_to(struct feed *feed)
{
    SRTSOCKET socket = srt_create_socket();
    int connect_ms = 15000, buffer = 64 << 20, window = 60000, udp_buffer = 8 << 20;
    srt_setsockflag(socket, SRTO_LATENCY, &feed->latency_ms, sizeof feed->latency_ms);
    srt_setsockflag(socket, SRTO_STREAMID, feed->stream_id, (int)strlen(feed->stream_id));
    srt_setsockflag(socket, SRTO_CONNTIMEO, &connect_ms, sizeof connect_ms);
    /* What a path of 60 Mbit/s and half a second takes, which the defaults do not hold. */
    srt_setsockflag(socket, SRTO_FC, &window, sizeof window);
    srt_setsockflag(socket, SRTO_SNDBUF, &buffer, sizeof buffer);
    srt_setsockflag(socket, SRTO_UDP_SNDBUF, &udp_buffer, sizeof udp_buffer);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)feed->port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (srt_connect(socket, (struct sockaddr *)&address, sizeof address) == SRT_ERROR) {
        fprintf(stderr, "%s: %s\n", feed->stream_id, srt_getlasterror_str());
        return SRT_INVALID_SOCK;
    }
    return socket;
}

static void *send_all(void *argument)
{
    struct feed *feed = argument;
    SRTSOCKET socket = connect_to(feed);
    if (socket == SRT_INVALID_SOCK) {
        feed->failed = 1;
        return NULL;
    }
    /* Half a second, and what the peer may still wait for. */
    const uint64_t uncounted = (uint64_t)per_second * (uint64_t)(500 + feed->latency_ms) / 1000;
    const uint64_t began = now_ns();
    for (uint64_t number = 0; number < messages + uncounted; number++) {
        const uint64_t due = began + number * 1000000000u / (uint64_t)per_second;
        sleep_until(due);
        feed->late += now_ns() > due + 2000000;
        uint8_t message[MESSAGE];
        fill(message, number);
        if (srt_sendmsg2(socket, (const char *)message, sizeof message, NULL) == SRT_ERROR) {
            fprintf(stderr, "%s: message %llu: %s\n", feed->stream_id, (unsigned long long)number, srt_getlasterror_str());
            feed->failed = 1;
            break;
        }
    }
    srt_bstats(socket, &feed->statistics, 0);
    srt_close(socket);
    return NULL;
}

int main(int argc, char **argv)
{
    enum { FEEDS_MAX = 32 };
    static struct feed feeds[FEEDS_MAX];
    pthread_t threads[FEEDS_MAX];
    const int count = argc - 3;
    if (count < 1 || count > FEEDS_MAX || (per_second = atol(argv[1])) < 1) {
        fprintf(stderr, "usage: %s PER_SECOND MESSAGES PORT:LATENCY_MS:STREAMID…\n", argv[0]);
        return 2;
    }
    messages = strtoull(argv[2], NULL, 10);
    srt_startup();
    for (int i = 0; i < count; i++) {
        char *port = argv[i + 3], *latency = strchr(port, ':'), *name = latency ? strchr(latency + 1, ':') : NULL;
        if (!name) {
            fprintf(stderr, "%s: not PORT:LATENCY_MS:STREAMID\n", port);
            return 2;
        }
        feeds[i] = (struct feed){.port = atoi(port), .latency_ms = atoi(latency + 1), .stream_id = name + 1};
        pthread_create(&threads[i], NULL, send_all, &feeds[i]);
    }
    int failed = 0;
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
        const SRT_TRACEBSTATS *it = &feeds[i].statistics;
        failed |= feeds[i].failed;
        printf("{\"stream\":\"%s\",\"sent\":%lld,\"late\":%llu,\"retransmitted\":%d,\"dropped\":%d,\"loss_reports\":%d,\"rtt_ms\":%.2f}\n",
               feeds[i].stream_id, (long long)it->pktSentUniqueTotal, (unsigned long long)feeds[i].late, it->pktRetransTotal,
               it->pktSndDropTotal, it->pktRecvNAKTotal, it->msRTT);
    }
    srt_cleanup();
    return failed;
}
