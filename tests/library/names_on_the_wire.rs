//! What targets are called, and what `target list` shows of them.

use netroot::library::*;

use crate::lab::{Lab, MIB};

#[test]
fn every_target_is_published_with_its_size_and_file() {
    let lab = Lab::new();
    lab.seal("fc28", "one");
    lab.seal("fc28", "two");
    let mac = lab.add("52:54:00:12:34:56", "fc28", Mode::Persistent);
    let published = lab.lib.published().unwrap();
    let prefix = lab.lib.config().iqn_prefix.to_string();
    let names: Vec<&str> = published
        .iter()
        .map(|target| target.target.strip_prefix(&prefix).unwrap())
        .collect();
    assert_eq!(
        names,
        [":fc28", ":fc28.1", ":fc28.2", ":client-525400123456"]
    );
    assert!(
        published
            .iter()
            .all(|target| target.size == 8 * MIB && target.lun == 1)
    );
    assert!(published.iter().all(|target| target.backing.is_file()));
    let writable: Vec<_> = published
        .iter()
        .filter(|target| !target.read_only)
        .collect();
    assert_eq!(writable.len(), 1);
    assert_eq!(writable[0].client, Some(mac));
    assert_eq!(published[0].version.to_string(), "fc28@2");
}

#[test]
fn names_mean_what_they_were_made_of() {
    let lab = Lab::new();
    for target in [
        Target::Alias("fc28".parse().unwrap()),
        Target::Version("fc28@3".parse().unwrap()),
        Target::Clone("52:54:00:12:34:56".parse().unwrap()),
    ] {
        let name = lab.lib.target_name(&target);
        assert_eq!(lab.lib.parse_target(&name), Some(target), "{name}");
        assert!(name.len() <= 223, "RFC 7143 §4.2.7.1");
    }
    for bad in [
        "fc28",
        "iqn.2026-01.edu.example.server-01",
        "iqn.2026-01.edu.example.server-01:fc28@3",
    ] {
        assert_eq!(lab.lib.parse_target(bad), None, "{bad}");
    }
}
