use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::history::Filed;

fn draft(text: &str) -> Draft {
    let files = vec![Filed { name: "pylon.yaml".into(), text: text.repeat(PIECE) }];
    Draft { hash: text.to_owned(), who: "a test".to_owned(), why: None, over: None, document: None, files }
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state")).unwrap();
    (folder, store)
}

fn numbers(store: &Store) -> Vec<(u64, bool)> {
    store.entries().unwrap().map(|entry| (entry.number, entry.revision.is_ok())).collect()
}

/// A disk that stops for good behind so many steps, as that of a process that is killed: of what is being written then,
/// half arrives.
struct Dying {
    steps: usize,
}

impl Dying {
    fn step(&mut self) -> io::Result<()> {
        self.steps = self.steps.checked_sub(1).ok_or_else(|| io::Error::other("killed"))?;
        Ok(())
    }
}

impl Disk for Dying {
    type File = File;

    fn create(&mut self, path: &Path) -> io::Result<File> {
        self.step()?;
        System.create(path)
    }

    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.step() {
            System.write(file, &bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        System.write(file, bytes)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        self.step()?;
        System.sync(file)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        System.rename(from, to)
    }

    fn sync_folder(&mut self, folder: &Path) -> io::Result<()> {
        self.step()?;
        System.sync_folder(folder)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        System.remove(path)
    }
}

#[test]
fn whoever_dies_at_any_step_of_writing_loses_no_revision_and_is_in_nobodys_way() {
    let mut acknowledged = false;
    for steps in 0.. {
        let (_folder, store) = store();
        for text in ["a", "b"] {
            store.append(draft(text)).unwrap();
        }
        acknowledged = store.append_by(&mut Dying { steps }, draft("c")).is_ok();
        let after = numbers(&store);
        assert!(after.iter().all(|(_, whole)| *whole), "{steps} steps: {after:?}");
        assert!(after.ends_with(&[(2, true), (1, true)]), "{steps} steps: {after:?}");
        assert!(after.len() == 3 || !acknowledged, "{steps} steps: an acknowledged revision is lost");
        let next = store.append(draft("d")).unwrap();
        assert_eq!((next.number, store.read(next.number).unwrap()), (after[0].0 + 1, next.clone()), "{steps} steps");
        if acknowledged {
            break;
        }
    }
    assert!(acknowledged);
}

#[test]
fn a_revision_that_is_torn_or_changed_is_noticed_and_its_number_is_not_given_again() {
    let (_folder, store) = store();
    for text in ["a", "b"] {
        store.append(draft(text)).unwrap();
    }
    let whole = fs::read(store.path(2)).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for (bytes, damage) in [
        (&whole[..whole.len() - 1], Damage::Length),
        (&whole[..10], Damage::Mark),
        (&[][..], Damage::Mark),
        (&flipped[..], Damage::Checksum),
        (&fs::read(store.path(1)).unwrap()[..], Damage::Content),
    ] {
        fs::write(store.path(2), bytes).unwrap();
        assert!(matches!(store.read(2), Err(StoreError::Damaged(_, found)) if found == damage), "{damage:?}");
        assert_eq!(numbers(&store), [(2, false), (1, true)]);
        assert_eq!(store.newest().unwrap().unwrap().number, 1);
    }
    // The same as the newest that is whole, which does not stand at the end.
    assert_eq!(store.append(draft("a")).unwrap().number, 3);
}

#[test]
fn the_same_content_is_no_new_revision() {
    let (_folder, store) = store();
    for (text, number) in [("a", 1), ("a", 1), ("b", 2), ("a", 3)] {
        assert_eq!(store.append(draft(text)).unwrap().number, number);
    }
}

#[test]
fn the_last_fifty_are_kept_and_nobody_else_may_read_them() {
    let (_folder, store) = store();
    for number in 0..53 {
        store.append(draft(&format!("{number}"))).unwrap();
    }
    let kept: Vec<_> = numbers(&store).into_iter().map(|(number, _)| number).collect();
    assert_eq!(kept, (4..=53).rev().collect::<Vec<_>>());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&store.path(53)), 0o600);
    assert_eq!((mode(store.folder()), mode(&store.revisions())), (0o700, 0o700));
}

#[test]
fn writers_at_the_same_time_get_numbers_of_their_own() {
    let (_folder, store) = store();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let store = store.clone();
            std::thread::spawn(move || {
                (0..5).map(|n| store.append(draft(&format!("{writer}.{n}"))).unwrap().number).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut given: Vec<_> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
    given.sort_unstable();
    assert_eq!(given, (1..=20).collect::<Vec<_>>());
}
