//! Data that outlives what wrote it: volumes as archives and back.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use super::on_images;
use crate::lab::Lab;
use crate::{Result, Scenario, ensure};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "a_volume_restored_elsewhere_is_the_same_tree",
        run: a_volume_restored,
        images: false,
        root: true,
        alone: false,
        limit_secs: 90,
    },
    on_images("a_stateful_app_of_three_keeps_its_data_by_ordinal", 240, a_stateful_app),
];

/// One line for all of a tree: names, kinds, modes, owners, times, attributes, links and contents.
fn tree_hash(dir: &Path) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut left = vec![dir.to_owned()];
    let mut names: std::collections::BTreeMap<u64, String> = std::collections::BTreeMap::new();
    while let Some(path) = left.pop() {
        let data = std::fs::symlink_metadata(&path)?;
        let name = path.strip_prefix(dir).unwrap_or(&path).display().to_string();
        // which names are one file
        let first = names.entry(data.ino()).or_insert_with(|| name.clone()).clone();
        let (mode, uid, gid) = (data.mode(), data.uid(), data.gid());
        hasher.update(format!("{name} {mode:o} {uid} {gid} {} {} {first}\n", data.mtime(), data.mtime_nsec()));
        let mut value = [0_u8; 64];
        let length = rustix::fs::lgetxattr(&path, "user.note", &mut value[..]).unwrap_or(0);
        hasher.update(&value[..length]);
        if data.is_symlink() {
            hasher.update(std::fs::read_link(&path)?.display().to_string());
        } else if data.is_file() {
            hasher.update(std::fs::read(&path)?);
        } else if data.is_dir() {
            let mut below: Vec<_> =
                std::fs::read_dir(&path)?.map(|entry| entry.map(|e| e.path())).collect::<std::io::Result<_>>()?;
            below.sort();
            left.extend(below);
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Everything a file system can hold that a program might count on.
fn fill(data: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(data.join("a/b"))?;
    std::fs::write(data.join("a/b/file"), "content")?;
    std::fs::hard_link(data.join("a/b/file"), data.join("a/same"))?;
    symlink("b/file", data.join("a/link"))?;
    symlink("/nowhere/at/all", data.join("dangling"))?;
    std::fs::write(data.join(format!("long-{}", "x".repeat(200))), "")?;
    let sparse = std::fs::File::create(data.join("sparse"))?;
    sparse.set_len(64 << 20)?;
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 32 << 20)?;
    rustix::fs::lsetxattr(data.join("a/b/file"), "user.note", b"kept", rustix::fs::XattrFlags::empty())?;
    chown(data.join("a/b/file"), Some(999), Some(70_000))?;
    std::fs::set_permissions(data.join("a/b/file"), std::fs::Permissions::from_mode(0o4751))?;
    std::fs::set_permissions(data.join("a"), std::fs::Permissions::from_mode(0o1700))?;
    chown(data, Some(101), Some(102))?;
    for path in ["a/b/file", "a/b", "a", "sparse", "."] {
        let file = std::fs::File::open(data.join(path))?;
        file.set_modified(UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789))?;
    }
    Ok(())
}

fn a_volume_restored(lab: &mut Lab) -> Result {
    let io = |error: std::io::Error| error.to_string();
    lab.write("volume.yaml", "apiVersion: boxship/v1\nkind: Volume\nname: uploads\n")?;
    lab.up()?;
    let data = lab.data_root.join("volumes/shop-uploads/data");
    fill(&data).map_err(|error| format!("fill the volume: {error}"))?;
    let before = tree_hash(&data).map_err(io)?;
    let archive = lab.dir.join("uploads.tar");
    let file = archive.to_string_lossy().into_owned();
    lab.ok(&["volume", "backup", "uploads", &file])?;
    ensure!(std::fs::metadata(&archive).map_err(io)?.mode() & 0o777 == 0o600, "others may read the backup");
    // to a machine that has never heard of it
    let elsewhere = lab.dir.join("elsewhere");
    let other = elsewhere.to_string_lossy().into_owned();
    lab.ok(&["volume", "restore", "shop/uploads", &file, "--data-root", &other])?;
    let there = elsewhere.join("volumes/shop-uploads/data");
    let after = tree_hash(&there).map_err(io)?;
    ensure!(before == after, "the tree is another one");
    let blocks = std::fs::metadata(there.join("sparse")).map_err(io)?.blocks();
    ensure!(blocks * 512 < 1 << 20, "a sparse file of 64 MiB takes {} KiB", blocks / 2);
    // what holds data is not replaced by mistake, and half an archive changes nothing
    let refused = lab.boxship(&["volume", "restore", "uploads", &file]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && said.contains("BX0606") && said.contains("--replace"), "said: {said}");
    let whole = std::fs::read(&archive).map_err(io)?;
    let half = lab.dir.join("half.tar");
    std::fs::write(&half, &whole[..whole.len() / 2]).map_err(io)?;
    let broken = lab.boxship(&["volume", "restore", "uploads", &half.to_string_lossy(), "--replace"]);
    ensure!(!broken.status.success(), "half an archive was taken");
    ensure!(tree_hash(&data).map_err(io)? == before, "half an archive changed the volume");
    std::fs::write(data.join("new"), "since then").map_err(io)?;
    lab.ok(&["volume", "restore", "uploads", &file, "--replace"])?;
    ensure!(tree_hash(&data).map_err(io)? == before, "a restore in place left something");
    ensure!(
        std::fs::read_dir(lab.data_root.join("volumes/shop-uploads")).map_err(io)?.count() == 3,
        "something is left"
    );
    Ok(())
}

const LIMIT: Duration = Duration::from_secs(90);

fn stateful_set(lab: &Lab, version: u32) -> String {
    let image = lab.image("busybox:1");
    // when it began and when it was ready, by a clock that all of them share
    let script = "test -e /data/id || hostname > /data/id; cut -d' ' -f1 /proc/uptime > /data/began; sleep 0.5; \
                  cut -d' ' -f1 /proc/uptime > /data/readied; touch /tmp/ready; trap 'exit 0' TERM; while true; do sleep 0.1; done";
    format!(
        "apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec:
  serviceName: db
  replicas: 3
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: db
        image: {image}
        command: [sh, -c, \"{script}\"]
        env: [{{name: VERSION, value: '{version}'}}]
        readinessProbe: {{exec: {{command: [cat, /tmp/ready]}}, periodSeconds: 1}}
        volumeMounts: [{{name: data, mountPath: /data}}]
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}
"
    )
}

/// Each replica has what the first of its number wrote.
fn data_is_by_ordinal(lab: &Lab) -> Result {
    for ordinal in 1..=3 {
        let name = format!("db-{ordinal}");
        let said = lab.ok(&["exec", &name, "--", "cat", "/data/id"])?;
        ensure!(said.trim() == name, "{name} has the data of {said}");
    }
    Ok(())
}

/// None began before the one below was ready.
fn began_in_order(lab: &Lab) -> Result {
    let clock = |name: &str, what: &str| -> Result<f64> {
        let said = lab.ok(&["exec", name, "--", "cat", what])?;
        said.trim().parse().map_err(|_| format!("{name}: {what}: {said:?}"))
    };
    for below in 1..3 {
        let (first, second) = (format!("db-{below}"), format!("db-{}", below + 1));
        let (readied, began) = (clock(&first, "/data/readied")?, clock(&second, "/data/began")?);
        let in_order = began >= readied;
        ensure!(in_order, "{second} began at {began}, {first} was ready at {readied}");
    }
    Ok(())
}

fn a_stateful_app(lab: &mut Lab) -> Result {
    lab.write("db.yaml", &stateful_set(lab, 1))?;
    lab.start_controller()?;
    lab.ready("app/db", 3, LIMIT)?;
    began_in_order(lab)?;
    data_is_by_ordinal(lab)?;
    // an archive of what is written to is refused, unless it is said to be meant
    let file = lab.dir.join("db.tar").to_string_lossy().into_owned();
    let refused = lab.boxship(&["volume", "backup", "data-db-1", &file]);
    ensure!(!refused.status.success(), "a volume in use was backed up as if it stood still");
    lab.ok(&["volume", "backup", "--live", "data-db-1", &file])?;
    // another version: the same data, replica by replica
    let before = lab.pids("app/db")?;
    lab.write("db.yaml", &stateful_set(lab, 2))?;
    let rolled = || {
        let now = lab.pids("app/db")?;
        ensure!(now.len() == 3 && now.iter().all(|(id, _)| !before.iter().any(|(old, _)| old == id)), "{now:?}");
        Ok(())
    };
    crate::wait::wait_for("all three are new", LIMIT, rolled)?;
    lab.ready("app/db", 3, LIMIT)?;
    data_is_by_ordinal(lab)?;
    // after a power cut they begin in order again
    lab.reboot(2)?;
    lab.start_controller()?;
    lab.ready("app/db", 3, LIMIT)?;
    began_in_order(lab)?;
    data_is_by_ordinal(lab)?;
    // fewer and again more: what was scaled away comes back to its own
    lab.write("db.yaml", &stateful_set(lab, 2).replace("replicas: 3", "replicas: 1"))?;
    lab.ready("app/db", 1, LIMIT)?;
    lab.write("db.yaml", &stateful_set(lab, 2))?;
    lab.ready("app/db", 3, LIMIT)?;
    data_is_by_ordinal(lab)
}
