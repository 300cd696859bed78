//! Preloaded into `linux.uml`: lets Linux 6.1 as a program run on processors whose register state it does not know.
//!
//! It keeps a process's floating-point registers in an area sized for AVX-512 and restores them by
//! `ptrace(PTRACE_SETREGSET, NT_X86_XSTATE)`. The host takes the whole area or nothing, so with AMX in the processor every
//! process of the guest would die at its start. Here the call is completed: what the guest's kernel does not know of keeps
//! the value it has. On other processors nothing changes.

#![no_std]

use core::ffi::{c_char, c_long, c_void};

const PTRACE_GETREGSET: c_long = 0x4204;
const PTRACE_SETREGSET: c_long = 0x4205;
const NT_X86_XSTATE: usize = 0x202;
/// More than any processor of today has (AMX: 11 kB).
const STATE_BYTES: usize = 16 * 1024;
const RTLD_NEXT: *mut c_void = -1isize as *mut c_void;

#[repr(C)]
struct Area {
    base: *mut u8,
    bytes: usize,
}

type Ptrace = unsafe extern "C" fn(c_long, c_long, *mut c_void, *mut c_void) -> c_long;

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn abort() -> !;
}

/// Not on the stack: the guest's kernel has 16 kB of it. It is one thread, so this is nobody else's.
static mut STATE: [u8; STATE_BYTES] = [0; STATE_BYTES];

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: takes nothing and does not return.
    unsafe { abort() }
}

/// The C library's, completed.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ptrace(request: c_long, pid: c_long, address: *mut c_void, data: *mut c_void) -> c_long {
    // SAFETY: the C library, which is loaded behind this file, has a function of that name and type.
    let next: Ptrace = unsafe { core::mem::transmute(dlsym(RTLD_NEXT, c"ptrace".as_ptr())) };
    if request != PTRACE_SETREGSET || address as usize != NT_X86_XSTATE {
        // SAFETY: the caller's own arguments.
        return unsafe { next(request, pid, address, data) };
    }
    let mut all = Area {
        base: (&raw mut STATE).cast(),
        bytes: STATE_BYTES,
    };
    let place: *mut c_void = (&raw mut all).cast();
    // SAFETY: `all` names a buffer of its length, which the kernel fills, and is told how much of it was filled.
    unsafe {
        let read = next(PTRACE_GETREGSET, pid, address, place);
        if read < 0 {
            return read;
        }
        let given = &*data.cast::<Area>();
        let bytes = given.bytes.min(all.bytes);
        core::ptr::copy_nonoverlapping(given.base, all.base, bytes);
        next(PTRACE_SETREGSET, pid, address, place)
    }
}
