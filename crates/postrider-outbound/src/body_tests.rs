//! Bodies in every framing, cut into pieces anywhere.

use super::*;
use proptest::prelude::*;

const CAP: usize = 100;

/// Feeds the pieces until the body says something else than "more"; also returns what was not taken.
fn read(framing: Framing, pieces: &[&[u8]]) -> (Vec<u8>, BodyState, Vec<u8>) {
    let mut body = Body::new(framing, CAP);
    let mut left = Vec::new();
    let mut state = body.feed(b"").1;
    for piece in pieces {
        if state == BodyState::Open {
            let (taken, next) = body.feed(piece);
            state = next;
            left.extend_from_slice(&piece[taken..]);
        } else {
            left.extend_from_slice(piece);
        }
    }
    (body.into_kept(), state, left)
}

#[test]
fn a_body_ends_where_its_length_says() {
    let (kept, state, left) = read(Framing::Length(3), &[b"a", b"bcd"]);
    assert_eq!((&kept[..], state, &left[..]), (&b"abc"[..], BodyState::Ended, &b"d"[..]));
    assert_eq!(read(Framing::Empty, &[b"x"]), (Vec::new(), BodyState::Ended, b"x".to_vec()));
    assert_eq!(read(Framing::Length(0), &[]).1, BodyState::Ended);
}

#[test]
fn only_a_body_without_length_may_end_with_the_connection() {
    assert_eq!(Body::new(Framing::UntilClose, CAP).close(), BodyState::Ended);
    assert_eq!(Body::new(Framing::Length(1), CAP).close(), BodyState::Broken);
    assert_eq!(Body::new(Framing::Chunked, CAP).close(), BodyState::Broken);
}

#[test]
fn exactly_the_cap_is_kept_and_one_byte_more_is_too_long() {
    let bytes = [b'x'; CAP + 1];
    assert_eq!(read(Framing::Length(CAP as u64), &[&bytes[..CAP]]).1, BodyState::Ended);
    assert_eq!(read(Framing::UntilClose, &[&bytes[..CAP]]).1, BodyState::Open);
    for framing in [Framing::Length(CAP as u64 + 1), Framing::UntilClose] {
        let (kept, state, _) = read(framing, &[&bytes]);
        assert_eq!((kept.len(), state), (CAP, BodyState::Overlong));
    }
}

#[test]
fn chunks_with_extensions_and_trailers_are_read() {
    let bytes = b"3;name=\"v\"\r\nabc\r\n0A \r\n0123456789\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\nrest";
    let (kept, state, left) = read(Framing::Chunked, &[bytes]);
    assert_eq!((&kept[..], state, &left[..]), (&b"abc0123456789"[..], BodyState::Ended, &b"rest"[..]));
}

#[test]
fn bad_chunks_are_broken() {
    for bytes in [
        &b"x\r\n"[..],
        b"\r\n",
        b";\r\n",
        b"3\nabc",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"11111111111111111\r\n",
        b"1 1\r\n",
    ] {
        assert_eq!(
            read(Framing::Chunked, &[bytes]).1,
            BodyState::Broken,
            "{}",
            String::from_utf8_lossy(bytes)
        );
    }
    assert_eq!(read(Framing::Chunked, &[&[b'1'; 2 * LINE_BYTES]]).1, BodyState::Broken);
    let trailers = [b"0\r\n".to_vec(), b"a: b\r\n".repeat(10_000)].concat();
    assert_ne!(read(Framing::Chunked, &[&trailers]).1, BodyState::Ended);
}

/// E06: chunks of one byte cannot go on for ever below the cap.
#[test]
fn overhead_is_bounded() {
    let line = [b"1;".to_vec(), vec![b'e'; LINE_BYTES - 10], b"\r\na\r\n".to_vec()].concat();
    let (kept, state, _) = read(Framing::Chunked, &[&line, &line, &line]);
    assert_eq!(state, BodyState::Overlong);
    assert!(kept.len() <= 3);
}

proptest! {
    /// The result does not depend on how the bytes were cut.
    #[test]
    fn cuts_do_not_matter(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..6),
        cut in 0_usize..200,
        tail in prop::collection::vec(any::<u8>(), 0..5),
    ) {
        let mut bytes = Vec::new();
        for chunk in &chunks {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes.extend_from_slice(&tail);
        let cut = cut.min(bytes.len());
        let whole = read(Framing::Chunked, &[&bytes]);
        prop_assert_eq!(&read(Framing::Chunked, &[&bytes[..cut], &bytes[cut..]]), &whole);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(&read(Framing::Chunked, &single), &whole);
        if chunks.concat().len() <= CAP {
            prop_assert_eq!(whole, (chunks.concat(), BodyState::Ended, tail));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_exceed_the_cap(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        for framing in [Framing::Chunked, Framing::UntilClose, Framing::Length(17)] {
            prop_assert!(read(framing, &pieces).0.len() <= CAP);
        }
    }
}
