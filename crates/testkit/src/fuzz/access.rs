//! What decides who may do what: tokens, requests for certificates, sealed values, and the files that configure all of it.

use std::io;
use std::sync::{Arc, LazyLock};

use api::{GroupResource, Value};
use apiserver::audit::Policy;
use apiserver::authentication::{AuthenticationConfiguration, TokenFile};
use apiserver::authorization::{Abac, config};
use apiserver::hook::{ReadFile, Target};
use apiserver::pki::{Authority, dns_names, identity_of};
use apiserver::sealing::{EncryptionConfig, Sealer};
use apiserver::tokens::{
    BoundObjects, ISSUER, Reference, Signer, TokenAuthenticator, TokenBinding, TokenRequest, issue,
};
use base::{Clock, Random};

/// A reader of one of the files.
type Reader = fn(&str) -> String;

/// Each kind of file: a good one, and what reads it. An input begins with a byte that chooses.
const FILES: [(&str, Reader); 7] = [
    (
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: Metadata\n  \
         users: [a]\n  verbs: [get]\n  resources: [{group: '', resources: ['pods/*'], resourceNames: [x]}]\n\
         - level: RequestResponse\n  nonResourceURLs: ['/healthz*']\n  omitManagedFields: true\n",
        |text| told(Policy::from_text(text)),
    ),
    (
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {enabled: true, conditions: \
         [{path: /livez}]}\njwt:\n- issuer: {url: 'https://i.example', audiences: [a]}\n  claimMappings:\n    username: \
         {expression: claims.sub}\n    extra: [{key: example.org/x, valueExpression: claims.x}]\n  claimValidationRules: \
         [{expression: 'claims.a == 1', message: no}]\n",
        |text| told(AuthenticationConfiguration::from_text(text, &[ISSUER.to_owned()])),
    ),
    (
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n- {type: Node, name: node}\n\
         - type: Webhook\n  name: hook\n  webhook: {timeout: 3s, authorizedTTL: 5m, unauthorizedTTL: 30s, failurePolicy: \
         NoOpinion, subjectAccessReviewVersion: v1, matchConditionSubjectAccessReviewVersion: v1, connectionInfo: {type: \
         KubeConfigFile, kubeConfigFile: /hook}, matchConditions: [{expression: request.user == 'a'}]}\n",
        |text| told(config::parse(text.as_bytes(), &nothing())),
    ),
    (
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets, '*.apps']\n  \
         providers:\n  - aescbc: {keys: [{name: k, secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}]}\n  - kms: \
         {apiVersion: v2, name: v, endpoint: 'unix:///k.sock', timeout: 3s}\n  - identity: {}\n",
        |text| told(EncryptionConfig::from_text(text)),
    ),
    (
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: s, user: u}}]\nclusters: \
         [{name: s, cluster: {server: 'https://h:1/p', certificate-authority-data: QQ==}}]\nusers: [{name: u, user: {token: \
         t}}]\n",
        |text| told(kubeconfig(text)),
    ),
    (
        "{\"apiVersion\": \"abac.authorization.kubernetes.io/v1beta1\", \"kind\": \"Policy\", \"spec\": {\"user\": \"a\", \
         \"namespace\": \"*\", \"resource\": \"pods\", \"readonly\": true}}\n# nobody\n",
        |text| told(Abac::read(text, "policies")),
    ),
    ("token,jane,7,\"dev,qa\"\nother,\"a \"\"b\"\"\",8\n", |text| {
        told(TokenFile::read(text, "tokens"))
    }),
];

fn told<T>(outcome: Result<T, impl std::fmt::Display>) -> String {
    outcome.map_or_else(|error| error.to_string(), |_| "read".to_owned())
}

/// No file that another one names is there.
fn nothing() -> ReadFile {
    Arc::new(|_| Err(io::ErrorKind::NotFound.into()))
}

fn kubeconfig(text: &str) -> Result<Target, String> {
    let text = text.to_owned();
    let own: ReadFile = Arc::new(move |path| match path.ends_with("config") {
        true => Ok(text.clone().into_bytes()),
        false => Err(io::ErrorKind::NotFound.into()),
    });
    Target::from_kubeconfig("/etc/hook/config".as_ref(), &own)
}

pub fn make_file(random: &Random) -> Vec<u8> {
    let at = random.index(FILES.len());
    let mut input = vec![at as u8];
    input.extend(FILES[at].0.as_bytes());
    input
}

pub fn file(input: &[u8]) -> String {
    let (at, text) = input
        .split_first()
        .map_or((0, input), |(at, text)| (usize::from(*at), text));
    FILES[at % FILES.len()].1(&String::from_utf8_lossy(text))
}

/// Everything that a token may be bound to is there.
struct All;

impl BoundObjects for All {
    fn find(&self, _: &str, _: &str, name: &str) -> Option<(String, Option<i64>)> {
        Some((format!("uid-{name}"), None))
    }

    fn read(&self, _: &str, _: &str, _: &str) -> Option<Value> {
        None
    }
}

struct Tokens {
    authenticator: TokenAuthenticator,
    token: String,
}

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate().expect("a key can be made").serialize_pem();
    let signer = Signer::from_pem(&key, Random::seeded(1)).expect("the key is of the right kind");
    let signer = Arc::new(signer);
    let request = TokenRequest {
        namespace: "default",
        account: Reference {
            name: "web".into(),
            uid: "uid-web".into(),
        },
        bound_to: TokenBinding::default(),
        audiences: Vec::new(),
        expiration_seconds: 1 << 32,
    };
    let issued = issue(&signer, request, Clock::real().now()).expect("a token can be made");
    Tokens {
        authenticator: TokenAuthenticator::new(signer, Arc::new(All)),
        token: issued.token,
    }
});

pub fn make_token(_: &Random) -> Vec<u8> {
    TOKENS.token.clone().into_bytes()
}

/// Nobody is let in but with the very token that was signed.
pub fn token(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input);
    let Tokens { authenticator, token } = &*TOKENS;
    match authenticator.authenticate(&text, &[ISSUER.to_owned()], Clock::real().now()) {
        Ok(identity) => {
            assert_eq!(text, **token, "another token is {}", identity.user);
            identity.user
        }
        Err(error) => error.to_string(),
    }
}

fn secrets() -> GroupResource {
    GroupResource {
        group: String::new(),
        resource: "secrets".into(),
    }
}

static SEALER: LazyLock<Sealer> = LazyLock::new(|| {
    let random = Random::seeded(1);
    let keys = Sealer::new_keys(&random);
    Sealer::from_text(&keys, [secrets()], random).expect("the keys were just made")
});

/// What a sealed value was, and under which name.
const SEALED: (&[u8], &[u8]) = (b"/registry/secrets/default/a", b"{\"kind\":\"Secret\"}");

pub fn make_sealed(_: &Random) -> Vec<u8> {
    SEALER.seal(SEALED.0, SEALED.1).to_vec()
}

/// What was changed does not open.
pub fn sealed(input: &[u8]) -> String {
    let key = SEALER.key_of(&secrets());
    match SEALER.open(key, SEALED.0, input) {
        Ok(opened) => {
            assert_eq!(&*opened, SEALED.1, "a value that nobody sealed opened");
            "opened".into()
        }
        Err(error) => error.to_string(),
    }
}

struct Requests {
    authority: Authority,
    pem: String,
}

static REQUESTS: LazyLock<Requests> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate().expect("a key can be made");
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "jane");
    let request = parameters.serialize_request(&key).expect("a request can be made");
    Requests {
        authority: Authority::generate("fuzz", Clock::real().now(), Random::seeded(1))
            .expect("an authority can be made"),
        pem: request.pem().expect("a request has a PEM"),
    }
});

/// The armour is spoiled as often as what is in it.
pub fn make_certificate_request(random: &Random) -> Vec<u8> {
    let pem = &REQUESTS.pem;
    match random.chance(0.5) {
        true => pem.clone().into_bytes(),
        false => pem.replace('\n', "\r\n").into_bytes(),
    }
}

/// Only what its own key signed gets a certificate, and one that can be read.
pub fn certificate_request(input: &[u8]) -> String {
    let (text, now) = (String::from_utf8_lossy(input), Clock::real().now());
    let usages = ["client auth".to_owned()];
    match REQUESTS.authority.sign_request(&text, &usages, Some(3600), now) {
        Ok(pem) => {
            let mut pem = pem.as_bytes();
            let read = rustls_pemfile::certs(&mut pem).filter(Result::is_ok).count();
            assert_eq!(read, 1, "a certificate that cannot be read");
            "signed".into()
        }
        Err(error) => error.to_string(),
    }
}

pub fn make_certificate(_: &Random) -> Vec<u8> {
    let pair = REQUESTS
        .authority
        .issue_client("jane", Some("dev"), Clock::real().now());
    let pair = pair.expect("a certificate can be made");
    let der = rustls_pemfile::certs(&mut pair.certificate_pem.as_bytes()).next();
    der.and_then(Result::ok).expect("a certificate can be read").to_vec()
}

/// What a client shows that has not been verified yet.
pub fn certificate(input: &[u8]) -> String {
    let names = dns_names(input).len();
    match identity_of(input) {
        Err(error) => error.to_string(),
        Ok(_) => format!("somebody {}", "name ".repeat(names)),
    }
}
