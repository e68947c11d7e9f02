//! A wheel, or any zip, with a ComfyUI page in it becomes a directory. Nothing in the archive chooses where a file goes:
//! names are checked, sizes are bounded, and links are left out.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use zip::{CompressionMethod, ZipArchive, read::ZipFile};

use super::{Error, PLACES};

/// Files of a page; ComfyUI's has 1,700.
const MOST_FILES: usize = 20_000;
/// Bytes of a page, unpacked; ComfyUI's has 124 MB.
const MOST_BYTES: u64 = 1 << 30;
/// Smaller files are sent as they are: a packet holds them.
const WORTH_COMPRESSING: u64 = 1_400;
/// Kinds of files that the archive holds much smaller than they are.
const TEXTS: &[&str] = &["js", "mjs", "css", "html", "json", "svg", "map", "wasm", "txt"];

/// Unpacks `archive` into a directory of its own below `root`, named after its content, unless it is there already. Blocks.
///
/// # Errors
/// When it cannot be read, holds no page, or is too large.
pub fn unpack(archive: &Path, root: &Path) -> Result<PathBuf, Error> {
    let unreadable = |source| Error::Unreadable {
        path: archive.to_owned(),
        source,
    };
    let file = File::open(archive).map_err(unreadable)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&file).map_err(unreadable)?;
    let target = root.join(&hasher.finalize().to_hex()[..32]);
    let broken = |source| Error::Broken {
        path: archive.to_owned(),
        source,
    };
    let mut zip = ZipArchive::new(file).map_err(broken)?;
    let prefix = prefix(&zip).ok_or_else(|| Error::NoPage {
        path: archive.to_owned(),
    })?;
    let files = files(&mut zip, prefix).map_err(broken)?;
    let bytes: u64 = files.iter().map(|file| file.size).sum();
    if files.len() > MOST_FILES || bytes > MOST_BYTES {
        return Err(Error::TooLarge {
            path: archive.to_owned(),
        });
    }
    // A power cut can leave files shorter than they were written.
    let whole = |file: &Entry| {
        fs::metadata(target.join(&file.name)).is_ok_and(|found| found.is_file() && found.len() == file.size)
    };
    if files.iter().all(whole) {
        return Ok(target);
    }
    let unwritable = |source| Error::Unwritable {
        path: root.to_owned(),
        source,
    };
    let part = target.with_extension("part");
    for left in [&part, &target] {
        if left.exists() {
            fs::remove_dir_all(left).map_err(unwritable)?;
        }
    }
    for file in &files {
        let path = part.join(&file.name);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(unwritable)?;
        }
        let entry = zip.by_index(file.index).map_err(broken)?;
        write(entry, file.size, &path).map_err(unwritable)?;
        if file.worth_compressing {
            let entry = zip.by_index_raw(file.index).map_err(broken)?;
            write_gzip(entry, &with_gz(&path)).map_err(unwritable)?;
        }
    }
    fs::rename(&part, &target).map_err(unwritable)?;
    Ok(target)
}

/// A file that is to be unpacked.
struct Entry {
    index: usize,
    /// Its path below the page's directory.
    name: PathBuf,
    size: u64,
    worth_compressing: bool,
}

/// Where in the archive the page lies.
fn prefix(zip: &ZipArchive<File>) -> Option<&'static str> {
    PLACES
        .iter()
        .find(|place| zip.index_for_name(&format!("{place}index.html")).is_some())
        .copied()
}

fn files(zip: &mut ZipArchive<File>, prefix: &str) -> Result<Vec<Entry>, zip::result::ZipError> {
    let mut files = Vec::new();
    for index in 0..zip.len() {
        let entry = zip.by_index_raw(index)?;
        // A name that is no text is none of a page's.
        let Some(name) = entry
            .name()
            .ok()
            .and_then(|name| safe(name.strip_prefix(prefix)?))
        else {
            continue;
        };
        if !entry.is_file() || entry.is_symlink() || entry.encrypted() {
            continue;
        }
        let extension = name.extension().and_then(|e| e.to_str()).unwrap_or_default();
        files.push(Entry {
            index,
            size: entry.size(),
            worth_compressing: entry.compression() == CompressionMethod::Deflated
                && entry.size() >= WORTH_COMPRESSING
                && TEXTS.contains(&extension),
            name,
        });
    }
    Ok(files)
}

/// A relative path of plain names; `None` for anything that could lead elsewhere, here or on another system.
fn safe(name: &str) -> Option<PathBuf> {
    let is_plain = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && !part.contains(['\\', ':', '\0'])
            && part.len() <= 200
    };
    name.split('/').all(is_plain).then(|| PathBuf::from(name))
}

/// Never more than was announced, whatever the archive holds.
fn write(mut entry: ZipFile<'_, File>, size: u64, path: &Path) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    let written = io::copy(&mut entry.by_ref().take(size), &mut file)?;
    match written == size {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is shorter than the archive says", path.display()),
        )),
    }
}

/// The archive's own compressed bytes as a gzip file (RFC 1952): both hold the same deflate stream.
fn write_gzip(mut entry: ZipFile<'_, File>, path: &Path) -> io::Result<()> {
    let (crc, size, packed) = (entry.crc32(), entry.size(), entry.compressed_size());
    let mut file = File::create_new(path)?;
    file.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])?;
    io::copy(&mut entry.by_ref().take(packed), &mut file)?;
    file.write_all(&crc.to_le_bytes())?;
    // The length modulo 2^32, as the format has it.
    file.write_all(&(size as u32).to_le_bytes())
}

fn with_gz(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

#[cfg(test)]
mod tests {
    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    /// An archive of these files, each deflated.
    pub fn archive(path: &Path, files: &[(&str, &[u8])]) {
        let mut zip = ZipWriter::new(File::create(path).unwrap());
        for (name, bytes) in files {
            let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
            zip.start_file(*name, options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
    }

    #[test]
    fn the_page_of_a_wheel_becomes_a_directory_and_nothing_leaves_it() {
        let home = tempfile::tempdir().unwrap();
        let wheel = home.path().join("page.whl");
        let script = b"let a = 1;\n".repeat(1_000);
        archive(
            &wheel,
            &[
                ("comfyui_frontend_package/__init__.py", b"code"),
                ("comfyui_frontend_package/static/index.html", b"<p>page</p>"),
                ("comfyui_frontend_package/static/assets/a.js", &script),
                ("comfyui_frontend_package/static/../../../escaped.txt", b"x"),
                ("comfyui_frontend_package/static//etc/escaped.txt", b"x"),
                ("comfyui_frontend_package/static/..\\escaped.txt", b"x"),
                ("/escaped.txt", b"x"),
            ],
        );
        let root = home.path().join("frontend");
        let page = unpack(&wheel, &root).unwrap();
        assert_eq!(page.parent(), Some(&*root));
        assert_eq!(fs::read(page.join("index.html")).unwrap(), b"<p>page</p>");
        assert_eq!(fs::read(page.join("assets/a.js")).unwrap(), script);
        let mut unzipped = Vec::new();
        let zipped = File::open(page.join("assets/a.js.gz")).unwrap();
        flate2::read::GzDecoder::new(zipped)
            .read_to_end(&mut unzipped)
            .unwrap();
        assert_eq!(unzipped, script);
        let mut names: Vec<String> = fs::read_dir(&page)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["assets", "index.html"]);
        assert!(!home.path().join("escaped.txt").exists());

        // What a power cut left short is unpacked again; what is whole is not.
        let left = page.join("untouched");
        fs::write(&left, "").unwrap();
        assert_eq!(unpack(&wheel, &root).unwrap(), page);
        assert!(left.exists());
        fs::write(page.join("assets/a.js"), "").unwrap();
        assert_eq!(unpack(&wheel, &root).unwrap(), page);
        assert_eq!(fs::read(page.join("assets/a.js")).unwrap(), script);
        assert!(!left.exists());
    }

    #[test]
    fn what_is_no_page_is_refused_by_name() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("other.zip");
        archive(&path, &[("README.md", b"hello")]);
        let root = home.path().join("frontend");
        assert!(matches!(unpack(&path, &root), Err(Error::NoPage { .. })));
        fs::write(&path, "no archive").unwrap();
        assert!(matches!(unpack(&path, &root), Err(Error::Broken { .. })));
        let missing = home.path().join("missing.whl");
        assert!(matches!(unpack(&missing, &root), Err(Error::Unreadable { .. })));
        assert!(!root.exists());
    }
}
