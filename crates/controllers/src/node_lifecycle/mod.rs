//! Not there yet.
pub(crate) fn start(_context: crate::context::Context) {}
