/* corrupted DIRECTORY SECONDS SEED: takes a stream that was written honestly, changes bytes of its files at random, before and while
 * they are read, and reads them. Says how many rounds it survived. */
#include "corrupted.h"

#include <pthread.h>

static uint64_t random_state;

static uint64_t draw(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* Values that break things: any, small, all ones, powers of two and their neighbours. */
static uint64_t wild(void) {
    switch (draw() % 5) {
    case 0: return draw();
    case 1: return draw() % 100;
    case 2: return UINT64_MAX - draw() % 3;
    case 3: return (UINT64_C(1) << draw() % 64) - draw() % 2;
    default: return (draw() % 100) << 32 | draw() % 100;
    }
}

static uint8_t *read_file(const char *directory, const char *name, size_t *size) {
    char path[1024];
    struct stat file_stat;
    uint8_t *bytes;
    int file;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    file = open(path, O_RDONLY);
    if (file < 0 || fstat(file, &file_stat) != 0)
        abort();
    *size = (size_t)file_stat.st_size;
    bytes = (uint8_t *)malloc(*size + 1);
    if (!bytes || pread(file, bytes, *size, 0) != (ssize_t)*size)
        abort();
    close(file);
    return bytes;
}

static size_t where(size_t size) {
    static const size_t begins[4] = {0, 0x1000, 0x2000, 0x12000}, lengths[4] = {0x80, 0x120, 0x40, 0x4000};
    size_t part = draw() % 5;
    size_t at = part == 4 ? draw() % size : begins[part] + draw() % lengths[part];
    return at % (size - 8) & ~(size_t)7;
}

/* Another process would do this through its own mapping. */
static volatile int stop;
static volatile uint64_t *racing_words;
static size_t racing_size;
static uint64_t racing_seed;

static void *race(void *unused) {
    uint64_t x = racing_seed | 1;
    (void)unused;
    while (!stop) {
        size_t part, word;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        /* Hot words, configuration heads, slots; never the header, which is read once. */
        part = x >> 40 & 3;
        word = part == 0 ? 0x1000 / 8 + (x >> 8) % 0x24 : part == 1 ? 0x2000 / 8 + (x >> 8) % 8 : 0x12000 / 8 + (x >> 8) % (16 * 32);
        if (word * 8 + 8 > racing_size)
            continue;
        racing_words[word] = (x & 7) == 0 ? x : (x & 7) < 4 ? x >> 48 & 0xFF : racing_words[word] + (x >> 50);
    }
    return NULL;
}

/* The words change while they are read: a word that is looked at twice shows. */
static void race_with(const uint8_t *ctl, size_t size) {
    int ctl_file = corrupted_file(ctl, size), data_file = corrupted_file("", 0), i;
    pthread_t thread;
    void *address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ctl_file, 0);
    if (address == MAP_FAILED || ftruncate(data_file, CORRUPTED_DATA_SIZE) != 0)
        abort();
    racing_words = (volatile uint64_t *)address;
    racing_size = size;
    racing_seed = draw();
    stop = 0;
    if (pthread_create(&thread, NULL, race, NULL) != 0)
        abort();
    for (i = 0; i < 20; i++)
        corrupted_ring_files(ctl_file, data_file);
    stop = 1;
    pthread_join(thread, NULL);
    munmap(address, size);
    close(ctl_file);
    close(data_file);
}

int main(int argc, char **argv) {
    size_t ctl_size, bell_size, description_size;
    uint8_t *ctl, *bell, *description, *ctl_copy, *bell_copy, *description_copy;
    uint64_t end, rounds = 0;
    char track[1024];
    if (argc != 4)
        return 2;
    snprintf(track, sizeof track, "%s/video0", argv[1]);
    ctl = read_file(track, "ctl", &ctl_size);
    bell = read_file(argv[1], "bell", &bell_size);
    description = read_file(argv[1], "stream.capnp", &description_size);
    ctl_copy = (uint8_t *)malloc(ctl_size);
    bell_copy = (uint8_t *)malloc(bell_size);
    description_copy = (uint8_t *)malloc(description_size);
    random_state = strtoull(argv[3], NULL, 10) * 2 + 1;
    end = headworks_now_ns() + strtoull(argv[2], NULL, 10) * HEADWORKS_SECOND_NS;
    for (; headworks_now_ns() < end; rounds++) {
        uint64_t changes = 1 + draw() % 12, value, i;
        size_t cut;
        memcpy(ctl_copy, ctl, ctl_size);
        for (i = 0; i < changes; i++) {
            value = wild();
            memcpy(ctl_copy + where(ctl_size), &value, 8);
        }
        corrupted_seal(ctl_copy, ctl_size);
        cut = draw() % 8 ? ctl_size : draw() % ctl_size;
        corrupted_ring(ctl_copy, cut);
        if (rounds % 16 == 0) {
            memcpy(ctl_copy, ctl, ctl_size);
            race_with(ctl_copy, ctl_size);
        }

        memcpy(description_copy, description, description_size);
        for (i = 0; i < changes % 4; i++) {
            value = wild();
            memcpy(description_copy + (draw() % (description_size - 8) & ~(size_t)(draw() % 2 ? 7 : 3)), &value, draw() % 2 ? 8 : 4);
        }
        corrupted_description(description_copy, draw() % 4 ? description_size : draw() % description_size);
        corrupted_name(description_copy, draw() % description_size);

        if (rounds % 8 == 0) {
            memcpy(bell_copy, bell, bell_size);
            for (i = 0; i < changes; i++) {
                value = wild();
                memcpy(bell_copy + (draw() % 2 ? 0x40 + draw() % 0x98 : draw() % (bell_size - 8)) / 8 * 8, &value, 8);
            }
            corrupted_seal_bell(bell_copy, bell_size);
            corrupted_write(argv[1], "bell", bell_copy, draw() % 8 ? bell_size : draw() % bell_size);
            memcpy(ctl_copy, ctl, ctl_size);
            for (i = 0; i < changes % 4; i++) {
                value = wild();
                memcpy(ctl_copy + where(ctl_size), &value, 8);
            }
            corrupted_seal(ctl_copy, ctl_size);
            corrupted_write(track, "ctl", ctl_copy, ctl_size);
            corrupted_stream(argv[1], (headworks_start)(draw() % 5));
        }
    }
    printf("survived %llu rounds\n", (unsigned long long)rounds);
    free(ctl);
    free(bell);
    free(description);
    free(ctl_copy);
    free(bell_copy);
    free(description_copy);
    return 0;
}
