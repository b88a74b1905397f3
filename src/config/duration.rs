//! Durations as `500us`, `120ms`, `30s`, `5m`, `1h`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de};

/// Reads `text` as a number with one of the units `us ms s m h`.
///
/// # Errors
/// [`ParseError`] for anything else.
pub fn parse(text: &str) -> Result<Duration, ParseError> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let nanoseconds_per_unit = match unit.trim() {
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3_600e9,
        "" if number == "0" => 0.0,
        _ => return Err(ParseError(text.to_owned())),
    };
    let number: f64 = number.parse().map_err(|_| ParseError(text.to_owned()))?;
    let nanoseconds = number * nanoseconds_per_unit;
    if nanoseconds > 1e18 {
        return Err(ParseError(text.to_owned()));
    }
    Ok(Duration::from_nanos(nanoseconds.round() as u64))
}

/// Writes a duration in the largest unit that leaves no fraction.
pub fn format(duration: Duration) -> String {
    let us = duration.as_micros();
    for (unit_us, unit) in [(3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")] {
        if us >= unit_us && us.is_multiple_of(unit_us) {
            return format!("{}{unit}", us / unit_us);
        }
    }
    format!("{us}us")
}

/// The text is no duration.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a duration: write a number and a unit, such as 120ms, 30s, 5m or 1h")]
pub struct ParseError(String);

pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Number(serde_json::Number),
    }
    let text = match Written::deserialize(deserializer)? {
        Written::Text(text) => text,
        Written::Number(number) => number.to_string(),
    };
    parse(&text).map_err(de::Error::custom)
}

pub(super) mod option {
    use super::{Deserializer, Duration, Serializer};

    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }
}
