//! Pods, by example.
