//! CHAP as initiators do it, and as attackers would.

use super::*;

const SECRET: &str = "secret of anna";
const TARGET_SECRET: &str = "secret of the target";

fn credential(name: &str, secret: &str) -> Credential {
    Credential::new(name, secret).unwrap()
}

/// Anna or Otto may come in, and the target can prove itself.
pub(super) fn demand() -> Authentication {
    Authentication::Chap {
        initiator: vec![
            credential("otto", "secret of otto"),
            credential("anna", SECRET),
        ],
        target: Some(credential("target", TARGET_SECRET)),
    }
}

/// An initiator that follows the rules up to where a test wants it otherwise.
struct Initiator {
    login: Login,
    demand: Authentication,
    /// The target's challenge.
    algorithm: Algorithm,
    id: u8,
    challenge: Vec<u8>,
}

impl Initiator {
    /// One that has got its challenge.
    fn challenged(demand: Authentication, challenges: &Challenges, algorithms: &str) -> Self {
        let mut initiator = Initiator {
            login: Login::new(32, challenges.clone()),
            demand,
            algorithm: Algorithm::Md5,
            id: 0,
            challenge: Vec::new(),
        };
        // The T bit is asked for and not granted.
        let methods = initiator.say(Some(Operational), &format!("{NAMES} AuthMethod=CHAP,None"));
        assert_eq!(methods, "0000 stay: AuthMethod=CHAP TargetPortalGroupTag=1");
        let told = initiator.say(Some(Operational), &format!("CHAP_A={algorithms}"));
        let mut values = told
            .strip_prefix("0000 stay: ")
            .unwrap()
            .split(' ')
            .map(|pair| pair.split_once('=').unwrap());
        let (_, algorithm) = values.next().unwrap();
        initiator.algorithm = Algorithm::choose(algorithm).unwrap();
        initiator.id = values.next().unwrap().1.parse().unwrap();
        let (key, challenge) = values.next().unwrap();
        assert_eq!(key, "CHAP_C");
        initiator.challenge = chap::parse(challenge).unwrap();
        assert_eq!(initiator.challenge.len(), initiator.algorithm.len());
        initiator
    }

    fn new() -> Self {
        Self::challenged(demand(), &Challenges::default(), "5")
    }

    fn say(&mut self, next: Option<Stage>, text: &str) -> String {
        let request = request(Security, next, text);
        heard(&step(&mut self.login, &self.demand, &request))
    }

    /// CHAP_N and CHAP_R by this credential.
    fn response(&self, by: &Credential) -> String {
        let response = by.respond(self.algorithm, self.id, &self.challenge);
        format!("CHAP_N={} CHAP_R={}", by.name(), chap::emit(&response))
    }
}

const TO: Option<Stage> = Some(Operational);
const FAILED: &str = "refused 0201 stay: ";
const DISORDER: &str = "refused 0200 stay: ";

#[test]
fn a_secret_opens_the_way_with_each_algorithm() {
    for (algorithms, chosen) in [
        ("5", Algorithm::Md5),
        ("6,5", Algorithm::Sha1),
        ("7,5", Algorithm::Sha256),
        ("99,8,7,5", Algorithm::Sha3_256),
    ] {
        let mut anna = Initiator::challenged(demand(), &Challenges::default(), algorithms);
        assert_eq!(anna.algorithm, chosen);
        let response = anna.response(&credential("anna", SECRET));
        assert_eq!(anna.say(TO, &response), "0000 Operational: ");
        let open = request(Operational, to_full(), "InitialR2T=No");
        let step = anna.login.receive(&pdu(&open));
        assert_eq!(heard(&step), "open iqn.a:t for iqn.a:i as anna");
    }
}

#[test]
fn responses_come_in_any_notation() {
    let upper = |text: String| text.replace("abcdef", "ABCDEF");
    let mut anna = Initiator::new();
    let response = upper(anna.response(&credential("anna", SECRET)));
    let (name, hex) = response.split_once("0x").unwrap();
    let response = format!("{name}0X{}", hex.to_uppercase());
    assert_eq!(anna.say(TO, &response), "0000 Operational: ");

    use base64::Engine;
    let mut anna = Initiator::new();
    let by = credential("anna", SECRET);
    let bytes = by.respond(anna.algorithm, anna.id, &anna.challenge);
    let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
    let response = format!("CHAP_N=anna CHAP_R=0b{base64}");
    assert_eq!(
        anna.say(Some(FullFeature), &response),
        "open iqn.a:t for iqn.a:i as anna"
    );
}

#[test]
fn the_target_proves_itself_when_asked() {
    for algorithms in ["5", "6", "7", "8"] {
        let mut anna = Initiator::challenged(demand(), &Challenges::default(), algorithms);
        let response = anna.response(&credential("anna", SECRET));
        let theirs = [0x5a; 16];
        let said = anna.say(
            TO,
            &format!("{response} CHAP_I=200 CHAP_C={}", chap::emit(&theirs)),
        );
        let own = credential("target", TARGET_SECRET);
        let expected = chap::emit(&own.respond(anna.algorithm, 200, &theirs));
        assert_eq!(
            said,
            format!("0000 Operational: CHAP_N=target CHAP_R={expected}")
        );
    }
}

#[test]
fn the_proof_is_not_skipped() {
    for (stage, next, text, expected) in [
        // At once to the operational stage, as initiators without a secret do.
        (Operational, to_full(), NAMES.to_owned(), FAILED),
        (Operational, None, NAMES.to_owned(), FAILED),
        (Security, TO, NAMES.to_owned(), FAILED),
        (Security, to_full(), NAMES.to_owned(), FAILED),
        (Security, TO, format!("{NAMES} AuthMethod=None"), FAILED),
        (Security, None, format!("{NAMES} AuthMethod=None"), FAILED),
        (Security, TO, format!("{NAMES} AuthMethod=KRB5,SRP"), FAILED),
        (Security, TO, format!("{NAMES} AuthMethod="), FAILED),
        (Security, TO, format!("{NAMES} AuthMethod=chap"), FAILED),
        (
            Security,
            TO,
            format!("{NAMES} AuthMethod=CHAP CHAP_A=5"),
            DISORDER,
        ),
        (
            Security,
            TO,
            format!("{NAMES} CHAP_N=anna CHAP_R=0x00"),
            DISORDER,
        ),
    ] {
        let mut login = new();
        let step = step(&mut login, &demand(), &request(stage, next, &text));
        assert_eq!(heard(&step), expected, "{stage:?} {next:?} {text}");
    }
}

#[test]
fn a_weaker_method_before_chap_is_not_taken() {
    for methods in ["None,CHAP", "CHAP,None", "SRP,None,CHAP", "CHAP"] {
        let mut login = new();
        let first = request(Security, TO, &format!("{NAMES} AuthMethod={methods}"));
        let step = step(&mut login, &demand(), &first);
        assert_eq!(
            heard(&step),
            "0000 stay: AuthMethod=CHAP TargetPortalGroupTag=1"
        );
    }
}

#[test]
fn methods_may_come_after_the_names() {
    let mut login = new();
    for (text, expected) in [
        (NAMES, "0000 stay: TargetPortalGroupTag=1"),
        ("AuthMethod=CHAP", "0000 stay: AuthMethod=CHAP"),
    ] {
        let step = step(&mut login, &demand(), &request(Security, None, text));
        assert_eq!(heard(&step), expected);
    }
}

#[test]
fn nothing_else_follows_the_choice_of_the_method() {
    for (text, expected) in [
        ("", FAILED),
        ("CHAP_A=4", FAILED),
        ("CHAP_A=", FAILED),
        ("CHAP_A=?", FAILED),
        ("CHAP_A=5 CHAP_N=anna", DISORDER),
        ("CHAP_N=anna CHAP_R=0x00", DISORDER),
        ("AuthMethod=None", DISORDER),
    ] {
        let mut login = new();
        let first = request(Security, TO, &format!("{NAMES} AuthMethod=CHAP"));
        step(&mut login, &demand(), &first);
        let step = step(&mut login, &demand(), &request(Security, TO, text));
        assert_eq!(heard(&step), expected, "{text}");
    }
    // Nor does the operational stage.
    let mut login = new();
    step(
        &mut login,
        &demand(),
        &request(Security, TO, &format!("{NAMES} AuthMethod=CHAP")),
    );
    let step = step(&mut login, &demand(), &request(Operational, to_full(), ""));
    assert_eq!(heard(&step), DISORDER);
}

#[test]
fn a_wrong_name_and_a_wrong_secret_are_answered_alike() {
    for (name, secret) in [
        ("anna", "secret of otto"),
        ("otto", SECRET),
        ("nobody", SECRET),
        ("Anna", SECRET),
        ("anna", "wrong secret!"),
        ("target", TARGET_SECRET),
    ] {
        let mut guesser = Initiator::new();
        let response = guesser.response(&credential(name, secret));
        assert_eq!(guesser.say(TO, &response), FAILED, "{name} {secret}");
        // And there is no second try on this connection.
        let response = guesser.response(&credential("anna", SECRET));
        assert!(guesser.say(TO, &response).starts_with("refused"));
    }
}

#[test]
fn half_a_response_is_none() {
    let good = Initiator::new().response(&credential("anna", SECRET));
    let name = good.split(' ').next().unwrap().to_owned();
    for text in [
        "",
        &name,
        "CHAP_R=0x00",
        "CHAP_N=anna CHAP_R=",
        "CHAP_N=anna CHAP_R=0x",
        "CHAP_N=anna CHAP_R=0b",
        "CHAP_N=anna CHAP_R=12345",
        "CHAP_N= CHAP_R=0x00112233445566778899aabbccddeeff",
    ] {
        let mut peer = Initiator::new();
        assert_eq!(peer.say(TO, text), FAILED, "{text}");
    }
    let long = format!("CHAP_N=anna CHAP_R=0x{}", "5a".repeat(1025));
    assert_eq!(Initiator::new().say(TO, &long), FAILED);
}

#[test]
fn a_response_is_good_for_one_challenge() {
    let by = credential("anna", SECRET);
    let mut heard = Initiator::new();
    let response = heard.response(&by);
    assert_eq!(heard.say(TO, &response), "0000 Operational: ");
    assert_eq!(Initiator::new().say(TO, &response), FAILED);
}

#[test]
fn our_own_challenge_is_not_answered() {
    let by = credential("anna", SECRET);
    let challenges = Challenges::default();
    let other = Initiator::challenged(demand(), &challenges, "5");
    // On the same connection, and with the challenge of another one.
    for foreign in [false, true] {
        let mut mirror = Initiator::challenged(demand(), &challenges, "5");
        let reflected = if foreign { &other } else { &mirror };
        let (id, challenge) = (reflected.id, chap::emit(&reflected.challenge));
        let text = format!("{} CHAP_I={id} CHAP_C={challenge}", mirror.response(&by));
        assert_eq!(mirror.say(TO, &text), FAILED);
    }
}

#[test]
fn a_target_that_shares_the_secret_proves_nothing_and_takes_no_proof() {
    let demand = Authentication::Chap {
        initiator: vec![credential("anna", SECRET)],
        target: Some(credential("target", SECRET)),
    };
    let mut anna = Initiator::challenged(demand, &Challenges::default(), "5");
    let response = anna.response(&credential("anna", SECRET));
    assert_eq!(anna.say(TO, &response), FAILED);
}

#[test]
fn a_challenge_of_theirs_is_complete_and_long_enough() {
    let by = credential("anna", SECRET);
    let good = chap::emit(&[0x5a; 16]);
    for (more, expected) in [
        (format!("CHAP_C={good}"), DISORDER),
        ("CHAP_I=1".into(), DISORDER),
        (format!("CHAP_I=256 CHAP_C={good}"), FAILED),
        (format!("CHAP_I=-1 CHAP_C={good}"), FAILED),
        (format!("CHAP_I= CHAP_C={good}"), FAILED),
        ("CHAP_I=1 CHAP_C=".into(), FAILED),
        ("CHAP_I=1 CHAP_C=0x00".into(), FAILED),
        (format!("CHAP_I=1 CHAP_C={}", chap::emit(&[1; 15])), FAILED),
        (format!("CHAP_I=1 CHAP_C=0x{}", "5a".repeat(1025)), FAILED),
        (format!("CHAP_I=1 CHAP_C={good} CHAP_A=5"), DISORDER),
    ] {
        let mut anna = Initiator::new();
        let response = anna.response(&by);
        assert_eq!(
            anna.say(TO, &format!("{response} {more}")),
            expected,
            "{more}"
        );
    }
    let mut anna = Initiator::new();
    let response = anna.response(&by);
    let long = format!("{response} CHAP_I=0x10 CHAP_C=0x{}", "5a".repeat(1024));
    assert!(
        anna.say(TO, &long)
            .starts_with("0000 Operational: CHAP_N=target CHAP_R=0x")
    );
}

#[test]
fn a_target_without_a_secret_cannot_prove_itself() {
    let demand = Authentication::Chap {
        initiator: vec![credential("anna", SECRET)],
        target: None,
    };
    let mut anna = Initiator::challenged(demand, &Challenges::default(), "5");
    let response = anna.response(&credential("anna", SECRET));
    let text = format!("{response} CHAP_I=1 CHAP_C={}", chap::emit(&[1; 16]));
    assert_eq!(anna.say(TO, &text), FAILED);
}

#[test]
fn where_nobody_may_come_in_nobody_does() {
    let nobody = Authentication::Chap {
        initiator: Vec::new(),
        target: None,
    };
    let mut anna = Initiator::challenged(nobody, &Challenges::default(), "5");
    let response = anna.response(&credential("anna", SECRET));
    assert_eq!(anna.say(TO, &response), FAILED);
}

#[test]
fn what_is_proved_is_not_proved_again() {
    let mut anna = Initiator::new();
    let response = anna.response(&credential("anna", SECRET));
    assert_eq!(anna.say(None, &response), "0000 stay: ");
    assert_eq!(anna.say(None, ""), "0000 stay: ");
    assert_eq!(anna.say(None, &response), DISORDER);
}

#[test]
fn a_discovery_session_proves_itself_too() {
    let mut login = new();
    let names = "InitiatorName=iqn.a:i SessionType=Discovery";
    let skip = step(
        &mut login,
        &demand(),
        &request(Operational, to_full(), names),
    );
    assert_eq!(heard(&skip), FAILED);
    let mut login = new();
    let text = format!("{names} AuthMethod=CHAP");
    let asked = step(&mut login, &demand(), &request(Security, TO, &text));
    assert_eq!(heard(&asked), "0000 stay: AuthMethod=CHAP");
}

#[test]
fn proofs_that_nobody_demands_are_not_taken() {
    let answer = |methods: &str| {
        let first = request(Security, TO, &format!("{NAMES} AuthMethod={methods}"));
        heard(&step(&mut new(), &Authentication::None, &first))
    };
    let none = "0000 Operational: AuthMethod=None TargetPortalGroupTag=1";
    assert_eq!(answer("None"), none);
    assert_eq!(answer("CHAP,None"), none);
    assert_eq!(answer("CHAP"), FAILED);
}

#[test]
fn a_proof_that_is_welcome_is_taken_by_the_initiators_preference() {
    let offered = || {
        Authentication::Offered(vec![
            (credential("otto", SECRET), None),
            (
                credential("anna", SECRET),
                Some(credential("target", TARGET_SECRET)),
            ),
        ])
    };
    let names = "InitiatorName=iqn.a:i SessionType=Discovery";
    let answer = |stage, to, methods: &str| {
        let text = format!("{names} {methods}");
        heard(&step(&mut new(), &offered(), &request(stage, to, &text)))
    };
    let free = "open discovery for iqn.a:i";
    assert_eq!(answer(Operational, to_full(), ""), free);
    let none = "0000 Operational: AuthMethod=None";
    assert_eq!(answer(Security, TO, "AuthMethod=None"), none);
    assert_eq!(answer(Security, TO, "AuthMethod=None,CHAP"), none);
    let chap = "0000 stay: AuthMethod=CHAP";
    assert_eq!(answer(Security, TO, "AuthMethod=CHAP,None"), chap);
    assert_eq!(answer(Security, TO, "AuthMethod=SRP,CHAP"), chap);
    assert_eq!(answer(Security, TO, "AuthMethod=SRP"), FAILED);

    // Whoever has chosen it has to go through with it.
    let challenges = Challenges::default();
    let mut stranger = Initiator::challenged(offered(), &challenges, "5");
    let wrong = stranger.response(&credential("anna", "another secret"));
    assert_eq!(stranger.say(TO, &wrong), FAILED);
    let mut halfway = Initiator::challenged(offered(), &challenges, "5");
    assert_eq!(halfway.say(TO, ""), FAILED);

    // Each with the proof that belongs to it.
    let mut anna = Initiator::challenged(offered(), &challenges, "5");
    let theirs = format!("CHAP_I=1 CHAP_C={}", chap::emit(&[1; 16]));
    let text = format!("{} {theirs}", anna.response(&credential("anna", SECRET)));
    let proved = anna.say(TO, &text);
    assert!(proved.contains("CHAP_N=target"), "{proved}");
    let mut otto = Initiator::challenged(offered(), &challenges, "5");
    let text = format!("{} {theirs}", otto.response(&credential("otto", SECRET)));
    assert_eq!(otto.say(TO, &text), FAILED);
}
