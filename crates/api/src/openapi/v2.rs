//! OpenAPI 2 (swagger), one document for everything.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde_json::{Map, Value, json};

use super::Source;
use super::paths::{self, Answer, Body, Operation, Query};
use super::types::{self, Dialect, META};

/// A part of the document. Paths come first, then parameters, then definitions.
pub(super) struct Part {
    pub(super) section: Section,
    pub(super) name: String,
    pub(super) value: Value,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Paths,
    /// Those that are told once and referred to.
    Parameters,
    Definitions,
}

impl Section {
    fn name(self) -> &'static str {
        match self {
            Section::Paths => "paths",
            Section::Parameters => "parameters",
            Section::Definitions => "definitions",
        }
    }
}

/// Everything around the parts.
pub(super) fn frame(source: &Source<'_>) -> Value {
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": source.version},
        "paths": {},
        "parameters": {},
        "definitions": {},
        "securityDefinitions": {"BearerToken": {"type": "apiKey", "in": "header", "name": "authorization",
            "description": "Bearer Token authentication"}},
        "security": [{"BearerToken": []}],
    })
}

/// The whole as a tree.
pub(super) fn document(source: &Source<'_>) -> Value {
    let mut document = frame(source);
    each_part(source, &mut |part| {
        document[part.section.name()][part.name] = part.value
    });
    document
}

/// Writes the whole as JSON, without ever having all of it.
pub(super) fn write(source: &Source<'_>, out: &mut dyn io::Write) -> io::Result<()> {
    let frame = frame(source);
    let text = |value: &Value| value.to_string();
    write!(
        out,
        r#"{{"swagger":{},"info":{},"#,
        text(&frame["swagger"]),
        text(&frame["info"])
    )?;
    let (security, definitions) = (text(&frame["security"]), text(&frame["securityDefinitions"]));
    write!(out, r#""security":{security},"securityDefinitions":{definitions}"#)?;
    let mut writer = Writer { out, section: None };
    let mut outcome = Ok(());
    each_part(source, &mut |part| {
        if outcome.is_ok() {
            outcome = writer.part(part);
        }
    });
    outcome?;
    let end = if writer.section.is_some() { "}}" } else { "}" };
    writer.out.write_all(end.as_bytes())
}

struct Writer<'w> {
    out: &'w mut dyn io::Write,
    /// The one that is being written.
    section: Option<Section>,
}

impl Writer<'_> {
    fn part(&mut self, part: Part) -> io::Result<()> {
        if self.section == Some(part.section) {
            self.out.write_all(b",")?;
        } else {
            let end = if self.section.is_some() { "}," } else { "," };
            write!(self.out, r#"{end}"{}":{{"#, part.section.name())?;
            self.section = Some(part.section);
        }
        write!(self.out, "{}:", Value::from(part.name))?;
        Ok(serde_json::to_writer(&mut *self.out, &part.value)?)
    }
}

/// Hands out all paths, then all parameters that they share, and then all definitions.
pub(super) fn each_part(source: &Source<'_>, each: &mut dyn FnMut(Part)) {
    let mut roots = BTreeSet::new();
    let mut shared = BTreeMap::new();
    for path in paths::paths(source, None) {
        let mut item = Map::new();
        let mut parameters: Vec<(&str, Value)> = Vec::new();
        for parameter in &path.path_parameters {
            let value = json!({"name": parameter.name, "in": "path", "required": true, "type": "string",
                "uniqueItems": true, "description": parameter.description});
            parameters.push((
                parameter.name,
                share(&mut shared, parameter.name, parameter.mark, value),
            ));
        }
        let common = path.common();
        let queries = common
            .iter()
            .map(|query| (query.name, query_parameter(&mut shared, query)));
        parameters.extend(queries);
        if !parameters.is_empty() {
            parameters.sort_by_key(|(name, _)| *name);
            let parameters = parameters.into_iter().map(|(_, parameter)| parameter);
            item.insert("parameters".into(), parameters.collect());
        }
        for operation in &path.operations {
            let rendered = render(operation, &common, &mut roots, &mut shared);
            item.insert(operation.method.into(), rendered);
        }
        each(Part {
            section: Section::Paths,
            name: path.path,
            value: Value::Object(item),
        });
    }
    for (name, value) in shared {
        each(Part {
            section: Section::Parameters,
            name,
            value,
        });
    }
    types::each_schema(source, Dialect::V2, None, roots, &mut |name, value| {
        each(Part {
            section: Section::Definitions,
            name,
            value,
        });
    });
}

/// A parameter where it is used: itself, or, with a mark, a reference to it among those that are shared.
fn share(shared: &mut BTreeMap<String, Value>, name: &str, mark: &str, parameter: Value) -> Value {
    if mark.is_empty() {
        return parameter;
    }
    let name = format!("{name}-{mark}");
    let reference = json!({"$ref": format!("#/parameters/{name}")});
    shared.entry(name).or_insert(parameter);
    reference
}

fn query_parameter(shared: &mut BTreeMap<String, Value>, query: &Query) -> Value {
    let parameter = json!({"name": query.name, "in": "query", "type": query.ty, "uniqueItems": true,
        "description": query.description});
    share(shared, query.name, query.mark, parameter)
}

fn render(
    operation: &Operation,
    common: &[Query],
    roots: &mut BTreeSet<String>,
    shared: &mut BTreeMap<String, Value>,
) -> Value {
    let mut refer = |name: String| {
        let reference = Dialect::V2.reference(&name);
        roots.insert(name);
        reference
    };
    let own = operation.query.iter();
    let own = own.filter(|query| !common.iter().any(|common| common.name == query.name));
    let mut parameters: Vec<Value> = own.map(|query| query_parameter(shared, query)).collect();
    let body = match operation.body {
        Body::None => None,
        Body::Object => Some((true, "", refer(types::name_of_kind(&operation.gvk)))),
        Body::DeleteOptions => Some((false, "2Y1dVQaQ", refer(format!("{META}.DeleteOptions")))),
        Body::Patch => Some((true, "78PwaGsr", refer(format!("{META}.Patch")))),
    };
    if let Some((required, mark, schema)) = body {
        let mut parameter = json!({"name": "body", "in": "body", "schema": schema});
        if required {
            parameter["required"] = true.into();
        }
        parameters.insert(0, share(shared, "body", mark, parameter));
    }
    let schema = types::answer(operation, refer);
    let mut responses = Map::new();
    for (code, description) in operation.codes {
        responses.insert((*code).into(), json!({"description": description, "schema": schema}));
    }
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    let consumes: &[&str] = match (operation.body, operation.answer) {
        (Body::Patch, _) => operation.patches(),
        (_, Answer::Discovery(_) | Answer::Version) => operation.media(),
        (_, Answer::OpenId(_)) => &[],
        _ => &["*/*"],
    };
    let mut out = json!({
        "tags": [operation.tag],
        "description": operation.description,
        "operationId": operation.id,
        "produces": operation.media(),
        "schemes": ["https"],
        "responses": responses,
    });
    if !consumes.is_empty() {
        out["consumes"] = json!(consumes);
    }
    types::say_action(operation, &mut out);
    if !parameters.is_empty() {
        out["parameters"] = Value::Array(parameters);
    }
    out
}
