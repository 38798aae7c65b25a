//! Maps that are dropped and listed; options, locks and handles.

use persistify::{ErrorKind, Journaled, Memory, PersistentMap, Provider, ProviderExt, Wanted};

use super::{down_for_commits, journaled, kinds, restart};
use crate::support::{Pen, Plain, as_it_is, map_name, open, put, records::load, store, stored};

#[tokio::test]
async fn a_map_that_is_dropped_takes_its_journal_with_it() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let store = journaled(&remote, folder.path());
    let map = open::<u32>(store.clone(), "map", as_it_is).await;
    map.insert_and_save("a", 1).await.unwrap();
    down_for_commits(&remote);
    map.insert_and_save("b", 1).await.unwrap();
    let error = store.drop_map(&map_name()).await.unwrap_err();
    assert_eq!(kinds(&error), (ErrorKind::Unavailable, false));
    remote.behave();
    store.drop_map(&map_name()).await.unwrap();
    assert!(remote.maps().await.unwrap().is_empty());
    // The open map has not seen the drop.
    let late = map.insert_and_save("c", 1).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Rewound);
    let anew = open::<u32>(store.clone(), "map", as_it_is).await;
    assert!(anew.is_empty());
    anew.insert_and_save("d", 1).await.unwrap();
    store.drain().await.unwrap();
    assert_eq!(stored(&remote).await.len(), 1);
}

#[tokio::test]
async fn the_maps_of_the_journal_are_hidden_and_their_name_is_reserved() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let store = journaled(&remote, folder.path());
    let map = open::<u32>(store.clone(), "map", as_it_is).await;
    map.insert_and_save("a", 1).await.unwrap();
    assert_eq!(store.maps().await.unwrap(), [map_name()]);
    store.drain().await.unwrap();
    assert_eq!(store.maps().await.unwrap(), [map_name()]);
    assert_eq!(remote.maps().await.unwrap().len(), 2);
    let opened = PersistentMap::<u32>::builder(store, "journal-owner")
        .open()
        .await;
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::Invalid);
}

mod encrypting {
    use persistify::{Capabilities, Layer, Memory, Provider};

    /// A layer that claims to encrypt.
    #[derive(Debug)]
    pub(super) struct Encrypting(pub(super) Memory);

    impl Layer for Encrypting {
        fn inner(&self) -> &dyn Provider {
            &self.0
        }

        fn capabilities(&self) -> Capabilities {
            self.inner().capabilities().with_encrypted()
        }
    }
}

#[tokio::test]
async fn a_wrong_option_or_order_is_an_error_at_the_first_load() {
    let folder = tempfile::tempdir().unwrap();
    let layer = || Journaled::new(folder.path());
    let opened = |error: persistify::Result<Vec<_>>| error.unwrap_err();
    let over = encrypting::Encrypting(Memory::new()).layer(layer());
    let error = opened(load(&over, &map_name(), Wanted::All).await);
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("above"), "{error}");
    let small = Memory::new().layer(layer().max_bytes(1));
    let error = opened(load(&small, &map_name(), Wanted::All).await);
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("max_bytes"), "{error}");
    let plain = Plain(Memory::new()).layer(layer());
    let error = opened(load(&plain, &map_name(), Wanted::All).await);
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn one_process_has_the_folder_and_a_closed_layer_says_so() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let first = journaled(&remote, folder.path());
    first.drain().await.unwrap();
    let second = journaled(&remote, folder.path());
    let error = second.drain().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    first.close().await.unwrap();
    second.drain().await.unwrap();
    let error = load(&first, &map_name(), Wanted::All).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn the_last_handle_ends_the_drain_and_unlocks_the_folder() {
    let (remote, folder) = (store(), tempfile::tempdir().unwrap());
    let store = journaled(&remote, folder.path());
    store.load(&map_name(), Wanted::All).await.unwrap();
    remote.down(ErrorKind::Unavailable);
    Pen::new()
        .write(&store, &map_name(), vec![put("a", "1")])
        .await
        .unwrap();
    let again = restart(store, || journaled(&remote, folder.path())).await;
    remote.up();
    again.drain().await.unwrap();
    assert_eq!(stored(&remote).await.len(), 1);
}
