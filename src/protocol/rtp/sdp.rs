//! Session descriptions (RFC 8866): where media come from, and what their payload types stand for.

use std::net::IpAddr;

use thiserror::Error;

use super::payload_type::{Encoding, PayloadFormat, PayloadTypes};

/// Octets of a description that are still read.
pub const MAX_LEN: usize = 64 << 10;
/// Media of a description that are still taken.
pub const MAX_MEDIA: usize = 64;

/// A description as a receiver needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SdpSession {
    /// `s=`.
    pub name: String,
    /// Each `m=` that is to be received, in order; those with port 0 are off and left out.
    pub media: Vec<SdpMedia>,
    /// `a=group:DUP`: `mid`s of media that are copies of each other on several paths (RFC 7104).
    pub duplicates: Vec<Vec<String>>,
}

/// One `m=` of a description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SdpMedia {
    /// Which `m=` of the description it is, from 1.
    pub index: usize,
    /// `video`, `audio`, `application`.
    pub kind: String,
    /// `c=`: the group to join, or the unicast address of the receiver.
    pub address: IpAddr,
    /// Time to live of IPv4 multicast, when given.
    pub ttl: Option<u8>,
    /// UDP port of the media.
    pub port: u16,
    /// UDP port of RTCP: `a=rtcp`, the media's own with `a=rtcp-mux`, else the next one; `None` without RTP.
    pub rtcp_port: Option<u16>,
    /// RTP, or bare UDP.
    pub transport: Transport,
    /// `a=source-filter` (RFC 4570).
    pub sources: SourceFilter,
    /// The payload types of the `m=` line that are explained by it or by assignment.
    pub payload_types: PayloadTypes,
    /// The payload types of the `m=` line, the preferred one first.
    pub formats: Vec<u8>,
    /// `a=mid`.
    pub mid: Option<String>,
}

/// What lies between UDP and the media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// RTP, without encryption.
    Rtp,
    /// Nothing: a raw transport stream.
    Udp,
}

/// Whose packets to take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SourceFilter {
    /// Anybody's.
    #[default]
    Any,
    /// Only theirs: source-specific multicast.
    Include(Vec<IpAddr>),
    /// Anybody's but theirs.
    Exclude(Vec<IpAddr>),
}

impl SourceFilter {
    /// Whether packets of `source` are taken.
    pub fn admits(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        match self {
            Self::Any => true,
            Self::Include(only) => only.iter().any(|it| it.to_canonical() == source),
            Self::Exclude(others) => others.iter().all(|it| it.to_canonical() != source),
        }
    }
}

/// Why a description is of no use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SdpError {
    /// It is too long.
    #[error("a session description of {0} octets, more than {MAX_LEN}")]
    TooLong(usize),
    /// It breaks the grammar.
    #[error("not a session description: {0}")]
    Syntax(String),
    /// Nothing in it can be received.
    #[error("the session description has no media to receive")]
    NoMedia,
    /// Too many media.
    #[error("a session description with {0} media, more than {MAX_MEDIA}")]
    TooManyMedia(usize),
    /// A medium has no `c=` line, or one whose address is no IP address.
    #[error("media {index} ({kind}) has no usable connection address{}", found.as_ref().map(|found| format!(": {found}")).unwrap_or_default())]
    Address {
        /// Which, from 1.
        index: usize,
        /// Its kind.
        kind: String,
        /// What stands there.
        found: Option<String>,
    },
    /// A medium is carried by what cannot be received here.
    #[error(
        "media {index} ({kind}): transport {transport} is not supported; set the section's port to 0 to do without it"
    )]
    Transport {
        /// Which, from 1.
        index: usize,
        /// Its kind.
        kind: String,
        /// The protocol of the `m=` line.
        transport: String,
    },
    /// A source filter cannot be understood; ignoring it would let strangers in.
    #[error("media {index}: source filter \"{value}\" is not understood")]
    SourceFilter {
        /// Which, from 1.
        index: usize,
        /// What stands there.
        value: String,
    },
}

impl SdpSession {
    /// Reads a description.
    ///
    /// # Errors
    ///
    /// What makes it of no use.
    pub fn parse(text: &[u8]) -> Result<Self, SdpError> {
        if text.len() > MAX_LEN {
            return Err(SdpError::TooLong(text.len()));
        }
        let session = sdp_types::Session::parse(text).map_err(|error| SdpError::Syntax(error.to_string()))?;
        if session.medias.len() > MAX_MEDIA {
            return Err(SdpError::TooManyMedia(session.medias.len()));
        }
        let mut media = Vec::new();
        for (at, described) in session.medias.iter().enumerate().filter(|(_, described)| described.port != 0) {
            media.push(SdpMedia::read(&session, described, at + 1)?);
        }
        if media.is_empty() {
            return Err(SdpError::NoMedia);
        }
        let duplicates = values(&session.attributes, "group")
            .filter_map(|group| group.strip_prefix("DUP "))
            .map(|mids| mids.split_whitespace().map(str::to_owned).collect())
            .collect();
        Ok(Self { name: session.session_name.clone(), media, duplicates })
    }
}

/// The values of all attributes of a name.
fn values<'a>(attributes: &'a [sdp_types::Attribute], name: &'a str) -> impl Iterator<Item = &'a str> {
    attributes
        .iter()
        .filter(move |attribute| attribute.attribute.eq_ignore_ascii_case(name))
        .map(|attribute| attribute.value.as_deref().unwrap_or("").trim())
}

impl SdpMedia {
    fn read(session: &sdp_types::Session, media: &sdp_types::Media, index: usize) -> Result<Self, SdpError> {
        let kind = media.media.clone();
        let connection = media.connections.first().or(session.connection.as_ref());
        let bad_address = |found: Option<String>| SdpError::Address { index, kind: kind.clone(), found };
        let connection = connection.ok_or_else(|| bad_address(None))?;
        let (address, ttl) = parse_address(&connection.connection_address)
            .ok_or_else(|| bad_address(Some(connection.connection_address.clone())))?;

        let transport = match media.proto.to_ascii_uppercase().as_str() {
            "RTP/AVP" | "RTP/AVPF" => Transport::Rtp,
            "UDP" | "MP2T/H2221/UDP" | "RAW/RAW/UDP" => Transport::Udp,
            _ => return Err(SdpError::Transport { index, kind, transport: media.proto.clone() }),
        };
        let rtcp_port = match transport {
            Transport::Udp => None,
            Transport::Rtp if values(&media.attributes, "rtcp-mux").next().is_some() => Some(media.port),
            Transport::Rtp => values(&media.attributes, "rtcp")
                .find_map(|value| value.split_whitespace().next()?.parse().ok())
                .or(media.port.checked_add(1)),
        };

        let mut payload_types = PayloadTypes::default();
        let formats: Vec<u8> = media.fmt.split_whitespace().filter_map(|format| format.parse().ok()).collect();
        for map in values(&media.attributes, "rtpmap") {
            if let Some((payload_type, format)) = parse_map(map) {
                let parameters = values(&media.attributes, "fmtp").find_map(|line| {
                    let (number, parameters) = line.split_once(' ')?;
                    (number.parse() == Ok(payload_type)).then(|| parameters.trim().to_owned())
                });
                payload_types.set(payload_type, PayloadFormat { parameters: parameters.unwrap_or_default(), ..format });
            }
        }

        Ok(Self {
            index,
            sources: read_filter(session, media, address, index)?,
            mid: values(&media.attributes, "mid").next().map(str::to_owned),
            kind,
            address,
            ttl,
            port: media.port,
            rtcp_port,
            transport,
            payload_types,
            formats,
        })
    }
}

/// An address of a `c=` line: `address[/ttl[/count]]` with IPv4, `address[/count]` with IPv6 (RFC 8866 §5.7).
fn parse_address(text: &str) -> Option<(IpAddr, Option<u8>)> {
    let mut parts = text.split('/');
    let address: IpAddr = parts.next()?.trim().parse().ok()?;
    let ttl = match (address, parts.next()) {
        (IpAddr::V4(_), Some(ttl)) => Some(ttl.parse().ok()?),
        _ => None,
    };
    Some((address, ttl))
}

/// `96 H264/90000[/parameters]`.
fn parse_map(map: &str) -> Option<(u8, PayloadFormat)> {
    let (payload_type, rest) = map.split_once(' ')?;
    let mut parts = rest.trim().split('/');
    let encoding = Encoding::from_name(parts.next()?);
    let clock_rate = parts.next()?.parse().ok()?;
    Some((payload_type.parse().ok()?, PayloadFormat { encoding, clock_rate, parameters: String::new() }))
}

/// The filters that concern `address`; those of the medium replace those of the session (RFC 4570 §3.1).
fn read_filter(
    session: &sdp_types::Session,
    media: &sdp_types::Media,
    address: IpAddr,
    index: usize,
) -> Result<SourceFilter, SdpError> {
    let own = values(&media.attributes, "source-filter").next().is_some();
    let attributes = if own { &media.attributes } else { &session.attributes };
    let mut included = Vec::new();
    let mut excluded = Vec::new();
    for value in values(attributes, "source-filter") {
        let fail = || SdpError::SourceFilter { index, value: value.to_owned() };
        let mut words = value.split_whitespace();
        let list = match words.next() {
            Some("incl") => &mut included,
            Some("excl") => &mut excluded,
            _ => return Err(fail()),
        };
        let (_net_type, address_type) = (words.next().ok_or_else(fail)?, words.next().ok_or_else(fail)?);
        let destination = words.next().ok_or_else(fail)?;
        // A filter of the session may be for media of the other IP version.
        match address_type {
            "IP4" if !address.is_ipv4() => continue,
            "IP6" if !address.is_ipv6() => continue,
            "IP4" | "IP6" | "*" => {}
            _ => return Err(fail()),
        }
        if destination != "*" && destination.parse::<IpAddr>().map_err(|_| fail())? != address {
            continue;
        }
        let sources: Result<Vec<IpAddr>, _> = words.map(str::parse).collect();
        let sources = sources.map_err(|_| fail())?;
        if sources.is_empty() {
            return Err(fail());
        }
        list.extend(sources.into_iter().filter(|source| source.is_ipv4() == address.is_ipv4()));
    }
    Ok(match (included.is_empty(), excluded.is_empty()) {
        (false, _) => SourceFilter::Include(included),
        (true, false) => SourceFilter::Exclude(excluded),
        (true, true) => SourceFilter::Any,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MULTICAST: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=Stadium 1\r\nt=0 0\r\n\
        a=group:DUP primary secondary\r\na=source-filter: incl IN IP4 * 192.0.2.10\r\n\
        m=video 5004 RTP/AVP 96 33\r\nc=IN IP4 239.1.2.3/32\r\na=rtpmap:96 H264/90000\r\n\
        a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z0IACpZTBYmI,aMljiA==\r\na=mid:primary\r\n\
        m=video 5006 RTP/AVP 97\r\nc=IN IP4 239.1.2.4\r\na=rtpmap:97 H265/90000\r\na=rtcp:6007\r\na=mid:secondary\r\n\
        a=source-filter: incl IN IP4 239.1.2.4 192.0.2.11 192.0.2.12\r\n\
        a=source-filter: incl IN IP4 239.9.9.9 192.0.2.13\r\n\
        m=audio 0 RTP/AVP 98\r\na=rtpmap:98 L24/48000/2\r\n";

    #[test]
    fn a_multicast_description_is_read_whole() {
        let session = SdpSession::parse(MULTICAST.as_bytes()).unwrap();
        assert_eq!(session.name, "Stadium 1");
        assert_eq!(session.duplicates, [["primary", "secondary"]]);
        let [first, second] = session.media.as_slice() else { panic!("{session:?}") };
        assert_eq!((first.index, second.index), (1, 2));
        assert_eq!(first.address, IpAddr::from([239, 1, 2, 3]));
        assert_eq!((first.ttl, first.port, first.rtcp_port), (Some(32), 5004, Some(5005)));
        assert_eq!(first.sources, SourceFilter::Include(vec![IpAddr::from([192, 0, 2, 10])]));
        assert_eq!(first.formats, [96, 33]);
        let format = first.payload_types.get(96).unwrap();
        assert_eq!(format.encoding, Encoding::H264);
        assert_eq!(format.parameter("sprop-parameter-sets"), Some("Z0IACpZTBYmI,aMljiA=="));
        assert_eq!(first.payload_types.get(33).unwrap().encoding, Encoding::Mp2t);
        assert_eq!((second.ttl, second.port, second.rtcp_port), (None, 5006, Some(6007)));
        assert_eq!(second.payload_types.get(97).unwrap().encoding, Encoding::Hevc);
        assert_eq!(
            second.sources,
            SourceFilter::Include(vec![IpAddr::from([192, 0, 2, 11]), IpAddr::from([192, 0, 2, 12])])
        );
        assert_eq!(second.mid.as_deref(), Some("secondary"));
    }

    fn with_media(media: &str) -> Result<SdpSession, SdpError> {
        SdpSession::parse(
            format!("v=0\r\no=- 1 1 IN IP6 ::1\r\ns=-\r\nc=IN IP6 ff3e::1/2\r\nt=0 0\r\n{media}").as_bytes(),
        )
    }

    #[test]
    fn source_filters_of_session_and_media_count_for_their_ip_version_and_destination() {
        let text = "v=0\r\no=- 1 1 IN IP6 ::1\r\ns=-\r\nt=0 0\r\n\
            a=source-filter: excl IN IP4 * 192.0.2.66\r\na=source-filter: incl IN IP6 * 2001:db8::1 2001:db8::2\r\n\
            m=video 5004 RTP/AVP 33\r\nc=IN IP6 ff3e::1\r\n\
            m=video 5006 RTP/AVP 33\r\nc=IN IP4 239.1.2.3\r\n\
            m=video 5008 RTP/AVP 33\r\nc=IN IP6 ff3e::2\r\na=source-filter: excl IN * * 192.0.2.1 2001:db8::9\r\n";
        let session = SdpSession::parse(text.as_bytes()).unwrap();
        let [first, second, third] = session.media.as_slice() else { panic!("{session:?}") };
        let [one, two, nine]: [IpAddr; 3] = ["2001:db8::1", "2001:db8::2", "2001:db8::9"].map(|it| it.parse().unwrap());
        assert_eq!(first.sources, SourceFilter::Include(vec![one, two]));
        assert_eq!(second.sources, SourceFilter::Exclude(vec![IpAddr::from([192, 0, 2, 66])]));
        assert_eq!(third.sources, SourceFilter::Exclude(vec![nine]));
        assert!(first.sources.admits(two) && !first.sources.admits(nine));
        assert!(third.sources.admits(two) && !third.sources.admits(nine));
        assert!(!second.sources.admits("::ffff:192.0.2.66".parse().unwrap()));
        assert!(SourceFilter::Any.admits(nine));
    }

    #[test]
    fn raw_transport_streams_and_multiplexed_rtcp_are_understood() {
        let session = with_media("m=video 1234 udp 33\r\nm=video 5004 RTP/AVPF 33\r\na=rtcp-mux\r\n").unwrap();
        assert_eq!((session.media[0].transport, session.media[0].rtcp_port), (Transport::Udp, None));
        assert_eq!((session.media[1].transport, session.media[1].rtcp_port), (Transport::Rtp, Some(5004)));
        assert_eq!(session.media[0].address, "ff3e::1".parse::<IpAddr>().unwrap());
        assert_eq!(session.media[0].sources, SourceFilter::Any);
    }

    #[test]
    fn each_fault_has_its_reason() {
        assert_eq!(with_media("m=video 0 RTP/AVP 33\r\n"), Err(SdpError::NoMedia));
        assert!(matches!(with_media("m=video 1 RTP/SAVP 33\r\n"), Err(SdpError::Transport { index: 1, .. })));
        assert!(matches!(
            with_media("m=video 1 RTP/AVP 33\r\na=source-filter: incl IN IP6 * example.com\r\n"),
            Err(SdpError::SourceFilter { index: 1, .. })
        ));
        assert!(matches!(
            with_media("m=video 1 RTP/AVP 33\r\nc=IN IP4 host.example\r\n"),
            Err(SdpError::Address { index: 1, found: Some(_), .. })
        ));
        assert!(matches!(SdpSession::parse(b"hello"), Err(SdpError::Syntax(_))));
        assert_eq!(SdpSession::parse(&[b'v'; MAX_LEN + 1]), Err(SdpError::TooLong(MAX_LEN + 1)));
    }

    proptest! {
        #[test]
        fn altered_descriptions_are_refused_or_read(at in 0..MULTICAST.len(), value: u8, cut in 0..MULTICAST.len()) {
            let mut text = MULTICAST.as_bytes().to_vec();
            text[at] = value;
            let _ = SdpSession::parse(&text);
            text.truncate(cut);
            if let Ok(session) = SdpSession::parse(&text) {
                prop_assert!(!session.media.is_empty());
            }
        }
    }
}
