//! What custom nodes bring to the page beside their scripts: styles, fonts, pictures. ComfyUI lists scripts alone; the others
//! lie in the same directory of an installation of this machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::service::scripts::web_type;

/// How deep a node pack's web directory lies in it, at most: `web/js` is two.
const DEEPEST_WEB_DIRECTORY: usize = 3;
/// How deep files lie in a web directory, at most.
const DEEPEST_FILE: usize = 8;
/// Files of an installation, and directories of one pack that are looked at: bundles of whole applications have hundreds.
const MOST: usize = 5_000;

/// A file of the page.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WebFile {
    /// Its path below `/extensions/`.
    pub path: String,
    /// Where it lies.
    pub source: PathBuf,
}

/// The files beside these scripts (paths below `/extensions/`) in the node packs that lie there. Reads directories: not for
/// the runtime's threads.
pub(super) fn beside(scripts: &[String], custom_nodes: &Path) -> Vec<WebFile> {
    let mut packs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (pack, script) in scripts.iter().filter_map(|path| path.split_once('/')) {
        packs.entry(pack).or_default().insert(script);
    }
    let mut found = Vec::new();
    for (pack, scripts) in packs {
        let root = custom_nodes.join(pack);
        let mut looked_at = 0;
        let Some(web) = web_directory(&root, &scripts, 0, &mut looked_at) else {
            continue;
        };
        gather(&web, pack, 0, &mut found);
    }
    found.retain(|file| !scripts.contains(&file.path));
    found
}

/// The directory that holds all of these scripts; the one that lies highest.
fn web_directory(
    at: &Path,
    scripts: &BTreeSet<&str>,
    depth: usize,
    looked_at: &mut usize,
) -> Option<PathBuf> {
    *looked_at += 1;
    if scripts.iter().all(|script| at.join(script).is_file()) {
        return Some(at.to_owned());
    }
    if depth == DEEPEST_WEB_DIRECTORY || *looked_at > MOST {
        return None;
    }
    let below = entries(at).into_iter().filter(|(_, kind)| kind.is_dir());
    below
        .map(|(path, _)| path)
        .find_map(|path| web_directory(&path, scripts, depth + 1, looked_at))
}

/// What a page may have, below a directory. Links are not followed: they may lead out of the installation.
fn gather(at: &Path, name: &str, depth: usize, found: &mut Vec<WebFile>) {
    for (path, kind) in entries(at) {
        let Some(last) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let name = format!("{name}/{last}");
        if found.len() == MOST {
            return;
        }
        if kind.is_dir() && depth < DEEPEST_FILE {
            gather(&path, &name, depth + 1, found);
        } else if kind.is_file() && web_type(last).is_some() {
            found.push(WebFile {
                path: name,
                source: path,
            });
        }
    }
}

/// Without hidden ones, in the order of their names.
fn entries(at: &Path) -> Vec<(PathBuf, std::fs::FileType)> {
    let listed = std::fs::read_dir(at).into_iter().flatten().filter_map(Result::ok);
    let mut all: Vec<_> = listed
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .filter_map(|entry| Some((entry.path(), entry.file_type().ok()?)))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beside_a_packs_scripts_is_found_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let path = home.path().join("custom_nodes").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        };
        for path in [
            "pack/nodes.py",
            "pack/style.css",
            "pack/web/js/main.js",
            "pack/web/js/parts/more.js",
            "pack/web/js/style.css",
            "pack/web/js/fonts/f.woff2",
            "pack/web/js/helper.py",
            "pack/web/js/.hidden.css",
            "other/web/pic.png",
        ] {
            put(path);
        }
        let outside = home.path().join("secret.json");
        std::fs::write(&outside, "x").unwrap();
        let link = home.path().join("custom_nodes/pack/web/js/link.json");
        std::os::unix::fs::symlink(outside, link).unwrap();
        let scripts = ["pack/main.js", "pack/parts/more.js", "gone/a.js"].map(str::to_owned);
        let custom_nodes = home.path().join("custom_nodes");
        let found = beside(&scripts, &custom_nodes);
        let paths: Vec<&str> = found.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["pack/fonts/f.woff2", "pack/style.css"]);
        assert!(found[1].source.ends_with("web/js/style.css"));
        assert!(beside(&["pack/none.js".to_owned()], &custom_nodes).is_empty());
    }
}
