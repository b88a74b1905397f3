//! The packet filters that the configuration insists on, read once at the start.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::config::{Config, stream_key};
use crate::protocol::srt::fec::configuration::{FilterConfiguration, FilterError};

/// A configured packet filter is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{key}: {text:?} is no packet filter: {reason}")]
pub struct PacketFilterError {
    key: String,
    text: String,
    reason: FilterError,
}

/// What callers must agree to: of all streams, and of single ones.
#[derive(Clone, Debug, Default)]
pub struct PacketFilters {
    of_all: Option<FilterConfiguration>,
    of_stream: BTreeMap<String, FilterConfiguration>,
}

impl PacketFilters {
    /// Reads `ingestion.srt.packet_filter` and `streams.NAME.packet_filter`.
    ///
    /// # Errors
    /// [`PacketFilterError`], the first.
    pub fn read(config: &Config) -> Result<Self, PacketFilterError> {
        let read = |key: &str, text: &String| {
            text.parse().map_err(|reason| PacketFilterError { key: key.to_owned(), text: text.clone(), reason })
        };
        let of_all = &config.ingestion.srt.packet_filter;
        let of_all = of_all.as_ref().map(|text| read("ingestion.srt.packet_filter", text)).transpose()?;
        let mut of_stream = BTreeMap::new();
        for (name, stream) in &config.streams {
            if let Some(text) = &stream.packet_filter {
                of_stream.insert(name.clone(), read(&stream_key(name, "packet_filter"), text)?);
            }
        }
        Ok(Self { of_all, of_stream })
    }

    /// Whether none is insisted on.
    pub fn is_empty(&self) -> bool {
        self.of_all.is_none() && self.of_stream.is_empty()
    }

    /// What is insisted on where this stream is called for.
    pub fn of(&self, stream: &str) -> Option<FilterConfiguration> {
        self.of_stream.get(stream).copied().or(self.of_all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Stream;

    #[test]
    fn a_stream_goes_before_the_listener_and_a_fault_names_its_key() {
        let mut config = Config::default();
        assert_eq!(PacketFilters::read(&config).unwrap().of("cam1"), None);
        config.ingestion.srt.packet_filter = Some("fec".to_owned());
        let packet_filter = Some("fec,cols:10".to_owned());
        config.streams.insert("cam1".to_owned(), Stream { packet_filter, ..Stream::default() });
        let filters = PacketFilters::read(&config).unwrap();
        assert_eq!(filters.of("cam1").and_then(|filter| filter.cols), Some(10));
        assert_eq!(filters.of("cam2"), Some(FilterConfiguration::default()));
        config
            .streams
            .insert("cam2".to_owned(), Stream { packet_filter: Some("fec,cols:1".to_owned()), ..Stream::default() });
        assert_eq!(
            PacketFilters::read(&config).unwrap_err().to_string(),
            "streams.cam2.packet_filter: \"fec,cols:1\" is no packet filter: cols is 2 to 128"
        );
    }
}
