//! The target's bench as a whole: what its document holds after a short run.

// clippy.toml exempts functions marked #[test]; here the whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::process::{Command, Stdio};

use serde_json::Value;
use xtask::{lab_dir, target_dir};

/// Two scenarios in one round: one with a floor beside the peer alone, one beside the sendfile loop.
const SHORT: [&str; 9] = [
    "bench",
    "target",
    "--quick",
    "--rounds",
    "1",
    "--json",
    "--scenario",
    "ipxe-read",
    "read-1m-clone",
];

#[test]
fn a_short_run_tells_all() {
    if std::env::var_os("NETROOT_LONG_TESTS").is_none() {
        println!("left out: takes some minutes (cargo xtask test --long)");
        return;
    }
    // The tests of netroot itself have built it; what it can do with all optimisations is not asked here.
    let netroot = target_dir().join("debug/netroot");
    assert!(netroot.exists(), "first: cargo build --bin netroot");
    let ran = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(SHORT)
        .arg("--binary")
        .arg(&netroot)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", ran.status);
    let told: Value = serde_json::from_slice(&ran.stdout).unwrap();
    println!("{told:#}");
    assert!(
        !lab_dir().join("bench-target").exists(),
        "it leaves nothing"
    );

    assert_eq!(
        (&told["quick"], &told["peer"]),
        (&true.into(), &"tgt".into())
    );
    assert_eq!((&told["rounds"], &told["tool"]), (&1.into(), &"own".into()));
    let measured = &told["measured"];
    assert!(text(&measured["date"]).ends_with('Z'));
    assert!(text(&measured["netroot"]["version"]).starts_with("netroot "));
    assert_eq!(
        text(&measured["netroot"]["program"]),
        netroot.to_str().unwrap()
    );
    assert!(measured["netroot"]["commit"].is_null(), "nobody knows");
    assert_eq!(text(&measured["netroot"]["hash"]).len(), 16);
    assert!(text(&measured["tgt"]["version"]).starts_with("1."));
    for limit in ["sendfile", "pread_send"] {
        is_rate(&told["machine"]["limits"][limit]);
    }

    let [clone, ipxe] = &list(&told["scenarios"])[..] else {
        panic!("two scenarios were asked for");
    };
    assert_eq!(
        (&clone["name"], &ipxe["name"]),
        (&"read-1m-clone".into(), &"ipxe-read".into())
    );
    for (scenario, bytes, floor) in [(clone, 1 << 20, 1.5), (ipxe, 256 << 10, 1.3)] {
        assert_eq!(scenario["unit"], "reflink clone; tgt: a plain copy");
        check(scenario, bytes, floor);
    }
    // A plain loop reads like the first; nothing but a target does like iPXE's.
    let [sendfile] = &list(&clone["sendfile"])[..] else {
        panic!("the sendfile loop has its turn in each round");
    };
    is_rate(sendfile);
    assert_eq!(
        clone["floors"][0]["least_work"]["name"],
        "the sendfile loop"
    );
    assert_eq!(list(&ipxe["sendfile"]).len(), 0);
}

/// A scenario of one round whose commands have so many bytes, and whose floor is a ratio.
fn check(scenario: &Value, bytes: u64, least: f64) {
    let contenders = list(&scenario["contenders"]);
    let names: Vec<_> = contenders.iter().map(|one| text(&one["name"])).collect();
    assert_eq!(names, ["tgt", "netroot", "null"]);
    let mut rates = Vec::new();
    for contender in contenders {
        let [round] = &list(&contender["rounds"])[..] else {
            panic!("one round: {contender}");
        };
        let commands = round["commands"].as_u64().unwrap();
        assert!(commands > 0);
        assert_eq!(round["bytes"], commands * bytes);
        assert!(number(&round["seconds"]) >= 0.5);
        assert!(number(&round["processor_seconds"]) > 0.0);
        assert!(number(&round["load_seconds"]) > 0.0);
        assert!(number(&round["memory"]) > 0.0);
        let rate = number(&round["commands_a_second"]);
        for one in ["median", "least", "most"] {
            assert_is(number(&contender["commands_a_second"][one]), rate);
        }
        let us = number(&round["processor_seconds"]) * 1e6;
        assert_is(number(&contender["us_a_command"]), us / commands as f64);
        rates.push(rate);
    }
    let ratio = rates[1] / rates[0];
    assert_is(number(&scenario["ratio"]["median"]), ratio);
    let [floor] = &list(&scenario["floors"])[..] else {
        panic!("one floor: {scenario}");
    };
    assert_eq!(floor["floor"], format!("Ratio({least:?})"));
    assert_is(number(&floor["found"]), ratio);
    assert_eq!(floor["reaches"], ratio >= least);
    let profile = &scenario["profile"];
    if let Some(parts) = profile["parts"].as_object() {
        assert_is(parts.values().map(number).sum(), 1.0);
    } else {
        assert!(text(&profile["unknown"]).contains("perf"), "{profile}");
    }
}

fn is_rate(rate: &Value) {
    assert!(number(&rate["mib_a_second"]) > 0.0, "{rate}");
    assert!(number(&rate["us_a_mib"]) > 0.0, "{rate}");
}

fn assert_is(found: f64, wanted: f64) {
    assert!(
        (found / wanted - 1.0).abs() < 1e-9,
        "{found} is not {wanted}"
    );
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}
