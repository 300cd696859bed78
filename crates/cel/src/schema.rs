//! The types of objects as expressions see them when their schema is known: for checking types, where objects are dynamic
//! when expressions run.
//!
//! Source: `SchemaDeclType` of `k8s.io/apiserver/pkg/cel/common/schemas.go`.

use std::sync::Arc;

use api::schema::{Node, Scalar, SchemaRef, Shape};

use crate::types::{Field, ObjectType, Type, escape};

impl Type {
    /// The type of objects with a schema. What may be of several types is dynamic, and so is a type inside of itself.
    pub fn of_schema(schema: &SchemaRef) -> Type {
        of_node(schema.node(), &mut Vec::new())
    }
}

fn of_node<'g>(node: Node<'g>, above: &mut Vec<&'g str>) -> Type {
    match node.shape() {
        Shape::Scalar(Scalar::String) => Type::String,
        Shape::Scalar(Scalar::Bytes) => Type::Bytes,
        Shape::Scalar(Scalar::Bool) => Type::Bool,
        Shape::Scalar(Scalar::Int32 | Scalar::Int64) => Type::Int,
        Shape::Scalar(Scalar::Double) => Type::Double,
        Shape::Scalar(Scalar::Time | Scalar::MicroTime) => Type::Timestamp,
        Shape::Scalar(_) => Type::Dyn,
        Shape::Map { value } => Type::map(Type::String, of_node(value, above)),
        Shape::List { item, .. } => Type::list(of_node(item, above)),
        Shape::Object(_) if node.preserves_unknown() || above.contains(&node.name()) => Type::Dyn,
        Shape::Object(fields) => {
            above.push(node.name());
            let field = |field: api::schema::Field<'g>| {
                let key = field.name().to_owned();
                let kind = of_node(field.schema(), above);
                escape(&key).map(|name| (name, Field { key, kind }))
            };
            let object = ObjectType {
                name: node.name().rsplit('.').next().unwrap_or("").to_owned(),
                fields: fields.iter().filter_map(field).collect(),
                open: false,
            };
            above.pop();
            Type::Object(Arc::new(object))
        }
    }
}

#[cfg(test)]
mod tests {
    use api::GroupVersionKind;

    use super::*;
    use crate::{Environment, compile};

    #[test]
    fn expressions_are_checked_against_a_schema() {
        let schema = SchemaRef::builtin(&GroupVersionKind::new("apps", "v1", "Deployment")).unwrap();
        let environment = Environment::kubernetes(36).with("object", Type::of_schema(&schema));
        for (text, expect) in [
            ("object.spec.replicas > 1", ""),
            ("object.spec.template.spec.containers.all(c, c.image != '')", ""),
            ("object.metadata.labels['a'] == 'b'", ""),
            (
                "object.metadata.creationTimestamp < timestamp('2026-01-01T00:00:00Z')",
                "",
            ),
            ("object.spec.template.metadata.__namespace__ == 'a'", ""),
            ("object.spec.strategy.rollingUpdate.maxSurge == 1", ""),
            ("object.spec.replicasFoo > 1", "undefined field 'replicasFoo'"),
            (
                "object.spec.replicas > '1'",
                "found no matching overload for '_>_' applied to '(int, string)'",
            ),
        ] {
            let found = compile(&environment, text).err();
            let found = found.map_or(String::new(), |issues| issues.list()[0].message.clone());
            assert_eq!(found, expect, "{text}");
        }
    }
}
