//! `[resources.NAME]`: resource configs of published workflows, which are names for endpoints.

use std::collections::BTreeMap;

use darkroom_core::EndpointName;
use toml::Value;

use super::reader::Section;
use crate::service::published::{DEFAULT_POOL, Pool};

pub(super) fn read(section: Section<'_>) -> BTreeMap<String, Pool> {
    let problems = section.problems;
    let mut pools = BTreeMap::new();
    for (name, value) in section.into_entries() {
        let path = format!("resources.{name}");
        if name == DEFAULT_POOL {
            problems.add(
                &path,
                "'default' is each workflow's own endpoint; give the resource another name",
            );
        }
        if name.contains(',') || name.trim() != name || name.is_empty() {
            problems.add(
                &path,
                "a resource's name holds no commas, and no blanks around it",
            );
        }
        let Value::Table(table) = value else {
            problems.add(&path, format!("expected a section [{path}]"));
            continue;
        };
        let mut one = Section::new(path, table, problems);
        if !one.has("endpoint") {
            one.problem(
                "endpoint",
                "is missing: name the endpoint that the resource stands for",
            );
        }
        let endpoint = one.parsed("endpoint", "the name of an endpoint", |text| {
            text.parse::<EndpointName>().ok()
        });
        let load_limit = one.small_number("load_limit", 1);
        one.finish();
        if let Some(endpoint) = endpoint {
            pools.insert(name, Pool { endpoint, load_limit });
        }
    }
    pools
}
