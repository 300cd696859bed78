//! Rules for a pod's volumes.
//!
//! Source: `ValidateVolumes` and what it calls in `pkg/apis/core/validation/validation.go`.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use api::quantity::Quantity;
use api::validation::{dns1123_label, dns1123_subdomain};
use regex::Regex;

use super::mounts::Volumes;
use super::tolerated::Tolerated;
use super::{containers, env, paths, projected};
use crate::check::{At, range};
use crate::names;
use crate::view::View;

/// The largest file mode, in octal 0777.
const FILE_MODE_MAX: i64 = 0o777;
const ISCSI_PORTAL_CHARACTERS_MAX: usize = 64;
const DRIVER_NAME_CHARACTERS_MAX: usize = 63;

static IQN: LazyLock<Regex> = LazyLock::new(|| rule(r"iqn\.\d{4}-\d{2}\.([[:alnum:]\-.]+)(:[^,;*&$|\s]+)$"));
static EUI: LazyLock<Regex> = LazyLock::new(|| rule("^eui.[[:alnum:]]{16}$"));
static NAA: LazyLock<Regex> = LazyLock::new(|| rule("^naa.[[:alnum:]]{32}$"));

fn rule(pattern: &str) -> Regex {
    Regex::new(pattern).expect("invariant: a constant pattern")
}

/// Checks all volumes and returns the valid ones. `pod_name` is empty in templates.
pub fn validate<'a>(spec: &At<'a>, pod_name: &str, is_pod: bool, tolerated: Tolerated) -> Volumes<'a> {
    let claims: BTreeSet<String> = spec
        .value
        .list("volumes")
        .iter()
        .filter(|volume| !pod_name.is_empty() && volume.has("ephemeral"))
        .map(|volume| format!("{pod_name}-{}", volume.text("name")))
        .collect();
    let mut valid = Volumes::new();
    for volume in spec.items("volumes") {
        let before = volume.report.len();
        source(&volume, pod_name, is_pod);
        if !tolerated.token_paths {
            projected::token_paths(&volume.get("projected"));
        }
        let name = volume.get("name");
        if name.required() {
            name.check(dns1123_label(name.text()));
        }
        if valid.contains_key(name.text()) {
            name.duplicate(name.text());
        }
        if volume.report.len() == before {
            valid.insert(name.text(), volume.value);
        }
        let claim = volume.get("persistentVolumeClaim.claimName");
        if claims.contains(claim.text()) {
            claim.invalid("must not reference a PVC that gets created for an ephemeral volume");
        }
    }
    valid
}

type Rule = fn(&At);

/// (field, what errors of a second source call it, what errors inside call it, rule); in upstream's order.
const SOURCES: [(&str, &str, &str, Rule); 30] = [
    ("emptyDir", "emptyDir", "emptyDir", empty_dir),
    ("hostPath", "hostPath", "hostPath", host_path),
    ("gitRepo", "gitRepo", "gitRepo", git_repo),
    ("gcePersistentDisk", "gcePersistentDisk", "persistentDisk", |s| {
        disk(s, "pdName")
    }),
    (
        "awsElasticBlockStore",
        "awsElasticBlockStore",
        "awsElasticBlockStore",
        |s| disk(s, "volumeID"),
    ),
    ("secret", "secret", "secret", |s| files(s, "secretName")),
    ("nfs", "nfs", "nfs", nfs),
    ("iscsi", "iscsi", "iscsi", |source| iscsi(source, ISCSI_FORM)),
    ("glusterfs", "glusterfs", "glusterfs", |s| {
        need(s, &["endpoints", "path"])
    }),
    ("flocker", "flocker", "flocker", flocker),
    (
        "persistentVolumeClaim",
        "persistentVolumeClaim",
        "persistentVolumeClaim",
        |s| need(s, &["claimName"]),
    ),
    ("rbd", "rbd", "rbd", |s| need(s, &["monitors", "image"])),
    ("cinder", "cinder", "cinder", |s| {
        need(s, &["volumeID"]);
        secret_reference(s);
    }),
    ("cephfs", "cephFS", "cephfs", |s| need(s, &["monitors"])),
    ("quobyte", "quobyte", "quobyte", quobyte),
    ("downwardAPI", "downwarAPI", "downwardAPI", downward_api),
    ("fc", "fc", "fc", fibre_channel),
    ("flexVolume", "flexVolume", "flexVolume", flex_volume),
    ("configMap", "configMap", "configMap", |s| files(s, "name")),
    ("azureFile", "azureFile", "azureFile", |s| {
        need(s, &["secretName", "shareName"])
    }),
    ("vsphereVolume", "vsphereVolume", "vsphereVolume", |s| {
        need(s, &["volumePath"])
    }),
    (
        "photonPersistentDisk",
        "photonPersistentDisk",
        "photonPersistentDisk",
        |s| need(s, &["pdID"]),
    ),
    ("portworxVolume", "portworxVolume", "portworxVolume", |s| {
        need(s, &["volumeID"])
    }),
    ("azureDisk", "azureDisk", "azureDisk", azure_disk),
    ("storageos", "storageos", "storageos", storage_os),
    ("projected", "projected", "projected", projected::validate),
    ("scaleIO", "scaleIO", "scaleIO", |s| {
        need(s, &["gateway", "system", "volumeName"])
    }),
    ("csi", "csi", "csi", csi),
    ("ephemeral", "ephemeral", "ephemeral", ephemeral),
    ("image", "image", "image", |s| {
        containers::pull_policy(&s.get("pullPolicy"))
    }),
];

fn source(volume: &At, pod_name: &str, is_pod: bool) {
    let name = volume.get("name");
    let mut found = false;
    for (field, second, inside, rule) in SOURCES {
        let source = volume.get(field);
        if !source.is_set() {
            continue;
        }
        if found {
            let at = volume.elsewhere(volume.path.child(second), source.value);
            at.forbidden("may not specify more than 1 volume type");
            continue;
        }
        found = true;
        if field == "image" && is_pod {
            source.get("reference").required();
        }
        rule(&volume.elsewhere(volume.path.child(inside), source.value));
        if field == "iscsi" && source.get("initiatorName").is_set() {
            let portal = format!("{}:{}", name.text(), source.value.text("targetPortal"));
            let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if \
                          iscsi.initiatorName is specified.";
            name.ensure(portal.len() <= ISCSI_PORTAL_CHARACTERS_MAX, detail);
        }
        if field == "ephemeral" && !pod_name.is_empty() && !name.is_empty() {
            let claim = format!("{pod_name}-{}", name.text());
            for message in names::subdomain(&claim, false) {
                name.invalid(format!("PVC name {claim:?}: {message}"));
            }
        }
    }
    if !found {
        volume.missing("must specify a volume type");
    }
}

/// Fields that must not be empty.
pub fn need(source: &At, fields: &[&str]) {
    for field in fields {
        source.get(field).required();
    }
}

/// A secret that is referred to has a name.
pub fn secret_reference(source: &At) {
    if source.get("secretRef").is_set() {
        source.get("secretRef.name").required();
    }
}

fn empty_dir(source: &At) {
    let limit = source.get("sizeLimit");
    if Quantity::from_value(limit.value).is_ok_and(|quantity| quantity.sign() < 0) {
        limit.forbidden("SizeLimit field must be a valid resource quantity");
    }
}

/// A path of the node.
pub fn host_path(source: &At) {
    let path = source.get("path");
    if !path.required() {
        return;
    }
    paths::no_backsteps(&path);
    let kind = source.get("type");
    if kind.is_set() {
        kind.one_of(&[
            "",
            "BlockDevice",
            "CharDevice",
            "Directory",
            "DirectoryOrCreate",
            "File",
            "FileOrCreate",
            "Socket",
        ]);
    }
}

fn git_repo(source: &At) {
    need(source, &["repository"]);
    paths::local_descending(&source.get("directory"));
}

/// A disk of a cloud, under the field that names it.
pub fn disk(source: &At, name: &str) {
    need(source, &[name]);
    let partition = source.get("partition");
    let number = partition.number().unwrap_or(0);
    // Upstream allows 0 and says 1.
    partition.ensure((0..=255).contains(&number), range(1, 255));
}

/// A secret or config map shown as files.
fn files(source: &At, name: &str) {
    need(source, &[name]);
    mode(&source.get("defaultMode"));
    for item in source.items("items") {
        key_to_path(&item);
    }
}

/// A file mode in range.
pub fn mode(mode: &At) {
    let out_of_range = mode.number().is_some_and(|mode| !(0..=FILE_MODE_MAX).contains(&mode));
    mode.ensure(
        !out_of_range,
        "must be a number between 0 and 0777 (octal), both inclusive",
    );
}

/// One key shown as one file.
pub fn key_to_path(item: &At) {
    need(item, &["key", "path"]);
    paths::local_not_reserved(&item.get("path"));
    mode(&item.get("mode"));
}

/// A directory of an NFS server.
pub fn nfs(source: &At) {
    need(source, &["server", "path"]);
    let path = source.get("path");
    if !path.text().starts_with('/') {
        path.invalid_as(path.text(), "must be an absolute path");
    }
}

/// What a pod is told of an iSCSI name of no known form; a persistent volume hears less.
const ISCSI_FORM: &str = "must be valid format starting with iqn, eui, or naa";

/// A disk over iSCSI; `form` is what is said of a name of no known form.
pub fn iscsi(source: &At, form: &str) {
    need(source, &["targetPortal"]);
    let name = source.get("iqn");
    if name.required() {
        iscsi_name(&name, form);
    }
    source.get("lun").in_range(0, 255);
    let authenticated = source.value.flag("chapAuthDiscovery") || source.value.flag("chapAuthSession");
    if authenticated && !source.get("secretRef").is_set() {
        source.get("secretRef").missing("");
    }
    let initiator = source.get("initiatorName");
    if initiator.is_set() {
        iscsi_name(
            &source.elsewhere(source.path.child("initiatorname"), initiator.value),
            form,
        );
    }
}

fn iscsi_name(name: &At, form: &str) {
    let text = name.text();
    let pattern = match text.get(..3) {
        Some("iqn") => &IQN,
        Some("eui") => &EUI,
        Some("naa") => &NAA,
        _ => return name.invalid(form),
    };
    name.ensure(pattern.is_match(text), "must be valid format");
}

/// A data set of Flocker.
pub fn flocker(source: &At) {
    let (name, id) = (source.get("datasetName"), source.get("datasetUUID"));
    if name.is_empty() && id.is_empty() {
        source.missing("one of datasetName and datasetUUID is required");
    }
    if !name.is_empty() && !id.is_empty() {
        source.invalid_as(
            "resource",
            "datasetName and datasetUUID can not be specified simultaneously",
        );
    }
    name.ensure(!name.text().contains('/'), "must not contain '/'");
}

/// A volume of Quobyte.
pub fn quobyte(source: &At) {
    let registry = source.get("registry");
    let pairs = "must be a host:port pair or multiple pairs separated by commas";
    if registry.is_empty() {
        registry.missing(pairs);
    } else if source.value.text("tenant").len() >= 65 {
        source
            .get("tenant")
            .missing("must be a UUID and may not exceed a length of 64 characters");
    } else {
        for pair in registry.text().split(',') {
            let colons = pair.matches(':').count();
            let readable = colons == 1 || (pair.starts_with('[') && pair.contains("]:"));
            registry.ensure(readable, pairs);
        }
    }
    need(source, &["volume"]);
}

fn downward_api(source: &At) {
    mode(&source.get("defaultMode"));
    for item in source.items("items") {
        downward_api_file(&source.elsewhere(source.path.clone(), item.value));
    }
}

/// One file of the downward API; upstream tells errors of the volume and not of the item.
pub fn downward_api_file(file: &At) {
    let path = file.get("path");
    path.required();
    paths::local_not_reserved(&path);
    let (field, resource) = (file.get("fieldRef"), file.get("resourceFieldRef"));
    if field.is_set() {
        env::field_reference(&field, &env::VOLUME_FIELDS);
        if resource.is_set() {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            file.invalid_as("resource", detail);
        }
    } else if resource.is_set() {
        env::resource_reference(&resource, true);
    } else {
        file.missing("one of fieldRef and resourceFieldRef is required");
    }
    mode(&file.get("mode"));
}

/// A disk over Fibre Channel.
pub fn fibre_channel(source: &At) {
    let (targets, ids) = (source.get("targetWWNs"), source.get("wwids"));
    if targets.is_empty() && ids.is_empty() {
        targets.missing("must specify either targetWWNs or wwids, but not both");
    }
    if !targets.is_empty() && !ids.is_empty() {
        targets.invalid("targetWWNs and wwids can not be specified simultaneously");
    }
    let lun = source.get("lun");
    if !targets.is_empty() {
        match lun.is_set() {
            true => lun.in_range(0, 255),
            false => lun.missing("lun is required if targetWWNs is specified"),
        }
    }
}

/// A volume of an exec-based plug-in.
pub fn flex_volume(source: &At) {
    need(source, &["driver"]);
    for (key, option) in source.entries("options") {
        let namespace = key.split_once('/').map_or(key, |(namespace, _)| namespace);
        let namespace = format!(".{}", namespace.to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            option.invalid_as(key, "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

/// A disk of Azure.
pub fn azure_disk(source: &At) {
    need(source, &["diskName", "diskURI"]);
    let (caching, kind, uri) = (source.get("cachingMode"), source.get("kind"), source.get("diskURI"));
    if caching.is_set() {
        caching.one_of(&["None", "ReadOnly", "ReadWrite"]);
    }
    if !kind.is_set() {
        return;
    }
    kind.one_of(&["Dedicated", "Managed", "Shared"]);
    let managed = kind.text() == "Managed";
    if managed && !uri.text().starts_with("/subscriptions/") {
        uri.not_supported(&[
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        ]);
    }
    if !managed && !uri.text().starts_with("https://") {
        uri.not_supported(&["https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"]);
    }
}

/// A volume of StorageOS.
pub fn storage_os(source: &At) {
    let (name, namespace) = (source.get("volumeName"), source.get("volumeNamespace"));
    if name.required() {
        name.check(dns1123_label(name.text()));
    }
    if !namespace.is_empty() {
        namespace.check(dns1123_label(namespace.text()));
    }
    secret_reference(source);
}

fn csi(source: &At) {
    driver_name(&source.get("driver"));
    let secret = source.get("nodePublishSecretRef");
    if secret.is_set() {
        let name = secret.get("name");
        if name.required() {
            name.elsewhere(source.path.child("name"), name.value)
                .check(names::subdomain(name.text(), false));
        }
    }
}

/// The name of a CSI driver.
pub fn driver_name(driver: &At) {
    if !driver.required() {
        return;
    }
    if driver.text().len() > DRIVER_NAME_CHARACTERS_MAX {
        driver.too_long(DRIVER_NAME_CHARACTERS_MAX);
    }
    driver.check(dns1123_subdomain(&driver.text().to_lowercase()));
}

fn ephemeral(source: &At) {
    let template = source.get("volumeClaimTemplate");
    match template.is_set() {
        true => crate::core::persistentvolumeclaim::validate_template(&template),
        false => template.missing(""),
    }
}
