//! Terminals: the size a program in one sees.

use std::io;
use std::os::fd::AsFd;

/// Sets the size of the terminal behind its master (or any) side; its programs get SIGWINCH.
///
/// # Errors
/// What the kernel said.
pub fn set_window_size(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size)?;
    Ok(())
}
