//! The operations of every path, before either version of OpenAPI gives them its form; [`super::general`] has those of no group
//! version.
//!
//! Names of operations, actions and parameters follow `k8s.io/apiserver/pkg/endpoints/installer.go`; clients are
//! generated from them.

use std::collections::BTreeMap;

use super::{OpenApiResource, OpenApiSubresource, Source};
use crate::{GroupVersion, GroupVersionKind};

/// A path and what can be done there.
pub(super) struct Path {
    pub(super) path: String,
    /// `name`, `namespace`, `path`.
    pub(super) path_parameters: Vec<PathParameter>,
    pub(super) operations: Vec<Operation>,
}

pub(super) struct PathParameter {
    pub(super) name: &'static str,
    /// See [`Query::mark`].
    pub(super) mark: &'static str,
    pub(super) description: String,
}

/// One method of a path.
pub(super) struct Operation {
    pub(super) method: &'static str,
    /// `x-kubernetes-action`; empty: it does nothing with objects.
    pub(super) action: &'static str,
    pub(super) id: String,
    pub(super) tag: String,
    pub(super) description: String,
    /// What is read or written.
    pub(super) gvk: GroupVersionKind,
    /// Whether it is one of custom resources, which have no protobuf and no strategic merge.
    pub(super) is_custom: bool,
    pub(super) query: &'static [Query],
    pub(super) body: Body,
    /// Codes that carry the answer.
    pub(super) codes: &'static [(&'static str, &'static str)],
    pub(super) answer: Answer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    None,
    Object,
    DeleteOptions,
    Patch,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Object,
    List,
    Event,
    Status,
    /// A kind of discovery.
    Discovery(&'static str),
    /// What the server is.
    Version,
    /// A document for those who verify tokens, of this media type.
    OpenId(&'static [&'static str]),
    /// A log.
    Log,
    /// Whatever somebody else says.
    Text,
}

pub(super) const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON_EVENTS: &str = "application/json;stream=watch";
const PROTOBUF_EVENTS: &str = "application/vnd.kubernetes.protobuf;stream=watch";

impl Operation {
    /// The media types of the answer.
    pub(super) fn media(&self) -> &'static [&'static str] {
        match (self.answer, self.is_custom) {
            (Answer::Text, _) => &["*/*"],
            (Answer::Version, _) => &[JSON],
            (Answer::OpenId(media), _) => media,
            (Answer::Log, _) => &["text/plain", JSON, YAML, PROTOBUF],
            (Answer::List | Answer::Event, false) => &[JSON, YAML, PROTOBUF, JSON_EVENTS, PROTOBUF_EVENTS],
            (Answer::List | Answer::Event, true) => &[JSON, YAML, JSON_EVENTS],
            (_, false) => &[JSON, YAML, PROTOBUF],
            (_, true) => &[JSON, YAML],
        }
    }

    /// The media types of a patch.
    pub(super) fn patches(&self) -> &'static [&'static str] {
        const ALL: [&str; 4] = [
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/apply-patch+yaml",
            "application/strategic-merge-patch+json",
        ];
        if self.is_custom { &ALL[..3] } else { &ALL }
    }
}

impl Path {
    /// The query parameters that all operations of the path have: they stand beside them and not in each.
    pub(super) fn common(&self) -> Vec<Query> {
        let Some((first, rest)) = self.operations.split_first() else {
            return Vec::new();
        };
        let all = first
            .query
            .iter()
            .filter(|query| rest.iter().all(|other| has(other, query)));
        let mut common: Vec<Query> = all.copied().collect();
        if !matches!(first.action, "" | "connect") {
            common.push(PRETTY);
        }
        common
    }
}

/// Whether an operation has a query parameter.
fn has(operation: &Operation, query: &Query) -> bool {
    operation.query.iter().any(|own| own.name == query.name)
}

/// A query parameter.
#[derive(Clone, Copy)]
pub(super) struct Query {
    pub(super) name: &'static str,
    pub(super) ty: &'static str,
    /// What stands behind the name where v2 tells a parameter once for all operations that have it; empty: each tells it, for
    /// old kubectls look there. Upstream makes it of the parameter's text.
    pub(super) mark: &'static str,
    pub(super) description: &'static str,
}

const fn query(name: &'static str, ty: &'static str, mark: &'static str, description: &'static str) -> Query {
    Query {
        name,
        ty,
        mark,
        description,
    }
}

/// Parameters by their names, types, marks and what they do.
macro_rules! queries {
    ($($query:ident $name:literal $ty:literal $mark:literal $description:literal)*) => {
        $(const $query: Query = query($name, $ty, $mark, $description);)*
    };
}

queries! {
    PRETTY "pretty" "string" "tJGM1-ng" "If 'true', the answer is indented for people."
    DRY_RUN "dryRun" "string" "" "'All' runs every stage of the request and stores nothing."
    FIELD_MANAGER "fieldManager" "string" "Qy4HdaTW" "The name under which the changed fields are owned."
    FIELD_VALIDATION "fieldValidation" "string" "" "What unknown and duplicate fields lead to: Ignore, Warn (a warning header) or Strict (an error)."
    APPLIED_BY "fieldManager" "string" "7c6nTn1T" "The name under which the changed fields are owned; apply has to have one."
    FORCE "force" "boolean" "tOGGb0Yi" "Takes over fields that another manager owns. For apply only."
    CONTINUE "continue" "string" "QfD61s0i" "The token that the page before ended with."
    FIELD_SELECTOR "fieldSelector" "string" "xIcQKXFG" "Restricts the answer by fields."
    LABEL_SELECTOR "labelSelector" "string" "5Zw57w4C" "Restricts the answer by labels."
    LIMIT "limit" "integer" "1NfNmdNH" "The most objects of one answer."
    VERSION "resourceVersion" "string" "5WAnf1kx" "The version that the answer may or must be of."
    VERSION_MATCH "resourceVersionMatch" "string" "t8XhRHeC" "How resourceVersion applies to a list."
    INITIAL_EVENTS "sendInitialEvents" "boolean" "rLXlEK_k" "Begins a watch with events for all objects that are there, ended by a bookmark."
    TIMEOUT "timeoutSeconds" "integer" "yvYezaOC" "The longest duration of a list or watch."
    WATCH "watch" "boolean" "XNNPZGbK" "Streams changes instead of answering with a list."
    BOOKMARKS "allowWatchBookmarks" "boolean" "HC2hJt-J" "Asks for bookmark events in a watch."
    GRACE "gracePeriodSeconds" "integer" "-K5HaBOS" "Seconds until the object is gone; zero is at once."
    IGNORE_READ_ERROR "ignoreStoreReadErrorWithClusterBreakingPotential" "boolean" "QbNkfIqj" "Deletes an object that cannot be read from the store, without any check."
    ORPHAN "orphanDependents" "boolean" "uRB25kX5" "Deprecated: use propagationPolicy."
    PROPAGATION "propagationPolicy" "string" "6jk3prlO" "What becomes of dependents: Orphan, Background or Foreground."
}

static READ: &[Query] = &[];
static WRITE: &[Query] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
static PATCH: &[Query] = &[DRY_RUN, APPLIED_BY, FIELD_VALIDATION, FORCE];
static DELETE: &[Query] = &[DRY_RUN, GRACE, IGNORE_READ_ERROR, ORPHAN, PROPAGATION];
static LIST: &[Query] = &[
    BOOKMARKS,
    CONTINUE,
    FIELD_SELECTOR,
    LABEL_SELECTOR,
    LIMIT,
    VERSION,
    VERSION_MATCH,
    INITIAL_EVENTS,
    TIMEOUT,
    WATCH,
];
static DELETE_COLLECTION: &[Query] = &[
    CONTINUE,
    DRY_RUN,
    FIELD_SELECTOR,
    GRACE,
    IGNORE_READ_ERROR,
    LABEL_SELECTOR,
    LIMIT,
    ORPHAN,
    PROPAGATION,
    VERSION,
    VERSION_MATCH,
    INITIAL_EVENTS,
    TIMEOUT,
];
static LOG: &[Query] = &[
    query(
        "container",
        "string",
        "1GeXxFDC",
        "The container whose log is read; only one that is alone may be left out.",
    ),
    query("follow", "boolean", "9OIXh_2R", "Streams the log as it grows."),
    query(
        "insecureSkipTLSVerifyBackend",
        "boolean",
        "gM00jVbe",
        "Does not verify the kubelet's certificate.",
    ),
    query("limitBytes", "integer", "zwd1RXuc", "The most bytes of the answer."),
    query(
        "previous",
        "boolean",
        "1jxDPu3y",
        "The log of the container's previous run.",
    ),
    query("sinceSeconds", "integer", "vE2NLdnP", "Only lines of the last seconds."),
    query("stream", "string", "l-48cgXv", "All, Stdout or Stderr."),
    query("tailLines", "integer", "9xQLWHMV", "Only the last lines."),
    query("timestamps", "boolean", "c17fW1w_", "Begins each line with its time."),
];
static EXEC: &[Query] = &[
    query(
        "command",
        "string",
        "Py3eQybp",
        "The command; given once for each word.",
    ),
    query(
        "container",
        "string",
        "i5dOmRiM",
        "The container; the first one when left out.",
    ),
    query("stderr", "boolean", "W_1TNlWc", "Sends standard error."),
    query("stdin", "boolean", "PSzNhyUC", "Takes standard input."),
    query("stdout", "boolean", "-EZLRwV1", "Sends standard output."),
    query("tty", "boolean", "s0flW37O", "Gives the command a terminal."),
];
static ATTACH: &[Query] = &[
    query(
        "container",
        "string",
        "_Q-EJ3nR",
        "The container; the only one when left out.",
    ),
    query("stderr", "boolean", "26jJhFUR", "Sends standard error."),
    query("stdin", "boolean", "sEFnN3IS", "Takes standard input."),
    query("stdout", "boolean", "005YMKE6", "Sends standard output."),
    query("tty", "boolean", "g7MlET_l", "The container has a terminal."),
];
static PORT_FORWARD: &[Query] = &[query("ports", "integer", "91KROJmm", "The ports to forward.")];
static NODE_PROXY: &[Query] = &[query("path", "string", "rFDtV0x9", "The path to ask the node for.")];
static POD_PROXY: &[Query] = &[query("path", "string", "oPbzgLUj", "The path to ask the pod for.")];
static SERVICE_PROXY: &[Query] = &[query("path", "string", "QCf0eosM", "The path to ask the service for.")];

const OK: (&str, &str) = ("200", "OK");
const CREATED: (&str, &str) = ("201", "Created");
const ACCEPTED: (&str, &str) = ("202", "Accepted");

/// All paths of a group version, or of all of them and of none.
pub(super) fn paths(source: &Source<'_>, group_version: Option<&GroupVersion>) -> Vec<Path> {
    let mut paths = match group_version {
        Some(_) => Vec::new(),
        None => super::general::paths(source),
    };
    let mut built_in: BTreeMap<String, GroupVersion> = BTreeMap::new();
    let wanted = |resource: &&OpenApiResource| group_version.is_none_or(|wanted| resource.is_of(wanted));
    for resource in source.resources.iter().filter(wanted) {
        let of = resource.gvk.group_version();
        resource_paths(&mut paths, resource, &of);
        if resource.custom.is_none() {
            built_in.insert(prefix(&of), of);
        }
    }
    paths.extend(built_in.iter().map(|(prefix, of)| resource_list(prefix, of)));
    paths.sort_by(|a, b| a.path.cmp(&b.path));
    paths
}

fn prefix(group_version: &GroupVersion) -> String {
    match &*group_version.group {
        "" => format!("/api/{}", group_version.version),
        group => format!("/apis/{group}/{}", group_version.version),
    }
}

/// What can be asked for in a group version.
fn resource_list(prefix: &str, group_version: &GroupVersion) -> Path {
    let id = format!("get{}APIResources", title(group_version));
    let what = "get available resources";
    read(
        format!("{prefix}/"),
        id,
        tag(group_version),
        what,
        Answer::Discovery("APIResourceList"),
    )
}

/// A path that is read and is no object.
pub(super) fn read(path: String, id: String, tag: String, description: &str, answer: Answer) -> Path {
    let operation = Operation {
        method: "get",
        action: "",
        id,
        tag,
        description: description.into(),
        gvk: GroupVersionKind::new("", "", ""),
        is_custom: false,
        query: READ,
        body: Body::None,
        codes: &[OK],
        answer,
    };
    Path {
        path,
        path_parameters: Vec::new(),
        operations: vec![operation],
    }
}

fn resource_paths(paths: &mut Vec<Path>, resource: &OpenApiResource, group_version: &GroupVersion) {
    let prefix = prefix(group_version);
    let scope = if resource.namespaced {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    let maker = Maker {
        resource,
        tag: tag(group_version),
        title: title(group_version),
        scope: if resource.namespaced { "Namespaced" } else { "" },
    };
    let has = |verb: &str| resource.verbs.iter().any(|known| known == verb);
    let collection = format!("{prefix}{scope}/{}", resource.plural);
    let item = format!("{collection}/{{name}}");

    let mut operations = Vec::new();
    if has("list") {
        operations.push(maker.list(maker.scope, ""));
    }
    if has("create") {
        operations.push(maker.create());
    }
    if has("deletecollection") {
        operations.push(maker.delete_collection());
    }
    push(paths, collection, maker.parameters(false), operations);
    if resource.namespaced && has("list") {
        let everywhere = format!("{prefix}/{}", resource.plural);
        push(paths, everywhere, Vec::new(), vec![maker.list("", "ForAllNamespaces")]);
    }
    let operations = ["get", "update", "patch", "delete"]
        .into_iter()
        .filter(|verb| has(verb))
        .map(|verb| maker.item(verb))
        .collect();
    push(paths, item.clone(), maker.parameters(true), operations);
    if has("watch") && resource.custom.is_none() {
        let below = |path: &str| format!("{prefix}/watch{scope}/{}{path}", resource.plural);
        push(
            paths,
            below(""),
            maker.parameters(false),
            vec![maker.watch_list(maker.scope, "")],
        );
        push(paths, below("/{name}"), maker.parameters(true), vec![maker.watch()]);
        if resource.namespaced {
            let everywhere = format!("{prefix}/watch/{}", resource.plural);
            push(
                paths,
                everywhere,
                Vec::new(),
                vec![maker.watch_list("", "ForAllNamespaces")],
            );
        }
    }
    for subresource in &resource.subresources {
        let path = format!("{item}/{}", subresource.name);
        let operations = maker.subresource(subresource, "");
        push(paths, path.clone(), maker.parameters(true), operations);
        if subresource.name == "proxy" {
            let mut parameters = maker.parameters(true);
            parameters.push(PathParameter {
                name: "path",
                mark: "z6Ciiujn",
                description: "path to the resource".into(),
            });
            push(
                paths,
                format!("{path}/{{path}}"),
                parameters,
                maker.subresource(subresource, "WithPath"),
            );
        }
    }
}

fn push(paths: &mut Vec<Path>, path: String, path_parameters: Vec<PathParameter>, operations: Vec<Operation>) {
    if !operations.is_empty() {
        paths.push(Path {
            path,
            path_parameters,
            operations,
        });
    }
}

struct Maker<'a> {
    resource: &'a OpenApiResource,
    tag: String,
    /// `CoreV1`, `RbacAuthorizationV1`.
    title: String,
    scope: &'static str,
}

impl Maker<'_> {
    fn parameters(&self, with_name: bool) -> Vec<PathParameter> {
        let mut parameters = Vec::new();
        if with_name {
            parameters.push(PathParameter {
                name: "name",
                mark: "",
                description: format!("name of the {}", self.resource.gvk.kind),
            });
        }
        if self.resource.namespaced {
            parameters.push(PathParameter {
                name: "namespace",
                mark: "vgWSWtn3",
                description: "object name and auth scope, such as for teams and projects".into(),
            });
        }
        parameters
    }

    fn operation(&self, method: &'static str, action: &'static str, id: String, description: String) -> Operation {
        Operation {
            method,
            action,
            id,
            tag: self.tag.clone(),
            description,
            gvk: self.resource.gvk.clone(),
            is_custom: self.resource.custom.is_some(),
            query: READ,
            body: Body::None,
            codes: &[OK],
            answer: Answer::Object,
        }
    }

    /// One of the paths before a list took `watch`.
    fn watched(&self, action: &'static str, id: String, what: &str, instead: &str) -> Operation {
        let what = format!("{what} {}", self.resource.gvk.kind);
        let description =
            format!("{what}. deprecated: use the 'watch' parameter with a list operation instead{instead}.");
        Operation {
            query: LIST,
            answer: Answer::Event,
            ..self.operation("get", action, id, description)
        }
    }

    fn watch_list(&self, scope: &str, suffix: &str) -> Operation {
        let id = format!("watch{}{scope}{}List{suffix}", self.title, self.resource.gvk.kind);
        self.watched("watchlist", id, "watch individual changes to a list of", "")
    }

    fn watch(&self) -> Operation {
        let id = format!("watch{}{}{}", self.title, self.scope, self.resource.gvk.kind);
        let instead = ", filtered to a single item with the 'fieldSelector' parameter";
        self.watched("watch", id, "watch changes to an object of kind", instead)
    }

    fn list(&self, scope: &str, suffix: &str) -> Operation {
        let kind = &self.resource.gvk.kind;
        let id = format!("list{}{scope}{kind}{suffix}", self.title);
        let watches = self.resource.verbs.iter().any(|verb| verb == "watch");
        let verbs = if watches { "list or watch" } else { "list" };
        Operation {
            query: LIST,
            answer: Answer::List,
            ..self.operation("get", "list", id, format!("{verbs} objects of kind {kind}"))
        }
    }

    fn create(&self) -> Operation {
        let kind = &self.resource.gvk.kind;
        let id = format!("create{}{}{kind}", self.title, self.scope);
        Operation {
            query: WRITE,
            body: Body::Object,
            codes: &[OK, CREATED, ACCEPTED],
            ..self.operation("post", "post", id, format!("create {}", one(kind)))
        }
    }

    fn delete_collection(&self) -> Operation {
        let kind = &self.resource.gvk.kind;
        let id = format!("delete{}Collection{}{kind}", self.title, self.scope);
        Operation {
            query: DELETE_COLLECTION,
            body: Body::DeleteOptions,
            answer: Answer::Status,
            ..self.operation("delete", "deletecollection", id, format!("delete collection of {kind}"))
        }
    }

    /// Whether the answer to a deletion is what was deleted (upstream: `ReturnDeletedObject` of the registry).
    fn answers_with_object(&self) -> bool {
        let gvk = &self.resource.gvk;
        matches!(
            (&*gvk.group, &*gvk.kind),
            (
                "",
                "PersistentVolume" | "PersistentVolumeClaim" | "Pod" | "PodTemplate" | "ResourceQuota"
            ) | ("", "Service" | "ServiceAccount")
                | ("resource.k8s.io", _)
                | ("storage.k8s.io", "CSIDriver" | "CSINode" | "StorageClass")
                | ("storage.k8s.io", "VolumeAttachment" | "VolumeAttributesClass")
        )
    }

    fn item(&self, verb: &str) -> Operation {
        self.named(verb, "", &format!("the specified {}", self.resource.gvk.kind))
    }

    /// An operation on one object, or on a part of it that `suffix` names.
    fn named(&self, verb: &str, suffix: &str, what: &str) -> Operation {
        let id = |word: &str| format!("{word}{}{}{}{suffix}", self.title, self.scope, self.resource.gvk.kind);
        match verb {
            "update" => Operation {
                query: WRITE,
                body: Body::Object,
                codes: &[OK, CREATED],
                ..self.operation("put", "put", id("replace"), format!("replace {what}"))
            },
            "patch" => Operation {
                query: PATCH,
                body: Body::Patch,
                codes: &[OK, CREATED],
                ..self.operation("patch", "patch", id("patch"), format!("partially update {what}"))
            },
            "delete" => Operation {
                query: DELETE,
                body: Body::DeleteOptions,
                codes: &[OK, ACCEPTED],
                answer: match self.answers_with_object() {
                    true => Answer::Object,
                    false => Answer::Status,
                },
                ..self.operation(
                    "delete",
                    "delete",
                    id("delete"),
                    format!("delete {}", one(&self.resource.gvk.kind)),
                )
            },
            "create" => Operation {
                query: WRITE,
                body: Body::Object,
                codes: &[OK, CREATED, ACCEPTED],
                ..self.operation("post", "post", id("create"), format!("create {what}"))
            },
            _ => self.operation("get", "get", id("read"), format!("read {what}")),
        }
    }

    fn subresource(&self, subresource: &OpenApiSubresource, suffix: &str) -> Vec<Operation> {
        let name = &subresource.name;
        let kind = &self.resource.gvk.kind;
        let title = format!("{}{suffix}", camel(name));
        let mut operations = Vec::new();
        for verb in &subresource.verbs {
            if verb == "connect" {
                operations.extend(self.connect(name, &title));
                continue;
            }
            let what = match &**verb {
                "create" => format!("{name} of {}", one(kind)),
                _ => format!("{name} of the specified {kind}"),
            };
            let mut operation = self.named(verb, &title, &what);
            operation.gvk = subresource.gvk.clone();
            if name == "log" {
                operation.query = LOG;
                operation.answer = Answer::Log;
            }
            operations.push(operation);
        }
        operations
    }

    fn connect(&self, name: &str, title: &str) -> Vec<Operation> {
        let kind = &self.resource.gvk.kind;
        let methods: &[&'static str] = match name {
            "proxy" => &["get", "put", "post", "delete", "options", "head", "patch"],
            _ => &["get", "post"],
        };
        let query = match name {
            "exec" => EXEC,
            "attach" => ATTACH,
            "portforward" => PORT_FORWARD,
            _ => match &**kind {
                "Node" => NODE_PROXY,
                "Pod" => POD_PROXY,
                _ => SERVICE_PROXY,
            },
        };
        let make = |&method: &&'static str| {
            let id = format!("connect{}{}{}{kind}{title}", self.title, camel(method), self.scope);
            let description = format!("connect {} requests to {name} of {kind}", method.to_uppercase());
            let options = match name {
                "portforward" => "PortForwardOptions".into(),
                _ => format!("{}Options", camel(name)),
            };
            Operation {
                query,
                answer: Answer::Text,
                gvk: GroupVersionKind {
                    kind: format!("{kind}{options}"),
                    ..self.resource.gvk.clone()
                },
                ..self.operation(method, "connect", id, description)
            }
        };
        methods.iter().map(make).collect()
    }
}

/// One of a kind, with its article; those of which there are several at once have none.
fn one(kind: &str) -> String {
    match kind {
        kind if kind.ends_with('s') && !kind.ends_with("ss") => kind.to_owned(),
        kind if kind.starts_with(['A', 'E', 'I', 'O', 'U']) => format!("an {kind}"),
        kind => format!("a {kind}"),
    }
}

/// `core_v1`, `rbacAuthorization_v1`.
fn tag(group_version: &GroupVersion) -> String {
    format!("{}_{}", group_tag(&group_version.group), group_version.version)
}

/// `core`, `rbacAuthorization`.
pub(super) fn group_tag(group: &str) -> String {
    let title = group_title(group);
    let mut chars = title.chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

fn title(group_version: &GroupVersion) -> String {
    format!("{}{}", group_title(&group_version.group), camel(&group_version.version))
}

/// `Core`, `RbacAuthorization`.
pub(super) fn group_title(group: &str) -> String {
    match group {
        "" => "Core".into(),
        group => group.trim_end_matches(".k8s.io").split('.').map(camel).collect(),
    }
}

/// The first letter in upper case.
pub(super) fn camel(word: &str) -> String {
    let mut chars = word.chars();
    chars
        .next()
        .map(|c| c.to_ascii_uppercase())
        .into_iter()
        .chain(chars)
        .collect()
}
