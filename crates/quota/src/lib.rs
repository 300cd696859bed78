//! What objects count for in a ResourceQuota: which quotas an object falls under, and how much of each resource it takes.
//!
//! The API server charges a quota with what is written, and the quota controller counts again what is there: both ask
//! here, so that they agree. Plain functions over trees, as `kinds` is; upstream's is `pkg/quota/v1`.

pub mod amounts;
mod charge;
mod devices;
mod names;
mod quotas;
mod scopes;

pub use amounts::Amounts;
pub use charge::Charge;
pub use devices::{Consumer, DeviceClasses, MadeFor};
pub use names::{count_name, is_tracked, tracked_by, tracks};
pub use quotas::{Quota, constraints, pretty, pretty_names};
pub use scopes::{Scopes, Selector, is_best_effort};
