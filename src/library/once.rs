//! Boots of another image than the one that is assigned: chosen at a menu, for this once, in mode shared.
//!
//! No disk is at stake: such a boot reads a version, as everybody may. It is a boot of its client like any
//! other (rule 2): its first login fences the older one, and a later one fences it. The client's clone
//! stays as it is, and what waits for its next boot goes on waiting for one as it is assigned.

use super::boots::{BootId, BootTicket, Kind};
use super::clients::{Client, MenuItem, MenuWhen};
use super::error::{Error, Result};
use super::names::{ImageName, Mode, VersionId};
use super::proofs::Proof;
use super::{Library, document};

impl Library {
    /// Makes the ticket for a script that boots an image this once. Nothing is written.
    ///
    /// # Errors
    /// Refused, where the client's menu does not offer that image.
    pub fn issue_once(&self, client: &Client, image: &ImageName) -> Result<BootTicket> {
        let menu = self.menu(client)?;
        let offered = menu.items.contains(&MenuItem::Image(image.clone()));
        if menu.when == MenuWhen::Off || !offered {
            return Err(Error::refused(
                format!("booting {image} on {}, this once", client.name),
                "its menu does not offer that image, or it is not there",
                "name it in menu_items, for the client, a group of it, or all",
            ));
        }
        let version = self.resolve(&image.clone().into())?.id().clone();
        let what = (version, Mode::Shared);
        let by = self.settings_booting(client, image)?;
        self.ticket(client, Kind::Once, what, &by)
    }

    /// The version that a boot was made for at a menu of the client, and what it proves; nothing if it was
    /// made for none.
    pub(super) fn chosen_by(
        &self,
        client: &Client,
        id: &BootId,
    ) -> Result<Option<(VersionId, Proof)>> {
        // The id tells the number only. Versions of so many images could be meant as there are.
        for name in document::entries(&self.places().images())? {
            let Ok(image) = name.parse() else { continue };
            let version = VersionId {
                image,
                number: id.version,
            };
            let what = (&version, Mode::Shared);
            if let Some(proof) = self.proof_in(&client.mac, id, Kind::Once, what)? {
                return Ok(Some((version, proof)));
            }
        }
        Ok(None)
    }
}
