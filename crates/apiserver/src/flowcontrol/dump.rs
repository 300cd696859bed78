//! What the levels and their queues are at, for people: `/debug/api_priority_and_fairness/`.
//! Source: `apf_controller_debug.go` of `k8s.io/apiserver/pkg/util/flowcontrol`; its columns and their order.

use super::plan::Plan;

/// How wide a column is at least, and what stands between two (upstream's `tabwriter`).
const COLUMN_MIN: usize = 8;
const COLUMN_GAP: usize = 1;

/// A line a priority level.
pub(super) fn priority_levels(plan: &Plan) -> String {
    let mut rows = vec![words(&[
        "PriorityLevelName",
        "ActiveQueues",
        "IsIdle",
        "IsQuiescing",
        "WaitingRequests",
        "ExecutingRequests",
        "DispatchedRequests",
        "RejectedRequests",
        "TimedoutRequests",
        "CancelledRequests",
    ])];
    for level in plan.levels() {
        let queues = level.queues.lock();
        let digest = queues.digest();
        let with_waiters = digest.queues.iter().filter(|queue| queue.waiting > 0).count();
        rows.push(vec![
            level.name.clone(),
            with_waiters.to_string(),
            (digest.waiting + digest.executing == 0).to_string(),
            // A level that is gone has no line: who is in it is served to the end.
            false.to_string(),
            digest.waiting.to_string(),
            digest.executing.to_string(),
            digest.counts.dispatched.to_string(),
            digest.counts.rejected.to_string(),
            digest.counts.timed_out.to_string(),
            digest.counts.cancelled.to_string(),
        ]);
    }
    table(rows)
}

/// A line a queue.
pub(super) fn queues(plan: &Plan) -> String {
    let mut rows = vec![words(&[
        "PriorityLevelName",
        "Index",
        "PendingRequests",
        "ExecutingRequests",
        "SeatsInUse",
        "NextDispatchR",
        "InitialSeatsSum",
        "MaxSeatsSum",
        "TotalWorkSum",
    ])];
    for level in plan.levels() {
        let digest = level.queues.lock().digest();
        for (at, queue) in digest.queues.iter().enumerate() {
            rows.push(vec![
                level.name.clone(),
                at.to_string(),
                queue.waiting.to_string(),
                queue.executing.to_string(),
                queue.seats_in_use.to_string(),
                format!("{:.8}ss", queue.next_start),
                queue.initial_seats.to_string(),
                queue.seats.to_string(),
                format!("{:.8}ss", queue.work),
            ]);
        }
    }
    table(rows)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Lines whose columns begin below each other; the heading first, the rest by name.
fn table(mut rows: Vec<Vec<String>>) -> String {
    rows[1..].sort_by(|a, b| a[0].cmp(&b[0]));
    let columns = rows[0].len();
    for row in &mut rows {
        for cell in &mut row[..columns - 1] {
            cell.push(',');
        }
    }
    let width = |at: usize| {
        let widest = rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        (widest + COLUMN_GAP).max(COLUMN_MIN)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        for (cell, width) in row[..columns - 1].iter().zip(&widths) {
            out += &format!("{cell:width$}");
        }
        out += &row[columns - 1];
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_begin_below_each_other() {
        let rows = [
            ["Name", "Count", "Last"],
            ["workload-low", "10", "a"],
            ["exempt", "0", "bb"],
        ];
        let text = table(rows.map(|row| words(&row)).to_vec());
        let expect = "\
Name,         Count,  Last
exempt,       0,      bb
workload-low, 10,     a
";
        assert_eq!(text, expect);
    }
}
