//! What upstream says of flow schemas and priority levels.

use api::normalize::{UnknownFields, normalize};
use api::schema::SchemaRef;
use api::{GroupVersionKind, Value};

use super::bootstrap;
use super::flowschema::FlowSchemas;
use super::prioritylevel::PriorityLevels;
use crate::row::{Strategy, WriteContext, Writer};
use crate::testing::{Case, LABEL, NOW, SUBDOMAIN, check};
use crate::view::View;

/// A schema with one rule.
fn with(rule: &str) -> String {
    format!("metadata: {{name: s}}\nspec: {{priorityLevelConfiguration: {{name: l}}, rules: [{rule}]}}")
}

fn rule(rule: &str, errors: &[&str]) {
    check(&FlowSchemas, Case::new(rule).object(&with(rule)).errors(errors));
}

#[test]
fn schemas() {
    for case in [
        Case::new("least")
            .object("metadata: {name: s}\nspec: {priorityLevelConfiguration: {name: l}}")
            .field("spec.matchingPrecedence", 1000),
        Case::new("nothing")
            .object("metadata: {name: s}\nspec: {matchingPrecedence: -1, distinguisherMethod: {type: ByName}}")
            .errors(&[
                "spec.matchingPrecedence: Invalid value: -1: must be a positive value",
                "spec.distinguisherMethod.type: Unsupported value: {\"type\":\"ByName\"}: supported values: \"ByNamespace\", \
                 \"ByUser\"",
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
            ]),
        Case::new("precedence")
            .object("metadata: {name: s}\nspec: {matchingPrecedence: 1, priorityLevelConfiguration: {name: A}}")
            .errors(&[
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                &format!("spec.priorityLevelConfiguration.name: Invalid value: \"A\": {SUBDOMAIN}"),
            ]),
        Case::new("too late")
            .object("metadata: {name: s}\nspec: {matchingPrecedence: 10001, priorityLevelConfiguration: {name: l}}")
            .errors(&["spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"]),
    ] {
        check(&FlowSchemas, case);
    }
}

#[test]
fn rules() {
    let subjects = "subjects: [{kind: User, user: {name: u}}]";
    rule(
        "{}",
        &[
            "spec.rules[0].subjects: Required value: subjects must contain at least one value",
            "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
        ],
    );
    rule(
        &format!(
            "{{{subjects}, resourceRules: [{{}}, {{verbs: ['*', get], apiGroups: ['*', ''], resources: ['*', pods], \
             namespaces: ['*', a]}}, {{verbs: [look], apiGroups: [''], resources: [pods], namespaces: [a.b]}}, \
             {{verbs: [get], apiGroups: [''], resources: [nodes], clusterScope: true}}]}}"
        ),
        &[
            "spec.rules[0].resourceRules[0].verbs: Required value: verbs must contain at least one value",
            "spec.rules[0].resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group",
            "spec.rules[0].resourceRules[0].resources: Required value: resource rules must supply at least one resource",
            "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply \
             at least one namespace",
            "spec.rules[0].resourceRules[1].verbs: Invalid value: [\"*\",\"get\"]: if '*' is present, must not specify other verbs",
            "spec.rules[0].resourceRules[1].apiGroups: Invalid value: [\"*\",\"\"]: if '*' is present, must not specify other api \
             groups",
            "spec.rules[0].resourceRules[1].resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other \
             resources",
            "spec.rules[0].resourceRules[1].namespaces: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other \
             namespaces",
            "spec.rules[0].resourceRules[2].verbs: Unsupported value: [\"look\"]: supported values: \"create\", \"delete\", \
             \"deletecollection\", \"get\", \"list\", \"patch\", \"proxy\", \"update\", \"watch\"",
            "spec.rules[0].resourceRules[2].namespaces[0]: Invalid value: \"a.b\": each member of this list must be '*' or a \
             DNS-1123 label; must not contain dots",
        ],
    );
    rule(
        &format!(
            "{{{subjects}, nonResourceRules: [{{verbs: [get], nonResourceURLs: [/, /a/*, a, /a b, //a, /a*, '']}}, \
             {{verbs: [get], nonResourceURLs: ['*', /a]}}, {{verbs: [get]}}]}}"
        ),
        &[
            "spec.rules[0].nonResourceRules[0].nonResourceURLs[2]: Invalid value: \"a\": must start with slash",
            "spec.rules[0].nonResourceRules[0].nonResourceURLs[3]: Invalid value: \"/a b\": must not contain white-space",
            "spec.rules[0].nonResourceRules[0].nonResourceURLs[4]: Invalid value: \"//a\": must not contain double slash",
            "spec.rules[0].nonResourceRules[0].nonResourceURLs[5]: Invalid value: \"/a*\": wildcard can only do suffix matching",
            "spec.rules[0].nonResourceRules[0].nonResourceURLs[6]: Invalid value: \"\": must not be empty",
            "spec.rules[0].nonResourceRules[1].nonResourceURLs: Invalid value: [\"*\",\"/a\"]: if '*' is present, must not \
             specify other non-resource URLs",
            "spec.rules[0].nonResourceRules[2].nonResourceURLs: Required value: nonResourceURLs must contain at least one value",
        ],
    );
}

#[test]
fn subjects() {
    let urls = "nonResourceRules: [{verbs: [get], nonResourceURLs: [/]}]";
    let subject = |subject: &str| format!("{{subjects: [{subject}], {urls}}}");
    let account = "{kind: ServiceAccount, serviceAccount: {name: '*', namespace: n}}";
    rule(&subject(account), &[]);
    rule(
        &subject("{kind: Robot}, {kind: User}, {kind: Group, group: {}, user: {name: u}}"),
        &[
            "spec.rules[0].subjects[0].kind: Unsupported value: \"Robot\": supported values: \"Group\", \"ServiceAccount\", \
             \"User\"",
            "spec.rules[0].subjects[1].user: Required value: user is required when subject kind is 'User'",
            "spec.rules[0].subjects[2].group.name: Required value",
            "spec.rules[0].subjects[2].user: Forbidden: user is forbidden when subject kind is not 'User'",
        ],
    );
    rule(
        &subject(
            "{kind: ServiceAccount, serviceAccount: {name: A}}, {kind: ServiceAccount, serviceAccount: {name: a, namespace: B}}",
        ),
        &[
            &format!("spec.rules[0].subjects[0].serviceAccount.name: Invalid value: \"A\": {SUBDOMAIN}"),
            "spec.rules[0].subjects[0].serviceAccount.namespace: Required value: must specify namespace for service account",
            &format!("spec.rules[0].subjects[1].serviceAccount.namespace: Invalid value: \"B\": {LABEL}"),
        ],
    );
}

#[test]
fn levels() {
    let limited = |limited: &str| format!("metadata: {{name: l}}\nspec: {{type: Limited, limited: {{{limited}}}}}");
    let queuing = |queuing: &str| limited(&format!("limitResponse: {{type: Queue, queuing: {{{queuing}}}}}"));
    for case in [
        Case::new("least")
            .object(&limited("limitResponse: {type: Reject}"))
            .field("spec.limited.nominalConcurrencyShares", 30)
            .field("spec.limited.lendablePercent", 0),
        Case::new("queues")
            .object(&queuing(""))
            .field("spec.limited.limitResponse.queuing.queues", 64)
            .field("spec.limited.limitResponse.queuing.handSize", 8)
            .field("spec.limited.limitResponse.queuing.queueLengthLimit", 50),
        Case::new("kinds")
            .object("metadata: {name: l}\nspec: {type: Exempt, limited: {limitResponse: {type: Reject}}}")
            .errors(&[
                "spec.type: Invalid value: \"Exempt\": must be 'Exempt' if and only if `name` is 'exempt'",
                "spec.limited: Forbidden: must be nil if the type is not Limited",
            ]),
        Case::new("no kind").object("metadata: {name: l}\nspec: {type: Some}").errors(&[
            "spec.type: Unsupported value: \"Some\": supported values: \"Exempt\", \"Limited\"",
        ]),
        Case::new("nothing").object("metadata: {name: l}\nspec: {type: Limited, exempt: {}}").errors(&[
            "spec.exempt: Forbidden: must be nil if the type is Limited",
            "spec.limited: Required value: must not be empty when type is Limited",
        ]),
        Case::new("numbers")
            .object(&limited(
                "nominalConcurrencyShares: -1, lendablePercent: 101, borrowingLimitPercent: -1, limitResponse: {type: Drop}",
            ))
            .errors(&[
                "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
                "spec.limited.limitResponse.type: Unsupported value: \"Drop\": supported values: \"Queue\", \"Reject\"",
                "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
                "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
            ]),
        Case::new("no shares").object(&limited("nominalConcurrencyShares: 0, limitResponse: {type: Reject}")),
        Case::new("responses").object(&limited("limitResponse: {type: Queue}")).errors(&[
            "spec.limited.limitResponse.queuing: Required value: must not be empty if limited.limitResponse.type is Limited",
        ]),
        Case::new("refusing has no queues").object(&limited("limitResponse: {type: Reject, queuing: {}}")).errors(&[
            "spec.limited.limitResponse.queuing: Forbidden: must be nil if limited.limitResponse.type is not Limited",
        ]),
        Case::new("negative").object(&queuing("queues: -1, handSize: -1, queueLengthLimit: -1")).errors(&[
            "spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must be positive",
            "spec.limited.limitResponse.queuing.queues: Invalid value: -1: must be positive",
            "spec.limited.limitResponse.queuing.handSize: Invalid value: -1: must be positive",
        ]),
        Case::new("a large hand").object(&queuing("queues: 5, handSize: 6")).errors(&[
            "spec.limited.limitResponse.queuing.handSize: Invalid value: 6: should not be greater than queues (5)",
        ]),
        Case::new("many queues").object(&queuing("queues: 10000001, handSize: 1")).errors(&[
            "spec.limited.limitResponse.queuing.queues: Invalid value: 10000001: must not be greater than 10000000",
        ]),
        Case::new("too many bits").object(&queuing("queues: 512, handSize: 8")).errors(&[
            "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: required entropy bits of deckSize 512 and handSize \
             8 should not be greater than 60",
        ]),
    ] {
        check(&PriorityLevels, case);
    }
}

#[test]
fn statuses() {
    let (old, new) = (
        with(""),
        "metadata: {labels: {a: b}}\nstatus: {conditions: [{type: Dangling}, {type: Dangling}, {type: ''}]}",
    );
    let errors = [
        "status.conditions[1].type: Duplicate value: \"Dangling\"",
        "status.conditions[2].type: Required value: must not be empty",
    ];
    for strategy in [&FlowSchemas as &dyn Strategy, &PriorityLevels] {
        let case = Case::new("status").old(&old).object(new).subresource("status");
        check(strategy, case.errors(&errors).field("metadata.labels", ()));
    }
}

#[test]
fn mandatory_objects_stay() {
    check(
        &FlowSchemas,
        Case::new("a schema")
            .object("metadata: {name: catch-all}\nspec: {priorityLevelConfiguration: {name: l}}")
            .errors(&[
                "spec: Invalid value: {\"matchingPrecedence\":1000,\"priorityLevelConfiguration\":{\"name\":\"l\"}}: spec of \
                 'catch-all' must equal the fixed value",
            ]),
    );
    for case in [
        Case::new("a level")
            .object(
                "metadata: {name: catch-all}\nspec: {type: Limited, limited: {nominalConcurrencyShares: 6, limitResponse: \
                 {type: Reject}}}",
            )
            .errors(&[
                "spec: Invalid value: {\"limited\":{\"lendablePercent\":0,\"limitResponse\":{\"type\":\"Reject\"},\
                 \"nominalConcurrencyShares\":6},\"type\":\"Limited\"}: spec of 'catch-all' must equal the fixed value",
            ]),
        Case::new("but the exempt level's shares").object(
            "metadata: {name: exempt}\nspec: {type: Exempt, exempt: {nominalConcurrencyShares: 5, lendablePercent: 50}}",
        ),
    ] {
        check(&PriorityLevels, case);
    }
}

/// Each object is as the server would store it, and valid; each schema names a level.
#[test]
fn bootstrap_objects_are_as_stored() {
    let objects = bootstrap::objects();
    assert_eq!(objects.len(), 8 + 13);
    assert_eq!(objects.iter().filter(|b| b.mandatory).count(), 4);
    for bootstrap in objects {
        let object = &bootstrap.object;
        let kind = object.text("kind");
        let strategy: &dyn Strategy = match kind {
            "FlowSchema" => &FlowSchemas,
            _ => &PriorityLevels,
        };
        let mut stored = object.clone();
        strategy.default(&mut stored);
        let schema = SchemaRef::builtin(&GroupVersionKind::new(super::GROUP, "v1", kind)).expect("a schema");
        normalize(&mut stored, &schema, UnknownFields::Report).expect("normal");
        assert_eq!(&stored, object);
        let context = WriteContext {
            now: NOW,
            subresource: "",
            user: Writer::named("u"),
            version: "v1",
        };
        assert!(strategy.validate_create(&stored, &context).is_empty(), "{object}");
        let level = object.text("spec.priorityLevelConfiguration.name");
        let names = |other: &Value| other.text("kind") != kind && other.text("metadata.name") == level;
        assert!(
            kind != "FlowSchema" || objects.iter().any(|other| names(&other.object)),
            "{level}"
        );
    }
}
