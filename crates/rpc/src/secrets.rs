//! Debug output of messages that carry secrets: the generated one would print registry passwords and keys into logs.

use std::fmt;

use crate::cri::AuthConfig;
use crate::etcd::etcdserverpb::{AuthUserAddRequest, AuthenticateRequest, AuthenticateResponse};
use crate::external_jwt::SignJwtResponse;
use crate::kms::{DecryptResponse, EncryptRequest};

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EncryptRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptRequest")
            .field("uid", &self.uid)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for DecryptResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptResponse").finish_non_exhaustive()
    }
}

impl fmt::Debug for SignJwtResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignJwtResponse")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for AuthenticateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticateRequest")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for AuthenticateResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticateResponse")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for AuthUserAddRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthUserAddRequest")
            .field("name", &self.name)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_printed() {
        let auth = AuthConfig {
            username: "someone".into(),
            password: "hidden-1".into(),
            auth: "hidden-2".into(),
            server_address: "registry.example".into(),
            identity_token: "hidden-3".into(),
            registry_token: "hidden-4".into(),
        };
        let text = format!("{auth:?}");
        assert!(text.contains("someone") && text.contains("registry.example"), "{text}");
        assert!(!text.contains("hidden"), "{text}");
        let hidden = || "hidden".to_owned();
        let user = AuthUserAddRequest {
            name: "someone".into(),
            password: hidden(),
            options: None,
            hashed_password: hidden(),
        };
        let asked = AuthenticateRequest {
            name: "someone".into(),
            password: hidden(),
        };
        let answered = AuthenticateResponse {
            header: None,
            token: hidden(),
        };
        let signed = SignJwtResponse {
            header: String::new(),
            signature: hidden(),
        };
        let text = format!("{user:?} {asked:?} {answered:?} {signed:?}");
        assert!(text.contains("someone") && !text.contains("hidden"), "{text}");
    }
}
