//! The certificates of this machine's node: who its kubelet and its service proxy are to the API, and who its kubelet is
//! to the API server.

use std::net::IpAddr;

use base::Clock;

use super::pki::{Pki, write_pair};
use crate::errors::{Context as _, Result};
use crate::layout::{Layout, make_private_dir};
use crate::node::NODE_ADDRESS;

/// The service proxy, as upstream's bootstrap policy knows it.
const PROXY: &str = "system:kube-proxy";

/// Makes all of them anew, as at every start of the control plane.
pub fn issue(layout: &Layout, pki: &Pki, node: &str, clock: &Clock) -> Result {
    let directory = layout.node_data(node).join("pki");
    make_private_dir(&directory)?;
    let user = format!("system:node:{node}");
    let now = clock.now();
    let client = pki.authority.issue_client(&user, Some("system:nodes"), now);
    write_pair(
        &directory,
        "kubelet-client",
        &client.doing("making the node's certificate")?,
    )?;
    let proxy = pki.authority.issue_client(PROXY, None, now);
    write_pair(
        &directory,
        "kube-proxy",
        &proxy.doing("making the proxy's certificate")?,
    )?;
    let addresses = [IpAddr::V4(NODE_ADDRESS)];
    let serving = pki
        .authority
        .issue_server(&user, Some("system:nodes"), &[node], &addresses, now);
    write_pair(
        &directory,
        "kubelet-serving",
        &serving.doing("making the kubelet's certificate")?,
    )
}
