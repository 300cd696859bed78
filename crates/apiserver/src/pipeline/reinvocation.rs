//! Whether the mutating slot runs once more: what plug-ins saw first may have been changed by those after them.
//!
//! Source: `k8s.io/apiserver/pkg/admission/reinvocation.go` and `plugin/policy/mutating/reinvocationcontext.go`.

use std::collections::BTreeSet;

use api::Value;

/// What a second run through all plug-ins depends on.
#[derive(Default)]
pub struct Reinvocation {
    /// Somebody changed the object in a way that the plug-ins before have to see.
    wanted: bool,
    /// This is the second run.
    second: bool,
    /// Runs that ask to be repeated, since the last change.
    ran: BTreeSet<String>,
    /// Those of them that something was changed after.
    due: BTreeSet<String>,
    /// The object as the policies left it.
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

    /// Policies begin; whether this is their second time.
    pub fn begin(&mut self, object: Option<&Value>) -> bool {
        if self.second && self.left.as_ref() != object {
            self.make_due();
        }
        self.second
    }

    /// Whether a policy with that key runs a second time.
    pub fn is_due(&self, key: &str) -> bool {
        self.due.contains(key)
    }

    /// A policy ran; with its key when it asks to be repeated.
    pub fn ran(&mut self, changed: bool, key: Option<String>) {
        if changed {
            self.make_due();
            self.wanted = true;
        }
        self.ran.extend(key);
    }

    /// Policies are done. Whatever applied a mutation counts as a change by then, even if it changed nothing.
    pub fn end(&mut self, object: Option<&Value>, applied: bool) {
        if applied {
            self.make_due();
            self.wanted = true;
        }
        self.left = object.cloned();
    }

    fn make_due(&mut self) {
        self.due.append(&mut self.ran);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_asks_for_it_runs_again_after_a_change() {
        let (one, two) = (json!({"x": 1}), json!({"x": 2}));
        let mut state = Reinvocation::default();
        assert!(!state.begin(Some(&one)));
        state.ran(false, Some("first".into()));
        state.ran(true, Some("second".into()));
        assert!(!state.is_due("second"), "nothing changed after it");
        state.end(Some(&two), true);
        assert!(state.again());
        assert!(state.begin(Some(&two)));
        assert!(state.is_due("first"));
        assert!(state.is_due("second"));
        assert!(!state.is_due("third"));
        assert!(!state.again(), "once");
    }

    #[test]
    fn nothing_runs_again_when_nothing_was_applied() {
        let one = json!({"x": 1});
        let mut state = Reinvocation::default();
        state.begin(Some(&one));
        state.ran(false, Some("first".into()));
        state.end(Some(&one), false);
        assert!(!state.again());
    }

    #[test]
    fn a_change_of_others_is_one_too() {
        let (one, two) = (json!({"x": 1}), json!({"x": 2}));
        let mut state = Reinvocation::default();
        state.begin(Some(&one));
        state.ran(true, None);
        state.ran(false, Some("first".into()));
        state.end(Some(&one), false);
        assert!(state.again());
        state.begin(Some(&two));
        assert!(state.is_due("first"));
    }
}
