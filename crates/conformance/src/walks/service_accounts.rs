//! `test/e2e/auth/service_accounts.go` and `subjectreviews.go`.

use http::Request;
use serde_json::{Value, json};

use crate::kinds::{CONFIG_MAPS, SERVICE_ACCOUNTS};
use crate::place::{name_of, place};

/// ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace
pub async fn root_certificate() {
    const NAME: &str = "kube-root-ca.crt";
    let place = place("root-ca").await;
    let maps = place.of(&CONFIG_MAPS);
    let is_there = |items: &[Value]| items.iter().any(|map| name_of(map) == NAME);
    let first = maps.until("", "the certificate", is_there).await;
    let uid_of = |items: &[Value]| {
        let map = items.iter().find(|map| name_of(map) == NAME);
        map.map(|map| map["metadata"]["uid"].clone())
    };
    let first = uid_of(&first);
    maps.delete(NAME).await.unwrap();
    let another = |items: &[Value]| uid_of(items).is_some_and(|uid| Some(uid) != first);
    maps.until("", "another certificate", another).await;
    let emptied = json!({"metadata": {"name": NAME}, "data": {"ca.crt": ""}});
    maps.replace(emptied).await.unwrap();
    let filled = |items: &[Value]| {
        let map = items.iter().find(|map| name_of(map) == NAME);
        map.is_some_and(|map| map["data"]["ca.crt"].as_str().is_some_and(|text| !text.is_empty()))
    };
    maps.until("", "the certificate's text", filled).await;
}

/// ServiceAccounts should create a serviceAccountToken and ensure a successful TokenReview
pub async fn token() {
    let place = place("account-token").await;
    let account = json!({"metadata": {"name": "e2e-sa"}});
    place.of(&SERVICE_ACCOUNTS).create(account).await.unwrap();
    let path = format!("/api/v1/namespaces/{}/serviceaccounts/e2e-sa/token", place.namespace);
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let answer = place.post(&path, request).await.unwrap();
    let token = answer["status"]["token"].as_str().unwrap();
    assert!(!token.is_empty());
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let review = place
        .post("/apis/authentication.k8s.io/v1/tokenreviews", review)
        .await
        .unwrap();
    assert_eq!(review["status"]["authenticated"], true, "{review}");
    assert!(review["status"]["error"].is_null(), "{review}");
}

/// SubjectReview should support SubjectReview API operations
pub async fn subject_reviews() {
    let place = place("subject-reviews").await;
    let account = json!({"metadata": {"name": "e2e"}});
    let account = place.of(&SERVICE_ACCOUNTS).create(account).await.unwrap();
    let user = format!("system:serviceaccount:{}:e2e", place.namespace);
    let groups = [
        "system:authenticated".to_owned(),
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{}", place.namespace),
    ];
    let uid = account["metadata"]["uid"].as_str().unwrap();
    let spec = json!({
        "resourceAttributes": {
            "verb": "list", "resource": "configmaps", "namespace": place.namespace, "version": "v1",
        },
        "user": user, "groups": groups, "uid": uid,
    });
    let review = |kind: &str, metadata: Value| json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let answer = place
        .post(path, review("SubjectAccessReview", json!({})))
        .await
        .unwrap();
    let expected = answer["status"]["allowed"].as_bool().unwrap();

    let mut request = Request::get(format!("/api/v1/namespaces/{}/configmaps", place.namespace))
        .header("Impersonate-User", &user)
        .header("Impersonate-Uid", uid);
    for group in &groups {
        request = request.header("Impersonate-Group", group);
    }
    let list = place.client.request::<Value>(request.body(Vec::new()).unwrap()).await;
    let allowed = match list {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if status.is_forbidden() => false,
        Err(other) => panic!("{other}"),
    };
    assert_eq!(allowed, expected);

    let path = format!(
        "/apis/authorization.k8s.io/v1/namespaces/{}/localsubjectaccessreviews",
        place.namespace
    );
    let metadata = json!({"namespace": place.namespace});
    let answer = place
        .post(&path, review("LocalSubjectAccessReview", metadata))
        .await
        .unwrap();
    assert_eq!(answer["status"]["allowed"], allowed);
}
