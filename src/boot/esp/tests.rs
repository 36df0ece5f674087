use std::collections::BTreeMap;

use super::*;
use crate::boot::{Files, Handover, Portal, Root, Writes};
use crate::library::Secrets;
use crate::library::config::SecretsOver;
use crate::library::manifest::{BootFrom, Hash, InitramfsFacts};
use sha2::{Digest, Sha256};

/// A directory with a kernel and an initramfs, and what a partition with them is.
struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Larger than a piece that is read or written at once, and no multiple of a cluster.
        fs::write(dir.path().join("k"), vec![b'k'; 3 << 20 | 77]).unwrap();
        fs::write(dir.path().join("i"), "initramfs").unwrap();
        fs::write(dir.path().join("l"), "loader autoexec.ipxe").unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn facts(&self, name: &str) -> FileFacts {
        let bytes = fs::read(self.path(name)).unwrap();
        FileFacts {
            size: bytes.len() as u64,
            sha256: Hash(Sha256::digest(bytes).into()),
        }
    }

    fn esp(&self, version: &str) -> Esp {
        let cfg = BootCfg {
            identity: None,
            files: Files::Beside,
            handover: Handover::KernelLine,
            kernel: version,
            initramfs: &InitramfsFacts::default(),
            root: Root {
                portal: Portal {
                    ip: "192.0.2.1".parse().unwrap(),
                    port: 3260,
                },
                target: String::from("iqn.edu.example:fc28"),
                lun: 1,
                initiator: None,
                secrets: Secrets::default(),
            },
            writes: Writes::None,
            mac: None,
            nameservers: &[],
            args: &[],
        };
        let (kernel, initramfs) = (self.facts("k"), self.facts("i"));
        let boot = BootFrom::Kernel {
            kernel: kernel.clone(),
            initramfs: initramfs.clone(),
        };
        let of = Kernel {
            version,
            kernel: (&self.path("k"), &kernel),
            initramfs: (&self.path("i"), &initramfs),
        };
        let says = Says::Itself {
            cfg: &cfg,
            base: "http://192.0.2.1:8080",
            stamp: boot.stamp().unwrap(),
        };
        Esp::new(of, says, Some((Loader::EfiX64, &self.path("l"))))
    }
}

fn by_path(checked: &[Checked]) -> BTreeMap<&str, Found> {
    let all = checked.iter();
    all.map(|one| (one.path.to_str().unwrap(), one.found))
        .collect()
}

#[test]
fn the_tree_is_the_described_one_and_a_second_export_replaces_it() {
    let lab = Lab::new();
    let (root, esp) = (lab.path("esp"), lab.esp("4.19.5"));
    esp.write(&root).unwrap();
    let cfg = fs::read_to_string(root.join("linux/boot.cfg")).unwrap();
    assert!(
        cfg.contains("root=/dev/disk/by-path/ip-192.0.2.1:3260-iscsi-iqn.edu.example:fc28-lun-1")
    );
    fs::write(root.join("linux/boot.cfg"), "stale").unwrap();
    esp.write(&root).unwrap();
    assert_eq!(
        fs::read_to_string(root.join("linux/boot.cfg")).unwrap(),
        cfg
    );
    let same = |name: &str, from: &str| {
        fs::read(root.join(name)).unwrap() == fs::read(lab.path(from)).unwrap()
    };
    assert!(same("linux/vmlinuz-4.19.5", "k"));
    assert!(same("linux/initramfs-4.19.5.img", "i"));
    assert!(same("efi/boot/bootx64.efi", "l"));
    let autoexec = fs::read_to_string(root.join("autoexec.ipxe")).unwrap();
    assert!(autoexec.contains("\nset prefix file:///linux\nchain ${prefix}/boot.cfg"));
    let told = autoexec
        .lines()
        .find(|line| line.starts_with("imgfetch"))
        .unwrap();
    assert!(told.contains("http://192.0.2.1:8080/esp?mac=${netX/mac:hexhyp}&esp="));
    assert!(
        told.ends_with(" ||"),
        "nobody waits for a server that is away"
    );
    assert!(!autoexec.contains('@'));
    let entries = fs::read_dir(root.join("linux")).unwrap().count();
    assert_eq!(entries, 3, "no draft is left behind");
}

#[test]
fn a_client_that_boots_from_its_esp_asks_at_each_boot() {
    let lab = Lab::new();
    let (kernel, initramfs) = (lab.facts("k"), lab.facts("i"));
    let of = Kernel {
        version: "6.1.0",
        kernel: (&lab.path("k"), &kernel),
        initramfs: (&lab.path("i"), &initramfs),
    };
    let stamp: BootStamp = "0123456789abcdef".parse().unwrap();
    let base = "http://192.0.2.1:8080";
    let asks = |https| Esp::new(of, Says::Asks { base, https, stamp }, None);
    let esp = asks(None);
    let text = |path: &str| {
        let mut files = esp.files.iter();
        let file = files.find(|file| file.path == Path::new(path)).unwrap();
        file.text.clone().unwrap()
    };
    assert!(text("linux/boot.cfg").contains(
        "\nset base http://192.0.2.1:8080\nset at script\nchain --autofree ${base}/boot.cfg?mac=${netX/mac:hexhyp}&esp=0123456789abcdef ||"
    ));
    assert!(text("linux/boot.cfg").contains("&at=${at}&errno=${errno} ||\n"));
    assert!(!text("autoexec.ipxe").contains("imgfetch"));
    assert!(!text("linux/boot.cfg").contains('@') && !text("autoexec.ipxe").contains('@'));
    let door = "https://192.0.2.1:8443";
    let only = asks(Some(Https::to(door, SecretsOver::Https)));
    let file = |path: &str| only.files.iter().find(|file| file.path == Path::new(path));
    let cfg = file("linux/boot.cfg").unwrap().text.clone().unwrap();
    assert!(
        cfg.contains("echo This iPXE has to know HTTPS")
            && cfg.contains("\nset base https://192.0.2.1:8443\n"),
        "{cfg}"
    );
    let esp = asks(Some(Https::to(door, SecretsOver::Http)));
    let cfg = esp.files.iter().find_map(|file| file.text.clone()).unwrap();
    assert!(
        cfg.contains(" && set base https://192.0.2.1:8443 ||\nchain "),
        "{cfg}"
    );
}

#[test]
fn what_cannot_be_written_is_named() {
    let lab = Lab::new();
    let missing = EspFile {
        path: "a".into(),
        source: Some("/nonexistent".into()),
        text: None,
        facts: None,
    };
    let esp = Esp {
        files: vec![missing],
    };
    let root = lab.path("esp");
    let error = esp.write(&root).unwrap_err();
    assert!(error.to_string().ends_with("/a"), "{error}");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    let image = lab.path("esp.img");
    fs::write(&image, "what was there").unwrap();
    esp.write_image(&image).unwrap_err();
    assert_eq!(fs::read(&image).unwrap(), b"what was there");
}

#[test]
fn each_difference_is_told_in_a_tree() {
    let lab = Lab::new();
    let (root, esp) = (lab.path("esp"), lab.esp("4.19.5"));
    esp.write(&root).unwrap();
    let check = || esp.check_folder(Folder(&root)).unwrap();
    assert!(
        check().iter().all(|one| one.found == Found::Same),
        "{:?}",
        check()
    );
    let mut kernel = fs::read(lab.path("k")).unwrap();
    kernel[1_000_000] = b'x';
    fs::write(root.join("linux/vmlinuz-4.19.5"), kernel).unwrap();
    fs::write(root.join("linux/initramfs-4.19.5.img"), "older").unwrap();
    fs::remove_file(root.join("efi/boot/bootx64.efi")).unwrap();
    fs::write(root.join("linux/vmlinuz-4.19.1"), "old").unwrap();
    let cfg = fs::read_to_string(root.join("linux/boot.cfg")).unwrap();
    let stale = cfg.replace("fc28-lun-1", "fc27-lun-1");
    fs::write(root.join("linux/boot.cfg"), stale).unwrap();
    let checked = check();
    let found = by_path(&checked);
    assert_eq!(found["linux/vmlinuz-4.19.5"], Found::Stale);
    assert_eq!(found["linux/initramfs-4.19.5.img"], Found::Stale);
    assert_eq!(found["linux/boot.cfg"], Found::Stale);
    assert_eq!(found["autoexec.ipxe"], Found::Same);
    assert_eq!(found["efi/boot/bootx64.efi"], Found::Missing);
    assert_eq!(found["linux/vmlinuz-4.19.1"], Found::Foreign);
    let cfg = checked
        .iter()
        .find(|one| one.path.ends_with("boot.cfg"))
        .unwrap();
    let why = cfg.why.as_deref().unwrap();
    assert!(
        why.starts_with("line 2: root=") && why.contains("fc27") && why.contains("fc28"),
        "{why}"
    );
    // To open it would wait for ever.
    fs::remove_file(root.join("autoexec.ipxe")).unwrap();
    nix::unistd::mkfifo(&root.join("autoexec.ipxe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(
        esp.check_folder(Folder(&root))
            .unwrap_err()
            .to_string()
            .contains("autoexec.ipxe")
    );
}

#[test]
fn an_image_has_what_a_tree_has_and_its_differences_are_told_too() {
    let lab = Lab::new();
    let (image, esp) = (lab.path("esp.img"), lab.esp("4.19.5"));
    esp.write_image(&image).unwrap();
    assert_eq!(
        fs::metadata(&image).unwrap().len(),
        esp.image_size().unwrap()
    );
    let check = |esp: &Esp| {
        let partition = Partition::open(&image).unwrap();
        esp.check_partition(&partition).unwrap()
    };
    assert!(
        check(&esp).iter().all(|one| one.found == Found::Same),
        "{:?}",
        check(&esp)
    );
    let newer = lab.esp("4.19.6");
    let checked = check(&newer);
    let found = by_path(&checked);
    assert_eq!(found["linux/vmlinuz-4.19.6"], Found::Missing);
    assert_eq!(found["linux/vmlinuz-4.19.5"], Found::Foreign);
    assert_eq!(found["linux/boot.cfg"], Found::Stale);
    assert_eq!(found["efi/boot/bootx64.efi"], Found::Same);
    fs::write(lab.path("i"), "INITRAMFS").unwrap();
    assert_eq!(
        by_path(&check(&lab.esp("4.19.5")))["linux/initramfs-4.19.5.img"],
        Found::Stale
    );
    // Nothing of what is there is believed.
    fs::write(&image, vec![0xa5; 1 << 20]).unwrap();
    let nothing = Partition::open(&image).unwrap();
    esp.check_partition(&nothing).unwrap_err();
}
