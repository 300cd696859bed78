//! What is counted by parts that are made before a server is: one set for the process, as `client::metrics::of_process`.

use std::sync::LazyLock;

use base::Clock;

use super::authorizers::AuthorizerMetrics;
use super::certificate_requests::CertificateRequestMetrics;
use super::credentials::CredentialMetrics;
use super::expressions::ExpressionMetrics;
use super::external_signers::ExternalSignerMetrics;
use super::key_services::KeyServiceMetrics;
use super::names::Names;
use super::pod_logs::PodLogMetrics;
use super::server_certificates::ServerCertificateMetrics;
use super::unreadable::UnreadableMetrics;

/// Those metrics.
#[derive(Default)]
pub struct Shared {
    /// Who decides what requests may.
    pub authorizers: AuthorizerMetrics,
    /// Requests for certificates.
    pub certificate_requests: CertificateRequestMetrics,
    /// Tokens.
    pub credentials: CredentialMetrics,
    /// Expressions (CEL).
    pub expressions: ExpressionMetrics,
    /// Who signs tokens in our place.
    pub external_signers: ExternalSignerMetrics,
    /// Key services of encryption at rest.
    pub key_services: KeyServiceMetrics,
    /// Logs of pods.
    pub pod_logs: PodLogMetrics,
    /// Certificates of other servers.
    pub server_certificates: ServerCertificateMetrics,
    /// What is stored and cannot be read.
    pub unreadable: UnreadableMetrics,
}

/// The one set of this process.
pub fn shared() -> &'static Shared {
    static SHARED: LazyLock<Shared> = LazyLock::new(Shared::default);
    &SHARED
}

impl Shared {
    pub(super) fn register(&self, r: &mut Names) {
        self.authorizers.register(r);
        self.credentials.register(r);
        self.expressions.register(r);
        self.external_signers.register(r);
        self.key_services.register(r);
        self.certificate_requests.register(r);
        self.pod_logs.register(r);
        self.server_certificates.register(r);
        self.unreadable.register(r);
    }
}

/// Now, as timestamps among metrics tell it: seconds since 1970.
pub(super) fn now_seconds() -> f64 {
    Clock::real().now().as_millisecond() as f64 / 1000.0
}
