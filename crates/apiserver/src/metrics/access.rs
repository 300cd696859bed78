//! Who asked, whether they may, and how long finding out took, under upstream's names.
//!
//! Sources: `metrics.go` and `authentication.go` of `k8s.io/apiserver/pkg/endpoints/filters`, and
//! `pkg/endpoints/metrics` (`apiserver_request_filter_duration_seconds`).

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::pipeline::Decision;

use super::names::{Names, Tally, name};

/// Upstream's buckets of filters, in seconds.
const FILTER_SECONDS: [f64; 13] = [
    0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0, 10.0, 15.0, 30.0,
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct UserLabels {
    username: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FilterLabels {
    filter: &'static str,
}

/// How an authentication or an authorization came out: found once, counted often.
struct Outcome<C> {
    counter: C,
    seconds: Histogram,
}

/// The metrics of authentication and authorization.
pub struct Access {
    users: Family<UserLabels, Tally>,
    attempts: Family<ResultLabels, Tally>,
    authentication_seconds: Family<ResultLabels, Histogram, fn() -> Histogram>,
    decisions: Family<ResultLabels, Counter>,
    authorization_seconds: Family<ResultLabels, Histogram, fn() -> Histogram>,
    filter_seconds: Family<FilterLabels, Histogram, fn() -> Histogram>,
    /// Success, failure, error.
    authenticated: [Outcome<Tally>; 3],
    /// Allowed, denied, no opinion, error.
    authorized: [Outcome<Counter>; 4],
    authentication: Histogram,
    authorization: Histogram,
    flow_control: Histogram,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

fn filter_seconds() -> Histogram {
    Histogram::new(FILTER_SECONDS)
}

impl Default for Access {
    fn default() -> Access {
        let attempts: Family<ResultLabels, Tally> = Family::default();
        let decisions: Family<ResultLabels, Counter> = Family::default();
        let authentication: Family<ResultLabels, Histogram, fn() -> Histogram> = Family::new_with_constructor(seconds);
        let authorization: Family<ResultLabels, Histogram, fn() -> Histogram> = Family::new_with_constructor(seconds);
        let filters: Family<FilterLabels, Histogram, fn() -> Histogram> = Family::new_with_constructor(filter_seconds);
        let filter = |filter| filters.get_or_create(&FilterLabels { filter }).clone();
        Access {
            users: Family::default(),
            authenticated: ["success", "failure", "error"].map(|result| Outcome {
                counter: attempts.get_or_create(&ResultLabels { result }).clone(),
                seconds: authentication.get_or_create(&ResultLabels { result }).clone(),
            }),
            authorized: ["allowed", "denied", "no-opinion", "error"].map(|result| Outcome {
                counter: decisions.get_or_create(&ResultLabels { result }).clone(),
                seconds: authorization.get_or_create(&ResultLabels { result }).clone(),
            }),
            authentication: filter("authentication"),
            authorization: filter("authorization"),
            flow_control: filter("priorityandfairness"),
            attempts,
            decisions,
            authentication_seconds: authentication,
            authorization_seconds: authorization,
            filter_seconds: filters,
        }
    }
}

impl Access {
    pub(super) fn register(&self, r: &mut Names) {
        let help = "Requests whose user is known, by what kind of name it has";
        name(r, "authenticated_user_requests", help, &self.users);
        let help = "Requests whose user was to be found out, by how that came out";
        name(r, "authentication_attempts", help, &self.attempts);
        let help = "How long finding out took, in seconds";
        name(r, "authentication_duration_seconds", help, &self.authentication_seconds);
        let help = "Requests that had to be allowed, by how that came out";
        name(r, "authorization_attempts", help, &self.decisions);
        let help = "How long the decision took, in seconds";
        name(r, "authorization_duration_seconds", help, &self.authorization_seconds);
        let help = "How long the stages before the verb took, in seconds, by stage";
        name(
            r,
            "apiserver_request_filter_duration_seconds",
            help,
            &self.filter_seconds,
        );
    }

    /// Authentication came out: whose request it is (`None`: nobody's), or why that cannot be told.
    pub fn authenticated<E>(&self, user: &Result<Option<&str>, E>, took: Duration) {
        let outcome = match user {
            Ok(Some(user)) => {
                let labels = UserLabels {
                    username: kind_of_name(user),
                };
                self.users.get_or_create(&labels).inc();
                &self.authenticated[0]
            }
            Ok(None) => &self.authenticated[1],
            Err(_) => &self.authenticated[2],
        };
        outcome.counter.inc();
        outcome.seconds.observe(took.as_secs_f64());
        self.authentication.observe(took.as_secs_f64());
    }

    /// Authorization came out.
    pub fn authorized(&self, decision: &Decision, took: Duration) {
        let outcome = &self.authorized[match decision {
            Decision::Allow(_) => 0,
            Decision::Deny(_) => 1,
            Decision::NoOpinion(_) => 2,
            Decision::Failed { .. } => 3,
        }];
        outcome.counter.inc();
        outcome.seconds.observe(took.as_secs_f64());
        self.authorization.observe(took.as_secs_f64());
    }

    /// A request has its seats, or none.
    pub fn seated(&self, took: Duration) {
        self.flow_control.observe(took.as_secs_f64());
    }
}

/// Names would be labels without end (`compressUsername`).
fn kind_of_name(user: &str) -> &'static str {
    match user {
        "admin" => "admin",
        "client" => "client",
        "kube_proxy" => "kube_proxy",
        "kubelet" => "kubelet",
        "system:serviceaccount:kube-system:default" => "system:serviceaccount:kube-system:default",
        user if user.contains('@') => "email_id",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_under_upstreams_words() {
        let access = Access::default();
        let took = Duration::from_millis(3);
        access.authenticated::<()>(&Ok(Some("jane@example.org")), took);
        access.authenticated::<()>(&Ok(None), took);
        access.authenticated(&Err(()), took);
        access.authorized(&Decision::Allow(String::new()), took);
        access.authorized(&Decision::NoOpinion(String::new()), took);
        access.seated(took);
        let mut names = Names::default();
        access.register(&mut names);
        let text = names.text();
        for line in [
            r#"authenticated_user_requests{username="email_id"} 1"#,
            r#"authentication_attempts{result="success"} 1"#,
            r#"authentication_attempts{result="failure"} 1"#,
            r#"authentication_attempts{result="error"} 1"#,
            r#"authentication_duration_seconds_bucket{le="0.004",result="success"} 1"#,
            r#"authorization_attempts_total{result="allowed"} 1"#,
            r#"authorization_attempts_total{result="no-opinion"} 1"#,
            r#"apiserver_request_filter_duration_seconds_bucket{le="0.003",filter="priorityandfairness"} 1"#,
            r#"apiserver_request_filter_duration_seconds_count{filter="authentication"} 3"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
