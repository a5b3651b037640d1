//! The sandboxed child: `unpack` reads a tar on standard input and extracts it into the current directory.

use std::io::{BufReader, Read, Write as _};
use std::process::ExitCode;

use super::extract::Extractor;
use super::report::{Refusal, Report};
use super::sandbox;

/// Read at once, in bytes.
const INPUT_BYTES: usize = 256 << 10;

/// Entry of the hidden subcommand `unpack`: tar on fd 0, target is the current directory, report on fd 1.
///
/// Exits with 0 when the report says that the archive was extracted, else with 1.
#[must_use]
pub fn unpack_child(_args: &[String]) -> ExitCode {
    let answer = run();
    let code = if answer.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    let mut stdout = std::io::stdout().lock();
    let written = serde_json::to_writer(&mut stdout, &answer).is_ok() && stdout.flush().is_ok();
    if written { code } else { ExitCode::FAILURE }
}

/// Standard input without its own buffer, which is small: an archive has a header every few KiB.
struct Input;

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        Ok(rustix::io::read(std::io::stdin(), buffer)?)
    }
}

fn run() -> Result<Report, Refusal> {
    sandbox::enter()?;
    let mut input = BufReader::with_capacity(INPUT_BYTES, Input);
    let mut extractor = Extractor::new()?;
    extractor.extract(&mut input)?;
    // what follows the end mark belongs to the digest, so it must be read; it is not looked at
    let mut rest = vec![0; INPUT_BYTES];
    while input.read(&mut rest).map_err(|e| Refusal::io("read the archive", &e))? > 0 {}
    extractor.finish()
}
