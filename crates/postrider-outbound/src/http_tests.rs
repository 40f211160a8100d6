//! The exchange over bytes from nowhere: arbitrary answers in arbitrary portions.

use super::*;
use crate::{body::Body, response_head::Framing};
use proptest::prelude::*;
use tokio::io::{AsyncWriteExt, duplex, join, sink};

async fn answered(bytes: &[u8]) -> Result<(Head, Vec<u8>, BodyState), Broken> {
    let mut io = join(bytes, sink());
    let (mut inbox, mut progress) = (Inbox::default(), Progress::default());
    let outgoing = Outgoing::new(b"POST / HTTP/1.1\r\n\r\n", b"body");
    let (head, complete) = exchange(&mut io, &mut inbox, outgoing, &mut progress).await?;
    assert!(complete && progress.sent);
    let mut body = Body::new(head.framing, 20_000);
    let state = read_body(&mut io, &mut inbox, &mut body).await;
    Ok((head, body.into_kept(), state))
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[tokio::test]
async fn head_and_body_are_written_whole_in_any_portions() {
    let (mut ours, mut theirs) = duplex(7);
    let body = vec![b'b'; 1000];
    let reader = tokio::spawn(async move {
        let request = crate::testing::read_request(&mut theirs).await.unwrap();
        theirs.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        request
    });
    let head = b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n";
    let (mut inbox, mut progress) = (Inbox::default(), Progress::default());
    let (answer, complete) =
        exchange(&mut ours, &mut inbox, Outgoing::new(head, &body), &mut progress).await.unwrap();
    assert_eq!((answer.status, answer.framing, complete), (200, Framing::Length(0), true));
    assert_eq!(reader.await.unwrap().len(), head.len() + body.len());
}

#[test]
fn the_read_buffer_gives_back_what_it_grew() {
    let mut inbox = Inbox::default();
    for _ in 0..4 {
        let room = inbox.space().len();
        inbox.end += room;
    }
    assert_eq!(inbox.filled().len(), HEAD_BYTES);
    inbox.shrink();
    assert_eq!(inbox.bytes.len(), HEAD_BYTES, "what is in use stays");
    inbox.consume(usize::MAX / 2);
    inbox.shrink();
    assert_eq!(inbox.bytes.len(), 0);
}

/// A byte that HTTP gives a meaning to, or any other.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![prop::sample::select(&b"\r\n:; ,0123456789abcdefHTTP/.chunked"[..]), any::<u8>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// E11: whatever comes back, there is an answer or a reason, never a panic.
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(byte(), 0..300)) {
        let _ = run(answered(&bytes));
    }

    #[test]
    fn arbitrary_fields_and_bodies_never_panic(
        fields in prop::collection::vec(byte(), 0..80),
        body in prop::collection::vec(byte(), 0..200),
        framing in prop::sample::select(&["Content-Length: 9\r\n", "Transfer-Encoding: chunked\r\n", ""][..]),
    ) {
        let bytes = [b"HTTP/1.1 200 OK\r\n", &fields[..], framing.as_bytes(), b"\r\n\r\n", &body[..]].concat();
        if let Ok((head, kept, _)) = run(answered(&bytes)) {
            prop_assert!((200..=599).contains(&head.status) && kept.len() <= bytes.len());
        }
    }
}
