"""A raw transport stream over UDP in the frames of a VLAN, written here: the kernel of the sending host may know of no VLANs.

Usage: tagged.py INTERFACE < STREAM. From 10.77.0.2 to 10.77.0.1, port 6001, in VLAN 77. Fails unless ARP is answered, by the tagged
question alone.
"""

import socket
import struct
import sys
import time

OWN = bytes([2, 0, 0, 0, 0, 2])
ADDRESSES = bytes([10, 77, 0, 2, 10, 77, 0, 1])
ETH_P_ALL = 3


def tag(vlan):
    return struct.pack("!HH", 0x8100, vlan)


link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
link.bind((sys.argv[1], 0))
link.settimeout(2)


def ask(before):
    """Who has 10.77.0.1? The Ethernet address that answers, or none."""
    question = struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1) + OWN + ADDRESSES[:4] + bytes(6) + ADDRESSES[4:]
    link.send(bytes([0xFF] * 6) + OWN + before + question)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        try:
            frame = link.recv(2048)
        except TimeoutError:
            break
        # The kernel shows the tag beside the frame.
        if frame[:6] == OWN and frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\x02":
            return frame[6:12]
    return None


assert ask(b"") is None and ask(tag(78)) is None, "answered beside the VLAN"
near = ask(tag(77))
assert near, "not answered in the VLAN"
stream = sys.stdin.buffer.read()
began = time.monotonic()
for start in range(0, len(stream), 1316):
    time.sleep(max(0, began + start / 1_000_000 - time.monotonic()))
    piece = stream[start : start + 1316]
    header = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(piece), 0, 0x4000, 64, 17, 0) + ADDRESSES
    total = sum(struct.unpack("!10H", header))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    header = header[:10] + struct.pack("!H", checksum) + header[12:]
    # UDP without a checksum, which IPv4 allows.
    udp = struct.pack("!HHHH", 5000, 6001, 8 + len(piece), 0)
    link.send(near + OWN + tag(77) + b"\x08\0" + header + udp + piece)
