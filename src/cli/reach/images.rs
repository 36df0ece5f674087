//! What is said of images.

use anyhow::Result;

use super::Reach;
use crate::library::{Actor, Image, ImageEdit, ImageName, ImagePlan};
use crate::web::calls::EditImageCall;

impl Reach {
    pub(in crate::cli) fn plan_edit_image(
        &self,
        name: &ImageName,
        edit: &ImageEdit,
    ) -> Result<ImagePlan> {
        match self {
            Reach::Server(control) => control.patch(&at(name), &EditImageCall::of(edit, true)),
            Reach::Alone(library, _) => Ok(library.plan_edit_image(name, edit)?),
        }
    }

    pub(in crate::cli) fn edit_image(&self, name: &ImageName, edit: &ImageEdit) -> Result<Image> {
        match self {
            Reach::Server(control) => control.patch(&at(name), &EditImageCall::of(edit, false)),
            Reach::Alone(library, _) => Ok(library.edit_image(name, edit, &Actor::command())?),
        }
    }
}

fn at(name: &ImageName) -> String {
    format!("/api/v1/images/{name}")
}
