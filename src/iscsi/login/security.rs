//! The security stage: who is it, and can it show that (RFC 7143 §12)?

use super::{Refused, status};
use crate::iscsi::chap::{self, Algorithm, Challenge, Challenges, Credential};
use crate::iscsi::directory::Authentication;
use crate::iscsi::keys;
use crate::iscsi::wire::Pairs;

/// What has been proved so far.
#[derive(Debug)]
pub(super) struct Security {
    challenges: Challenges,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nobody has said yet what is to be proved; or it has failed. There is no way on from here.
    Closed,
    /// Nothing is to be proved.
    Free,
    /// Nothing has to be proved, and something may be.
    Offered(Demand),
    /// A proof is demanded, and no method has been chosen.
    Demanded(Demand),
    /// It will be CHAP: the initiator's algorithms come next.
    Chosen(Demand),
    /// The initiator's response comes next.
    Challenged(Demand, Challenge),
    /// This is known to the initiator.
    Proved(Credential),
}

/// What may be proved, each with what this side proves in return.
#[derive(Debug)]
struct Demand(Vec<(Credential, Option<Credential>)>);

/// The keys of a proof in one request.
#[derive(Debug, Default)]
pub(super) struct Proof<'a> {
    methods: Option<&'a str>,
    algorithms: Option<&'a str>,
    name: Option<&'a str>,
    response: Option<&'a str>,
    id: Option<&'a str>,
    challenge: Option<&'a str>,
}

impl<'a> Proof<'a> {
    /// Takes one of the keys.
    pub(super) fn take(&mut self, key: &str, value: &'a str) {
        let field = match key {
            "AuthMethod" => &mut self.methods,
            "CHAP_A" => &mut self.algorithms,
            "CHAP_N" => &mut self.name,
            "CHAP_R" => &mut self.response,
            "CHAP_I" => &mut self.id,
            "CHAP_C" => &mut self.challenge,
            _ => return,
        };
        *field = Some(value);
    }

    /// Whether any key but these is there.
    fn has_more_than(&self, expected: &[Option<&'a str>]) -> bool {
        let all = [
            self.methods,
            self.algorithms,
            self.name,
            self.response,
            self.id,
            self.challenge,
        ];
        all.iter().flatten().count() > expected.iter().flatten().count()
    }
}

const FAILED: Refused = Refused(status::AUTHENTICATION_FAILED);
/// Keys out of their order.
const DISORDER: Refused = Refused(status::INITIATOR_ERROR);

impl Security {
    pub(super) fn new(challenges: Challenges) -> Self {
        Security {
            challenges,
            state: State::Closed,
        }
    }

    /// What the initiator has to prove.
    pub(super) fn demand(&mut self, authentication: Authentication) {
        self.state = match authentication {
            Authentication::None => State::Free,
            Authentication::Chap { initiator, target } => {
                let known = initiator.into_iter();
                State::Demanded(Demand(known.map(|one| (one, target.clone())).collect()))
            }
            Authentication::Offered(known) => State::Offered(Demand(known)),
        };
    }

    /// Whether the login may go on to the next stage.
    pub(super) fn is_done(&self) -> bool {
        matches!(
            self.state,
            State::Free | State::Offered(_) | State::Proved(_)
        )
    }

    /// Whether the next request is to bring the response to a challenge.
    pub(super) fn is_proving(&self) -> bool {
        matches!(self.state, State::Challenged(..))
    }

    /// What the initiator has proved to know.
    pub(super) fn proved(&self) -> Option<Credential> {
        match &self.state {
            State::Proved(known) => Some(known.clone()),
            _ => None,
        }
    }

    /// Takes the keys of one request. `goes_on`: the initiator believes that it has proved enough.
    pub(super) fn turn(
        &mut self,
        proof: &Proof<'_>,
        goes_on: bool,
        answers: &mut Pairs,
    ) -> Result<(), Refused> {
        // Whatever fails leaves the way closed.
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Closed => return Err(FAILED),
            State::Free => free(proof, answers)?,
            State::Offered(demand) => choice(demand, proof, answers)?,
            State::Demanded(demand) => method(demand, proof, goes_on, answers)?,
            State::Chosen(demand) => challenge(demand, proof, &self.challenges, answers)?,
            State::Challenged(demand, challenge) => {
                respond(&demand, &challenge, proof, &self.challenges, answers)?
            }
            State::Proved(_) if proof.has_more_than(&[]) => return Err(DISORDER),
            State::Proved(known) => State::Proved(known),
        };
        Ok(())
    }
}

/// Nothing is demanded. An initiator that insists on a proof all the same gets none taken.
fn free(proof: &Proof<'_>, answers: &mut Pairs) -> Result<State, Refused> {
    if proof.has_more_than(&[proof.methods]) {
        return Err(DISORDER);
    }
    match proof.methods {
        Some(methods) if !offers(methods, "None") => return Err(FAILED),
        Some(_) => answers.add("AuthMethod", "None"),
        None => {}
    }
    Ok(State::Free)
}

/// Nothing is demanded, and a proof is welcome: of the initiator's methods the first that there is
/// (§6.2.1).
fn choice(demand: Demand, proof: &Proof<'_>, answers: &mut Pairs) -> Result<State, Refused> {
    if proof.has_more_than(&[proof.methods]) {
        return Err(DISORDER);
    }
    let Some(methods) = proof.methods else {
        return Ok(State::Offered(demand));
    };
    match methods
        .split(',')
        .find(|one| matches!(*one, "CHAP" | "None"))
    {
        Some("CHAP") => {
            answers.add("AuthMethod", "CHAP");
            Ok(State::Chosen(demand))
        }
        Some(_) => {
            answers.add("AuthMethod", "None");
            Ok(State::Free)
        }
        None => Err(FAILED),
    }
}

/// §12.1: the initiator offers its methods. Ours is CHAP, whatever stands before it in the list:
/// "None" is nothing that this initiator is allowed to use (§6.2.1).
fn method(
    demand: Demand,
    proof: &Proof<'_>,
    goes_on: bool,
    answers: &mut Pairs,
) -> Result<State, Refused> {
    // §12.1.3: the keys of a method follow when it has been selected.
    if proof.has_more_than(&[proof.methods]) {
        return Err(DISORDER);
    }
    match proof.methods {
        Some(methods) if offers(methods, "CHAP") => {
            answers.add("AuthMethod", "CHAP");
            Ok(State::Chosen(demand))
        }
        // Names alone; the methods may come with the next request.
        None if !goes_on => Ok(State::Demanded(demand)),
        _ => Err(FAILED),
    }
}

/// §12.1.3: `CHAP_A=<A1,A2,…>`, answered with the algorithm, an identifier and a challenge.
fn challenge(
    demand: Demand,
    proof: &Proof<'_>,
    challenges: &Challenges,
    answers: &mut Pairs,
) -> Result<State, Refused> {
    if proof.has_more_than(&[proof.algorithms]) {
        return Err(DISORDER);
    }
    let algorithm = proof.algorithms.and_then(Algorithm::choose).ok_or(FAILED)?;
    let challenge = challenges
        .draw(algorithm)
        .ok_or(Refused(status::TARGET_ERROR))?;
    answers.add("CHAP_A", algorithm.number());
    answers.add("CHAP_I", challenge.id);
    answers.add("CHAP_C", challenge.text());
    Ok(State::Challenged(demand, challenge))
}

/// §12.1.3: `CHAP_N` and `CHAP_R`, with `CHAP_I` and `CHAP_C` where this side is to prove itself too.
fn respond(
    demand: &Demand,
    challenge: &Challenge,
    proof: &Proof<'_>,
    challenges: &Challenges,
    answers: &mut Pairs,
) -> Result<State, Refused> {
    if proof.has_more_than(&[proof.name, proof.response, proof.id, proof.challenge]) {
        return Err(DISORDER);
    }
    let (name, response) = proof.name.zip(proof.response).ok_or(FAILED)?;
    let response = chap::parse(response).ok_or(FAILED)?;
    let known = challenge
        .verify(demand.0.iter().map(|(theirs, _)| theirs), name, &response)
        .ok_or(FAILED)?;
    let pair = demand.0.iter().find(|(theirs, _)| theirs == known);
    let own = pair.and_then(|(_, own)| own.as_ref());
    // §9.2.1: an answer that would be our own too proves nothing.
    if own.is_some_and(|own| challenge.is_answered_by(own, &response)) {
        return Err(FAILED);
    }
    let proved = State::Proved(known.clone());
    let (id, theirs) = match (proof.id, proof.challenge) {
        (None, None) => return Ok(proved),
        (Some(id), Some(theirs)) => (id, theirs),
        _ => return Err(DISORDER),
    };
    let id = keys::parse(id)
        .and_then(|id| u8::try_from(id).ok())
        .ok_or(FAILED)?;
    let theirs = chap::parse(theirs)
        .filter(|theirs| challenges.permits(theirs))
        .ok_or(FAILED)?;
    // The initiator wants a proof that this target has not got.
    let own = own.ok_or(FAILED)?;
    answers.add("CHAP_N", own.name());
    let response = own.respond(challenge.algorithm, id, &theirs);
    answers.add("CHAP_R", chap::emit(&response));
    Ok(proved)
}

fn offers(list: &str, one: &str) -> bool {
    list.split(',').any(|offered| offered == one)
}
