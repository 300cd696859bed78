//! The first certificates of this machine's node: who its kubelet and its service proxy are to the API, and who its kubelet
//! is to the API server.
//!
//! Later ones the node asks for itself, through the API. Only when it has none that is still good (it was off for longer
//! than one lives) it is given new ones here.

use std::net::IpAddr;

use apiserver::pki::{Pair, PkiError, not_after};
use base::Clock;

use super::pki::{Pki, read_leaf, write_leaf};
use crate::errors::{Context as _, Result};
use crate::layout::{Layout, make_private_dir};
use crate::node::NODE_ADDRESS;

/// The service proxy, as upstream's bootstrap policy knows it.
const PROXY: &str = "system:kube-proxy";

/// Makes those that are missing or have ended.
pub fn ensure(layout: &Layout, pki: &Pki, node: &str, clock: &Clock) -> Result {
    let directory = layout.node_data(node).join("pki");
    make_private_dir(&directory)?;
    let (user, now) = (format!("system:node:{node}"), clock.now());
    let addresses = [IpAddr::V4(NODE_ADDRESS)];
    let authority = &pki.authority;
    let client = || authority.issue_client(&user, Some("system:nodes"), now);
    let proxy = || authority.issue_client(PROXY, None, now);
    let serving = || authority.issue_server(&user, Some("system:nodes"), &[node], &addresses, now);
    let all: [(&str, &dyn Fn() -> Result<Pair, PkiError>); 3] = [
        ("kubelet-client", &client),
        ("kube-proxy", &proxy),
        ("kubelet-serving", &serving),
    ];
    for (name, issue) in all {
        let is_good = |pair: &Pair| not_after(&pair.certificate_pem).is_ok_and(|end| now < end);
        if read_leaf(&directory, name)?.as_ref().is_some_and(is_good) {
            continue;
        }
        let pair = issue().doing(&format!("making the node's certificate {name}"))?;
        write_leaf(&directory, name, &pair)?;
    }
    Ok(())
}
