//! stub
#[derive(Debug)]
pub struct DecodeTimeEstimator;
impl DecodeTimeEstimator {
    pub fn decode_time(&mut self, pts: i64) -> i64 {
        pts
    }
}
