//! Where a persistent volume's data is: exactly one of upstream's volume types.
//!
//! Source: the second half of `ValidatePersistentVolumeSpec` in `pkg/apis/core/validation/validation.go`. Most types follow
//! the rules of a pod's volumes; those whose secrets live in any namespace have more.

use api::field::Path;
use api::validation::{dns1123_label, dns1123_subdomain};

use crate::check::At;
use crate::core::pod::{paths, volumes};
use crate::names;
use crate::view::View;

/// The name of a volume and the portal of its target together: what the kernel takes.
const ISCSI_PORTAL_CHARACTERS_MAX: usize = 64;

type Rule = fn(&At);

/// (field, what errors of a second source call it, what errors inside call it, rule); in upstream's order.
const SOURCES: [(&str, &str, &str, Rule); 22] = [
    ("hostPath", "hostPath", "hostPath", volumes::host_path),
    ("gcePersistentDisk", "gcePersistentDisk", "persistentDisk", |s| {
        volumes::disk(s, "pdName")
    }),
    (
        "awsElasticBlockStore",
        "awsElasticBlockStore",
        "awsElasticBlockStore",
        |s| volumes::disk(s, "volumeID"),
    ),
    ("glusterfs", "glusterfs", "glusterfs", glusterfs),
    ("flocker", "flocker", "flocker", volumes::flocker),
    ("nfs", "nfs", "nfs", volumes::nfs),
    ("rbd", "rbd", "rbd", |s| volumes::need(s, &["monitors", "image"])),
    ("quobyte", "quobyte", "quobyte", volumes::quobyte),
    ("cephfs", "cephFS", "cephfs", |s| volumes::need(s, &["monitors"])),
    ("iscsi", "iscsi", "iscsi", iscsi),
    ("cinder", "cinder", "cinder", |s| {
        volumes::need(s, &["volumeID"]);
        secret_anywhere(s);
    }),
    ("fc", "fc", "fc", volumes::fibre_channel),
    ("flexVolume", "flexVolume", "flexVolume", volumes::flex_volume),
    ("azureFile", "azureFile", "azureFile", azure_file),
    ("vsphereVolume", "vsphereVolume", "vsphereVolume", |s| {
        volumes::need(s, &["volumePath"])
    }),
    (
        "photonPersistentDisk",
        "photonPersistentDisk",
        "photonPersistentDisk",
        |s| volumes::need(s, &["pdID"]),
    ),
    ("portworxVolume", "portworxVolume", "portworxVolume", |s| {
        volumes::need(s, &["volumeID"])
    }),
    ("azureDisk", "azureDisk", "azureDisk", volumes::azure_disk),
    ("scaleIO", "scaleIO", "scaleIO", |s| {
        volumes::need(s, &["gateway", "system", "volumeName"])
    }),
    ("local", "local", "local", local),
    ("storageos", "storageos", "storageos", |s| {
        volumes::storage_os(s);
        secret_namespace(s);
    }),
    ("csi", "csi", "csi", csi),
];

/// The names of all sources.
pub fn fields() -> impl Iterator<Item = &'static str> {
    SOURCES.iter().map(|(field, ..)| *field)
}

/// Exactly one source, by its own rules. `name` is the volume's, empty for one that a VolumeAttachment describes.
pub fn validate(spec: &At, name: &str) {
    let mut found = false;
    for (field, second, inside, rule) in SOURCES {
        let source = spec.get(field);
        if !source.is_set() {
            continue;
        }
        // Upstream takes a FlexVolume beside another source, whose rules then are not asked.
        if found && field != "flexVolume" {
            let at = spec.elsewhere(spec.path.child(second), source.value);
            at.forbidden("may not specify more than 1 volume type");
            continue;
        }
        found = true;
        rule(&spec.elsewhere(spec.path.child(inside), source.value));
        if field == "iscsi" {
            iscsi_portal(&source, name);
        }
        if field == "local" && !spec.get("nodeAffinity").is_set() {
            spec.get("nodeAffinity").missing("Local volume requires node affinity");
        }
    }
    if !found {
        spec.missing("must specify a volume type");
    }
}

fn glusterfs(source: &At) {
    volumes::need(source, &["endpoints", "path"]);
    let namespace = source.get("endpointsNamespace");
    if !namespace.is_set() {
        return;
    }
    match namespace.text() {
        "" => namespace.invalid("if the endpointnamespace is set, it must be a valid namespace name"),
        text => namespace.check(names::label(text, false)),
    }
}

fn iscsi(source: &At) {
    volumes::iscsi(source, "must be valid format");
    volumes::secret_reference(source);
}

fn iscsi_portal(source: &At, name: &str) {
    let portal = source.value.text("targetPortal");
    let length = name.len() + ":".len() + portal.len();
    if source.get("initiatorName").is_set() && length > ISCSI_PORTAL_CHARACTERS_MAX {
        let at = source.elsewhere(source.path.child("targetportal"), source.value);
        let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if \
                      iscsi.initiatorName is specified.";
        at.invalid_as(portal, detail);
    }
}

/// A secret that is referred to has a name and a namespace.
fn secret_anywhere(source: &At) {
    volumes::secret_reference(source);
    secret_namespace(source);
}

fn secret_namespace(source: &At) {
    if source.get("secretRef").is_set() {
        source.get("secretRef.namespace").required();
    }
}

fn azure_file(source: &At) {
    volumes::need(source, &["secretName", "shareName"]);
    let namespace = source.get("secretNamespace");
    if namespace.is_set() {
        namespace.required();
    }
}

fn local(source: &At) {
    let path = source.get("path");
    if path.required() {
        paths::no_backsteps(&path);
    }
}

fn csi(source: &At) {
    volumes::driver_name(&source.get("driver"));
    volumes::need(source, &["volumeHandle"]);
    for secret in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let secret = source.get(secret);
        if secret.is_set() {
            csi_secret(&secret);
        }
    }
}

fn csi_secret(secret: &At) {
    let (name, namespace) = (secret.get("name"), secret.get("namespace"));
    if name.required() {
        name.check(dns1123_subdomain(name.text()));
    }
    if namespace.required() {
        namespace.check(dns1123_label(namespace.text()));
    }
}

/// Types that mount options in the annotation of old are not for.
pub fn mount_options(object: &At) {
    let supported = [
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "glusterfs",
        "nfs",
        "rbd",
        "quobyte",
        "iscsi",
        "cinder",
        "cephfs",
        "azureFile",
        "vsphereVolume",
        "azureDisk",
        "photonPersistentDisk",
    ];
    let asked = api::meta::annotation(object.value, super::MOUNT_OPTIONS_ANNOTATION).is_some();
    if asked && !supported.iter().any(|source| object.value.at("spec").has(source)) {
        let path = Path::new("metadata")
            .child("annotations")
            .child(super::MOUNT_OPTIONS_ANNOTATION);
        object
            .elsewhere(path, object.value)
            .forbidden("may not specify mount options for this volume type");
    }
}
