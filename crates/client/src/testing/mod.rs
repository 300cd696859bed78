//! A small API server in memory, for tests.
