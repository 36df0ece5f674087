//! Who a client is, and what proves it: a secret in the firmware's table, and an identity that is there
//! before anything of the root runs.

use xtask::qemu::ANSWER_LIMIT;

use crate::lab::{IMAGE, Lab, Storage};

#[test]
fn a_client_proves_a_secret_out_of_the_firmwares_table_and_is_itself() {
    const MAC: &str = "52:54:00:00:0f:01";
    let lab = Lab::with_debian("identity", Storage::AsItIs);
    lab.add_client(MAC, IMAGE, "ephemeral");
    lab.set(MAC, &["--name", "lab-07", "--mutual", "on"]);
    let set = ["image", "set", IMAGE, "--way", "ibft"];
    lab.site.netroot(&set).unwrap();
    let server = lab.serve();

    let client = lab.boot(MAC);
    let ask = |what: &str| client.ask(&format!("run {what}"), ANSWER_LIMIT).unwrap();
    assert_eq!(ask("hostname"), "ran lab-07");
    let user = MAC.replace(':', "");
    let proved = ask("cat /sys/class/iscsi_session/session1/username");
    assert_eq!(proved, format!("ran {user}"));
    let returned = ask("cat /sys/class/iscsi_session/session1/username_in");
    assert_eq!(returned, "ran netroot");
    let line = ask("cat /proc/cmdline");
    assert!(
        line.contains("rd.iscsi.firmware=1") && !line.contains("password"),
        "{line}"
    );

    let modes = ask("echo $(stat -c %a /sys/firmware/ibft/target*/*secret*)");
    let modes: Vec<&str> = modes.split_whitespace().skip(1).collect();
    assert!(
        !modes.is_empty() && modes.iter().all(|mode| *mode == "400"),
        "{modes:?}"
    );

    let shown = lab.site.json(&["client", "show", MAC]).unwrap();
    let keys = shown["identity"]["host_keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2, "{shown}");
    for (kind, key) in ["ed25519", "ecdsa"].iter().zip(keys) {
        let public = ask(&format!("cat /etc/ssh/ssh_host_{kind}_key.pub"));
        assert_eq!(public, format!("ran {}", key.as_str().unwrap()));
    }
    let id = ask("cat /etc/machine-id");
    assert_eq!(id.len(), "ran ".len() + 32, "{id}");
    client.power_off().unwrap();
    server.stop().unwrap();
    lab.clean_up();
}
