//! One transcript a command of kubectl. The expected text of each names the upstream source that it follows.

use crate::cluster::Cluster;
use crate::node_cluster;
use crate::transcript::check;

/// A test for each transcript, in a namespace of its own.
macro_rules! transcripts {
    ($cluster:expr; $($name:ident)*) => {$(
        #[test]
        fn $name() {
            let name = stringify!($name);
            check(&$cluster.workplace(&format!("t-{}", name.replace('_', "-"))), name);
        }
    )*};
}

transcripts! {
    Cluster::shared();
    annotate
    api_resources
    apply
    apply_server_side
    auth
    cluster_info
    create
    delete
    describe
    diff
    edit
    explain
    expose
    flow_control
    get
    get_output
    label
    patch
    policies
    quota
    replace
    rollout
    run
    scale
    tokens
    wait
}

// Those that need containers.
transcripts! {
    node_cluster::shared();
    cp
    exec
    logs
}
