//! Conversions in the midst of plain work.
//!
//! Managers of fields have written through versions of their own, so that an update is compared in each of them; that work does
//! not wait, and a webhook has to be waited for. So the work gets no object where it asks for one that is not known yet, what it
//! made is thrown away, the webhook is asked, and the work is done again: it depends on nothing but what it is given.

use std::cell::RefCell;

use api::{Status, Value};

use super::convert::to_version;
use super::{Conversion, CustomKind};
use crate::registry::Kind;
use crate::server::Server;

/// How often work is done again at most: once for each version that managers have written through, and once more for what was
/// made of the answers.
const ROUNDS_MAX: usize = 16;

/// An object, the version that it is wanted in, and what it is there.
type Known = (Value, usize, Value);

/// What one piece of work asks.
struct Asking {
    known: Vec<Known>,
    open: Vec<(Value, usize)>,
}

thread_local! {
    /// Of the work that this thread does now: it is never left in the midst of it.
    static ASKING: RefCell<Option<Asking>> = const { RefCell::new(None) };
}

/// Does work that may ask for objects in other versions.
///
/// # Errors
/// Those of the work; 500 when the webhook does not convert.
pub async fn asking<T>(server: &Server, kind: &Kind, work: impl Fn() -> Result<T, Status>) -> Result<T, Status> {
    let custom = kind.custom.as_ref();
    let Some(custom) = custom.filter(|custom| matches!(custom.conversion, Conversion::Webhook(_))) else {
        return work();
    };
    let mut known = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let (result, open);
        (result, open, known) = attempt(known, &work);
        if open.is_empty() {
            return result;
        }
        for (object, index) in open {
            let converted = to_version(server, custom, object.clone(), index).await?;
            known.push((object, index, converted));
        }
    }
    Err(Status::internal(format_args!(
        "managers of fields of {} ask for ever more conversions",
        custom.definition.name
    )))
}

/// Nothing of a piece of work is left on its thread, however it ends.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        ASKING.set(None);
    }
}

fn attempt<T>(known: Vec<Known>, work: &impl Fn() -> T) -> (T, Vec<(Value, usize)>, Vec<Known>) {
    let asking = Asking {
        known,
        open: Vec::new(),
    };
    ASKING.set(Some(asking));
    let end = End;
    let result = work();
    let asked = ASKING.take();
    drop(end);
    let (open, known) = asked.map_or_else(Default::default, |asked| (asked.open, asked.known));
    (result, open, known)
}

impl CustomKind {
    /// An object in another version, for the comparison of what managers own. None: it is not known, or not yet.
    pub fn for_managers(&self, object: &Value, index: usize) -> Option<Value> {
        let Conversion::Webhook(_) = self.conversion else {
            return self.renamed(object.clone(), index).ok();
        };
        ASKING.with_borrow_mut(|asking| {
            let Some(asking) = asking else {
                // Nobody can be asked: the paths are taken for the same ones.
                return self.renamed(object.clone(), index).ok();
            };
            let found = asking.known.iter().find(|(of, to, _)| *to == index && of == object);
            if found.is_none() && !asking.open.iter().any(|(of, to)| *to == index && of == object) {
                asking.open.push((object.clone(), index));
            }
            found.map(|(_, _, converted)| converted.clone())
        })
    }
}
