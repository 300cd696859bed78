//! What a request is about, read from its method, path and query.

use apiserver::request::{Query, parse};
use base::Random;

/// Requests with everything that a path may have.
const GOOD: [&str; 9] = [
    "GET /api/v1/namespaces/default/pods/web/log?follow=true&container=c",
    "POST /apis/apps/v1/namespaces/a%2Fb/deployments?dryRun=All",
    "DELETE /api/v1/pods?labelSelector=a%20in%20(b)&fieldSelector=metadata.name%3Dx",
    "GET /api/v1/watch/namespaces/default/pods/web",
    "PUT /api/v1/namespaces/default/finalize",
    "GET /apis/apps/v1/deployments?watch=1&resourceVersion=0&limit=-1&timeoutSeconds=x",
    "CONNECT /api/v1/namespaces/default/pods/web:80/proxy/a//b/../c",
    "GET /api/v1/proxy/namespaces/default/services/https:web:443/x",
    "GET /openapi/v3/apis/apps/v1?hash=%",
];

pub fn make(random: &Random) -> Vec<u8> {
    GOOD[random.index(GOOD.len())].as_bytes().to_vec()
}

/// A path that is no resource's has no group, version and name.
pub fn run(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input);
    let (method, uri) = text.split_once(' ').unwrap_or(("GET", &text));
    // What HTTP refuses does not come to us.
    let (Ok(method), Ok(uri)) = (method.parse::<http::Method>(), uri.parse::<http::Uri>()) else {
        return "no request".into();
    };
    let query = Query::parse(uri.query().unwrap_or(""));
    match parse(&method, uri.path(), &query) {
        Err(error) => error.to_string(),
        Ok(info) => {
            if !info.is_resource {
                let named = [&info.group, &info.version, &info.resource, &info.name];
                assert!(named.iter().all(|text| text.is_empty()), "{info:?}");
            }
            let has = |text: &str| if text.is_empty() { "-" } else { "+" };
            let parts = [
                &info.group,
                &info.namespace,
                &info.resource,
                &info.subresource,
                &info.name,
            ];
            format!("{} {}", info.verb, parts.map(|part| has(part)).concat())
        }
    }
}
