"""Reads coded frames out of Headworks' shared memory.

    import headworks

    for frame in headworks.open("cam1"):
        print(frame.track, frame.pts, len(frame))

A reader cannot slow the writer down: it may be overtaken instead, and is told so. What happened between two frames (frames lost or passed
over, a track that came or ended, a source that fell silent) stands in `frame.before`; `Stream.next` gives the same one by one.

`memoryview(frame)` and `numpy.frombuffer(frame, "u1")` see the bytes of a frame without a copy. Frames of `Stream.next` and of the
loop have bytes of their own and last as long as anybody wants them; those of `Stream.borrow` lie in the ring itself.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Union

from . import _headworks
from ._headworks import ROOT, Error, Frame

__all__ = [
    "Access",
    "Damage",
    "Description",
    "Discontinuity",
    "Error",
    "Event",
    "Frame",
    "Kind",
    "Origin",
    "Picture",
    "Programme",
    "Quality",
    "ROOT",
    "Start",
    "State",
    "Status",
    "Stream",
    "Structure",
    "Track",
    "TrackDescription",
    "WallClock",
    "describe",
    "open",
    "streams",
]


class Status(enum.IntEnum):
    """What a call gave instead of a frame (above 0), and what is wrong (below 0, of an Event or an Error)."""

    LAPPED = 2
    """The writer overtook this reader: `count` frames will never be delivered."""
    SKIPPED = 3
    """`count` frames were passed over on the way to a random access point."""
    TIMEOUT = 4
    STALLED = 5
    """The source is silent; said once per change of state."""
    WRITER_DEAD = 6
    """The writer's heartbeat stopped; said once. Another may go on with the same rings: go on asking."""
    ENDED = 7
    """All frames have been delivered and none will come, unless the source returns; said once: whoever asks on waits for that."""
    SUPERSEDED = 8
    """Another stream is to have this one's name, and cannot be opened yet; said once."""
    REOPENED = 9
    """Another ring had a track's name and has been opened: its frames count from 0."""
    TRACK_ADDED = 10
    TRACK_ENDED = 11
    ERROR_SYSTEM = -1
    ERROR_SHORT = -2
    ERROR_MAGIC = -3
    ERROR_MAJOR = -4
    ERROR_HEADER_CHECKSUM = -5
    ERROR_FEATURES = -6
    ERROR_GEOMETRY = -7
    ERROR_FILE_SIZE = -8
    ERROR_HEAD = -9
    ERROR_BOUNDS = -10
    ERROR_DESCRIPTOR = -11
    ERROR_CHECKSUM = -12
    ERROR_CONFIGURATION_UNKNOWN = -13
    ERROR_CONFIGURATION_GONE = -14
    ERROR_CONFIGURATION_DAMAGED = -15
    ERROR_ROOM = -16
    ERROR_MEMORY = -17
    ERROR_MALFORMED = -18

    def __str__(self) -> str:
        return _headworks.status_text(self)


class State(enum.IntEnum):
    """What may be expected of a stream."""

    LIVE = 0
    STALLED = 1
    ENDED = 2
    SUPERSEDED = 3


class Kind(enum.IntEnum):
    """Frame.kind: what a track carries."""

    UNKNOWN = 0
    VIDEO = 1
    AUDIO = 2
    DATA = 3
    TRANSPORT = 4


class Discontinuity(enum.IntEnum):
    """Frame.discontinuity: why a frame does not continue the one before."""

    NONE = 0
    START = 1
    RESTART = 2
    SOURCE_CHANGE = 3
    TIME_BASE_JUMP = 4
    SIGNALLED = 5
    LOSS = 6
    CONFIGURATION = 7


class Origin(enum.IntEnum):
    """Frame.origin_kind: what `origin` is."""

    NONE = 0
    PCR = 1
    RTP = 2


class WallClock(enum.IntEnum):
    """Frame.wall_clock: what `wall_clock_ns` is."""

    NONE = 0
    UTC = 1
    TAI = 2


class Quality(enum.IntEnum):
    """Frame.wall_clock_quality: where `wall_clock_ns` came from."""

    UNKNOWN = 0
    ARRIVAL = 1
    SENDER_REPORT = 2
    PTP = 3
    IN_BAND = 4


class Picture(enum.IntEnum):
    """Frame.picture_type."""

    UNKNOWN = 0
    I = 1  # noqa: E741
    P = 2
    B = 3


class Structure(enum.IntEnum):
    """Frame.picture_structure."""

    UNKNOWN = 0
    FRAME = 1
    TOP = 2
    BOTTOM = 3
    TOP_FIRST = 4
    TOP_SECOND = 5
    BOTTOM_FIRST = 6
    BOTTOM_SECOND = 7


class Access(enum.IntEnum):
    """Frame.random_access: whether decoding can start here, and by what."""

    NONE = 0
    IDR = 1
    CRA = 2
    BLA = 3
    RECOVERY_POINT = 4
    INDICATOR = 5
    INTRA = 6
    INDEPENDENT = 7


class Damage(enum.IntFlag):
    """Frame.damage_reasons."""

    LOST_PACKETS = 1
    TRANSPORT_ERROR = 2
    CONTINUITY = 4
    TIME_OUT = 8
    TRUNCATED = 16
    SYNTAX = 32
    ENCRYPTED = 64
    OVERLOAD = 128


@dataclass(frozen=True)
class Event:
    """What happened instead of a frame."""

    status: Status
    track: str | None
    """Whose, unless it is the whole stream's."""
    count: int
    """LAPPED, SKIPPED and errors of a frame: frames that are not delivered."""
    resume_at: int
    """The same: the next frame that may be delivered."""


@dataclass(frozen=True)
class Track:
    """A ring of an open stream."""

    name: str
    codec: str
    kind: Kind
    clock_rate: int
    """Ticks per second of pts, dts and duration."""
    data_capacity: int
    frame_size_max: int
    config_generation: int
    """The newest configuration, 0 when there is none."""


@dataclass(frozen=True)
class Programme:
    """A service of a transport stream."""

    number: int
    pcr_pid: int
    name: str
    provider: str


@dataclass(frozen=True)
class TrackDescription:
    """What is known about a track. Texts are "" and numbers 0 when not known."""

    name: str
    programme: int
    kind: Kind
    codec: str
    source_id: int
    """PID or SSRC."""
    clock_rate: int
    language: str
    component_tag: int
    """-1 none."""
    width: int
    height: int
    frame_rate_numerator: int
    frame_rate_denominator: int
    sample_rate: int
    channels: int
    ended: bool


@dataclass(frozen=True)
class Description:
    """What is known about a stream."""

    name: str
    generation: int
    created_utc_ns: int
    programmes: list[Programme]
    tracks: list[TrackDescription]


Start = Union[Literal["key", "live", "oldest", "oldest-key"], int]
_STARTS = {"key": 0, "live": 1, "oldest": 2, "oldest-key": 3}
_SEQUENCE = 4


class Stream:
    """An open stream: its frames in the order they were committed, over all tracks. It belongs to one thread at a time."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        track: str | None = None,
        start: Start = "key",
        timeout: float | None = None,
        verify: bool = False,
        broker: str | os.PathLike[str] | None = None,
    ) -> None:
        """Opens the stream in a directory, or of this name through a `broker`; the arguments are those of `open`."""
        sequence = start if isinstance(start, int) else 0
        start_number = _SEQUENCE if isinstance(start, int) else _STARTS[start]
        self._stream = _headworks.Stream(directory, start_number, sequence, track, verify, broker)
        self._timeout = timeout
        self.events: list[Event] = []
        """What happened since the last frame of the loop; with the next one it goes into `before`."""

    def next(self, timeout: float | None = None) -> Frame | Event:
        """The next frame, or what happened instead; waits at most `timeout` seconds, None for ever."""
        return self._look(timeout, False)

    def borrow(self, timeout: float | None = None) -> Frame | Event:
        """The next frame where it lies, in the ring. The writer may overtake it at any moment: believe what was read from it only if
        `frame.intact` is true afterwards; if not, one frame is lost. Release all views of it before the next call. Its checksum is not
        compared, whatever `verify` was given to `open`: the bytes could change after that."""
        return self._look(timeout, True)

    def _look(self, timeout: float | None, borrow: bool) -> Frame | Event:
        found = self._stream.look(-1.0 if timeout is None else max(0.0, timeout), borrow)
        if isinstance(found, Frame):
            return found
        status, index, count, resume_at = found
        tracks = self.tracks
        name = tracks[index].name if index < len(tracks) else None
        return Event(Status(status), name, count, resume_at)

    def __iter__(self) -> Iterator[Frame]:
        """Frames until the stream ends. TimeoutError when none has come within the `timeout` given to `open`."""
        while True:
            found = self.next(self._timeout)
            if isinstance(found, Frame):
                found.before = tuple(self.events)
                self.events.clear()
                yield found
            elif found.status == Status.ENDED:
                return
            elif found.status in (Status.TIMEOUT, Status.SUPERSEDED):
                raise TimeoutError(str(found.status))
            else:
                self.events.append(found)

    @property
    def tracks(self) -> list[Track]:
        """All tracks seen so far; after a thousand, those that were cleared away give their places to new ones."""
        return [Track(name, codec, Kind(kind), *rest) for name, codec, kind, *rest in self._stream.tracks()]

    @property
    def state(self) -> State:
        return State(self._stream.state)

    def configuration(self, track: str, generation: int | None = None) -> bytes:
        """A configuration of a track (SPS and PPS, AudioSpecificConfig …), such as that of `frame.config_generation`; the newest by
        default. Error when it is unknown or gone."""
        for index, known in enumerate(self.tracks):
            if known.name == track:
                return self._stream.configuration(index, known.config_generation if generation is None else generation)
        raise KeyError(track)

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open(
    name: str,
    *,
    root: str = ROOT,
    track: str | None = None,
    start: Start = "key",
    timeout: float | None = None,
    verify: bool = False,
    broker: str | os.PathLike[str] | None = None,
) -> Stream:
    """Opens a stream by its name.

    `track`: only the one of this name. `start`: at the newest random access point still there ("key"), the next frame ("live"), the
    oldest one, the oldest random access point, or a sequence number. A track that comes later is read from its oldest frame on, but
    with "key" and "oldest-key" a video track begins at its first random access point, after SKIPPED. `timeout`: how long a loop over the stream waits for a frame,
    seconds. `verify`: compare each frame of `next` and of the loop with its CRC32C; those of `borrow` are not compared. `broker`: a Unix
    socket (output.broker.socket) to ask for the files, where this user may not open them; `root` says nothing then.

    FileNotFoundError when there is none, PermissionError when this user may not read it, other OSErrors, Error when it is no stream
    that can be read.
    """
    directory = name if broker is not None else _headworks.directory(root, name)
    return Stream(directory, track=track, start=start, timeout=timeout, verify=verify, broker=broker)


def streams(root: str = ROOT) -> list[str]:
    """The names of all streams, sorted."""
    return _headworks.streams(root)


def describe(name: str, *, root: str = ROOT, broker: str | os.PathLike[str] | None = None) -> Description:
    """What is known about a stream: programmes, tracks, languages, sizes. `broker` as for `open`."""
    place = name if broker is not None else _headworks.directory(root, name)
    name, generation, created, programmes, tracks = _headworks.describe(place, broker)
    return Description(
        name,
        generation,
        created,
        [Programme(*programme) for programme in programmes],
        [TrackDescription(name, programme, Kind(kind), *rest) for name, programme, kind, *rest in tracks],
    )
