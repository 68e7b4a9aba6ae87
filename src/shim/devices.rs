//! Which devices a container may use, on cgroup v2, where a program in the kernel decides.
//!
//! Owns: the rules every container has besides its own, and the program that follows them.
//! Called by: `launch`, between a container's creation and its start: what libcontainer makes for it needs no leave.
//! Never: acts on cgroup v1; there libcontainer writes the same rules to files.

use std::io;
use std::path::Path;

use libcontainer::oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::kernel;

/// What the kernel asks about (include/uapi/linux/bpf.h).
const BLOCK: u32 = 1;
const CHAR: u32 = 2;
const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const ALL: u32 = MKNOD | READ | WRITE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    /// None is every kind.
    kind: Option<u32>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

const fn allowed(kind: u32, major: Option<u32>, minor: Option<u32>, access: u32) -> Rule {
    Rule { allow: true, kind: Some(kind), major, minor, access }
}

/// As runc and crun: any node may be made, since making one opens nothing; these may be used.
const EVERYONE: [Rule; 11] = [
    allowed(CHAR, None, None, MKNOD),
    allowed(BLOCK, None, None, MKNOD),
    allowed(CHAR, Some(1), Some(3), ALL), // null
    allowed(CHAR, Some(1), Some(5), ALL), // zero
    allowed(CHAR, Some(1), Some(7), ALL), // full
    allowed(CHAR, Some(1), Some(8), ALL), // random
    allowed(CHAR, Some(1), Some(9), ALL), // urandom
    allowed(CHAR, Some(5), Some(0), ALL), // tty
    allowed(CHAR, Some(5), Some(1), ALL), // console
    allowed(CHAR, Some(5), Some(2), ALL), // ptmx
    allowed(CHAR, Some(136), None, ALL),  // pts
];

/// Puts a container's cgroup under its rules.
pub(crate) fn enforce(cgroup: &Path, own: &[LinuxDeviceCgroup]) -> io::Result<()> {
    let own: Result<Vec<Rule>, io::Error> = own.iter().map(rule).collect();
    let rules: Vec<Rule> = own?.into_iter().chain(EVERYONE).collect();
    if allows_all(&rules) {
        return Ok(());
    }
    kernel::attach_device_program(cgroup, &program(&rules))
}

/// What is not understood is refused: read as a wildcard it would allow more than was meant.
fn rule(from: &LinuxDeviceCgroup) -> io::Result<Rule> {
    let odd = || io::Error::new(io::ErrorKind::InvalidInput, format!("the device rule {from:?} is not understood"));
    // -1 is OCI's other way to say "any".
    let number = |n: Option<i64>| match n {
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n).map(Some).map_err(|_| odd()),
    };
    let mut access = 0;
    for letter in from.access().as_deref().unwrap_or("rwm").chars() {
        access |= match letter {
            'm' => MKNOD,
            'r' => READ,
            'w' => WRITE,
            _ => return Err(odd()),
        };
    }
    let kind = match from.typ() {
        None | Some(LinuxDeviceType::A) => None,
        Some(LinuxDeviceType::B) => Some(BLOCK),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(CHAR),
        // Pipes are no devices to this program.
        Some(LinuxDeviceType::P) => return Err(odd()),
    };
    Ok(Rule { allow: from.allow(), kind, major: number(from.major())?, minor: number(from.minor())?, access })
}

/// A privileged container: it needs no program, and may run where the kernel takes none.
fn allows_all(rules: &[Rule]) -> bool {
    let all = Rule { allow: true, kind: None, major: None, minor: None, access: ALL };
    rules.iter().all(|rule| rule.allow) && rules.contains(&all)
}

/// One instruction of the kernel's virtual machine (struct bpf_insn).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    code: u8,
    /// Destination in the lower half, source in the upper one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const COPY: u8 = 0xbf;
const SET: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_UNLESS: u8 = 0x55;
const JUMP_UNLESS_SAME: u8 = 0x5d;
const JUMP_IF: u8 = 0x15;
const EXIT: u8 = 0x95;

/// r0 is the answer, r1 the question when it begins.
const ANSWER: u8 = 0;
const QUESTION: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

fn plain(code: u8, to: u8, immediate: u32) -> Instruction {
    Instruction { code, registers: to, offset: 0, immediate: immediate.cast_signed() }
}

fn from_register(code: u8, to: u8, from: u8) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset: 0, immediate: 0 }
}

fn load(to: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, registers: QUESTION << 4 | to, offset, immediate: 0 }
}

/// The last rule that matches decides, so the last is asked first; what no rule matches is refused. The question is a
/// word of kind and access, then two of the device's numbers.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut all = vec![
        load(KIND, 0),
        from_register(COPY, ACCESS, KIND),
        plain(AND, KIND, 0xffff),
        plain(SHIFT_RIGHT, ACCESS, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        let conditions = conditions(rule);
        let ends = conditions.is_empty();
        let verdict = [plain(SET, ANSWER, u32::from(rule.allow)), plain(EXIT, 0, 0)];
        all.extend(skipping(conditions, verdict.len()));
        all.extend(verdict);
        if ends {
            // The kernel refuses a program with instructions nothing leads to.
            return all;
        }
    }
    all.extend([plain(SET, ANSWER, 0), plain(EXIT, 0, 0)]);
    all
}

/// Those that jump leave the rule when it does not match; how far is filled in by [`skipping`].
fn conditions(rule: &Rule) -> Vec<Instruction> {
    let mut all = Vec::new();
    for (register, wanted) in [(KIND, rule.kind), (MAJOR, rule.major), (MINOR, rule.minor)] {
        all.extend(wanted.map(|wanted| plain(JUMP_UNLESS, register, wanted)));
    }
    if rule.access != ALL {
        all.extend([from_register(COPY, SCRATCH, ACCESS), plain(AND, SCRATCH, rule.access)]);
        // Leave is given only for all that is asked, and taken away for any of it.
        all.push(if rule.allow {
            from_register(JUMP_UNLESS_SAME, SCRATCH, ACCESS)
        } else {
            plain(JUMP_IF, SCRATCH, 0)
        });
    }
    all
}

fn skipping(mut conditions: Vec<Instruction>, beyond: usize) -> Vec<Instruction> {
    let count = conditions.len();
    for (i, instruction) in conditions.iter_mut().enumerate() {
        if matches!(instruction.code, JUMP_UNLESS | JUMP_UNLESS_SAME | JUMP_IF) {
            instruction.offset = i16::try_from(count - 1 - i + beyond).expect("a rule has few instructions");
        }
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel's virtual machine does with these instructions.
    fn run(program: &[Instruction], kind: u32, major: u32, minor: u32, access: u32) -> u64 {
        let question = [access << 16 | kind, major, minor];
        let mut registers = [0_u64; 11];
        let mut at = 0;
        loop {
            let i = program[at];
            let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let immediate = u64::from(i.immediate.cast_unsigned());
            at += 1;
            let jumps = match i.code {
                LOAD_WORD => {
                    registers[to] = u64::from(question[usize::try_from(i.offset).unwrap() / 4]);
                    false
                }
                COPY => {
                    registers[to] = registers[from];
                    false
                }
                SET => {
                    registers[to] = immediate;
                    false
                }
                AND => {
                    registers[to] &= immediate;
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] >>= immediate;
                    false
                }
                JUMP_UNLESS => registers[to] != immediate,
                JUMP_UNLESS_SAME => registers[to] != registers[from],
                JUMP_IF => registers[to] == immediate,
                EXIT => return registers[0],
                other => panic!("instruction {other:#x}"),
            };
            if jumps {
                at += usize::try_from(i.offset).unwrap();
            }
        }
    }

    fn rules(own: &str) -> Vec<Rule> {
        let own: Vec<LinuxDeviceCgroup> = serde_json::from_str(own).unwrap();
        own.iter().map(|own| rule(own).unwrap()).chain(EVERYONE).collect()
    }

    #[test]
    fn a_container_uses_its_devices_and_those_of_everyone() {
        let none = r#"{"allow": false, "access": "rwm"}"#;
        let fuse = r#"{"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}"#;
        let program = program(&rules(&format!("[{none}, {fuse}]")));
        for (what, kind, major, minor, access, expected) in [
            ("null is read and written", CHAR, 1, 3, READ | WRITE, 1),
            ("a terminal is used", CHAR, 136, 7, READ | WRITE, 1),
            ("kmem is not read", CHAR, 1, 2, READ, 0),
            ("the host's disk may be named", BLOCK, 8, 0, MKNOD, 1),
            ("but not read", BLOCK, 8, 0, READ, 0),
            ("nor named and read at once", BLOCK, 8, 0, MKNOD | READ, 0),
            ("its own device is used", CHAR, 10, 229, READ | WRITE, 1),
            ("its own device as far as it may", CHAR, 10, 229, READ | MKNOD, 0),
            ("a block device with a known device's numbers", BLOCK, 1, 3, READ, 0),
        ] {
            assert_eq!(run(&program, kind, major, minor, access), expected, "{what}");
        }
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(
            r#"[{"allow": true, "access": "rwm"}, {"allow": false, "type": "b", "access": "w"},
                {"allow": true, "type": "b", "major": 7, "access": "rw"}]"#,
        )
        .unwrap();
        let program = program(&rules.iter().map(|own| rule(own).unwrap()).collect::<Vec<_>>());
        assert_eq!(run(&program, BLOCK, 8, 0, READ), 1);
        assert_eq!(run(&program, BLOCK, 8, 0, READ | WRITE), 0, "a part of it is refused");
        assert_eq!(run(&program, BLOCK, 7, 0, READ | WRITE), 1);
        assert_eq!(run(&program, CHAR, 4, 64, WRITE), 1);
    }

    #[test]
    fn a_device_may_be_refused_by_number_and_a_family_allowed() {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(
            r#"[{"allow": true, "access": "rwm"}, {"allow": false, "type": "b", "major": 8, "minor": 1, "access": "rwm"},
                {"allow": true, "type": "c", "major": 10, "minor": -1, "access": "r"}]"#,
        )
        .unwrap();
        let program = program(&rules.iter().map(|own| rule(own).unwrap()).collect::<Vec<_>>());
        assert_eq!([run(&program, BLOCK, 8, 1, READ), run(&program, BLOCK, 8, 2, READ)], [0, 1]);
        assert_eq!(run(&program, CHAR, 10, 77, READ), 1);
    }

    #[test]
    fn a_rule_that_is_not_understood_opens_nothing() {
        for odd in [
            r#"{"allow": true, "type": "p", "access": "rwm"}"#,
            r#"{"allow": true, "type": "c", "major": 4294967296, "access": "rwm"}"#,
            r#"{"allow": true, "type": "c", "major": 1, "access": "rx"}"#,
        ] {
            assert!(rule(&serde_json::from_str(odd).unwrap()).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_privileged_container_needs_no_program() {
        assert!(allows_all(&rules(r#"[{"allow": true, "access": "rwm"}]"#)));
        assert!(!allows_all(&rules(r#"[{"allow": false, "access": "rwm"}]"#)));
    }
}
