//! What may change.

use super::{Pods, check, check_update, pod};
use crate::testing::Case;

const UPDATABLE: &str = "spec: Forbidden: pod updates may not change fields other than \
                         `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                         `spec.tolerations` (only additions to existing tolerations),\
                         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n";

#[test]
fn images_and_metadata() {
    let old = pod("", "");
    check_update(
        "",
        &old,
        &old.replace("image: i", "image: j, imagePullPolicy: Always"),
        &[],
    );
    check_update(
        "",
        &old,
        &old.replace("image: i", "image: '', imagePullPolicy: Always"),
        &[
            "spec.containers[0].image: Required value",
            "spec.containers[0].image: Required value",
        ],
    );
    check_update(
        "",
        &old,
        &old.replace("image: i}", "image: i}, {name: b, image: i}"),
        &["spec.containers: Forbidden: pod updates may not add or remove containers"],
    );
    check_update(
        "",
        &old,
        &old.replace("image: i", "image: i, command: [x]"),
        &[&format!("{UPDATABLE}  containers[0].command: null -> [\"x\"]\n")],
    );
    let status = format!("{}, status: {{phase: Running}}}}", &old[..old.len() - 1]);
    check(
        &Pods,
        Case::new("status").old(&old).object(&status).field("status.phase", ()),
    );
}

#[test]
fn deadlines() {
    let of = |seconds: i64| pod("", &format!("activeDeadlineSeconds: {seconds}"));
    let at = "spec.activeDeadlineSeconds";
    check_update("", &of(5), &of(3), &[]);
    check_update(
        "",
        &of(5),
        &of(7),
        &[&format!(
            "{at}: Invalid value: 7: must be less than or equal to previous value"
        )],
    );
    check_update(
        "",
        &of(5),
        &pod("", ""),
        &[&format!(
            "{at}: Invalid value: null: must not update from a positive integer to nil value"
        )],
    );
    check_update(
        "",
        &of(5),
        &of(-1),
        &[
            &format!("{at}: Invalid value: -1: must be between 1 and 2147483647, inclusive"),
            &format!("{at}: Invalid value: -1: must be between 0 and 2147483647, inclusive"),
        ],
    );
}

#[test]
fn tolerations_and_grace() {
    let of = |list: &str| pod("", &format!("tolerations: [{list}]"));
    let first = "{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 5}";
    check_update("", &of(first), &of(&format!("{first}, {{operator: Exists}}")), &[]);
    check_update("", &of(first), &of(&first.replace('5', "6")), &[]);
    check_update(
        "",
        &of(first),
        &of("{operator: Exists}"),
        &["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"],
    );
    let grace = |seconds: i64| pod("", &format!("terminationGracePeriodSeconds: {seconds}"));
    check_update("", &grace(-1), &grace(1), &[]);
    let change = format!("{UPDATABLE}  terminationGracePeriodSeconds: 5 -> 1\n");
    check_update("", &grace(5), &grace(1), &[&change]);
}

#[test]
fn gated_pods_narrow() {
    let gated = |fields: &str| pod("", &format!("schedulingGates: [{{name: a}}], {fields}"));
    let affinity = |value: &str| {
        format!(
            "affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: \
             [{{matchExpressions: [{{key: a, operator: In, values: [{value}]}}]}}]}}}}}}"
        )
    };
    check_update(
        "",
        &gated("nodeSelector: {a: b}"),
        &gated("nodeSelector: {a: b, c: d}"),
        &[],
    );
    check_update(
        "",
        &gated("nodeSelector: {a: b}"),
        &pod("", "nodeSelector: {a: b}"),
        &[],
    );
    check_update(
        "",
        &gated("hostIPC: false"),
        &gated(&format!("hostIPC: false, {}", affinity("b"))),
        &[],
    );
    check_update(
        "",
        &gated("nodeSelector: {a: b}"),
        &gated("nodeSelector: {a: c}"),
        &[
            "spec.nodeSelector: Invalid value: {\"a\":\"c\"}: only additions to spec.nodeSelector are allowed (no \
             mutations or deletions)",
        ],
    );
    check_update(
        "",
        &gated(&affinity("b")),
        &gated(&affinity("c")),
        &[
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]: Invalid \
             value: {\"matchExpressions\":[{\"key\":\"a\",\"operator\":\"In\",\"values\":[\"c\"]}]}: only additions are \
             allowed (no mutations or deletions)",
        ],
    );
    check_update(
        "",
        &gated("hostIPC: false"),
        &gated("hostIPC: false").replace("{name: a}]", "{name: a}, {name: b}]"),
        &["spec.schedulingGates[1].name: Forbidden: only deletion is allowed, but found new scheduling gate 'b'"],
    );
}

#[test]
fn annotations() {
    let with = |annotations: &str| {
        format!(
            "{{metadata: {{name: p, annotations: {{{annotations}}}}}, spec: {{nodeName: n, containers: [{{name: a, image: \
                 i}}]}}}}"
        )
    };
    let apparmor = "container.apparmor.security.beta.kubernetes.io/a";
    let mirror = "kubernetes.io/config.mirror";
    check_update(
        "",
        &with(&format!("{apparmor}: unconfined")),
        &with(&format!("{mirror}: x")),
        &[
            &format!("metadata.annotations[{apparmor}]: Forbidden: may not remove or update AppArmor annotations"),
            &format!("metadata.annotations[{mirror}]: Forbidden: may not add mirror pod annotation"),
        ],
    );
}

#[test]
fn ephemeral_containers() {
    let with = |list: &str| pod("", &format!("ephemeralContainers: [{list}]"));
    let first = "{name: e, image: i}";
    let check = |old: &str, new: &str, errors: &[&str]| check_update("ephemeralcontainers", old, new, errors);
    check(&pod("", ""), &with(first), &[]);
    check(
        &with(first),
        &with("{name: f, image: i}"),
        &["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed\n"],
    );
    check(
        &with(first),
        &with("{name: e, image: 'j:latest'}"),
        &[
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be changed\n  image: \"i\" -> \
             \"j:latest\"\n",
        ],
    );
    let at = "spec.ephemeralContainers[0]";
    let detail = "Forbidden: cannot be set for an Ephemeral Container";
    check(
        &pod("", ""),
        &with("{name: a, image: ' i', targetContainerName: x, ports: [{containerPort: 80}]}"),
        &[
            &format!("{at}.name: Duplicate value: \"a\""),
            &format!("{at}.image: Invalid value: \" i\": must not have leading or trailing whitespace"),
            &format!("{at}.targetContainerName: Not found: \"x\""),
            &format!("{at}.ports: {detail}"),
        ],
    );
    let volume = pod("", "volumes: [{name: v}]");
    check(
        &volume,
        &volume.replace(
            "volumes:",
            "ephemeralContainers: [{name: e, image: i, volumeMounts: [{name: v, mountPath: /a, subPath: b}]}], volumes:",
        ),
        &[&format!("{at}.volumeMounts[0].subPath: {detail}")],
    );
    let case = Case::new("nothing else is written")
        .subresource("ephemeralcontainers")
        .old(&pod("", ""));
    super::check(
        &Pods,
        case.object(&pod("command: [x]", ""))
            .field("spec.containers.0.command", ()),
    );
}

#[test]
fn resize() {
    let with = |resources: &str| pod(&format!("resources: {resources}"), "");
    let check = |old: &str, new: &str, errors: &[&str]| check_update("resize", old, new, errors);
    let old = with("{requests: {cpu: 1, memory: 1Gi}, limits: {memory: 2Gi}}");
    check(
        &old,
        &with("{requests: {cpu: 2, memory: 1Gi}, limits: {memory: 2Gi}}"),
        &[],
    );
    check(
        &old,
        &with("{requests: {cpu: 2}}"),
        &[
            "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
        ],
    );
    check(
        &old,
        &with("{requests: {cpu: 1, memory: 1Gi, ephemeral-storage: 1Gi}, limits: {memory: 2Gi}}"),
        &["spec: Forbidden: only cpu and memory resources are mutable"],
    );
    check(
        &with("{limits: {cpu: 1, memory: 1Gi}}"),
        &with("{limits: {cpu: 2, memory: 1Gi}, requests: {cpu: 1, memory: 1Gi}}"),
        &["spec: Invalid value: \"\": Pod QOS Class may not change as a result of resizing"],
    );
    let mirror = old.replace("name: p", "name: p, annotations: {kubernetes.io/config.mirror: x}");
    check(&mirror, &mirror, &["[]: Forbidden: static pods cannot be resized"]);
    let init = pod(
        "",
        "initContainers: [{name: b, image: i, resources: {requests: {cpu: 1}}}]",
    );
    check(&init, &init.replace("cpu: 1", "cpu: 2"), &[]);
    check(
        &init,
        &init.replace("cpu: 1", "cpu: 1, ephemeral-storage: 1Gi"),
        &[
            "spec.initContainers[0]: Forbidden: only cpu and memory resources for init or sidecar containers are mutable",
        ],
    );
    let restarting = init.replace(
        "image: i, resources",
        "image: i, resizePolicy: [{resourceName: cpu, restartPolicy: RestartContainer}], resources",
    );
    check(
        &restarting,
        &restarting.replace("requests: {cpu: 1}", "requests: {cpu: 2}"),
        &[
            "spec.initContainers[0]: Forbidden: non-sidecar init containers with a resize policy of RestartContainer cannot \
             be resized",
        ],
    );
    check(
        &old,
        &old.replace("name: a", "name: b"),
        &["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"],
    );
    let case = Case::new("nothing else is written").subresource("resize").old(&old);
    super::check(
        &Pods,
        case.object(&old.replace("image: i", "image: j"))
            .field("spec.containers.0.image", "i"),
    );
}

/// What an older server stored may stay as it is; what is new may not be like it.
#[test]
fn what_is_stored_is_tolerated() {
    let selector = "labelSelector: {matchExpressions: [{key: a, operator: In, values: ['a b']}]}";
    let term = format!("[{{topologyKey: k, {selector}}}]");
    let spread = |rest: &str| {
        format!("topologySpreadConstraints: [{{maxSkew: 1, topologyKey: k, whenUnsatisfiable: DoNotSchedule, {rest}}}]")
    };
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let values = "[{matchExpressions: [{key: a, operator: In, values: ['a b']}]}]";
    let token =
        "serviceAccountName: s, volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: ../t}}]}}]";
    let sysctl = "securityContext: {sysctls: [{name: net.a, value: b}]}, hostNetwork: true";
    for (container, spec) in [
        ("resources: {limits: {cpu: 1, hugepages-2Mi: 3Mi}}", String::new()),
        ("", "overhead: {cpu: 1, hugepages-2Mi: 3Mi}".into()),
        ("", format!("affinity: {{podAffinity: {{{required}: {term}}}}}")),
        ("", format!("affinity: {{podAntiAffinity: {{{required}: {term}}}}}")),
        (
            "",
            format!("affinity: {{nodeAffinity: {{{required}: {{nodeSelectorTerms: {values}}}}}}}"),
        ),
        ("", spread(selector)),
        ("", token.into()),
        ("", sysctl.into()),
        (
            "volumeDevices: [{name: v, devicePath: /d}]",
            "hostUsers: false, volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]".into(),
        ),
    ] {
        let old = pod(container, &spec);
        let errors = errors_of(None, &old);
        assert!(!errors.is_empty(), "a new one: {old}");
        let new = old.replace("image: i", "image: j, imagePullPolicy: Always");
        let kept: Vec<String> = errors_of(Some(&old), &new);
        assert!(kept.is_empty(), "{old}: {kept:?}");
        assert!(
            !errors_of(Some(&pod("", "")), &new).is_empty(),
            "from a good one: {old}"
        );
    }
    // The older rule for label keys finds this mistake too, and says so of the key.
    let keys = pod(
        "",
        &spread(
            "matchLabelKeys: [a], labelSelector: {matchLabels: {a: b}, matchExpressions: [{key: a, operator: Exists}]}",
        ),
    );
    let found = "Invalid value: \"a\": exists in both matchLabelKeys and labelSelector";
    assert_eq!(
        errors_of(None, &keys),
        [format!("spec.topologySpreadConstraints[0][0]: {found}")]
    );
    assert_eq!(
        errors_of(Some(&keys), &keys),
        [format!("spec.topologySpreadConstraints[0].matchLabelKeys[0]: {found}")]
    );
    let cost = |text: &str| {
        pod("", "").replace(
            "name: p",
            &format!("name: p, annotations: {{controller.kubernetes.io/pod-deletion-cost: {text}}}"),
        )
    };
    check_update("", &cost("x"), &cost("y"), &[]);
    let broken = "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"y\": must be a 32bit integer";
    check_update("", &cost("'1'"), &cost("y"), &[broken]);
}

/// What the rules of a new pod, or of an update, find.
fn errors_of(old: Option<&str>, new: &str) -> Vec<String> {
    let parsed = |text: &str| {
        let mut pod = crate::testing::yaml(text);
        crate::row::Strategy::default(&Pods, &mut pod);
        pod
    };
    let (new, old) = (parsed(new), old.map(parsed));
    let errors = crate::check::Report::of(&new, |pod| super::super::spec::pod(&pod, old.as_ref()));
    errors.iter().map(ToString::to_string).collect()
}
