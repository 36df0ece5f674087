//! What two admins must not overwrite for each other in a client.

use serde::Serialize;

use super::Client;
use crate::library::Edition;
use crate::library::error::Result;

impl Client {
    /// Its edition. Boots come and go without a new one, so a form that was opened before a machine was
    /// switched on still counts.
    pub fn edition(&self) -> Edition {
        #[derive(Serialize)]
        struct Left<'a> {
            added: &'a jiff::Timestamp,
            name: &'a super::ClientName,
            more_macs: &'a std::collections::BTreeSet<super::MacAddr>,
            groups: &'a std::collections::BTreeSet<super::GroupName>,
            assignment: super::Assignment,
            args: &'a [super::KernelArg],
            settings: &'a super::Settings,
            clone: Option<&'a str>,
            armed: &'a Option<super::Armed>,
        }
        Edition::of(&Left {
            added: &self.added,
            name: &self.name,
            more_macs: &self.more_macs,
            groups: &self.groups,
            assignment: self.assignment(),
            args: &self.args,
            settings: &self.settings,
            // An ephemeral one is made anew at each boot, which no admin did.
            clone: self
                .clone
                .as_ref()
                .filter(|_| self.mode == super::Mode::Persistent)
                .map(|clone| clone.id.as_str()),
            armed: &self.armed,
        })
    }

    /// Refuses whoever has read another edition.
    pub fn ensure_edition(&self, wanted: Option<&Edition>) -> Result<()> {
        self.edition().ensure(wanted, "client", &self.name)
    }
}
