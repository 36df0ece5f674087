//! A changed configuration, taken on by a running server: portals come and go, and sessions stay.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use utoipa::ToSchema;

use super::{Doors, Server, listen};
use crate::iscsi::Portals;
use crate::library::{Actor, Error, Event, Result};

/// What a server has taken on of its configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// Keys that hold from now on.
    pub changed: Vec<String>,
    /// Keys that hold when the server starts anew.
    pub at_restart: Vec<String>,
    /// Where the target listens now, and did not before.
    #[schema(value_type = Vec<String>)]
    pub opened: Vec<SocketAddr>,
    /// Where it does not listen any more. Sessions that came in there go on until they end.
    #[schema(value_type = Vec<String>)]
    pub closed: Vec<SocketAddr>,
    /// What stands in it and nobody goes by, certificates that cannot be used too, and why.
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl Server {
    /// Reads netroot.toml anew, and takes on what a running server can. A file with a mistake, or an
    /// address that cannot be had, changes nothing.
    pub async fn reload(self: &Arc<Self>, actor: &Actor) -> Result<Reloaded> {
        let done = self.try_reload().await;
        let event = Event::new(actor, "config-reload");
        let event = match &done {
            Ok(reloaded) => {
                let Reloaded {
                    changed,
                    at_restart,
                    ..
                } = reloaded;
                tracing::info!(?changed, ?at_restart, opened = ?reloaded.opened, closed = ?reloaded.closed, "netroot.toml was read anew");
                for warning in &reloaded.warnings {
                    tracing::warn!("{warning}");
                }
                let event = event.with("changed", changed.clone());
                event.with("at_restart", at_restart.clone())
            }
            Err(error) => {
                let why = super::targets::told(error);
                tracing::error!(why, "netroot.toml was read anew, and nothing was changed");
                event.with("failed", why)
            }
        };
        // An event that cannot be written takes nothing back.
        let recorded = self.call(move |server| server.library.record(&event)).await;
        if let Some(Err(error)) = recorded {
            tracing::error!(
                error = super::targets::told(&error),
                "cannot record an event"
            );
        }
        done
    }

    async fn try_reload(self: &Arc<Self>) -> Result<Reloaded> {
        // One after the other: the second finds what the first has made.
        let _alone = self.reloading.lock().await;
        let read = self.call(|server| server.library.reread_config()).await;
        let new =
            read.unwrap_or_else(|| Err(Error::Invalid("the server made a mistake".into())))?;
        let (config, changed) = self.library.config().taking_on(&new);
        let (opened, closed) = exchange(&self.portals, &config.iscsi.listen).await?;
        let announced = config.iscsi.announce.iter().map(|one| one.address());
        let announced: Vec<SocketAddr> = announced.collect();
        self.portals.announce(announced.clone());
        let doors = Doors {
            iscsi: self.portals.addresses(),
            announce: announced,
            ..Doors::clone(&self.doors())
        };
        *self.doors.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(doors);
        let mut warnings = config.left_out();
        self.library.adopt_config(config);
        let renewed = self.call(|server| server.renew_certificates()).await;
        warnings.extend(renewed.unwrap_or_default());
        self.nudge();
        let keys = |keys: Vec<&str>| keys.into_iter().map(str::to_owned).collect();
        Ok(Reloaded {
            changed: keys(changed.now),
            at_restart: keys(changed.at_restart),
            opened,
            closed,
            warnings,
        })
    }
}

/// Makes the portals those that are wanted: all of them, or the old ones stay.
async fn exchange(
    portals: &Portals,
    wanted: &[SocketAddr],
) -> Result<(Vec<SocketAddr>, Vec<SocketAddr>)> {
    let open = portals.names();
    let mut added: Vec<SocketAddr> = Vec::new();
    for name in wanted {
        if !open.contains(name) && !added.contains(name) {
            added.push(*name);
        }
    }
    let removed: Vec<SocketAddr> = open
        .iter()
        .filter(|name| !wanted.contains(name))
        .copied()
        .collect();
    let mut bound: Vec<(SocketAddr, TcpListener)> = Vec::new();
    // A portal that goes may stand in the way of one that comes, as [::] does of every other address
    // with its port: those close first.
    let mut closed: Vec<SocketAddr> = Vec::new();
    for name in &added {
        let mut listener = listen::one(*name);
        if is_in_use(&listener) {
            let in_the_way = removed
                .iter()
                .filter(|old| old.port() == name.port() && !closed.contains(old));
            for old in in_the_way.copied().collect::<Vec<_>>() {
                portals.close(old).await;
                closed.push(old);
            }
            listener = listen::one(*name);
        }
        match listener {
            Ok(listener) => bound.push((*name, listener)),
            Err(error) => {
                drop(bound);
                reopen(portals, &closed);
                return Err(Error::Io {
                    doing: format!(
                        "listening on {name} for the iSCSI target; is another server running there? \
                         Nothing was changed"
                    ),
                    source: error,
                });
            }
        }
    }
    for name in removed.iter().filter(|name| !closed.contains(name)) {
        portals.close(*name).await;
    }
    let mut opened = Vec::new();
    for (name, listener) in bound {
        opened.extend(listener.local_addr());
        if let Err(error) = portals.open(name, listener) {
            tracing::error!(%name, %error, "cannot open a portal");
        }
    }
    Ok((opened, removed))
}

/// Listens again where it was given up for nothing.
fn reopen(portals: &Portals, closed: &[SocketAddr]) {
    for name in closed {
        if let Err(error) = listen::one(*name).and_then(|again| portals.open(*name, again)) {
            tracing::error!(%name, %error, "cannot listen any more where the target did; say `netroot config reload` when it is free");
        }
    }
}

fn is_in_use(listener: &io::Result<TcpListener>) -> bool {
    matches!(listener, Err(error) if error.kind() == io::ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iscsi::{
        Authentication, BoxFuture, Directory, Initiator, IscsiName, Opened, Refusal, SessionControl,
    };

    /// A target without disks.
    struct Nowhere;

    impl Directory for Nowhere {
        fn targets<'a>(&'a self, _: &'a Initiator) -> BoxFuture<'a, Vec<IscsiName>> {
            Box::pin(async { Vec::new() })
        }

        fn authentication<'a>(
            &'a self,
            _: &'a Initiator,
            _: Option<&'a IscsiName>,
        ) -> BoxFuture<'a, Authentication> {
            Box::pin(async { Authentication::None })
        }

        fn open<'a>(
            &'a self,
            _: &'a Initiator,
            _: &'a IscsiName,
            _: SessionControl,
        ) -> BoxFuture<'a, std::result::Result<Opened, Refusal>> {
            Box::pin(async { Err(Refusal::NotFound) })
        }
    }

    /// Ports that were free a moment ago.
    async fn listening(names: &[&str]) -> Portals {
        let portals = Portals::default();
        let wanted: Vec<SocketAddr> = names.iter().map(|name| name.parse().unwrap()).collect();
        exchange(&portals, &wanted).await.unwrap();
        accepting(&portals);
        portals
    }

    /// Gives each listener up when it is told to, as the target does.
    fn accepting(portals: &Portals) {
        let portals = portals.clone();
        tokio::spawn(async move {
            let never = std::future::pending::<()>();
            crate::iscsi::serve_at(
                portals,
                Arc::new(Nowhere),
                Default::default(),
                Default::default(),
                never,
            )
            .await;
        });
    }

    fn port(portals: &Portals) -> u16 {
        portals.addresses().first().unwrap().port()
    }

    #[tokio::test]
    async fn an_address_with_the_port_of_one_that_goes_takes_its_place() {
        let any = listening(&["127.0.0.1:0"]).await;
        let port = port(&any);
        let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port);
        let portals = Portals::default();
        accepting(&portals);
        any.close(any.names()[0]).await;
        exchange(&portals, &[at("0.0.0.0")]).await.unwrap();
        let wanted = [at("127.0.0.1"), at("127.0.0.2")];
        let (opened, closed) = exchange(&portals, &wanted).await.unwrap();
        assert_eq!((opened.len(), closed), (2, vec![at("0.0.0.0")]));
        for address in wanted {
            tokio::net::TcpStream::connect(address).await.unwrap();
        }
        assert!(
            tokio::net::TcpStream::connect(at("127.0.0.3"))
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn where_one_address_cannot_be_had_the_old_ones_stay() {
        let portals = listening(&["127.0.0.1:0"]).await;
        let before = portals.addresses();
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wanted = ["127.0.0.2:0".parse().unwrap(), taken.local_addr().unwrap()];
        let error = exchange(&portals, &wanted).await.unwrap_err();
        assert!(error.to_string().contains("Nothing was changed"), "{error}");
        assert_eq!(portals.addresses(), before);
        tokio::net::TcpStream::connect(before[0]).await.unwrap();
    }
}
