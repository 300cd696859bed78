//! Functions: what they are called, what they take and give, and since which Kubernetes version expressions have them.
//!
//! Each library is a table of overloads. A signature is a text: `string::charAt(int) -> string` is called on a string,
//! `size(string) -> int` is not. A single capital letter stands for any type.

pub(crate) mod addresses;
pub(crate) mod authorizer;
mod conversions;
pub(crate) mod formats;
pub(crate) mod formatting;
mod lists;
pub(crate) mod opaque;
mod quantities;
mod regexes;
pub(crate) mod semvers;
mod standard;
mod strings;
mod times;
pub(crate) mod urls;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::program::Error;
use crate::types::{Identity, Type};
use crate::value::Value;

pub(crate) use conversions::double_text;
pub(crate) use regexes::Regexes;
pub(crate) use standard::{add, map_insert, unsupported_key};

/// What a function gives.
pub(crate) type Outcome<'a> = Result<Value<'a>, Error>;

/// What a function does. It is called with arguments of the types of its signature; where the checker saw `dyn` the
/// evaluator has looked before.
#[derive(Clone, Copy)]
pub(crate) enum Native {
    /// It depends on its arguments alone.
    Plain(for<'a> fn(&[Value<'a>]) -> Outcome<'a>),
    /// It compares values with one another, and counts those it looks at.
    Comparing(for<'a> fn(&mut usize, &[Value<'a>]) -> Outcome<'a>),
    /// It uses regular expressions, some of which are compiled already.
    Regex(for<'a> fn(&Regexes, &[Value<'a>]) -> Outcome<'a>),
    /// The evaluator does it.
    Evaluator,
}

/// One way to call a function.
pub(crate) struct Overload {
    /// cel-go's name for it, by which its cost is known.
    pub(crate) id: &'static str,
    /// Called on a value.
    pub(crate) member: bool,
    /// What it takes; first of all what it is called on.
    pub(crate) parameters: Vec<Type>,
    pub(crate) result: Type,
    pub(crate) native: Native,
    since: Since,
}

/// When an expression has a function.
#[derive(Clone, Copy)]
enum Since {
    /// From this minor version of Kubernetes 1 on; 0 means from the start.
    Version(u16),
    /// Where patches are made.
    JsonPatch,
}

/// Which libraries an environment has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Libraries {
    /// The minor version of Kubernetes 1.
    pub(crate) minor: u16,
    /// Those for patches too.
    pub(crate) json_patch: bool,
}

/// A line of a library's table: cel-go's name, the signature, and what it does.
pub(crate) type Line = (&'static str, &'static str, Native);

/// All functions by name.
static FUNCTIONS: LazyLock<HashMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let mut functions: HashMap<&'static str, Vec<Overload>> = HashMap::new();
    const ALWAYS: Since = Since::Version(0);
    let libraries: [(Since, &[Line]); 20] = [
        (ALWAYS, standard::OPERATORS),
        (ALWAYS, standard::FUNCTIONS),
        (ALWAYS, conversions::TABLE),
        (ALWAYS, times::TABLE),
        (ALWAYS, strings::TABLE),
        (ALWAYS, regexes::TABLE),
        (ALWAYS, urls::TABLE),
        (ALWAYS, lists::TABLE),
        (Since::Version(28), quantities::TABLE),
        (Since::Version(29), lists::SETS),
        (Since::Version(30), addresses::TABLE),
        (Since::Version(31), formats::TABLE),
        (Since::Version(33), semvers::TABLE),
        (Since::Version(34), lists::EXTENSION),
        (Since::Version(28), standard::OPTIONALS),
        (Since::Version(32), standard::TWO_VARIABLES),
        (Since::Version(29), formatting::TABLE),
        (Since::Version(27), authorizer::TABLE),
        (Since::Version(31), authorizer::SELECTORS),
        (Since::JsonPatch, formats::JSON_PATCH),
    ];
    for (since, table) in libraries {
        for (id, signature, native) in table {
            let (name, overload) = read(id, signature, *native, since);
            functions.entry(name).or_default().push(overload);
        }
    }
    functions
});

/// The overloads of a function that a version has; none when it has no such function.
pub(crate) fn overloads(function: &str, libraries: Libraries) -> Vec<&'static Overload> {
    let all = FUNCTIONS.get(function).map_or(&[][..], |overloads| overloads);
    let has = |overload: &&'static Overload| match overload.since {
        Since::Version(minor) => minor <= libraries.minor,
        Since::JsonPatch => libraries.json_patch,
    };
    all.iter().filter(has).collect()
}

fn read(id: &'static str, signature: &'static str, native: Native, since: Since) -> (&'static str, Overload) {
    let broken = "invariant: signatures are well formed";
    let (call, result) = signature.split_once(" -> ").expect(broken);
    let (target, call) = call
        .split_once("::")
        .map_or((None, call), |(target, call)| (Some(target), call));
    let open = call.find('(').expect(broken);
    let (name, arguments) = call.split_at(open);
    let arguments = arguments
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
        .expect(broken);
    let overload = Overload {
        id,
        member: target.is_some(),
        parameters: target.into_iter().chain(split(arguments)).map(kind).collect(),
        result: kind(result),
        native,
        since,
    };
    (name, overload)
}

/// Splits at the commas that stand in no bracket.
fn split(list: &'static str) -> Vec<&'static str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, one) in list.char_indices() {
        match one {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !list.is_empty() {
        parts.push(list[start..].trim());
    }
    parts
}

fn kind(name: &'static str) -> Type {
    if let Some((outer, inner)) = name.strip_suffix(')').and_then(|name| name.split_once('(')) {
        let mut inner = split(inner).into_iter().map(|name| Arc::new(kind(name)));
        let mut next = || inner.next().expect("invariant: signatures are well formed");
        return match outer {
            "list" => Type::List(next(), Identity::Place),
            "map" => Type::Map(next(), next()),
            "optional" => Type::Optional(next()),
            _ => Type::Type(Some(next())),
        };
    }
    match name {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        _ if name.len() == 1 => Type::param(name),
        _ => Type::Opaque(name),
    }
}

/// The types that expressions can name.
pub(crate) fn type_named(name: &str, minor: u16) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "double" => Type::Double,
        "google.protobuf.Duration" => Type::Duration,
        "google.protobuf.Timestamp" => Type::Timestamp,
        "int" => Type::Int,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "null_type" => Type::Null,
        "string" => Type::String,
        "type" => Type::Type(None),
        "uint" => Type::Uint,
        "optional_type" if minor >= 28 => Type::optional(Type::Dyn),
        _ => {
            let (known, _) = opaque::TYPES
                .iter()
                .find(|(known, since)| *known == name && *since <= minor)?;
            Type::Opaque(known)
        }
    })
}

/// No function takes these arguments.
pub(crate) fn no_overload() -> Error {
    Error::evaluation("no such overload")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_read() {
        for (signature, expect) in [
            ("string::charAt(int) -> string", "charAt true string,int string"),
            ("size(map(A, B)) -> int", "size false map(A, B) int"),
            (
                "optional.none() -> optional(A)",
                "optional.none false  optional_type(A)",
            ),
            ("net.IP::family() -> int", "family true net.IP int"),
        ] {
            let (name, overload) = read("", signature, Native::Evaluator, Since::JsonPatch);
            let parameters: Vec<String> = overload.parameters.iter().map(Type::to_string).collect();
            let found = format!(
                "{name} {} {} {}",
                overload.member,
                parameters.join(","),
                overload.result
            );
            assert_eq!(found, expect);
        }
    }

    #[test]
    fn every_overload_has_a_name_of_its_own() {
        let mut names: Vec<&str> = FUNCTIONS.values().flatten().map(|overload| overload.id).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        // Two functions share these: what they cost is the same.
        assert!(count - names.len() <= 2, "{} of {count}", names.len());
    }
}
