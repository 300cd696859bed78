//! The stages that every request passes, in their order, and the traits by which others plug into them.
//!
//! connection -> authentication (and impersonation) -> audit -> flow control -> authorization -> verb. See design D6.

pub mod admission;
pub mod identity;

pub use admission::{Operation, Plugin, Review};
pub use identity::{Authenticator, Authorizer, Credentials, Decision, Identity, RuleSet, TokenIssuer};
