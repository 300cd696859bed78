//! Asking the cluster for a certificate: a key that never leaves this process, a request with its public half, the answer.
//!
//! Source: `k8s.io/client-go/util/certificate/csr`.

use std::net::IpAddr;

use base::{Random, Shutdown};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use serde_json::json;

use crate::informer::{Informer, Selection};
use crate::{Client, Error, Kind as _};

/// What a certificate is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Who is asked to sign, such as `kubernetes.io/kubelet-serving`.
    pub signer: &'static str,
    /// The subject's common name: the user.
    pub user: String,
    /// The subject's organization: the user's group.
    pub group: Option<&'static str>,
    /// Names that a server is reached by.
    pub names: Vec<String>,
    /// Addresses that a server is reached at.
    pub addresses: Vec<IpAddr>,
    /// What it is for, by the API's names of usages.
    pub usages: &'static [&'static str],
}

/// What the cluster answered.
#[derive(Clone)]
pub struct Issued {
    /// The certificate chain.
    pub chain_pem: String,
    /// Its key: a secret.
    pub key_pem: String,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The key or the request could not be made.
    #[error("cannot make the request: {0}")]
    Make(#[from] rcgen::Error),
    /// The API did not take the request.
    #[error(transparent)]
    Api(#[from] Error),
    /// Somebody said no.
    #[error("the request {name} was {verdict}: {why}")]
    Refused {
        /// The request's name.
        name: String,
        /// `Denied` or `Failed`.
        verdict: &'static str,
        /// What they said.
        why: String,
    },
    /// The process ends, or the request went away.
    #[error("the request was not answered")]
    Unanswered,
}

/// Makes a key, asks for its certificate, and waits for the answer (for as long as the caller does).
///
/// # Errors
/// See [`RequestError`].
pub async fn request(client: &Client, wanted: &Wanted, random: &Random) -> Result<Issued, RequestError> {
    let key = KeyPair::generate()?;
    let request = params(wanted)?.serialize_request(&key)?.pem()?;
    let resource = CertificateSigningRequest::RESOURCE;
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "csr-"},
        "spec": {
            "request": k8s_openapi::ByteString(request.into_bytes()), "signerName": wanted.signer, "usages": wanted.usages,
        },
    });
    let created: api::Value = client.create_in(&resource, "", &object).await?;
    let name = api::meta::name(&created).to_owned();

    // Ends with this call, however that ends.
    let stop = Shutdown::new();
    let _ends = stop.trigger_on_drop();
    let selection = Selection::fields(format!("metadata.name={name}"));
    let informer: Informer<CertificateSigningRequest> =
        Informer::start(client.clone(), resource, selection, random.fork(), stop.clone());
    if !informer.synced().await
        || !informer
            .until("", &name, |request| request.is_none_or(is_answered))
            .await
    {
        return Err(RequestError::Unanswered);
    }
    let request = informer.get("", &name).ok_or(RequestError::Unanswered)?;
    let status = request.status.clone().unwrap_or_default();
    match status.certificate {
        Some(chain) => Ok(Issued {
            chain_pem: String::from_utf8_lossy(&chain.0).into_owned(),
            key_pem: key.serialize_pem(),
        }),
        None => {
            let (verdict, why) = refusal(&request).ok_or(RequestError::Unanswered)?;
            Err(RequestError::Refused { name, verdict, why })
        }
    }
}

fn params(wanted: &Wanted) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(group) = wanted.group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.distinguished_name.push(DnType::CommonName, wanted.user.as_str());
    for name in &wanted.names {
        params
            .subject_alt_names
            .push(SanType::DnsName(name.as_str().try_into()?));
    }
    let addresses = wanted.addresses.iter().map(|address| SanType::IpAddress(*address));
    params.subject_alt_names.extend(addresses);
    Ok(params)
}

fn is_answered(request: &CertificateSigningRequest) -> bool {
    let issued = request
        .status
        .as_ref()
        .is_some_and(|status| status.certificate.is_some());
    issued || refusal(request).is_some()
}

fn refusal(request: &CertificateSigningRequest) -> Option<(&'static str, String)> {
    let conditions = request.status.as_ref()?.conditions.as_ref()?;
    ["Denied", "Failed"].into_iter().find_map(|verdict| {
        let condition = conditions.iter().find(|condition| condition.type_ == verdict)?;
        Some((verdict, condition.message.clone().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::CERTIFICATE_SIGNING_REQUESTS;
    use crate::testing::FakeApi;

    fn wanted() -> Wanted {
        Wanted {
            signer: "kubernetes.io/kubelet-serving",
            user: "system:node:a".into(),
            group: Some("system:nodes"),
            names: vec!["a".into()],
            addresses: vec!["10.0.0.1".parse().unwrap()],
            usages: &["digital signature", "server auth"],
        }
    }

    async fn answered(status: api::Value) -> Result<Issued, RequestError> {
        let api = FakeApi::new();
        let (client, asked, random) = (api.client(), wanted(), Random::seeded(1));
        let asking = request(&client, &asked, &random);
        let answering = async {
            api.until(|api| !api.list(&CERTIFICATE_SIGNING_REQUESTS).is_empty())
                .await;
            let name = api::meta::name(&api.list(&CERTIFICATE_SIGNING_REQUESTS)[0]).to_owned();
            api.edit(&CERTIFICATE_SIGNING_REQUESTS, "", &name, |request| {
                request["status"] = status
            });
        };
        tokio::join!(asking, answering).0
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_comes_with_its_key() {
        let issued = answered(json!({"certificate": "UEVN"})).await.unwrap();
        assert_eq!(issued.chain_pem, "PEM");
        assert!(issued.key_pem.contains("PRIVATE KEY"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_says_why() {
        let status = json!({"conditions": [{"type": "Denied", "status": "True", "message": "who are you"}]});
        let error = answered(status).await.err().unwrap().to_string();
        assert!(error.ends_with("was Denied: who are you"), "{error}");
    }
}
