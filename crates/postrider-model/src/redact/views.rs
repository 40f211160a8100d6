//! What a body says once its escapes are decoded, and where each decoded byte stood.

/// A decoded body.
pub(super) struct View {
    pub(super) bytes: Vec<u8>,
    /// For each byte of `bytes` its place in the body, and behind the last one the body's length.
    pub(super) starts: Vec<usize>,
}

/// The decodings that change this body.
pub(super) fn of(body: &[u8]) -> Vec<View> {
    let mut views = Vec::new();
    if body.contains(&b'%') {
        views.push(decoded(body, percent));
    }
    if body.contains(&b'+') {
        views.push(decoded(body, form));
    }
    if body.contains(&b'\\') {
        views.push(decoded(body, json));
    }
    views
}

/// One decoded character: its bytes, how many of them, and how many bytes of the body it took.
type Decoded = ([u8; 4], usize, usize);

fn decoded(body: &[u8], next: fn(&[u8]) -> Decoded) -> View {
    let mut view = View { bytes: Vec::with_capacity(body.len()), starts: Vec::with_capacity(body.len() + 1) };
    let mut at = 0;
    while at < body.len() {
        let (bytes, length, taken) = next(&body[at..]);
        view.bytes.extend_from_slice(&bytes[..length]);
        view.starts.resize(view.bytes.len(), at);
        at += taken.max(1);
    }
    view.starts.push(body.len());
    view
}

fn plain(byte: u8) -> Decoded {
    ([byte, 0, 0, 0], 1, 1)
}

/// `%41`; anything else stands for itself.
fn percent(rest: &[u8]) -> Decoded {
    let value = match rest {
        [b'%', high, low, ..] => hex(&[*high, *low]),
        _ => None,
    };
    match value {
        Some(value) => ([value.to_le_bytes()[0], 0, 0, 0], 1, 3),
        None => plain(rest[0]),
    }
}

/// `%41`, and `+` for a space.
fn form(rest: &[u8]) -> Decoded {
    if rest[0] == b'+' { plain(b' ') } else { percent(rest) }
}

/// The escapes of JSON strings, wherever they stand.
fn json(rest: &[u8]) -> Decoded {
    let [b'\\', escape, ..] = rest else {
        return plain(rest[0]);
    };
    let byte = match escape {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'b' => 8,
        b'f' => 12,
        b'"' | b'\\' | b'/' => *escape,
        b'u' => return json_unicode(rest).unwrap_or(plain(b'\\')),
        _ => return plain(b'\\'),
    };
    ([byte, 0, 0, 0], 1, 2)
}

/// `\u00e9`, or a pair of surrogates.
fn json_unicode(rest: &[u8]) -> Option<Decoded> {
    let unit = |at: usize| rest.get(at..at + 6)?.strip_prefix(b"\\u").and_then(hex);
    let first = unit(0)?;
    let (character, taken) = match char::from_u32(first) {
        Some(character) => (character, 6),
        None => (
            char::decode_utf16([u16::try_from(first).ok()?, u16::try_from(unit(6)?).ok()?]).next()?.ok()?,
            12,
        ),
    };
    let mut bytes = [0; 4];
    let length = character.encode_utf8(&mut bytes).len();
    Some((bytes, length, taken))
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))
}
