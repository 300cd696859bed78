//! The structs of `k8s-openapi`, read as text as the build script reads their descriptions.

mod structs;
