//! Which options go together.

use anyhow::Result;

use super::BuildRequest;
use crate::build::plan::Step;
use crate::build::recipe::Recipe;
use crate::build::sections::Known;
use crate::build::source::Source;
use crate::build::usage::WrongUsage;
use crate::library::SizeSpec;

impl BuildRequest {
    /// Refuses what would silently do nothing, as far as the request alone tells.
    pub(super) fn ensure_meant(&self) -> Result<(), WrongUsage> {
        if self.size.is_some() && !self.filesystem.is_writable() {
            let name = self.filesystem.name();
            let why = format!(
                "does nothing here: {name} has the size that its files need, so leave it out"
            );
            return Err(WrongUsage::of("--size", why));
        }
        if self.mirror.is_some() && !matches!(self.source, Source::Distribution { .. }) {
            return Err(WrongUsage::of(
                "--mirror",
                "tells from where a distribution is bootstrapped: packages of a directory or an \
                 archive come from where its own configuration says (--copy and --run change that)",
            ));
        }
        let is_archive = matches!(self.source, Source::Archive(_) | Source::StandardInput);
        if is_archive && self.recipe.is_none() && !self.packages.is_empty() {
            let why = "needs a recipe to install it by: give --recipe";
            return Err(WrongUsage::of("--package", why));
        }
        match self.source {
            Source::StandardInput if !self.needs_scratch() => self.ensure_told(),
            _ => Ok(()),
        }
    }

    /// An archive that can be read only once goes straight to its disk, so what a first reading would
    /// tell must be given.
    fn ensure_told(&self) -> Result<(), WrongUsage> {
        let why = match (self.size, &self.kernel) {
            (Some(SizeSpec::Bytes(_)), Some(_)) => return Ok(()),
            (Some(SizeSpec::Hundredths(_)), _) => {
                ", so nobody knows what a multiple of its size is: give --size in bytes, such as 20G"
            }
            _ => ": give --size and --kernel",
        };
        let why =
            format!("reads an archive from the standard input, which can be done only once{why}");
        Err(WrongUsage::of("--from -", why))
    }

    /// Refuses a mirror that no step of the recipe asks for; `steps` makes them of what is known.
    pub(super) fn ensure_mirror_is_used(
        &self,
        recipe: &Recipe,
        known: &Known,
        steps: &dyn Fn(&Known) -> Result<Vec<Step>>,
    ) -> Result<()> {
        if self.mirror.is_none() {
            return Ok(());
        }
        let without = Known {
            mirror: None,
            ..known.clone()
        };
        if steps(known)? == steps(&without)? {
            let name = recipe.name();
            let why =
                format!("does nothing here: no step of the recipe {name} has {{mirror}} in it");
            return Err(WrongUsage::of("--mirror", why).into());
        }
        Ok(())
    }
}
