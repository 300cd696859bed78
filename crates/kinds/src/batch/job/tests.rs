//! Jobs, by example.

use serde_json::json;

use super::strategy::Jobs;
use crate::testing::{Case, check};

const JOB: &str = "{metadata: {name: j, uid: u}, spec: {template: {spec: {restartPolicy: Never, containers: \
                   [{name: a, image: i}]}}}}";

fn with(spec: &str) -> String {
    JOB.replace("spec: {template", &format!("spec: {{{spec}, template"))
}

/// A stored job: its selector was made.
fn stored(spec: &str, status: &str) -> String {
    let labels =
        "{batch.kubernetes.io/controller-uid: u, batch.kubernetes.io/job-name: j, controller-uid: u, job-name: j}";
    let selector = "selector: {matchLabels: {batch.kubernetes.io/controller-uid: u}}";
    with(&format!("{selector}{spec}"))
        .replace(
            "template: {spec",
            &format!("template: {{metadata: {{labels: {labels}}}, spec"),
        )
        .replace("spec: {selector", &format!("status: {{{status}}}, spec: {{selector"))
}

fn run(cases: impl IntoIterator<Item = Case<'static>>) {
    for case in cases {
        check(&Jobs, case);
    }
}

#[test]
fn selectors() {
    run([
        Case::new("a job selects its own pods")
            .object(JOB)
            .field(
                "spec.selector.matchLabels",
                json!({"batch.kubernetes.io/controller-uid": "u"}),
            )
            .field(
                "spec.template.metadata.labels",
                json!({"batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "j",
                    "controller-uid": "u", "job-name": "j"}),
            )
            .field("spec.completions", 1)
            .field("spec.backoffLimit", 6)
            .field("status", json!({})),
        Case::new("labels of its own stand in the way")
            .object(&JOB.replace("template: {spec", "template: {metadata: {labels: {job-name: x}}, spec"))
            .errors(&[
                "spec.template.metadata.labels[job-name]: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u\",\
                 \"batch.kubernetes.io/job-name\":\"j\",\"controller-uid\":\"u\",\"job-name\":\"x\"}: must be 'j'",
            ]),
        Case::new("a selector of its own, without a word")
            .object(&with("selector: {matchLabels: {app: a}}"))
            .errors(&[
                "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\",\
                 \"batch.kubernetes.io/controller-uid\":\"u\"}}: `selector` not auto-generated",
                "spec.template.metadata.labels: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u\",\
                 \"batch.kubernetes.io/job-name\":\"j\",\"controller-uid\":\"u\",\"job-name\":\"j\"}: `selector` does \
                 not match template `labels`",
            ]),
        Case::new("a manual selector").object(
            &with("manualSelector: true, selector: {matchLabels: {app: a}}")
                .replace("template: {spec", "template: {metadata: {labels: {app: a}}, spec"),
        ),
        Case::new("a manual job without a selector")
            .object(&with("manualSelector: true"))
            .errors(&[
                "spec.selector: Required value",
                "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
            ]),
    ]);
}

#[test]
fn numbers() {
    let negative = |field: &str| format!("spec.{field}: Invalid value: -1: must be greater than or equal to 0");
    let fields = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
    ];
    for field in fields {
        let spec = with(&format!("{field}: -1"));
        check(&Jobs, Case::new("negative").object(&spec).errors(&[&negative(field)]));
    }
}

#[test]
fn names_and_policies() {
    run([
        Case::new("pods that run forever")
            .object(&JOB.replace("restartPolicy: Never, ", ""))
            .errors(&["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]),
        Case::new("another controller").object(&with("managedBy: example.com/mine")),
        Case::new("no controller's name")
            .object(&with("managedBy: mine"))
            .errors(&[
                "spec.managedBy: Invalid value: \"mine\": must be a domain-prefixed path (such as \"acme.io/foo\")",
            ]),
        Case::new("another replacement")
            .object(&with("podReplacementPolicy: Some"))
            .errors(&[
                "spec.podReplacementPolicy: Unsupported value: \"Some\": supported values: \"Failed\", \
             \"TerminatingOrFailed\"",
            ]),
        Case::new("a name too long for the last pod")
            .object(
                &with("completionMode: Indexed, completions: 10")
                    .replace("name: j", &format!("name: {}", "j".repeat(62))),
            )
            .errors(&[&format!(
                "metadata.name: Invalid value: \"{0}\": will not able to create pod with invalid DNS label: {0}-9",
                "j".repeat(62)
            )]),
    ]);
}

#[test]
fn indexed() {
    run([
        Case::new("by index").object(&with(
            "completionMode: Indexed, completions: 3, backoffLimitPerIndex: 1, maxFailedIndexes: 2",
        )),
        Case::new("of no number").object(&with("completionMode: Indexed, parallelism: 1")).errors(&[
            "spec.completions: Required value: when completion mode is Indexed",
        ]),
        Case::new("another mode").object(&with("completionMode: Some")).errors(&[
            "spec.completionMode: Unsupported value: \"Some\": supported values: \"NonIndexed\", \"Indexed\"",
        ]),
        Case::new("failures by index without indexes")
            .object(&with("backoffLimitPerIndex: 1, maxFailedIndexes: 1"))
            .errors(&[
                "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
                "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode",
            ]),
        Case::new("a limit of failures without failures by index")
            .object(&with("completionMode: Indexed, completions: 3, maxFailedIndexes: 4"))
            .errors(&[
                "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
                "spec.maxFailedIndexes: Invalid value: 4: must be less than or equal to completions",
            ]),
        Case::new("many at once")
            .object(&with("completionMode: Indexed, completions: 3, parallelism: 100001"))
            .errors(&[
                "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is \
                 Indexed",
            ]),
        Case::new("very many")
            .object(&with(
                "completionMode: Indexed, completions: 100001, parallelism: 10001, backoffLimitPerIndex: 1",
            ))
            .errors(&[
                "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
                "spec.parallelism: Invalid value: 10001: must be less than or equal to 10000 when completions are above \
                 100000 and used with backoff limit per index",
            ]),
    ]);
}

#[test]
fn failure_policy() {
    let rule = |rule: &str| with(&format!("podFailurePolicy: {{rules: [{rule}]}}"));
    let at = "spec.podFailurePolicy.rules[0]";
    run([
        Case::new("exit codes and conditions").object(&with(
            "podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {containerName: a, operator: In, values: [1, 7]}}, \
             {action: Ignore, onPodConditions: [{type: DisruptionTarget}]}]}",
        )),
        Case::new("nothing said")
            .object(&rule("{onExitCodes: {values: []}}"))
            .errors(&[
                &format!("{at}.action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"),
                &format!("{at}.onExitCodes.operator: Required value: valid values: [\"In\" \"NotIn\"]"),
                &format!("{at}.onExitCodes.values: Invalid value: []: at least one value is required"),
            ]),
        Case::new("codes that are none")
            .object(&rule(
                "{action: FailIndex, onExitCodes: {containerName: b, operator: In, values: [3, 0, 3]}}",
            ))
            .errors(&[
                &format!("{at}.action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set"),
                &format!(
                    "{at}.onExitCodes.containerName: Invalid value: \"b\": must be one of the container or initContainer \
                     names in the pod template"
                ),
                &format!("{at}.onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator"),
                &format!("{at}.onExitCodes.values[2]: Duplicate value: 3"),
                &format!("{at}.onExitCodes.values: Invalid value: [3,0,3]: must be ordered"),
            ]),
        Case::new("both, and a status that is none")
            .object(&rule(
                "{action: Some, onExitCodes: {operator: Is, values: [1]}, onPodConditions: [{type: a b, status: Maybe}]}",
            ))
            .errors(&[
                &format!(
                    "{at}.action: Unsupported value: \"Some\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \
                     \"Ignore\""
                ),
                &format!("{at}.onExitCodes.operator: Unsupported value: \"Is\": supported values: \"In\", \"NotIn\""),
                &format!(
                    "{at}.onPodConditions[0].type: Invalid value: \"a b\": {}",
                    crate::testing::QUALIFIED
                ),
                &format!(
                    "{at}.onPodConditions[0].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \
                     \"Unknown\""
                ),
                &format!("{at}: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported"),
            ]),
        Case::new("neither").object(&rule("{action: Count}")).errors(&[&format!(
            "{at}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"
        )]),
        Case::new("pods that are restarted, and replaced early")
            .object(
                &with(
                    "podReplacementPolicy: TerminatingOrFailed, podFailurePolicy: {rules: [{action: Count, \
                     onPodConditions: [{type: x}]}]}",
                )
                .replace("Never", "OnFailure"),
            )
            .errors(&[
                "spec.podReplacementPolicy: Unsupported value: \"TerminatingOrFailed\": supported values: \"Failed\"",
                "spec.template.spec.restartPolicy: Invalid value: \"OnFailure\": only \"Never\" is supported when \
                 podFailurePolicy is specified",
            ]),
    ]);
}

#[test]
fn success_policy() {
    let rules = |rules: &str| {
        with(&format!(
            "completionMode: Indexed, completions: 5, successPolicy: {{rules: {rules}}}"
        ))
    };
    let at = "spec.successPolicy.rules[0]";
    run([
        Case::new("some indexes are enough").object(&rules("[{succeededIndexes: '0,2-4', succeededCount: 2}]")),
        Case::new("no rule").object(&rules("[]")).errors(&[
            "spec.successPolicy.rules: Required value: at least one rules must be specified when the successPolicy is \
             specified",
        ]),
        Case::new("an empty rule").object(&rules("[{}]")).errors(&[&format!(
            "{at}: Required value: at least one of succeededCount or succeededIndexes must be specified"
        )]),
        Case::new("more than there are")
            .object(&rules("[{succeededIndexes: '0,2', succeededCount: 6}]"))
            .errors(&[
                &format!(
                    "{at}.succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of specified \
                     completions)"
                ),
                &format!(
                    "{at}.succeededCount: Invalid value: 6: must be less than or equal to 2 (the number of indexes in \
                     the specified succeededIndexes field)"
                ),
            ]),
        Case::new("no indexes")
            .object(&rules("[{succeededIndexes: x}]"))
            .errors(&[&format!(
                "{at}.succeededIndexes: Invalid value: \"x\": error parsing succeededIndexes: cannot convert string to \
             integer for index: \"x\""
            )]),
        Case::new("without indexes")
            .object(&with("successPolicy: {rules: [{succeededCount: 1}]}"))
            .errors(&[
                "spec.successPolicy: Invalid value: {\"rules\":[{\"succeededCount\":1}]}: requires indexed completion \
                 mode",
            ]),
    ]);
}

#[test]
fn updates() {
    let job = |spec: &str| stored(spec, "");
    run([
        Case::new("what may change").old(&job(", completions: 2")).object(&job(
            ", completions: 2, parallelism: 3, suspend: true, activeDeadlineSeconds: 9, backoffLimit: 9, ttlSecondsAfterFinished: 9",
        )),
        Case::new("what may not")
            .old(&job(", completions: 2"))
            .object(&job(", completions: 3, managedBy: a.b/c"))
            .errors(&[
                "spec.completions: Invalid value: 3: field is immutable",
                "spec.managedBy: Invalid value: \"a.b/c\": field is immutable",
            ]),
        Case::new("indexed jobs grow")
            .old(&job(", completionMode: Indexed, completions: 2, parallelism: 2"))
            .object(&job(", completionMode: Indexed, completions: 3, parallelism: 3")),
        Case::new("with as many pods")
            .old(&job(", completionMode: Indexed, completions: 2, parallelism: 2"))
            .object(&job(", completionMode: Indexed, completions: 3, parallelism: 2"))
            .errors(&["spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism"]),
        Case::new("a job that waits is sent elsewhere")
            .old(&job(", suspend: true"))
            .object(&job("").replace(
                "spec: {restartPolicy",
                "spec: {nodeSelector: {a: b}, affinity: {nodeAffinity: {}}, restartPolicy",
            )),
    ]);
    let elsewhere = job("").replace("spec: {restartPolicy", "spec: {nodeSelector: {a: b}, restartPolicy");
    let more = job("").replace("image: i", "image: i, resources: {limits: {cpu: 2}}");
    let started = "startTime: '2026-01-01T00:00:00Z'";
    let paused = format!("{started}, conditions: [{{type: Suspended, status: 'True'}}]");
    for (status, new) in [("", &more), (paused.as_str(), &more), (paused.as_str(), &elsewhere)] {
        let old = stored(", suspend: true", status);
        check(&Jobs, Case::new("a job that is paused").old(&old).object(new));
    }
    let labels = "batch.kubernetes.io/controller-uid: u, batch.kubernetes.io/job-name: j, ";
    let unlabelled = job("").replace(&format!("labels: {{{labels}"), "labels: {").replace(
        "{matchLabels: {batch.kubernetes.io/controller-uid",
        "{matchLabels: {controller-uid",
    );
    check(
        &Jobs,
        Case::new("a job from before labels had prefixes")
            .old(&unlabelled)
            .object(&unlabelled.replace("spec: {selector", "spec: {completions: 1, parallelism: 2, selector")),
    );
    for old in [job(""), stored(", suspend: true", started)] {
        let changed = Case::new("a job that was started stays").old(&old).object(&elsewhere);
        let errors = changed_errors(&old, &elsewhere);
        assert!(errors.starts_with("spec.template: Invalid value: "), "{errors}");
        assert!(errors.ends_with(": field is immutable"), "{errors}");
        check(&Jobs, changed.errors(&[&errors]));
    }
}

/// The one error of an update, which shows the whole template.
fn changed_errors(old: &str, new: &str) -> String {
    use crate::row::{Strategy, WriteContext, Writer};
    let context = WriteContext {
        now: crate::testing::NOW,
        subresource: "",
        user: Writer::named("tester"),
        version: "v1",
    };
    let (mut old, mut new) = (crate::testing::yaml(old), crate::testing::yaml(new));
    Jobs.default(&mut old);
    Jobs.default(&mut new);
    let errors = Jobs.validate_update(&new, &old, &context);
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

#[test]
fn statuses() {
    const START: &str = "startTime: '2026-01-01T00:00:00Z'";
    const END: &str = "completionTime: '2026-01-01T00:01:00Z'";
    let of = |kinds: &[&str]| {
        let conditions: Vec<String> = kinds
            .iter()
            .map(|kind| format!("{{type: {kind}, status: 'True'}}"))
            .collect();
        format!("conditions: [{}]", conditions.join(", "))
    };
    let case = |name: &'static str, spec: &str, before: &str, after: &str| {
        Case::new(name)
            .subresource("status")
            .old(&stored(spec, before))
            .object(&stored(spec, after))
    };
    let done = of(&["SuccessCriteriaMet", "Complete"]);
    let failed = of(&["FailureTarget", "Failed"]);
    run([
        case("it starts", "", "", &format!("{START}, active: 1, ready: 0")),
        case("it ends", "", START, &format!("{START}, {END}, succeeded: 1, {done}")),
        case("it fails", "", START, &format!("{START}, failed: 1, {failed}")),
        case("negative", "", "", "active: -1, ready: -1").errors(&[
            "status.active: Invalid value: -1: must be greater than or equal to 0",
            "status.ready: Invalid value: -1: must be greater than or equal to 0",
        ]),
        case("pods are counted once", "", "", "uncountedTerminatedPods: {succeeded: [a, ''], failed: [a]}").errors(&[
            "status.uncountedTerminatedPods.succeeded[1]: Invalid value: \"\": must not be empty",
            "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
        ]),
        case("done without a word before", "", START, &format!("{START}, {END}, {}", of(&["Complete"]))).errors(&[
            "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true \
             condition",
        ]),
        case("failed without a word before", "", START, &format!("{START}, {}", of(&["Failed"]))).errors(&[
            "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
        ]),
        case("done and not done", "", &format!("{START}, {END}, {done}"), &format!("{START}, {END}")).errors(&[
            "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
            "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
            "status.completionTime: Invalid value: \"2026-01-01T00:01:00Z\": cannot set completionTime when there is no \
             Complete=True condition",
        ]),
        case("done with pods", "", START, &format!("{START}, {END}, active: 1, terminating: 1, {done}")).errors(&[
            "status.active: Invalid value: 1: active>0 is invalid for finished job",
            "status.terminating: Invalid value: 1: terminating>0 is invalid for finished job",
        ]),
        case("done at no time", "", "", &done).errors(&[
            "status.completionTime: Required value: completionTime is required for Complete jobs",
            "status.startTime: Required value: startTime is required for finished job",
        ]),
        case("done before", "", START, &format!("{START}, completionTime: '2025-01-01T00:00:00Z', {done}")).errors(&[
            "status.completionTime: Invalid value: \"2025-01-01T00:00:00Z\": must be equal to or after `startTime`",
        ]),
        case("started again", "", START, "").errors(&[
            "status.startTime: Required value: startTime cannot be removed for unsuspended job",
        ]),
        case("fewer", "", "failed: 2, succeeded: 2", "failed: 1, succeeded: 1").errors(&[
            "status.failed: Invalid value: 1: cannot decrease the failed counter",
            "status.succeeded: Invalid value: 1: cannot decrease the succeeded counter",
        ]),
        case("more ready than there are", "", "", "active: 1, ready: 2").errors(&[
            "status.ready: Invalid value: 2: cannot set more ready pods than active",
        ]),
        case("indexes of no indexed job", ", completions: 5", "", "completedIndexes: '1', failedIndexes: '2'").errors(&[
            "status.completedIndexes: Invalid value: \"1\": cannot set non-empty completedIndexes when non-indexed \
             completion mode",
            "status.failedIndexes: Invalid value: \"2\": cannot set non-null failedIndexes when backoffLimitPerIndex is \
             null",
        ]),
        case(
            "indexes",
            ", completionMode: Indexed, completions: 5, backoffLimitPerIndex: 1",
            "",
            "completedIndexes: '0,2', failedIndexes: '2-9'",
        )
        .errors(&[
            "status.failedIndexes: Invalid value: \"2-9\": error parsing failedIndexes: too large index: \"9\"",
        ]),
        case(
            "indexes of both",
            ", completionMode: Indexed, completions: 5, backoffLimitPerIndex: 1",
            "",
            "completedIndexes: '0,2', failedIndexes: '2-3'",
        )
        .errors(&[
            "status.failedIndexes: Invalid value: \"2-3\": failedIndexes and completedIndexes overlap at index: 2",
        ]),
    ]);
}
