//! Whether an expression reads a field of a variable: some rules of Kubernetes are about that (`claims.email` is only of use
//! together with `claims.email_verified`).
//!
//! Source: `hasSelectExp` of `k8s.io/apiserver/pkg/apis/apiserver/validation/validation.go`.

use crate::ast::{Expr, Kind, Literal, operator};
use crate::program::Program;

impl Program {
    /// Whether `variable.field`, `variable.?field` or `has(variable.field)` is anywhere in the expression.
    pub fn selects(&self, variable: &str, field: &str) -> bool {
        selects(&self.checked.root, variable, field)
    }
}

fn selects(expr: &Expr, variable: &str, field: &str) -> bool {
    let within = |expr: &Expr| selects(expr, variable, field);
    let is_variable = |expr: &Expr| matches!(&expr.kind, Kind::Ident(name) if &**name == variable);
    match &expr.kind {
        Kind::Literal(_) | Kind::Ident(_) | Kind::TypeName(_) | Kind::Constant(_) => false,
        Kind::Member(member) => within(&member.0),
        Kind::Select(select) => (is_variable(&select.operand) && &*select.field == field) || within(&select.operand),
        Kind::Call(call) => {
            let is_field = |expr: &Expr| matches!(&expr.kind, Kind::Literal(Literal::String(name)) if &**name == field);
            let optional = match &*call.arguments {
                [operand, name] if &*call.function == operator::OPTIONAL_SELECT => {
                    is_variable(operand) && is_field(name)
                }
                _ => false,
            };
            optional || call.target.iter().chain(&call.arguments).any(within)
        }
        Kind::List(elements) => elements.iter().any(|element| within(&element.value)),
        Kind::Map(entries) => entries.iter().any(|entry| within(&entry.key) || within(&entry.value)),
        Kind::Struct(made) => made.fields.iter().any(|field| within(&field.value)),
        Kind::Fold(fold) => [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result]
            .into_iter()
            .any(within),
    }
}

#[cfg(test)]
mod tests {
    use crate::{Environment, Type, compile};

    #[test]
    fn fields_are_found_wherever_they_are_read() {
        let environment = Environment::kubernetes(36).with("claims", Type::map(Type::String, Type::Dyn));
        for (text, expect) in [
            ("claims.email", true),
            ("claims.?email.orValue('x')", true),
            ("has(claims.email) ? 'a' : 'b'", true),
            ("[claims.email]", true),
            ("{'a': claims.email}", true),
            ("claims.email.split('@')[0] + 'x'", true),
            ("['a'].exists(x, x == claims.email)", true),
            ("claims.email_verified", false),
            ("claims.other.email", false),
            ("'claims.email'", false),
            ("claims.sub", false),
        ] {
            let program = compile(&environment, text).expect(text);
            assert_eq!(program.selects("claims", "email"), expect, "{text}");
        }
    }
}
