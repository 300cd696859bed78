//! Deployments, by example.
