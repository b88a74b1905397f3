//! Handing a descriptor to a type that only takes raw ones.

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

/// Makes a `T` the owner of `descriptor`: an executor's file, for example.
///
/// `T` must be happy with the kind of descriptor it gets; a wrong kind shows as an error of its operations.
pub fn adopt_descriptor<T: FromRawFd>(descriptor: OwnedFd) -> T {
    // SAFETY: the descriptor is open, and it was owned by nobody but the argument, which has just given it up.
    unsafe { T::from_raw_fd(descriptor.into_raw_fd()) }
}
