//! Policies and rules of single containers.

use super::{check_container, check_spec};

#[test]
fn policies_and_rules() {
    for good in [
        "restartPolicy: Never",
        "restartPolicy: OnFailure, restartPolicyRules: [{action: Restart, exitCodes: {operator: NotIn, values: [0]}}]",
        "restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [1]}}]",
    ] {
        check_container(good, &[]);
    }
    check_container(
        "restartPolicy: Sometimes, restartPolicyRules: [{action: Stop, exitCodes: {operator: Is}}, {action: Restart}]",
        &[
            "restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\"",
            "restartPolicyRules[0].action: Unsupported value: \"Stop\": supported values: \"Restart\", \
             \"RestartAllContainers\"",
            "restartPolicyRules[0].exitCodes.operator: Unsupported value: \"Is\": supported values: \"In\", \"NotIn\"",
            "restartPolicyRules[1].exitCodes: Required value: must be specified",
        ],
    );
    let missing = "Required value: must specify restartPolicy when restart rules are used";
    let rule = "{action: Restart, exitCodes: {operator: In, values: [1]}}";
    check_container(
        &format!("restartPolicyRules: [{rule}]"),
        &[&format!("restartPolicy: {missing}")],
    );
    // The rules of an init container without a policy are not looked at.
    check_spec(
        "initContainers: [{name: b, image: i, restartPolicyRules: [{action: Stop}]}]",
        &[&format!("initContainers[0].restartPolicy: {missing}")],
    );
    check_spec("initContainers: [{name: b, image: i, restartPolicy: Never}]", &[]);
}

#[test]
fn rules_and_codes_are_bounded() {
    let rules = vec!["{action: Restart, exitCodes: {operator: In, values: [1]}}"; 21].join(", ");
    check_container(
        &format!("restartPolicy: Never, restartPolicyRules: [{rules}]"),
        &["restartPolicyRules: Too many: 21: must have at most 20 items"],
    );
    let codes: Vec<String> = (0..256).map(|code| code.to_string()).collect();
    let codes = codes.join(", ");
    check_container(
        &format!(
            "restartPolicy: Never, restartPolicyRules: [{{action: Restart, exitCodes: {{operator: In, values: [{codes}]}}}}]"
        ),
        &["restartPolicyRules[0].exitCodes.values: Too many: 256: must have at most 255 items"],
    );
}
