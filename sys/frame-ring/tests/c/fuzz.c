/* For libFuzzer: clang -fsanitize=fuzzer,address,undefined. The first byte says what the others are: the control file of a ring, a
 * stream.capnp, a name, or a bell and the control file of the ring beside it, in the working directory. */
#include "corrupted.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t *copy_of(const uint8_t *data, size_t size) {
    uint8_t *copy = (uint8_t *)malloc(size + 1);
    if (!copy)
        abort();
    memcpy(copy, data, size);
    return copy;
}

static void ring(const uint8_t *data, size_t size) {
    uint8_t *ctl = copy_of(data, size);
    corrupted_seal(ctl, size);
    corrupted_ring(ctl, size);
    free(ctl);
}

/* `first` also says where to begin. */
static void stream(uint8_t first, const uint8_t *data, size_t size) {
    static const char directory[] = "stream", track[] = "stream/video0";
    size_t bell_size = size < HEADWORKS_BELL_SIZE ? size : HEADWORKS_BELL_SIZE;
    uint8_t *bytes = copy_of(data, size);
    if (mkdir(directory, 0700) == 0) {
        if (mkdir(track, 0700) != 0)
            abort();
        corrupted_write(track, "data", bytes, 0);
        if (truncate("stream/video0/data", CORRUPTED_DATA_SIZE) != 0)
            abort();
    }
    corrupted_seal_bell(bytes, bell_size);
    corrupted_seal(bytes + bell_size, size - bell_size);
    corrupted_write(directory, "bell", bytes, bell_size);
    corrupted_write(track, "ctl", bytes + bell_size, size - bell_size);
    corrupted_stream(directory, (headworks_start)(first / 4 % 5));
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    switch (data[0] % 4) {
    case 0: ring(data + 1, size - 1); break;
    case 1: corrupted_description(data + 1, size - 1); break;
    case 2: corrupted_name(data + 1, size - 1); break;
    default: stream(data[0], data + 1, size - 1); break;
    }
    return 0;
}
