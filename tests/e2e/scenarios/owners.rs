//! Who may read and write what, and whose it is on both sides: user × kind of mount × owner in the image, on the real images.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::time::Duration;

use super::files::host_directory;
use super::on_images;
use crate::lab::Lab;
use crate::wait::wait_for;
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] =
    &[on_images("the_matrix_of_users_mounts_and_owners_holds_on_real_images", 120, the_matrix)];

/// An image, a directory of it, whether that is a VOLUME, and a user it knows.
const IMAGES: [(&str, &str, bool, &str); 3] = [
    ("nginx:1", "/var/www/html", false, "www-data"),
    ("redis:user", "/data", true, "redis"),
    ("postgres:15", "/var/lib/postgresql/data", true, "postgres"),
];

/// One container: what runs where, and with what in place of the image's directory.
struct Cell {
    name: String,
    image: &'static str,
    user: String,
    /// The image's directory below a named volume, or as the anonymous one it asks for.
    kind: &'static str,
    dir: &'static str,
}

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for (image, dir, is_volume, known) in IMAGES {
        for (place, user) in ["default", "root", "12345:6", known].into_iter().enumerate() {
            for kind in ["named", "anonymous"].into_iter().filter(|kind| is_volume || *kind == "named") {
                let name = format!("{}-{place}-{kind}", image.split(':').next().unwrap_or_default());
                cells.push(Cell { name, image, user: user.to_owned(), kind, dir });
            }
        }
    }
    cells
}

/// What each process says: as whom it runs; of each directory its owner and mode, how many files it sees there, and as whom
/// a new file is written.
const SCRIPT: &str = "echo id $(id -u):$(id -g); for d in $DIRS; do n=$(ls -A $d 2>/dev/null | wc -l); ls $d >/dev/null 2>&1 || n=no; \
    touch $d/x 2>/dev/null && w=$(stat -c %u:%g $d/x) || w=no; echo $d $(stat -c '%U:%G %a' $d) $n $w; done; echo end; exec sleep 1000000";

fn manifest(lab: &Lab, cell: &Cell) -> String {
    let Cell { name, image, user, kind, dir } = cell;
    let image = lab.image(image);
    let user = if user == "default" { String::new() } else { format!("user: \"{user}\"\n") };
    let (volume, mounts, dirs) = if *kind == "named" {
        (
            format!("apiVersion: boxship/v1\nkind: Volume\nname: of-{name}\n---\n"),
            format!(
                "mounts:\n- {{path: {dir}, volume: of-{name}}}\n- {{path: /bind, bind: ./{name}}}\n- {{path: /tmpfs, tmpfs: 1Mi}}\n"
            ),
            format!("{dir} /bind /tmpfs"),
        )
    } else {
        (String::new(), String::new(), (*dir).to_owned())
    };
    format!(
        "{volume}apiVersion: boxship/v1\nkind: Job\nname: {name}\nimage: {image}\n{user}{mounts}env: {{DIRS: \"{dirs}\"}}\n\
         entrypoint: [/bin/sh, -c]\nargs:\n- |\n  {}\n",
        SCRIPT.replace('$', "$$")
    )
}

fn the_matrix(lab: &mut Lab) -> Result {
    let failed = |error: std::io::Error| error.to_string();
    let cells = cells();
    for cell in cells.iter().filter(|cell| cell.kind == "named") {
        let bind = lab.manifests.join(&cell.name);
        std::fs::create_dir(&bind).map_err(failed)?;
        // somebody's, and another's to read
        std::fs::set_permissions(&bind, PermissionsExt::from_mode(0o755)).map_err(failed)?;
        chown(&bind, Some(12345), Some(6)).map_err(failed)?;
    }
    let all: Vec<String> = cells.iter().map(|cell| manifest(lab, cell)).collect();
    lab.write("matrix.yaml", &all.join("---\n"))?;
    lab.start_controller()?;
    let mut table = String::new();
    for cell in &cells {
        table += &rows(lab, cell)?;
    }
    ensure!(table == GOLDEN, "another table than expected:\n{table}");
    Ok(())
}

/// The rows of one container: one for each of its directories.
fn rows(lab: &Lab, cell: &Cell) -> Result<String> {
    let key = format!("job/{}", cell.name);
    let (_, pid) = lab.started(&key)?;
    let (said, _) = wait_for(&format!("{key} has looked"), Duration::from_secs(20), || {
        let said = lab.ok(&["logs", &key])?;
        ensure!(said.lines().any(|line| line.ends_with("end")), "{said}");
        Ok(said)
    })?;
    let mut ids = "";
    let mut rows = String::new();
    for line in said.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [dir, owner, mode, files, written] = match words[..] {
            ["id", of] => {
                ids = of;
                continue;
            }
            [a, b, c, d, e] => [a, b, c, d, e],
            _ => break,
        };
        let kind = if dir == cell.dir { cell.kind } else { dir.trim_start_matches('/') };
        let on_disk = if kind == "tmpfs" { "-".to_owned() } else { on_disk(lab, pid, dir)? };
        rows += &format!(
            "{:11} {:8} as {ids:9} {kind:9} {owner} {mode}, {files} files, writes {written}, on disk {on_disk}\n",
            cell.image, cell.user
        );
    }
    Ok(rows)
}

/// The owner of what was written, as the host sees it.
fn on_disk(lab: &Lab, pid: i32, dir: &str) -> Result<String> {
    let file = host_directory(lab, pid, dir)?.join("x");
    match std::fs::metadata(&file) {
        Ok(data) => Ok(format!("{}:{}", data.uid(), data.gid())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok("no".into()),
        Err(error) => Err(format!("{}: {error}", file.display())),
    }
}

/// What a process may do is what owner and mode in the image say, and what it writes has the same owner on disk as inside.
const GOLDEN: &str = "\
nginx:1     default  as 0:0       named     root:root 755, 2 files, writes 0:0, on disk 0:0
nginx:1     default  as 0:0       bind      UNKNOWN:disk 755, 0 files, writes 0:0, on disk 0:0
nginx:1     default  as 0:0       tmpfs     root:root 1777, 0 files, writes 0:0, on disk -
nginx:1     root     as 0:0       named     root:root 755, 2 files, writes 0:0, on disk 0:0
nginx:1     root     as 0:0       bind      UNKNOWN:disk 755, 0 files, writes 0:0, on disk 0:0
nginx:1     root     as 0:0       tmpfs     root:root 1777, 0 files, writes 0:0, on disk -
nginx:1     12345:6  as 12345:6   named     root:root 755, 2 files, writes no, on disk no
nginx:1     12345:6  as 12345:6   bind      UNKNOWN:disk 755, 0 files, writes 12345:6, on disk 12345:6
nginx:1     12345:6  as 12345:6   tmpfs     root:root 1777, 0 files, writes 12345:6, on disk -
nginx:1     www-data as 33:33     named     root:root 755, 2 files, writes no, on disk no
nginx:1     www-data as 33:33     bind      UNKNOWN:disk 755, 0 files, writes no, on disk no
nginx:1     www-data as 33:33     tmpfs     root:root 1777, 0 files, writes 33:33, on disk -
redis:user  default  as 100:101   named     redis:redis 755, 0 files, writes 100:101, on disk 100:101
redis:user  default  as 100:101   bind      UNKNOWN:disk 755, 0 files, writes no, on disk no
redis:user  default  as 100:101   tmpfs     root:root 1777, 0 files, writes 100:101, on disk -
redis:user  default  as 100:101   anonymous redis:redis 755, 0 files, writes 100:101, on disk 100:101
redis:user  root     as 0:0       named     redis:redis 755, 0 files, writes 0:0, on disk 0:0
redis:user  root     as 0:0       bind      UNKNOWN:disk 755, 0 files, writes 0:0, on disk 0:0
redis:user  root     as 0:0       tmpfs     root:root 1777, 0 files, writes 0:0, on disk -
redis:user  root     as 0:0       anonymous redis:redis 755, 0 files, writes 0:0, on disk 0:0
redis:user  12345:6  as 12345:6   named     redis:redis 755, 0 files, writes no, on disk no
redis:user  12345:6  as 12345:6   bind      UNKNOWN:disk 755, 0 files, writes 12345:6, on disk 12345:6
redis:user  12345:6  as 12345:6   tmpfs     root:root 1777, 0 files, writes 12345:6, on disk -
redis:user  12345:6  as 12345:6   anonymous redis:redis 755, 0 files, writes no, on disk no
redis:user  redis    as 100:101   named     redis:redis 755, 0 files, writes 100:101, on disk 100:101
redis:user  redis    as 100:101   bind      UNKNOWN:disk 755, 0 files, writes no, on disk no
redis:user  redis    as 100:101   tmpfs     root:root 1777, 0 files, writes 100:101, on disk -
redis:user  redis    as 100:101   anonymous redis:redis 755, 0 files, writes 100:101, on disk 100:101
postgres:15 default  as 0:0       named     postgres:postgres 755, 0 files, writes 0:0, on disk 0:0
postgres:15 default  as 0:0       bind      UNKNOWN:disk 755, 0 files, writes 0:0, on disk 0:0
postgres:15 default  as 0:0       tmpfs     root:root 1777, 0 files, writes 0:0, on disk -
postgres:15 default  as 0:0       anonymous postgres:postgres 755, 0 files, writes 0:0, on disk 0:0
postgres:15 root     as 0:0       named     postgres:postgres 755, 0 files, writes 0:0, on disk 0:0
postgres:15 root     as 0:0       bind      UNKNOWN:disk 755, 0 files, writes 0:0, on disk 0:0
postgres:15 root     as 0:0       tmpfs     root:root 1777, 0 files, writes 0:0, on disk -
postgres:15 root     as 0:0       anonymous postgres:postgres 755, 0 files, writes 0:0, on disk 0:0
postgres:15 12345:6  as 12345:6   named     postgres:postgres 755, 0 files, writes no, on disk no
postgres:15 12345:6  as 12345:6   bind      UNKNOWN:disk 755, 0 files, writes 12345:6, on disk 12345:6
postgres:15 12345:6  as 12345:6   tmpfs     root:root 1777, 0 files, writes 12345:6, on disk -
postgres:15 12345:6  as 12345:6   anonymous postgres:postgres 755, 0 files, writes no, on disk no
postgres:15 postgres as 100:102   named     postgres:postgres 755, 0 files, writes 100:102, on disk 100:102
postgres:15 postgres as 100:102   bind      UNKNOWN:disk 755, 0 files, writes no, on disk no
postgres:15 postgres as 100:102   tmpfs     root:root 1777, 0 files, writes 100:102, on disk -
postgres:15 postgres as 100:102   anonymous postgres:postgres 755, 0 files, writes 100:102, on disk 100:102
";
