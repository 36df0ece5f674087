//! Bodies of calls about many clients at a time.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::whole;
use crate::library::{ClientSelector, Keep, NewRollout, VersionSpec, Within};

/// `POST /api/v1/rollouts`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"clients": "@room5", "image": "fc29", "canary": 2, "within": "10m"}))]
pub struct RolloutCall {
    /// Whom it is for.
    pub clients: ClientSelector,
    /// What they are to boot.
    pub image: VersionSpec,
    /// How many of them go first, by name.
    #[serde(deserialize_with = "whole")]
    #[schema(value_type = u64, minimum = 1, maximum = 4_294_967_295_i64)]
    pub canary: NonZeroU32,
    /// How long those have to boot, to log in and to stay for two minutes; 30m if nothing is said.
    #[serde(default)]
    #[schema(default = "30m")]
    pub within: Within,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /api/v1/rollouts/{id}/stop`
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StopRolloutCall {
    /// What becomes of those who were given the image.
    pub keep: Keep,
    /// Only tell how far it is.
    pub dry_run: bool,
}

/// `POST /api/v1/clients/{mac}/wake`
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WakeCall {
    /// Only tell where they would be called.
    pub dry_run: bool,
}

impl RolloutCall {
    /// Asks for a rollout.
    pub fn of(new: &NewRollout, dry_run: bool) -> Self {
        let NewRollout {
            clients,
            image,
            canary,
            within,
        } = new.clone();
        RolloutCall {
            clients,
            image,
            canary,
            within,
            dry_run,
        }
    }

    /// The rollout that is asked for.
    pub fn rollout(self) -> NewRollout {
        NewRollout {
            clients: self.clients,
            image: self.image,
            canary: self.canary,
            within: self.within,
        }
    }
}
