//! Which renewals are approved that upstream leaves to people: serving certificates of kubelets, and the service proxy's own.
//!
//! A kubelet gets names and addresses that its Node has, and only for itself; the proxy gets its own name and nothing else.
//! The reasons are in `docs/decisions/0004-certificates-are-renewed-through-the-api.md`.

use std::net::IpAddr;

use client::k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use client::k8s_openapi::api::core::v1::Node;

use super::approving::Recognized;
use super::{Asked, CLIENT, KUBELET_SERVING};

/// The service proxy's user.
const PROXY: &str = "system:kube-proxy";

/// The shapes of a request; `node` finds Nodes by name.
pub(crate) fn recognize(
    request: &CertificateSigningRequest,
    asked: &Asked,
    node: impl FnOnce(&str) -> Option<std::sync::Arc<Node>>,
) -> Vec<Recognized> {
    let spec = &request.spec;
    let usages = spec.usages.as_deref().unwrap_or_default();
    let own = spec.username.as_deref() == Some(&asked.common_name);
    let known = match &*spec.signer_name {
        KUBELET_SERVING if own && asked.is_kubelet_serving(usages).is_ok() => {
            let its = asked.node().and_then(node).is_some_and(|node| belongs_to(asked, &node));
            its.then_some(Recognized {
                permission: "selfnodeserver",
                message: "Auto approving self kubelet serving certificate after SubjectAccessReview.",
            })
        }
        CLIENT if own && is_proxy(asked, usages) => Some(Recognized {
            permission: "selfproxyclient",
            message: "Auto approving self kube-proxy client certificate after SubjectAccessReview.",
        }),
        _ => None,
    };
    known.into_iter().collect()
}

fn is_proxy(asked: &Asked, usages: &[String]) -> bool {
    let plain = Asked {
        common_name: PROXY.into(),
        ..Asked::default()
    };
    *asked == plain && super::must_be(usages, "client auth").is_ok()
}

fn belongs_to(asked: &Asked, node: &Node) -> bool {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let addresses: Vec<&str> = node
        .status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten())
        .map(|address| &*address.address)
        .collect();
    let is_its_name = |asked: &String| asked == name || addresses.contains(&asked.as_str());
    let is_its_address = |asked: &IpAddr| addresses.iter().any(|own| own.parse() == Ok(*asked));
    asked.names.iter().all(is_its_name) && asked.addresses.iter().all(is_its_address)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::read;
    use super::super::tests::request;
    use super::*;

    fn shapes(user: &str, asker: &str, names: &[&str]) -> usize {
        let usages = ["digital signature", "server auth"];
        let mut request = request("system:nodes", user, names, KUBELET_SERVING, &usages);
        request.spec.username = Some(asker.into());
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "a.lan"}]},
        }))
        .unwrap();
        let find = |name: &str| (name == "a").then(|| Arc::new(node));
        recognize(&request, &read(&request).unwrap(), find).len()
    }

    #[test]
    fn a_kubelet_serves_under_its_own_names_only() {
        for (user, asker, names, expect) in [
            ("system:node:a", "system:node:a", &["a", "a.lan", "10.0.0.1"][..], 1),
            ("system:node:a", "system:node:a", &["a", "kubernetes"], 0),
            ("system:node:a", "system:node:a", &["a", "10.96.0.1"], 0),
            ("system:node:a", "system:node:b", &["a"], 0),
            ("system:node:b", "system:node:b", &["b"], 0),
        ] {
            assert_eq!(shapes(user, asker, names), expect, "{user} {asker} {names:?}");
        }
    }

    #[test]
    fn the_proxy_renews_its_own_name_and_no_more() {
        let usages = ["digital signature", "client auth"];
        let find = |_: &str| None;
        let mut own = CertificateSigningRequest::default();
        own.spec.signer_name = CLIENT.into();
        own.spec.username = Some(PROXY.into());
        own.spec.usages = Some(usages.iter().map(|usage| (*usage).to_owned()).collect());
        let asked = Asked {
            common_name: PROXY.into(),
            ..Asked::default()
        };
        assert_eq!(recognize(&own, &asked, find).len(), 1);
        let greedy = Asked {
            organizations: vec!["system:nodes".into()],
            ..asked.clone()
        };
        assert_eq!(recognize(&own, &greedy, find), []);
        own.spec.username = Some("jane".into());
        assert_eq!(recognize(&own, &asked, find), []);
    }
}
