//! Who asks: upstream's `user.Info`, and the names that upstream gives special meaning to.

use std::collections::BTreeMap;

/// The user of unauthenticated requests.
pub const SYSTEM_ANONYMOUS: &str = "system:anonymous";
/// The group that may do everything: only the administrator's certificate carries it.
pub const SYSTEM_MASTERS: &str = "system:masters";

/// Whom the server is to itself.
const SYSTEM_API_SERVER: &str = "system:apiserver";

/// Groups that the server itself adds.
pub mod groups {
    /// Every authenticated request.
    pub const AUTHENTICATED: &str = "system:authenticated";
    /// Every unauthenticated request.
    pub const UNAUTHENTICATED: &str = "system:unauthenticated";
}

/// An authenticated (or anonymous) user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// The unique name.
    pub name: String,
    /// A unique id, or empty.
    pub uid: String,
    /// The groups, `system:authenticated` included.
    pub groups: Vec<String>,
    /// More facts, such as the credential's id.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user of that name and these groups; `system:authenticated` is added when absent.
    pub fn new<S: Into<String>>(name: impl Into<String>, groups: impl IntoIterator<Item = S>) -> UserInfo {
        let mut user = UserInfo {
            name: name.into(),
            groups: groups.into_iter().map(Into::into).collect(),
            ..UserInfo::default()
        };
        user.ensure_authenticated_group();
        user
    }

    /// The user of requests that bring no credentials.
    pub fn anonymous() -> UserInfo {
        UserInfo {
            name: SYSTEM_ANONYMOUS.into(),
            groups: vec![groups::UNAUTHENTICATED.into()],
            ..UserInfo::default()
        }
    }

    /// The server itself, which may do everything.
    pub fn api_server() -> UserInfo {
        UserInfo::new(SYSTEM_API_SERVER, [SYSTEM_MASTERS])
    }

    /// Whether it is the server itself.
    pub fn is_api_server(&self) -> bool {
        self.name == SYSTEM_API_SERVER
    }

    /// Whether the user is in that group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// Adds `system:authenticated`, unless the user is anonymous.
    pub fn ensure_authenticated_group(&mut self) {
        let known = self.is_in(groups::AUTHENTICATED) || self.is_in(groups::UNAUTHENTICATED);
        if self.name != SYSTEM_ANONYMOUS && !known {
            self.groups.push(groups::AUTHENTICATED.into());
        }
    }

    /// The user that an `authentication.k8s.io/v1 UserInfo` is; what is no text there is left out.
    pub fn from_value(info: &api::Value) -> UserInfo {
        let texts = |list: &api::Value| -> Vec<String> {
            let list = list.as_array().into_iter().flatten();
            list.filter_map(api::Value::as_str).map(str::to_owned).collect()
        };
        let extra = info["extra"].as_object().into_iter().flatten();
        UserInfo {
            name: info["username"].as_str().unwrap_or_default().to_owned(),
            uid: info["uid"].as_str().unwrap_or_default().to_owned(),
            groups: texts(&info["groups"]),
            extra: extra.map(|(key, values)| (key.clone(), texts(values))).collect(),
        }
    }

    /// The user as `authentication.k8s.io/v1 UserInfo`.
    pub fn to_value(&self) -> api::Value {
        let mut object = api::Map::new();
        if !self.extra.is_empty() {
            object.insert("extra".into(), serde_json::json!(self.extra));
        }
        if !self.groups.is_empty() {
            object.insert("groups".into(), serde_json::json!(self.groups));
        }
        if !self.uid.is_empty() {
            object.insert("uid".into(), self.uid.clone().into());
        }
        if !self.name.is_empty() {
            object.insert("username".into(), self.name.clone().into());
        }
        api::Value::Object(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_but_the_anonymous_is_authenticated() {
        assert_eq!(UserInfo::new("jane", ["dev"]).groups, ["dev", "system:authenticated"]);
        assert_eq!(
            UserInfo::new("jane", ["system:authenticated"]).groups,
            ["system:authenticated"]
        );
        assert_eq!(
            UserInfo::new::<String>(SYSTEM_ANONYMOUS, []).groups,
            Vec::<String>::new()
        );
        assert_eq!(UserInfo::anonymous().groups, ["system:unauthenticated"]);
    }
}
