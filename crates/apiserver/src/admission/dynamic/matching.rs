//! Whether a policy, a binding or a webhook is about a request, and in which version it wants to see it.
//!
//! Source: `policy/matching/matching.go` and `webhook/predicates` of `k8s.io/apiserver/pkg/admission/plugin`.

use std::sync::Arc;

use api::normalize::{UnknownFields, normalize};
use api::schema::SchemaRef;
use api::selector::LabelSelector;
use api::{GroupResource, GroupVersionKind, GroupVersionResource, Reason, Status, Value, meta};

use super::items;
use crate::pipeline::{Operation, Review};
use crate::registry::Kind;
use crate::respond::view;

/// The version in which a policy sees a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// The resource.
    pub resource: GroupVersionResource,
    /// The kind of the object.
    pub kind: GroupVersionKind,
    /// Which of the kind's served versions that is; `None`: the object is seen as it is.
    version: Option<usize>,
}

/// A request with its objects.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// The request.
    pub review: &'a Review,
    /// The new object.
    pub object: Option<&'a Value>,
    /// The old object.
    pub old: Option<&'a Value>,
}

/// The name of Namespaces as a resource.
pub fn namespaces() -> GroupResource {
    GroupResource {
        group: String::new(),
        resource: "namespaces".into(),
    }
}

impl Seen<'_> {
    /// Whether constraints take the request in, and as what.
    ///
    /// # Errors
    /// They take it in, and cannot say whether.
    pub fn matches(&self, constraints: &Value) -> Result<Option<Matched>, String> {
        let selected = self.selected(constraints);
        if selected == Ok(false) {
            return Ok(None);
        }
        let exact = constraints["matchPolicy"] == "Exact";
        if self
            .by_rules(items(constraints, "excludeResourceRules"), exact)
            .is_some()
        {
            return Ok(None);
        }
        let matched = match items(constraints, "resourceRules") {
            [] => Some(self.as_requested()),
            rules => self.by_rules(rules, exact),
        };
        let Some(matched) = matched else { return Ok(None) };
        selected.map_err(|status| status.message)?;
        Ok(Some(matched))
    }

    /// Whether a webhook takes the request in, and as what.
    ///
    /// # Errors
    /// It takes it in, and cannot say whether: its namespace is not there.
    pub fn matches_webhook(&self, webhook: &Value) -> Result<Option<Matched>, Status> {
        let selected = self.selected(webhook);
        if selected == Ok(false) {
            return Ok(None);
        }
        let matched = self.by_rules(items(webhook, "rules"), webhook["matchPolicy"] != "Equivalent");
        let Some(matched) = matched else { return Ok(None) };
        selected?;
        Ok(Some(matched))
    }

    /// Whether both selectors select it. One that says no decides, whatever fails beside it.
    fn selected(&self, constraints: &Value) -> Result<bool, Status> {
        let by_namespace = self.namespace_matches(&constraints["namespaceSelector"]);
        if by_namespace == Ok(false) {
            return Ok(false);
        }
        let by_object = self.object_matches(&constraints["objectSelector"]);
        if by_object == Ok(false) {
            return Ok(false);
        }
        by_namespace?;
        by_object
    }

    fn as_requested(&self) -> Matched {
        let requested = &self.review.requested;
        self.versions()
            .into_iter()
            .find(|version| version.resource == *requested)
            .unwrap_or_else(|| Matched {
                resource: requested.clone(),
                kind: self.review.kind.clone(),
                version: None,
            })
    }

    /// Every version in which the request can be seen: first as it was made.
    fn versions(&self) -> Vec<Matched> {
        let review = self.review;
        let Some(kind) = kind_of_resource(review) else {
            return Vec::new();
        };
        let whole = kind.is_whole(&review.kind);
        let version = |(index, (gvk, _)): (usize, &(GroupVersionKind, _))| Matched {
            resource: GroupVersionResource::new(&gvk.group, &gvk.version, &kind.row.plural),
            kind: if whole { gvk.clone() } else { review.kind.clone() },
            version: whole.then_some(index),
        };
        let mut versions: Vec<Matched> = kind.versions.iter().enumerate().map(version).collect();
        versions.sort_by_key(|version| version.resource != review.requested);
        versions
    }

    fn by_rules(&self, rules: &[Value], exact: bool) -> Option<Matched> {
        let requested = self.as_requested();
        if rules.iter().any(|rule| self.rule_matches(rule, &requested.resource)) {
            return Some(requested);
        }
        if exact {
            return None;
        }
        let mut others = self.versions();
        others.retain(|version| version.resource != requested.resource);
        rules.iter().find_map(|rule| {
            let mut others = others.iter();
            others
                .find(|version| self.rule_matches(rule, &version.resource))
                .cloned()
        })
    }

    fn rule_matches(&self, rule: &Value, resource: &GroupVersionResource) -> bool {
        let review = self.review;
        let has = |list: &str, wanted: &str| {
            let mut texts = items(rule, list).iter();
            texts.any(|text| text == "*" || text == wanted)
        };
        let is_namespace = resource.group.is_empty() && resource.resource == "namespaces";
        let of_cluster = is_namespace || review.namespace.is_empty();
        let in_scope = match rule["scope"].as_str() {
            None | Some("*") => true,
            Some("Namespaced") => !of_cluster,
            Some("Cluster") => of_cluster,
            Some(_) => false,
        };
        let named = items(rule, "resources").iter().filter_map(Value::as_str).any(|text| {
            let (own, sub) = text.split_once('/').unwrap_or((text, ""));
            (own == "*" || own == resource.resource) && (sub == "*" || sub == review.subresource)
        });
        let names = items(rule, "resourceNames");
        in_scope
            && has("operations", review.operation.as_str())
            && has("apiGroups", &resource.group)
            && has("apiVersions", &resource.version)
            && named
            && (names.is_empty() || names.iter().any(|name| *name == *review.name))
    }

    fn namespace_matches(&self, selector: &Value) -> Result<bool, Status> {
        let review = self.review;
        let of_namespaces = review.resource.resource == "namespaces";
        if review.namespace.is_empty() && !of_namespaces {
            return Ok(true);
        }
        let selector = parsed(selector)?;
        if selector.is_everything() {
            return Ok(true);
        }
        let written = matches!(review.operation, Operation::Create | Operation::Update);
        if of_namespaces && review.subresource.is_empty() && written {
            return Ok(self.object.is_some_and(|object| selector.matches_object(object)));
        }
        match review.cluster.get(&namespaces(), "", &review.namespace) {
            Some(namespace) => Ok(selector.matches(|key| namespace.label(key))),
            None => Err(Status::not_found(&namespaces(), &review.namespace)),
        }
    }

    fn object_matches(&self, selector: &Value) -> Result<bool, Status> {
        let selector = parsed(selector)?;
        let mut objects = self.object.into_iter().chain(self.old);
        Ok(selector.is_everything() || objects.any(|object| selector.matches_object(object)))
    }

    /// The namespace that an object of the request is in; of Namespaces none.
    pub fn namespace(&self) -> Result<Option<Value>, Status> {
        let review = self.review;
        let is_namespace = review.kind == GroupVersionKind::new("", "v1", "Namespace");
        if is_namespace || review.namespace.is_empty() {
            return Ok(None);
        }
        match review.cluster.get(&namespaces(), "", &review.namespace) {
            Some(found) => Ok(Some(found.value())),
            None => Err(Status::not_found(&namespaces(), &review.namespace)),
        }
    }
}

fn parsed(selector: &Value) -> Result<LabelSelector, Status> {
    LabelSelector::from_object(selector).map_err(|error| Status::failure(Reason::InternalError, error.to_string()))
}

/// The kind of a request's resource: of a custom resource the one of the version that was asked for, in which the request sees
/// its objects.
fn kind_of_resource(review: &Review) -> Option<&Arc<Kind>> {
    let GroupVersionResource {
        group,
        version,
        resource,
    } = &review.requested;
    let own = review
        .registry
        .find(group, version, resource)
        .map(|served| &served.kind);
    own.or_else(|| review.registry.kind(&review.resource.group_resource()))
}

/// The kind of a request's object, unless that is a subresource's own.
pub fn kind_of(review: &Review) -> Option<Arc<Kind>> {
    let kind = kind_of_resource(review)?;
    kind.is_whole(&review.kind).then(|| kind.clone())
}

/// Brings an object in the hub's version into normal form.
///
/// # Errors
/// It is no object of the kind.
pub fn normalized(object: &mut Value, kind: &Kind) -> Result<(), Status> {
    normalize(object, &kind.schema, UnknownFields::Ignore).map_err(Status::internal)?;
    Ok(())
}

impl Matched {
    /// The schema of the objects.
    ///
    /// # Errors
    /// There is none.
    pub fn schema(&self, review: &Review) -> Result<SchemaRef, Status> {
        let schema = SchemaRef::builtin(&self.kind).or_else(|| {
            let kind = kind_of_resource(review)?;
            let own = kind.versions.iter().find(|(gvk, _)| *gvk == self.kind)?;
            Some(own.1.clone())
        });
        schema.ok_or_else(|| Status::internal(format_args!("Resource kind {} not found", self.kind)))
    }

    /// A changed object of this version as it is stored, with the defaults of what is new in it.
    ///
    /// # Errors
    /// It is no object of the kind.
    pub async fn settled(&self, review: &Review, object: Value) -> Result<Value, Status> {
        let Some(kind) = kind_of(review) else {
            return Ok(object);
        };
        let mut hub = self.convert_back(review, object).await?;
        normalized(&mut hub, &kind)?;
        kind.row.set_defaults(&mut hub);
        Ok(hub)
    }

    /// An object of the request in this version.
    ///
    /// # Errors
    /// It cannot be converted.
    pub async fn convert(&self, review: &Review, object: &Value) -> Result<Value, Status> {
        let kind = kind_of_resource(review);
        let mut seen = match (kind, self.version) {
            (Some(kind), Some(index)) => review.conversions.in_version(kind, index, object.clone()).await?,
            _ => object.clone(),
        };
        if meta::gvk(&seen).kind.is_empty() {
            view::set_kind(&mut seen, &self.kind.api_version(), &self.kind.kind);
        }
        Ok(seen)
    }

    /// The same; null where there is no object.
    ///
    /// # Errors
    /// It cannot be converted.
    pub async fn convert_any(&self, review: &Review, object: Option<&Value>) -> Result<Value, Status> {
        match object {
            None => Ok(Value::Null),
            Some(object) => self.convert(review, object).await,
        }
    }

    /// An object of this version as it is stored.
    ///
    /// # Errors
    /// It cannot be converted.
    pub async fn convert_back(&self, review: &Review, object: Value) -> Result<Value, Status> {
        let kind = kind_of_resource(review);
        match (kind, self.version) {
            (Some(kind), Some(index)) => review.conversions.in_hub(kind, index, object).await,
            _ => Ok(object),
        }
    }
}
