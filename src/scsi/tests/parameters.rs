//! Mode parameters, log pages, access states, sense data and identity: what a unit tells of itself, and
//! what may be changed of it.

use super::*;

const TUR: [u8; 6] = [0; 6];
const WRITE: [u8; 10] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// A page by MODE SENSE(6), without a block descriptor; `control` is PC.
fn page(nexus: &Nexus, code: u8, control: u8) -> Vec<u8> {
    let data = good(nexus, &[0x1a, 8, control << 6 | code, 0, 255, 0], b"");
    assert_eq!(usize::from(data[0]), data.len() - 1);
    data[4..].to_vec()
}

/// What MODE SELECT(6) ends with, for a header, a block descriptor and pages.
fn select(nexus: &Nexus, descriptor: &[u8], pages: &[u8]) -> Option<(u8, u16)> {
    let mut list = vec![0, 0, 0, descriptor.len() as u8];
    list.extend(descriptor);
    list.extend(pages);
    run(nexus, DISK, &[0x15, 0x10, 0, 0, list.len() as u8, 0], &list).1
}

fn with(mut page: Vec<u8>, byte: usize, bits: u8) -> Vec<u8> {
    page[byte] |= bits;
    page
}

/// A disk that counts its flushes.
struct Counting(MemoryDisk, std::sync::atomic::AtomicU32);

impl Counting {
    fn flushes(&self) -> u32 {
        self.1.swap(0, std::sync::atomic::Ordering::SeqCst)
    }
}

impl block::Disk for Counting {
    fn geometry(&self) -> block::Geometry {
        self.0.geometry()
    }
    fn read(&self, extent: block::Extent) -> block::Answer<block::Result<Vec<block::Segment>>> {
        self.0.read(extent)
    }
    fn write(&self, extent: block::Extent, data: Vec<Bytes>) -> block::Answer<block::Result<()>> {
        self.0.write(extent, data)
    }
    fn flush(&self) -> block::Answer<block::Result<()>> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.0.flush()
    }
    fn unmap(&self, extent: block::Extent) -> block::Answer<block::Result<()>> {
        self.0.unmap(extent)
    }
}

#[test]
fn each_page_is_what_its_mask_lets_it_be() {
    let nexus = nexus();
    for (code, len) in [(0x01, 12), (0x02, 16), (0x08, 20), (0x0a, 12), (0x1c, 12)] {
        let [current, mask, default] = [0, 1, 2].map(|control| page(&nexus, code, control));
        for bytes in [&current, &mask, &default] {
            assert_eq!((bytes[0], usize::from(bytes[1])), (code, len - 2));
            assert_eq!(bytes.len(), len);
        }
        assert_eq!(current, default);
        // What it says goes in again; each bit outside of the mask is refused, whatever it is.
        assert_eq!(select(&nexus, b"", &current), None);
        for byte in 2..len {
            for bit in 0..8 {
                let mut other = current.clone();
                other[byte] ^= 1 << bit;
                let refused = Some((5, 0x2600));
                let expected = if mask[byte] >> bit & 1 == 1 {
                    None
                } else {
                    refused
                };
                assert_eq!(
                    select(&nexus, b"", &other),
                    expected,
                    "{code:#x} {byte} {bit}"
                );
                assert_eq!(select(&nexus, b"", &current), None);
            }
        }
    }
    assert_eq!(page(&nexus, 0x08, 1)[2], 0x04, "WCE");
    assert_eq!(
        page(&nexus, 0x0a, 1)[2..6],
        [0x04, 0, 0x08, 0x40],
        "D_SENSE, SWP and TAS"
    );
    // All pages, with all subpages, are these.
    let all = good(&nexus, &[0x1a, 8, 0x3f, 0xff, 255, 0], b"");
    assert_eq!(all, good(&nexus, &[0x1a, 8, 0x3f, 0, 255, 0], b""));
    assert_eq!(all[4..].len(), 12 + 16 + 20 + 12 + 12);
    assert_eq!(
        refused(&nexus, &[0x1a, 8, 0xc8, 0, 255, 0], b""),
        (5, 0x3900)
    );
    assert_eq!(
        refused(&nexus, &[0x1a, 8, 0x0a, 1, 255, 0], b""),
        (5, 0x2400)
    );
    assert_eq!(
        refused(&nexus, &[0x1a, 8, 0x19, 0, 255, 0], b""),
        (5, 0x2400)
    );
}

#[test]
fn without_a_write_cache_a_write_is_durable_when_it_is_answered() {
    let disk = Arc::new(Counting(MemoryDisk::new(512, BLOCKS), Default::default()));
    let lun = Lun::new(DISK).unwrap();
    let device = Device::new("c").with_disk(lun, "d", disk.clone(), Options::default());
    let nexus = ready(&Arc::new(device));
    good(&nexus, &WRITE, &[1; 512]);
    assert_eq!(disk.flushes(), 0);
    let cached = page(&nexus, 0x08, 0);
    assert_eq!(cached[2], 0x04);
    let mut through = cached.clone();
    through[2] = 0;
    assert_eq!(select(&nexus, b"", &through), None);
    assert_eq!(disk.flushes(), 1, "what was written before");
    assert_eq!(page(&nexus, 0x08, 0), through);
    assert_eq!(page(&nexus, 0x08, 2), cached, "the default stays");
    for cdb in [
        &WRITE[..],
        &[0x0a, 0, 0, 0, 1, 0],
        &[0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0],
    ] {
        good(&nexus, cdb, &[1; 512]);
        assert_eq!(disk.flushes(), 1, "{cdb:02x?}");
    }
    good(&nexus, &READ, b"");
    assert_eq!(
        refused(&nexus, &[0x2a, 0, 0xff, 0, 0, 0, 0, 0, 1, 0], b""),
        (5, 0x2100)
    );
    assert_eq!(disk.flushes(), 0);
    assert_eq!(select(&nexus, b"", &cached), None);
    good(&nexus, &WRITE, &[1; 512]);
    assert_eq!(disk.flushes(), 0);
}

#[test]
fn software_write_protection_holds_for_everybody_until_a_reset() {
    let device = device(MemoryDisk::new(512, BLOCKS));
    let (one, two) = (ready(&device), ready_from(&device, 2));
    assert_eq!(select(&one, b"", &with(page(&one, 0x0a, 0), 4, 0x08)), None);
    assert_eq!(refused(&two, &TUR, b""), (6, 0x2a01));
    good(&one, &TUR, b"");
    for nexus in [&one, &two] {
        for cdb in [&WRITE[..], &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]] {
            assert_eq!(refused(nexus, cdb, &[1; 512]), (7, 0x2702));
        }
        good(nexus, &READ, b"");
        assert_eq!(good(nexus, &[0x1a, 0, 0x3f, 0, 4, 0], b"")[2], 0x90);
    }
    // The same once more changes nothing, and nobody is told.
    assert_eq!(select(&one, b"", &page(&one, 0x0a, 0)), None);
    good(&two, &TUR, b"");
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(two.reset(Reset::Unit(Lun::new(DISK).unwrap())));
    for nexus in [&one, &two] {
        assert_eq!(refused(nexus, &TUR, b""), (6, 0x2903));
        good(nexus, &WRITE, &[1; 512]);
    }
}

#[test]
fn sense_data_are_in_the_format_that_was_chosen() {
    let nexus = nexus();
    let sense = |cdb: &[u8]| {
        let mut block = [0; 16];
        block[..cdb.len()].copy_from_slice(cdb);
        match nexus.start(Lun::new(DISK), block) {
            Start::Done(block::Answer::Now(response)) => response.sense.unwrap().emit(),
            _ => panic!("{cdb:02x?} is refused at once"),
        }
    };
    let beyond = [0x28, 0, 0xff, 0, 0, 0, 0, 0, 1, 0];
    assert_eq!(sense(&beyond)[..3], [0x70, 0, 5]);
    let fixed = page(&nexus, 0x0a, 0);
    assert_eq!(select(&nexus, b"", &with(fixed.clone(), 2, 0x04)), None);
    assert_eq!(sense(&beyond)[..4], [0x72, 5, 0x21, 0]);
    // REQUEST SENSE goes by its own bit.
    let requested = |desc| good(&nexus, &[0x03, desc, 0, 0, 252, 0], b"")[0];
    assert_eq!((requested(0), requested(1)), (0x70, 0x72));
    assert_eq!(select(&nexus, b"", &fixed), None);
    assert_eq!(sense(&beyond)[0], 0x70);
}

#[test]
fn mode_parameters_are_checked_before_any_is_changed() {
    let nexus = nexus();
    let control = page(&nexus, 0x0a, 0);
    let protect = with(control.clone(), 4, 0x08);
    let wrong = with(page(&nexus, 0x01, 0), 2, 0x80);
    assert_eq!(
        select(&nexus, b"", &[protect.clone(), wrong].concat()),
        Some((5, 0x2600))
    );
    assert_eq!(page(&nexus, 0x0a, 0), control, "not the first either");
    for (pages, code) in [
        (&[0x0a][..], 0x1a00),
        (&protect[..11], 0x1a00),
        (&[0x0a, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0x2600),
        (&[0x4a, 1, 0, 10], 0x2600),
        (&[0x3f, 0], 0x2600),
        (&[0x19, 6, 0, 0, 0, 0, 0, 0], 0x2600),
    ] {
        assert_eq!(select(&nexus, b"", pages), Some((5, code)), "{pages:02x?}");
    }
    let blocks = (BLOCKS as u32).to_be_bytes();
    let descriptor = |blocks: [u8; 4], size: u16| {
        let [high, low] = size.to_be_bytes();
        [&blocks[..], &[0, 0, high, low]].concat()
    };
    for good in [
        descriptor(blocks, 512),
        descriptor([0; 4], 0),
        descriptor([0xff; 4], 512),
    ] {
        assert_eq!(select(&nexus, &good, b""), None, "{good:02x?}");
    }
    for bad in [
        descriptor(blocks, 4096),
        descriptor([0, 0, 0, 1], 512),
        vec![0; 7],
    ] {
        assert_eq!(select(&nexus, &bad, b""), Some((5, 0x2600)), "{bad:02x?}");
    }
    // The long form, with 64 bits of blocks.
    let mut list = vec![0, 0, 0, 0, 1, 0, 0, 16];
    list.extend(BLOCKS.to_be_bytes());
    list.extend([0, 0, 0, 0, 0, 0, 2, 0]);
    list.extend(&protect);
    let cdb = [0x55, 0x10, 0, 0, 0, 0, 0, 0, list.len() as u8, 0];
    good(&nexus, &cdb, &list);
    assert_eq!(page(&nexus, 0x0a, 0), protect);
    // SP, RTD, no PF; a list that is shorter than its block says; nothing at all.
    for flags in [0x11, 0x12, 0x00] {
        assert_eq!(
            refused(&nexus, &[0x15, flags, 0, 0, 4, 0], &[0; 4]),
            (5, 0x2400)
        );
    }
    assert_eq!(
        refused(&nexus, &[0x15, 0x10, 0, 0, 3, 0], &[0; 3]),
        (5, 0x1a00)
    );
    assert_eq!(
        refused(&nexus, &[0x15, 0x10, 0, 0, 4, 0], &[0, 0, 0, 8]),
        (5, 0x1a00)
    );
    assert_eq!(
        refused(&nexus, &[0x15, 0x10, 0, 0, 4, 0], &[0; 2]),
        (5, 0x1a00)
    );
    good(&nexus, &[0x15, 0x10, 0, 0, 0, 0], b"");
}

#[test]
fn log_pages_are_those_that_are_listed() {
    let nexus = nexus();
    let sense = |page: u8, subpage: u8| [0x4d, 0, 0x40 | page, subpage, 0, 0, 0, 1, 0, 0];
    let list = good(&nexus, &sense(0, 0), b"");
    assert_eq!(list[..4], [0, 0, 0, list.len() as u8 - 4]);
    for page in &list[4..] {
        let data = good(&nexus, &sense(*page, 0), b"");
        assert_eq!(data[0], *page);
        assert_eq!(usize::from(data[3]), data.len() - 4);
    }
    let exceptions = good(&nexus, &sense(0x2f, 0), b"");
    assert_eq!(exceptions[4..], [0, 0, 3, 4, 0, 0, 0xff, 0]);
    assert_eq!(good(&nexus, &sense(0, 0xff), b"")[..2], [0x40, 0xff]);
    for cdb in [
        sense(0x0d, 0),
        sense(0x2f, 1),
        [0x4d, 1, 0x6f, 0, 0, 0, 0, 1, 0, 0],
        [0x4d, 0, 0x2f, 0, 0, 0, 0, 1, 0, 0],
        [0x4d, 0, 0x6f, 0, 0, 0, 1, 1, 0, 0],
    ] {
        assert_eq!(refused(&nexus, &cdb, b""), (5, 0x2400), "{cdb:02x?}");
    }
}

#[test]
fn the_access_state_is_what_was_set() {
    let device = device(MemoryDisk::new(512, BLOCKS));
    let (one, two) = (ready(&device), ready_from(&device, 2));
    let report = |nexus: &Nexus| good(nexus, &[0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], b"");
    let set = |nexus: &Nexus, list: &[u8]| {
        let cdb = [0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, list.len() as u8, 0, 0];
        run(nexus, DISK, &cdb, list).1
    };
    assert_eq!(
        report(&one),
        [0, 0, 0, 12, 0, 3, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]
    );
    let extended = good(&one, &[0xa3, 0x2a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], b"");
    assert_eq!(extended[..8], [0, 0, 0, 16, 0x10, 0, 0, 0]);
    assert_eq!(extended[8..], report(&one)[4..]);
    assert_eq!(
        refused(&one, &[0xa3, 0x4a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], b""),
        (5, 0x2400)
    );
    // TPGS.
    assert_eq!(good(&one, &[0x12, 0, 0, 0, 36, 0], b"")[5] & 0x30, 0x20);

    assert_eq!(set(&one, &[0, 0, 0, 0, 1, 0, 0, 1]), None);
    assert_eq!(report(&one)[4..10], [1, 3, 0, 1, 0, 1]);
    assert_eq!(refused(&two, &TUR, b""), (6, 0x2a06));
    good(&two, &WRITE, &[1; 512]);
    assert_eq!(set(&two, &[0, 0, 0, 0, 1, 0, 0, 1]), None);
    good(&one, &TUR, b"");
    // Standby, unavailable, offline, transitioning: no. Another group: there is none.
    for list in [
        [0, 0, 0, 0, 2, 0, 0, 1],
        [0, 0, 0, 0, 3, 0, 0, 1],
        [0, 0, 0, 0, 0x0e, 0, 0, 1],
        [0, 0, 0, 0, 0x0f, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 0, 2],
    ] {
        assert_eq!(set(&one, &list), Some((5, 0x2600)), "{list:?}");
    }
    assert_eq!(set(&one, &[0, 0, 0, 0, 0, 0]), Some((5, 0x1a00)));
    assert_eq!(set(&one, &[0, 0]), Some((5, 0x1a00)));
    assert_eq!(set(&one, &[]), None);
    assert_eq!(report(&one)[4], 1);
}

#[test]
fn identification_names_unit_port_group_and_device() {
    let nexus = nexus();
    let data = good(&nexus, &[0x12, 1, 0x83, 1, 0, 0], b"");
    let mut designators = Vec::new();
    let mut rest = &data[4..];
    while let [set, kind, _, len, tail @ ..] = rest {
        let (bytes, next) = tail.split_at(usize::from(*len));
        designators.push((*set, *kind, bytes.to_vec()));
        rest = next;
    }
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert_eq!(designators.len(), 6);
    assert_eq!((designators[0].0, designators[0].1), (0x01, 0x03));
    assert_eq!((designators[1].0, designators[1].1), (0x02, 0x01));
    assert!(text(&designators[1].2).starts_with("NETROOT "));
    assert_eq!(designators[2], (0x51, 0x94, vec![0, 0, 0, 1]));
    assert_eq!(designators[3], (0x51, 0x95, vec![0, 0, 0, 1]));
    let (set, kind, port) = &designators[4];
    assert_eq!((*set, *kind, port.len() % 4), (0x53, 0x98, 0));
    assert_eq!(
        text(port).trim_end_matches('\0'),
        "iqn.2026-01.test:t,t,0x0001"
    );
    let (set, kind, device) = &designators[5];
    assert_eq!((*set, *kind, device.len() % 4), (0x53, 0xa8, 0));
    assert_eq!(text(device).trim_end_matches('\0'), "iqn.2026-01.test:t");
    assert!(device.ends_with(&[0]));
}

#[test]
fn naca_is_not_there_for_any_command() {
    let nexus = nexus();
    for cdb in [
        &[0x00, 0, 0, 0, 0, 0x04][..],
        &[0x12, 0, 0, 0, 36, 0x04],
        &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0x04],
        &[0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0x04],
        &[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0x04],
    ] {
        assert_eq!(refused(&nexus, cdb, b""), (5, 0x2400), "{cdb:02x?}");
    }
}

#[test]
fn every_command_tells_its_bits_and_its_length() {
    let nexus = nexus();
    let all = good(&nexus, &[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0], b"");
    for entry in all[4..].chunks(8) {
        let (opcode, action) = (entry[0], &entry[2..4]);
        let with_action = entry[5] & 1 == 1;
        let options = if with_action { 2 } else { 1 };
        let cdb = [
            0xa3,
            0x0c,
            0x80 | options,
            opcode,
            action[0],
            action[1],
            0,
            0,
            1,
            0,
            0,
            0,
        ];
        let one = good(&nexus, &cdb, b"");
        let len = usize::from(u16::from_be_bytes([one[2], one[3]]));
        assert_eq!((one[1], one[4]), (0x83, opcode));
        assert_eq!(len, usize::from(u16::from_be_bytes([entry[6], entry[7]])));
        let expected = [6, 10, 10, 0, 16, 12, 0, 0][usize::from(opcode >> 5)];
        assert_eq!(len, expected, "{opcode:#x}");
        assert_eq!(one.len(), 4 + len + 12, "with timeouts");
        if with_action {
            assert_eq!(one[5] & 0x1f, action[1], "{opcode:#x}");
            let wrong = [0xa3, 0x0c, 1, opcode, 0, 0, 0, 0, 1, 0, 0, 0];
            assert_eq!(refused(&nexus, &wrong, b""), (5, 0x2400));
        }
    }
}
