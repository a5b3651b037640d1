//! The terminal in front of us: its size, and raw mode with a way back.

use std::io::IsTerminal as _;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Rows and columns; 24 × 80 where there is no terminal.
pub(super) fn window_size() -> (u16, u16) {
    match tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row, size.ws_col),
        Ok(_) | Err(_) => (24, 80),
    }
}

/// Shows nothing of what is typed until dropped. `None` when stdin is no terminal.
pub(super) fn without_echo() -> Option<RawTerminal> {
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).ok()?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Now, &quiet).ok()?;
    Some(RawTerminal(before))
}

/// Stdin's terminal in another mode, and back when dropped.
pub(super) struct RawTerminal(Termios);

impl RawTerminal {
    /// Raw mode. `None` when stdin is no terminal.
    pub(super) fn enter() -> Option<Self> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing helps if the terminal is gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
