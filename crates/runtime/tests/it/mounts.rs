//! How mounts spread between node and container.

use std::path::Path;

use rpc::cri;

use crate::node::{Node, Pod, container, security};

/// Static, so that it runs in an image that has nothing: it brings `mount`.
const BUSYBOX: &str = "/bin/busybox";

/// A privileged container that has `volume` at `/data` with that propagation, and at `/private` with none.
async fn with_volume(node: &mut Node, pod: &Pod, name: &str, volume: &Path, how: cri::MountPropagation) -> String {
    let mut config = container(name, &["sleep", "1000"]);
    security(&mut config).privileged = true;
    let mount = |path: &str, how: cri::MountPropagation| cri::Mount {
        container_path: path.into(),
        host_path: volume.to_string_lossy().into_owned(),
        propagation: how.into(),
        ..Default::default()
    };
    config.mounts = vec![
        mount("/data", how),
        mount("/private", cri::MountPropagation::PropagationPrivate),
    ];
    node.run(pod, config).await
}

fn make_private(directory: &Path) {
    rustix::mount::mount_change(directory, rustix::mount::MountPropagationFlags::PRIVATE).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounts_spread_as_far_as_they_were_told_to() {
    let mut node = Node::start("spread").await;
    let pod = node.run_sandbox("web").await;
    let volume = node.dir.path().join("volume");
    for name in ["of-the-node", "of-the-container"] {
        std::fs::create_dir_all(volume.join(name)).unwrap();
    }
    std::fs::copy(BUSYBOX, volume.join("busybox")).unwrap();
    sys::mounts::share(&volume).unwrap();
    use cri::MountPropagation::{PropagationBidirectional, PropagationHostToContainer, PropagationPrivate};
    for (name, how, comes_in, goes_out) in [
        ("private", PropagationPrivate, false, false),
        ("in", PropagationHostToContainer, true, false),
        ("both", PropagationBidirectional, true, true),
    ] {
        let id = with_volume(&mut node, &pod, name, &volume, how).await;
        let inner = volume.join("of-the-node");
        sys::mounts::tmpfs(&inner, 1 << 20, 0o755).unwrap();
        std::fs::write(inner.join("new"), "").unwrap();
        let seen = node.exec(&id, &["ls", "/data/of-the-node"]).await;
        assert_eq!(seen.stdout == b"new\n", comes_in, "{name}: {seen:?}");
        let elsewhere = node.exec(&id, &["ls", "/private/of-the-node"]).await;
        assert_eq!(
            elsewhere.stdout, b"",
            "{name}: each mount spreads by itself: {elsewhere:?}"
        );
        assert!(sys::mounts::detach(&inner).unwrap());
        let outer = volume.join("of-the-container");
        for (at, expect) in [("/private", false), ("/data", goes_out)] {
            let place = format!("{at}/of-the-container");
            let mount = ["/data/busybox", "mount", "-t", "tmpfs", "none", &place];
            let made = node.exec(&id, &mount).await;
            assert_eq!(made.exit_code, 0, "{name}: {made:?}");
            let seen = sys::mounts::list().unwrap().iter().any(|mount| mount.target == outer);
            assert_eq!(seen, expect, "{name} {at}");
        }
        node.stop(&id, 0).await;
        // What a container mounted into the node stays there: it is the node's to take away.
        assert_eq!(sys::mounts::detach(&outer).unwrap(), goes_out, "{name}");
    }
    let refused = {
        let own = node.dir.path().join("not-shared");
        std::fs::create_dir(&own).unwrap();
        sys::mounts::tmpfs(&own, 1 << 20, 0o755).unwrap();
        make_private(&own);
        let mut config = container("refused", &["sleep", "1000"]);
        config.mounts = vec![cri::Mount {
            container_path: "/data".into(),
            host_path: own.to_string_lossy().into_owned(),
            propagation: PropagationBidirectional.into(),
            ..Default::default()
        }];
        let error = node.try_create(&pod, config).await.unwrap_err();
        assert!(sys::mounts::detach(&own).unwrap());
        error
    };
    assert!(refused.message().contains("but it is not a shared mount"), "{refused}");
    node.remove_pod(&pod).await;
    sys::mounts::detach_below(&volume).unwrap();
    node.finish().await;
}
