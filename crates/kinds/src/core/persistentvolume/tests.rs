//! What upstream says of persistent volumes.

use super::strategy::PersistentVolumes;
use crate::row::{Strategy, WriteContext, Writer};
use crate::testing::{Case, NOW, SUBDOMAIN, check, yaml};

/// A volume with a source.
fn with(source: &str) -> String {
    format!("metadata: {{name: v}}\nspec: {{capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce], {source}}}")
}

fn object(name: &str, source: &str, errors: &[&str]) {
    check(&PersistentVolumes, Case::new(name).object(&with(source)).errors(errors));
}

#[test]
fn defaults() {
    let volume = with(
        "hostPath: {path: /a}, iscsi: {}, rbd: {}, scaleIO: {}, azureDisk: {}, volumeAttributesClassName: a, \
         nodeAffinity: {}",
    );
    let mut volume = yaml(&volume);
    PersistentVolumes.default(&mut volume);
    for (path, expect) in [
        ("/spec/persistentVolumeReclaimPolicy", "Retain"),
        ("/spec/volumeMode", "Filesystem"),
        ("/spec/hostPath/type", ""),
        ("/spec/iscsi/iscsiInterface", "default"),
        ("/spec/rbd/pool", "rbd"),
        ("/spec/rbd/user", "admin"),
        ("/spec/rbd/keyring", "/etc/ceph/keyring"),
        ("/spec/scaleIO/storageMode", "ThinProvisioned"),
        ("/spec/azureDisk/cachingMode", "ReadWrite"),
        ("/status/phase", "Pending"),
    ] {
        assert_eq!(volume.pointer(path).and_then(|v| v.as_str()), Some(expect), "{path}");
    }
    check(
        &PersistentVolumes,
        Case::new("a new volume waits")
            .object(&format!("{}\nstatus: {{phase: Bound}}", with("hostPath: {path: /a}")))
            .field("status.phase", "Pending")
            .field("status.lastPhaseTransitionTime", NOW),
    );
}

#[test]
fn spec() {
    object("a volume", "hostPath: {path: /a}", &[]);
    object(
        "class and mode",
        "hostPath: {path: /a}, storageClassName: A, volumeMode: Tape, persistentVolumeReclaimPolicy: Burn",
        &[
            "spec.persistentVolumeReclaimPolicy: Unsupported value: \"Burn\": supported values: \"Delete\", \"Recycle\", \
             \"Retain\"",
            &format!("spec.storageClassName: Invalid value: \"A\": {SUBDOMAIN}"),
            "spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\"",
        ],
    );
    object(
        "recycling the root",
        "hostPath: {path: /a/..}, persistentVolumeReclaimPolicy: Recycle",
        &[
            "spec.hostPath.path: Invalid value: \"/a/..\": must not contain '..'",
            "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
        ],
    );
    object(
        "attributes are of CSI",
        "hostPath: {path: /a}, volumeAttributesClassName: ''",
        &[
            "spec.volumeAttributesClassName: Required value: an empty string is disallowed",
            "spec.csi: Required value: has to be specified when using volumeAttributesClassName",
        ],
    );
    for case in [
        Case::new("nothing").object("spec: {}").errors(&[
            "spec.accessModes: Required value",
            "spec.capacity: Required value",
            "spec.capacity: Unsupported value: null: supported values: \"storage\"",
            "spec: Required value: must specify a volume type",
        ]),
        Case::new("amounts")
            .object(
                "spec: {capacity: {storage: '-1', cpu: '0'}, accessModes: [ReadWriteOncePod, ReadOnlyMany, Some], \
                 hostPath: {path: /a}}",
            )
            .errors(&[
                "spec.accessModes: Unsupported value: \"Some\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \
                 \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
                "spec.capacity: Unsupported value: {\"cpu\":\"0\",\"storage\":\"-1\"}: supported values: \"storage\"",
                "spec.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
                "spec.capacity[storage]: Invalid value: \"-1\": must be greater than zero",
                "spec.capacity[cpu]: Invalid value: \"0\": must be greater than zero",
            ]),
    ] {
        check(&PersistentVolumes, case);
    }
}

#[test]
fn affinity() {
    object(
        "no terms",
        "hostPath: {path: /a}, nodeAffinity: {required: {nodeSelectorTerms: []}}",
        &["spec.nodeAffinity.required.nodeSelectorTerms: Required value: must have at least one node selector term"],
    );
    object(
        "nothing required",
        "hostPath: {path: /a}, nodeAffinity: {}",
        &["spec.nodeAffinity.required: Required value: must specify required node constraints"],
    );
    object(
        "local volumes are somewhere",
        "local: {path: /a/../b}",
        &[
            "spec.local.path: Invalid value: \"/a/../b\": must not contain '..'",
            "spec.nodeAffinity: Required value: Local volume requires node affinity",
        ],
    );
}

#[test]
fn sources() {
    object(
        "two",
        "hostPath: {path: /a}, nfs: {server: s, path: /b}",
        &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
    );
    object(
        "csi",
        "csi: {driver: '', volumeHandle: '', controllerPublishSecretRef: {}, nodeExpandSecretRef: {name: A, namespace: a.b}}",
        &[
            "spec.csi.driver: Required value",
            "spec.csi.volumeHandle: Required value",
            "spec.csi.controllerPublishSecretRef.name: Required value",
            "spec.csi.controllerPublishSecretRef.namespace: Required value",
            &format!("spec.csi.nodeExpandSecretRef.name: Invalid value: \"A\": {SUBDOMAIN}"),
            "spec.csi.nodeExpandSecretRef.namespace: Invalid value: \"a.b\": must not contain dots",
        ],
    );
    object(
        "glusterfs",
        "glusterfs: {endpoints: '', path: p, endpointsNamespace: ''}",
        &[
            "spec.glusterfs.endpoints: Required value",
            "spec.glusterfs.endpointsNamespace: Invalid value: \"\": if the endpointnamespace is set, it must be a valid \
             namespace name",
        ],
    );
    object(
        "secrets in a namespace",
        "cinder: {volumeID: v, secretRef: {name: s}}",
        &["spec.cinder.secretRef.namespace: Required value"],
    );
    object(
        "storageos",
        "storageos: {volumeName: v, secretRef: {}}",
        &[
            "spec.storageos.secretRef.name: Required value",
            "spec.storageos.secretRef.namespace: Required value",
        ],
    );
    object(
        "azure files",
        "azureFile: {secretName: '', shareName: s, secretNamespace: ''}",
        &[
            "spec.azureFile.secretName: Required value",
            "spec.azureFile.secretNamespace: Required value",
        ],
    );
    object(
        "ceph is called in two ways",
        "hostPath: {path: /a}, cephfs: {monitors: []}",
        &["spec.cephFS: Forbidden: may not specify more than 1 volume type"],
    );
    object(
        "ceph",
        "cephfs: {monitors: []}",
        &["spec.cephfs.monitors: Required value"],
    );
    object(
        "rbd",
        "rbd: {monitors: [], image: ''}",
        &["spec.rbd.monitors: Required value", "spec.rbd.image: Required value"],
    );
    object(
        "scaleIO",
        "scaleIO: {gateway: '', system: '', volumeName: v, secretRef: {}}",
        &[
            "spec.scaleIO.gateway: Required value",
            "spec.scaleIO.system: Required value",
        ],
    );
    object(
        "flex",
        "flexVolume: {driver: '', options: {kubernetes.io/a: b}}",
        &[
            "spec.flexVolume.driver: Required value",
            "spec.flexVolume.options[kubernetes.io/a]: Invalid value: \"kubernetes.io/a\": kubernetes.io and k8s.io \
             namespaces are reserved",
        ],
    );
    let long = "p".repeat(70);
    object(
        "iscsi",
        &format!(
            "iscsi: {{targetPortal: {long}, iqn: iqn.2015-02.example.com:test, lun: 1, secretRef: {{}}, \
             initiatorName: iqn.2015-02.example.com:init}}"
        ),
        &[
            "spec.iscsi.secretRef.name: Required value",
            &format!(
                "spec.iscsi.targetportal: Invalid value: \"{long}\": Total length of <volume name>:<iscsi.targetPortal> must \
                 be under 64 characters if iscsi.initiatorName is specified."
            ),
        ],
    );
}

#[test]
fn mount_options_of_old() {
    let annotated = "metadata: {annotations: {volume.beta.kubernetes.io/mount-options: ro}}\n\
                     spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], ";
    for case in [
        Case::new("supported").object(&format!("{annotated} nfs: {{server: s, path: /a}}}}")),
        Case::new("unsupported")
            .object(&format!("{annotated} hostPath: {{path: /a}}}}"))
            .errors(&[
                "metadata.annotations.volume.beta.kubernetes.io/mount-options: Forbidden: may not specify mount options for \
                 this volume type",
            ]),
    ] {
        check(&PersistentVolumes, case);
    }
}

#[test]
fn update() {
    let zone = |label: &str| {
        with(&format!(
            "csi: {{driver: d, volumeHandle: h}}, nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: \
             [{{key: {label}, operator: In, values: [a]}}]}}]}}}}"
        ))
    };
    let csi = with("csi: {driver: d, volumeHandle: h}, volumeAttributesClassName: a");
    for case in [
        Case::new("binding and growing")
            .old(&with("hostPath: {path: /a}"))
            .object(
                "metadata: {name: v}\nspec: {capacity: {storage: 2Gi}, accessModes: [ReadWriteMany], hostPath: {path: /a}, \
                 claimRef: {name: c, namespace: n}, storageClassName: s, mountOptions: [ro], \
                 persistentVolumeReclaimPolicy: Delete}\nstatus: {phase: Bound}",
            )
            .field("status.phase", "Pending"),
        Case::new("the source stays")
            .old(&with("hostPath: {path: /a}"))
            .object(&with("hostPath: {path: /b}, volumeMode: Block"))
            .errors(&[
                "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n  \
                 hostPath.path: \"/a\" -> \"/b\"\n",
                "volumeMode: Invalid value: \"Block\": field is immutable",
            ]),
        Case::new("a secret for expansion comes once")
            .old(&with("csi: {driver: d, volumeHandle: h}"))
            .object(&with(
                "csi: {driver: d, volumeHandle: h, controllerExpandSecretRef: {name: s, namespace: n}}",
            )),
        Case::new("and stays")
            .old(&with(
                "csi: {driver: d, volumeHandle: h, controllerExpandSecretRef: {name: s, namespace: n}}",
            ))
            .object(&with(
                "csi: {driver: d, volumeHandle: h, controllerExpandSecretRef: {name: t, namespace: n}}",
            ))
            .errors(&[
                "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n  \
                 csi.controllerExpandSecretRef.name: \"s\" -> \"t\"\n",
            ]),
        Case::new("affinity may be set").old(&with("csi: {driver: d, volumeHandle: h}")).object(&zone("zone")),
        Case::new("labels get their new names")
            .old(&zone("failure-domain.beta.kubernetes.io/zone"))
            .object(&zone("topology.kubernetes.io/zone")),
        Case::new("but not others")
            .old(&zone("topology.kubernetes.io/zone"))
            .object(&zone("zone"))
            .errors(&[
                "nodeAffinity: Invalid value: {\"required\":{\"nodeSelectorTerms\":[{\"matchExpressions\":[{\"key\":\"zone\",\
                 \"operator\":\"In\",\"values\":[\"a\"]}]}]}}: field is immutable, except for updating from beta label to GA",
            ]),
        Case::new("the class of attributes stays")
            .old(&csi)
            .object(&with("csi: {driver: d, volumeHandle: h}"))
            .errors(&["spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden"]),
    ] {
        check(&PersistentVolumes, case);
    }
}

#[test]
fn status() {
    let old = format!(
        "{}\nstatus: {{phase: Available, lastPhaseTransitionTime: '2020-01-01T00:00:00Z'}}",
        with("hostPath: {path: /a}")
    );
    let version = "metadata: {name: v, resourceVersion: '1'}";
    for case in [
        Case::new("a new phase")
            .old(&old)
            .object(&format!(
                "{version}\nspec: {{hostPath: {{path: /b}}}}\nstatus: {{phase: Bound}}"
            ))
            .field("status.lastPhaseTransitionTime", NOW)
            .field("spec.hostPath.path", "/a"),
        Case::new("the same phase")
            .old(&old)
            .object(&format!("{version}\nstatus: {{phase: Available, message: m}}"))
            .field("status.lastPhaseTransitionTime", "2020-01-01T00:00:00Z"),
        Case::new("a time of one's own")
            .old(&old)
            .object(&format!(
                "{version}\nstatus: {{phase: Bound, lastPhaseTransitionTime: '2021-01-01T00:00:00Z'}}"
            ))
            .field("status.lastPhaseTransitionTime", "2021-01-01T00:00:00Z"),
        Case::new("without a version")
            .old(&old)
            .object("metadata: {name: v}\nstatus: {phase: Bound}")
            .errors(&["resourceVersion: Required value"]),
    ] {
        check(&PersistentVolumes, case.subresource("status"));
    }
}

#[test]
fn warnings() {
    let context = WriteContext {
        now: NOW,
        subresource: "",
        user: Writer::named("u"),
        version: "v1",
    };
    let volume = yaml(
        "metadata: {annotations: {volume.beta.kubernetes.io/storage-class: a, \
         volume.beta.kubernetes.io/mount-options: ro}}\n\
         spec: {storageos: {}, persistentVolumeReclaimPolicy: Recycle, nodeAffinity: {required: {nodeSelectorTerms: \
         [{matchExpressions: [{key: beta.kubernetes.io/os, operator: Exists}]}]}}}",
    );
    assert_eq!(
        PersistentVolumes.warnings(&volume, None, &context),
        [
            "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \
             \"storageClassName\" attribute instead",
            "metadata.annotations[volume.beta.kubernetes.io/mount-options]: deprecated since v1.31; use \"mountOptions\" \
             attribute instead",
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended \
             approach is to use dynamic provisioning.",
            "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: beta.kubernetes.io/os is deprecated \
             since v1.14; use \"kubernetes.io/os\" instead",
            "spec.storageOS: deprecated in v1.22, non-functional in v1.25+",
        ]
    );
}
