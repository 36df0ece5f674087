//! `netroot esp …`

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::boot::{base, doors, one, portal};
use super::command::{Cli, EspCheck, EspExport, EspOf};
use super::{open, print};
use crate::boot::{
    BootCfg, Checked, Esp, Files, Folder, Found, Handover, Https, Kernel, Loader, Loaders,
    Partition, Portal, Root, Says, Writes, over_tls, runs_autoexec,
};
use crate::library::manifest::BootFrom;
use crate::library::{Client, Library, Mode, Secrets, Target, Version, VersionSpec, Way};

pub(super) fn export(cli: &Cli, args: &EspExport) -> Result<()> {
    let library = open(cli)?;
    let Wanted { esp, loader } = wanted(cli, &library, &args.of)?;
    let is_image = is_image(&args.to);
    let doing = || format!("exporting boot files to {}", args.to.display());
    let size = match is_image {
        true => Some(esp.image_size().with_context(doing)?),
        false => None,
    };
    if !args.run.dry_run {
        let written = match is_image {
            true => esp.write_image(&args.to),
            false => esp.write(&args.to),
        };
        written.with_context(doing)?;
    }
    caution(&library, &loader)?;
    if cli.json {
        return print::json(&esp);
    }
    let verb = match args.run.dry_run {
        true => "would write",
        false => "wrote",
    };
    let place = |path: &Path| match is_image {
        true => path.display().to_string(),
        false => args.to.join(path).display().to_string(),
    };
    let files = esp.files.iter();
    let mut lines: Vec<String> = files
        .map(|file| format!("{verb} {}", place(&file.path)))
        .collect();
    if let Some(size) = size {
        lines.push(format!(
            "{verb} all of it into {}, {}; to a stick: dd if={} of=/dev/sdX bs=4M conv=fsync",
            args.to.display(),
            print::bytes(size),
            args.to.display()
        ));
    }
    print::lines(lines)
}

pub(super) fn check(cli: &Cli, args: &EspCheck) -> Result<()> {
    let library = open(cli)?;
    let Wanted { esp, loader } = wanted(cli, &library, &args.of)?;
    let doing = || format!("checking the EFI system partition at {}", args.at.display());
    let checked = match args.at.is_dir() {
        true => esp.check_folder(Folder(&args.at)),
        false => Partition::open(&args.at).and_then(|partition| esp.check_partition(&partition)),
    };
    let checked = checked.with_context(doing)?;
    if loader.path.is_none() {
        print::warning(&loader.is_missing(&library, "looked at"));
    }
    match cli.json {
        true => print::json(&checked)?,
        false => table(&checked).print("nothing")?,
    }
    let wrong = |one: &&Checked| matches!(one.found, Found::Stale | Found::Missing);
    let count = checked.iter().filter(wrong).count();
    match count {
        0 => Ok(()),
        count => bail!(
            "{}: {count} of {} files are not what would be written today; write them anew: netroot \
             esp export",
            doing(),
            esp.files.len()
        ),
    }
}

fn table(checked: &[Checked]) -> print::Table {
    let mut table = print::Table::new(&["FILE", "FOUND", "WHY"]);
    for one in checked {
        let found = match one.found {
            Found::Same => "same",
            Found::Stale => "stale",
            Found::Missing => "missing",
            Found::Foreign => "foreign",
        };
        let path = one.path.display().to_string();
        table.row([path, found.to_owned(), one.why.clone().unwrap_or_default()]);
    }
    table
}

/// Whether a path means the image of a disk, and not a directory.
fn is_image(to: &Path) -> bool {
    to.extension().is_some_and(|extension| extension == "img") && !to.is_dir()
}

/// What the partition would have.
struct Wanted {
    esp: Esp,
    loader: Ipxe,
}

fn wanted(cli: &Cli, library: &Library, of: &EspOf) -> Result<Wanted> {
    let client = of.client.as_ref();
    let client = client.map(|selector| one(library, selector)).transpose()?;
    let spec = match (&client, &of.image) {
        (Some(client), _) => &client.image,
        (None, Some(image)) => image,
        (None, None) => bail!("say whose boot files: --image IMAGE or --client CLIENT"),
    };
    let asking = match &client {
        Some(client) if library.next_way(client)? == Way::Esp => Some(client),
        _ => None,
    };
    let version = match asking {
        // The one whose kernel its next boot gets: its disk may be of an older one than the image's
        // current, and what waits for that boot is done then.
        Some(client) => library.version(&library.issue_boot(client)?.version)?,
        // By the word that names its target below.
        None => library.resolve(spec)?,
    };
    let BootFrom::Kernel { kernel, initramfs } = &version.manifest().boot else {
        bail!(
            "exporting boot files for {}: it boots from its own disk, so there is no kernel to export, \
             and a static boot.cfg would give every machine the same disk, read-only; boot it over \
             HTTP by boot.ipxe, in mode persistent or ephemeral",
            version.id()
        );
    };
    let Some(stamp) = version.manifest().boot.stamp() else {
        bail!("{} has no kernel", version.id());
    };
    if let (Some(client), None) = (&client, asking) {
        ensure_static(client)?;
        tell_what_waits(client);
    }
    let doors = doors(cli, library)?;
    let portal = portal(&doors, of.server)?;
    let base = base(&doors, portal.ip());
    let loader = Ipxe::of(library, of, &version)?;
    let kernel = Kernel {
        version: &version.manifest().facts.kernel_version,
        kernel: (&version.kernel_path(), kernel),
        initramfs: (&version.initramfs_path(), initramfs),
    };
    let portal = Portal {
        ip: portal.ip(),
        port: portal.port(),
    };
    let esp = match asking {
        Some(_) => {
            let tls = doors.boot_tls.first();
            let tls = tls.map(|door| over_tls(&base, door.port()));
            let secrets = library.config().boot.secrets;
            let says = Says::Asks {
                base: &base,
                https: tls.as_deref().map(|tls| Https::to(tls, secrets)),
                stamp,
            };
            Esp::new(kernel, says, loader.as_given())
        }
        None => {
            let args = match &client {
                Some(client) => library.kernel_args(client)?,
                None => library.config().boot.kernel_args.clone(),
            };
            let config = library.config();
            let root = Root {
                portal,
                target: static_target(library, &version, spec),
                lun: config.iscsi.lun.number(),
                initiator: None,
                secrets: Secrets::default(),
            };
            let facts = &version.manifest().facts;
            let cfg = BootCfg {
                identity: None,
                files: Files::Beside,
                handover: Handover::KernelLine,
                kernel: &facts.kernel_version,
                initramfs: &facts.early,
                root,
                writes: match client {
                    Some(_) => Writes::Ram,
                    None => Writes::None,
                },
                mac: client.as_ref().map(|client| client.mac),
                nameservers: &config.boot.nameservers,
                args: &args,
            };
            let says = Says::Itself {
                cfg: &cfg,
                base: &base,
                stamp,
            };
            Esp::new(kernel, says, loader.as_given())
        }
    };
    Ok(Wanted { esp, loader })
}

/// The iPXE that starts a partition's kernel.
struct Ipxe {
    /// For which machines it is.
    kind: Loader,
    /// Where it is, if there is one.
    path: Option<PathBuf>,
}

impl Ipxe {
    /// The one that is named, there or in the configuration, or else that of this host's packages.
    fn of(library: &Library, of: &EspOf, version: &Version) -> Result<Self> {
        let wanted = Loader::of_program(&version.kernel_path()).context("reading the kernel")?;
        let of_loader = |path: &PathBuf| {
            let doing = || format!("reading the loader {}", path.display());
            Loader::of_program(path).with_context(doing)
        };
        let named = of.ipxe.as_ref().map(of_loader).transpose()?.flatten();
        // A kernel that firmware cannot start, one that is packed, say, tells nothing; most machines are such.
        let kind = wanted.or(named).unwrap_or(Loader::EfiX64);
        let found = || Loaders::new(&library.config().boot).path_for_disk(kind);
        let path = of.ipxe.clone().or_else(found);
        if let Some(path) = &path
            && let Some(other) = of_loader(path)?.filter(|other| *other != kind)
        {
            bail!(
                "exporting boot files for {}: its kernel is for {}, and {} for {}; name another one with \
                 --ipxe",
                version.id(),
                kind.what(),
                path.display(),
                other.what()
            );
        }
        Ok(Ipxe { kind, path })
    }

    fn as_given(&self) -> Option<(Loader, &Path)> {
        self.path.as_deref().map(|path| (self.kind, path))
    }

    /// Why there is none, and what is not done with it.
    fn is_missing(&self, library: &Library, undone: &str) -> String {
        format!(
            "{} is not {undone}: {}; or name one with --ipxe",
            self.kind.place_on_disk().unwrap_or("the loader"),
            Loaders::new(&library.config().boot).missing(self.kind)
        )
    }
}

/// Refuses a client whose boots need an id each: a boot.cfg that stands on a partition can only boot what
/// everybody shares.
fn ensure_static(client: &Client) -> Result<()> {
    if client.mode != Mode::Shared {
        bail!(
            "exporting boot files for {name}: in mode {} each boot needs an id of its own, which a static \
             boot.cfg cannot have; let it ask the server at each boot (netroot client set {name} --way \
             esp), set its mode to shared, or boot it over HTTP by boot.ipxe",
            client.mode,
            name = client.name,
        );
    }
    Ok(())
}

/// What waits for the next boot of a client waits for a login with that boot's id, which a boot.cfg that
/// stands on a partition cannot have.
fn tell_what_waits(client: &Client) {
    let Some(armed) = &client.armed else { return };
    let (name, act, image) = (&client.name, &armed.act, &client.image);
    print::warning(&format!(
        "{act} waits for the next boot of {name}, and a boot by a boot.cfg that stands on a partition \
         never does it: these are the files of {image}, which it is assigned to today; call it off \
         (netroot client undo {name}), or let it ask the server at each boot (netroot client set {name} \
         --way esp)"
    ));
}

/// What a boot.cfg names that stands on a partition: somebody who names a version means that one; the
/// image's name goes on meaning whatever is current.
fn static_target(library: &Library, version: &Version, spec: &VersionSpec) -> String {
    library.target_name(&match spec.number {
        Some(_) => Target::Version(version.id().clone()),
        None => Target::Alias(spec.image.clone()),
    })
}

/// What a person should know about the loader.
fn caution(library: &Library, loader: &Ipxe) -> Result<()> {
    match &loader.path {
        None => print::warning(&loader.is_missing(library, "written")),
        Some(loader) if !runs_autoexec(loader).context("reading the loader")? => {
            print::warning(&format!(
                "{} is too old to run autoexec.ipxe by itself: it stops at its prompt; take an iPXE \
                 of 2021 or later with --ipxe",
                loader.display()
            ));
        }
        Some(_) => {}
    }
    Ok(())
}
