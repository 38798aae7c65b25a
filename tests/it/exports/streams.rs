//! Readers and writers that fail or deliver a byte at a time.

use super::*;

/// A writer that fails after that many bytes.
struct Torn(usize);

fn torn() -> io::Error {
    io::Error::other("torn")
}

impl AsyncWrite for Torn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.0 == 0 {
            return Poll::Ready(Err(torn()));
        }
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A reader that returns one byte of the text at a time, and then fails.
struct Dripping(Vec<u8>);

impl AsyncRead for Dripping {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Ready(Err(torn()));
        }
        into.put_slice(&[self.0.remove(0)]);
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn readers_and_writers_may_fail() {
    let map = open_numbers(&store()).await;
    map.extend((0..20_000).map(|n| (n.to_string(), n)));
    for room in [0, 10, 100_000] {
        let error = map.export(Torn(room)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unusable);
        assert!(format!("{error:?}").contains("torn"), "{error:?}");
    }
    let text = format!("{HEADER}\n{{\"key\":\"new\",\"value\":1}}\n{{\"key\"");
    let error = map.import(Dripping(text.into_bytes())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unusable);
    assert!(error.to_string().contains("line 2"), "{error}");
    assert_eq!(map.get("new"), Some(1));
}
