//! Replicasets, by example.
