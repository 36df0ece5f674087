//! Who may come in: users, the links by which they choose passwords, and tokens.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use netroot::library::*;

const PASSWORD: &str = "correct horse battery";

struct Site {
    _dir: tempfile::TempDir,
    library: Library,
}

fn site() -> Site {
    let dir = tempfile::tempdir().unwrap();
    let options = InitOptions {
        host: "server-01.example.edu".parse().unwrap(),
        iqn_prefix: None,
        immutable: false,
    };
    let library = Library::init(&dir.path().join("lib"), &options).unwrap();
    Site { _dir: dir, library }
}

fn root() -> Actor {
    Actor::Command { uid: 0 }
}

fn user(name: &str) -> Actor {
    Actor::User {
        name: name.to_owned(),
        peer: "192.0.2.1".to_owned(),
    }
}

fn new(name: &str, role: Role) -> NewUser {
    NewUser {
        name: name.parse().unwrap(),
        role,
    }
}

fn name(name: &str) -> UserName {
    name.parse().unwrap()
}

impl Site {
    fn add(&self, name: &str, role: Role) {
        let new = new(name, role);
        self.library
            .add_user_with_password(&new, false, PASSWORD, &root())
            .unwrap();
    }

    fn token(&self, token: &str, role: Role, by: &Actor) -> String {
        let new = NewToken {
            name: token.parse().unwrap(),
            role,
            expires: Lifetime::default(),
        };
        self.library.add_token(&new, by).unwrap().secret
    }

    /// Changes the one document in a directory, as the clock or a person would.
    fn change(&self, dir: &str, from: &str, to: &str) {
        let mut files = fs::read_dir(self.library.root().join(dir)).unwrap();
        let path = files.next().unwrap().unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&path, text.replace(from, to)).unwrap();
    }

    fn told(&self) -> Vec<String> {
        let events = self.library.events(&Filter::default()).unwrap();
        let mut told: Vec<String> = events
            .events
            .iter()
            .map(|recorded| recorded.event.what.clone())
            .collect();
        told.reverse();
        told
    }
}

#[test]
fn a_link_lets_somebody_choose_a_password_once() {
    let site = site();
    let library = &site.library;
    let first = library
        .add_user(&new("admin", Role::Operator), true, &root())
        .unwrap();
    assert!(library.log_in("admin", "").unwrap().is_none());
    assert_eq!(
        library.invited(&first.key).unwrap().unwrap().name.as_str(),
        "admin"
    );
    assert!(library.invited("guessed").unwrap().is_none());
    // A password that nobody should have leaves the link as it is.
    let short = library.redeem(&first.key, "short", "192.0.2.1");
    assert!(matches!(short, Err(Error::Invalid(_))), "{short:?}");
    let chosen = library
        .redeem(&first.key, PASSWORD, "192.0.2.1")
        .unwrap()
        .unwrap();
    assert!(
        library
            .redeem(&first.key, "another password", "192.0.2.1")
            .unwrap()
            .is_none()
    );
    let in_again = library.log_in("admin", PASSWORD).unwrap().unwrap();
    assert_eq!(in_again.stamp, chosen.stamp);
    assert!(
        library
            .log_in("admin", "another password")
            .unwrap()
            .is_none()
    );
    assert!(library.log_in("nobody", PASSWORD).unwrap().is_none());
    assert!(library.log_in("../admin", PASSWORD).unwrap().is_none());
    assert_eq!(site.told(), ["user-add", "password-set"]);
}

#[test]
fn a_newer_link_takes_the_place_of_an_older_one_and_none_holds_for_ever() {
    let site = site();
    let library = &site.library;
    site.add("alice", Role::Viewer);
    let old = library.invite_user(&name("alice"), &root()).unwrap();
    let link = library.invite_user(&name("alice"), &root()).unwrap();
    assert!(library.invited(&old.key).unwrap().is_none());
    assert!(
        library.log_in("alice", PASSWORD).unwrap().is_some(),
        "until a new one is chosen"
    );
    site.change("users", &link.until.to_string(), "2026-01-01T00:00:00Z");
    assert!(library.invited(&link.key).unwrap().is_none());
    assert!(
        library
            .redeem(&link.key, "another password", "192.0.2.1")
            .unwrap()
            .is_none()
    );
    assert_eq!(library.users().unwrap()[0].view().invited_until, None);
}

#[test]
fn the_first_user_is_added_where_there_is_none() {
    let site = site();
    let library = &site.library;
    library
        .add_user(&new("admin", Role::Operator), true, &root())
        .unwrap();
    let second = library.add_user(&new("bob", Role::Operator), true, &root());
    assert!(
        second
            .unwrap_err()
            .to_string()
            .contains("admin is a user already")
    );
    let twice = library.add_user(&new("admin", Role::Viewer), false, &root());
    assert!(matches!(twice, Err(Error::Exists { kind: "user", .. })));
    assert_eq!(library.users().unwrap().len(), 1);
}

#[test]
fn another_password_is_another_stamp() {
    let site = site();
    let library = &site.library;
    site.add("alice", Role::Viewer);
    let before = library.known_user(&name("alice")).unwrap().unwrap();
    let change = |old, new| library.change_password(&name("alice"), old, new, &user("alice"));
    assert!(change("not the old one", "another password").is_err());
    assert!(change(PASSWORD, "short").is_err());
    assert_eq!(
        library.known_user(&name("alice")).unwrap().unwrap().stamp,
        before.stamp
    );
    let after = change(PASSWORD, "another password").unwrap();
    assert_ne!(after.stamp, before.stamp);
    assert!(library.log_in("alice", PASSWORD).unwrap().is_none());
    // Who is removed and added again is somebody else.
    library.remove_user(&name("alice"), &root()).unwrap();
    assert!(library.known_user(&name("alice")).unwrap().is_none());
    site.add("alice", Role::Viewer);
    let other = library.known_user(&name("alice")).unwrap().unwrap();
    assert_ne!(other.stamp, after.stamp);
}

#[test]
fn nobody_takes_the_last_way_in_away() {
    let site = site();
    let library = &site.library;
    site.add("admin", Role::Operator);
    site.add("alice", Role::Viewer);
    let last = library.remove_user(&name("admin"), &root()).unwrap_err();
    assert!(last.to_string().contains("the last operator"), "{last}");
    assert!(
        library
            .set_role(&name("admin"), Role::Viewer, &root())
            .is_err()
    );
    library
        .set_role(&name("alice"), Role::Operator, &root())
        .unwrap();
    let own = library
        .remove_user(&name("admin"), &user("admin"))
        .unwrap_err();
    assert!(own.to_string().contains("that is you"), "{own}");
    library.remove_user(&name("admin"), &user("alice")).unwrap();
    // The only user may be removed on the host: `user add --first` begins anew.
    library.remove_user(&name("alice"), &root()).unwrap();
    assert!(library.users().unwrap().is_empty());
}

#[test]
fn tokens_go_with_who_made_them() {
    let site = site();
    let library = &site.library;
    site.add("admin", Role::Operator);
    site.add("bob", Role::Operator);
    let hosts = site.token("hosts", Role::Operator, &root());
    let looks = site.token("looks", Role::Viewer, &user("bob"));
    let acts = site.token("acts", Role::Operator, &user("bob"));
    let would = library
        .check_take_user(&name("bob"), Some(Role::Viewer), &root())
        .unwrap();
    assert_eq!(would.len(), 1);
    let taken = library
        .set_role(&name("bob"), Role::Viewer, &root())
        .unwrap();
    assert_eq!(taken[0].name.as_str(), "acts");
    assert!(library.token_of(&acts).unwrap().is_none());
    assert!(library.token_of(&looks).unwrap().is_some());
    library.remove_user(&name("bob"), &root()).unwrap();
    assert!(library.token_of(&looks).unwrap().is_none());
    assert!(library.token_of(&hosts).unwrap().is_some());
}

#[test]
fn a_token_holds_until_its_day_and_only_whole() {
    let site = site();
    let library = &site.library;
    let secret = site.token("prometheus", Role::Viewer, &root());
    assert!(
        secret.starts_with("netroot_") && secret.len() == 8 + 12 + 1 + 43,
        "{secret}"
    );
    let token = library.token_of(&secret).unwrap().unwrap();
    assert_eq!(
        (token.name.as_str(), token.role),
        ("prometheus", Role::Viewer)
    );
    let shown = library.tokens().unwrap();
    assert!(shown[0].last_used.is_some());
    let twice = NewToken {
        name: "prometheus".parse().unwrap(),
        role: Role::Operator,
        expires: Lifetime::Never,
    };
    assert!(matches!(
        library.add_token(&twice, &root()),
        Err(Error::Exists { .. })
    ));
    for wrong in [
        &secret[..secret.len() - 1],
        "",
        "netroot_",
        &secret.to_uppercase(),
    ] {
        assert!(library.token_of(wrong).unwrap().is_none(), "{wrong}");
    }
    let until = shown[0].until.unwrap().to_string();
    site.change("tokens", &until, "2026-01-01T00:00:00Z");
    assert!(library.token_of(&secret).unwrap().is_none());
    assert!(library.live_token(token.id()).unwrap().is_none());
    assert!(library.tokens().unwrap()[0].is_over());
    library
        .remove_token(&"prometheus".parse().unwrap(), &root())
        .unwrap();
    assert!(library.tokens().unwrap().is_empty());
}

#[test]
fn nothing_that_is_kept_lets_anybody_in_and_nobody_else_reads_it() {
    let site = site();
    let library = &site.library;
    // As in a library of before there were users.
    for dir in ["users", "tokens"] {
        fs::remove_dir(library.root().join(dir)).unwrap();
    }
    assert!(library.users().unwrap().is_empty() && library.tokens().unwrap().is_empty());
    site.add("alice", Role::Viewer);
    let link = library.invite_user(&name("alice"), &root()).unwrap();
    let secret = site.token("prometheus", Role::Viewer, &root());
    for dir in ["users", "tokens"] {
        let dir = library.root().join(dir);
        let mode =
            |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        for file in fs::read_dir(&dir).unwrap() {
            let path = file.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            let text = fs::read_to_string(&path).unwrap();
            for told in [PASSWORD, &link.key, &secret] {
                assert!(!text.contains(told), "{text}");
            }
        }
    }
    let view = serde_json::to_string(&library.users().unwrap()[0].view()).unwrap();
    assert!(
        !view.contains("argon2") && !view.contains("stamp"),
        "{view}"
    );
    library.sweep().unwrap();
}

#[test]
fn who_was_put_out_meanwhile_makes_and_takes_nobody() {
    let site = site();
    let library = &site.library;
    site.add("admin", Role::Operator);
    site.add("evil", Role::Operator);
    let evil = Actor::User {
        name: "evil".to_owned(),
        peer: "192.0.2.1".to_owned(),
    };
    let is_refused = || {
        let token = NewToken {
            name: "backdoor".parse().unwrap(),
            role: Role::Operator,
            expires: Lifetime::Never,
        };
        let all = [
            library
                .add_user(&new("backdoor", Role::Operator), false, &evil)
                .map(drop),
            library.invite_user(&name("admin"), &evil).map(drop),
            library.add_token(&token, &evil).map(drop),
            library
                .set_role(&name("admin"), Role::Viewer, &evil)
                .map(drop),
            library.remove_user(&name("admin"), &evil).map(drop),
        ];
        for tried in all {
            let why = tried.unwrap_err().to_string();
            assert!(why.contains("no operator any more"), "{why}");
        }
    };
    library
        .set_role(&name("evil"), Role::Viewer, &root())
        .unwrap();
    is_refused();
    library.remove_user(&name("evil"), &root()).unwrap();
    is_refused();
    assert_eq!(library.users().unwrap().len(), 1);
}
