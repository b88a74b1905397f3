//! What is answered to whom: routes and their JSON, metrics, and the envelope around every answer.

pub mod envelope;
pub mod health;
pub mod metrics;
pub mod refusals;
pub mod routes;
pub mod statistics;
pub mod streams;
pub mod timestamp;
