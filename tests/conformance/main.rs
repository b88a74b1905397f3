//! What other programs write, read as they and other readers read it.

mod mpegts;
