//! Secrets, digests, discovery.

use std::time::Duration;

use crate::lab::{GUEST_SECRET, Lab, SERVER_SECRET};

/// Of open-iscsi: the login was refused for what the initiator proved.
const ISCSI_ERR_LOGIN_AUTH_FAILED: i32 = 24;
/// The target did not prove what it should: open-iscsi takes that for a login that cannot be mended.
const ISCSI_ERR_FATAL_LOGIN: i32 = 19;

/// Settings of CHAP in both directions, as the guest keeps them for a target.
fn secrets(theirs: &str, ours: &str) -> String {
    let settings = [
        ("authmethod", "CHAP"),
        ("username", "guest"),
        ("password", theirs),
        ("username_in", "server"),
        ("password_in", ours),
    ];
    let each = settings.map(|(key, value)| {
        format!("set_node \"$T\" \"$PORTAL\" node.session.auth.{key} '{value}'\n")
    });
    each.concat()
}

pub(crate) fn wrong_secrets_are_refused_on_both_sides(lab: &Lab) {
    let target = lab.target("data");
    let here = format!("T={target} PORTAL=$V4\n");
    let found = lab.step(
        "targets are discovered through both portals",
        "iscsiadm -m discovery -t sendtargets -p $V4; iscsiadm -m discovery -t sendtargets -p $V6",
    );
    for portal in ["192.0.2.1:3260,1", "[2001:db8::1]:3260,1"] {
        assert!(found.contains(&format!("{portal} {target}\n")), "{found}");
    }
    let none = lab.refused(
        "a login without any secret is refused",
        ISCSI_ERR_LOGIN_AUTH_FAILED,
        &format!("{here}log_in $T $PORTAL"),
    );
    assert!(none.contains("authorization failure"), "{none}");
    let wrong = secrets("the guest knows nothing", SERVER_SECRET);
    lab.refused(
        "a login with a wrong secret is refused",
        ISCSI_ERR_LOGIN_AUTH_FAILED,
        &format!("{here}{wrong}log_in $T $PORTAL"),
    );
    let impostor = secrets(GUEST_SECRET, "the server knows nothing");
    lab.refused(
        "Linux refuses a server that it takes for another",
        ISCSI_ERR_FATAL_LOGIN,
        &format!("{here}{impostor}log_in $T $PORTAL"),
    );
    let none = lab.site.sessions("guest").unwrap();
    assert!(none.is_empty(), "{none:?}");
}

pub(crate) fn both_prove_their_secrets_and_check_digests(lab: &Lab) {
    let target = lab.target("data");
    let right = secrets(GUEST_SECRET, SERVER_SECRET);
    lab.step(
        "both prove their secrets; the disk is there",
        &format!(
            "for PORTAL in $V4 $V6; do
                T={target}
                {right}
                set_node $T $PORTAL 'node.conn[0].iscsi.HeaderDigest' CRC32C
                set_node $T $PORTAL 'node.conn[0].iscsi.DataDigest' CRC32C
            done
            log_in $T $V4
            disk $T 1"
        ),
    );
    let session = lab.step("what was negotiated", "iscsiadm -m session -P 3");
    for line in [
        "HeaderDigest: CRC32C",
        "DataDigest: CRC32C",
        "ImmediateData: Yes",
        "InitialR2T: No",
        "FirstBurstLength: 262144",
        "MaxXmitDataSegmentLength: 1048576",
        "username_in: server",
    ] {
        assert!(session.contains(line), "{line} is missing: {session}");
    }
    let scratch = lab.target("scratch");
    lab.step(
        "two logical units of one target",
        &format!("log_in {scratch} $V4; disk {scratch} 1; disk {scratch} 2"),
    );
}

pub(crate) fn everybody_logs_out(lab: &Lab) {
    lab.step(
        "all sessions are logged out",
        "iscsiadm -m node --logoutall=all",
    );
    lab.site
        .wait_for_sessions("guest", 0, Duration::from_secs(10))
        .unwrap();
}
