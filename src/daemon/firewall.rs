//! Does this host's firewall let clients in? A hint: it reads the usual shapes of rules and is silent
//! about all others.

use serde::Deserialize;
use serde_json::Value;

use crate::exec::Program;

/// The rules of `nft --json list ruleset`, which has those of iptables and firewalld too.
#[derive(Debug, Deserialize)]
pub(super) struct Firewall {
    nftables: Vec<Object>,
}

/// One entry; all but chains and rules is passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Object {
    chain: Option<Chain>,
    rule: Option<Rule>,
}

#[derive(Debug, Deserialize)]
struct Chain {
    #[serde(default)]
    family: String,
    table: String,
    name: String,
    /// Of base chains only.
    hook: Option<String>,
    policy: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    #[serde(default)]
    family: String,
    table: String,
    chain: String,
    #[serde(default)]
    expr: Vec<Value>,
}

impl Firewall {
    /// The rules of this host. Nothing where there is no nft, or where it may not be asked.
    pub(super) fn read() -> Option<Self> {
        let output = Program::new("nft")
            .args(["--json", "list", "ruleset"])
            .run()
            .ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Whether an input chain refuses what no rule allows, and no rule of its table may allow `port`.
    pub(super) fn blocks(&self, port: u16) -> bool {
        let chains = self
            .nftables
            .iter()
            .filter_map(|object| object.chain.as_ref());
        let mut inputs = chains.filter(|chain| chain.hook.as_deref() == Some("input"));
        inputs.any(|input| {
            let own = self.rules(input).filter(|rule| rule.chain == input.name);
            let refuses =
                input.policy.as_deref() == Some("drop") || own.last().is_some_and(Rule::refuses);
            refuses && !self.rules(input).any(|rule| rule.may_allow(port))
        })
    }

    /// All rules of the table that a chain is in.
    fn rules<'a>(&'a self, of: &'a Chain) -> impl Iterator<Item = &'a Rule> {
        let rules = self
            .nftables
            .iter()
            .filter_map(|object| object.rule.as_ref());
        rules.filter(move |rule| rule.family == of.family && rule.table == of.table)
    }
}

impl Rule {
    /// Whether it drops or rejects whatever reaches it.
    fn refuses(&self) -> bool {
        !self.has("match") && (self.has("drop") || self.has("reject"))
    }

    /// Whether it accepts everything, names the port, or is of a kind that is not understood here.
    fn may_allow(&self, port: u16) -> bool {
        let accepts_all = !self.has("match") && self.has("accept");
        let mut matched = self
            .expr
            .iter()
            .filter_map(|part| part.get("match")?.get("right"));
        accepts_all || self.has("xt") || self.has("vmap") || matched.any(|right| holds(right, port))
    }

    fn has(&self, part: &str) -> bool {
        self.expr.iter().any(|one| one.get(part).is_some())
    }
}

/// Whether a value is `port`, holds it in a set or range, or names a set that is elsewhere.
fn holds(value: &Value, port: u16) -> bool {
    match value {
        Value::Number(number) => number.as_u64() == Some(u64::from(port)),
        Value::String(text) => text.starts_with('@'),
        Value::Array(list) => list.iter().any(|one| holds(one, port)),
        Value::Object(map) => {
            map.iter()
                .any(|(key, inner)| match (key.as_str(), inner.as_array()) {
                    ("range", Some(ends)) => {
                        let mut ends = ends.iter().map(Value::as_u64);
                        let (from, to) = (ends.next().flatten(), ends.next().flatten());
                        from.zip(to)
                            .is_some_and(|(from, to)| (from..=to).contains(&u64::from(port)))
                    }
                    _ => holds(inner, port),
                })
        }
        Value::Null | Value::Bool(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether port 3260 is blocked by a chain with this policy and these statements.
    fn blocked(policy: &str, rules: &str) -> bool {
        let rules = rules.split_terminator('\n').map(|expr| {
            format!(r#",{{"rule": {{"family": "inet", "table": "t", "chain": "in", "expr": [{expr}]}}}}"#)
        });
        let text = format!(
            r#"{{"nftables": [{{"metainfo": {{}}}}, {{"chain": {{"family": "inet", "table": "t",
            "name": "in", "hook": "input", "policy": "{policy}"}}}}{}]}}"#,
            rules.collect::<String>()
        );
        serde_json::from_str::<Firewall>(&text)
            .unwrap()
            .blocks(3260)
    }

    fn port(right: &str) -> String {
        format!(
            r#"{{"match": {{"op": "==", "left": {{}}, "right": {right}}}}}, {{"accept": null}}"#
        )
    }

    #[test]
    fn a_dropping_firewall_is_told_by_the_ports_that_it_does_not_name() {
        assert!(blocked("drop", ""));
        assert!(blocked("drop", &port("22")));
        assert!(blocked(
            "drop",
            &port(r#"{"set": [22, {"range": [8000, 8100]}]}"#)
        ));
        assert!(!blocked("drop", &port(r#"{"set": [22, 3260]}"#)));
        assert!(!blocked(
            "drop",
            &port(r#"{"set": [{"range": [3000, 4000]}]}"#)
        ));
    }

    #[test]
    fn a_last_rule_that_rejects_everything_blocks_too() {
        assert!(blocked("accept", r#"{"counter": null}, {"reject": null}"#));
        assert!(!blocked(
            "accept",
            &format!("{}\n{{\"reject\": null}}", port("3260"))
        ));
    }

    #[test]
    fn what_is_open_or_not_understood_is_silent() {
        assert!(!blocked("accept", ""));
        assert!(!blocked("drop", r#"{"accept": null}"#));
        assert!(!blocked("drop", &port(r#""@services""#)));
        assert!(!blocked("drop", r#"{"xt": null}"#));
    }
}
