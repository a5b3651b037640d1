//! What the options of one OCI mount mean (OCI config, "Linux mount options"; mount(8)). Pure.

use oci_spec::runtime::Mount;

use crate::sys::mount::{Attr, Propagation};

/// `MOUNT_ATTR__ATIME`: the access time is a number in these bits, not a flag each (`linux/mount.h`).
const ATIME: Attr = Attr::from_bits_retain(0x70);

/// The options of a mount, told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Attributes that are set on the mount itself.
    pub set: Attr,
    /// Attributes that are taken away from it.
    pub clear: Attr,
    /// Attributes that are set on it and on what is mounted below.
    pub set_below: Attr,
    /// Attributes that are taken away from it and from what is mounted below.
    pub clear_below: Attr,
    /// It is a bind mount; `true` with what is mounted below.
    pub bind: Option<bool>,
    /// It shows its files with other ids; `true` with what is mounted below.
    pub idmap: Option<bool>,
    /// How mounts below it spread; `true` for those that are there already too.
    pub propagation: Option<(Propagation, bool)>,
    /// A tmpfs begins with what the directory held.
    pub copy_up: bool,
    /// What is mounted there already is changed.
    pub remount: bool,
    /// For the file system: `key` or `key=value`.
    pub data: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        let none = Attr::empty();
        Self {
            set: none,
            clear: none,
            set_below: none,
            clear_below: none,
            bind: None,
            idmap: None,
            propagation: None,
            copy_up: false,
            remount: false,
            data: Vec::new(),
        }
    }
}

impl Options {
    /// Reads them.
    #[must_use]
    pub fn of(mount: &Mount) -> Self {
        let mut found = Self::default();
        for option in mount.options().iter().flatten() {
            found.take(option);
        }
        if mount.typ().as_deref() == Some("bind") && found.bind.is_none() {
            found.bind = Some(false);
        }
        found
    }

    fn take(&mut self, option: &str) {
        match option {
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "idmap" => self.idmap = Some(false),
            "ridmap" => self.idmap = Some(true),
            "tmpcopyup" => self.copy_up = true,
            "remount" => self.remount = true,
            // What the kernel does anyway, or has no meaning for a mount.
            "" | "defaults" | "async" | "loud" | "nomand" | "noiversion" | "nolazytime" | "newinstance" | "silent"
            | "iversion" => {}
            _ => {
                if let Some(propagation) = propagation(option) {
                    self.propagation = Some(propagation);
                } else if let Some((set, clear)) = attribute(option) {
                    (self.set, self.clear) = ((self.set - clear) | set, (self.clear - set) | clear);
                } else if let Some((set, clear)) = option.strip_prefix('r').and_then(attribute) {
                    self.set_below = (self.set_below - clear) | set;
                    self.clear_below = (self.clear_below - set) | clear;
                } else {
                    self.data.push(option.to_owned());
                }
            }
        }
    }
}

fn propagation(option: &str) -> Option<(Propagation, bool)> {
    let (name, below) = match option.strip_prefix('r') {
        Some(name) => (name, true),
        None => (option, false),
    };
    let kind = match name {
        "shared" => Propagation::Shared,
        "slave" => Propagation::Slave,
        "private" => Propagation::Private,
        "unbindable" => Propagation::Unbindable,
        _ => return None,
    };
    Some((kind, below))
}

/// Attributes an option sets and clears.
fn attribute(option: &str) -> Option<(Attr, Attr)> {
    let none = Attr::empty();
    Some(match option {
        "ro" => (Attr::MOUNT_ATTR_RDONLY, none),
        "rw" => (none, Attr::MOUNT_ATTR_RDONLY),
        "nosuid" => (Attr::MOUNT_ATTR_NOSUID, none),
        "suid" => (none, Attr::MOUNT_ATTR_NOSUID),
        "nodev" => (Attr::MOUNT_ATTR_NODEV, none),
        "dev" => (none, Attr::MOUNT_ATTR_NODEV),
        "noexec" => (Attr::MOUNT_ATTR_NOEXEC, none),
        "exec" => (none, Attr::MOUNT_ATTR_NOEXEC),
        "nodiratime" => (Attr::MOUNT_ATTR_NODIRATIME, none),
        "diratime" => (none, Attr::MOUNT_ATTR_NODIRATIME),
        "nosymfollow" => (Attr::MOUNT_ATTR_NOSYMFOLLOW, none),
        "symfollow" => (none, Attr::MOUNT_ATTR_NOSYMFOLLOW),
        "noatime" => (Attr::MOUNT_ATTR_NOATIME, ATIME),
        "strictatime" => (Attr::MOUNT_ATTR_STRICTATIME, ATIME),
        "atime" | "relatime" | "norelatime" | "nostrictatime" => (none, ATIME),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
