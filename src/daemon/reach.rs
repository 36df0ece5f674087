//! Can clients reach this server? What would keep them out is said when it starts, not found out
//! by a machine that hangs at boot.

use std::net::{IpAddr, SocketAddr};

use crate::exec::Program;

/// What clients must be able to reach.
#[derive(Debug, Clone)]
pub(super) struct Door {
    /// `iSCSI` or `boot service`.
    pub what: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
}

/// One sentence for each thing that would keep clients out.
pub(super) fn warnings(doors: &[Door], announced: &[SocketAddr]) -> Vec<String> {
    let mut warnings: Vec<String> = doors.iter().filter_map(loopback_only).collect();
    let unreachable = announced.iter().filter(|address| {
        let ip = address.ip();
        ip.is_unspecified() || ip.is_loopback()
    });
    warnings.extend(unreachable.map(|address| {
        format!("{address} is announced to clients, but no other machine can reach it: set [iscsi] announce")
    }));
    // Asking the firewall needs root, and a host without nft has none to ask.
    if let Some(ruleset) = ruleset() {
        let doors = doors.iter().filter(|door| !door.address.ip().is_loopback());
        let blocked = doors.filter(|door| blocks(&ruleset, door.address.port()));
        warnings.extend(blocked.map(|door| {
            let port = door.address.port();
            format!(
                "the firewall seems to drop TCP port {port} ({}): allow it",
                door.what
            )
        }));
    }
    warnings
}

fn ruleset() -> Option<String> {
    let output = Program::new("nft")
        .args(["--json", "list", "ruleset"])
        .run()
        .ok()?;
    String::from_utf8(output.stdout).ok()
}

fn loopback_only(door: &Door) -> Option<String> {
    let ip = door.address.ip();
    ip.is_loopback().then(|| {
        format!(
            "{} listens on {} only: no other machine can reach it",
            door.what, ip
        )
    })
}

/// Whether a ruleset (`nft --json list ruleset`) has an input chain that drops by policy, or has a
/// last rule that drops everything, and no rule there or in the chains it jumps to mentions `port`
/// or accepts everything.
///
/// A firewall is a program of its own, and this reads only its usual shapes: it is a hint, so it
/// errs towards silence.
fn blocks(ruleset: &str, port: u16) -> bool {
    let Ok(parsed) = serde_json::from_str::<serde_json::Value>(ruleset) else {
        return false;
    };
    let Some(objects) = parsed.get("nftables").and_then(|list| list.as_array()) else {
        return false;
    };
    let chains = || objects.iter().filter_map(|object| object.get("chain"));
    let rules: Vec<&serde_json::Value> = objects.iter().filter_map(|o| o.get("rule")).collect();
    let text = |value: &serde_json::Value, key: &str| {
        value
            .get(key)
            .and_then(|found| found.as_str())
            .unwrap_or("")
            .to_owned()
    };
    let inputs = chains().filter(|chain| text(chain, "hook") == "input");
    let mut refusing = inputs.filter(|chain| {
        let own = |rule: &&&serde_json::Value| {
            text(rule, "chain") == text(chain, "name")
                && text(rule, "table") == text(chain, "table")
        };
        let ends_refusing = rules
            .iter()
            .rev()
            .find(own)
            .is_some_and(|rule| refuses_all(rule));
        text(chain, "policy") == "drop" || ends_refusing
    });
    refusing.any(|chain| {
        let table = text(chain, "table");
        let of_table = rules.iter().filter(|rule| text(rule, "table") == table);
        !of_table.into_iter().any(|rule| mentions(rule, port))
    })
}

/// A rule whose only effect is to drop or reject whatever reaches it.
fn refuses_all(rule: &serde_json::Value) -> bool {
    let Some(statements) = rule.get("expr").and_then(|expr| expr.as_array()) else {
        return false;
    };
    let verdicts = ["drop", "reject"];
    let filters = statements.iter().any(|one| one.get("match").is_some());
    !filters
        && statements
            .iter()
            .any(|one| verdicts.iter().any(|verdict| one.get(verdict).is_some()))
}

/// Whether a rule matches on `port`, alone, in a set or in a range.
fn mentions(rule: &serde_json::Value, port: u16) -> bool {
    fn holds(value: &serde_json::Value, port: u64) -> bool {
        match value {
            serde_json::Value::Number(number) => number.as_u64() == Some(port),
            serde_json::Value::Array(list) => list.iter().any(|one| holds(one, port)),
            serde_json::Value::Object(map) => {
                map.iter().any(|(key, one)| match (key.as_str(), one) {
                    ("range", serde_json::Value::Array(ends)) => {
                        let end = |at: usize| ends.get(at).and_then(|value| value.as_u64());
                        end(0)
                            .zip(end(1))
                            .is_some_and(|(from, to)| (from..=to).contains(&port))
                    }
                    _ => holds(one, port),
                })
            }
            _ => false,
        }
    }
    let matches = rule
        .get("expr")
        .and_then(|expr| expr.as_array())
        .into_iter()
        .flatten();
    matches.filter_map(|one| one.get("match")).any(|one| {
        one.get("right")
            .is_some_and(|right| holds(right, u64::from(port)))
    })
}

/// The address by which other machines would know this one: the source of packets that leave it.
/// Nothing is sent.
pub fn own_address() -> Option<IpAddr> {
    let probe = |bind: &str, to: &str| {
        let socket = std::net::UdpSocket::bind(bind).ok()?;
        socket.connect(to).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    // Documentation addresses (RFC 5737, RFC 3849): routed like any other, owned by nobody.
    probe("0.0.0.0:0", "192.0.2.1:9").or_else(|| probe("[::]:0", "[2001:db8::1]:9"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DROPPING: &str = r#"{"nftables": [
        {"chain": {"family": "inet", "table": "filter", "name": "input", "hook": "input", "policy": "drop"}},
        {"rule": {"table": "filter", "chain": "input", "expr": [
            {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"set": [22, 3260, {"range": [8000, 8100]}]}}},
            {"accept": null}]}}]}"#;

    #[test]
    fn a_dropping_firewall_is_told_by_the_ports_that_it_does_not_name() {
        assert!(!blocks(DROPPING, 3260));
        assert!(!blocks(DROPPING, 8080), "within the range");
        assert!(blocks(DROPPING, 9000));
    }

    #[test]
    fn a_last_rule_that_rejects_everything_blocks_too() {
        let rejecting = r#"{"nftables": [
            {"chain": {"table": "t", "name": "in", "hook": "input", "policy": "accept"}},
            {"rule": {"table": "t", "chain": "in", "expr": [{"counter": null}, {"reject": null}]}}]}"#;
        assert!(blocks(rejecting, 3260));
    }

    #[test]
    fn an_open_or_unreadable_firewall_is_silent() {
        assert!(!blocks(
            r#"{"nftables": [{"chain": {"table": "t", "name": "in", "hook": "input", "policy": "accept"}}]}"#,
            3260
        ));
        assert!(!blocks("not json", 3260));
    }

    #[test]
    fn listening_on_loopback_is_warned_about() {
        let door = Door {
            what: "iSCSI",
            address: "127.0.0.1:3260".parse().unwrap(),
        };
        assert!(loopback_only(&door).unwrap().contains("127.0.0.1 only"));
        let told = warnings(&[], &["0.0.0.0:3260".parse().unwrap()]);
        assert!(
            told.iter().any(|line| line.contains("announce")),
            "{told:?}"
        );
    }
}
