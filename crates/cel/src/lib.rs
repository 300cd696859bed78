//! The Common Expression Language as Kubernetes uses it: for matching requests, admission policies, rules of custom
//! resources, and mapping of claims.
//!
//! An [`Environment`] says which variables an expression has, of which types, and which libraries, by the version of
//! Kubernetes that expressions are compatible with. [`compile`] makes a [`Program`] of a text: it is parsed, its macros are
//! expanded, its types are checked, its constants are folded. [`Program::evaluate`] gives a [`Value`] and counts what it
//! cost, as upstream counts, against the limit of a call and a [`Budget`] of several calls.
//!
//! ```
//! use cel::{Budget, Environment, Type, Value, compile};
//!
//! let environment = Environment::kubernetes(36).with("user", Type::map(Type::String, Type::Dyn));
//! let program = compile(&environment, "user.name.startsWith('system:')").expect("a good expression");
//! let user = serde_json::json!({"name": "system:admin"});
//! let variables = [("user", Value::from_json(&user, &Type::map(Type::String, Type::Dyn)))];
//! let value = program.evaluate(&variables, &mut Budget::for_one_call());
//! assert_eq!(value.expect("it can be evaluated").as_bool(), Some(true));
//! ```
//!
//! Invariants: no IO, no clock, no `async`; neither parsing nor evaluation panics, whatever the text and the values; what a
//! text or a value can make them do is bounded. Errors are in cel-go's words, because users meet them in messages.

pub mod admission;
pub mod declared;
pub mod devices;

mod ast;
mod build;
mod check;
mod cost;
mod environment;
mod eval;
mod fold;
mod issues;
mod lexer;
mod library;
mod macros;
mod parser;
mod program;
mod schema;
mod selects;
mod types;
mod value;

pub use cost::estimate::{Estimate, Sizes, UnknownSizes};
pub use environment::Environment;
pub use issues::{Issue, Issues};
pub use library::addresses::Network;
pub use library::authorizer::{
    Attributes, Authorizer, Authorizing, Decision, ResourceAttributes, ResourceCheck, Target,
};
pub use library::formats::NamedFormat;
pub use library::opaque::{
    AUTHORIZER, CIDR, DECISION, FORMAT, GROUP_CHECK, IP, Opaque, PATH_CHECK, QUANTITY, RESOURCE_CHECK, SEMVER, URL,
};
pub use library::semvers::Semver;
pub use library::urls::Url;
pub use program::{Budget, CALL_COST_MAX, Error, ErrorKind, Program, Variables, compile};
pub use types::{Field, Identity, ObjectType, Type, escape, is_identifier};
pub use value::{Key, List, Map, Text, Timestamp, Value};
