//! `test/e2e/apimachinery/flowcontrol.go`.

use serde_json::json;

use crate::kinds::{FLOW_SCHEMAS, PRIORITY_LEVELS};
use crate::operations::{Operations, walk};
use crate::place::place;

/// API priority and fairness should support FlowSchema API operations
pub async fn flow_schema() {
    let object = json!({
        "metadata": {"generateName": "e2e-example-fs-"},
        "spec": {
            "matchingPrecedence": 10000,
            "priorityLevelConfiguration": {"name": "global-default"},
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "example-e2e-non-existent-user"}}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            }],
        },
    });
    let operations = Operations {
        object,
        patch: json!({"spec": {"matchingPrecedence": 9999}}),
        update: Some(("/spec/matchingPrecedence", json!(9000))),
        status: true,
    };
    walk(&place("flow-schema").await, &FLOW_SCHEMAS, operations).await;
}

/// API priority and fairness should support PriorityLevelConfiguration API operations
pub async fn priority_level() {
    let object = json!({
        "metadata": {"generateName": "e2e-example-pl-"},
        "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}},
    });
    let operations = Operations {
        object,
        patch: json!({"spec": {"limited": {"nominalConcurrencyShares": 4}}}),
        update: Some(("/spec/limited/nominalConcurrencyShares", json!(6))),
        status: true,
    };
    walk(&place("priority-level").await, &PRIORITY_LEVELS, operations).await;
}
