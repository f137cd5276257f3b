//! What only the embedded store promises: one host per directory, and a torn tail.

use std::fs;
use std::path::Path;

use weir::store::StoreError;
use weir::store::embedded::EmbeddedStore;

use crate::stand::{Embedded, KIND, Stand, known};

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The database's write-ahead logs: the files whose tail a crash can tear.
fn logs(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_belongs_to_one_host() {
    let mut stand = Stand::<Embedded>::new().await;
    let Err(StoreError::Misconfigured(message)) = EmbeddedStore::open(&stand.config) else {
        panic!("a second host must be refused")
    };
    assert!(message.contains("another process"), "{message}");
    stand.close();
    stand.open().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_taken_at_any_moment_holds_what_was_acknowledged() {
    let stand = Stand::<Embedded>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[]).await;
    for round in 1..=5u64 {
        for n in 0..10 {
            stand.done(1, i64::try_from(round * 100 + n).unwrap()).await;
        }
        // As a kill leaves it: nothing was closed.
        let copy = stand.backend.0.path().join(format!("copy-{round}"));
        copy_directory(&stand.config.path, &copy);
        let mut config = stand.config.clone();
        config.path = copy;
        let (directory, _) = <Embedded as crate::stand::Backend>::start();
        let reopened = Stand::<Embedded>::on(directory, config, |_| {}).await;
        assert_eq!(reopened.head(0).await, stand.head(0).await);
        // SQL holds nothing of it yet: all comes from the journal.
        reopened.load_whole(1, &[]).await;
        assert_eq!(reopened.read(1, i64::try_from(round * 100).unwrap()).await, known(true, round * 10));
        assert_eq!(reopened.changes(0, 7).await, stand.changes(0, 7).await);
        reopened.done(1, 9_999).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_tail_loses_only_what_was_torn() {
    let stand = Stand::<Embedded>::tuned(|config| config.partitions = 1).await;
    stand.load_whole(1, &[]).await;
    for actor in 0..10 {
        stand.done(1, actor).await;
    }
    let before = logs(&stand.config.path);
    let log = before.last().expect("a write-ahead log").clone();
    // Where the acknowledged part ends; the file may be longer than what was written.
    let whole = fs::read(&log).unwrap();
    stand.done(1, 100).await;
    let longer = fs::read(&log).unwrap();
    let start = whole.iter().zip(&longer).take_while(|(a, b)| a == b).count();
    let end = longer.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert!(end > start, "the eleventh toggle was appended");
    for (index, cut) in [start + 1, start + (end - start) / 2, end - 1].into_iter().enumerate() {
        let copy = stand.backend.0.path().join(format!("torn-{index}"));
        copy_directory(&stand.config.path, &copy);
        let torn = copy.join(log.file_name().unwrap());
        fs::write(&torn, &longer[..cut]).unwrap();
        let mut config = stand.config.clone();
        config.path = copy;
        let (directory, _) = <Embedded as crate::stand::Backend>::start();
        let reopened = Stand::<Embedded>::on(directory, config, |_| {}).await;
        assert_eq!(reopened.changes(0, 100).await.len(), 10, "cut at {cut} of {start}..{end}");
        reopened.load_whole(1, &[]).await;
        assert_eq!(reopened.read(1, 100).await, known(false, 10), "all of a batch or nothing of it");
        assert_eq!(reopened.done(1, 100).await.state.count, 11);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_store_takes_no_more_and_lost_nothing() {
    let mut stand = Stand::<Embedded>::tuned(|config| config.partitions = 1).await;
    stand.close();
    let store = EmbeddedStore::open(&stand.config).unwrap();
    weir::store::Store::heads(&store, KIND, &[0]).await.unwrap();
    store.close().await;
    let refused = weir::store::Store::ping(&store).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    drop(store);
    stand.open().await;
}
