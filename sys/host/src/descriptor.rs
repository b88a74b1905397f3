//! Descriptors of this process.

/// Raises the number of descriptors this process may have to what it is allowed to; gives the number.
pub fn raise_descriptor_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Refused only to a process that lowered its own maximum meanwhile.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_limit_is_raised_to_its_maximum() {
        use rustix::process::{Resource, getrlimit};
        let raised = raise_descriptor_limit();
        assert_eq!(raised, getrlimit(Resource::Nofile).maximum);
    }
}
