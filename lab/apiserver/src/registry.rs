//! The one table of kinds: everything the server knows about a resource hangs off its row here.
//!
//! Names come from the generated API types, so a row says only what they do not: short names, categories,
//! subresources, which columns `kubectl get` shows, how lists merge in a strategic patch. Discovery, routing,
//! storage, printing and validation all read this table and nothing else, so serving a further kind is one row
//! (plus an `impl Kind` for its defaults and rules). Custom resources add rows while the server runs
//! ([`crate::custom`]).
//!
//! `events.k8s.io/v1` and core `v1` Events are two rows over one slot of the store.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::custom;
use crate::kind::{Completed, Completion, Kind, TypeError, complete};
use crate::patch::schema::{self, Schema};
use crate::table::{Columns, Printer};
use crate::validate::names::NameRule;

mod kinds;

/// Which form an object takes outside the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As stored.
    Stored,
    /// Stored as a core `v1` Event, spoken as `events.k8s.io/v1`.
    EventsV1,
    /// A custom resource: stored in any of its versions, spoken in this row's.
    Custom,
}

/// One row of the table: a resource as discovery lists it.
pub struct Resource {
    /// API group, empty for core.
    pub group: &'static str,
    /// Version within the group.
    pub version: &'static str,
    /// Plural name, as in paths.
    pub plural: &'static str,
    /// Singular name, as kubectl accepts it.
    pub singular: String,
    /// Kind, as in objects.
    pub kind: &'static str,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// kubectl's abbreviations.
    pub short_names: &'static [&'static str],
    /// kubectl's groups of kinds, such as `all`.
    pub categories: &'static [&'static str],
    /// Whether `/status` exists and the main path leaves status alone.
    pub status: bool,
    /// Whether `/scale` exists.
    pub scale: bool,
    /// Whether `metadata.generation` counts changes of the spec.
    pub generation: bool,
    /// Whether a finished DELETE answers the object instead of a `Status`.
    pub returns_deleted: bool,
    /// Index of this resource's objects in the store.
    pub slot: usize,
    /// How the stored form and the spoken form relate.
    pub form: Form,
    /// How names are formed.
    pub name_rule: NameRule,
    /// How lists merge in a strategic-merge patch.
    pub schema: &'static Schema,
    /// Columns of `kubectl get`.
    pub columns: Columns,
    /// The columns that a definition declares in place of `columns`.
    pub printers: Option<Vec<Printer>>,
    /// Parses, fills defaults and validates.
    pub complete: Complete,
}

/// How objects of a kind are parsed, filled with defaults and validated.
pub type Complete = Box<dyn Fn(Completion<'_>) -> Result<Completed, TypeError> + Send + Sync>;

impl Resource {
    fn of<T: Kind>(namespaced: bool, columns: Columns) -> Self {
        Resource {
            group: T::GROUP,
            version: T::VERSION,
            plural: T::URL_PATH_SEGMENT,
            singular: T::KIND.to_lowercase(),
            kind: T::KIND,
            namespaced,
            short_names: &[],
            categories: &[],
            status: false,
            scale: false,
            generation: false,
            returns_deleted: false,
            slot: usize::MAX,
            form: Form::Stored,
            name_rule: T::NAME,
            schema: &schema::OBJECT,
            columns,
            printers: None,
            complete: Box::new(complete::<T>),
        }
    }

    fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short_names = names;
        self
    }

    fn in_all(mut self) -> Self {
        self.categories = &["all"];
        self
    }

    fn with_status(mut self) -> Self {
        self.status = true;
        self
    }

    fn with_scale(mut self) -> Self {
        self.scale = true;
        self
    }

    fn counted(mut self) -> Self {
        self.generation = true;
        self
    }

    fn returns_deleted(mut self) -> Self {
        self.returns_deleted = true;
        self
    }

    fn merged_by(mut self, schema: &'static Schema) -> Self {
        self.schema = schema;
        self
    }

    fn spoken_as(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    /// `v1` or `apps/v1`, as objects spell it.
    pub fn api_version(&self) -> String {
        api_version(self.group, self.version)
    }

    /// `pods` or `deployments.apps`, as messages spell it.
    pub fn qualified(&self) -> String {
        dotted(self.plural, self.group)
    }

    /// `Pod` or `Deployment.apps`, as validation messages spell it.
    pub fn qualified_kind(&self) -> String {
        dotted(self.kind, self.group)
    }

    /// `PodList`.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// Core v1 Pod: the kind with the most rules of its own.
    pub fn is_core(&self, kind: &str) -> bool {
        self.group.is_empty() && self.kind == kind
    }
}

/// `v1` for the core group, `group/version` otherwise.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

fn dotted(name: &str, group: &str) -> String {
    if group.is_empty() {
        name.to_owned()
    } else {
        format!("{name}.{group}")
    }
}

struct Registry {
    rows: Vec<Resource>,
    by_path: HashMap<(&'static str, &'static str, &'static str), usize>,
    slots: usize,
}

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let mut rows = kinds::rows();
    let mut slots = 0;
    for row in &mut rows {
        if row.form != Form::EventsV1 {
            row.slot = slots;
            slots += 1;
        }
    }
    let events = rows
        .iter()
        .find(|r| r.is_core("Event"))
        .map_or(0, |r| r.slot);
    for row in rows.iter_mut().filter(|r| r.form == Form::EventsV1) {
        row.slot = events;
    }
    let by_path = rows
        .iter()
        .enumerate()
        .map(|(i, r)| ((r.group, r.version, r.plural), i))
        .collect();
    Registry {
        rows,
        by_path,
        slots,
    }
});

/// Every resource that the server brings along, in discovery's order.
pub fn all() -> &'static [Resource] {
    &REGISTRY.rows
}

/// The resource at a path, if served.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    // The map's keys are 'static, a caller's are not: compare by value.
    let rows = &REGISTRY.rows;
    REGISTRY
        .by_path
        .get(&(group, version, plural))
        .map(|i| &rows[*i])
}

/// The row of a core kind this server relies on itself.
pub fn core(plural: &'static str) -> &'static Resource {
    find("", "v1", plural).expect("the table lists every core resource the server uses itself")
}

/// The row of CustomResourceDefinitions.
pub fn definitions() -> &'static Resource {
    find(custom::GROUP, "v1", "customresourcedefinitions").expect("the table lists definitions")
}

/// How many slots the store begins with.
pub fn slots() -> usize {
    REGISTRY.slots
}

/// Groups with their versions, core first, each once.
pub fn groups(rows: &[&'static Resource]) -> Vec<(&'static str, &'static str)> {
    let mut groups: Vec<(&str, &str)> = Vec::new();
    for row in rows {
        if !groups.contains(&(row.group, row.version)) {
            groups.push((row.group, row.version));
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_slot_and_a_unique_path() {
        let mut seen = std::collections::HashSet::new();
        for row in all() {
            assert!(row.slot < slots(), "{}", row.qualified());
            assert!(
                seen.insert((row.group, row.version, row.plural)),
                "{}",
                row.qualified()
            );
        }
        assert_eq!(
            find("events.k8s.io", "v1", "events").map(|r| r.slot),
            find("", "v1", "events").map(|r| r.slot)
        );
        assert!(find("apps", "v1", "pods").is_none());
        let rows: Vec<_> = all().iter().collect();
        assert_eq!(groups(&rows)[0], ("", "v1"));
    }
}
