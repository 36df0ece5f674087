//! Volumes, by whoever publishes them.

use anyhow::Result;

use super::Reach;
use crate::daemon::VolumeRow;
use crate::library::{Actor, NewVolume, Volume, VolumeEdit, VolumeName, VolumePlan};
use crate::web::calls::{
    AddVolumeCall, EditVolumeCall, RemoveVolumeCall, ResizeVolumeCall, SnapshotVolumeCall,
};

const VOLUMES: &str = "/api/v1/volumes";

impl Reach {
    pub(in crate::cli) fn volumes(&self) -> Result<Vec<VolumeRow>> {
        match self {
            Reach::Server(control) => control.get(VOLUMES),
            Reach::Alone(library, _) => {
                let volumes = library.volumes()?.into_iter();
                Ok(volumes
                    .map(|volume| VolumeRow::resting(library, volume))
                    .collect())
            }
        }
    }

    pub(in crate::cli) fn volume(&self, name: &VolumeName) -> Result<VolumeRow> {
        match self {
            Reach::Server(control) => control.get(&at(name)),
            Reach::Alone(library, _) => Ok(VolumeRow::resting(library, library.volume(name)?)),
        }
    }

    pub(in crate::cli) fn plan_add_volume(&self, new: &NewVolume) -> Result<VolumePlan> {
        match self {
            Reach::Server(control) => control.post(VOLUMES, &AddVolumeCall::of(new, true)),
            Reach::Alone(library, _) => Ok(library.plan_add_volume(new)?),
        }
    }

    pub(in crate::cli) fn add_volume(&self, new: &NewVolume) -> Result<VolumeRow> {
        match self {
            Reach::Server(control) => control.post(VOLUMES, &AddVolumeCall::of(new, false)),
            Reach::Alone(library, alone) => {
                let volume = library.add_volume(new, alone, &Actor::command())?;
                Ok(VolumeRow::resting(library, volume))
            }
        }
    }

    pub(in crate::cli) fn plan_edit_volume(
        &self,
        name: &VolumeName,
        edit: &VolumeEdit,
    ) -> Result<VolumePlan> {
        match self {
            Reach::Server(control) => control.patch(&at(name), &EditVolumeCall::of(edit, true)),
            Reach::Alone(library, _) => Ok(library.plan_edit_volume(name, edit)?),
        }
    }

    pub(in crate::cli) fn edit_volume(
        &self,
        name: &VolumeName,
        edit: &VolumeEdit,
    ) -> Result<VolumeRow> {
        match self {
            Reach::Server(control) => control.patch(&at(name), &EditVolumeCall::of(edit, false)),
            Reach::Alone(library, alone) => {
                let volume = library.edit_volume(name, None, edit, alone, &Actor::command())?;
                Ok(VolumeRow::resting(library, volume))
            }
        }
    }

    pub(in crate::cli) fn plan_resize_volume(
        &self,
        name: &VolumeName,
        size: Option<u64>,
    ) -> Result<VolumePlan> {
        match self {
            Reach::Server(control) => {
                let call = ResizeVolumeCall {
                    size,
                    dry_run: true,
                };
                control.post(&format!("{}/resize", at(name)), &call)
            }
            Reach::Alone(library, _) => Ok(library.plan_resize_volume(name, size)?),
        }
    }

    pub(in crate::cli) fn resize_volume(
        &self,
        name: &VolumeName,
        size: Option<u64>,
    ) -> Result<VolumeRow> {
        match self {
            Reach::Server(control) => {
                let call = ResizeVolumeCall {
                    size,
                    dry_run: false,
                };
                control.post(&format!("{}/resize", at(name)), &call)
            }
            Reach::Alone(library, alone) => {
                let by = Actor::command();
                let volume = library.resize_volume(name, None, size, alone, &by)?;
                Ok(VolumeRow::resting(library, volume))
            }
        }
    }

    pub(in crate::cli) fn plan_snapshot_volume(
        &self,
        name: &VolumeName,
        to: Option<&VolumeName>,
    ) -> Result<VolumePlan> {
        match self {
            Reach::Server(control) => {
                let call = SnapshotVolumeCall {
                    r#as: to.cloned(),
                    dry_run: true,
                };
                control.post(&format!("{}/snapshot", at(name)), &call)
            }
            Reach::Alone(library, alone) => Ok(library.plan_snapshot_volume(name, to, alone)?),
        }
    }

    pub(in crate::cli) fn snapshot_volume(
        &self,
        name: &VolumeName,
        to: Option<&VolumeName>,
    ) -> Result<VolumeRow> {
        match self {
            Reach::Server(control) => {
                let call = SnapshotVolumeCall {
                    r#as: to.cloned(),
                    dry_run: false,
                };
                control.post(&format!("{}/snapshot", at(name)), &call)
            }
            Reach::Alone(library, alone) => {
                let copy = library.snapshot_volume(name, to, alone, &Actor::command())?;
                Ok(VolumeRow::resting(library, copy))
            }
        }
    }

    pub(in crate::cli) fn plan_remove_volume(
        &self,
        name: &VolumeName,
        force: bool,
    ) -> Result<VolumePlan> {
        match self {
            Reach::Server(control) => {
                let call = RemoveVolumeCall {
                    force,
                    dry_run: true,
                };
                control.delete(&at(name), &call)
            }
            Reach::Alone(library, alone) => Ok(library.plan_remove_volume(name, force, alone)?),
        }
    }

    pub(in crate::cli) fn remove_volume(&self, name: &VolumeName, force: bool) -> Result<Volume> {
        match self {
            Reach::Server(control) => {
                let call = RemoveVolumeCall {
                    force,
                    dry_run: false,
                };
                control.delete(&at(name), &call)
            }
            Reach::Alone(library, alone) => {
                Ok(library.remove_volume(name, None, force, alone, &Actor::command())?)
            }
        }
    }
}

fn at(name: &VolumeName) -> String {
    format!("{VOLUMES}/{name}")
}
