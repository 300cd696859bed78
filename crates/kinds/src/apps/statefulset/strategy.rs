//! Defaults, rules and what happens around a write of a stateful set.
//!
//! Source: `SetDefaults_StatefulSet`, `ValidateStatefulSetSpec`, `ValidateStatefulSetUpdate` and
//! `pkg/registry/apps/statefulset/strategy.go`.

use api::Value;
use api::field::ErrorList;
use api::validation::{dns1123_label, int_or_percent};
use serde_json::json;

use crate::apps::workload::{self, amount, at_most_all};
use crate::check::{At, Report};
use crate::core::{persistentvolumeclaim, pod};
use crate::gates;
use crate::generic;
use crate::row::{Strategy, WriteContext};
use crate::view::{Edit, View};

const HISTORY_DEFAULT: i64 = 10;
const RETENTION: [&str; 2] = ["Retain", "Delete"];

/// What an update may change.
const MUTABLE: [&str; 7] = [
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];
const IMMUTABLE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                         'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                         'minReadySeconds' are forbidden";

/// Stateful sets.
pub struct StatefulSets;

/// Which rules a stored set may go on breaking: they are younger than some sets.
#[derive(Clone, Copy)]
struct Tolerated {
    /// The name of the service and the claims, which never change.
    immutable: bool,
    /// The pod's spec.
    template: bool,
}

impl Strategy for StatefulSets {
    fn default(&self, object: &mut Value) {
        default(object);
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        generic::reset_status(object);
        drop_disabled(object, None);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
        drop_disabled(object, Some(old));
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        let tolerated = Tolerated {
            immutable: false,
            template: false,
        };
        Report::of(object, |object| spec(&object.get("spec"), None, tolerated))
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |object| match context.subresource {
            "status" => status(&object.get("status"), old),
            _ => update(&object.get("spec"), old.at("spec")),
        })
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, context: &WriteContext) -> Vec<String> {
        if context.subresource == "status" {
            return Vec::new();
        }
        let mut told = pod::spec_warnings("spec.template", object, old);
        for (index, claim) in object.list("spec.volumeClaimTemplates").iter().enumerate() {
            // The step that updates show is upstream's.
            let step = if old.is_some() { ".Spec" } else { "" };
            let path = format!("spec.volumeClaimTemplates[{index}]{step}");
            told.extend(persistentvolumeclaim::warnings(&path, claim.at("spec")));
        }
        if object.count("spec.revisionHistoryLimit") < 0 {
            let text = "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is \
                        recommended";
            told.push(text.into());
        }
        told
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn default(object: &mut Value) {
    pod::default_template(object.existing("spec.template"));
    for claim in object.elements("spec.volumeClaimTemplates") {
        // Upstream always writes what a nested claim is, and an empty metadata's creation time.
        claim.put("apiVersion", "v1");
        claim.put("kind", "PersistentVolumeClaim");
        claim.object("status");
        claim["status"].put_default("phase", "Pending");
        pod::round_up(claim.existing("status.capacity"));
        pod::round_up(claim.existing("spec.resources.limits"));
        pod::round_up(claim.existing("spec.resources.requests"));
        persistentvolumeclaim::default_spec(claim.existing("spec"));
    }
    object.object("spec.updateStrategy");
    let spec = &mut object["spec"];
    spec.put_default("podManagementPolicy", "OrderedReady");
    if spec.text("updateStrategy.type").is_empty() {
        spec["updateStrategy"].put("type", "RollingUpdate");
        spec.object("updateStrategy.rollingUpdate");
    }
    if spec.text("updateStrategy.type") == "RollingUpdate"
        && let Some(rolling) = spec.existing("updateStrategy.rollingUpdate")
    {
        rolling.put_default("partition", 0);
    }
    spec.object("persistentVolumeClaimRetentionPolicy");
    spec["persistentVolumeClaimRetentionPolicy"].put_default("whenDeleted", "Retain");
    spec["persistentVolumeClaimRetentionPolicy"].put_default("whenScaled", "Retain");
    spec.put_default("replicas", 1);
    spec.put_default("revisionHistoryLimit", HISTORY_DEFAULT);
}

fn drop_disabled(object: &mut Value, old: Option<&Value>) {
    workload::drop_disabled(object, old);
    if let Some(strategy) = object.existing("spec.updateStrategy") {
        let old = old.map(|old| old.at("spec.updateStrategy"));
        gates::drop_disabled(strategy, old, "apps.v1.StatefulSetUpdateStrategy");
    }
}

fn spec(spec: &At, old: Option<&Value>, tolerated: Tolerated) {
    let policy = spec.get("podManagementPolicy");
    if policy.required() {
        let known = ["OrderedReady", "Parallel"].contains(&policy.text());
        policy.ensure(known, "must be 'OrderedReady' or 'Parallel'");
    }
    update_strategy(&spec.get("updateStrategy"));
    let retention = spec.get("persistentVolumeClaimRetentionPolicy");
    if retention.is_set() {
        retention.get("whenDeleted").one_of(&RETENTION);
        retention.get("whenScaled").one_of(&RETENTION);
    }
    spec.get("replicas").non_negative();
    spec.get("minReadySeconds").non_negative();
    spec.get("ordinals.start").non_negative();
    if !tolerated.immutable {
        for claim in spec.items("volumeClaimTemplates") {
            persistentvolumeclaim::validate_spec(&claim.get("spec"), &Value::Null);
        }
        let service = spec.get("serviceName");
        if !service.is_empty() {
            service.check(dns1123_label(service.text()));
        }
    }
    let selector = spec.get("selector");
    if !selector.is_set() {
        selector.missing("");
    }
    workload::well_formed(&selector, "statefulset");
    if workload::selector_is_readable(&selector, "") {
        workload::selected(spec);
        self::template(spec, old, tolerated);
    }
    workload::runs_forever(&spec.get("template"), "StatefulSet");
}

fn update_strategy(strategy: &At) {
    let rolling = strategy.get("rollingUpdate");
    match strategy.value.text("type") {
        "" => strategy.missing(""),
        "OnDelete" if rolling.is_set() => rolling.invalid("only allowed for updateStrategy 'RollingUpdate'"),
        "OnDelete" => {}
        "RollingUpdate" => rolling_update(&rolling),
        _ => strategy.invalid("must be 'RollingUpdate' or 'OnDelete'"),
    }
}

fn rolling_update(rolling: &At) {
    rolling.get("partition").non_negative();
    let unavailable = rolling.get("maxUnavailable");
    if unavailable.is_set() {
        unavailable.extend(int_or_percent(unavailable.value, &unavailable.path));
        unavailable.ensure(amount(unavailable.value) != 0, "cannot be 0");
        at_most_all(&unavailable);
    }
}

/// The template as pods will have it: host name and subdomain are the controller's to write, and each claim is a volume,
/// which hides one of the template's own of that name.
fn template(spec: &At, old: Option<&Value>, tolerated: Tolerated) {
    let template = spec.get("template");
    if tolerated.template {
        return pod::validate_template_metadata(&template, old.map(|old| old.at("template")));
    }
    let mut whole = template.value.clone();
    for field in ["spec.subdomain", "spec.hostname"] {
        whole.cut(field);
    }
    let claims: Vec<&str> = spec.value.list("volumeClaimTemplates").iter().map(name).collect();
    if !claims.is_empty() {
        let mut volumes: Vec<Value> = claims
            .iter()
            .enumerate()
            .filter(|(index, name)| !claims[..*index].contains(name))
            .map(|(_, name)| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
            .collect();
        let own = whole.list("spec.volumes").iter();
        volumes.extend(own.filter(|volume| !claims.contains(&volume.text("name"))).cloned());
        whole.object("spec").insert("volumes".into(), volumes.into());
    }
    let whole = At {
        value: &whole,
        path: template.path.clone(),
        report: template.report,
    };
    pod::validate_template(&whole, old.map(|old| old.at("template")));
}

fn name(claim: &Value) -> &str {
    claim.text("metadata.name")
}

fn update(spec: &At, old: &Value) {
    let mut tolerated = Tolerated {
        immutable: true,
        template: false,
    };
    tolerated.template = !Report::of(old, |before| self::spec(&before, Some(old), tolerated)).is_empty();
    self::spec(spec, Some(old), tolerated);
    let mut masked = spec.value.clone();
    for field in MUTABLE {
        masked.copy_from(old, field);
    }
    if masked != *old {
        spec.forbidden(IMMUTABLE);
    }
}

fn status(status: &At, old: &Value) {
    workload::counters(
        status,
        &[
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ],
        &[
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
        ],
    );
    workload::available_is_ready(status, "cannot be greater than status.readyReplicas");
    workload::collisions(status, old);
}
