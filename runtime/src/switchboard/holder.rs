//! Who has a port: for the message when we cannot have it. Reads procfs only.

use std::net::IpAddr;

use crate::runtime::{HostPort, Protocol};

/// ` by NAME (pid N)` of the process that has a port, or empty when nobody can be named (another network
/// namespace's table is not ours, and without root other users' descriptors are not shown).
pub(super) fn holder(at: HostPort) -> String {
    let tables = match at.protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let inodes: Vec<String> = tables.iter().flat_map(|path| listening(path, at)).collect();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let found = pids.into_iter().find(|pid| holds_socket(*pid, &inodes));
    found.map_or_else(String::new, |pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!(" by {} (pid {pid})", name.trim())
    })
}

/// Inodes of the sockets in a procfs table that listen on a port at an address that collides with ours.
fn listening(path: &str, at: HostPort) -> Vec<String> {
    let table = std::fs::read_to_string(path).unwrap_or_default();
    table.lines().skip(1).filter_map(|line| listening_inode(line, at)).collect()
}

/// One line of `/proc/net/tcp`: `sl local_address rem_address st … inode` (proc_pid_net(5)).
fn listening_inode(line: &str, HostPort { address, port, protocol }: HostPort) -> Option<String> {
    // include/net/tcp_states.h; a UDP socket that is bound is called closed
    let state = match protocol {
        Protocol::Tcp => "0A",
        Protocol::Udp => "07",
    };
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local_address, local_port) = fields.get(1)?.split_once(':')?;
    let is_any = local_address.bytes().all(|b| b == b'0') || address.is_unspecified();
    let same = is_any || parse_address(local_address)? == address;
    let is_it = u16::from_str_radix(local_port, 16).ok()? == port && *fields.get(3)? == state && same;
    is_it.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
}

/// Address as procfs prints it: 32-bit words in host order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let words = (0..text.len() / 8).map(|at| u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok());
    let bytes: Vec<u8> = words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    if let Ok(v4) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes.as_slice()).ok().map(|v6| IpAddr::from(v6).to_canonical())
}

fn holds_socket(pid: u32, inodes: &[String]) -> bool {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut targets = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    targets.any(|target| {
        let inode = target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']'));
        inode.is_some_and(|inode| inodes.iter().any(|wanted| wanted == inode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_listener_is_found_by_name() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let at = |address: IpAddr| HostPort::tcp(address, listener.local_addr().unwrap().port());
        let text = holder(at(address.ip()));
        assert!(text.ends_with(&format!("(pid {})", std::process::id())), "{text}");
        assert!(holder(at("0.0.0.0".parse().unwrap())).starts_with(" by "));
        let ours = at(address.ip());
        drop(listener);
        assert_eq!(holder(ours), "");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let udp =
            HostPort { protocol: Protocol::Udp, ..HostPort::tcp(address.ip(), socket.local_addr().unwrap().port()) };
        assert!(holder(udp).starts_with(" by "), "{udp}");
    }

    #[test]
    fn addresses_as_procfs_prints_them() {
        assert_eq!(parse_address("0100007F"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(parse_address("00000000000000000000000001000000"), Some("::1".parse().unwrap()));
        assert_eq!(parse_address("0000000000000000FFFF00000100007F"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(parse_address("x"), None);
    }
}
