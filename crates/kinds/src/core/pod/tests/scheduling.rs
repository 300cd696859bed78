//! Rules for where a pod may run.

use super::check_spec;
use crate::testing::{QUALIFIED, SUBDOMAIN, VALUE};

#[test]
fn tolerations() {
    check_spec(
        "tolerations: [{operator: Exists}, {key: a, value: b, effect: NoExecute, tolerationSeconds: 5}]",
        &[],
    );
    let value = format!("tolerations[1].operator: Invalid value: \"b c\": {VALUE}");
    let key = format!("tolerations[1].key: Invalid value: \"a b\": {QUALIFIED}");
    check_spec(
        "tolerations: [{}, {key: a b, value: b c}, {key: a, operator: Exists, value: b}, {key: a, operator: X, effect: Y, \
         tolerationSeconds: 1}]",
        &[
            "tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty, which means \
             \"match all values and all keys\"",
            key.as_str(),
            value.as_str(),
            "tolerations[2].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'",
            "tolerations[3].effect: Invalid value: \"Y\": effect must be 'NoExecute' when `tolerationSeconds` is set",
            "tolerations[3].operator: Unsupported value: \"X\": supported values: \"Equal\", \"Exists\"",
            "tolerations[3].effect: Unsupported value: \"Y\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \
             \"NoExecute\"",
        ],
    );
}

#[test]
fn node_selector() {
    let value = format!("nodeSelector: Invalid value: \"b c\": {VALUE}");
    check_spec("nodeSelector: {a: b c}", &[value.as_str()]);
}

#[test]
fn node_affinity() {
    let at = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution";
    let preferred = "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution";
    let required = |terms: &str| {
        format!("affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {terms}}}}}")
    };
    check_spec(
        &required("{}"),
        &[&format!(
            "{at}.nodeSelectorTerms: Required value: must have at least one node selector term"
        )],
    );
    let expressions = format!("{at}.nodeSelectorTerms[0].matchExpressions");
    check_spec(
        &required(
            "{nodeSelectorTerms: [{matchExpressions: [{key: a, operator: In}, {key: a, operator: Exists, values: [b]}, \
             {key: a, operator: Gt, values: [1, 2]}, {key: a, operator: X}, {key: ' ', operator: In, values: [b c]}]}]}",
        ),
        &[
            &format!("{expressions}[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"),
            &format!(
                "{expressions}[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            ),
            &format!(
                "{expressions}[2].values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'"
            ),
            &format!("{expressions}[3].operator: Invalid value: \"X\": not a valid selector operator"),
            &format!("{expressions}[4].key: Invalid value: \" \": {QUALIFIED}"),
            &format!("{expressions}[4].values[0]: Invalid value: \"b c\": {VALUE}"),
        ],
    );
    let fields = format!("{at}.nodeSelectorTerms[0].matchFields");
    check_spec(
        &required(
            "{nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [A]}, {key: x, operator: In, \
             values: [a]}, {key: metadata.name, operator: Exists}, {key: metadata.name, operator: In}]}]}",
        ),
        &[
            &format!("{fields}[0].values[0]: Invalid value: \"A\": {SUBDOMAIN}"),
            &format!("{fields}[1].key: Invalid value: \"x\": not a valid field selector key"),
            &format!("{fields}[2].operator: Invalid value: \"Exists\": not a valid selector operator"),
            &format!(
                "{fields}[3].values: Required value: must be only one value when `operator` is 'In' or 'NotIn' for node \
                 field selector"
            ),
        ],
    );
    check_spec(
        "affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 101, preference: {}}]}}",
        &[&format!(
            "{preferred}[0].weight: Invalid value: 101: must be in the range 1-100"
        )],
    );
}

#[test]
fn pod_affinity() {
    let at = "affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]";
    check_spec(
        "affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchExpressions: \
         [{key: a, operator: X}]}, namespaces: [A.b], matchLabelKeys: [k], mismatchLabelKeys: [k]}]}}",
        &[
            &format!(
                "{at}.labelSelector.matchExpressions[0].operator: Invalid value: \"X\": not a valid selector operator"
            ),
            &format!("{at}.namespace: Invalid value: \"A.b\": {}", crate::testing::LABEL),
            &format!("{at}.topologyKey: Required value: can not be empty"),
            &format!("{at}.topologyKey: Invalid value: \"\": name part must be non-empty"),
            &format!("{at}.topologyKey: Invalid value: \"\": {QUALIFIED}"),
            &format!(
                "{at}.matchLabelKeys[0]: Invalid value: \"k\": exists in both matchLabelKeys and mismatchLabelKeys"
            ),
        ],
    );
    let at = "affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0]";
    check_spec(
        "affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 0, podAffinityTerm: \
         {topologyKey: h, matchLabelKeys: [k]}}]}}",
        &[
            &format!("{at}.weight: Invalid value: 0: must be in the range 1-100"),
            &format!(
                "{at}.podAffinityTerm.matchLabelKeys: Forbidden: must not be specified when labelSelector is not set"
            ),
        ],
    );
}

#[test]
fn topology_spread() {
    check_spec(
        "topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: DoNotSchedule, minDomains: 2}]",
        &[],
    );
    let at = "topologySpreadConstraints";
    check_spec(
        "topologySpreadConstraints: [{whenUnsatisfiable: X, nodeAffinityPolicy: Y}, {maxSkew: 1, topologyKey: z, \
         whenUnsatisfiable: ScheduleAnyway, minDomains: 0}, {maxSkew: 1, topologyKey: z, whenUnsatisfiable: \
         ScheduleAnyway}]",
        &[
            &format!("{at}[0].maxSkew: Invalid value: 0: must be greater than zero"),
            &format!("{at}[0].topologyKey: Required value: can not be empty"),
            &format!(
                "{at}[0].whenUnsatisfiable: Unsupported value: \"X\": supported values: \"DoNotSchedule\", \
                 \"ScheduleAnyway\""
            ),
            &format!("{at}[0].nodeAffinityPolicy: Unsupported value: \"Y\": supported values: \"Honor\", \"Ignore\""),
            &format!("{at}[1].minDomains: Invalid value: 0: must be greater than zero"),
            &format!(
                "{at}[1].minDomains: Invalid value: 0: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not \
                 ScheduleAnyway"
            ),
            &format!("{at}[1].{{topologyKey, whenUnsatisfiable}}: Duplicate value: \"{{z, ScheduleAnyway}}\""),
        ],
    );
}

#[test]
fn gates() {
    let bad = format!("schedulingGates[1]: Invalid value: \"b c\": {QUALIFIED}");
    check_spec(
        "schedulingGates: [{name: a}, {name: b c}, {name: a}], nodeName: n",
        &[
            bad.as_str(),
            "schedulingGates[2]: Duplicate value: \"a\"",
            "nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
        ],
    );
    let bad = format!("readinessGates[0].conditionType: Invalid value: \"b c\": {QUALIFIED}");
    check_spec("readinessGates: [{conditionType: b c}]", &[bad.as_str()]);
}
