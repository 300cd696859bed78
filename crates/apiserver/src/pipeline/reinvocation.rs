//! Whether the mutating slot runs once more: what plug-ins saw first may have been changed by those after them.
//!
//! Source: `k8s.io/apiserver/pkg/admission/reinvocation.go` and `reinvocationcontext.go` of `plugin/policy/mutating` and
//! `plugin/webhook/mutating`.

use std::collections::BTreeSet;

use api::Value;

/// Who changes objects and may ask to do it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutator {
    /// MutatingAdmissionPolicy.
    Policies,
    /// MutatingAdmissionWebhook.
    Webhooks,
}

/// What a second run through all plug-ins depends on.
#[derive(Default)]
pub struct Reinvocation {
    /// Somebody changed the object in a way that the plug-ins before have to see.
    wanted: bool,
    /// This is the second run.
    second: bool,
    runs: [Runs; 2],
}

/// The runs of one plug-in.
#[derive(Default)]
struct Runs {
    /// Those that ask to be repeated, since the last change.
    ran: BTreeSet<String>,
    /// Those of them that something was changed after.
    due: BTreeSet<String>,
    /// The object as the plug-in left it.
    left: Option<Value>,
}

// === impl Reinvocation ===

impl Reinvocation {
    /// Whether the plug-ins are to run once more; they are, at most once.
    pub fn again(&mut self) -> bool {
        let again = self.wanted && !self.second;
        self.second = true;
        again
    }

    /// A plug-in begins; whether this is its second time.
    pub fn begin(&mut self, who: Mutator, object: Option<&Value>) -> bool {
        let runs = &mut self.runs[who as usize];
        if self.second && runs.left.as_ref() != object {
            runs.make_due();
        }
        self.second
    }

    /// Whether what has that key runs a second time.
    pub fn is_due(&self, who: Mutator, key: &str) -> bool {
        self.runs[who as usize].due.contains(key)
    }

    /// Something ran; with its key when it asks to be repeated.
    pub fn ran(&mut self, who: Mutator, changed: bool, key: Option<String>) {
        let runs = &mut self.runs[who as usize];
        if changed {
            runs.make_due();
            self.wanted = true;
        }
        runs.ran.extend(key);
    }

    /// A plug-in is done. Whatever applied a mutation counts as a change by then, even if it changed nothing.
    pub fn end(&mut self, who: Mutator, object: Option<&Value>, applied: bool) {
        let runs = &mut self.runs[who as usize];
        if applied {
            runs.make_due();
            self.wanted = true;
        }
        // Whoever asks for nothing needs nothing to compare with.
        if !runs.ran.is_empty() || !runs.due.is_empty() {
            runs.left = object.cloned();
        }
    }
}

// === impl Runs ===

impl Runs {
    fn make_due(&mut self) {
        self.due.append(&mut self.ran);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Mutator::{Policies, Webhooks};
    use super::*;

    #[test]
    fn what_asks_for_it_runs_again_after_a_change() {
        let (one, two) = (json!({"x": 1}), json!({"x": 2}));
        let mut state = Reinvocation::default();
        assert!(!state.begin(Policies, Some(&one)));
        state.ran(Policies, false, Some("first".into()));
        state.ran(Policies, true, Some("second".into()));
        assert!(!state.is_due(Policies, "second"), "nothing changed after it");
        state.end(Policies, Some(&two), true);
        assert!(state.again());
        assert!(state.begin(Policies, Some(&two)));
        assert!(state.is_due(Policies, "first"));
        assert!(state.is_due(Policies, "second"));
        assert!(!state.is_due(Policies, "third"));
        assert!(!state.again(), "once");
    }

    #[test]
    fn nothing_runs_again_when_nothing_was_applied() {
        let one = json!({"x": 1});
        let mut state = Reinvocation::default();
        state.begin(Policies, Some(&one));
        state.ran(Policies, false, Some("first".into()));
        state.end(Policies, Some(&one), false);
        assert!(!state.again());
    }

    #[test]
    fn a_change_of_others_is_one_too() {
        let (one, two) = (json!({"x": 1}), json!({"x": 2}));
        let mut state = Reinvocation::default();
        state.begin(Policies, Some(&one));
        state.ran(Policies, true, None);
        state.ran(Policies, false, Some("first".into()));
        state.end(Policies, Some(&one), false);
        state.begin(Webhooks, Some(&one));
        state.ran(Webhooks, false, Some("first".into()));
        state.end(Webhooks, Some(&one), false);
        assert!(state.again());
        state.begin(Policies, Some(&two));
        assert!(state.is_due(Policies, "first"));
        assert!(!state.is_due(Webhooks, "first"), "they have not begun");
        state.begin(Webhooks, Some(&one));
        assert!(!state.is_due(Webhooks, "first"), "nothing changed after them");
    }
}
