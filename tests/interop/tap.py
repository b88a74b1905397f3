"""tap.py ROOT|SOCKET STREAM [broker]: like `headworks tap STREAM --from oldest --json --hash sha256`, by the Python package; waits for the stream."""

import hashlib
import json
import sys
import time

import headworks
from headworks import Access, Discontinuity, Status

ACCESSES = {Access.NONE: None, Access.INDICATOR: "random_access_indicator"}
place, name = sys.argv[1:3]
where = {"broker": place} if sys.argv[3:] == ["broker"] else {"root": place}
while True:
    try:
        stream = headworks.open(name, start="oldest", verify=True, **where)
        break
    except FileNotFoundError:
        time.sleep(0.02)

for frame in stream:
    access, cause = Access(frame.random_access), Discontinuity(frame.discontinuity)
    lapped = sum(event.count for event in frame.before if event.status in (Status.LAPPED, Status.SKIPPED))
    line = {
        "track": frame.track,
        "codec": frame.codec.rstrip(),
        "seq": frame.seq,
        "stream_seq": frame.stream_seq,
        "segment": frame.segment,
        "pts": frame.pts,
        "dts": frame.dts,
        "timeline_ns": frame.timeline_ns,
        "key": frame.key,
        "random_access": ACCESSES.get(access, access.name.lower()),
        "len": len(frame),
        "discontinuity": cause.name.lower() if cause else None,
        "damaged": frame.damaged,
        "lost": frame.packets_lost,
        "lapped": lapped,
        "sha256": hashlib.sha256(frame).hexdigest(),
    }
    print(json.dumps(line), flush=True)
