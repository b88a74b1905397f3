@0xd1c9b1f0a7e84c35;
# What Headworks tells the readers of its rings: one FrameDescriptor in every slot, one StreamDescriptor per stream.
#
# The in-slot form of FrameDescriptor is frozen: byte 40 of the slot is the struct pointer (offset 0, no pointer section),
# byte 48 the first data word. Fields are only ever appended; an offset never changes. The comments give byte offsets from
# the first data word, for readers that have no Cap'n Proto library.
#
# Generated code: capnp 0.9.2 with the Rust plugin of capnpc 0.27.0
#   capnp compile -I schema -o rust:src --src-prefix=schema schema/headworks.capnp

const none :UInt64 = 0xffffffffffffffff;
# keySeq of a frame that follows no random access point of this writer.

enum Discontinuity {
  none @0;
  start @1;             # first frame of the ring
  restart @2;           # first frame after Headworks itself came back
  sourceChange @3;      # another source took over the stream
  timeBaseJump @4;      # PCR or RTP time jumped
  signalled @5;         # discontinuity_indicator (ISO/IEC 13818-1 §2.4.3.5) or end of sequence
  loss @6;              # whole frames are missing before this one
  configuration @7;     # codec parameters changed
}

enum ClockOrigin {
  none @0;
  pcr @1;               # 27 MHz, ISO/IEC 13818-1 §2.4.2.2, unwrapped
  rtp @2;               # RTP time stamp in the track's clock, RFC 3550 §5.1, unwrapped
}

enum WallClock {
  none @0;
  utc @1;
  tai @2;
}

enum WallClockQuality {
  unknown @0;
  arrival @1;           # this machine's clock when the first packet came
  senderReport @2;      # RTCP sender report, RFC 3550 §6.4.1
  ptp @3;               # RFC 7273 / ST 2059 reference clock
  inBand @4;            # carried with the picture
}

enum PictureType {
  unknown @0;
  i @1;
  p @2;
  b @3;
}

enum PictureStructure {
  unknown @0;
  frame @1;
  topField @2;          # a field whose partner is not known
  bottomField @3;
  topFirst @4;          # top field, first of its pair
  topSecond @5;
  bottomFirst @6;
  bottomSecond @7;
}

enum RandomAccess {
  none @0;
  idr @1;
  cra @2;
  bla @3;
  recoveryPoint @4;     # decodable after recoveryCount frames
  indicator @5;         # only the container said so (random_access_indicator)
  intra @6;             # MPEG-2 I picture, AV1 key frame, JPEG XS
  independent @7;       # audio and data: every frame stands alone
}

struct FrameDescriptor {
  seq              @0  :UInt64;   #   0  number in the ring
  keySeq           @1  :UInt64;   #   8  random access point this frame depends on
  pts              @2  :Int64;    #  16  track clock, unwrapped; valid if hasPts
  dts              @3  :Int64;    #  24  track clock, unwrapped; valid if hasDts
  timelineNs       @4  :Int64;    #  32  the programme's continuous timeline
  origin           @5  :UInt64;   #  40  see originKind
  firstArrivalNs   @6  :UInt64;   #  48  CLOCK_MONOTONIC of the frame's first packet
  lastArrivalNs    @7  :UInt64;   #  56  … of its last packet
  dueNs            @8  :UInt64;   #  64  when the frame was due to leave the receive buffer
  commitNs         @9  :UInt64;   #  72  when it was published
  wallClockNs      @10 :Int64;    #  80  nanoseconds since 1970, UTC or TAI
  duration         @11 :UInt32;   #  88  track clock; 0 unknown
  configGeneration @12 :UInt32;   #  92  configuration block that decodes it; 0 none
  segment          @13 :UInt32;   #  96  + 1 at restart, fail-over, time-base jump
  packetsLost      @14 :UInt32;   # 100  in this frame
  packetsRecovered @15 :UInt32;   # 104  retransmitted, FEC or from another path
  pathMask         @16 :UInt32;   # 108  bit n: path n carried part of it
  damageReasons    @17 :UInt32;   # 112  bits, see DAMAGE_* in the documentation of the ring
  crc32c           @18 :UInt32;   # 116  of the payload; valid if hasCrc
  sideDataOffset   @19 :UInt32;   # 120  from the start of the frame
  sideDataLength   @20 :UInt32;   # 124
  discontinuity    @21 :Discontinuity;     # 128
  originKind       @22 :ClockOrigin;       # 130
  wallClock        @23 :WallClock;         # 132
  wallClockQuality @24 :WallClockQuality;  # 134
  pictureType      @25 :PictureType;       # 136
  pictureStructure @26 :PictureStructure;  # 138
  randomAccess     @27 :RandomAccess;      # 140
  recoveryCount    @28 :UInt16;   # 142
  timecodeHours    @29 :UInt8;    # 144  ST 12-1; valid if hasTimecode
  timecodeMinutes  @30 :UInt8;    # 145
  timecodeSeconds  @31 :UInt8;    # 146
  timecodeFrames   @32 :UInt8;    # 147
  temporalId       @33 :UInt8;    # 148
  hasPts           @34 :Bool;     # 149 bit 0
  hasDts           @35 :Bool;     #     bit 1
  hasCrc           @36 :Bool;     #     bit 2
  hasTimecode      @37 :Bool;     #     bit 3
  timecodeDropFrame @38 :Bool;    #     bit 4
  damaged          @39 :Bool;     #     bit 5
  key              @40 :Bool;     #     bit 6  a reader may start here
  ptsInterpolated  @41 :Bool;     #     bit 7  computed, not carried
  dtsDerived       @42 :Bool;     # 150 bit 0  computed, not carried
}

enum TrackKind {
  unknown @0;
  video @1;
  audio @2;
  data @3;
  transport @4;
}

struct Programme {
  number  @0 :UInt32;             # program_number; 0 for RTP without a transport stream
  pcrPid  @1 :UInt16;
  name    @2 :Text;               # SDT service name
  provider @3 :Text;
}

struct Track {
  name          @0 :Text;         # directory of the ring: video0, audio0 …
  programme     @1 :UInt32;
  kind          @2 :TrackKind;
  codec         @3 :UInt32;       # fourcc, first character in the low byte
  sourceId      @4 :UInt32;       # PID or SSRC
  clockRate     @5 :UInt32;
  language      @6 :Text;         # ISO 639-2
  componentTag  @7 :Int16 = -1;   # DVB stream_identifier_descriptor
  width         @8 :UInt32;
  height        @9 :UInt32;
  frameRateNumerator   @10 :UInt32;
  frameRateDenominator @11 :UInt32;
  sampleRate    @12 :UInt32;
  channels      @13 :UInt16;
  ended         @14 :Bool;
}

struct StreamDescriptor {
  name          @0 :Text;         # as the operator sees it
  generation    @1 :UInt32;       # + 1 with every replacement of stream.capnp
  createdUtcNs  @2 :Int64;
  programmes    @3 :List(Programme);
  tracks        @4 :List(Track);
}
