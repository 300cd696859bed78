//! The API server's own certificate: made at start, replaced while running.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use apiserver::pki::Pair;
use base::Clock;

use super::pki::Pki;
use crate::errors::{Context as _, Result};
use crate::renewal::Renewal;
use crate::tls::Shown;

/// Names under which pods and people reach the API server.
const NAMES: [&str; 6] = [
    "localhost",
    "trireme",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// A certificate for the names above and these addresses, renewed until the end.
pub fn start(pki: Arc<Pki>, addresses: Vec<IpAddr>, renewal: Renewal) -> Result<Arc<Shown>> {
    let clock = renewal.clock.clone();
    let pair = issue(&pki, &addresses, &clock)?;
    let shown = Shown::new(&pair)?;
    let replaced = shown.clone();
    renewal.keep(
        pair,
        move || std::future::ready(issue(&pki, &addresses, &clock)),
        move |pair| replaced.replace(pair),
    );
    Ok(shown)
}

fn issue(pki: &Pki, addresses: &[IpAddr], clock: &Clock) -> Result<Pair> {
    let mut all = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    all.extend(addresses);
    let issued = pki
        .authority
        .issue_server("kube-apiserver", None, &NAMES, &all, clock.now());
    issued.doing("making the serving certificate")
}
