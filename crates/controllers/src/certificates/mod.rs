//! The controllers of CertificateSigningRequests: who is approved without asking a person, what is signed, and what is
//! cleared away.
//!
//! Source: `pkg/controller/certificates` and `pkg/apis/certificates/helpers.go`.

pub(crate) mod approving;
pub(crate) mod cleaner;
pub(crate) mod renewal;
pub(crate) mod signing;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use api::Value;
use client::k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use client::queue::WorkQueue;
use client::resources::CERTIFICATE_SIGNING_REQUESTS;
use client::worker::Next;
use client::{Client, Error, Meta};
use futures::future::BoxFuture;
use serde_json::json;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use crate::context::{Context, synced};

/// Signs what these controllers found to be right. The key is somebody else's to keep.
pub trait CertificateSigner: Send + Sync {
    /// A PEM certificate for a PEM request.
    ///
    /// # Errors
    /// Why it cannot be signed.
    fn sign(&self, request_pem: &str, usages: &[String], seconds: Option<i64>) -> Result<String, String>;
}

pub(crate) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(crate) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub(crate) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

const NODE_PREFIX: &str = "system:node:";

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Asked {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub has_emails: bool,
    pub has_uris: bool,
}

/// Reads a request; `None` when it cannot be read.
pub(crate) fn read(request: &CertificateSigningRequest) -> Option<Asked> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(&request.spec.request.0).ok()?;
    let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).ok()?;
    let subject = &parsed.certification_request_info.subject;
    let text = |value: &x509_parser::x509::AttributeTypeAndValue| value.as_str().ok().map(str::to_owned);
    let mut asked = Asked {
        common_name: subject.iter_common_name().find_map(text).unwrap_or_default(),
        organizations: subject.iter_organization().filter_map(text).collect(),
        ..Asked::default()
    };
    for extension in parsed.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else {
            continue;
        };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => asked.names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => asked.addresses.push(address(bytes)?),
                GeneralName::RFC822Name(_) => asked.has_emails = true,
                GeneralName::URI(_) => asked.has_uris = true,
                // What has no word here is nothing that one of these signers gives.
                _ => return None,
            }
        }
    }
    Some(asked)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

// === impl Asked ===

impl Asked {
    /// Whether it is a kubelet's client certificate.
    pub(crate) fn is_kubelet_client(&self, usages: &[String]) -> Result<(), String> {
        self.is_of_nodes()?;
        for (there, word) in [
            (!self.names.is_empty(), "DNS"),
            (self.has_emails, "Email"),
            (!self.addresses.is_empty(), "IP"),
            (self.has_uris, "URI"),
        ] {
            if there {
                return Err(format!("{word} subjectAltNames are not allowed"));
            }
        }
        self.is_named_as_node()?;
        must_be(usages, "client auth")
    }

    /// Whether it is a kubelet's serving certificate.
    pub(crate) fn is_kubelet_serving(&self, usages: &[String]) -> Result<(), String> {
        self.is_of_nodes()?;
        if self.names.is_empty() && self.addresses.is_empty() {
            return Err("DNS or IP subjectAltName is required".into());
        }
        for (there, word) in [(self.has_emails, "Email"), (self.has_uris, "URI")] {
            if there {
                return Err(format!("{word} subjectAltNames are not allowed"));
            }
        }
        must_be(usages, "server auth")?;
        self.is_named_as_node()
    }

    /// The node that the common name names.
    pub(crate) fn node(&self) -> Option<&str> {
        self.common_name
            .strip_prefix(NODE_PREFIX)
            .filter(|node| !node.is_empty())
    }

    fn is_of_nodes(&self) -> Result<(), String> {
        match self.organizations == ["system:nodes"] {
            true => Ok(()),
            false => Err("subject organization is not system:nodes".into()),
        }
    }

    fn is_named_as_node(&self) -> Result<(), String> {
        match self.common_name.starts_with(NODE_PREFIX) {
            true => Ok(()),
            false => Err("subject common name does not begin with system:node:".into()),
        }
    }
}

/// Keys that are not RSA need no encipherment, and may still ask for it.
fn must_be(usages: &[String], purpose: &str) -> Result<(), String> {
    let mut sorted: Vec<&str> = usages.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut all = ["digital signature", "key encipherment", purpose];
    all.sort_unstable();
    let least: Vec<&str> = all.into_iter().filter(|usage| *usage != "key encipherment").collect();
    match sorted == all || sorted == least {
        true => Ok(()),
        false => Err(format!("usages did not match [{}]", all.join(" "))),
    }
}

/// Whether a request has that condition.
pub(crate) fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = request
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == kind)
}

/// Whether a request has its certificate.
pub(crate) fn is_issued(request: &CertificateSigningRequest) -> bool {
    let certificate = request.status.as_ref().and_then(|status| status.certificate.as_ref());
    certificate.is_some_and(|certificate| !certificate.0.is_empty())
}

/// Works on every request whenever it changes, once the informer and all `ready` are.
pub(crate) fn work_on<F, Fut>(context: &Context, mut ready: Vec<BoxFuture<'static, bool>>, workers: usize, work: F)
where
    F: Fn(Context, Arc<CertificateSigningRequest>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Next, Error>> + Send + 'static,
{
    let requests = context.informers.informer::<CertificateSigningRequest>();
    let queue = WorkQueue::<String>::new().named("certificate");
    context.watch(&requests, {
        let queue = queue.clone();
        move |delta| {
            if let Some(request) = delta.object() {
                queue.add(request.metadata.name().to_string());
            }
        }
    });
    ready.push(synced(&requests));
    let (shell, work) = (context.clone(), Arc::new(work));
    context.work(queue, ready, workers, move |name| {
        let (context, request, work) = (shell.clone(), requests.get("", &name), work.clone());
        async move {
            match request {
                Some(request) => work(context, request).await,
                None => Ok(Next::Wait),
            }
        }
    });
}

/// Writes what became of a request, through `approval` or `status`. The object is read anew: it is replaced whole.
pub(crate) async fn settle(
    client: &Client,
    name: &str,
    subresource: &str,
    uid: Option<&str>,
    edit: impl FnOnce(&mut Value),
) -> Result<(), Error> {
    let mut object: Value = client.get_in(&CERTIFICATE_SIGNING_REQUESTS, "", name).await?;
    if api::meta::uid(&object) != uid.unwrap_or("") {
        // Another one of the same name: it has an event of its own.
        return Ok(());
    }
    edit(&mut object);
    client
        .update(&CERTIFICATE_SIGNING_REQUESTS, "", name, Some(subresource), &object)
        .await
        .map(drop)
}

/// Adds a condition that is true.
pub(crate) fn add_condition(object: &mut Value, kind: &str, reason: &str, message: &str, now: &str) {
    let condition =
        json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastUpdateTime": now});
    match object.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
        Some(conditions) => conditions.push(condition),
        None => object["status"]["conditions"] = json!([condition]),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use client::k8s_openapi::ByteString;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    /// A request for a subject and alternative names.
    pub(crate) fn request(
        group: &str,
        user: &str,
        names: &[&str],
        signer: &str,
        usages: &[&str],
    ) -> CertificateSigningRequest {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.distinguished_name.push(DnType::CommonName, user);
        let pem = params
            .serialize_request(&KeyPair::generate().unwrap())
            .unwrap()
            .pem()
            .unwrap();
        let mut request = CertificateSigningRequest::default();
        request.metadata.name = Some("r".into());
        request.spec.request = ByteString(pem.into_bytes());
        request.spec.signer_name = signer.into();
        request.spec.username = Some(user.into());
        request.spec.usages = Some(usages.iter().map(|usage| (*usage).to_owned()).collect());
        request
    }

    #[test]
    fn a_request_is_read_as_it_was_made() {
        let request = request("g", "u", &["a.b", "10.0.0.1", "fd00::1"], CLIENT, &[]);
        let asked = read(&request).unwrap();
        let expect = Asked {
            common_name: "u".into(),
            organizations: vec!["g".into()],
            names: vec!["a.b".into()],
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            ..Asked::default()
        };
        assert_eq!(asked, expect);
        assert_eq!(read(&CertificateSigningRequest::default()), None);
    }

    #[test]
    fn what_kubelets_may_ask_for() {
        let client = ["digital signature", "client auth"];
        let serving = ["digital signature", "key encipherment", "server auth"];
        let good = ("system:nodes", "system:node:a");
        for (subject, names, usages, as_client, as_server) in [
            (
                good,
                &[][..],
                &client[..],
                Ok(()),
                Err("DNS or IP subjectAltName is required"),
            ),
            (
                good,
                &["a"],
                &serving,
                Err("DNS subjectAltNames are not allowed"),
                Ok(()),
            ),
            (
                good,
                &["10.0.0.1"],
                &serving,
                Err("IP subjectAltNames are not allowed"),
                Ok(()),
            ),
            (
                good,
                &["a"],
                &client,
                Err("DNS subjectAltNames are not allowed"),
                Err("usages did not match [digital signature key encipherment server auth]"),
            ),
            (
                ("system:masters", "system:node:a"),
                &["a"],
                &serving,
                Err("subject organization is not system:nodes"),
                Err("subject organization is not system:nodes"),
            ),
            (
                ("system:nodes", "a"),
                &["a"],
                &serving,
                Err("DNS subjectAltNames are not allowed"),
                Err("subject common name does not begin with system:node:"),
            ),
        ] {
            let request = request(subject.0, subject.1, names, CLIENT, usages);
            let (asked, usages) = (read(&request).unwrap(), request.spec.usages.unwrap());
            let said = |verdict: Result<(), &str>| verdict.map_err(str::to_owned);
            assert_eq!(
                asked.is_kubelet_client(&usages),
                said(as_client),
                "{subject:?} {names:?}"
            );
            assert_eq!(
                asked.is_kubelet_serving(&usages),
                said(as_server),
                "{subject:?} {names:?}"
            );
        }
    }
}
