/* For libFuzzer: clang -fsanitize=fuzzer,address,undefined. The first byte says what the others are: the control file of a ring, a
 * stream.capnp, or a name. */
#include "corrupted.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *ctl;
    if (size == 0)
        return 0;
    switch (data[0] % 3) {
    case 0:
        ctl = (uint8_t *)malloc(size);
        if (!ctl)
            abort();
        memcpy(ctl, data + 1, size - 1);
        corrupted_seal(ctl, size - 1);
        corrupted_ring(ctl, size - 1);
        free(ctl);
        break;
    case 1: corrupted_description(data + 1, size - 1); break;
    default: corrupted_name(data + 1, size - 1); break;
    }
    return 0;
}
