/* The least a receiver on libsrt can do: listen on one port, accept so many feeds, receive every message and drop it.
 * Build: cc -O2 -o libsrt_receive libsrt_receive.c -lsrt        Run: libsrt_receive PORT FEEDS SECONDS [PASSPHRASE]
 * Prints one line of JSON: messages, bytes, lost. */
#include <arpa/inet.h>
#include <srt/srt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, srt_getlasterror_str());
    return 1;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: %s PORT FEEDS SECONDS [PASSPHRASE]\n", argv[0]);
        return 2;
    }
    const int feeds = atoi(argv[2]);
    const int64_t seconds = atoll(argv[3]);
    srt_startup();
    SRTSOCKET listener = srt_create_socket();
    int latency = 120, buffer = 64 << 20, window = 60000, no = 0;
    srt_setsockflag(listener, SRTO_RCVLATENCY, &latency, sizeof latency);
    srt_setsockflag(listener, SRTO_FC, &window, sizeof window);
    srt_setsockflag(listener, SRTO_RCVBUF, &buffer, sizeof buffer);
    int udp_buffer = 32 << 20;
    srt_setsockflag(listener, SRTO_UDP_RCVBUF, &udp_buffer, sizeof udp_buffer);
    if (argc > 4)
        srt_setsockflag(listener, SRTO_PASSPHRASE, argv[4], (int)strlen(argv[4]));

    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (srt_bind(listener, (struct sockaddr *)&address, sizeof address) == SRT_ERROR || srt_listen(listener, feeds) == SRT_ERROR)
        return fail("listen");
    int poll = srt_epoll_create();
    const int events = SRT_EPOLL_IN | SRT_EPOLL_ERR;
    for (int i = 0; i < feeds; i++) {
        SRTSOCKET feed = srt_accept(listener, NULL, NULL);
        if (feed == SRT_INVALID_SOCK)
            return fail("accept");
        srt_setsockflag(feed, SRTO_RCVSYN, &no, sizeof no);
        srt_epoll_add_usock(poll, feed, &events);
    }

    unsigned long long messages = 0, bytes = 0, lost = 0;
    char message[1500];
    const int64_t end = srt_time_now() + seconds * 1000000;
    int open = feeds;
    while (open > 0 && srt_time_now() < end) {
        SRTSOCKET ready[256];
        int count = 256;
        if (srt_epoll_wait(poll, ready, &count, NULL, NULL, 100, NULL, NULL, NULL, NULL) == SRT_ERROR)
            continue;
        for (int i = 0; i < count; i++) {
            for (;;) {
                int length = srt_recvmsg(ready[i], message, sizeof message);
                if (length <= 0) {
                    if (srt_getlasterror(NULL) != SRT_EASYNCRCV) {
                        SRT_TRACEBSTATS statistics;
                        if (srt_bstats(ready[i], &statistics, 0) == 0)
                            lost += (unsigned long long)statistics.pktRcvDropTotal;
                        srt_epoll_remove_usock(poll, ready[i]);
                        srt_close(ready[i]);
                        open--;
                    }
                    break;
                }
                messages++;
                bytes += (unsigned long long)length;
            }
        }
    }
    printf("{\"messages\":%llu,\"bytes\":%llu,\"lost\":%llu}\n", messages, bytes, lost);
    fflush(stdout);
    srt_cleanup();
    return 0;
}
