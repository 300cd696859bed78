//! How many seats a request takes: lists by what they go through, writes by who watches.
//!
//! Sources: `list_work_estimator.go` (by objects: here a list is views of what is in memory, which cost no memory of their own)
//! and `mutating_work_estimator.go` of `k8s.io/apiserver/pkg/util/flowcontrol/request`.

use std::time::Duration;

use super::queues::Work;
use crate::request::{Attributes, Query};

/// Objects that one seat goes through. Source: `objectsPerSeat`.
const OBJECTS_A_SEAT: usize = 100;
/// Watchers that one seat sends to. Source: `watchesPerSeat`.
const WATCHERS_A_SEAT: usize = 10;
/// For how long. Source: `eventAdditionalDuration`.
const EVENT_DURATION: Duration = Duration::from_millis(5);

/// What a request takes, of at most `seats_max`. `objects` and `watchers` are of its resource.
pub fn width(
    request: &Attributes,
    query: &Query,
    seats_max: usize,
    objects: impl Fn() -> usize,
    watchers: usize,
) -> Work {
    if !request.is_resource {
        return Work::ONE;
    }
    match &*request.verb {
        "list" => list(request, seats_max, objects),
        // Without a beginning a watch is only an entry in a table.
        "watch" if query.text("sendInitialEvents") == "true" || matches!(query.text("resourceVersion"), "" | "0") => {
            list(request, seats_max, objects)
        }
        "create" | "update" | "patch" | "delete" | "deletecollection" => write(request, seats_max, watchers),
        _ => Work::ONE,
    }
}

fn list(request: &Attributes, seats_max: usize, objects: impl Fn() -> usize) -> Work {
    if !request.name.is_empty() {
        return Work::ONE;
    }
    Work {
        initial_seats: objects().div_ceil(OBJECTS_A_SEAT).clamp(1, seats_max),
        ..Work::ONE
    }
}

fn write(request: &Attributes, seats_max: usize, watchers: usize) -> Work {
    // A token is no change of its account.
    let token = request.resource == "serviceaccounts" && request.subresource == "token";
    if token || watchers < WATCHERS_A_SEAT {
        return Work::ONE;
    }
    let seats = watchers.div_ceil(WATCHERS_A_SEAT);
    let final_seats = seats.min(seats_max);
    Work {
        initial_seats: 1,
        final_seats,
        // Narrower and longer: as much work.
        lingers: EVENT_DURATION.mul_f64(seats as f64 / final_seats as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_requests_take_several_seats() {
        let request = |verb: &str, name: &str| Attributes {
            verb: verb.into(),
            resource: "pods".into(),
            name: name.into(),
            is_resource: true,
            ..Attributes::default()
        };
        for (verb, name, query, objects, watchers, expect) in [
            ("get", "a", "", 5000, 500, (1, 0, 0)),
            ("list", "", "", 0, 0, (1, 0, 0)),
            ("list", "", "", 450, 0, (5, 0, 0)),
            ("list", "", "", 100_000, 0, (10, 0, 0)),
            ("list", "a", "", 100_000, 0, (1, 0, 0)),
            ("watch", "", "resourceVersion=7", 450, 0, (1, 0, 0)),
            ("watch", "", "resourceVersion=0", 450, 0, (5, 0, 0)),
            (
                "watch",
                "",
                "resourceVersion=7&sendInitialEvents=true",
                450,
                0,
                (5, 0, 0),
            ),
            ("create", "", "", 0, 9, (1, 0, 0)),
            ("patch", "a", "", 0, 35, (1, 4, 5)),
            ("delete", "a", "", 0, 1000, (1, 10, 50)),
        ] {
            let work = width(&request(verb, name), &Query::parse(query), 10, || objects, watchers);
            let got = (work.initial_seats, work.final_seats, work.lingers.as_millis());
            assert_eq!(got, expect, "{verb} {query} {objects} {watchers}");
        }
    }
}
