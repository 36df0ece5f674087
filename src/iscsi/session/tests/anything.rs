//! Any sequence of PDUs, of data and of the ends of commands: each command is answered once, or its session
//! is over, and nothing that was set aside for it is forgotten.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    Command {
        immediate: bool,
        attribute: u8,
        direction: u8,
        last: bool,
        itt: u32,
        /// How far the number is from the one that is expected.
        ahead: i8,
        expected: u16,
        data: u16,
    },
    /// Data as the oldest R2T asks for them, or all but.
    Answer {
        wrong: u8,
    },
    /// The end of announced data.
    Announced(u32),
    Data {
        itt: u32,
        ttt: u32,
        sn: u8,
        offset: u16,
        len: u16,
        last: bool,
    },
    Manage {
        function: u8,
        itt: u32,
        referenced: u32,
    },
    Ping,
    Ask(Vec<u8>),
    Logout(u8),
    Raw(Vec<u8>, Vec<u8>),
    /// The device wants data for one of its commands.
    Wants(u8, u16),
    /// It has ended one.
    Finish(u8, u16),
    ResetDone,
    Listed,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let itt = 0u32..8;
    let tag = prop_oneof![0u32..4, Just(UNASKED)];
    let ahead = prop_oneof![6 => Just(0i8), 1 => -2i8..6];
    let command = (
        any::<bool>(),
        0u8..6,
        0u8..4,
        any::<bool>(),
        itt.clone(),
        ahead,
        0u16..5000,
        0u16..1500,
    )
        .prop_map(
            |(i, attribute, direction, last, itt, ahead, expected, data)| Step::Command {
                immediate: i,
                attribute,
                direction,
                last,
                itt,
                ahead,
                expected,
                // Most have the data that they may have.
                data: if direction == 1 {
                    data.min(expected)
                } else {
                    data / 1400
                },
            },
        );
    let data = (
        itt.clone(),
        tag,
        0u8..3,
        0u16..3000,
        0u16..2000,
        any::<bool>(),
    )
        .prop_map(|(itt, ttt, sn, offset, len, last)| Step::Data {
            itt,
            ttt,
            sn,
            offset,
            len,
            last,
        });
    let manage =
        (0u8..10, 20u32..24, itt.clone()).prop_map(|(function, itt, referenced)| Step::Manage {
            function,
            itt,
            referenced,
        });
    let bytes = |n| proptest::collection::vec(any::<u8>(), n);
    let step = prop_oneof![
        20 => command,
        10 => prop_oneof![9 => Just(0u8), 1 => 1u8..4].prop_map(|wrong| Step::Answer { wrong }),
        4 => itt.prop_map(Step::Announced),
        1 => data,
        4 => manage,
        1 => Just(Step::Ping),
        1 => bytes(0..20usize).prop_map(Step::Ask),
        1 => (0u8..4).prop_map(Step::Logout),
        1 => (bytes(48..49usize), bytes(0..40usize)).prop_map(|(bhs, data)| Step::Raw(bhs, data)),
        12 => (any::<u8>(), 0u16..5000).prop_map(|(which, n)| Step::Wants(which, n)),
        16 => (any::<u8>(), 0u16..3000).prop_map(|(which, n)| Step::Finish(which, n)),
        3 => Just(Step::ResetDone),
        1 => Just(Step::Listed),
    ];
    proptest::collection::vec(step, 1..120)
}

/// What a command does at the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Work,
    /// It waits for its data.
    Data,
}

/// The part of whoever drives a session.
struct Driver {
    session: Session,
    device: Vec<(TaskId, At)>,
    /// Commands that wait to begin.
    enlisted: HashSet<TaskId>,
    /// What became of each command that has begun: answers, and whether it was aborted.
    told: HashMap<TaskId, (u32, bool)>,
    /// The command that has a tag now.
    current: HashMap<Tag, TaskId>,
    asked: VecDeque<R2t>,
    resets: Vec<Tag>,
    last_max: Serial,
    over: bool,
}

impl Driver {
    fn new() -> Self {
        let mut session = session(Parameters {
            max_outstanding_r2t: 2,
            ..parameters()
        });
        session.may_hold(4096);
        Driver {
            last_max: session.max_cmd_sn,
            session,
            device: Vec::new(),
            enlisted: HashSet::new(),
            told: HashMap::new(),
            current: HashMap::new(),
            asked: VecDeque::new(),
            resets: Vec::new(),
            over: false,
        }
    }

    fn perform(&mut self) {
        loop {
            let actions = self.session.actions();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                assert!(!self.over, "{action:?} after the end");
                self.act(action);
            }
        }
        let max = self.session.max_cmd_sn;
        assert!(self.last_max.distance_to(max) >= 0, "the window goes back");
        self.last_max = max;
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send(pdu) => self.sent(&pdu),
            Action::Enlist { id, .. } => {
                assert!(!self.told.contains_key(&id), "it has begun");
                assert!(self.enlisted.insert(id), "enlisted twice");
            }
            Action::Begin { id, .. } => {
                self.enlisted.remove(&id);
                assert!(self.told.insert(id, (0, false)).is_none(), "begun twice");
                self.current.insert(id.itt, id);
                self.device.push((id, At::Work));
            }
            Action::Deliver { id, data, offered } => {
                let len: usize = data.iter().map(Bytes::len).sum();
                assert!(len as u64 <= offered);
                let (_, at) = self.device.iter_mut().find(|(one, _)| *one == id).unwrap();
                assert_eq!(*at, At::Data, "data that were not waited for");
                *at = At::Work;
            }
            // It never begins.
            Action::Forget { id } if self.enlisted.remove(&id) => {}
            Action::Forget { id } => {
                self.told.get_mut(&id).expect("a command that has begun").1 = true;
                // What waits for data has not reached the disk, and ends at once.
                if self.device.contains(&(id, At::Data)) {
                    self.finish(id, Response::good());
                }
            }
            Action::Reset { tmf, .. } => self.resets.push(tmf),
            Action::List | Action::Restart => {}
            Action::End(_) => self.over = true,
        }
    }

    fn sent(&mut self, pdu: &Outgoing) {
        let head = Head::parse(&pdu.bhs);
        let answers = match head.opcode {
            Opcode::ScsiResponse => true,
            Opcode::DataIn => DataIn::parse(&pdu.bhs).unwrap().status.is_some(),
            Opcode::R2t => {
                self.asked.push_back(R2t::parse(&pdu.bhs).unwrap());
                false
            }
            _ => false,
        };
        // One that was refused before it began is not known here.
        if answers && let Some(id) = self.current.remove(&head.itt) {
            self.told.get_mut(&id).unwrap().0 += 1;
        }
    }

    fn finish(&mut self, id: TaskId, response: Response) {
        self.device.retain(|(one, _)| *one != id);
        self.session.finished(id, response);
    }

    fn receive(&mut self, step: In) {
        if let In::Pdu(pdu) = step {
            self.session.receive(pdu);
        }
    }

    fn step(&mut self, step: Step) {
        let expected_sn = self.session.exp_cmd_sn;
        match step {
            Step::Command {
                immediate,
                attribute,
                direction,
                last,
                itt,
                ahead,
                expected,
                data: len,
            } => {
                let mut command = ScsiCommand {
                    immediate,
                    last: last || direction != 1,
                    read: direction & 2 != 0,
                    write: direction & 1 != 0,
                    expected_len: expected.into(),
                    cmd_sn: expected_sn.plus(ahead as u32),
                    ..command(itt, 0)
                };
                command.attribute = match attribute {
                    0..=2 => Attribute::Simple,
                    3 => Attribute::Ordered,
                    4 => Attribute::HeadOfQueue,
                    _ => Attribute::Aca,
                };
                self.receive(pdu(command.emit(), &vec![1; len.min(1024).into()]));
            }
            Step::Answer { wrong } => {
                if let Some(r2t) = self.asked.pop_front() {
                    let sn = u32::from(wrong == 1);
                    let offset = r2t.offset + u32::from(wrong == 2);
                    let len = r2t.len as usize + usize::from(wrong == 3);
                    self.receive(data(r2t.itt.0, r2t.ttt.0, sn, offset, len, true));
                }
            }
            Step::Announced(itt) => {
                let open = self
                    .session
                    .tasks
                    .get(&Tag(itt))
                    .filter(|task| task.unsolicited);
                if let Some((sn, at)) = open.map(|task| (task.next_unsolicited, task.gather.len()))
                {
                    self.receive(data(itt, UNASKED, sn, at as u32, 0, true));
                }
            }
            Step::Data {
                itt,
                ttt,
                sn,
                offset,
                len,
                last,
            } => {
                let len = len.into();
                self.receive(data(itt, ttt, sn.into(), offset.into(), len, last));
            }
            Step::Manage {
                function,
                itt,
                referenced,
            } => {
                let request = TaskRequest {
                    immediate: true,
                    function,
                    lun: LUN,
                    itt: Tag(itt),
                    referenced_itt: Tag(referenced),
                    cmd_sn: expected_sn,
                    exp_stat_sn: Serial(0),
                    ref_cmd_sn: expected_sn.plus(u32::MAX),
                };
                let before: Vec<TaskId> = self.session.tasks.values().map(|task| task.id).collect();
                self.receive(pdu(request.emit(), b""));
                // One that has ended at the device, and only waits for its data, is not forgotten there.
                for id in before {
                    if self.session.task(id).is_none()
                        && let Some(told) = self.told.get_mut(&id)
                    {
                        told.1 = true;
                    }
                }
            }
            Step::Ping => {
                let mut bhs = [0; 48];
                bhs[0] = 0x40;
                self.receive(pdu(bhs, b"ping"));
            }
            Step::Ask(text) => {
                let mut bhs = [0; 48];
                (bhs[0], bhs[1]) = (0x44, 0x80);
                bhs[20..24].fill(0xff);
                self.receive(pdu(bhs, &text));
            }
            Step::Logout(reason) => {
                let logout = LogoutRequest {
                    immediate: true,
                    reason,
                    itt: Tag(90),
                    cid: 7,
                    cmd_sn: expected_sn,
                    exp_stat_sn: Serial(0),
                };
                self.receive(pdu(logout.emit(), b""));
            }
            Step::Raw(bhs, data) => self.receive(pdu(bhs.try_into().unwrap(), &data)),
            Step::Wants(which, n) => {
                let at_work = self.device.iter_mut().filter(|(_, at)| *at == At::Work);
                let writes = |id: &TaskId| {
                    let task = self.session.tasks.get(&id.itt);
                    task.is_some_and(|t| t.id == *id && t.wanted.is_none() && t.command.write)
                };
                let mut waiting: Vec<_> = at_work.filter(|(id, _)| writes(id)).collect();
                let count = waiting.len().max(1);
                if let Some((id, at)) = waiting.get_mut(usize::from(which) % count) {
                    *at = At::Data;
                    let id = *id;
                    self.session.wants(id, n.into());
                }
            }
            Step::Finish(which, n) => {
                let at_work: Vec<TaskId> = self
                    .device
                    .iter()
                    .filter(|(_, at)| *at == At::Work)
                    .map(|(id, _)| *id)
                    .collect();
                let count = at_work.len().max(1);
                if let Some(id) = at_work.get(usize::from(which) % count) {
                    self.finish(*id, bytes(n.into()));
                }
            }
            Step::ResetDone => {
                if let Some(tmf) = self.resets.pop() {
                    self.session.reset_done(tmf, true);
                }
            }
            Step::Listed => self.session.listed(&[]),
        }
        self.perform();
    }

    /// Everything comes to its end: the initiator sends what it has to, the device does what it has to.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let busy = !self.device.is_empty() || !self.session.tasks.is_empty();
            if self.over || !busy {
                break;
            }
            let announced: Vec<u32> = self.session.tasks.keys().map(|itt| itt.0).collect();
            for itt in announced {
                self.step(Step::Announced(itt));
            }
            self.answer_all();
            self.step(Step::Finish(0, 0));
            self.session.may_hold(LARGEST);
            self.perform();
        }
        while !self.over && !self.resets.is_empty() {
            self.step(Step::ResetDone);
        }
    }

    /// The initiator sends what the open R2Ts of its commands ask for.
    fn answer_all(&mut self) {
        self.asked.clear();
        let open: Vec<_> = self
            .session
            .tasks
            .values()
            .filter_map(|task| {
                let r2t = task.open.front()?;
                let at = task.gather.len();
                Some((
                    task.id.itt,
                    r2t.ttt,
                    r2t.next_data_sn,
                    at,
                    r2t.end.saturating_sub(at),
                ))
            })
            .collect();
        for (itt, ttt, sn, at, len) in open {
            self.receive(data(itt.0, ttt.0, sn, at as u32, len as usize, true));
            self.perform();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn each_command_is_answered_once_or_the_session_is_over(steps in steps()) {
        let mut driver = Driver::new();
        for step in steps {
            if driver.over {
                break;
            }
            driver.step(step);
        }
        driver.settle();
        for (id, (answers, aborted)) in &driver.told {
            // What is aborted gets no answer, unless it had been answered before.
            let right = match aborted {
                true => *answers <= 1,
                false => *answers == 1 || driver.over && *answers == 0,
            };
            prop_assert!(right, "{id:?}: {answers} answers, aborted: {aborted}");
        }
        let session = &driver.session;
        if !driver.over {
            prop_assert!(session.tasks.is_empty(), "commands that never end");
            prop_assert!(session.aborts.is_empty(), "functions that are not answered");
            prop_assert!(!session.awaits_data() && !session.has_asked());
            prop_assert_eq!((session.held_unasked, session.starved.len()), (0, 0));
        }
    }
}
