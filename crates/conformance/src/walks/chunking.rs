//! `test/e2e/apimachinery/chunking.go`.

use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::kinds::POD_TEMPLATES;
use crate::place::{Page, Place, Things, name_of, place, refusal};

/// A quarter of what upstream's tests make: pages differ no more in larger lists.
const TOTAL: usize = 100;
/// Requests under way while they are made.
const PARALLEL: usize = 20;
/// What one change adds to the history of a kind, of which the server keeps at most 16 MiB: below the limit of requests (3 MiB).
const BALLAST: usize = 1 << 20;
/// As much as the server keeps, and half of it again.
const CHANGES_MAX: usize = 24;

/// Servers with support for API chunking should return chunks of results for list calls
pub async fn chunks() {
    let place = place("chunks").await;
    let templates = filled(&place).await;
    for _ in 0..3 {
        let first = page(&templates, 17, "").await;
        let revision = first.resource_version.clone();
        assert_eq!(read_on(&templates, 17, first, 0, &revision).await, TOTAL);
    }
    let all = page(&templates, TOTAL + 1, "").await;
    assert_eq!(all.items.len(), TOTAL);
}

/// Servers with support for API chunking should support continue listing from the last key if the original version has been
/// compacted away, though the list is inconsistent
///
/// Upstream waits until the store was compacted; here as much is written as the server keeps of a kind's history.
pub async fn after_compaction() {
    let place = place("chunks-compacted").await;
    let templates = filled(&place).await;
    let limit = TOTAL / 10;
    let first = page(&templates, limit, "").await;
    check(&first, limit, 0);

    let again = params(limit, &first.continue_token);
    let other = crate::place::place_in(place.client.clone(), "chunks-churn").await;
    let churn = other.of(&POD_TEMPLATES);
    churn.create(template("churn", "")).await.unwrap();
    let mut status = None;
    for round in 0..CHANGES_MAX {
        let ballast = format!("{round}{}", "x".repeat(BALLAST));
        churn.merge("churn", template("churn", &ballast)).await.unwrap();
        if let Err(error) = templates.page(&again).await {
            status = Some(refusal::<()>(Err(error)));
            break;
        }
    }
    let status = status.expect("the token expired");
    assert_eq!((status.code, &*status.reason), (410, "Expired"));
    let token = status.metadata.and_then(|metadata| metadata.continue_);
    let token = token.expect("a token to go on with");

    let second = page(&templates, limit, &token).await;
    assert_ne!(second.resource_version, first.resource_version);
    check(&second, limit, limit);
    let revision = second.resource_version.clone();
    assert_eq!(read_on(&templates, limit, second, limit, &revision).await, TOTAL);
}

/// Reads what is left, beginning with a page of which `found` objects stood before; tells how many there are in all.
async fn read_on(templates: &Things, limit: usize, mut page_now: Page, mut found: usize, revision: &str) -> usize {
    loop {
        assert!(page_now.items.len() <= limit);
        assert_eq!(page_now.resource_version, revision);
        check(&page_now, limit, found);
        found += page_now.items.len();
        if page_now.continue_token.is_empty() {
            return found;
        }
        page_now = page(templates, limit, &page_now.continue_token).await;
    }
}

/// The objects of a page, in order, and what it says of the rest.
#[track_caller]
fn check(page: &Page, limit: usize, before: usize) {
    for (at, item) in page.items.iter().enumerate() {
        assert_eq!(name_of(item), format!("template-{:04}", before + at));
    }
    let left = TOTAL - before - page.items.len();
    match page.continue_token.is_empty() {
        true => assert_eq!((page.remaining, left), (None, 0)),
        false => {
            assert_eq!(page.items.len(), limit);
            assert_eq!(page.remaining, Some(i64::try_from(left).unwrap()));
        }
    }
}

async fn page(templates: &Things, limit: usize, token: &str) -> Page {
    templates.page(&params(limit, token)).await.unwrap()
}

fn params(limit: usize, token: &str) -> ListParams {
    let params = ListParams::default().limit(u32::try_from(limit).unwrap());
    match token {
        "" => params,
        token => params.continue_token(token),
    }
}

async fn filled(place: &Place) -> Things {
    let templates = place.of(&POD_TEMPLATES);
    let made = futures::stream::iter(0..TOTAL)
        .map(|number| templates.create(template(&format!("template-{number:04}"), "")))
        .buffer_unordered(PARALLEL);
    made.try_collect::<Vec<Value>>().await.unwrap();
    templates
}

fn template(name: &str, ballast: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "template": {"spec": {"containers": [{"name": "test", "image": "test2", "args": [ballast]}]}},
    })
}
