//! What of a conversation can be known of its packets and control packets that came: no sums, only which are there.

use std::collections::BTreeSet;

use headworks::protocol::srt::fec::configuration::Fec;
use headworks::protocol::srt::fec::geometry::{Geometry, Group};

/// The packets that came, or that one equation after the other leads to, counted from the first; `arrivals` are numbers and, of
/// control packets, the index.
pub fn known(fec: &Fec, arrivals: &[(u64, Option<u8>)]) -> BTreeSet<u64> {
    let geometry = Geometry::new(fec);
    let mut known: BTreeSet<u64> =
        arrivals.iter().filter(|(_, index)| index.is_none()).map(|(offset, _)| *offset).collect();
    let mut groups: Vec<Vec<u64>> = arrivals
        .iter()
        .filter_map(|&(offset, index)| {
            let group = match (index?, geometry.column(offset)) {
                (0xff, _) => Group::Row(geometry.row(offset)),
                (_, Some((column, series, _))) => Group::Column { column, series },
                (_, None) => panic!("a control packet of no column"),
            };
            Some(geometry.members(group).collect())
        })
        .collect();
    loop {
        let before = known.len();
        groups.retain(|members| {
            let missing: Vec<u64> = members.iter().copied().filter(|it| !known.contains(it)).collect();
            if let [only] = missing[..] {
                known.insert(only);
            }
            missing.len() > 1
        });
        if known.len() == before {
            return known;
        }
    }
}
