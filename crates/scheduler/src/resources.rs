//! Amounts of what a node has and a pod wants, as whole numbers.
//!
//! CPU counts in thousandths, memory and storage in bytes, everything else in units.
//! Source: `pkg/scheduler/framework/types.go` (`Resource`).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::quantity::Quantity;

/// What the scores count for a container that asks for no CPU, in thousandths.
/// Source: `pkg/scheduler/util/pod_resources.go`.
pub const DEFAULT_MILLI_CPU: i64 = 100;
/// What the scores count for a container that asks for no memory, in bytes.
pub const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// Amounts by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Everything else by its name (huge pages, devices); sorted, few, usually none.
    pub others: Vec<(Arc<str>, i64)>,
}

// === impl Resources ===

impl Resources {
    /// Reads a map of quantities such as `resources.requests`. What cannot be read counts as nothing: the API server
    /// has validated it.
    pub fn of_quantities(quantities: &BTreeMap<String, String>) -> Resources {
        let mut resources = Resources::default();
        for (name, text) in quantities {
            let Ok(quantity) = Quantity::parse(text) else { continue };
            match &**name {
                "cpu" => resources.milli_cpu = quantity.milli_value(),
                "memory" => resources.memory = quantity.value(),
                "ephemeral-storage" => resources.ephemeral_storage = quantity.value(),
                "pods" => {}
                other => resources.others.push((other.into(), quantity.value())),
            }
        }
        resources
    }

    /// Adds each amount.
    pub fn add(&mut self, other: &Resources) {
        self.change(other, 1);
    }

    /// Takes each amount away.
    pub fn subtract(&mut self, other: &Resources) {
        self.change(other, -1);
    }

    fn change(&mut self, other: &Resources, sign: i64) {
        let step = |own: &mut i64, amount: i64| *own = own.saturating_add(sign * amount);
        step(&mut self.milli_cpu, other.milli_cpu);
        step(&mut self.memory, other.memory);
        step(&mut self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.others {
            match self.others.binary_search_by(|(own, _)| own.cmp(name)) {
                Ok(at) => step(&mut self.others[at].1, *amount),
                Err(at) => self.others.insert(at, (name.clone(), sign * amount)),
            }
        }
        if sign < 0 {
            self.others.retain(|(_, amount)| *amount != 0);
        }
    }

    /// Raises each amount to the other's.
    pub fn raise_to(&mut self, other: &Resources) {
        self.milli_cpu = self.milli_cpu.max(other.milli_cpu);
        self.memory = self.memory.max(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.max(other.ephemeral_storage);
        for (name, amount) in &other.others {
            match self.others.binary_search_by(|(own, _)| own.cmp(name)) {
                Ok(at) => self.others[at].1 = self.others[at].1.max(*amount),
                Err(at) => self.others.insert(at, (name.clone(), *amount)),
            }
        }
    }

    /// Sets the amount of a resource that is neither CPU, memory nor ephemeral storage.
    pub fn set_other(&mut self, name: &str, amount: i64) {
        match self.others.binary_search_by(|(own, _)| (**own).cmp(name)) {
            Ok(at) => self.others[at].1 = amount,
            Err(at) => self.others.insert(at, (name.into(), amount)),
        }
    }

    /// The amount of a resource that is neither CPU, memory nor ephemeral storage.
    pub fn other(&self, name: &str) -> i64 {
        self.others
            .iter()
            .find(|(own, _)| &**own == name)
            .map_or(0, |(_, amount)| *amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Resources {
        Resources::of_quantities(&pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    #[test]
    fn quantities_become_numbers() {
        let resources = of(&[
            ("cpu", "1500m"),
            ("memory", "1Gi"),
            ("pods", "3"),
            ("example.com/gpu", "2"),
        ]);
        assert_eq!((resources.milli_cpu, resources.memory), (1500, 1 << 30));
        assert_eq!(resources.others, [("example.com/gpu".into(), 2)]);
    }

    #[test]
    fn what_was_added_can_be_taken_away() {
        let (mut sum, gpu) = (of(&[("cpu", "1")]), of(&[("cpu", "500m"), ("example.com/gpu", "2")]));
        let before = sum.clone();
        sum.add(&gpu);
        assert_eq!((sum.milli_cpu, sum.other("example.com/gpu")), (1500, 2));
        sum.subtract(&gpu);
        assert_eq!(sum, before);
    }
}
