//! Scenarios with the real kernel on a temporary directory: each way to save is exactly one revision, and nothing in
//! between is ever accepted. Each scenario ends with a marker change, so that a revision too many is counted.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Trigger, WatchOptions, Watcher};
use crate::manifest::{LoadOptions, load};
use crate::model::{Accepted, Confirmation, ObjectKey, accept};

const DEADLINE: Duration = Duration::from_secs(20);

fn app(name: &str, replicas: u32) -> String {
    format!("apiVersion: boxship/v1\nkind: App\nname: {name}\nimage: a\nreplicas: {replicas}\n")
}

/// What the loop of a controller does with a watcher: every accepted state is sent.
struct Loop {
    _root: tempfile::TempDir,
    dir: PathBuf,
    states: mpsc::UnboundedReceiver<Accepted>,
    overflow: mpsc::UnboundedSender<()>,
    _task: tokio::task::JoinHandle<()>,
}

fn options() -> WatchOptions {
    WatchOptions { settle: Duration::from_millis(400), resync: Duration::from_secs(3_600), ..WatchOptions::default() }
}

impl Loop {
    /// Starts on a directory that `prepare` fills, and waits for the first revision.
    async fn start(options: WatchOptions, prepare: impl FnOnce(&Path) -> PathBuf) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let dir = prepare(root.path());
        let (sender, states) = mpsc::unbounded_channel();
        let (overflow, mut overflows) = mpsc::unbounded_channel();
        let watched = dir.clone();
        let task = tokio::spawn(async move {
            let mut watcher = Watcher::new(&watched, options);
            let mut accepted = Accepted::default();
            loop {
                let trigger = tokio::select! {
                    trigger = watcher.next() => trigger,
                    Some(()) = overflows.recv() => {
                        watcher.overflow();
                        continue;
                    }
                };
                if trigger == Trigger::Resync {
                    continue;
                }
                let loaded = load(&watched, &LoadOptions::default());
                if !watcher.follow(&loaded) {
                    continue;
                }
                let (next, _) = accept(&accepted, &loaded, Confirmation::None);
                if next.desired.generation != accepted.desired.generation {
                    let _ = sender.send(next.clone());
                }
                accepted = next;
            }
        });
        let mut this = Self { _root: root, dir, states, overflow, _task: task };
        assert_eq!(this.next().await.desired.generation, 1);
        this
    }

    async fn plain() -> Self {
        Self::start(options(), |root| {
            write(root, "web.yaml", &app("web", 1));
            root.to_owned()
        })
        .await
    }

    async fn next(&mut self) -> Accepted {
        timeout(DEADLINE, self.states.recv()).await.expect("a revision before the deadline").expect("the loop runs")
    }

    /// Exactly one revision has come of what was done, and `web` has so many replicas in it.
    async fn expect_one(mut self, replicas: u32) {
        let state = self.next().await;
        assert_eq!((state.desired.generation, replicas_of(&state)), (2, Some(replicas)));
        write(&self.dir, "marker.yaml", &app("marker", 1));
        let last = self.next().await;
        assert_eq!(last.desired.generation, 3, "one revision too many: {:?}", last.desired.workloads.keys());
        assert_eq!(replicas_of(&last), Some(replicas));
    }
}

fn replicas_of(state: &Accepted) -> Option<u32> {
    let web = |key: &&ObjectKey| key.name == "web";
    let key = state.desired.workloads.keys().find(web)?;
    Some(state.desired.workloads[key].replicas)
}

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    std::fs::write(path, text).expect("a file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_atomic_rename() {
    let it = Loop::plain().await;
    write(&it.dir, ".web.yaml.tmp", &app("web", 2));
    std::fs::rename(it.dir.join(".web.yaml.tmp"), it.dir.join("web.yaml")).expect("rename");
    it.expect_one(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_in_place_in_two_halves() {
    use std::io::Write as _;
    let it = Loop::plain().await;
    // The first half alone is a good manifest with one replica: exactly what must not be taken.
    let text = app("web", 12);
    let (first, second) = text.split_at(text.len() - 2);
    let mut file = std::fs::File::create(it.dir.join("web.yaml")).expect("a file");
    file.write_all(first.as_bytes()).expect("write");
    file.write_all(second.as_bytes()).expect("write");
    it.expect_one(12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vims_way_to_save() {
    let it = Loop::plain().await;
    write(&it.dir, "4913", "");
    std::fs::remove_file(it.dir.join("4913")).expect("remove");
    write(&it.dir, ".web.yaml.swp", "swap");
    std::fs::rename(it.dir.join("web.yaml"), it.dir.join("web.yaml~")).expect("rename");
    write(&it.dir, "web.yaml", &app("web", 3));
    std::fs::remove_file(it.dir.join("web.yaml~")).expect("remove");
    std::fs::remove_file(it.dir.join(".web.yaml.swp")).expect("remove");
    it.expect_one(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_of_data_as_kubernetes_volumes_do_it() {
    let it = Loop::start(options(), |root| {
        write(root, "..v1/web.yaml", &app("web", 1));
        symlink("..v1", root.join("..data")).expect("symlink");
        symlink("..data/web.yaml", root.join("web.yaml")).expect("symlink");
        root.to_owned()
    })
    .await;
    write(&it.dir, "..v2/web.yaml", &app("web", 4));
    symlink("..v2", it.dir.join("..data_tmp")).expect("symlink");
    std::fs::rename(it.dir.join("..data_tmp"), it.dir.join("..data")).expect("rename");
    std::fs::remove_dir_all(it.dir.join("..v1")).expect("remove");
    it.expect_one(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_that_is_a_symlink_and_is_swapped() {
    let it = Loop::start(options(), |root| {
        write(root, "one/web.yaml", &app("web", 1));
        write(root, "two/web.yaml", &app("web", 5));
        symlink("one", root.join("live")).expect("symlink");
        root.join("live")
    })
    .await;
    let root = it.dir.parent().expect("a parent").to_owned();
    symlink("two", root.join("next")).expect("symlink");
    std::fs::rename(root.join("next"), root.join("live")).expect("rename");
    it.expect_one(5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_git_pull_is_waited_out() {
    let mut it = Loop::start(options(), |root| {
        write(root, ".git/HEAD", "ref: refs/heads/main\n");
        write(root, "web.yaml", &app("web", 1));
        root.to_owned()
    })
    .await;
    write(&it.dir, ".git/index.lock", "");
    write(&it.dir, "web.yaml", &app("web", 6));
    // Far longer than the settle time, and still half of the pull.
    let early = timeout(Duration::from_millis(1_500), it.states.recv()).await;
    assert!(early.is_err(), "accepted while git holds its lock");
    write(&it.dir, "web.yaml", &app("web", 7));
    std::fs::remove_file(it.dir.join(".git/index.lock")).expect("remove");
    it.expect_one(7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_left_behind_is_waited_for_only_so_long() {
    let options = WatchOptions { git_lock_max: Duration::from_millis(200), ..options() };
    let it = Loop::start(options, |root| {
        write(root, ".git/index.lock", "");
        write(root, "web.yaml", &app("web", 1));
        root.to_owned()
    })
    .await;
    write(&it.dir, "web.yaml", &app("web", 2));
    it.expect_one(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overflow_is_a_rescan_and_no_revision_by_itself() {
    let it = Loop::plain().await;
    for _ in 0..3 {
        it.overflow.send(()).expect("the loop runs");
    }
    write(&it.dir, "web.yaml", &app("web", 8));
    it.overflow.send(()).expect("the loop runs");
    it.expect_one(8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_moved_in_and_filled() {
    let it = Loop::start(options(), |root| {
        write(root, "m/other.yaml", &app("other", 1));
        write(root, "away/shop/web.yaml", &app("web", 2));
        root.join("m")
    })
    .await;
    let root = it.dir.parent().expect("a parent").to_owned();
    std::fs::rename(root.join("away/shop"), it.dir.join("shop")).expect("rename");
    it.expect_one(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_made_anew_is_watched_again() {
    let mut it = Loop::start(options(), |root| {
        write(root, "shop/web.yaml", &app("web", 1));
        write(root, "x/y.yaml", &app("other", 1));
        root.to_owned()
    })
    .await;
    std::fs::remove_dir_all(it.dir.join("shop")).expect("remove");
    assert_eq!(replicas_of(&it.next().await), None);
    write(&it.dir, "shop/web.yaml", &app("web", 2));
    assert_eq!(replicas_of(&it.next().await), Some(2));
    write(&it.dir, "shop/web.yaml", &app("web", 3));
    let state = it.next().await;
    assert_eq!((state.desired.generation, replicas_of(&state)), (4, Some(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_mounted_counts_and_bound_data_does_not() {
    let mounts = "mounts:\n- {path: /a, file: ../conf/a.toml}\n- {path: /b, bind: ./data}\n";
    let mut it = Loop::start(options(), |root| {
        write(root, "conf/a.toml", "x = 1");
        write(root, "m/data/rows", "1");
        write(root, "m/web.yaml", &format!("{}{mounts}", app("web", 1)));
        root.join("m")
    })
    .await;
    write(&it.dir, "data/rows", "2");
    write(&it.dir, "data/sub/more.txt", "2");
    write(it.dir.parent().expect("a parent"), "conf/a.toml", "x = 2");
    let state = it.next().await;
    assert_eq!(state.desired.generation, 2);
    // And by rename, as editors do.
    write(it.dir.parent().expect("a parent"), "conf/a.tmp", "x = 3");
    std::fs::rename(it.dir.join("../conf/a.tmp"), it.dir.join("../conf/a.toml")).expect("rename");
    assert_eq!(it.next().await.desired.generation, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn touching_and_rewriting_the_same_is_no_revision() {
    let mut it = Loop::plain().await;
    write(&it.dir, "web.yaml", &app("web", 1));
    write(&it.dir, "notes.txt", "x");
    write(&it.dir, "web.yaml", &format!("# a comment\n{}", app("web", 1)));
    write(&it.dir, "marker.yaml", &app("marker", 1));
    assert_eq!(it.next().await.desired.generation, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_watches_it_polls() {
    let options = WatchOptions { poll_only: true, poll: Duration::from_millis(100), ..options() };
    let it = Loop::start(options, |root| {
        write(root, "web.yaml", &app("web", 1));
        root.to_owned()
    })
    .await;
    write(&it.dir, "web.yaml", &app("web", 9));
    it.expect_one(9).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_that_appears_later() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let dir = root.path().join("etc/manifests");
    let mut watcher = Watcher::new(&dir, options());
    assert_eq!(watcher.next().await, Trigger::Manifests);
    let loaded = load(&dir, &LoadOptions::default());
    assert!(loaded.root_unreadable.is_some());
    assert!(watcher.follow(&loaded));
    write(&dir, "web.yaml", &app("web", 1));
    assert_eq!(timeout(DEADLINE, watcher.next()).await, Ok(Trigger::Manifests));
    assert_eq!(load(&dir, &LoadOptions::default()).objects.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_watcher_wakes_up_for_the_resync_only() {
    let root = tempfile::tempdir().expect("a temporary directory");
    write(root.path(), "web.yaml", &app("web", 1));
    let options = WatchOptions { resync: Duration::from_millis(300), ..options() };
    let mut watcher = Watcher::new(root.path(), options);
    assert_eq!(watcher.next().await, Trigger::Manifests);
    assert!(watcher.follow(&load(root.path(), &LoadOptions::default())));
    assert_eq!(timeout(DEADLINE, watcher.next()).await, Ok(Trigger::Resync));
    assert_eq!(timeout(DEADLINE, watcher.next()).await, Ok(Trigger::Resync));
    assert!(watcher.signals.try_recv().is_err(), "our own scans must not wake us");
}
