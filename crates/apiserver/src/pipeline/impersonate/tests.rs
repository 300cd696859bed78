//! Who may act as whom, as tables.

use futures::executor::block_on;
use futures::future::BoxFuture;

use super::*;
use crate::pipeline::{Decision, RuleSet};

/// Allows what is named, as `verb group/resource/subresource name`; `*` allows everything.
struct Rights(&'static [&'static str]);

fn words(of: &Attributes) -> String {
    let path = format!("{}/{}/{}", of.group, of.resource, of.subresource);
    format!("{} {} {}", of.verb, path.trim_matches('/'), of.name)
}

impl Authorizer for Rights {
    fn authorize<'a>(&'a self, user: &'a UserInfo, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        if attributes.verb.contains("associated-node") {
            let keys = &user.extra["authentication.kubernetes.io/associated-node-keys"];
            assert_eq!(keys, &["authentication.kubernetes.io/node-name"]);
        }
        let asked = words(attributes);
        match self.0.iter().any(|right| *right == "*" || *right == asked.trim_end()) {
            true => Decision::Allow(String::new()).now(),
            false => Decision::NoOpinion("no rule".into()).now(),
        }
    }

    fn rules(&self, _: &UserInfo, _: &str) -> RuleSet {
        RuleSet::default()
    }
}

fn check(
    requestor: &UserInfo,
    headers: &[(&'static str, &str)],
    rights: &'static [&'static str],
) -> Result<Option<Impersonated>, Status> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.parse().unwrap());
    }
    let request = Attributes {
        verb: "list".into(),
        version: "v1".into(),
        resource: "pods".into(),
        is_resource: true,
        ..Attributes::default()
    };
    let result = block_on(impersonate(&Rights(rights), requestor, &request, &mut map));
    if matches!(result, Ok(Some(_))) {
        assert!(map.is_empty(), "the headers are gone");
    }
    result
}

fn admin() -> UserInfo {
    UserInfo::new("admin", ["x"])
}

#[test]
fn everybody_is_whom_he_names_with_his_groups() {
    assert_eq!(check(&admin(), &[], &["*"]).unwrap(), None);
    for (headers, name, groups, constraint) in [
        (
            &[(USER, "jane"), (GROUP, "dev"), ("impersonate-extra-a.io%2fb", "1")][..],
            "jane",
            &["dev", "system:authenticated"][..],
            "impersonate:user-info",
        ),
        (
            &[(USER, "jane"), (GROUP, "system:masters")],
            "jane",
            &["system:masters", "system:authenticated"],
            "",
        ),
        (
            &[(USER, "system:serviceaccount:ns:sa")],
            "system:serviceaccount:ns:sa",
            &[
                "system:serviceaccounts",
                "system:serviceaccounts:ns",
                "system:authenticated",
            ],
            "impersonate:serviceaccount",
        ),
        (
            &[(USER, "system:serviceaccount:ns:sa"), (GROUP, "dev")],
            "system:serviceaccount:ns:sa",
            &["dev", "system:authenticated"],
            "",
        ),
        (
            &[(USER, "system:node:a")],
            "system:node:a",
            &["system:nodes", "system:authenticated"],
            "impersonate:arbitrary-node",
        ),
        (
            &[(USER, "system:anonymous")],
            "system:anonymous",
            &["system:unauthenticated"],
            "impersonate:user-info",
        ),
    ] {
        let got = check(&admin(), headers, &["*"]).unwrap().unwrap();
        assert_eq!((&*got.user.name, got.constraint), (name, constraint));
        assert_eq!(got.user.groups, groups, "{name}");
    }
    let extra = [
        (USER, "jane"),
        ("impersonate-extra-a.io%2fb", "1"),
        ("impersonate-extra-a.io%2fb", "2"),
    ];
    let got = check(&admin(), &extra, &["*"]).unwrap().unwrap();
    assert_eq!(got.user.extra["a.io/b"], ["1", "2"]);
}

#[test]
fn each_part_needs_a_right_and_so_does_the_request() {
    let all = &[
        (USER, "jane"),
        (GROUP, "dev"),
        (UID, "7"),
        ("impersonate-extra-a.io%2fk", "v"),
    ][..];
    const CONSTRAINED: &[&str] = &[
        "impersonate-on:user-info:list pods",
        "impersonate:user-info authentication.k8s.io/users jane",
        "impersonate:user-info authentication.k8s.io/groups dev",
        "impersonate:user-info authentication.k8s.io/uids 7",
        "impersonate:user-info authentication.k8s.io/userextras/a.io/k v",
    ];
    const LEGACY: &[&str] = &[
        "impersonate users jane",
        "impersonate groups dev",
        "impersonate authentication.k8s.io/uids 7",
        "impersonate authentication.k8s.io/userextras/a.io/k v",
    ];
    for (rights, constraint) in [(CONSTRAINED, "impersonate:user-info"), (LEGACY, "")] {
        assert_eq!(check(&admin(), all, rights).unwrap().unwrap().constraint, constraint);
        for missing in 0..rights.len() {
            let fewer: Vec<&str> = rights
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != missing)
                .map(|(_, r)| *r)
                .collect();
            let refused = check(&admin(), all, fewer.leak()).unwrap_err();
            assert_eq!(refused.code, 403, "without {}", rights[missing]);
        }
    }
    // The first mode that is for the user is the one whose refusal is told.
    let refused = check(&admin(), all, &[]).unwrap_err();
    let why = "pods is forbidden: User \"admin\" cannot impersonate-on:user-info:list resource \"pods\" in API group \"\" at \
               the cluster scope: no rule";
    assert_eq!(refused.message, why);
}

#[test]
fn many_groups_may_be_allowed_at_once() {
    let headers = [(USER, "jane"), (GROUP, "a"), (GROUP, "b"), (GROUP, "c"), (GROUP, "d")];
    const RIGHTS: &[&str] = &[
        "impersonate-on:user-info:list pods",
        "impersonate:user-info authentication.k8s.io/users jane",
        "impersonate:user-info authentication.k8s.io/groups *",
    ];
    assert!(check(&admin(), &headers, RIGHTS).is_ok());
    assert_eq!(check(&admin(), &headers[..4], RIGHTS).unwrap_err().code, 403);
}

#[test]
fn an_account_acts_as_its_own_node_only() {
    let mut agent = UserInfo::new("system:serviceaccount:ns:agent", ["system:serviceaccounts"]);
    let key = "authentication.kubernetes.io/node-name";
    agent.extra.insert(key.into(), vec!["a".into()]);
    const RIGHTS: &[&str] = &[
        "impersonate-on:associated-node:list pods",
        "impersonate:associated-node authentication.k8s.io/nodes *",
    ];
    let got = check(&agent, &[(USER, "system:node:a")], RIGHTS).unwrap().unwrap();
    assert_eq!(got.constraint, "impersonate:associated-node");
    assert_eq!(got.user.name, "system:node:a");
    assert_eq!(check(&agent, &[(USER, "system:node:b")], RIGHTS).unwrap_err().code, 403);
    let mut person = agent.clone();
    person.name = "jane".into();
    assert_eq!(
        check(&person, &[(USER, "system:node:a")], RIGHTS).unwrap_err().code,
        403
    );
}

#[test]
fn parts_without_a_name_are_no_user() {
    let refused = check(&admin(), &[(GROUP, "dev"), ("impersonate-extra-k", "v")], &["*"]).unwrap_err();
    let expect = "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"dev\"}, \
                  Extra:map[string][]string{\"k\":[]string{\"v\"}}} without impersonating a user name";
    assert_eq!((refused.code, refused.message.as_str()), (400, expect));
}

#[test]
fn extra_fields_have_a_form_in_constrained_modes() {
    const RIGHTS: &[&str] = &[
        "impersonate-on:user-info:list pods",
        "impersonate:user-info authentication.k8s.io/users jane",
    ];
    let refused = check(&admin(), &[(USER, "jane"), ("impersonate-extra-plain", "v")], RIGHTS).unwrap_err();
    assert!(
        refused
            .message
            .contains("impersonating an invalid key in extra is not allowed"),
        "{}",
        refused.message
    );
    let refused = check(&admin(), &[(USER, "jane"), (GROUP, "system:masters")], RIGHTS).unwrap_err();
    assert!(
        refused
            .message
            .ends_with("impersonating the system:masters group is not allowed")
    );
}
