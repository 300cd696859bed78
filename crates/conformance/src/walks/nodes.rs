//! `test/e2e/node/node_lifecycle.go`.

use serde_json::json;

use crate::kinds::NODES;
use crate::lifecycle::walk;
use crate::place::place;

/// Node Lifecycle should run through the lifecycle of a node
pub async fn lifecycle() {
    let node = |name: &str| {
        json!({
            "metadata": {"name": name},
            "spec": {"unschedulable": true},
            "status": {"phase": "Running", "conditions": [
                {"status": "True", "message": "Set from e2e test", "reason": "E2E", "type": "Ready"},
            ]},
        })
    };
    walk(&place("node").await, &NODES, node("e2e-fake-node-1"), node("e2e-fake-node-2")).await;
}
