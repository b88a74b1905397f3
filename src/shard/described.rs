//! What SDP files add to the configuration: a stream for each media section that can be received.
//!
//! A stream has one source, so a description with several sections is several streams: the first section that can be received
//! keeps the name of the configured stream, the others add their number to it (`studio`, `studio-2`, `studio-3`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::{Config, Stream, StreamRtp, stream_key};
use crate::protocol::rtp::Encoding;
use crate::protocol::rtp::sdp::{SdpMedia, SdpSession, SourceFilter, Transport};

/// A configuration and what SDP files say beside it.
#[derive(Clone, Debug, Default)]
pub struct Described {
    /// The configuration, in which every section that is received is a stream with its port and address.
    pub config: Config,
    /// The sections that are received, by the stream's name.
    pub media: BTreeMap<String, SdpMedia>,
    /// The sections that are not received, and why; for people.
    pub left_out: Vec<String>,
}

/// An SDP file that cannot be read, or says nothing of use.
#[derive(Debug, thiserror::Error)]
#[error("{}: {path}: {reason}", stream_key(.stream, "rtp.sdp"))]
pub struct DescriptionError {
    /// The stream.
    pub stream: String,
    /// The file.
    pub path: PathBuf,
    /// What is wrong, and what mends it.
    pub reason: String,
}

impl Described {
    /// Reads the SDP files that the configuration names.
    ///
    /// # Errors
    /// [`DescriptionError`] for the first file of which nothing can be received.
    pub fn read(config: &Config) -> Result<Self, DescriptionError> {
        let mut described = Self { config: config.clone(), ..Self::default() };
        for (name, stream) in &config.streams {
            let Some(rtp) = &stream.rtp else { continue };
            let Some(path) = &rtp.sdp else { continue };
            std::fs::read(path)
                .map_err(|error| error.to_string())
                .and_then(|text| SdpSession::parse(&text).map_err(|error| error.to_string()))
                .and_then(|session| described.add(name, stream, rtp, session))
                .map_err(|reason| DescriptionError { stream: name.clone(), path: path.clone(), reason })?;
        }
        Ok(described)
    }

    /// Whose packets a stream takes: those of the address that is configured, else of those that its description names.
    pub fn sources(&self, name: &str) -> SourceFilter {
        let stream = self.config.streams.get(name);
        let configured = stream.and_then(|it| it.source.or(it.rtp.as_ref().and_then(|rtp| rtp.source)));
        match (configured, self.media.get(name)) {
            (Some(source), _) => SourceFilter::Include(vec![source]),
            (None, Some(media)) => media.sources.clone(),
            (None, None) => SourceFilter::Any,
        }
    }

    fn add(&mut self, name: &str, stream: &Stream, rtp: &StreamRtp, session: SdpSession) -> Result<(), String> {
        let mut left_out = Vec::new();
        let mut received: Vec<SdpMedia> = Vec::new();
        for media in &session.media {
            match self.why_left_out(media, rtp, &received, &session.duplicates) {
                Some(reason) => {
                    left_out.push(format!("media {} ({}) is not received: {reason}", media.index, media.kind))
                }
                None => received.push(media.clone()),
            }
        }
        if received.is_empty() {
            return Err(left_out.join("; "));
        }
        if let (Some(port), [first, second, ..]) = (rtp.port, received.as_slice()) {
            return Err(format!(
                "media {} and {} cannot both be received on {} = {port}: take that key out, or set the port of the section that is not wanted to 0",
                first.index,
                second.index,
                stream_key(name, "rtp.port")
            ));
        }
        for (place, media) in received.into_iter().enumerate() {
            let its_name = if place == 0 { name.to_owned() } else { format!("{name}-{}", media.index) };
            if place > 0 && self.config.streams.contains_key(&its_name) {
                return Err(format!(
                    "media {} would be the stream {its_name}, which is configured already: rename that, or set the port of the section to 0",
                    media.index
                ));
            }
            let its_rtp = StreamRtp {
                port: rtp.port.or(Some(media.port)),
                address: rtp.address.or(Some(media.address)),
                ..rtp.clone()
            };
            self.config.streams.insert(its_name.clone(), Stream { rtp: Some(its_rtp), ..stream.clone() });
            self.media.insert(its_name, media);
        }
        self.left_out.extend(left_out.into_iter().map(|what| format!("{}: {what}", stream_key(name, "rtp.sdp"))));
        Ok(())
    }

    fn why_left_out(
        &self,
        media: &SdpMedia,
        rtp: &StreamRtp,
        received: &[SdpMedia],
        duplicates: &[Vec<String>],
    ) -> Option<String> {
        let is_copy_of = |earlier: &SdpMedia| {
            let (Some(mid), Some(its)) = (&media.mid, &earlier.mid) else { return false };
            duplicates.iter().any(|group| group.contains(mid) && group.contains(its))
        };
        if let Some(first) = received.iter().find(|earlier| is_copy_of(earlier)) {
            return Some(format!("it is a copy of media {} on another path", first.index));
        }
        let shared = &self.config.ingestion.rtp.payload_types;
        let is_carried = |payload_type: &u8| {
            let is_known = !matches!(
                media.payload_types.get(*payload_type).map(|format| &format.encoding),
                None | Some(Encoding::Other(_))
            );
            is_known || rtp.payload_types.contains_key(payload_type) || shared.contains_key(payload_type)
        };
        if media.transport == Transport::Udp || media.formats.iter().any(is_carried) {
            return None;
        }
        let encodings: Vec<String> = media
            .formats
            .iter()
            .map(|&number| {
                let format = media.payload_types.get(number);
                format.map_or_else(|| format!("payload type {number}"), |format| format.encoding.to_string())
            })
            .collect();
        Some(format!("{} is none of MP2T, H264 and H265", encodings.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const STUDIO: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=Studio\r\nt=0 0\r\na=group:DUP first second\r\n\
        a=source-filter: excl IN IP4 * 192.0.2.66\r\n\
        m=audio 5000 RTP/AVP 98\r\nc=IN IP4 239.1.2.1/32\r\na=rtpmap:98 L24/48000/2\r\n\
        m=video 5004 RTP/AVP 96\r\nc=IN IP4 239.1.2.3/32\r\na=rtpmap:96 H264/90000\r\na=mid:first\r\n\
        m=video 5006 RTP/AVP 96\r\nc=IN IP4 239.2.2.3/32\r\na=rtpmap:96 H264/90000\r\na=mid:second\r\n\
        m=video 5008 RTP/AVP 33\r\nc=IN IP4 232.1.2.4/32\r\na=source-filter: incl IN IP4 232.1.2.4 192.0.2.10 192.0.2.11\r\n";

    fn described(sdp: &str, more: &[&str]) -> Result<Described, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("studio.sdp");
        std::fs::write(&path, sdp).unwrap();
        let mut settings = vec![format!("streams.studio.rtp.sdp={}", path.display())];
        settings.extend(more.iter().map(|it| (*it).to_owned()));
        let config = crate::config::load(None, std::iter::empty(), &settings).unwrap().config;
        Described::read(&config).map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn each_section_that_can_be_received_is_a_stream_and_the_others_are_named() {
        let described = described(STUDIO, &["streams.studio.rtp.interface=eth1"]).unwrap();
        assert_eq!(described.config.streams.keys().collect::<Vec<_>>(), ["studio", "studio-4"]);
        let rtp = |name: &str| described.config.streams[name].rtp.clone().unwrap();
        assert_eq!((rtp("studio").port, rtp("studio").address), (Some(5004), Some(IpAddr::from([239, 1, 2, 3]))));
        assert_eq!((rtp("studio-4").port, rtp("studio-4").interface.as_deref()), (Some(5008), Some("eth1")));
        assert_eq!(described.media["studio-4"].index, 4);
        assert_eq!(
            described.left_out,
            [
                "streams.studio.rtp.sdp: media 1 (audio) is not received: L24 is none of MP2T, H264 and H265",
                "streams.studio.rtp.sdp: media 3 (video) is not received: it is a copy of media 2 on another path",
            ]
        );
    }

    #[test]
    fn sources_are_those_of_the_section_unless_one_is_configured() {
        let filtered = described(STUDIO, &[]).unwrap();
        assert_eq!(filtered.sources("studio"), SourceFilter::Exclude(vec![[192, 0, 2, 66].into()]));
        let included = SourceFilter::Include(vec![[192, 0, 2, 10].into(), [192, 0, 2, 11].into()]);
        assert_eq!(filtered.sources("studio-4"), included);
        let configured = described(STUDIO, &["streams.studio.rtp.source=192.0.2.7"]).unwrap();
        assert_eq!(configured.sources("studio-4"), SourceFilter::Include(vec![[192, 0, 2, 7].into()]));
        assert_eq!(configured.sources("another"), SourceFilter::Any);
    }

    #[test]
    fn a_description_that_cannot_be_followed_names_the_section_and_the_cure() {
        let fault = described(STUDIO, &["streams.studio.rtp.port=7000"]).unwrap_err();
        assert!(fault.starts_with("streams.studio.rtp.sdp: FILE: media 2 and 4 cannot both be received"), "{fault}");
        let fault = described(STUDIO, &["streams.studio-4.latency=1s"]).unwrap_err();
        assert!(fault.contains("media 4 would be the stream studio-4, which is configured already: rename"), "{fault}");
        let audio = &STUDIO[..STUDIO.find("m=video").unwrap()];
        let fault = described(audio, &[]).unwrap_err();
        assert!(fault.ends_with("media 1 (audio) is not received: L24 is none of MP2T, H264 and H265"), "{fault}");
        assert!(
            described(audio, &["streams.studio.rtp.payload_types.98=mp2t"]).is_ok(),
            "the configuration explains it"
        );
    }
}
