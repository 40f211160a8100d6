//! Reads what `strace -f -tt -y -xx` wrote, and proves the order of syncs and answers. Pure.
//!
//! The order of lines is the order in which the tracer saw system calls begin and end. A thread that is stopped at the
//! end of a call goes on only after its line was written, so what it causes in other threads comes later in the file.

use std::collections::{HashMap, HashSet};

/// Bytes of a frame's head in SQLite's log, and of the page behind it.
const HEAD: usize = 24;
const PAGE: usize = 8192;
/// Where in a frame's head the size of the database stands, if the frame ends a commit; else zeros.
const COMMIT: std::ops::Range<usize> = 4..8;

/// A system call: the lines of its begin and its end, and what it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    begin: usize,
    end: usize,
    name: String,
    /// What the file descriptor leads to, and its number.
    path: String,
    descriptor: String,
    /// All bytes that were written.
    data: Vec<u8>,
    /// It returned zero or more.
    worked: bool,
    at: String,
}

/// An answer that came too early, or whose place could not be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// No write of the log holds the message.
    NotLogged,
    /// No sync covers the commit.
    NotSynced,
    /// The answer was not seen.
    NotAnswered,
    /// The first byte left before the sync had ended.
    Early {
        /// When.
        answered: String,
        synced: String,
    },
}

/// Reads a trace.
pub(crate) fn read(text: &str) -> Vec<Call> {
    let mut begun: HashMap<&str, Call> = HashMap::new();
    let mut calls = Vec::new();
    for (line, text) in text.lines().enumerate() {
        let Some((thread, rest)) = text.split_once(' ') else { continue };
        let Some((at, rest)) = rest.trim_start().split_once(' ') else { continue };
        if let Some((_, tail)) = rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            if let Some(call) = begun.remove(thread) {
                calls.push(Call { end: line, worked: worked(tail), ..call });
            }
            continue;
        }
        let Some(call) = call(line, at, rest) else { continue };
        if rest.ends_with("<unfinished ...>") {
            begun.insert(thread, call);
        } else {
            calls.push(Call { worked: worked(rest), ..call });
        }
    }
    calls.sort_by_key(|call| call.begin);
    calls
}

/// `name(9<path>, "data", …`
fn call(line: usize, at: &str, text: &str) -> Option<Call> {
    let (name, arguments) = text.split_once('(')?;
    let (descriptor, rest) = arguments.split_once('<')?;
    let (path, rest) = rest.split_once('>')?;
    let data = rest.split('"').skip(1).step_by(2).flat_map(bytes).collect();
    Some(Call {
        begin: line,
        end: line,
        name: name.to_owned(),
        path: String::from_utf8_lossy(&bytes(path)).into_owned(),
        descriptor: descriptor.to_owned(),
        data,
        worked: false,
        at: at.to_owned(),
    })
}

fn worked(text: &str) -> bool {
    text.rsplit_once(" = ").is_some_and(|(_, result)| !result.trim_start().starts_with(['-', '?']))
}

/// `\x41\x42` as bytes; a path may be written out instead.
fn bytes(text: &str) -> Vec<u8> {
    if !text.starts_with("\\x") {
        return text.as_bytes().to_vec();
    }
    text.split("\\x").filter_map(|byte| u8::from_str_radix(byte.get(..2)?, 16).ok()).collect()
}

/// A transaction in the log: what it wrote, and when that and its sync ended.
#[derive(Debug)]
struct Commit<'a> {
    pages: Vec<&'a [u8]>,
    written: usize,
    synced: Option<&'a Call>,
}

/// Finds for each message (the 20 bytes of its id, and the id as text) whether its answer left after the sync.
pub(crate) fn doubts(calls: &[Call], messages: &[([u8; 20], String)]) -> Vec<(String, Doubt)> {
    let commits = commits(calls);
    let accepted = first_commits(&commits, messages);
    let answers = answers(calls);
    let judge = |raw: &[u8; 20], id: &str| {
        let Some(commit) = accepted.get(raw) else { return Some(Doubt::NotLogged) };
        let Some(answer) = answers.get(id) else { return Some(Doubt::NotAnswered) };
        match commit.synced {
            None => Some(Doubt::NotSynced),
            Some(sync) if answer.begin <= sync.end => {
                Some(Doubt::Early { answered: answer.at.clone(), synced: sync.at.clone() })
            }
            Some(_) => None,
        }
    };
    messages.iter().filter_map(|(raw, id)| Some((id.clone(), judge(raw, id)?))).collect()
}

/// The first transaction that holds each message's id: that of its acceptance. Later ones hold it too.
fn first_commits<'a>(
    commits: &'a [Commit<'a>],
    messages: &[([u8; 20], String)],
) -> HashMap<[u8; 20], &'a Commit<'a>> {
    let wanted: HashSet<&[u8; 20]> = messages.iter().map(|(raw, _)| raw).collect();
    // Ids begin with their time: few beginnings, which spare most of the looking.
    let beginnings: HashSet<[u8; 2]> = wanted.iter().map(|raw| [raw[0], raw[1]]).collect();
    let mut first = HashMap::new();
    for commit in commits {
        let windows = commit.pages.iter().flat_map(|page| page.windows(20));
        for window in windows.filter(|window| beginnings.contains(&[window[0], window[1]])) {
            if let Ok(raw) = <[u8; 20]>::try_from(window)
                && wanted.contains(&raw)
            {
                first.entry(raw).or_insert(commit);
            }
        }
    }
    first
}

/// The transactions of the log in order, without one that the trace shows no end of.
fn commits(calls: &[Call]) -> Vec<Commit<'_>> {
    let mut commits = Vec::new();
    let mut pages = Vec::new();
    let mut ends_commit = false;
    let log = || calls.iter().filter(|call| call.path.ends_with("-wal"));
    for call in log().filter(|call| call.worked && call.name.contains("write")) {
        for (head, page) in frames(&call.data) {
            if let Some(head) = head {
                ends_commit = head.get(COMMIT).is_some_and(|size| size != [0; 4]);
            }
            let Some(page) = page else { continue };
            pages.push(page);
            if std::mem::take(&mut ends_commit) {
                commits.push(Commit { pages: std::mem::take(&mut pages), written: call.end, synced: None });
            }
        }
    }
    for commit in &mut commits {
        let is_sync = |call: &&Call| call.worked && call.name.ends_with("sync");
        commit.synced = log().filter(is_sync).find(|call| call.begin > commit.written);
    }
    commits
}

/// The head of a frame, its page, or both.
type Frame<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// Heads and pages of frames: SQLite writes them apart; together they are understood too.
fn frames(data: &[u8]) -> Vec<Frame<'_>> {
    match data.len() {
        HEAD => vec![(Some(data), None)],
        PAGE => vec![(None, Some(data))],
        length if length % (HEAD + PAGE) == 0 => {
            data.chunks(HEAD + PAGE).map(|frame| (Some(&frame[..HEAD]), Some(&frame[HEAD..]))).collect()
        }
        // The head of the log.
        _ => Vec::new(),
    }
}

/// The write that each acknowledgement begins with, by the message that it names.
fn answers(calls: &[Call]) -> HashMap<String, &Call> {
    let mut open: HashMap<(&str, &str), &Call> = HashMap::new();
    let mut answers = HashMap::new();
    let outgoing = |call: &&Call| !call.path.starts_with('/') && !call.data.is_empty();
    for call in calls.iter().filter(outgoing) {
        let connection = (call.path.as_str(), call.descriptor.as_str());
        if call.data.starts_with(b"HTTP/1.1 ") {
            open.remove(&connection);
            if call.data.starts_with(b"HTTP/1.1 202") {
                open.insert(connection, call);
            }
        }
        // The name may come with a later write than the first byte.
        if let (Some(first), Some(id)) = (open.get(&connection), named(&call.data)) {
            answers.entry(id).or_insert(*first);
        }
    }
    answers
}

/// The id of a message in a text.
fn named(text: &[u8]) -> Option<String> {
    let at = text.windows(4).position(|window| window == b"msg_")?;
    let word = text[at..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_');
    Some(word.map(|byte| char::from(*byte)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: [u8; 20] = *b"ABCDEFGHIJKLMNOPQRST";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| text + &format!("\\x{byte:02x}"))
    }

    /// The lines of one accepted message: two frames, the second ends the commit; a sync; an answer in two writes.
    fn lines() -> Vec<String> {
        let wal = hex(b"/data/postrider.db-wal");
        let socket = hex(b"socket:[77]");
        let mut page = vec![0; PAGE];
        page[100..120].copy_from_slice(&RAW);
        let (plain, mut last) = (vec![0; HEAD], vec![0; HEAD]);
        last[7] = 9;
        let write = |data: &[u8]| {
            format!("7 18:00:00.1 pwrite64(9<{wal}>, \"{}\", {}, 0) = {}", hex(data), data.len(), data.len())
        };
        let send = |data: &str| {
            format!("8 18:00:00.4 sendto(12<{socket}>, \"{}\", 9, 0, NULL, 0) = 9", hex(data.as_bytes()))
        };
        vec![
            write(&plain),
            write(&page),
            write(&last),
            write(&[0; PAGE]),
            format!("7 18:00:00.2 fdatasync(9<{wal}> <unfinished ...>"),
            "7 18:00:00.3 <... fdatasync resumed>) = 0".to_owned(),
            send("HTTP/1.1 202 Accepted\r\n\r\n"),
            send("{\"id\":\"msg_a\"}"),
        ]
    }

    fn doubt(lines: &[String]) -> Option<Doubt> {
        let found = doubts(&read(&lines.join("\n")), &[(RAW, "msg_a".to_owned())]);
        found.into_iter().next().map(|(_, doubt)| doubt)
    }

    #[test]
    fn an_answer_after_the_sync_is_proven() {
        assert_eq!(doubt(&lines()), None);
    }

    #[test]
    fn an_answer_whose_first_byte_leaves_before_the_sync_ends_is_found() {
        let mut early = lines();
        let head = early.remove(6);
        early.insert(5, head);
        assert!(matches!(doubt(&early), Some(Doubt::Early { .. })), "between begin and end of the sync");
        let mut late_sync = lines();
        let sync: Vec<String> = late_sync.drain(4..6).collect();
        late_sync.extend(sync);
        assert!(matches!(doubt(&late_sync), Some(Doubt::Early { .. })));
    }

    #[test]
    fn a_sync_that_began_before_the_commit_was_written_counts_for_nothing() {
        let mut lines = lines();
        let last = lines.remove(3);
        lines.insert(4, last);
        assert_eq!(doubt(&lines), Some(Doubt::NotSynced));
    }

    #[test]
    fn a_failed_or_missing_sync_and_a_missing_write_are_found() {
        let mut failed = lines();
        failed[5] = failed[5].replace("= 0", "= -1 EIO (Input/output error) (INJECTED)");
        assert_eq!(doubt(&failed), Some(Doubt::NotSynced));
        assert_eq!(doubt(&[&lines()[..4], &lines()[6..]].concat()), Some(Doubt::NotSynced));
        assert_eq!(doubt(&[&lines()[..1], &lines()[2..]].concat()), Some(Doubt::NotLogged));
        assert_eq!(doubt(&lines()[..6]), Some(Doubt::NotAnswered));
    }
}
