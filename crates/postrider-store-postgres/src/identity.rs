//! Who this node is: an id for each start, and which start came before it in the same data directory.
//!
//! While a process lives it holds a lock on the file: whoever gets the lock knows that the process of the start before
//! has ended, and may go on with its work at once. Without a data directory every start is a stranger.

use crate::{
    OpenError,
    values::{hex, unhex},
};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// An id of a start.
pub(crate) type NodeId = [u8; 16];

/// This start.
pub(crate) struct Identity {
    /// The start before, in the same place.
    pub(crate) before: Option<NodeId>,
    file: Option<File>,
}

impl Identity {
    /// Takes the lock and reads who was here before.
    pub(crate) fn take(data_dir: Option<&Path>) -> Result<Self, OpenError> {
        let Some(data_dir) = data_dir else { return Ok(Self { before: None, file: None }) };
        let path = data_dir.join("node");
        let failed = |what: &'static str| {
            let path = path.clone();
            move |source: io::Error| OpenError::Io { what, path, source }
        };
        fs::create_dir_all(data_dir).map_err(failed("create the data directory for the node's identity"))?;
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open the node's identity"))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(OpenError::InUse { data_dir: data_dir.to_owned() });
        }
        let mut text = String::new();
        // What does not read was written by nobody.
        let _ = file.read_to_string(&mut text);
        Ok(Self { before: parse(text.trim()), file: Some(file) })
    }

    /// From now on the place is this start's.
    pub(crate) fn remember(&mut self, node: NodeId) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(show(&node).as_bytes())
    }

    /// Gives the place free.
    pub(crate) fn give_up(&mut self) {
        // Closing the file is not enough: a child that this process is just starting holds a copy of it until its exec.
        if let Some(Err(error)) = self.file.take().map(|file| flock(&file, FlockOperation::Unlock)) {
            tracing::warn!(%error, "the node's identity could not be unlocked; closing its file must do");
        }
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// An id as text.
pub(crate) fn show(node: &NodeId) -> String {
    hex(node)
}

/// An id of its text.
pub(crate) fn parse(text: &str) -> Option<NodeId> {
    unhex(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_knows_the_one_before_and_keeps_others_out() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("data");
        let mut first = Identity::take(Some(&place)).unwrap();
        assert_eq!(first.before, None);
        first.remember([7; 16]).unwrap();
        let refused = Identity::take(Some(&place)).err().expect("it is locked").to_string();
        assert!(refused.contains("in use by another server"), "{refused}");
        // What a child has between fork and exec.
        let copy = first.file.as_ref().unwrap().try_clone().unwrap();
        drop(first);
        assert_eq!(Identity::take(Some(&place)).unwrap().before, Some([7; 16]));
        drop(copy);
        assert_eq!(Identity::take(None).unwrap().before, None);
    }

    #[test]
    fn ids_read_back() {
        assert_eq!(parse(&show(&[0xa7; 16])), Some([0xa7; 16]));
        assert_eq!(parse("zz"), None);
        assert_eq!(parse(&"é".repeat(16)), None);
    }
}
