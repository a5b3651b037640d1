//! Where everything is: the one table of paths. The data root survives reboots, the run directory does not.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Doing, Error, Result};
use crate::id::{ContainerId, NetworkName, VolumeName};

/// The directories of one boxship instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Durable state: images, containers, volumes, the state database. Mode 0700.
    pub data_root: PathBuf,
    /// State of this boot: sockets, FIFOs, pids, exits. Mode 0700 but for the controller's socket.
    pub run_dir: PathBuf,
    /// Where the kernel's boot id is read; another file in tests, so that they can "reboot".
    pub boot_id_path: PathBuf,
}

impl Layout {
    /// The layout of a data root and a run directory, with the kernel's own boot id.
    #[must_use]
    pub fn new(data_root: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Self {
        let boot_id_path = PathBuf::from("/proc/sys/kernel/random/boot_id");
        Self { data_root: data_root.into(), run_dir: run_dir.into(), boot_id_path }
    }

    /// Reads `--data-root D --run-dir R [--boot-id-path F]`: how the processes tell each other where they are.
    ///
    /// # Errors
    /// `Unsupported` naming an argument that is unknown, has no value or is missing.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self> {
        let refuse = |what: String| Error::Unsupported(what);
        let (mut data_root, mut run_dir, mut boot_id_path) = (None, None, None);
        let mut args = args.into_iter();
        while let Some(name) = args.next() {
            let slot = match name.to_str() {
                Some("--data-root") => &mut data_root,
                Some("--run-dir") => &mut run_dir,
                Some("--boot-id-path") => &mut boot_id_path,
                _ => return Err(refuse(format!("unknown argument {}", name.display()))),
            };
            *slot = Some(args.next().ok_or_else(|| refuse(format!("{} has no value", name.display())))?);
        }
        let data_root = data_root.ok_or_else(|| refuse("--data-root is missing".to_owned()))?;
        let run_dir = run_dir.ok_or_else(|| refuse("--run-dir is missing".to_owned()))?;
        let mut layout = Self::new(data_root, run_dir);
        if let Some(path) = boot_id_path {
            layout.boot_id_path = path.into();
        }
        Ok(layout)
    }

    /// What [`Layout::from_args`] reads.
    #[must_use]
    pub fn to_args(&self) -> Vec<OsString> {
        let pairs =
            [("--data-root", &self.data_root), ("--run-dir", &self.run_dir), ("--boot-id-path", &self.boot_id_path)];
        pairs.iter().flat_map(|(name, path)| [OsString::from(name), path.as_os_str().to_owned()]).collect()
    }

    /// The id of this boot, trimmed.
    ///
    /// # Errors
    /// `Io` when it cannot be read.
    pub fn boot_id(&self) -> Result<String> {
        let text =
            std::fs::read_to_string(&self.boot_id_path).doing(|| format!("read {}", self.boot_id_path.display()))?;
        Ok(text.trim().to_owned())
    }

    /// `images/`: an OCI image layout with unpacked layers beside it; see `image::store`.
    #[must_use]
    pub fn images_dir(&self) -> PathBuf {
        self.data_root.join("images")
    }

    /// `auth.json`: logins to registries, mode 0600, as Podman and Docker write theirs.
    #[must_use]
    pub fn auth_file(&self) -> PathBuf {
        self.data_root.join("auth.json")
    }

    /// `containers/`.
    #[must_use]
    pub fn containers_dir(&self) -> PathBuf {
        self.data_root.join("containers")
    }

    /// `containers/<id>/`: `config.json`, `spec.json`, `upper/`, `work/`, `logs/`, `files/`; of kept ones `life.json`.
    #[must_use]
    pub fn container_dir(&self, id: &ContainerId) -> PathBuf {
        self.containers_dir().join(id.as_str())
    }

    /// `volumes/<name>/`: `volume.json` and `data/`.
    #[must_use]
    pub fn volume_dir(&self, name: &VolumeName) -> PathBuf {
        self.data_root.join("volumes").join(name.as_str())
    }

    /// `networks/<name>.json`.
    #[must_use]
    pub fn network_file(&self, name: &NetworkName) -> PathBuf {
        self.data_root.join("networks").join(format!("{name}.json"))
    }

    /// `state/`: the controller's database.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.data_root.join("state")
    }

    /// `RUN/containers/<id>/`: `state.json`, `exit.json`, log FIFOs, `etc/`.
    #[must_use]
    pub fn container_run_dir(&self, id: &ContainerId) -> PathBuf {
        self.run_dir.join("containers").join(id.as_str())
    }

    /// `RUN/exits/`: ends of orphans as the keeper saw them, `<pid>-<start time in clock ticks>`.
    #[must_use]
    pub fn exits_dir(&self) -> PathBuf {
        self.run_dir.join("exits")
    }

    /// `RUN/<process>.sock` for `keeper`, `supervisor`, `switchboard`, `controller`.
    #[must_use]
    pub fn socket(&self, process: &str) -> PathBuf {
        self.run_dir.join(format!("{process}.sock"))
    }
}

/// Makes a directory and its parents with mode 0700; an existing one is left as it is.
///
/// # Errors
/// `Io` naming the path.
pub fn make_private_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .doing(|| format!("make directory {}", path.display()))
}
