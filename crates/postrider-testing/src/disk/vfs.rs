//! SQLite's layer over the file system, with a [`Disk`] in between.
//!
//! A shim: every call goes on to SQLite's own layer for Unix, after the disk was told and asked. The structures are laid
//! out as SQLite demands: ours begins with the base structure `sqlite3_file`, the one of the layer below follows it in the
//! same allocation.

#![expect(unsafe_code, reason = "SQLite calls this layer through C structures of function pointers")]

use super::{Change, Disk, Handle, Refused, Trouble};
use rusqlite::ffi::{
    self, SQLITE_CANTOPEN, SQLITE_FULL, SQLITE_IOERR_DELETE, SQLITE_IOERR_FSYNC, SQLITE_IOERR_TRUNCATE,
    SQLITE_IOERR_WRITE, SQLITE_OK, SQLITE_OPEN_CREATE, SQLITE_OPEN_MAIN_JOURNAL, SQLITE_OPEN_SUPER_JOURNAL,
    SQLITE_OPEN_WAL, sqlite3_file, sqlite3_io_methods, sqlite3_vfs,
};
use std::{
    ffi::{CStr, OsStr, c_char, c_int, c_void},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    ptr,
    sync::{Arc, OnceLock},
};

const NAME: &CStr = c"postrider-failing-disk";

/// A file as SQLite sees it. The structure of the layer below lies directly behind it.
#[repr(C)]
struct File {
    base: sqlite3_file,
    /// Owned: made in [`open`], freed in [`close`].
    on: *mut On,
}

/// Where a file lies; `None` for SQLite's own temporary files, which no power cut concerns.
type On = Option<(Arc<Disk>, Handle)>;

/// Registers the layer once; returns its name.
pub(super) fn register() -> &'static str {
    static REGISTERED: OnceLock<()> = OnceLock::new();
    REGISTERED.get_or_init(|| {
        // SAFETY: "unix" is always registered, and neither it nor the leaked copy ever moves or goes away. The functions
        // that the copy keeps (time, randomness, shared libraries) do not look at their first argument.
        let code = unsafe {
            let below = ffi::sqlite3_vfs_find(c"unix".as_ptr());
            assert!(!below.is_null(), "SQLite has a layer for Unix");
            let size = c_int::try_from(size_of::<File>()).unwrap();
            let layer = sqlite3_vfs {
                szOsFile: size + (*below).szOsFile,
                pNext: ptr::null_mut(),
                zName: NAME.as_ptr(),
                pAppData: below.cast(),
                xOpen: Some(open),
                xDelete: Some(delete),
                xAccess: Some(access),
                xFullPathname: Some(full_path),
                ..*below
            };
            ffi::sqlite3_vfs_register(Box::leak(Box::new(layer)), 0)
        };
        assert_eq!(code, SQLITE_OK, "registering a layer");
    });
    NAME.to_str().unwrap()
}

/// What SQLite calls on an open file. Version 2: no memory-mapped reading, which the store does not use.
static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// The layer below.
///
/// SAFETY: `vfs` is the layer that [`register`] made.
unsafe fn vfs_below(vfs: *mut sqlite3_vfs) -> *mut sqlite3_vfs {
    // SAFETY: see above.
    unsafe { (*vfs).pAppData.cast() }
}

/// The file of the layer below.
///
/// SAFETY: `file` was given to [`open`], with `szOsFile` bytes.
unsafe fn file_below(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: see above; both structures are aligned to pointers.
    unsafe { file.cast::<File>().add(1).cast() }
}

/// Calls a method of the file below, with the file in the place of `file`.
macro_rules! below {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: SQLite calls methods only on files that were opened, and those of the layer below have all methods of
        // version 2.
        unsafe {
            let file = file_below($file);
            (*(*file).pMethods).$method.unwrap()(file $(, $argument)*)
        }
    }};
}

/// SAFETY: `file` is open, and SQLite calls it from one thread at a time.
unsafe fn on<'a>(file: *mut sqlite3_file) -> &'a mut On {
    // SAFETY: see above; `open` has set it.
    unsafe { &mut *(*file.cast::<File>()).on }
}

/// SAFETY: `name` is null or a path that ends with a zero.
unsafe fn disk_of(name: *const c_char) -> Option<(Arc<Disk>, String)> {
    if name.is_null() {
        return None;
    }
    // SAFETY: see above.
    let name = unsafe { CStr::from_ptr(name) };
    Disk::of(Path::new(OsStr::from_bytes(name.to_bytes())))
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives a path and room for a file.
    unsafe {
        // Without methods a file counts as never opened.
        (*file).pMethods = ptr::null();
        let on = match disk_of(name) {
            None => None,
            Some((disk, name)) => {
                let kinds = SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL;
                let log = flags & kinds != 0 && flags & SQLITE_OPEN_CREATE != 0;
                let Ok(handle) = disk.open(&name, log) else { return SQLITE_CANTOPEN };
                Some((disk, handle))
            }
        };
        let below = vfs_below(vfs);
        let code = (*below).xOpen.unwrap()(below, name, file_below(file), flags, out);
        if code == SQLITE_OK {
            (*file.cast::<File>()).on = Box::into_raw(Box::new(on));
            (*file).pMethods = &raw const METHODS;
        }
        code
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let code = below!(file, xClose);
    // SAFETY: `open` made it, and SQLite closes a file once.
    drop(unsafe { Box::from_raw((*file.cast::<File>()).on) });
    code
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    offset: i64,
) -> c_int {
    let real = || below!(file, xWrite, bytes, count, offset);
    // SAFETY: the file is open.
    let Some((disk, handle)) = (unsafe { on(file) }) else { return real() };
    // SAFETY: SQLite gives `count` bytes.
    let copy =
        unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), usize::try_from(count).unwrap()) }.to_vec();
    let change = Change::Write { offset: usize::try_from(offset).unwrap(), bytes: copy };
    code(disk.change(*handle, change, real), SQLITE_IOERR_WRITE)
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: i64) -> c_int {
    let real = || below!(file, xTruncate, size);
    // SAFETY: the file is open.
    let Some((disk, handle)) = (unsafe { on(file) }) else { return real() };
    code(disk.change(*handle, Change::Resize(usize::try_from(size).unwrap()), real), SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: the file is open.
    let Some((disk, handle)) = (unsafe { on(file) }) else { return below!(file, xSync, flags) };
    code(disk.sync(handle), SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn delete(vfs: *mut sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    // SAFETY: SQLite gives a path; the layer below has all functions.
    let real = || unsafe {
        let below = vfs_below(vfs);
        (*below).xDelete.unwrap()(below, name, sync_folder)
    };
    // SAFETY: as above.
    let Some((disk, name)) = (unsafe { disk_of(name) }) else { return real() };
    code(disk.delete(&name, sync_folder & 1 != 0, real), SQLITE_IOERR_DELETE)
}

/// The code that SQLite's own layer gives for it; `io` is that of the operation.
fn code(result: Result<(), Refused>, io: c_int) -> c_int {
    match result {
        Ok(()) => SQLITE_OK,
        Err(Refused::Failed(Trouble::Full)) => SQLITE_FULL,
        Err(Refused::Off | Refused::Failed(Trouble::Io)) => io,
        Err(Refused::Real(code)) => code,
    }
}

// The rest goes below as it is.

unsafe extern "C" fn access(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: the layer below has all functions.
    unsafe {
        let below = vfs_below(vfs);
        (*below).xAccess.unwrap()(below, name, flags, out)
    }
}

unsafe extern "C" fn full_path(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    size: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: the layer below has all functions.
    unsafe {
        let below = vfs_below(vfs);
        (*below).xFullPathname.unwrap()(below, name, size, out)
    }
}

unsafe extern "C" fn read(file: *mut sqlite3_file, into: *mut c_void, count: c_int, offset: i64) -> c_int {
    below!(file, xRead, into, count, offset)
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, out: *mut i64) -> c_int {
    below!(file, xFileSize, out)
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    below!(file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    below!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, out: *mut c_int) -> c_int {
    below!(file, xCheckReservedLock, out)
}

unsafe extern "C" fn file_control(file: *mut sqlite3_file, operation: c_int, argument: *mut c_void) -> c_int {
    below!(file, xFileControl, operation, argument)
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    below!(file, xSectorSize)
}

unsafe extern "C" fn device_characteristics(file: *mut sqlite3_file) -> c_int {
    below!(file, xDeviceCharacteristics)
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    below!(file, xShmMap, region, size, extend, out)
}

unsafe extern "C" fn shm_lock(file: *mut sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    below!(file, xShmLock, offset, count, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    below!(file, xShmBarrier);
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    below!(file, xShmUnmap, delete)
}
