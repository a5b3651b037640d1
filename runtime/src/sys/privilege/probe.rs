//! Asks the kernel what a filter says to a call, without making any: for tests of filters.

use std::io;

use super::{Instruction, install_seccomp, set_no_new_privs};

/// In the sixth argument: this is a question. Nothing else of a thread has this there.
const QUESTION: u64 = 0x5eed_b0c5_0bad_cafe;
/// What a question is answered with where the filter allows the call: no kernel's own error.
const ALLOWED: u32 = 4_001;

/// The errno a filter answers each call with; `None` where it allows it. The filter must not look at sixth arguments, and
/// may only allow and refuse.
///
/// # Errors
/// The kernel's, when it does not take the filter.
pub(crate) fn verdicts(program: &[Instruction], calls: &[(u32, [u64; 5])]) -> io::Result<Vec<Option<u32>>> {
    const RET_ALLOW: u32 = 0x7fff_0000;
    const RET_ERRNO: u32 = 0x0005_0000;
    let op = |code: u16, k: u32| Instruction { code, jt: 0, jf: 0, k };
    let is = |half: u64| Instruction { code: 0x15, jt: 1, jf: 0, k: half as u32 };
    let allow = op(0x06, RET_ALLOW);
    // the two halves of the sixth argument (struct seccomp_data); whatever is no question goes on its way
    let mut asking = vec![op(0x20, 56), is(QUESTION), allow, op(0x20, 60), is(QUESTION >> 32), allow];
    asking.extend(program.iter().map(|one| match *one {
        Instruction { code: 0x06, k: RET_ALLOW, .. } => op(0x06, RET_ERRNO | ALLOWED),
        Instruction { code: 0x06, k, .. } => {
            assert_eq!(k & 0xffff_0000, RET_ERRNO, "only what allows and refuses can be asked");
            *one
        }
        other => other,
    }));
    std::thread::scope(|scope| {
        let asker = scope.spawn(move || {
            set_no_new_privs()?;
            install_seccomp(&asking, 0)?;
            Ok(calls.iter().map(|(number, args)| ask(*number, args)).collect())
        });
        asker.join().expect("asking does not panic")
    })
}

fn ask(number: u32, [a, b, c, d, e]: &[u64; 5]) -> Option<u32> {
    // SAFETY: the filter of this thread answers every call with this sixth argument by an error, so that none is made.
    let answer = unsafe { libc::syscall(i64::from(number), *a, *b, *c, *d, *e, QUESTION) };
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0).cast_unsigned();
    assert_eq!(answer, -1, "call {number} was made");
    (errno != ALLOWED).then_some(errno)
}
