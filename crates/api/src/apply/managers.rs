//! `metadata.managedFields`: who owns which fields.
//!
//! Source: `k8s.io/apimachinery/pkg/util/managedfields/internal/managedfields.go` and `capmanagers.go`.

use std::collections::BTreeMap;

use super::equal_but_managers;
use super::set::FieldSet;
use crate::{Map, Value};

/// At most this many entries come from updates; the oldest ones are merged.
pub const UPDATE_MANAGERS_MAX: usize = 10;
/// The manager of merged old entries.
const ANCIENT: &str = "ancient-changes";

/// How a manager wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Server-side apply.
    Apply,
    /// Everything else.
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// What tells managers apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManagerId {
    /// The name.
    pub manager: String,
    /// How it wrote.
    pub operation: Operation,
    /// The version it wrote in; empty for those who apply, which have one entry whatever the version.
    pub api_version: String,
    /// The subresource it wrote through.
    pub subresource: String,
}

impl ManagerId {
    /// The id of whoever writes now. A nameless writer is `unknown`.
    pub fn new(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> ManagerId {
        ManagerId {
            manager: if manager.is_empty() { "unknown" } else { manager }.into(),
            operation,
            api_version: if operation == Operation::Apply { "" } else { api_version }.into(),
            subresource: subresource.into(),
        }
    }
}

/// What a manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The fields.
    pub set: FieldSet,
    /// The version in which the paths are meant.
    pub api_version: String,
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managers {
    /// What each one owns.
    pub fields: BTreeMap<ManagerId, Owned>,
    /// When each one last changed something; also of managers that own nothing any more.
    pub times: BTreeMap<ManagerId, String>,
}

impl Managers {
    /// Reads `metadata.managedFields`; absent is empty.
    pub fn decode(entries: &Value) -> Result<Managers, String> {
        let mut managers = Managers::default();
        for (index, entry) in entries.as_array().into_iter().flatten().enumerate() {
            let text = |name: &str| entry[name].as_str().unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err("operation must be `Apply` or `Update`".into()),
            };
            let api_version = text("apiVersion");
            if api_version.is_empty() {
                return Err("apiVersion must not be empty".into());
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
                other => {
                    let other = crate::field::quote(other);
                    return Err(format!("invalid fieldsType {other} in managed fields entry {index}"));
                }
            }
            let set = match &entry["fieldsV1"] {
                Value::Null => FieldSet::new(),
                fields => FieldSet::from_fields_v1(fields).map_err(|why| format!("error decoding set: {why}"))?,
            };
            let id = ManagerId {
                // Names of entries are kept as they are, the empty one too.
                manager: text("manager").into(),
                ..ManagerId::new("", operation, api_version, text("subresource"))
            };
            if let Some(time) = entry["time"].as_str() {
                managers.times.insert(id.clone(), time.into());
            }
            let api_version = api_version.into();
            managers.fields.insert(id, Owned { set, api_version });
        }
        Ok(managers)
    }

    /// Writes `metadata.managedFields` in upstream's order; null when nobody owns anything.
    pub fn encode(&self) -> Value {
        let mut entries: Vec<(&ManagerId, &Owned, Option<&String>)> = self
            .fields
            .iter()
            .map(|(id, owned)| (id, owned, self.times.get(id)))
            .collect();
        entries.sort_by_key(order);
        if entries.is_empty() {
            return Value::Null;
        }
        entries
            .into_iter()
            .map(|(id, owned, time)| entry(id, owned, time))
            .collect()
    }

    /// Whether nobody owns anything.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Merges the oldest entries of updates into one for each version, until there are no more than
    /// [`UPDATE_MANAGERS_MAX`].
    pub(super) fn cap_updates(&mut self) {
        let mut updates: Vec<ManagerId> = self
            .fields
            .keys()
            .filter(|id| id.operation == Operation::Update)
            .cloned()
            .collect();
        let mut count = updates.len();
        updates.sort_by(|a, b| (self.times.get(a), a).cmp(&(self.times.get(b), b)));
        let mut first_of_version: BTreeMap<String, ManagerId> = BTreeMap::new();
        for id in updates {
            if count <= UPDATE_MANAGERS_MAX {
                return;
            }
            let Some(owned) = self.fields.get(&id).cloned() else {
                continue;
            };
            let version = owned.api_version.clone();
            let Some(first) = first_of_version.get(&version) else {
                first_of_version.insert(version, id);
                continue;
            };
            let bucket = ManagerId::new(ANCIENT, Operation::Update, &version, "");
            if !self.fields.contains_key(&bucket)
                && let Some(oldest) = self.fields.remove(first)
            {
                self.fields.insert(bucket.clone(), oldest);
            }
            // The bucket itself may be the next oldest entry: it stays.
            if bucket == id {
                continue;
            }
            if let Some(bucket) = self.fields.get_mut(&bucket) {
                bucket.set = bucket.set.union(&owned.set);
            }
            self.fields.remove(&id);
            count -= 1;
            if let Some(time) = self.times.get(&id).cloned() {
                self.times.insert(bucket, time);
            }
        }
    }
}

/// What entries are sorted by. RFC 3339 in UTC sorts as time; entries without time come first.
fn order<'a>(
    (id, owned, time): &(&'a ManagerId, &'a Owned, Option<&'a String>),
) -> (Operation, Option<&'a String>, &'a str, &'a str, &'a str) {
    (id.operation, *time, &id.manager, &owned.api_version, &id.subresource)
}

fn entry(id: &ManagerId, owned: &Owned, time: Option<&String>) -> Value {
    let mut entry = Map::new();
    let mut put = |name: &str, value: &str| {
        if !value.is_empty() {
            entry.insert(name.into(), value.into());
        }
    };
    put("manager", &id.manager);
    put("operation", id.operation.as_str());
    put("apiVersion", &owned.api_version);
    put("subresource", &id.subresource);
    put("fieldsType", "FieldsV1");
    put("time", time.map(String::as_str).unwrap_or_default());
    entry.insert("fieldsV1".into(), owned.set.to_fields_v1());
    Value::Object(entry)
}

/// Whether somebody asks to forget all managers: the list has one empty entry.
///
/// An empty list does not ask that, so that clients which drop the field do no harm (upstream's documentation).
pub fn is_reset(entries: &Value) -> bool {
    match entries.as_array().map(Vec::as_slice) {
        Some([only]) => only.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// Puts the old `managedFields` back when the new object differs from the old one in nothing but their times: a write
/// that changes nothing must write nothing. Both objects have to be in normal form.
pub fn ignore_time_changes(new: &mut Value, old: &Value) {
    let (of_new, of_old) = (&new["metadata"]["managedFields"], &old["metadata"]["managedFields"]);
    let (Some(of_new), Some(of_old)) = (of_new.as_array(), of_old.as_array()) else {
        return;
    };
    if of_new.is_empty() || of_new.len() != of_old.len() || of_new == of_old {
        return;
    }
    let alike = |(new, old): (&Value, &Value)| match (new, old) {
        (Value::Object(new), Value::Object(old)) => timeless(new).eq(timeless(old)),
        _ => new == old,
    };
    if of_new.iter().zip(of_old).all(alike) && equal_but_managers(new, old) {
        new["metadata"]["managedFields"] = old["metadata"]["managedFields"].clone();
    }
}

/// An entry but for its time.
fn timeless(entry: &Map) -> impl Iterator<Item = (&String, &Value)> {
    entry.iter().filter(|(key, _)| *key != "time")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_read_and_write_in_order() {
        let fields = json!({"f:data": {"f:a": {}}});
        let entries = json!([
            {"manager": "z", "operation": "Apply", "apiVersion": "v1", "time": "2020-01-02T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields},
            {"manager": "b", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields},
            {"manager": "c", "operation": "Update", "apiVersion": "v1", "time": "2020-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields},
            {"manager": "a", "operation": "Update", "apiVersion": "v1", "subresource": "status", "time": "2020-01-02T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields},
        ]);
        let managers = Managers::decode(&entries).unwrap();
        assert_eq!(managers.encode(), entries);
        let mut shuffled = entries.as_array().unwrap().clone();
        shuffled.reverse();
        assert_eq!(Managers::decode(&shuffled.into()).unwrap().encode(), entries);
        assert_eq!(Managers::decode(&Value::Null).unwrap().encode(), Value::Null);
    }

    #[test]
    fn bad_entries_are_refused_in_upstreams_words() {
        for (entry, expect) in [
            (json!({}), "operation must be `Apply` or `Update`"),
            (json!({"operation": "Apply"}), "apiVersion must not be empty"),
            (
                json!({"operation": "Apply", "apiVersion": "v1"}),
                "missing fieldsType in managed fields entry 0",
            ),
            (
                json!({"operation": "Apply", "apiVersion": "v1", "fieldsType": "V2"}),
                "invalid fieldsType \"V2\" in managed fields entry 0",
            ),
            (
                json!({"operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"x": {}}}),
                "error decoding set: key must be 2 characters long:",
            ),
        ] {
            assert_eq!(Managers::decode(&json!([entry])), Err(expect.into()));
        }
        assert!(is_reset(&json!([{}])));
        assert!(!is_reset(&json!([])) && !is_reset(&json!([{}, {}])) && !is_reset(&Value::Null));
    }

    #[test]
    fn old_updates_are_merged() {
        let mut managers = Managers::default();
        for index in 0..13 {
            let id = ManagerId::new(&format!("m{index:02}"), Operation::Update, "v1", "");
            let set = FieldSet::of_fields(&[&format!("data.k{index:02}")]);
            let api_version = "v1".into();
            managers
                .times
                .insert(id.clone(), format!("2020-01-01T00:00:{index:02}Z"));
            managers.fields.insert(id, Owned { set, api_version });
        }
        managers.cap_updates();
        assert_eq!(managers.fields.len(), UPDATE_MANAGERS_MAX);
        let ancient = ManagerId::new("ancient-changes", Operation::Update, "v1", "");
        assert_eq!(managers.fields[&ancient].set.len(), 4);
        assert_eq!(managers.times[&ancient], "2020-01-01T00:00:03Z");
    }

    #[test]
    fn times_alone_are_no_change() {
        let object = |time: &str, value: &str| json!({"metadata": {"managedFields": [{"manager": "a", "time": time}]}, "data": {"k": value}});
        for (new, expect) in [
            (object("2", "x"), object("1", "x")),
            (object("2", "y"), object("2", "y")),
            (
                json!({"metadata": {}, "data": {"k": "x"}}),
                json!({"metadata": {}, "data": {"k": "x"}}),
            ),
        ] {
            let mut got = new;
            ignore_time_changes(&mut got, &object("1", "x"));
            assert_eq!(got, expect);
        }
    }
}
