//! The audit slot: who did what, told twice, when the request was accepted and when it was answered.
//!
//! Policies and backends are a later issue; the slot is here so that they find every request.

use crate::request::{Attributes, UserInfo};

/// When an audit event is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditStage {
    /// Before flow control and authorization.
    RequestReceived,
    /// When the answer's head is there, with its code.
    ResponseStarted(u16),
}

/// Where audit events go.
pub trait AuditSink: Send + Sync {
    /// One event. Must not block.
    fn record(&self, audit_id: &str, stage: AuditStage, user: &UserInfo, attributes: &Attributes);
}
