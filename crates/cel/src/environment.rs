//! What an expression may use: variables, record types, and libraries by version.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::library::Libraries;
use crate::parser::Syntax;
use crate::types::{ObjectType, Type};

/// What an expression may use. Cheap to clone; extended for each kind of rule.
#[derive(Clone, Debug)]
pub struct Environment {
    minor: u16,
    bind: bool,
    json_patch: bool,
    variables: BTreeMap<String, Type>,
    objects: BTreeMap<String, Arc<ObjectType>>,
}

impl Environment {
    /// The libraries that Kubernetes 1.`minor` has for expressions, and no variable. Expressions that are new are compiled
    /// with the version before the server's, so that a rollback understands them; stored ones with the server's own.
    /// Source: `k8s.io/apiserver/pkg/cel/environment/base.go`.
    pub fn kubernetes(minor: u16) -> Environment {
        Environment {
            minor,
            bind: false,
            json_patch: false,
            variables: BTreeMap::new(),
            objects: BTreeMap::new(),
        }
    }

    /// One variable more.
    #[must_use]
    pub fn with(mut self, name: &str, kind: Type) -> Environment {
        self.variables.insert(name.to_owned(), kind);
        self
    }

    /// One record type more that expressions can make: `Name{field: value}`.
    #[must_use]
    pub fn with_object(mut self, object: Arc<ObjectType>) -> Environment {
        self.objects.insert(object.name.clone(), object);
        self
    }

    /// `cel.bind(name, value, expression)`, which upstream switches on for device classes and claims only.
    #[must_use]
    pub fn with_bind(mut self) -> Environment {
        self.bind = true;
        self
    }

    /// What expressions that make patches have: `jsonpatch.escapeKey`, and the types `JSONPatch`, `Object` and
    /// `Object.any.field`, of which nothing but the names is checked.
    /// Source: `k8s.io/apiserver/pkg/cel/mutation/typeresolver.go`.
    #[must_use]
    pub fn with_json_patch(mut self) -> Environment {
        self.json_patch = true;
        self
    }

    pub(crate) fn libraries(&self) -> Libraries {
        Libraries {
            minor: self.minor,
            json_patch: self.json_patch,
        }
    }

    pub(crate) fn minor(&self) -> u16 {
        self.minor
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&Type> {
        self.variables.get(name)
    }

    pub(crate) fn object(&self, name: &str) -> Option<Arc<ObjectType>> {
        if let Some(known) = self.objects.get(name) {
            return Some(known.clone());
        }
        match name {
            _ if !self.json_patch => None,
            "JSONPatch" => {
                let texts = ["op", "path", "from"].map(|field| (field, Type::String));
                let fields = texts.into_iter().chain([("value", Type::Dyn)]);
                Some(Arc::new(ObjectType::new(name, fields)))
            }
            _ if name == "Object" || name.starts_with("Object.") => Some(Arc::new(ObjectType::open(name))),
            _ => None,
        }
    }

    pub(crate) fn syntax(&self) -> Syntax {
        Syntax {
            optionals: self.minor >= 28,
            two_variables: self.minor >= 32,
            bind: self.bind,
            sort_by: self.minor >= 34,
        }
    }
}
