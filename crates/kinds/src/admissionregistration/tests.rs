//! What upstream says of webhook configurations and admission policies.

use api::Value;
use serde_json::json;

use super::mutating::{MutatingBindings, MutatingPolicies};
use super::validating::{ValidatingBindings, ValidatingPolicies};
use super::webhooks::Webhooks;
use crate::row::Strategy;
use crate::testing::{Case, SUBDOMAIN, check, yaml};

const VALIDATING: Webhooks = Webhooks { mutating: false };
const MUTATING: Webhooks = Webhooks { mutating: true };
const HOOK: &str = "name: a.b.c, sideEffects: None, admissionReviewVersions: [v1], clientConfig: {url: 'https://h'}";

/// A configuration with one webhook, to which `more` is added.
fn with(more: &str) -> String {
    format!("webhooks: [{{{HOOK}{more}}}]")
}

/// A configuration whose webhook is this.
fn only(hook: &str) -> String {
    format!("webhooks: [{{{hook}}}]")
}

#[test]
fn defaults() {
    let mut object = yaml(&with(
        ", rules: [{operations: ['*'], apiGroups: [''], apiVersions: [v1], resources: [pods]}]",
    ));
    object["webhooks"][0]["clientConfig"] = json!({"service": {"name": "s", "namespace": "n"}});
    MUTATING.default(&mut object);
    for (path, expect) in [
        ("failurePolicy", json!("Fail")),
        ("matchPolicy", json!("Equivalent")),
        ("namespaceSelector", json!({})),
        ("objectSelector", json!({})),
        ("timeoutSeconds", json!(10)),
        ("reinvocationPolicy", json!("Never")),
        ("rules/0/scope", json!("*")),
        ("clientConfig/service/port", json!(443)),
    ] {
        let found = object.pointer(&format!("/webhooks/0/{path}")).unwrap_or(&Value::Null);
        assert_eq!(found, &expect, "{path}");
    }
    VALIDATING.default(&mut object);
    let (new, old) = (json!({"webhooks": [{}]}), json!({"webhooks": []}));
    assert!(VALIDATING.generation_changed(&new, &old), "there is no spec");
}

#[test]
fn webhooks() {
    for case in [
        Case::new("a webhook").object(&with("")),
        Case::new("nothing").object(&only("name: a")).errors(&[
            "webhooks[0].name: Invalid value: \"a\": should be a domain with at least three segments separated by dots",
            "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
        ]),
        Case::new("words")
            .object(&only(
                "name: a.b.c, sideEffects: Some, admissionReviewVersions: [v2, v2], clientConfig: {url: 'https://h'}, \
                 failurePolicy: F, matchPolicy: M, reinvocationPolicy: R, timeoutSeconds: 31",
            ))
            .errors(&[
                "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
                "webhooks[0].admissionReviewVersions[1]: Invalid value: \"v2\": duplicate version",
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\",\"v2\"]: must include at least one of v1, v1beta1",
                "webhooks[0].failurePolicy: Unsupported value: \"F\": supported values: \"Fail\", \"Ignore\"",
                "webhooks[0].matchPolicy: Unsupported value: \"M\": supported values: \"Equivalent\", \"Exact\"",
                "webhooks[0].reinvocationPolicy: Unsupported value: \"R\": supported values: \"IfNeeded\", \"Never\"",
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ]),
        Case::new("a name twice").object(&format!("webhooks: [{{{HOOK}}}, {{{HOOK}}}]")).errors(&[
            "webhooks[1].name: Duplicate value: \"a.b.c\"",
        ]),
    ] {
        check(&MUTATING, case);
    }
}

#[test]
fn client_configs() {
    let form = "; desired format: https://host[/path]";
    let hook = |config: &str| {
        only(&format!(
            "name: a.b.c, sideEffects: None, admissionReviewVersions: [v1], clientConfig: {{{config}}}"
        ))
    };
    for (config, errors) in [
        ("service: {name: s, namespace: n, path: /a/b}", vec![]),
        (
            "url: 'http://u@h/p?q#f'",
            vec![
                format!("webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme{form}"),
                "webhooks[0].clientConfig.url: Invalid value: \"u\": user information is not permitted in the URL".into(),
                "webhooks[0].clientConfig.url: Invalid value: \"f\": fragments are not permitted in the URL".into(),
                "webhooks[0].clientConfig.url: Invalid value: \"q\": query parameters are not permitted in the URL".into(),
            ],
        ),
        (
            "url: 'https:///p'",
            vec![format!("webhooks[0].clientConfig.url: Invalid value: \"\": host must be specified{form}")],
        ),
        (
            "service: {port: 70000, path: 'a//B'}",
            vec![
                "webhooks[0].clientConfig.service.name: Required value".into(),
                "webhooks[0].clientConfig.service.namespace: Required value".into(),
                "webhooks[0].clientConfig.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, \
                 inclusive"
                    .into(),
                "webhooks[0].clientConfig.service.path: Invalid value: \"a//B\": must start with a '/'".into(),
                "webhooks[0].clientConfig.service.path: Invalid value: \"a//B\": segment[0] may not be empty".into(),
                "webhooks[0].clientConfig.service.path: Invalid value: \"a//B\": segment[1] may not be empty".into(),
                format!("webhooks[0].clientConfig.service.path: Invalid value: \"a//B\": segment[2]: {SUBDOMAIN}"),
            ],
        ),
    ] {
        let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
        check(&VALIDATING, Case::new(config).object(&hook(config)).errors(&errors));
    }
}

#[test]
fn rules() {
    let rule = |rule: &str| with(&format!(", rules: [{{{rule}}}]"));
    let at = "webhooks[0].rules[0]";
    for (text, errors) in [
        (
            "operations: [CREATE], apiGroups: [''], apiVersions: ['*'], resources: [pods, pods/status], scope: Namespaced",
            vec![],
        ),
        (
            "scope: Some",
            vec![
                format!("{at}.operations: Required value"),
                format!("{at}.apiGroups: Required value"),
                format!("{at}.apiVersions: Required value"),
                format!("{at}.resources: Required value"),
                format!(
                    "{at}.scope: Unsupported value: \"Some\": supported values: \"*\", \"Cluster\", \"Namespaced\""
                ),
            ],
        ),
        (
            "operations: ['*', LOOK], apiGroups: ['*', a], apiVersions: ['*', ''], resources: ['*/*', '']",
            vec![
                format!(
                    "{at}.operations: Invalid value: [\"*\",\"LOOK\"]: if '*' is present, must not specify other operations"
                ),
                format!(
                    "{at}.operations[1]: Unsupported value: \"LOOK\": supported values: \"*\", \"CONNECT\", \"CREATE\", \
                     \"DELETE\", \"UPDATE\""
                ),
                format!(
                    "{at}.apiGroups: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other API groups"
                ),
                format!(
                    "{at}.apiVersions: Invalid value: [\"*\",\"\"]: if '*' is present, must not specify other API versions"
                ),
                format!("{at}.apiVersions[1]: Required value"),
                format!("{at}.resources[1]: Required value"),
                format!(
                    "{at}.resources: Invalid value: [\"*/*\",\"\"]: if '*/*' is present, must not specify other resources"
                ),
            ],
        ),
        (
            "operations: [CREATE], apiGroups: [a], apiVersions: [v1], resources: [a/*, a/b, '*/c', d/c, '*', e]",
            vec![
                format!("{at}.resources[1]: Invalid value: \"a/b\": if 'a/*' is present, must not specify a/b"),
                format!("{at}.resources[3]: Invalid value: \"d/c\": if '*/c' is present, must not specify d/c"),
                format!(
                    "{at}.resources: Invalid value: [\"a/*\",\"a/b\",\"*/c\",\"d/c\",\"*\",\"e\"]: if '*' is present, must not \
                     specify other resources without subresources"
                ),
            ],
        ),
    ] {
        let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
        check(&VALIDATING, Case::new(text).object(&rule(text)).errors(&errors));
    }
}

#[test]
fn match_conditions() {
    check(
        &VALIDATING,
        Case::new("conditions")
            .object(&with(
                ", matchConditions: [{name: a, expression: 'true'}, {name: a, expression: ' '}, {expression: 'true'}]",
            ))
            .errors(&[
                "webhooks[0].matchConditions[1].expression: Required value",
                "webhooks[0].matchConditions[1].name: Duplicate value: \"a\"",
                "webhooks[0].matchConditions[2].name: Required value",
            ]),
    );
}

#[test]
fn updates_tolerate_what_is_stored() {
    let old = only("name: a.b.c, sideEffects: Some, admissionReviewVersions: [v2], clientConfig: {url: 'https://h'}");
    check(&VALIDATING, Case::new("side effects").old(&old).object(&old));
    check(
        &VALIDATING,
        Case::new("not of good ones")
            .old(&with(""))
            .object(&only(
                "name: a.b.c, sideEffects: Some, admissionReviewVersions: [v1], clientConfig: {url: 'https://h'}",
            ))
            .errors(&[
                "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
            ]),
    );
}

const RULE: &str = "{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [pods]}";

fn policy(more: &str) -> String {
    format!("metadata: {{name: p}}\nspec: {{matchConstraints: {{resourceRules: [{RULE}]}}, {more}}}")
}

#[test]
fn policies() {
    let one = "validations or auditAnnotations must contain at least one item";
    for case in [
        Case::new("a policy")
            .object(&policy("validations: [{expression: 'true', message: m, reason: Forbidden}]"))
            .field("spec.failurePolicy", "Fail")
            .field("spec.matchConstraints.matchPolicy", "Equivalent"),
        Case::new("nothing").object("metadata: {name: p}\nspec: {}").errors(&[
            "spec.matchConstraints: Required value",
            &format!("spec.validations: Required value: {one}"),
            &format!("spec.auditAnnotations: Required value: {one}"),
        ]),
        Case::new("about nothing")
            .object("metadata: {name: p}\nspec: {matchConstraints: {}, validations: [{expression: 'true'}]}")
            .errors(&["spec.matchConstraints.resourceRules: Required value"]),
        Case::new("names of resources")
            .object(
                "metadata: {name: p}\nspec: {validations: [{expression: 'true'}], matchConstraints: {resourceRules: [{operations: \
                 [CREATE], apiGroups: [''], apiVersions: [v1], resources: [pods], resourceNames: [a/b, c, c]}]}}",
            )
            .errors(&[
                "spec.matchConstraints.resourceRules[0].resourceNames[0]: Invalid value: \"a/b\": may not contain '/'",
                "spec.matchConstraints.resourceRules[0].resourceNames[2]: Duplicate value: \"c\"",
            ]),
        Case::new("validations")
            .object(&policy(
                "validations: [{expression: '', message: ' ', messageExpression: ' ', reason: Gone}, {expression: 'true', message: \
                 \"a\\nb\"}]",
            ))
            .errors(&[
                "spec.validations[0].expression: Required value: expression is not specified",
                "spec.validations[0].messageExpression: Invalid value: \" \": must be non-empty if specified",
                "spec.validations[0].message: Invalid value: \" \": must be non-empty if specified",
                "spec.validations[0].reason: Unsupported value: \"Gone\": supported values: \"Forbidden\", \"Invalid\", \
                 \"RequestEntityTooLarge\"",
                "spec.validations[1].message: Invalid value: \"a\\nb\": must not contain line breaks",
            ]),
        Case::new("variables and parameters")
            .object(&policy(
                "validations: [{expression: 'true'}], variables: [{name: in, expression: '1'}, {name: '', expression: ''}], \
                 paramKind: {apiVersion: a/b/c, kind: A_B}",
            ))
            .errors(&[
                "spec.variables[0].name: Invalid value: \"in\": must be a valid CEL identifier",
                "spec.variables[1].name: Required value: name is not specified",
                "spec.variables[1].expression: Required value: expression is not specified",
                "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
                "spec.paramKind.kind: Invalid value: \"A_B\": may have mixed case, but should otherwise match: a DNS-1035 label \
                 must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an \
                 alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is \
                 '[a-z]([-a-z0-9]*[a-z0-9])?')",
            ]),
        Case::new("audit annotations")
            .object(&policy(
                "auditAnnotations: [{key: a, valueExpression: '\"a\"'}, {key: a, valueExpression: ''}]",
            ))
            .errors(&[
                "spec.auditAnnotations[1].valueExpression: Required value: valueExpression is not specified",
                "spec.auditAnnotations[1].key: Duplicate value: \"a\"",
            ]),
        Case::new("status")
            .old(&policy("validations: [{expression: 'true'}]"))
            .object("metadata: {labels: {a: b}}\nstatus: {typeChecking: {expressionWarnings: [{}]}}")
            .subresource("status")
            .field("metadata.labels", ())
            .errors(&[
                "status.typeChecking.expressionWarnings[0].warning: Required value",
                "status.typeChecking.expressionWarnings[0].fieldRef: Required value",
            ]),
    ] {
        check(&ValidatingPolicies, case);
    }
}

#[test]
fn bindings() {
    let both = "name and selector are mutually exclusive";
    for case in [
        Case::new("a binding")
            .object(
                "spec: {policyName: p, validationActions: [Deny], paramRef: {name: a, parameterNotFoundAction: Allow}, \
                 matchResources: {}}",
            )
            .field("spec.matchResources.matchPolicy", "Equivalent"),
        Case::new("nothing").object("spec: {}").errors(&[
            "spec.policyName: Required value",
            "spec.validationActions: Required value: at least one validation action is required",
        ]),
        Case::new("actions")
            .object("spec: {policyName: P, validationActions: [Deny, Warn, Warn, Shout]}")
            .errors(&[
                &format!("spec.policyName: Invalid value: \"P\": {SUBDOMAIN}"),
                "spec.validationActions[2]: Duplicate value: \"Warn\"",
                "spec.validationActions[3]: Unsupported value: \"Shout\": supported values: \"Audit\", \"Deny\", \"Warn\"",
                "spec.validationActions: Invalid value: [\"Deny\",\"Warn\",\"Warn\",\"Shout\"]: must not contain both Deny and Warn \
                 (repeating the same validation failure information in the API response and headers serves no purpose)",
            ]),
        Case::new("parameters")
            .object("spec: {policyName: p, validationActions: [Deny], paramRef: {name: a, selector: {}, parameterNotFoundAction: Ask}}")
            .errors(&[
                &format!("spec.paramRef.name: Forbidden: {both}"),
                &format!("spec.paramRef.selector: Forbidden: {both}"),
                "spec.paramRef.parameterNotFoundAction: Unsupported value: \"Ask\": supported values: \"Deny\", \"Allow\"",
            ]),
        Case::new("no parameters")
            .object("spec: {policyName: p, validationActions: [Deny], paramRef: {}}")
            .errors(&[
                "spec.paramRef: Required value: one of name or selector must be specified",
                "spec.paramRef.parameterNotFoundAction: Required value",
            ]),
    ] {
        check(&ValidatingBindings, case);
    }
}

/// What upstream says of expressions, as it says it: with the place.
fn compilation(path: &str, text: &str, column: usize, why: &str) -> String {
    format!(
        "{path}: Invalid value: {}: compilation failed: ERROR: <input>:1:{column}: {why}\n | {text}\n | {}^",
        api::field::quote(text),
        ".".repeat(column - 1)
    )
}

#[test]
fn expressions_have_to_compile() {
    let undeclared = |name: &str| format!("undeclared reference to '{name}' (in container '')");
    for (more, errors) in [
        (
            "validations: [{expression: 'object.x > 1', messageExpression: 'string(object.x)'}], paramKind: {apiVersion: v1, kind: \
             ConfigMap}, matchConditions: [{name: a, expression: 'params.x == 1'}]",
            vec![],
        ),
        (
            "validations: [{expression: 'params.x > 1'}]",
            vec![compilation("spec.validations[0].expression", "params.x > 1", 1, &undeclared("params"))],
        ),
        (
            "validations: [{expression: '1 + 1'}]",
            vec!["spec.validations[0].expression: Invalid value: \"1 + 1\": must evaluate to bool but got int".into()],
        ),
        (
            "validations: [{expression: 'true', messageExpression: authorizer.x}]",
            vec![compilation(
                "spec.validations[0].messageExpression",
                "authorizer.x",
                1,
                &undeclared("authorizer"),
            )],
        ),
        (
            "auditAnnotations: [{key: a, valueExpression: ' 1 '}]",
            vec![
                "spec.auditAnnotations[0].valueExpression: Invalid value: \" 1 \": must evaluate to one of [string null_type] but \
                 got int"
                    .into(),
            ],
        ),
        (
            "validations: [{expression: variables.b == 2}], variables: [{name: a, expression: '1'}, {name: b, expression: \
             variables.a + 1}]",
            vec![],
        ),
        (
            "validations: [{expression: 'true'}], matchConditions: [{name: a, expression: variables.a}], variables: [{name: a, \
             expression: 'true'}]",
            vec![compilation(
                "spec.matchConditions[0].expression",
                "variables.a",
                1,
                &undeclared("variables"),
            )],
        ),
        (
            "validations: [{expression: variables.a == 1}]",
            vec![compilation(
                "spec.validations[0].expression",
                "variables.a == 1",
                1,
                &undeclared("variables"),
            )],
        ),
    ] {
        let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
        check(&ValidatingPolicies, Case::new(more).object(&policy(more)).errors(&errors));
    }
}

#[test]
fn mutations() {
    let with = |mutations: &str| policy(&format!("reinvocationPolicy: Never, mutations: [{mutations}]"));
    let object = "{patchType: ApplyConfiguration, applyConfiguration: {expression: 'Object{}'}}";
    for case in [
        Case::new("a policy")
            .object(&with(object))
            .field("spec.failurePolicy", "Fail")
            .field("spec.matchConstraints.matchPolicy", "Equivalent"),
        Case::new("nothing").object(&policy("x: y")).errors(&[
            "spec.mutations: Required value: mutations must contain at least one item",
            "spec.reinvocationPolicy: Required value",
        ]),
        Case::new("words")
            .object(&with("{}, {patchType: Merge}").replace("Never", "Always").replace("CREATE", "DELETE"))
            .errors(&[
                "spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \
                 \"CONNECT\", \"CREATE\", \"UPDATE\"",
                "spec.mutations[0].patchType: Required value",
                "spec.mutations[1].patchType: Unsupported value: \"Merge\": supported values: \"ApplyConfiguration\", \"JSONPatch\"",
                "spec.reinvocationPolicy: Unsupported value: \"Always\": supported values: \"IfNeeded\", \"Never\"",
            ]),
        Case::new("the other patch")
            .object(&with("{patchType: JSONPatch, applyConfiguration: {expression: 'Object{}'}}"))
            .errors(&[
                "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
                "spec.mutations[0].applyConfiguration: Invalid value: \"{applyConfiguration}\": must not be specified when \
                 patchType is JSONPatch",
            ]),
        Case::new("expressions")
            .object(&with(
                "{patchType: JSONPatch, jsonPatch: {expression: ' [] '}}, {patchType: ApplyConfiguration, applyConfiguration: \
                 {expression: 'Object.spec{}'}}, {patchType: JSONPatch, jsonPatch: {expression: ' '}}",
            ))
            .errors(&[
                "spec.mutations[0].jsonPatch.expression: Invalid value: \"[]\": must evaluate to list(JSONPatch) but got list(dyn)",
                "spec.mutations[1].applyConfiguration.expression: Invalid value: \"Object.spec{}\": must evaluate to Object but got \
                 Object.spec",
                "spec.mutations[2].jsonPatch.expression: Required value",
            ]),
    ] {
        check(&MutatingPolicies, case);
    }
    let binding = "spec: {policyName: p, matchResources: {resourceRules: [{operations: [DELETE], apiGroups: [''], apiVersions: \
                   [v1], resources: [pods]}]}}";
    check(
        &MutatingBindings,
        Case::new("a binding").object(binding).errors(&[
            "spec.matchResources.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \
             \"CREATE\", \"UPDATE\"",
        ]),
    );
}
