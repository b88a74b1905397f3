import os
import sys
from typing import Any

if sys.version_info >= (3, 12):
    from collections.abc import Buffer
else:
    from typing_extensions import Buffer

from . import Event

ROOT: str

class Error(Exception): ...

class Frame(Buffer):
    """A coded frame. Numbers with an enumeration in `headworks` compare equal to its members."""

    @property
    def data(self) -> memoryview: ...
    @property
    def side_data(self) -> bytes: ...
    def __len__(self) -> int: ...
    @property
    def intact(self) -> bool:
        """Of a borrowed frame: what was read before this is that frame's. Always true of a copied one."""
    @property
    def margin(self) -> int | None:
        """Bytes the writer may still write before it overtakes a borrowed frame; None of a copied one."""
    before: tuple[Event, ...]
    """What happened between the frame before and this one, in a loop over the stream."""
    @property
    def track(self) -> str: ...
    @property
    def codec(self) -> str: ...
    @property
    def kind(self) -> int:
        """Kind."""
    @property
    def clock_rate(self) -> int:
        """Ticks per second of pts, dts and duration."""
    @property
    def seq(self) -> int:
        """Number in the track."""
    @property
    def stream_seq(self) -> int:
        """Number among all frames of the stream."""
    @property
    def key_seq(self) -> int | None:
        """The random access point this frame depends on."""
    @property
    def pts(self) -> int | None: ...
    @property
    def dts(self) -> int | None: ...
    @property
    def duration(self) -> int:
        """0 unknown."""
    @property
    def timeline_ns(self) -> int:
        """Presentation on the programme's continuous timeline."""
    @property
    def origin(self) -> int:
        """PCR (27 MHz) or RTP time stamp."""
    @property
    def origin_kind(self) -> int:
        """Origin."""
    @property
    def first_arrival_ns(self) -> int:
        """CLOCK_MONOTONIC of its first packet."""
    @property
    def last_arrival_ns(self) -> int: ...
    @property
    def due_ns(self) -> int:
        """When it was due to leave the receive buffer."""
    @property
    def commit_ns(self) -> int:
        """When it was published."""
    @property
    def wall_clock_ns(self) -> int:
        """Since 1970."""
    @property
    def wall_clock(self) -> int:
        """WallClock."""
    @property
    def wall_clock_quality(self) -> int:
        """Quality."""
    @property
    def config_generation(self) -> int:
        """The configuration that decodes it; 0 none."""
    @property
    def configuration_changed(self) -> bool:
        """Another one than of the frame delivered before it."""
    @property
    def segment(self) -> int:
        """+ 1 at restart, fail-over and time-base jump."""
    @property
    def packets_lost(self) -> int: ...
    @property
    def packets_recovered(self) -> int: ...
    @property
    def path_mask(self) -> int: ...
    @property
    def damaged(self) -> bool:
        """Bytes are missing or wrong."""
    @property
    def damage_reasons(self) -> int:
        """Damage."""
    @property
    def discontinuity(self) -> int:
        """Discontinuity."""
    @property
    def picture_type(self) -> int:
        """Picture."""
    @property
    def picture_structure(self) -> int:
        """Structure."""
    @property
    def key(self) -> bool:
        """A reader may start here."""
    @property
    def random_access(self) -> int:
        """Access."""
    @property
    def recovery_count(self) -> int: ...
    @property
    def temporal_id(self) -> int: ...
    @property
    def pts_interpolated(self) -> bool: ...
    @property
    def dts_derived(self) -> bool: ...
    @property
    def crc32c(self) -> int | None: ...
    @property
    def timecode(self) -> str | None:
        """ST 12-1, "10:59:58;24"; a semicolon with dropped frames."""

class Stream:
    def __init__(
        self,
        directory: str | os.PathLike[str],
        start: int,
        sequence: int,
        track: str | None,
        verify: bool,
        broker: str | os.PathLike[str] | None,
    ) -> None: ...
    def look(self, timeout: float, borrow: bool) -> Frame | tuple[int, int, int, int]: ...
    def tracks(self) -> list[tuple[str, str, int, int, int, int, int]]: ...
    def configuration(self, track: int, generation: int) -> bytes: ...
    def close(self) -> None: ...
    @property
    def state(self) -> int: ...

def directory(root: str, name: str) -> str: ...
def streams(root: str) -> list[str]: ...
def describe(place: str, broker: str | os.PathLike[str] | None) -> tuple[str, int, int, list[Any], list[Any]]: ...
def status_text(status: int) -> str: ...
