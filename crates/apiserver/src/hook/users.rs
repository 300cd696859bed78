//! Who we are to webhooks: the users of a file in kubeconfig format, by the host that is asked.
//!
//! Source: `k8s.io/apiserver/pkg/util/webhook/authentication.go`.

use std::collections::BTreeMap;
use std::path::Path;

use api::codec::{Limits, yaml};
use bytes::Bytes;

use super::ReadFile;
use super::kubeconfig::{Certificate, File, Login, text};

/// What we show and say.
#[derive(Clone)]
pub(crate) struct User {
    /// Our certificate and its key, as PEM.
    pub certificate: Option<Certificate>,
    /// What we say who we are.
    pub login: Login,
}

/// The users of a file.
#[derive(Clone, Default)]
pub(crate) struct Users {
    by_name: BTreeMap<String, User>,
    current: Option<String>,
}

impl std::fmt::Debug for Users {
    /// Without secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

// === impl Users ===

impl Users {
    /// Reads the file and those that it names.
    ///
    /// # Errors
    /// What cannot be read or used, and where.
    pub(crate) fn from_kubeconfig(path: &Path, read: &ReadFile) -> Result<Users, String> {
        let failed = |why: String| format!("{}: {why}", path.display());
        let bytes = read(path).map_err(|error| failed(error.to_string()))?;
        let decoded = yaml::decode(&Bytes::from(bytes), &Limits::default());
        let config = decoded.map_err(|error| failed(error.to_string()))?.value;
        let file = File {
            directory: path.parent().unwrap_or(Path::new("/")),
            read,
        };
        let mut users = Users::default();
        for entry in config["users"].as_array().into_iter().flatten() {
            let name = entry["name"].as_str().unwrap_or("").to_owned();
            let user = User {
                certificate: file.certificate(&entry["user"]).map_err(failed)?,
                login: file.login(&entry["user"]).map_err(failed)?,
            };
            users.by_name.insert(name, user);
        }
        let mut contexts = config["contexts"].as_array().into_iter().flatten();
        let current = text(&config, "current-context");
        let context = current.and_then(|current| contexts.find(|context| context["name"] == current));
        users.current = context.and_then(|context| text(&context["context"], "user").map(str::to_owned));
        Ok(users)
    }

    /// Who we are to `host:port`: by that name, by `*.` with the end of it, without the port when it is that of HTTPS, by
    /// `*`, or the user of the current context. `None`: nobody.
    pub(crate) fn for_host(&self, target: &str) -> Option<&User> {
        let without_port = target.strip_suffix(":443");
        let named = [Some(target), without_port];
        let found = named.into_iter().flatten().find_map(|name| self.named(name));
        found
            .or_else(|| self.by_name.get("*"))
            .or_else(|| self.by_name.get(self.current.as_ref()?))
    }

    fn named(&self, name: &str) -> Option<&User> {
        let ends = name.match_indices('.').map(|(at, _)| format!("*{}", &name[at..]));
        let mut names = std::iter::once(name.to_owned()).chain(ends);
        names.find_map(|name| self.by_name.get(&name))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn hosts_have_users() {
        let file = "current-context: c\ncontexts: [{name: c, context: {user: current}}]\nusers:\n\
                    - {name: 'a.b.svc:8443', user: {token: exact}}\n\
                    - {name: '*.b.svc:8443', user: {token: star}}\n\
                    - {name: '*.example', user: {token: example}}\n\
                    - {name: current, user: {username: u, password: p}}\n";
        let all: ReadFile = Arc::new(move |_| Ok(file.into()));
        let users = Users::from_kubeconfig(Path::new("/f"), &all).unwrap();
        for (host, expect) in [
            ("a.b.svc:8443", "exact"),
            ("c.b.svc:8443", "star"),
            ("d.c.b.svc:8443", "star"),
            ("x.example:443", "example"),
            ("x.example:444", "u"),
            ("elsewhere:443", "u"),
        ] {
            let said = match &users.for_host(host).unwrap().login {
                Login::Token(token) => token.clone(),
                Login::Password { user, .. } => user.clone(),
                _ => String::new(),
            };
            assert_eq!(said, expect, "{host}");
        }
        assert!(Users::default().for_host("a:443").is_none());
        let bad: ReadFile = Arc::new(|_| Ok("users: [{name: a, user: {exec: {}}}]".into()));
        let why = Users::from_kubeconfig(Path::new("/f"), &bad).unwrap_err();
        assert!(why.starts_with("/f: users[].user.exec"), "{why}");
    }
}
