//! Clients, groups and images alike: of whom something is said, and saying it.

use crate::daemon::Server;
use crate::library::{
    Actor, Client, ClientState, Edit, Edition, Error, Group, GroupEdit, GroupName, Image,
    ImageEdit, ImageName, MacAddr, Sayings, SettingsEdit,
};
use crate::web::pages::groups;

/// Of whom something is said, as it is at the moment.
pub(super) enum Whose {
    Client(Box<Client>, ClientState),
    Group(Box<Group>),
    Image(Box<Image>),
}

/// Whom a form is for.
#[derive(Clone)]
pub(super) enum Whom {
    Client(MacAddr),
    Group(GroupName),
    Image(ImageName),
}

/// What a form asks for.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) settings: SettingsEdit,
    pub(super) new_identity: bool,
}

/// What that would do.
pub(super) struct Planned {
    pub(super) steps: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Whom {
    pub(super) fn now(&self, server: &Server) -> Result<Whose, Error> {
        Ok(match self {
            Whom::Client(mac) => {
                let view = server.view(server.library().client(mac)?)?;
                Whose::Client(Box::new(view.client), view.state)
            }
            Whom::Group(name) => Whose::Group(Box::new(server.library().group(name)?)),
            Whom::Image(name) => Whose::Image(Box::new(server.library().image(name)?)),
        })
    }
}

impl Whose {
    pub(super) fn name(&self) -> &str {
        match self {
            Whose::Client(client, _) => client.name.as_str(),
            Whose::Group(group) => group.name.as_str(),
            Whose::Image(image) => image.name.as_str(),
        }
    }

    /// Their own page.
    pub(super) fn page(&self) -> String {
        match self {
            Whose::Client(client, _) => format!("/clients/{}", client.mac),
            Whose::Group(group) => format!("/groups/{}", group.name),
            Whose::Image(image) => format!("/images/{}", image.name),
        }
    }

    /// The page where they are listed, and its name.
    pub(super) fn list(&self) -> (&'static str, &'static str) {
        match self {
            Whose::Client(..) => ("/", "Room"),
            Whose::Group(_) => ("/groups", "Groups"),
            Whose::Image(_) => ("/images", "Images"),
        }
    }

    pub(super) fn inherits(&self) -> &'static str {
        match self {
            Whose::Client(..) => {
                "the groups that it is in count, then netroot.toml, then what is built in. The way to boot is \
                 said of images, too, and counts before netroot.toml."
            }
            Whose::Group(_) => {
                "netroot.toml counts, then what is built in; of the way to boot, the image before them. What a \
                 client says itself counts before this."
            }
            Whose::Image(_) => {
                "netroot.toml counts, then what is built in. What a client or a group of it says counts before \
                 this."
            }
        }
    }

    /// What has to be known while somebody works there.
    pub(super) fn runs(&self) -> Option<&'static str> {
        match self {
            Whose::Client(_, ClientState::Up | ClientState::Booting) => Some(
                "It runs, and is not disturbed: quota and a larger data disk hold at once, all else from its \
                 next boot on.",
            ),
            _ => None,
        }
    }

    pub(super) fn has_identity(&self) -> bool {
        matches!(self, Whose::Client(..))
    }

    pub(super) fn edition(&self) -> Edition {
        match self {
            Whose::Client(client, _) => client.edition(),
            Whose::Group(group) => group.edition(),
            Whose::Image(image) => image.edition(),
        }
    }

    /// Refuses who has seen them otherwise.
    pub(super) fn ensure(&self, seen: &Edition) -> Result<(), Error> {
        match self {
            Whose::Client(client, _) => client.ensure_edition(Some(seen)),
            Whose::Group(group) => group.ensure_edition(Some(seen)),
            Whose::Image(image) => image.ensure_edition(Some(seen)),
        }
    }

    pub(super) fn sayings(&self, server: &Server) -> Result<Sayings, Error> {
        match self {
            Whose::Client(client, _) => server.library().sayings(client),
            Whose::Group(group) => Ok(server.library().group_sayings(group)),
            Whose::Image(image) => Ok(server.library().image_sayings(image)),
        }
    }

    /// What the change would do, or why it is refused.
    pub(super) fn plan(&self, server: &Server, wanted: &Wanted) -> Result<Planned, Error> {
        let library = server.library();
        Ok(match self {
            Whose::Client(client, _) => {
                let plan = library.plan_edit(&client.mac, &wanted.of_client())?;
                Planned {
                    steps: plan.steps.iter().map(ToString::to_string).collect(),
                    warnings: plan.warnings,
                }
            }
            Whose::Group(group) => {
                let plan = library.plan_edit_group(&group.name, &wanted.of_group())?;
                Planned {
                    steps: plan.steps,
                    warnings: plan.warnings,
                }
            }
            Whose::Image(image) => Planned {
                steps: library
                    .plan_edit_image(&image.name, &wanted.of_image())?
                    .steps,
                warnings: Vec::new(),
            },
        })
    }

    /// Tells which page to go to, and what to say there.
    pub(super) fn save(
        &self,
        server: &Server,
        seen: &Edition,
        wanted: &Wanted,
        by: &Actor,
    ) -> Result<(String, String), Error> {
        let (library, seen) = (server.library(), Some(seen));
        match self {
            Whose::Client(client, _) => {
                let edit = wanted.of_client();
                library.edit_client_on(&client.mac, seen, &edit, server.live(), by)?;
            }
            Whose::Group(group) => {
                let edit = wanted.of_group();
                let view = library.edit_group_on(&group.name, seen, &edit, by)?;
                if let Some(gone) = groups::gone(&view) {
                    return Ok(gone);
                }
            }
            Whose::Image(image) => {
                library.edit_image_on(&image.name, seen, &wanted.of_image(), by)?;
            }
        }
        Ok((self.page(), self.saved().to_owned()))
    }

    /// What to tell when it is done.
    pub(super) fn saved(&self) -> &'static str {
        match self {
            Whose::Client(_, ClientState::Up | ClientState::Booting) => {
                "Saved. What is told at a boot counts from its next one."
            }
            Whose::Client(..) => "Saved. It counts from the next boot.",
            Whose::Group(_) => {
                "Saved. Its clients are told at their next boot; quotas hold at once."
            }
            Whose::Image(_) => "Saved. Those who boot it are told at their next boot.",
        }
    }
}

impl Wanted {
    pub(super) fn only(settings: SettingsEdit) -> Self {
        Wanted {
            settings,
            new_identity: false,
        }
    }

    pub(super) fn of_client(&self) -> Edit {
        Edit {
            settings: self.settings.clone(),
            new_identity: self.new_identity,
            ..Edit::default()
        }
    }

    pub(super) fn of_image(&self) -> ImageEdit {
        ImageEdit {
            way: self.settings.way,
        }
    }

    pub(super) fn of_group(&self) -> GroupEdit {
        GroupEdit {
            settings: self.settings.clone(),
            ..GroupEdit::default()
        }
    }
}

impl Planned {
    /// Whether somebody should be asked first: a disk is out of sight, or an identity gone.
    pub(super) fn loses(&self, wanted: &Wanted) -> bool {
        !self.warnings.is_empty() || wanted.new_identity
    }
}
