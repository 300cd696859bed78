//! Rules of volumes.

use super::{check_spec, check_volume};
use crate::testing::{LABEL, SUBDOMAIN};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

#[test]
fn names_and_sources() {
    let bad = format!("volumes[1].name: Invalid value: \"A\": {LABEL}");
    check_spec(
        "volumes: [{emptyDir: {}}, {name: A}, {name: b}, {name: b}, {name: c, emptyDir: {}, hostPath: {path: /}}]",
        &[
            "volumes[0].name: Required value",
            bad.as_str(),
            "volumes[3].name: Duplicate value: \"b\"",
            "volumes[4].hostPath: Forbidden: may not specify more than 1 volume type",
        ],
    );
}

#[test]
fn in_the_node() {
    check_volume("emptyDir: {sizeLimit: 1Gi}", &[]);
    check_volume(
        "emptyDir: {sizeLimit: -1}",
        &["emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity"],
    );
    check_volume("hostPath: {}", &["hostPath.path: Required value"]);
    check_volume(
        "hostPath: {path: /a/../b, type: X}",
        &[
            "hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
            "hostPath.type: Unsupported value: \"X\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \
             \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
        ],
    );
    check_volume(
        "image: {pullPolicy: X}",
        &[
            "image.reference: Required value",
            "image.pullPolicy: Unsupported value: \"X\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ],
    );
    check_volume(
        "gitRepo: {directory: /a}",
        &[
            "gitRepo.repository: Required value",
            "gitRepo.directory: Invalid value: \"/a\": must be a relative path",
        ],
    );
}

#[test]
fn of_keys() {
    for source in ["secret", "configMap"] {
        let name = if source == "secret" { "secretName" } else { "name" };
        check_volume(
            &format!("{source}: {{defaultMode: 512, items: [{{}}, {{key: a, path: ..b, mode: -1}}]}}"),
            &[
                &format!("{source}.{name}: Required value"),
                &format!("{source}.defaultMode: Invalid value: 512: {MODE}"),
                &format!("{source}.items[0].key: Required value"),
                &format!("{source}.items[0].path: Required value"),
                &format!("{source}.items[1].path: Invalid value: \"..b\": must not start with '..'"),
                &format!("{source}.items[1].mode: Invalid value: -1: {MODE}"),
            ],
        );
    }
}

#[test]
fn downward() {
    check_volume(
        "downwardAPI: {items: [{path: a, fieldRef: {fieldPath: metadata.labels}}]}",
        &[],
    );
    check_volume(
        "downwardAPI: {defaultMode: 512, items: [{}, {path: /a, fieldRef: {fieldPath: spec.nodeName}}, {path: b, mode: \
         512, resourceFieldRef: {resource: limits.cpu}}, {path: c, fieldRef: {fieldPath: metadata.name}, \
         resourceFieldRef: {}}]}",
        &[
            &format!("downwardAPI.defaultMode: Invalid value: 512: {MODE}"),
            "downwardAPI.path: Required value",
            "downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
            "downwardAPI.path: Invalid value: \"/a\": must be a relative path",
            "downwardAPI.fieldRef.fieldPath: Unsupported value: \"spec.nodeName\": supported values: \
             \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\"",
            "downwardAPI.resourceFieldRef.containerName: Required value",
            &format!("downwardAPI.mode: Invalid value: 512: {MODE}"),
            "downwardAPI: Invalid value: \"resource\": fieldRef and resourceFieldRef can not be specified simultaneously",
        ],
    );
}

#[test]
fn projected() {
    check_volume(
        "projected: {sources: [{serviceAccountToken: {path: t}}, {configMap: {name: c, items: [{key: k, path: p}]}}]}",
        &[],
    );
    check_volume(
        "projected: {defaultMode: 512, sources: [{secret: {name: s, items: [{key: a, path: p}]}, configMap: {items: \
         [{key: a, path: p}]}}, {downwardAPI: {items: [{path: p, fieldRef: {fieldPath: metadata.name}}]}}, \
         {serviceAccountToken: {path: '', expirationSeconds: 5}}, {serviceAccountToken: {path: /t, expirationSeconds: \
         4294967297}}]}",
        &[
            &format!("projected.defaultMode: Invalid value: 512: {MODE}"),
            "projected.sources[0].configMap.name: Required value",
            "projected: Invalid value: \"\": conflicting duplicate paths",
            "projected.sources[0]: Forbidden: may not specify more than 1 volume type per source",
            "projected: Invalid value: \"p\": conflicting duplicate paths",
            "projected.sources[2].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify a duration less \
             than 10 minutes",
            "projected.path: Required value",
            "projected.sources[3].serviceAccountToken.expirationSeconds: Invalid value: 4294967297: may not specify a \
             duration larger than 2^32 seconds",
            "projected.path: Invalid value: \"/t\": must be a relative path",
        ],
    );
    check_spec(
        "volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}]",
        &[
            "volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when \
             serviceAccountName is not set",
        ],
    );
}

#[test]
fn claims() {
    check_volume(
        "persistentVolumeClaim: {}",
        &["persistentVolumeClaim.claimName: Required value"],
    );
    check_volume("ephemeral: {}", &["ephemeral.volumeClaimTemplate: Required value"]);
    let at = "ephemeral.volumeClaimTemplate";
    check_volume(
        "ephemeral: {volumeClaimTemplate: {metadata: {name: x}, spec: {accessModes: [X, ReadWriteOncePod, ReadWriteOnce], \
         volumeMode: Y, storageClassName: A, resources: {requests: {storage: 0}}, dataSource: {kind: Z}}}}",
        &[
            &format!("{at}.metadata.name: Forbidden: cannot be set"),
            &format!(
                "{at}.spec.accessModes: Unsupported value: \"X\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \
                 \"ReadWriteOnce\", \"ReadWriteOncePod\""
            ),
            &format!("{at}.spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"),
            &format!("{at}.spec.volumeMode: Unsupported value: \"Y\": supported values: \"Block\", \"Filesystem\""),
            &format!("{at}.spec.storageClassName: Invalid value: \"A\": {SUBDOMAIN}"),
            &format!("{at}.spec.resources[storage]: Invalid value: 0: must be greater than zero"),
            &format!("{at}.spec.dataSource.name: Required value"),
            &format!(
                "{at}.spec.dataSource: Invalid value: \"Z\": must be 'PersistentVolumeClaim' when referencing the default \
                 apiGroup"
            ),
        ],
    );
    check_spec(
        "volumes: [{name: a, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: \
         {storage: 1Gi}}}}}}, {name: b, persistentVolumeClaim: {claimName: p-a}}]",
        &[
            "volumes[1].persistentVolumeClaim.claimName: Invalid value: \"p-a\": must not reference a PVC that gets \
             created for an ephemeral volume",
        ],
    );
}

#[test]
fn csi() {
    check_volume("csi: {driver: a.b}", &[]);
    check_volume(
        "csi: {nodePublishSecretRef: {}}",
        &[
            "csi.driver: Required value",
            "csi.nodePublishSecretRef.name: Required value",
        ],
    );
}

#[test]
fn of_clouds() {
    for (source, errors) in [
        (
            "gcePersistentDisk: {partition: 256}",
            vec![
                "persistentDisk.pdName: Required value",
                "persistentDisk.partition: Invalid value: 256: must be between 1 and 255, inclusive",
            ],
        ),
        (
            "awsElasticBlockStore: {partition: -1}",
            vec![
                "awsElasticBlockStore.volumeID: Required value",
                "awsElasticBlockStore.partition: Invalid value: -1: must be between 1 and 255, inclusive",
            ],
        ),
        (
            "azureFile: {}",
            vec![
                "azureFile.secretName: Required value",
                "azureFile.shareName: Required value",
            ],
        ),
        (
            "azureDisk: {diskName: a, diskURI: b, cachingMode: X, kind: Managed}",
            vec![
                "azureDisk.cachingMode: Unsupported value: \"X\": supported values: \"None\", \"ReadOnly\", \"ReadWrite\"",
                "azureDisk.diskURI: Unsupported value: \"b\": supported values: \
                 \"/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}\"",
            ],
        ),
        ("vsphereVolume: {}", vec!["vsphereVolume.volumePath: Required value"]),
        (
            "photonPersistentDisk: {}",
            vec!["photonPersistentDisk.pdID: Required value"],
        ),
        (
            "cinder: {secretRef: {}}",
            vec![
                "cinder.volumeID: Required value",
                "cinder.secretRef.name: Required value",
            ],
        ),
    ] {
        check_volume(source, &errors);
    }
}

#[test]
fn of_networks() {
    for (source, errors) in [
        (
            "nfs: {path: a}",
            vec![
                "nfs.server: Required value",
                "nfs.path: Invalid value: \"a\": must be an absolute path",
            ],
        ),
        (
            "iscsi: {iqn: x, lun: 256, chapAuthDiscovery: true, initiatorName: eui.x}",
            vec![
                "iscsi.targetPortal: Required value",
                "iscsi.iqn: Invalid value: \"x\": must be valid format starting with iqn, eui, or naa",
                "iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive",
                "iscsi.secretRef: Required value",
                "iscsi.initiatorname: Invalid value: \"eui.x\": must be valid format",
            ],
        ),
        (
            "fc: {}",
            vec!["fc.targetWWNs: Required value: must specify either targetWWNs or wwids, but not both"],
        ),
        (
            "fc: {targetWWNs: [a], wwids: [b]}",
            vec![
                "fc.targetWWNs: Invalid value: [\"a\"]: targetWWNs and wwids can not be specified simultaneously",
                "fc.lun: Required value: lun is required if targetWWNs is specified",
            ],
        ),
        (
            "glusterfs: {}",
            vec!["glusterfs.endpoints: Required value", "glusterfs.path: Required value"],
        ),
        (
            "rbd: {}",
            vec!["rbd.monitors: Required value", "rbd.image: Required value"],
        ),
        ("cephfs: {}", vec!["cephfs.monitors: Required value"]),
        (
            "quobyte: {registry: a}",
            vec![
                "quobyte.registry: Invalid value: \"a\": must be a host:port pair or multiple pairs separated by commas",
                "quobyte.volume: Required value",
            ],
        ),
        (
            "flocker: {datasetName: a/b, datasetUUID: c}",
            vec![
                "flocker: Invalid value: \"resource\": datasetName and datasetUUID can not be specified simultaneously",
                "flocker.datasetName: Invalid value: \"a/b\": must not contain '/'",
            ],
        ),
        (
            "flexVolume: {options: {a.k8s.io/b: c}}",
            vec![
                "flexVolume.driver: Required value",
                "flexVolume.options[a.k8s.io/b]: Invalid value: \"a.k8s.io/b\": kubernetes.io and k8s.io namespaces are \
                 reserved",
            ],
        ),
        ("portworxVolume: {}", vec!["portworxVolume.volumeID: Required value"]),
        (
            "scaleIO: {}",
            vec![
                "scaleIO.gateway: Required value",
                "scaleIO.system: Required value",
                "scaleIO.volumeName: Required value",
            ],
        ),
        (
            "storageos: {secretRef: {}}",
            vec![
                "storageos.volumeName: Required value",
                "storageos.secretRef.name: Required value",
            ],
        ),
    ] {
        check_volume(source, &errors);
    }
}
