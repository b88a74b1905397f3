//! A frame as the pipeline gives it, in the words of `headworks tap --json`.

/// What is compared of one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    pub track: String,
    pub seq: u64,
    pub segment: u32,
    pub pts: Option<i64>,
    pub dts: Option<i64>,
    pub key: bool,
    pub random_access: Option<String>,
    pub len: usize,
    pub discontinuity: Option<String>,
    pub damaged: bool,
    pub lost: u32,
    pub lapped: u64,
    pub sha256: String,
}
