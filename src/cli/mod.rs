//! The command line: parses, calls one function, prints what it returned.
//!
//! `run` maps each command to the function of the same name. Nothing here decides anything about
//! images or clients.

mod ask;
mod boot;
mod boots;
mod client;
mod command;
mod config;
mod control;
mod dhcp;
mod doctor;
mod esp;
mod event;
mod group;
mod heap;
mod image;
mod import;
mod init;
mod job;
mod log;
mod make;
mod man;
mod next;
mod print;
mod progress;
mod promote;
mod reach;
mod recipe;
mod relay;
mod rollout;
mod serve;
mod target;
mod token;
mod user;
mod volume;
mod wake;
mod worker;

use std::process::ExitCode;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use command::{
    Boot, Cli, Client, Command, Config, Esp, Event, Group, Image, Job, Recipe, Rollout, Session,
    Target, Token, User, Volume,
};

use crate::build::WrongUsage;
use crate::library::{Error, Library};

/// Parses the command line, runs it, prints what failed. Exit codes: 0 done, 1 refused or failed,
/// 2 wrong usage (most of it found by clap).
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log::begin(match cli.command {
        Command::Serve(_) | Command::Worker(_) => tracing::Level::INFO,
        _ => tracing::Level::WARN,
    });
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if closed_early(&error) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Tells what failed.
fn failed(error: &anyhow::Error) -> ExitCode {
    if let Some(error) = error.downcast_ref::<clap::Error>() {
        // Whoever read it may have gone, as for `print::aside`.
        let _ = error.print();
        return ExitCode::from(2);
    }
    // What programs of a stranger's said is in it, too.
    let told = print::chain(error);
    let lines = told.lines().map(print::printable).collect::<Vec<_>>();
    print::aside(&format!("netroot: {}", lines.join("\n")));
    match error.downcast_ref::<WrongUsage>() {
        Some(_) => ExitCode::from(2),
        None => ExitCode::FAILURE,
    }
}

/// What clap cannot say by itself of the command at `path`, such as `["image", "upgrade"]`.
fn wrong_usage(path: &[&str], what: &str) -> anyhow::Error {
    let mut command = Cli::command();
    command.build();
    let mut named = &mut command;
    for name in path {
        named = match named.find_subcommand_mut(name) {
            Some(found) => found,
            None => return anyhow::anyhow!("{what}"),
        };
    }
    named.error(ErrorKind::ArgumentConflict, what).into()
}

fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::Init(args) => init::init(cli, args),
        Command::Image(Image::Build(args)) => make::build(cli, args),
        Command::Image(Image::Upgrade(args)) => make::upgrade(cli, args),
        Command::Image(Image::Import(args)) => make::import(cli, args),
        Command::Image(Image::Update(args)) => make::update(cli, args),
        Command::Image(Image::Exec(args)) => make::exec(cli, args),
        Command::Image(Image::Shell(args)) => make::shell(cli, args),
        Command::Image(Image::List) => image::list(cli),
        Command::Image(Image::Show { image }) => image::show(cli, image),
        Command::Image(Image::Diff(args)) => image::diff(cli, args),
        Command::Image(Image::Rollback {
            image,
            number,
            consent,
        }) => image::rollback(cli, image, *number, *consent),
        Command::Image(Image::Verify { images, all, queue }) => {
            image::verify(cli, images, *all, *queue)
        }
        Command::Image(Image::Test(args)) => image::test(cli, args),
        Command::Image(Image::Prune {
            image,
            keep,
            consent,
        }) => image::prune(cli, image.as_ref(), *keep, *consent),
        Command::Image(Image::Set(args)) => image::set(cli, args),
        Command::Image(Image::Remove {
            image,
            force,
            consent,
        }) => image::remove(cli, image, *force, *consent),
        Command::Recipe(Recipe::List) => recipe::list(cli),
        Command::Recipe(Recipe::Show { name }) => recipe::show(cli, name),
        Command::Client(Client::Add(args)) => client::add(cli, args),
        Command::Client(Client::Set(args)) => client::set(cli, args),
        Command::Client(Client::Assign(args)) => client::assign(cli, args),
        Command::Client(Client::List { unknown: true, .. }) => client::strangers(cli),
        Command::Client(Client::List { group, csv, .. }) => client::list(cli, group.as_ref(), *csv),
        Command::Client(Client::Import(args)) => import::import(cli, args),
        Command::Client(Client::Show {
            client,
            boots: true,
        }) => boots::show(cli, client),
        Command::Client(Client::Show { client, .. }) => client::show(cli, client),
        Command::Client(Client::Reset {
            client,
            running,
            consent,
        }) => client::reset(cli, client, *running, *consent),
        Command::Client(Client::Undo {
            client,
            running,
            consent,
        }) => client::undo(cli, client, *running, *consent),
        Command::Client(Client::Restore {
            client,
            disk,
            running,
            consent,
        }) => client::restore(cli, client, disk, *running, *consent),
        Command::Client(Client::Snapshot { client, name, run }) => {
            client::snapshot(cli, client, name.as_ref(), *run)
        }
        Command::Client(Client::Forget {
            client,
            disk,
            consent,
        }) => client::forget(cli, client, disk, *consent),
        Command::Client(Client::Resize { client, size, run }) => {
            client::resize(cli, client, *size, *run)
        }
        Command::Client(Client::Promote(args)) => promote::promote(cli, args),
        Command::Client(Client::Remove {
            client,
            force,
            purge,
            consent,
        }) => client::remove(cli, client, *force, *purge, *consent),
        Command::Client(Client::Wake { client, run }) => wake::wake(cli, client, *run),
        Command::Group(Group::List) => group::list(cli),
        Command::Group(Group::Show { name }) => group::show(cli, name),
        Command::Group(Group::Set(args)) => group::set(cli, args),
        Command::Group(Group::Remove { name, consent }) => group::remove(cli, name, *consent),
        Command::Rollout(Rollout::List) => rollout::list(cli),
        Command::Rollout(Rollout::Show { id }) => rollout::show(cli, *id),
        Command::Rollout(Rollout::Stop { id, keep, consent }) => {
            rollout::stop(cli, *id, *keep, *consent)
        }
        Command::Volume(Volume::Add(args)) => volume::add(cli, args),
        Command::Volume(Volume::List) => volume::list(cli),
        Command::Volume(Volume::Show { name }) => volume::show(cli, name),
        Command::Volume(Volume::Set(args)) => volume::set(cli, args),
        Command::Volume(Volume::Resize { name, size, run }) => {
            volume::resize(cli, name, *size, *run)
        }
        Command::Volume(Volume::Snapshot { name, copy, run }) => {
            volume::snapshot(cli, name, copy.as_ref(), *run)
        }
        Command::Volume(Volume::Remove {
            name,
            force,
            consent,
        }) => volume::remove(cli, name, *force, *consent),
        Command::Boot(Boot::Show {
            client,
            server,
            way,
        }) => boot::show(cli, client, *server, *way),
        Command::Boot(Boot::Dnsmasq { server }) => dhcp::dnsmasq(cli, *server),
        Command::Boot(Boot::Kea { server }) => dhcp::kea(cli, *server),
        Command::Esp(Esp::Export(args)) => esp::export(cli, args),
        Command::Esp(Esp::Check(args)) => esp::check(cli, args),
        Command::Config(Config::Check) => doctor::check(cli),
        Command::Doctor => doctor::doctor(cli),
        Command::Config(Config::Reload { run }) => config::reload(cli, *run),
        Command::Serve(args) => serve::serve(cli, args),
        Command::Worker(args) => worker::worker(cli, args),
        Command::Job(Job::List) => job::list(cli),
        Command::Job(Job::Show { id }) => job::show(cli, *id),
        Command::Job(Job::Log { id, follow }) => job::log(cli, *id, *follow),
        Command::Job(Job::Report { id }) => job::report(cli, *id),
        Command::Job(Job::Cancel { id, run }) => job::cancel(cli, *id, *run),
        Command::Event(Event::List { which, limit }) => event::list(cli, which, *limit),
        Command::Event(Event::Export { which, format }) => event::export(cli, which, *format),
        Command::User(User::Add(args)) => user::add(cli, args),
        Command::User(User::Invite { name, run }) => user::invite(cli, name, *run),
        Command::User(User::List) => user::list(cli),
        Command::User(User::Role {
            name,
            role,
            consent,
        }) => user::role(cli, name, *role, *consent),
        Command::User(User::Remove { name, consent }) => user::remove(cli, name, *consent),
        Command::Token(Token::Add(args)) => token::add(cli, args),
        Command::Token(Token::List) => token::list(cli),
        Command::Token(Token::Remove { name, consent }) => token::remove(cli, name, *consent),
        Command::Target(Target::List) => target::list(cli),
        Command::Session(Session::List) => target::sessions(cli),
        Command::Session(Session::Kick { id, consent }) => target::kick(cli, *id, *consent),
        Command::TrialRelay { port } => relay::relay(*port),
        Command::Completions { shell } => {
            // Not straight to standard output, which may be closed: that would be a panic.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "netroot", &mut script);
            print::raw(&script)
        }
        Command::Man { dir, run } => man::man(cli, dir, *run),
    }
}

/// Opens the library that the command line names, and cleans up what a killed command left there.
fn open(cli: &Cli) -> Result<Library> {
    let library = Library::open(&cli.library, cli.config.as_deref())?;
    match library.sweep() {
        Ok(swept) => {
            for swept in swept {
                print::warning(&swept.told());
            }
        }
        // Who may only look is shown what there is; cleaning up is for those who may write.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {}
        Err(error) => return Err(error.into()),
    }
    Ok(library)
}

/// Whether who read our output had enough of it, as `head` does: that is no failure.
fn closed_early(error: &anyhow::Error) -> bool {
    let kinds = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    kinds
        .into_iter()
        .any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
