//! The environment of a container, and the words of its command in which variables stand.
//!
//! [`environment`] fetches the objects that a container names and hands them to [`build`], a plain function. What a
//! variable comes from, in rising precedence: the services of the namespace, `envFrom` in order, `env` in order; an
//! `env` value may use `$(NAME)` of everything before it. Errors are worded as upstream's and belong into the waiting
//! reason `CreateContainerConfigError`.
//! Source: `pkg/kubelet/kubelet_pods.go` (`makeEnvironmentVariables`).
//!
//! How it is used:
//! ```text
//! let environment = env::environment(&input, &objects).await?;      // objects: volumes::objects::ObjectCache
//! config.envs = environment.to_cri();
//! config.command = environment.expand_all(container.command.as_deref().unwrap_or_default());
//! config.args = environment.expand_all(container.args.as_deref().unwrap_or_default());
//! for text in &environment.skipped { /* event Warning InvalidEnvironmentVariableNames */ }
//! ```

mod expansion;
mod fields;
mod files;
mod services;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::field::quote;
use client::k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, FileKeySelector, Pod, Secret, Service};

use crate::volumes::Volume;
use crate::volumes::objects::{ObjectError, Objects};

pub use expansion::{expand, expand_strict};
pub use fields::{NodeFacts, pod_field, resource_field, runtime_field};
pub use services::service_variables;

/// The reason of the container's waiting state when its environment cannot be made.
pub const REASON: &str = "CreateContainerConfigError";
/// The reason of the event for names that were skipped.
pub const REASON_SKIPPED: &str = "InvalidEnvironmentVariableNames";

/// Why there is no environment, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// An object that is not there, or cannot be read.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A key that is not in its object.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key {
        /// The key.
        key: String,
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// The object's namespace.
        namespace: String,
        /// The object's name.
        name: String,
    },
    /// A field that cannot be shown.
    #[error("{0}")]
    Field(String),
    /// A value that no process can be given.
    #[error("the value of environment variable {0} {1}")]
    Value(String, &'static str),
    /// A file of a volume that cannot be read, or whose text is none of variables; why is in the log, since the file is the
    /// pod's own.
    #[error("couldn't parse env file")]
    File,
    /// A key that is not in its file.
    #[error("environment variable key {} not found in file {}", quote(key), quote(path))]
    FileKey {
        /// The key.
        key: String,
        /// The file on this node.
        path: String,
    },
    /// A volume that is not there.
    #[error("cannot find the volume {} referenced by FileKeyRef", quote(.0))]
    Volume(String),
}

/// Whose environment, and what it may show.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// One of its containers.
    pub container: &'a Container,
    /// The node.
    pub node: &'a NodeFacts,
    /// The pod's addresses (the node's own for a pod on the node's network), the first one first.
    pub pod_ips: &'a [String],
    /// The pod's volumes, by their names.
    pub volumes: &'a BTreeMap<String, Volume>,
    /// All services of the pod's namespace, and `default/kubernetes`. More are left out by [`service_variables`].
    pub services: &'a [Arc<Service>],
}

/// A container's environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Names and values, each name once.
    pub variables: Vec<(String, String)>,
    /// Texts of events about names that were left out.
    pub skipped: Vec<String>,
}

/// The objects that a container names, or why not.
#[derive(Default)]
pub struct Gathered {
    /// By name.
    pub config_maps: BTreeMap<String, Result<Arc<ConfigMap>, ObjectError>>,
    /// By name.
    pub secrets: BTreeMap<String, Result<Arc<Secret>, ObjectError>>,
}

/// Makes the environment of a container.
///
/// # Errors
/// In upstream's words, for the reason [`REASON`].
pub async fn environment(input: &Input<'_>, objects: &dyn Objects) -> Result<Environment, EnvError> {
    let gathered = gather(input, objects).await;
    build(input, &gathered)
}

async fn gather(input: &Input<'_>, objects: &dyn Objects) -> Gathered {
    let namespace = input.pod.metadata.namespace.as_deref().unwrap_or("");
    let mut gathered = Gathered::default();
    let froms = || input.container.env_from.iter().flatten();
    let sources = || {
        input
            .container
            .env
            .iter()
            .flatten()
            .filter_map(|variable| variable.value_from.as_ref())
    };
    let config_maps = froms()
        .filter_map(|from| from.config_map_ref.as_ref())
        .map(|source| &source.name);
    let config_maps = config_maps.chain(
        sources()
            .filter_map(|from| from.config_map_key_ref.as_ref())
            .map(|source| &source.name),
    );
    for name in config_maps {
        if !gathered.config_maps.contains_key(name) {
            gathered
                .config_maps
                .insert(name.clone(), objects.config_map(namespace, name).await);
        }
    }
    let secrets = froms()
        .filter_map(|from| from.secret_ref.as_ref())
        .map(|source| &source.name);
    let secrets = secrets.chain(
        sources()
            .filter_map(|from| from.secret_key_ref.as_ref())
            .map(|source| &source.name),
    );
    for name in secrets {
        if !gathered.secrets.contains_key(name) {
            gathered
                .secrets
                .insert(name.clone(), objects.secret(namespace, name).await);
        }
    }
    gathered
}

/// Decides the environment from what was gathered.
///
/// # Errors
/// In upstream's words.
pub fn build(input: &Input<'_>, gathered: &Gathered) -> Result<Environment, EnvError> {
    let namespace = input.pod.metadata.namespace.as_deref().unwrap_or("");
    let links = input
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.enable_service_links)
        .unwrap_or(true);
    let services = service_variables(input.services, namespace, links);
    let mut builder = Builder {
        variables: Vec::new(),
        index: BTreeMap::new(),
        services,
        skipped: Vec::new(),
    };
    for from in input.container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or("");
        if let Some(source) = &from.config_map_ref {
            let optional = source.optional.unwrap_or(false);
            if let Some(object) = present(gathered.config_maps.get(&source.name), optional)? {
                let pairs = object.data.iter().flatten().map(|(key, value)| (key, value.as_bytes()));
                builder.add_all(prefix, pairs, &format!("configMap {namespace}/{}", source.name))?;
            }
        } else if let Some(source) = &from.secret_ref {
            let optional = source.optional.unwrap_or(false);
            if let Some(object) = present(gathered.secrets.get(&source.name), optional)? {
                let pairs = object
                    .data
                    .iter()
                    .flatten()
                    .map(|(key, value)| (key, value.0.as_slice()));
                builder.add_all(prefix, pairs, &format!("secret {namespace}/{}", source.name))?;
            }
        }
    }
    for variable in input.container.env.iter().flatten() {
        let value = variable.value.as_deref().unwrap_or("");
        let value = match &variable.value_from {
            Some(source) if value.is_empty() => match resolve(input, gathered, source, &variable.name)? {
                Some(value) => value,
                None => continue,
            },
            _ => expand(value, |name| builder.get(name)),
        };
        builder.set(&variable.name, value)?;
    }
    Ok(builder.finish())
}

/// The object, `None` when it may be absent and is.
fn present<T>(found: Option<&Result<Arc<T>, ObjectError>>, optional: bool) -> Result<Option<&T>, EnvError> {
    match found {
        Some(Ok(object)) => Ok(Some(object)),
        Some(Err(error)) if optional && error.is_not_found() => Ok(None),
        Some(Err(error)) => Err(error.clone().into()),
        None => Ok(None),
    }
}

/// The value of a source, `None` when it may be absent and is.
fn resolve(
    input: &Input<'_>,
    gathered: &Gathered,
    source: &EnvVarSource,
    variable: &str,
) -> Result<Option<String>, EnvError> {
    let namespace = input.pod.metadata.namespace.clone().unwrap_or_default();
    if let Some(field) = &source.field_ref {
        let value = runtime_field(input.pod, &field.field_path, input.node, input.pod_ips);
        return value.map(Some).map_err(EnvError::Field);
    }
    if let Some(selector) = &source.resource_field_ref {
        let value = resource_field(selector, input.pod, Some(input.container), input.node);
        return value.map(Some).map_err(EnvError::Field);
    }
    if let Some(selector) = &source.config_map_key_ref {
        let optional = selector.optional.unwrap_or(false);
        let Some(object) = present(gathered.config_maps.get(&selector.name), optional)? else {
            return Ok(None);
        };
        return match object.data.as_ref().and_then(|data| data.get(&selector.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(EnvError::Key {
                key: selector.key.clone(),
                kind: "ConfigMap",
                namespace,
                name: selector.name.clone(),
            }),
        };
    }
    if let Some(selector) = &source.secret_key_ref {
        let optional = selector.optional.unwrap_or(false);
        let Some(object) = present(gathered.secrets.get(&selector.name), optional)? else {
            return Ok(None);
        };
        return match object.data.as_ref().and_then(|data| data.get(&selector.key)) {
            Some(value) => text(variable, &value.0).map(Some),
            None if optional => Ok(None),
            None => Err(EnvError::Key {
                key: selector.key.clone(),
                kind: "Secret",
                namespace,
                name: selector.name.clone(),
            }),
        };
    }
    if let Some(selector) = &source.file_key_ref {
        return from_file(input, selector, variable);
    }
    Ok(Some(String::new()))
}

/// The value of a key in a file of a volume, `None` when it may be absent and is.
fn from_file(input: &Input<'_>, selector: &FileKeySelector, variable: &str) -> Result<Option<String>, EnvError> {
    let volume = input.volumes.get(&selector.volume_name);
    let volume = volume.ok_or_else(|| EnvError::Volume(selector.volume_name.clone()))?;
    let text = files::read(&volume.path, &selector.path).map_err(|error| error.to_string());
    let value = text
        .and_then(|text| files::value(&text, &selector.key))
        .map_err(|why| {
            tracing::warn!(
                pod = input.pod.metadata.name,
                path = selector.path,
                why,
                "a file of variables was not read"
            );
            EnvError::File
        })?;
    match value.is_empty() {
        true if selector.optional.unwrap_or(false) => Ok(None),
        true => Err(EnvError::FileKey {
            key: selector.key.clone(),
            path: volume.path.join(&selector.path).display().to_string(),
        }),
        false => self::text(variable, value.as_bytes()).map(Some),
    }
}

/// A process gets text that ends at the first zero byte, and CRI carries UTF-8.
fn text(variable: &str, bytes: &[u8]) -> Result<String, EnvError> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        Ok(_) => Err(EnvError::Value(variable.to_owned(), "contains a zero byte")),
        Err(_) => Err(EnvError::Value(variable.to_owned(), "is not valid UTF-8")),
    }
}

struct Builder {
    variables: Vec<(String, String)>,
    index: BTreeMap<String, usize>,
    services: BTreeMap<String, String>,
    skipped: Vec<String>,
}

// === impl Builder ===

impl Builder {
    fn get(&self, name: &str) -> Option<String> {
        let own = self.index.get(name).map(|at| &self.variables[*at].1);
        own.or_else(|| self.services.get(name)).cloned()
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), EnvError> {
        if value.contains('\0') {
            return Err(EnvError::Value(name.to_owned(), "contains a zero byte"));
        }
        match self.index.get(name) {
            Some(at) => self.variables[*at].1 = value,
            None => {
                self.index.insert(name.to_owned(), self.variables.len());
                self.variables.push((name.to_owned(), value));
            }
        }
        Ok(())
    }

    fn add_all<'a>(
        &mut self,
        prefix: &str,
        pairs: impl Iterator<Item = (&'a String, &'a [u8])>,
        from: &str,
    ) -> Result<(), EnvError> {
        let mut invalid = Vec::new();
        for (key, value) in pairs {
            let name = format!("{prefix}{key}");
            if is_name(&name) {
                let value = text(&name, value)?;
                self.set(&name, value)?;
            } else {
                invalid.push(name);
            }
        }
        if !invalid.is_empty() {
            invalid.sort();
            self.skipped.push(format!(
                "Keys [{}] from the EnvFrom {from} were skipped since they are considered invalid environment variable names.",
                invalid.join(", ")
            ));
        }
        Ok(())
    }

    fn finish(mut self) -> Environment {
        for (name, value) in self.services {
            if !self.index.contains_key(&name) {
                self.variables.push((name, value));
            }
        }
        Environment {
            variables: self.variables,
            skipped: self.skipped,
        }
    }
}

/// Upstream's relaxed rule (`IsRelaxedEnvVarName`): printable ASCII without `=`.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
}

// === impl Environment ===

impl Environment {
    /// A variable's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The words of a command with `$(NAME)` replaced; what is not defined stays as it is.
    pub fn expand_all(&self, words: &[String]) -> Vec<String> {
        words
            .iter()
            .map(|word| expand(word, |name| self.get(name).map(str::to_owned)))
            .collect()
    }

    /// As the runtime wants it.
    pub fn to_cri(&self) -> Vec<rpc::cri::KeyValue> {
        let pair = |(key, value): &(String, String)| rpc::cri::KeyValue {
            key: key.clone(),
            value: value.clone().into(),
        };
        self.variables.iter().map(pair).collect()
    }
}

#[cfg(test)]
mod tests;
