"""Run by tests/python.rs, which writes the streams below HEADWORKS_TEST_ROOT and says there what is in them."""

import os
import re
import signal
import threading
import time
import unittest
from pathlib import Path

import headworks
from headworks import Discontinuity, Event, Frame, Kind, State, Status

ROOT = os.environ["HEADWORKS_TEST_ROOT"]
# Hands out "cam1" alone.
BROKER = ROOT + "/.broker"
HEADER = Path(__file__).parents[2] / "include" / "headworks.h"


def payload(seq: int, length: int) -> bytes:
    x = (seq * 0x9E37_79B9_7F4A_7C15 | 1) & 0xFFFF_FFFF_FFFF_FFFF
    found = bytearray()
    for _ in range(length):
        x ^= x << 13 & 0xFFFF_FFFF_FFFF_FFFF
        x ^= x >> 7
        x ^= x << 17 & 0xFFFF_FFFF_FFFF_FFFF
        found.append(x & 0xFF)
    return bytes(found)


class FinishedStream(unittest.TestCase):
    def test_a_loop_sees_every_byte_of_all_tracks_in_order(self) -> None:
        frames = list(headworks.open("cam1", root=ROOT, start="oldest", verify=True))
        self.assertEqual([frame.stream_seq for frame in frames], list(range(40)))
        for frame in frames:
            # They last: nothing is overwritten by the next one.
            expected = payload(frame.seq, 50) if frame.track == "audio0" else payload(100 + frame.seq, 1_000 * frame.seq)
            self.assertEqual(bytes(frame), expected)
            self.assertEqual((len(frame), frame.intact, frame.margin), (len(expected), True, None))
        self.assertEqual([event.status for event in frames[0].before], [Status.TRACK_ADDED, Status.TRACK_ADDED])
        self.assertEqual({event.track for event in frames[0].before}, {"audio0", "video0"})

    def test_a_key_is_where_it_starts_by_default(self) -> None:
        first = next(iter(headworks.open("cam1", root=ROOT)))
        self.assertEqual((first.track, first.seq, first.key, first.key_seq), ("video0", 15, True, 15))
        starts: list[tuple[headworks.Start, int]] = [("oldest-key", 0), (7, 7), ("key", 15)]
        for start, seq in starts:
            stream = headworks.open("cam1", root=ROOT, track="video0", start=start)
            self.assertEqual(next(iter(stream)).seq, seq)
        stream = headworks.open("cam1", root=ROOT, start="live")
        self.assertEqual(list(stream), [])
        self.assertIn(Status.TRACK_ENDED, [event.status for event in stream.events])

    def test_what_is_known_about_a_frame(self) -> None:
        with headworks.open("cam1", root=ROOT, track="video0", start="oldest") as stream:
            frames = list(stream)
            self.assertEqual([frame.pts for frame in frames[2:5]], [7200, None, 14400])
            self.assertEqual((frames[0].dts, frames[0].timecode, frames[0].codec), (None, None, "h264"))
            self.assertEqual((frames[0].kind, frames[0].clock_rate), (Kind.VIDEO, 90_000))
            self.assertEqual([frame.seq for frame in frames if frame.damaged], [12])
            self.assertEqual(frames[0].discontinuity, Discontinuity.START)
            self.assertEqual(frames[12].discontinuity, Discontinuity.TIME_BASE_JUMP)
            self.assertEqual((frames[15].side_data, frames[14].side_data), (b"side", b""))
            self.assertEqual([frame.seq for frame in frames if frame.configuration_changed], [0, 15])
            self.assertEqual(repr(frames[12]), "<Frame video0 12: 12000 bytes, damaged>")
            self.assertIsInstance(frames[0].crc32c, int)

            (track,) = stream.tracks
            self.assertEqual((track.name, track.kind, track.config_generation), ("video0", Kind.VIDEO, 2))
            self.assertEqual(stream.configuration("video0"), b"configuration 15")
            self.assertEqual(stream.configuration("video0", frames[14].config_generation), b"configuration 0")
            with self.assertRaises(headworks.Error) as raised:
                stream.configuration("video0", 9)
            self.assertEqual(raised.exception.args, (Status.ERROR_CONFIGURATION_UNKNOWN, "no such configuration"))
            with self.assertRaises(KeyError):
                stream.configuration("audio0")
            self.assertEqual(stream.state, State.ENDED)

    def test_views_are_read_only_and_no_copies(self) -> None:
        frame = next(iter(headworks.open("cam1", root=ROOT, track="video0", start=7)))
        self.assertTrue(frame.data.readonly)
        self.assertEqual(frame.data, payload(107, 7_000))
        try:
            import numpy
        except ImportError:
            self.skipTest("no numpy")
        array = numpy.frombuffer(frame, "u1")
        self.assertFalse(array.flags.owndata or array.flags.writeable)
        self.assertEqual(array.tobytes(), bytes(frame))

    def test_streams_and_descriptions(self) -> None:
        self.assertEqual(headworks.streams(ROOT), ["cam1", "live", "waits"])
        description = headworks.describe("cam1", root=ROOT)
        self.assertEqual((description.name, description.created_utc_ns), ("cam1", 5))
        self.assertEqual(description.programmes, [headworks.Programme(1, 256, "One", "über")])
        (track,) = description.tracks
        self.assertEqual((track.name, track.codec, track.language), ("audio0", "aac ", "deu"))
        self.assertEqual((track.sample_rate, track.component_tag, track.ended), (48_000, -1, False))
        self.assertEqual(headworks.describe("cam1", broker=BROKER), description)
        with self.assertRaises(PermissionError) as raised:
            headworks.describe("live", broker=BROKER)
        self.assertEqual(raised.exception.filename, BROKER)

    def test_what_is_not_there(self) -> None:
        with self.assertRaises(FileNotFoundError) as raised:
            headworks.open("cam2", root=ROOT)
        self.assertTrue(raised.exception.filename.endswith("/cam2"))
        with self.assertRaises(FileNotFoundError):
            headworks.streams(ROOT + "/none")
        with self.assertRaises(KeyError):
            headworks.open("cam1", root=ROOT, start="newest")  # type: ignore[arg-type]


class LiveStream(unittest.TestCase):
    def test_frames_come_as_they_are_written(self) -> None:
        stream = iter(headworks.open("live", root=ROOT, start="live", timeout=10))
        frames = [next(stream) for _ in range(50)]
        self.assertEqual([frame.seq - frames[0].seq for frame in frames], list(range(50)))
        for frame in frames:
            self.assertEqual(bytes(frame), payload(frame.seq, 2_000))
            self.assertLessEqual({event.status for event in frame.before}, {Status.TRACK_ADDED})

    def test_a_borrowed_frame_lasts_until_the_next_call(self) -> None:
        stream = headworks.open("live", root=ROOT, timeout=10)
        first = stream.borrow(10)
        while not isinstance(first, Frame):
            first = stream.borrow(10)
        self.assertGreater(first.margin or 0, 0)
        with memoryview(first) as view:
            copy = bytes(view)
            self.assertTrue(first.intact)
            self.assertEqual(copy, payload(first.seq, 2_000))
            # The ring must stay where it is.
            for moves in (stream.close, stream.next, stream.borrow):
                with self.assertRaises(BufferError):
                    moves()
        self.assertIsInstance(stream.next(10), Frame)
        self.assertFalse(first.intact)
        with self.assertRaises(BufferError):
            memoryview(first)

    def test_an_overtaken_borrowed_frame_is_not_intact(self) -> None:
        # 256 KiB at 2 KiB a frame: overtaken by slots or bytes after 128 frames or fewer.
        stream = headworks.open("live", root=ROOT)
        frame = stream.borrow(10)
        while not isinstance(frame, Frame):
            frame = stream.borrow(10)
        deadline = time.monotonic() + 20
        while frame.intact and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertFalse(frame.intact)
        self.assertEqual(frame.margin, 0)
        found = stream.next(10)
        assert isinstance(found, Event)
        self.assertEqual(found.status, Status.LAPPED)
        self.assertGreater(found.count, 0)
        self.assertEqual(found.resume_at, frame.seq + 1 + found.count)

    def test_threads_read_on_while_one_waits(self) -> None:
        quiet = headworks.open("waits", root=ROOT)
        self.assertEqual(quiet.next(0), Event(Status.TRACK_ADDED, "video0", 0, 0))
        found: list[Event | Frame] = []
        waiting = threading.Thread(target=lambda: found.append(quiet.next(2)))
        waiting.start()
        live = headworks.open("live", root=ROOT, start="live", timeout=10)
        self.assertIsInstance(next(iter(live)), Frame)
        # One that another thread waits in is not to be touched.
        for touch in (quiet.close, lambda: quiet.tracks, quiet.next):
            with self.assertRaises(RuntimeError):
                touch()
        waiting.join()
        assert isinstance(found[0], Event)
        self.assertIn(found[0].status, (Status.TIMEOUT, Status.WRITER_DEAD))

    def test_time_out_and_interruption(self) -> None:
        stream = headworks.open("waits", root=ROOT, timeout=0.2)
        with self.assertRaises(TimeoutError):
            next(iter(stream))
        self.assertEqual([event.status for event in stream.events][:1], [Status.TRACK_ADDED])

        class Interrupted(Exception):
            pass

        def interrupt(*_: object) -> None:
            raise Interrupted

        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with self.assertRaises(Interrupted):
            while True:
                stream.next()
        signal.signal(signal.SIGALRM, before)

    def test_a_closed_stream_is_of_no_use(self) -> None:
        stream = headworks.open("live", root=ROOT)
        stream.close()
        stream.close()
        for touch in (stream.next, lambda: stream.tracks, lambda: stream.state):
            with self.assertRaises(ValueError):
                touch()


class Header(unittest.TestCase):
    def test_every_number_is_that_of_the_header(self) -> None:
        text = HEADER.read_text()
        for enumeration, prefix in [
            (headworks.Status, ""),
            (headworks.State, "STATE_"),
            (headworks.Kind, "KIND_"),
            (headworks.Discontinuity, "DISCONTINUITY_"),
            (headworks.Origin, "ORIGIN_"),
            (headworks.WallClock, "WALL_CLOCK_"),
            (headworks.Quality, "QUALITY_"),
            (headworks.Picture, "PICTURE_"),
            (headworks.Structure, "STRUCTURE_"),
            (headworks.Access, "ACCESS_"),
            (headworks.Damage, "DAMAGE_"),
        ]:
            pattern = rf"\bHEADWORKS_{prefix}([A-Z0-9_]+) = (-?\d+)"
            in_header = {name: int(number) for name, number in re.findall(pattern, text)}
            for member in enumeration:
                self.assertEqual(in_header.get(member.name), member.value, f"{enumeration.__name__}.{member.name}")
            if prefix:
                self.assertEqual(len(in_header), len(enumeration), prefix)
            else:
                errors = {name for name in in_header if name.startswith("ERROR_")}
                self.assertEqual(errors, {member.name for member in enumeration if member.value < 0})


if __name__ == "__main__":
    unittest.main()
