//! What each order makes of persistent reservations (SPC-4 §5.13.7 to §5.13.11). An order makes a new
//! state of an old one, or is refused and makes nothing.

use super::state::{Kind, Registrant, Reservation, State};
use crate::scsi::port::TransportId;
use crate::scsi::sense::Sense;

/// Most registrations of one unit.
const MAX_REGISTRATIONS: usize = 1024;

/// What a PERSISTENT RESERVE OUT asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// REGISTER, and REGISTER AND IGNORE EXISTING KEY, which names no `key`.
    Register {
        key: Option<u64>,
        new: u64,
        /// Initiator ports that SPEC_I_PT names.
        also: Vec<TransportId>,
        kept: bool,
    },
    Reserve {
        key: u64,
        kind: Kind,
    },
    Release {
        key: u64,
        /// Nothing for a scope or a type that there is not.
        kind: Option<Kind>,
    },
    Clear {
        key: u64,
    },
    Preempt {
        key: u64,
        victim: u64,
        /// Nothing for a scope or a type that there is not; it counts for reservations only.
        kind: Option<Kind>,
        abort: bool,
    },
    Move {
        key: u64,
        new: u64,
        to: Registrant,
        unregister: bool,
        kept: bool,
    },
}

/// What comes of an order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) state: State,
    /// Unit attentions, and who gets them.
    pub(super) told: Vec<(Registrant, Sense)>,
    /// Whose commands are to be aborted.
    pub(super) aborted: Vec<Registrant>,
}

/// Why an order is not followed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// RESERVATION CONFLICT status.
    Conflict,
    Sense(Sense),
}

impl From<Sense> for Refused {
    fn from(sense: Sense) -> Self {
        Refused::Sense(sense)
    }
}

impl State {
    /// What an order of `who` makes of this.
    pub(super) fn apply(&self, who: &Registrant, order: Order) -> Result<Outcome, Refused> {
        let mut change = Change {
            who,
            state: self.clone(),
            told: Vec::new(),
            aborted: Vec::new(),
        };
        change.follow(order)?;
        Ok(Outcome {
            state: change.state,
            told: change.told,
            aborted: change.aborted,
        })
    }
}

/// A change in the making: dropped whole when it is refused.
struct Change<'a> {
    who: &'a Registrant,
    state: State,
    told: Vec<(Registrant, Sense)>,
    aborted: Vec<Registrant>,
}

impl Change<'_> {
    fn follow(&mut self, order: Order) -> Result<(), Refused> {
        match order {
            Order::Register {
                key,
                new,
                also,
                kept,
            } => self.register(key, new, also, kept),
            Order::Reserve { key, kind } => self.reserve(key, kind),
            Order::Release { key, kind } => self.release(key, kind),
            Order::Clear { key } => self.clear(key),
            Order::Preempt {
                key,
                victim,
                kind,
                abort,
            } => self.preempt(key, victim, kind, abort),
            Order::Move {
                key,
                new,
                to,
                unregister,
                kept,
            } => self.relocate(key, new, to, unregister, kept),
        }
    }

    /// §5.13.7.
    fn register(
        &mut self,
        key: Option<u64>,
        new: u64,
        also: Vec<TransportId>,
        kept: bool,
    ) -> Result<(), Refused> {
        let known = self.state.registrations.get(self.who).copied();
        if key.is_some_and(|key| key != known.unwrap_or(0)) {
            return Err(Refused::Conflict);
        }
        // §5.13.7: SPEC_I_PT is for nexuses that are not registered yet.
        if known.is_some() && !also.is_empty() {
            return Err(Sense::INVALID_PARAMETER.in_parameter(20).bit(3).into());
        }
        if new == 0 {
            // Who is not registered and wants not to be changes nothing: not even whether the others'
            // registrations are kept.
            if known.is_none() {
                return Ok(());
            }
            self.unregister(&self.who.clone());
        } else {
            self.enter(self.who.clone(), new)?;
            for initiator in also {
                let port = self.who.port;
                self.enter(Registrant { initiator, port }, new)?;
            }
        }
        self.state.kept = kept;
        self.count();
        Ok(())
    }

    /// §5.13.9.
    fn reserve(&mut self, key: u64, kind: Kind) -> Result<(), Refused> {
        self.authorize(key)?;
        match &self.state.reservation {
            None => {
                self.state.reservation = Some(Reservation {
                    kind,
                    holder: self.who.clone(),
                });
                Ok(())
            }
            Some(old) if old.kind == kind && self.state.is_holder(self.who) => Ok(()),
            Some(_) => Err(Refused::Conflict),
        }
    }

    /// §5.13.11.2.
    fn release(&mut self, key: u64, kind: Option<Kind>) -> Result<(), Refused> {
        self.authorize(key)?;
        if !self.state.is_holder(self.who) {
            return Ok(());
        }
        if self.state.reservation.as_ref().map(|r| r.kind) != kind {
            return Err(Sense::INVALID_RELEASE.into());
        }
        self.drop_reservation();
        Ok(())
    }

    /// §5.13.11.6: everything goes.
    fn clear(&mut self, key: u64) -> Result<(), Refused> {
        self.authorize(key)?;
        self.state.reservation = None;
        let gone = std::mem::take(&mut self.state.registrations);
        for registrant in gone.into_keys() {
            self.tell(registrant, Sense::RESERVATIONS_PREEMPTED);
        }
        self.count();
        Ok(())
    }

    /// §5.13.11.4, §5.13.11.5.
    fn preempt(
        &mut self,
        key: u64,
        victim: u64,
        kind: Option<Kind>,
        abort: bool,
    ) -> Result<(), Refused> {
        self.authorize(key)?;
        let held_by_all = self.reserved().is_some_and(Kind::is_held_by_all);
        let takes_over = match &self.state.reservation {
            None => false,
            Some(_) if held_by_all => victim == 0,
            Some(held) => self.state.registrations.get(&held.holder) == Some(&victim),
        };
        if victim == 0 && !takes_over {
            return Err(Sense::INVALID_PARAMETER.in_parameter(8).into());
        }
        let everybody = held_by_all && takes_over;
        let meant = self.state.registrations.iter();
        let victims: Vec<Registrant> = meant
            .filter(|(_, key)| everybody || **key == victim)
            .map(|(registrant, _)| registrant.clone())
            .collect();
        if victims.is_empty() {
            return Err(Refused::Conflict);
        }
        // Who takes the reservation over stays registered; who only removes registrations may name
        // its own key.
        for registrant in &victims {
            if takes_over && registrant == self.who {
                continue;
            }
            self.state.registrations.remove(registrant);
            self.tell(registrant.clone(), Sense::REGISTRATIONS_PREEMPTED);
            if abort && registrant != self.who {
                self.aborted.push(registrant.clone());
            }
        }
        if takes_over {
            self.take_over(kind.ok_or(Sense::INVALID_FIELD.at(2))?);
        } else if self.state.registrations.is_empty() {
            self.state.reservation = None;
        }
        self.count();
        Ok(())
    }

    /// The reservation is another's from now on.
    fn take_over(&mut self, kind: Kind) {
        if self.reserved() != Some(kind) {
            self.tell_registered(Sense::RESERVATIONS_RELEASED);
        }
        self.state.reservation = Some(Reservation {
            kind,
            holder: self.who.clone(),
        });
    }

    /// §5.13.8.
    fn relocate(
        &mut self,
        key: u64,
        new: u64,
        to: Registrant,
        unregister: bool,
        kept: bool,
    ) -> Result<(), Refused> {
        self.authorize(key)?;
        if !self.state.is_holder(self.who) || self.reserved().is_some_and(Kind::is_held_by_all) {
            return Err(Refused::Conflict);
        }
        if new == 0 {
            return Err(Sense::INVALID_PARAMETER.in_parameter(8).into());
        }
        if to == *self.who {
            return Err(Sense::INVALID_PARAMETER.in_parameter(24).into());
        }
        self.enter(to.clone(), new)?;
        if let Some(reservation) = &mut self.state.reservation {
            reservation.holder = to;
        }
        if unregister {
            self.state.registrations.remove(self.who);
        }
        self.state.kept = kept;
        self.count();
        Ok(())
    }

    fn reserved(&self) -> Option<Kind> {
        self.state.reservation.as_ref().map(|r| r.kind)
    }

    /// Only a registered nexus that knows its key goes on.
    fn authorize(&self, key: u64) -> Result<(), Refused> {
        match self.state.registrations.get(self.who) {
            Some(known) if *known == key => Ok(()),
            _ => Err(Refused::Conflict),
        }
    }

    fn enter(&mut self, registrant: Registrant, key: u64) -> Result<(), Refused> {
        self.state.registrations.insert(registrant, key);
        if self.state.registrations.len() > MAX_REGISTRATIONS {
            return Err(Sense::TOO_MANY_REGISTRATIONS.into());
        }
        Ok(())
    }

    /// §5.13.11.1: with its registration, a holder gives its reservation up.
    fn unregister(&mut self, registrant: &Registrant) {
        let alone = self.state.registrations.len() == 1;
        let released = match &self.state.reservation {
            Some(reservation) if reservation.kind.is_held_by_all() => alone,
            Some(reservation) => reservation.holder == *registrant,
            None => false,
        };
        self.state.registrations.remove(registrant);
        if released {
            self.drop_reservation();
        }
    }

    /// The reservation is released, and those are told that it has let in.
    fn drop_reservation(&mut self) {
        if let Some(reservation) = self.state.reservation.take()
            && reservation.kind.is_for_registrants()
        {
            self.tell_registered(Sense::RESERVATIONS_RELEASED);
        }
    }

    fn tell_registered(&mut self, sense: Sense) {
        let all: Vec<Registrant> = self.state.registrations.keys().cloned().collect();
        for registrant in all {
            self.tell(registrant, sense);
        }
    }

    /// Tells somebody else.
    fn tell(&mut self, whom: Registrant, sense: Sense) {
        if whom != *self.who {
            self.told.push((whom, sense));
        }
    }

    fn count(&mut self) {
        self.state.generation = self.state.generation.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::kept;
    use super::*;
    use proptest::prelude::*;

    fn registrant(n: u8) -> Registrant {
        Registrant {
            initiator: TransportId::iscsi("iqn.a:i", [0, 0, 0, 0, 0, n]),
            port: 1,
        }
    }

    /// Orders that often fit together: few keys, few initiators.
    fn order() -> impl Strategy<Value = Order> {
        let key = 0..4u64;
        let kind = (0..Kind::ALL.len()).prop_map(|i| Kind::ALL[i]);
        let also = proptest::collection::vec(0..4u8, 0..3);
        prop_oneof![
            (
                proptest::option::of(key.clone()),
                key.clone(),
                also,
                any::<bool>()
            )
                .prop_map(|(key, new, also, kept)| Order::Register {
                    key,
                    new,
                    also: also.into_iter().map(|n| registrant(n).initiator).collect(),
                    kept,
                }),
            (key.clone(), kind.clone()).prop_map(|(key, kind)| Order::Reserve { key, kind }),
            (key.clone(), proptest::option::of(kind.clone()))
                .prop_map(|(key, kind)| Order::Release { key, kind }),
            key.clone().prop_map(|key| Order::Clear { key }),
            (
                key.clone(),
                key.clone(),
                proptest::option::of(kind),
                any::<bool>()
            )
                .prop_map(|(key, victim, kind, abort)| Order::Preempt {
                    key,
                    victim,
                    kind,
                    abort,
                }),
            (key.clone(), key, 0..4u8, any::<bool>(), any::<bool>()).prop_map(
                |(key, new, to, unregister, kept)| Order::Move {
                    key,
                    new,
                    to: registrant(to),
                    unregister,
                    kept,
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_ordered_a_reservation_is_held_by_somebody_registered(
            orders in proptest::collection::vec((0..4u8, order()), 1..60)
        ) {
            let mut state = State::default();
            for (who, order) in orders {
                let who = registrant(who);
                let Ok(outcome) = state.apply(&who, order) else {
                    continue;
                };
                let Outcome { state: new, told, aborted } = outcome;
                prop_assert!(new.registrations.values().all(|key| *key != 0));
                if let Some(reservation) = &new.reservation {
                    prop_assert!(new.registrations.keys().any(|who| new.is_holder(who)));
                    let by_all = reservation.kind.is_held_by_all();
                    prop_assert!(by_all || new.is_registered(&reservation.holder));
                }
                // Only others are told and aborted, and those that had a part in it.
                prop_assert!(told.iter().all(|(whom, _)| *whom != who && state.is_registered(whom)));
                for victim in &aborted {
                    prop_assert!(*victim != who);
                    prop_assert!(state.is_registered(victim) && !new.is_registered(victim));
                }
                // A restart brings back what was kept, and nothing that was not.
                let back = kept::parse(&kept::emit(&new).unwrap()).unwrap();
                let same = |a: &Option<Reservation>, b: &Option<Reservation>| match (a, b) {
                    (Some(a), Some(b)) => {
                        a.kind == b.kind && (a.kind.is_held_by_all() || a.holder == b.holder)
                    }
                    (a, b) => a == b,
                };
                if new.kept {
                    prop_assert_eq!(&back.registrations, &new.registrations);
                    prop_assert!(same(&back.reservation, &new.reservation));
                } else {
                    prop_assert_eq!(back, State::default());
                }
                state = new;
            }
        }
    }
}
