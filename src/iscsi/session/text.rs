//! Text in the full feature phase: SendTargets above all (RFC 7143 §11.10, §11.11, Appendix C).

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;

use super::{Action, Session, Violation};
use crate::iscsi::keys::{self, Place};
use crate::iscsi::names::IscsiName;
use crate::iscsi::pdu::{Incoming, Outgoing};
use crate::iscsi::wire::{Pairs, Reject, Tag, TextRequest, TextResponse};

/// Most text of one request, with all its parts.
const MAX_TEXT: usize = 8192;
/// Most parts of one request: continuations of nothing would never end.
const MAX_PARTS: u32 = 64;
/// The tag of a text exchange: there is one at a time.
const EXCHANGE: Tag = Tag(1);

/// A text exchange that is under way.
pub(super) struct Exchange {
    request: TextRequest,
    state: State,
}

enum State {
    /// The initiator has more to say: what it has said, in how many parts.
    Hearing(Vec<u8>, u32),
    /// The directory is being asked. The answers so far, and which targets are wanted.
    Asking(Pairs, Wanted),
    /// This is still to be sent.
    Telling(Bytes),
}

/// Which targets SendTargets is about.
enum Wanted {
    All,
    One(String),
}

impl Session {
    /// Takes a part of a text exchange.
    pub(super) fn text(&mut self, request: TextRequest, pdu: &Incoming) -> Result<(), Violation> {
        if request.last && request.more {
            return Err(Violation("text that is complete and goes on"));
        }
        let state = match self.text.take() {
            // §11.10.3: one exchange has one initiator task tag.
            Some(exchange) if request.ttt == EXCHANGE && request.itt == exchange.request.itt => {
                exchange.state
            }
            // §11.10.4: a new exchange, in the place of what there was.
            _ if request.ttt == Tag::NONE => State::Hearing(Vec::new(), 0),
            _ => {
                self.reject(&pdu.bhs, Reject::PROTOCOL_ERROR);
                return Ok(());
            }
        };
        match state {
            State::Hearing(text, parts) => self.hear(request, text, parts, &pdu.data),
            // §6.2: the answer to a part is empty.
            State::Telling(_) if request.more || !pdu.data.is_empty() => {
                Err(Violation("text while an answer is being told"))
            }
            State::Telling(rest) => {
                self.tell(request, rest);
                Ok(())
            }
            State::Asking(..) => Err(Violation("text while an answer is being made")),
        }
    }

    /// What the initiator may see, in answer to [`Action::List`].
    pub(in crate::iscsi) fn listed(&mut self, targets: &[IscsiName]) {
        // Another exchange may have begun meanwhile, and has not asked yet.
        let asking = |exchange: &mut Exchange| matches!(exchange.state, State::Asking(..));
        let Some(Exchange {
            request,
            state: State::Asking(mut pairs, wanted),
        }) = self.text.take_if(asking)
        else {
            return;
        };
        for target in targets {
            let named = match &wanted {
                Wanted::All => true,
                Wanted::One(name) => target.as_str().eq_ignore_ascii_case(name),
            };
            if named {
                pairs.add("TargetName", target);
                for portal in &self.portals {
                    pairs.add("TargetAddress", Portal(*portal));
                }
            }
        }
        self.tell(request, pairs.into_bytes().into());
    }

    fn hear(
        &mut self,
        request: TextRequest,
        mut text: Vec<u8>,
        parts: u32,
        data: &[u8],
    ) -> Result<(), Violation> {
        if text.len() + data.len() > MAX_TEXT || parts >= MAX_PARTS {
            return Err(Violation("text without end"));
        }
        text.extend_from_slice(data);
        if request.more {
            self.respond(request, false, Outcome::Open, Bytes::new());
            self.text = Some(Exchange {
                request,
                state: State::Hearing(text, parts + 1),
            });
            return Ok(());
        }
        let mut answers = Pairs::default();
        match self.answer_keys(&text, &mut answers)? {
            Some(wanted) => {
                self.text = Some(Exchange {
                    request,
                    state: State::Asking(answers, wanted),
                });
                self.actions.push(Action::List);
            }
            None => self.tell(request, answers.into_bytes().into()),
        }
        Ok(())
    }

    /// Answers each key, but for the list of targets, which has to be asked for.
    fn answer_keys(
        &mut self,
        text: &[u8],
        answers: &mut Pairs,
    ) -> Result<Option<Wanted>, Violation> {
        let pairs = keys::offers(text).map_err(|_| Violation("text that is no pairs"))?;
        let mut wanted = None;
        for (at, (key, value)) in pairs.iter().copied().enumerate() {
            if pairs.iter().take(at).any(|(earlier, _)| *earlier == key) {
                return Err(Violation("a key that is offered again"));
            }
            match (key, keys::place(key)) {
                ("SendTargets", _) => match self.wanted(value) {
                    Some(which) => wanted = Some(which),
                    None => answers.add(key, "Reject"),
                },
                // The one length that may be declared anew at any time (§13.12).
                (_, Some(Place::Later)) => match keys::max_recv(value) {
                    Some(most) => self.parameters.initiator_max_recv = most,
                    None => answers.add(key, "Reject"),
                },
                (_, Some(Place::Any)) => {}
                // Known, but not for the full feature phase, or not for an initiator.
                (_, Some(_)) => answers.add(key, "Reject"),
                (_, None) => answers.add(key, "NotUnderstood"),
            }
        }
        Ok(wanted)
    }

    /// Which targets a SendTargets is about (Appendix C).
    fn wanted(&self, value: &str) -> Option<Wanted> {
        match (&self.target, value) {
            (None, "All") => Some(Wanted::All),
            (None, "") => None,
            (None, name) => Some(Wanted::One(name.into())),
            // A normal session sees its own target and no other. The standard leaves "All" to
            // discovery sessions; libiscsi asks so in normal ones all the same, and is told no more
            // than the empty value tells.
            (Some(own), "" | "All") => Some(Wanted::One(own.to_string())),
            (Some(own), name) => own
                .as_str()
                .eq_ignore_ascii_case(name)
                .then(|| Wanted::One(name.into())),
        }
    }

    /// Tells as much as the initiator takes at once; it asks for the rest.
    fn tell(&mut self, request: TextRequest, mut text: Bytes) {
        let most = self.parameters.initiator_max_recv as usize;
        if text.len() > most {
            let part = text.split_to(most);
            self.respond(request, true, Outcome::Open, part);
            self.text = Some(Exchange {
                request,
                state: State::Telling(text),
            });
        } else if request.last {
            self.respond(request, false, Outcome::Over, text);
        } else {
            self.respond(request, false, Outcome::Open, text);
            self.text = Some(Exchange {
                request,
                state: State::Hearing(Vec::new(), 0),
            });
        }
    }

    fn respond(&mut self, request: TextRequest, more: bool, outcome: Outcome, text: Bytes) {
        let over = outcome == Outcome::Over;
        let response = TextResponse {
            last: over,
            more,
            itt: request.itt,
            ttt: if over { Tag::NONE } else { EXCHANGE },
            numbers: self.status_numbers(),
        };
        self.send(Outgoing::with(response.emit(), text));
    }
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Open,
    Over,
}

/// A TargetAddress: IPv6 in brackets, and the portal group, which is always 1.
struct Portal(SocketAddr);

impl fmt::Display for Portal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            // Without a scope, which means nothing to the peer.
            SocketAddr::V6(v6) => write!(f, "[{}]:{},1", v6.ip(), v6.port()),
            SocketAddr::V4(v4) => write!(f, "{v4},1"),
        }
    }
}
