//! Text in the full feature phase: SendTargets above all (RFC 7143 §11.10, §11.11, Appendix C).

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;

use super::{Action, Session, Violation};
use crate::iscsi::names::IscsiName;
use crate::iscsi::pdu::{Incoming, Outgoing};
use crate::iscsi::wire::{self, Pairs, Reject, Tag, TextRequest, TextResponse};

/// Most text of one request.
const MAX_TEXT: usize = 8192;
/// The tag of a text exchange: there is one at a time.
const EXCHANGE: Tag = Tag(1);

/// A text exchange that is under way.
pub(super) struct Exchange {
    request: TextRequest,
    state: State,
}

enum State {
    /// The initiator has more to say.
    Hearing(Vec<u8>),
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
            Some(exchange) if request.ttt == EXCHANGE => exchange.state,
            // §11.10.4: a new exchange, in the place of what there was.
            _ if request.ttt == Tag::NONE => State::Hearing(Vec::new()),
            _ => {
                self.reject(&pdu.bhs, Reject::PROTOCOL_ERROR);
                return Ok(());
            }
        };
        match state {
            State::Hearing(text) => self.hear(request, text, &pdu.data),
            State::Telling(rest) => {
                self.tell(request, rest);
                Ok(())
            }
            State::Asking(..) => Err(Violation("text while an answer is being made")),
        }
    }

    /// What the initiator may see, in answer to [`Action::List`].
    pub(in crate::iscsi) fn listed(&mut self, targets: &[IscsiName]) {
        let Some(Exchange {
            request,
            state: State::Asking(mut pairs, wanted),
        }) = self.text.take()
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
        data: &[u8],
    ) -> Result<(), Violation> {
        if text.len() + data.len() > MAX_TEXT {
            return Err(Violation("text without end"));
        }
        text.extend_from_slice(data);
        if request.more {
            self.respond(request, false, Outcome::Open, Bytes::new());
            self.text = Some(Exchange {
                request,
                state: State::Hearing(text),
            });
            return Ok(());
        }
        let mut answers = Pairs::default();
        let mut wanted = None;
        let pairs = wire::pairs(&text).map_err(|_| Violation("text that is no pairs"))?;
        for (key, value) in pairs {
            match (key, value, &self.target) {
                ("SendTargets", "All", None) => wanted = Some(Wanted::All),
                // A normal session sees its own target only (Appendix C).
                ("SendTargets", "", Some(target)) => {
                    wanted = Some(Wanted::One(target.to_string()));
                }
                ("SendTargets", name, None) if !name.is_empty() => {
                    wanted = Some(Wanted::One(name.into()));
                }
                ("SendTargets", name, Some(target)) if target.as_str() == name => {
                    wanted = Some(Wanted::One(name.into()));
                }
                ("SendTargets", ..) => answers.add(key, "Reject"),
                ("MaxRecvDataSegmentLength", ..) => self.redeclare(value, &mut answers),
                // Everything else is for the login.
                _ => answers.add(key, "NotUnderstood"),
            }
        }
        match wanted {
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

    /// The one key that may be declared anew at any time (§13.12).
    fn redeclare(&mut self, value: &str, answers: &mut Pairs) {
        match value.parse() {
            Ok(n @ 512..=0xff_ffff) => self.parameters.initiator_max_recv = n,
            _ => answers.add("MaxRecvDataSegmentLength", "Reject"),
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
                state: State::Hearing(Vec::new()),
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
