//! An endpoint whose instances dial out from other machines.

use serde_json::Value;

use super::{Check, Verdict};
use crate::client::Client;

/// Which agents are connected, where there is a server to ask.
pub(super) async fn check(client: &Client, running: bool, endpoint: &str) -> Check {
    let name = format!("endpoint {endpoint}");
    if !running {
        let found = format!("ComfyUIs come by themselves: darkroom agent --endpoint {endpoint}");
        return Check::new(name, Verdict::Ok, found);
    }
    match client.get("instances").await {
        Ok(answer) => {
            let (verdict, found) = told(&answer, endpoint);
            Check::new(name, verdict, found)
        }
        Err(failure) => Check::new(
            name,
            Verdict::Note,
            format!("its agents cannot be asked for: {failure}"),
        ),
    }
}

fn told(answer: &Value, endpoint: &str) -> (Verdict, String) {
    let instances = answer["instances"].as_array().into_iter().flatten();
    let mut agents: Vec<&Value> = instances
        .filter(|instance| instance["endpoint"] == endpoint)
        .map(|instance| &instance["agent"])
        .filter(|agent| !agent.is_null())
        .collect();
    agents.sort_by_key(|agent| agent["name"].as_str());
    let named: Vec<String> = agents
        .iter()
        .map(|agent| {
            let name = agent["name"].as_str().unwrap_or_default();
            match agent["connected"] == true {
                true => name.to_owned(),
                false => format!("{name} (away)"),
            }
        })
        .collect();
    match agents.iter().any(|agent| agent["connected"] == true) {
        true => (Verdict::Ok, format!("agents: {}", named.join(", "))),
        false => (
            Verdict::Note,
            format!(
                "no agent is connected, jobs wait; beside a ComfyUI: darkroom agent --endpoint {endpoint}"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn agents_are_named_and_none_is_worth_a_note() {
        let instances = json!({"instances": [
            {"endpoint": "e", "agent": {"name": "b", "connected": false}},
            {"endpoint": "e", "agent": {"name": "a", "connected": true}},
            {"endpoint": "e", "agent": null},
            {"endpoint": "f", "agent": {"name": "c", "connected": false}},
        ]});
        assert_eq!(
            told(&instances, "e"),
            (Verdict::Ok, "agents: a, b (away)".to_owned())
        );
        for endpoint in ["f", "g"] {
            let (verdict, found) = told(&instances, endpoint);
            assert_eq!(verdict, Verdict::Note);
            assert!(
                found.ends_with(&format!("darkroom agent --endpoint {endpoint}")),
                "{found}"
            );
        }
    }
}
