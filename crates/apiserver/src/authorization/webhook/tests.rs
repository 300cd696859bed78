//! The authorizer against a service on loopback.

use base::Random;
use serde_json::json;

use super::super::config::Connection;
use super::*;
use crate::hook::testing::Service;

const MINUTE: Duration = Duration::from_secs(60);

fn config(denies_on_error: bool, ttl: Duration) -> WebhookConfiguration {
    WebhookConfiguration {
        name: "test".into(),
        authorized_ttl: ttl,
        unauthorized_ttl: ttl,
        timeout: MINUTE,
        version: ReviewVersion::V1,
        denies_on_error,
        connection: Connection::InCluster,
        match_conditions: Vec::new(),
    }
}

fn webhook(service: &Service, config: &WebhookConfiguration) -> Webhook {
    let pause = Duration::from_millis(1);
    let hook = Hook::new(service.target(), config.timeout, pause, Random::seeded(1)).unwrap();
    Webhook::new(hook, config).unwrap()
}

fn get(name: &str) -> Attributes {
    Attributes {
        verb: "get".into(),
        resource: "pods".into(),
        name: name.into(),
        is_resource: true,
        ..Attributes::default()
    }
}

#[tokio::test]
async fn answers_are_verdicts() {
    let service = Service::start(|_, question| {
        let status = match question["spec"]["resourceAttributes"]["name"].as_str().unwrap() {
            "yes" => json!({"allowed": true, "reason": "r"}),
            "never" => json!({"denied": true, "reason": "r"}),
            "both" => json!({"allowed": true, "denied": true}),
            "lost" => return (404, json!({"message": "nothing here"})),
            "strange" => return (200, json!({"kind": "TokenReview", "status": {"allowed": true}})),
            _ => json!({}),
        };
        (200, json!({"kind": "SubjectAccessReview", "status": status}))
    })
    .await;
    let jane = UserInfo::new("jane", ["dev"]);
    let r = || "r".to_owned();
    for denies in [true, false] {
        let webhook = webhook(&service, &config(denies, MINUTE));
        for (name, expect) in [
            ("yes", Decision::Allow(r())),
            ("never", Decision::Deny(r())),
            ("no", Decision::NoOpinion(String::new())),
        ] {
            assert_eq!(webhook.authorize(&jane, &get(name)).await, expect, "{name}");
        }
        for (name, expect, why) in [
            ("both", true, "returned both allow and deny response"),
            ("lost", denies, "404: nothing here"),
            ("strange", denies, "the answer is of kind \"TokenReview\""),
        ] {
            let got = webhook.authorize(&jane, &get(name)).await;
            let Decision::Failed { denies, error, .. } = got else {
                panic!("{name}: {got:?}");
            };
            assert!(denies == expect && error.contains(why), "{name}: {error}");
        }
    }
}

#[tokio::test]
async fn answers_are_remembered_unless_the_question_is_long() {
    let service = Service::start(|_, _| (200, json!({"status": {"allowed": true}}))).await;
    let (jane, bob) = (UserInfo::new("jane", ["dev"]), UserInfo::new("bob", ["dev"]));
    let remembers = webhook(&service, &config(false, MINUTE));
    let long = get(&"x".repeat(ASKED_BYTES_MAX));
    for (user, attributes, times) in [
        (&jane, get("a"), 1),
        (&jane, get("a"), 1),
        (&jane, get("b"), 2),
        (&bob, get("a"), 3),
        (&jane, long.clone(), 4),
        (&jane, long, 5),
    ] {
        assert!(remembers.authorize(user, &attributes).await.allows());
        assert_eq!(service.asked().len(), times);
    }
    let forgets = webhook(&service, &config(false, Duration::ZERO));
    for times in [6, 7] {
        assert!(forgets.authorize(&jane, &get("a")).await.allows());
        assert_eq!(service.asked().len(), times);
    }
}

#[tokio::test]
async fn conditions_say_who_is_asked_about() {
    let service = Service::start(|_, _| (200, json!({"status": {"denied": true}}))).await;
    let mut config = config(true, MINUTE);
    config.match_conditions = vec!["request.resourceAttributes.name != 'spared'".into()];
    let webhook = webhook(&service, &config);
    let jane = UserInfo::new("jane", ["dev"]);
    let spared = webhook.authorize(&jane, &get("spared")).await;
    assert_eq!((spared, service.asked().len()), (Decision::NoOpinion(String::new()), 0));
    let other = webhook.authorize(&jane, &get("a")).await;
    assert_eq!((other, service.asked().len()), (Decision::Deny(String::new()), 1));
    let path = webhook.authorize(&jane, &Attributes::default()).await;
    assert!(matches!(path, Decision::Failed { denies: true, .. }), "{path:?}");
}
