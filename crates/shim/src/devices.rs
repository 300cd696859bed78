//! Device control on cgroup v2: a small BPF program of our own, because the unified hierarchy has no devices file and
//! libcontainer's own is behind a feature with a large dependency.
//!
//! The program compares the kernel's request (type and access in one word, major, minor) with each rule in turn and allows
//! the first that covers it; everything else is refused. A container whose policy cannot be attached is not started.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use crate::kernel;
use crate::protocol::DeviceRule;

const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u64 = 15;
const BPF_CGROUP_DEVICE: u64 = 6;
const BPF_F_ALLOW_MULTI: u64 = 2;

const ACCESS_MKNOD: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;
const TYPE_BLOCK: i32 = 1;
const TYPE_CHAR: i32 = 2;

/// Loads the program for `rules` and attaches it to the group, which is made if it is not there yet.
pub fn attach(cgroup: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    std::fs::create_dir_all(cgroup)?;
    let directory = std::fs::File::open(cgroup)?;
    let program = load(&assemble(rules))?;
    // struct { target_fd, attach_bpf_fd, attach_type, attach_flags, ... } of 32-bit words.
    let pair = |low: u64, high: u64| low | high << 32;
    let attributes = [
        pair(directory.as_raw_fd() as u64, program.as_raw_fd() as u64),
        pair(BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI),
        0,
        0,
    ];
    kernel::bpf(BPF_PROG_ATTACH, &attributes).map(drop)
}

fn load(program: &[u64]) -> io::Result<OwnedFd> {
    let license = CString::default();
    // struct { prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, flags, name[16], ... }.
    let attributes = [
        BPF_PROG_TYPE_CGROUP_DEVICE | (program.len() as u64) << 32,
        program.as_ptr() as u64,
        license.as_ptr() as u64,
        0,
        0,
        0,
        0,
        0,
    ];
    kernel::bpf(BPF_PROG_LOAD, &attributes).map(kernel::inherited)
}

/// One instruction: opcode, registers, offset and immediate value.
fn instruction(opcode: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(opcode)
        | u64::from(source << 4 | destination) << 8
        | u64::from(offset as u16) << 16
        | u64::from(immediate as u32) << 32
}

/// The program for a list of rules.
pub fn assemble(rules: &[DeviceRule]) -> Vec<u64> {
    const LOAD_WORD: u8 = 0x61;
    const MOVE: u8 = 0xbc;
    const MOVE_VALUE: u8 = 0xb7;
    const AND_VALUE: u8 = 0x54;
    const SHIFT_RIGHT_VALUE: u8 = 0x74;
    const JUMP_NOT_EQUAL: u8 = 0x55;
    const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d;
    const EXIT: u8 = 0x95;
    // r2 = type, r3 = access, r4 = major, r5 = minor.
    let mut program = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE, 3, 2, 0, 0),
        instruction(AND_VALUE, 2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT_VALUE, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        let mut tests: Vec<Vec<u64>> = Vec::new();
        match rule.kind {
            'b' => tests.push(vec![instruction(JUMP_NOT_EQUAL, 2, 0, 0, TYPE_BLOCK)]),
            'c' => tests.push(vec![instruction(JUMP_NOT_EQUAL, 2, 0, 0, TYPE_CHAR)]),
            _ => {}
        }
        let access = rule.access.chars().fold(0, |bits, letter| {
            bits | match letter {
                'r' => ACCESS_READ,
                'w' => ACCESS_WRITE,
                'm' => ACCESS_MKNOD,
                _ => 0,
            }
        });
        if access != ACCESS_READ | ACCESS_WRITE | ACCESS_MKNOD {
            // All that is asked for must be among what the rule gives.
            tests.push(vec![
                instruction(MOVE, 1, 3, 0, 0),
                instruction(AND_VALUE, 1, 0, 0, access),
                instruction(JUMP_NOT_EQUAL_REGISTER, 1, 3, 0, 0),
            ]);
        }
        if let Some(major) = rule.major {
            tests.push(vec![instruction(JUMP_NOT_EQUAL, 4, 0, 0, major as i32)]);
        }
        if let Some(minor) = rule.minor {
            tests.push(vec![instruction(JUMP_NOT_EQUAL, 5, 0, 0, minor as i32)]);
        }
        let mut block: Vec<u64> = tests.concat();
        let length = block.len() + 2;
        for (index, place) in block.iter_mut().enumerate() {
            let opcode = *place as u8;
            if opcode == JUMP_NOT_EQUAL || opcode == JUMP_NOT_EQUAL_REGISTER {
                // Every failed test leads to the instruction behind this rule.
                let offset = (length - index - 1) as u16;
                *place |= u64::from(offset) << 16;
            }
        }
        block.push(instruction(MOVE_VALUE, 0, 0, 0, 1));
        block.push(instruction(EXIT, 0, 0, 0, 0));
        program.extend(block);
        if rule.kind == 'a' && access == 7 && rule.major.is_none() && rule.minor.is_none() {
            // Allows everything: what follows could never run, and the verifier refuses such code.
            return program;
        }
    }
    program.push(instruction(MOVE_VALUE, 0, 0, 0, 0));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The unified hierarchy is there on v1 machines too, without controllers; device programs need none.
    fn unified() -> std::path::PathBuf {
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let line = table.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        line.expect("cgroup v2 is mounted").split(' ').nth(1).unwrap().into()
    }

    #[test]
    fn the_kernel_takes_the_program_and_obeys_it() {
        let group = unified().join(format!("trireme-test-devices-{}", std::process::id()));
        let rule = DeviceRule {
            kind: 'c',
            major: Some(1),
            minor: Some(3),
            access: "rw".into(),
        };
        attach(&group, &[rule]).unwrap();
        let open = |path: &str| {
            let procs = group.join("cgroup.procs");
            let script = format!("echo 0 > {} && exec 3<{path}", procs.display());
            std::process::Command::new("/bin/sh")
                .args(["-c", &script])
                .stderr(std::process::Stdio::null())
                .status()
                .unwrap()
        };
        let (null, zero) = (open("/dev/null").success(), open("/dev/zero").success());
        std::fs::remove_dir(&group).unwrap();
        assert!(null && !zero, "null {null}, zero {zero}");
        attach(
            &group,
            &[DeviceRule {
                kind: 'a',
                major: None,
                minor: None,
                access: "rwm".into(),
            }],
        )
        .unwrap();
        let everything = open("/dev/zero").success();
        std::fs::remove_dir(&group).unwrap();
        assert!(everything);
    }

    /// Whoever makes a container gives up on this error.
    #[test]
    fn a_policy_without_a_group_is_an_error() {
        let directory = std::env::temp_dir().join(format!("trireme-no-group-{}", std::process::id()));
        let attached = attach(&directory, &[]);
        std::fs::remove_dir(&directory).unwrap();
        assert!(attached.is_err(), "{} is no control group", directory.display());
    }

    #[test]
    fn programs() {
        let rule = |kind, major, minor, access: &str| DeviceRule {
            kind,
            major,
            minor,
            access: access.into(),
        };
        let check = |rules: &[DeviceRule], length: usize| {
            assert_eq!(assemble(rules).len(), length, "{rules:?}");
        };
        check(&[], 8);
        check(&[rule('a', None, None, "rwm")], 8);
        check(&[rule('c', Some(1), Some(3), "rwm")], 6 + 5 + 2);
        check(&[rule('c', None, None, "m")], 6 + 6 + 2);
        // The jump of the first test leads behind the rule: over two tests, the verdict and the exit.
        let program = assemble(&[rule('c', Some(1), Some(3), "rwm")]);
        assert_eq!((program[6] >> 16) as u16, 4);
    }
}
