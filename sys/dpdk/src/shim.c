/* DPDK as far as it is needed here, as functions that can be called from elsewhere: most of DPDK's are inline. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>

#define BURST 64

/* A frame that has come in. */
struct headworks_frame {
    struct rte_mbuf *buffer;
    const uint8_t *bytes;
    /* Bytes of the first buffer, and of all. */
    uint32_t length;
    uint32_t whole;
};

struct headworks_wanted {
    uint32_t frame_size;
    uint16_t receive_descriptors;
    uint16_t send_descriptors;
};

struct headworks_started {
    struct rte_mempool *pool;
    uint8_t mac[6];
    uint16_t receive_descriptors;
    uint16_t send_descriptors;
    char driver[32];
};

struct headworks_lost {
    uint64_t missed;
    uint64_t errors;
    uint64_t no_buffer;
};

/* Everything gives 0 or more, or an errno as a negative number. */
static int failed(int result) {
    return result == -1 ? -(rte_errno > 0 ? rte_errno : EIO) : result;
}

int headworks_dpdk_start(int count, char **arguments) {
    int result = rte_eal_init(count, arguments);
    return result < 0 ? -(rte_errno > 0 ? rte_errno : EIO) : 0;
}

/* Threads that DPDK knows have caches of buffers. 1: it has not known this one before; 0: it has. */
int headworks_dpdk_enter_thread(void) {
    if (rte_lcore_id() != LCORE_ID_ANY)
        return 0;
    int result = failed(rte_thread_register());
    return result < 0 ? result : 1;
}

void headworks_dpdk_leave_thread(void) {
    rte_thread_unregister();
}

/* Finds the port of a device, which is made if it is virtual. */
int headworks_dpdk_probe(const char *device, uint16_t *port, struct rte_device **handle) {
    struct rte_dev_iterator iterator;
    struct rte_eth_dev_info info;
    char name[RTE_ETH_NAME_MAX_LEN] = "";
    size_t length = strcspn(device, ",");
    int result = rte_dev_probe(device);
    if (result < 0 && result != -EEXIST)
        return failed(result);
    if (length < sizeof(name))
        memcpy(name, device, length);
    if (rte_eth_dev_get_port_by_name(name, port) != 0) {
        if (rte_eth_iterator_init(&iterator, device) != 0)
            return -ENODEV;
        *port = rte_eth_iterator_next(&iterator);
        if (*port == RTE_MAX_ETHPORTS)
            return -ENODEV;
        rte_eth_iterator_cleanup(&iterator);
    }
    result = rte_eth_dev_info_get(*port, &info);
    *handle = result == 0 ? info.device : NULL;
    return result;
}

/* Lets go of a device whose port is closed, or never was open. */
void headworks_dpdk_remove(struct rte_device *handle) {
    rte_dev_remove(handle);
}

int headworks_dpdk_open(uint16_t port, const struct headworks_wanted *wanted, struct headworks_started *started) {
    struct rte_eth_dev_info info;
    struct rte_eth_conf configuration;
    struct rte_ether_addr mac;
    char name[RTE_MEMPOOL_NAMESIZE];
    int result, socket = rte_eth_dev_socket_id(port);
    memset(&configuration, 0, sizeof(configuration));
    memset(started, 0, sizeof(*started));
    started->receive_descriptors = wanted->receive_descriptors;
    started->send_descriptors = wanted->send_descriptors;
    result = rte_eth_dev_info_get(port, &info);
    if (result < 0)
        return result;
    strncpy(started->driver, info.driver_name, sizeof(started->driver) - 1);
    if (info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE)
        configuration.txmode.offloads |= RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
    result = rte_eth_dev_configure(port, 1, 1, &configuration);
    if (result < 0)
        return result;
    result = rte_eth_dev_adjust_nb_rx_tx_desc(port, &started->receive_descriptors, &started->send_descriptors);
    if (result < 0)
        return result;
    snprintf(name, sizeof(name), "headworks-%u", port);
    /* Both rings full, a burst each way, and what threads' caches keep. */
    started->pool = rte_pktmbuf_pool_create(
        name, started->receive_descriptors + started->send_descriptors + 2 * BURST + 2 * 256, 256, 0,
        (uint16_t)(RTE_PKTMBUF_HEADROOM + wanted->frame_size), socket);
    if (started->pool == NULL)
        return -(rte_errno > 0 ? rte_errno : ENOMEM);
    result = rte_eth_rx_queue_setup(port, 0, started->receive_descriptors, socket, NULL, started->pool);
    if (result == 0)
        result = rte_eth_tx_queue_setup(port, 0, started->send_descriptors, socket, NULL);
    if (result == 0)
        result = rte_eth_macaddr_get(port, &mac);
    if (result == 0)
        result = rte_eth_dev_start(port);
    if (result < 0) {
        rte_mempool_free(started->pool);
        started->pool = NULL;
        return result;
    }
    memcpy(started->mac, mac.addr_bytes, sizeof(started->mac));
    return 0;
}

/* No frame of the pool is anywhere but in the port's rings. */
void headworks_dpdk_close(uint16_t port, struct rte_mempool *pool) {
    rte_eth_dev_stop(port);
    rte_eth_dev_close(port);
    rte_mempool_free(pool);
}

/* 0: the card takes these groups; 1: all of them; 2: everything. */
int headworks_dpdk_take_groups(uint16_t port, uint8_t (*macs)[6], uint32_t count) {
    if (rte_eth_dev_set_mc_addr_list(port, (struct rte_ether_addr *)macs, count) == 0)
        return 0;
    if (rte_eth_allmulticast_enable(port) == 0)
        return 1;
    int result = rte_eth_promiscuous_enable(port);
    return result < 0 ? result : 2;
}

uint32_t headworks_dpdk_receive(uint16_t port, struct headworks_frame *frames, uint32_t count) {
    struct rte_mbuf *buffers[BURST];
    uint16_t received = rte_eth_rx_burst(port, 0, buffers, (uint16_t)(count < BURST ? count : BURST));
    for (uint16_t i = 0; i < received; i++) {
        frames[i].buffer = buffers[i];
        frames[i].bytes = rte_pktmbuf_mtod(buffers[i], const uint8_t *);
        frames[i].length = rte_pktmbuf_data_len(buffers[i]);
        frames[i].whole = rte_pktmbuf_pkt_len(buffers[i]);
    }
    return received;
}

void headworks_dpdk_free(struct rte_mbuf *buffer) {
    rte_pktmbuf_free(buffer);
}

/* A buffer to be filled, and how many bytes it holds. */
struct rte_mbuf *headworks_dpdk_take(struct rte_mempool *pool, uint8_t **bytes, uint32_t *room) {
    struct rte_mbuf *buffer = rte_pktmbuf_alloc(pool);
    if (buffer != NULL) {
        *bytes = rte_pktmbuf_mtod(buffer, uint8_t *);
        *room = rte_pktmbuf_tailroom(buffer);
    }
    return buffer;
}

void headworks_dpdk_set_length(struct rte_mbuf *buffer, uint32_t length) {
    buffer->data_len = (uint16_t)length;
    buffer->pkt_len = length;
}

/* Hands buffers to the card; those that it has taken are its own. */
uint32_t headworks_dpdk_send(uint16_t port, struct rte_mbuf **buffers, uint32_t count) {
    return rte_eth_tx_burst(port, 0, buffers, (uint16_t)count);
}

void headworks_dpdk_lost(uint16_t port, struct headworks_lost *lost) {
    struct rte_eth_stats statistics;
    memset(lost, 0, sizeof(*lost));
    if (rte_eth_stats_get(port, &statistics) != 0)
        return;
    lost->missed = statistics.imissed;
    lost->errors = statistics.ierrors;
    lost->no_buffer = statistics.rx_nombuf;
}
