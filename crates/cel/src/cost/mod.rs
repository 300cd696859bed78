//! What expressions cost. The numbers are upstream's: rules are admitted by them, so they are part of the API.

pub(crate) mod actual;

/// The cost of making a list.
pub(crate) const LIST: u64 = 10;
/// The cost of making a map.
pub(crate) const MAP: u64 = 30;
/// The cost of making a record.
pub(crate) const STRUCT: u64 = 40;
/// The cost of looking at a character once.
pub(crate) const CHARACTER: f64 = 0.1;
/// The cost that each character of a pattern adds to each unit of the text's.
pub(crate) const PATTERN_CHARACTER: f64 = 0.25;
