//! The rules of a pod spec, in a pod and in a template.
//!
//! Source: `ValidatePodSpec` and `ValidatePodTemplateSpec` in `pkg/apis/core/validation/validation.go`. In an update, some
//! rules may stay broken as they were ([`Tolerated`]).

use std::collections::BTreeSet;

use api::Value;
use api::validation::{annotations, dns1123_label, dns1123_subdomain, dns1123_subdomain_underscore, ip_legacy, labels};

use super::containers::{self, Pod};
use super::tolerated::Tolerated;
use super::{resources, scheduling, security, volumes, whole, windows};
use crate::check::{At, range};
use crate::names;
use crate::view::View;

const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
const DELETION_COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARACTERS_MAX: usize = 2048;
const HOSTNAME_CHARACTERS_MAX: usize = 64;
const WITHOUT_HOST_USERS: &str = "when `hostUsers` is false";

/// A pod but for `metadata`, whose general rules are the caller's.
pub fn pod(pod: &At, old: Option<&Value>) {
    let tolerated = Tolerated::of(old);
    pod_annotations(pod, tolerated);
    let spec = pod.get("spec");
    validate(&spec, Some(pod.value), tolerated);
    if spec.get("serviceAccountName").is_empty() {
        for volume in spec.items("volumes") {
            for source in volume.items("projected.sources") {
                let detail = "must not be specified when serviceAccountName is not set";
                source.get("serviceAccountToken").forbidden_when_set(detail);
            }
        }
    }
    for list in ["containers", "initContainers"] {
        spec.items(list).iter().for_each(containers::image_is_trimmed);
    }
}

/// A pod template.
pub fn template(template: &At, old: Option<&Value>) {
    let tolerated = Tolerated::of(old);
    template_metadata(template, tolerated);
    let spec = template.get("spec");
    validate(&spec, None, tolerated);
    security::annotations_match_fields(template);
    let ephemeral = spec.get("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden("ephemeral containers not allowed in pod template");
    }
}

/// The labels and annotations of a pod template.
pub fn template_metadata(template: &At, tolerated: Tolerated) {
    let labels_at = template.get("metadata.labels");
    // Upstream leaves `metadata` out of these paths.
    labels_at.extend(labels(labels_at.value, &template.path.child("labels")));
    let annotations_at = template.get("metadata.annotations");
    annotations_at.extend(annotations(annotations_at.value, &template.path.child("annotations")));
    pod_annotations(template, tolerated);
}

/// Annotations that mean something for a pod.
fn pod_annotations(pod: &At, tolerated: Tolerated) {
    for (key, value) in pod.entries("metadata.annotations") {
        if key == MIRROR_ANNOTATION && pod.value.text("spec.nodeName").is_empty() {
            value.invalid("must set spec.nodeName if mirror pod annotation is set");
        }
    }
    if !tolerated.deletion_cost {
        deletion_cost(pod);
    }
    security::annotations(pod);
}

/// What the deletion of this pod costs, beside that of others of its set, is a number.
pub fn deletion_cost(pod: &At) {
    for (key, value) in pod.entries("metadata.annotations") {
        if key == DELETION_COST_ANNOTATION && !is_deletion_cost(value.text()) {
            value.invalid("must be a 32bit integer");
        }
    }
}

/// Go's number without a leading plus or zero.
fn is_deletion_cost(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = text == "0" || (digits.starts_with(|c: char| c.is_ascii_digit()) && !digits.starts_with('0'));
    canonical && text.parse::<i32>().is_ok()
}

/// Whether the kubelet made the pod from a file.
pub fn is_mirror(pod: &Value) -> bool {
    api::meta::annotation(pod, MIRROR_ANNOTATION).is_some()
}

fn validate(spec: &At, pod: Option<&Value>, tolerated: Tolerated) {
    let grace = spec.get("terminationGracePeriodSeconds");
    if !grace.is_set() {
        grace.missing("");
    }
    let pod_name = pod.map_or("", |pod| pod.text("metadata.name"));
    let facts = Pod {
        volumes: volumes::validate(spec, pod_name, pod.is_some(), tolerated),
        claims: resource_claims(spec, pod),
        grace_seconds: grace.number(),
        host_users: spec.value.boolean("hostUsers").unwrap_or(true),
        restart_policy: spec.value.text("restartPolicy"),
        os: spec.value.has("os").then(|| spec.value.text("os.name")),
        tolerated,
    };
    containers::regular(spec, &facts);
    containers::init(spec, &facts);
    containers::ephemeral(spec, &facts);
    whole::validate(spec, &facts.claims, tolerated.partial_huge_pages);
    host_network_ports(spec, pod.is_some());
    spec.get("restartPolicy")
        .required_one_of(&["Always", "OnFailure", "Never"]);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    spec.get("dnsPolicy").required_one_of(&policies);
    security::pod(spec, tolerated);
    dns_config(spec);
    scheduling::validate(spec, tolerated);
    windows::host_process(spec);
    host_users(spec, tolerated);
    host_name(spec);
    references(spec);
    let deadline = spec.get("activeDeadlineSeconds");
    deadline.in_range(1, i32::MAX.into());
    host_aliases(spec);
    let policy = spec.get("preemptionPolicy");
    if policy.is_set() {
        policy.required_one_of(&["PreemptLowerPriority", "Never"]);
    }
    let overhead = spec.get("overhead");
    if overhead.is_set() {
        resources::overhead(&overhead, tolerated.partial_huge_pages);
    }
    windows::operating_system(spec);
    file_key_volumes(spec);
}

/// Names of other objects, and of the pod in DNS.
fn references(spec: &At) {
    type Rule = fn(&str, bool) -> Vec<String>;
    let rules: [(&str, Rule); 6] = [
        ("serviceAccountName", names::subdomain),
        ("nodeName", names::subdomain),
        ("hostname", |name, _| dns1123_label(name)),
        ("subdomain", |name, _| dns1123_label(name)),
        ("priorityClassName", names::subdomain),
        ("runtimeClassName", names::subdomain),
    ];
    for (field, rule) in rules {
        let name = spec.get(field);
        // A runtime class that is set to nothing is a mistake; the other names are then unset.
        if !name.is_empty() || (field == "runtimeClassName" && name.is_set()) {
            name.check(rule(name.text(), false));
        }
    }
}

/// Returns the names that containers may refer to.
fn resource_claims(spec: &At, pod: Option<&Value>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for claim in spec.items("resourceClaims") {
        if pod.is_some_and(is_mirror) {
            let at = claim.unnamed();
            at.forbidden("static pods do not support resource claims");
            continue;
        }
        let name = claim.get("name");
        if name.required() {
            let before = seen.len();
            name.unique(&mut seen);
            if seen.len() > before {
                name.check(dns1123_label(name.text()));
            }
        }
        let (direct, template) = (claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName"));
        if direct.is_set() && template.is_set() {
            claim.invalid("at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified");
        }
        if !direct.is_set() && !template.is_set() {
            claim.invalid("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`");
        }
        for name in [direct, template] {
            if name.is_set() {
                name.check(names::subdomain(name.text(), false));
            }
        }
    }
    let names = spec.value.list("resourceClaims").iter().map(|claim| claim.text("name"));
    names.filter(|name| !name.is_empty()).map(String::from).collect()
}

/// On the host's network, a port is the same outside and inside. A template may leave it open.
fn host_network_ports(spec: &At, is_pod: bool) {
    if !spec.value.flag("hostNetwork") {
        return;
    }
    for port in spec
        .items("containers")
        .iter()
        .flat_map(|container| container.items("ports"))
    {
        let host = port.get("hostPort");
        let number = host.number().unwrap_or(0);
        if (is_pod || number != 0) && number != port.value.count("containerPort") {
            host.invalid_as(number, "must match `containerPort` when `hostNetwork` is true");
        }
    }
}

fn dns_config(spec: &At) {
    let config = spec.get("dnsConfig");
    let (servers, searches) = (config.get("nameservers"), config.get("searches"));
    if spec.value.text("dnsPolicy") == "None" {
        if !config.is_set() {
            return config.missing("must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            return servers.missing("must provide at least one DNS nameserver when `dnsPolicy` is None");
        }
    }
    if config.value.list("nameservers").len() > NAMESERVERS_MAX {
        servers.invalid(format!("must not have more than {NAMESERVERS_MAX} nameservers"));
    }
    for server in config.items("nameservers") {
        server.extend(ip_legacy(&server.path, server.text(), true, &[]));
    }
    let all: Vec<&str> = config.value.texts("searches").collect();
    if all.len() > SEARCHES_MAX {
        searches.invalid(format!("must not have more than {SEARCHES_MAX} search paths"));
    }
    if all.join(" ").len() > SEARCH_CHARACTERS_MAX {
        let detail =
            format!("must not have more than {SEARCH_CHARACTERS_MAX} characters (including spaces) in the search list");
        searches.invalid(detail);
    }
    for search in config.items("searches").iter().filter(|search| search.text() != ".") {
        let text = search.text().strip_suffix('.').unwrap_or(search.text());
        for message in dns1123_subdomain_underscore(text) {
            search.invalid_as(text, message);
        }
    }
    for option in config.items("options") {
        if option.get("name").is_empty() {
            option.missing("must not be empty");
        }
    }
}

fn host_users(spec: &At, tolerated: Tolerated) {
    if spec.value.boolean("hostUsers") != Some(false) {
        return;
    }
    // Two of these names are upstream's misspelling.
    for (field, shown) in [
        ("hostNetwork", "hostNetwork"),
        ("hostPID", "HostPID"),
        ("hostIPC", "HostIPC"),
    ] {
        if spec.value.flag(field) {
            spec.get(shown).forbidden(WITHOUT_HOST_USERS);
        }
    }
    if !tolerated.devices {
        devices(spec);
    }
}

/// The owners of a block device are not mapped into a user namespace.
pub fn devices(spec: &At) {
    if spec.value.boolean("hostUsers") != Some(false) {
        return;
    }
    for container in security::containers_at(spec) {
        let devices = container.get("volumeDevices");
        if !devices.is_empty() {
            devices.forbidden(WITHOUT_HOST_USERS);
        }
    }
}

fn host_name(spec: &At) {
    let name = spec.get("hostnameOverride");
    if !name.is_set() {
        return;
    }
    for field in ["setHostnameAsFQDN", "hostNetwork"] {
        if spec.value.flag(field) {
            name.forbidden(format!("may not be specified when {field} is true"));
        }
    }
    if name.text().len() > HOSTNAME_CHARACTERS_MAX {
        name.too_long(HOSTNAME_CHARACTERS_MAX);
    }
    name.check(dns1123_subdomain(name.text()));
}

fn host_aliases(spec: &At) {
    for alias in spec.items("hostAliases") {
        let address = alias.get("ip");
        address.extend(ip_legacy(&address.path, address.text(), true, &[]));
        for name in alias.items("hostnames") {
            name.check(dns1123_subdomain(name.text()));
        }
    }
}

/// A variable can be read from a file of an emptyDir only.
fn file_key_volumes(spec: &At) {
    for variable in security::containers_at(spec)
        .iter()
        .flat_map(|container| container.items("env"))
    {
        let volume = variable.get("valueFrom.fileKeyRef.volumeName");
        if !variable.value.has("valueFrom.fileKeyRef") {
            continue;
        }
        match spec
            .value
            .list("volumes")
            .iter()
            .find(|v| v.text("name") == volume.text())
        {
            None => volume.not_found(),
            Some(source) => volume.ensure(source.has("emptyDir"), "referenced volume must be of type emptyDir"),
        }
    }
}

/// The rule of `activeDeadlineSeconds` in updates.
pub fn deadline_range() -> String {
    range(0, i32::MAX)
}
