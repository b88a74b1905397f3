/* headworks.h: a reader of Headworks' frame rings in one file, without dependencies.
 * SPDX-License-Identifier: Apache-2.0
 *
 * C99 or C++17, Linux, little-endian, gcc or clang. One file of a program includes it with HEADWORKS_IMPLEMENTATION defined, before
 * any system header (or with -D_GNU_SOURCE); the others include it as it is:
 *
 *     #define HEADWORKS_IMPLEMENTATION
 *     #include "headworks.h"
 *     #include <stdio.h>
 *
 *     int main(void) {
 *         headworks_stream *stream;
 *         headworks_next next;
 *         headworks_status status = headworks_stream_open(&stream, "cam1", NULL);
 *         if (status != HEADWORKS_OK) {
 *             fprintf(stderr, "cam1: %s\n", headworks_status_text(status));
 *             return 1;
 *         }
 *         while (headworks_stream_next(stream, 1000, &next) != HEADWORKS_ENDED) {
 *             if (next.status == HEADWORKS_FRAME)
 *                 printf("%s: %zu bytes, pts %lld\n", headworks_stream_track_name(stream, next.track), next.frame.size,
 *                        (long long)next.frame.pts);
 *             else
 *                 printf("%s\n", headworks_status_text(next.status));
 *         }
 *         headworks_stream_close(stream);
 *         return 0;
 *     }
 *
 * What holds:
 * - A reader maps read-only. It cannot slow, block or corrupt the writer or another reader.
 * - A frame is delivered whole or not at all: it is copied first and judged after. With `verify` its CRC32C is compared too.
 * - Nothing is lost in silence: HEADWORKS_LAPPED says exactly how many frames the writer overtook, HEADWORKS_SKIPPED how many were
 *   passed over on the way to a random access point. Damage, discontinuities and changed configurations are fields of the frame.
 * - No call waits longer than its time-out, and no single sleep is longer than 100 ms: a wake may never come.
 * - A restart of Headworks is one frame with a discontinuity. A ring or stream that another one replaces is opened again without
 *   being asked for: HEADWORKS_REOPENED. As long as that cannot be opened it is looked for; HEADWORKS_SUPERSEDED says so once.
 * - Who begins at a random access point (HEADWORKS_START_KEY) does so on video tracks that come later, too.
 * - The bytes of `ctl`, `bell` and `stream.capnp` may be anything: each word is loaded once, judged, then used. What cannot be
 *   defended against is the owner of the files cutting them short while they are mapped (SIGBUS); Headworks never does.
 *
 * To wait with poll or epoll for other things too: a thread with a stream of its own (HEADWORKS_START_LIVE) calls
 * headworks_stream_borrow and writes to an eventfd whenever that returns; who polls then calls headworks_stream_next with a
 * `timeout_ms` of 0 until it says HEADWORKS_TIMEOUT (examples/c/poll.c).
 *
 * A headworks_stream or headworks_ring belongs to one thread at a time; different ones do not know each other.
 * `timeout_ms` is 0 not to wait at all and negative to wait for ever.
 */
#ifndef HEADWORKS_H
#define HEADWORKS_H

#if defined(HEADWORKS_IMPLEMENTATION) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Where the streams are, unless configured otherwise. */
#define HEADWORKS_ROOT "/dev/shm/headworks"
/* "No such sequence number." */
#define HEADWORKS_NONE UINT64_MAX
/* Bytes for the path of a stream's directory, in addition to those of the root: '/', an encoded name and a NUL. */
#define HEADWORKS_NAME_SIZE 202
/* Timeline anchors of a stream, at most. */
#define HEADWORKS_ANCHOR_COUNT 16
/* Tracks of one stream that a reader follows, at most. */
#define HEADWORKS_TRACKS_MAX 1024

/* What a call gave: 0 and above what happened, below 0 what is wrong. */
typedef enum headworks_status {
    HEADWORKS_OK = 0,
    /* A frame. */
    HEADWORKS_FRAME = 1,
    /* The writer overtook this reader: `count` frames will never be delivered, the next one is at least `resume_at`. */
    HEADWORKS_LAPPED = 2,
    /* `count` frames were passed over on the way to a random access point. */
    HEADWORKS_SKIPPED = 3,
    /* Nothing came within the time given. */
    HEADWORKS_TIMEOUT = 4,
    /* The source is silent; said once per change of state. */
    HEADWORKS_STALLED = 5,
    /* The writer's heartbeat has stood still for a second; said once. A successor may take the ring up: go on asking. */
    HEADWORKS_WRITER_DEAD = 6,
    /* All frames have been delivered and none will come, unless the source returns. Of a stream this is said once: whoever asks on waits
     * for that. */
    HEADWORKS_ENDED = 7,
    /* Another ring or stream has this one's name, but cannot be opened (or `stay` was asked for). Said once: whoever asks on waits until
     * it can. Of a ring that stays it is the end, and said with every call. */
    HEADWORKS_SUPERSEDED = 8,
    /* Another ring had this one's name and has been opened: its header may differ, its frames count from 0. */
    HEADWORKS_REOPENED = 9,
    /* A stream has a new track, or one that had ended is written again. */
    HEADWORKS_TRACK_ADDED = 10,
    /* All frames of a track have been delivered and none will come: it ended, or it was cleared away while the stream is still there. */
    HEADWORKS_TRACK_ENDED = 11,

    /* The operating system said no; errno says why. */
    HEADWORKS_ERROR_SYSTEM = -1,
    /* A file is too short to be what its name says. */
    HEADWORKS_ERROR_SHORT = -2,
    /* Not a ring or bell. */
    HEADWORKS_ERROR_MAGIC = -3,
    /* Another major version of the layout. */
    HEADWORKS_ERROR_MAJOR = -4,
    /* A header does not match its CRC32C. */
    HEADWORKS_ERROR_HEADER_CHECKSUM = -5,
    /* A feature is required that this reader does not know. */
    HEADWORKS_ERROR_FEATURES = -6,
    /* A size, offset or count is impossible. */
    HEADWORKS_ERROR_GEOMETRY = -7,
    /* A file is smaller than its header says. */
    HEADWORKS_ERROR_FILE_SIZE = -8,
    /* The head of the ring went back: close it and open it again. */
    HEADWORKS_ERROR_HEAD = -9,
    /* The frame `resume_at` - 1 speaks of bytes that cannot be its own. The reader is past it. */
    HEADWORKS_ERROR_BOUNDS = -10,
    /* The slot of frame `resume_at` - 1 holds no descriptor, or that of another frame. The reader is past it. */
    HEADWORKS_ERROR_DESCRIPTOR = -11,
    /* The frame `resume_at` - 1 does not match its CRC32C, though nothing overtook it. The reader is past it. */
    HEADWORKS_ERROR_CHECKSUM = -12,
    /* Generation 0, or one that was never made. */
    HEADWORKS_ERROR_CONFIGURATION_UNKNOWN = -13,
    /* Overwritten by a later one. */
    HEADWORKS_ERROR_CONFIGURATION_GONE = -14,
    /* Its bytes do not match its CRC32C. */
    HEADWORKS_ERROR_CONFIGURATION_DAMAGED = -15,
    /* The room given is too small. */
    HEADWORKS_ERROR_ROOM = -16,
    /* No memory. */
    HEADWORKS_ERROR_MEMORY = -17,
    /* stream.capnp is not one message of one segment with a StreamDescriptor. */
    HEADWORKS_ERROR_MALFORMED = -18
} headworks_status;

/* Where a reader begins. */
typedef enum headworks_start {
    /* At the newest random access point still in the ring, else at the next one. Here and below, a recovery point with a count above 0
     * serves where the ring holds no random access point: a stream with gradual refresh has no others. */
    HEADWORKS_START_KEY = 0,
    /* At the next frame to be published. */
    HEADWORKS_START_LIVE = 1,
    /* At the oldest frame still in the ring. */
    HEADWORKS_START_OLDEST = 2,
    /* At the oldest random access point still in the ring, else at the next one. */
    HEADWORKS_START_OLDEST_KEY = 3,
    /* At frame `sequence`: lapped at once if it is gone, at the head if it lies in the future. */
    HEADWORKS_START_SEQUENCE = 4
} headworks_start;

/* How to open a ring or stream. All zero is a good choice; so is NULL in its place. */
typedef struct headworks_options {
    headworks_start start;
    uint64_t sequence;     /* for HEADWORKS_START_SEQUENCE */
    const char *root;      /* headworks_stream_open: where the streams are; NULL for HEADWORKS_ROOT */
    const char *track;     /* streams: only the track of this name; NULL for all */
    int verify;            /* compare payloads that are copied with their CRC32C where the ring has it */
    int stay;              /* do not open again what another ring or stream replaced */
} headworks_options;

/* What may be expected of a ring or stream. */
typedef enum headworks_state {
    HEADWORKS_STATE_LIVE = 0,
    HEADWORKS_STATE_STALLED = 1,
    HEADWORKS_STATE_ENDED = 2,
    HEADWORKS_STATE_SUPERSEDED = 3
} headworks_state;

typedef enum headworks_kind {
    HEADWORKS_KIND_UNKNOWN = 0,
    HEADWORKS_KIND_VIDEO = 1,
    HEADWORKS_KIND_AUDIO = 2,
    HEADWORKS_KIND_DATA = 3,
    HEADWORKS_KIND_TRANSPORT = 4
} headworks_kind;

/* Why a frame does not continue the one before. */
enum {
    HEADWORKS_DISCONTINUITY_NONE = 0,
    HEADWORKS_DISCONTINUITY_START = 1,          /* first frame of the ring */
    HEADWORKS_DISCONTINUITY_RESTART = 2,        /* first frame after Headworks itself came back */
    HEADWORKS_DISCONTINUITY_SOURCE_CHANGE = 3,
    HEADWORKS_DISCONTINUITY_TIME_BASE_JUMP = 4,
    HEADWORKS_DISCONTINUITY_SIGNALLED = 5,      /* discontinuity_indicator; also a cause of a later version */
    HEADWORKS_DISCONTINUITY_LOSS = 6,           /* whole frames are missing before this one */
    HEADWORKS_DISCONTINUITY_CONFIGURATION = 7   /* codec parameters changed */
};
/* What `origin` is. */
enum { HEADWORKS_ORIGIN_NONE = 0, HEADWORKS_ORIGIN_PCR = 1, HEADWORKS_ORIGIN_RTP = 2 };
/* What `wall_clock_ns` is, and where it came from. */
enum { HEADWORKS_WALL_CLOCK_NONE = 0, HEADWORKS_WALL_CLOCK_UTC = 1, HEADWORKS_WALL_CLOCK_TAI = 2 };
enum {
    HEADWORKS_QUALITY_UNKNOWN = 0,
    HEADWORKS_QUALITY_ARRIVAL = 1,
    HEADWORKS_QUALITY_SENDER_REPORT = 2,
    HEADWORKS_QUALITY_PTP = 3,
    HEADWORKS_QUALITY_IN_BAND = 4
};
enum { HEADWORKS_PICTURE_UNKNOWN = 0, HEADWORKS_PICTURE_I = 1, HEADWORKS_PICTURE_P = 2, HEADWORKS_PICTURE_B = 3 };
enum {
    HEADWORKS_STRUCTURE_UNKNOWN = 0,
    HEADWORKS_STRUCTURE_FRAME = 1,
    HEADWORKS_STRUCTURE_TOP = 2,                /* a field whose partner is not known */
    HEADWORKS_STRUCTURE_BOTTOM = 3,
    HEADWORKS_STRUCTURE_TOP_FIRST = 4,          /* top field, first of its pair */
    HEADWORKS_STRUCTURE_TOP_SECOND = 5,
    HEADWORKS_STRUCTURE_BOTTOM_FIRST = 6,
    HEADWORKS_STRUCTURE_BOTTOM_SECOND = 7
};
enum {
    HEADWORKS_ACCESS_NONE = 0,
    HEADWORKS_ACCESS_IDR = 1,
    HEADWORKS_ACCESS_CRA = 2,
    HEADWORKS_ACCESS_BLA = 3,
    HEADWORKS_ACCESS_RECOVERY_POINT = 4,        /* right after `recovery_count` frames */
    HEADWORKS_ACCESS_INDICATOR = 5,             /* only the container said so */
    HEADWORKS_ACCESS_INTRA = 6,                 /* MPEG-2 I picture, AV1 key frame, JPEG XS */
    HEADWORKS_ACCESS_INDEPENDENT = 7            /* audio and data: every frame stands alone */
};
/* Bits of `damage_reasons`. */
enum {
    HEADWORKS_DAMAGE_LOST_PACKETS = 1,
    HEADWORKS_DAMAGE_TRANSPORT_ERROR = 2,
    HEADWORKS_DAMAGE_CONTINUITY = 4,
    HEADWORKS_DAMAGE_TIME_OUT = 8,
    HEADWORKS_DAMAGE_TRUNCATED = 16,
    HEADWORKS_DAMAGE_SYNTAX = 32,
    HEADWORKS_DAMAGE_ENCRYPTED = 64,
    HEADWORKS_DAMAGE_OVERLOAD = 128
};

typedef struct headworks_ring headworks_ring;
typedef struct headworks_stream headworks_stream;

/* The immutable page of a ring, judged. */
typedef struct headworks_header {
    uint16_t minor;
    uint64_t features_optional;
    uint8_t boot_id[16];
    uint8_t ring_uuid[16];
    uint64_t slot_offset;
    uint32_t slot_count;         /* a power of two */
    uint64_t data_capacity;      /* bytes, a power of two */
    uint32_t frame_size_max;     /* payload and side data, bytes */
    uint64_t config_offset;
    uint32_t config_size;        /* bytes of a configuration block, its head of 32 included */
    uint32_t config_count;
    char codec[5];               /* four characters and a NUL */
    headworks_kind kind;
    uint32_t clock_rate;         /* ticks per second of pts, dts and duration */
    int32_t numa_node;           /* -1 none */
    uint32_t backing_page_size;
} headworks_header;

/* A frame and what is known about it. `data` and `side_data` are valid until the next call for the ring or stream they came from. */
typedef struct headworks_frame {
    const uint8_t *data;         /* the coded bytes */
    size_t size;
    const uint8_t *side_data;
    size_t side_data_size;
    uint64_t seq;                /* number in the ring */
    uint64_t stream_seq;         /* number among all frames of the stream */
    uint64_t key_seq;            /* random access point this frame depends on; HEADWORKS_NONE before the first of its writer */
    int64_t pts, dts;            /* ticks of the track's clock, unwrapped; 0 without has_pts, has_dts */
    int64_t timeline_ns;         /* presentation on the programme's continuous timeline */
    uint64_t origin;             /* PCR (27 MHz) or RTP time stamp, see origin_kind */
    uint64_t first_arrival_ns;   /* CLOCK_MONOTONIC of its first packet */
    uint64_t last_arrival_ns;    /* … of its last packet */
    uint64_t due_ns;             /* when it was due to leave the receive buffer */
    uint64_t commit_ns;          /* when it was published */
    int64_t wall_clock_ns;       /* since 1970, see wall_clock */
    uint32_t duration;           /* ticks of the track's clock; 0 unknown */
    uint32_t config_generation;  /* configuration block that decodes it; 0 none */
    uint32_t segment;            /* + 1 at restart, fail-over and time-base jump */
    uint32_t packets_lost;
    uint32_t packets_recovered;
    uint32_t path_mask;          /* bit n: path n carried part of it */
    uint32_t damage_reasons;     /* HEADWORKS_DAMAGE_… */
    uint32_t crc32c;             /* of the payload; valid if has_crc */
    uint16_t discontinuity;      /* HEADWORKS_DISCONTINUITY_… */
    uint16_t origin_kind;
    uint16_t wall_clock;
    uint16_t wall_clock_quality;
    uint16_t picture_type;
    uint16_t picture_structure;
    uint16_t random_access;      /* HEADWORKS_ACCESS_… */
    uint16_t recovery_count;
    uint8_t timecode_hours, timecode_minutes, timecode_seconds, timecode_frames; /* ST 12-1; valid if has_timecode */
    uint8_t temporal_id;
    /* Each 0 or 1. */
    uint8_t has_pts, has_dts, has_crc, has_timecode, timecode_drop_frame;
    uint8_t damaged;             /* bytes are missing or wrong */
    uint8_t key;                 /* a reader may start here */
    uint8_t pts_interpolated;    /* computed, not carried */
    uint8_t dts_derived;
    uint8_t configuration_changed; /* another config_generation than the frame delivered before it */
    /* Where a borrowed frame lies. */
    const headworks_ring *ring;
    uint64_t position;
} headworks_frame;

/* What headworks_ring_next and headworks_stream_next gave. */
typedef struct headworks_next {
    headworks_status status;
    uint32_t track;              /* streams: whose, an index for headworks_stream_track */
    uint64_t count;              /* HEADWORKS_LAPPED, HEADWORKS_SKIPPED and errors of a frame: frames not delivered */
    uint64_t resume_at;          /* the same: the next frame that may be delivered */
    headworks_frame frame;       /* HEADWORKS_FRAME alone */
} headworks_next;

/* Counted by the writer since the ring was made, across restarts. */
typedef struct headworks_totals {
    uint64_t frames, bytes, damaged, discontinuities;
} headworks_totals;

/* Where a programme's continuous timeline stands. */
typedef struct headworks_anchor {
    uint32_t programme;          /* program_number, 0 without a transport stream */
    uint32_t segment;
    int64_t pts;                 /* in ticks of clock_rate */
    int64_t timeline_ns;         /* the same moment on the continuous timeline */
    uint64_t monotonic_ns;       /* … on CLOCK_MONOTONIC */
    int64_t utc_ns;              /* … in UTC since 1970; 0 unknown */
    uint32_t clock_rate;
} headworks_anchor;

/* In words, for people. Never NULL. */
const char *headworks_status_text(headworks_status status);

/* A whole stream: the frames of all its tracks in the order they were committed. ------------------------------------------------- */

/* Opens the stream of this name; `options` may be NULL. With HEADWORKS_START_KEY and HEADWORKS_START_OLDEST_KEY the video tracks
 * begin at a random access point and the others with what was committed after the first of these. A track that comes later is read from
 * its oldest frame on, but with these two a video track begins at its first random access point, and HEADWORKS_SKIPPED says how many
 * frames lie before that. A ring that takes the place of another is read from its oldest frame on, unless a random access point was still
 * awaited of that one. A relative path counts from the directory in which the process is now. */
headworks_status headworks_stream_open(headworks_stream **stream, const char *name, const headworks_options *options);
/* The same by the path of the stream's directory. */
headworks_status headworks_stream_open_directory(headworks_stream **stream, const char *directory, const headworks_options *options);
/* Opens the stream of this name through the broker that listens on a Unix socket (output.broker.socket), where this user may not open
 * the files. With HEADWORKS_ERROR_SYSTEM errno is EACCES if he may not read it, ENOENT if it is not there, EBUSY if the broker has too
 * many connections, ETIMEDOUT if it does not answer within 2 s. When tracks have come or another stream has this one's name it is
 * asked again, and headworks_stream_next may take 2 s longer if it does not answer. */
headworks_status headworks_stream_open_through(headworks_stream **stream, const char *socket, const char *name,
                                               const headworks_options *options);
void headworks_stream_close(headworks_stream *stream);
/* The next frame, copied into memory of the stream's, or what happened instead. Returns next->status. */
headworks_status headworks_stream_next(headworks_stream *stream, int timeout_ms, headworks_next *next);
/* The same without a copy: see headworks_frame_is_intact. */
headworks_status headworks_stream_borrow(headworks_stream *stream, int timeout_ms, headworks_next *next);
/* Tracks seen so far. Their indices stay valid until more than HEADWORKS_TRACKS_MAX have come; then one that was cleared away gives its
 * index, with HEADWORKS_TRACK_ADDED, to the next that comes. */
uint32_t headworks_stream_track_count(const headworks_stream *stream);
/* "video0", "audio0" …; NULL for an index that is none. */
const char *headworks_stream_track_name(const headworks_stream *stream, uint32_t track);
/* The ring of a track, for its header and configuration blocks; NULL for an index that is none. */
const headworks_ring *headworks_stream_track(const headworks_stream *stream, uint32_t track);
headworks_state headworks_stream_state(const headworks_stream *stream);
/* The anchors that are set and not being written just now; returns how many. */
size_t headworks_stream_anchors(const headworks_stream *stream, headworks_anchor anchors[HEADWORKS_ANCHOR_COUNT]);

/* One ring. ---------------------------------------------------------------------------------------------------------------------- */

/* Opens the ring in `directory`; `options` may be NULL. What is said of headworks_stream_open about replaced rings and relative paths
 * holds here too. */
headworks_status headworks_ring_open(headworks_ring **ring, const char *directory, const headworks_options *options);
/* Opens a ring by its two files, such as descriptors received from a broker. The descriptors stay the caller's. */
headworks_status headworks_ring_open_files(headworks_ring **ring, int ctl, int data, const headworks_options *options);
void headworks_ring_close(headworks_ring *ring);
/* The next frame, copied into memory of the ring's, or what happened instead. Returns next->status. */
headworks_status headworks_ring_next(headworks_ring *ring, int timeout_ms, headworks_next *next);
/* The same without a copy: see headworks_frame_is_intact. */
headworks_status headworks_ring_borrow(headworks_ring *ring, int timeout_ms, headworks_next *next);
/* Goes elsewhere in the ring. What is passed over is not reported. */
void headworks_ring_seek(headworks_ring *ring, headworks_start start, uint64_t sequence);
/* Goes to the oldest frame whose stream_seq is at least `stream_seq`. */
void headworks_ring_seek_stream_seq(headworks_ring *ring, uint64_t stream_seq);
const headworks_header *headworks_ring_header(const headworks_ring *ring);
headworks_state headworks_ring_state(const headworks_ring *ring);
/* + 1 with every writer that took the ring up. */
uint32_t headworks_ring_epoch(const headworks_ring *ring);
/* Changes every 100 ms while the writer lives. */
uint64_t headworks_ring_heartbeat_count(const headworks_ring *ring);
/* The frame this reader looks for next. */
uint64_t headworks_ring_position(const headworks_ring *ring);
/* Frames published in the ring's life. */
uint64_t headworks_ring_head_seq(const headworks_ring *ring);
/* The newest random access point, or HEADWORKS_NONE. */
uint64_t headworks_ring_last_key_seq(const headworks_ring *ring);
headworks_totals headworks_ring_totals(const headworks_ring *ring);
/* The newest configuration, 0 when there is none. */
uint32_t headworks_ring_configuration_generation(const headworks_ring *ring);
/* Copies a configuration (SPS/PPS/VPS, AudioSpecificConfig, sequence header, SDP) of at most header.config_size - 32 bytes.
 * `*length` is its length, also with HEADWORKS_ERROR_ROOM. */
headworks_status headworks_ring_configuration(const headworks_ring *ring, uint32_t generation, void *to, size_t room,
                                              size_t *length);

/* A borrowed frame lies in the ring, where the writer may overtake it at any moment. Give its bytes only to what changing bytes cannot
 * lead astray (a system call, a copy), and believe the result only if this says 1 *afterwards*; 0 is one frame lost.
 * Always 1 for a frame that was copied. Not after the next call for its ring or stream. */
int headworks_frame_is_intact(const headworks_frame *frame);
/* Bytes the writer may still write before it overtakes a borrowed frame; 0 when it has. */
uint64_t headworks_frame_margin(const headworks_frame *frame);
/* Copies a part of a borrowed frame. 0 if the part is not in the payload, or the frame was overtaken. */
int headworks_frame_copy(const headworks_frame *frame, size_t offset, void *to, size_t length);

/* Directories. ------------------------------------------------------------------------------------------------------------------- */

/* The path of a stream's directory: `root` (NULL for HEADWORKS_ROOT), '/', the encoded name. */
headworks_status headworks_stream_directory(const char *root, const char *name, char *path, size_t room);
/* The names of the streams under `root` (NULL for HEADWORKS_ROOT), sorted. Free them with headworks_names_free. */
headworks_status headworks_stream_names(const char *root, char ***names, size_t *count);
/* The names of the rings of a stream, sorted. */
headworks_status headworks_track_names(const char *stream_directory, char ***names, size_t *count);
void headworks_names_free(char **names, size_t count);

/* A service of a transport stream. */
typedef struct headworks_programme {
    uint32_t number;
    uint16_t pcr_pid;
    const char *name;            /* of the SDT */
    const char *provider;
} headworks_programme;

/* What stream.capnp says about one track. Texts are UTF-8, "" when not said; numbers are 0 when not known. */
typedef struct headworks_track_description {
    const char *name;            /* of the ring's directory */
    uint32_t programme;
    headworks_kind kind;
    char codec[5];
    uint32_t source_id;          /* PID or SSRC */
    uint32_t clock_rate;
    const char *language;        /* ISO 639-2 */
    int component_tag;           /* -1 none */
    uint32_t width, height;
    uint32_t frame_rate_numerator, frame_rate_denominator;
    uint32_t sample_rate;
    uint16_t channels;
    int ended;
} headworks_track_description;

/* What stream.capnp says. */
typedef struct headworks_description {
    const char *name;            /* as the operator sees it */
    uint32_t generation;         /* + 1 with every replacement */
    int64_t created_utc_ns;
    size_t programme_count;
    headworks_programme *programmes;
    size_t track_count;
    headworks_track_description *tracks;
} headworks_description;

/* Reads the stream.capnp of a stream's directory. Free it with headworks_description_free. */
headworks_status headworks_description_read(headworks_description **description, const char *stream_directory);
/* The same of the stream of this name, through a broker: see headworks_stream_open_through. */
headworks_status headworks_description_read_through(headworks_description **description, const char *socket, const char *name);
/* Decodes bytes of one. */
headworks_status headworks_description_decode(headworks_description **description, const void *bytes, size_t size);
void headworks_description_free(headworks_description *description);

#ifdef __cplusplus
}
#endif
#endif /* HEADWORKS_H */

#if defined(HEADWORKS_IMPLEMENTATION) && !defined(HEADWORKS_IMPLEMENTED)
#define HEADWORKS_IMPLEMENTED

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the layout of the ring is little-endian"
#endif

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#if !defined(MAP_ANONYMOUS) || !defined(O_DIRECTORY) || !defined(O_NOFOLLOW)
#error "include headworks.h before any system header, or compile with -D_GNU_SOURCE"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Layout of `ctl`: see src/layout.rs. */
enum {
    HEADWORKS_CTL_HEADER_SIZE = 0x1000,
    HEADWORKS_CTL_DATA_RESERVE = 0x1000,
    HEADWORKS_CTL_HEAD_SEQ = 0x1040,
    HEADWORKS_CTL_LAST_KEY_SEQ = 0x1050,
    HEADWORKS_CTL_FUTEX = 0x1080,
    HEADWORKS_CTL_STATE = 0x1084,
    HEADWORKS_CTL_HEARTBEAT_COUNT = 0x10C0,
    HEADWORKS_CTL_WRITER_EPOCH = 0x10D0,
    HEADWORKS_CTL_CONFIG_GENERATION = 0x10D4,
    HEADWORKS_CTL_TOTALS = 0x1100,
    HEADWORKS_CTL_HOT_END = 0x2000,
    HEADWORKS_CTL_CONFIG_HEAD = 32,
    HEADWORKS_CTL_SLOT_SIZE = 256,
    HEADWORKS_CTL_SLOT_WORDS = 32,
    HEADWORKS_CTL_DESCRIPTOR_WORDS = 26,
    HEADWORKS_CTL_FLAG_KEY = 1,
    HEADWORKS_CTL_FEATURES_REQUIRED_KNOWN = 0,
    /* Layout of `bell`. */
    HEADWORKS_BELL_SIZE = 0x1000,
    HEADWORKS_BELL_HEAD_CRC = 0x3C,
    HEADWORKS_BELL_STREAM_HEAD = 0x40,
    HEADWORKS_BELL_FUTEX = 0x80,
    HEADWORKS_BELL_STATE = 0x84,
    HEADWORKS_BELL_HEARTBEAT_COUNT = 0xC0,
    HEADWORKS_BELL_TRACKS_GENERATION = 0xD0,
    HEADWORKS_BELL_ANCHORS = 0x100,
    HEADWORKS_BELL_ANCHOR_SIZE = 64,
    HEADWORKS_DESCRIPTION_SIZE_MAX = 1 << 20,
    /* A reader that is held up by a ring which changes under its looks gives up after so many. */
    HEADWORKS_ROUNDS_MAX = 1000
};

#define HEADWORKS_MAJOR_KNOWN 1
#define HEADWORKS_SECOND_NS UINT64_C(1000000000)
#define HEADWORKS_WAIT_MAX_NS UINT64_C(100000000)
#define HEADWORKS_FOREVER UINT64_MAX
#define HEADWORKS_BUSY UINT64_MAX

const char *headworks_status_text(headworks_status status) {
    switch (status) {
    case HEADWORKS_OK: return "nothing is wrong";
    case HEADWORKS_FRAME: return "a frame";
    case HEADWORKS_LAPPED: return "overtaken by the writer";
    case HEADWORKS_SKIPPED: return "frames passed over on the way to a random access point";
    case HEADWORKS_TIMEOUT: return "nothing came in time";
    case HEADWORKS_STALLED: return "the source is silent";
    case HEADWORKS_WRITER_DEAD: return "the writer's heartbeat stopped";
    case HEADWORKS_ENDED: return "ended";
    case HEADWORKS_SUPERSEDED: return "replaced by another that cannot be opened";
    case HEADWORKS_REOPENED: return "replaced by another, which has been opened";
    case HEADWORKS_TRACK_ADDED: return "a new track";
    case HEADWORKS_TRACK_ENDED: return "a track has ended";
    case HEADWORKS_ERROR_SYSTEM: return "the operating system said no";
    case HEADWORKS_ERROR_SHORT: return "the file is too short";
    case HEADWORKS_ERROR_MAGIC: return "bad magic";
    case HEADWORKS_ERROR_MAJOR: return "another major version of the layout";
    case HEADWORKS_ERROR_HEADER_CHECKSUM: return "header checksum does not match";
    case HEADWORKS_ERROR_FEATURES: return "unknown required features";
    case HEADWORKS_ERROR_GEOMETRY: return "an impossible size, offset or count";
    case HEADWORKS_ERROR_FILE_SIZE: return "a file is smaller than its header says";
    case HEADWORKS_ERROR_HEAD: return "the head of the ring went back";
    case HEADWORKS_ERROR_BOUNDS: return "a frame outside its ring";
    case HEADWORKS_ERROR_DESCRIPTOR: return "a frame without a descriptor";
    case HEADWORKS_ERROR_CHECKSUM: return "the checksum of a frame does not match";
    case HEADWORKS_ERROR_CONFIGURATION_UNKNOWN: return "no such configuration";
    case HEADWORKS_ERROR_CONFIGURATION_GONE: return "configuration gone";
    case HEADWORKS_ERROR_CONFIGURATION_DAMAGED: return "configuration damaged";
    case HEADWORKS_ERROR_ROOM: return "too little room";
    case HEADWORKS_ERROR_MEMORY: return "no memory";
    case HEADWORKS_ERROR_MALFORMED: return "stream.capnp is malformed";
    }
    return "unknown status";
}

/* Shared words. ------------------------------------------------------------------------------------------------------------------ */

static uint64_t headworks_load(const uint8_t *shared, size_t offset) {
    return __atomic_load_n((const uint64_t *)(const void *)(shared + offset), __ATOMIC_RELAXED);
}

static uint32_t headworks_load_half(const uint8_t *shared, size_t offset) {
    return __atomic_load_n((const uint32_t *)(const void *)(shared + offset), __ATOMIC_RELAXED);
}

/* What the writer did before it stored the word is visible after these two. */
static uint64_t headworks_load_acquire(const uint8_t *shared, size_t offset) {
    uint64_t value = headworks_load(shared, offset);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return value;
}

static uint32_t headworks_load_half_acquire(const uint8_t *shared, size_t offset) {
    uint32_t value = headworks_load_half(shared, offset);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return value;
}

static void headworks_load_words(const uint8_t *shared, size_t offset, uint64_t *words, size_t count) {
    size_t i;
    for (i = 0; i < count; i++)
        words[i] = headworks_load(shared, offset + i * 8);
}

#if defined(__SANITIZE_ADDRESS__)
#define HEADWORKS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HEADWORKS_SANITIZED 1
#endif
#endif

/* The racing copy: the source may be written meanwhile, so a memcpy, which the compiler may take apart, move and repeat, will not do.
 * What arrives may be torn; that is found out after. */
static void headworks_copy_shared(void *to, const uint8_t *shared, size_t length) {
#if defined(__x86_64__) && !defined(HEADWORKS_SANITIZED)
    __asm__ __volatile__("rep movsb" : "+D"(to), "+S"(shared), "+c"(length) : : "memory");
#else
    uint8_t *out = (uint8_t *)to;
    for (; length > 0 && ((uintptr_t)shared & 7) != 0; length--)
        *out++ = *(const volatile uint8_t *)shared++;
    for (; length >= 8; length -= 8, shared += 8, out += 8) {
        uint64_t word = *(const volatile uint64_t *)(const volatile void *)shared;
        memcpy(out, &word, 8);
    }
    for (; length > 0; length--)
        *out++ = *(const volatile uint8_t *)shared++;
#endif
}

static uint64_t headworks_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * HEADWORKS_SECOND_NS + (uint64_t)now.tv_nsec;
}

/* Sleeps until the word is not `seen`, a wake comes, or the time (at most 100 ms) has passed. Not FUTEX_PRIVATE_FLAG: the writer is
 * another process. The kernel compares the word under its lock, so a bump between our look and our sleep is not lost. */
static void headworks_futex_wait(const uint8_t *shared, size_t offset, uint32_t seen, uint64_t timeout_ns) {
    struct timespec timeout;
    timeout.tv_sec = 0;
    timeout.tv_nsec = (long)(timeout_ns < HEADWORKS_WAIT_MAX_NS ? timeout_ns : HEADWORKS_WAIT_MAX_NS);
    (void)syscall(SYS_futex, shared + offset, 0 /* FUTEX_WAIT */, seen, &timeout, (void *)0, 0);
}

static void headworks_sleep(uint64_t timeout_ns) {
    struct timespec timeout;
    timeout.tv_sec = 0;
    timeout.tv_nsec = (long)(timeout_ns < HEADWORKS_WAIT_MAX_NS ? timeout_ns : HEADWORKS_WAIT_MAX_NS);
    nanosleep(&timeout, (struct timespec *)0);
}

static uint64_t headworks_deadline(int timeout_ms) {
    return timeout_ms < 0 ? HEADWORKS_FOREVER : headworks_now_ns() + (uint64_t)timeout_ms * 1000000;
}

static uint64_t headworks_left(uint64_t deadline, uint64_t now) {
    return deadline == HEADWORKS_FOREVER ? HEADWORKS_WAIT_MAX_NS : deadline > now ? deadline - now : 0;
}

/* The writer's life, judged by a change of its heartbeat against our own clock: no process number, no lock. */
typedef struct headworks_life {
    uint64_t count;
    uint64_t since;
    int begun, told;
} headworks_life;

/* 1 once, when the heartbeat has stood still for a second. */
static int headworks_has_died(headworks_life *life, uint64_t count, uint64_t now) {
    if (!life->begun || count != life->count) {
        life->begun = 1;
        life->told = 0;
        life->count = count;
        life->since = now;
        return 0;
    }
    if (life->told || now - life->since < HEADWORKS_SECOND_NS)
        return 0;
    life->told = 1;
    return 1;
}

/* CRC32C, RFC 3720 §12.1. ---------------------------------------------------------------------------------------------------------- */

static uint32_t headworks_crc32c_plain(uint32_t crc, const uint8_t *bytes, size_t length) {
    /* The remainders of four bits each. */
    static const uint32_t remainders[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
        0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
    for (; length > 0; length--) {
        crc ^= *bytes++;
        crc = remainders[crc & 15] ^ crc >> 4;
        crc = remainders[crc & 15] ^ crc >> 4;
    }
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t headworks_crc32c_fast(uint32_t crc, const uint8_t *bytes, size_t length) {
    uint64_t value = crc;
    for (; length >= 8; length -= 8, bytes += 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        value = __builtin_ia32_crc32di(value, word);
    }
    crc = (uint32_t)value;
    for (; length > 0; length--)
        crc = __builtin_ia32_crc32qi(crc, *bytes++);
    return crc;
}
#endif

static uint32_t headworks_crc32c(const void *bytes, size_t length) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return ~headworks_crc32c_fast(UINT32_MAX, (const uint8_t *)bytes, length);
#endif
    return ~headworks_crc32c_plain(UINT32_MAX, (const uint8_t *)bytes, length);
}

/* Private bytes. ------------------------------------------------------------------------------------------------------------------- */

static uint16_t headworks_u16(const uint8_t *bytes, size_t at) {
    uint16_t value;
    memcpy(&value, bytes + at, 2);
    return value;
}

static uint32_t headworks_u32(const uint8_t *bytes, size_t at) {
    uint32_t value;
    memcpy(&value, bytes + at, 4);
    return value;
}

static uint64_t headworks_u64(const uint8_t *bytes, size_t at) {
    uint64_t value;
    memcpy(&value, bytes + at, 8);
    return value;
}

static char *headworks_text_copy(const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = (char *)malloc(size);
    if (copy)
        memcpy(copy, text, size);
    return copy;
}

/* A path that leads to the same place when the process has gone to another directory. */
static headworks_status headworks_absolute(const char *path, char **absolute) {
    char *here = (char *)0;
    size_t length = 0;
    if (path[0] != '/' && path[0] != 0) {
        here = getcwd((char *)0, 0);
        if (!here)
            return HEADWORKS_ERROR_SYSTEM;
        length = strlen(here);
    }
    *absolute = (char *)malloc(length + strlen(path) + 2);
    if (*absolute && here) {
        memcpy(*absolute, here, length);
        (*absolute)[length++] = '/';
    }
    if (*absolute)
        memcpy(*absolute + length, path, strlen(path) + 1);
    free(here);
    return *absolute ? HEADWORKS_OK : HEADWORKS_ERROR_MEMORY;
}

static headworks_kind headworks_kind_of(uint32_t word) {
    switch (word) {
    case 1: return HEADWORKS_KIND_VIDEO;
    case 2: return HEADWORKS_KIND_AUDIO;
    case 3: return HEADWORKS_KIND_DATA;
    case 4: return HEADWORKS_KIND_TRANSPORT;
    default: return HEADWORKS_KIND_UNKNOWN;
    }
}

/* What a later version may add counts as live. */
static headworks_state headworks_state_of(uint32_t word) {
    switch (word) {
    case 1: return HEADWORKS_STATE_STALLED;
    case 2: return HEADWORKS_STATE_ENDED;
    case 3: return HEADWORKS_STATE_SUPERSEDED;
    default: return HEADWORKS_STATE_LIVE;
    }
}

static int headworks_is_power_of_two(uint64_t value) {
    return value != 0 && (value & (value - 1)) == 0;
}

/* The header. ---------------------------------------------------------------------------------------------------------------------- */

/* Judges a copy of the first page of `ctl` against itself and the sizes of the two files. After HEADWORKS_OK every offset derived
 * from the header lies in its file. */
static headworks_status headworks_judge(const uint8_t *page, uint64_t ctl_size, uint64_t data_size, headworks_header *header) {
    uint64_t config_end, slot_end, page_size;
    if (memcmp(page, "HWRING\0\1", 8) != 0)
        return HEADWORKS_ERROR_MAGIC;
    if (headworks_u16(page, 0x08) != HEADWORKS_MAJOR_KNOWN)
        return HEADWORKS_ERROR_MAJOR;
    if (headworks_u32(page, 0x0C) != HEADWORKS_CTL_HEADER_SIZE)
        return HEADWORKS_ERROR_GEOMETRY;
    if (headworks_crc32c(page, HEADWORKS_CTL_HEADER_SIZE - 4) != headworks_u32(page, HEADWORKS_CTL_HEADER_SIZE - 4))
        return HEADWORKS_ERROR_HEADER_CHECKSUM;
    if ((headworks_u64(page, 0x10) & ~(uint64_t)HEADWORKS_CTL_FEATURES_REQUIRED_KNOWN) != 0)
        return HEADWORKS_ERROR_FEATURES;
    memset(header, 0, sizeof *header);
    header->minor = headworks_u16(page, 0x0A);
    header->features_optional = headworks_u64(page, 0x18);
    memcpy(header->boot_id, page + 0x20, 16);
    memcpy(header->ring_uuid, page + 0x30, 16);
    header->slot_offset = headworks_u64(page, 0x40);
    header->slot_count = headworks_u32(page, 0x4C);
    header->data_capacity = headworks_u64(page, 0x50);
    header->frame_size_max = headworks_u32(page, 0x58);
    header->config_count = headworks_u32(page, 0x5C);
    header->config_offset = headworks_u64(page, 0x60);
    header->config_size = headworks_u32(page, 0x68);
    memcpy(header->codec, page + 0x6C, 4);
    header->kind = headworks_kind_of(headworks_u32(page, 0x70));
    header->clock_rate = headworks_u32(page, 0x74);
    header->numa_node = (int32_t)headworks_u32(page, 0x78);
    header->backing_page_size = headworks_u32(page, 0x7C);
    page_size = header->backing_page_size;
    if (headworks_u32(page, 0x48) != HEADWORKS_CTL_SLOT_SIZE || !headworks_is_power_of_two(header->slot_count) ||
        header->slot_count < 4 || header->slot_count > 1 << 24 || !headworks_is_power_of_two(page_size) || page_size < 4096 ||
        page_size > 1 << 30 || !headworks_is_power_of_two(header->data_capacity) ||
        header->data_capacity > UINT64_C(1) << 40 || header->data_capacity > SIZE_MAX / 8 ||
        header->data_capacity % page_size != 0 || header->frame_size_max == 0 ||
        header->frame_size_max > header->data_capacity || header->config_count == 0 || header->config_count > 256 ||
        header->config_size % 64 != 0 || header->config_size < 64 || header->config_size > 1 << 20 ||
        header->config_offset % 64 != 0 || header->config_offset < HEADWORKS_CTL_HOT_END || header->config_offset > ctl_size ||
        header->slot_offset % 64 != 0 || header->slot_offset < HEADWORKS_CTL_HOT_END || header->slot_offset > ctl_size)
        return HEADWORKS_ERROR_GEOMETRY;
    config_end = header->config_offset + (uint64_t)header->config_count * header->config_size;
    slot_end = header->slot_offset + (uint64_t)header->slot_count * HEADWORKS_CTL_SLOT_SIZE;
    if (config_end > ctl_size || slot_end > ctl_size || header->data_capacity > data_size)
        return HEADWORKS_ERROR_FILE_SIZE;
    return HEADWORKS_OK;
}

/* The two mappings. ---------------------------------------------------------------------------------------------------------------- */

typedef struct headworks_mapping {
    const uint8_t *ctl;
    size_t ctl_size;
    /* Address space with a margin of unmapped pages around the data, which is seen twice, back to back: every frame is one run of
     * addresses. */
    uint8_t *reservation;
    size_t reservation_size;
    const uint8_t *data;
    headworks_header header;
} headworks_mapping;

static void headworks_unmap(headworks_mapping *mapping) {
    if (mapping->ctl)
        munmap((void *)(uintptr_t)mapping->ctl, mapping->ctl_size);
    if (mapping->reservation)
        munmap(mapping->reservation, mapping->reservation_size);
    memset(mapping, 0, sizeof *mapping);
}

static headworks_status headworks_map(headworks_mapping *mapping, int ctl, int data) {
    uint8_t page[HEADWORKS_CTL_HEADER_SIZE];
    struct stat ctl_stat, data_stat;
    headworks_status status;
    headworks_header *header = &mapping->header;
    uint64_t config_end, slot_end;
    size_t capacity, align;
    uint8_t *base;
    void *address;
    int i;
    memset(mapping, 0, sizeof *mapping);
    if (fstat(ctl, &ctl_stat) != 0 || fstat(data, &data_stat) != 0)
        return HEADWORKS_ERROR_SYSTEM;
    if (ctl_stat.st_size < HEADWORKS_CTL_HOT_END || pread(ctl, page, sizeof page, 0) != (ssize_t)sizeof page)
        return HEADWORKS_ERROR_SHORT;
    status = headworks_judge(page, (uint64_t)ctl_stat.st_size, data_stat.st_size < 0 ? 0 : (uint64_t)data_stat.st_size, header);
    if (status != HEADWORKS_OK)
        return status;
    config_end = header->config_offset + (uint64_t)header->config_count * header->config_size;
    slot_end = header->slot_offset + (uint64_t)header->slot_count * HEADWORKS_CTL_SLOT_SIZE;
    if ((size_t)config_end != config_end || (size_t)slot_end != slot_end)
        return HEADWORKS_ERROR_GEOMETRY;
    mapping->ctl_size = (size_t)(config_end > slot_end ? config_end : slot_end);
    address = mmap((void *)0, mapping->ctl_size, PROT_READ, MAP_SHARED, ctl, 0);
    if (address == MAP_FAILED)
        return HEADWORKS_ERROR_SYSTEM;
    mapping->ctl = (const uint8_t *)address;

    capacity = (size_t)header->data_capacity;
    align = header->backing_page_size > 2 << 20 ? (size_t)header->backing_page_size : (size_t)2 << 20;
    mapping->reservation_size = 2 * capacity + 2 * align;
    address = mmap((void *)0, mapping->reservation_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED) {
        headworks_unmap(mapping);
        return HEADWORKS_ERROR_SYSTEM;
    }
    mapping->reservation = (uint8_t *)address;
    base = mapping->reservation + (align - (uintptr_t)address % align);
    for (i = 0; i < 2; i++) {
        address = mmap(base + (size_t)i * capacity, capacity, PROT_READ, MAP_SHARED | MAP_FIXED, data, 0);
        if (address == MAP_FAILED) {
            headworks_unmap(mapping);
            return HEADWORKS_ERROR_SYSTEM;
        }
    }
    mapping->data = base;
    return HEADWORKS_OK;
}

/* A regular file of a directory; only `data` may be a link (onto hugetlbfs). -1 with errno. */
static int headworks_open_file(int directory, const char *name, int follow) {
    struct stat stat_buffer;
    int file = openat(directory, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW));
    if (file < 0)
        return -1;
    if (fstat(file, &stat_buffer) != 0 || !S_ISREG(stat_buffer.st_mode)) {
        close(file);
        errno = EINVAL;
        return -1;
    }
    return file;
}

static headworks_status headworks_map_at(headworks_mapping *mapping, int parent, const char *directory) {
    headworks_status status = HEADWORKS_ERROR_SYSTEM;
    int ctl = -1, data = -1, reason;
    int handle = openat(parent, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (handle < 0)
        return HEADWORKS_ERROR_SYSTEM;
    ctl = headworks_open_file(handle, "ctl", 0);
    if (ctl >= 0)
        data = headworks_open_file(handle, "data", 1);
    if (data >= 0)
        status = headworks_map(mapping, ctl, data);
    reason = errno;
    if (data >= 0)
        close(data);
    if (ctl >= 0)
        close(ctl);
    close(handle);
    errno = reason;
    return status;
}

/* The ring. ------------------------------------------------------------------------------------------------------------------------ */

/* A judged copy of a slot. */
typedef struct headworks_slot {
    uint64_t position;
    uint64_t stream_seq;
    uint32_t extent, length, flags;
    uint64_t words[HEADWORKS_CTL_DESCRIPTOR_WORDS];
} headworks_slot;

struct headworks_ring {
    headworks_mapping mapping;
    char *path; /* to open it again; NULL when somebody else does */
    uint64_t next;
    headworks_slot pending;
    int has_pending;
    int awaiting_key; /* only a random access point will do */
    uint64_t skipped;
    int verify, stay;
    int from_key; /* a ring that takes the place of this one before a random access point came begins at one too */
    uint8_t *buffer;
    size_t buffer_size;
    uint32_t config_generation; /* of the frame last delivered */
    /* The frame last borrowed, which counts as delivered if it is still whole when the next one is asked for. */
    int has_borrowed;
    uint64_t borrowed_position;
    uint32_t borrowed_generation;
    int stalled_told, superseded_told;
    headworks_life life;
};

static uint64_t headworks_head(const headworks_ring *ring) {
    return headworks_load_acquire(ring->mapping.ctl, HEADWORKS_CTL_HEAD_SEQ);
}

static size_t headworks_slot_at(const headworks_ring *ring, uint64_t seq) {
    const headworks_header *header = &ring->mapping.header;
    return (size_t)(header->slot_offset + (seq & (header->slot_count - 1)) * HEADWORKS_CTL_SLOT_SIZE);
}

/* Copies a slot and judges the copy: HEADWORKS_OK, HEADWORKS_LAPPED, or an error of the frame. */
static headworks_status headworks_copy_slot(const headworks_ring *ring, uint64_t seq, headworks_slot *slot) {
    const uint8_t *ctl = ring->mapping.ctl;
    const headworks_header *header = &ring->mapping.header;
    size_t at = headworks_slot_at(ring, seq);
    uint64_t image[HEADWORKS_CTL_SLOT_WORDS], reserve;
    uint32_t data_words, pointer_words;
    const uint8_t *descriptor = (const uint8_t *)slot->words;
    if (headworks_load_acquire(ctl, at) != seq + 1)
        return HEADWORKS_LAPPED;
    headworks_load_words(ctl, at, image, HEADWORKS_CTL_SLOT_WORDS);
    /* If any word above is of a later frame, the lock below is no longer ours. */
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (headworks_load(ctl, at) != seq + 1)
        return HEADWORKS_LAPPED;
    slot->position = image[1];
    slot->extent = (uint32_t)image[2];
    slot->length = (uint32_t)(image[2] >> 32);
    slot->flags = (uint32_t)image[3];
    slot->stream_seq = image[4];
    /* The struct pointer: kind 0, offset 0; words of data in bits 32 to 47, of pointers above. Fields are only ever added. */
    data_words = (uint32_t)(image[5] >> 32) & 0xFFFF;
    pointer_words = (uint32_t)(image[5] >> 48);
    if ((uint32_t)image[5] != 0 || data_words == 0 || data_words + pointer_words > HEADWORKS_CTL_DESCRIPTOR_WORDS)
        return HEADWORKS_ERROR_DESCRIPTOR;
    memset(slot->words, 0, sizeof slot->words);
    memcpy(slot->words, image + 6, data_words * 8);
    if (slot->words[0] != seq)
        return HEADWORKS_ERROR_DESCRIPTOR;
    if (slot->extent > header->frame_size_max || slot->length > slot->extent ||
        (uint64_t)headworks_u32(descriptor, 120) + headworks_u32(descriptor, 124) > slot->extent ||
        slot->position > UINT64_MAX - slot->extent)
        return HEADWORKS_ERROR_BOUNDS;
    reserve = headworks_load(ctl, HEADWORKS_CTL_DATA_RESERVE);
    if (slot->position + slot->extent > reserve)
        return HEADWORKS_ERROR_BOUNDS;
    if (reserve - slot->position > header->data_capacity)
        return HEADWORKS_LAPPED;
    return HEADWORKS_OK;
}

/* Whether what was read from `position` before this call was still that frame. */
static int headworks_is_intact(const headworks_ring *ring, uint64_t position) {
    /* If a byte read is of a later frame, the reserve below is more than a capacity ahead. */
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return headworks_load(ring->mapping.ctl, HEADWORKS_CTL_DATA_RESERVE) - position <= ring->mapping.header.data_capacity;
}

static int headworks_is_key(const headworks_slot *slot) {
    return (slot->flags & HEADWORKS_CTL_FLAG_KEY) != 0;
}

static int headworks_is_recovery_point(const headworks_slot *slot) {
    return headworks_u16((const uint8_t *)slot->words, 140) == HEADWORKS_ACCESS_RECOVERY_POINT;
}

/* One slot of guard: the oldest is being overwritten while the head still has its old value. */
static uint64_t headworks_oldest_seq(const headworks_ring *ring, uint64_t head) {
    uint64_t kept = ring->mapping.header.slot_count - 1;
    return head > kept ? head - kept : 0;
}

/* Whether the newest random access point that the writer told of is still in the ring. */
static int headworks_holds_last_key(const headworks_ring *ring, uint64_t head) {
    uint64_t key = headworks_load_acquire(ring->mapping.ctl, HEADWORKS_CTL_LAST_KEY_SEQ);
    headworks_slot slot;
    return key < head && key >= headworks_oldest_seq(ring, head) && headworks_copy_slot(ring, key, &slot) == HEADWORKS_OK &&
           headworks_is_key(&slot);
}

/* The newest of the readable frames from `from` to below `head` that decoding can start at and that, with `quarter`, at least a quarter of
 * the ring lies between it and the writer, or HEADWORKS_NONE: a random access point or, where the ring holds none at all, a recovery point
 * whose picture is right only some frames later: a stream with gradual refresh has no others. At most one look at every slot.
 * The slots are looked at, and not HEADWORKS_CTL_LAST_KEY_SEQ alone: it is stored after the head, perhaps only by the next writer. */
static uint64_t headworks_newest_start(const headworks_ring *ring, uint64_t from, uint64_t head, int quarter) {
    uint64_t slots = ring->mapping.header.slot_count, capacity = ring->mapping.header.data_capacity;
    uint64_t kept = quarter ? slots - slots / 4 : slots - 1, recovery_point = HEADWORKS_NONE, seq = head;
    headworks_slot slot;
    headworks_status status;
    if (quarter)
        capacity -= capacity / 4;
    if (head > kept && from < head - kept)
        from = head - kept;
    while (seq > from) {
        seq--;
        status = headworks_copy_slot(ring, seq, &slot);
        /* So are all before it, and there is no time to lose. */
        if (status == HEADWORKS_LAPPED ||
            (status == HEADWORKS_OK && headworks_load(ring->mapping.ctl, HEADWORKS_CTL_DATA_RESERVE) - slot.position > capacity))
            break;
        if (status != HEADWORKS_OK)
            continue;
        if (headworks_is_key(&slot))
            return seq;
        if (recovery_point == HEADWORKS_NONE && headworks_is_recovery_point(&slot))
            recovery_point = seq;
    }
    return recovery_point == HEADWORKS_NONE || headworks_holds_last_key(ring, head) ? HEADWORKS_NONE : recovery_point;
}

/* Which frames are wanted. */
typedef enum headworks_wanted { HEADWORKS_WANTED_ANY, HEADWORKS_WANTED_KEY, HEADWORKS_WANTED_RECOVERY_POINT } headworks_wanted;

/* The oldest readable frame below `head` of this kind and with at least this stream_seq; at most one look at every slot. */
static uint64_t headworks_oldest(const headworks_ring *ring, uint64_t head, headworks_wanted wanted, uint64_t stream_seq) {
    uint64_t seq = headworks_oldest_seq(ring, head);
    headworks_slot slot;
    for (; seq < head; seq++) {
        if (headworks_copy_slot(ring, seq, &slot) == HEADWORKS_OK && slot.stream_seq >= stream_seq &&
            (wanted == HEADWORKS_WANTED_ANY ||
             (wanted == HEADWORKS_WANTED_KEY ? headworks_is_key(&slot) : headworks_is_recovery_point(&slot))))
            return seq;
    }
    return HEADWORKS_NONE;
}

void headworks_ring_seek(headworks_ring *ring, headworks_start start, uint64_t sequence) {
    uint64_t head = headworks_head(ring), found = head;
    ring->has_pending = 0;
    ring->skipped = 0;
    ring->awaiting_key = 0;
    switch (start) {
    case HEADWORKS_START_LIVE: break;
    case HEADWORKS_START_SEQUENCE: found = sequence < head ? sequence : head; break;
    case HEADWORKS_START_OLDEST: found = headworks_oldest(ring, head, HEADWORKS_WANTED_ANY, 0); break;
    case HEADWORKS_START_KEY: found = headworks_newest_start(ring, 0, head, 0); break;
    case HEADWORKS_START_OLDEST_KEY:
        found = headworks_oldest(ring, head, HEADWORKS_WANTED_KEY, 0);
        if (found == HEADWORKS_NONE)
            found = headworks_oldest(ring, head, HEADWORKS_WANTED_RECOVERY_POINT, 0);
        break;
    }
    if (found == HEADWORKS_NONE && start != HEADWORKS_START_OLDEST)
        ring->awaiting_key = start == HEADWORKS_START_KEY || start == HEADWORKS_START_OLDEST_KEY;
    ring->next = found == HEADWORKS_NONE ? head : found;
}

void headworks_ring_seek_stream_seq(headworks_ring *ring, uint64_t stream_seq) {
    uint64_t head = headworks_head(ring), found;
    headworks_ring_seek(ring, HEADWORKS_START_LIVE, 0);
    found = headworks_oldest(ring, head, HEADWORKS_WANTED_ANY, stream_seq);
    ring->next = found == HEADWORKS_NONE ? head : found;
}

/* Goes where HEADWORKS_START_OLDEST_KEY does; the frames passed over from the oldest one on are told. */
static void headworks_seek_first_key(headworks_ring *ring) {
    uint64_t oldest;
    headworks_ring_seek(ring, HEADWORKS_START_OLDEST, 0);
    oldest = ring->next;
    headworks_ring_seek(ring, HEADWORKS_START_OLDEST_KEY, 0);
    ring->skipped = ring->next > oldest ? ring->next - oldest : 0;
}

/* On to the newest random access point if a quarter of the ring is still ahead of the writer, else to the next one. */
static headworks_status headworks_resume(headworks_ring *ring, headworks_next *next) {
    uint64_t old = ring->next, head = headworks_head(ring), found;
    ring->has_pending = 0;
    /* Always forward, so that no contradiction in the ring can hold us here. */
    if (head <= old)
        head = old + 1;
    found = headworks_newest_start(ring, old + 1, head, 1);
    ring->awaiting_key = found == HEADWORKS_NONE;
    ring->next = ring->awaiting_key ? head : found;
    next->count = ring->next - old;
    next->resume_at = ring->next;
    return HEADWORKS_LAPPED;
}

static headworks_status headworks_take_skipped(headworks_ring *ring, headworks_next *next) {
    next->count = ring->skipped;
    next->resume_at = ring->next;
    ring->skipped = 0;
    return HEADWORKS_SKIPPED;
}

static headworks_status headworks_pass(headworks_ring *ring, headworks_next *next, headworks_status error) {
    ring->next++;
    next->count = 1;
    next->resume_at = ring->next;
    return error;
}

/* One look, no wait: HEADWORKS_FRAME means that `pending` holds the next frame's slot, HEADWORKS_TIMEOUT that there is none. */
static headworks_status headworks_look(headworks_ring *ring, headworks_next *next) {
    uint64_t head, found;
    headworks_status status;
    if (ring->has_pending)
        return HEADWORKS_FRAME;
    head = headworks_head(ring);
    if (ring->next > head)
        return HEADWORKS_ERROR_HEAD;
    if (ring->awaiting_key) {
        found = headworks_newest_start(ring, ring->next, head, 0);
        ring->awaiting_key = found == HEADWORKS_NONE;
        if (ring->awaiting_key)
            found = head;
        ring->skipped += found - ring->next;
        ring->next = found;
    }
    if (!ring->awaiting_key && ring->skipped > 0)
        return headworks_take_skipped(ring, next);
    if (ring->next == head)
        return HEADWORKS_TIMEOUT;
    if (ring->next < headworks_oldest_seq(ring, head))
        return headworks_resume(ring, next);
    status = headworks_copy_slot(ring, ring->next, &ring->pending);
    if (status == HEADWORKS_LAPPED)
        return headworks_resume(ring, next);
    if (status != HEADWORKS_OK)
        return headworks_pass(ring, next, status);
    ring->has_pending = 1;
    return HEADWORKS_FRAME;
}

static uint16_t headworks_enumerator(const uint8_t *descriptor, size_t at, uint16_t most, uint16_t otherwise) {
    uint16_t value = headworks_u16(descriptor, at);
    return value > most ? otherwise : value;
}

static void headworks_describe(const headworks_ring *ring, const headworks_slot *slot, headworks_frame *frame) {
    const uint8_t *d = (const uint8_t *)slot->words;
    uint8_t bits = d[149];
    memset(frame, 0, sizeof *frame);
    frame->size = slot->length;
    frame->side_data_size = headworks_u32(d, 124);
    frame->stream_seq = slot->stream_seq;
    frame->seq = headworks_u64(d, 0);
    frame->key_seq = headworks_u64(d, 8);
    frame->has_pts = bits & 1;
    frame->has_dts = bits >> 1 & 1;
    frame->has_crc = bits >> 2 & 1;
    frame->has_timecode = bits >> 3 & 1;
    frame->timecode_drop_frame = bits >> 4 & 1;
    frame->damaged = bits >> 5 & 1;
    frame->key = bits >> 6 & 1;
    frame->pts_interpolated = bits >> 7 & 1;
    frame->dts_derived = d[150] & 1;
    frame->pts = frame->has_pts ? (int64_t)headworks_u64(d, 16) : 0;
    frame->dts = frame->has_dts ? (int64_t)headworks_u64(d, 24) : 0;
    frame->timeline_ns = (int64_t)headworks_u64(d, 32);
    frame->origin = headworks_u64(d, 40);
    frame->first_arrival_ns = headworks_u64(d, 48);
    frame->last_arrival_ns = headworks_u64(d, 56);
    frame->due_ns = headworks_u64(d, 64);
    frame->commit_ns = headworks_u64(d, 72);
    frame->wall_clock_ns = (int64_t)headworks_u64(d, 80);
    frame->duration = headworks_u32(d, 88);
    frame->config_generation = headworks_u32(d, 92);
    frame->segment = headworks_u32(d, 96);
    frame->packets_lost = headworks_u32(d, 100);
    frame->packets_recovered = headworks_u32(d, 104);
    frame->path_mask = headworks_u32(d, 108);
    frame->damage_reasons = headworks_u32(d, 112);
    frame->crc32c = headworks_u32(d, 116);
    frame->discontinuity = headworks_enumerator(d, 128, 7, HEADWORKS_DISCONTINUITY_SIGNALLED);
    frame->origin_kind = headworks_enumerator(d, 130, 2, 0);
    frame->wall_clock = headworks_enumerator(d, 132, 2, 0);
    frame->wall_clock_quality = headworks_enumerator(d, 134, 4, 0);
    frame->picture_type = headworks_enumerator(d, 136, 3, 0);
    frame->picture_structure = headworks_enumerator(d, 138, 7, 0);
    frame->random_access = headworks_enumerator(d, 140, 7, 0);
    frame->recovery_count = headworks_u16(d, 142);
    frame->timecode_hours = d[144];
    frame->timecode_minutes = d[145];
    frame->timecode_seconds = d[146];
    frame->timecode_frames = d[147];
    frame->temporal_id = d[148];
    frame->configuration_changed = frame->config_generation != ring->config_generation;
    frame->position = slot->position;
}

/* Makes a frame of the pending slot, copied or borrowed: HEADWORKS_FRAME, HEADWORKS_LAPPED, or an error of the frame. */
static headworks_status headworks_take(headworks_ring *ring, int borrow, headworks_next *next) {
    const headworks_slot *slot = &ring->pending;
    const headworks_mapping *mapping = &ring->mapping;
    const uint8_t *shared = mapping->data + (slot->position & (mapping->header.data_capacity - 1));
    const uint8_t *start = shared;
    headworks_frame *frame = &next->frame;
    ring->has_pending = 0;
    if (ring->has_borrowed && headworks_is_intact(ring, ring->borrowed_position))
        ring->config_generation = ring->borrowed_generation;
    ring->has_borrowed = borrow;
    if (!borrow) {
        if (ring->buffer_size < slot->extent || !ring->buffer) {
            size_t room = 4096;
            uint8_t *buffer;
            while (room < slot->extent)
                room *= 2;
            buffer = (uint8_t *)realloc(ring->buffer, room);
            if (!buffer)
                return headworks_pass(ring, next, HEADWORKS_ERROR_MEMORY);
            ring->buffer = buffer;
            ring->buffer_size = room;
        }
        headworks_copy_shared(ring->buffer, shared, slot->extent);
        if (!headworks_is_intact(ring, slot->position))
            return headworks_resume(ring, next);
        start = ring->buffer;
    }
    headworks_describe(ring, slot, frame);
    frame->data = start;
    frame->side_data = start + headworks_u32((const uint8_t *)slot->words, 120);
    frame->ring = borrow ? ring : (const headworks_ring *)0;
    if (!borrow && ring->verify && frame->has_crc && headworks_crc32c(frame->data, frame->size) != frame->crc32c)
        return headworks_pass(ring, next, HEADWORKS_ERROR_CHECKSUM);
    if (borrow) {
        ring->borrowed_position = slot->position;
        ring->borrowed_generation = frame->config_generation;
    } else {
        ring->config_generation = frame->config_generation;
    }
    ring->next++;
    return HEADWORKS_FRAME;
}

int headworks_frame_is_intact(const headworks_frame *frame) {
    return !frame->ring || headworks_is_intact(frame->ring, frame->position);
}

uint64_t headworks_frame_margin(const headworks_frame *frame) {
    uint64_t ahead, capacity;
    if (!frame->ring)
        return UINT64_MAX;
    ahead = headworks_load(frame->ring->mapping.ctl, HEADWORKS_CTL_DATA_RESERVE) - frame->position;
    capacity = frame->ring->mapping.header.data_capacity;
    return ahead < capacity ? capacity - ahead : 0;
}

int headworks_frame_copy(const headworks_frame *frame, size_t offset, void *to, size_t length) {
    if (offset > frame->size || length > frame->size - offset)
        return 0;
    headworks_copy_shared(to, frame->data + offset, length);
    return headworks_frame_is_intact(frame);
}

static int headworks_is_from_key(const headworks_options *options) {
    return !options || options->start == HEADWORKS_START_KEY || options->start == HEADWORKS_START_OLDEST_KEY;
}

static headworks_status headworks_ring_new(headworks_ring **ring, const headworks_mapping *mapping, const headworks_options *options) {
    *ring = (headworks_ring *)calloc(1, sizeof **ring);
    if (!*ring)
        return HEADWORKS_ERROR_MEMORY;
    (*ring)->mapping = *mapping;
    (*ring)->verify = options ? options->verify : 0;
    (*ring)->stay = options ? options->stay : 0;
    (*ring)->from_key = headworks_is_from_key(options);
    headworks_ring_seek(*ring, options ? options->start : HEADWORKS_START_KEY, options ? options->sequence : 0);
    return HEADWORKS_OK;
}

headworks_status headworks_ring_open_files(headworks_ring **ring, int ctl, int data, const headworks_options *options) {
    headworks_mapping mapping;
    headworks_status status = headworks_map(&mapping, ctl, data);
    *ring = (headworks_ring *)0;
    if (status != HEADWORKS_OK)
        return status;
    status = headworks_ring_new(ring, &mapping, options);
    if (status != HEADWORKS_OK)
        headworks_unmap(&mapping);
    return status;
}

headworks_status headworks_ring_open(headworks_ring **ring, const char *directory, const headworks_options *options) {
    headworks_mapping mapping;
    headworks_status status = headworks_map_at(&mapping, AT_FDCWD, directory);
    *ring = (headworks_ring *)0;
    if (status != HEADWORKS_OK)
        return status;
    status = headworks_ring_new(ring, &mapping, options);
    if (status != HEADWORKS_OK) {
        headworks_unmap(&mapping);
        return status;
    }
    status = headworks_absolute(directory, &(*ring)->path);
    if (status != HEADWORKS_OK) {
        headworks_ring_close(*ring);
        *ring = (headworks_ring *)0;
    }
    return status;
}

/* Gives the payloads' memory back, which is held as long as it is mapped. The ring is read no more. */
static void headworks_let_go(headworks_ring *ring) {
    if (ring->mapping.reservation)
        munmap(ring->mapping.reservation, ring->mapping.reservation_size);
    ring->mapping.reservation = (uint8_t *)0;
    ring->mapping.data = (const uint8_t *)0;
    ring->has_pending = 0;
}

void headworks_ring_close(headworks_ring *ring) {
    if (!ring)
        return;
    headworks_unmap(&ring->mapping);
    free(ring->buffer);
    free(ring->path);
    free(ring);
}

/* Puts another ring in the place of this one: 1 if it is one. It is read from its oldest frame on, as nothing of it was seen, or with
 * `from_key` from its first random access point on if none has come from the one before. */
static int headworks_replace(headworks_ring *ring, headworks_mapping *mapping, int from_key) {
    if (memcmp(mapping->header.ring_uuid, ring->mapping.header.ring_uuid, 16) == 0 ||
        headworks_state_of(headworks_load_half(mapping->ctl, HEADWORKS_CTL_STATE)) == HEADWORKS_STATE_SUPERSEDED) {
        headworks_unmap(mapping);
        return 0;
    }
    headworks_unmap(&ring->mapping);
    ring->mapping = *mapping;
    ring->config_generation = 0;
    ring->has_borrowed = 0;
    ring->stalled_told = 0;
    ring->superseded_told = 0;
    memset(&ring->life, 0, sizeof ring->life);
    if (from_key && ring->awaiting_key)
        headworks_seek_first_key(ring);
    else
        headworks_ring_seek(ring, HEADWORKS_START_OLDEST, 0);
    return 1;
}

static int headworks_reopen(headworks_ring *ring) {
    headworks_mapping mapping;
    return headworks_map_at(&mapping, AT_FDCWD, ring->path) == HEADWORKS_OK && headworks_replace(ring, &mapping, ring->from_key);
}

/* Nothing is left in a ring whose final state was seen. */
static int headworks_is_drained(const headworks_ring *ring) {
    return headworks_head(ring) == ring->next;
}

/* What a call that found nothing to open says: who asks until HEADWORKS_TIMEOUT is not held up. */
static headworks_status headworks_superseded(int *told) {
    headworks_status status = *told ? HEADWORKS_TIMEOUT : HEADWORKS_SUPERSEDED;
    *told = 1;
    return status;
}

/* The ring is empty: says why, sleeps, or says HEADWORKS_OK when it is worth another look. */
static headworks_status headworks_ring_idle(headworks_ring *ring, uint32_t seen, uint64_t deadline, headworks_next *next) {
    const uint8_t *ctl = ring->mapping.ctl;
    headworks_state state = headworks_ring_state(ring);
    uint64_t now = headworks_now_ns(), left = headworks_left(deadline, now);
    switch (state) {
    case HEADWORKS_STATE_ENDED:
    case HEADWORKS_STATE_SUPERSEDED:
        /* The last frame may have come between the two looks. */
        if (!headworks_is_drained(ring))
            return HEADWORKS_OK;
        if (ring->skipped > 0)
            return headworks_take_skipped(ring, next);
        if (state == HEADWORKS_STATE_ENDED)
            return HEADWORKS_ENDED;
        if (ring->stay || !ring->path)
            return HEADWORKS_SUPERSEDED;
        if (headworks_reopen(ring))
            return HEADWORKS_REOPENED;
        if (left == 0)
            return headworks_superseded(&ring->superseded_told);
        headworks_sleep(left);
        return HEADWORKS_OK;
    case HEADWORKS_STATE_STALLED:
        if (!ring->stalled_told) {
            ring->stalled_told = 1;
            return HEADWORKS_STALLED;
        }
        break;
    case HEADWORKS_STATE_LIVE: ring->stalled_told = 0; break;
    }
    /* A frame is a sign of life too. */
    if (headworks_has_died(&ring->life,
                           headworks_load(ctl, HEADWORKS_CTL_HEARTBEAT_COUNT) + headworks_load(ctl, HEADWORKS_CTL_HEAD_SEQ), now))
        return HEADWORKS_WRITER_DEAD;
    if (left == 0)
        return HEADWORKS_TIMEOUT;
    headworks_futex_wait(ctl, HEADWORKS_CTL_FUTEX, seen, left);
    return HEADWORKS_OK;
}

static headworks_status headworks_ring_advance(headworks_ring *ring, int timeout_ms, int borrow, headworks_next *next) {
    uint64_t deadline = headworks_deadline(timeout_ms);
    uint32_t rounds;
    for (rounds = 0; rounds < HEADWORKS_ROUNDS_MAX || deadline == HEADWORKS_FOREVER || headworks_now_ns() < deadline; rounds++) {
        /* Before the look at head_seq and state: the writer bumps it after the stores to them. */
        uint32_t seen = headworks_load_half_acquire(ring->mapping.ctl, HEADWORKS_CTL_FUTEX);
        headworks_status status = headworks_look(ring, next);
        if (status == HEADWORKS_FRAME)
            return headworks_take(ring, borrow, next);
        if (status != HEADWORKS_TIMEOUT)
            return status;
        status = headworks_ring_idle(ring, seen, deadline, next);
        if (status != HEADWORKS_OK)
            return status;
    }
    return HEADWORKS_TIMEOUT;
}

headworks_status headworks_ring_next(headworks_ring *ring, int timeout_ms, headworks_next *next) {
    memset(next, 0, sizeof *next);
    next->status = headworks_ring_advance(ring, timeout_ms, 0, next);
    return next->status;
}

headworks_status headworks_ring_borrow(headworks_ring *ring, int timeout_ms, headworks_next *next) {
    memset(next, 0, sizeof *next);
    next->status = headworks_ring_advance(ring, timeout_ms, 1, next);
    return next->status;
}

const headworks_header *headworks_ring_header(const headworks_ring *ring) {
    return &ring->mapping.header;
}

headworks_state headworks_ring_state(const headworks_ring *ring) {
    return headworks_state_of(headworks_load_half_acquire(ring->mapping.ctl, HEADWORKS_CTL_STATE));
}

uint32_t headworks_ring_epoch(const headworks_ring *ring) {
    return headworks_load_half_acquire(ring->mapping.ctl, HEADWORKS_CTL_WRITER_EPOCH);
}

uint64_t headworks_ring_heartbeat_count(const headworks_ring *ring) {
    return headworks_load(ring->mapping.ctl, HEADWORKS_CTL_HEARTBEAT_COUNT);
}

uint64_t headworks_ring_position(const headworks_ring *ring) {
    return ring->next;
}

uint64_t headworks_ring_head_seq(const headworks_ring *ring) {
    return headworks_head(ring);
}

uint64_t headworks_ring_last_key_seq(const headworks_ring *ring) {
    return headworks_load_acquire(ring->mapping.ctl, HEADWORKS_CTL_LAST_KEY_SEQ);
}

headworks_totals headworks_ring_totals(const headworks_ring *ring) {
    headworks_totals totals;
    totals.frames = headworks_load(ring->mapping.ctl, HEADWORKS_CTL_TOTALS);
    totals.bytes = headworks_load(ring->mapping.ctl, HEADWORKS_CTL_TOTALS + 8);
    totals.damaged = headworks_load(ring->mapping.ctl, HEADWORKS_CTL_TOTALS + 16);
    totals.discontinuities = headworks_load(ring->mapping.ctl, HEADWORKS_CTL_TOTALS + 24);
    return totals;
}

uint32_t headworks_ring_configuration_generation(const headworks_ring *ring) {
    return headworks_load_half_acquire(ring->mapping.ctl, HEADWORKS_CTL_CONFIG_GENERATION);
}

headworks_status headworks_ring_configuration(const headworks_ring *ring, uint32_t generation, void *to, size_t room,
                                              size_t *length) {
    const uint8_t *ctl = ring->mapping.ctl;
    const headworks_header *header = &ring->mapping.header;
    uint32_t current = headworks_ring_configuration_generation(ring), crc;
    uint64_t lengths;
    size_t block, size;
    *length = 0;
    if (generation == 0 || generation > current)
        return HEADWORKS_ERROR_CONFIGURATION_UNKNOWN;
    if (current - generation >= header->config_count)
        return HEADWORKS_ERROR_CONFIGURATION_GONE;
    block = (size_t)header->config_offset + (size_t)(generation % header->config_count) * header->config_size;
    if (headworks_load_acquire(ctl, block) != generation)
        return HEADWORKS_ERROR_CONFIGURATION_GONE;
    lengths = headworks_load(ctl, block + 8);
    crc = (uint32_t)headworks_load(ctl, block + 16);
    size = (size_t)(lengths >> 32);
    if ((uint32_t)lengths != generation || size > header->config_size - HEADWORKS_CTL_CONFIG_HEAD)
        return headworks_load(ctl, block) == generation ? HEADWORKS_ERROR_CONFIGURATION_DAMAGED : HEADWORKS_ERROR_CONFIGURATION_GONE;
    *length = size;
    if (size > room)
        return HEADWORKS_ERROR_ROOM;
    headworks_copy_shared(to, ctl + block + HEADWORKS_CTL_CONFIG_HEAD, size);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (headworks_load(ctl, block) != generation)
        return HEADWORKS_ERROR_CONFIGURATION_GONE;
    return headworks_crc32c(to, size) == crc ? HEADWORKS_OK : HEADWORKS_ERROR_CONFIGURATION_DAMAGED;
}

/* Names on disk. ------------------------------------------------------------------------------------------------------------------- */

static uint64_t headworks_rotate(uint64_t value, int by) {
    return value << by | value >> (64 - by);
}

static void headworks_sip_round(uint64_t v[4]) {
    v[0] += v[1];
    v[2] += v[3];
    v[1] = headworks_rotate(v[1], 13) ^ v[0];
    v[3] = headworks_rotate(v[3], 16) ^ v[2];
    v[0] = headworks_rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = headworks_rotate(v[1], 17) ^ v[2];
    v[3] = headworks_rotate(v[3], 21) ^ v[0];
    v[2] = headworks_rotate(v[2], 32);
}

/* SipHash-2-4 of 128 bits with the key of src/directory.rs. */
static void headworks_hash(const uint8_t *bytes, size_t length, uint64_t *low, uint64_t *high) {
    const uint64_t k0 = UINT64_C(0x48454144574F524B), k1 = UINT64_C(0x5352494E475F5631);
    uint64_t v[4], word;
    size_t at = 0;
    int i;
    v[0] = k0 ^ UINT64_C(0x736f6d6570736575);
    v[1] = k1 ^ UINT64_C(0x646f72616e646f6d) ^ 0xEE;
    v[2] = k0 ^ UINT64_C(0x6c7967656e657261);
    v[3] = k1 ^ UINT64_C(0x7465646279746573);
    for (;;) {
        size_t rest = length - at < 8 ? length - at : 8;
        word = rest < 8 ? (uint64_t)length << 56 : 0;
        for (i = 0; i < (int)rest; i++)
            word |= (uint64_t)bytes[at + (size_t)i] << (8 * i);
        v[3] ^= word;
        headworks_sip_round(v);
        headworks_sip_round(v);
        v[0] ^= word;
        if (rest < 8)
            break;
        at += 8;
    }
    v[2] ^= 0xEE;
    for (i = 0; i < 4; i++)
        headworks_sip_round(v);
    *low = v[0] ^ v[1] ^ v[2] ^ v[3];
    v[1] ^= 0xDD;
    for (i = 0; i < 4; i++)
        headworks_sip_round(v);
    *high = v[0] ^ v[1] ^ v[2] ^ v[3];
}

static const char headworks_digits[] = "0123456789ABCDEF";

/* What is not a letter, a digit, '-', '_', '.' or '~' is %XX; so is every leading dot. Over 200 bytes: cut, '+', a hash. */
static void headworks_encode_name(const char *name, char encoded[HEADWORKS_NAME_SIZE]) {
    const size_t most = 200, cut = most - 33;
    size_t length = strlen(name), at = 0, used = 0, cut_at = 0;
    int leading = 1;
    for (; at < length; at++) {
        unsigned char byte = (unsigned char)name[at];
        int plain = (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') ||
                    byte == '-' || byte == '_' || byte == '.' || byte == '~';
        size_t width;
        leading = leading && byte == '.';
        width = plain && !leading ? 1 : 3;
        if (used + width > most) {
            uint64_t parts[2];
            int i;
            headworks_hash((const uint8_t *)name, length, &parts[1], &parts[0]);
            encoded[cut_at] = '+';
            for (i = 0; i < 32; i++) {
                char digit = headworks_digits[parts[i / 16] >> (60 - 4 * (i % 16)) & 15];
                encoded[cut_at + 1 + (size_t)i] = digit >= 'A' ? (char)(digit - 'A' + 'a') : digit;
            }
            encoded[cut_at + 33] = 0;
            return;
        }
        if (width == 1) {
            encoded[used] = (char)byte;
        } else {
            encoded[used] = '%';
            encoded[used + 1] = headworks_digits[byte >> 4];
            encoded[used + 2] = headworks_digits[byte & 15];
        }
        used += width;
        /* Not in the middle of an escape. */
        if (used <= cut)
            cut_at = used;
    }
    if (length == 0)
        encoded[used++] = '%';
    encoded[used] = 0;
}

/* The name a directory stands for, in place of it; 0 if it stands for none, or only stream.capnp knows (cut names). */
static int headworks_decode_name(const char *encoded, char decoded[HEADWORKS_NAME_SIZE]) {
    char again[HEADWORKS_NAME_SIZE];
    size_t used = 0;
    const char *at = encoded;
    if (strlen(encoded) >= HEADWORKS_NAME_SIZE)
        return 0;
    for (; *at && strcmp(encoded, "%") != 0; at++) {
        if (*at == '%') {
            const char *high = at[1] ? strchr(headworks_digits, at[1]) : (const char *)0;
            const char *low = high && at[2] ? strchr(headworks_digits, at[2]) : (const char *)0;
            if (!low)
                return 0;
            decoded[used++] = (char)((high - headworks_digits) << 4 | (low - headworks_digits));
            at += 2;
        } else {
            decoded[used++] = *at;
        }
    }
    decoded[used] = 0;
    /* One name, one directory: what is encoded otherwise is not Headworks'. */
    headworks_encode_name(decoded, again);
    return strcmp(again, encoded) == 0;
}

headworks_status headworks_stream_directory(const char *root, const char *name, char *path, size_t room) {
    char encoded[HEADWORKS_NAME_SIZE];
    size_t root_length, name_length;
    if (!root)
        root = HEADWORKS_ROOT;
    headworks_encode_name(name, encoded);
    root_length = strlen(root);
    name_length = strlen(encoded);
    if (root_length + 1 + name_length >= room)
        return HEADWORKS_ERROR_ROOM;
    memcpy(path, root, root_length);
    path[root_length] = '/';
    memcpy(path + root_length + 1, encoded, name_length + 1);
    return HEADWORKS_OK;
}

void headworks_names_free(char **names, size_t count) {
    size_t i;
    for (i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

static int headworks_compare_names(const void *left, const void *right) {
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* The directories below `handle` that hold a file of this name, sorted; those with a leading dot are temporary. */
static headworks_status headworks_directories(int handle, const char *file, char ***names, size_t *count) {
    char **found = (char **)0, **more;
    size_t used = 0, room = 0;
    struct dirent *entry;
    DIR *directory;
    int listing = openat(handle, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *names = (char **)0;
    *count = 0;
    if (listing < 0)
        return HEADWORKS_ERROR_SYSTEM;
    directory = fdopendir(listing);
    if (!directory) {
        close(listing);
        return HEADWORKS_ERROR_SYSTEM;
    }
    while ((entry = readdir(directory)) != (struct dirent *)0) {
        char path[sizeof entry->d_name + 16];
        struct stat file_stat;
        size_t length = strlen(entry->d_name);
        if (entry->d_name[0] == '.')
            continue;
        memcpy(path, entry->d_name, length);
        path[length] = '/';
        memcpy(path + length + 1, file, strlen(file) + 1);
        if (fstatat(handle, path, &file_stat, 0) != 0 || !S_ISREG(file_stat.st_mode))
            continue;
        if (used == room) {
            room = room ? room * 2 : 16;
            more = (char **)realloc(found, room * sizeof *found);
            if (!more)
                break;
            found = more;
        }
        found[used] = headworks_text_copy(entry->d_name);
        if (!found[used])
            break;
        used++;
    }
    closedir(directory);
    if (entry) {
        headworks_names_free(found, used);
        return HEADWORKS_ERROR_MEMORY;
    }
    if (used > 0)
        qsort(found, used, sizeof *found, headworks_compare_names);
    *names = found;
    *count = used;
    return HEADWORKS_OK;
}

static headworks_status headworks_open_directory(const char *path, int *handle) {
    *handle = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *handle < 0 ? HEADWORKS_ERROR_SYSTEM : HEADWORKS_OK;
}

headworks_status headworks_track_names(const char *stream_directory, char ***names, size_t *count) {
    int handle;
    headworks_status status = headworks_open_directory(stream_directory, &handle);
    *names = (char **)0;
    *count = 0;
    if (status != HEADWORKS_OK)
        return status;
    status = headworks_directories(handle, "ctl", names, count);
    close(handle);
    return status;
}

/* stream.capnp: one message of one segment. ---------------------------------------------------------------------------------------- */

typedef struct headworks_message {
    const uint8_t *words; /* the segment */
    uint64_t length;      /* words */
} headworks_message;

/* A struct of a message: its place is checked when it is made. */
typedef struct headworks_object {
    uint64_t data, data_words, pointer_words;
} headworks_object;

typedef struct headworks_list {
    uint64_t first, count, data_words, pointer_words;
} headworks_list;

/* Where a struct or list pointer leads, HEADWORKS_NONE if out of the segment. */
static uint64_t headworks_target(const headworks_message *message, uint64_t at, uint64_t pointer) {
    int64_t target = (int64_t)at + 1 + ((int32_t)(uint32_t)pointer >> 2);
    return target < 0 || (uint64_t)target > message->length ? HEADWORKS_NONE : (uint64_t)target;
}

/* A number of a struct's data, 0 where an older writer had none. `at` is a multiple of `size`, bytes. */
static uint64_t headworks_field(const headworks_message *message, const headworks_object *object, size_t at, size_t size) {
    uint64_t value = 0;
    if (at + size <= object->data_words * 8)
        memcpy(&value, message->words + object->data * 8 + at, size);
    return value;
}

/* The pointer of a struct's pointer section and where it lies; 0 is the null pointer. */
static uint64_t headworks_pointer(const headworks_message *message, const headworks_object *object, uint64_t index, uint64_t *at) {
    *at = object->data + object->data_words + index;
    return index < object->pointer_words ? headworks_u64(message->words, (size_t)*at * 8) : 0;
}

/* A text, "" if not said; NULL if it is none. */
static const char *headworks_text(const headworks_message *message, const headworks_object *object, uint64_t index) {
    uint64_t at, pointer = headworks_pointer(message, object, index, &at), target, count;
    if (pointer == 0)
        return "";
    target = headworks_target(message, at, pointer);
    count = pointer >> 35;
    /* A list of bytes, the last of them a NUL. */
    if ((pointer & 3) != 1 || (pointer >> 32 & 7) != 2 || target == HEADWORKS_NONE || count == 0 ||
        (count + 7) / 8 > message->length - target || message->words[target * 8 + count - 1] != 0)
        return (const char *)0;
    return (const char *)message->words + target * 8;
}

/* A list of structs, empty if not said; 0 if it is none. */
static int headworks_structs(const headworks_message *message, const headworks_object *object, uint64_t index, headworks_list *list) {
    uint64_t at, pointer = headworks_pointer(message, object, index, &at), target, tag, words;
    memset(list, 0, sizeof *list);
    if (pointer == 0)
        return 1;
    target = headworks_target(message, at, pointer);
    words = pointer >> 35;
    if ((pointer & 3) != 1 || (pointer >> 32 & 7) != 7 || target == HEADWORKS_NONE || target == message->length ||
        words > message->length - target - 1)
        return 0;
    tag = headworks_u64(message->words, (size_t)target * 8);
    list->first = target + 1;
    list->count = (tag & UINT32_MAX) >> 2;
    list->data_words = tag >> 32 & 0xFFFF;
    list->pointer_words = tag >> 48;
    /* Structs of no size would be many in no room. */
    return (tag & 3) == 0 && list->count <= message->length && (list->count == 0 || list->data_words + list->pointer_words > 0) &&
           list->count * (list->data_words + list->pointer_words) <= words;
}

static headworks_object headworks_element(const headworks_list *list, uint64_t index) {
    headworks_object object;
    object.data = list->first + index * (list->data_words + list->pointer_words);
    object.data_words = list->data_words;
    object.pointer_words = list->pointer_words;
    return object;
}

static headworks_status headworks_fill(headworks_description *description, const headworks_message *message) {
    headworks_object root, object;
    headworks_list programmes, tracks;
    uint64_t pointer, i;
    if (message->length == 0)
        return HEADWORKS_ERROR_MALFORMED;
    pointer = headworks_u64(message->words, 0);
    root.data = headworks_target(message, 0, pointer);
    root.data_words = pointer >> 32 & 0xFFFF;
    root.pointer_words = pointer >> 48;
    if ((pointer & 3) != 0 || root.data == HEADWORKS_NONE || root.data_words + root.pointer_words > message->length - root.data ||
        !headworks_structs(message, &root, 1, &programmes) || !headworks_structs(message, &root, 2, &tracks))
        return HEADWORKS_ERROR_MALFORMED;
    description->name = headworks_text(message, &root, 0);
    description->generation = (uint32_t)headworks_field(message, &root, 0, 4);
    description->created_utc_ns = (int64_t)headworks_field(message, &root, 8, 8);
    if (!description->name)
        return HEADWORKS_ERROR_MALFORMED;
    description->programmes = (headworks_programme *)calloc((size_t)programmes.count + 1, sizeof *description->programmes);
    description->tracks = (headworks_track_description *)calloc((size_t)tracks.count + 1, sizeof *description->tracks);
    if (!description->programmes || !description->tracks)
        return HEADWORKS_ERROR_MEMORY;
    for (i = 0; i < programmes.count; i++) {
        headworks_programme *programme = &description->programmes[i];
        object = headworks_element(&programmes, i);
        programme->number = (uint32_t)headworks_field(message, &object, 0, 4);
        programme->pcr_pid = (uint16_t)headworks_field(message, &object, 4, 2);
        programme->name = headworks_text(message, &object, 0);
        programme->provider = headworks_text(message, &object, 1);
        if (!programme->name || !programme->provider)
            return HEADWORKS_ERROR_MALFORMED;
    }
    for (i = 0; i < tracks.count; i++) {
        headworks_track_description *track = &description->tracks[i];
        uint32_t codec;
        object = headworks_element(&tracks, i);
        track->name = headworks_text(message, &object, 0);
        track->language = headworks_text(message, &object, 1);
        track->programme = (uint32_t)headworks_field(message, &object, 0, 4);
        track->kind = headworks_kind_of((uint32_t)headworks_field(message, &object, 4, 2));
        /* Its default is -1: what is stored is the difference in bits. */
        track->component_tag = (int16_t)(uint16_t)~headworks_field(message, &object, 6, 2);
        codec = (uint32_t)headworks_field(message, &object, 8, 4);
        memcpy(track->codec, &codec, 4);
        track->source_id = (uint32_t)headworks_field(message, &object, 12, 4);
        track->clock_rate = (uint32_t)headworks_field(message, &object, 16, 4);
        track->width = (uint32_t)headworks_field(message, &object, 20, 4);
        track->height = (uint32_t)headworks_field(message, &object, 24, 4);
        track->frame_rate_numerator = (uint32_t)headworks_field(message, &object, 28, 4);
        track->frame_rate_denominator = (uint32_t)headworks_field(message, &object, 32, 4);
        track->sample_rate = (uint32_t)headworks_field(message, &object, 36, 4);
        track->channels = (uint16_t)headworks_field(message, &object, 40, 2);
        track->ended = (int)(headworks_field(message, &object, 42, 1) & 1);
        if (track->component_tag < 0 || track->component_tag > 255)
            track->component_tag = -1;
        if (!track->name || !track->language)
            return HEADWORKS_ERROR_MALFORMED;
    }
    description->programme_count = (size_t)programmes.count;
    description->track_count = (size_t)tracks.count;
    return HEADWORKS_OK;
}

headworks_status headworks_description_decode(headworks_description **description, const void *bytes, size_t size) {
    const uint8_t *framing = (const uint8_t *)bytes;
    headworks_message message;
    headworks_status status;
    uint8_t *words;
    *description = (headworks_description *)0;
    if (size < 8 || size > HEADWORKS_DESCRIPTION_SIZE_MAX || headworks_u32(framing, 0) != 0 ||
        headworks_u32(framing, 4) > (size - 8) / 8)
        return HEADWORKS_ERROR_MALFORMED;
    message.length = headworks_u32(framing, 4);
    /* The texts point into a copy that lies behind the struct. */
    *description = (headworks_description *)calloc(1, sizeof **description + (size_t)message.length * 8);
    if (!*description)
        return HEADWORKS_ERROR_MEMORY;
    words = (uint8_t *)(*description + 1);
    memcpy(words, framing + 8, (size_t)message.length * 8);
    message.words = words;
    status = headworks_fill(*description, &message);
    if (status != HEADWORKS_OK) {
        headworks_description_free(*description);
        *description = (headworks_description *)0;
    }
    return status;
}

static headworks_status headworks_description_read_file(headworks_description **description, int file) {
    headworks_status status;
    struct stat file_stat;
    size_t size, done = 0;
    uint8_t *bytes;
    if (fstat(file, &file_stat) != 0)
        return HEADWORKS_ERROR_SYSTEM;
    if (file_stat.st_size < 0 || file_stat.st_size > HEADWORKS_DESCRIPTION_SIZE_MAX)
        return HEADWORKS_ERROR_MALFORMED;
    size = (size_t)file_stat.st_size;
    bytes = (uint8_t *)malloc(size + 1);
    while (bytes && done < size) {
        ssize_t some = pread(file, bytes + done, size - done, (off_t)done);
        if (some <= 0)
            break;
        done += (size_t)some;
    }
    status = bytes ? headworks_description_decode(description, bytes, done) : HEADWORKS_ERROR_MEMORY;
    free(bytes);
    return status;
}

static headworks_status headworks_description_read_at(headworks_description **description, int parent, const char *path) {
    int directory = openat(parent, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), file;
    headworks_status status;
    *description = (headworks_description *)0;
    if (directory < 0)
        return HEADWORKS_ERROR_SYSTEM;
    file = headworks_open_file(directory, "stream.capnp", 0);
    close(directory);
    if (file < 0)
        return HEADWORKS_ERROR_SYSTEM;
    status = headworks_description_read_file(description, file);
    close(file);
    return status;
}

headworks_status headworks_description_read(headworks_description **description, const char *stream_directory) {
    return headworks_description_read_at(description, AT_FDCWD, stream_directory);
}

void headworks_description_free(headworks_description *description) {
    if (!description)
        return;
    free(description->programmes);
    free(description->tracks);
    free(description);
}

headworks_status headworks_stream_names(const char *root, char ***names, size_t *count) {
    int handle;
    size_t i, kept = 0;
    headworks_status status = headworks_open_directory(root ? root : HEADWORKS_ROOT, &handle);
    *names = (char **)0;
    *count = 0;
    if (status != HEADWORKS_OK)
        return status;
    status = headworks_directories(handle, "bell", names, count);
    for (i = 0; i < *count; i++) {
        char *encoded = (*names)[i], *name = (char *)0, decoded[HEADWORKS_NAME_SIZE];
        headworks_description *description = (headworks_description *)0;
        if (headworks_decode_name(encoded, decoded)) {
            name = headworks_text_copy(decoded);
        } else if (headworks_description_read_at(&description, handle, encoded) == HEADWORKS_OK) {
            headworks_encode_name(description->name, decoded);
            if (strcmp(decoded, encoded) == 0)
                name = headworks_text_copy(description->name);
        }
        headworks_description_free(description);
        free(encoded);
        if (name)
            (*names)[kept++] = name;
    }
    *count = kept;
    if (kept > 0)
        qsort(*names, kept, sizeof **names, headworks_compare_names);
    close(handle);
    return status;
}

/* The broker: a process that may open the files and hands out their descriptors. What is said to it stands in src/broker.rs. ------- */

/* The longest answer, and a NUL. */
#define HEADWORKS_ANSWER_SIZE ((32 << 10) + 1)
/* A word, two names and a UUID. */
#define HEADWORKS_REQUEST_SIZE (64 + 2 * HEADWORKS_NAME_SIZE)
#define HEADWORKS_BROKER_PATIENCE_S 2

static int headworks_connect(const char *path) {
    struct sockaddr_un address;
    struct timeval patience;
    int reason, made, file;
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path));
    file = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (file < 0)
        return -1;
    patience.tv_sec = HEADWORKS_BROKER_PATIENCE_S;
    patience.tv_usec = 0;
    made = setsockopt(file, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0 &&
           setsockopt(file, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) == 0;
    while (made && connect(file, (const struct sockaddr *)&address, sizeof address) != 0)
        made = errno == EINTR;
    if (made)
        return file;
    reason = errno;
    close(file);
    errno = reason;
    return -1;
}

/* Receives a message: its length, and the descriptors that come with it, at most two. -1 with errno. */
static ssize_t headworks_receive(int from, char *text, size_t room, int files[2], size_t *count) {
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct iovec bytes;
    struct msghdr message;
    struct cmsghdr *head;
    ssize_t length;
    *count = 0;
    bytes.iov_base = text;
    bytes.iov_len = room;
    do {
        memset(&message, 0, sizeof message);
        message.msg_iov = &bytes;
        message.msg_iovlen = 1;
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        length = recvmsg(from, &message, MSG_CMSG_CLOEXEC);
    } while (length < 0 && errno == EINTR);
    if (length < 0)
        return -1;
    head = CMSG_FIRSTHDR(&message);
    if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
        *count = head->cmsg_len == CMSG_LEN(2 * sizeof(int)) ? 2 : 1;
        memcpy(files, CMSG_DATA(head), *count * sizeof(int));
    }
    if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0)
        return length;
    while (*count > 0)
        close(files[--*count]);
    errno = EPROTO;
    return -1;
}

/* A request and its answer, of HEADWORKS_ANSWER_SIZE bytes at most, with so many descriptors. */
static headworks_status headworks_ask(const char *path, const char *request, char *answer, int files[2], size_t wanted) {
    static const struct {
        const char *word;
        int reason;
    } refusals[] = {{"refused", EACCES}, {"absent", ENOENT}, {"busy", EBUSY}, {"failed", EIO}, {"", ECONNRESET}};
    size_t count = 0, i;
    ssize_t length;
    int reason, file = headworks_connect(path);
    if (file < 0) {
        errno = errno == EAGAIN ? ETIMEDOUT : errno;
        return HEADWORKS_ERROR_SYSTEM;
    }
    do
        length = send(file, request, strlen(request), MSG_NOSIGNAL);
    while (length < 0 && errno == EINTR);
    /* It may have answered and closed the connection before: what it said is still there. */
    if (length >= 0 || errno == EPIPE) {
        length = headworks_receive(file, answer, HEADWORKS_ANSWER_SIZE - 1, files, &count);
        if (length < 0 && errno == ECONNRESET)
            length = headworks_receive(file, answer, HEADWORKS_ANSWER_SIZE - 1, files, &count);
    }
    reason = errno == EAGAIN ? ETIMEDOUT : errno;
    close(file);
    if (length >= 0) {
        answer[length] = 0;
        if (strncmp(answer, "ok", 2) == 0 && (answer[2] == 0 || answer[2] == '\n') && count == wanted)
            return HEADWORKS_OK;
        reason = EPROTO;
        for (i = 0; i < sizeof refusals / sizeof *refusals; i++)
            if (strcmp(answer, refusals[i].word) == 0)
                reason = refusals[i].reason;
    }
    while (count > 0)
        close(files[--count]);
    errno = reason;
    return HEADWORKS_ERROR_SYSTEM;
}

/* Asks for a stream by its encoded name; `track` and `uuid` may be NULL. */
static headworks_status headworks_ask_for(const char *path, const char *word, const char *stream, const char *track, const uint8_t *uuid,
                                          char *answer, int files[2], size_t wanted) {
    char request[HEADWORKS_REQUEST_SIZE];
    const char *parts[3];
    size_t used = 0, i;
    parts[0] = word;
    parts[1] = stream;
    parts[2] = track;
    for (i = 0; i < 3 && parts[i]; i++) {
        size_t length = strlen(parts[i]);
        if (used + 1 + length + 33 >= sizeof request) {
            errno = ENAMETOOLONG;
            return HEADWORKS_ERROR_SYSTEM;
        }
        if (i > 0)
            request[used++] = ' ';
        memcpy(request + used, parts[i], length);
        used += length;
    }
    if (uuid) {
        request[used++] = ' ';
        for (i = 0; i < 32; i++)
            request[used++] = "0123456789abcdef"[uuid[i / 2] >> (i % 2 ? 0 : 4) & 15];
    }
    request[used] = 0;
    return headworks_ask(path, request, answer, files, wanted);
}

/* Asks for a file of a stream by its encoded name. */
static headworks_status headworks_ask_for_file(const char *path, const char *word, const char *stream, int *file) {
    int files[2];
    char *answer = (char *)malloc(HEADWORKS_ANSWER_SIZE);
    headworks_status status = HEADWORKS_ERROR_MEMORY;
    if (answer)
        status = headworks_ask_for(path, word, stream, (char *)0, (uint8_t *)0, answer, files, 1);
    free(answer);
    if (status == HEADWORKS_OK)
        *file = files[0];
    return status;
}

headworks_status headworks_description_read_through(headworks_description **description, const char *socket, const char *name) {
    char encoded[HEADWORKS_NAME_SIZE];
    headworks_status status;
    int file;
    *description = (headworks_description *)0;
    headworks_encode_name(name, encoded);
    status = headworks_ask_for_file(socket, "description", encoded, &file);
    if (status == HEADWORKS_OK) {
        status = headworks_description_read_file(description, file);
        close(file);
    }
    return status;
}

/* The lines of an answer after the first, sorted. */
static headworks_status headworks_lines(char *answer, char ***names, size_t *count) {
    size_t room = 0;
    char *at;
    *names = (char **)0;
    *count = 0;
    for (at = answer; *at; at++)
        room += *at == '\n';
    if (room == 0)
        return HEADWORKS_OK;
    *names = (char **)calloc(room, sizeof **names);
    if (!*names)
        return HEADWORKS_ERROR_MEMORY;
    at = strchr(answer, '\n');
    while (at && *count < room) {
        char *line = at + 1;
        at = strchr(line, '\n');
        if (at)
            *at = 0;
        (*names)[*count] = headworks_text_copy(line);
        if (!(*names)[*count]) {
            headworks_names_free(*names, *count);
            *names = (char **)0;
            *count = 0;
            return HEADWORKS_ERROR_MEMORY;
        }
        ++*count;
    }
    qsort(*names, *count, sizeof **names, headworks_compare_names);
    return HEADWORKS_OK;
}

/* The stream. ---------------------------------------------------------------------------------------------------------------------- */

/* Whether a ring is looked at. */
typedef enum headworks_standing {
    HEADWORKS_STANDING_READ,       /* its frames are wanted */
    HEADWORKS_STANDING_DRAINED,    /* it ended; a source that returns within the retention has it taken up again */
    HEADWORKS_STANDING_REPLACED,   /* all its frames have been delivered, and another ring has its name, or will have */
    HEADWORKS_STANDING_FAILED,     /* it contradicts itself */
    HEADWORKS_STANDING_GONE        /* it was cleared away; its name may come again */
} headworks_standing;

/* A name, and the ring that has it. */
typedef struct headworks_track {
    char *name;
    headworks_ring *ring;
    headworks_standing standing;
    int left;    /* it is beside a bell that another one has taken the place of, and perhaps beside that one too */
    int present; /* its name was seen at the last look */
    /* What its state would be if its writer had known of it: ended when it was cleared away, superseded when another ring has its name;
     * HEADWORKS_STATE_LIVE: it is as its writer says. */
    headworks_state over;
    headworks_status announced; /* what to say about it next; HEADWORKS_OK: nothing */
} headworks_track;

struct headworks_stream {
    char *broker; /* its socket; NULL when the files are opened here */
    char *path;   /* of the directory; with a broker its name alone */
    char *only;
    int handle; /* the directory itself: when another one takes its name, these rings still belong to this bell; -1 with a broker */
    const uint8_t *bell;
    uint8_t uuid[16];
    headworks_track *tracks;
    uint32_t track_count;
    uint32_t generation;
    uint64_t scanned;
    int rescan; /* a ring was found to be superseded: look for the one that took its place */
    int verify, stay;
    int from_key; /* pictures that come later begin at a random access point too */
    int stalled_told, ended_told, superseded_told;
    headworks_life life;
};

static headworks_status headworks_bell_map(int file, const uint8_t **bell, uint8_t uuid[16]) {
    uint8_t head[64];
    struct stat bell_stat;
    void *address;
    headworks_status status = HEADWORKS_OK;
    if (fstat(file, &bell_stat) != 0 || bell_stat.st_size < HEADWORKS_BELL_SIZE ||
        pread(file, head, sizeof head, 0) != (ssize_t)sizeof head)
        status = HEADWORKS_ERROR_SHORT;
    else if (memcmp(head, "HWBELL\0\1", 8) != 0)
        status = HEADWORKS_ERROR_MAGIC;
    else if (headworks_u16(head, 8) != HEADWORKS_MAJOR_KNOWN)
        status = HEADWORKS_ERROR_MAJOR;
    else if (headworks_crc32c(head, HEADWORKS_BELL_HEAD_CRC) != headworks_u32(head, HEADWORKS_BELL_HEAD_CRC))
        status = HEADWORKS_ERROR_HEADER_CHECKSUM;
    if (status == HEADWORKS_OK) {
        address = mmap((void *)0, HEADWORKS_BELL_SIZE, PROT_READ, MAP_SHARED, file, 0);
        if (address == MAP_FAILED)
            status = HEADWORKS_ERROR_SYSTEM;
        else
            *bell = (const uint8_t *)address;
        memcpy(uuid, head + 32, 16);
    }
    return status;
}

/* The bell that has the stream's name now, and its directory. */
static headworks_status headworks_bell_open(const headworks_stream *stream, int *handle, const uint8_t **bell, uint8_t uuid[16]) {
    headworks_status status;
    int file = -1, reason;
    *handle = -1;
    if (stream->broker) {
        status = headworks_ask_for_file(stream->broker, "bell", stream->path, &file);
    } else {
        status = headworks_open_directory(stream->path, handle);
        if (status == HEADWORKS_OK) {
            file = headworks_open_file(*handle, "bell", 0);
            status = file < 0 ? HEADWORKS_ERROR_SYSTEM : HEADWORKS_OK;
        }
    }
    if (status == HEADWORKS_OK) {
        status = headworks_bell_map(file, bell, uuid);
        reason = errno;
        close(file);
        errno = reason;
    }
    if (status != HEADWORKS_OK && *handle >= 0) {
        reason = errno;
        close(*handle);
        *handle = -1;
        errno = reason;
    }
    return status;
}

/* The names of the rings beside the bell. */
static headworks_status headworks_rings(const headworks_stream *stream, char ***names, size_t *count) {
    headworks_status status;
    char *answer;
    int files[2];
    if (!stream->broker)
        return headworks_directories(stream->handle, "ctl", names, count);
    *names = (char **)0;
    *count = 0;
    answer = (char *)malloc(HEADWORKS_ANSWER_SIZE);
    if (!answer)
        return HEADWORKS_ERROR_MEMORY;
    status = headworks_ask_for(stream->broker, "tracks", stream->path, (char *)0, stream->uuid, answer, files, 0);
    if (status == HEADWORKS_OK)
        status = headworks_lines(answer, names, count);
    free(answer);
    return status;
}

/* Maps a ring beside the bell. */
static headworks_status headworks_map_track(const headworks_stream *stream, const char *name, headworks_mapping *mapping) {
    headworks_status status;
    char *answer;
    int files[2];
    if (!stream->broker)
        return headworks_map_at(mapping, stream->handle, name);
    answer = (char *)malloc(HEADWORKS_ANSWER_SIZE);
    if (!answer)
        return HEADWORKS_ERROR_MEMORY;
    status = headworks_ask_for(stream->broker, "ring", stream->path, name, stream->uuid, answer, files, 2);
    free(answer);
    if (status == HEADWORKS_OK) {
        status = headworks_map(mapping, files[0], files[1]);
        close(files[0]);
        close(files[1]);
    }
    return status;
}

static headworks_state headworks_track_state(const headworks_track *track) {
    return track->over == HEADWORKS_STATE_LIVE ? headworks_ring_state(track->ring) : track->over;
}

/* Whether more may come, as far as its writer has said. */
static int headworks_is_written(const headworks_track *track) {
    headworks_state state = headworks_ring_state(track->ring);
    return state == HEADWORKS_STATE_LIVE || state == HEADWORKS_STATE_STALLED;
}

/* A ring is read no more, and this is said of it, once. */
static void headworks_give_up(headworks_track *track, headworks_standing standing) {
    if (track->standing != HEADWORKS_STANDING_READ && track->standing != HEADWORKS_STANDING_REPLACED)
        return;
    track->standing = standing;
    if (standing == HEADWORKS_STANDING_GONE)
        track->announced = HEADWORKS_TRACK_ENDED;
}

/* Looks where the name of a ring leads that is not over as far as its writer has said. */
static void headworks_judge_track(const headworks_stream *stream, headworks_track *track) {
    headworks_mapping mapping;
    headworks_status status = headworks_map_track(stream, track->name, &mapping);
    int is_there = status == HEADWORKS_OK, is_same, left = track->left;
    if (!is_there && (status != HEADWORKS_ERROR_SYSTEM || errno != ENOENT))
        return;
    is_same = is_there && memcmp(mapping.header.ring_uuid, track->ring->mapping.header.ring_uuid, 16) == 0;
    if (is_there)
        headworks_unmap(&mapping);
    track->over = is_same ? HEADWORKS_STATE_LIVE : is_there ? HEADWORKS_STATE_SUPERSEDED : HEADWORKS_STATE_ENDED;
    track->left = 0;
    /* What a ring that was left behind still holds has its number in another stream. */
    if (left && !is_same)
        headworks_give_up(track, is_there ? HEADWORKS_STANDING_REPLACED : HEADWORKS_STANDING_GONE);
}

/* What is to be done with the ring that a name led to so far. */
static void headworks_scan_known(headworks_stream *stream, headworks_track *track, int changed) {
    headworks_mapping mapping;
    headworks_state state;
    if (track->left || track->over != HEADWORKS_STATE_LIVE ||
        (changed && track->standing == HEADWORKS_STANDING_READ && headworks_is_written(track)))
        headworks_judge_track(stream, track);
    /* It cannot be told yet whether it is beside the new bell too. */
    if (track->left)
        return;
    state = headworks_track_state(track);
    if (track->standing == HEADWORKS_STANDING_READ) {
        if (state != HEADWORKS_STATE_SUPERSEDED || !headworks_is_drained(track->ring))
            return;
        track->standing = HEADWORKS_STANDING_REPLACED;
    }
    /* Its source returned; it may have been replaced since, but what it wrote comes first. */
    if (track->standing == HEADWORKS_STANDING_DRAINED && track->over == HEADWORKS_STATE_LIVE &&
        (headworks_is_written(track) || !headworks_is_drained(track->ring))) {
        track->standing = HEADWORKS_STANDING_READ;
        track->announced = HEADWORKS_TRACK_ADDED;
        return;
    }
    /* Said first, while this ring is here to be spoken of. */
    if (track->standing == HEADWORKS_STANDING_REPLACED && track->ring->skipped > 0) {
        track->announced = HEADWORKS_SKIPPED;
        stream->rescan = 1;
        return;
    }
    if (headworks_map_track(stream, track->name, &mapping) == HEADWORKS_OK &&
        headworks_replace(track->ring, &mapping, stream->from_key && mapping.header.kind == HEADWORKS_KIND_VIDEO)) {
        track->standing = HEADWORKS_STANDING_READ;
        track->over = HEADWORKS_STATE_LIVE;
        /* Nobody has heard of the old one yet: this one is new. */
        if (track->announced != HEADWORKS_TRACK_ADDED)
            track->announced = HEADWORKS_REOPENED;
    }
}

/* What is to be done with a ring whose name was not seen, though it may be there: a listing can miss a name that is just being given to
 * another ring. */
static void headworks_scan_absent(const headworks_stream *stream, headworks_track *track) {
    if (track->standing == HEADWORKS_STANDING_DRAINED || track->standing == HEADWORKS_STANDING_FAILED)
        track->standing = HEADWORKS_STANDING_GONE;
    /* The stream that takes the place of this one may have such a track. If the bell is gone too nobody has said that the stream ended,
     * and another writer may make it anew. (A broker names no tracks then.) */
    if (headworks_stream_state(stream) == HEADWORKS_STATE_SUPERSEDED ||
        (!stream->broker && faccessat(stream->handle, "bell", F_OK, 0) != 0))
        return;
    /* What it holds comes first. */
    if (track->standing == HEADWORKS_STANDING_READ && (track->left || headworks_is_written(track)))
        headworks_judge_track(stream, track);
    else if (track->standing == HEADWORKS_STANDING_REPLACED) {
        headworks_judge_track(stream, track);
        if (track->over == HEADWORKS_STATE_ENDED)
            headworks_give_up(track, HEADWORKS_STANDING_GONE);
    }
}

/* Room for another track: at the end, or that of one which was cleared away and has been told of. NULL if there is none. */
static headworks_track *headworks_place(headworks_stream *stream) {
    headworks_track *track = (headworks_track *)0;
    uint32_t i;
    if (stream->track_count < HEADWORKS_TRACKS_MAX) {
        headworks_track *more = (headworks_track *)realloc(stream->tracks, (stream->track_count + 1) * sizeof *more);
        if (!more)
            return track;
        stream->tracks = more;
        track = &more[stream->track_count++];
    } else {
        for (i = 0; i < stream->track_count && !track; i++)
            if (stream->tracks[i].standing == HEADWORKS_STANDING_GONE && stream->tracks[i].announced == HEADWORKS_OK)
                track = &stream->tracks[i];
        if (!track)
            return track;
        headworks_ring_close(track->ring);
        free(track->name);
    }
    memset(track, 0, sizeof *track);
    return track;
}

/* Opens the rings not yet known, and those that took the place of another. A ring that cannot be opened is tried again later. `changed`:
 * the writer has said that tracks have come, gone or been replaced. */
static headworks_status headworks_scan(headworks_stream *stream, const headworks_options *options, int changed) {
    char **names;
    size_t count, i;
    uint32_t j;
    headworks_status status;
    stream->scanned = headworks_now_ns();
    stream->rescan = 0;
    status = headworks_rings(stream, &names, &count);
    for (j = 0; j < stream->track_count; j++)
        stream->tracks[j].present = status != HEADWORKS_OK;
    for (i = 0; i < count; i++) {
        headworks_track *track = (headworks_track *)0;
        headworks_mapping mapping;
        headworks_ring *ring;
        if (stream->only && strcmp(stream->only, names[i]) != 0)
            continue;
        for (j = 0; j < stream->track_count && !track; j++)
            track = strcmp(stream->tracks[j].name, names[i]) == 0 ? &stream->tracks[j] : (headworks_track *)0;
        if (track) {
            track->present = 1;
            headworks_scan_known(stream, track, changed);
            continue;
        }
        if (headworks_map_track(stream, names[i], &mapping) != HEADWORKS_OK)
            continue;
        if (headworks_state_of(headworks_load_half(mapping.ctl, HEADWORKS_CTL_STATE)) == HEADWORKS_STATE_SUPERSEDED ||
            headworks_ring_new(&ring, &mapping, options) != HEADWORKS_OK) {
            headworks_unmap(&mapping);
            continue;
        }
        track = headworks_place(stream);
        if (!track) {
            headworks_ring_close(ring);
            continue;
        }
        track->ring = ring;
        track->ring->verify = stream->verify;
        if (stream->from_key && track->ring->mapping.header.kind == HEADWORKS_KIND_VIDEO)
            headworks_seek_first_key(track->ring);
        track->name = names[i];
        names[i] = (char *)0;
        track->announced = HEADWORKS_TRACK_ADDED;
        track->present = 1;
    }
    headworks_names_free(names, count);
    for (j = 0; j < stream->track_count; j++) {
        headworks_track *track = &stream->tracks[j];
        if (!track->present)
            headworks_scan_absent(stream, track);
        if (track->standing != HEADWORKS_STANDING_READ && track->standing != HEADWORKS_STANDING_DRAINED)
            headworks_let_go(track->ring);
    }
    return status;
}

/* What came later is read from its oldest frame on, as we have passed over nothing of it; pictures from their first key on, if so
 * begun. */
static void headworks_scan_again(headworks_stream *stream, int changed) {
    headworks_options options;
    memset(&options, 0, sizeof options);
    options.start = HEADWORKS_START_OLDEST;
    (void)headworks_scan(stream, &options, changed);
}

/* Lets the tracks that are not video begin where the first video does. */
static void headworks_align(headworks_stream *stream) {
    uint64_t begin = HEADWORKS_NONE;
    headworks_next ignored;
    uint32_t i;
    for (i = 0; i < stream->track_count; i++) {
        headworks_ring *ring = stream->tracks[i].ring;
        if (ring->mapping.header.kind == HEADWORKS_KIND_VIDEO && headworks_look(ring, &ignored) == HEADWORKS_FRAME &&
            ring->pending.stream_seq < begin)
            begin = ring->pending.stream_seq;
    }
    for (i = 0; i < stream->track_count; i++) {
        headworks_ring *ring = stream->tracks[i].ring;
        if (ring->mapping.header.kind == HEADWORKS_KIND_VIDEO)
            continue;
        /* An empty ring: the newest of its first frames is not better than those before it. */
        if (begin == HEADWORKS_NONE)
            ring->awaiting_key = 0;
        else
            headworks_ring_seek_stream_seq(ring, begin);
    }
}

static headworks_status headworks_stream_open_from(headworks_stream **result, const char *broker, const char *path,
                                                   const headworks_options *options) {
    headworks_options defaults;
    headworks_stream *stream = (headworks_stream *)calloc(1, sizeof *stream);
    headworks_status status;
    *result = (headworks_stream *)0;
    if (!stream)
        return HEADWORKS_ERROR_MEMORY;
    if (!options) {
        memset(&defaults, 0, sizeof defaults);
        options = &defaults;
    }
    stream->verify = options->verify;
    stream->stay = options->stay;
    stream->handle = -1;
    stream->only = options->track ? headworks_text_copy(options->track) : (char *)0;
    if (broker) {
        stream->path = headworks_text_copy(path);
        status = headworks_absolute(broker, &stream->broker);
    } else {
        status = headworks_absolute(path, &stream->path);
    }
    if (status == HEADWORKS_OK && (!stream->path || (options->track && !stream->only)))
        status = HEADWORKS_ERROR_MEMORY;
    if (status == HEADWORKS_OK)
        status = headworks_bell_open(stream, &stream->handle, &stream->bell, stream->uuid);
    if (status == HEADWORKS_OK) {
        stream->generation = headworks_load_half_acquire(stream->bell, HEADWORKS_BELL_TRACKS_GENERATION);
        status = headworks_scan(stream, options, 0);
    }
    if (status != HEADWORKS_OK) {
        int reason = errno;
        headworks_stream_close(stream);
        errno = reason;
        return status;
    }
    stream->from_key = headworks_is_from_key(options);
    if (stream->from_key)
        headworks_align(stream);
    *result = stream;
    return HEADWORKS_OK;
}

headworks_status headworks_stream_open_directory(headworks_stream **stream, const char *directory, const headworks_options *options) {
    return headworks_stream_open_from(stream, (char *)0, directory, options);
}

headworks_status headworks_stream_open_through(headworks_stream **stream, const char *socket, const char *name,
                                               const headworks_options *options) {
    char encoded[HEADWORKS_NAME_SIZE];
    headworks_encode_name(name, encoded);
    return headworks_stream_open_from(stream, socket, encoded, options);
}

headworks_status headworks_stream_open(headworks_stream **stream, const char *name, const headworks_options *options) {
    const char *root = options && options->root ? options->root : HEADWORKS_ROOT;
    size_t room = strlen(root) + HEADWORKS_NAME_SIZE;
    char *path = (char *)malloc(room);
    headworks_status status;
    *stream = (headworks_stream *)0;
    if (!path)
        return HEADWORKS_ERROR_MEMORY;
    status = headworks_stream_directory(root, name, path, room);
    if (status == HEADWORKS_OK)
        status = headworks_stream_open_directory(stream, path, options);
    free(path);
    return status;
}

void headworks_stream_close(headworks_stream *stream) {
    uint32_t i;
    if (!stream)
        return;
    for (i = 0; i < stream->track_count; i++) {
        headworks_ring_close(stream->tracks[i].ring);
        free(stream->tracks[i].name);
    }
    free(stream->tracks);
    if (stream->bell)
        munmap((void *)(uintptr_t)stream->bell, HEADWORKS_BELL_SIZE);
    if (stream->handle >= 0)
        close(stream->handle);
    free(stream->broker);
    free(stream->path);
    free(stream->only);
    free(stream);
}

/* Goes over to the stream that has this one's name now: 1 if there is another. */
static int headworks_stream_reopen(headworks_stream *stream) {
    const uint8_t *bell;
    uint8_t uuid[16];
    uint32_t i;
    int handle;
    if (headworks_bell_open(stream, &handle, &bell, uuid) != HEADWORKS_OK)
        return 0;
    if (memcmp(uuid, stream->uuid, 16) == 0 ||
        headworks_state_of(headworks_load_half(bell, HEADWORKS_BELL_STATE)) == HEADWORKS_STATE_SUPERSEDED) {
        munmap((void *)(uintptr_t)bell, HEADWORKS_BELL_SIZE);
        if (handle >= 0)
            close(handle);
        return 0;
    }
    munmap((void *)(uintptr_t)stream->bell, HEADWORKS_BELL_SIZE);
    if (stream->handle >= 0)
        close(stream->handle);
    stream->bell = bell;
    stream->handle = handle;
    memcpy(stream->uuid, uuid, 16);
    memset(&stream->life, 0, sizeof stream->life);
    stream->stalled_told = 0;
    stream->ended_told = 0;
    stream->superseded_told = 0;
    for (i = 0; i < stream->track_count; i++) {
        headworks_standing standing = stream->tracks[i].standing;
        stream->tracks[i].left = standing == HEADWORKS_STANDING_READ || standing == HEADWORKS_STANDING_DRAINED ||
                                 standing == HEADWORKS_STANDING_REPLACED;
    }
    stream->generation = headworks_load_half_acquire(bell, HEADWORKS_BELL_TRACKS_GENERATION);
    headworks_scan_again(stream, 0);
    return 1;
}

/* What is to be said about track next->track; HEADWORKS_OK: nothing about any. */
static headworks_status headworks_announce(headworks_stream *stream, headworks_next *next) {
    uint32_t i;
    for (i = 0; i < stream->track_count; i++) {
        headworks_track *track = &stream->tracks[i];
        headworks_status status = track->announced;
        if (status == HEADWORKS_OK)
            continue;
        next->track = i;
        if (status == HEADWORKS_TRACK_ENDED && track->ring->skipped > 0)
            return headworks_take_skipped(track->ring, next);
        track->announced = HEADWORKS_OK;
        return status == HEADWORKS_SKIPPED ? headworks_take_skipped(track->ring, next) : status;
    }
    return HEADWORKS_OK;
}

/* The track whose next frame comes first in the stream, below `stream_head`: HEADWORKS_FRAME; HEADWORKS_TIMEOUT if there is none;
 * else what is to be said about track next->track. */
static headworks_status headworks_first_track(headworks_stream *stream, uint64_t stream_head, headworks_next *next) {
    uint64_t first = stream_head;
    uint32_t i, found = HEADWORKS_TRACKS_MAX;
    for (i = 0; i < stream->track_count; i++) {
        headworks_track *track = &stream->tracks[i];
        headworks_ring *ring = track->ring;
        headworks_status status;
        next->track = i;
        if (track->standing != HEADWORKS_STANDING_READ || track->left)
            continue;
        status = headworks_look(ring, next);
        if (status == HEADWORKS_FRAME) {
            if (ring->pending.stream_seq < first) {
                first = ring->pending.stream_seq;
                found = i;
            }
        } else if (status == HEADWORKS_TIMEOUT) {
            headworks_state state = headworks_track_state(track);
            if ((state != HEADWORKS_STATE_ENDED && state != HEADWORKS_STATE_SUPERSEDED) || !headworks_is_drained(ring))
                continue;
            if (ring->skipped > 0)
                return headworks_take_skipped(ring, next);
            if (state == HEADWORKS_STATE_ENDED) {
                track->standing = HEADWORKS_STANDING_DRAINED;
                /* One that was cleared away is held no longer. */
                if (track->over != HEADWORKS_STATE_LIVE)
                    stream->rescan = 1;
                return HEADWORKS_TRACK_ENDED;
            }
            /* The new ring first: its frames may come before those just found. */
            track->standing = HEADWORKS_STANDING_REPLACED;
            stream->rescan = 1;
        } else {
            if (status == HEADWORKS_ERROR_HEAD)
                track->standing = HEADWORKS_STANDING_FAILED;
            return status;
        }
    }
    next->track = found;
    return found == HEADWORKS_TRACKS_MAX || stream->rescan ? HEADWORKS_TIMEOUT : HEADWORKS_FRAME;
}

/* Nothing to read: says why, sleeps, or says HEADWORKS_OK when it is worth another look. */
static headworks_status headworks_stream_idle(headworks_stream *stream, uint32_t seen, uint64_t deadline) {
    const uint8_t *bell = stream->bell;
    headworks_state state = headworks_stream_state(stream);
    uint64_t now = headworks_now_ns(), left = headworks_left(deadline, now);
    int has_died;
    stream->ended_told = stream->ended_told && state == HEADWORKS_STATE_ENDED;
    switch (state) {
    case HEADWORKS_STATE_ENDED:
    case HEADWORKS_STATE_SUPERSEDED:
        /* The last frame or ring may have come between the looks. */
        if (headworks_load_half_acquire(bell, HEADWORKS_BELL_FUTEX) != seen)
            return HEADWORKS_OK;
        if (state == HEADWORKS_STATE_ENDED) {
            /* A source that returns late has another bell. */
            if (stream->ended_told)
                break;
            stream->ended_told = 1;
            return HEADWORKS_ENDED;
        }
        if (!stream->stay && headworks_stream_reopen(stream))
            return HEADWORKS_OK;
        if (left == 0 || (stream->stay && !stream->superseded_told))
            return headworks_superseded(&stream->superseded_told);
        headworks_sleep(left);
        return HEADWORKS_OK;
    case HEADWORKS_STATE_STALLED:
        if (!stream->stalled_told) {
            stream->stalled_told = 1;
            return HEADWORKS_STALLED;
        }
        break;
    case HEADWORKS_STATE_LIVE: stream->stalled_told = 0; break;
    }
    has_died = headworks_has_died(
        &stream->life, headworks_load(bell, HEADWORKS_BELL_HEARTBEAT_COUNT) + headworks_load(bell, HEADWORKS_BELL_STREAM_HEAD), now);
    if (has_died && state != HEADWORKS_STATE_ENDED)
        return HEADWORKS_WRITER_DEAD;
    /* In case a generation was missed; and a writer that could not take the old bell up makes a new one, of which nobody is left to
     * tell. */
    if (now - stream->scanned >= HEADWORKS_SECOND_NS) {
        if (stream->stay || !headworks_stream_reopen(stream))
            headworks_scan_again(stream, 0);
        return HEADWORKS_OK;
    }
    if (left == 0)
        return HEADWORKS_TIMEOUT;
    headworks_futex_wait(bell, HEADWORKS_BELL_FUTEX, seen, left);
    return HEADWORKS_OK;
}

static headworks_status headworks_stream_advance(headworks_stream *stream, int timeout_ms, int borrow, headworks_next *next) {
    uint64_t deadline = headworks_deadline(timeout_ms);
    uint32_t rounds;
    for (rounds = 0; rounds < HEADWORKS_ROUNDS_MAX || deadline == HEADWORKS_FOREVER || headworks_now_ns() < deadline; rounds++) {
        /* In this order: every frame below stream_head is visible in its ring, and its ring in the directory. */
        uint32_t seen = headworks_load_half_acquire(stream->bell, HEADWORKS_BELL_FUTEX);
        uint64_t stream_head = headworks_load_acquire(stream->bell, HEADWORKS_BELL_STREAM_HEAD);
        uint32_t generation = headworks_load_half_acquire(stream->bell, HEADWORKS_BELL_TRACKS_GENERATION);
        headworks_status status;
        /* Its writer is gone, perhaps between a ring's head and the bell's. */
        if (headworks_stream_state(stream) == HEADWORKS_STATE_SUPERSEDED)
            stream_head = HEADWORKS_NONE;
        if (generation != stream->generation || stream->rescan) {
            int changed = generation != stream->generation;
            stream->generation = generation;
            headworks_scan_again(stream, changed);
        }
        status = headworks_announce(stream, next);
        if (status != HEADWORKS_OK)
            return status;
        status = headworks_first_track(stream, stream_head, next);
        if (status == HEADWORKS_FRAME) {
            stream->ended_told = 0;
            return headworks_take(stream->tracks[next->track].ring, borrow, next);
        }
        if (status != HEADWORKS_TIMEOUT)
            return status;
        if (stream->rescan)
            continue;
        status = headworks_stream_idle(stream, seen, deadline);
        if (status != HEADWORKS_OK)
            return status;
    }
    return HEADWORKS_TIMEOUT;
}

headworks_status headworks_stream_next(headworks_stream *stream, int timeout_ms, headworks_next *next) {
    memset(next, 0, sizeof *next);
    next->status = headworks_stream_advance(stream, timeout_ms, 0, next);
    return next->status;
}

headworks_status headworks_stream_borrow(headworks_stream *stream, int timeout_ms, headworks_next *next) {
    memset(next, 0, sizeof *next);
    next->status = headworks_stream_advance(stream, timeout_ms, 1, next);
    return next->status;
}

uint32_t headworks_stream_track_count(const headworks_stream *stream) {
    return stream->track_count;
}

const char *headworks_stream_track_name(const headworks_stream *stream, uint32_t track) {
    return track < stream->track_count ? stream->tracks[track].name : (const char *)0;
}

const headworks_ring *headworks_stream_track(const headworks_stream *stream, uint32_t track) {
    return track < stream->track_count ? stream->tracks[track].ring : (const headworks_ring *)0;
}

headworks_state headworks_stream_state(const headworks_stream *stream) {
    return headworks_state_of(headworks_load_half_acquire(stream->bell, HEADWORKS_BELL_STATE));
}

size_t headworks_stream_anchors(const headworks_stream *stream, headworks_anchor anchors[HEADWORKS_ANCHOR_COUNT]) {
    size_t i, count = 0;
    for (i = 0; i < HEADWORKS_ANCHOR_COUNT; i++) {
        size_t at = HEADWORKS_BELL_ANCHORS + i * HEADWORKS_BELL_ANCHOR_SIZE;
        uint64_t lock = headworks_load_acquire(stream->bell, at), words[6];
        headworks_anchor *anchor = &anchors[count];
        if (lock == 0 || lock == HEADWORKS_BUSY)
            continue;
        headworks_load_words(stream->bell, at + 8, words, 6);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (headworks_load(stream->bell, at) != lock || (uint32_t)words[5] == 0)
            continue;
        anchor->programme = (uint32_t)words[0];
        anchor->segment = (uint32_t)(words[0] >> 32);
        anchor->pts = (int64_t)words[1];
        anchor->timeline_ns = (int64_t)words[2];
        anchor->monotonic_ns = words[3];
        anchor->utc_ns = (int64_t)words[4];
        anchor->clock_rate = (uint32_t)words[5];
        count++;
    }
    return count;
}

#ifdef __cplusplus
}
#endif
#endif /* HEADWORKS_IMPLEMENTATION */
