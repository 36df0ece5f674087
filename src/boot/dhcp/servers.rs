//! The same answers, in the words of DHCP servers that a site keeps.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::boot::Firmware;

/// What dnsmasq (2.73 or later) has to be told, for a server at `server` whose boot service is at `base`.
pub fn dnsmasq(server: Ipv4Addr, base: &str) -> String {
    let loaders: Vec<String> = Firmware::ALL
        .into_iter()
        .flat_map(|firmware| dnsmasq_lines(firmware, server, base))
        .collect();
    include_str!("../../../esp/dnsmasq.conf")
        .replace("@SERVER@", &server.to_string())
        .replace("@BASE@", base)
        .replace("@LOADERS@", &loaders.join("\n"))
}

fn dnsmasq_lines(firmware: Firmware, server: Ipv4Addr, base: &str) -> Vec<String> {
    let tag = tag(firmware);
    let numbers = firmware.architectures().iter();
    let mut lines: Vec<String> = numbers
        .map(|number| format!("dhcp-match=set:{tag},option:client-arch,{number}"))
        .collect();
    let to = format!("dhcp-boot=tag:{tag},tag:!netroot-ipxe");
    let file = firmware.loader().file();
    match firmware.boots_by_http() {
        true => {
            lines.push(format!("{to},{base}/ipxe/{file}"));
            // UEFI takes no answer for one to HTTP boot that does not say so.
            lines.push(format!("dhcp-option-force=tag:{tag},60,HTTPClient"));
        }
        false => lines.push(format!("{to},{file},,{server}")),
    }
    lines
}

/// What Kea's DHCPv4 server (1.6 or later) has to be told: its `Dhcp4` object, with client classes and
/// nothing else.
pub fn kea(server: Ipv4Addr, base: &str) -> Value {
    let ipxe = json!({
        "name": "netroot-ipxe",
        "test": "option[175].exists or option[77].hex == 'iPXE'",
        "boot-file-name": format!("{base}/boot.ipxe"),
        "option-data": [{ "name": "boot-file-name", "data": format!("{base}/boot.ipxe") }],
    });
    let firmware = Firmware::ALL.into_iter();
    let classes = firmware.map(|firmware| kea_class(firmware, server, base));
    let classes: Vec<Value> = std::iter::once(ipxe).chain(classes).collect();
    json!({ "Dhcp4": { "client-classes": classes } })
}

fn kea_class(firmware: Firmware, server: Ipv4Addr, base: &str) -> Value {
    let numbers = firmware.architectures().iter();
    let is_it: Vec<String> = numbers
        .map(|number| format!("option[93].hex == 0x{number:04x}"))
        .collect();
    let test = format!("not member('netroot-ipxe') and ({})", is_it.join(" or "));
    let (name, file) = (tag(firmware), firmware.loader().file());
    match firmware.boots_by_http() {
        true => {
            let url = format!("{base}/ipxe/{file}");
            json!({
                "name": name,
                "test": test,
                "boot-file-name": url,
                "option-data": [
                    { "name": "boot-file-name", "data": url },
                    { "name": "vendor-class-identifier", "data": "HTTPClient", "always-send": true },
                ],
            })
        }
        false => json!({
            "name": name,
            "test": test,
            "next-server": server,
            "boot-file-name": file,
        }),
    }
}

/// What machines with this firmware are called in configurations.
fn tag(firmware: Firmware) -> &'static str {
    match firmware {
        Firmware::Bios => "netroot-bios",
        Firmware::EfiIa32 => "netroot-efi-ia32",
        Firmware::EfiX64 => "netroot-efi-x64",
        Firmware::EfiArm64 => "netroot-efi-arm64",
        Firmware::HttpX64 => "netroot-http-x64",
        Firmware::HttpArm64 => "netroot-http-arm64",
    }
}
