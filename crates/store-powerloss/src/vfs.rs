//! The C side: a `sqlite3_vfs` whose files forward to the default VFS and tell [`Disk`] what changes.
#![expect(unsafe_code, reason = "a VFS is a table of C functions over raw pointers")]

use std::{
    ffi::{CStr, CString, OsStr, c_int, c_void},
    mem::size_of,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    ptr,
};

use rusqlite::ffi;

use crate::disk::{Code, Disk, Real};

/// Calls a method of the default VFS's file behind `$file`.
macro_rules! forward {
    ($file:expr, $method:ident($($argument:expr),*)) => {{
        let real = real_of($file);
        let method = (*(*real).pMethods).$method.expect("the default VFS has every method of version 2");
        method(real $(, $argument)*)
    }};
}

/// What hangs on the registered VFS; lives for ever.
struct Registered {
    disk: &'static Disk,
    real: *mut ffi::sqlite3_vfs,
}

/// Our part of an open file; the default VFS's own `sqlite3_file` follows it in the same allocation.
#[repr(C, align(8))]
struct ShimFile {
    base: ffi::sqlite3_file,
    disk: Option<&'static Disk>,
    /// A leaked `PathBuf`, given back in `close`; null for temporary files, which no power loss needs.
    path: *mut PathBuf,
}

/// Registers the VFS.
pub(crate) fn register(disk: &'static Disk, name: &str) {
    let name = CString::new(name)
        .expect("a VFS name has no zero byte")
        .into_raw();
    // SAFETY: `sqlite3_vfs_find(NULL)` is the default VFS, which is never freed; the copy and everything it points to
    // are leaked, as SQLite wants of a registered VFS.
    unsafe {
        let real = ffi::sqlite3_vfs_find(ptr::null());
        assert!(!real.is_null(), "SQLite has a default VFS");
        let registered = Box::leak(Box::new(Registered { disk, real }));
        // What is not overridden is inherited: the default VFS's other functions do not look at the VFS they are given.
        let mut vfs = *real;
        vfs.pNext = ptr::null_mut();
        vfs.zName = name;
        vfs.szOsFile = int(size_of::<ShimFile>()) + (*real).szOsFile;
        vfs.pAppData = ptr::from_mut(registered).cast();
        vfs.xOpen = Some(open);
        vfs.xDelete = Some(delete);
        let code = ffi::sqlite3_vfs_register(Box::leak(Box::new(vfs)), 0);
        assert_eq!(code, ffi::SQLITE_OK, "SQLite takes the VFS");
    }
}

/// The default VFS's file behind ours.
///
/// # Safety
/// `file` was opened by [`open`].
unsafe fn real_of(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: `szOsFile` made room for both, ours first; the size of an `align(8)` struct keeps the alignment.
    unsafe { file.cast::<u8>().add(size_of::<ShimFile>()).cast() }
}

/// The disk and path of a file; `None` for temporary ones.
///
/// # Safety
/// `file` was opened by [`open`] and is not closed.
unsafe fn tracked<'a>(file: *mut ffi::sqlite3_file) -> Option<(&'static Disk, &'a Path)> {
    // SAFETY: as above; `path` is null or from `Box::into_raw`.
    unsafe {
        let shim = &*file.cast::<ShimFile>();
        let path = shim.path.as_ref()?;
        Some((shim.disk?, path.as_path()))
    }
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite hands in our VFS, and `szOsFile` bytes for the file.
    unsafe {
        let registered = &*(*vfs).pAppData.cast::<Registered>();
        let real = real_of(file);
        (*real).pMethods = ptr::null();
        (*file).pMethods = ptr::null();
        let open = (*registered.real).xOpen.expect("every VFS opens");
        let code = open(registered.real, name, real, flags, out_flags);
        if code != ffi::SQLITE_OK {
            if !(*real).pMethods.is_null()
                && let Some(close) = (*(*real).pMethods).xClose
            {
                close(real);
            }
            return code;
        }
        let path = if name.is_null() {
            ptr::null_mut()
        } else {
            Box::into_raw(Box::new(path_of(name)))
        };
        file.cast::<ShimFile>().write(ShimFile {
            base: ffi::sqlite3_file { pMethods: &METHODS },
            disk: Some(registered.disk),
            path,
        });
        code
    }
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const std::ffi::c_char, sync: c_int) -> c_int {
    // SAFETY: SQLite hands in our VFS and a C string.
    unsafe {
        let registered = &*(*vfs).pAppData.cast::<Registered>();
        let delete = (*registered.real).xDelete.expect("every VFS deletes");
        let forward = || delete(registered.real, name, sync);
        registered
            .disk
            .delete(&path_of(name), forward)
            .unwrap_or(ffi::SQLITE_IOERR_DELETE)
    }
}

unsafe fn path_of(name: *const std::ffi::c_char) -> PathBuf {
    // SAFETY: a C string, by the callers.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes();
    PathBuf::from(OsStr::from_bytes(bytes))
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: opened by `open`; closed once.
    unsafe {
        let code = forward!(file, xClose());
        let shim = file.cast::<ShimFile>();
        if !(*shim).path.is_null() {
            drop(Box::from_raw((*shim).path));
            (*shim).path = ptr::null_mut();
        }
        code
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    length: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite hands in a file of ours and `length` bytes.
    unsafe {
        match tracked(file) {
            None => forward!(file, xWrite(bytes, length, at)),
            Some((disk, path)) => {
                let bytes =
                    std::slice::from_raw_parts(bytes.cast::<u8>(), usize::try_from(length).unwrap_or(0));
                disk.write(path, &mut Below(file), unsigned(at), bytes)
                    .unwrap_or(ffi::SQLITE_IOERR_WRITE)
            }
        }
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    // SAFETY: a file of ours.
    unsafe {
        match tracked(file) {
            None => forward!(file, xTruncate(size)),
            Some((disk, path)) => disk
                .truncate(path, &mut Below(file), unsigned(size))
                .unwrap_or(ffi::SQLITE_IOERR_TRUNCATE),
        }
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: a file of ours.
    unsafe {
        match tracked(file) {
            None => forward!(file, xSync(flags)),
            // The real disk need not sync: this one only pretends to lose its power.
            Some((disk, path)) => match disk.sync(path) {
                Ok(()) => ffi::SQLITE_OK,
                Err(_refused) => ffi::SQLITE_IOERR_FSYNC,
            },
        }
    }
}

/// The real file below one of ours, for the time of one call.
struct Below(*mut ffi::sqlite3_file);

impl Real for Below {
    fn size(&mut self) -> u64 {
        let mut size = 0;
        // SAFETY: the file is open while SQLite calls us.
        unsafe { forward!(self.0, xFileSize(&mut size)) };
        unsigned(size)
    }

    fn read(&mut self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0u8; length];
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        if length > 0 {
            // SAFETY: as above, and the buffer has `length` bytes.
            unsafe { forward!(self.0, xRead(bytes.as_mut_ptr().cast(), int(length), at)) };
        }
        bytes
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Code {
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        // SAFETY: as above.
        unsafe { forward!(self.0, xWrite(bytes.as_ptr().cast(), int(bytes.len()), at)) }
    }

    fn truncate(&mut self, size: u64) -> Code {
        // SAFETY: as above.
        unsafe { forward!(self.0, xTruncate(i64::try_from(size).unwrap_or(i64::MAX))) }
    }
}

/// Methods that only forward.
macro_rules! passed_on {
    ($($name:ident = $method:ident($($argument:ident: $kind:ty),*) -> $out:ty;)*) => {
        $(unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file $(, $argument: $kind)*) -> $out {
            // SAFETY: SQLite hands in a file of ours; the arguments are as the real method wants them.
            unsafe { forward!(file, $method($($argument),*)) }
        })*
    };
}

passed_on! {
    read = xRead(bytes: *mut c_void, length: c_int, at: ffi::sqlite3_int64) -> c_int;
    file_size = xFileSize(size: *mut ffi::sqlite3_int64) -> c_int;
    lock = xLock(level: c_int) -> c_int;
    unlock = xUnlock(level: c_int) -> c_int;
    check_reserved_lock = xCheckReservedLock(out: *mut c_int) -> c_int;
    file_control = xFileControl(op: c_int, argument: *mut c_void) -> c_int;
    sector_size = xSectorSize() -> c_int;
    device_characteristics = xDeviceCharacteristics() -> c_int;
    shm_map = xShmMap(page: c_int, size: c_int, extend: c_int, out: *mut *mut c_void) -> c_int;
    shm_lock = xShmLock(offset: c_int, count: c_int, flags: c_int) -> c_int;
    shm_barrier = xShmBarrier() -> ();
    shm_unmap = xShmUnmap(delete: c_int) -> c_int;
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // 2: shared memory, but no memory-mapped reads, which would go past us.
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

fn int(number: usize) -> c_int {
    c_int::try_from(number).expect("sizes of SQLite's IO fit an int")
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
