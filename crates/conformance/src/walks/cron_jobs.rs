//! `test/e2e/apps/cronjob.go`: the test of the API; those of the controller wait for one.

use serde_json::json;

use crate::kinds::CRON_JOBS;
use crate::operations::{Operations, walk};
use crate::place::place;

/// CronJob should support CronJob API operations
pub async fn api_operations() {
    let object = json!({
        "metadata": {"generateName": "test-api-"},
        "spec": {
            "schedule": "* */1 * * ?", "concurrencyPolicy": "Allow",
            "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0,
            "jobTemplate": {"spec": {"parallelism": 1, "completions": 1, "template": {"spec": {
                "restartPolicy": "OnFailure",
                "volumes": [{"name": "data", "emptyDir": {}}],
                "containers": [{
                    "name": "c", "image": "example.com/busybox", "command": ["true"],
                    "volumeMounts": [{"mountPath": "/data", "name": "data"}],
                }],
            }}}},
        },
    });
    let operations = Operations {
        object,
        patch: json!({"spec": {"suspend": true}}),
        update: Some(("/spec/schedule", json!("0 * * * *"))),
        status: false,
    };
    walk(&place("cron-job").await, &CRON_JOBS, operations).await;
}
