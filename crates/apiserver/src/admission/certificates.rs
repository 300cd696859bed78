//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may approve or sign requests of a signer,
//! and what nobody may ask for.
//!
//! Source: `plugin/pkg/admission/certificates`.

use std::sync::Arc;

use api::{GroupResource, Status, Value};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Name};

use super::judge::Judge;
use crate::pipeline::{Authorizer, Operation, Review};
use crate::request::{Attributes, SYSTEM_MASTERS};

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";
/// The signer whose certificates the API server takes for users.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// One of the three plug-ins: each is about another path.
pub struct Certificates {
    name: &'static str,
    subresource: &'static str,
    authorizer: Arc<dyn Authorizer>,
}

impl Certificates {
    /// All of them, asking this authorizer.
    pub fn all(authorizer: &Arc<dyn Authorizer>) -> [Certificates; 3] {
        [
            ("CertificateApproval", "approval"),
            ("CertificateSigning", "status"),
            ("CertificateSubjectRestriction", ""),
        ]
        .map(|(name, subresource)| Certificates {
            name,
            subresource,
            authorizer: authorizer.clone(),
        })
    }

    async fn must(&self, review: &Review, verb: &str, signer: &str) -> Result<(), Status> {
        let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
        let every = format!("{domain}/*");
        if self.may(review, verb, signer).await || self.may(review, verb, &every).await {
            return Ok(());
        }
        let signer = api::field::quote(signer);
        let why = format!("user not permitted to {verb} requests with signerName {signer}");
        Err(Status::forbidden(&resource(), &review.name, &why))
    }

    async fn may(&self, review: &Review, verb: &str, name: &str) -> bool {
        let attributes = Attributes {
            is_resource: true,
            verb: verb.into(),
            group: GROUP.into(),
            version: "*".into(),
            resource: "signers".into(),
            name: name.into(),
            ..Attributes::default()
        };
        self.authorizer.authorize(&review.user, &attributes).await.allows()
    }
}

fn resource() -> GroupResource {
    GroupResource {
        group: GROUP.into(),
        resource: RESOURCE.into(),
    }
}

/// Whether a status writes the certificate, or says that signing failed.
fn signs(object: &Value, old: &Value) -> bool {
    let failed = |of: &Value| {
        let conditions = of["status"]["conditions"].as_array().into_iter().flatten();
        conditions
            .filter(|condition| condition["type"] == "Failed")
            .cloned()
            .collect::<Vec<_>>()
    };
    object["status"]["certificate"] != old["status"]["certificate"] || failed(object) != failed(old)
}

/// Whether the request inside asks for a certificate of the administrators' group. What cannot be read is for the rules of
/// the kind to refuse.
fn asks_for_masters(object: &Value) -> bool {
    let organizations = with_subject(object, |subject| {
        let mut organizations = subject.iter_organization();
        organizations.any(|organization| organization.as_str() == Ok(SYSTEM_MASTERS))
    });
    organizations.unwrap_or(false)
}

/// The common name that the request inside asks for; `None` when it cannot be read.
pub(super) fn common_name(object: &Value) -> Option<String> {
    with_subject(object, |subject| {
        let name = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
        name.unwrap_or("").to_owned()
    })
}

/// Looks at the subject of the request inside.
fn with_subject<T>(object: &Value, look: impl FnOnce(&X509Name<'_>) -> T) -> Option<T> {
    use base64::Engine as _;
    let text = object["spec"]["request"].as_str().unwrap_or("");
    let pem = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).ok()?;
    Some(look(&request.certification_request_info.subject))
}

impl Judge for Certificates {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn judge(&self, review: &Review, object: &Value, old: Option<&Value>) -> Result<(), Status> {
        if !review.is_about(GROUP, RESOURCE, self.subresource) {
            return Ok(());
        }
        let signer = |of: &Value| of["spec"]["signerName"].as_str().unwrap_or("").to_owned();
        match (&*review.subresource, review.operation, old) {
            ("", Operation::Create, _) if signer(object) == CLIENT_SIGNER && asks_for_masters(object) => {
                let why = format!("use of {CLIENT_SIGNER} signer with {SYSTEM_MASTERS} group is not allowed");
                Err(review.forbidden(&why))
            }
            ("approval", Operation::Update, Some(old)) => self.must(review, "approve", &signer(old)).await,
            ("status", Operation::Update, Some(old)) if signs(object, old) => {
                self.must(review, "sign", &signer(old)).await
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use futures::executor::block_on;
    use futures::future::BoxFuture;
    use serde_json::json;

    use super::super::testing::World;
    use super::*;
    use crate::pipeline::{Decision, Plugin, RuleSet};
    use crate::request::UserInfo;

    /// Jane may approve for one signer and sign for a whole domain.
    struct Rights;

    impl Authorizer for Rights {
        fn authorize<'a>(&'a self, _: &'a UserInfo, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
            let right = (&*attributes.verb, &*attributes.resource, &*attributes.name);
            let decision = match right {
                ("approve", "signers", "example.com/own") | ("sign", "signers", "example.com/*") => {
                    Decision::Allow(String::new())
                }
                _ => Decision::NoOpinion(String::new()),
            };
            decision.now()
        }

        fn rules(&self, _: &UserInfo, _: &str) -> RuleSet {
            RuleSet::default()
        }
    }

    fn ask(subresource: &str, object: &Value, old: Option<&Value>) -> Option<String> {
        let operation = if old.is_some() {
            Operation::Update
        } else {
            Operation::Create
        };
        let review = World::default().review(operation, GROUP, RESOURCE, subresource, "", "a");
        let authorizer: Arc<dyn Authorizer> = Arc::new(Rights);
        let ask = |plugin: &Certificates| block_on(plugin.validate(&review, Some(object), old)).err();
        let refused = Certificates::all(&authorizer).iter().find_map(ask);
        refused.map(|status| status.message)
    }

    #[test]
    fn approving_and_signing_take_a_right_for_the_signer() {
        let of = |signer: &str| json!({"spec": {"signerName": signer}});
        let refusal = |verb: &str, signer: &str| {
            Some(format!(
                "certificatesigningrequests.certificates.k8s.io \"a\" is forbidden: user not permitted to {verb} requests with signerName \"{signer}\""
            ))
        };
        for (signer, approve, sign) in [
            ("example.com/own", None, None),
            ("example.com/other", refusal("approve", "example.com/other"), None),
            (
                "evil.com/x",
                refusal("approve", "evil.com/x"),
                refusal("sign", "evil.com/x"),
            ),
        ] {
            let old = of(signer);
            assert_eq!(ask("approval", &old, Some(&old)), approve);
            let mut signed = old.clone();
            signed["status"]["certificate"] = "Y2VydA==".into();
            assert_eq!(ask("status", &signed, Some(&old)), sign);
            assert_eq!(ask("status", &old, Some(&old)), None, "no certificate is written");
        }
    }

    #[test]
    fn nobody_asks_for_the_administrators_group() {
        let request = |organization: &str| {
            let mut params = rcgen::CertificateParams::default();
            params
                .distinguished_name
                .push(rcgen::DnType::OrganizationName, organization);
            let key = rcgen::KeyPair::generate().unwrap();
            let pem = params.serialize_request(&key).unwrap().pem().unwrap();
            base64::engine::general_purpose::STANDARD.encode(pem)
        };
        let csr = |signer: &str, organization: &str| json!({"spec": {"signerName": signer, "request": request(organization)}});
        let why =
            "is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
        assert!(
            ask("", &csr(CLIENT_SIGNER, SYSTEM_MASTERS), None)
                .unwrap()
                .ends_with(why)
        );
        assert_eq!(ask("", &csr(CLIENT_SIGNER, "dev"), None), None);
        assert_eq!(ask("", &csr("example.com/own", SYSTEM_MASTERS), None), None);
    }
}
